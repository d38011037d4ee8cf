"""The rule Limit: a mean within a margin of a value, or a law within a Kolmogorov distance of the stated one.

For a law F the trials are taken to u = F(x), uniform on [0, 1] where the law holds, so that a law may have parameters of
its own in every trial. With D the distance of the empirical law of u from the uniform one, the true distance is in
D +- sqrt(log(2 / alpha) / (2 n)) with probability 1 - alpha, for every n and every law (Dvoretzky, Kiefer and Wolfowitz
with the constant of P. Massart, Ann. Probab. 18 (1990) 1269-1283). So these limits have no condition but independence.
"""

from __future__ import annotations

import math

import numpy as np

from mdpsim.arrays import FloatArray, fail
from mdpsim.claims.claim import Point
from mdpsim.claims.rules import LEVEL, MIN_MEAN_TRIALS, Limit
from mdpsim.verdict import stats
from mdpsim.verdict.limits import MAX_SKEW, equal_trials, few_trials, within
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, SUPPORTED, PointVerdict
from mdpsim.verdict.sample import ANYTHING, ROUNDING, Decision, Sample, undecided


def decide_limit(rule: Limit, sample: Sample) -> list[Decision]:
    """The interval of the mean, or of the distance of the law, against the margin.

    Support at level 0.01, refutation at 0.01 / (number of points), half of it on each side of a mean. Shown for a mean:
    the mean, its interval and the value; for a law: the distance, its interval and the margin.
    """
    decide = _decide_mean_at if rule.law is None else _decide_law_at
    return [decide(rule, sample, p, LEVEL / len(sample.grid)) for p in sample.present]


def _decide_mean_at(rule: Limit, sample: Sample, point: Point, level: float) -> Decision:
    assert rule.value is not None
    x, value = sample.column(point, rule.of), sample.quantity(point, rule.value)
    with np.errstate(invalid="ignore"):
        gap = x - value
    infinite = np.unique(gap[~np.isfinite(gap)])
    if len(infinite) > 1 or np.isnan(infinite).any() or not np.isfinite(value).all():
        return undecided(point, x, f"{int(np.sum(~np.isfinite(gap)))} of {len(x)} trials are not numbers")
    centre, margin = float(np.mean(value)), margin_at(rule, sample, point)
    if len(infinite):  # the mean is infinite, with certainty
        end, note = float(infinite[0]), f"{int(np.sum(~np.isfinite(gap)))} of {len(x)} trials are infinite"
        return Decision(PointVerdict(point, REFUTED, end, (end, end), centre, None, len(x), 0.0, note), math.inf)
    m = stats.moments(gap)
    status, (low, high), p_value, note = INCONCLUSIVE, ANYTHING, 1.0, few_trials(m.n)
    if m.n >= MIN_MEAN_TRIALS:
        tie = ROUNDING * float(np.mean(np.maximum(np.abs(x), np.abs(value))))
        status, (low, high), p_value = within(m, margin + tie, level)
        note = equal_trials(m.n) if m.sd == 0.0 else ""
    if status == SUPPORTED and abs(m.skew) > MAX_SKEW * math.sqrt(m.n) and np.max(np.abs(gap)) > margin:
        status, (low, high) = INCONCLUSIVE, (min(low, float(gap.min())), max(high, float(gap.max())))
        note = f"skewness {m.skew:.2g}: one or two of {m.n} trials carry the mean"
    shown = (centre + low, centre + high)
    verdict = PointVerdict(point, status, centre + float(m.mean), shown, centre, None, len(x), p_value, note)
    nearest, farthest = reach(low, high)
    return Decision(verdict, (nearest if status == REFUTED else farthest) - margin)


def margin_at(rule: Limit, sample: Sample, point: Point) -> float:
    """The margin at a point: finite, not negative."""
    margin = float(rule.margin(point)) if callable(rule.margin) else float(rule.margin)
    if not 0.0 <= margin < math.inf:
        fail(sample.where, "margin", "be finite and >= 0", f"{margin} at {point}")
    return margin


def reach(low: float, high: float) -> tuple[float, float]:
    """Distances from 0 of the nearest and the farthest point of an interval."""
    return max(low, -high, 0.0), max(high, -low)


def _decide_law_at(rule: Limit, sample: Sample, point: Point, level: float) -> Decision:
    x = sample.column(point, rule.of)
    u = law_cdf(rule, sample, point, x)
    if np.isnan(u).any():
        return undecided(point, x, f"{int(np.isnan(u).sum())} of {len(x)} trials are not numbers")
    n, distance, margin = len(x), uniform_distance(u), margin_at(rule, sample, point)
    low, high = max(distance - dkw_radius(n, level), 0.0), min(distance + dkw_radius(n, LEVEL), 1.0)
    status = REFUTED if low > margin else SUPPORTED if high <= margin else INCONCLUSIVE
    p_value = min(1.0, 2.0 * math.exp(-2.0 * n * max(distance - margin, 0.0) ** 2))
    verdict = PointVerdict(point, status, distance, (low, high), margin, margin / distance, n, p_value)
    return Decision(verdict, low if status == REFUTED else high)


def law_cdf(rule: Limit, sample: Sample, point: Point, x: FloatArray) -> FloatArray:
    """u = F(x) [n]: uniform where the stated law holds; NaN where x is, or where a parameter is none."""
    from scipy.special import chdtr, ndtr

    law = rule.law
    if callable(law):
        u = np.asarray(law(x, point), dtype=np.float64)
    else:
        assert law is not None
        parameter = sample.quantity(point, law[1])
        parameter = np.where(parameter > 0.0, parameter, math.nan)
        if law[0] == "chi2":
            u = chdtr(parameter, np.maximum(x, 0.0))
        else:
            u = ndtr(x / parameter) if law[0] == "normal" else np.clip(x / parameter, 0.0, 1.0)
    if u.shape != x.shape or np.any((u < 0.0) | (u > 1.0)):
        fail(sample.where, "law", f"give numbers in [0, 1] of shape {x.shape}", f"shape {u.shape} at {point}")
    return np.where(np.isnan(x), math.nan, u)


def uniform_distance(u: FloatArray) -> float:
    """sup over t of |share of u <= t, less t|: at least 1 / (2 n)."""
    n, ordered = len(u), np.sort(u)
    rank = np.arange(n)
    return float(max(np.max((rank + 1) / n - ordered), np.max(ordered - rank / n)))


def dkw_radius(n: int, level: float) -> float:
    """sqrt(log(2 / level) / (2 n)), which the empirical law of n trials leaves with probability at most ``level``."""
    return math.sqrt(math.log(2.0 / level) / (2.0 * n))
