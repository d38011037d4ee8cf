"""The kernel cache: an edit of any kernel file is seen, as is another processor to compile for, or another option of numba's;
what is unedited is loaded and not compiled again. The fingerprint of records follows all of these."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import config

from mdpsim import versions
from mdpsim.kernels import _jit

PROBE = """
import numpy as np
from mdpsim.kernels import _jit
told = []
with _jit.watch_compilation(lambda: told.append(1)):
    from mdpsim.mdp.tabular import MDP
    from mdpsim.solve.exact import solve_soft
    mdp = MDP(np.ones((1, 1, 2, 1)), np.array([[[0.0, 1.0]]]), [1.0])
    value = solve_soft(mdp, np.full((1, 1, 2), 0.5), 1.0).V[0, 0]
print(repr(float(value)), len(told) > 0, _jit.CACHE_DIRECTORY)
"""
# What tells numba, numpy, BLAS and torch to compute as on another processor, or otherwise; each must be seen by itself.
OTHER = (
    {"CPU_NAME": "generic"}, {"CPU_NAME": "generic", "CPU_FEATURES": ""}, {"CPU_FEATURES": "+sse3"}, {"OPT": 1},
    {"LOOP_VECTORIZE": 0}, {"SLP_VECTORIZE": 1}, {"BOUNDSCHECK": 1}, {"DEBUGINFO_DEFAULT": 1}, {"USING_SVML": True},
    {"DISABLE_JIT": 1},
)
BESIDE = {"NPY_DISABLE_CPU_FEATURES": "X86_V4", "OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "default"}


def probe(package_parent: Path, cache: Path, **settings: str) -> tuple[float, bool, str]:
    env = os.environ | {"PYTHONPATH": str(package_parent), "MDPSIM_CACHE_DIR": str(cache)} | settings
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=env, capture_output=True, text=True, check=True, cwd=package_parent
    )
    value, compiled, directory = done.stdout.split()
    return float(value), compiled == "True", directory


@pytest.fixture(scope="module")
def compiled_once(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, float, str]:
    """A copy of the package, a cache of its own, and what the first process found there, which compiled."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(root / "mdpsim", copy / "mdpsim", ignore=shutil.ignore_patterns("__pycache__"))
    value, compiled, directory = probe(copy, copy / "cache")
    assert compiled
    return copy, copy / "cache", value, directory


def test_another_option_of_numbas_loads_no_stale_code(compiled_once: tuple[Path, Path, float, str]) -> None:
    """numba's own index does not hold its options: without a directory for each, OPT=1 runs what OPT=3 compiled."""
    copy, cache, first, directory = compiled_once
    value, compiled, other = probe(copy, cache, NUMBA_OPT="1")
    assert compiled
    assert other != directory
    assert value == pytest.approx(first, rel=1e-13)


def test_an_edited_callee_is_seen(compiled_once: tuple[Path, Path, float, str]) -> None:
    copy, cache, first, directory = compiled_once
    again, compiled, same = probe(copy, cache)
    assert (again, same) == (first, directory)
    assert not compiled, "a second process must load the kernels, not compile them"
    math = copy / "mdpsim" / "kernels" / "_math.py"
    text = math.read_text()
    # A wrong constant in exp: the numbers of a kernel in another file must change with it.
    edited = text.replace("LN2_HI = ", "LN2_HI = 0.9 * ", 1)
    assert edited != text, "the edit this test makes no longer applies"
    math.write_text(edited)
    value, compiled, other = probe(copy, cache)
    assert compiled
    assert other != directory
    assert value != first


def test_the_directory_names_everything_that_decides_machine_code() -> None:
    assert Path(_jit.CACHE_DIRECTORY).name == f"kernels-{_jit.fingerprint()}"


def test_code_for_another_processor_lies_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """And records computed so do not count as of the host's platform."""
    monkeypatch.setattr(config, "CPU_FEATURES", None)
    kernels, records = {_jit.fingerprint()}, {versions.fingerprint.__wrapped__()}
    for change in OTHER:
        with monkeypatch.context() as patch:
            for name, value in change.items():
                patch.setattr(config, name, value)
            kernels.add(_jit.fingerprint())
            records.add(versions.fingerprint.__wrapped__())
    assert len(kernels) == len(records) == 1 + len(OTHER)
    for name, value in BESIDE.items():
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            records.add(versions.fingerprint.__wrapped__())
    assert len(records) == 1 + len(OTHER) + len(BESIDE)


def test_a_store_shows_the_processor_computed_for() -> None:
    env = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    code = "from mdpsim.versions import fingerprint; print(fingerprint())"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "-as-generic-" in done.stdout
