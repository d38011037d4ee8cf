"""Run the trials of claims: what to run, in which chunks, on which processes.

A trial depends on (claim id, drawn part of the point, seed, trial) alone, so any order, chunking, number of processes,
or interruption gives the same records. Chunks are sized by the time measured, about 75 ms each; the parent process
alone writes, one chunk at a time. The seam to other engines is PEP 3148: anything that submits like a
``concurrent.futures.Executor``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np

from mdpsim.arrays import as_count
from mdpsim.claims.claim import Claim, Measure, Point
from mdpsim.claims.pool import InProcess, Pool
from mdpsim.claims.records import Columns, Memory, Records, Sink
from mdpsim.kernels._jit import uncached

CHUNK_SECONDS = 0.075
GROWTH = 8  # a chunk is at most this many times the last one of its kind: early timings are rough
MAX_BROKEN = 5  # a pool that breaks more often than this on one run is not worth rebuilding


class MeasureError(RuntimeError):
    """A claim's measure raised, or returned something that is no record."""


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
    progress: Progress | None = None,
) -> Records:
    """Run the trials of a claim that are missing in ``store`` and return all that the preset asks for.

    Args:
        preset: "smoke", "quick", "paper" or "full".
        seed: K; trial i draws from the pair (K, i).
        store: a Store; None keeps the records in memory only.
        jobs: number of processes; 1 runs in this one.
    Raises:
        ValueError: unknown preset, jobs < 1, seed < 0.
        MeasureError: the measure raised or returned no valid columns.
    """
    sink = Memory() if store is None else store
    run_all([claim], preset=preset, seed=seed, sink=sink, jobs=jobs, progress=progress)
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
    progress: Progress | None = None,
    modules: Sequence[tuple[str, str]] = (),
) -> None:
    """Run what is missing of several claims in one pool.

    Args:
        modules: (name, path) of claim files that worker processes have to load.
    """
    as_count("run", "jobs", jobs)
    as_count("run", "seed", seed, low=0)
    work = missing(claims, preset, seed, sink)
    if not work:
        return
    tell = progress or (lambda chunk, seconds: None)
    if jobs > 1 and uncached():
        # One process compiles for all: the first trial of every arm runs here, and fills the cache.
        with InProcess() as engine:
            _drain(_first_trials(work), seed, engine, sink, tell)
        work = missing(claims, preset, seed, sink)
    with InProcess() if jobs == 1 else Pool(jobs, modules) as engine:
        _drain(work, seed, engine, sink, tell)


def _first_trials(work: Sequence[Chunk]) -> list[Chunk]:
    """One trial of every (claim, arm) in the work."""
    first: dict[tuple[str, str], Chunk] = {}
    for chunk in work:
        first.setdefault((chunk.claim.id, chunk.arm), Chunk(chunk.claim, chunk.arm, chunk.point, chunk.trials[:1]))
    return list(first.values())


def _drain(work: Sequence[Chunk], seed: int, engine: InProcess | Pool, sink: Sink, progress: Progress) -> None:
    """Keep the engine's window full until all is done; a broken pool is rebuilt, unfinished chunks resubmitted."""
    sizes: dict[tuple[str, str, Point], int] = {}
    chunks = _split(work, sizes)
    pending: dict[Future[tuple[Columns, float]], Chunk] = {}
    again: list[Chunk] = []
    names: dict[tuple[str, str], set[str]] = {}
    broken = 0
    while True:
        while len(pending) < engine.window and (chunk := again.pop() if again else next(chunks, None)) is not None:
            try:
                pending[_submit(engine.executor, chunk, seed)] = chunk
            except BrokenProcessPool:
                again.append(chunk)
                break
        if not pending and not again:
            return
        done, _ = wait(pending, return_when=FIRST_COMPLETED)
        lost = not done
        for future in done:
            chunk = pending.pop(future)
            try:
                columns, seconds = future.result()
            except BrokenProcessPool:
                again.append(chunk)
                lost = True
                continue
            first = names.setdefault((chunk.claim.id, chunk.arm), set(columns))
            if set(columns) != first:
                raise MeasureError(f"{_label(chunk)}: columns must be {sorted(first)} in every trial; got {sorted(columns)}")
            sink.add(chunk.claim, chunk.arm, chunk.point, seed, chunk.trials, columns, seconds)
            _resize(sizes, chunk, seconds)
            progress(chunk, seconds)
        if lost:
            broken += 1
            if broken > MAX_BROKEN:
                raise MeasureError(
                    f"run: worker processes died {broken} times, last on {again[-1].claim.id} (does its measure end the "
                    "process? A script that asks for jobs > 1 needs 'if __name__ == \"__main__\":')"
                )
            again.extend(pending.values())
            pending.clear()
            engine.rebuild()


def _split(work: Sequence[Chunk], sizes: dict[tuple[str, str, Point], int]) -> Iterator[Chunk]:
    """Cut the work into chunks, each as large as the timings so far suggest."""
    for whole in work:
        start = 0
        while start < len(whole.trials):
            size = sizes.get((whole.claim.id, whole.arm, whole.point), 1)
            yield Chunk(whole.claim, whole.arm, whole.point, whole.trials[start : start + size])
            start += size


def _resize(sizes: dict[tuple[str, str, Point], int], chunk: Chunk, seconds: float) -> None:
    """Next size for this kind of trial: CHUNK_SECONDS worth, growing at most GROWTH-fold."""
    n = len(chunk.trials)
    fitting = int(CHUNK_SECONDS * n / max(seconds, 1e-9))
    sizes[chunk.claim.id, chunk.arm, chunk.point] = max(1, min(fitting, GROWTH * n))


def _submit(executor: Executor, chunk: Chunk, seed: int) -> Future[tuple[Columns, float]]:
    keys = [chunk.claim.trial_key(chunk.point, seed, i) for i in chunk.trials]
    return executor.submit(measure_chunk, chunk.claim.measure_of(chunk.arm), chunk.point, keys, _label(chunk))


def _label(chunk: Chunk) -> str:
    return f"{chunk.claim.id}, arm {chunk.arm}, at ({chunk.point}), trials {chunk.trials[0]}..{chunk.trials[-1]}"


def measure_chunk(measure: Measure, point: Point, keys: Sequence[int], label: str) -> tuple[Columns, float]:
    """Measure some trials and check what came back (this runs in a worker process).

    Raises:
        MeasureError: the measure raised; or a column is missing, misshapen or holds a NaN.
    """
    start = time.perf_counter()
    try:
        columns = measure(point, keys)
    except (Exception, SystemExit) as error:
        raise MeasureError(f"{label}: {type(error).__name__}: {error}") from error
    checked = {}
    for name, values in dict(columns).items():
        array = np.asarray(values, dtype=np.float64)
        if not isinstance(name, str) or array.ndim not in (1, 2) or len(array) != len(keys):
            raise MeasureError(f"{label}: column {name!r} must have {len(keys)} rows; got shape {array.shape}")
        if np.isnan(array).any():
            raise MeasureError(f"{label}: column {name!r} holds a NaN")
        checked[name] = array
    if not checked:
        raise MeasureError(f"{label}: the measure returned no columns")
    return checked, time.perf_counter() - start
