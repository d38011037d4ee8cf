"""The kernel cache: an edit of any kernel file is seen, an unedited one is loaded and not compiled again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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


def probe(package_parent: Path, cache: Path) -> tuple[float, bool, str]:
    env = os.environ | {"PYTHONPATH": str(package_parent), "MDPSIM_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE], env=env, capture_output=True, text=True, check=True, cwd=package_parent
    )
    value, compiled, directory = done.stdout.split()
    return float(value), compiled == "True", directory


def test_an_edited_callee_is_seen(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root / "mdpsim", copy / "mdpsim", ignore=shutil.ignore_patterns("__pycache__"))
    cache = tmp_path / "cache"
    first, compiled, directory = probe(copy, cache)
    assert compiled
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
