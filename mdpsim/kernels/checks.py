"""One pass over what a record is made of: rows that should hold probabilities, numbers that should be finite, rewards."""

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


@kernel
def expectation(P, R, r):
    """Fill r [H, S, A] with sum_k P[h, s, a, k] R[h, s, a, k]; whether R differs within a row where P > 0. One pass.

    P [H or 1, S, A, K], R [H or 1, S, A, K] finite; what R holds where P = 0 does not count. A mean lies between what it is of:
    so does r, to the last bit, and rewards in [0, 1] stay there.
    """
    n_stages, n_states, n_actions = r.shape
    differs = False
    for h in range(n_stages):
        i, j = min(h, P.shape[0] - 1), min(h, R.shape[0] - 1)
        for s in range(n_states):
            for a in range(n_actions):
                low, high, total = np.inf, -np.inf, 0.0
                for k in range(P.shape[3]):
                    p, x = P[i, s, a, k], R[j, s, a, k]
                    total += p * x
                    low = min(low, x if p > 0.0 else np.inf)
                    high = max(high, x if p > 0.0 else -np.inf)
                r[h, s, a] = min(max(total, low), high)
                differs = differs or low < high
    return differs
