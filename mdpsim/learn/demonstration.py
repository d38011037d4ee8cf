r"""Demonstration-regularised RL: clone the expert, then identify the best policy near the clone.

With N demonstrations of an expert within eps_E of the optimum, the add-one clone has E KL_traj(pi_E || pi_BC) <= eps_KL^2 :=
(A-1) P / (N+1), P = |supp mu_0| + (H-1) S: at least the number of (h, s) that can be reached. UCBVI-Ent+ with reference pi_BC,
weight beta = eps / eps_KL^2 and accuracy eps returns pi with

    V* - V^pi <= eps_E + eps + beta KL_traj(pi_E || pi_BC) <= eps_E + 2 eps      in expectation over demonstrations,

with probability 1 - delta over the exploration. The more demonstrations, the larger beta, and the sooner the learner stops: its
episodes are of order 1/(beta eps), that is P (A-1) / (N eps^2).

Reference: Tiapkin et al., "Demonstration-Regularized RL", ICLR 2024, arXiv 2310.17303 (its Corollary 3; its lambda is beta
here).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mdpsim.arrays import FloatArray, as_real, fail
from mdpsim.estimate.cloning import fit_bc
from mdpsim.estimate.data import Counts, Trajectories
from mdpsim.learn.trace import Trace
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.tabular import MDP
from mdpsim.records import record
from mdpsim.solve.exact import evaluate, solve_hard


@record
class DemonstrationRun(NamedTuple):
    """A run of demonstration-regularised RL.

    Args:
        pi: [H, S, A] the policy returned.
        clone: [H, S, A] the add-one clone it was regularised towards.
        beta: the weight eps / eps_KL^2.
        loss: V* - V^pi from mu0, exact.
        cloning_loss: V* - V of the clone.
        trace: the run of UCBVI-Ent+ (its gap is the regularised one).
    """

    pi: FloatArray
    clone: FloatArray
    beta: float
    loss: float
    cloning_loss: float
    trace: Trace


def explored(mdp: MDP | LinearMDP, clone: FloatArray, beta: float, trace: Trace) -> DemonstrationRun:
    """The record of an exploration near a clone."""
    best = float(mdp.mu0 @ solve_hard(mdp).V[0])
    loss, cloning_loss = (best - evaluate(mdp, pi).J for pi in (trace.pi, clone))
    return DemonstrationRun(trace.pi, clone, beta, loss, cloning_loss, trace)


@dataclass(frozen=True, kw_only=True)
class DemonstrationRL:
    """Configuration: accuracy, confidence, and what UCBVI-Ent+ takes.

    Args:
        eps: the policy is to lose at most 2 eps more than the expert, in expectation; > 0.
        delta, bonus_scale, replan, budget: those of UCBVIEnt.
        beta: None takes eps / eps_KL^2; a number in [1e-8, 1e8] takes that, whatever the demonstrations.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    eps: float
    delta: float = 0.1
    bonus_scale: float = 1.0
    replan: float = 0.01
    budget: int = 10**6
    beta: float | None = None

    def __post_init__(self) -> None:
        as_real("DemonstrationRL", "eps", self.eps, 1e-12, 1e12)
        self._learner(1.0 if self.beta is None else self.beta)

    def _learner(self, beta: float) -> UCBVIEnt:
        return UCBVIEnt(beta=beta, eps=self.eps, delta=self.delta, bonus_scale=self.bonus_scale, replan=self.replan,
                        budget=self.budget)

    def run(self, mdp: MDP, demos: Trajectories | Counts, rng: np.random.Generator | int) -> DemonstrationRun:
        """Clone ``demos`` and explore ``mdp`` near the clone.

        Args:
            mdp: as in UCBVIEnt.run.
            demos: demonstrations of the expert in this MDP.
            rng: Generator or seed of the exploration.
        Returns:
            DemonstrationRun: pi, clone, beta, loss, cloning_loss, trace.
        Raises:
            ValueError: naming the argument, what was wanted and what came.
        """
        clone = fit_bc(demos)
        if not isinstance(mdp, MDP):
            fail("DemonstrationRL.run", "mdp", "be an MDP with dense P", type(mdp).__name__)
        if clone.shape != (mdp.H, mdp.S, mdp.A):
            fail("DemonstrationRL.run", "demos", f"be of H, S, A = {(mdp.H, mdp.S, mdp.A)}", clone.shape)
        beta = self.beta
        if beta is None:
            pairs = int((mdp.mu0 > 0).sum()) + (mdp.H - 1) * mdp.S
            divergence = max(mdp.A - 1, 1) * pairs / (demos.n + 1)
            beta = float(np.clip(self.eps / divergence, 1e-8, 1e8))
        return explored(mdp, clone, beta, self._learner(beta).run(mdp, clone, rng))
