"""Memory for large results, used again once nobody refers to them.

The first write to a page that the system has just handed out costs more than all the arithmetic that fills it: measured here,
660 us a megabyte against 15 us for memory already held. A sweep that makes and drops results of some megabytes pays it at every
solve, for the allocator gives large blocks back. So a result above ``SMALL`` bytes lies in a block that returns to a short list
when its last view is gone, and the next result of that size takes it from there. At most ``KEPT`` bytes are kept; nothing is
shared between arrays that live.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

GIB = 2.0**30
SMALL = 2**17  # smaller arrays come from the allocator's own heap
WHOLE = 2**22  # larger zeros may be meant to stay mostly untouched
KEPT = 2**27  # bytes kept at most
_lock = Lock()
_free: OrderedDict[int, list[NDArray[np.uint8]]] = OrderedDict()  # bytes -> blocks; the size last used is last
_kept = 0


def _keep(block: NDArray[np.uint8]) -> None:
    """Take a block back; the sizes used longest ago make room for it.

    A finaliser may run anywhere, within ``_take`` of the same thread too: it never waits for the lock, and lets the block go.
    """
    global _kept
    if block.size > KEPT or not _lock.acquire(blocking=False):
        return
    try:
        _free.setdefault(block.size, []).append(block)
        _free.move_to_end(block.size)
        _kept += block.size
        while _kept > KEPT:
            oldest = next(iter(_free))
            _kept -= oldest
            _free[oldest].pop()
            if not _free[oldest]:
                del _free[oldest]
    finally:
        _lock.release()


class _Loan:
    """A block lent to one array: the array's base, and so alive as long as any view of it.

    Not a subclass of ndarray: numpy shortens chains of bases past such an object, and the block would return too early.
    """

    def __init__(self, block: NDArray[np.uint8]) -> None:
        self.block = block
        self.__array_interface__ = block.__array_interface__

    def __del__(self, keep: Callable[[NDArray[np.uint8]], None] = _keep) -> None:  # bound: it outlives the module's names
        keep(self.block)


def lent(a: NDArray[Any]) -> bool:
    """Whether an array is the whole of a block: nobody but its views, of which ``empty`` gives out one, refers to it."""
    return type(a.base) is _Loan


def machine() -> float:
    """Bytes of memory of this machine; 2^40 where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # no such call (Windows), or no such names
        return 2.0**40


def empty(shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """``numpy.empty``, out of a block that an earlier result has left where there is one of exactly this size.

    Cost: 3 us above numpy's; no page faults where a block is found. Thread-safe.
    """
    kind = np.dtype(dtype)
    size = kind.itemsize * (shape if isinstance(shape, int) else math.prod(shape))
    if size < SMALL:
        return np.empty(shape, kind)
    return np.asarray(_Loan(_take(size))).view(kind).reshape(shape)


def zeros(shape: int | tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """``numpy.zeros``: up to ``WHOLE`` bytes as ``empty`` does, above from the system, whose untouched zeros cost nothing."""
    kind = np.dtype(dtype)
    if kind.itemsize * (shape if isinstance(shape, int) else math.prod(shape)) > WHOLE:
        return np.zeros(shape, kind)
    found = empty(shape, kind)
    found[...] = 0
    return found


def _take(size: int) -> NDArray[np.uint8]:
    """A kept block of ``size`` bytes, or a new one."""
    global _kept
    with _lock:
        if size in _free:
            block = _free[size].pop()
            _kept -= size
            if not _free[size]:
                del _free[size]
            return block
    return np.empty(size, np.uint8)
