"""Preferences against an enumeration of pairs, in every representation.

False-alarm level: ALPHA for each statistical test; each carries a control, a slightly wrong law, which it must reject.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mdpsim.estimate.data import Trajectories, sample
from mdpsim.estimate.preferences import Preferences, sample_preferences
from mdpsim.mdp import families
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.mdp.token import TokenMDP

ALPHA = 1e-4


def linear(mdp):
    cells = mdp.S * mdp.A
    phi = np.eye(cells).reshape(mdp.S, mdp.A, cells)
    return LinearMDP(phi, mdp.P.reshape(-1, cells, mdp.S), mdp.r.reshape(-1, cells), mdp.mu0, horizon=mdp.H)


def sparse(mdp):
    ids = np.broadcast_to(np.arange(mdp.S), mdp.P.shape)
    return MDP(Successors(ids, mdp.P), mdp.r, mdp.mu0, horizon=mdp.H)


DENSE = families.random_mdp(S=2, A=2, H=2, rng=0, start="uniform")
TOKENS = TokenMDP(np.random.default_rng(1).normal(0, 1.5, (2, 4)), vocabulary=2, length=2, mu0=[0.3, 0.7])
MODELS = {"dense": DENSE, "sparse": sparse(DENSE), "linear": linear(DENSE), "tokens": TOKENS}
BY_MODEL = pytest.mark.parametrize("name", MODELS)


def policies(mdp):
    return [families.random_policy(H=mdp.H, S=mdp.S, A=mdp.A, rng=i) for i in (5, 6)]


def tabular(name):
    return TOKENS.to_tabular() if name == "tokens" else DENSE


def laws(mdp, pi):
    """{first state: {(actions, states): (probability given it, return)}} by enumeration."""
    found = {}
    for s0 in np.flatnonzero(mdp.mu0):
        paths = [((int(s0),), (), 1.0, 0.0)]
        for h in range(mdp.H):
            P, r = mdp.P[min(h, len(mdp.P) - 1)], mdp.r[min(h, len(mdp.r) - 1)]
            paths = [
                ((*s, t), (*a, b), p * pi[h, s[-1], b] * P[s[-1], b, t], R + r[s[-1], b])
                for s, a, p, R in paths for b in range(mdp.A) for t in range(mdp.S) if P[s[-1], b, t] > 0
            ]
        found[int(s0)] = {(s, a): (p, R) for s, a, p, R in paths}
    return found


def cells(prefs):
    pairs = zip(prefs.first.states, prefs.first.actions, prefs.second.states, prefs.second.actions, prefs.label, strict=True)
    return [(tuple(s), tuple(a), tuple(t), tuple(b), int(y)) for s, a, t, b, y in pairs]


def chi_square(prefs, mdp, pi, other, scale=1.0):
    """p-value of the joint law of both episodes and the label; scale bends the label's law."""
    one, two = laws(mdp, pi), laws(mdp, other)
    expected = {}
    for s0, firsts in one.items():
        for (s, a), (p, R) in firsts.items():
            for (t, b), (q, T) in two[s0].items():
                win = 1 / (1 + math.exp(-scale * (R - T)))
                for y, w in ((1, win), (0, 1 - win)):
                    expected[s, a, t, b, y] = prefs.n * mdp.mu0[s0] * p * q * w
    counts = dict.fromkeys(expected, 0)
    for cell in cells(prefs):
        counts[cell] += 1
    f, e = np.array(list(counts.values()), float), np.array(list(expected.values()))
    rare = e < 5
    f, e = np.append(f[~rare], f[rare].sum()), np.append(e[~rare], e[rare].sum())
    return stats.chisquare(f[e > 0], e[e > 0] * f.sum() / e.sum()).pvalue


@BY_MODEL
def test_pairs_and_labels_have_their_joint_law(name):
    mdp, dense = MODELS[name], tabular(name)
    pi, other = policies(mdp)
    prefs = sample_preferences(mdp, pi, other, 100_000, 0)
    assert chi_square(prefs, dense, pi, other) > ALPHA
    assert chi_square(prefs, dense, pi, other, scale=0.8) < ALPHA
    assert chi_square(prefs, dense, other, pi) < ALPHA


@BY_MODEL
def test_a_shorter_sample_is_a_prefix(name):
    mdp = MODELS[name]
    pi, other = policies(mdp)
    long, short = (sample_preferences(mdp, pi, other, n, 3) for n in (3000, 1500))
    assert cells(long)[:1500] == cells(short)
    np.testing.assert_array_equal(long.first.states[:, 0], long.second.states[:, 0])
    rng = np.random.default_rng(3)
    np.testing.assert_array_equal(sample_preferences(mdp, pi, other, 1500, rng).label, short.label)
    again = np.random.default_rng(3)
    again.integers(0, 2**64, size=6, dtype=np.uint64)
    assert rng.integers(2**63) == again.integers(2**63)


def test_the_first_episode_is_drawn_as_sample_draws():
    pi, other = policies(DENSE)
    np.testing.assert_array_equal(
        sample_preferences(DENSE, pi, other, 50, 9).first.states, sample(DENSE, pi, 50, 9).states
    )


def test_sure_preferences_and_other_links():
    mdp = families.bandit([0.0, 1000.0])
    left, right = np.array([[[1.0, 0.0]]]), np.array([[[0.0, 1.0]]])
    assert sample_preferences(mdp, right, left, 200, 0).label.all()
    assert not sample_preferences(mdp, left, right, 200, 0).label.any()
    n, noisy = 40_000, lambda d: np.where(d > 0, 0.9, 0.1)
    wins = int(sample_preferences(mdp, right, left, n, 1, link=noisy).label.sum())
    assert stats.binomtest(wins, n, 0.9).pvalue > ALPHA
    assert stats.binomtest(wins, n, 0.91).pvalue < ALPHA


def pair(n=3, start=0, S=2):
    return Trajectories(np.full((n, 2), start), np.zeros((n, 1), int), np.zeros((n, 1)), S=S, A=2)


@pytest.mark.parametrize(("args", "message"), [
    ((pair(), pair(4), [0, 1, 0]), r"second must have the sizes \(n, H, S, A\) = \(3, 1, 2, 2\) of first; got \(4, 1, 2, 2\)"),
    ((pair(), pair(start=1), [0, 1, 0]), "second must start where first does: .* got states 0 and 1 in pair 0"),
    ((pair(), pair(), [0, 1]), r"label must have shape \[n\] = \(3,\)"),
    ((pair(), pair(), [0, 2, 1]), r"label must have entries in \[0, 2\); got 2"),
    ((pair(), pair(), [0.0, 1.0, 0.5]), "label must hold integers"),
    ((None, pair(), [0]), "first must be Trajectories; got NoneType"),
])
def test_bad_records(args, message):
    with pytest.raises(ValueError, match=message):
        Preferences(*args)


@pytest.mark.parametrize(("link", "message"), [
    (lambda d: d * 0 + 1.5, r"link\(differences\) must lie in \[0, 1\]; got 1.5 to 1.5"),
    (lambda d: 0.5, r"link\(differences\) must have shape \[n\]"),
    (lambda d: d * math.nan, r"link\(differences\) must be finite"),
    ("probit", "link must be a function"),
])
def test_bad_links(link, message):
    pi, other = policies(DENSE)
    with pytest.raises(ValueError, match=message):
        sample_preferences(DENSE, pi, other, 5, 0, link=link)
