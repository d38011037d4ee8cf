"""What it means for a claim to hold: rules as data. ``mdpsim.verdict.judge`` decides them.

A rule names the measured columns it reads and the bound it compares them with. A bound is a ``Quantity``:

* a number;
* the name of a measured column: a value computed exactly for each trial's own instance (never fitted);
* a module-level function of the point.

Statistical rules have level 0.01 for a claim. A simulation refutes, or fails to refute at a stated resolution: the
margin is that resolution. Support needs the whole interval inside the margin, refutation the whole interval outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mdpsim.arrays import as_real, fail

Quantity = float | str | Callable[[Any], float]

LEVEL = 0.01  # chance of a false refutation, and of false support, of one claim
MIN_RATE_TRIALS = 20  # fewer trials give no usable interval for a slope
MIN_MEAN_TRIALS = 50  # fewer miss a value of weight 0.09 more than once in a hundred times: see stats


def _check_quantity(rule: str, argument: str, value: Any) -> None:
    if callable(value) or (isinstance(value, str) and value):
        return
    if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value):
        return
    fail(rule, argument, "be a number, the name of a measured column or a function of the point", repr(value))


def _check_column(rule: str, argument: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        fail(rule, argument, "be the name of a measured column", repr(value))


@dataclass(frozen=True)
class Identity:
    """Two exact numbers agree: in every trial, every gap is at most its tolerance.

    Args:
        tol: tolerance of the column "gap", or a mapping from gap columns to their tolerances. It derives from float64
            and the scale of the numbers, or from the stated accuracy of an iterative method; never from the outcome.
    """

    tol: Quantity | Mapping[str, Quantity]
    name: ClassVar[str] = "identity"

    def __post_init__(self) -> None:
        for column, tol in self.gaps.items():
            _check_column("Identity", "tol", column)
            _check_quantity("Identity", "tol", tol)

    @property
    def gaps(self) -> Mapping[str, Quantity]:
        """Gap column -> tolerance."""
        return self.tol if isinstance(self.tol, Mapping) else {"gap": self.tol}


@dataclass(frozen=True)
class Inequality:
    """Deterministic: in every trial, ``of`` <= ``bound`` + ``tol``, where tol covers float64 rounding only."""

    bound: Quantity = "bound"
    of: str = "value"
    tol: Quantity = 0.0
    name: ClassVar[str] = "inequality"

    def __post_init__(self) -> None:
        _check_column("Inequality", "of", self.of)
        _check_quantity("Inequality", "bound", self.bound)
        _check_quantity("Inequality", "tol", self.tol)


@dataclass(frozen=True)
class Mean:
    """E[of] <= bound at every point: the mean of of/bound over trials is at most 1, judged at resolution ``margin``.

    Supported where the one-sided upper limit of the mean ratio is at most 1 + margin; refuted where the lower limit
    exceeds 1 + margin. A bound that is a column is the bound of each trial's own instance.
    """

    bound: Quantity = "bound"
    margin: float = 0.05
    of: str = "value"
    name: ClassVar[str] = "mean"

    def __post_init__(self) -> None:
        _check_column("Mean", "of", self.of)
        _check_quantity("Mean", "bound", self.bound)
        as_real("Mean", "margin", self.margin, 0.0, 10.0)


@dataclass(frozen=True)
class Rate:
    """The slope of log mean(of) against log(axis), compared with the slope of a formula on the same grid.

    Exactly one of ``bound`` (a Quantity: the slope of log(mean(of)/mean(bound)) is compared with 0, logarithms and
    constants of the formula included) and ``slope`` (a stated exponent) is given.

    Args:
        axis: name of the grid axis; the points that agree on all other axes form one line.
        margin: half-width of the region that counts as the claimed slope.
        side: "two_sided", or "at_most" for an upper bound (a faster decay supports it too).
    """

    axis: str
    bound: Quantity | None = None
    slope: float | None = None
    margin: float = 0.1
    side: str = "two_sided"
    of: str = "value"
    name: ClassVar[str] = "rate"

    def __post_init__(self) -> None:
        _check_column("Rate", "axis", self.axis)
        _check_column("Rate", "of", self.of)
        if (self.bound is None) == (self.slope is None):
            fail("Rate", "bound or slope", "be given, exactly one of the two", (self.bound, self.slope))
        if self.bound is not None:
            _check_quantity("Rate", "bound", self.bound)
        if self.slope is not None:
            as_real("Rate", "slope", self.slope, -100.0, 100.0)
        as_real("Rate", "margin", self.margin, 0.0, 10.0)
        if self.side not in ("two_sided", "at_most"):
            fail("Rate", "side", "be 'two_sided' or 'at_most'", repr(self.side))


Rule = Identity | Inequality | Mean | Rate
