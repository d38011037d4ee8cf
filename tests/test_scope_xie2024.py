"""Claims of xie2024: luck is no learning, random instances are random, and sentences name class, ties and search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mdpsim import get_claim
from mdpsim.claims.claim import Point
from mdpsim.papers.xie2024 import coverage_invariance, passive, small_lm
from mdpsim.papers.xie2024.bounds import by_instance, rare_arms, two_arms
from mdpsim.rng import generator, key
from mdpsim.versions import lacking


def keys(n: int) -> list[int]:
    return [key("scope", i) for i in range(n)]


def test_random_play_reaches_and_is_not_counted() -> None:
    """Random ties meet a good policy within XPO's bound; then the first mixed pair's label, wrong with sigma(-D), decides."""
    point = Point(family="proposition", inv_eps=100.0)
    found = passive.measure_escape_random_ties(point, keys(400))
    assert np.mean(found["reached"] <= found["bound"]) > 0.9, "a first hit alone is met"
    lost = np.mean(found["settled"] > found["bound"])
    assert lost == pytest.approx(1 / (1 + np.exp(0.5)), abs=0.1)  # four standard errors
    assert np.all((found["settled"] == found["reached"]) | (found["settled"] == passive.HORIZON + 1))


def test_a_share_of_lost_runs_makes_the_time_grow() -> None:
    """Runs of T = 8/eps rounds: the mean first hit of random ties stays, the mean that counts lost runs as T grows as 1/eps."""
    first, counted = [], []
    for inv_eps in (12.0, 300.0):
        found = coverage_invariance.measure_random_ties_time(Point(family="proposition", inv_eps=inv_eps), keys(300))
        first.append(np.mean(np.minimum(found["reached"], 50)))
        counted.append(found["settled"].mean() / (8 * inv_eps))
    assert first[1] < 2 * first[0]
    assert min(counted) > 0.25  # sigma(-1/2) = 0.38 of them end at the bad arm


def test_xpo_keeps_what_it_finds() -> None:
    for family in ("proposition", "rarer", "random"):
        found = passive.measure_escape(Point(family=family, inv_eps=148.0), keys(100))
        assert np.mean(found["settled"] <= found["bound"]) > 0.9


def test_random_two_arms_are_drawn_afresh() -> None:
    many = [two_arms("random", 50.0, k) for k in keys(40)]
    assert len({x.c for x in many}) == len({x.D for x in many}) == 40, "eight fixed ones are not random"
    assert all(0.1 <= x.c <= 0.2 and 0.4 <= x.D <= 0.7 for x in many)
    again = two_arms("random", 500.0, keys(1)[0])
    assert (again.c, again.D) == (many[0].c, many[0].D), "points that share their draws share the instance"
    # pi* is in the class: rewards 1 and 1 - D, a difference of D
    for x in many[:5]:
        u = x.policies.values[:, 0, 0] - x.policies.values[:, 0, 1]
        assert np.abs(u - x.D).min() < 1e-15


def test_random_rare_arms_are_drawn_afresh_and_hold_their_optimum() -> None:
    many = [rare_arms("random", k) for k in keys(40)]
    rewards = np.array([x.mdp.r[0] for x in many])
    assert len(np.unique(rewards)) == 120
    assert np.all((rewards >= 0.0) & (rewards <= 1.0))
    assert np.all(rewards[:, 2] - rewards[:, 0] >= 0.5)
    assert np.all(rewards[:, 2] - rewards[:, 1] >= 0.25)
    for x in many[:5]:
        shifted = x.policies.values[:, 0] - x.mdp.r[0]
        assert np.ptp(shifted, axis=1).min() < 1e-15, "a member is r up to a constant"
    assert len({x.policies.n for x in many}) == 1


def test_trials_of_a_random_family_run_alone() -> None:
    assert by_instance("random", [5, 7, 5]) == {5: [0, 2], 7: [1]}
    assert by_instance("proposition", [5, 7]) == {0: [0, 1]}


def test_the_bound_is_that_of_the_instance() -> None:
    found = passive.measure_escape(Point(family="random", inv_eps=100.0), keys(10))
    c = np.array([two_arms("random", 100.0, k).c for k in keys(10)])
    assert found["bound"] == pytest.approx(2 + 20 / (1 - c), rel=1e-14)


def test_sentences_name_what_decides() -> None:
    for name in ("passive-exploration-stalls", "passive-escape-time"):
        said = get_claim(f"xie2024/{name}").statement
        assert all(part in said for part in ("ties broken towards", r"|u| \le 1"))
    for name in ("small-lm-exploration", "small-lm-regret"):
        claim = get_claim(f"xie2024/{name}")
        assert all(part in claim.statement for part in ("V^L = 4", "T = 64", "annealed search", "again at"))
        assert {(p["vocabulary"], p["length"]) for points in claim.grid.values() for p in points} == {(2, 2)}
        assert claim.origin == "observed"
    for name in ("passive-escape-time", "reward-range"):
        assert "in proportion to" in get_claim(f"xie2024/{name}").statement, "a slope does not test a constant"


def test_gaps_of_the_tilts_by_enumeration() -> None:
    """Three tokens, two steps: each policy written out response by response, its J and the optimum's by their definitions."""
    V, L, beta = 3, 2, 0.2
    rng = generator(8)
    log_ref, r = np.log(rng.dirichlet(np.ones(V**L))), rng.random(V**L)
    gaps = small_lm.tilt_gaps(small_lm.Instance(log_ref, r, beta, 0.0, 0), V, L)
    ref = np.exp(log_ref).reshape(V, V)
    first, second = ref.sum(axis=1), ref / ref.sum(axis=1, keepdims=True)
    best = beta * np.log(np.exp(log_ref + r / beta).sum())
    assert gaps[0] == pytest.approx(best - np.exp(log_ref) @ r, abs=1e-13)
    up = np.exp(small_lm.R / beta)
    for y, (a, b) in enumerate(itertools.product(range(V), repeat=L)):
        p1 = first * np.where(np.arange(V) == a, up, 1 / up)
        p1 /= p1.sum()
        J = 0.0
        for i, j in itertools.product(range(V), repeat=L):
            p2 = second[i] * (np.where(np.arange(V) == b, up, 1 / up) if i == a else 1.0)
            p = p1[i] * p2[j] / p2.sum()
            J += p * (r[i * V + j] - beta * np.log(p / ref[i, j]))
        assert gaps[1 + y] == pytest.approx(best - J, abs=1e-13)


@pytest.mark.skipif(bool(lacking(("lm",))), reason="needs torch")
def test_random_play_finds_the_good_response() -> None:
    """A tilt to the good response is near-optimal, so one round in five is: found in 64 rounds but once in a million."""
    point = small_lm.small_lm_regret.grid["smoke"][0]
    for k in keys(4):
        gaps = small_lm.tilt_gaps(small_lm.draw_instance(point, generator(k)), 2, 2)
        assert gaps.size == 5
        assert gaps[0] > small_lm.NEAR, "pi_ref is not"
        assert gaps[1:].min() < small_lm.NEAR
