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

What a guard returns stays as it was checked. It shares the memory of its argument only where nobody can write there: the array
and every array that it is a view of are read-only, and the last of them owns its memory (or lies in a block of ``memory``).
Everything else is copied: what pandas, torch, a buffer or a file stands behind, and read-only views of writable arrays. One
who makes an array read-only and turns that back afterwards, or keeps a writable view made before, still writes to a record.
"""

from __future__ import annotations

import numbers
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdpsim.kernels import checks
from mdpsim.kernels._cache import expanded
from mdpsim.memory import lent

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROW_TOLERANCE = 1e-9  # a row whose sum is off by more is an error
ROW_SLACK = 4 * np.finfo(float).eps  # a row off by less is kept as it is: records made of records stay the same
WHOLE = 2**53  # float64 holds every integer up to here
LARGE = 2**32  # bytes: a copy beyond it is compared with the machine's memory before it is begun
SEQUENCES = (list, tuple)
PLAIN = frozenset((float, int, bool, np.float64, np.int64))
REAL = "hold real numbers that convert to float64 without loss"


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


def as_array(function: str, argument: str, x: ArrayLike, wanted: Callable[[], str]) -> NDArray[Any]:
    """What numpy makes of an argument; ``wanted()`` is said where it makes nothing of it.

    numpy drops masks without a word, also those of masked arrays inside lists: a mask that hides something is refused.
    """
    if _masked(x):
        fail(function, argument, "have no mask that is set: fill or drop what is masked", f"a masked {type(x).__name__}")
    try:
        return np.asarray(x)
    except ValueError:
        return fail(function, argument, wanted(), "a ragged sequence")
    except Exception as error:  # a tensor that needs a gradient or lies on a GPU, an __array__ that fails
        return fail(function, argument, wanted(), f"{type(x).__name__} ({error})")


def _masked(x: object, depth: int = 0) -> bool:
    """Whether something in x is hidden by a mask of numpy.ma; nothing is where nobody has imported that."""
    if type(x) is np.ndarray or "numpy.ma" not in sys.modules:
        return False
    if isinstance(x, SEQUENCES):
        return depth < 64 and any(type(y) not in PLAIN and _masked(y, depth + 1) for y in x)  # an array has 64 axes at most
    return isinstance(x, np.ma.MaskedArray) and bool(np.ma.is_masked(x))


def _dtype(a: NDArray[Any], x: object) -> str:
    """The dtype, and what to do about it where that can be said."""
    sparse = x if hasattr(x, "tocsr") else a.flat[0] if a.dtype == object and a.size else None
    if hasattr(sparse, "tocsr"):  # anything like scipy's, or a list of them
        return f"a sparse {type(sparse).__name__} (transitions: Successors.from_csr or from_matrices; else x.toarray())"
    if a.dtype != object or not a.size:
        return f"dtype {a.dtype}"
    hint = " (make one array of them: np.array(list(x)))" if isinstance(a.flat[0], list | tuple | np.ndarray) else ""
    return f"dtype object, entries of type {type(a.flat[0]).__name__}{hint}"


def _check_shape(function: str, argument: str, a: NDArray[Any], axes: str, sizes: tuple[int | None, ...]) -> None:
    if a.ndim != len(sizes) or any(
        n == 0 or (m is not None and n != m) for n, m in zip(a.shape, sizes, strict=True)
    ):
        fail(function, argument, _describe(axes, sizes), a.shape)


def shareable(a: NDArray[Any]) -> bool:
    """Whether nobody can write to the memory of an array (the module says what counts)."""
    x: Any = a
    while type(x) is np.ndarray and not x.flags.writeable:
        x = x.base
    return x is None or (x is not a and type(x) is np.ndarray and lent(x))


def _own(function: str, argument: str, a: NDArray[Any], dtype: type) -> NDArray[Any]:
    """The array as a read-only C-contiguous one of a dtype: itself if nobody can write to it, else a copy."""
    if a.dtype == dtype and a.flags.c_contiguous and shareable(a):
        return a
    held = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if 8 * a.size > LARGE and hasattr(os, "sysconf") else 2**62
    try:  # a view that repeats one number has any shape at no cost
        own = np.array(a, dtype=dtype, order="C") if 8 * a.size <= held else None
    except MemoryError:
        own = None
    if own is None:
        fail(function, argument, "fit in memory", f"shape {a.shape}, {8 * a.size / 2**30:.0f} GiB")
    own.flags.writeable = False
    return own


def _check_real(function: str, argument: str, a: NDArray[Any], x: object) -> None:
    """Refuse a dtype that holds anything but real numbers of float64's precision or less."""
    if a.dtype != np.float64 and (a.dtype == object or not np.can_cast(a.dtype, np.float64, "safe")):
        fail(function, argument, REAL, _dtype(a, x))


def _floats(function: str, argument: str, a: NDArray[Any], x: object) -> FloatArray:
    """The array that x became, as float64: integers beyond 2^53 must be among those that it holds (numpy rounds, unasked)."""
    own = _own(function, argument, a, np.float64)
    if (a.dtype.kind in "iu" or isinstance(x, SEQUENCES)) and (np.abs(own) >= WHOLE).any():
        for value in _large(a if a.dtype.kind in "iu" else x):
            if int(float(value)) != value:
                fail(function, argument, REAL, f"the integer {value}, beyond 2^53")
    return own


def _large(x: Any) -> Iterator[int]:
    """The integers in an array, or in nested sequences, that float64 may have to round."""
    if isinstance(x, SEQUENCES):
        for y in x:
            yield from _large(y)
    elif isinstance(x, numbers.Integral):
        yield int(x)
    elif isinstance(x, np.ndarray) and x.dtype.kind in "iu":
        yield from map(int, x[np.abs(x.astype(np.float64)) >= WHOLE])


def as_numbers(function: str, argument: str, x: ArrayLike, wanted: str = "be an array of numbers") -> FloatArray:
    """Guard real numbers of any shape, infinities and NaN included; returns float64, C-contiguous, read-only.

    For what has rules of its own (logarithms of probabilities, what a user's function returned); else :func:`as_floats`.
    ``wanted`` is said where x is no array.

    Raises:
        ValueError: what is no array, masked entries, complex numbers, text, times, objects, integers that float64 rounds.
    """
    a = as_array(function, argument, x, lambda: wanted)
    _check_real(function, argument, a, x)
    return _floats(function, argument, a, x)


def as_floats(function: str, argument: str, x: ArrayLike, axes: str, sizes: tuple[int | None, ...]) -> FloatArray:
    """Guard a finite array; returns it as float64, C-contiguous, read-only, copied where anybody could still write.

    Args:
        axes: names of the axes, as in "H S A".
        sizes: wanted length of each axis, None where any positive length will do.
    Raises:
        ValueError: masked entries, wrong dtype, shape, an empty axis, NaN or infinity, integers that float64 rounds.
    """
    a = as_array(function, argument, x, lambda: _describe(axes, sizes))
    _check_real(function, argument, a, x)
    _check_shape(function, argument, a, axes, sizes)
    a = _floats(function, argument, a, x)
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
        hint = " (let a state that ends an episode lead to itself: MDP's terminal=)" if argument in ("P", "prob") else ""
        fail(function, argument, "have rows that sum to one", f"only zeros in {where}{hint}")
    hint = ""
    if getattr(x, "dtype", None) in (np.float32, np.float16):
        hint = f" (of {x.dtype}: renormalise in float64, x = x.astype(float); x / x.sum(-1, keepdims=True))"  # type: ignore[union-attr]
    fail(function, argument, f"have rows that sum to one within {ROW_TOLERANCE:g}", f"sum {total:.12g} in {where}{hint}")


def real_or_nan(x: object) -> float:
    """A real number as a float; NaN for what is none, or lies beyond float64."""
    if not isinstance(x, numbers.Real) or isinstance(x, bool | np.timedelta64):  # numpy registers durations as integers
        return np.nan
    try:
        return float(x)
    except OverflowError:
        return np.nan


def shown(x: object) -> str:
    """repr(x), for an error's last words."""
    try:
        return repr(x)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "an integer of thousands of digits"


def as_beta(function: str, x: object, argument: str = "beta") -> float:
    """Guard a KL weight: a real number in [0, inf]."""
    value = real_or_nan(x)
    if value >= 0.0:
        return value
    fail(function, argument, "be a number in [0, inf]", shown(x))


def as_real(function: str, argument: str, x: object, low: float, high: float) -> float:
    """Guard a finite number in [low, high]."""
    value = real_or_nan(x)
    if np.isfinite(value) and low <= value <= high:
        return value
    fail(function, argument, f"be a number in [{low:g}, {high:g}]", shown(x))


def as_count(function: str, argument: str, x: object, low: int = 1, high: int | None = None) -> int:
    """Guard an integer in [low, high] (sample sizes, horizons, seeds); without a stated high, below 2^62."""
    top = 2**62 if high is None else high
    whole = isinstance(x, numbers.Integral) and not isinstance(x, bool | np.timedelta64)
    if whole and low <= int(x) <= top:  # type: ignore[call-overload]
        return int(x)  # type: ignore[call-overload]
    limit = f" and <= {top}" if high is not None or (whole and int(x) > top) else ""  # type: ignore[call-overload]
    fail(function, argument, f"be an integer >= {low}{limit}", shown(x))


def as_flag(function: str, argument: str, x: object) -> bool:
    """Guard a choice between True and False: a text, "no" too, is true to Python."""
    if isinstance(x, bool | np.bool_):
        return bool(x)
    fail(function, argument, "be True or False", shown(x))


def as_text(function: str, argument: str, x: object, wanted: str = "be a text") -> str:
    """Guard a text that is not empty."""
    if isinstance(x, str) and x.strip():
        return x
    fail(function, argument, wanted, shown(x))


def axes_of(x: ArrayLike) -> int:
    """How many axes; -1 for what is no array, which the guard of the argument then says."""
    try:
        return np.ndim(x)
    except Exception:  # a ragged sequence, a tensor on a GPU, an __array__ that fails
        return -1


def as_path(function: str, argument: str, x: object) -> Path:
    """Guard a path; a leading ~ is the home directory, as in a shell."""
    if not isinstance(x, str | os.PathLike) or not isinstance(os.fspath(x), str):
        fail(function, argument, "be a path", repr(x))
    found = expanded(os.fspath(x))
    if found is None:
        fail(function, argument, "be a path that does not begin with ~, for there is no home directory here", repr(str(x)))
    return Path(found)


def as_integers(
    function: str, argument: str, x: ArrayLike, axes: str, sizes: tuple[int | None, ...], below: int
) -> IntArray:
    """Guard an integer array with entries in [0, below); returns it as int64, C-contiguous, read-only, copied like floats."""
    a = as_array(function, argument, x, lambda: _describe(axes, sizes))
    if a.dtype.kind not in "iu":
        hints = {"b": " (x.astype(int) makes 0 and 1 of it)", "f": " (x.astype(int) if all are whole; NaN is what is missing)",
                 "U": " (labels: np.unique(x, return_inverse=True) numbers them)"}
        fail(function, argument, "hold integers", _dtype(a, x) + hints.get(a.dtype.kind, ""))
    _check_shape(function, argument, a, axes, sizes)
    own = _own(function, argument, a, np.int64)
    low, high = int(a.min()), int(a.max())  # of what was given: uint64 wraps
    if low < 0 or high >= below:
        fail(function, argument, f"have entries in [0, {below})", low if low < 0 else high)
    return own


def frozen(a: NDArray[Any]) -> NDArray[Any]:
    """Mark a fresh array read-only and return it."""
    a.flags.writeable = False
    return a
