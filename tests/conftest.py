"""Shared fixtures, and the order of the suite: what inspects all kernels runs last."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``test_signatures`` looks at what the whole suite compiled."""
    items.sort(key=lambda item: "test_signatures" in item.nodeid)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def mdpsim_command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m mdpsim ARGS`` in an empty directory; returns the finished process."""

    def run(*args: str, timeout: float = 300, **more: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mdpsim", *args], cwd=tmp_path, capture_output=True, text=True, timeout=timeout,
            check=False, **more,  # type: ignore[arg-type]
        )

    return run
