"""From records to a verdict: the only place where a claim's status is decided. Pure: it reads records, nothing else.

``DECIDERS`` maps a rule to its function ``(rule, sample) -> list[Decision]``, one decision a grid point (a line, for
rates): at level 0.01 for support, and at 0.01 / (number of points) for refutation. Here the points become one status:
refuted where some point is (Bonferroni), supported where every point is (intersection-union) and every planned trial
is there, else inconclusive. So a false refutation and a false support of a claim each have probability at most 0.01.
Where a twin is not rejected the claim is inconclusive, whatever its own data say: a test that cannot see a falsehood
shows nothing.

A new rule is one function in a file of its own and one line in the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mdpsim.arrays import fail, unknown
from mdpsim.claims.claim import CLAIM_ARM, Claim, Point, Twin
from mdpsim.claims.rules import HighProb, Identity, Inequality, Limit, Mean, Order, Rate, Rule
from mdpsim.claims.within import unfold
from mdpsim.verdict.exact import decide_identity, decide_inequality
from mdpsim.verdict.high_prob import decide_high_prob
from mdpsim.verdict.limit import decide_limit
from mdpsim.verdict.mean import decide_mean
from mdpsim.verdict.order import decide_order
from mdpsim.verdict.rate import decide_rate
from mdpsim.verdict.records import (
    INCONCLUSIVE,
    NOT_REJECTED,
    REFUTED,
    REJECTED,
    SUPPORTED,
    PointVerdict,
    Records,
    TwinVerdict,
    Verdict,
)
from mdpsim.verdict.sample import ANYTHING, Decision, Sample

DECIDERS: dict[type, Callable[[Any, Sample], list[Decision]]] = {
    Identity: decide_identity,
    Inequality: decide_inequality,
    Mean: decide_mean,
    Rate: decide_rate,
    HighProb: decide_high_prob,
    Order: decide_order,
    Limit: decide_limit,
}

NO_POWER = 100.0  # a bound this many times what was measured would not notice most falsehoods
NOTHING = PointVerdict(Point(), INCONCLUSIVE, math.nan, ANYTHING, math.nan, None, 0, 1.0)  # no trials at all
_RANK = {REFUTED: 0, INCONCLUSIVE: 1, SUPPORTED: 2}


@dataclass(frozen=True)
class Finding:
    """What one arm says under one rule."""

    status: str
    points: tuple[PointVerdict, ...]
    worst: PointVerdict | None
    p_value: float
    notes: tuple[str, ...]
    n_trials: int


def judge(claim: Claim, records: Records) -> Verdict:
    """Decide a claim and its twins from what a run recorded.

    Args:
        claim: the sentence, its rule and its twins.
        records: the trials of one preset and seed, complete or not.
    Returns:
        Verdict: false refutation and false support of the claim have probability at most 0.01 each, under the
        conditions measured in :mod:`mdpsim.verdict.stats`.
    Raises:
        ValueError: records of another claim, revision or preset; a column that the rule names is missing or not 1-D.
    """
    _check(claim, records)
    width = len(next(iter(claim.within.values()), (None,)))  # values a trial: they are not counted as trials
    claim, records = unfold(claim, records)
    own = _examine(claim, claim.rule, CLAIM_ARM, claim.grid[records.preset], claim.seeds[records.preset], records)
    twins = tuple(_judge_twin(claim, twin, records) for twin in claim.twins)
    kept = any(t.status != REJECTED for t in twins)
    status = INCONCLUSIVE if kept else own.status
    notes = [*_status_notes(claim, own, status, twins), *own.notes, *records.notes]
    shown = own.worst or NOTHING
    return Verdict(
        claim=claim.id, rev=claim.rev, origin=claim.origin, preset=records.preset, seed=records.seed, status=status,
        estimate=shown.estimate, interval=shown.interval, bound=shown.bound, slack=shown.slack,
        twin_status=NOT_REJECTED if kept else REJECTED, n_trials=own.n_trials // width, points=own.points,
        seconds=records.seconds, versions=records.versions, twins=twins, p_value=own.p_value,
        notes=tuple(notes), rule=claim.rule.name,
    )


def _check(claim: Claim, records: Records) -> None:
    if not isinstance(claim, Claim):
        fail("judge", "claim", "be a Claim", repr(claim))
    if not isinstance(records, Records):
        fail("judge", "records", "be Records (what run returns)", repr(records))
    if (records.claim, records.rev) != (claim.id, claim.rev):
        fail("judge", "records", f"be of {claim.id} revision {claim.rev}", f"{records.claim} revision {records.rev}")
    claim.check_preset(records.preset)
    for rule in (claim.rule, *(t.rule for t in claim.twins if t.rule is not None)):
        if type(rule) not in DECIDERS:
            unknown("judge", f"rule of {claim.id}", type(rule).__name__, [r.__name__ for r in DECIDERS])


def _examine(
    claim: Claim, rule: Rule, arm: str, grid: Sequence[Point], trials: int, records: Records
) -> Finding:
    """Decide every point of one arm under one rule, and the arm as a whole."""
    where = f"judge: {claim.id}, arm {arm!r}, rule {rule.name}"
    sample = Sample(where, tuple(grid), trials, records.arms.get(arm, {}))
    decisions = [_cap(d, trials) for d in DECIDERS[type(rule)](rule, sample)]
    units = len({p.without(rule.axis) for p in grid}) if isinstance(rule, Rate) else len(grid)
    statuses = [d.verdict.status for d in decisions]
    status = REFUTED if REFUTED in statuses else SUPPORTED if statuses == [SUPPORTED] * units else INCONCLUSIVE
    worst = min(decisions, key=lambda d: (_RANK[d.verdict.status], -d.excess)).verdict if decisions else None
    p_value = min([1.0, *(units * d.verdict.p_value for d in decisions)])
    planned, present = len(grid) * trials, sum(sample.count(p) for p in grid)
    notes = [f"{present} of {planned} trials present"] if present < planned else []
    notes += _worst_notes(rule, worst)
    return Finding(status, tuple(d.verdict for d in decisions), worst, p_value, tuple(notes), present)


def _cap(decision: Decision, trials: int) -> Decision:
    """A point short of trials supports nothing; it may refute."""
    v = decision.verdict
    if v.n_trials >= trials:
        return decision
    note = "; ".join(filter(None, [v.note, f"{v.n_trials} of {trials} trials present"]))
    return replace(decision, verdict=replace(
        v, status=INCONCLUSIVE if v.status == SUPPORTED else v.status, note=note
    ))


def _worst_notes(rule: Rule, worst: PointVerdict | None) -> list[str]:
    """What a reader of the worst point's numbers must know."""
    if worst is None:
        return []
    notes = []
    if not isinstance(rule, Identity) and worst.slack is not None and worst.slack > NO_POWER:
        notes.append(f"no power: slack {_round(worst.slack)}")
    if worst.note:
        notes.append(f"{worst.note} ({worst.point})" if len(worst.point) else worst.note)
    return notes


def _round(slack: float) -> str:
    """Two significant digits: 3012 -> 3000."""
    return "infinite" if math.isinf(slack) else f"{float(f'{slack:.1e}'):g}"


def _status_notes(claim: Claim, own: Finding, status: str, twins: tuple[TwinVerdict, ...]) -> list[str]:
    """Why the status is not simply what the worst point's numbers say."""
    kept = [t for t in twins if t.status != REJECTED]
    notes = [f"twin {t.name!r} not rejected" + (f" ({t.note})" if t.note else "") for t in kept]
    if kept and own.status != INCONCLUSIVE:
        notes.append(f"but for its twins this claim would be {own.status}")
    if status == REFUTED and claim.origin == "as-transcribed":
        notes.append("refuted as transcribed: check the text")
    return notes


def _judge_twin(claim: Claim, twin: Twin, records: Records) -> TwinVerdict:
    """A twin is rejected where its own points refute it, on its own grid and its own number of trials."""
    preset = records.preset
    grid, trials = (twin.grid or claim.grid)[preset], (twin.seeds or claim.seeds)[preset]
    found = _examine(claim, twin.rule or claim.rule, twin.arm, grid, trials, records)
    status = REJECTED if found.status == REFUTED else NOT_REJECTED
    return TwinVerdict(twin.name, twin.statement, twin.distance, status, found.worst, "; ".join(found.notes))
