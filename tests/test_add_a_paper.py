"""CONTRIBUTING.md, tried: its example, dropped in as one file, is discovered, run, judged and conformance-tested."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and the tests with one file more, and no other edit."""
    root, base = Path(__file__).resolve().parent.parent, tmp_path_factory.mktemp("copy")
    for name in ("mdpsim", "tests"):
        shutil.copytree(root / name, base / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", base)
    (code,) = re.findall(r"```python\n(.*?)```", (root / "CONTRIBUTING.md").read_text(), re.DOTALL)
    (base / "mdpsim" / "papers" / "hoeffding1963.py").write_text(code)
    return base


def run(copy: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(copy)}
    return subprocess.run([sys.executable, "-m", *args], cwd=copy, env=env, capture_output=True, text=True, check=False)


def test_it_is_discovered_run_and_judged(copy: Path) -> None:
    listed = run(copy, "mdpsim", "list", "--paper", "hoeffding1963", "--json")
    assert json.loads(listed.stdout)["claim"] == "hoeffding1963/upper-tail", listed.stderr
    done = run(copy, "mdpsim", "verify", "hoeffding1963", "--preset", "quick", "--json", "--store", str(copy / "s.db"))
    verdict = json.loads(done.stdout)
    assert (done.returncode, verdict["status"], verdict["twin_status"]) == (0, "supported", "rejected"), verdict["notes"]
    report = run(copy, "mdpsim", "report", "--store", str(copy / "s.db"), "--out", str(copy / "page"))
    assert report.returncode == 0, report.stderr
    assert "Probability inequalities for sums" in (copy / "page" / "index.html").read_text()


def test_it_is_conformance_tested(copy: Path) -> None:
    done = run(copy, "pytest", "-q", "-p", "no:cacheprovider", "tests/test_papers.py", "-k", "hoeffding or discovery")
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 9  # type: ignore[index]


def test_the_same_file_anywhere_is_a_claims_file(copy: Path, tmp_path: Path) -> None:
    """Outside the package the same code verifies by its path (the copy without it stands for an installed mdpsim)."""
    file = tmp_path / "my_theorem.py"
    shutil.copy(copy / "mdpsim" / "papers" / "hoeffding1963.py", file)
    done = subprocess.run(
        [sys.executable, "-m", "mdpsim", "verify", str(file), "--preset", "smoke", "--jobs", "2", "--json"], cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )
    assert json.loads(done.stdout)["status"] == "supported", done.stderr
