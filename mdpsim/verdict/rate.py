"""The rule Rate: the slope of log mean(value) against log(axis) on every line of a grid.

A mean that is zero, negative, infinite or NaN has no logarithm: the line is inconclusive, with a note, and the slope
shown leaves that point out. So is a line with missing points: the slope over part of the range is another number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Point
from mdpsim.claims.rules import LEVEL, MIN_RATE_TRIALS, Rate
from mdpsim.verdict import stats
from mdpsim.verdict.limits import within
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, SUPPORTED, PointVerdict
from mdpsim.verdict.sample import ANYTHING, ROUNDING, Decision, Sample, slack_of, undecided


@dataclass(frozen=True)
class Line:
    """One line of a rate, sorted along its axis: what its points share, axis [K], values and bounds [K, n]."""

    shared: Point
    axis: FloatArray
    values: FloatArray
    bounds: FloatArray | None
    complete: bool

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """[K] bool: the means are positive and finite, so that they have logarithms."""
        with np.errstate(invalid="ignore", over="ignore"):
            means = np.stack([v.mean(axis=1) for v in (self.values, self.bounds) if v is not None])
        return np.all((means > 0.0) & (means < math.inf), axis=0)


def decide_rate(rule: Rate, sample: Sample) -> list[Decision]:
    """The slope of log mean(value) against log(axis) on every line, against the reference slope.

    With d = slope - reference and its 99% interval: supported where that lies inside [-margin, margin] (two_sided) or
    below margin (at_most); refuted where the interval at level 0.01 / (number of lines) lies wholly outside. The
    interval shown is reference + that of d: the 99% one where supported, else the one of the refutation.
    """
    lines: dict[Point, list[Point]] = {}
    for point in sample.grid:
        lines.setdefault(point.without(rule.axis), []).append(point)
    decided = [_decide_line(rule, sample, shared, points, LEVEL / len(lines)) for shared, points in lines.items()]
    return [d for d in decided if d is not None]


def _decide_line(rule: Rate, sample: Sample, shared: Point, points: list[Point], level: float) -> Decision | None:
    line = _read_line(rule, sample, shared, points)
    if line is None:
        return None
    n = line.values.shape[1]
    note = _line_note(rule, line, n)
    if np.sum(line.usable) < 2:
        return undecided(shared, line.values[0], note)
    axis, values = line.axis[line.usable], line.values[line.usable]
    bounds = None if line.bounds is None else line.bounds[line.usable]
    m = stats.slope_moments(axis, values, bounds)
    slope = float(stats.log_slope(axis, values.mean(axis=1)))
    # A formula's own slope is known to rounding: one that is flat shows as 0, not as -3e-15.
    reference = round(slope - float(m.mean), 12) + 0.0 if rule.slope is None else rule.slope
    status, (low, high), p_value = INCONCLUSIVE, ANYTHING, 1.0
    if not note:
        status, (low, high), p_value = _compare_slope(rule, m if rule.slope is None else m.shifted(-reference), level)
    slack = None if bounds is None else slack_of(float(bounds[-1].mean()), float(values[-1].mean()))
    verdict = PointVerdict(
        shared, status, slope, (reference + low, reference + high), reference, slack, n, p_value, note
    )
    return Decision(verdict, _outside(rule, low, high, status))


def _read_line(rule: Rate, sample: Sample, shared: Point, points: list[Point]) -> Line | None:
    """The trials that all present points of a line have; None where fewer than two points have any."""
    present = sorted((p for p in points if sample.count(p)), key=lambda p: p[rule.axis])
    if len(present) < 2:
        return None
    n = min(sample.count(p) for p in present)
    axis = np.array([float(p[rule.axis]) for p in present])
    values = np.stack([sample.column(p, rule.of)[:n] for p in present])
    bound = rule.bound
    bounds = None if bound is None else np.stack([sample.quantity(p, bound)[:n] for p in present])
    return Line(shared, axis, values, bounds, complete=len(present) == len(points))


def _line_note(rule: Rate, line: Line, n: int) -> str:
    """Why this line cannot be decided; empty where it can."""
    if not line.complete:  # the slope over part of the range is another number
        return f"points of the {rule.axis} axis are missing"
    if n < MIN_RATE_TRIALS:
        return f"{n} trials: a slope needs {MIN_RATE_TRIALS}"
    if not np.all(line.usable):
        where = ", ".join(f"{v:g}" for v in line.axis[~line.usable])
        return f"the mean (or its formula) at {rule.axis} = {where} has no logarithm"
    return ""


def _compare_slope(rule: Rate, m: stats.Moments, level: float) -> tuple[str, tuple[float, float], float]:
    """Status, interval of the difference, p-value of the refutation."""
    margin = rule.margin + ROUNDING
    if rule.side == "at_most":
        low, high = float(stats.lower_limit(m, level)), float(stats.upper_limit(m, LEVEL))
        status = REFUTED if low > margin else SUPPORTED if high <= margin else INCONCLUSIVE
        return status, (low, high), float(stats.p_above(m, margin))
    return within(m, margin, level)


def _outside(rule: Rate, low: float, high: float, status: str) -> float:
    """How far the near (refuted) or the far (otherwise) end of the interval lies from the reference."""
    if rule.side == "at_most":
        return low if status == REFUTED else high
    return max(low, -high) if status == REFUTED else max(high, -low)
