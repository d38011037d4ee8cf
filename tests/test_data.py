"""Records of data, and the laws of ``sample`` and ``sample_counts``: the MDP's, and each other's.

False-alarm level: ALPHA for each statistical test, split evenly (Bonferroni) over what it looks at. Every such test
carries a negative control: a law that is slightly wrong, which the same test must reject.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from mdpsim.estimate.data import MAX_COUNT, Counts, Trajectories, count, sample, sample_counts
from mdpsim.mdp.tabular import MDP
from mdpsim.rng import generator

ALPHA = 1e-4


def instance(seed=0, S=4, A=3, H=3, stationary=False, zeros=0.25):
    """Random MDP and policy with zeros in every kind of row."""
    rng = np.random.default_rng(seed)

    def rows(*shape):
        p = rng.exponential(size=shape) * (rng.random(shape) > zeros)
        p[..., rng.integers(shape[-1])] += 0.3
        return p / p.sum(axis=-1, keepdims=True)

    stages = 1 if stationary else H
    return MDP(rows(stages, S, A, S), rng.random((stages, S, A)), rows(S), horizon=H), rows(H, S, A)


def law(mdp, pi):
    """Occupancy d[h, s, a] by forward recursion."""
    d, out = mdp.mu0, []
    for h in range(mdp.H):
        out.append(d[:, None] * pi[h])
        d = np.einsum("sa,sat->t", out[-1], mdp.P[h % mdp.P.shape[0]])
    return np.array(out)


# ---- sample


@pytest.mark.parametrize("stationary", [False, True])
def test_sample_is_a_prefix_and_the_rng_advances_the_same(stationary):
    mdp, pi = instance(stationary=stationary)
    long_rng = generator(7)
    long = sample(mdp, pi, 3000, long_rng)
    for n in (1, 2, 1023, 1024, 1025, 2999):
        rng = generator(7)
        short = sample(mdp, pi, n, rng)
        for name in ("states", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:n])
        assert rng.bit_generator.state == long_rng.bit_generator.state
    again = sample(mdp, pi, 3000, long_rng)
    assert (again.states != long.states).any()


def test_sample_takes_a_seed_and_returns_read_only_arrays():
    mdp, pi = instance()
    t = sample(mdp, pi, 50, 3)
    np.testing.assert_array_equal(t.states, sample(mdp, pi, 50, generator(3)).states)
    assert (t.states.shape, t.actions.shape, t.rewards.shape) == ((50, 4), (50, 3), (50, 3))
    assert (t.states.dtype, t.actions.dtype, t.rewards.dtype) == (np.int64, np.int64, np.float64)
    assert (t.n, t.H, t.S, t.A) == (50, 3, 4, 3)
    assert repr(t) == "Trajectories(n=50, H=3, S=4, A=3)"
    for a in (t.states, t.actions, t.rewards):
        assert not a.flags.writeable
    np.testing.assert_array_equal(t.rewards, mdp.r[np.arange(3), t.states[:, :-1], t.actions])


def rows_p(observed, expected_rows):
    """p-value of counts [R, C] against probability rows [R, C], given the row totals; None seen where p = 0."""
    assert (observed[expected_rows == 0] == 0).all()
    mean = observed.sum(axis=1, keepdims=True) * expected_rows
    use = mean > 0
    degrees = np.maximum(use.sum(axis=1) - 1, 0).sum()
    return stats.chi2.sf(((observed - mean)[use] ** 2 / mean[use]).sum(), degrees)


@pytest.mark.parametrize("stationary", [False, True])
def test_sample_has_the_law_of_the_mdp(stationary):
    mdp, pi = instance(seed=1, stationary=stationary)
    H, S, A, n = mdp.H, mdp.S, mdp.A, 200_000
    t = sample(mdp, pi, n, generator(1))
    P = np.broadcast_to(mdp.P, (H, S, A, S))
    cell = (np.arange(H) * S + t.states[:, :-1]) * A + t.actions
    moves = np.bincount((cell * S + t.states[:, 1:]).ravel(), minlength=H * S * A * S).reshape(H, S, A, S)
    start = np.bincount(t.states[:, 0], minlength=S)
    visits = count(t).visits

    def smallest(mu0, pi, P):
        looks = (start, mu0), (visits, pi), (moves, P)
        return [3 * rows_p(x.reshape(-1, p.shape[-1]), p.reshape(-1, p.shape[-1])) for x, p in looks]

    def bent(p):  # the same support, 5% off
        q = p * (1 + 0.05 * np.cos(np.arange(p.shape[-1])))
        return q / q.sum(axis=-1, keepdims=True)

    np.testing.assert_array_equal(moves.sum(axis=-1), visits)
    assert min(smallest(mdp.mu0, pi, P)) > ALPHA
    assert max(smallest(bent(mdp.mu0), bent(pi), bent(P))) < ALPHA


def test_no_outcome_of_probability_zero():
    """Rows whose rounded sums stay below one, with zeros at both ends."""
    p = np.array([0.0] + [0.1] * 10 + [0.0, 0.0])
    S = p.size
    P = np.broadcast_to(p, (1, S, 2, S))
    pi = np.broadcast_to([0.0, 1.0], (2, S, 2))
    mdp = MDP(P, np.zeros((1, S, 2)), p, horizon=2)
    t = sample(mdp, pi, 20_000, 0)
    assert (p[t.states] > 0).all()
    assert (t.actions == 1).all()
    for n in (1, 30, 10_000, MAX_COUNT):
        visits = sample_counts(mdp, pi, n, n).visits
        assert visits[:, p == 0].sum() == 0
        assert visits[:, :, 0].sum() == 0


# ---- sample_counts: the same law


def test_count_is_a_plain_loop():
    mdp, pi = instance()
    t = sample(mdp, pi, 300, 0)
    visits = np.zeros((mdp.H, mdp.S, mdp.A), int)
    for states, actions in zip(t.states, t.actions, strict=True):
        for h, a in enumerate(actions):
            visits[h, states[h], a] += 1
    c = count(t)
    np.testing.assert_array_equal(c.visits, visits)
    assert (c.n, c.H, c.S, c.A) == (300, mdp.H, mdp.S, mdp.A)
    assert not c.visits.flags.writeable
    assert repr(c) == "Counts(n=300, H=3, S=4, A=3)"


def independent_counts(mdp, pi, n, rng):
    """Negative control: Mult(n, d_h) at each stage by itself. Right means; the covariances across stages are lost."""
    return np.array([rng.multinomial(n, d.ravel()) for d in law(mdp, pi)]).reshape(mdp.H, mdp.S, mdp.A)


def features(visits, mean):
    """[R, F]: all counts and all products of two centred counts of different cells or the same."""
    x = visits.reshape(visits.shape[0], -1) - mean.ravel()
    i, j = np.triu_indices(x.shape[1])
    return np.concatenate([x, x[:, i] * x[:, j]], axis=1)


def same_moments_p(x, y, mean):
    """Smallest two-sample p-value over means and covariances of all cells, times their number."""
    a, b = features(x, mean), features(y, mean)
    keep = (a.std(axis=0) + b.std(axis=0)) > 0
    z = (a.mean(0) - b.mean(0))[keep] / np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))[keep]
    return 2 * stats.norm.sf(np.abs(z).max()) * keep.sum()


@pytest.mark.parametrize("n", [10, 200])  # rows drawn one by one, and rows split by binomials
def test_counts_have_the_moments_of_counted_samples(n):
    mdp, pi = instance(seed=2, S=3, A=2, H=3, zeros=0.0)
    mean, R = n * law(mdp, pi), 4000
    rng = generator(11)
    counted = np.array([count(sample(mdp, pi, n, rng)).visits for _ in range(R)])
    forward = np.array([sample_counts(mdp, pi, n, rng).visits for _ in range(R)])
    wrong = np.array([independent_counts(mdp, pi, n, rng) for _ in range(R)])
    assert same_moments_p(counted, forward, mean) > ALPHA
    assert same_moments_p(counted, wrong, mean) < ALPHA


def enumerate_counts(mdp, pi, n):
    """Exact law of the visits of n trajectories: add one trajectory at a time."""
    cells = np.arange(mdp.H * mdp.S * mdp.A).reshape(mdp.H, mdp.S, mdp.A)
    paths = [((), s, p) for s, p in enumerate(mdp.mu0)]
    for h in range(mdp.H):
        P = mdp.P[h % mdp.P.shape[0]]
        paths = [
            ((*path, cells[h, s, a]), t, p * pi[h, s, a] * P[s, a, t])
            for path, s, p in paths for a in range(mdp.A) for t in range(mdp.S)
        ]
    one = Counter()
    for path, _, p in paths:
        visits = np.zeros(cells.size, int)
        visits[list(path)] += 1
        one[tuple(visits)] += p
    steps = [(np.array(visits), p) for visits, p in one.items() if p > 0]
    law = {(0,) * cells.size: 1.0}
    for _ in range(n):
        following = Counter()
        for visits, p in law.items():
            for step, q in steps:
                following[tuple(visits + step)] += p * q
        law = following
    return law


def joint_p(draws, law):
    """Chi-square p-value of draws [R, ..] against a law {cell: p}; cells with fewer than 8 expected are pooled."""
    seen = Counter(map(tuple, draws.reshape(len(draws), -1)))
    assert seen.keys() <= law.keys()
    big = [cell for cell, p in law.items() if len(draws) * p >= 8]
    expected = len(draws) * np.array([law[cell] for cell in big])
    observed = np.array([seen[cell] for cell in big])
    expected = np.append(expected, max(len(draws) - expected.sum(), 1e-12))
    observed = np.append(observed, len(draws) - observed.sum())
    return stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), len(big))


@pytest.mark.parametrize("n", [2, 10])  # 10 > FEW * A = 8: the tree of binomials takes part
def test_counts_have_the_exact_joint_law(n):
    P = np.array([[[[0.8, 0.2], [0.1, 0.9]]] * 2])
    mdp = MDP(P, np.zeros((1, 2, 2)), [1.0, 0.0], horizon=2)
    pi = np.array([[[0.3, 0.7], [0.5, 0.5]], [[0.9, 0.1], [0.2, 0.8]]])
    law, rng, R = enumerate_counts(mdp, pi, n), generator(5), 12_000
    assert sum(law.values()) == pytest.approx(1.0, abs=1e-12)
    assert joint_p(np.array([sample_counts(mdp, pi, n, rng).visits for _ in range(R)]), law) > ALPHA
    assert joint_p(np.array([count(sample(mdp, pi, n, rng)).visits for _ in range(R)]), law) > ALPHA
    wrong = np.array([independent_counts(mdp, pi, n, rng) for _ in range(R)])
    possible = [w for w in wrong if tuple(w.ravel()) in law]  # even these alone are rejected
    assert joint_p(np.array(possible), law) < ALPHA


def test_large_counts_have_the_right_means():
    mdp, pi = instance(seed=3, S=30, A=4, H=5)
    n = 10**9
    d = law(mdp, pi)
    visits = sample_counts(mdp, pi, n, 0).visits
    assert (visits[d == 0] == 0).all()
    z = (visits - n * d)[d > 0] / np.sqrt(n * d * (1 - d))[d > 0]
    assert 2 * stats.norm.sf(np.abs(z).max()) * z.size > ALPHA


# ---- bad input

GOOD = {"states": [[0, 1, 2]], "actions": [[0, 1]], "rewards": [[0.0, 1.0]], "S": 3, "A": 2}
BAD_TRAJECTORIES = [
    ({"states": [[0, 1]]}, "Trajectories: states must have shape"),
    ({"states": [[0, 1, 3]]}, r"Trajectories: states must have entries in \[0, 3\)"),
    ({"states": [[0.0, 1.0, 2.0]]}, "Trajectories: states must hold integers"),
    ({"states": [[0, 1, -1]]}, "Trajectories: states must have entries"),
    ({"actions": [[0, 2]]}, "Trajectories: actions must have entries"),
    ({"actions": [0, 1]}, "Trajectories: actions must have shape"),
    ({"actions": np.zeros((0, 2), int)}, "Trajectories: actions must have shape"),
    ({"rewards": [[0.0]]}, "Trajectories: rewards must have shape"),
    ({"rewards": [[0.0, np.nan]]}, "Trajectories: rewards must be finite"),
    ({"rewards": [["a", "b"]]}, "Trajectories: rewards must hold real numbers"),
    ({"S": 0}, "Trajectories: S must be an integer"),
    ({"A": 2.0}, "Trajectories: A must be an integer"),
]


@pytest.mark.parametrize(("change", "message"), BAD_TRAJECTORIES)
def test_trajectories_refuse(change, message):
    Trajectories(**GOOD)
    with pytest.raises(ValueError, match=message):
        Trajectories(**{**GOOD, **change})


BAD_COUNTS = [
    ([[[1, 2], [0, 0]]], 4, "Counts: visits must sum to n = 4 at every stage; got 3 at stage 0"),
    ([[[1, 2], [0, 1]], [[6, -2], [0, 0]]], 4, "Counts: visits must have entries in"),
    ([[[1, 2], [0, 1]], [[3, 0], [0, 0]]], 4, "Counts: visits must sum to n = 4 at every stage; got 3 at stage 1"),
    ([[[-1, 5], [0, 0]]], 4, "Counts: visits must have entries in"),
    ([[[1.0, 3.0], [0.0, 0.0]]], 4, "Counts: visits must hold integers"),
    ([[1, 3]], 4, "Counts: visits must have shape"),
    ([[[0, 0]]], 0, "Counts: n must be an integer"),
    ([[[4, 0]]], MAX_COUNT + 1, "Counts: n must be an integer"),
]


@pytest.mark.parametrize(("visits", "n", "message"), BAD_COUNTS)
def test_counts_refuse(visits, n, message):
    with pytest.raises(ValueError, match=message):
        Counts(np.array(visits), n)


BAD_CALLS = [
    ({"mdp": "bandit"}, "mdp must be an mdpsim.MDP, LinearMDP or TokenMDP; got str"),
    ({"pi": np.full((2, 4, 3), 1 / 3)}, r"pi must have shape \[H, S, A\] = \(3, 4, 3\); got \(2, 4, 3\)"),
    ({"pi": np.full((3, 4, 3), 0.3)}, "pi must have rows that sum to one"),
    ({"pi": np.full((3, 4, 3), np.nan)}, "pi must be finite"),
    ({"n": 0}, "n must be an integer >= 1.*; got 0"),
    ({"n": -1}, "n must be an integer >= 1"),
    ({"n": 1.5}, "n must be an integer >= 1"),
    ({"n": True}, "n must be an integer >= 1"),
    ({"rng": None}, "rng must be a numpy.random.Generator or an integer seed"),
    ({"rng": -1}, "rng must be a numpy.random.Generator or an integer seed"),
    ({"rng": np.random.RandomState(0)}, "rng must be a numpy.random.Generator or an integer seed"),
]


@pytest.mark.parametrize("function", [sample, sample_counts])
@pytest.mark.parametrize(("change", "message"), BAD_CALLS)
def test_sampling_refuses(function, change, message):
    mdp, pi = instance()
    arguments = {"mdp": mdp, "pi": pi, "n": 5, "rng": 0}
    with pytest.raises(ValueError, match=f"{function.__name__}: {message}"):
        function(**{**arguments, **change})


def test_sample_counts_and_count_refuse_the_rest():
    mdp, pi = instance()
    with pytest.raises(ValueError, match="sample_counts: n must be an integer"):
        sample_counts(mdp, pi, MAX_COUNT + 1, 0)
    with pytest.raises(ValueError, match="count: trajectories must be Trajectories; got ndarray"):
        count(np.zeros((2, 2)))


def test_records_copy_what_the_caller_can_write():
    visits = np.array([[[1, 2], [0, 1]]])
    c = Counts(visits, 4)
    visits[0, 0, 0] = 7
    assert c.visits[0, 0, 0] == 1
    with pytest.raises(AttributeError):
        c.n = 5
