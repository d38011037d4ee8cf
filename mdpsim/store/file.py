"""A store's file: opened for writing or for reading, watched while it is open, moved aside where it is damaged.

Writing. The file has a write-ahead log (sqlite's WAL; not for network file systems). A file that is damaged is moved aside,
never overwritten, and what can be read of it goes into the new one; but only where it begins as sqlite's do and carries our
mark: anything else is another program's, or somebody's thesis, and is refused and left alone.

Reading. Nothing is written, repaired or waited for: not for a writer (WAL lets readers pass), not for permission. A file that
cannot be written, or whose folder cannot, is opened by ``mode=ro``, by ``immutable=1`` where there is no log, and else as a
copy with its log in a temporary folder.

Watching. sqlite goes on with a file that has been deleted, moved or replaced, and nothing that it writes is found again. So
device and inode of file and log are looked at with every commit.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mdpsim.arrays import fail
from mdpsim.store import salvage
from mdpsim.store.schema import APPLICATION_ID, COSTS_INDEX, MAGIC, MARK, check_schema, make_tables

TIMEOUT = 60.0  # seconds to wait for another process that writes
CHECK_BYTES = 2**30  # a larger file is not looked through at every start (about a second a GB)
SMALLEST = 512  # bytes of the smallest page that a database has
MEMORY = ":memory:"


class StoreWarning(UserWarning):
    """A store was damaged: what was moved aside, and what could be saved of it."""


class StoreLostError(OSError):
    """The file of an open store was deleted, moved or replaced: what has become of the records."""


def prepare(path: str, create: bool) -> None:
    """Make the directory of a file that will be written; name what stands in its way."""
    file = Path(path)
    if not create and not file.exists():
        fail("Store", "path", "be an existing store (run 'mdpsim verify' first, or name one with --store)", repr(path))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail("Store", "path", "lie in a directory that can be made", f"{path!r} ({error})")
    if file.is_dir():
        fail("Store", "path", "be a file", f"the directory {path!r}")
    target = file if file.exists() else file.parent
    if not os.access(target, os.W_OK):
        fail("Store", "path", "be writable", f"{path!r} (no permission to write {target})")


def open_writable(path: str, synchronous: str) -> sqlite3.Connection:
    """Open or make a store; a damaged one is moved aside, and what can be read of it is kept.

    Raises:
        ValueError: another program's file, a newer schema; a file that cannot be opened.
    Warns:
        StoreWarning: what was moved aside, and how many records were saved.
    """
    _check_size(path)
    try:
        return _open(path, synchronous)
    except sqlite3.DatabaseError as error:
        if not _is_damage(error) or not _carries_mark(path):
            why = "no write-ahead log: a network file system?" if "write-ahead" in str(error) else trouble(error)
            fail("Store", "path", "be a file that can be opened and written", f"{path!r} ({why})")
        aside = _move_aside(path)
        db = _open(path, synchronous)
        with transaction(db):
            saved, lost = salvage.copy(aside, db)
        rest = f", {lost} were not whole" if lost else ""
        warnings.warn(
            f"the store {path} is damaged ({error}); moved aside to {aside}. {saved} of its records could be read and are kept"
            f"{rest}; what is missing is measured again", StoreWarning, stacklevel=4,
        )
        return db


def _check_size(path: str) -> None:
    """sqlite takes a file of a few bytes for an empty database, and would write over it."""
    if path != MEMORY and os.path.exists(path) and 0 < os.path.getsize(path) < SMALLEST:
        fail("Store", "path", "be a store of mdpsim", f"{path!r}, which is no sqlite database (it was left as it is)")


def _carries_mark(path: str) -> bool:
    """Whether the file begins as sqlite's do and has our mark.

    Only for a file that sqlite has refused: to open and close a file gives up the locks that this process has on it.
    Raises:
        ValueError: a file of another kind, which is left as it is.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(100)
    except OSError as error:
        fail("Store", "path", "be a file that can be read", f"{path!r} ({error})")
    if not header.startswith(MAGIC):
        fail("Store", "path", "be a store of mdpsim", f"{path!r}, which is no sqlite database (it was left as it is)")
    return header[MARK] == APPLICATION_ID.to_bytes(4, "big")


def _open(path: str, synchronous: str) -> sqlite3.Connection:
    """Connect, check, and make the tables of a new file."""
    db = _connect(path)
    try:
        if check_schema(db, path):
            _check_pages(db, path)
        _use_wal(db)
        db.execute(f"PRAGMA synchronous={synchronous}")
        with transaction(db):
            new = db.execute("PRAGMA user_version").fetchone()[0] == 0
            if new:
                make_tables(db)
            db.execute(COSTS_INDEX.replace("INDEX", "INDEX IF NOT EXISTS"))
        if new:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # the mark goes into the file itself
    except BaseException:
        db.close()
        raise
    return db


def open_readable(path: str) -> tuple[sqlite3.Connection, tempfile.TemporaryDirectory[str] | None]:
    """Open an existing store to read it, and the folder of its copy where one was needed.

    Raises:
        ValueError: no such file, another program's, a newer schema, a damaged one, or one that cannot be read.
    """
    file = Path(path)
    if not file.exists():
        fail("Store", "path", "be an existing store (run 'mdpsim verify' first, or name one with --store)", repr(path))
    if file.is_dir():
        fail("Store", "path", "be a file", f"the directory {path!r}")
    _check_size(path)
    log = Path(path + "-wal")
    with_log = log.exists() and log.stat().st_size > 0
    copy = None
    # A connection that may write takes its log and shared memory away again when it closes; it is told not to write.
    ways = ["mode=rw"] if os.access(path, os.W_OK) and os.access(file.absolute().parent, os.W_OK) else []
    ways += ["mode=ro"] if with_log else ["mode=ro&immutable=1"]
    error: Exception | None = None
    for way in ways:
        try:
            return _read(path, f"{file.absolute().as_uri()}?{way}"), None
        except sqlite3.Error as failed:
            error = failed
    if with_log and not (error is not None and _is_damage(error)):
        copy = tempfile.TemporaryDirectory(prefix="mdpsim-store-")
        try:
            for suffix in ("", "-wal"):
                shutil.copyfile(path + suffix, os.path.join(copy.name, "store.db" + suffix))
            return _read(path, (Path(copy.name) / "store.db").as_uri() + "?mode=rw"), copy
        except (sqlite3.Error, OSError) as failed:
            copy.cleanup()
            error = failed
    if error is not None and _is_damage(error):
        _carries_mark(path)
        wanted = "be whole ('mdpsim verify' moves a damaged store aside and keeps what can be read)"
        fail("Store", "path", wanted, f"{path!r} ({error})")
    fail("Store", "path", "be a file that can be read", f"{path!r} ({error})")


def _read(path: str, uri: str) -> sqlite3.Connection:
    db = _connect(uri, uri=True)
    try:
        db.execute("PRAGMA query_only=ON")
        if not check_schema(db, path):
            fail("Store", "path", "be a store of mdpsim", f"{path!r}, an empty database")
        _check_pages(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _connect(target: str, *, uri: bool = False) -> sqlite3.Connection:
    """A connection for any thread (the Store has a lock) that takes nothing in a file for code."""
    db = sqlite3.connect(target, timeout=TIMEOUT, isolation_level=None, uri=uri, check_same_thread=False)
    db.execute("PRAGMA trusted_schema=OFF")
    db.execute("PRAGMA cell_size_check=ON")
    return db


def _check_pages(db: sqlite3.Connection, path: str) -> None:
    """Whether the pages hang together: 0.2 s for a million records."""
    small = path == MEMORY or os.path.getsize(path) <= CHECK_BYTES
    if small and (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(f"database disk image is malformed: {found}")


def _move_aside(path: str) -> str:
    """Rename a damaged store and its side files; nothing is deleted. Returns the new name."""
    aside = unused(f"{path}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}")
    for suffix in ("", "-wal", "-shm"):
        if os.path.exists(path + suffix):
            os.rename(path + suffix, aside + suffix)
    return aside


def unused(name: str) -> str:
    """The name, or the first of name-2, name-3, .. that no file has."""
    n, found = 1, name
    while os.path.exists(found):
        n += 1
        found = f"{name}-{n}"
    return found


class Watch:
    """Whether a file and its log are still those that a connection has open."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = _identity(path)
        self._log: tuple[int, int] | None = None

    def look(self, db: sqlite3.Connection) -> None:
        """Raise where they are not, after saving what the connection still holds.

        Raises:
            StoreLostError: what happened, and where the records are.
        """
        if self.path == MEMORY:
            return
        now, log = _identity(self.path), _identity(self.path + "-wal")
        if now == self._file and (self._log is None or log == self._log):
            self._log = log
            return
        saved = ""
        with suppress(sqlite3.Error):  # the open log goes into the open file, wherever that is now
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            saved = "what was finished is in the file that was open"
        if now == self._file:
            raise StoreLostError(f"the write-ahead log of the store {self.path} was removed or replaced while it was in use; "
                                 f"{saved or 'the last records may be lost'}: run the same command again")
        with suppress(sqlite3.Error, OSError):
            target, n = _rescue(db, self.path)
            saved = f"{n} records that could be saved are in {target}"
        what = "deleted or moved away" if now is None else "replaced by another file"
        raise StoreLostError(f"the store {self.path} was {what} while it was in use; {saved or 'its records may be lost'}")


def _rescue(db: sqlite3.Connection, path: str) -> tuple[str, int]:
    """Write all that a connection holds to a new file beside ``path``, or in the temporary folder: its name, its records."""
    stamp = f".rescued-{time.strftime('%Y%m%d-%H%M%S')}"
    for folder in (os.path.dirname(os.path.abspath(path)), tempfile.gettempdir()):
        target = unused(os.path.join(folder, os.path.basename(path) + stamp))
        with suppress(sqlite3.Error):
            db.execute("VACUUM INTO ?", (target,))
            return target, db.execute("SELECT count(*) FROM records").fetchone()[0]
    raise OSError("no place for the rescued store")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # sqlite has ended it already where the disk is full or the file broken
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


def _is_damage(error: Exception) -> bool:
    return any(word in str(error) for word in ("not a database", "malformed", "corrupt"))


def is_full(error: Exception) -> bool:
    """Whether there was no room: on the disk, in a quota, or in a database of bounded size."""
    return "is full" in str(error) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))


def trouble(error: Exception) -> str:
    """What stopped sqlite, and what to do about it."""
    if is_full(error):
        return f"{error}; what was finished is kept, and the same command goes on once there is room"
    if "is locked" in str(error):
        return f"{error}: another process has written for more than {TIMEOUT:g} s; wait for its end, or name another --store"
    return f"{error}; name another with --store"
