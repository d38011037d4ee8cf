"""Run the trials of claims: what to run, in which chunks, on which processes.

A trial depends on (claim id, drawn part of the point, seed, trial) alone, so any order, chunking, number of processes,
or interruption gives the same records. Chunks are sized by the time measured, about 75 ms each (measures marked
``side_by_side`` get as many trials as they ask for); the parent process alone writes, one chunk at a time. The seam to
other engines is PEP 3148: anything that submits like a ``concurrent.futures.Executor``.

Nothing waits for ever: a chunk that does not end within the timeout is named and its worker ended; nothing dies with another:
a worker's death costs only the chunk it worked on, which is tried again.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool

from mdpsim.arrays import as_count, as_real, fail
from mdpsim.claims.chunk import Chunk, Measured, MeasureError, measure_chunk
from mdpsim.claims.claim import Claim, Point
from mdpsim.claims.interrupt import Interrupts
from mdpsim.claims.pool import FILE_MODULE, InProcess, Pool
from mdpsim.claims.records import Columns, Memory, RecordConflictError, Records, Sink
from mdpsim.claims.workers import check_measures
from mdpsim.kernels._jit import uncached
from mdpsim.versions import install_hint, lacking

__all__ = ["Chunk", "MeasureError", "Records", "missing", "run", "run_all"]

CHUNK_SECONDS = 0.075
GROWTH = 8  # a chunk is at most this many times the last one of its kind: early timings are rough
MAX_CHUNK = 10_000  # trials: cheap ones are committed this often
MAX_LOST = 3  # a chunk whose worker dies this often, with nothing else running, is not tried again
MAX_SEED = 2**63 - 1  # what the store's integers hold
TIMEOUT = 3600.0  # seconds for a chunk, unless said otherwise: about a single trial where trials are slow
GRACE = 60.0  # seconds that what is under way may take when the budget is spent
TICK = 1.0  # seconds between two looks at what does not end


Progress = Callable[[Chunk, float], None]


def run(
    claim: Claim,
    *,
    preset: str = "quick",
    seed: int = 0,
    store: Sink | None = None,
    jobs: int = 1,
    budget: float | None = None,
    timeout: float = TIMEOUT,
    keep_going: bool = False,
    progress: Progress | None = None,
) -> Records:
    """Run the trials of a claim that are missing in ``store`` and return all that the preset asks for.

    Args:
        preset: "smoke", "quick", "paper" or "full".
        seed: K; trial i draws from the pair (K, i).
        store: a Store; None keeps the records in memory only.
        jobs: number of processes; 1 runs in this one.
        budget: seconds after which no chunk of trials is begun any more, but for the first; None runs all. What was begun is
            finished and kept, if that takes no more than a minute.
        timeout: seconds that a chunk of trials (about 75 ms, or one trial) may take before it is given up.
        keep_going: go on with a claim some of whose trials raise or give a NaN; they are left out, and it is not supported.
    Raises:
        ValueError: unknown preset, jobs < 1, seed < 0, budget <= 0; an extra that the claim needs is not installed.
        MeasureError: a trial raised, gave a NaN or did not end (it is named, the others of its chunk are kept); or the measure
            returned no valid columns.
    """
    if not isinstance(claim, Claim):
        fail("run", "claim", "be a Claim", repr(claim))
    if store is not None and not hasattr(store, "missing"):
        fail("run", "store", "be a Store or None", repr(store))
    sink = Memory() if store is None else store
    seed = as_count("run", "seed", seed, low=0, high=MAX_SEED)  # numpy's integers have no JSON
    run_all(
        [claim], preset=preset, seed=seed, sink=sink, jobs=jobs, budget=budget, timeout=timeout, keep_going=keep_going,
        progress=progress,
    )
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
    timeout: float = TIMEOUT,
    keep_going: bool = False,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Run what is missing of several claims in one pool; a claim that fails is left out, and named at the end.

    Returns:
        With ``keep_going`` what became of the trials that failed, else nothing.
    Raises:
        ValueError: jobs < 1, budget <= 0, a seed that no store holds; an extra that a claim needs is not installed.
        MeasureError: after all the others are done; ``claims`` names those that failed.
        KeyboardInterrupt: after what was under way at the first Ctrl-C is stored; at once after the second.
    """
    jobs, seed = as_count("run", "jobs", jobs), as_count("run", "seed", seed, low=0, high=MAX_SEED)
    timeout = as_real("run", "timeout", timeout, 1e-3, 1e9)
    deadline = math.inf
    if budget is not None:
        deadline = time.monotonic() + as_real("run", "budget", budget, 1e-3, 1e9)
    for claim in claims:
        if absent := lacking(claim.needs):
            fail("run", claim.id, "have what its measure imports", install_hint(absent))
    work = missing(claims, preset, seed, sink)
    if not work:
        return ()
    if jobs > 1:
        check_measures({f"{c.claim.id}, arm {c.arm}": c.claim.measure_of(c.arm) for c in work}, jobs)
    with Interrupts() as interrupts:
        flow = Flow(seed, sink, progress or (lambda chunk, seconds: None), interrupts, deadline, timeout, keep_going)
        if jobs > 1 and uncached():
            # One process compiles for all: the first trial of every arm runs here, and fills the cache.
            with InProcess() as engine:
                flow.drain(_first_trials(work), engine)
            work = missing([c for c in claims if c.id not in flow.failed], preset, seed, sink)
        if work and flow.may_begin():
            with InProcess() if jobs == 1 else Pool(jobs, _files(work)) as engine:
                flow.drain(work, engine)
    if flow.failed:
        error = MeasureError("; ".join(map(str, flow.failed.values())))
        error.claims = tuple(flow.failed)
        raise error
    return tuple(flow.passed_over)


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


class Flow:
    """The flow of chunks through an engine: what is begun, what became of it, what is not tried again."""

    def __init__(
        self, seed: int, sink: Sink, progress: Progress, interrupts: Interrupts, deadline: float, timeout: float,
        keep_going: bool,
    ) -> None:
        self.seed, self.sink, self.progress, self.interrupts = seed, sink, progress, interrupts
        self.deadline, self.timeout, self.keep_going = deadline, timeout, keep_going
        self.failed: dict[str, MeasureError] = {}
        self.passed_over: list[str] = []
        self._begun = False
        self._sizes: dict[tuple[str, str, Point], int] = {}
        self._names: dict[tuple[str, str], set[str]] = {}
        self._losses: dict[tuple[str, int], int] = {}

    def may_begin(self) -> bool:
        """Whether another chunk may be begun: one at least a run, so that repeated short runs come to an end."""
        return not self.interrupts.noted and (not self._begun or time.monotonic() < self.deadline)

    def drain(self, work: Sequence[Chunk], engine: InProcess | Pool) -> None:
        """Keep the engine's window full until all is done, or the deadline (of time.monotonic) has passed, or Ctrl-C came.

        A pool that breaks is rebuilt, and what was under way is resubmitted one chunk at a time, so that a measure that ends
        its process is told from one that was killed beside it. A claim that fails is left out; the others go on.
        """
        chunks = _split(work, self._sizes, self.failed)
        pending: dict[Future[Measured], Chunk] = {}
        again: list[Chunk] = []
        while True:
            if self.interrupts.noted:  # what waits in the queue is not begun
                pending = {future: chunk for future, chunk in pending.items() if not future.cancel()}
            while len(pending) < (1 if again else engine.window) and not engine.tired and self.may_begin():
                chunk = again.pop() if again else next(chunks, None)
                if chunk is None:
                    break
                if chunk.claim.id not in self.failed:
                    pending[self._submit(engine, chunk)] = chunk
                    self._begun = True
            if not pending and self.interrupts.noted:
                raise KeyboardInterrupt
            if not pending and engine.tired:
                engine.rebuild()
                continue
            if not pending:
                return
            done, _ = wait(pending, timeout=TICK, return_when=FIRST_COMPLETED)
            alone, lost = len(pending) == 1, []
            for future in done:
                chunk = pending.pop(future)
                if not self._finish(chunk, future, engine):
                    lost.append(chunk)
            hung = self._hung(engine, pending) if not done else []
            for future in hung:
                limit = min(self.timeout, max(self.deadline - time.monotonic() + GRACE, 0.0)) if self._late() else self.timeout
                self._fail(pending.pop(future), f"did not end within {limit:g} s; its worker was ended (--timeout)")
            if hung or (not done and not engine.alive()):
                lost += pending.values()
            if lost or hung:
                if self.interrupts.noted:
                    raise KeyboardInterrupt  # the signal ended the workers too
                lost += [c for c in pending.values() if c not in lost]
                pending.clear()
                engine.rebuild()
                again += self._lost(lost, alone and not hung)

    def _submit(self, engine: InProcess | Pool, chunk: Chunk) -> Future[Measured]:
        """Submit a chunk; a pool that a worker's death has broken meanwhile is rebuilt, whatever it raises."""
        keys = [chunk.claim.trial_key(chunk.point, self.seed, i) for i in chunk.trials]
        measure = chunk.claim.measure_of(chunk.arm)
        for _ in range(MAX_LOST):
            try:
                return engine.submit(measure_chunk, measure, chunk.point, keys, str(chunk), limit=self.timeout)
            except (BrokenProcessPool, OSError, RuntimeError) as error:
                engine.rebuild()
                last = error
        raise OSError(f"no worker process can be started: {last}")

    def _finish(self, chunk: Chunk, future: Future[Measured], engine: InProcess | Pool) -> bool:
        """Keep what a chunk gave, or note why it failed; False where its worker died."""
        try:
            measured = future.result()
            self._check_names(chunk, measured.columns)
        except (BrokenProcessPool, OSError):
            return False
        except MeasureError as error:
            self.failed[chunk.claim.id] = error
            return True
        except Exception as error:  # what a worker could not be sent, or could not send back
            self._fail(chunk, f"{type(error).__name__}: {error}")
            return True
        if measured.kept:
            trials = [chunk.trials[j] for j in measured.kept]
            try:
                with self.interrupts.held():
                    self.sink.add(chunk.claim, chunk.arm, chunk.point, self.seed, trials, measured.columns, measured.seconds)
            except RecordConflictError as error:
                self.failed[chunk.claim.id] = MeasureError(str(error))
                return True
            _resize(self._sizes, chunk, measured.seconds)
            self.progress(chunk, measured.seconds)
        for j, why in measured.failures:
            one = Chunk(chunk.claim, chunk.arm, chunk.point, (chunk.trials[j],))
            if self.keep_going:
                self.passed_over.append(f"{one} of seed {self.seed}: {why}")
            else:
                self._fail(one, f"{why} (seed {self.seed}; the others of its chunk are kept, --keep-going leaves it out)")
        engine.see(measured.memory)
        return True

    def _fail(self, chunk: Chunk, why: str) -> None:
        self.failed.setdefault(chunk.claim.id, MeasureError(f"{chunk}: {why}"))

    def _late(self) -> bool:
        return time.monotonic() > self.deadline + GRACE

    def _hung(self, engine: InProcess | Pool, pending: Mapping[Future[Measured], Chunk]) -> list[Future[Measured]]:
        """What has been worked on for longer than the timeout, or than the grace after the budget was spent."""
        limit = 0.0 if self._late() else self.timeout
        return [future for future in pending if engine.age(future) > limit]

    def _lost(self, lost: Sequence[Chunk], alone: bool) -> list[Chunk]:
        """What is tried again of the chunks whose workers died."""
        for chunk in lost:
            which = (f"{chunk.claim.id} {chunk.arm} {chunk.point.json}", chunk.trials[0])
            self._losses[which] = self._losses.get(which, 0) + alone
            if self._losses[which] >= MAX_LOST:
                self._fail(chunk, f"its worker process died {MAX_LOST} times (does the measure end the process?)")
        return [chunk for chunk in lost if chunk.claim.id not in self.failed]

    def _check_names(self, chunk: Chunk, columns: Columns) -> None:
        """Every trial of an arm has the same columns."""
        if not columns:
            return
        first = self._names.setdefault((chunk.claim.id, chunk.arm), set(columns))
        if set(columns) != first:
            raise MeasureError(f"{chunk}: columns must be {sorted(first)} in every trial; got {sorted(columns)}")


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
    sizes[chunk.claim.id, chunk.arm, chunk.point] = max(1, min(fitting, GROWTH * n, MAX_CHUNK))
