r"""BPI-UCBVI: best-policy identification without the KL term, the baseline of UCBVI-Ent+.

The learner knows H, S, A, mu0, rewards in [0, 1] (or learns them), and plays episodes of an unknown P, always the policy pi
that is greedy for the upper values. Events as in mdpsim/learn/ucbvi_ent.py, around V* in place of V*_beta: with the bonus b,
|(phat - P) V*_{h+1}| <= b and n KL(phat || P) <= K(n) for all n; formulas in mdpsim/kernels/ucbvi.py.

Certificate. Let D_h = Vu_h - V^pi_h, at least f_h = V*_h - V^pi_h >= 0. At the actions that pi plays, rewards known,

    Qu - Q^pi <= b + phat Vu - P V* + P f <= 2 b + phat (Vu - V*) + P f,      P f <= phat f + sqrt(2 R kappa phat f) + 2 R kappa

(Donsker-Varadhan, as there), and phat (Vu - V*) + phat f = phat D. So D_h <= 2 b + y + sqrt(2 R kappa y) + 2 R kappa with
y = phat D_{h+1} and R = H - h - 1, which D_{h+1} never exceeds; unknown rewards add their band ru - rl. G solves the
recursion, and V* - V^pi <= Vu - V^pi <= G with probability at least 1 - delta, at every time. Widths of order sqrt(log n / n)
enter it, not their squares: the run stops after order 1/eps^2 episodes.

Reference: Menard, Domingues, Jonsson, Kaufmann, Leurent and Valko, "Fast active learning for pure exploration in reinforcement
learning", ICML 2021, arXiv 2007.13442 (BPI-UCBVI; its Bernstein forms are ``bonus="bernstein"``, as transcribed).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.learn.exploration import TABULAR, check, explore
from mdpsim.learn.trace import Trace
from mdpsim.mdp.tabular import MDP


@dataclass(frozen=True, kw_only=True)
class UCBVI:
    """Configuration of BPI-UCBVI.

    Args:
        eps: accuracy asked for, > 0.
        delta: chance of error allowed, in (0, 1).
        bonus: "hoeffding" (derived above) or "bernstein" (as transcribed).
        bonus_scale: c >= 0, multiplies the bonuses; below 1 nothing is guaranteed.
        reward: "known", or "unknown": each visit shows a Bernoulli reward of mean r(s, a), or r(s, a, s') where the MDP's
            rewards depend on the next state.
        stop: "certificate" (G <= eps: the policy is eps-optimal) or "width" (Vu - Vl <= eps: the value is known to eps).
        replan: rho >= 0: plans again after max(t + 1, (1 + rho) t) episodes; 0 is each episode.
        budget: most episodes to play, 1 to 10^9.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    eps: float
    delta: float = 0.1
    bonus: str = "hoeffding"
    bonus_scale: float = 1.0
    reward: str = "known"
    stop: str = "certificate"
    replan: float = 0.01
    budget: int = 10**6

    def __post_init__(self) -> None:
        check(self, **TABULAR)

    def run(self, mdp: MDP, pi_ref: ArrayLike, rng: np.random.Generator | int) -> Trace:
        """Play ``mdp`` until the stopping rule is met or the budget is spent.

        Args:
            mdp: an MDP with dense P and rewards in [0, 1]; the learner sees counts only.
            pi_ref: [H, S, A], or [S, A] for every stage; only its support is read as a restriction (no other action is played,
                and the optimum is that over it), and ties share mass in proportion to it. The uniform policy restricts nothing.
            rng: Generator (advanced by two 64-bit words) or seed.
        Returns:
            Trace: ``gap`` is V* - V^pi from mu0, ``upper`` and ``lower`` bound Q*, ``kls`` are to pi_ref. At status "budget"
            its certificate says what is known of the policy.
        Cost: H S^2 A a planning, some log(budget) / replan of them, and H S an episode.
        Raises:
            ValueError: naming the argument, what was wanted and what came.
        """
        return explore(self, mdp, pi_ref, rng, beta=0.0, deviate=False)
