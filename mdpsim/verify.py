"""From a claim to its verdict: run what is missing, then judge."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from mdpsim.arrays import as_count, fail, unknown
from mdpsim.claims.claim import PRESETS, Claim
from mdpsim.claims.records import Records
from mdpsim.claims.run import run_all
from mdpsim.registry import get_claim
from mdpsim.store import Store, as_store
from mdpsim.verdict.judge import judge
from mdpsim.verdict.records import Verdict


class Judged(NamedTuple):
    """A claim with what was measured and what may be said of it."""

    claim: Claim
    records: Records
    verdict: Verdict


def verify(
    claim: Claim | str,
    *,
    preset: str = "quick",
    seed: int = 0,
    store: Store | str | os.PathLike[str] | None = None,
    jobs: int = 1,
) -> Verdict:
    """Run the trials that a store does not hold yet, and judge all that the preset asks for.

    Args:
        claim: a Claim, or the id of a registered one.
        preset: "smoke", "quick", "paper" or "full".
        seed: K; trial i of a point draws from (K, i).
        store: a Store or its path; None keeps nothing.
        jobs: number of processes. With more than one, a script needs ``if __name__ == "__main__":``.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
        MeasureError: the claim's measure raised or returned no valid columns.
    """
    if isinstance(claim, str):
        claim = get_claim(claim)
    elif not isinstance(claim, Claim):
        fail("verify", "claim", "be a Claim or the id of one", repr(claim))
    if preset not in PRESETS:
        unknown("verify", "preset", preset, PRESETS)
    as_count("verify", "seed", seed, low=0)
    as_count("verify", "jobs", jobs)
    opened = as_store(store)
    try:
        run_all([claim], preset=preset, seed=seed, sink=opened, jobs=jobs)
        return judge(claim, opened.records(claim, preset, seed))
    finally:
        if opened is not store:
            opened.close()


def judge_all(claims: Sequence[Claim], *, preset: str, seed: int, store: Store) -> list[Judged]:
    """Judge what a store holds, running nothing."""
    judged = []
    for claim in claims:
        records = store.records(claim, preset, seed)
        judged.append(Judged(claim, records, judge(claim, records)))
    return judged


def held_preset(claim: Claim, seed: int, store: Store) -> str:
    """The largest preset of which a store holds every trial; "quick" (or the claim's first) where there is none."""
    for preset in reversed([p for p in PRESETS if p in claim.grid]):
        plan = claim.plan(preset)
        if not any(store.missing(claim, arm, p, seed, n) for arm, points in plan.items() for p, n in points.items()):
            return preset
    return "quick" if "quick" in claim.grid else next(iter(claim.grid))
