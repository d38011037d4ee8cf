"""Every tolerance of the numerical tests, written once and derived from float64 and the scale of the numbers."""

from __future__ import annotations

import numpy as np

EPS = float(np.finfo(np.float64).eps)  # 2.2e-16; one rounding is off by at most EPS / 2

# The contract of solve/exact.py: max|V - V*| <= max(CONTRACT, STAGE * H) * max|V*|: a rounding at every stage, and a row
# that sums to one within 4 eps.
CONTRACT, STAGE = 1e-13, 5 * EPS
# A kernel against a reference in float64, which has rounding of its own: relative, in max norm.
KERNEL = 1e-12
# KL divergences: every term is non-negative, so a relative error of a few dozen roundings.
KL = 1e-14
# HiGHS works to a feasibility of 1e-10; J is off by that times the number of equations and the scale of the rewards.
LINEAR_PROGRAM = 1e-10

# kernels/_math.py: units of the last place of the true value.
ULPS = {"exp": 1.0, "log": 2.0, "expm1": 4.0, "log1p": 4.0}


def value(H: int, S: int, A: int, scale: float) -> float:
    """Absolute error of V: S roundings in a dot product and A + 12 in a row, H times over, never above the contract."""
    return min(max(CONTRACT, STAGE * H), H * (S + A + 12) * EPS) * scale


def policy(H: int, S: int, A: int, scale: float, beta: float) -> float:
    """Relative error of pi's entries: Q's absolute error over beta, twice (entry and normaliser), and own roundings."""
    return 2.0 * value(H, S, A, scale) / beta + (A + 16) * EPS


def row_sum(n: int) -> float:
    """|sum - 1| of a probability row of n entries: one rounding an entry, and one a partial sum."""
    return 2 * n * EPS


def policy_floor(smallest_reference: float) -> float:
    """Absolute error of pi's entries: masses among the denormals, over a normaliser as small as pi_ref's entries."""
    return 8 * 5e-324 / min(1.0, smallest_reference)
