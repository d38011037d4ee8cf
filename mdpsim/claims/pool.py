"""The engines: this process, or a pool of worker processes that survives the death of a worker.

Workers start from a fork server (a fork after a parallel numba kernel kills the child), with one thread each for numba
and BLAS, so that results do not depend on how many there are. They ignore Ctrl-C (the parent handles it) and end when
the parent is gone, however it went. They import nothing from the current directory that the parent would not. A worker writes
a ticket (a file with its number) when it begins a chunk and takes it away at the end: so the parent knows which process works
for how long on what, and can end one that hangs. A pool whose workers have grown is replaced by a fresh one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from types import ModuleType
from typing import Any

from mdpsim.arrays import fail
from mdpsim.claims.workers import METHOD, UNGUARDED, Context, call, check_files
from mdpsim.memory import machine

THREAD_VARIABLES = (
    "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)

STARTING = 30.0  # seconds that a pool may take before a worker of it lives
FILE_MODULE = "mdpsim_claims_"  # how the names of modules begin that are loaded from a claims file


def load_module(name: str, path: str) -> ModuleType:
    """Load a Python file as a module of that name, once a process."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"load_module: path must be a Python file; got {path!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = os.path.dirname(path)
    sys.path.insert(0, folder)  # modules beside the file are found, as they are by `python FILE.py`
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(folder)
    return module


def one_thread() -> contextlib.AbstractContextManager[Any]:
    """One BLAS thread while the context is open: the number of threads can change the last digits."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


class InProcess(Executor):
    """An executor that runs each call at once, in this process."""

    window = 1
    tired = False

    def __init__(self) -> None:
        import numba
        import scipy.linalg  # noqa: F401 - only libraries that are loaded can be limited, and scipy brings its own BLAS

        self._limits = one_thread()
        self._numba_threads = numba.get_num_threads()
        numba.set_num_threads(1)

    def rebuild(self) -> None:
        """Nothing to rebuild."""

    def alive(self) -> bool:
        """Always."""
        return True

    def age(self, future: Future[Any]) -> float:
        """Calls are over when ``submit`` returns."""
        return 0.0

    def see(self, memory: int) -> None:
        """This process's own memory is not looked after."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, limit: float = float("inf")) -> Future[Any]:  # type: ignore[override]
        """Call now; the future is done when this returns. After ``limit`` seconds it is given up, where Python code runs."""
        future: Future[Any] = Future()
        try:
            with _alarm(limit):
                future.set_result(fn(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def __exit__(self, *exc: object) -> None:
        import numba

        numba.set_num_threads(self._numba_threads)
        self._limits.__exit__(None, None, None)


class TimedOutError(RuntimeError):
    """A chunk took too long."""


class _Late(BaseException):
    """What the alarm raises: no measure's ``except Exception`` keeps it."""


@contextlib.contextmanager
def _alarm(limit: float) -> Iterator[None]:
    """Raise in the main thread after ``limit`` seconds; nothing where somebody uses that timer, or in other threads."""
    able = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not able or limit == float("inf") or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        yield
        return

    def late(number: int, frame: Any) -> None:
        raise _Late

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    except _Late:
        raise TimedOutError(f"did not end within {limit:g} s (--timeout)") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


class Pool:
    """Worker processes behind a ``ProcessPoolExecutor`` that can be rebuilt."""

    def __init__(self, jobs: int, modules: Sequence[tuple[str, str]] = ()) -> None:
        self.jobs, self.modules = jobs, tuple(modules)
        self.window = 3 * jobs  # enough queued that no worker waits for the parent
        self.tired = False
        self._tickets: dict[Future[Any], str] = {}
        self._seen: dict[Future[Any], float] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="mdpsim-run-", ignore_cleanup_errors=True)
        self._count = 0
        self._quiet_since = time.monotonic()
        self.executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        check_files(self.jobs)
        context = Context()
        with _environment(dict.fromkeys(THREAD_VARIABLES, "1") | _own_code()):
            if METHOD == "forkserver":
                from multiprocessing import forkserver, resource_tracker

                resource_tracker.ensure_running()  # before Ctrl-C is held back: it ends by letting it through
                context.set_forkserver_preload(["mdpsim.claims.chunk"])
                try:
                    with _no_interrupt():
                        forkserver.ensure_running()
                except OSError as error:
                    if "AF_UNIX" not in str(error):
                        raise
                    wanted = "name a folder with a shorter path, in which a socket can lie"
                    fail("run", "TMPDIR", wanted, f"one of {len(tempfile.gettempdir())} letters")
        return ProcessPoolExecutor(self.jobs, context, initializer=_start_worker, initargs=(self.modules,))

    def submit(self, fn: Callable[..., Any], /, *args: Any, limit: float = float("inf")) -> Future[Any]:
        """Submit a call, whose last argument becomes its ticket; the parent looks after its ``limit``."""
        self._count += 1
        ticket = os.path.join(self._folder.name, str(self._count))
        try:
            sent = pickle.dumps((fn, args))
        except Exception as error:
            future: Future[Any] = Future()
            future.set_exception(error)
            return future
        future = self.executor.submit(call, sent, ticket)
        self._tickets[future] = ticket
        future.add_done_callback(self._done)
        self._quiet_since = time.monotonic()
        return future

    def _done(self, future: Future[Any]) -> None:
        self._tickets.pop(future, None)
        self._seen.pop(future, None)
        self._quiet_since = time.monotonic()

    def age(self, future: Future[Any]) -> float:
        """Seconds since a worker was first seen at work on it; 0 where none is."""
        if not os.path.exists(self._tickets.get(future, "")):
            return 0.0
        return time.monotonic() - self._seen.setdefault(future, time.monotonic())

    def alive(self) -> bool:
        """Whether a worker is there to go on: false where all are gone and nothing has come back for a while."""
        processes = list((getattr(self.executor, "_processes", None) or {}).values())
        return time.monotonic() - self._quiet_since < STARTING or any(p.is_alive() for p in processes)

    def see(self, memory: int) -> None:
        """A worker's memory: where it is too much the pool is ``tired``, to be rebuilt when nothing is under way."""
        self.tired = self.tired or memory > largest(self.jobs)

    def rebuild(self) -> None:
        """Replace a broken or tired pool by a fresh one; a fork server that cannot be reached is replaced too."""
        if UNGUARDED in self._stop():
            raise ValueError(
                "run: jobs must be 1 in a script without 'if __name__ == \"__main__\":': each worker imports the script "
                f"and came upon this call again; got {self.jobs}"
            )
        self._tickets.clear()
        self._seen.clear()
        self.tired = False
        try:
            self.executor = self._start()
        except OSError:
            _end_fork_server()
            self.executor = self._start()

    def _stop(self) -> list[int | None]:
        """End all workers: what they exited with."""
        processes = list((getattr(self.executor, "_processes", None) or {}).values())
        with contextlib.suppress(OSError, RuntimeError):  # the executor's own thread may be at the same work
            self.executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(3)
            process.kill()  # a worker that ignores the request; no effect on one that has ended
        with contextlib.suppress(OSError, RuntimeError):
            self.executor.shutdown(wait=True)  # joins what was terminated, so that no semaphore is left behind
        return [process.exitcode for process in processes]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        if kind is None:
            self.executor.shutdown(wait=True)
        else:
            self._stop()
        self._folder.cleanup()


def largest(jobs: int) -> int:
    """Bytes that one of so many workers may hold: half the machine's memory among them all, at least 1 GiB each."""
    return max(2**30, int(machine() / (2 * jobs)))


def _own_code() -> dict[str, str]:
    """What keeps the current directory off the fork server's path: a ``scipy.py`` beside the user's data is not ours to run.

    Python's -c puts it there. A checkout that is imported from the current directory is named in its place.
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.path.basename(root) in ("site-packages", "dist-packages"):
        return {"PYTHONSAFEPATH": "1"}
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": path}


def _end_fork_server() -> None:
    """Forget a fork server that does not answer; the next pool starts another."""
    from multiprocessing import forkserver

    with contextlib.suppress(Exception):
        forkserver._forkserver._stop()  # type: ignore[attr-defined]


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back: a process started in here holds it back too (a fork server ignores it only after its imports)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker(modules: Sequence[tuple[str, str]]) -> None:
    """Initialise a worker: no Ctrl-C, an end with the parent, one thread, the files that hold claims."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # held back since the fork server's start
    os.dup2(2, 1)  # what a measure prints is a message: stdout belongs to the verdicts
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if os.environ.get("NUMBA_NUM_THREADS") != "1":  # a fork server started by somebody else
        import numba

        numba.set_num_threads(1)  # this starts numba's threads, and leaves a semaphore behind
    one_thread()
    for name, path in modules:
        load_module(name, path)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
