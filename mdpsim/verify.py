"""From a claim to its verdict: run what is missing, then judge."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from mdpsim.arrays import as_count, fail, unknown
from mdpsim.claims.chunk import place
from mdpsim.claims.claim import PRESETS, Claim, Point
from mdpsim.claims.device import DEVICES, check_device, depends_on_device, moved, on_device
from mdpsim.claims.records import Records
from mdpsim.claims.run import MAX_SEED, TIMEOUT, missing, run_all
from mdpsim.registry import get_claim
from mdpsim.store import Store, as_store
from mdpsim.verdict.judge import judge
from mdpsim.verdict.records import Verdict
from mdpsim.versions import install_hint, lacking


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
    budget: float | None = None,
    timeout: float = TIMEOUT,
    keep_going: bool = False,
    device: str = "auto",
) -> Verdict:
    """Run the trials that a store does not hold yet, and judge all that the preset asks for.

    Args:
        claim: a Claim, or the id of a registered one.
        preset: "smoke", "quick", "paper" or "full".
        seed: K; trial i of a point draws from (K, i).
        store: a Store or its path; None keeps nothing.
        jobs: number of processes. With more than one, a script needs ``if __name__ == "__main__":``.
        budget: seconds after which nothing more is begun; None runs all. A claim short of trials is inconclusive, or refuted.
        timeout: seconds that a chunk of trials (about 75 ms, or one trial) may take before it is given up.
        keep_going: leave out trials that raise or give a NaN, rather than give the claim up; it is not supported without them.
        device: where claims that depend on it are computed: "cpu", "cuda", or "auto": CUDA where there is a device.
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
    check_device("verify", "device", device)
    seed, jobs = as_count("verify", "seed", seed, low=0, high=MAX_SEED), as_count("verify", "jobs", jobs)
    claim = on_device(claim, device)
    opened = as_store(store)
    try:
        run_all(
            [claim], preset=preset, seed=seed, sink=opened, jobs=jobs, budget=budget, timeout=timeout, keep_going=keep_going
        )
        return judge(claim, opened.records(claim, preset, seed))
    finally:
        if opened is not store:
            opened.close()


class JudgeError(RuntimeError):
    """Claims that could not be judged: a bound or rule that raised, columns that do not fit it."""


def isolated(claims: Iterable[Claim], one: Callable[[Claim], Judged], failed: list[str]) -> list[Judged]:
    """What ``one`` says of each claim; what it raises costs that claim its verdict, is told in ``failed``, and no other's."""
    judged = []
    for claim in claims:
        try:
            judged.append(one(claim))
        except (OSError, sqlite3.Error):  # the store's, and so every claim's
            raise
        except Exception as error:
            failed.append(f"{claim.id} could not be judged: {_where(error)}")
    return judged


def _where(error: Exception) -> str:
    """The error in one line, with the file and line where it was raised."""
    return (str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}") + place(error)


def judge_all(
    claims: Sequence[Claim], *, preset: str, seed: int, store: Store, failed: list[str] | None = None
) -> list[Judged]:
    """Judge what a store holds, running nothing; a claim that cannot run here says what it needs.

    Args:
        failed: gets a line for each claim that could not be judged; None raises after all the others.
    Raises:
        JudgeError: claims that could not be judged, where ``failed`` is None.
    """
    told: list[str] = []
    judged = isolated(claims, lambda claim: _judge_one(claim, preset, seed, store), told)
    if failed is not None:
        failed += told
    elif told:
        raise JudgeError("; ".join(told))
    return judged


def _judge_one(claim: Claim, preset: str, seed: int, store: Store) -> Judged:
    records = store.records(claim, preset, seed)
    if absent := lacking(claim.needs):
        records = replace(records, notes=(*records.notes, install_hint(absent)))
    return Judged(claim, records, judge(claim, records))


def held_preset(claim: Claim, seed: int, store: Store) -> str:
    """The largest preset of which a store holds every trial; "quick" (or the claim's first) where there is none."""
    for preset in reversed([p for p in PRESETS if p in claim.grid]):
        plan = claim.plan(preset)
        if not any(store.missing(claim, arm, p, seed, n) for arm, points in plan.items() for p, n in points.items()):
            return preset
    return "quick" if "quick" in claim.grid else next(iter(claim.grid))


def held_device(claim: Claim, seed: int, store: Store, preset: str | None = None) -> str:
    """The device on which a store holds the larger complete preset of a claim, then more trials; the CPU on ties."""
    if not depends_on_device(claim):
        return "cpu"

    def held(device: str) -> tuple[int, int]:
        there = moved(claim, device)
        name = preset or held_preset(there, seed, store)
        left = sum(len(chunk.trials) for chunk in missing([there], name, seed, store))
        return -1 if left else PRESETS.index(name), -left

    return max(DEVICES, key=held)


def judge_held(
    claim: Claim, *, seed: int, store: Store, preset: str | None = None, device: str | None = None
) -> Judged:
    """Judge what a store holds of a claim: of its largest complete preset, on the device that has it, where these are None."""
    there = moved(claim, device or held_device(claim, seed, store, preset))
    return _judge_one(there, preset or held_preset(there, seed, store), seed, store)


class Costs(NamedTuple):
    """What a claim has cost, all seeds together, and what its presets would.

    trials, seconds: measured so far. estimates: preset -> seconds for all its trials; None where nothing is known.
    """

    trials: int
    seconds: float
    estimates: dict[str, float | None]


def estimate_costs(claim: Claim, store: Store) -> Costs:
    """Costs from a store's table: trials at a point take what they took there, or the mean of their arm, or of the claim."""
    measured = store.costs(claim)
    totals: dict[str | None, list[float]] = {}
    for (arm, _), (trials, seconds) in measured.items():
        for group in (arm, None):
            total = totals.setdefault(group, [0, 0.0])
            total[0] += trials
            total[1] += seconds

    def each(arm: str, point: Point) -> float:
        trials, seconds = measured.get((arm, point.json)) or totals.get(arm) or totals[None]
        return seconds / trials

    estimates: dict[str, float | None] = dict.fromkeys(p for p in PRESETS if p in claim.grid)
    for preset in estimates if measured else ():
        estimates[preset] = sum(n * each(arm, p) for arm, points in claim.plan(preset).items() for p, n in points.items())
    trials, seconds = totals.get(None, [0, 0.0])
    return Costs(int(trials), seconds, estimates)
