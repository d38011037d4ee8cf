"""Rewards that depend on the next state: values read their mean, whatever draws or observes sees those of the transitions.

False-alarm level: ALPHA for each statistical test; each carries a control that it must reject.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

import mdpsim
from mdpsim import MDP, DiscountedMDP, Successors, from_matrices, sample, sample_preferences, solve_discounted, solve_soft
from mdpsim.estimate.reward import fit_reward
from mdpsim.kernels import ucbvi
from mdpsim.learn.ucbvi import UCBVI
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families
from mdpsim.mdp.forms import NO_REWARDS

ALPHA = 1e-4
H, S, A = 3, 4, 2
RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(S), (H, S, A)) * (RNG.random((H, S, A, S)) < 0.6) + 0.2 * np.eye(S)[:, None]
P /= P.sum(axis=-1, keepdims=True)
R = RNG.normal(size=(H, S, A, S))
MU0 = np.array([0.5, 0.5, 0.0, 0.0])
PI = families.random_policy(H=H, S=S, A=A, rng=3)
ALL, ONE = slice(None), slice(0, 1)
STAGES = {"staged": (ALL, ALL), "stationary": (ONE, ONE), "P staged": (ALL, ONE), "r staged": (ONE, ALL)}


def successors(p, r):
    """The same with the next states in reverse, a padding in front whose reward is absurd, and the first id split in two."""
    ids = np.broadcast_to(np.array([2, *range(S)[::-1], 0]), (*p.shape[:-1], S + 2))
    first = p[..., :1] / 2
    prob = np.concatenate([np.zeros_like(first), p[..., :0:-1], first, first], axis=-1)
    reward = np.concatenate([np.full_like(r[..., :1], 1e300), r[..., ::-1], r[..., :1]], axis=-1)
    return Successors(ids, prob), reward


def both(p, r, **options):
    """Dense, and sparse."""
    return MDP(p, r, MU0, horizon=H, **options), MDP(*successors(p, r), MU0, horizon=H, **options)


@pytest.mark.parametrize("which", STAGES)
def test_r_is_the_mean(which):
    p, r = P[STAGES[which][0]], R[STAGES[which][1]]
    for mdp in both(p, r):
        assert mdp.r.shape == (1 if which == "stationary" else H, S, A)
        np.testing.assert_allclose(mdp.r, (p * r).sum(axis=-1), rtol=0, atol=1e-15 * np.abs(r).max() * S)
        assert mdp.r_next is not None
        assert not mdp.r.flags.writeable
        assert not mdp.r_next.flags.writeable
        assert "rewards of transitions" in repr(mdp)


def test_what_is_never_reached_may_hold_anything_finite():
    mdp, _ = both(P, R)
    odd, _ = both(P, np.where(P > 0, R, 1.7e308 * np.sign(R)))
    np.testing.assert_array_equal(odd.r, mdp.r)
    np.testing.assert_array_equal(sample(odd, PI, 500, 1).rewards, sample(mdp, PI, 500, 1).rewards)
    with pytest.raises(ValueError, match="MDP: r must be finite; got nan"):
        MDP(P, np.where(P > 0, R, np.nan), MU0)


def test_rewards_that_do_not_depend_on_it_are_those_of_the_action_to_the_last_bit():
    mean = RNG.random((H, S, A))
    given = np.where(P > 0, mean[..., None], 77.0)
    for mdp in both(P, given):
        assert mdp.r_next is None
        np.testing.assert_array_equal(mdp.r, mean)
    plain = MDP(P, mean, MU0)
    assert plain.r_next is None
    np.testing.assert_array_equal(sample(both(P, given)[0], PI, 300, 5).rewards, sample(plain, PI, 300, 5).rewards)


def test_a_mean_lies_between_its_rewards():
    p = RNG.dirichlet(np.ones(7), (1, 7, 200))
    r = np.where(RNG.random(p.shape) < 0.5, 1.0, np.nextafter(1.0, 0.0))
    assert MDP(p, r, np.eye(7)[0]).r.max() <= 1.0


def test_the_number_of_axes_decides():
    """S = A = H = 2: [H, S, A] rewards are never taken for [S, A, S'] ones."""
    p = np.full((2, 2, 2, 2), 0.5)
    three, four = np.arange(8.0).reshape(2, 2, 2), np.arange(16.0).reshape(2, 2, 2, 2)
    np.testing.assert_array_equal(MDP(p, three, [1.0, 0.0]).r, three)
    np.testing.assert_array_equal(MDP(p, four, [1.0, 0.0]).r, four.mean(axis=-1))


def test_values_are_those_of_the_mean():
    for mdp in both(P, R):
        plain = MDP(mdp.P, mdp.r, MU0)
        for one, other in ((solve_soft(m, PI, 0.3) for m in (mdp, plain)), (mdpsim.solve_hard(m) for m in (mdp, plain))):
            np.testing.assert_array_equal(one.V, other.V)
            np.testing.assert_array_equal(one.pi, other.pi)
        assert mdpsim.evaluate(mdp, PI).J == mdpsim.evaluate(plain, PI).J


@pytest.mark.parametrize("which", STAGES)
def test_samples_are_paid_their_transitions(which):
    p, r = P[STAGES[which][0]], R[STAGES[which][1]]
    whole = np.broadcast_to(r, R.shape)
    for mdp in both(p, r):
        t = sample(mdp, PI, 1500, 4)
        np.testing.assert_array_equal(t.rewards, whole[np.arange(H), t.states[:, :-1], t.actions, t.states[:, 1:]])
        plain = sample(MDP(mdp.P, mdp.r, MU0, horizon=H), PI, 1500, 4)
        np.testing.assert_array_equal(t.states, plain.states)  # what is paid steers nothing
        np.testing.assert_array_equal(t.actions, plain.actions)
        np.testing.assert_array_equal(sample(mdp, PI, 40, 4).rewards, t.rewards[:40])


def test_one_next_state_may_be_paid_in_two_ways():
    """A row that names an id twice: each entry has its own reward, and its own probability."""
    mdp = MDP(Successors([[[[0, 0, 0]]]], [[[[0.2, 0.5, 0.3]]]]), [[[[1.0, 2.0, 4.0]]]], [1.0])
    assert mdp.r[0, 0, 0] == pytest.approx(2.4, rel=1e-15)
    values, seen = np.unique(sample(mdp, [[[1.0]]], 20_000, 0).rewards, return_counts=True)
    np.testing.assert_array_equal(values, [1.0, 2.0, 4.0])
    assert stats.chisquare(seen, 20_000 * np.array([0.2, 0.5, 0.3])).pvalue > ALPHA
    assert stats.chisquare(seen, 20_000 * np.array([0.22, 0.48, 0.3])).pvalue < ALPHA


# ---- preferences


def episodes(mdp, pi, s):
    """(probability, return) of every episode of a dense MDP from state s, by enumeration."""
    def index(x, h):
        return x[min(h, len(x) - 1)]

    found = []
    for path in product(product(range(mdp.A), range(mdp.S)), repeat=mdp.H):
        p, total, at = 1.0, 0.0, s
        for h, (a, to) in enumerate(path):
            p *= pi[h, at, a] * index(mdp.P, h)[at, a, to]
            total += index(mdp.r_next, h)[at, a, to]
            at = to
        found += [(p, total)] if p > 0 else []
    return found


def bradley_terry(mdp, one, two):
    """P(label = 1), by enumeration of pairs."""
    def sigma(x):
        return 1.0 / (1.0 + np.exp(-x))

    return sum(
        mu * p * q * sigma(x - y) for s, mu in enumerate(mdp.mu0) if mu > 0
        for p, x in episodes(mdp, one, s) for q, y in episodes(mdp, two, s)
    )


def test_the_bet_is_preferred_as_often_as_it_wins():
    """faults.md F1: mean rewards are equal (labels came out at .500); by enumeration .1 sigma(9) + .9 sigma(-1) = .342."""
    p, r = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
    p[0, 0], p[1, 0], p[:, 1, 1], p[:, 2, 2] = [0, 0.1, 0.9], [0, 0, 1], 1, 1
    r[0, 0, 1], r[1, 0, 2] = 10, 1
    mdp = from_matrices(p, r, horizon=1, mu0=[1, 0, 0], layout="mdptoolbox").mdp
    always = [np.broadcast_to(np.eye(2)[a], (1, 3, 2)) for a in range(2)]
    law = bradley_terry(mdp, *always)
    assert law == pytest.approx(0.1 / (1 + np.exp(-9.0)) + 0.9 / (1 + np.exp(1.0)), rel=1e-12)
    n = 100_000
    wins = int(sample_preferences(mdp, *always, n, 0).label.sum())
    assert stats.binomtest(wins, n, law).pvalue > ALPHA
    assert stats.binomtest(wins, n, 0.5).pvalue < ALPHA
    fit = fit_reward(sample_preferences(mdp, *always, n, 0), low=-5.0, high=5.0)  # fed by what was seen, not by the mean
    assert fit.r[0, 0, 0] - fit.r[0, 0, 1] == pytest.approx(np.log(law / (1 - law)), abs=0.05)


def test_preferences_over_two_stages_by_enumeration():
    p = np.random.default_rng(1).dirichlet(np.ones(2), (2, 2, 2))
    mdp = MDP(p, np.random.default_rng(2).normal(0, 3, (2, 2, 2, 2)), [0.5, 0.5])
    one, two = (families.random_policy(H=2, S=2, A=2, rng=i) for i in (5, 6))
    law, n = bradley_terry(mdp, one, two), 100_000
    wins = int(sample_preferences(mdp, one, two, n, 7).label.sum())
    assert stats.binomtest(wins, n, law).pvalue > ALPHA
    assert stats.binomtest(wins, n, law + 0.01).pvalue < ALPHA


# ---- discounted, learners


def test_discounted_values_are_those_of_the_mean():
    mean = (P[0] * R[0]).sum(axis=-1)
    want = solve_discounted(DiscountedMDP(P[0], mean, 0.8), tol=1e-10).V
    p, r = successors(P[:1], R[:1])
    for mdp in (DiscountedMDP(P[0], R[0], 0.8), DiscountedMDP(p, r[0], 0.8)):
        assert mdp.r.shape == (S, A)
        np.testing.assert_allclose(solve_discounted(mdp, tol=1e-10).V, want, rtol=0, atol=1e-9)


def test_learners_observe_the_reward_of_the_transition():
    """Sums of rewards in quarters are exact: they are those of the transitions counted, or whole numbers without them."""
    r = np.floor(4 * np.random.default_rng(3).random((H, S, A, S))) / 4
    for paid in (r, NO_REWARDS):
        visits, after, totals = np.zeros((H, S, A)), np.zeros((H, S, A, S)), np.zeros((H, S, A))
        mean = (P * r).sum(axis=-1)
        for t in range(300):
            start = np.uint64(t * 0x9E3779B97F4A7C15 % 2**64)
            widest = np.zeros((H, S), np.int64)
            ucbvi._episode(P, mean, paid, MU0[None], np.array(PI), widest, False, True, start, visits, after, totals)
        assert after.sum() == 300 * H
        expected = (after * r).sum(axis=-1) if paid.size else np.round(totals)
        np.testing.assert_array_equal(totals, expected)
        assert (totals != np.round(totals)).any() == bool(paid.size)


UNKNOWN = {"eps": 1e-3, "reward": "unknown", "budget": 400}


@pytest.mark.parametrize("learner", [UCBVI(**UNKNOWN), UCBVIEnt(beta=1.0, **UNKNOWN)])
def test_unknown_rewards_are_learnt_from_transitions(learner):
    """One stage: the middle of the band is the mean of what was seen, a number of quarters over the visits."""
    p = np.full((1, 3, 2, 3), 1 / 3)
    r = np.broadcast_to([0.25, 0.5, 0.75], p.shape)
    run = learner.run(MDP(p, r, [1.0, 0.0, 0.0]), families.uniform_policy(1, 3, 2), 0)
    assert run.violation <= 0.0
    n = run.visits[0, 0]
    quarters = 4 * n * (run.upper[0, 0] + run.lower[0, 0]) / 2
    free = (run.upper[0, 0] < 1) & (run.lower[0, 0] > 0)
    assert free.any()
    np.testing.assert_allclose(quarters[free], np.round(quarters[free]), rtol=0, atol=1e-6)
    assert (np.round(quarters[free]) % 4 != 0).any()
    with pytest.raises(ValueError, match=r"run: mdp must have rewards of transitions in \[0, 1\]; got \[-0.25, 1.25\]"):
        learner.run(MDP(p, [[[[-0.25, 0.5, 1.25]] * 2] * 3], [1.0, 0.0, 0.0]), families.uniform_policy(1, 3, 2), 0)


def test_known_rewards_are_means():
    """Known rewards need only means in [0, 1]."""
    p = np.full((1, 3, 2, 3), 1 / 3)
    run = UCBVI(eps=0.3, budget=50).run(MDP(p, [[[[-1.0, 0.5, 2.0]] * 2] * 3], [1, 0, 0]), families.uniform_policy(1, 3, 2), 0)
    np.testing.assert_allclose(run.upper[0, 0], 0.5)


# ---- bad input

BAD = [
    (MDP, {"P": P, "r": R[..., :3], "mu0": MU0}, r"r must have shape \[H, S, A, S'\] = \(H, 4, 2, 4\); got \(3, 4, 2, 3\)"),
    (MDP, {"P": P, "r": R[:2], "mu0": MU0}, "r must have 1 or H = 3 stages; got 2"),
    (MDP, {"P": P[:1], "r": R[:2], "mu0": MU0, "horizon": 3}, "r must have 1 or H = 3 stages; got 2"),
    (MDP, {"P": Successors(np.zeros((1, S, A, 1), int), np.ones((1, S, A, 1))), "r": R[:1], "mu0": MU0},
     r"r must have shape \[H, S, A, K\] = \(H, 4, 2, 1\); got \(1, 4, 2, 4\)"),
    (MDP, {"P": P, "r": R[None], "mu0": MU0}, r"r must have shape \[H, S, A\]"),
    (DiscountedMDP, {"P": P[0], "r": R, "gamma": 0.5}, r"r must have shape \[S, A\] = \(4, 2\); got \(3, 4, 2, 4\)"),
    (DiscountedMDP, {"P": P[0], "r": R[0, ..., :1], "gamma": 0.5}, r"r must have shape \[S, A, S'\] = .*; got \(4, 2, 1\)"),
    (DiscountedMDP, {"P": P[0], "r": [[1.0], [1.0, 2.0]], "gamma": 0.5}, "r must have shape .*; got a ragged sequence"),
]


@pytest.mark.parametrize(("record", "arguments", "message"), BAD)
def test_what_is_wrong_is_named(record, arguments, message):
    with pytest.raises(ValueError, match=f"{record.__name__}: {message}"):
        record(**arguments)


# ---- samples that no memory holds


@pytest.mark.parametrize("n", [10**12, 2**62])
def test_more_episodes_than_memory_are_refused_at_once(n):
    mdp, _ = both(P, R)
    room = "n must leave its episodes of H = 3 room in this machine's .* GiB of memory"
    with pytest.raises(ValueError, match=rf"^sample: {room} \(sample_counts draws .*; got n = {n}, .* GiB$"):
        sample(mdp, PI, n, 0)
    with pytest.raises(ValueError, match=rf"^sample_preferences: {room} \(draw in parts\); got n = {n}, .* GiB$"):
        sample_preferences(mdp, PI, PI, n, 0)
