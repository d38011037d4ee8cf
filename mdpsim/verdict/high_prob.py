"""The rule HighProb: P(value > bound) <= delta, by the exact law of the number of violations.

A reader sees the (1 - delta)-quantile of value / bound with its distribution-free interval. Both ends are order
statistics, and they decide exactly as the Clopper-Pearson limits of P(value > bound) do: the upper end is at most 1 just
where so few trials violate that the limit of their probability is at most delta. The note has that probability itself.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Point
from mdpsim.claims.rules import LEVEL, HighProb
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, SUPPORTED, PointVerdict
from mdpsim.verdict.sample import ROUNDING, Decision, Sample, natural_units, ratios, undecided


def decide_high_prob(rule: HighProb, sample: Sample) -> list[Decision]:
    """Violations among the trials against delta: supported at level 0.01, refuted at 0.01 / (number of points).

    Estimate, interval and bound are in units of the mean bound, as for Mean; slack is bound / quantile. An infinite
    value is a violation like any other; NaN decides nothing.
    """
    return [_decide_at(rule, sample, p, LEVEL / len(sample.grid)) for p in sample.present]


def _decide_at(rule: HighProb, sample: Sample, point: Point, level: float) -> Decision:
    x, bound = sample.column(point, rule.of), sample.quantity(point, rule.bound)
    ratio = ratios(x, bound)
    if np.isnan(ratio).any():
        return undecided(point, x, f"{int(np.isnan(ratio).sum())} of {len(x)} trials are not numbers")
    threshold = 1.0 + ROUNDING
    violations = int(np.sum(ratio > threshold))
    estimate, low, high = quantile_interval(ratio, rule.delta, level)
    status = REFUTED if low > threshold else SUPPORTED if high <= threshold else INCONCLUSIVE
    show = natural_units(x, bound)
    slack = 1.0 / estimate if estimate > 0.0 else math.inf if estimate == 0.0 else None
    verdict = PointVerdict(
        point, status, show(estimate), (show(low), show(high)), float(np.mean(bound)), slack, len(x),
        p_many(violations, len(x), rule.delta), _note(violations, len(x), level),
    )
    return Decision(verdict, low if status == REFUTED else high)


def _note(violations: int, n: int, level: float) -> str:
    low, high = share_interval(violations, n, level)
    return f"{violations} of {n} trials exceed the bound: a probability in [{low:.2g}, {high:.2g}]"


def quantile_interval(x: FloatArray, delta: float, level: float) -> tuple[float, float, float]:
    """The (1 - delta)-quantile of x [n], its lower limit at ``level`` and its upper limit at 0.01; infinite where none."""
    from scipy.special import bdtr

    n, ordered = len(x), np.sort(x)
    counts = np.arange(n + 1)
    few = int(np.sum(bdtr(counts, n, delta) <= LEVEL)) - 1  # the most violations that support
    many = n + 1 - int(np.sum(_upper_tail(counts, n, delta) <= level))  # the fewest that refute
    middle = ordered[n - 1 - math.floor(n * delta * (1.0 + ROUNDING))]
    high = ordered[n - 1 - few] if few >= 0 else math.inf
    low = ordered[n - many] if many <= n else -math.inf
    return float(middle), float(low), float(high)


def share_interval(k: int, n: int, level: float) -> tuple[float, float]:
    """Clopper-Pearson limits of the probability of what occurred k times in n: lower at ``level``, upper at 0.01."""
    from scipy.special import betaincinv

    low = float(betaincinv(k, n - k + 1, level)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1.0 - LEVEL)) if k < n else 1.0
    return low, high


def p_many(k: int, n: int, delta: float) -> float:
    """p-value against "the probability is at most delta": that of k or more among n."""
    return float(_upper_tail(np.array([k]), n, delta)[0])


def _upper_tail(k: NDArray[np.int_], n: int, delta: float) -> FloatArray:
    """P(Bin(n, delta) >= k), exactly 1 at k = 0."""
    from scipy.special import betainc

    return np.where(k > 0, betainc(np.maximum(k, 1), n - np.maximum(k, 1) + 1, delta), 1.0)
