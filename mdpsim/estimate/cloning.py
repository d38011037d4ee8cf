"""Behaviour cloning: the expert's policy from counts of what it did.

Setting: n demonstrations of an expert pi_E; N_h(s, a) counts its actions. Add-smoothing estimates each row as
    pi[h, s, a] = (N_h(s, a) + smoothing) / (N_h(s) + A smoothing).
With smoothing = 1 (Laplace, add-one) this is the posterior mean under a uniform (Dirichlet(1)) prior, and the posterior
mean minimises the posterior expectation of KL(pi_E || pi): add-one is the Bayes rule for that loss. With N_h(s) = m,
    E KL(pi_E(. | s) || pi(. | s)) <= log((m + A) / (m + 1)) <= (A - 1) / (m + 1)   for every expert (Jensen).

Reference: Tiapkin, Belomestny, Calandriello, Moulines, Munos, Naumov, Perrault, Valko, Ménard,
"Demonstration-Regularized RL", ICLR 2024, arXiv 2310.17303 (its tabular behaviour cloning).
"""

from __future__ import annotations

import numpy as np

from mdpsim.arrays import FloatArray, as_real, fail, frozen
from mdpsim.estimate.data import Counts, Trajectories, count

MAX_SMOOTHING = 1e12  # beyond this every row is uniform to within 1e-12 of what any number of demonstrations says


def fit_bc(demos: Trajectories | Counts, *, smoothing: float = 1.0) -> FloatArray:
    """Clone the policy behind ``demos`` by additive smoothing.

    Implements: pi[h, s, a] = (N_h(s, a) + smoothing) / (N_h(s) + A smoothing); smoothing = 1 is the Laplace estimator
    of [tiapkin2023], the KL-optimal Bayes rule under a uniform prior.

    Args:
        demos: demonstrations, or their counts (all that the estimator needs).
        smoothing: pseudo-count of each action, in [0, 1e12]. 0 is maximum likelihood: KL(expert || pi) is then infinite
            where an action of the expert was never seen.
    Returns:
        pi [H, S, A], read-only; uniform where a state was never visited, for every smoothing.
    Exactness: closed form, a few ulp.
    Cost: O(H S A), and O(n H) to count trajectories.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    if not isinstance(demos, Trajectories | Counts):
        fail("fit_bc", "demos", "be Trajectories or Counts", type(demos).__name__)
    pseudo = as_real("fit_bc", "smoothing", smoothing, 0.0, MAX_SMOOTHING)
    visits = (demos if isinstance(demos, Counts) else count(demos)).visits
    # A row never visited has mass 0 or A smoothing, all of it prior: 1 / A whatever the smoothing, 0 / 0 included.
    unseen = visits.sum(axis=-1, keepdims=True) == 0
    mass = np.where(unseen, 1.0, visits + pseudo)
    return frozen(mass / mass.sum(axis=-1, keepdims=True))
