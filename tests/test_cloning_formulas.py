"""The formulas of the cloning claims against binomial sums, 50-digit arithmetic and brute force."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
from scipy import stats

from mdpsim import evaluate, occupancy, sample_counts, trajectory_kl
from mdpsim.estimate.experts import optimal_expert, random_expert
from mdpsim.mdp import families
from mdpsim.papers.tiapkin2023.exact_mean import exact_mean, expected_log_ratio, poisson_log_ratio
from mdpsim.papers.tiapkin2023.finite_class import hellinger_factor, log_ratio_bound
from mdpsim.papers.tiapkin2023.minimax import bayes_risk, row_risk
from mdpsim.papers.tiapkin2023.value_limits import gap_variance, limit_constant
from mdpsim.rng import generator


@pytest.mark.parametrize("n_actions", [2, 3, 10])
@pytest.mark.parametrize("n", [1, 7, 300, 10**6])
@pytest.mark.parametrize("d", [1e-9, 0.01, 0.5, 1.0])
def test_expected_log_ratio_is_the_binomial_sum(n, d, n_actions):
    sd = np.sqrt(n * d * (1 - d))
    m = np.arange(max(0, int(n * d - 40 * sd - 40)), min(n, int(n * d + 40 * sd + 40)) + 1)
    exact = stats.binom.pmf(m, n, d) @ np.log1p((n_actions - 1) / (m + 1))
    assert float(expected_log_ratio(np.array(d), n, n_actions)) == pytest.approx(exact, rel=1e-9 if n > 1000 else 1e-13)


def test_expected_log_ratio_to_fifty_digits():
    """The same sum in 50 digits, where scipy's probabilities are off in the tenth."""
    with mpmath.workdps(50):
        n, d, a = 2000, mpmath.mpf(3) / 10, 4
        total = mpmath.fsum(mpmath.binomial(n, m) * d**m * (1 - d) ** (n - m) * mpmath.log(mpmath.mpf(m + a) / (m + 1))
                            for m in range(n + 1))
    assert float(expected_log_ratio(np.array(0.3), n, a)) == pytest.approx(float(total), rel=1e-13)


TABLE = [(0.1, 0.106), (0.3, 0.296), (1, 0.784), (3, 1.407), (10, 1.807), (30, 1.934), (100, 1.980)]


@pytest.mark.parametrize(("x", "seen"), TABLE)
def test_rare_states_are_the_theorys_numbers(x, seen):
    """The theory's table of x E log((n+A)/(n+1)) at A = 3, and the Poisson sum itself; below (A-1)(1-e^-x) and x log A."""
    m = np.arange(400)
    exact = x * (stats.poisson.pmf(m, x) @ np.log((m + 3) / (m + 1)))
    value = x * float(poisson_log_ratio(x, 3))
    assert value == pytest.approx(exact, rel=1e-12)
    assert value == pytest.approx(seen, abs=6e-4)
    assert value <= min(2 * -np.expm1(-x), x * np.log(3))


def test_exact_mean_of_a_tiny_problem_by_enumeration():
    """All sequences of two demonstrations of a deterministic expert, add-one by hand."""
    mdp = families.random_mdp(S=2, A=3, H=2, rng=0)
    expert = families.random_deterministic_policy(S=2, A=3, H=2, rng=1)
    d, total = occupancy(mdp, expert), 0.0
    for h, s in itertools.product(range(2), range(2)):
        for visits in itertools.product((0, 1), repeat=2):
            p = np.prod([d[h, s] if v else 1 - d[h, s] for v in visits])
            total += d[h, s] * p * np.log((sum(visits) + 3) / (sum(visits) + 1))
    assert exact_mean(mdp, expert, 2) == pytest.approx(total, rel=1e-13)


@pytest.mark.parametrize(("n", "seen"), [(10, 0.7035), (100, 0.9519), (1000, 0.9939), (10_000, 0.9993)])
def test_row_risk_is_the_theorys(n, seen):
    assert n * row_risk(n, 3) == pytest.approx(seen, abs=6e-5)


@pytest.mark.parametrize("n", [0, 1, 50])
def test_one_action_has_no_risk(n):
    assert row_risk(n, 1) == 0.0
    assert bayes_risk(n + 1, 3, 1, 2) == 0.0


@pytest.mark.parametrize(("n", "n_actions"), [(0, 2), (1, 2), (5, 3), (3, 4)])
def test_row_risk_by_integration(n, n_actions):
    """The Dirichlet integrals of p log(p / q) in 30 digits: E over p ~ Beta(1, A-1) of one action, given its count m."""
    with mpmath.workdps(30):
        total = mpmath.mpf(0)
        for m in range(n + 1):
            def integrand(p, m=m):
                density = (n_actions - 1) * (1 - p) ** (n_actions - 2)
                seen = mpmath.binomial(n, m) * p**m * (1 - p) ** (n - m)
                return density * seen * p * mpmath.log(p * (n + n_actions) / (m + 1))

            total += mpmath.quad(integrand, [0, 0.5, 1])
    assert row_risk(n, n_actions) == pytest.approx(float(n_actions * total), rel=1e-12)


def test_bayes_risk_is_the_theorys_and_a_sum():
    assert 400 * bayes_risk(400, 4, 3, 2) == pytest.approx(7.668, abs=6e-4)
    n = np.arange(41)
    direct = 2 * stats.binom.pmf(n, 40, 0.25) @ [row_risk(int(k), 3) for k in n]
    assert bayes_risk(40, 4, 3, 2) == pytest.approx(direct, rel=1e-12)
    assert bayes_risk(50, 1, 3, 2) == pytest.approx(2 * row_risk(50, 3), rel=1e-12)


def test_hellinger_factor_bounds_kl_and_is_attained():
    """KL <= c(W) D^2 for random laws, with W the largest ratio; two points come arbitrarily near."""
    rng = generator(0)
    for size in (2, 3, 10):
        for scale in (0.01, 1.0, 5.0):
            p, q = rng.dirichlet(np.ones(size)), rng.dirichlet(np.ones(size))
            q = p * np.exp(scale * rng.normal(size=size)) if scale < 5 else q
            q /= q.sum()
            kl, d2 = (p * np.log(p / q)).sum(), ((np.sqrt(p) - np.sqrt(q)) ** 2).sum()
            factor = hellinger_factor(float(np.log(p / q).max()))
            assert kl <= factor * d2 * (1 + 1e-9)
            assert 2.0 <= factor <= 2.0 + np.log(p / q).max() + 1e-12
    w = 8.0  # p/q = w on a rare point, about 1 elsewhere: the rest of both divergences is of second order
    p = 1e-7
    kl = p * np.log(w) + (1 - p) * (np.log1p(-p) - np.log1p(-p / w))
    d2 = (np.sqrt(p) - np.sqrt(p / w)) ** 2 + (np.sqrt(1 - p) - np.sqrt(1 - p / w)) ** 2
    assert kl / d2 == pytest.approx(hellinger_factor(np.log(w)), rel=1e-5)
    low, high = hellinger_factor(2e-3 * (1 - 1e-9)), hellinger_factor(2e-3 * (1 + 1e-9))
    assert low == pytest.approx(high, rel=1e-9)  # the series meets the formula


def test_log_ratio_bound_by_enumeration():
    """At least the largest log ratio over all trajectories of a tiny MDP."""
    mdp = families.random_mdp(S=2, A=2, H=2, rng=1)
    expert = random_expert(S=2, A=2, H=2, support=2, rng=2)
    others = np.stack([random_expert(S=2, A=2, H=2, support=2, rng=i) for i in range(3, 6)])
    worst = max(
        np.log(expert[0, 0, a]) - np.log(q[0, 0, a]) + np.log(expert[1, s, b]) - np.log(q[1, s, b])
        for q in others for a in range(2) for s in range(2) for b in range(2)
    )
    found = log_ratio_bound(mdp, expert, others)
    assert worst <= found <= 2 * worst + 5
    assert log_ratio_bound(mdp, expert, expert[None]) == 0.0


def test_gap_variance_and_limit_constant_of_one_stage():
    """One state, one stage: Var of r under the expert; B = sum over the other arms of the reward lost."""
    mdp, pi = families.bandit([1.0, 0.4, 0.1]), np.array([[[0.5, 0.3, 0.2]]])
    mean = 0.5 + 0.12 + 0.02
    variance = 0.5 + 0.3 * 0.16 + 0.2 * 0.01 - mean**2
    assert gap_variance(mdp, pi) == pytest.approx((variance, variance))
    assert limit_constant(mdp, optimal_expert(mdp), own=False) == pytest.approx(0.6 + 0.9)


def test_the_limits_own_values_differ_off_the_experts_states():
    """An action that leads off the expert's states: the clone is uniform there, and never learns better."""
    for seed in range(5):
        mdp = families.random_deterministic(S=5, A=3, H=4, rng=seed)
        expert = optimal_expert(mdp)
        own, right = (limit_constant(mdp, expert, own=flag) for flag in (True, False))
        assert right >= own - 1e-12  # uniform off the path is no better than optimal there
    n = 10**9
    counts = sample_counts(mdp, expert, n, 0)
    clone = (counts.visits + 1) / (counts.visits.sum(axis=-1, keepdims=True) + 3)
    lost = evaluate(mdp, expert).J - evaluate(mdp, clone).J
    assert n * lost == pytest.approx(right, rel=1e-6)
    assert trajectory_kl(mdp, expert, clone) > 0
