"""What every rule reads (Sample) and returns (Decision), and the arithmetic that rules share.

Bounds that are not positive: value and bound are compared through 1 + (value - bound) / abs(bound), which is
value / bound for positive bounds. At bound 0 it is 1 for values up to 0 (met, without crediting any room) and infinite
above.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mdpsim.arrays import FloatArray, fail
from mdpsim.claims.claim import Point
from mdpsim.claims.rules import Quantity
from mdpsim.verdict.records import INCONCLUSIVE, Columns, PointVerdict

ROUNDING = 1e-12  # relative: float64 sums of a trial are no better, so a tie within it counts as met
ANYTHING = (-math.inf, math.inf)


@dataclass(frozen=True)
class Decision:
    """A decision at one point, and how close to refutation it is among those of the same status (larger is closer)."""

    verdict: PointVerdict
    excess: float


@dataclass(frozen=True)
class Sample:
    """What a rule reads: the first ``trials`` trials of one arm at the points of one grid.

    Trials beyond the plan are ignored: who may go on until the outcome pleases has no error rate.
    """

    where: str
    grid: tuple[Point, ...]
    trials: int
    data: Mapping[Point, Columns]

    @property
    def present(self) -> tuple[Point, ...]:
        """The points of the grid that have trials, in the order of the grid."""
        return tuple(p for p in self.grid if self.count(p))

    def count(self, point: Point) -> int:
        """Number of usable trials at a point: at most the planned one."""
        columns = self.data.get(point) or {}
        return min([self.trials, *(len(c) for c in columns.values())]) if columns else 0

    def column(self, point: Point, name: str) -> FloatArray:
        """A measured column [n], one number a trial."""
        columns = self.data[point]
        if name not in columns:
            fail(self.where, f"column {name!r}", "be measured", f"columns {', '.join(columns)}")
        values = np.asarray(columns[name], dtype=np.float64)
        if values.ndim != 1:
            fail(self.where, f"column {name!r}", "hold one number a trial", f"shape {values.shape} at {point}")
        return values[: self.count(point)]

    def quantity(self, point: Point, quantity: Quantity) -> FloatArray:
        """A bound or tolerance [n]: a number, a column, or a function of the point."""
        if isinstance(quantity, str):
            return self.column(point, quantity)
        value = quantity(point) if callable(quantity) else quantity
        return np.full(self.count(point), float(value))


def ratios(x: FloatArray, bound: FloatArray) -> FloatArray:
    """1 + (x - bound) / abs(bound) [n]: x / bound where bound > 0, at most 1 exactly where x <= bound.

    bound = 0: 1 where x <= 0, else infinity. bound = infinity: 0, or 1 where x is infinite too. NaN stays NaN.
    """
    with np.errstate(all="ignore"):
        ratio = np.where(bound > 0.0, x / bound, 1.0 + (x - bound) / np.abs(bound))
    ratio = np.where(bound == 0.0, np.where(x <= 0.0, 1.0, math.inf), ratio)
    ratio = np.where((bound == math.inf) & (x == math.inf), 1.0, ratio)
    return np.where(np.isnan(x) | np.isnan(bound), math.nan, ratio)


def natural_units(x: FloatArray, bound: FloatArray) -> Callable[[float], float]:
    """From a mean ratio to the units of the bound: mean bound + (ratio - 1) mean |bound|."""
    centre, unit = float(np.mean(bound)), float(np.mean(np.abs(bound)))
    if not math.isfinite(unit):  # an infinite bound has no units: show the values' own mean, and no limits
        mean = float(np.mean(x))
        return lambda ratio: mean if math.isfinite(ratio) else ratio
    return lambda ratio: (centre - unit) + ratio * unit if math.isfinite(ratio) else ratio


def undecided(point: Point, x: FloatArray, note: str) -> Decision:
    """A point at which there is no estimate: NaN, which JSON shows as null."""
    nan = math.nan
    return Decision(PointVerdict(point, INCONCLUSIVE, nan, ANYTHING, nan, None, len(x), 1.0, note), math.inf)


def slack_of(bound: float, value: float) -> float | None:
    """bound / value where both are positive; infinite for the value 0."""
    if bound > 0.0 and value == 0.0:
        return math.inf
    return bound / value if bound > 0.0 and 0.0 < value < math.inf else None
