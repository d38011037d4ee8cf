"""What a run produces: the trials of a claim, by arm and point, and the place they are kept while it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mdpsim.arrays import fail
from mdpsim.claims.claim import Claim, Point
from mdpsim.versions import versions

Columns = Mapping[str, np.ndarray]  # column -> array [n] or [n, L], trial i in row i


class RecordConflictError(RuntimeError):
    """A trial was measured twice on one platform, with different values: its measure depends on more than its key."""


@dataclass(frozen=True)
class Records:
    """The trials of one claim at one preset and seed.

    Attributes:
        arms: arm -> point -> columns; trials 0 .. n-1 in order. Points not yet run may be missing or shorter.
        seconds: time spent measuring these records, where known.
        versions: versions of what produced them, where known.
        notes: what a reader should know of these records (other revisions in the store, mixed platforms).
    """

    claim: str
    rev: int
    preset: str
    seed: int
    arms: Mapping[str, Mapping[Point, Columns]]
    seconds: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Sink(Protocol):
    """Where a run looks for finished trials and puts new ones: ``mdpsim.store.Store``, or :class:`Memory`."""

    def missing(self, claim: Claim, arm: str, point: Point, seed: int, n: int) -> Sequence[int]:
        """The trials among 0 .. n-1 that are not there yet."""
        ...

    def add(
        self, claim: Claim, arm: str, point: Point, seed: int, trials: Sequence[int], columns: Columns, seconds: float
    ) -> None:
        """Keep finished trials; trial ``trials[j]`` is row j of every column.

        Raises:
            RecordConflictError: another value is there already.
        """
        ...

    def records(self, claim: Claim, preset: str, seed: int) -> Records:
        """The records a preset asks for, as far as they are there."""
        ...


class Memory:
    """A sink that forgets when the process ends."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, int, str, Point, int], dict[int, dict[str, np.ndarray]]] = {}
        self._seconds: dict[tuple[str, int, int], float] = {}

    def missing(self, claim: Claim, arm: str, point: Point, seed: int, n: int) -> Sequence[int]:
        """The trials among 0 .. n-1 that are not there yet."""
        rows = self._rows.get((claim.id, claim.rev, arm, point, seed), {})
        return [i for i in range(n) if i not in rows]

    def add(
        self, claim: Claim, arm: str, point: Point, seed: int, trials: Sequence[int], columns: Columns, seconds: float
    ) -> None:
        """Keep finished trials."""
        rows = self._rows.setdefault((claim.id, claim.rev, arm, point, seed), {})
        for j, i in enumerate(trials):
            rows.setdefault(i, {name: values[j] for name, values in columns.items()})
        where = (claim.id, claim.rev, seed)
        self._seconds[where] = self._seconds.get(where, 0.0) + seconds

    def records(self, claim: Claim, preset: str, seed: int) -> Records:
        """The records a preset asks for, as far as they are there."""
        arms = {
            arm: stack({p: self._rows.get((claim.id, claim.rev, arm, p, seed), {}) for p in points}, points)
            for arm, points in claim.plan(preset).items()
        }
        return Records(
            claim.id, claim.rev, preset, seed, arms, seconds=self._seconds.get((claim.id, claim.rev, seed), 0.0),
            versions=versions(),
        )


def stack(
    rows: Mapping[Point, Mapping[int, Mapping[str, np.ndarray | float | Iterable[float]]]], plan: Mapping[Point, int]
) -> dict[Point, Columns]:
    """The columns of one arm, trials in order, of as many trials as are there.

    A trial that one point lacks though it has later ones (it raised, or the run was killed) is left out at every point: trials
    of several points are paired by their place.
    """
    there = {point: sorted(i for i in rows.get(point, {}) if i < n) for point, n in plan.items()}
    holes: set[int] = set()
    for trials in there.values():
        holes |= set(range(trials[-1] if trials else 0)) - set(trials)
    return {point: _columns(rows.get(point, {}), [i for i in trials if i not in holes]) for point, trials in there.items()}


def _columns(rows: Mapping[int, Mapping[str, Any]], trials: Sequence[int]) -> Columns:
    """The columns of some trials of one point."""
    if not trials:
        return {}
    first = rows[trials[0]]
    for i in trials:
        if rows[i].keys() != first.keys():
            wanted = f"hold the columns {', '.join(first)} of trial {trials[0]} (was rev not raised?)"
            fail("records", f"trial {i}", wanted, ", ".join(rows[i]))
    return {name: np.array([rows[i][name] for i in trials], dtype=np.float64) for name in first}
