"""Where claims are computed: the device is in a record's key and never in its draws, and torch is asked only when it matters.

The toy needs no torch. Where a GPU is wanted, the resolver says that there is one: the toy computes on the CPU all the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toy
import toy_device
from conftest import Finished
from mdpsim import Claim, Point, Store, product, run, verify
from mdpsim.claims.claim import DEVICE_AXES
from mdpsim.claims.device import depends_on_device, devices_of, moved, on_device, side_by_side
from mdpsim.store import record_key
from mdpsim.verify import held_device, judge_held

Command = Callable[..., Finished]
CLAIM, PLAIN = toy_device.claim, toy.coins
FILE, PLAIN_FILE = toy_device.__file__, toy.__file__


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a CUDA device, as far as claims can tell."""
    monkeypatch.setattr("mdpsim.claims.device._resolve", lambda name: "cuda" if name == "auto" else name)


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where torch is not installed."""
    monkeypatch.setattr("mdpsim.versions.find_spec", lambda name: None if name == "torch" else object())


def all_points(claim: Claim) -> Iterator[Point]:
    for grid in (claim.grid, *(t.grid for t in claim.twins if t.grid)):
        for points in grid.values():
            yield from points


# --- claims ----------------------------------------------------------------------------------------------------------


def test_a_claim_is_moved_with_its_twins_and_back() -> None:
    there = moved(CLAIM, "cuda")
    assert {p["device"] for p in all_points(there)} == {"cuda"}
    assert [p.without("device") for p in all_points(there)] == [p.without("device") for p in all_points(CLAIM)]
    assert len(list(all_points(there))) == 11
    assert (there.id, there.rev, there.measure, there.rule, there.seeds) == (
        CLAIM.id, CLAIM.rev, CLAIM.measure, CLAIM.rule, CLAIM.seeds
    )
    assert moved(there, "cpu") == CLAIM
    assert moved(CLAIM, "cpu") is CLAIM
    assert (devices_of(CLAIM), devices_of(there), devices_of(PLAIN)) == (("cpu",), ("cuda",), ("cpu",))


def test_a_claim_without_the_axis_stays_as_it_is() -> None:
    assert depends_on_device(CLAIM)
    assert not depends_on_device(PLAIN)
    assert moved(PLAIN, "cuda") is PLAIN
    only_twin = replace(
        PLAIN, twins=(replace(PLAIN.twins[0], grid={p: product(n=(9,), device=("cpu",)) for p in PLAIN.grid}),)
    )
    assert depends_on_device(only_twin)
    assert moved(only_twin, "cuda").grid == PLAIN.grid
    assert devices_of(moved(only_twin, "cuda")) == ("cpu", "cuda")
    bare = replace(CLAIM, grid={"smoke": product(family=("a",), dtype=("float32",))}, twins=CLAIM.twins[1:])
    assert not depends_on_device(bare)


@pytest.mark.parametrize("draws", [None, ("family",), ()])
def test_device_and_dtype_are_in_the_records_key_and_not_in_the_draws(draws: tuple[str, ...] | None) -> None:
    claim = replace(CLAIM, draws=draws)
    point = claim.grid["smoke"][0]
    elsewhere = [Point(point, device="cuda"), Point(point, dtype="float32"), Point(point, device="cuda", dtype="bfloat16")]
    assert {claim.trial_key(p, 3, 7) for p in elsewhere} == {claim.trial_key(point, 3, 7)}
    assert len({record_key(claim, "claim", p, 3, 7) for p in (point, *elsewhere)}) == 4
    other = Point(point, family="z")
    assert (claim.trial_key(other, 3, 7) == claim.trial_key(point, 3, 7)) == (draws == ())
    assert claim.trial_key(point.without(*DEVICE_AXES), 3, 7) == claim.trial_key(point, 3, 7)


@pytest.mark.parametrize("axis", DEVICE_AXES)
def test_draws_that_name_the_device_are_refused(axis: str) -> None:
    with pytest.raises(ValueError, match=f"Claim toy/devices: draws must leave out device and dtype.*got {axis}"):
        replace(CLAIM, draws=("family", axis))


def test_both_devices_measure_the_same_draws() -> None:
    here, there = run(CLAIM, preset="smoke"), run(moved(CLAIM, "cuda"), preset="smoke")
    for point, columns in here.arms["claim"].items():
        other = there.arms["claim"][Point(point, device="cuda")]
        np.testing.assert_array_equal(columns["value"], other["value"])
        assert (columns["on_cuda"].max(), other["on_cuda"].min()) == (0, 1)


# --- what a name means here ------------------------------------------------------------------------------------------


def test_without_torch_there_is_the_cpu(no_torch: None) -> None:
    assert on_device(CLAIM, "auto") is CLAIM
    assert on_device(moved(CLAIM, "cuda"), "cpu") == CLAIM
    missing = r"on_device: device must be cpu or auto where torch is not installed; got 'cuda', which needs \[lm\]: pip install"
    with pytest.raises(ValueError, match=missing):
        on_device(CLAIM, "cuda")
    assert on_device(PLAIN, "cuda") is PLAIN


def test_with_torch_the_resolver_decides() -> None:
    torch = pytest.importorskip("torch", reason="needs torch (extra [lm])")
    if torch.cuda.is_available():
        assert devices_of(on_device(CLAIM, "auto")) == devices_of(on_device(CLAIM, "cuda")) == ("cuda",)
        return
    assert on_device(CLAIM, "auto") is CLAIM
    with pytest.raises(ValueError, match=r"resolve_device: device must .*here: cpu"):
        on_device(CLAIM, "cuda")


def test_torch_is_not_loaded_where_nothing_depends_on_it(tmp_path: Path) -> None:
    """Not for claims without the axis on any device, and not for the CPU."""
    code = (
        "import sys\nfrom mdpsim.cli import main\n"
        f"for args in ({PLAIN_FILE!r}, '--device', 'cuda'), ({FILE!r}, '--device', 'cpu'):\n"
        "    sys.argv = ['mdpsim', 'verify', *args, '--preset', 'smoke', '--jobs', '1']\n"
        "    try:\n        main()\n    except SystemExit as end:\n        assert not end.code, end.code\n"
        "    assert 'torch' not in sys.modules, args\n"
    )
    path = os.pathsep.join([str(Path(FILE).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("supported") == 2
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["gpu", "cuda:0", "", None])
def test_unknown_devices_are_named(name: str | None) -> None:
    wanted = "device must be one of auto, cpu, cuda; got "
    for claim in (CLAIM, PLAIN):
        with pytest.raises(ValueError, match=f"on_device: {wanted}"):
            on_device(claim, name)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"verify: {wanted}"):
            verify(claim, preset="smoke", device=name)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="moved: device must be one of cpu, cuda; got "):
            moved(claim, name)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="moved: device must be one of cpu, cuda; got 'auto'"):
        moved(CLAIM, "auto")


# --- verify, judge, report, cite -------------------------------------------------------------------------------------


def test_verify_runs_on_the_device(gpu: None) -> None:
    with Store(":memory:") as store:
        found = {name: verify(CLAIM, preset="smoke", store=store, device=name) for name in ("cpu", "cuda", "auto")}
        assert store.held() == [(CLAIM.id, 0, 2 * 400)]  # auto is cuda here, and had nothing to run
        assert store.records(moved(CLAIM, "cuda"), "smoke", 0).arms["claim"].keys() == set(moved(CLAIM, "cuda").grid["smoke"])
    assert {p.point["device"] for p in found["cpu"].points} == {"cpu"}
    assert {p.point["device"] for v in (found["cuda"], found["auto"]) for p in v.points} == {"cuda"}
    assert [found[name].estimate for name in ("cuda", "auto")] == [found["cpu"].estimate] * 2
    assert {(v.status, v.twin_status) for v in found.values()} == {("supported", "rejected")}


def test_the_command_line_runs_on_the_device(gpu: None, mdpsim_command: Command) -> None:
    done = mdpsim_command("verify", FILE, PLAIN_FILE, "--preset", "smoke", "--device", "cuda", "--json", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    device, plain = (json.loads(line) for line in done.stdout.splitlines())
    assert {(p["point"]["device"], p["point"]["dtype"]) for p in device["points"]} == {("cuda", "float64")}
    assert not any(set(DEVICE_AXES) & set(p["point"]) for p in plain["points"])


@pytest.mark.parametrize(
    ("command", "device", "message"),
    [("verify", "gpu", "verify: --device must be one of auto, cpu, cuda; got 'gpu'"),
     ("judge", "auto", "judge: --device must be one of cpu, cuda; got 'auto'"),
     ("report", "gpu", "judge: --device must be one of cpu, cuda; got 'gpu'"),
     ("cite", "gpu", "judge: --device must be one of cpu, cuda; got 'gpu'")],
)
def test_a_bad_device_is_bad_usage(mdpsim_command: Command, tmp_path: Path, command: str, device: str, message: str) -> None:
    done = mdpsim_command(command, PLAIN_FILE, "--device", device)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert not (tmp_path / ".mdpsim").exists()


def test_a_device_that_is_not_there_stops_before_anything_runs(no_torch: None, mdpsim_command: Command, tmp_path: Path) -> None:
    done = mdpsim_command("verify", PLAIN_FILE, FILE, "--preset", "smoke", "--device", "cuda")
    assert (done.returncode, done.stdout) == (2, "")
    assert "torch is not installed" in done.stderr
    assert not (tmp_path / ".mdpsim").exists()


def fill(store: Store, device: str, preset: str, *, seed: int = 0) -> None:
    run(moved(CLAIM, device), preset=preset, seed=seed, store=store)


def test_a_store_is_judged_on_the_device_of_its_larger_preset() -> None:
    with Store(":memory:") as store:
        assert held_device(CLAIM, 0, store) == "cpu"
        point = Point(CLAIM.grid["quick"][0], device="cuda")
        store.add(CLAIM, "claim", point, 0, range(150), {"value": np.zeros(150)}, 0.0)
        assert held_device(CLAIM, 0, store) == "cuda"  # some trials of quick, against none
        fill(store, "cpu", "smoke")
        assert held_device(CLAIM, 0, store) == "cpu"
        assert held_device(CLAIM, 0, store, "quick") == "cuda"
        assert held_device(moved(CLAIM, "cuda"), 0, store) == "cpu"
        fill(store, "cuda", "smoke")
        assert held_device(CLAIM, 0, store) == "cpu"
        fill(store, "cuda", "quick", seed=1)
        assert held_device(CLAIM, 0, store) == "cpu"
        assert held_device(CLAIM, 1, store) == "cuda"
    with Store(":memory:") as store:
        fill(store, "cpu", "smoke")
        fill(store, "cuda", "quick")
        best = judge_held(CLAIM, seed=0, store=store)
        assert (devices_of(best.claim), best.verdict.preset, best.verdict.status) == (("cuda",), "quick", "supported")
        named = judge_held(CLAIM, seed=0, store=store, device="cpu")
        assert (devices_of(named.claim), named.verdict.preset, named.verdict.status) == (("cpu",), "smoke", "supported")
        none = judge_held(CLAIM, seed=0, store=store, device="cuda", preset="smoke")
        assert none.verdict.status == "inconclusive"
        fill(store, "cpu", "quick")
        assert held_device(CLAIM, 0, store) == "cpu"
        assert held_device(PLAIN, 0, store) == "cpu"


def test_costs_are_those_of_the_claims_device() -> None:
    with Store(":memory:") as store:
        fill(store, "cuda", "smoke")
        assert store.costs(CLAIM) == {}
        assert sum(trials for trials, _ in store.costs(moved(CLAIM, "cuda")).values()) == 400


def test_judge_report_and_cite_need_no_device_here(no_torch: None, mdpsim_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "held.db"
    with Store(path) as store:
        fill(store, "cpu", "smoke")
        run(PLAIN, preset="smoke", store=store)
        for arm, points in moved(CLAIM, "cuda").plan("quick").items():
            for p, n in points.items():
                columns = CLAIM.measure_of(arm)(p, [CLAIM.trial_key(p, 0, i) for i in range(n)])
                store.add(CLAIM, arm, p, 0, range(n), columns, 0.1)
    held = ("--store", str(path))
    for args, device, preset in (((), "cuda", "quick"), (("--device", "cpu"), "cpu", "smoke")):
        judged = json.loads(mdpsim_command("judge", FILE, *held, *args, "--json").stdout)
        assert (judged["points"][0]["point"]["device"], judged["preset"], judged["status"]) == (device, preset, "supported")
        sentence = json.loads(mdpsim_command("cite", FILE, *held, *args, "--json").stdout)["sentence"]
        assert f" trials on {device}" in sentence
        done = mdpsim_command("report", FILE, PLAIN_FILE, *held, *args, "--out", "out")
        assert done.returncode == 0, done.stderr
        page = (tmp_path / "out" / "index.html").read_text()
        assert f"mdpsim verify toy/devices --preset {preset} --seed 0 --device {device}" in page
        assert "mdpsim verify toy/coins --preset smoke --seed 0<" in page
        for name, where in (("devices", device), ("coins", "cpu")):
            assert json.loads((tmp_path / "out" / "figures" / f"toy--{name}.json").read_text())["device"] == where
        assert ("cpu, cuda" in page) == (device == "cuda")
    assert " trials:" in json.loads(mdpsim_command("cite", PLAIN_FILE, *held, "--json").stdout)["sentence"]


@pytest.mark.parametrize(("device", "sizes"), [("cpu", [7]), ("cuda", [3, 3, 3])])
def test_trials_side_by_side_are_always_as_many_on_a_gpu(device: str, sizes: list[int]) -> None:
    """A GPU's routines may depend on how many models lie side by side: it always gets n keys, and the caller its own rows."""
    calls: list[list[int]] = []

    @side_by_side(3)
    def measure(point: Point, keys: Sequence[int]) -> dict[str, np.ndarray]:
        calls.append(list(keys))
        return {"value": np.array(keys, dtype=np.float64), "curve": np.outer(keys, [1.0, 2.0])}

    found = measure(Point(device=device), range(7))
    assert [len(keys) for keys in calls] == sizes
    assert found["value"].tolist() == list(range(7))
    assert found["curve"][:, 1].tolist() == [2.0 * k for k in range(7)]
    assert measure.__dict__["side_by_side"] == 3
    with pytest.raises(ValueError, match="side_by_side: n must be an integer >= 1"):
        side_by_side(0)
