"""The rule Mean: E[value / bound] at most 1 + margin, by one-sided limits corrected for skewness.

A value of +infinity over a finite bound refutes with certainty: the mean is infinite (a Kullback-Leibler divergence
without cover). NaN decides nothing: inconclusive, with a note.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Point
from mdpsim.claims.rules import LEVEL, MIN_MEAN_TRIALS, Mean
from mdpsim.verdict import stats
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, SUPPORTED, PointVerdict
from mdpsim.verdict.sample import ANYTHING, ROUNDING, Decision, Sample, ratios, undecided

MAX_SKEW = 0.6  # of sqrt(n), which one outlier reaches and k equal ones divide by sqrt(k): one or two carry the mean


def decide_mean(rule: Mean, sample: Sample) -> list[Decision]:
    """The mean over trials of value / bound, against 1 + margin.

    Supported where its upper limit at level 0.01 is at most 1 + margin, refuted where its lower limit at level
    0.01 / (number of points) is above. The estimate, the bound and the interval (lower limit of the refutation, upper
    limit of the support) are shown in units of the mean bound.
    """
    return [_decide_mean_at(rule, sample, p, LEVEL / len(sample.grid)) for p in sample.present]


def _decide_mean_at(rule: Mean, sample: Sample, point: Point, level: float) -> Decision:
    x, bound = sample.column(point, rule.of), sample.quantity(point, rule.bound)
    ratio = ratios(x, bound)
    useless = ~(ratio > -math.inf)
    threshold = (1.0 + rule.margin) * (1.0 + ROUNDING)
    if np.any(ratio == math.inf):  # one infinite trial: the mean is infinite, with certainty
        low = high = estimate = math.inf
        p_value, note = 0.0, f"{int(np.sum(ratio == math.inf))} of {len(x)} trials are infinitely above the bound"
    elif useless.any():
        return undecided(point, x, f"{int(useless.sum())} of {len(x)} trials are not numbers")
    else:
        m = stats.moments(ratio)
        estimate, p_value = float(m.mean), 1.0
        low, high, note = _mean_interval(m, level, float(ratio.max()))
        if len(x) >= MIN_MEAN_TRIALS:
            p_value = float(stats.p_above(m, threshold))
    status = REFUTED if low > threshold else SUPPORTED if high <= threshold else INCONCLUSIVE
    show = _natural_units(x, bound)
    slack = 1.0 / estimate if estimate > 0.0 else math.inf if estimate == 0.0 else None
    verdict = PointVerdict(
        point, status, show(estimate), (show(low), show(high)), float(np.mean(bound)), slack, len(x), p_value, note
    )
    return Decision(verdict, low if status == REFUTED else high)


def _mean_interval(m: stats.Moments, level: float, largest: float) -> tuple[float, float, str]:
    """Lower limit at ``level``, upper limit at 0.01, and a note.

    Where one or two trials carry the skewness no interval can be trusted: the upper limit is then at least the largest
    trial, so that support needs every trial inside.
    """
    if m.n < MIN_MEAN_TRIALS:
        return *ANYTHING, f"{m.n} trials: a mean needs {MIN_MEAN_TRIALS}"
    low, high = float(stats.lower_limit(m, level)), float(stats.upper_limit(m, LEVEL))
    if m.sd == 0.0:
        weight = stats.unseen_weight(m.n, LEVEL)
        return low, high, f"{m.n} equal trials: a point interval, blind to values of weight below {weight:.2g}"
    if m.skew > MAX_SKEW * math.sqrt(m.n) and high < largest:
        return low, largest, f"skewness {m.skew:.2g}: one or two of {m.n} trials carry the mean"
    return low, high, ""


def _natural_units(x: FloatArray, bound: FloatArray) -> Callable[[float], float]:
    """From a mean ratio to the units of the bound: mean bound + (ratio - 1) mean |bound|."""
    centre, unit = float(np.mean(bound)), float(np.mean(np.abs(bound)))
    if not math.isfinite(unit):  # an infinite bound has no units: show the values' own mean, and no limits
        mean = float(np.mean(x))
        return lambda ratio: mean if math.isfinite(ratio) else ratio
    return lambda ratio: (centre - unit) + ratio * unit if math.isfinite(ratio) else ratio
