"""Input that numpy would bend into numbers is refused, and the message says what to do (test_guards walks the arguments)."""

from __future__ import annotations

import copy
import pickle
import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import mdpsim
from mdpsim import MDP, Counts, Preferences, Trajectories
from mdpsim.arrays import as_beta, as_floats, as_integers, as_numbers, as_real

S, A = 3, 2
P, R, MU0 = np.full((1, S, A, S), 1 / S), np.zeros((1, S, A)), np.full(S, 1 / S)
EPISODE = Trajectories(np.zeros((2, 2), int), np.zeros((2, 1), int), np.zeros((2, 1)), S=1, A=2)


def test_a_mask_that_is_set_is_refused_wherever_it_is() -> None:
    hidden = np.ma.masked_array([1.0, 999.0, 2.0], mask=[0, 1, 0])
    for given in (hidden, [hidden], [[hidden], [hidden]], (hidden, hidden), [1.0, np.ma.masked, 2.0]):
        with pytest.raises(ValueError, match="^f: x must have no mask that is set: fill or drop what is masked; got a masked "):
            as_numbers("f", "x", given)
    with pytest.raises(ValueError, match="^calibrate: r must have no mask"):
        mdpsim.calibrate(hidden, np.full(3, 1 / 3))
    with pytest.raises(ValueError, match="^tilt: r must have no mask"):
        mdpsim.tilt(np.full(3, 1 / 3), hidden, 1.0)
    with pytest.raises(ValueError, match="^MDP: r must have no mask"):
        MDP(P, np.ma.masked_array(R, mask=R == 0.0), MU0)


def test_a_mask_that_hides_nothing_is_no_mask() -> None:
    assert as_floats("f", "x", np.ma.masked_array([1.0, 2.0]), "n", (2,)).tolist() == [1.0, 2.0]
    assert type(as_numbers("f", "x", np.ma.masked_array([1.0], mask=[False]))) is np.ndarray


@pytest.mark.parametrize(
    "given",
    [[1j], ["1"], [b"1"], np.zeros(1, "datetime64[D]"), np.zeros(1, "timedelta64[s]"), np.zeros(1, [("a", float)]), [None],
     [Fraction(1, 2)], np.zeros(1, np.longdouble) if np.dtype(np.longdouble) != np.float64 else [None]],
    ids=str,
)
def test_only_real_numbers_are_numbers(given: object) -> None:
    """Not even with a warning only: a complex array lost its imaginary part."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for guard in (as_numbers, lambda *x: as_floats(*x, "n", (1,))):
            with pytest.raises(ValueError, match="^f: x must hold real numbers that convert to float64 without .*; got dtype"):
                guard("f", "x", given)


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**64 - 1, 2**62 + 2])
def test_integers_that_float64_rounds_are_refused(value: int) -> None:
    """numpy calls the conversion of int64 safe, and gives another number."""
    assert int(float(value)) != value
    with pytest.raises(ValueError, match=f"^f: x must hold real numbers .*; got the integer {value}, beyond 2\\^53"):
        as_floats("f", "x", np.array([value, value]), "n", (2,))
    for given in ([[0, value], [1, 2]], [0.5, value], (np.array([value]), np.array([0.5])), [np.array([value]), np.array([1])]):
        with pytest.raises(ValueError, match=f"the integer {value}, beyond"):  # signed beside unsigned are floats to numpy
            as_numbers("f", "x", given)


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**62, -(2**63), 2**63])
def test_integers_that_float64_holds_are_kept(value: int) -> None:
    kept = as_floats("f", "x", np.array([value, value]), "n", (2,))
    assert [int(x) for x in kept] == [value, value]
    assert as_numbers("f", "x", [0.5, value, 1e300]).tolist() == [0.5, float(value), 1e300]


@pytest.mark.parametrize("guard", [lambda x: as_beta("f", x), lambda x: as_real("f", "beta", x, 0.0, 1.0)])
@pytest.mark.parametrize("value", [10**400, -(10**400), Fraction(10**400), 10**5000], ids=["large", "least", "ratio", "long"])
def test_numbers_beyond_float64_are_no_numbers(guard, value) -> None:
    with pytest.raises(ValueError, match=r"^f: beta must be a number in \[0, (inf|1)\]; got "):
        guard(value)
    with pytest.raises(ValueError, match="^solve_soft: beta must be a number"):
        mdpsim.solve_soft(MDP(P, R, MU0), np.full((1, S, A), 0.5), value)


WIDE = 10**6


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int8, np.uint64])
def test_views_that_no_memory_holds_are_named_at_once(dtype) -> None:
    """10^12 numbers at no cost: neither a MemoryError nor a minimum over all of them."""
    view = np.broadcast_to(np.zeros(1, dtype), (WIDE, WIDE))
    with pytest.raises(ValueError, match=r"^f: x must fit in memory; got shape \(1000000, 1000000\), 7451 GiB"):
        as_floats("f", "x", view, "n m", (None, None))
    with pytest.raises(ValueError, match=r"^f: x must have shape \[n, m\] = \(3, 3\); got \(1000000, 1000000\)"):
        as_floats("f", "x", view, "n m", (3, 3))
    if dtype is not np.float64:
        with pytest.raises(ValueError, match="^Trajectories: actions must fit in memory"):
            Trajectories(view, view, view, S=2, A=2)
        with pytest.raises(ValueError, match="^Counts: visits must fit in memory"):
            Counts(np.broadcast_to(view, (2, WIDE, WIDE)), 3)


def test_uint64_that_wraps_is_named_as_it_was_given() -> None:
    with pytest.raises(ValueError, match=r"^f: x must have entries in \[0, 4\); got 18446744073709551615"):
        as_integers("f", "x", np.array([2**64 - 1], np.uint64), "n", (1,), 4)


SINGLE = P.astype(np.float32) * np.float32(1.000001)


def listed(episodes: list[int]) -> pd.Series:
    """Actions as groupby gives them: a list an episode."""
    return pd.DataFrame({"e": episodes, "a": 1}).groupby("e")["a"].apply(list)



@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MDP(SINGLE, R, MU0), r"sum 1\.00000\d* in row .* \(of float32: renormalise in float64"),
        (lambda: MDP(sparse.csr_array(P[0, :, 0]), R, MU0), "a sparse csr_array .*Successors.from_csr or from_matrices"),
        (lambda: MDP(P * 0.0, R, MU0), r"only zeros in row \(0, 0, 0\) \(let a state that ends an episode lead to itself"),
        (lambda: MDP([sparse.csr_array(P[0, 0])], R, MU0), "a sparse csr_array .*Successors.from_csr or from_matrices"),
        (lambda: mdpsim.DiscountedMDP(P[0], R[0] - np.inf, 0.9), "r must be finite; got -inf .* MDP, or through from_matrices"),
        (lambda: Trajectories([[0, 0]], [["go"]], [[0]], S=1, A=2), r"dtype <U2 \(labels: np.unique"),
        (lambda: Preferences(EPISODE, EPISODE, [True, False]), r"got dtype bool \(x.astype\(int\) makes 0 and 1"),
        (lambda: Preferences(EPISODE, EPISODE, pd.Series([1.0, np.nan])), r"got dtype float64 .*; NaN is what is missing"),
        (lambda: Trajectories([[0, 0]], listed([0, 0]), [[0]], S=1, A=2), r"entries of type list \(make one array of them"),
        (lambda: Trajectories([[0, 0]], listed([0, 0, 1]), [[0]], S=1, A=2), "of one length H .*; got lengths from 1 to 2"),
    ],
)
def test_messages_say_what_to_do(make, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert len(str(error.value)) < 300


def test_reward_matrices_in_an_array_of_objects_are_read_as_the_transitions_are() -> None:
    """pymdptoolbox's way to hold one matrix an action, dense or sparse: the same MDP as from one array."""
    p, r = np.full((2, 3, 3), 1 / 3), np.arange(18.0).reshape(2, 3, 3)
    whole = mdpsim.from_matrices(p, r, gamma=0.9, layout="mdptoolbox").mdp
    for kind in (np.array, sparse.csr_array):
        held = [np.empty(2, object), np.empty(2, object)]
        for target, source in zip(held, (p, r), strict=True):
            target[:] = [kind(x) for x in source]
        found = mdpsim.from_matrices(*held, gamma=0.9).mdp
        assert np.allclose(found.r, whole.r, rtol=1e-15)
    assert np.allclose(whole.r, np.einsum("ast,ast->sa", p, r), rtol=1e-15)


def test_logarithms_of_a_law_are_guarded_too() -> None:
    mdp = mdpsim.TokenMDP(np.zeros((1, 4)), vocabulary=2, length=2)
    for bad in (np.full((1, 4), np.log(0.25), complex), np.ma.masked_less(np.log([[0.5, 0.1, 0.2, 0.2]]), -2.0), [["0"] * 4]):
        with pytest.raises(ValueError, match="^token_policy: log_prob must "):
            mdp.token_policy(bad)
    law = [0.5, 0.25, 0.25, 0.0]
    with np.errstate(divide="ignore"):
        assert np.allclose(mdp.token_policy([np.log(law)])[0, 0], [0.75, 0.25])


def test_a_view_of_a_copy_is_no_way_round() -> None:
    """A record made of a deep copy's array holds what was there."""
    one = copy.deepcopy(MDP(P, R, MU0))
    two = MDP(one.P, one.r, pickle.loads(pickle.dumps(MU0)))
    assert two.P is one.P
    assert two.mu0.tolist() == MU0.tolist()
