"""Array aliases, the axis table and the guards at the boundary: one error style for the whole package.

Axis order is always ``[H, S, A, S']``, time first, float64 throughout:

====  =========================================================================
H     stages of the horizon, h = 0 .. H-1
S     states; values carry one stage more: V [H+1, S], V[H] = 0
A     actions
S'    next states: P[h, s, a] is a probability row over them
N     episodes, demonstrations or samples
====  =========================================================================

A guard takes what the user passed and returns a read-only C-contiguous float64 array of the stated shape, or raises
``ValueError("function: argument must WANTED; got GOT")``. Kernels check nothing, so every public entry guards its
arrays first. A probability row means row / sum(row): a sum off by more than ``ROW_TOLERANCE`` is an error, else the
row is renormalised. Cost: one pass over the array, a few microseconds for small ones.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from textwrap import shorten
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdpsim.kernels import checks

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROW_TOLERANCE = 1e-9  # a row whose sum is off by more is an error
ROW_SLACK = 4 * np.finfo(float).eps  # a row off by less is kept as it is: records made of records stay the same


def fail(function: str, argument: str, wanted: str, got: object) -> NoReturn:
    """Raise the package's one kind of ValueError: function, argument, what was wanted, what came."""
    raise ValueError(f"{function}: {argument} must {wanted}; got {shorten(' '.join(str(got).split()), 160, placeholder=' ..')}")


def unknown(function: str, argument: str, got: object, known: Iterable[str]) -> NoReturn:
    """Raise the ValueError for a name that is not known, with the nearest names that are."""
    import difflib  # only where something is wrong

    names = sorted(known)
    near = difflib.get_close_matches(str(got), names, n=3, cutoff=0.4) or names[:8]
    fail(function, argument, f"be one of the known names (nearest: {', '.join(near) or 'none'})", repr(got))


def _describe(axes: str, sizes: tuple[int | None, ...]) -> str:
    """'[H, S, A] = (4, 6, 3)'; a free axis shows as its letter."""
    letters = axes.split()
    shown = ", ".join(str(n) if n is not None else letter for letter, n in zip(letters, sizes, strict=True))
    return f"have shape [{', '.join(letters)}] = ({shown}{',' if len(letters) == 1 else ''})"


def _as_array(function: str, argument: str, x: ArrayLike, axes: str, sizes: tuple[int | None, ...]) -> NDArray[Any]:
    try:
        return np.asarray(x)
    except ValueError:
        return fail(function, argument, _describe(axes, sizes), "a ragged sequence")


def as_floats(function: str, argument: str, x: ArrayLike, axes: str, sizes: tuple[int | None, ...]) -> FloatArray:
    """Guard a finite array; returns it as float64, C-contiguous, read-only, copied where the caller could still write.

    Args:
        axes: names of the axes, as in "H S A".
        sizes: wanted length of each axis, None where any positive length will do.
    Raises:
        ValueError: wrong dtype, shape, an empty axis, NaN or infinity.
    """
    a = _as_array(function, argument, x, axes, sizes)
    if a.dtype != np.float64 and (a.dtype == object or not np.can_cast(a.dtype, np.float64, "safe")):
        fail(function, argument, "hold real numbers that convert to float64 without loss", f"dtype {a.dtype}")
    if a.ndim != len(sizes) or any(
        n == 0 or (m is not None and n != m) for n, m in zip(a.shape, sizes, strict=True)
    ):
        fail(function, argument, _describe(axes, sizes), a.shape)
    if a.flags.writeable or a.dtype != np.float64 or not a.flags.c_contiguous:
        a = np.array(a, dtype=np.float64, order="C")
        a.flags.writeable = False
    where = checks.first_not_finite(a.reshape(-1))
    if where >= 0:
        index = tuple(int(i) for i in np.unravel_index(where, a.shape))
        fail(function, argument, "be finite", f"{a[index]} at {index}")
    return a


def _excess(a: FloatArray) -> FloatArray:
    """Sums of rows of probabilities less one, [.., 1], to 1e-28 n^2: the same in whatever order a processor adds.

    The multiples of 2^-40 next to the entries add up exactly, and what is left of each is below 2^-41.
    """
    high = (a + 4096.0) - 4096.0
    return (high.sum(axis=-1, keepdims=True) - 1.0) + (a - high).sum(axis=-1, keepdims=True)


def as_simplex(function: str, argument: str, x: ArrayLike, axes: str, sizes: tuple[int | None, ...]) -> FloatArray:
    """Guard an array whose last axis holds probability vectors; rows off by at most 1e-9 are renormalised.

    Raises:
        ValueError: as :func:`as_floats`, and negative entries, a row of zeros, or a row whose sum is off by more than
            1e-9 (the message names the worst row and its sum).
    """
    a = as_floats(function, argument, x, axes, sizes)
    rows = a.reshape(-1, a.shape[-1])
    status, row, total = checks.row_status(rows, ROW_TOLERANCE, ROW_SLACK)
    if status == checks.OK:
        return a
    if status == checks.RENORMALISE:  # by a sum in an order that the processor decides: look again, exactly
        off = _excess(a)
        far = np.abs(off) > ROW_SLACK
        return frozen(np.where(far, a / (1.0 + off), a)) if far.any() else a
    index = tuple(int(i) for i in np.unravel_index(row, a.shape[:-1])) if a.ndim > 1 else ()
    where = f"row {index}" if index else "the row"
    if status == checks.NEGATIVE:
        fail(function, argument, "have no negative entries", f"{rows[row].min():.6g} in {where}")
    if status == checks.ZERO_ROW:
        fail(function, argument, "have rows that sum to one", f"only zeros in {where}")
    fail(function, argument, f"have rows that sum to one within {ROW_TOLERANCE:g}", f"sum {total:.12g} in {where}")


def as_beta(function: str, x: object, argument: str = "beta") -> float:
    """Guard a KL weight: a real number in [0, inf]."""
    if isinstance(x, numbers.Real) and not isinstance(x, bool) and float(x) >= 0.0:
        return float(x)
    fail(function, argument, "be a number in [0, inf]", repr(x))


def as_real(function: str, argument: str, x: object, low: float, high: float) -> float:
    """Guard a finite number in [low, high]."""
    if isinstance(x, numbers.Real) and not isinstance(x, bool) and np.isfinite(float(x)) and low <= float(x) <= high:
        return float(x)
    fail(function, argument, f"be a number in [{low:g}, {high:g}]", repr(x))


def as_count(function: str, argument: str, x: object, low: int = 1, high: int | None = None) -> int:
    """Guard an integer in [low, high] (sample sizes, horizons, seeds); without a stated high, below 2^62."""
    top = 2**62 if high is None else high
    if isinstance(x, numbers.Integral) and not isinstance(x, bool) and low <= int(x) <= top:
        return int(x)
    limit = f" and <= {top}" if high is not None or (isinstance(x, numbers.Integral) and int(x) > top) else ""
    fail(function, argument, f"be an integer >= {low}{limit}", repr(x))


def as_integers(
    function: str, argument: str, x: ArrayLike, axes: str, sizes: tuple[int | None, ...], below: int
) -> IntArray:
    """Guard an integer array with entries in [0, below); returns it as int64, C-contiguous, read-only."""
    a = _as_array(function, argument, x, axes, sizes)
    if a.dtype.kind not in "iu" or not np.can_cast(a.dtype, np.int64, "same_kind"):
        fail(function, argument, "hold integers", f"dtype {a.dtype}")
    if a.ndim != len(sizes) or any(n == 0 or (m is not None and n != m) for n, m in zip(a.shape, sizes, strict=True)):
        fail(function, argument, _describe(axes, sizes), a.shape)
    low, high = int(a.min()), int(a.max())
    if low < 0 or high >= below:
        fail(function, argument, f"have entries in [0, {below})", low if low < 0 else high)
    a = np.array(a, dtype=np.int64, order="C") if a.flags.writeable or a.dtype != np.int64 else np.ascontiguousarray(a)
    a.flags.writeable = False
    return a


def frozen(a: NDArray[Any]) -> NDArray[Any]:
    """Mark a fresh array read-only and return it."""
    a.flags.writeable = False
    return a
