"""Some trials of one arm at one point: measured together, in this process or in a worker, and checked.

What a measure gives for some keys is what it gives for any split of them. So where a chunk fails it is measured again trial by
trial: the trials that raise or give a NaN are named, the others are kept.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mdpsim.claims.claim import Claim, Measure, Point
from mdpsim.claims.records import Columns


class MeasureError(RuntimeError):
    """A claim's measure raised, or returned something that is no record. ``claims`` names those that failed, if several ran."""

    claims: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """Some trials of one arm at one point."""

    claim: Claim
    arm: str
    point: Point
    trials: tuple[int, ...]

    def __str__(self) -> str:
        first, last = self.trials[0], self.trials[-1]
        which = f"trial {first}" if first == last else f"trials {first}..{last}"
        return f"{self.claim.id}, arm {self.arm}, at ({self.point}), {which}"


@dataclass(frozen=True)
class Measured:
    """What came of a chunk.

    Attributes:
        columns: of the trials that were measured, in order.
        kept: their places in the chunk.
        failures: (place, what happened) of the others.
        seconds: what it took. memory: bytes that the process holds now, 0 where that is not known.
    """

    columns: Columns
    kept: tuple[int, ...]
    failures: tuple[tuple[int, str], ...]
    seconds: float
    memory: int = 0


@dataclass
class _Parts:
    """Trials measured one by one."""

    rows: list[tuple[int, Columns]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)


def measure_chunk(measure: Measure, point: Point, keys: Sequence[int], label: str, ticket: str = "") -> Measured:
    """Measure some trials and check what came back (this runs in a worker process).

    Args:
        ticket: a file that says which process works on the chunk, from its beginning to its end; "" for none.
    Raises:
        MeasureError: what came back is no record, whatever the trial: a column is missing, misshapen or not of numbers.
    """
    start = time.perf_counter()
    with _ticket(ticket):
        try:
            columns, error = _measured(measure, point, keys, label), ""
            bad = np.zeros(len(keys), bool)
            for array in columns.values():
                bad |= np.isnan(array).reshape(len(keys), -1).any(axis=1)
            failures = [(int(j), _nan(columns, int(j))) for j in np.flatnonzero(bad)]
            kept = [j for j in range(len(keys)) if not bad[j]]
            columns = {name: array[kept] for name, array in columns.items()}
        except (Exception, SystemExit) as raised:
            if isinstance(raised, MeasureError):
                raise
            error = _told(raised)
            columns, kept, failures = _one_by_one(measure, point, keys, label, error)
    return Measured(columns, tuple(kept), tuple(failures), time.perf_counter() - start, _memory())


def _one_by_one(
    measure: Measure, point: Point, keys: Sequence[int], label: str, error: str
) -> tuple[Columns, list[int], list[tuple[int, str]]]:
    """The trials of a chunk that raised ``error``, each alone."""
    if len(keys) == 1:
        return {}, [], [(0, error)]
    parts = _Parts()
    for j, key in enumerate(keys):
        try:
            columns = _measured(measure, point, [key], label)
        except MeasureError:
            raise
        except (Exception, SystemExit) as raised:
            parts.failures.append((j, _told(raised)))
            continue
        if any(np.isnan(array).any() for array in columns.values()):
            parts.failures.append((j, _nan(columns, 0)))
        else:
            parts.rows.append((j, columns))
    if not parts.failures:  # together they raise and alone they do not: no trial is to blame, and none can be trusted
        raise MeasureError(f"{label}: {error}, though not for any of its trials alone")
    kept = [j for j, _ in parts.rows]
    names = list(parts.rows[0][1]) if parts.rows else []
    if any(list(columns) != names for _, columns in parts.rows):
        raise MeasureError(f"{label}: columns must be {sorted(names)} in every trial")
    return {name: np.concatenate([columns[name] for _, columns in parts.rows]) for name in names}, kept, parts.failures


def _measured(measure: Measure, point: Point, keys: Sequence[int], label: str) -> Columns:
    """What the measure gives, as columns of float64.

    Raises:
        MeasureError: a column is missing, misshapen or holds anything but numbers that float64 holds.
    """
    given = measure(point, keys)
    if not isinstance(given, Mapping):
        raise MeasureError(f"{label}: a measure must return columns, {{name: numbers}}; got {type(given).__name__}")
    columns: dict[str, np.ndarray] = {}
    for name, values in given.items():
        array = np.asarray(values)
        if not isinstance(name, str) or array.dtype.kind not in "biuf":
            raise MeasureError(f"{label}: column {name!r} must hold real numbers; got dtype {array.dtype}")
        if array.ndim not in (1, 2) or len(array) != len(keys):
            wanted = f"have {len(keys)} rows, one a trial"
            raise MeasureError(f"{label}: column {name!r} must {wanted}; got shape {array.shape}")
        columns[name] = array.astype(np.float64)
        if array.dtype.kind in "iu" and (columns[name].astype(array.dtype) != array).any():
            raise MeasureError(f"{label}: column {name!r} must hold numbers that convert to float64 without loss")
    if not columns:
        raise MeasureError(f"{label}: the measure returned no columns")
    return columns


def _nan(columns: Columns, j: int) -> str:
    """Which columns of a trial hold a NaN."""
    names = [name for name, array in columns.items() if np.isnan(array[j]).any()]
    return f"column {', '.join(map(repr, names))} holds a NaN"


def _told(error: BaseException) -> str:
    """An error in one line, with the file and line where it was raised in code of the claim's author's kind."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = f"{type(error).__name__}: (an error whose message cannot be shown)"
    return text + place(error)


def place(error: BaseException) -> str:
    """" (file, line n)" of the innermost frame that is neither Python's nor an installed package's, or nothing."""
    found = traceback.extract_tb(error.__traceback__)
    own = [f for f in found if "site-packages" not in f.filename and not f.filename.startswith("<") and f.filename != __file__]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


@contextlib.contextmanager
def _ticket(path: str) -> Iterator[None]:
    """The file with this process's number while the context is open."""
    if not path:
        yield
        return
    with contextlib.suppress(OSError), open(path, "w") as file:
        file.write(str(os.getpid()))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _memory() -> int:
    """Bytes of memory that this process holds, 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
