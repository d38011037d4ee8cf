"""Conformance of whatever claims were discovered: a new paper file is tested by adding it, with no edit here."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mdpsim import Claim, Mean, Rate, all_claims, get_claim, judge, load_claims, papers, run
from mdpsim.claims.claim import CLAIM_ARM, PRESETS
from mdpsim.claims.records import Records
from mdpsim.claims.rules import HighProb, Identity, Inequality, Limit, Order
from mdpsim.registry import select
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, REJECTED, SUPPORTED
from mdpsim.versions import install_hint, lacking

CLAIMS = all_claims()
ARMS = [(claim, arm) for claim in CLAIMS for arm in claim.plan("smoke")]


def _able(claim: Claim, *more: str) -> object:
    """A case, skipped where what the claim's measure imports is not installed."""
    absent = lacking(claim.needs)
    skip = pytest.mark.skipif(bool(absent), reason=install_hint(absent))
    return pytest.param(claim, *more, id="-".join((claim.id, *more)), marks=skip)


each = pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: c.id)
each_measured = pytest.mark.parametrize("claim", [_able(claim) for claim in CLAIMS])


def test_discovery_is_by_file_and_ids_follow_the_file() -> None:
    files = {p.stem for p in Path(papers.__path__[0]).glob("[!_]*")}
    assert {c.paper for c in CLAIMS} == files
    assert len({c.id for c in CLAIMS}) == len(CLAIMS)
    five = {"korbak2022/elbo-identity", "korbak2022/posterior-optimum", "tiapkin2023/reduction", "tiapkin2023/bc-sharp-mean",
            "tiapkin2023/bc-rate"}
    assert five <= {c.id for c in CLAIMS}
    assert all(get_claim(c.id) is c for c in CLAIMS)


@each
def test_presets_trials_and_citation(claim: Claim) -> None:
    assert set(claim.grid) >= {"smoke", "quick", "paper"}
    trials = {p: sum(sum(points.values()) for points in claim.plan(p).values()) for p in PRESETS if p in claim.grid}
    assert trials["paper"] >= 10 * trials["quick"], "what one would publish has at least 10 times quick's trials"
    assert set(claim.grid["quick"]) != set(claim.grid["paper"]), "and a wider grid"
    assert all("@inproceedings{" in c.bibtex() and c.where for c in claim.cites)
    assert claim.measure.__doc__, "what is measured is said in the measure's docstring"


@each
def test_instance_axis(claim: Claim) -> None:
    """Random instances, three families or more, or fixed instances that the sentence names."""
    random, fixed = "random-instances" in claim.tags, "fixed-instances" in claim.tags
    assert not (random and fixed), "the tags exclude each other"
    for preset, points in claim.grid.items():
        families = {p.get("family") for p in points} - {None}
        assert len(families) >= 3 or random or fixed, f"{preset}: no instance axis"
        if fixed:  # by its families, or by numbers where it has none
            names = [str(f).replace("-", "[- ]") for f in families] or [r"\d"]
            unnamed = [name for name in names if not re.search(name, claim.statement, re.IGNORECASE)]
            assert not unnamed, f"{preset}: instances that the sentence does not name"


@each
def test_a_derived_claim_has_a_derivation(claim: Claim) -> None:
    """Its module's head, or that of a module it names, holds relations between formulas: a head that only tells is none."""
    head = getattr(inspect.getmodule(inspect.unwrap(claim.measure)), "__doc__", None) or ""
    root = Path(papers.__path__[0]).parents[1]
    named = [root / f"{name.replace('.', '/')}.py" for name in re.findall(r"mdpsim(?:\.\w+)+", head)]
    heads = [head, *(ast.get_docstring(ast.parse(file.read_text())) or "" for file in named if file.exists())]
    relations = sum(len(re.findall(r"<=|>=|->|=|~", text)) for text in heads)
    assert claim.origin != "derived" or relations >= 2


@each
def test_twins_state_a_distance(claim: Claim) -> None:
    assert claim.twins
    for twin in claim.twins:
        assert twin.rule != claim.rule or twin.measure is not claim.measure
        assert any(ch.isdigit() for ch in twin.distance), "how far from the truth, with a number"


@each
def test_claim_travels_to_other_processes(claim: Claim) -> None:
    for arm in claim.plan("smoke"):
        assert pickle.loads(pickle.dumps(claim.measure_of(arm))) is claim.measure_of(arm)


@pytest.mark.parametrize(("claim", "arm"), [_able(claim, arm) for claim, arm in ARMS])
def test_splits_are_bitwise(claim: Claim, arm: str) -> None:
    """measure on keys[0:n] equals measure on any split of them."""
    point = claim.grid["smoke"][-1]
    keys = [claim.trial_key(point, 7, i) for i in range(5)]
    measure = claim.measure_of(arm)
    whole = measure(point, keys)
    for cut in (1, 3):
        parts = [measure(point, keys[:cut]), measure(point, keys[cut:])]
        for name, values in whole.items():
            assert np.concatenate([p[name] for p in parts]).tobytes() == np.asarray(values).tobytes(), name


@each_measured
def test_fresh_seeds_draw_fresh_instances(claim: Claim) -> None:
    """Random instances come from the run's seed: two seeds measure different numbers at some point."""
    differs = False
    for point in claim.grid["smoke"]:
        one, two = (claim.measure(point, [claim.trial_key(point, k, 0)]) for k in (0, 1))
        differs |= any(not np.array_equal(one[name], two[name]) for name in one)
    assert differs


@each_measured
def test_columns_the_rules_read_exist(claim: Claim) -> None:
    point = claim.grid["smoke"][0]
    columns = set(claim.measure(point, [claim.trial_key(point, 0, 0)]))
    for rule in (claim.rule, *(t.rule for t in claim.twins if t.rule)):
        if isinstance(rule, Identity):
            read = {*rule.gaps, *(t for t in rule.gaps.values() if isinstance(t, str))}
        elif isinstance(rule, Order):
            read = {rule.larger, rule.smaller}
        elif isinstance(rule, Limit):
            stated = rule.law[1] if isinstance(rule.law, tuple) else rule.value
            read = {rule.of, *([stated] if isinstance(stated, str) else [])}
        else:
            assert isinstance(rule, Inequality | Mean | Rate | HighProb)
            read = {rule.of, *(q for q in (rule.bound, getattr(rule, "tol", None)) if isinstance(q, str))}
        assert read <= columns


@cache
def smoke_records(claim_id: str) -> Records:
    """One run of the smoke preset serves all that judge it."""
    return run(get_claim(claim_id), preset="smoke")


@each_measured
def test_smoke_verdict(claim: Claim) -> None:
    """At the smoke preset every claim built in is supported and every twin rejected."""
    verdict = judge(claim, smoke_records(claim.id))
    assert verdict.status == SUPPORTED, verdict.notes
    assert {t.name: t.status for t in verdict.twins} == {t.name: REJECTED for t in claim.twins}
    assert verdict.n_trials == len(claim.grid["smoke"]) * claim.seeds["smoke"]  # points that only twins visit not counted


@each_measured
def test_a_claim_made_false_is_not_supported(claim: Claim) -> None:
    """Swap each twin in for the claim: the verdict must turn to refuted, through the very same judge.

    A trial's draws do not depend on the arm, so the twin's own records are those that the swapped claim would run.
    """
    records = smoke_records(claim.id)
    for twin in claim.twins:
        false = replace(
            claim, measure=twin.measure or claim.measure, rule=twin.rule or claim.rule, grid=twin.grid or claim.grid,
            seeds=twin.seeds or claim.seeds,
        )
        verdict = judge(false, replace(records, arms=records.arms | {CLAIM_ARM: records.arms[twin.arm]}))
        assert verdict.status in (REFUTED, INCONCLUSIVE)
        assert any(p.status == REFUTED for p in verdict.points)


def test_select_and_load(tmp_path: Path) -> None:
    toy = Path(__file__).parent / "toy.py"
    claims = select([str(toy), "korbak2022", "korbak2022/elbo-identity"])
    assert claims[0].id == "toy/coins"
    assert len(claims) == 1 + len(all_claims(paper="korbak2022"))
    assert len(select([])) == len(CLAIMS)
    for target, message in (
        ("korbak2022/elbo-identiti", "nearest: korbak2022/elbo-identity"), ("korbak", "nearest: korbak2022"),
        ("none.py", "be a Python file with claims"),
    ):
        with pytest.raises(ValueError, match=message):
            select([target])
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match="hold at least one module-level Claim"):
        load_claims(tmp_path / "empty.py")
    (tmp_path / "broken.py").write_text("1/0\n")
    with pytest.raises(ValueError, match="does not import: ZeroDivisionError"):
        load_claims(tmp_path / "broken.py")


def test_unknown_paper_and_tag() -> None:
    with pytest.raises(ValueError, match=r"all_claims: paper must be one of the known names \(nearest: tiapkin2023"):
        all_claims(paper="tiapkin")
    with pytest.raises(ValueError, match="nearest: cloning"):
        all_claims(tag="clonin")
    assert "tiapkin2023/bc-rate" in {c.id for c in all_claims(tag="rate")}
    assert all("rate" in c.tags for c in all_claims(tag="rate"))


def test_papers_list_nothing() -> None:
    """Adding a paper touches no other file: neither the registry nor the package names one."""
    for name in ("registry.py", "papers/__init__.py", "__init__.py", "cli.py"):
        source = (Path(papers.__path__[0]).parent / name).read_text()
        names = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
        assert not any((n or "").startswith("mdpsim.papers.") for n in names), name
