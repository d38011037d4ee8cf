"""What a judge returns (Verdict); what it reads is :class:`mdpsim.claims.records.Records`. Plain data, no computing.

Statuses: ``supported``, ``refuted``, ``inconclusive``. A simulation refutes a sentence, or fails to refute it at a
stated resolution; it establishes nothing beyond that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mdpsim.claims.claim import Point
from mdpsim.claims.records import Columns, Records

__all__ = ["Columns", "PointVerdict", "Records", "TwinVerdict", "Verdict"]

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
REJECTED, NOT_REJECTED = "rejected", "not rejected"

@dataclass(frozen=True)
class PointVerdict:
    """The decision at one grid point (for a rate: on one line, ``point`` being what its points share).

    Attributes:
        estimate: gap (Identity), value (Inequality), mean in units of the mean bound (Mean), slope (Rate),
            (1 - delta)-quantile in those units (HighProb), mean difference (Order), mean or distance of laws (Limit).
            NaN where there is no estimate (no trials, or trials that are not numbers); JSON shows it as null.
        interval: (low, high), such that the status can be read off it: refuted where it lies wholly outside the claimed
            region, supported where wholly inside. The refuting end is at level 0.01 / (number of points), the
            supporting end at 0.01. For deterministic rules the estimate twice; infinite where there is no limit.
        bound: tolerance, bound, mean bound, the reference slope, the margin (Order, Limit of a law) or the value (Limit).
        slack: bound / estimate where that has a meaning (for a rate with a formula: formula / mean at the end of the
            axis), else None.
        p_value: of the refutation test at this point (0 or 1 for deterministic rules).
    """

    point: Point
    status: str
    estimate: float
    interval: tuple[float, float]
    bound: float
    slack: float | None
    n_trials: int
    p_value: float
    note: str = ""


@dataclass(frozen=True)
class TwinVerdict:
    """A twin's own verdict: ``rejected`` where it is refuted."""

    name: str
    statement: str
    distance: str
    status: str
    worst: PointVerdict | None
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """What one may say of a claim after these records.

    ``estimate``, ``interval``, ``bound`` and ``slack`` are those of the worst point: the one closest to refutation.
    ``n_trials`` counts the trials behind the claim's own verdict, all points together (its twins' not counted);
    ``p_value`` is that of the refutation, Bonferroni over points.
    """

    claim: str
    rev: int
    origin: str
    preset: str
    seed: int
    status: str
    estimate: float
    interval: tuple[float, float]
    bound: float
    slack: float | None
    twin_status: str
    n_trials: int
    points: tuple[PointVerdict, ...]
    seconds: float | None
    versions: Mapping[str, str]
    twins: tuple[TwinVerdict, ...]
    p_value: float
    notes: tuple[str, ...] = ()
    rule: str = ""

    @property
    def worst(self) -> PointVerdict | None:
        """The point whose numbers the verdict shows."""
        shown = [self.estimate, *self.interval, self.bound]
        for p in self.points:
            if np.array_equal([p.estimate, *p.interval, p.bound], shown, equal_nan=True):
                return p
        return None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping; infinities and missing values are None."""
        return _plain(asdict(self))


def _plain(value: Any) -> Any:
    """Strict JSON: no NaN or infinity, no tuples, no points."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
