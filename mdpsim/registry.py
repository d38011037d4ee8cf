"""Which claims there are: every file in ``mdpsim/papers/`` is discovered, none is listed.

A paper is a module (or a package) in ``mdpsim.papers``; its claims are its module-level :class:`Claim` objects, in the order
they stand there. A theorist's own claims come from a file given by its path.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from mdpsim import papers
from mdpsim.arrays import as_path, fail, unknown
from mdpsim.claims.claim import Claim
from mdpsim.claims.pool import FILE_MODULE, load_module


def _claims_in(module: ModuleType) -> list[Claim]:
    return [value for value in vars(module).values() if isinstance(value, Claim)]


def _modules() -> list[ModuleType]:
    """Every paper's module, and the modules inside a paper that is a package."""
    found = pkgutil.walk_packages(papers.__path__, papers.__name__ + ".")
    return [importlib.import_module(info.name) for info in sorted(found, key=lambda info: info.name)]


@cache
def _discovered() -> dict[str, Claim]:
    claims: dict[str, Claim] = {}
    for module in _modules():
        for claim in _claims_in(module):
            if claims.setdefault(claim.id, claim) is not claim:
                fail("registry", f"claim id in {module.__name__}", "be unique", repr(claim.id))
    return claims


def all_claims(*, paper: str | None = None, tag: str | None = None) -> tuple[Claim, ...]:
    """Every registered claim, in order of papers, or those of one paper or with one tag.

    Raises:
        ValueError: a paper or tag that no claim has (the nearest names are given).
    """
    claims = tuple(_discovered().values())
    if paper is not None:
        if not isinstance(paper, str) or paper not in {c.paper for c in claims}:
            unknown("all_claims", "paper", paper, {c.paper for c in claims})
        claims = tuple(c for c in claims if c.paper == paper)
    if tag is not None:
        tags = {t for c in claims for t in c.tags}
        if not isinstance(tag, str) or tag not in tags:
            unknown("all_claims", "tag", tag, tags)
        claims = tuple(c for c in claims if tag in c.tags)
    return claims


def get_claim(claim_id: str) -> Claim:
    """The claim of that id.

    Raises:
        ValueError: an id that is not registered (the nearest are given).
    """
    if not isinstance(claim_id, str) or claim_id not in _discovered():
        unknown("get_claim", "claim", claim_id, _discovered())
    return _discovered()[claim_id]


def load_claims(path: str | os.PathLike[str]) -> tuple[Claim, ...]:
    """The claims in a Python file of one's own.

    Raises:
        ValueError: no such file, a file that does not import, or one without claims.
    """
    file = as_path("load_claims", "path", path).resolve()
    if file.suffix != ".py" or not file.is_file():
        fail("load_claims", "path", "be a Python file with claims", repr(str(path)))
    try:
        module = load_module(module_name(file), str(file))
    except (Exception, SystemExit) as error:
        raise ValueError(f"load_claims: {path} does not import: {type(error).__name__}: {error}") from error
    claims = _claims_in(module)
    if not claims:
        fail("load_claims", "path", "hold at least one module-level Claim", repr(str(path)))
    return tuple(claims)


def module_name(file: Path) -> str:
    """The module name under which a claims file is loaded, in this process and in its workers."""
    return f"{FILE_MODULE}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"


def select(targets: Iterable[str]) -> list[Claim]:
    """The claims, each once, that ids, paper names and FILE.py targets name (all registered ones where there is none).

    Raises:
        ValueError: a target that is none of these.
    """
    wanted: dict[str, Claim] = {}
    targets = list(targets)
    for target in targets:
        if target.endswith(".py"):
            found: Sequence[Claim] = load_claims(target)
        elif "/" in target:
            found = [get_claim(target)]
        else:
            found = all_claims(paper=target)
        for claim in found:
            if wanted.setdefault(claim.id, claim) is not claim:
                fail("select", "claim ids", "be unique over the targets", repr(claim.id))
            if _discovered().get(claim.id, claim) is not claim:  # its records would pass for the registered claim's
                fail("select", f"claim ids in {target}", "differ from those of registered claims", repr(claim.id))
    return list(wanted.values()) if targets else list(all_claims())
