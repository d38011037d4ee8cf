"""Ctrl-C while trials run: what is under way is finished and kept, a second one ends at once, nothing finished is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import toy
from mdpsim import Store, run
from mdpsim.claims.interrupt import Interrupts
from mdpsim.claims.records import Memory
from mdpsim.claims.run import run_all

SLOW = """
import os, sys, time
sys.path.insert(0, {folder!r})
from dataclasses import replace
import toy
from mdpsim import per_seed

def tell(*words):
    with open({log!r}, "a") as log:
        print(*words, file=log)

@per_seed
def slow(point, rng):
    value = rng.random()
    tell("begun", value)
    time.sleep({seconds} if sum(1 for _ in open({log!r})) > 4 else 0)
    tell("ended", value)
    return {{"value": value, "bound": 1.0, "half_bound": 0.1}}

claim = replace(toy.coins, id="toy/slow", measure=slow)
"""


class Running:
    """``mdpsim verify`` of a claim whose trials tell a log when they begin and end; the third takes some seconds."""

    def __init__(self, folder: Path, jobs: int, seconds: float) -> None:
        self.log, self.store = folder / "log", folder / "s.db"
        file = folder / "slow.py"
        file.write_text(SLOW.format(folder=str(Path(__file__).parent), log=str(self.log), seconds=seconds))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mdpsim", "verify", str(file), "--preset", "quick", "--jobs", str(jobs), "--store",
             str(self.store), "--json"],
            stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background may ignore it
        )

    def values(self, word: str) -> set[float]:
        """The trials that have begun, or ended."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return {float(line.split()[1]) for line in lines if line.startswith(word) and line.count(" ") == 1}

    def wait_for_a_trial_under_way(self) -> None:
        """Two have ended, at least one is stored, another has begun."""
        deadline = time.monotonic() + 120
        ended: set[float] = set()
        while len(ended) < 2 or not ended < self.values("begun") or not (self.store.exists() and self.kept()):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
            ended = self.values("ended")

    def interrupt(self) -> None:
        """What a terminal does: every process of the group gets the signal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kept(self) -> set[float]:
        with Store(self.store, create=False) as store:
            found = [row[1] for row in store.rows()]
        return {json.loads(values)["value"] for values in found}


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_under_way_is_finished_and_kept(tmp_path: Path, jobs: int) -> None:
    running = Running(tmp_path, jobs, 1.0)
    running.wait_for_a_trial_under_way()
    running.interrupt()
    out, err = running.process.communicate(timeout=120)
    assert running.process.returncode == 130, err
    assert running.values("begun") == running.values("ended") == running.kept()
    assert len(running.kept()) > 2, "the one that was under way is among them"
    assert out == ""
    assert err.count("Ctrl-C again ends at once") == 1
    assert err.count("the same command goes on from here") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_second_one_ends_at_once_and_loses_nothing_finished(tmp_path: Path, jobs: int) -> None:
    """A measure that would take an hour: its chunk is given up, the chunks before it are kept."""
    running = Running(tmp_path, jobs, 3600.0)
    running.wait_for_a_trial_under_way()
    running.interrupt()
    assert running.process.stderr is not None
    line = running.process.stderr.readline()
    while "Ctrl-C again" not in line:
        assert line, "it ended"
        line = running.process.stderr.readline()
    assert running.process.poll() is None
    before = running.kept()
    running.interrupt()
    _, err = running.process.communicate(timeout=120)
    assert running.process.returncode == 130, err
    assert set() < before <= running.kept() <= running.values("ended")
    assert "the same command goes on from here" in err
    assert "Traceback" not in err


class Told(Memory):
    """A sink that counts its chunks, and raises signals while it adds one."""

    def __init__(self, signals: int) -> None:
        super().__init__()
        self.signals, self.chunks = signals, 0

    def add(self, *chunk: Any) -> None:
        for _ in range(self.signals):
            signal.raise_signal(signal.SIGINT)
        super().add(*chunk)
        self.chunks += 1


@pytest.fixture
def default_handler() -> Any:
    """A suite in the background may ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def go(sink: Memory, measure: Callable[..., Any] = toy.measure) -> None:
    run_all([replace(toy.coins, measure=measure)], preset="quick", seed=0, sink=sink)


@pytest.mark.parametrize("signals", [1, 2, 3])
def test_a_write_ends_before_anything_is_raised(default_handler: None, signals: int) -> None:
    sink = Told(signals)
    with pytest.raises(KeyboardInterrupt):
        go(sink)
    assert sink.chunks == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def interrupted(point: Any, keys: Any) -> Any:
    signal.raise_signal(signal.SIGINT)
    return toy.measure(point, keys)


def test_verify_of_the_library_raises_when_the_chunk_is_stored(default_handler: None, tmp_path: Path) -> None:
    """One trial, and the same store gets the others at the next call."""
    with Store(tmp_path / "s.db") as store:
        with pytest.raises(KeyboardInterrupt):
            run(replace(toy.coins, measure=interrupted), preset="quick", store=store)
        assert store.held() == [(toy.coins.id, 0, 1)]
        whole = run(toy.coins, preset="quick", store=store).arms
        fresh = run(toy.coins, preset="quick").arms
    assert all((whole[arm][p]["value"] == c["value"]).all() for arm in fresh for p, c in fresh[arm].items())


def test_a_signal_when_all_is_done_is_not_swallowed(default_handler: None) -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_errors_pass_and_the_handler_goes_back(default_handler: None) -> None:
    with pytest.raises(ZeroDivisionError), Interrupts():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None], ids=["ignored", "handled"])
def test_what_somebody_else_does_with_the_signal_stays(default_handler: None, handler: Any) -> None:
    signal.signal(signal.SIGINT, handler)
    sink = Told(1)
    go(sink)
    assert sink.chunks > 1
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_leave_the_signal_alone(default_handler: None) -> None:
    sink, seen = Told(0), []
    thread = threading.Thread(target=lambda: (go(sink), seen.append(signal.getsignal(signal.SIGINT))))
    thread.start()
    thread.join()
    assert sink.chunks > 1
    assert seen == [signal.default_int_handler]


STARTING = """
import os, signal
from mdpsim.claims.pool import Pool

if __name__ == "__main__":
    noted = []
    signal.signal(signal.SIGINT, lambda number, frame: noted.append(number))
    with Pool(2) as pool:
        os.killpg(0, signal.SIGINT)  # the fork server has begun, and imports
        print(pool.executor.submit(abs, -3).result(), len(noted))
"""


def test_ctrl_c_while_the_workers_start_does_not_end_them(tmp_path: Path, root: Path) -> None:
    """The fork server died of it, and the run ended with an EOFError."""
    (tmp_path / "starting.py").write_text(STARTING)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "starting.py")], env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True,
        text=True, check=False, start_new_session=True, timeout=120,
    )
    assert done.stdout.split() == ["3", "1"], done.stderr
