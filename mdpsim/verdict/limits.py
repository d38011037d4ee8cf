"""Limits of a mean that a rule may decide by, shared by Mean, Order, Limit and Rate."""

from __future__ import annotations

import math

from mdpsim.claims.rules import LEVEL, MIN_MEAN_TRIALS
from mdpsim.verdict import stats
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, SUPPORTED
from mdpsim.verdict.sample import ANYTHING

MAX_SKEW = 0.6  # of sqrt(n), which one outlier reaches and k equal ones divide by sqrt(k): one or two carry the mean


def mean_interval(m: stats.Moments, level: float, largest: float) -> tuple[float, float, str]:
    """Lower limit at ``level``, upper limit at 0.01, and a note.

    Where one or two trials carry the skewness no interval can be trusted: the upper limit is then at least the largest
    trial, so that support needs every trial inside.
    """
    if m.n < MIN_MEAN_TRIALS:
        return *ANYTHING, few_trials(m.n)
    low, high = float(stats.lower_limit(m, level)), float(stats.upper_limit(m, LEVEL))
    if m.sd == 0.0:
        return low, high, equal_trials(m.n)
    if m.skew > MAX_SKEW * math.sqrt(m.n) and high < largest:
        return low, largest, f"skewness {m.skew:.2g}: one or two of {m.n} trials carry the mean"
    return low, high, ""


def few_trials(n: int) -> str:
    """Why fewer than 50 trials decide no mean."""
    return f"{n} trials: a mean needs {MIN_MEAN_TRIALS}"


def equal_trials(n: int) -> str:
    """What an interval of no width does not see."""
    return f"{n} equal trials: a point interval, blind to values of weight below {stats.unseen_weight(n, LEVEL):.2g}"


def within(m: stats.Moments, margin: float, level: float) -> tuple[str, tuple[float, float], float]:
    """Is the mean in [-margin, margin]? Status, interval and p-value of the refutation.

    Supported where the 99% interval lies inside, refuted where the one at confidence 1 - level lies wholly outside; the
    interval returned is the one that decides: the first where supported, else the second.
    """
    low, high = float(stats.lower_limit(m, LEVEL / 2)), float(stats.upper_limit(m, LEVEL / 2))
    p_value = min(1.0, 2.0 * min(float(stats.p_above(m, margin)), float(stats.p_below(m, -margin))))
    if -margin <= low and high <= margin:
        return SUPPORTED, (low, high), p_value
    low, high = float(stats.lower_limit(m, level / 2)), float(stats.upper_limit(m, level / 2))
    return (REFUTED if low > margin or high < -margin else INCONCLUSIVE), (low, high), p_value
