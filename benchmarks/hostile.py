"""Every public function and learner with wrong arguments, one at a time: what comes of it, counted by kind.

    python benchmarks/hostile.py --jobs 2
    python benchmarks/hostile.py --quick
    python benchmarks/hostile.py --only solve_soft --show 100

For each argument of each right call (_hostile_calls.py) every wrong value (_hostile_values.py) in a worker process, with 15
seconds a call; a hang or a crash costs its worker and nothing else. A value that is the right one written
otherwise must give the same result or be refused. Prints a table of outcomes and what should not be; status 1 where there is
any of it: crashes, hangs, exceptions of Python's or torch's own, results from what cannot be meant. Some 45,000 calls;
--quick takes every so many-th case, --seconds ends the attack early and says how many were left.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import numbers
import os
import re
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIMIT, START = 15.0, 300.0  # seconds for a call; for a start, which may have to compile every kernel of a right call
HOUSE = re.compile(r"\A[\w/ .'-]+: .+ must .+; got .*", re.DOTALL)
QUICK, ODD = 25, 7  # quick: one case in so many, another one from argument to argument
REFUSED, OTHERS_STYLE = "ValueError, house style", "ValueError, another style"
SAID = "an error of our own, documented"
EMPTY = "AttributeError: a record never initialised"  # no argument: counted apart
EQUAL, SILENT, DIFFERS = "returned: same value, same result", "SILENT: result of what cannot be meant", "SILENT: another result"
TAKEN, HANG, CRASH = "returned: a value that may be meant", "HANG", "CRASH"
GOOD = {REFUSED, EQUAL, TAKEN, SAID, EMPTY}
OURS = {"TrainingError", "MeasureError", "FileNotFoundError", "IsADirectoryError", "NotADirectoryError", "PermissionError"}


def flat(x: Any, depth: int = 0) -> Iterator[Any]:
    """The numbers and texts in a result, in order."""
    import numpy as np

    if depth > 20 or x is None or isinstance(x, str | bytes):
        yield str(x)
    elif type(x).__module__ == "torch" and hasattr(x, "detach"):
        yield x.detach().numpy()
    elif isinstance(x, np.ndarray | np.generic | int | float | complex):
        yield np.asarray(x)
    elif isinstance(x, numbers.Real):
        yield np.asarray(float(x))
    elif isinstance(x, dict):
        yield from flat([*x, *x.values()], depth + 1)
    elif isinstance(x, tuple | list):
        for y in x:
            yield from flat(y, depth + 1)
    elif dataclasses.is_dataclass(x) and not isinstance(x, type):
        yield from flat([getattr(x, f.name) for f in dataclasses.fields(x)], depth + 1)
    else:
        yield type(x).__name__


def same(x: Any, y: Any) -> bool:
    """Whether two results are the same to 1e-9 (sums may be taken in another order)."""
    import numpy as np

    one, two = list(flat(x)), list(flat(y))
    if len(one) != len(two):
        return False
    for a, b in zip(one, two, strict=True):
        if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
            if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) or a != b:
                return False
        elif a.dtype.kind in "fciub" and b.dtype.kind in "fciub":
            if a.shape != b.shape or not np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True):
                return False
        elif not np.array_equal(a, b):
            return False
    return True


def judged(function: Any, arguments: dict[str, Any], how: str, right: Any) -> tuple[str, str]:
    """What a call came to: its kind, and the words that go with it."""
    try:
        found = function(**arguments)
    except ValueError as error:
        text = " ".join(str(error).split())
        return (REFUSED if HOUSE.match(text) and len(text) < 400 else OTHERS_STYLE), text[:200]
    except BaseException as error:
        name = type(error).__name__
        return (SAID if name in OURS else f"error: {name}"), " ".join(str(error).split())[:200]
    if how == "same":
        return (EQUAL if right is None or same(found, right[0]) else DIFFERS), ""
    return (SILENT if how == "never" else TAKEN), ""


def permitted(name: str, argument: str, how: str, label: str) -> str:
    """How a value is to be taken where an argument's own meaning makes it a right one."""
    from _hostile_allowed import ALLOWED

    for names, arguments, labels in ALLOWED:
        if re.fullmatch(names, name) and re.fullmatch(arguments, argument) and re.search(labels, label):
            return "free"
    return how


def plan(every: int) -> Iterator[tuple[str, str, str, str, Any]]:
    """(name, argument, label, how, value) of every case, or of one in ``every``."""
    from _hostile_calls import SKIPPED, calls
    from _hostile_values import cases

    count = 0
    for name, (_, good) in calls().items():
        for argument, right in good.items():
            if (name, argument) in SKIPPED:
                continue
            count += ODD
            for i, (label, how, value) in enumerate(cases(argument, right)):
                if (count + i) % every == 0:
                    yield name, argument, label, permitted(name, argument, how, label), value


def work(every: int) -> None:
    """A worker: reads a name and a number of cases to leave out, a line a name; writes a line before and after each case."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is not an answer
    sys.path.insert(0, str(Path(__file__).parent))
    warnings.simplefilter("ignore")
    import resource

    import numpy as np
    from _hostile_calls import calls

    os.chdir(tempfile.mkdtemp(prefix="hostile"))  # where a text that is a path may lead
    resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
    np.seterr(all="ignore")
    table = calls()
    by_name: dict[str, list[Any]] = {}
    for case in plan(every):
        by_name.setdefault(case[0], []).append(case)
    out.write("ready\n")
    for line in sys.stdin:
        name, skip = json.loads(line)
        function, good = table[name]
        right: Any = None
        todo = by_name.get(name, [])[skip:]
        if any(case[3] == "same" for case in todo):
            first, again = function(**good), function(**good)
            right = (again,) if same(first, again) else None  # training goes on from where it was
        out.write("begun\n")
        for _, argument, label, how, value in todo:
            out.write(json.dumps([argument, label]) + "\n")
            out.write(json.dumps(judged(function, good | {argument: value}, how, right)) + "\n")
        out.write("done\n")


class Worker:
    """A process that answers a line at a time; what it does not answer in time, it is asked no further."""

    def __init__(self, every: int) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(every)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.held = b""
        if self.line(START) != "ready":
            raise RuntimeError("a worker did not start: run it by hand, --worker 1")

    def ask(self, text: str) -> None:
        """Write a line to the process."""
        assert self.process.stdin
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def line(self, seconds: float) -> str | None:
        """The next line; "" where the process ended, None where none came in time."""
        assert self.process.stdout
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.held:
                if not ready.select(seconds):
                    return None
                read = os.read(self.process.stdout.fileno(), 65536)
                if not read:
                    return ""
                self.held += read
        line, self.held = self.held.split(b"\n", 1)
        return line.decode()

    def end(self) -> None:
        """Kill and bury the process."""
        self.process.kill()
        self.process.communicate()


class Attack:
    """The names still to do, and what came of those done."""

    def __init__(self, names: list[str], every: int, seconds: float) -> None:
        self.todo, self.every, self.end = names[::-1], every, time.monotonic() + seconds
        self.found: list[tuple[str, str, str, str, str]] = []
        self.lock = threading.Lock()

    def play(self) -> None:
        """With one worker at a time, until nothing is left to do."""
        worker: Worker | None = None
        while name := self.next():
            skip = 0
            while True:
                worker = worker or Worker(self.every)
                worker.ask(json.dumps([name, skip]))
                lost, done = self.answers(worker, name)
                skip += done
                if lost:
                    worker.end()
                    worker = None
                if not lost or not done:
                    break
        if worker:
            worker.end()

    def next(self) -> str:
        """A name that nobody has begun; "" where there is none, or no time."""
        with self.lock:
            return self.todo.pop() if self.todo and time.monotonic() < self.end else ""

    def answers(self, worker: Worker, name: str) -> tuple[bool, int]:
        """Read what came of one name; returns whether the worker was lost, and after how many cases."""
        done, answer = 0, worker.line(START)
        if answer != "begun":
            self.add(name, "", "the right call", CRASH if answer == "" else HANG, str(answer))
            return True, 0
        while (answer := worker.line(LIMIT)) != "done":
            argument, label = json.loads(answer) if answer else ("", "between calls")
            answer = worker.line(LIMIT) if answer else answer
            kind, words = json.loads(answer) if answer else (HANG if answer is None else CRASH, "")
            if label == "one never initialised" and kind == "error: AttributeError":
                kind = EMPTY
            self.add(name, argument, label, kind, words)
            done += 1
            if not answer:
                return True, done
        return False, done

    def add(self, *what: str) -> None:
        with self.lock:
            self.found.append(what)  # type: ignore[arg-type]


def report(found: list[tuple[str, str, str, str, str]], show: int, left: int, seconds: float) -> int:
    """Print the table and what should not be; returns how many of those there are."""
    counts = Counter(kind for *_, kind, _ in found)
    print("| outcome | calls |\n|---|---|")
    for kind, n in counts.most_common():
        print(f"| {kind} | {n:,} |")
    names, arguments = {x[0] for x in found}, {x[:2] for x in found}
    more = f"; {left} functions were not begun" if left else ""
    print(f"\n{len(found):,} calls of {len(names)} functions, {len(arguments)} arguments, in {seconds:.0f} s{more}")
    bad = [x for x in found if x[3] not in GOOD]
    groups: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for name, argument, label, kind, words in bad:
        groups.setdefault((kind, name, argument), []).append((label, words))
    for (kind, name, argument), cases in sorted(groups.items())[:show]:
        print(f"{kind}: {name}({argument}): {len(cases)}: {'; '.join(x for x, _ in cases[:6])}: {cases[0][1]}")
    return len(bad)


def main() -> int:
    """Attack, print, and say by the status whether all ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"one case in {QUICK}")
    parser.add_argument("--every", type=int, default=1, help="one case in so many")
    parser.add_argument("--only", default="", help="functions whose name this regular expression finds")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further function after so many")
    parser.add_argument("--show", type=int, default=40, help="how many kinds of what should not be are printed")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        work(chosen.worker)
        return 0
    sys.path.insert(0, str(Path(__file__).parent))
    from _hostile_calls import calls, missing

    begun, every = time.monotonic(), QUICK if chosen.quick else chosen.every
    attack = Attack([n for n in calls() if re.search(chosen.only, n)], every, chosen.seconds)
    threads = [threading.Thread(target=attack.play) for _ in range(chosen.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bad = report(attack.found, chosen.show, len(attack.todo), time.monotonic() - begun)
    if missing():
        print(f"public, without a right call: {', '.join(sorted(missing()))}")
    return 1 if bad or missing() or attack.todo or not attack.found else 0


if __name__ == "__main__":
    raise SystemExit(main())
