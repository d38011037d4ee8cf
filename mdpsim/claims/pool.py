"""The embedded engine: a pool of worker processes that survives the death of a worker.

Workers start from a fork server (a fork after a parallel numba kernel kills the child), with one thread each for numba
and BLAS, so that results do not depend on how many there are. They ignore Ctrl-C (the parent handles it) and end when
the parent is gone, however it went.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from types import ModuleType
from typing import Any

THREAD_VARIABLES = (
    "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)

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

    def __init__(self) -> None:
        import numba
        import scipy.linalg  # noqa: F401 - only libraries that are loaded can be limited, and scipy brings its own BLAS

        self._limits = one_thread()
        self._numba_threads = numba.get_num_threads()
        numba.set_num_threads(1)

    @property
    def executor(self) -> Executor:
        """Itself."""
        return self

    def rebuild(self) -> None:
        """Nothing to rebuild."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call now; the future is done when this returns."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def __exit__(self, *exc: object) -> None:
        import numba

        numba.set_num_threads(self._numba_threads)
        self._limits.__exit__(None, None, None)


class Pool:
    """Worker processes behind a ``ProcessPoolExecutor`` that can be rebuilt."""

    def __init__(self, jobs: int, modules: Sequence[tuple[str, str]] = ()) -> None:
        self.jobs, self.modules = jobs, tuple(modules)
        self.window = 3 * jobs  # enough queued that no worker waits for the parent
        self.executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        with _environment(dict.fromkeys(THREAD_VARIABLES, "1")):
            if method == "forkserver":
                from multiprocessing import forkserver, resource_tracker

                resource_tracker.ensure_running()  # before Ctrl-C is held back: it ends by letting it through
                context.set_forkserver_preload(["mdpsim.claims.run"])
                with _no_interrupt():
                    forkserver.ensure_running()
        return ProcessPoolExecutor(self.jobs, context, initializer=_start_worker, initargs=(self.modules,))

    def rebuild(self) -> None:
        """Replace a broken pool by a fresh one."""
        self._stop()
        self.executor = self._start()

    def _stop(self) -> None:
        processes = list((getattr(self.executor, "_processes", None) or {}).values())
        self.executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(3)
            process.kill()  # a worker that ignores the request; no effect on one that has ended
        self.executor.shutdown(wait=True)  # joins what was terminated, so that no semaphore is left behind

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        if kind is None:
            self.executor.shutdown(wait=True)
        else:
            self._stop()


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
