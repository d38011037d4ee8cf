"""What a newcomer meets first: the README's code and table, the Makefile's messages, the files of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mdpsim
from mdpsim import all_claims, get_claim


def test_the_quick_start_runs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)  # the other: test_tables.py
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert float(re.search(r"clone\) = (\S+)", out)[1]) > 0  # type: ignore[index]
    assert "supported" in out
    assert "twins rejected" in out


def test_the_readmes_table_is_the_registry(root: Path) -> None:
    rows = re.findall(r"^\| `([\w/-]+)` \| ([\w-]+) \|", (root / "README.md").read_text(), re.MULTILINE)
    assert rows == [(c.id, c.origin) for c in all_claims()]


def test_the_word_for_what_a_simulation_cannot_do_appears_nowhere(root: Path) -> None:
    word = "pro" + "ved"
    files = [root / "README.md", *(root / "mdpsim").rglob("*.py"), *(root / "mdpsim").rglob("*.j2")]
    assert [f.name for f in files if re.search(rf"\b{word}\b", f.read_text(), re.IGNORECASE)] == []


def test_versions_agree(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["version"] == mdpsim.__version__
    assert f"version: {mdpsim.__version__}" in (root / "CITATION.cff").read_text()
    assert f"## {mdpsim.__version__}" in (root / "CHANGELOG.md").read_text()
    pinned = {line.split("==")[0].lower() for line in (root / "constraints.txt").read_text().splitlines() if "==" in line}
    for requirement in project["dependencies"]:
        assert re.split(r"[\[>=<]", requirement)[0].lower() in pinned, f"{requirement} is not pinned for CI"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('version_info' in sys.argv[2])", "mdpsim needs Python 3.11 or newer"),
        ("import sys; sys.exit('ensurepip' in sys.argv[2])", "apt-get install python3-venv"),
    ],
)
def test_make_says_what_is_missing(root: Path, tmp_path: Path, program: str, message: str) -> None:
    """With a Python that is too old, or without venv, make stops with one sentence that says what to do."""
    shutil.copy(root / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path)
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\n{program}\n")
    fake.chmod(0o755)
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(
        ["make", "reproduce", f"PYTHON={fake}"], cwd=tmp_path, capture_output=True, text=True, check=False, env=clean
    )
    assert done.returncode != 0
    assert message in done.stdout


def test_ci_calls_the_readmes_test_command(root: Path) -> None:
    assert "make test" in (root / "README.md").read_text()
    script = (root / ".ci" / "run").read_text()
    assert [line for line in script.splitlines() if line.strip() and not line.startswith(("#", "set", "cd"))] == ["make test"]


def test_the_readmes_picture_is_of_the_present_claim(root: Path) -> None:
    """Drawn by the committed script from records of the revision that the code has; the words under it say how."""
    text = (root / "README.md").read_text()
    picture = root / re.findall(r"!\[[^]]+\]\(([^)]+\.png)\)", text)[0]
    assert picture.read_bytes().startswith(b"\x89PNG")
    sidecar = json.loads(picture.with_suffix(".json").read_text())
    claim = get_claim(sidecar["claim"])
    assert sidecar["rev"] == claim.rev
    assert f"`{claim.id}` at the preset {sidecar['preset']}, seed {sidecar['seed']}" in text
    assert sidecar["status"] == "supported"
    script = re.findall(r"`python (benchmarks/\w+\.py)`, figure `(\w+)`", text)[0]
    assert script[1] == picture.stem
    assert f'"{claim.id.split("/")[1]}"' in (root / script[0]).read_text()
