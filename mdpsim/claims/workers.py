"""What worker processes can be asked to do: what is known before one starts, and what a call in one begins with.

Workers import what they are asked to call, and the script that asks. So a measure that stands in no file is refused before any
starts; a script that comes upon the same call again while a worker imports it ends that worker, and the parent says why, once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any

from mdpsim.arrays import fail

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
UNGUARDED = 86  # what a worker exits with that was sent through an unguarded script
FILES, FILES_EACH = 18, 3  # open files that a pool needs, and each of its workers


class MdpsimWorker(multiprocessing.get_context(METHOD).Process):  # type: ignore[name-defined, misc]
    """A worker process. It imports the script that started it, as multiprocessing's do, but not a prompt or piped code."""

    def start(self) -> None:
        """Start; where the main module names a file that does not exist (``<stdin>``), without it."""
        main = sys.modules["__main__"]
        path = getattr(main, "__file__", None)
        if path is None or main_is_file():
            super().start()
            return
        del main.__file__
        try:
            super().start()
        finally:
            main.__file__ = path


class Context(type(multiprocessing.get_context(METHOD))):  # type: ignore[misc]
    """The context whose processes are ours."""

    Process = MdpsimWorker


def main_is_file() -> bool:
    """Whether workers can import the main module: a script or a module, not a prompt, a notebook or piped code."""
    main = sys.modules["__main__"]
    return getattr(main, "__spec__", None) is not None or os.path.isfile(getattr(main, "__file__", None) or "")


def check_measures(measures: Mapping[str, Callable[..., Any]], jobs: int) -> None:
    """Guard ``jobs`` before any worker starts: name -> measure, which the workers have to find.

    Raises:
        ValueError: a measure was written where no worker can import it.
    """
    if multiprocessing.current_process().name.startswith(MdpsimWorker.__name__) and _imports_main():
        os._exit(UNGUARDED)  # the parent says why, once
    for name, measure in measures.items():
        sent = b""
        with contextlib.suppress(Exception):  # what cannot be sent costs its own claim its verdict, later
            sent = pickle.dumps(measure)
        if b"__main__" in sent and not main_is_file():
            fail(
                "run", "jobs", "be 1 for a measure written in a notebook, at a prompt or in piped code, which no worker "
                "process can import (for more, put the claim in a FILE.py and take it from load_claims('FILE.py'))",
                f"{jobs} for {name}",
            )


def _imports_main() -> bool:
    """Whether this process has just been started and is importing the script of its parent."""
    return getattr(multiprocessing.current_process(), "_inheriting", False)


def check_files(jobs: int) -> None:
    """Guard the limit of open files: a fork server that meets it dies with a traceback of its own."""
    needed = FILES + FILES_EACH * jobs
    held: list[int] = []
    with contextlib.suppress(OSError):
        while len(held) < needed:
            held.append(os.open(os.devnull, os.O_RDONLY))
    for number in held:
        os.close(number)
    if len(held) < needed:
        got = f"room for {len(held)} (jobs=1 needs none)"
        fail("run", "the limit of open files (ulimit -n)", f"leave room for {needed} with jobs={jobs}", got)


def call(sent: bytes, ticket: str) -> Any:
    """Call what was sent, in a worker; what it cannot import is an error of that call, not of the process."""
    try:
        fn, args = pickle.loads(sent)
    except (AttributeError, ImportError) as error:
        raise ImportError(f"worker processes cannot import its measure ({error}): it must stand at the top level of a file, "
                          "not in a notebook or under 'if __name__'") from None
    return fn(*args, ticket)
