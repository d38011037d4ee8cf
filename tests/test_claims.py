"""Claims, twins, points and rules say at construction what is wrong with them."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import toy
from mdpsim import Claim, HighProb, Identity, Inequality, Limit, Mean, Order, Point, Rate, Twin, geometric, per_seed, product
from mdpsim import rng as rng_


def test_point_is_a_value() -> None:
    p = Point(b=1, a="x")
    assert p == Point({"a": "x", "b": 1})
    assert hash(p) == hash(Point(a="x", b=1))
    assert Point(a=1) != Point(a=1.0)
    assert pickle.loads(pickle.dumps(p)) == p
    assert p.without("b") == Point(a="x")
    assert (str(p), p.json) == ("a=x, b=1", '{"a":"x","b":1}')
    with pytest.raises(KeyError, match="no axis 'c'; it has a, b"):
        p["c"]


@pytest.mark.parametrize("bad", [{"a": True}, {"a": None}, {"a": float("nan")}, {"a": float("inf")}, {"a": [1]}, {"a b": 1}])
def test_point_takes_literals_only(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="^Point: "):
        Point(bad)


def test_grids() -> None:
    assert product(a=(1, 2), b=("x",)) == (Point(a=1, b="x"), Point(a=2, b="x"))
    assert geometric(30, 3000, 3) == (30, 300, 3000)
    assert geometric(0.1, 0.9, 3) == (0.1, 0.3, 0.9)
    for bad in ((0, 1, 3), (2, 1, 3), (1, 2, 1)):
        with pytest.raises(ValueError, match="^geometric: "):
            geometric(*bad)


P = (Point(n=1), Point(n=2), Point(n=4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "Coins"}, "Claim: id must be 'paper/kebab-slug'; got 'Coins'"),
        ({"origin": "me"}, "origin must be one of paper, as-transcribed, derived, observed, folklore; got 'me'"),
        ({"statement": " "}, "statement must not be empty"),
        ({"cites": ()}, "cites must be a tuple of one or more Paper"),
        ({"measure": 3}, "measure must be a function"),
        ({"rule": "mean"}, "rule must be one of mdpsim.claims.rules"),
        ({"twins": ()}, "twins must hold at least one Twin"),
        ({"twins": (toy.coins.twins[0], toy.coins.twins[0])}, "twins must have different names"),
        ({"rev": 0}, "rev must be an integer >= 1; got 0"),
        ({"grid": {}}, "grid must map presets"),
        ({"grid": {"tiny": P}}, "grid must map presets"),
        ({"grid": {"smoke": ()}}, "must hold one or more Point"),
        ({"grid": {"smoke": (P[0], P[0])}}, "must have different points; got n=1 twice"),
        ({"seeds": {"smoke": 60}}, "seeds must have a number of trials for smoke, quick"),
        ({"seeds": {"smoke": 49, "quick": 50}}, "seeds['smoke'] must be an integer >= 50; got 49"),
        ({"rule": Inequality(), "seeds": {"smoke": 0, "quick": 1}}, "must be an integer >= 1; got 0"),
        ({"draws": ("m",)}, "draws must name axes of every point"),
        ({"rule": Rate(axis="m", slope=-1.0)}, "have its axis 'm' as a positive number"),
        ({"rule": Rate(axis="family", slope=-1.0)}, "have its axis 'family' as a positive number"),
        ({"rule": Rate(axis="n", slope=-1.0)}, "have three or more values of 'n' on every line; got 2"),
        ({"rule": Rate(axis="n", slope=-1.0), "grid": {"smoke": P}, "seeds": {"smoke": 19}}, "be an integer >= 20; got 19"),
        ({"rule": HighProb(delta=0.1), "seeds": {"smoke": 43, "quick": 44}}, "be an integer >= 44; got 43"),
        ({"rule": HighProb(delta=0.01), "seeds": {"smoke": 458, "quick": 459}}, "be an integer >= 459; got 458"),
        ({"rule": Order("a", "b"), "seeds": {"smoke": 49, "quick": 50}}, "be an integer >= 50; got 49"),
        ({"rule": Limit(1.0), "seeds": {"smoke": 49, "quick": 50}}, "be an integer >= 50; got 49"),
        ({"rule": Limit(law=("chi2", 3)), "seeds": {"smoke": 1059, "quick": 1060}}, "be an integer >= 1060; got 1059"),
    ],
)
def test_claim_guards(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="Claim") as error:
        replace(toy.coins, **change)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Twin("Half", "s", "d", rule=Mean()), lambda: Twin("claim", "s", "d", rule=Mean()),
        lambda: Twin("half", "s", "d"), lambda: Twin("half", "", "d", rule=Mean()), lambda: Twin("half", "s", " ", rule=Mean()),
        lambda: Rate(axis="n"), lambda: Rate(axis="n", slope=-1.0, bound="b"), lambda: Rate(axis="", slope=1.0),
        lambda: Rate(axis="n", slope=-1.0, side="left"), lambda: Rate(axis="n", slope=-1.0, margin=-0.1),
        lambda: Rate(axis="n", slope=float("nan")), lambda: Mean(margin=float("inf")), lambda: Mean(bound=None),  # type: ignore[arg-type]
        lambda: Inequality(of=""), lambda: Identity(float("nan")), lambda: Identity({"": 1.0}),
        lambda: HighProb(delta=0.0), lambda: HighProb(delta=1.0), lambda: HighProb(of=""), lambda: HighProb(bound=""),
        lambda: Order("a", "a"), lambda: Order("", "b"), lambda: Order("a", "b", margin=float("nan")),
        lambda: Limit(), lambda: Limit(1.0, law=("chi2", 1)), lambda: Limit(float("nan")), lambda: Limit(1.0, margin=-1.0),
        lambda: Limit(law=("chi", 1)), lambda: Limit(law="chi2"), lambda: Limit(law=("chi2", 1), margin=1.0),  # type: ignore[arg-type]
    ],
)
def test_twin_and_rule_guards(make: Any) -> None:
    with pytest.raises(ValueError, match=r"^(Twin|Rate|Mean|Inequality|Identity|HighProb|Order|Limit): .* must .*; got "):
        make()


def test_unknown_preset_gives_the_nearest() -> None:
    with pytest.raises(ValueError, match="nearest: quick"):
        toy.coins.plan("qick")


def test_plan_merges_a_statement_twin_and_separates_an_algorithm_twin() -> None:
    other = Twin("other", "s", "d", measure=toy.measure, seeds={"smoke": 55, "quick": 55})
    more = Twin("more", "s", "d", rule=Mean(), seeds={"smoke": 90, "quick": 50})
    plan = replace(toy.coins, twins=(*toy.coins.twins, other, more)).plan("smoke")
    assert set(plan) == {"claim", "other"}
    assert set(plan["claim"].values()) == {90}
    assert set(plan["other"].values()) == {55}


def test_keys_depend_on_the_drawn_axes_seed_and_trial_only() -> None:
    claim = replace(toy.coins, draws=("family",))
    a, b = Point(n=100, pause=0, family="a"), Point(n=400, pause=0, family="a")
    assert claim.trial_key(a, 0, 0) == claim.trial_key(b, 0, 0)
    assert toy.coins.trial_key(a, 0, 0) != toy.coins.trial_key(b, 0, 0)
    assert replace(claim, rev=2).trial_key(a, 0, 0) == claim.trial_key(a, 0, 0)
    keys = {claim.trial_key(p, k, i) for p in (a, Point(n=1, pause=0, family="b")) for k in range(3) for i in range(50)}
    assert len(keys) == 300


def test_generator_guards() -> None:
    assert rng_.generator(3).random() == rng_.generator(3).random()
    for bad in (-1, 2**128, 1.5, "x", True, None):
        with pytest.raises(ValueError, match="^generator: seed must "):
            rng_.generator(bad)  # type: ignore[arg-type]
    for bad in (-1, 1.5, "x", True, None, np.random.RandomState(0)):
        with pytest.raises(ValueError, match="^f: rng must be a numpy.random.Generator or an integer seed"):
            rng_.as_generator("f", bad)


def test_per_seed_splits_bitwise_and_pickles_by_name() -> None:
    point = toy.GRID["quick"][0]
    keys = [toy.coins.trial_key(point, 0, i) for i in range(7)]
    whole = toy.measure(point, keys)
    parts = [toy.measure(point, keys[:3]), toy.measure(point, keys[3:])]
    for name, values in whole.items():
        assert np.array_equal(values, np.concatenate([p[name] for p in parts]))
    assert pickle.loads(pickle.dumps(toy.measure)) is toy.measure
    assert isinstance(toy.measure, per_seed)
    assert isinstance(toy.coins, Claim)
