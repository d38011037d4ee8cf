r"""UCBVI-Ent+: best-policy identification in KL-regularised MDPs, with a certificate of the policy it returns.

The learner knows H, S, A, mu0 and pi_ref, rewards in [0, 1] (or learns them), and plays episodes of an unknown P. Hoeffding
bonuses around V*_beta, which is fixed, by the Gaussian method of mixtures, for all n at once (probability 1 - delta/2), and
n KL(phat || P) <= K(n) for all n (probability 1 - delta/3); formulas in mdpsim/kernels/ucbvi.py. Unknown rewards have a band of
the same kind, at delta/3 each.

Sandwich. On the first event Ql <= Q*_beta <= Qu at every planning, by induction: soft values are monotone.

Curvature. pi is soft-optimal for Qu. F(Q) = beta log sum pi_ref e^{Q/beta} has a Hessian of at most range^2 / (4 beta) along
any direction (Popoviciu), so at each state F's Bregman divergence from Qu to Q* is at most min(M, M^2/(8 beta)),
M = max_a (Qu - Ql). So the regularised gap obeys V*_h - V_h^pi <= min(M, M^2/(8 beta)) + pi P (V* - V^pi)_{h+1}.

Certificate. G solves that recursion with P replaced: for 0 <= f <= R, P f <= phat f + sqrt(2 R kappa P f), kappa = K(n)/n
(Donsker-Varadhan), hence P f <= y + sqrt(2 R kappa y) + 2 R kappa with y = phat f. On both events V*_beta - V_beta^pi <= G,
with probability at least 1 - delta, at every time; the run stops where G <= eps and returns pi.

Exploration. Each episode draws a stage (or none) and plays there the action of widest Qu - Ql, elsewhere pi.

Reference: Tiapkin et al., "Demonstration-Regularized RL", ICLR 2024, arXiv 2310.17303 (its UCBVI-Ent+; its Bernstein bonuses
are not these). Its lambda is beta here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import as_flag
from mdpsim.learn.exploration import TABULAR, check, check_beta, explore
from mdpsim.learn.trace import Trace
from mdpsim.mdp.tabular import MDP


@dataclass(frozen=True, kw_only=True)
class UCBVIEnt:
    """Configuration of UCBVI-Ent+.

    Args:
        beta: weight of the KL divergence, in [1e-8, 1e8].
        eps: accuracy asked for, > 0.
        delta: chance of error allowed, in (0, 1).
        bonus: "hoeffding" (the variant derived above) or "bernstein" (as transcribed, from a source that was
            not found; its H^2/n term rules until very small eps, where its episodes grow more slowly than 1/eps).
        bonus_scale: c >= 0, multiplies the bonuses; below 1 nothing is guaranteed.
        reward: "known" (r is given), or "unknown": each visit shows a Bernoulli reward of mean r(s, a) (or r(s, a, s') where
            the MDP's rewards depend on the next state), a band around its mean takes the place of r, and each of the three
            events has delta / 3.
        stop: "certificate" (G <= eps: the policy is eps-optimal), or "width" (Vu - Vl <= eps: the value is known to
            eps, which is the stopping rule without strong convexity).
        explore: whether an episode may deviate to the widest action; False never does.
        replan: rho >= 0: plans again after max(t + 1, (1 + rho) t) episodes; 0 is each episode.
        budget: most episodes to play, 1 to 10^9.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    beta: float
    eps: float
    delta: float = 0.1
    bonus: str = "hoeffding"
    bonus_scale: float = 1.0
    reward: str = "known"
    stop: str = "certificate"
    explore: bool = True
    replan: float = 0.01
    budget: int = 10**6

    def __post_init__(self) -> None:
        check_beta("UCBVIEnt", self.beta)
        check(self, **TABULAR)
        as_flag("UCBVIEnt", "explore", self.explore)

    def run(self, mdp: MDP, pi_ref: ArrayLike, rng: np.random.Generator | int) -> Trace:
        """Explore ``mdp`` until the stopping rule is met or the budget is spent.

        Args:
            mdp: an MDP with dense P and rewards in [0, 1]; its P is what episodes are drawn from (and what the exact gaps
                of the trace are computed with), the learner sees counts only.
            pi_ref: [H, S, A], or [S, A] for every stage; where it is zero neither the policy nor the exploration ever plays.
            rng: Generator (advanced by two 64-bit words) or seed.
        Returns:
            Trace: at status "budget" its certificate says what is known of the policy.
        Cost: H S^2 A a planning, some log(budget) / replan of them, and H S an episode.
        Raises:
            ValueError: naming the argument, what was wanted and what came.
        """
        return explore(self, mdp, pi_ref, rng, beta=float(self.beta), deviate=self.explore)
