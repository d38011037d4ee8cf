"""From records to the numbers a figure shows: curves along an axis, ratios to a bound.

Numbers only; nothing here draws or decides. What is read and how intervals are made is the judge's own: the planned
trials of each point, and skewness-corrected limits, here two-sided at 99% for a single point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from mdpsim.claims.claim import Claim, Point, Twin
from mdpsim.claims.rules import LEVEL, HighProb, Identity, Inequality, Limit, Mean, Order, Quantity, Rate, Rule
from mdpsim.verdict import stats
from mdpsim.verdict.limit import decide_limit, margin_at, reach
from mdpsim.verdict.records import Records
from mdpsim.verdict.sample import Sample
from mdpsim.verdict.sample import ratios as to_bound

# Axes that number things rather than measure them: no curve runs along them.
_INDICES = {"instance", "index", "replicate", "case", "seed", "draw"}


@dataclass(frozen=True)
class Curve:
    """A column along an axis on one line of the grid; arrays of the same length, x increasing."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    done: np.ndarray


def sample(claim: Claim, records: Records, twin: Twin | None = None) -> Sample:
    """What the judge reads of a claim, or of one of its twins."""
    arm, grid, seeds = "claim", claim.grid, claim.seeds
    if twin is not None:
        arm, grid, seeds = twin.arm, twin.grid or grid, twin.seeds or seeds
    return Sample(claim.id, tuple(grid[records.preset]), seeds[records.preset], records.arms.get(arm, {}))


def twin_rule(claim: Claim, twin: Twin) -> Rule:
    """The rule that judges a twin."""
    return twin.rule or claim.rule


def rate_axis(claim: Claim, records: Records) -> str | None:
    """The axis a rate plot runs along, None where there is none (a margin plot then).

    The rule's axis for Rate; for Mean the longest numeric axis of three or more positive values, sample sizes first.
    """
    if isinstance(claim.rule, Rate):
        return claim.rule.axis
    if not isinstance(claim.rule, Mean):
        return None
    points = claim.grid[records.preset]
    found = []
    for name in dict.fromkeys(n for p in points for n in p):
        values = [p.get(name) for p in points]
        numeric = all(isinstance(v, int | float) and v > 0 for v in values)
        if name not in _INDICES and numeric and len(set(values)) > 2:
            found.append((not name.startswith("n_"), -len(set(values)), name))
    return min(found)[2] if found else None


def lines(points: Iterable[Point], axis: str) -> dict[Point, list[Point]]:
    """Points grouped by all their other axes, each group along the axis."""
    groups: dict[Point, list[Point]] = {}
    for p in points:
        if axis in p:
            groups.setdefault(p.without(axis), []).append(p)
    return {shared: sorted(group, key=lambda p: p[axis]) for shared, group in groups.items()}


def curve(points: Iterable[Point], data: Sample, axis: str, column: Quantity) -> Curve:
    """The mean of a column (or a bound) over the trials at each recorded point of a line."""
    rows = [
        (p[axis], *mean_interval(data.quantity(p, column)), data.count(p) >= data.trials)
        for p in points
        if data.count(p)
    ]
    x, mean, low, high, done = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    return Curve(x, mean, low, high, done.astype(bool))


def mean_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over trials and its 99% interval; one trial, or a mean that is not finite, has an interval of no width."""
    if len(values) < 2 or not np.isfinite(values).all():
        mean = float(np.mean(values))
        return mean, mean, mean
    m = stats.moments(values)
    return float(m.mean), float(stats.lower_limit(m, LEVEL / 2)), float(stats.upper_limit(m, LEVEL / 2))


def other_bounds(claim: Claim, data: Sample) -> list[str]:
    """Measured columns whose name ends in "bound", curves for comparison; those of the rule and of twins left out."""
    own = {getattr(rule, "bound", None) for rule in (claim.rule, *(t.rule for t in claim.twins if t.rule))}
    names = dict.fromkeys(n for p in data.present for n, c in data.data[p].items() if np.ndim(c) == 1)
    return [n for n in names if n.endswith("bound") and n not in own]


def ratios(rule: Rule, point: Point, data: Sample) -> np.ndarray:
    """What a rule compares with 1, trial by trial; above 1 the trial contradicts a deterministic rule.

    Identity: the worst of gap / tolerance over its gap columns. Inequality: value / (bound + tol). Mean, HighProb:
    value / bound. All in the judge's form for bounds that are not positive. Order: 1 - (difference - margin) / mean
    size of the larger. Limit, of which no single trial says anything: the nearest, the middle and the farthest point
    of the interval, as distances over the margin. NaN counts as infinite: it supports nothing.
    """
    if isinstance(rule, Identity):
        each = [_excess(data.column(point, gap), data.quantity(point, tol)) for gap, tol in rule.gaps.items()]
        return np.max(each, axis=0)
    if isinstance(rule, Order):
        larger = data.column(point, rule.larger)
        lead = larger - data.column(point, rule.smaller) - rule.margin
        return _unknown_as_infinite(to_bound(-lead, np.full(len(lead), float(np.mean(np.abs(larger))))) + 1.0)
    if isinstance(rule, Limit):
        return _limit_reach(rule, point, data)
    if isinstance(rule, Inequality | Mean | HighProb):
        bound = data.quantity(point, rule.bound)
        if isinstance(rule, Inequality):
            bound = bound + data.quantity(point, rule.tol)
        return _unknown_as_infinite(to_bound(data.column(point, rule.of), bound))
    raise TypeError(f"ratios: a {type(rule).__name__} rule compares slopes, not values")


def _unknown_as_infinite(out: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(out), np.inf, out)


def _limit_reach(rule: Limit, point: Point, data: Sample) -> np.ndarray:
    """[3] distances from the limit over the margin: of the interval's near end, of the estimate, of its far end."""
    (decision,) = decide_limit(rule, replace(data, data={point: data.data[point]}))
    p, margin = decision.verdict, np.array([margin_at(rule, data, point)])
    centre = p.bound if rule.law is None else 0.0
    near, far = reach(p.interval[0] - centre, p.interval[1] - centre)
    return _excess(np.array([near, abs(p.estimate - centre), far]), margin)


def in_bounds(value: float, bound: float) -> float:
    """A number of a verdict in units of its bound, in the judge's form for bounds that are not positive."""
    if not math.isfinite(value):
        return value
    return float(to_bound(np.array([value]), np.array([bound]))[0])


def _excess(gap: np.ndarray, tol: np.ndarray) -> np.ndarray:
    """|gap| / tol, with 0/0 = 0: an exact zero is within a zero tolerance."""
    gap = np.where(np.isnan(gap), np.inf, np.abs(gap))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where((gap == 0.0) & (tol == 0.0), 0.0, gap / tol)
