"""The architecture as assertions over the syntax trees: import order, line ceiling, no global state, light import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mdpsim"
LAYERS = [
    {"kernels"}, {"arrays", "atomic", "memory", "records", "rng", "versions"}, {"mdp"}, {"solve"}, {"estimate"}, {"learn"},
    {"align"}, {"lm"}, {"claims"}, {"papers"}, {"registry"}, {"store"}, {"verdict"}, {"verify"}, {"plots"}, {"mathml"},
    {"report"}, {"terminal"}, {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
HEAVY = ("torch", "matplotlib", "pandas", "scipy.stats", "scipy.optimize", "typer", "rich", "jinja2", "gymnasium")


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Every absolute module name that a tree imports, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(dotted: str) -> int | None:
    """The level of an mdpsim module, None for other packages and for the package itself."""
    parts = dotted.split(".")
    return LEVEL.get(parts[1]) if parts[0] == "mdpsim" and len(parts) > 1 else None


def upward(path: Path, source: str) -> list[str]:
    """Imports of a file that go against the layers."""
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return [name for name in imports(ast.parse(source)) if (level := layer(name)) is not None and level > LEVEL[own]]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_left(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    assert path.relative_to(PACKAGE).parts[0].removesuffix(".py") in LEVEL, "a room that the plan does not know"
    assert upward(path, path.read_text()) == []


def test_an_upward_import_is_seen() -> None:
    assert upward(PACKAGE / "solve" / "exact.py", "from mdpsim.claims.claim import Claim") == [
        "mdpsim.claims.claim", "mdpsim.claims.claim.Claim",
    ]
    assert upward(PACKAGE / "kernels" / "x.py", "def f():\n    import mdpsim.arrays") == ["mdpsim.arrays"]


def test_no_file_over_400_lines() -> None:
    files = [p for folder in ("mdpsim", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    assert {str(p): n for p in files if (n := len(p.read_text().splitlines())) > 400} == {}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_global_random_state_and_no_print(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called != "print", f"line {node.lineno}: print"
        made = called.startswith(("np.random.", "numpy.random.", "random."))
        assert not made or path.name == "rng.py", f"line {node.lineno}: {called} outside rng.py"


def test_import_is_light() -> None:
    code = f"import sys, mdpsim; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_the_ones_exported() -> None:
    import mdpsim

    fixed = {
        "MDP", "Successors", "LinearMDP", "solve_soft", "solve_hard", "evaluate", "occupancy", "trajectory_kl", "sample",
        "sample_counts", "fit_bc",
        "Claim", "Twin", "Point", "run", "judge", "Store", "all_claims", "get_claim", "verify",
    }
    assert fixed <= set(mdpsim.__all__)
    assert all(hasattr(mdpsim, name) for name in mdpsim.__all__)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_public_things_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert path.stat().st_size == 0 or ast.get_docstring(tree), "the module has none"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has none"


def sums_that_store(source: str) -> list[tuple[str, str]]:
    """(function, name) of float sums in innermost loops that also store, unless compiled without reassociation."""
    found = []
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        if "exact" in {d.id for d in function.decorator_list if isinstance(d, ast.Name)}:
            continue
        whole = {t.id for n in ast.walk(function) if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant)
                 and isinstance(n.value.value, int) for t in n.targets if isinstance(t, ast.Name)}
        for loop in ast.walk(function):
            inside = [x for b in loop.body for x in ast.walk(b)] if isinstance(loop, ast.For) else []
            if any(isinstance(x, ast.For | ast.While) for x in inside):
                continue
            if any(isinstance(x, ast.Subscript) and isinstance(x.ctx, ast.Store) for x in inside):
                sums = [x.target.id for x in inside if isinstance(x, ast.AugAssign) and isinstance(x.target, ast.Name)]
                found += [(function.name, name) for name in sums if name not in whole]
    return found


@pytest.mark.parametrize("path", sorted((PACKAGE / "kernels").glob("*.py")), ids=lambda p: p.name)
def test_no_kernel_sums_in_a_loop_that_stores(path: Path) -> None:
    """The last bits of such a sum depend on where the arrays lie (kernels/_jit.py)."""
    assert sums_that_store(path.read_text()) == []


def test_a_sum_that_stores_is_seen() -> None:
    loop = "def f(x, y):\n    total = {}\n    for i in range(3):\n        y[i] = x[i]\n        total += x[i]\n"
    assert sums_that_store(loop.format("0.0")) == [("f", "total")]
    assert sums_that_store(loop.format("0")) == []  # a count is exact in any order
    assert sums_that_store("@exact\n" + loop.format("0.0")) == []
