"""The store: crash-safe records in one sqlite3 file (write-ahead log), written by one process, read by any.

A record is one trial: key = SHA-256 of the canonical JSON of (claim id, rev, arm, point, seed (K, i)) -> its values.
The same key has the same values on one platform fingerprint, so records are inserted or ignored, never replaced. What
is not part of a result (time, host, versions, platform) stands in the run table, once a run. A commit follows every
chunk: a run killed at any moment loses nothing finished. With synchronous=NORMAL the last commits may be lost in a power
cut; FULL is an option. WAL does not work on network file systems.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mdpsim import rng
from mdpsim.arrays import as_count, as_path, fail
from mdpsim.claims.claim import Claim, Point
from mdpsim.claims.device import devices_of
from mdpsim.claims.records import Columns, Records, stack
from mdpsim.versions import gpu, versions

APPLICATION_ID = 0x6D647073  # "mdps", in the file's header
SCHEMA = 1
TIMEOUT = 60.0  # seconds to wait for another process that writes
CHECK_BYTES = 2**30  # a larger file is not read through at every start (about 4 s a GB)
DEFAULT_PATH = Path(".mdpsim") / "results.db"

_TABLES = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, host TEXT NOT NULL, fingerprint TEXT NOT NULL, versions TEXT NOT NULL);
CREATE TABLE series (
    id INTEGER PRIMARY KEY, claim TEXT NOT NULL, rev INTEGER NOT NULL, arm TEXT NOT NULL, point TEXT NOT NULL,
    UNIQUE (claim, rev, arm, point));
CREATE TABLE records (
    key BLOB PRIMARY KEY, series INTEGER NOT NULL REFERENCES series, seed INTEGER NOT NULL, trial INTEGER NOT NULL,
    "values" TEXT NOT NULL, checksum INTEGER NOT NULL, run INTEGER NOT NULL REFERENCES runs) WITHOUT ROWID;
CREATE UNIQUE INDEX by_series ON records (series, seed, trial);
CREATE TABLE costs (
    run INTEGER NOT NULL REFERENCES runs, series INTEGER NOT NULL REFERENCES series, seed INTEGER NOT NULL,
    measure TEXT NOT NULL, trials INTEGER NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (run, series, seed, measure)) WITHOUT ROWID;
"""


class StoreWarning(UserWarning):
    """A store was damaged and moved aside."""


class Store:
    """Results in a file.

    Args:
        path: the sqlite3 file, a leading ~ the home directory; ":memory:" for none. Its directory is made.
        create: False raises where there is no file yet.
        synchronous: "NORMAL", or "FULL" to survive a power cut without losing the last commits.
    Raises:
        ValueError: a path that cannot be written, a file of another program or of a newer mdpsim.
    Warns:
        StoreWarning: a corrupted store was moved aside (never overwritten) and a new one begun.
    """

    def __init__(
        self, path: str | os.PathLike[str] = DEFAULT_PATH, *, create: bool = True, synchronous: str = "NORMAL"
    ) -> None:
        if synchronous not in ("NORMAL", "FULL"):
            fail("Store", "synchronous", "be 'NORMAL' or 'FULL'", repr(synchronous))
        self.path = ":memory:" if path == ":memory:" else str(as_path("Store", "path", path))
        self._runs: dict[str | None, int] = {}
        self._series: dict[tuple[str, int, str, Point], int] = {}
        if self.path != ":memory:":
            self._prepare(create)
        try:
            self._db = self._open(synchronous)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error) or not create:
                fail("Store", "path", "be a file that can be opened and written (not on a network file system)",
                     f"{self.path!r} ({error})")
            self._move_aside(str(error))
            self._db = self._open(synchronous)

    def _prepare(self, create: bool) -> None:
        """Make the directory; name what stands in the way of a writable file."""
        file = Path(self.path)
        if not create and not file.exists():
            fail("Store", "path", "be an existing store (run 'mdpsim verify' first, or name one with --store)",
                 repr(self.path))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            fail("Store", "path", "lie in a directory that can be made", f"{self.path!r} ({error})")
        if file.is_dir():
            fail("Store", "path", "be a file", f"the directory {self.path!r}")
        target = file if file.exists() else file.parent
        if not os.access(target, os.W_OK):
            fail("Store", "path", "be writable", f"{self.path!r} (no permission to write {target})")

    def _open(self, synchronous: str) -> sqlite3.Connection:
        """Connect, check, and make the tables of a new file."""
        db = sqlite3.connect(self.path, timeout=TIMEOUT, isolation_level=None)
        try:
            self._check_owner(db)
            small = self.path == ":memory:" or os.path.getsize(self.path) <= CHECK_BYTES
            if small and db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
                db.execute("REINDEX")  # an index can be made again from its table
                if db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
                    raise sqlite3.DatabaseError("database disk image is malformed")
            _use_wal(db)
            db.execute(f"PRAGMA synchronous={synchronous}")
            with _transaction(db):
                if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                    for statement in _TABLES.split(";"):
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
                    db.execute(f"PRAGMA user_version={SCHEMA}")
        except BaseException:
            db.close()
            raise
        return db

    def _check_owner(self, db: sqlite3.Connection) -> None:
        """Refuse the database of another program, or of a newer schema."""
        db.execute("BEGIN")  # one snapshot: another process may be making the tables right now
        owner = db.execute("PRAGMA application_id").fetchone()[0]
        schema = db.execute("PRAGMA user_version").fetchone()[0]
        empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        db.execute("COMMIT")
        if not empty and owner != APPLICATION_ID:
            fail("Store", "path", "be a store of mdpsim", f"{self.path!r}, another program's database")
        if schema > SCHEMA:
            fail("Store", "path", f"have schema <= {SCHEMA} (this mdpsim's)", f"schema {schema} in {self.path!r}")

    def _move_aside(self, reason: str) -> None:
        """Rename a damaged store and its side files; nothing is deleted."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        aside = f"{self.path}.corrupt-{stamp}"
        n = 1
        while os.path.exists(aside):
            n += 1
            aside = f"{self.path}.corrupt-{stamp}-{n}"
        for suffix in ("", "-wal", "-shm"):
            if os.path.exists(self.path + suffix):
                os.rename(self.path + suffix, aside + suffix)
        warnings.warn(
            f"the store {self.path} is damaged ({reason}); moved aside to {aside}, and a new one begun",
            StoreWarning, stacklevel=4,
        )

    # --- writing -----------------------------------------------------------------------------------------------------

    def add(
        self, claim: Claim, arm: str, point: Point, seed: int, trials: Sequence[int], columns: Columns, seconds: float
    ) -> None:
        """Keep finished trials: one transaction, committed when this returns."""
        names = list(columns)
        with self._writing():
            run, series = self._run_id(gpu() if point.get("device") == "cuda" else None), self._series_id(claim, arm, point)
            rows = []
            for j, i in enumerate(trials):
                key = record_key(claim, arm, point, seed, i)
                values = json.dumps({name: columns[name][j].tolist() for name in names}, separators=(",", ":"))
                rows.append((key, series, seed, i, values, checksum(key, values), run))
            self._db.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.execute(
                "INSERT INTO costs VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                "trials = trials + excluded.trials, seconds = seconds + excluded.seconds",
                (run, series, seed, claim.measure_text(arm), len(trials), seconds),
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction; what it had looked up is forgotten where it fails, for those rows are gone too."""
        try:
            with _transaction(self._db):
                yield
        except BaseException:
            self._runs.clear()
            self._series.clear()
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
        row = self._db.execute(
            "SELECT id FROM series WHERE claim = ? AND rev = ? AND arm = ? AND point = ?",
            (claim.id, claim.rev, arm, point.json),
        ).fetchone()
        return row and row[0]

    def missing(self, claim: Claim, arm: str, point: Point, seed: int, n: int) -> Sequence[int]:
        """The trials among 0 .. n-1 that are not there yet."""
        series = self._find_series(claim, arm, point)
        there = {
            trial
            for (trial,) in self._db.execute(
                "SELECT trial FROM records WHERE series = ? AND seed = ? AND trial < ?", (series, seed, n)
            )
        }
        return [i for i in range(n) if i not in there] if there else range(n)

    def records(self, claim: Claim, preset: str, seed: int) -> Records:
        """The records a preset asks for, as far as they are there.

        Raises:
            ValueError: unknown preset, seed < 0.
        """
        as_count("records", "seed", seed, low=0)
        runs: set[int] = set()
        texts: set[str] = set()
        seconds = 0.0
        arms: dict[str, dict[Point, Columns]] = {}
        for arm, points in claim.plan(preset).items():
            arms[arm] = {}
            for point, n in points.items():
                series = self._find_series(claim, arm, point)
                rows: dict[int, Any] = {}
                for key, trial, values, check, run in self._db.execute(
                    'SELECT key, trial, "values", checksum, run FROM records WHERE series = ? AND seed = ? AND trial < ?',
                    (series, seed, n),
                ):
                    if checksum(key, values) != check:
                        raise sqlite3.DatabaseError(f"{self.path}: a record of {claim.id} is damaged, trial {trial} at {point}")
                    rows[trial] = json.loads(values)
                    runs.add(run)
                texts |= self._texts(series, seed) - {claim.measure_text(arm)}
                arms[arm][point] = stack(rows, n)
                seconds += self._cost(series, seed) * len(rows)
        what, notes = self._provenance(claim, runs)
        if texts:
            notes = (*notes, "records of another text of the measure are among these: raise rev, or use another store")
        return Records(claim.id, claim.rev, preset, seed, arms, seconds=seconds, versions=what, notes=notes)

    def _cost(self, series: int | None, seed: int) -> float:
        """Mean seconds a trial."""
        trials, seconds = self._db.execute(
            "SELECT sum(trials), sum(seconds) FROM costs WHERE series = ? AND seed = ?", (series, seed)
        ).fetchone()
        return seconds / trials if trials else 0.0

    def costs(self, claim: Claim) -> dict[tuple[str, str], tuple[int, float]]:
        """(arm, canonical JSON of the point) -> (trials, seconds) of this revision on the claim's device, all seeds."""
        found = self._db.execute(
            "SELECT arm, point, sum(trials), sum(seconds) FROM costs JOIN series ON series.id = costs.series "
            "WHERE claim = ? AND rev = ? GROUP BY arm, point", (claim.id, claim.rev),
        )
        here = devices_of(claim)
        return {(arm, p): (n, seconds) for arm, p, n, seconds in found if json.loads(p).get("device", "cpu") in here}

    def _texts(self, series: int | None, seed: int) -> set[str]:
        """Hashes of the measures that filled a series."""
        found = self._db.execute("SELECT DISTINCT measure FROM costs WHERE series = ? AND seed = ?", (series, seed))
        return {text for (text,) in found}

    def _provenance(self, claim: Claim, runs: set[int]) -> tuple[dict[str, str], tuple[str, ...]]:
        """Versions of the last run behind these records, and notes on other platforms and other revisions."""
        notes = []
        what: dict[str, str] = {}
        prints = set()
        engine = ("torch", "gpu") if "lm" in claim.needs else ()  # what computes beside the kernels
        for run in sorted(runs):
            row = self._db.execute("SELECT fingerprint, versions FROM runs WHERE id = ?", (run,)).fetchone()
            what = json.loads(row[1])
            prints.add((row[0], *(what.get(name) for name in engine)))
        if len(prints) > 1:
            kinds = "platforms, GPUs or versions of the kernels or torch" if engine else "platforms or kernel versions"
            notes.append(f"records of {len(prints)} {kinds}: their last digits may differ")
        others = self._db.execute(
            "SELECT count(*) FROM records JOIN series ON series.id = records.series WHERE claim = ? AND rev <> ?",
            (claim.id, claim.rev),
        ).fetchone()[0]
        if others:
            notes.append(f"{others} records of other revisions of this claim are in the store and were ignored")
        return what, tuple(notes)

    def held(self) -> list[tuple[str, int, int]]:
        """(claim id, seed, number of records) of everything in the store, all revisions."""
        return self._db.execute(
            "SELECT claim, seed, count(*) FROM records JOIN series ON series.id = records.series "
            "GROUP BY claim, seed ORDER BY claim, seed"
        ).fetchall()

    def rows(self) -> list[tuple[bytes, str]]:
        """All (key, values) rows, by key: what two runs of the same claims must agree on, bit for bit."""
        return self._db.execute('SELECT key, "values" FROM records ORDER BY key').fetchall()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

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


def checksum(key: bytes, values: str) -> int:
    """CRC-32 of a record: what a disk has changed is not taken for a measurement."""
    return zlib.crc32(key + values.encode())


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; the switch does not wait for other connections by itself."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
            continue
        if mode not in ("wal", "memory"):
            raise sqlite3.OperationalError(f"the file system offers no write-ahead log, only {mode!r}")
        return


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return any(word in str(error) for word in ("not a database", "malformed", "corrupt"))


def as_store(store: Store | str | os.PathLike[str] | None) -> Store:
    """A Store as it is, a path opened, None an empty one in memory."""
    if isinstance(store, Store):
        return store
    if store is None or isinstance(store, str | os.PathLike):
        return Store(":memory:" if store is None else store)
    return fail("as_store", "store", "be a Store, a path or None", repr(store))


