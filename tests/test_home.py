"""Where kernels, stores and reports lie where there is no home directory, an empty one, or a path that begins with ~."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Finished
from mdpsim import Store
from mdpsim.arrays import as_path
from mdpsim.kernels import _cache, _jit

NOBODY = 54321  # no entry in the password file
IMPORT = "import mdpsim; from mdpsim.kernels import _jit; print(_jit.CACHE_DIRECTORY)"
HOMELESS = f"import pwd\ndef getpwuid(uid): raise KeyError(uid)\npwd.getpwuid = getpwuid\n{IMPORT}"


def environment(root: Path, tmp_path: Path, **more: str) -> dict[str, str]:
    """This process's, without what names a directory; temporary files go to tmp_path."""
    gone = {"HOME", "XDG_CACHE_HOME", "MDPSIM_CACHE_DIR", "NUMBA_CACHE_DIR"}
    kept = {name: value for name, value in os.environ.items() if name not in gone}
    return kept | {"PYTHONPATH": str(root), "TMPDIR": str(tmp_path)} | more


@pytest.mark.parametrize("more", [{}, {"HOME": ""}, {"MDPSIM_CACHE_DIR": "cache"}, {"MDPSIM_CACHE_DIR": "~/x"}], ids=str)
def test_import_without_a_home_directory(root: Path, tmp_path: Path, more: dict[str, str]) -> None:
    """As in a container whose user has no entry in the password file: kernels lie where they are told, or in TMPDIR."""
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS], env=environment(root, tmp_path, **more), cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    base = "cache" if more.get("MDPSIM_CACHE_DIR") == "cache" else f"mdpsim-{os.getuid()}"
    assert Path(done.stdout.strip()) == tmp_path / base / f"kernels-{_jit.fingerprint()}"
    assert [p.name for p in tmp_path.iterdir()] == [base]


SETPRIV = [shutil.which("setpriv") or "setpriv", "--reuid", str(NOBODY), "--clear-groups"]


def reachable(root: Path) -> bool:
    """Whether a user that is nobody can run this Python and read this package (root's home is closed to others)."""
    if not shutil.which("setpriv") or os.getuid() != 0:
        return False
    probe = [*SETPRIV, sys.executable, "-c", f"open({str(root / 'mdpsim' / '__init__.py')!r}); import numba"]
    return subprocess.run(probe, capture_output=True, check=False, cwd="/").returncode == 0


@pytest.mark.parametrize("named", [True, False])
def test_import_as_a_user_that_does_not_exist(root: Path, named: bool) -> None:
    if not reachable(root):
        pytest.skip("needs root, setpriv, and a Python that others may run")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)  # pytest's own folders are closed to others
        scratch.chmod(0o777)
        more = {"MDPSIM_CACHE_DIR": str(scratch / "cache")} if named else {}
        done = subprocess.run(
            [*SETPRIV, sys.executable, "-c", IMPORT], env=environment(root, scratch, **more), cwd=scratch, capture_output=True,
            text=True, check=False,
        )
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).parent == scratch / ("cache" if named else f"mdpsim-{NOBODY}")


def test_an_empty_home_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It wrote to /.cache: where HOME is empty, what the password file says counts."""
    pwd = pytest.importorskip("pwd")
    there = pwd.struct_passwd(("me", "x", 1, 1, "", "/home/me", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: there)
    for name in ("XDG_CACHE_HOME", "MDPSIM_CACHE_DIR", "NUMBA_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for value in ("", None):
        monkeypatch.setenv("HOME", value) if value is not None else monkeypatch.delenv("HOME")
        assert _cache.home() == "/home/me"
        assert next(_cache._bases()) == "/home/me/.cache/mdpsim"
    monkeypatch.setenv("HOME", "somewhere")  # a relative one is no home either
    assert _cache.home() is None
    assert next(_cache._bases()) is None
    monkeypatch.setenv("HOME", "/root/x")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # its specification has them ignored
    assert next(_cache._bases()) == "/root/x/.cache/mdpsim"
    monkeypatch.setenv("MDPSIM_CACHE_DIR", "~/kernels")
    assert next(_cache._bases()) == "/root/x/kernels"


def test_a_relative_cache_stays_where_it_was(root: Path, tmp_path: Path) -> None:
    """A measure that changes the working directory does not move the kernels."""
    env = environment(root, tmp_path, HOME=str(tmp_path), MDPSIM_CACHE_DIR="cache")
    done = subprocess.run([sys.executable, "-c", IMPORT], env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).parent == tmp_path / "cache"


def test_a_tilde_is_the_home_directory(mdpsim_command: Callable[..., Finished], tmp_path: Path, monkeypatch) -> None:
    """No shell expands --store=~/x: it made a directory named ~."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    claim = "korbak2022/elbo-identity"
    done = mdpsim_command("verify", claim, "--preset", "smoke", "--jobs", "1", "--store=~/s/x.db")
    assert done.returncode == 0, done.stderr
    assert mdpsim_command("judge", claim, "--store=~/s/x.db").returncode == 0
    assert mdpsim_command("cite", claim, "--store=~/s/x.db").stdout.count("supported") == 1
    assert mdpsim_command("report", claim, "--store=~/s/x.db", "--out=~/page").returncode == 0
    assert (home / "page" / "index.html").exists()
    with Store("~/s/x.db", create=False) as store:
        assert store.path == str(home / "s" / "x.db")
    assert [p.name for p in tmp_path.iterdir()] == ["home"]
    assert as_path("f", "x", "~") == home
    assert as_path("f", "x", "a~/~b") == Path("a~/~b")
    monkeypatch.setenv("HOME", "nowhere")
    done = mdpsim_command("judge", claim, "--store=~/s/x.db")
    assert done.returncode == 2
    assert "there is no home directory here" in done.stderr
    with pytest.raises(ValueError, match="^Store: path must be a path that does not begin with ~"):
        Store("~/s/x.db")
    with pytest.raises(ValueError, match="^Store: path must be a path; got 3"):
        Store(3)  # type: ignore[arg-type]
