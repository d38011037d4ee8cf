r"""Demonstration-regularised RL in linear MDPs: log-linear cloning, then LSVI-UCB-Ent near the clone.

As mdpsim/learn/demonstration.py, with the classes that linear MDPs call for. Q*_beta is linear in phi, so policies that are
soft-optimal towards the uniform one are log-linear in phi, and maximum likelihood among those (``fit_bc_linear``) has
N E KL_traj(pi_E || pi_BC) -> (1/2) sum_h d_h, where d_h is the dimension of the feature differences between actions over the
states that stage h can reach (Wilks): what counts is d, not S. The weight is

    beta = eps / eps_KL^2,     eps_KL^2 := sum_h d_h / (N + 1),

twice that limit: an allowance, not a theorem at finite N (E KL_traj has no simple sharp bound there, and the clone of a
deterministic expert has (A-1) H / N from the uniform admixture alone). Where E KL_traj <= eps_KL^2 the policy returned has, on
the event on which the certificate is valid, V* - V^pi <= eps_E + 2 eps in expectation over demonstrations; the learner stops
after order d U^2 / (beta eps), that is d U^2 sum_h d_h / ((N+1) eps^2) episodes.

Reference: Tiapkin et al., "Demonstration-Regularized RL", ICLR 2024, arXiv 2310.17303 (its Corollary 3, linear part; its
lambda is beta here).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdpsim.arrays import as_real, fail
from mdpsim.estimate.cloning import fit_bc_linear
from mdpsim.estimate.data import Counts, Trajectories, count
from mdpsim.learn.demonstration import DemonstrationRun, explored
from mdpsim.learn.lsvi_ucb_ent import LSVIUCBEnt
from mdpsim.mdp.linear import LinearMDP


def policy_dimension(mdp: LinearMDP) -> int:
    """sum_h d_h: the parameters of a log-linear policy that its behaviour in ``mdp`` determines.

    d_h is the rank of phi(s, a) - mean_a phi(s, .) over the states that stage h can reach. Cost: H ranks of [S A, d].
    """
    centred = mdp.phi - mdp.phi.mean(axis=1, keepdims=True)
    reached, total = mdp.mu0 > 0, 0
    for h in range(mdp.H):
        total += int(np.linalg.matrix_rank(centred[reached].reshape(-1, mdp.d)))
        features = (mdp.phi[reached] > 0).any(axis=(0, 1))
        reached = (mdp.mu[min(h, mdp.mu.shape[0] - 1)][features] > 0).any(axis=0)
    return total


@dataclass(frozen=True, kw_only=True)
class LinearDemonstrationRL:
    """Configuration: accuracy, confidence, and what LSVI-UCB-Ent takes.

    Args:
        eps: the policy is to lose at most 2 eps more than the expert, in expectation; > 0.
        delta, bonus, bonus_scale, replan, budget, ridge: those of LSVIUCBEnt.
        beta: None takes eps / eps_KL^2; a number in [1e-8, 1e8] takes that, whatever the demonstrations.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    eps: float
    delta: float = 0.1
    bonus: str = "range"
    bonus_scale: float = 1.0
    replan: float = 0.01
    budget: int = 10**6
    ridge: float = 1.0
    beta: float | None = None

    def __post_init__(self) -> None:
        as_real("LinearDemonstrationRL", "eps", self.eps, 1e-12, 1e12)
        self._learner(1.0 if self.beta is None else self.beta)

    def _learner(self, beta: float) -> LSVIUCBEnt:
        return LSVIUCBEnt(beta=beta, eps=self.eps, delta=self.delta, bonus=self.bonus, bonus_scale=self.bonus_scale,
                          replan=self.replan, budget=self.budget, ridge=self.ridge)

    def run(self, mdp: LinearMDP, demos: Trajectories | Counts, rng: np.random.Generator | int) -> DemonstrationRun:
        """Clone ``demos`` in the log-linear class and explore ``mdp`` near the clone.

        Args:
            mdp: as in LSVIUCBEnt.run; its features are those of the clone too.
            demos: demonstrations of the expert in this MDP.
            rng: Generator or seed of the exploration.
        Returns:
            DemonstrationRun: pi, clone, beta, loss, cloning_loss, trace.
        Raises:
            ValueError: naming the argument, what was wanted and what came.
        """
        if not isinstance(mdp, LinearMDP):
            fail("LinearDemonstrationRL.run", "mdp", "be a LinearMDP", type(mdp).__name__)
        if not isinstance(demos, Trajectories | Counts):
            fail("LinearDemonstrationRL.run", "demos", "be Trajectories or Counts", type(demos).__name__)
        counts, shape = demos if isinstance(demos, Counts) else count(demos), (mdp.H, mdp.S, mdp.A)
        if counts.visits.shape != shape:
            fail("LinearDemonstrationRL.run", "demos", f"be of H, S, A = {shape}", counts.visits.shape)
        clone = fit_bc_linear(counts, mdp.phi).pi
        beta = self.beta
        if beta is None:
            divergence = max(policy_dimension(mdp), 1) / (demos.n + 1)
            beta = float(np.clip(self.eps / divergence, 1e-8, 1e8))
        return explored(mdp, clone, beta, self._learner(beta).run(mdp, clone, rng))
