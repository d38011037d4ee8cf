"""Within-trial axes: a learning curve is judged as the same numbers at points of the grid would be.

Size: at a true slope at the edge of the margin, support comes at most about once in a hundred (0.01 plus 4 standard errors).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdpsim import Claim, Identity, Mean, Paper, Point, Rate, Store, Twin, judge, per_seed, product, run, verify
from mdpsim.claims.records import Records
from mdpsim.claims.within import unfold
from mdpsim.plots import claim_figure

NS = (10, 30, 100, 300, 1000)
PAPER = Paper(key="within", authors="Nobody", title="t", venue="v", year=2026)


@per_seed
def running_error(point, rng):
    """Squared error of the running mean of one stream of n uniform numbers, after n = 10 .. 1000: E = 1 / (12 n)."""
    means = np.cumsum(rng.random(NS[-1]))[np.array(NS) - 1] / NS
    return {"value": (means - 0.5) ** 2, "noise": point["sd"] ** 2}


@per_seed
def running_error_on_grid(point, rng):
    """The same numbers, one point of the grid at a time."""
    n = point["n_samples"]
    return {"value": float((np.cumsum(rng.random(NS[-1]))[n - 1] / n - 0.5) ** 2), "noise": point["sd"] ** 2}


def exact(point):
    return 1 / (12 * point["n_samples"])


def too_fast(point):
    return 1 / point["n_samples"] ** 2


GRID = {"smoke": product(family=("a", "b"), sd=(1.0,))}
TWINS = (Twin("squared", "n^-2", "a slope 1 away", rule=Rate(axis="n_samples", bound=too_fast)),)
curves = Claim(
    id="within/curves", statement="The squared error of a running mean is 1/(12 n).", origin="derived", cites=(PAPER,),
    grid=GRID, measure=running_error, rule=Rate(axis="n_samples", bound=exact), twins=TWINS, seeds={"smoke": 400},
    within={"n_samples": NS},
)
WIDE = {"smoke": product(family=("a", "b"), sd=(1.0,), n_samples=NS)}


def as_grid():
    """The claim with the axis in the grid and common draws along it: the same id, so the same streams."""
    return Claim(
        id=curves.id, statement=curves.statement, origin="derived", cites=(PAPER,), grid=WIDE, measure=running_error_on_grid,
        rule=curves.rule, twins=TWINS, seeds=curves.seeds, draws=("family", "sd"),
    )


def test_a_curve_is_judged_as_points_that_share_draws():
    verdict = verify(curves, preset="smoke")
    other = verify(as_grid(), preset="smoke")
    assert verdict.status == other.status == "supported"
    assert verdict.twin_status == "rejected"
    one, two = ([(p.point, p.estimate, p.interval) for p in v.points] for v in (verdict, other))
    assert one == two
    assert verdict.n_trials == 800  # not 4000: a curve is one trial


def test_other_rules_see_the_axis_too():
    twin = Twin("squared", "n^-2", "a factor of up to 80", rule=Mean(bound=too_fast))
    mean = replace(curves, rule=Mean(bound=exact, margin=0.5), twins=(twin,))
    verdict = verify(mean, preset="smoke")
    assert len(verdict.points) == 2 * len(NS)
    assert {p.point["n_samples"] for p in verdict.points} == set(NS)
    assert verdict.status == "supported"


def test_curves_go_through_a_store_and_into_a_figure(tmp_path):
    with Store(tmp_path / "s.db") as store:
        records = run(curves, preset="smoke", store=store, jobs=1)
    column = records.arms["claim"][Point(family="a", sd=1.0)]["value"]
    assert column.shape == (400, len(NS))
    np.testing.assert_array_equal(column, run(curves, preset="smoke").arms["claim"][Point(family="a", sd=1.0)]["value"])
    figure = claim_figure(curves, records, judge(curves, records))
    assert figure.axes[0].get_xscale() == "log"
    drawn = max(figure.axes[0].lines, key=lambda line: len(line.get_xdata()))
    assert list(drawn.get_xdata()) == list(NS)


def random_walk_records(slope, seed, n=60):
    """Curves with the stated slope whose values along the axis are strongly dependent, lognormal at every position."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 0.25, (n, len(NS))), axis=1) - 0.03125 * np.arange(1, len(NS) + 1)  # E exp = 1
    values = np.array(NS) ** slope * np.exp(walk)
    point = Point(family="a", sd=1.0)
    return Records("within/curves", 1, "smoke", 0, {"claim": {point: {"value": values}}})


def test_size_and_power_on_dependent_curves():
    claim = replace(
        curves, grid={"smoke": product(family=("a",), sd=(1.0,))}, seeds={"smoke": 60}, rule=Rate(axis="n_samples", slope=-1.0),
        twins=(Twin("flat", "slope 0", "1", rule=Rate(axis="n_samples", slope=0.0)),),
    )
    edge = [judge(claim, random_walk_records(-0.9, seed)).status for seed in range(600)]
    assert edge.count("supported") <= 600 * (0.01 + 4 * np.sqrt(0.01 / 600))
    away = [judge(claim, random_walk_records(-0.5, seed)).status for seed in range(50)]
    assert away.count("refuted") == 50
    true = [judge(claim, random_walk_records(-1.0, seed)).status for seed in range(200)]
    assert true.count("refuted") <= 200 * (0.01 + 4 * np.sqrt(0.01 / 200))
    assert true.count("supported") > 0


@pytest.mark.parametrize(("change", "message"), [
    ({"within": {"n_samples": (10, 30)}}, "have three or more values of 'n_samples' on every line"),
    ({"within": {"n_samples": (10, 30, 30)}}, r"within\['n_samples'\] must be two or more increasing numbers"),
    ({"within": {"n_samples": "abc"}}, "increasing numbers"),
    ({"within": {"n_samples": (0, 1, 2)}}, "as a positive number in every point"),
    ({"within": {"sd": (1, 2, 3)}}, "within must name an axis that the grid does not have; got 'sd'"),
    ({"within": {"other": (1, 2, 3)}}, "have its axis 'n_samples' as a positive number"),
    ({"within": {"n_samples": NS, "t": NS}}, "map the name of one axis to its values"),
    ({"within": {}}, "have its axis 'n_samples' as a positive number"),
])
def test_bad_declarations(change, message):
    with pytest.raises(ValueError, match=message):
        replace(curves, **change)


def test_curves_of_another_length_and_rules_that_want_a_number():
    records = run(curves, preset="smoke")
    with pytest.raises(ValueError, match="'value' must have one value for each of the 4 of 'n_samples'; got 5 values a trial"):
        judge(replace(curves, within={"n_samples": NS[:-1]}), records)
    plain = replace(
        curves, within={}, rule=Identity(tol={"value": 1.0}), twins=(Twin("t", "s", "d", rule=Identity(tol={"value": 0.0})),)
    )
    with pytest.raises(ValueError, match="hold one number a trial"):
        judge(plain, records)
    assert unfold(plain, records) == (plain, records)
