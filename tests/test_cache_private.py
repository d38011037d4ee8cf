"""The cache of compiled kernels is code: nobody else's is run. A damaged or full cache costs a note, no run."""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mdpsim.kernels import _cache, _jit

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MDPSIM_CACHE_DIR", str(tmp_path / "named"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "named"


def test_it_is_made_for_its_owner_only(base: Path) -> None:
    before = os.umask(0o002)
    try:
        path = Path(_cache.private_directory("kernels-x"))
    finally:
        os.umask(before)
    assert path == base / "kernels-x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert Path(_cache.private_directory("kernels-x")) == path  # and found again


def somebody(path: Path) -> None:
    os.chown(path, 54321, -1)


def link(path: Path) -> None:
    path.rmdir()
    (path.parent / "elsewhere").mkdir(0o700)
    path.symlink_to(path.parent / "elsewhere")


UNSAFE: dict[str, Callable[[Path], None]] = {
    "somebody's": somebody, "open to the group": lambda path: path.chmod(0o770), "open to all": lambda path: path.chmod(0o702),
    "a link": link, "in somebody's directory": lambda path: somebody(path.parent),
    "in a directory open to all": lambda path: path.parent.chmod(0o777),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_what_others_can_write_to_is_passed_over(base: Path, tmp_path: Path, kind: str) -> None:
    if "somebody" in kind and os.geteuid() != 0:
        pytest.skip("needs root, to give a directory away")
    path = base / "kernels-x"
    path.mkdir(0o700, parents=True)
    base.chmod(0o755)
    UNSAFE[kind](path)
    assert Path(_cache.private_directory("kernels-x")) == tmp_path / "home" / "mdpsim" / "kernels-x"


def test_a_sticky_directory_is_no_danger(base: Path) -> None:
    base.mkdir()
    base.chmod(0o1777)  # /tmp
    assert Path(_cache.private_directory("kernels-x")) == base / "kernels-x"


def test_the_last_resort_is_nobody_elses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_cache, "_bases", lambda: iter([None, "/proc/nothing"]))
    monkeypatch.setattr(_cache.tempfile, "tempdir", str(tmp_path))
    one, two = _cache.private_directory("x"), _cache.private_directory("x")
    assert one != two
    assert stat.S_IMODE(os.stat(one).st_mode) == 0o700


# --- damage --------------------------------------------------------------------------------------------------------------


def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with one function as kernels are compiled, in a process that has not seen it."""
    monkeypatch.setattr(_jit, "CACHE_DIRECTORY", str(tmp_path / "cache"))
    monkeypatch.setattr(_cache, "_told", [])
    source = tmp_path / "probe.py"
    if not source.exists():
        source.write_text("def double(x):\n    return x + x\n")
    spec = importlib.util.spec_from_file_location("probe", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["probe"] = module
    spec.loader.exec_module(module)
    module.double = _jit._compile(module.double, ())
    return module


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty index": lambda folder: [p.write_bytes(b"") for p in folder.rglob("*.nbi")],  # type: ignore[dict-item]
    "cut index": lambda folder: [p.write_bytes(p.read_bytes()[:60]) for p in folder.rglob("*.nbi")],  # type: ignore[dict-item]
    "empty code": lambda folder: [p.write_bytes(b"") for p in folder.rglob("*.nbc")],  # type: ignore[dict-item]
    "cut code": lambda folder: [p.write_bytes(p.read_bytes()[:200]) for p in folder.rglob("*.nbc")],  # type: ignore[dict-item]
    "garbage": lambda folder: [p.write_bytes(b"garbage" * 99) for p in folder.rglob("*.nb?")],  # type: ignore[dict-item]
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_cache_is_told_once_and_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    assert compiled(tmp_path, monkeypatch).double(2.0) == 4.0
    assert list(tmp_path.rglob("*.nbc"))
    DAMAGE[kind](tmp_path / "cache")
    damaged = compiled(tmp_path, monkeypatch)
    with pytest.warns(_cache.CacheWarning, match=r"cache of compiled kernels in .*cache.* cannot be used"):
        assert damaged.double(2.0) == 4.0
    again = compiled(tmp_path, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert again.double(2.0) == 4.0
    assert again.double.stats.cache_hits  # it is whole again


def test_a_full_disk_costs_the_cache_and_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self, name, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)
    module = compiled(tmp_path, monkeypatch)
    with pytest.warns(_cache.CacheWarning, match="No space left on device"):
        assert module.double(2.0) == 4.0
    assert module.double(3) == 6  # told once
