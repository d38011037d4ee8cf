"""What can be read of a damaged store: rows whose checksums fit, from the pages that hang together.

Where a page is damaged sqlite gives up the query that meets it. Keys are hashes, spread evenly; so the rows are read by ranges
of keys, and a range that fails is halved until it is a sixteenth of what a page holds.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mdpsim.store.schema import decode

PAGE = 4096  # bytes
FAILURES = 50_000  # queries that may fail: about a second, where a page high up in the tree is lost
KEYS = 2**64  # what the first 8 bytes of a key can be


def copy(path: str, db: sqlite3.Connection) -> tuple[int, int]:
    """Copy the whole rows of a damaged file into the new store ``db``; (records kept, records seen that were not whole).

    Records that no page gives up are not counted: nobody knows how many there were.
    """
    way = "mode=ro" if os.path.exists(path + "-wal") else "mode=ro&immutable=1"  # it stays as it is, byte for byte
    old = sqlite3.connect(f"{Path(path).absolute().as_uri()}?{way}", isolation_level=None, uri=True)
    old.text_factory = bytes
    try:
        old.execute("PRAGMA trusted_schema=OFF")
        runs = {row[0]: row for row in _by_number(old, "runs", 5) if _plain(row, (int, bytes, bytes, bytes, bytes))}
        series = {row[0]: row for row in _by_number(old, "series", 5) if _plain(row, (int, bytes, int, bytes, bytes))}
        unknown = (None, b"", b"", b"salvaged", b"{}")
        names = ("started", "host", "fingerprint", "versions")
        numbers: dict[Any, int | None] = {n: _insert(db, "runs", names, row) for n, row in runs.items()}
        numbers[None] = _insert(db, "runs", names, unknown) if series else None
        places = {n: _insert(db, "series", ("claim", "rev", "arm", "point"), row) for n, row in series.items()}
        kept = lost = 0
        for key, of, seed, trial, values, check, run in _by_key(old, path):
            if of in places and type(seed) is int and type(trial) is int and decode(key, values, check) is not None:
                row = (key, places[of], seed, trial, values.decode(), check, numbers.get(run, numbers[None]))
                kept += db.execute("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", row).rowcount
            else:
                lost += 1
        _copy_costs(old, db, numbers, places)
    except sqlite3.DatabaseError:  # not even its first page: nothing to be had
        kept, lost = 0, 0
    finally:
        old.close()
    return kept, lost


def _by_key(db: sqlite3.Connection, path: str) -> Iterator[tuple[Any, ...]]:
    """The rows of ``records``, but for those on damaged pages."""
    narrow = KEYS // (16 * max(1, os.path.getsize(path) // PAGE))
    ranges, failures = deque([(0, KEYS)]), 0
    query = 'SELECT key, series, seed, trial, CAST("values" AS BLOB), checksum, run FROM records WHERE key >= ?'
    while ranges and failures < FAILURES:
        low, high = ranges.popleft()
        ends = [low.to_bytes(8, "big")] if high == KEYS else [low.to_bytes(8, "big"), high.to_bytes(8, "big")]
        try:
            yield from db.execute(query + (" AND key < ?" if len(ends) > 1 else ""), ends).fetchall()
        except sqlite3.DatabaseError:
            failures += 1
            if high - low > narrow:
                middle = (low + high) // 2
                ranges += [(low, middle), (middle, high)]


def _by_number(db: sqlite3.Connection, table: str, width: int) -> Iterator[tuple[Any, ...]]:
    """The rows of a table with numbers for keys, but for those on damaged pages."""
    try:
        last = db.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0
    except sqlite3.DatabaseError:
        last = 10_000
    ranges = [(1, last + 1)] if isinstance(last, int) else []
    while ranges:
        low, high = ranges.pop()
        try:
            yield from db.execute(f"SELECT * FROM {table} WHERE id >= ? AND id < ?", (low, high)).fetchall()
        except sqlite3.DatabaseError:
            if high - low > 1:
                middle = (low + high) // 2
                ranges += [(middle, high), (low, middle)]


def _copy_costs(old: sqlite3.Connection, db: sqlite3.Connection, numbers: dict[Any, Any], places: dict[int, int]) -> None:
    """The table of costs, as far as it can be read: it decides nothing."""
    try:
        rows = old.execute("SELECT run, series, seed, measure, trials, seconds FROM costs").fetchall()
    except sqlite3.DatabaseError:
        return
    for run, of, seed, measure, trials, seconds in rows:
        if of in places and isinstance(measure, bytes):
            row = (numbers.get(run, numbers[None]), places[of], seed, measure.decode("utf-8", "replace"), trials, seconds)
            db.execute("INSERT OR IGNORE INTO costs VALUES (?, ?, ?, ?, ?, ?)", row)


def _insert(db: sqlite3.Connection, table: str, columns: tuple[str, ...], row: tuple[Any, ...]) -> int:
    """A row of the old store under a number of the new one."""
    values = [x.decode("utf-8", "replace") if isinstance(x, bytes) else x for x in row[1:]]
    marks = ", ".join("?" * len(columns))
    number = db.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", values).lastrowid
    assert number is not None
    return number


def _plain(row: tuple[Any, ...], kinds: tuple[type, ...]) -> bool:
    return len(row) == len(kinds) and all(type(x) is kind for x, kind in zip(row, kinds, strict=True))
