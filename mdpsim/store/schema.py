"""What stands in a store's file: four tables, and rows that say themselves whether they are whole.

A record's row carries the CRC-32 of its key and of its values as written, and its key is the hash of what it belongs to. A
row whose checksum or key does not fit, or that holds anything but columns of numbers, is damaged: it is as if it were not
there, and its trial is measured again. A file that holds other tables, views or triggers than these is no store: a view may
run for ever, a trigger change what is written.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Mapping
from typing import Any

from mdpsim.arrays import fail

APPLICATION_ID = 0x6D647073  # "mdps", in the file's header
SCHEMA = 1
MAGIC = b"SQLite format 3\0"
MARK = slice(68, 72)  # of the header: the application id

TABLES = (
    "CREATE TABLE runs (id INTEGER PRIMARY KEY, started TEXT NOT NULL, host TEXT NOT NULL, fingerprint TEXT NOT NULL, "
    "versions TEXT NOT NULL)",
    "CREATE TABLE series (id INTEGER PRIMARY KEY, claim TEXT NOT NULL, rev INTEGER NOT NULL, arm TEXT NOT NULL, "
    "point TEXT NOT NULL, UNIQUE (claim, rev, arm, point))",
    "CREATE TABLE records (key BLOB PRIMARY KEY, series INTEGER NOT NULL REFERENCES series, seed INTEGER NOT NULL, "
    'trial INTEGER NOT NULL, "values" TEXT NOT NULL, checksum INTEGER NOT NULL, run INTEGER NOT NULL REFERENCES runs) '
    "WITHOUT ROWID",
    "CREATE UNIQUE INDEX by_series ON records (series, seed, trial)",
    "CREATE TABLE costs (run INTEGER NOT NULL REFERENCES runs, series INTEGER NOT NULL REFERENCES series, "
    "seed INTEGER NOT NULL, measure TEXT NOT NULL, trials INTEGER NOT NULL, seconds REAL NOT NULL, "
    "PRIMARY KEY (run, series, seed, measure)) WITHOUT ROWID",
)
COSTS_INDEX = "CREATE INDEX by_cost ON costs (series, seed)"  # later than schema 1, which works without it, slowly


def make_tables(db: sqlite3.Connection) -> None:
    """The tables of a new store, within a transaction."""
    for statement in TABLES:
        db.execute(statement)
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    db.execute(f"PRAGMA user_version={SCHEMA}")


def check_schema(db: sqlite3.Connection, path: str) -> bool:
    """Whether the file is a store already; False for an empty one.

    Raises:
        ValueError: another program's database, a newer schema, a store that somebody has added tables, views or triggers to.
    """
    db.execute("BEGIN")  # one snapshot: another process may be making the tables right now
    owner = db.execute("PRAGMA application_id").fetchone()[0]
    schema = db.execute("PRAGMA user_version").fetchone()[0]
    found = db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    db.execute("COMMIT")
    if not found and owner in (0, APPLICATION_ID) and schema == 0:
        return False
    if owner != APPLICATION_ID:
        fail("Store", "path", "be a store of mdpsim", f"{path!r}, another program's database")
    if not 1 <= schema <= SCHEMA:
        fail("Store", "path", f"have schema <= {SCHEMA} (this mdpsim's), from 1", f"schema {schema} in {path!r}")
    wanted = {_words(sql) for sql in (*TABLES, COSTS_INDEX)}
    needed = {_words(sql) for sql in TABLES}
    there = set()
    for kind, name, sql in found:
        if sql is None and kind == "index" and str(name).startswith("sqlite_autoindex_"):
            continue
        if _words(str(sql)) not in wanted:
            fail("Store", "path", "hold the tables of a store and nothing else", f"the {kind} {name!r} in {path!r}")
        there.add(_words(str(sql)))
    if not needed <= there:
        fail("Store", "path", "hold the tables of a store", f"{path!r}, in which some are missing")
    return True


def _words(sql: str) -> str:
    """The text of a statement without what layout adds."""
    return " ".join(sql.split()).replace("( ", "(").replace(" )", ")").replace("( ", "(")


def checksum(key: bytes, values: bytes) -> int:
    """CRC-32 of a record: what a disk has changed is not taken for a measurement."""
    return zlib.crc32(key + values)


def encode(values: Mapping[str, Any]) -> str:
    """The columns of one trial, numbers or flat lists of them, as they stand in a row."""
    return json.dumps(values, separators=(",", ":"))


def decode(key: Any, values: Any, check: Any) -> dict[str, Any] | None:
    """The columns of one trial, or None for a row that is damaged."""
    if not isinstance(key, bytes) or not isinstance(values, bytes) or checksum(key, values) != check:
        return None
    try:
        columns = DECODER.decode(values.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(columns, dict) or not columns or not all(map(_is_column, columns.values())):
        return None
    return columns


def _infinite(name: str) -> float:
    """JSON's words for what is no finite number; no measure gives NaN."""
    if name == "NaN":
        raise ValueError(name)
    return float(name)


DECODER = json.JSONDecoder(parse_constant=_infinite)  # made once: json.loads would make one for every row


def _is_number(x: Any) -> bool:
    return type(x) is float or (type(x) is int and abs(x) < 2**63)


def _is_column(x: Any) -> bool:
    return _is_number(x) or (type(x) is list and all(map(_is_number, x)))
