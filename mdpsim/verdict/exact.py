"""Rules without chance: Identity and Inequality. One violated trial refutes; p-values are 0 or 1.

A gap of NaN or infinity is a gap: refuted. In an inequality a value of +infinity exceeds every finite bound, an
infinite bound is met, and NaN decides nothing: inconclusive, with a note, unless another trial refutes.
"""

from __future__ import annotations

import math

import numpy as np

from mdpsim.arrays import fail
from mdpsim.claims.claim import Point
from mdpsim.claims.rules import Identity, Inequality, Quantity
from mdpsim.verdict.records import REFUTED, SUPPORTED, PointVerdict
from mdpsim.verdict.sample import Decision, Sample, ratios, slack_of, undecided


def decide_identity(rule: Identity, sample: Sample) -> list[Decision]:
    """Refuted at a point where some gap exceeds its tolerance; shows the largest gap / tolerance."""
    return [
        max((_worst_gap(sample, p, column, tol) for column, tol in rule.gaps.items()), key=lambda d: d.excess)
        for p in sample.present
    ]


def _worst_gap(sample: Sample, point: Point, column: str, tolerance: Quantity) -> Decision:
    gap = np.abs(sample.column(point, column))
    gap = np.where(np.isnan(gap), math.inf, gap)
    tol = sample.quantity(point, tolerance)
    if not np.all((tol >= 0.0) & (tol < math.inf)):
        fail(sample.where, f"tolerance of {column!r}", "be finite and >= 0", f"{tol.min()} .. {tol.max()} at {point}")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        excess = np.where(gap <= tol, np.where(tol > 0.0, gap / tol, 0.0), gap / tol)
    i = int(np.argmax(excess))
    worst, bound, met = float(gap[i]), float(tol[i]), bool(np.all(gap <= tol))
    status, p_value = _exact(met)
    slack = bound / worst if worst > 0.0 else None
    note = f"largest gap / tolerance: {column!r}, trial {i}"
    verdict = PointVerdict(point, status, worst, (worst, worst), bound, slack, len(gap), p_value, note)
    return Decision(verdict, float(excess[i]))


def decide_inequality(rule: Inequality, sample: Sample) -> list[Decision]:
    """Refuted at a point where some instance exceeds its bound; shows the instance with the least slack."""
    return [_closest_instance(rule, sample, p) for p in sample.present]


def _closest_instance(rule: Inequality, sample: Sample, point: Point) -> Decision:
    x = sample.column(point, rule.of)
    bound, tol = sample.quantity(point, rule.bound), sample.quantity(point, rule.tol)
    unknown = np.isnan(x) | np.isnan(bound) | np.isnan(tol)
    violated = ~unknown & (x > bound + tol)
    if unknown.any() and not violated.any():
        return undecided(point, x, f"{int(unknown.sum())} of {len(x)} trials are not numbers")
    ratio = ratios(x, bound)
    i = int(np.argmax(np.where(violated | ~violated.any(), ratio, -math.inf)))  # the worst of those that decide
    status, p_value = _exact(not violated.any())
    value, limit = float(x[i]), float(bound[i])
    note = f"trial {i} {'exceeds' if violated[i] else 'came closest to'} its bound"
    verdict = PointVerdict(point, status, value, (value, value), limit, slack_of(limit, value), len(x), p_value, note)
    return Decision(verdict, float(ratio[i]))


def _exact(met: bool) -> tuple[str, float]:
    """Status and p-value where nothing is left to chance."""
    return (SUPPORTED, 1.0) if met else (REFUTED, 0.0)
