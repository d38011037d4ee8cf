"""Behaviour cloning against plain Python, its exact expectation and its bound.

False-alarm level: ALPHA for each statistical test.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mdpsim.estimate.cloning import fit_bc
from mdpsim.estimate.data import Counts, Trajectories, count, sample, sample_counts
from mdpsim.mdp.families import random_deterministic_policy, random_mdp, random_policy
from mdpsim.rng import generator
from mdpsim.solve.exact import occupancy, trajectory_kl

ALPHA = 1e-4
SIZES = {"S": 5, "A": 3, "H": 4}


def plain(visits, smoothing):
    H, S, A = visits.shape
    pi = np.zeros((H, S, A))
    for h in range(H):
        for s in range(S):
            total = int(visits[h, s].sum())
            for a in range(A):
                pi[h, s, a] = (int(visits[h, s, a]) + smoothing) / (total + A * smoothing) if total else 1 / A
    return pi


@pytest.mark.parametrize("smoothing", [0, 0.0, 5e-324, 1e-9, 0.5, 1, 3.0, 1e12])
@pytest.mark.parametrize("n", [1, 40, 10**6])
def test_equals_plain_python(n, smoothing):
    mdp = random_mdp(**SIZES, rng=1)
    demos = sample_counts(mdp, random_policy(**SIZES, rng=2), n, 3)
    pi = fit_bc(demos, smoothing=smoothing)
    np.testing.assert_allclose(pi, plain(demos.visits, smoothing), rtol=4 * np.finfo(float).eps, atol=1e-323)
    assert not pi.flags.writeable
    np.testing.assert_array_equal(pi[demos.visits.sum(axis=-1) == 0], 1 / 3)


def test_smoothing_is_one_by_default():
    demos = Counts(np.array([[[3, 0], [1, 0]]]), 4)
    np.testing.assert_allclose(fit_bc(demos), [[[4 / 5, 1 / 5], [2 / 3, 1 / 3]]], rtol=1e-15)
    np.testing.assert_array_equal(fit_bc(demos, smoothing=0), [[[1, 0], [1, 0]]])


def test_trajectories_and_their_counts_give_the_same():
    demos = sample(random_mdp(**SIZES, rng=1), random_policy(**SIZES, rng=2), 100, 3)
    np.testing.assert_array_equal(fit_bc(demos), fit_bc(count(demos)))


def exact_kl(mdp, expert, n):
    """E KL_traj of add-one for a deterministic expert: sum over (h, s) of d E log((m + A) / (m + 1)), m ~ Bin(n, d)."""
    m = np.arange(n + 1)
    loss = np.log((m + mdp.A) / (m + 1))
    return sum(d * (stats.binom.pmf(m, n, d) @ loss) for d in occupancy(mdp, expert).ravel())


def mean_p(values, mean):
    """Two-sided p-value of Student's t."""
    return stats.ttest_1samp(values, mean).pvalue


@pytest.mark.parametrize("n", [10, 300])
def test_expected_kl_is_exact_for_deterministic_experts(n):
    mdp, expert = random_mdp(**SIZES, rng=5), random_deterministic_policy(**SIZES, rng=6)
    rng, exact = generator(n), exact_kl(mdp, expert, n)
    kl = [trajectory_kl(mdp, expert, fit_bc(sample_counts(mdp, expert, n, rng))) for _ in range(2000)]
    assert mean_p(kl, exact) > ALPHA
    assert mean_p(kl, exact_kl(mdp, expert, n + max(1, n // 50))) < ALPHA  # negative control: 2% more demonstrations
    half = [trajectory_kl(mdp, expert, fit_bc(sample_counts(mdp, expert, n, rng), smoothing=0.9)) for _ in range(200)]
    assert mean_p(half, exact) < ALPHA  # negative control: another smoothing
    covered = 1 - (1 - np.minimum(occupancy(mdp, expert), 1)) ** (n + 1)
    assert exact <= (mdp.A - 1) * covered.sum() / (n + 1)


def test_add_one_is_the_bayes_rule():
    """Experts ~ Dirichlet(1): on the same draws no other smoothing has a smaller mean KL."""
    rng, n, kl = generator(0), 20, {0.5: [], 1.0: [], 2.0: []}
    mdp = random_mdp(S=1, A=3, H=1, rng=0)
    for _ in range(4000):
        expert = random_policy(S=1, A=3, H=1, rng=rng)
        demos = sample_counts(mdp, expert, n, rng)
        for smoothing, values in kl.items():
            values.append(trajectory_kl(mdp, expert, fit_bc(demos, smoothing=smoothing)))
    for other in (0.5, 2.0):
        assert stats.ttest_rel(kl[other], kl[1.0], alternative="greater").pvalue < ALPHA


def test_maximum_likelihood_has_infinite_divergence_and_says_so():
    """An action of the expert that was not seen: inf, neither hidden nor a number."""
    mdp, expert = random_mdp(**SIZES, rng=1), random_policy(**SIZES, rng=2)
    assert trajectory_kl(mdp, expert, fit_bc(sample_counts(mdp, expert, 5, 3), smoothing=0)) == np.inf


def test_episodes_of_different_lengths_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"actions must be of one length H .* absorbing state.*; got lengths from 1 to 2"):
        Trajectories([[0, 1, 0], [0, 1]], [[0, 1], [0]], [[0, 0], [0]], S=2, A=2)


@pytest.mark.parametrize(("states", "actions", "message"), [
    ([[0, 5]], [[0]], r"states must have entries in \[0, 2\); got 5"),
    ([[0, 1]], [[2]], r"actions must have entries in \[0, 2\)"),
    (np.zeros((0, 2), int), np.zeros((0, 1), int), r"actions must have shape .* got \(0, 1\)"),
])
def test_demonstrations_out_of_range_or_none_are_refused(states, actions, message):
    with pytest.raises(ValueError, match=message):
        Trajectories(states, actions, np.zeros((len(actions), 1)), S=2, A=2)


DEMOS = Counts(np.array([[[3, 0], [1, 0]]]), 4)
BAD = [
    ({"demos": np.zeros((2, 2, 2))}, "fit_bc: demos must be Trajectories or Counts; got ndarray"),
    ({"demos": None}, "fit_bc: demos must be Trajectories or Counts; got NoneType"),
    ({"smoothing": -1.0}, r"fit_bc: smoothing must be a number in \[0, 1e\+12\]; got -1.0"),
    ({"smoothing": np.nan}, "fit_bc: smoothing must be a number"),
    ({"smoothing": np.inf}, "fit_bc: smoothing must be a number"),
    ({"smoothing": "1"}, "fit_bc: smoothing must be a number"),
    ({"smoothing": True}, "fit_bc: smoothing must be a number"),
    ({"smoothing": None}, "fit_bc: smoothing must be a number"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        fit_bc(**{"demos": DEMOS, **change})
