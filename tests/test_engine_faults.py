"""A trial that raises, a measure that hangs, a worker that dies, a signal: each is named, and costs the others nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toy
from mdpsim import MeasureError, Point, Store, geometric, judge, per_seed, run, verify
from mdpsim.claims import pool
from mdpsim.claims.chunk import measure_chunk
from mdpsim.claims.run import run_all
from mdpsim.registry import load_claims

POINT = toy.GRID["quick"][0]
CLAIMS = '''
import os, sys, time
sys.path.insert(0, {tests!r})
from dataclasses import replace
import toy
from mdpsim import per_seed

BAD = toy.coins.trial_key(toy.GRID["quick"][0], 0, 37)

def broken(point, keys):
    """The toy's measure, but for one trial."""
    if BAD in keys:
        {what}
    return toy.measure(point, keys)

bad = replace(toy.coins, id="toy/coins", measure=broken)
good = replace(toy.coins, id="toy/good")
'''


def claims_file(folder: Path, what: str) -> Path:
    path = folder / "claims.py"
    path.write_text(CLAIMS.format(tests=str(Path(__file__).parent), what=what))
    return path


def verified(path: Path, *options: str, **more) -> tuple[subprocess.CompletedProcess[str], dict[str, dict]]:
    command = [sys.executable, "-m", "mdpsim", "verify", str(path), "--preset", "quick", "--store", f"{path}.db", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300, check=False, **more)
    return done, {found["claim"]: found for found in map(json.loads, done.stdout.splitlines())}


# --- a trial that raises -------------------------------------------------------------------------------------------------


@per_seed
def sometimes(point, rng):
    """A uniform number; NaN for one in fifty."""
    x = rng.random()
    return {"value": float("nan") if x < 0.02 else x, "bound": 1.0, "half_bound": 0.1}


@per_seed
def raising(point, rng):
    """The same, but raises there."""
    x = rng.random()
    if x < 0.02:
        raise ZeroDivisionError("on purpose")
    return {"value": x, "bound": 1.0, "half_bound": 0.1}


@pytest.mark.parametrize(
    ("measure", "why"), [(sometimes, "column 'value' holds a NaN"), (raising, "ZeroDivisionError: on purpose")],
)
def test_a_trial_that_fails_is_named_and_the_others_of_its_chunk_kept(measure, why) -> None:
    claim = replace(toy.coins, measure=measure, twins=toy.coins.twins)
    keys = [claim.trial_key(POINT, 0, i) for i in range(100)]
    x = [np.random.Generator(np.random.PCG64(k)).random() for k in keys]
    bad = [i for i in range(100) if x[i] < 0.02]
    assert 0 < len(bad) < 10
    measured = measure_chunk(measure, POINT, keys, "label")
    assert [j for j, _ in measured.failures] == bad
    assert all(why in text for _, text in measured.failures)
    assert measured.kept == tuple(i for i in range(100) if i not in bad)
    np.testing.assert_array_equal(measured.columns["value"], [x[i] for i in measured.kept])
    if measure is raising:
        assert f"({__file__}, line " in measured.failures[0][1]
    with pytest.raises(MeasureError, match=rf"toy/coins, arm claim, at \({POINT}\), trial {bad[0]}: {why}.*\(seed 0; "):
        run(claim, preset="quick")
    records = run(claim, preset="quick", keep_going=True)
    verdict = judge(claim, records)
    assert verdict.status == "inconclusive"
    assert any("of 600 trials present" in note for note in verdict.notes)
    held = records.arms["claim"][POINT]["value"]
    assert set(held) <= {x[i] for i in measured.kept}  # trials that other points lack are left out here too: they are paired
    assert len(held) >= 85


def test_left_out_trials_are_told(tmp_path: Path) -> None:
    done, found = verified(claims_file(tmp_path, "raise ValueError('unlucky')"), "--jobs", "1")
    assert done.returncode == 2
    assert list(found) == ["toy/good"]
    trial = f"toy/coins, arm claim, at ({POINT}), trial 37"
    assert f"{trial}: ValueError: unlucky ({tmp_path / 'claims.py'}, line 13)" in done.stderr
    done, found = verified(tmp_path / "claims.py", "--jobs", "2", "--keep-going")
    assert done.returncode == 0
    assert f"left out: {trial} of seed 0: ValueError: unlucky" in done.stderr
    assert found["toy/coins"]["status"] == "inconclusive"
    assert found["toy/coins"]["n_trials"] == 594  # of six points, whose trials are paired
    assert found["toy/good"]["status"] == "supported"


def test_integers_that_float64_rounds_are_refused() -> None:
    with pytest.raises(MeasureError, match="convert to float64 without loss"):
        measure_chunk(lambda point, keys: {"value": np.array([2**53 + 1])}, POINT, [1], "label")
    with pytest.raises(MeasureError, match="must return columns"):
        measure_chunk(lambda point, keys: 0.5, POINT, [1], "label")


# --- what hangs, what dies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_hung_measure_is_named_and_the_rest_goes_on(tmp_path: Path, jobs: str) -> None:
    done, found = verified(claims_file(tmp_path, "time.sleep(10_000)"), "--jobs", jobs, "--timeout", "4")
    assert done.returncode == 2
    assert "toy/coins, arm claim" in done.stderr
    assert "did not end within 4 s" in done.stderr
    assert found["toy/good"]["status"] == "supported"
    assert list(found) == ["toy/good"]


def test_a_budget_holds_though_a_measure_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdpsim.claims.run.GRACE", 2.0)
    bad = load_claims(claims_file(tmp_path, "time.sleep(10_000)"))
    start = time.monotonic()
    with Store(":memory:") as store:
        with pytest.raises(MeasureError, match="did not end within 2 s after the budget was spent") as error:
            run_all(bad, preset="quick", seed=0, sink=store, jobs=2, budget=3.0)
        assert error.value.claims == ("toy/coins",)
        assert store.held()
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("what", ["os._exit(3)", "os.kill(os.getpid(), 11)"])
def test_a_worker_that_dies_costs_no_other_claim_its_verdict(tmp_path: Path, what: str) -> None:
    done, found = verified(claims_file(tmp_path, what), "--jobs", "2")
    assert done.returncode == 2
    assert "toy/coins, arm claim" in done.stderr
    assert "its worker process died 3 times" in done.stderr
    assert found["toy/good"]["status"] == "supported"


@pytest.mark.parametrize("error", [OSError("handle is closed"), RuntimeError("changed size"), ConnectionRefusedError()])
def test_a_pool_that_cannot_take_work_is_rebuilt(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """What a dying pool raises on Python 3.11, at the third chunk."""
    submit, calls = pool.Pool.submit, [0]

    def sick(self, *args, **more):
        calls[0] += 1
        if calls[0] == 3:
            raise error
        return submit(self, *args, **more)

    monkeypatch.setattr(pool.Pool, "submit", sick)
    (claim,) = load_claims(toy.__file__)
    slow = tuple(Point(p, pause=20) for p in claim.grid["quick"])  # so that others wait in the pool that is replaced
    claim = replace(claim, grid=claim.grid | {"quick": slow})
    assert verify(claim, preset="quick", jobs=2).status == "supported"
    assert calls[0] > 3


def test_workers_that_have_grown_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    rebuild, calls = pool.Pool.rebuild, [0]

    def counted(self):
        calls[0] += 1
        rebuild(self)

    monkeypatch.setattr(pool.Pool, "rebuild", counted)
    monkeypatch.setattr(pool, "largest", lambda jobs: 1 if calls[0] < 2 else 2**60)
    (claim,) = load_claims(toy.__file__)
    assert verify(claim, preset="quick", jobs=2).status == "supported"
    assert calls[0] == 2


# --- signals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_signals_end_a_run_with_what_is_finished(tmp_path: Path, number: int, jobs: str) -> None:
    path, temporary = claims_file(tmp_path, "time.sleep(0.2)"), Path(tempfile.mkdtemp(prefix="md"))  # short: sockets lie in it
    path.write_text(path.read_text().replace("if BAD in keys:", "if True:"))  # every chunk takes a while
    command = [sys.executable, "-m", "mdpsim", "verify", str(path), "--preset", "quick", "--store", f"{path}.db"]
    process = subprocess.Popen(
        [*command, "--jobs", jobs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGHUP)]
        + [signal.signal(signal.SIGINT, signal.default_int_handler)],
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (Path(f"{path}.db").exists() and held(path)):
        time.sleep(0.1)
    before = held(path)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "the same command goes on from here" in told
    assert 0 < before <= held(path) < 1200
    assert list(temporary.iterdir()) == []
    temporary.rmdir()


def held(path: Path) -> int:
    """Records in the store of a claims file, 0 while it is being made."""
    try:
        with Store(f"{path}.db", writable=False) as store:
            return len(store.rows())
    except ValueError:
        return 0


# --- whose code runs ------------------------------------------------------------------------------------------------------


def test_workers_do_not_import_from_the_current_directory(tmp_path: Path, root: Path) -> None:
    trap = f"open({str(tmp_path / 'sprung')!r}, 'w').close()\nraise ImportError('not ours')\n"
    for name in ("scipy", "json", "torch", "numba", "toy_data"):
        (tmp_path / f"{name}.py").write_text(trap)
    code = f"import sys; sys.path[:] = [{str(root)!r}] + [p for p in sys.path if p]; from mdpsim.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "verify", toy.__file__, "--preset", "quick", "--jobs", "2", "--store", "s.db"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "supported" in done.stdout
    assert not (tmp_path / "sprung").exists()


# --- numbers of numpy's ----------------------------------------------------------------------------------------------------


def test_numpys_integers_are_integers(tmp_path: Path) -> None:
    claim = replace(load_claims(toy.__file__)[0], rev=np.int64(2))
    assert type(claim.rev) is int
    with Store(tmp_path / "s.db") as store:
        assert verify(claim, preset="quick", seed=np.int64(3), store=store, jobs=np.int64(1)).seed == 3
        run_all([claim], preset="quick", seed=np.int32(3), sink=store)
        assert run(claim, preset="quick", seed=np.uint8(3), store=store).seed == 3
        assert store.held() == [("toy/coins", 3, 600)]
    assert Point(n=np.int64(3), x=np.float64(0.5)) == Point(n=3, x=0.5)
    assert geometric(np.int64(10), np.int64(1000), 3) == (10, 100, 1000)
    assert all(type(x) is int for x in geometric(np.int64(10), np.int64(1000), np.int64(3)))
    for bad in ("10", None, [1]):
        with pytest.raises(ValueError, match="^geometric: low must be"):
            geometric(bad, 1000, 3)
