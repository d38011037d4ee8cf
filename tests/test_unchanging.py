"""What a guard has checked stays so: no memory shared with what a caller can write, read-only through copy and pickle."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import mmap
import pickle
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mdpsim
from mdpsim import MDP, BestOfN, Counts, DiscountedMDP, LinearMDP, Preferences, Responses, Successors, TokenMDP, Trajectories
from mdpsim.arrays import as_floats, as_integers, as_numbers, as_simplex, frozen, shareable
from mdpsim.kernels import bellman
from mdpsim.memory import SMALL, empty

H, S, A = 2, 4, 3
RNG = np.random.default_rng(0)
P, R, PI = RNG.dirichlet(np.ones(S), (H, S, A)), RNG.random((H, S, A)), RNG.dirichlet(np.ones(A), (H, S))
MU0 = np.full(S, 0.25)
PHI, MU = RNG.dirichlet(np.ones(2), (S, A)), RNG.dirichlet(np.ones(S), (H, 2))


# --- memory that a caller can still write ----------------------------------------------------------------------------


def test_a_start_given_as_a_series_stays_as_it_was() -> None:
    mu0 = pd.Series([0.25] * 4)
    mdp = MDP(P, R, mu0)
    J = mdpsim.evaluate(mdp, PI).J
    mu0.iloc[0] = 5.0
    assert mdp.mu0.tolist() == [0.25] * 4
    assert mdpsim.evaluate(mdp, PI).J == J


def test_responses_given_as_columns_stay_as_they_were() -> None:
    df = pd.DataFrame({"r": [1.0, 2.0, 3.0], "p": [0.2, 0.3, 0.5]})
    space = Responses(df["r"], df["p"])
    df.loc[0, "p"], df.loc[0, "r"] = 9.0, 9.0
    assert space.pi_ref.tolist() == [0.2, 0.3, 0.5]
    assert space.r.tolist() == [1.0, 2.0, 3.0]
    assert np.allclose(BestOfN(2).law(space, space.pi_ref), [0.2**2, 0.5**2 - 0.2**2, 1 - 0.5**2])


def test_labels_given_as_a_column_stay_as_they_were() -> None:
    episode = Trajectories(np.zeros((2, 2), int), np.zeros((2, 1), int), np.zeros((2, 1)), S=1, A=2)
    df = pd.DataFrame({"lab": [1, 0]})
    prefs = Preferences(episode, episode, df["lab"])
    df.loc[1, "lab"] = 7
    assert prefs.label.tolist() == [1, 0]


def test_episodes_given_as_frames_stay_as_they_were() -> None:
    df = pd.DataFrame({"a": [0, 1, 1], "r": [1.0, 2.0, 3.0]})
    demos = Trajectories(np.zeros((3, 2), int), df[["a"]], df[["r"]], S=1, A=2)
    df.loc[:, "a"], df.loc[:, "r"] = 0, 0.0
    assert demos.rewards[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert np.allclose(mdpsim.fit_bc(demos, smoothing=0.0), [[[1 / 3, 2 / 3]]])


class Mine(np.ndarray):
    """A subclass of numpy's array."""


def sealed(a: np.ndarray) -> np.ndarray:
    """A read-only view of an array that stays writable."""
    view = a.view()
    view.flags.writeable = False
    return view


def foreign(tmp_path: Path) -> Iterator[tuple[str, Any, Any]]:
    """(name, what is given, what is written to afterwards): read-only float64 arrays [4] of other people's memory."""
    one, two = np.full(4, 0.25), np.full(4, 0.25)
    yield "a view", sealed(one), one
    yield "a view of a view", sealed(sealed(two)[:]), two
    held = bytearray(one.size * one.itemsize)
    np.frombuffer(held)[:] = 0.25
    yield "a buffer", sealed(np.frombuffer(held)), np.frombuffer(held)
    np.frombuffer(held)[:] = 0.25
    yield "a memory view", np.frombuffer(memoryview(held).toreadonly()), np.frombuffer(held)
    own = np.full(4, 0.25).view(Mine)
    given = own.view()
    given.flags.writeable = False
    yield "a subclass", given, own
    np.save(tmp_path / "x.npy", np.full(4, 0.25))
    yield "a file", np.load(tmp_path / "x.npy", mmap_mode="r"), np.load(tmp_path / "x.npy", mmap_mode="r+")
    shared = mmap.mmap(-1, 32)
    writable = np.frombuffer(shared)
    writable[:] = 0.25
    yield "shared memory", sealed(writable), writable
    writable[:] = 0.25
    dictionary = {"__array_interface__": dict(writable.__array_interface__, data=(writable.ctypes.data, True))}
    yield "an interface", type("Foreign", (), dictionary)(), writable


def test_no_guard_shares_memory_that_somebody_can_write(tmp_path: Path) -> None:
    for name, given, behind in foreign(tmp_path):
        kept = [as_floats("f", "x", given, "n", (4,)), as_simplex("f", "x", given, "n", (4,)), as_numbers("f", "x", given)]
        behind[...] = 7.0
        for array in kept:
            assert array.tolist() == [0.25] * 4, name
            assert not array.flags.writeable


def test_tensors_are_copied() -> None:
    torch = pytest.importorskip("torch")
    weights = torch.full((4,), 0.25, dtype=torch.float64)
    kept = as_floats("f", "x", weights, "n", (4,))
    weights[:] = 7.0
    assert kept.tolist() == [0.25] * 4
    with pytest.raises(ValueError, match=r"f: x must have shape \[n\] = \(4,\); got Tensor \(Can't call numpy\(\) on"):
        as_floats("f", "x", weights.requires_grad_(), "n", (4,))


def test_integers_are_copied() -> None:
    whole = np.arange(4)
    kept = as_integers("f", "x", sealed(whole), "n", (4,), 4)
    whole[:] = 9
    assert kept.tolist() == [0, 1, 2, 3]


def test_what_nobody_can_write_is_shared() -> None:
    """Large transitions are not copied again and again: an owner that is read-only, its views, a record's own arrays."""
    own = frozen(np.full((2, 4), 0.25))
    mdp, lent = MDP(P, R, MU0), empty((2, SMALL))
    lent[:] = 1.0
    assert not shareable(lent)
    for a in (own, own[1], own.reshape(-1), mdp.P, mdp.P[0], mdp.r[1:], frozen(lent), lent[1]):
        assert shareable(a)
        assert np.shares_memory(as_numbers("f", "x", a), a)
    assert MDP(mdp.P, mdp.r, mdp.mu0).P is mdp.P
    assert not shareable(np.full(4, 0.25))


# --- copies ----------------------------------------------------------------------------------------------------------


ROOMS = ("mdp", "solve", "estimate", "learn", "align", "lm")
# What the kernels see of a record, made anew at each call; a language model, whose weights can be trained.
OTHERS = {"Form", "Reference"}


def classes() -> list[type]:
    """Every public record of the library: a frozen dataclass or NamedTuple whose annotations name arrays or such records."""
    found: dict[str, type] = {}
    for room in ROOMS:
        package = importlib.import_module(f"mdpsim.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"mdpsim.{room}."):
            if room == "lm" and importlib.util.find_spec("torch") is None:
                continue
            for name, cls in vars(importlib.import_module(module.name)).items():
                tuples = isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")
                if (tuples or (isinstance(cls, type) and dataclasses.is_dataclass(cls))) and not name.startswith("_"):
                    found[f"{cls.__module__}.{name}"] = cls
    arrays = {name for name, cls in found.items() if any("Array" in str(t) or "ndarray" in str(t) for t in hints(cls))}
    inner = {found[name].__name__ for name in arrays}
    whole = {n for n, cls in found.items() if n in arrays or any(str(t) in inner for t in hints(cls))}
    return [cls for name, cls in sorted(found.items()) if name in whole and cls.__name__ not in OTHERS]


def hints(cls: type) -> list[Any]:
    """The annotations of its fields, but for functions of arrays and arguments of a run."""
    given = getattr(cls, "__annotations__", {})
    return [t for t in given.values() if "Callable" not in str(t) and "ArrayLike" not in str(t)]


def fields(x: Any) -> dict[str, Any]:
    return x._asdict() if isinstance(x, tuple) else dict(x.__dict__)


def arrays_in(x: Any) -> Iterator[np.ndarray]:
    if isinstance(x, np.ndarray):
        yield x
    elif isinstance(x, tuple | list):
        for y in x:
            yield from arrays_in(y)
    elif isinstance(x, dict) or hasattr(x, "__dict__"):
        for y in (x if isinstance(x, dict) else vars(x)).values():
            yield from arrays_in(y)


def copies(x: Any) -> Iterator[Any]:
    yield copy.deepcopy(x)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(x, protocol=protocol))


def check_copies(x: Any) -> None:
    given = list(arrays_in(x))
    assert given
    assert copy.copy(x) is x
    for made in copies(x):
        assert type(made) is type(x)
        found = list(arrays_in(made))
        assert len(found) == len(given)
        for one, two in zip(given, found, strict=True):
            assert np.array_equal(one, two)
            assert (one.dtype, one.shape, one.flags.c_contiguous) == (two.dtype, two.shape, two.flags.c_contiguous)
            assert shareable(two), "a kernel would be compiled again, and anybody could write"
            assert not np.shares_memory(one, two)


def test_the_copies_of_every_record_are_read_only() -> None:
    """All classes there are, filled with arrays, tuples of arrays and dicts of arrays in the place of what they hold."""
    seen = classes()
    assert len(seen) > 45
    for cls in seen:
        names = list(getattr(cls, "_fields", ())) or [f.name for f in dataclasses.fields(cls)]
        kinds = [frozen(np.arange(6.0).reshape(2, 3)), (frozen(np.arange(3)), 5.0), {"a": frozen(np.ones(2))}]
        values = {name: kinds[i % 3] for i, name in enumerate(names)}
        if issubclass(cls, tuple):
            check_copies(cls(**values))
        else:
            made = object.__new__(cls)
            for name, value in values.items():
                object.__setattr__(made, name, value)
            check_copies(made)


def records() -> Iterator[Any]:
    mdp = MDP(P, R, MU0)
    yield mdp
    yield MDP(Successors(np.zeros((1, S, A, 1), int), np.ones((1, S, A, 1))), R, MU0)
    yield LinearMDP(PHI, MU, np.ones((H, 2)), MU0)
    yield TokenMDP(RNG.random((2, 4)), vocabulary=2, length=2)
    yield DiscountedMDP(P[0], R[0], 0.9)
    yield mdpsim.solve_soft(mdp, PI, 0.5)
    yield mdpsim.evaluate(mdp, PI)
    yield mdpsim.sample(mdp, PI, 5, 0)
    yield mdpsim.sample_counts(mdp, PI, 5, 0)
    prefs = mdpsim.sample_preferences(mdp, PI, PI, 20, 0)
    yield prefs
    yield mdpsim.fit_reward(prefs)
    space = Responses([1.0, 2.0, 2.0], [0.2, 0.3, 0.5])
    assert space.C.size == 3  # kept in the record, once it has been asked for
    yield space


@pytest.mark.parametrize("x", list(records()), ids=lambda x: type(x).__name__)
def test_copies_of_records_cannot_be_written_and_solve_alike(x: Any) -> None:
    check_copies(x)
    for made in copies(x):
        assert repr(made) == repr(x)
        for array in arrays_in(made):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 7
        if isinstance(x, MDP):
            before = len(bellman.soft_induction.signatures)
            assert np.array_equal(mdpsim.solve_soft(made, PI, 0.5).Q, mdpsim.solve_soft(x, PI, 0.5).Q)
            assert len(bellman.soft_induction.signatures) == before
        if isinstance(x, Counts):
            assert np.array_equal(mdpsim.fit_bc(made), mdpsim.fit_bc(x))


def test_pairs_made_by_hand_are_copied_and_sealed() -> None:
    """Nothing of the caller's becomes read-only behind his back, and nothing he does later changes them."""
    mine = np.array([0, 0])
    pairs = mdpsim.Pairs(mine, np.array([0, 1]), np.array([1, 0]))
    assert not copy.deepcopy(pairs).context.flags.writeable
    mine[0] = 1
    assert pairs.context.tolist() == [0, 0]


def test_an_array_that_is_copied_beside_a_record_stays_writable() -> None:
    mine = frozen(np.array([0, 0]))
    pairs = mdpsim.Pairs(mine, mine, mine)
    beside, _ = copy.deepcopy((mine, pairs))
    beside[0] = 1
