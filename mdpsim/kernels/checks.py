"""One pass over the rows of an array that should hold probabilities, or over any array that should be finite."""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import kernel

OK, RENORMALISE, NOT_FINITE, NEGATIVE, ZERO_ROW, SUM_OFF = range(6)


@kernel
def row_status(x, tolerance, slack):
    """Worst row of ``x`` [R, C] as a probability vector: (status, row, its sum).

    Status: OK, RENORMALISE (some sum is off by more than ``slack``, none by more than ``tolerance``), or the first kind
    of fault found, in the order NOT_FINITE, NEGATIVE, ZERO_ROW, SUM_OFF. Cost: one pass.
    """
    n_rows, n_columns = x.shape
    worst_row, worst_sum, worst_off = 0, 1.0, 0.0
    for i in range(n_rows):
        total, low = 0.0, 0.0
        for j in range(n_columns):
            v = x[i, j]
            total += v
            low = min(low, v)
        if not abs(total) < np.inf:  # not np.isfinite: it becomes total - total, which reassociation folds to 0
            return NOT_FINITE, i, total
        if low < 0.0:
            return NEGATIVE, i, total
        off = abs(total - 1.0)
        if off > worst_off:
            worst_row, worst_sum, worst_off = i, total, off
            if total == 0.0:
                return ZERO_ROW, i, total
    if worst_off > tolerance:
        return SUM_OFF, worst_row, worst_sum
    if worst_off > slack:
        return RENORMALISE, worst_row, worst_sum
    return OK, worst_row, worst_sum


@kernel
def first_not_finite(x):
    """Flat index of the first NaN or infinity in ``x`` [n], or -1."""
    total = 0.0
    for i in range(x.size):
        total += 0.0 * x[i]  # not x - x: reassociation would fold that away, and every NaN would pass
    if total == 0.0:
        return -1
    for i in range(x.size):
        if not abs(x[i]) < np.inf:
            return i
    return -1
