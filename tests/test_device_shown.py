"""What is shown of the device and of torch: versions, notes, devices, figures; and what becomes of claims without torch."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import toy
import toy_device
from conftest import Finished
from mdpsim import Claim, Point, Store, product, run, versions
from mdpsim.claims.device import moved
from mdpsim.plots import claim_figure
from mdpsim.plots.labels import telling
from mdpsim.verdict.judge import judge

Command = Callable[..., Finished]
CLAIM, PLAIN = toy_device.claim, toy.coins
HAS_TORCH = importlib.util.find_spec("torch") is not None


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where torch is not installed."""
    monkeypatch.setattr("mdpsim.versions.find_spec", lambda name: None if name == "torch" else object())


# --- versions --------------------------------------------------------------------------------------------------------


def found_versions() -> dict[str, str]:
    return versions.versions.__wrapped__()  # type: ignore[attr-defined]


def test_versions_have_torch_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("torch" in found_versions()) == HAS_TORCH

    def none(name: str) -> str:
        raise versions.PackageNotFoundError(name)

    real = versions.version
    monkeypatch.setattr(versions, "version", lambda name: "2.99+cu1" if name == "torch" else real(name))
    assert found_versions()["torch"] == "2.99+cu1"
    assert "torch" not in found_versions()["platform"]  # the records of the other claims do not depend on it
    monkeypatch.setattr(versions, "version", lambda name: none(name) if name in ("torch", "mdpsim") else real(name))
    assert "torch" not in found_versions()
    assert found_versions()["mdpsim"] == "not installed"


@pytest.mark.parametrize("needs", [(), ("lm",)])
def test_records_of_two_versions_of_torch_are_noted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, needs: tuple[str, ...]
) -> None:
    claim = replace(CLAIM, needs=needs)
    known = {k: v for k, v in versions.versions().items() if k != "torch"}
    for number, trials in (("2.12", range(5)), ("2.13", range(5, 9)), ("2.13", range(9, 12))):
        monkeypatch.setattr("mdpsim.store.store.versions", lambda number=number: known | {"torch": number})
        with Store(tmp_path / "r.db") as store:
            store.add(claim, "claim", claim.grid["smoke"][0], 0, trials, {"value": np.zeros(len(trials))}, 0.0)
            notes = store.records(claim, "smoke", 0).notes
    told = "records of 2 platforms, GPUs or versions of the kernels or torch: their last digits may differ"
    assert notes == ((told,) if needs else ())


def test_the_gpu_is_in_the_versions_of_what_it_computed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    claim = replace(CLAIM, needs=("lm",))
    notes = {}
    for name in ("H100", "H200"):
        monkeypatch.setattr("mdpsim.store.store.gpu", lambda name=name: name)
        with Store(tmp_path / "g.db") as store:
            for device in ("cpu", "cuda"):
                there = moved(claim, device)
                trials = range(5) if name == "H100" else range(5, 9)
                store.add(there, "claim", there.grid["smoke"][0], 0, trials, {"value": np.zeros(len(trials))}, 0.0)
                records = store.records(there, "smoke", 0)
                assert records.versions.get("gpu") == (name if device == "cuda" else None)
                notes[name, device] = [n for n in records.notes if "2 platforms, GPUs" in n]
    assert [bool(n) for n in notes.values()] == [False, False, False, True]


def test_the_gpu_is_asked_of_a_torch_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert versions.gpu() is None
    assert "torch" not in sys.modules
    for there, name in ((False, None), (True, "H100")):
        cuda = SimpleNamespace(is_available=lambda there=there: there, get_device_name=lambda: "H100")
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
        assert versions.gpu() == name


def test_info_shows_the_devices(mdpsim_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "lacking", lambda needs: ())
    cuda = SimpleNamespace(device_count=lambda: 2, get_device_name=lambda i: ("H100", "H200")[i])
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert json.loads(mdpsim_command("info", "--json").stdout)["devices"] == ["cpu", "cuda:0 H100", "cuda:1 H200"]
    monkeypatch.setitem(sys.modules, "torch", None)  # an import of it raises
    assert versions.devices()[0] == "cpu"
    assert "torch does not load" in versions.devices()[1]
    monkeypatch.setattr(versions, "lacking", lambda needs: needs)
    assert versions.devices() == ["cpu"]


# --- without torch ---------------------------------------------------------------------------------------------------


def test_claims_that_need_torch_are_listed_and_left_out(
    no_torch: None, mdpsim_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = replace(CLAIM, id="toy/lm", needs=("lm",))
    monkeypatch.setattr("mdpsim.cli.all_claims", lambda **_: (lm, PLAIN))
    monkeypatch.setattr("mdpsim.cli.select", lambda targets: [lm, PLAIN])
    rows = mdpsim_command("list").stdout.splitlines()
    assert ["needs [lm]" in row for row in rows if row.startswith("toy/")] == [True, False]
    shown = []
    monkeypatch.setattr("mdpsim.cli.progress_bar", spy(shown))
    for strict, status in (((), 0), (("--strict",), 3)):
        done = mdpsim_command("verify", "--preset", "smoke", "--jobs", "1", *strict)
        assert done.returncode == status, done.stderr
        notes = [row for row in done.stdout.splitlines() if row.startswith("toy/lm:")]
        assert notes == ["toy/lm: needs [lm]: pip install 'mdpsim[lm]'"]  # and nothing of trials and twins that are not there
        verdicts = {row.split()[0]: row for row in done.stdout.splitlines() if row.startswith(("toy/lm ", "toy/coins "))}
        assert "inconclusive" in verdicts["toy/lm"]
        assert "supported" in verdicts["toy/coins"]
    assert shown == [[PLAIN]] * 2  # the bar counts what is run
    done = mdpsim_command("report", "--preset", "smoke", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "not installed: <code>toy/lm</code>.</p>" in Path("out/index.html").read_text()


def spy(shown: list[list[Claim]]) -> Callable[..., object]:
    from mdpsim.terminal import progress_bar

    def watched(claims: list[Claim], *rest: object) -> object:
        shown.append(claims)
        return progress_bar(claims, *rest)  # type: ignore[arg-type]

    return watched


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_test_installs_torch_unless_told_not_to(root: Path, tmp_path: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "LM")}

    def steps(*args: str) -> str:
        done = subprocess.run(
            ["make", "--dry-run", *args, f"VENV={tmp_path}"], cwd=root, capture_output=True, text=True, check=True, env=clean
        )
        return done.stdout

    assert "'.[lm]'" in steps("test")
    assert "'.[lm]'" not in steps("test", "LM=0")
    assert not any("lm]" in steps(target) for target in ("reproduce", "bench"))
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", ".run", ".test"):  # what LM=0 leaves behind
        (tmp_path / name).touch()
    assert "'.[lm]'" in steps("test")
    assert "pip" not in steps("test", "LM=0")


# --- figures ---------------------------------------------------------------------------------------------------------


def test_labels_do_not_repeat_the_device() -> None:
    one = Point(family="a", n=3, device="cpu", dtype="float64")
    assert telling([one]) == ["family", "n"]
    assert telling([one, Point(one, n=4)]) == ["n"]
    assert telling([one, Point(one, device="cuda")]) == ["device"]
    assert telling([]) == []


@pytest.mark.parametrize("sizes", [(1,), (1, 2, 4)])  # margins of the trials; a line along n
def test_figures_of_one_point_or_line_do_not_name_the_device(sizes: tuple[int, ...]) -> None:
    grid = {"smoke": product(family=("alone",), n=sizes, **toy_device.HERE)}
    lone = replace(CLAIM, grid=grid, twins=CLAIM.twins[1:])
    records = run(lone, preset="smoke")
    figure = claim_figure(lone, records, judge(lone, records))
    texts = [t.get_text() for ax in figure.axes for t in (*ax.texts, *ax.get_yticklabels())]
    words = " ".join([*texts, *(ax.get_title(side) for ax in figure.axes for side in ("left", "center"))])
    assert "alone" in words
    assert not any(word in words for word in ("device", "dtype", "float64"))
