"""Shared fixtures, and what is looked at when a process of the suite ends: the kernels' signatures."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Files that take more than about four seconds on a quiet core: whole claims, notebooks, pages, processes, training, compilation
# from nothing, simulations at length. What decides the numbers of the core stays.
SLOW = {
    "test_add_a_paper", "test_batch", "test_cache", "test_cli", "test_data", "test_device", "test_device_shown",
    "test_discounted", "test_gradient", "test_hostile", "test_lm_explore", "test_lm_model", "test_lm_pretrained",
    "test_lm_reference", "test_lm_sample", "test_lm_train", "test_lsvi", "test_memory", "test_notebooks", "test_optimum",
    "test_package", "test_papers", "test_plots", "test_portable", "test_preferences", "test_report", "test_rollout",
    "test_run", "test_sequence", "test_small_lm_claims_a", "test_softmax_class", "test_stats", "test_store", "test_verdict",
    "test_verdict_rules",
}


def beyond_one_signature(kernels: Iterable[Any]) -> dict[str, Any]:
    """Kernels that were compiled for more than one: a wrapper passes writable, strided or other-typed arrays."""
    return {f"{k.py_func.__module__}.{k.py_func.__name__}": k.signatures for k in kernels if len(k.signatures) > 1}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out the files of tests that take long (make check)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --fast, what is left out is deselected: pytest's last line counts it."""
    if config.getoption("--fast"):
        left_out = [item for item in items if item.path.stem in SLOW]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.path.stem not in SLOW]


@pytest.fixture(scope="session", autouse=True)
def one_signature_a_kernel() -> Iterator[None]:
    """After all tests of this process: an error at the end of its last test."""
    yield
    from mdpsim.kernels import _jit

    assert beyond_one_signature(_jit.KERNELS) == {}


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Several test processes share the cores, and small products gain nothing from a second thread."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ.get("MDPSIM_TEST_THREADS", "1")))  # tests/portable.py asks for two


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
