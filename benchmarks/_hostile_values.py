"""Wrong values for an argument, chosen by what a right one is: (label, how it is to be taken, the value).

How: ``same`` is another writing of the right value, whose result must be the same (or a refusal); ``never`` cannot be meant,
and a result from it is a silent wrong number; ``free`` may be right or wrong, and is only asked to end well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

import mdpsim

SAME, NEVER, FREE = "same", "never", "free"
Case = tuple[str, str, Any]
HUGE = 10**400
SEEDS = {"rng", "seed", "seeds", "rngs"}
ANYTHING = {"records", "table", "claim", "values", "env", "record"}  # arguments that take what is not listed by type below


class Sub(np.ndarray):
    """A subclass of arrays, as units and labels bring along."""


class Holder:
    """Something with __array__, as other libraries' arrays have."""

    def __init__(self, a: np.ndarray, error: Exception | None = None) -> None:
        self.a, self.error = a, error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.error:
            raise self.error
        return self.a


def _unaligned(a: np.ndarray) -> np.ndarray:
    raw = np.zeros(a.nbytes + 1, np.uint8)
    out = np.frombuffer(raw.data, dtype=a.dtype, count=a.size, offset=1).reshape(a.shape)
    out[...] = a
    return out


def _with(a: np.ndarray, where: int, value: Any, dtype: Any = None) -> np.ndarray:
    out = np.array(a, dtype=dtype or a.dtype)
    if out.size:
        out.flat[where] = value
    return out


def _nested(x: Any, change: Callable[[Any], Any]) -> Any:
    return [_nested(y, change) for y in x] if isinstance(x, list) else change(x)


def _representations(a: np.ndarray) -> Iterator[tuple[str, Any]]:
    yield "a list", a.tolist()
    yield "a tuple", tuple(a.tolist()) if a.ndim else a.item()
    yield "Fortran order", np.asfortranarray(a)
    if a.ndim:
        yield "strided", np.repeat(a, 2, axis=0)[::2]
        yield "backwards twice", np.ascontiguousarray(a[::-1])[::-1]
    yield "byte-swapped", a.astype(a.dtype.newbyteorder())
    yield "unaligned", _unaligned(a)
    yield "a subclass", a.view(Sub)
    yield "__array__", Holder(a)
    yield "no mask set", np.ma.masked_array(a, mask=False)
    read = a.copy()
    read.flags.writeable = False
    yield "read-only", read
    if 1 <= a.ndim <= 2:
        import pandas as pd

        yield "pandas", pd.Series(a, index=np.arange(len(a))[::-1]) if a.ndim == 1 else pd.DataFrame(a)
    if a.dtype.kind in "iu":
        for kind in (np.int8, np.uint8, np.int32, np.uint64):
            yield f"as {np.dtype(kind)}", a.astype(kind)


def _no_numbers(a: np.ndarray) -> Iterator[tuple[str, Any]]:
    for dtype in (complex, np.complex64, str, "S8", "datetime64[s]", "timedelta64[s]", [("x", float)]):
        name = "structures" if isinstance(dtype, list) else np.dtype(dtype).name
        yield f"dtype {name}", np.zeros(a.shape, dtype) if name[:4] in ("date", "time", "stru") else a.astype(dtype)
    yield "text as objects", a.astype(str).astype(object)
    yield "a list of text", _nested(a.tolist(), str)
    yield "a list of complex numbers", _nested(a.tolist(), complex)
    yield "a list of None", _nested(a.tolist(), lambda _: None)
    yield "a list of 10**400", _nested(a.tolist(), lambda _: HUGE)
    yield "a text", "1"
    yield "a word", "no such name"
    yield "bytes", b"1"
    yield "a dict", {0: a}
    yield "a set", {1.0, 2.0}
    yield "an object", object()
    yield "__array__ that fails", Holder(a, RuntimeError("no"))
    yield "a function", len
    yield "ragged", [[1.0, 2.0], [3.0]]
    for where in (0, -1):
        if a.size:
            yield f"masked at {where}", np.ma.masked_array(a, mask=_with(np.zeros(a.shape, bool), where, True))
            yield f"NaN at {where}", _with(a, where, np.nan, float)
    yield "masked everywhere", np.ma.masked_array(a, mask=True)
    yield "masked in a list", [np.ma.masked_array(x, mask=True) for x in a] if a.ndim else np.ma.masked
    if a.dtype.kind in "iu":
        for where in (0, -1):
            yield f"-1 at {where}", _with(a, where, -1)
            yield f"2^62 at {where}", _with(a, where, 2**62)
            yield f"a half at {where}", _with(a, where, 0.5, float)


def _other_shapes(a: np.ndarray) -> Iterator[tuple[str, Any]]:
    yield "an axis more", a[None]
    yield "an axis more behind", a[..., None]
    yield "a number", 1.0
    yield "none", None
    yield "one entry", np.ones((1,) * a.ndim, a.dtype)
    yield "empty list", []
    if a.ndim:
        yield "an axis fewer", a[0]
        yield "too long", np.concatenate([a, a], axis=-1)
        yield "too long in front", np.concatenate([a, a])
        yield "too short", a[..., :-1]
        yield "empty", a[..., :0]
        yield "empty in front", a[:0]
        yield "transposed", a.T
    for n in (1, 2, 3):
        yield f"1e6 wide view, {n} axes", np.broadcast_to(a.flat[0] if a.size else a.dtype.type(0), (10**6,) * n)
    wide = int(1e13 ** (1 / max(1, a.ndim)))
    yield "a view that no memory holds", np.broadcast_to(a.flat[0] if a.size else a.dtype.type(0), (wide,) * a.ndim)
    for value in (np.inf, -np.inf, -1.0, 1e308, -1e308, 5e-324, 2.0):
        for where in (0, -1):
            yield f"{value} at {where}", _with(a, where, value, float)
    for value in (0.0, 1.0, -1.0, 1e308, np.inf, -np.inf, 2.0**53):
        yield f"all {value}", np.full(a.shape, value)
    for kind in (bool, np.float16, np.float32, np.longdouble, object, np.int64):
        yield f"as {np.dtype(kind).name}", a.astype(kind)
    yield "integers beyond 2^53", np.full(a.shape, 2**53 + 1)


def arrays(a: np.ndarray) -> Iterator[Case]:
    """For an array, or a sequence of numbers."""
    yield from ((label, SAME, value) for label, value in _representations(a))
    yield from ((label, NEVER, value) for label, value in _no_numbers(a))
    yield from ((label, FREE, value) for label, value in _other_shapes(a))


def _no_scalar() -> Iterator[tuple[str, Any]]:
    for value in (np.nan, 1j, "1", "", "no such name", b"1", [], [1], (1,), {}, {1}, object(), len, int, np.ones(3), [[1]],
                  np.zeros((2, 2)), np.datetime64(1, "s"), np.timedelta64(1, "s"), np.ma.masked, np.complex128(1), np.str_("1"),
                  np.array("1"), np.array(1j), Decimal("NaN"), Ellipsis, NotImplemented, slice(1), range(3), iter([1])):
        yield f"{type(value).__name__} {str(value)[:20] if '0x' not in str(value) else ''}".strip(), value
    yield "10**400", HUGE
    yield "-10**400", -HUGE
    yield "5001 digits", 10**5000
    yield "a view of 1e12 numbers", np.broadcast_to(1.0, (10**6, 10**6))


def integers(good: int) -> Iterator[Case]:
    """For a size, a count, a number of something."""
    yield from ((f"numpy {k.__name__}", SAME, k(good)) for k in (np.int64, np.int32, np.int8, np.uint8,
        np.uint64) if good < 100)
    yield from ((label, NEVER, value) for label, value in _no_scalar())
    yield from ((repr(v), NEVER, v) for v in (-1, 1.5, -(2**63), np.inf, -np.inf, np.float64(1.5), np.int64(-1)))
    yield from ((repr(v), FREE, v) for v in (0, 1, 2, 3.0, 2**31, 2**53 + 1, 2**62, 2**63, 2**64, True, None, Decimal(3),
                                             Fraction(3), np.array(3), np.float32(3), np.bool_(True)))


def reals(good: float) -> Iterator[Case]:
    """For a weight, a level, a tolerance."""
    yield "numpy float64", SAME, np.float64(good)
    yield "a fraction", SAME, Fraction(good) if np.isfinite(good) else good
    yield from ((label, NEVER, value) for label, value in _no_scalar())
    yield from ((repr(v), FREE, v) for v in (0, 0.0, -0.0, 1, -1, -1.0, 0.5, 2.0, np.inf, -np.inf, 1e308, -1e308, 5e-324,
        1e-300,
                                             np.float32(good), True, None, Decimal(1), Fraction(1, 3), np.array(1.0), 2**62))


def texts(good: str) -> Iterator[Case]:
    """For a name or another text."""
    yield "numpy text", SAME, np.str_(good)
    yield from ((f"{type(v).__name__} {str(v)[:12]}", NEVER, v) for v in (3, -1, 1.5, np.nan, b"x", [], [good], (good,), {},
        {good},
                                                                       1j, len, np.ones(3), np.ma.masked, HUGE, True))
    yield "an object", NEVER, object()
    yield from ((repr(v)[:20], FREE, v) for v in ("", "no such name", good.upper(), good + " ", "x" * 10**5, "\0", "\ud800",
        "é",
                                                  "1", "nan", None, "../..", "\n", "{}", "%s"))


def flags(good: bool) -> Iterator[Case]:
    """For a choice between True and False."""
    yield "numpy", SAME, np.bool_(good)
    for v in ("no", "False", b"x", [], [1], {}, np.nan, 1j, 2, -1, 0.5, np.ones(3), np.ma.masked, object(), len, HUGE):
        yield f"{type(v).__name__} {str(v)[:8] if '0x' not in str(v) else ''}", NEVER, v
    yield from ((repr(v), FREE, v) for v in (0, 1, None, not good))


def seeds(good: Any) -> Iterator[Case]:
    """For a seed or a generator."""
    if isinstance(good, int):
        yield from ((f"numpy {k.__name__}", SAME, k(good)) for k in (np.int64, np.uint64))
        for v in (-1, 1.5, np.nan, np.inf, 1j, "x", "1", b"1", {}, object(), len, np.random.RandomState, np.random,
            np.ma.masked,
                  HUGE, 2**128, -(2**70), np.float64(1), np.ones(3), [-1], [1.5], ["1"]):
            yield f"{type(v).__name__} {str(v)[:12] if '0x' not in str(v) else ''}", NEVER, v
        for v in (np.random.default_rng(0), np.random.Generator(np.random.MT19937(0)), np.random.SeedSequence(1), None, True,
                  2**63, 2**127, [0], (0, 1), [], np.array(0), np.random.PCG64(0)):
            yield f"{type(v).__name__} {str(v)[:12] if '0x' not in str(v) else ''}", FREE, v
    else:
        yield from records(good)


def functions(good: Any) -> Iterator[Case]:
    """For a function that the user gives."""
    yield from ((f"{type(v).__name__} {str(v)[:8]}", NEVER, v) for v in (3, "x", [len], {}, np.nan, np.ones(3), HUGE, 1j))
    gives: dict[str, Any] = {"None": None, "text": "x", "NaN": np.nan, "complex": 1j, "a list": [1, 2, 3], "a dict": {},
                             "masked": np.ma.masked, "infinity": np.inf, "10**400": HUGE, "an object": object()}
    yield from ((f"one that gives {k}", FREE, lambda *a, _v=v, **b: _v) for k, v in gives.items())


def records(good: Any) -> Iterator[Case]:
    """For a record, a learner, a distribution, a list of them."""
    for v in (3, -1, 1.5, np.nan, "x", "", b"x", [], [good], (good,), {}, {"x": good}, len, int, np.ones(3), 1j, np.ma.masked,
        HUGE):
        yield f"{type(v).__name__} {str(v)[:8] if '0x' not in str(v) else ''}", FREE if isinstance(v,
            list | tuple) else NEVER, v
    yield "an object", NEVER, object()
    yield "its class", NEVER, type(good)
    yield "none", FREE, None
    for other in (mdpsim.BestOfN(2), mdpsim.Point(), mdpsim.Softmax(3), mdpsim.Reward([0.0, 1.0]), mdpsim.RewardBox()):
        if type(other) is not type(good):
            yield f"a {type(other).__name__}", FREE, other
    if type(good).__module__.startswith("mdpsim") and not isinstance(good, tuple):
        yield "one never initialised", FREE, object.__new__(type(good))


def tensors(good: Any) -> Iterator[Case]:
    """For a tensor: what an array may be, and torch's own ways to be something else."""
    torch = sys.modules["torch"]
    a = good.detach().numpy()
    yield from ((label, NEVER if how == NEVER else FREE, v) for label, how, v in arrays(a))
    yield from ((f"tensor of {kind}", NEVER, good.to(getattr(torch, kind))) for kind in ("complex64", "complex128"))
    yield from ((f"tensor of {kind}", FREE, good.to(getattr(torch, kind)))
                for kind in ("float32", "float16", "bfloat16", "bool", "int8", "uint8", "int32", "float64", "int64"))
    for value in (np.nan, np.inf, -np.inf, -1, 99, 2**40):
        if np.isfinite(value) or good.is_floating_point():
            bad = good.clone()
            bad.reshape(-1)[-1] = value
            yield f"tensor, {value} at -1", NEVER if value == -1 and not good.is_floating_point() else FREE, bad
    yield "tensor, NaN at 0", NEVER, good.double().reshape(-1).index_fill(0, torch.tensor([0]), torch.nan).reshape(good.shape)
    for label, bad in (("an axis more", good[None]), ("behind", good[..., None]), ("empty", good[:0]), ("a scalar", good.sum()),
                       ("strided", good.repeat_interleave(2, 0)[::2]), ("meta", good.to("meta")), ("sparse", good.to_sparse()),
                       ("1e6 wide", good.reshape(-1)[0].expand(10**6, 10**6)), ("transposed",
                           good.mT if good.ndim > 1 else good)):
        yield f"tensor, {label}", FREE, bad


def cases(argument: str, good: Any) -> Iterator[Case]:
    """All wrong values for an argument whose right value is known."""
    if argument in SEEDS:
        yield from seeds(good)
    elif isinstance(good, bool | np.bool_):
        yield from flags(bool(good))
    elif isinstance(good, int | np.integer):
        yield from integers(int(good))
    elif isinstance(good, float | np.floating):
        yield from reals(float(good))
    elif isinstance(good, str):
        yield from texts(good)
    elif type(good).__module__ == "torch":
        yield from tensors(good)
    elif type(good) is np.ndarray and good.dtype.kind in "iuf":
        yield from arrays(good)
    elif type(good) in (list, tuple) and good and all(isinstance(x, int | float) for x in good):
        yield from arrays(np.array(good))
    elif good is None:
        yield from ((x, FREE, v) for x, v in _no_scalar())
        yield from (("-1", FREE, -1), ("half", FREE, 0.5), ("ones", FREE, np.ones((2, 2))))
    elif callable(good) and not isinstance(good, type) and not type(good).__module__.startswith("mdpsim"):
        yield from functions(good)
    else:
        yield from records(good)
