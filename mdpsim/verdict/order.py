"""The rule Order: E[larger - smaller] > margin, on the differences trial by trial.

The mirror image of Mean: minus the difference is what must stay below. One infinite difference makes the mean infinite,
with certainty; differences of both infinities, or NaN, decide nothing.
"""

from __future__ import annotations

import math

import numpy as np

from mdpsim.claims.claim import Point
from mdpsim.claims.rules import LEVEL, MIN_MEAN_TRIALS, Order
from mdpsim.verdict import stats
from mdpsim.verdict.limits import mean_interval
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, SUPPORTED, PointVerdict
from mdpsim.verdict.sample import ROUNDING, Decision, Sample, undecided


def decide_order(rule: Order, sample: Sample) -> list[Decision]:
    """The mean difference over trials, against the margin.

    Supported where its lower limit at level 0.01 exceeds the margin, refuted where its upper limit at level
    0.01 / (number of points) does not. Estimate, interval and bound (the margin) are in units of the columns.
    """
    return [_decide_at(rule, sample, p, LEVEL / len(sample.grid)) for p in sample.present]


def _decide_at(rule: Order, sample: Sample, point: Point, level: float) -> Decision:
    larger, smaller = sample.column(point, rule.larger), sample.column(point, rule.smaller)
    with np.errstate(invalid="ignore"):
        lack = smaller - larger
    infinite = np.unique(lack[~np.isfinite(lack)])
    if len(infinite) > 1 or np.isnan(infinite).any():
        return undecided(point, larger, f"{int(np.sum(~np.isfinite(lack)))} of {len(lack)} trials are not numbers")
    threshold, p_value = rule.margin, 1.0
    if len(infinite):
        low = high = estimate = -float(infinite[0])
        p_value = 1.0 if estimate > 0.0 else 0.0
        note = f"{int(np.sum(~np.isfinite(lack)))} of {len(lack)} trials differ infinitely"
    else:
        m = stats.moments(lack)
        threshold += ROUNDING * float(np.mean(np.maximum(np.abs(larger), np.abs(smaller))))  # a tie is no order
        most, least, note = mean_interval(m, level, float(lack.max()))
        estimate, low, high = -float(m.mean), -least, -most
        if m.n >= MIN_MEAN_TRIALS:
            p_value = float(high > threshold) if m.sd == 0.0 else float(stats.p_above(m, -threshold))
    status = REFUTED if high <= threshold else SUPPORTED if low > threshold else INCONCLUSIVE
    verdict = PointVerdict(point, status, estimate, (low, high), rule.margin, None, len(lack), p_value, note)
    near = threshold - (high if status == REFUTED else low)
    return Decision(verdict, -math.inf if math.isnan(near) else near)
