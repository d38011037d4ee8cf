"""The rule Mean: E[value / bound] at most 1 + margin, by one-sided limits corrected for skewness.

A value of +infinity over a finite bound refutes with certainty: the mean is infinite (a Kullback-Leibler divergence
without cover). NaN decides nothing: inconclusive, with a note.
"""

from __future__ import annotations

import math

import numpy as np

from mdpsim.claims.claim import Point
from mdpsim.claims.rules import LEVEL, MIN_MEAN_TRIALS, Mean
from mdpsim.verdict import stats
from mdpsim.verdict.limits import mean_interval
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, SUPPORTED, PointVerdict
from mdpsim.verdict.sample import ROUNDING, Decision, Sample, natural_units, ratios, undecided


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
        low, high, note = mean_interval(m, level, float(ratio.max()))
        if len(x) >= MIN_MEAN_TRIALS:
            p_value = float(stats.p_above(m, threshold))
    status = REFUTED if low > threshold else SUPPORTED if high <= threshold else INCONCLUSIVE
    show = natural_units(x, bound)
    slack = 1.0 / estimate if estimate > 0.0 else math.inf if estimate == 0.0 else None
    verdict = PointVerdict(
        point, status, show(estimate), (show(low), show(high)), float(np.mean(bound)), slack, len(x), p_value, note
    )
    return Decision(verdict, low if status == REFUTED else high)
