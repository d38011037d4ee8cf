r"""UCBVI-Ent+: best-policy identification in KL-regularised MDPs, with a certificate of the policy it returns.

The learner knows H, S, A, mu0, the rewards r in [0, 1] and pi_ref, and plays episodes of an unknown P. Variant "H" of the
theory: Hoeffding bonuses around V*_beta, which is fixed, by the Gaussian method of mixtures, for all n at once (probability 1
- delta/2), and n KL(phat || P) <= K(n) for all n (probability 1 - delta/3); formulas in mdpsim/kernels/ucbvi.py.

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

from mdpsim.arrays import as_count, as_real, as_simplex, fail, frozen, unknown
from mdpsim.kernels import ucbvi
from mdpsim.learn.trace import BUDGET, STOPPED, Trace, log_spaced
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.rng import as_generator
from mdpsim.solve.exact import evaluate, solve_soft

RULES = ("certificate", "width")


@dataclass(frozen=True, kw_only=True)
class UCBVIEnt:
    """Configuration of UCBVI-Ent+.

    Args:
        beta: weight of the KL divergence, in [1e-8, 1e8].
        eps: accuracy asked for, > 0.
        delta: chance of error allowed, in (0, 1).
        bonus_scale: c >= 0, multiplies the bonuses; below 1 nothing is guaranteed.
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
    bonus_scale: float = 1.0
    stop: str = "certificate"
    explore: bool = True
    replan: float = 0.01
    budget: int = 10**6

    def __post_init__(self) -> None:
        as_real("UCBVIEnt", "beta", self.beta, 1e-8, 1e8)
        as_real("UCBVIEnt", "eps", self.eps, 1e-12, 1e12)
        as_real("UCBVIEnt", "delta", self.delta, 1e-12, 1.0 - 1e-12)
        as_real("UCBVIEnt", "bonus_scale", self.bonus_scale, 0.0, 1e6)
        as_real("UCBVIEnt", "replan", self.replan, 0.0, 1e3)
        as_count("UCBVIEnt", "budget", self.budget, high=10**9)
        if self.stop not in RULES:
            unknown("UCBVIEnt", "stop", self.stop, RULES)
        if not isinstance(self.explore, bool):
            fail("UCBVIEnt", "explore", "be True or False", repr(self.explore))

    def run(self, mdp: MDP, pi_ref: ArrayLike, rng: np.random.Generator | int) -> Trace:
        """Explore ``mdp`` until the stopping rule is met or the budget is spent.

        Args:
            mdp: an MDP with dense P and rewards in [0, 1]; its P is what episodes are drawn from (and what the exact gaps
                of the trace are computed with), the learner sees counts only.
            pi_ref: [H, S, A]; where it is zero neither the policy nor the exploration ever plays.
            rng: Generator (advanced by two 64-bit words) or seed.
        Returns:
            Trace: at status "budget" its certificate says what is known of the policy.
        Cost: H S^2 A a planning, some log(budget) / replan of them, and H S an episode.
        Raises:
            ValueError: naming the argument, what was wanted and what came.
        """
        if not isinstance(mdp, MDP) or isinstance(mdp.P, Successors):
            fail("UCBVIEnt.run", "mdp", "be an MDP with dense P", type(mdp).__name__)
        if mdp.r.min() < 0.0 or mdp.r.max() > 1.0:
            fail("UCBVIEnt.run", "mdp", "have rewards in [0, 1]", f"[{mdp.r.min():g}, {mdp.r.max():g}]")
        shape = (mdp.H, mdp.S, mdp.A)
        ref = as_simplex("UCBVIEnt.run", "pi_ref", pi_ref, "H S A", shape)
        key = as_generator("UCBVIEnt.run", rng).integers(0, 2**64, size=2, dtype=np.uint64)
        best = solve_soft(mdp, ref, self.beta)
        checkpoints = log_spaced(self.budget)
        visits, next_counts = np.zeros(shape), np.zeros((*shape, mdp.S))
        upper, lower, pi = np.empty(shape), np.empty(shape), np.empty(shape)
        marks, policies, info = np.zeros((checkpoints.size + 1, 3)), np.empty((checkpoints.size, *shape)), np.empty(5)
        ucbvi.explore(
            mdp.P, mdp.r, mdp.mu0.reshape(1, -1), ref, best.Q, float(self.beta), float(self.eps), float(self.delta),
            float(self.bonus_scale), float(self.replan), self.stop == "width", self.explore, int(self.budget), *key,
            frozen(checkpoints), visits, next_counts, upper, lower, pi, marks, policies, info,
        )
        passed, optimum = int(info[4]), float(mdp.mu0 @ best.V[0])
        passed -= passed > 0 and marks[passed - 1, 0] == marks[-1, 0]  # the end is a row of its own
        values = [evaluate(mdp, p, pi_ref=ref, beta=self.beta) for p in (*policies[:passed], pi)]
        rows = np.append(marks[:passed], marks[-1:], axis=0)
        gaps = np.array([optimum - v.J for v in values])
        return Trace(
            pi=frozen(pi), status=STOPPED if info[0] else BUDGET, n_episodes=int(info[1]), certificate=float(marks[-1, 1]),
            gap=float(gaps[-1]), episodes=frozen(rows[:, 0].astype(np.int64)), certificates=frozen(rows[:, 1].copy()),
            widths=frozen(rows[:, 2].copy()), gaps=frozen(gaps), kls=frozen(np.array([v.kl for v in values])),
            visits=frozen(visits.astype(np.int64)), upper=frozen(upper), lower=frozen(lower), violation=float(info[2]),
            n_plans=int(info[3]),
        )
