"""Shared fixtures, and the order of the suite: what inspects all kernels runs last."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``test_signatures`` looks at what the whole suite compiled."""
    items.sort(key=lambda item: "test_signatures" in item.nodeid)


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Several test processes share the cores, and small products gain nothing from a second thread."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


class Finished(NamedTuple):
    """What a command returned and printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def mdpsim_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """Run ``mdpsim ARGS`` in an empty directory, in this process (a subprocess would import everything each time)."""
    from mdpsim.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["mdpsim", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Finished(ended.value.code or 0, *capsys.readouterr())  # type: ignore[arg-type]

    return run
