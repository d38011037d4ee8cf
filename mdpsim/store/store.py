"""The store: crash-safe records in one sqlite3 file (write-ahead log), written by one process, read by any.

A record is one trial: key = SHA-256 of the canonical JSON of (claim id, rev, arm, point, seed (K, i)) -> its values.
The same key has the same values on one platform fingerprint, so records are inserted or ignored, never replaced; a second,
different value is an error. What is not part of a result (time, host, versions, platform) stands in the run table, once a run.
A commit follows every chunk: a run killed at any moment loses nothing finished. With synchronous=NORMAL the last commits may be
lost in a power cut; FULL is an option. WAL does not work on network file systems.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any

from mdpsim import rng
from mdpsim.arrays import as_count, as_path, fail
from mdpsim.claims.claim import Claim, Point
from mdpsim.claims.device import devices_of
from mdpsim.claims.records import Columns, RecordConflictError, Records, stack
from mdpsim.store.file import MEMORY, StoreWarning, Watch, open_readable, open_writable, prepare, transaction
from mdpsim.store.schema import checksum, decode, encode
from mdpsim.versions import gpu, versions

MAX_SEED = 2**63 - 1  # what sqlite's integers hold
_PLACE = "series = ? AND seed = ? AND trial = ?"
DEFAULT_PATH = Path(".mdpsim") / "results.db"

__all__ = ["DEFAULT_PATH", "Store", "StoreWarning", "as_store", "record_key"]


class Store:
    """Results in a file. It may be used from several threads.

    Args:
        path: the sqlite3 file; ":memory:" for none. Its directory is made; "~" is the home directory.
        create: False raises where there is no file yet.
        synchronous: "NORMAL", or "FULL" to survive a power cut without losing the last commits.
        writable: False opens an existing file to read it only: nothing is written or waited for, and nothing need be writable.
    Raises:
        ValueError: a path that cannot be written (or read), a file of another program or of a newer mdpsim.
        StoreLostError: while in use, where the file was deleted, moved or replaced.
    Warns:
        StoreWarning: a corrupted store was moved aside (never overwritten) and a new one begun with what could be read of it.
    """

    def __init__(
        self, path: str | os.PathLike[str] = DEFAULT_PATH, *, create: bool = True, synchronous: str = "NORMAL",
        writable: bool = True,
    ) -> None:
        if synchronous not in ("NORMAL", "FULL"):
            fail("Store", "synchronous", "be 'NORMAL' or 'FULL'", repr(synchronous))
        self.path = MEMORY if path == MEMORY else str(as_path("Store", "path", path))
        self._runs: dict[str | None, int] = {}
        self._series: dict[tuple[str, int, str, Point], int] = {}
        self._damaged: dict[tuple[int, int], set[int]] = {}  # (series, seed) that were looked through -> trials not whole
        self._lock = RLock()
        self._copy: Any = None
        if not writable and self.path != MEMORY:
            self._db, self._copy = open_readable(self.path)
            self._watch: Watch | None = None
            return
        if self.path != MEMORY:
            prepare(self.path, create)
        self._db = open_writable(self.path, synchronous)
        self._watch = Watch(self.path)

    def _look(self) -> None:
        """Raise where the file is no longer the one that was opened."""
        if self._watch is not None:
            self._watch.look(self._db)

    def _all(self, query: str, *values: Any) -> list[Any]:
        """All rows of a query."""
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # --- writing -----------------------------------------------------------------------------------------------------

    def add(
        self, claim: Claim, arm: str, point: Point, seed: int, trials: Sequence[int], columns: Columns, seconds: float
    ) -> None:
        """Keep finished trials: one transaction, committed when this returns."""
        names = list(columns)
        with self._writing():
            run, series = self._run_id(gpu() if point.get("device") == "cuda" else None), self._series_id(claim, arm, point)
            damaged = self._look_through(claim, arm, point, seed)
            key_of = keys(claim, arm, point, seed)
            rows = []
            for j, i in enumerate(trials):
                key = key_of(i)
                values = encode({name: columns[name][j].tolist() for name in names})
                rows.append((key, series, seed, i, values, checksum(key, values.encode()), run))
                if i in damaged:
                    self._db.execute("DELETE FROM records WHERE series = ? AND seed = ? AND trial = ?", (series, seed, i))
            new = self._db.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows).rowcount
            if new < len(rows):
                self._settle(rows, f"{claim.id}, arm {arm}, at ({point})")
            self._db.execute(
                "INSERT INTO costs VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "trials = trials + excluded.trials, seconds = seconds + excluded.seconds",
                (run, series, seed, claim.measure_text(arm), len(trials), seconds),
            )
            damaged -= set(trials)
        self._look()

    def _settle(self, rows: Sequence[tuple[Any, ...]], where: str) -> None:
        """What was there already must be what was measured again, where both were measured on one platform.

        A row whose key is found at another trial is damaged, and replaced.
        Raises:
            RecordConflictError: showing both.
        """
        here = [versions().get(name) for name in ("platform", "torch")]
        query = 'SELECT series, seed, trial, "values", versions FROM records JOIN runs ON runs.id = run WHERE key = ?'
        for row in rows:
            key, trial, values = row[0], row[3], row[4]
            for *place, stored, text in self._all(query, key):
                if place != list(row[1:4]):
                    self._db.execute("DELETE FROM records WHERE key = ?", (key,))
                    self._db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                elif stored != values and [_versions(text).get(name) for name in ("platform", "torch")] == here:
                    raise RecordConflictError(
                        f"{where}, trial {trial}: measured {values}, but the store holds {stored} for the same trial, revision "
                        "and platform: is the measure a function of its point and rng alone; was rev raised when it changed?"
                    )
                elif not self._all(f'SELECT "values" FROM records INDEXED BY by_series WHERE {_PLACE}', *place):
                    self._db.execute("REINDEX")  # the row is there, and the index does not find it: it is damaged

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction; what it had looked up is forgotten where it fails, for those rows are gone too."""
        with self._lock:
            try:
                with transaction(self._db):
                    yield
            except BaseException:
                self._runs.clear()
                self._series.clear()
                self._damaged.clear()
                raise

    def _run_id(self, on: str | None) -> int:
        """This process's row in the run table, made at its first record; what a GPU computes has a row that names it."""
        if on not in self._runs:
            what = versions() | ({} if on is None else {"gpu": on})
            cursor = self._db.execute(
                "INSERT INTO runs (started, host, fingerprint, versions) VALUES (?, ?, ?, ?)",
                (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), platform.node(), what["platform"], json.dumps(what)),
            )
            assert cursor.lastrowid is not None
            self._runs[on] = cursor.lastrowid
        return self._runs[on]

    def _series_id(self, claim: Claim, arm: str, point: Point) -> int:
        where = (claim.id, claim.rev, arm, point)
        if where not in self._series:
            row = (claim.id, claim.rev, arm, point.json)
            self._db.execute("INSERT OR IGNORE INTO series (claim, rev, arm, point) VALUES (?, ?, ?, ?)", row)
            found = self._find_series(claim, arm, point)
            assert found is not None
            self._series[where] = found
        return self._series[where]

    # --- reading -----------------------------------------------------------------------------------------------------

    def _find_series(self, claim: Claim, arm: str, point: Point) -> int | None:
        found = self._all(
            "SELECT id FROM series WHERE claim = ? AND rev = ? AND arm = ? AND point = ?", claim.id, claim.rev, arm, point.json
        )
        return found[0][0] if found else None

    def _look_through(self, claim: Claim, arm: str, point: Point, seed: int) -> set[int]:
        """The trials of a series that are listed and have no whole row: as if they were not there. Each series is read once."""
        series = self._find_series(claim, arm, point)
        if series is None:
            return set()
        if (series, seed) not in self._damaged:
            whole = {trial for trial, columns, _ in self._read(claim, arm, point, seed) if columns is not None}
            listed = self._all("SELECT trial FROM records WHERE series = ? AND seed = ?", series, seed)  # of the index alone
            self._damaged[series, seed] = {trial for (trial,) in listed} - whole
        return self._damaged[series, seed]

    def _read(
        self, claim: Claim, arm: str, point: Point, seed: int, below: int = MAX_SEED
    ) -> Iterator[tuple[int, dict[str, Any] | None, int]]:
        """(trial, columns or None where damaged, run) of a series; as bytes, for what is damaged need not be text."""
        key_of = keys(claim, arm, point, seed)
        for key, trial, values, check, run in self._all(
            'SELECT key, trial, CAST("values" AS BLOB), checksum, run FROM records WHERE series = ? AND seed = ? AND trial < ?',
            self._find_series(claim, arm, point), seed, below,
        ):
            yield trial, decode(key, values, check) if key == key_of(trial) else None, run

    def missing(self, claim: Claim, arm: str, point: Point, seed: int, n: int) -> Sequence[int]:
        """The trials among 0 .. n-1 that are not there yet, or not whole."""
        with self._lock:
            series = self._find_series(claim, arm, point)
            damaged = self._look_through(claim, arm, point, seed)
            found = self._all("SELECT trial FROM records WHERE series = ? AND seed = ? AND trial < ?", series, seed, n)
            there = {trial for (trial,) in found} - damaged
        return [i for i in range(n) if i not in there] if there else range(n)

    def records(self, claim: Claim, preset: str, seed: int) -> Records:
        """The records a preset asks for, as far as they are there and whole.

        Raises:
            ValueError: unknown preset, seed < 0.
            StoreLostError: the file has gone.
        """
        as_count("records", "seed", seed, low=0, high=MAX_SEED)
        self._look()
        runs: set[int] = set()
        texts: set[str] = set()
        seconds, damaged = 0.0, 0
        arms: dict[str, dict[Point, Columns]] = {}
        for arm, points in claim.plan(preset).items():
            found: dict[Point, dict[int, Mapping[str, Any]]] = {}
            for point, n in points.items():
                series = self._find_series(claim, arm, point)
                rows = found[point] = {}
                for trial, columns, run in self._read(claim, arm, point, seed, n):
                    if columns is None:
                        damaged += 1
                        continue
                    rows[trial] = columns
                    runs.add(run)
                texts |= self._texts(series, seed) - {claim.measure_text(arm)}
                seconds += self._cost(series, seed) * len(rows)
            arms[arm] = stack(found, points)
        what, notes = self._provenance(claim, runs)
        if texts:
            notes = (*notes, "records of another text of the measure are among these: raise rev, or use another store")
        if damaged:
            notes = (*notes, f"{damaged} records are damaged and were left out; 'mdpsim verify' measures them again")
        return Records(claim.id, claim.rev, preset, seed, arms, seconds=seconds, versions=what, notes=notes)

    def _cost(self, series: int | None, seed: int) -> float:
        """Mean seconds a trial."""
        query = "SELECT sum(trials), sum(seconds) FROM costs WHERE series = ? AND seed = ?"
        ((trials, seconds),) = self._all(query, series, seed)
        return seconds / trials if trials else 0.0

    def costs(self, claim: Claim) -> dict[tuple[str, str], tuple[int, float]]:
        """(arm, canonical JSON of the point) -> (trials, seconds) of this revision on the claim's device, all seeds."""
        found = self._all(
            "SELECT arm, point, sum(trials), sum(seconds) FROM costs JOIN series ON series.id = costs.series "
            "WHERE claim = ? AND rev = ? GROUP BY arm, point", claim.id, claim.rev,
        )
        here = devices_of(claim)
        return {(arm, p): (n, seconds) for arm, p, n, seconds in found if json.loads(p).get("device", "cpu") in here}

    def _texts(self, series: int | None, seed: int) -> set[str]:
        """Hashes of the measures that filled a series."""
        found = self._all("SELECT DISTINCT measure FROM costs WHERE series = ? AND seed = ?", series, seed)
        return {text for (text,) in found}

    def _provenance(self, claim: Claim, runs: set[int]) -> tuple[dict[str, str], tuple[str, ...]]:
        """Versions of the last run behind these records, and notes on other platforms and other revisions."""
        notes = []
        what: dict[str, str] = {}
        prints = set()
        engine = ("torch", "gpu") if "lm" in claim.needs else ()  # what computes beside the kernels
        for run in sorted(runs):
            for fingerprint, text in self._all("SELECT fingerprint, versions FROM runs WHERE id = ?", run):
                what = _versions(text)
                prints.add((fingerprint, *(what.get(name) for name in engine)))
        if len(prints) > 1:
            kinds = "platforms, GPUs or versions of the kernels or torch" if engine else "platforms or kernel versions"
            notes.append(f"records of {len(prints)} {kinds}: their last digits may differ")
        ((others,),) = self._all(
            "SELECT count(*) FROM records JOIN series ON series.id = records.series WHERE claim = ? AND rev <> ?",
            claim.id, claim.rev,
        )
        if others:
            notes.append(f"{others} records of other revisions of this claim are in the store and were ignored")
        return what, tuple(notes)

    def held(self) -> list[tuple[str, int, int]]:
        """(claim id, seed, number of records) of everything in the store, all revisions."""
        return self._all(
            "SELECT claim, seed, count(*) FROM records JOIN series ON series.id = records.series "
            "GROUP BY claim, seed ORDER BY claim, seed"
        )

    def rows(self) -> list[tuple[bytes, str]]:
        """All (key, values) rows, by key: what two runs of the same claims must agree on, bit for bit."""
        return self._all('SELECT key, "values" FROM records ORDER BY key')

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()
            if self._copy is not None:
                self._copy.cleanup()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.path!r})"


def record_key(claim: Claim, arm: str, point: Point, seed: int, trial: int) -> bytes:
    """SHA-256 (32 bytes) of the canonical JSON of what a record depends on."""
    return rng.digest(
        {"claim": claim.id, "rev": claim.rev, "arm": arm, "point": dict(point), "seed": [seed, trial]}
    )


def keys(claim: Claim, arm: str, point: Point, seed: int) -> Callable[[int], bytes]:
    """``record_key`` of the trials of a series: the trial comes last in the JSON, so the rest is hashed once."""
    text = rng.canonical({"claim": claim.id, "rev": claim.rev, "arm": arm, "point": dict(point), "seed": [seed, 0]})
    begun = hashlib.sha256(text.removesuffix("0]}").encode())

    def of(trial: int) -> bytes:
        whole = begun.copy()
        whole.update(b"%d]}" % trial)
        return whole.digest()

    return of


def _versions(text: Any) -> dict[str, str]:
    """The versions in a row of the run table; none where somebody has written something else there."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def as_store(store: Store | str | os.PathLike[str] | None) -> Store:
    """A Store as it is, a path opened, None an empty one in memory."""
    if isinstance(store, Store):
        return store
    if store is None or isinstance(store, str | os.PathLike):
        return Store(":memory:" if store is None else store)
    return fail("as_store", "store", "be a Store, a path or None", repr(store))


