"""The formulas inside the claims of the papers, on instances worked out by hand or by the theory's own numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mdpsim import trajectory_kl
from mdpsim.claims.claim import Point
from mdpsim.mdp import families
from mdpsim.mdp.token import TokenMDP
from mdpsim.papers.korbak2022.bounds import LEVELLED, NAMED, levelled_instance
from mdpsim.papers.korbak2022.collapse import gradient, natural_step
from mdpsim.papers.korbak2022.temperature import log_miss
from mdpsim.papers.korbak2022.token_level import random_tree
from mdpsim.papers.tiapkin2023.bounds import hit_rate, random_instance
from mdpsim.papers.tiapkin2023.curvature import measure_curvature
from mdpsim.papers.tiapkin2023.value_gap import first_order_loss, lost_value
from mdpsim.rng import generator
from mdpsim.solve.exact import evaluate, occupancy, solve_hard

EPS = np.finfo(float).eps


def test_local_slopes_of_the_five_arms() -> None:
    """The theory's table: slopes of log(1 - pi*(M)) in 1/beta along beta = .2, .1, .05, .03, .02, .01."""
    levels = levelled_instance("five-arms", generator(0))
    values = [(1 / beta, log_miss(levels, 1 / beta)) for beta in (0.2, 0.1, 0.05, 0.03, 0.02, 0.01)]
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.pairwise(values)]
    assert slopes == pytest.approx([-0.2231, -0.2458, -0.24975, -0.24999, -0.25], abs=6e-5)


def test_collapse_of_the_six_arms() -> None:
    """The theory's table: 1 - pi(M) at tau = 20 and 40, measured and predicted."""
    levels = levelled_instance("six-arms", generator(0))
    assert np.exp([log_miss(levels, 20.0), levels.log_miss(20.0)]) == pytest.approx([2.4819e-3, 2.4788e-3], rel=3e-4)
    assert np.exp([log_miss(levels, 40.0), levels.log_miss(40.0)]) == pytest.approx([6.1442e-6, 6.1442e-6], rel=1e-4)


@pytest.mark.parametrize("family", [*NAMED, *LEVELLED])
def test_the_remainder_bounds_and_levels_are_what_they_say(family: str) -> None:
    for seed in range(20):
        levels = levelled_instance(family, generator(seed))
        top = np.sort(np.unique(levels.rewards))[::-1]
        assert (levels.gap, levels.third_gap) == (top[0] - top[1], top[0] - top[2])
        assert levels.prior.sum() == pytest.approx(1.0, abs=8 * EPS)
        assert levels.prior.min() > 0.0
        for tau in (1.0, 7.0):
            odds = levels.prior * np.exp(tau * (levels.rewards - 1.0))
            miss = np.log(odds[~levels.best].sum() / odds.sum())
            assert abs(miss - levels.log_miss(tau)) <= levels.remainder(tau)
            assert levels.log_miss(tau) + levels.correction(tau) == pytest.approx(miss, abs=1e-13)
            assert log_miss(levels, tau) == pytest.approx(miss, abs=1e-13)


def test_natural_step_is_the_pseudo_inverse() -> None:
    rng = generator(3)
    pi, rewards = rng.dirichlet(np.ones(5)), rng.random(5)
    slope, fisher = gradient(pi, rewards)
    assert fisher == pytest.approx(np.diag(pi) - np.outer(pi, pi), abs=4 * EPS)
    assert slope == pytest.approx(pi * (rewards - pi @ rewards), abs=4 * EPS)
    assert natural_step(pi, rewards) == pytest.approx(np.linalg.pinv(fisher) @ slope, abs=1e-12)
    assert natural_step(pi, rewards) == pytest.approx(rewards - rewards.mean(), abs=1e-12)


def test_the_token_tree_enumerates_responses() -> None:
    """A response's reward and probability are those of its path, first token most significant."""
    V, L = 3, 3
    rewards = np.arange(float(V**L))
    mdp = TokenMDP(rewards[None], vocabulary=V, length=L)
    prior, _ = random_tree(Point(vocabulary=V, length=L, family="dense"), generator(1))
    log_p = mdp.responses(prior).log_prob[0]
    for i, tokens in enumerate(itertools.product(range(V), repeat=L)):
        path = np.zeros((L, mdp.S, V))
        path[np.arange(L), :, list(tokens)] = 1.0
        assert rewards[i] == evaluate(mdp, path).J
        assert -trajectory_kl(mdp, path, prior) == pytest.approx(log_p[i], abs=1e-13)
    assert np.exp(log_p).sum() == pytest.approx(1.0, abs=1e-14)


def test_a_response_ends_at_its_end_token() -> None:
    """Token 0 ends a response."""
    prior, _ = random_tree(Point(vocabulary=2, length=3, family="stop"), generator(1))
    log_p = TokenMDP(np.zeros((1, 8)), vocabulary=2, length=3).responses(prior).log_prob[0]
    possible = {t for t, p in zip(itertools.product((0, 1), repeat=3), log_p, strict=True) if p > -np.inf}
    assert possible == {(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)}


def test_first_order_loss_by_hand() -> None:
    """Two arms, one paying: A V - sum Q = 1, visited surely: f(N) = 1/(N+1); the clone loses 1/(N+2)."""
    mdp = families.bandit(np.array([1.0, 0.0]))
    expert = np.array([[[1.0, 0.0]]])
    assert first_order_loss(mdp, expert, 9) == pytest.approx(0.1, abs=2 * EPS)
    assert lost_value(mdp, expert, np.array([[[10 / 11, 1 / 11]]])) == pytest.approx(1 / 11, abs=2 * EPS)
    assert hit_rate(np.array([0.0, 0.3, 1.0]), 2) == pytest.approx([0.0, 1 - 0.7**3, 1.0], abs=2 * EPS)


def test_first_order_loss_is_the_derivative_of_the_value() -> None:
    """Mix t of "uniform among the other actions" where the expert goes, uniform elsewhere: f weighs each state's slope."""
    mdp = random_instance("dirichlet", generator(5))
    expert = np.eye(mdp.A)[solve_hard(mdp).Q.argmax(axis=-1)]
    d, n = occupancy(mdp, expert), 10**9
    weight = np.where(d > 0, hit_rate(d, n) / np.where(d > 0, d, 1.0), 0.0)[..., None] / (n + 1)  # E[1/(n_h(s)+1)]
    clone = np.where(d[..., None] > 0, expert + weight * (1.0 - mdp.A * expert), 1.0 / mdp.A)
    assert lost_value(mdp, expert, clone) == pytest.approx(first_order_loss(mdp, expert, n), rel=1e-5)


def test_curvature_of_the_two_actions() -> None:
    """V* - V = beta log cosh(M / (2 beta)) and the bound M^2 / (8 beta)."""
    found = measure_curvature(Point(family="two-action", beta=0.5, error=2.0), [1])
    assert found["value"][0] == pytest.approx(0.5 * np.log(np.cosh(1.0)), abs=1e-14)
    assert found["bound"][0] == pytest.approx(0.25, abs=1e-15)
