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

from mdpsim.arrays import as_real, fail, real_or_nan

Quantity = float | str | Callable[[Any], float]
Law = Callable[[Any, Any], Any] | tuple[str, Quantity]

LEVEL = 0.01  # chance of a false refutation, and of false support, of one claim
MIN_RATE_TRIALS = 20  # fewer trials give no usable interval for a slope
MIN_MEAN_TRIALS = 50  # fewer miss a value of weight 0.09 more than once in a hundred times: see stats


LAWS = ("chi2", "normal", "uniform")  # laws that can be stated by name and parameter; others are functions


def _check_quantity(rule: str, argument: str, value: Any) -> None:
    if (callable(value) and not isinstance(value, type)) or (isinstance(value, str) and value):
        return
    if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(real_or_nan(value)):
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
    fewest: ClassVar[int] = 1  # trials at a point without which nothing can be decided

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
    fewest: ClassVar[int] = 1

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
    fewest: ClassVar[int] = MIN_MEAN_TRIALS

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
    fewest: ClassVar[int] = MIN_RATE_TRIALS

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
        if not isinstance(self.side, str) or self.side not in ("two_sided", "at_most"):
            fail("Rate", "side", "be 'two_sided' or 'at_most'", repr(self.side))


@dataclass(frozen=True)
class HighProb:
    """P(of > bound) <= delta at every point.

    The number of violations among independent trials is binomial, so no law is assumed. Supported where the exact
    (Clopper-Pearson) upper limit of their probability is at most delta, refuted where the lower limit exceeds delta.
    Without a violation among n trials the upper limit is 1 - 0.01^(1/n): fewer than :attr:`fewest` trials (44 for
    delta = 0.1, 459 for 0.01) support nothing, and a true probability near delta stays inconclusive with any number.
    """

    bound: Quantity = "bound"
    delta: float = 0.1
    of: str = "value"
    name: ClassVar[str] = "high_prob"

    def __post_init__(self) -> None:
        _check_column("HighProb", "of", self.of)
        _check_quantity("HighProb", "bound", self.bound)
        as_real("HighProb", "delta", self.delta, 1e-6, 1.0 - 1e-6)

    @property
    def fewest(self) -> int:
        """Trials from which on a sample without violations supports: the least n with (1 - delta)^n <= 0.01."""
        return math.ceil(math.log(LEVEL) / math.log1p(-self.delta))


@dataclass(frozen=True)
class Order:
    """E[larger - smaller] > margin at every point, in units of the columns; both are measured in the same trials.

    Judged on the differences trial by trial. Supported where their lower limit exceeds margin, refuted where the upper
    limit is below or at it. A tie within rounding is no order.
    """

    larger: str
    smaller: str
    margin: float = 0.0
    name: ClassVar[str] = "order"
    fewest: ClassVar[int] = MIN_MEAN_TRIALS

    def __post_init__(self) -> None:
        _check_column("Order", "larger", self.larger)
        _check_column("Order", "smaller", self.smaller)
        if self.larger == self.smaller:
            fail("Order", "larger and smaller", "be different columns", repr(self.larger))
        as_real("Order", "margin", self.margin, -1e300, 1e300)


@dataclass(frozen=True)
class Limit:
    """The mean of a column is ``value`` up to ``margin``; or the column has the stated ``law`` up to ``margin``.

    Exactly one of ``value`` and ``law`` is given. Supported where the whole interval lies inside the margin, refuted
    where it lies wholly outside.

    Args:
        value: what E[of] is compared with; a column is the value of each trial's own instance.
        margin: half-width around the value, in its units: a number or a function of the point. For a law, the
            largest Kolmogorov distance sup |F - law|, a number in (0, 1): it fixes the number of trials needed.
        law: a continuous law on the line: a module-level function ``cdf(x [n], point) -> [n]``, or a name and its
            parameter: ("chi2", degrees of freedom), ("normal", standard deviation around 0), ("uniform", upper end
            above 0). The parameter is a Quantity.
    """

    value: Quantity | None = None
    margin: float | Callable[[Any], float] = 0.05
    of: str = "value"
    law: Law | None = None

    def __post_init__(self) -> None:
        _check_column("Limit", "of", self.of)
        if (self.value is None) == (self.law is None):
            fail("Limit", "value or law", "be given, exactly one of the two", (self.value, self.law))
        if self.law is not None:
            _check_law(self.law)
            as_real("Limit", "margin", self.margin, 0.001, 0.999)
            return
        _check_quantity("Limit", "value", self.value)
        if not callable(self.margin):
            as_real("Limit", "margin", self.margin, 0.0, 1e300)

    @property
    def name(self) -> str:
        """Limit of a mean, or of a law."""
        return "limit" if self.law is None else "law"

    @property
    def fewest(self) -> int:
        """For a law, the trials whose empirical distance is known to within the margin: log(2 / 0.01) / (2 margin^2)."""
        if self.law is None or callable(self.margin):
            return MIN_MEAN_TRIALS
        return math.ceil(math.log(2.0 / LEVEL) / (2.0 * self.margin**2))


def _check_law(law: Any) -> None:
    if callable(law):
        return
    if not isinstance(law, tuple) or len(law) != 2 or law[0] not in LAWS:
        fail("Limit", "law", f"be a function cdf(x, point), or one of {', '.join(LAWS)} with its parameter", repr(law))
    _check_quantity("Limit", "law", law[1])


Rule = Identity | Inequality | Mean | Rate | HighProb | Order | Limit
