"""Policy gradients: against finite differences, the Fisher matrix, brute-force enumeration and exact laws of the estimators."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import special, stats

from mdpsim.align.gradient import (
    Softmax,
    TokenSoftmax,
    ascend,
    exact_gradient,
    flow,
    natural_gradient,
    sampled_gradient,
)
from mdpsim.align.objectives import Distribution, EntropyReward, KLReward, Reward
from mdpsim.solve.sequence import kl, tilt

ALPHA, SEED = 1e-4, 20221101
POLICIES = [Softmax(9), TokenSoftmax(3, 2), TokenSoftmax(2, 3)]


def setting(policy, seed=0):
    rng = np.random.default_rng(seed)
    k = len(policy.log_pi(np.zeros(policy.size)))
    prior = rng.dirichlet(np.ones(k))
    return rng.normal(size=policy.size), rng.normal(size=k), prior


def objectives(r, prior):
    target = tilt(prior, r, 0.4).pi
    return [Reward(r), KLReward(r, prior, beta=0.7), EntropyReward(r, prior, alpha=0.3, beta=0.2), Distribution(target)]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("which", range(4))
def test_gradient_is_the_derivative_of_the_value(policy, which):
    """Central differences of J, for every objective and parametrisation; another objective's gradient is rejected."""
    theta, r, prior = setting(policy)
    every = objectives(r, prior)
    found = exact_gradient(policy, theta, every[which])
    h = 1e-6
    for i in range(policy.size):
        e = np.zeros(policy.size)
        e[i] = h
        slope = (every[which].value(policy.log_pi(theta + e)) - every[which].value(policy.log_pi(theta - e))) / (2 * h)
        assert found[i] == pytest.approx(slope, abs=1e-8)
    assert np.abs(found - exact_gradient(policy, theta, every[which - 1])).max() > 1e-3


def test_values_are_their_definitions():
    policy = Softmax(9)
    theta, r, prior = setting(policy)
    pi = special.softmax(theta)
    reward, kl_reward, entropy, distribution = objectives(r, prior)
    log_pi = policy.log_pi(theta)
    assert reward.value(log_pi) == pytest.approx(pi @ r, abs=1e-15)
    assert kl_reward.value(log_pi) == pytest.approx(pi @ r - 0.7 * kl(pi, prior), abs=1e-14)
    assert entropy.value(log_pi) == pytest.approx(pi @ r + 0.3 * special.entr(pi).sum() - 0.2 * kl(pi, prior), abs=1e-14)
    assert distribution.value(log_pi) == pytest.approx(-kl(tilt(prior, r, 0.4).pi, pi), abs=1e-14)
    assert kl_reward.optimum() == pytest.approx(tilt(prior, r, 0.7).pi, abs=1e-15)


def test_token_policy_is_its_enumeration():
    """log pi of each response by a walk down the tree, in the order that is stated."""
    policy = TokenSoftmax(3, 3)
    theta = np.random.default_rng(1).normal(size=policy.size)
    tables, log_pi = policy.tables(theta), policy.log_pi(theta)
    for number, x in enumerate(itertools.product(range(3), repeat=3)):
        total, prefix = 0.0, 0
        for t, a in enumerate(x):
            total += tables[t][prefix, a] - special.logsumexp(tables[t][prefix])
            prefix = 3 * prefix + a
        assert log_pi[number] == pytest.approx(total, abs=1e-14)


def test_natural_gradient_solves_with_the_fisher_matrix():
    theta, r, prior = setting(Softmax(9))
    pi = special.softmax(theta)
    fisher = np.diag(pi) - np.outer(pi, pi)
    for objective in objectives(r, prior):
        expected = np.linalg.pinv(fisher, rcond=1e-12) @ exact_gradient(Softmax(9), theta, objective)
        assert natural_gradient(Softmax(9), theta, objective) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("policy", POLICIES[:2], ids=str)
@pytest.mark.parametrize("which", range(4))
def test_sampled_gradient_is_unbiased_with_any_baseline(policy, which):
    """Mean of 2000 estimates from 50 draws against the exact gradient: a chi-square bound by Bonferroni over coordinates."""
    theta, r, prior = setting(policy)
    objective = objectives(r, prior)[which]
    exact, rng = exact_gradient(policy, theta, objective), np.random.default_rng(SEED + which)
    for baseline in (0.0, 1.3, "leave-one-out"):
        every = np.array([sampled_gradient(policy, theta, objective, 50, rng, baseline=baseline) for _ in range(2000)])
        z = (every.mean(axis=0) - exact) / (every.std(axis=0) / np.sqrt(len(every)))
        assert np.abs(z).max() < stats.norm.isf(ALPHA / 2 / policy.size)
    biased = every - exact + exact_gradient(policy, theta, objectives(r, prior)[which - 1])
    assert np.abs((biased.mean(axis=0) - exact) / (every.std(axis=0) / np.sqrt(len(every)))).max() > 10


def test_estimated_partition_function_is_consistent():
    """With Z from the sample the estimate tends to the exact gradient like 1 / sqrt(n)."""
    policy = Softmax(9)
    theta, r, prior = setting(policy)
    objective = Distribution(7.0 * tilt(prior, r, 0.4).pi)
    assert pytest.approx(7.0) == objective.Z
    exact, rng = exact_gradient(policy, theta, objective), np.random.default_rng(SEED)
    errors = []
    for n in (100, 1600):
        every = np.array([sampled_gradient(policy, theta, objective, n, rng, estimate_Z=True) for _ in range(200)])
        errors.append(((every - exact) ** 2).sum(axis=1).mean())
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.5)


def test_steps_and_flow_follow_what_is_known():
    """Natural steps tilt the prior exactly; the flow keeps its invariant; KL steps and GDC steps find the posterior."""
    _, r, prior = setting(Softmax(9))
    start = np.log(prior)
    path = ascend(Softmax(9), start, Reward(r), eta=0.5, steps=20, natural=True, every=7)
    assert path.time.tolist() == [0.0, 3.5, 7.0, 10.0]
    for tau, log_pi in zip(path.time[1:], path.log_pi[1:], strict=True):
        assert np.exp(log_pi) == pytest.approx(tilt(prior, r, 1 / tau).pi, abs=1e-13)
    assert path.top == pytest.approx(np.exp(path.log_pi).max(axis=1))
    assert path.perplexity == pytest.approx(np.exp(path.entropy))
    posterior = tilt(prior, r, 2.0).pi
    for objective, eta in ((KLReward(r, prior, beta=2.0), 1.0), (Distribution(posterior), 1.0)):
        end = ascend(Softmax(9), start, objective, eta=eta, steps=20_000, every=20_000).log_pi[-1]
        assert np.exp(end) == pytest.approx(posterior, abs=1e-8)
    times = np.array([10.0, 1e3])
    path = flow(Softmax(9), start, Reward(r), times, rtol=1e-12)
    best, worst = r.argmax(), r.argmin()  # e^{-theta_j} - e^{-theta_*} grows as Delta_j I(t): two arms give the same I
    integral = []
    for j in (worst, np.argsort(r)[-2]):
        grown = np.exp(-path.theta[:, j]) - np.exp(-path.theta[:, best]) - 1 / prior[j] + 1 / prior[best]
        integral.append(grown / (r[best] - r[j]))
    assert integral[0] == pytest.approx(integral[1], rel=1e-7)


def test_flow_from_time_zero_is_the_start():
    path = flow(Softmax(3), [0.0, 1.0, 2.0], Reward([1.0, 0.0, 0.0]), [0.0])
    assert path.theta.tolist() == [[0.0, 1.0, 2.0]]


THREE, ZEROS = (Softmax(3), np.zeros(3)), (np.zeros(3), Reward(np.zeros(3)))
BAD = [
    (lambda: Reward([0.0, -np.inf]), "Reward: r must be finite"),
    (lambda: KLReward([0.0, 1.0], [0.5, 0.5], beta=0.0), "KLReward: beta must be positive"),
    (lambda: KLReward([0.0, 1.0], [0.5, 0.5], beta=-1.0), "KLReward: beta must be"),
    (lambda: KLReward([0.0, 1.0], [0.0, 1.0], beta=1.0), "KLReward: pi0 must be positive"),
    (lambda: Distribution([0.0, 0.0]), "Distribution: target must be nonnegative"),
    (lambda: Distribution([0.5, 0.5], pi0=[1.0, 0.0]), "Distribution: target must stay on the support of pi0; got mass at 1"),
    (lambda: Distribution([1e308, 1e308]), "Distribution: target must be nonnegative"),
    (lambda: exact_gradient(*THREE, None), "exact_gradient: objective must be an objective"),  # type: ignore[arg-type]
    (lambda: Distribution([1.0, -1.0]), "Distribution: target must be nonnegative"),
    (lambda: exact_gradient(*THREE, Reward([0.0, 1.0])), "exact_gradient: objective must be about K = 3"),
    (lambda: exact_gradient(*THREE, Distribution([0.5, 0.5])), "exact_gradient: objective must be about K = 3"),
    (lambda: exact_gradient("softmax", np.zeros(3), Reward([0.0, 1.0])), "exact_gradient: policy must be"),  # type: ignore[arg-type]
    (lambda: exact_gradient(TokenSoftmax(16, 9), np.zeros(3), Reward([0.0])), "exact_gradient: policy must have at most"),
    (lambda: exact_gradient(Softmax(3), np.zeros(2), Reward(np.zeros(3))), "exact_gradient: theta must have shape"),
    (lambda: natural_gradient(TokenSoftmax(3, 1), np.zeros(3), Reward(np.zeros(3))), "natural_gradient: policy must be"),  # type: ignore[arg-type]
    (lambda: sampled_gradient(*THREE, Reward(np.zeros(3)), 0, 0), "sampled_gradient: n must be"),
    (lambda: sampled_gradient(*THREE, Reward(np.zeros(3)), 1, 0, baseline="leave-one-out"), "sampled_gradient: n must be"),
    (lambda: sampled_gradient(*THREE, Reward(np.zeros(3)), 5, 0, baseline="mean"), "sampled_gradient: baseline must be"),
    (lambda: sampled_gradient(*THREE, Reward(np.zeros(3)), 5, 0, estimate_Z=True), "sampled_gradient: estimate_Z must be"),
    (lambda: ascend(*THREE, Reward(np.zeros(3)), eta=0.0, steps=3), "ascend: eta must be"),
    (lambda: ascend(TokenSoftmax(3, 1), *ZEROS, eta=1.0, steps=3, natural=True), "ascend: natural must"),
    (lambda: flow(*THREE, Reward(np.zeros(3)), [2.0, 1.0]), "flow: times must be increasing"),
    (lambda: flow(*THREE, Reward(np.zeros(3)), [1.0], rtol=0.5), "flow: rtol must be"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_leaves_float64_is_an_error():
    """Steps and flows that cannot be followed end with a message; they neither hang nor return NaN."""
    with pytest.raises(ValueError, match="natural_gradient: theta must be a policy at which"):
        natural_gradient(Softmax(3), [1e4, 0.0, 0.0], Distribution([0.2, 0.3, 0.5]))
    with pytest.raises(ValueError, match="ascend: eta must keep the parameters within float64"):
        ascend(*THREE, KLReward([1.0, 0.0, 0.0], [0.2, 0.3, 0.5], beta=1.0), eta=1e200, steps=9, natural=True)
    with pytest.raises(RuntimeError, match="flow: "):
        flow(Softmax(3), np.zeros(3), Reward([1e300, 0.0, 0.0]), [1.0, 1e6])
