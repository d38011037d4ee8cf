"""A result depends on (claim, rev, point, seed) alone: not on processes, chunks, order, or being killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toy
from mdpsim import MeasureError, Store, get_claim, per_seed, run, verify
from mdpsim.claims.chunk import measure_chunk
from mdpsim.claims.records import Memory
from mdpsim.claims.run import run_all
from mdpsim.registry import load_claims
from mdpsim.verify import estimate_costs, judge_all

TOY_FILE = Path(__file__).parent / "toy.py"
REAL = ("korbak2022/elbo-identity", "korbak2022/posterior-optimum", "tiapkin2023/reduction", "tiapkin2023/bc-sharp-mean")


DISTURBED = (str(TOY_FILE), "tiapkin2023/reduction")  # 360 slow trials and 200 quick ones


def command(store: Path, *targets: str, jobs: int = 2) -> list[str]:
    options = ["--preset", "smoke", "--jobs", str(jobs), "--store", str(store), "--json"]
    return [sys.executable, "-m", "mdpsim", "verify", *targets, *options]


def rows(path: Path) -> list[tuple[bytes, str]]:
    with Store(path, create=False) as store:
        return store.rows()


def test_one_process_or_two_same_rows(tmp_path: Path) -> None:
    for jobs in (1, 2):
        done = subprocess.run(command(tmp_path / f"{jobs}.db", *REAL, jobs=jobs), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "1.db")) > 500
    assert rows(tmp_path / "1.db") == rows(tmp_path / "2.db")


KILLER = """
import os, signal, sys
from pathlib import Path
from mdpsim import Store
from mdpsim.claims.run import run_all
from mdpsim.registry import select

if __name__ == "__main__":
    path, k = Path(sys.argv[1]), int(sys.argv[2])
    claims = select(sys.argv[3:])
    store, done = Store(path), 0

    def progress(chunk, seconds):
        global done
        done += len(chunk.trials)
        if done >= k:
            os.kill(os.getpid(), signal.SIGKILL)

    run_all(claims, preset="smoke", seed=0, sink=store, jobs=2, progress=progress)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[bytes, str]]:
    path = tmp_path_factory.mktemp("whole") / "s.db"
    subprocess.run(command(path, *DISTURBED), check=True, capture_output=True)
    return rows(path)


@pytest.mark.parametrize("k", sorted(random.Random(20261123).sample(range(1, 560), 10)))
def test_killed_at_k_and_started_again(tmp_path: Path, undisturbed: list[tuple[bytes, str]], k: int) -> None:
    """kill -9 when the store holds k of its 560 records: none of them is lost, and the second run ends as one run would."""
    path, script = tmp_path / "s.db", tmp_path / "killer.py"
    script.write_text(KILLER)
    killed = subprocess.run([sys.executable, str(script), str(path), str(k), *DISTURBED], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    held = rows(path)
    assert k <= len(held) <= len(undisturbed) == 560
    assert set(held) <= set(undisturbed)
    subprocess.run(command(path, *DISTURBED), check=True, capture_output=True)
    assert rows(path) == undisturbed


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path / "s.db", str(TOY_FILE)), stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ((tmp_path / "s.db").exists() and rows(tmp_path / "s.db")):
        time.sleep(0.02)
    process.kill()
    process.wait()
    while time.monotonic() < deadline and _session(process.pid):
        time.sleep(0.05)
    assert _session(process.pid) == []


def _session(leader: int) -> list[int]:
    """Living processes of a session (a process table as Linux shows it)."""
    found = []
    for entry in Path("/proc").iterdir() if Path("/proc/self/stat").exists() else []:
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if fields and fields[3] == str(leader) and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def test_interrupt_exits_130_and_keeps_what_is_done(tmp_path: Path, undisturbed: list[tuple[bytes, str]]) -> None:
    path = tmp_path / "s.db"
    process = subprocess.Popen(
        command(path, str(TOY_FILE)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background may ignore it
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (path.exists() and rows(path)):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert 0 < len(rows(path)) < len(undisturbed)
    assert set(rows(path)) <= set(undisturbed)


@per_seed
def suicidal(point, rng):
    """Kills its worker process once: the marker file says whether it has."""
    marker = Path(os.environ["MDPSIM_TEST_MARKER"])
    if multiprocessing.parent_process() is not None and not marker.exists():
        marker.write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": rng.random(), "bound": 1.0, "half_bound": 0.1}


def test_a_killed_worker_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Environment variables reach workers through the fork server only if it starts after they are set: use a fresh one.
    script = tmp_path / "main.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(TOY_FILE.parent)!r})\n"
        "from dataclasses import replace\n"
        "import test_run, toy\n"
        "from mdpsim import run\n"
        "if __name__ == '__main__':\n"
        "    claim = replace(toy.coins, measure=test_run.suicidal)\n"
        "    records = run(claim, preset='quick', jobs=2)\n"
        "    print(sum(len(c['value']) for c in records.arms['claim'].values()))\n"
    )
    monkeypatch.setenv("MDPSIM_TEST_MARKER", str(tmp_path / "marker"))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "600", done.stderr
    assert (tmp_path / "marker").exists()


def test_a_second_run_measures_nothing(tmp_path: Path) -> None:
    claim = get_claim("korbak2022/elbo-identity")
    with Store(tmp_path / "s.db") as store:
        first = run(claim, preset="smoke", store=store)
        again: list[object] = []
        run_all([claim], preset="smoke", seed=0, sink=store, progress=lambda chunk, seconds: again.append(chunk))
        assert again == []
        assert store.records(claim, "smoke", 0).arms.keys() == first.arms.keys()


def test_another_seed_gives_other_numbers() -> None:
    point = toy.GRID["quick"][0]
    one, two = (run(toy.coins, preset="quick", seed=k).arms["claim"][point]["value"] for k in (0, 1))
    assert not np.array_equal(one, two)


def fails(point, keys):
    raise ZeroDivisionError("on purpose")


def wrong_length(point, keys):
    return {"value": np.zeros(len(keys) + 1)}


def not_a_number(point, keys):
    return {"value": np.full(len(keys), np.nan)}


def nothing(point, keys):
    return {}


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (fails, "ZeroDivisionError: on purpose"), (wrong_length, "column 'value' must have 1 rows, one a trial; got shape"),
        (not_a_number, "column 'value' holds a NaN"), (nothing, "returned no columns"),
    ],
)
def test_a_broken_measure_is_named(measure, message) -> None:
    with pytest.raises(MeasureError, match="toy/coins, arm claim, at ") as error:
        run(replace(toy.coins, measure=measure), preset="quick")
    assert message in str(error.value)


def test_measure_chunk_times_what_it_measures() -> None:
    measured = measure_chunk(toy.measure, toy.GRID["smoke"][0], [1, 2, 3], "label")
    assert len(measured.columns["value"]) == 3
    assert (measured.kept, measured.failures) == ((0, 1, 2), ())
    assert measured.seconds > 0


def test_a_claims_file_runs_in_workers_through_the_library_too() -> None:
    (claim,) = load_claims(TOY_FILE)
    assert len(run(claim, preset="quick", jobs=2).arms["claim"]) == 6


BAD = [{"jobs": 0}, {"seed": -1}, {"seed": 2**63}, {"jobs": 1.5}, {"preset": "qick"}, {"store": "s.db"}]


@pytest.mark.parametrize("bad", BAD)
def test_run_guards(bad) -> None:
    with pytest.raises(ValueError, match=r"must .*; got "):
        run(toy.coins, **bad)


def test_memory_and_store_agree(tmp_path: Path) -> None:
    (claim,) = load_claims(TOY_FILE)
    memory = Memory()
    run_all([claim], preset="quick", seed=0, sink=memory)
    with Store(tmp_path / "s.db") as store:
        run_all([claim], preset="quick", seed=0, sink=store)
        kept, forgotten = store.records(claim, "quick", 0), memory.records(claim, "quick", 0)
    for point, columns in kept.arms["claim"].items():
        for name, values in columns.items():
            assert np.array_equal(values, forgotten.arms["claim"][point][name])


def test_a_budget_ends_a_run_and_the_next_goes_on(tmp_path: Path, undisturbed: list[tuple[bytes, str]]) -> None:
    """What was begun is kept, nothing else is begun; further budgets, then none, end as one run would."""
    path, held, budget = tmp_path / "s.db", [0], 0.1
    while not held[-1] or len(held) < 4:  # a slow machine may begin nothing in the first tenth of a second
        limited = [*command(path, *DISTURBED), "--budget", f"{budget:g}"]
        done = subprocess.run(limited, capture_output=True, text=True, check=True)
        assert f"budget of {budget:g} s spent" in done.stderr
        assert '"status": "inconclusive"' in done.stdout
        held.append(len(rows(path)))
        budget *= 1 if held[-1] else 2
    assert held == sorted(held)
    assert held[-1] < len(undisturbed)
    subprocess.run(command(path, *DISTURBED), check=True, capture_output=True)
    assert rows(path) == undisturbed


def test_a_spent_budget_measures_nothing_and_is_judged() -> None:
    claim = load_claims(TOY_FILE)[0]
    verdict = verify(claim, preset="smoke", budget=1e-3, jobs=1)
    assert verdict.status == "inconclusive"
    assert verdict.n_trials < 360
    for bad in (0, -1.0, float("nan"), "60"):
        with pytest.raises(ValueError, match="run: budget must be a number in"):
            verify(claim, preset="smoke", budget=bad)


def test_a_claim_that_lacks_an_extra_is_not_run_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = replace(load_claims(TOY_FILE)[0], needs=("lm",))
    monkeypatch.setattr("mdpsim.versions.find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(ValueError, match=r"run: toy/coins must have what its measure imports; got needs \[lm\]: pip install"):
        run(claim, preset="smoke")
    with Store(":memory:") as store:
        (judged,) = judge_all([claim], preset="smoke", seed=0, store=store)
    assert judged.verdict.status == "inconclusive"
    assert "needs [lm]: pip install 'mdpsim[lm]'" in judged.verdict.notes
    monkeypatch.undo()
    with pytest.raises(ValueError, match="Claim toy/coins: needs must be a tuple of extras among lm, hf"):
        replace(claim, needs=("nothing",))


def test_costs_are_what_was_measured_and_scale_with_the_plan() -> None:
    claim = load_claims(TOY_FILE)[0]
    with Store(":memory:") as store:
        assert estimate_costs(claim, store).estimates == {"smoke": None, "quick": None}
        records = run(claim, preset="smoke", store=store)
        costs = estimate_costs(claim, store)
    assert costs.trials == 360
    assert costs.seconds == pytest.approx(records.seconds)
    assert costs.seconds > 360 * 0.002  # every trial sleeps 2 ms
    assert costs.estimates["smoke"] == pytest.approx(costs.seconds)
    assert costs.estimates["quick"] == pytest.approx(600 / 360 * costs.seconds)  # points never measured: the arm's mean


def test_points_never_measured_cost_what_their_arm_does() -> None:
    claim = get_claim("tiapkin2023/bc-rate")

    class Told:
        def costs(self, claim):
            return {("claim", "a point of another preset"): (10, 1.0), ("noisy-demonstrations", "another"): (10, 3.0)}

    costs = estimate_costs(claim, Told())
    plan = claim.plan("quick")
    expected = 0.1 * sum(plan["claim"].values()) + 0.3 * sum(plan["noisy-demonstrations"].values())
    assert costs.estimates["quick"] == pytest.approx(expected)
    assert (costs.trials, costs.seconds) == (20, 4.0)
