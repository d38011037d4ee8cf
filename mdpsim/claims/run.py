"""Run the trials of claims: what to run, in which chunks, on which processes.

A trial depends on (claim id, drawn part of the point, seed, trial) alone, so any order, chunking, number of processes,
or interruption gives the same records. Chunks are sized by the time measured, about 75 ms each (measures marked
``side_by_side`` get as many trials as they ask for); the parent process alone writes, one chunk at a time. The seam to
other engines is PEP 3148: anything that submits like a ``concurrent.futures.Executor``.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np

from mdpsim.arrays import as_count, as_real, fail
from mdpsim.claims.claim import Claim, Measure, Point
from mdpsim.claims.interrupt import Interrupts
from mdpsim.claims.pool import FILE_MODULE, InProcess, Pool
from mdpsim.claims.records import Columns, Memory, RecordConflictError, Records, Sink
from mdpsim.kernels._jit import uncached
from mdpsim.versions import install_hint, lacking

CHUNK_SECONDS = 0.075
GROWTH = 8  # a chunk is at most this many times the last one of its kind: early timings are rough
MAX_LOST = 3  # a chunk whose worker dies this often, with nothing else running, is not tried again
MAX_SEED = 2**63 - 1  # what the store's integers hold


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


Progress = Callable[[Chunk, float], None]


def run(
    claim: Claim,
    *,
    preset: str = "quick",
    seed: int = 0,
    store: Sink | None = None,
    jobs: int = 1,
    budget: float | None = None,
    progress: Progress | None = None,
) -> Records:
    """Run the trials of a claim that are missing in ``store`` and return all that the preset asks for.

    Args:
        preset: "smoke", "quick", "paper" or "full".
        seed: K; trial i draws from the pair (K, i).
        store: a Store; None keeps the records in memory only.
        jobs: number of processes; 1 runs in this one.
        budget: seconds after which no chunk of trials is begun any more; None runs all. What was begun is finished and kept.
    Raises:
        ValueError: unknown preset, jobs < 1, seed < 0, budget <= 0; an extra that the claim needs is not installed.
        MeasureError: the measure raised or returned no valid columns.
    """
    if not isinstance(claim, Claim):
        fail("run", "claim", "be a Claim", repr(claim))
    if store is not None and not hasattr(store, "missing"):
        fail("run", "store", "be a Store or None", repr(store))
    sink = Memory() if store is None else store
    run_all([claim], preset=preset, seed=seed, sink=sink, jobs=jobs, budget=budget, progress=progress)
    return sink.records(claim, preset, seed)


def missing(claims: Sequence[Claim], preset: str, seed: int, sink: Sink) -> list[Chunk]:
    """What has to be run: for every claim, arm and point the trials the sink does not hold."""
    return [
        Chunk(claim, arm, point, tuple(trials))
        for claim in claims
        for arm, points in claim.plan(preset).items()
        for point, n in points.items()
        if (trials := sink.missing(claim, arm, point, seed, n))
    ]


def run_all(
    claims: Sequence[Claim],
    *,
    preset: str,
    seed: int,
    sink: Sink,
    jobs: int = 1,
    budget: float | None = None,
    progress: Progress | None = None,
) -> None:
    """Run what is missing of several claims in one pool; a claim that fails is left out, and named at the end.

    Raises:
        ValueError: jobs < 1, budget <= 0, a seed that no store holds; an extra that a claim needs is not installed.
        MeasureError: after all the others are done; ``claims`` names those that failed.
        KeyboardInterrupt: after what was under way at the first Ctrl-C is stored; at once after the second.
    """
    as_count("run", "jobs", jobs)
    as_count("run", "seed", seed, low=0, high=MAX_SEED)
    deadline = math.inf
    if budget is not None:
        deadline = time.monotonic() + as_real("run", "budget", budget, 1e-3, 1e9)
    for claim in claims:
        if absent := lacking(claim.needs):
            fail("run", claim.id, "have what its measure imports", install_hint(absent))
    work = missing(claims, preset, seed, sink)
    if not work:
        return
    tell = progress or (lambda chunk, seconds: None)
    failed: dict[str, MeasureError] = {}
    with Interrupts() as interrupts:
        if jobs > 1 and uncached():
            # One process compiles for all: the first trial of every arm runs here, and fills the cache.
            with InProcess() as engine:
                _drain(_first_trials(work), seed, engine, sink, tell, failed, deadline, interrupts)
            work = missing([c for c in claims if c.id not in failed], preset, seed, sink)
        if work:
            with InProcess() if jobs == 1 else Pool(jobs, _files(work)) as engine:
                _drain(work, seed, engine, sink, tell, failed, deadline, interrupts)
    if failed:
        error = MeasureError("; ".join(map(str, failed.values())))
        error.claims = tuple(failed)
        raise error


def _files(work: Sequence[Chunk]) -> list[tuple[str, str]]:
    """(name, path) of the claim files that hold the measures: worker processes load them by their path."""
    names = {getattr(chunk.claim.measure_of(chunk.arm), "__module__", "") for chunk in work}
    return [(n, str(sys.modules[n].__file__)) for n in sorted(names) if n.startswith(FILE_MODULE) and n in sys.modules]


def _first_trials(work: Sequence[Chunk]) -> list[Chunk]:
    """One trial of every (claim, arm) in the work."""
    first: dict[tuple[str, str], Chunk] = {}
    for chunk in work:
        first.setdefault((chunk.claim.id, chunk.arm), Chunk(chunk.claim, chunk.arm, chunk.point, chunk.trials[:1]))
    return list(first.values())


def _drain(
    work: Sequence[Chunk], seed: int, engine: InProcess | Pool, sink: Sink, progress: Progress,
    failed: dict[str, MeasureError], deadline: float, interrupts: Interrupts,
) -> None:
    """Keep the engine's window full until all is done, or the deadline (of time.monotonic) has passed, or Ctrl-C came.

    A pool that breaks is rebuilt, and what was under way is resubmitted one chunk at a time, so that a measure that ends
    its process is told from one that was killed beside it. A claim that fails is left out; the others go on.
    """
    sizes: dict[tuple[str, str, Point], int] = {}
    names: dict[tuple[str, str], set[str]] = {}
    chunks = _split(work, sizes, failed)
    pending: dict[Future[tuple[Columns, float]], Chunk] = {}
    again: list[Chunk] = []
    losses: dict[tuple[str, int], int] = {}
    while True:
        if interrupts.noted:  # what waits in the queue is not begun
            pending = {future: chunk for future, chunk in pending.items() if not future.cancel()}
        while len(pending) < (1 if again else engine.window) and time.monotonic() < deadline and not interrupts.noted:
            chunk = again.pop() if again else next(chunks, None)
            if chunk is None:
                break
            if chunk.claim.id not in failed:
                pending[_submit(engine, chunk, seed)] = chunk
        if not pending and interrupts.noted:
            raise KeyboardInterrupt
        if not pending:
            return
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        alone, lost = len(pending) == 1, []
        for future in done:
            chunk = pending.pop(future)
            try:
                columns, seconds = future.result()
                _check_names(names, chunk, columns)
            except BrokenProcessPool:
                lost.append(chunk)
            except MeasureError as error:
                failed[chunk.claim.id] = error
            except Exception as error:  # what a worker could not be sent, or could not send back
                failed[chunk.claim.id] = MeasureError(f"{_label(chunk)}: {type(error).__name__}: {error}")
            else:
                try:
                    with interrupts.held():
                        sink.add(chunk.claim, chunk.arm, chunk.point, seed, chunk.trials, columns, seconds)
                except RecordConflictError as error:
                    failed[chunk.claim.id] = MeasureError(str(error))
                    continue
                _resize(sizes, chunk, seconds)
                progress(chunk, seconds)
        if lost:
            lost += pending.values()
            pending.clear()
            engine.rebuild()
            for chunk in lost:
                which = (f"{chunk.claim.id} {chunk.arm} {chunk.point.json}", chunk.trials[0])
                losses[which] = losses.get(which, 0) + alone
                if losses[which] >= MAX_LOST:
                    failed[chunk.claim.id] = MeasureError(
                        f"{_label(chunk)}: its worker process died {MAX_LOST} times (does the measure end the process? "
                        "A script that asks for jobs > 1 needs 'if __name__ == \"__main__\":')"
                    )
            again += lost


def _check_names(names: dict[tuple[str, str], set[str]], chunk: Chunk, columns: Columns) -> None:
    """Every trial of an arm has the same columns."""
    first = names.setdefault((chunk.claim.id, chunk.arm), set(columns))
    if set(columns) != first:
        raise MeasureError(f"{_label(chunk)}: columns must be {sorted(first)} in every trial; got {sorted(columns)}")


def _split(
    work: Sequence[Chunk], sizes: dict[tuple[str, str, Point], int], failed: Mapping[str, MeasureError]
) -> Iterator[Chunk]:
    """Cut the work into chunks, each as large as the timings so far suggest; claims that failed have none."""
    for whole in work:
        start = 0
        while start < len(whole.trials) and whole.claim.id not in failed:
            least = getattr(whole.claim.measure_of(whole.arm), "side_by_side", 1)
            size = max(least, sizes.get((whole.claim.id, whole.arm, whole.point), 1))
            yield Chunk(whole.claim, whole.arm, whole.point, whole.trials[start : start + size])
            start += size


def _resize(sizes: dict[tuple[str, str, Point], int], chunk: Chunk, seconds: float) -> None:
    """Next size for this kind of trial: CHUNK_SECONDS worth, growing at most GROWTH-fold."""
    n = len(chunk.trials)
    fitting = int(CHUNK_SECONDS * n / max(seconds, 1e-9))
    sizes[chunk.claim.id, chunk.arm, chunk.point] = max(1, min(fitting, GROWTH * n))


def _submit(engine: InProcess | Pool, chunk: Chunk, seed: int) -> Future[tuple[Columns, float]]:
    keys = [chunk.claim.trial_key(chunk.point, seed, i) for i in chunk.trials]
    call = (measure_chunk, chunk.claim.measure_of(chunk.arm), chunk.point, keys, _label(chunk))
    try:
        return engine.executor.submit(*call)
    except BrokenProcessPool:  # a worker died while nothing was asked of it
        engine.rebuild()
        return engine.executor.submit(*call)


def _label(chunk: Chunk) -> str:
    return f"{chunk.claim.id}, arm {chunk.arm}, at ({chunk.point}), trials {chunk.trials[0]}..{chunk.trials[-1]}"


def measure_chunk(measure: Measure, point: Point, keys: Sequence[int], label: str) -> tuple[Columns, float]:
    """Measure some trials and check what came back (this runs in a worker process).

    Raises:
        MeasureError: the measure raised; or a column is missing, misshapen or holds a NaN.
    """
    start = time.perf_counter()
    try:
        columns = {name: np.asarray(values) for name, values in dict(measure(point, keys)).items()}
    except (Exception, SystemExit) as error:
        raise MeasureError(f"{label}: {type(error).__name__}: {_text(error)}") from error
    for name, array in columns.items():
        if not isinstance(name, str) or array.dtype.kind not in "biuf":
            raise MeasureError(f"{label}: column {name!r} must hold real numbers; got dtype {array.dtype}")
        if array.ndim not in (1, 2) or len(array) != len(keys):
            raise MeasureError(f"{label}: column {name!r} must have {len(keys)} rows; got shape {array.shape}")
        if np.isnan(array).any():
            raise MeasureError(f"{label}: column {name!r} holds a NaN")
    if not columns:
        raise MeasureError(f"{label}: the measure returned no columns")
    return {name: array.astype(np.float64) for name, array in columns.items()}, time.perf_counter() - start


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(an error whose message cannot be shown)"
