r"""LSVI-UCB-Ent: best-policy identification in KL-regularised linear MDPs, with a certificate of the policy it returns.

The learner knows features phi (rows on the simplex), mu0, the rewards r in [0, 1] and pi_ref, and plays episodes of an unknown
P_h = phi mu_h. Formulas and notation: mdpsim/kernels/lsvi.py. |x| below is the norm of Lambda_h^{-1}, t any time.

Lemma (one event for all functions). With probability at least 1 - delta, for all t, h, x = phi(s, a) and ALL f: S -> [lo, hi],
with m and w the centre and half-width of [lo, hi] and P f = sum_s' P_h(s'|s, a) f(s'),

    |P f - m - x . Lambda^{-1} Sigma (f - m)| <= w U |x|,   U = sqrt(log det(Lambda/ridge) + 2 (S-1) log 2 + 2 log(H/delta))
                                                                + sqrt(ridge d).
Proof. P m = m, so let m = 0 and w = 1 by homogeneity. As f(s'_i) = phi_i . mu f + eta_i(f), the error is x . Lambda^{-1}
(ridge mu f - sum_i phi_i eta_i(f)), at most |x| (sqrt(ridge) ||mu f||_2 + |sum_i phi_i eta_i(f)|), and ||mu f||_2 <= sqrt(d).
The last norm is convex in f, so it is largest at a vertex of [-1, 1]^S, and the same at f and -f: a union over 2^(S-1) vertices
and H stages, without a net, of the self-normalised inequality (Abbasi-Yadkori, Pal, Szepesvari 2011; eta_i(f) has a range of 2,
and is 1-sub-Gaussian), which holds for all t at once. QED. The term S log 2 stands where a covering number of values would.

Sandwich. On this event Ql <= Q*_beta <= Qu at every planning: P V* <= P Vu <= est(Vu) + rad(Vu) by induction, although est,
whose weights may be negative, is not monotone. This needs the lemma at data-dependent f.

Certificate. pi is soft-optimal for Qu, so the gap obeys V*_h - V_h^pi <= min(M, M^2/(8 beta)) + pi P (V* - V^pi)_{h+1}
(mdpsim/learn/ucbvi_ent.py), and by induction it is at most G: P (V* - V^pi) <= P G <= est(G) + rad(G), the lemma at f = G
with the range that G is seen to have. So the run may stop where G <= eps: its policy is then eps-optimal, with probability
1 - delta. G is of second order: rad(G) is |x| times the range of G, itself of order |x|^2. It decays as 1/(beta t) where
|phi(s, a)| does for all states; where some state's features are never met, max G does not decay, and G is of first order, |x|.

Oracle. The same recursion with the true P in the place of est + rad: what the curvature and the widths alone give. It is not
observable: stop="oracle" is for theorists, who ask when an oracle would have stopped.

Bonuses. "vertex": the lemma with [0, H-h-1] for the values. "range": with the range that Vu and Vl are seen to have, on the
same event, never wider. "covering": that of the paper, w U = d (H-h-1) sqrt(log(2dH(t+1)/delta)), regression not centred; its
order as transcribed, its constant (1) without a proof, so neither bounds nor certificate have one.

Exploration. Each episode draws a stage (or none) and plays there the action of widest Qu - Ql, elsewhere pi.

Reference: Tiapkin et al., "Demonstration-Regularized RL", ICLR 2024, arXiv 2310.17303 (its LSVI-UCB-Ent; its lambda is beta
here). Jin, Yang, Wang and Jordan, COLT 2020, for the covering bonus.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import as_flag, as_real, as_simplex, fail, frozen
from mdpsim.kernels import lsvi
from mdpsim.learn.exploration import as_trace, check, check_beta
from mdpsim.learn.trace import Trace, log_spaced
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.policies import as_policy
from mdpsim.rng import as_generator
from mdpsim.solve.exact import solve_soft

RULES = {"certificate": lsvi.CERTIFICATE, "width": lsvi.WIDTH, "oracle": lsvi.ORACLE}
BONUSES = {"vertex": lsvi.VERTEX, "range": lsvi.RANGE, "covering": lsvi.COVERING}


@dataclass(frozen=True, kw_only=True)
class LSVIUCBEnt:
    """Configuration of LSVI-UCB-Ent.

    Args:
        beta: weight of the KL divergence, in [1e-8, 1e8].
        eps: accuracy asked for, > 0.
        delta: chance of error allowed, in (0, 1).
        bonus: "vertex", "range" or "covering": see the module.
        bonus_scale: c >= 0, multiplies the bonuses; below 1 nothing is guaranteed.
        stop: "certificate" (G <= eps: the policy is eps-optimal), "width" (Vu - Vl <= eps: the value is known to eps, which is
            the rule without strong convexity), or "oracle" (the oracle's G <= eps: not observable).
        explore: whether an episode may deviate to the widest action; False never does.
        replan: rho >= 0: plans again after max(t + 1, (1 + rho) t) episodes; 0 is each episode.
        budget: most episodes to play, 1 to 10^9.
        ridge: the regression's, in [1e-3, 1e6].
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    beta: float
    eps: float
    delta: float = 0.1
    bonus: str = "range"
    bonus_scale: float = 1.0
    stop: str = "certificate"
    explore: bool = True
    replan: float = 0.01
    budget: int = 10**6
    ridge: float = 1.0

    def __post_init__(self) -> None:
        check_beta("LSVIUCBEnt", self.beta)
        as_real("LSVIUCBEnt", "ridge", self.ridge, 1e-3, 1e6)
        check(self, bonus=BONUSES, stop=RULES)
        as_flag("LSVIUCBEnt", "explore", self.explore)

    def run(
        self, mdp: LinearMDP, pi_ref: ArrayLike, rng: np.random.Generator | int, *, phi: ArrayLike | None = None
    ) -> Trace:
        """Explore ``mdp`` until the stopping rule is met or the budget is spent.

        Args:
            mdp: a linear MDP with rewards in [0, 1]; its mu is what episodes are drawn from (and what exact gaps, and the
                oracle's certificate, are computed with), the learner sees features and next states only.
            pi_ref: [H, S, A], or [S, A] for every stage; where it is zero neither the policy nor the exploration ever plays.
            rng: Generator (advanced by two 64-bit words) or seed.
            phi: [S, A, d] the features that the learner is given, rows on the simplex; None is those of ``mdp``. With others
                the model is misspecified, and nothing is guaranteed.
        Returns:
            Trace: at status "budget" its certificate says what is known of the policy; ``oracles`` is the oracle's.
        Cost: H (S A d^2 + d^3) a planning, some log(budget) / replan of them, and H (A + d^2) an episode. No array is larger
            than phi, H d S or H S A.
        Raises:
            ValueError: naming the argument, what was wanted and what came.
        """
        if not isinstance(mdp, LinearMDP):
            fail("LSVIUCBEnt.run", "mdp", "be a LinearMDP", type(mdp).__name__)
        r = mdp.phi @ mdp.theta.T
        if r.min() < 0.0 or r.max() > 1.0 + 1e-12:  # sums of products may round above 1
            fail("LSVIUCBEnt.run", "mdp", "have rewards in [0, 1]", f"[{r.min():g}, {r.max():g}]")
        shape = (mdp.H, mdp.S, mdp.A)
        ref = as_policy("LSVIUCBEnt.run", "pi_ref", pi_ref, shape)
        features = mdp.phi if phi is None else as_simplex("LSVIUCBEnt.run", "phi", phi, "S A d", (mdp.S, mdp.A, None))
        key = as_generator("LSVIUCBEnt.run", rng).integers(0, 2**64, size=2, dtype=np.uint64)
        best = solve_soft(mdp, ref, self.beta)
        checkpoints = log_spaced(self.budget)
        visits, upper, lower, pi = np.zeros(shape), np.empty(shape), np.empty(shape), np.empty(shape)
        marks, policies, info = np.zeros((checkpoints.size + 1, 4)), np.empty((checkpoints.size, *shape)), np.empty(5)
        lsvi.explore(
            features, mdp.phi, mdp.mu, mdp.theta, mdp.mu0.reshape(1, -1), ref, best.Q, float(self.beta), float(self.eps),
            float(self.delta), float(self.bonus_scale), float(self.ridge), float(self.replan), lsvi.REFRESH,
            BONUSES[self.bonus], RULES[self.stop], self.explore, int(self.budget), *key, frozen(checkpoints), visits, upper,
            lower, pi, marks, policies, info,
        )
        return as_trace(mdp, ref, self.beta, best, marks, policies, info, pi, visits, upper, lower)
