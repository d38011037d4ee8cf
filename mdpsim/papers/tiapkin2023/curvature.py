r"""Curvature: planning with a wrong Q costs the square of its error over beta. That is why regularised RL is fast.

At each state let F(Q) = beta log sum_a pi_ref(a) e^{Q(a)/beta}, so that V*_h = F(Q*_h), and grad F(Q) = pi ~ pi_ref e^{Q/beta}.
For any Q-hat and pi-hat = grad F(Q-hat), the regularised value of pi-hat is <pi-hat, Q^{pi-hat} - Q-hat> + F(Q-hat), so

    V*_h - V^{pi-hat}_h = D_h + pi-hat P (V*_{h+1} - V^{pi-hat}_{h+1}),
    D_h = F(Q*_h) - F(Q-hat_h) - <pi-hat_h, Q*_h - Q-hat_h>,                                                     (5)

and D_h, the Bregman divergence of F, is beta KL(pi-hat_h || pi*_h), as in (3) of the reduction (a claim of its own). Unrolled,

    V* - V^{pi-hat} = E_{pi-hat} sum_h D_h(s_h).                                                                 (6)

Let M_h(s) be the range over a of Q-hat - Q* (at most the width of any confidence band whose upper end is Q-hat and that holds
Q*). Along the segment from Q-hat to Q* the second derivative of F is a variance over beta, at most M^2 / (4 beta) by Popoviciu,
so D <= M^2 / (8 beta). D does not change when Q-hat is shifted by a constant, so take Q* <= Q-hat <= Q* + M: then
F(Q*) <= F(Q-hat) and D <= M. Together

    V* - V^{pi-hat} <= E_{pi-hat} sum_h min(M_h, M_h^2 / (8 beta)).                                              (7)

The constant 1/8 is sharp: two actions, a uniform reference, Q-hat = 0 and Q* = (M, 0) give D = beta log cosh(M / (2 beta)),
which is (M^2 / (8 beta)) (1 - (M / beta)^2 / 24 + ..).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import PRESETS, Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Inequality
from mdpsim.mdp import families
from mdpsim.papers.tiapkin2023.bounds import EPS, FAMILIES, PAPER, random_instance
from mdpsim.solve.exact import evaluate, occupancy, solve_soft


@per_seed
def measure_curvature(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Both sides of (7): a random MDP and reference (Dirichlet(1) rows), and Q-hat off Q* by a random error.

    ``error`` is the largest M / beta. In every (h, s) the range of Q-hat - Q* is uniform on [1/2, 1] of it, its actions uniform
    on that range or, in half of the trials, at one of its ends. "two-action" is the fixed instance above. ``value`` is the
    regularised V* - V^{pi-hat} from mu0, by policy evaluation; ``bound`` the right side of (7) with the occupancy of pi-hat,
    ``sixteenth`` the same with M^2 / (16 beta), ``first_stage`` its first stage only. Rounding: 64 float64 roundings of the
    values on the left.
    """
    beta = point["beta"]
    largest = point["error"] * beta
    if point["family"] == "two-action":
        mdp, pi_ref = families.bandit(np.array([largest, 0.0])), families.uniform_policy(1, 1, 2)
        best = solve_soft(mdp, pi_ref, beta)
        q_hat = np.zeros_like(best.Q)
    else:
        mdp = random_instance(point["family"], rng)
        pi_ref = families.random_policy(H=mdp.H, S=mdp.S, A=mdp.A, rng=rng)
        best = solve_soft(mdp, pi_ref, beta)
        q_hat = best.Q + largest * _error(best.Q.shape, rng)
    pi_hat = special.softmax(np.log(pi_ref) + q_hat / beta, axis=-1)
    value = evaluate(mdp, pi_hat, pi_ref=pi_ref, beta=beta)
    width = np.ptp(q_hat - best.Q, axis=-1)
    occ = occupancy(mdp, pi_hat)
    per_stage = (occ * np.minimum(width, width**2 / (8.0 * beta))).sum(axis=-1)
    scale = float(np.abs(best.V[0]).max() + np.abs(value.V[0]).max() + beta * value.kl)
    return {
        "value": float(mdp.mu0 @ best.V[0]) - value.J,
        "bound": float(per_stage.sum()),
        "sixteenth": float((occ * np.minimum(width, width**2 / (16.0 * beta))).sum()),
        "first_stage": float(per_stage[0]),
        "rounding": 64 * EPS * scale,
    }


def _error(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Random errors [H, S, A] >= 0, the range of each row in [1/2, 1]."""
    share = rng.random(shape)
    share = (share - share.min(axis=-1, keepdims=True)) / np.ptp(share, axis=-1, keepdims=True)
    if rng.random() < 0.5:
        share = np.round(share)
    return rng.uniform(0.5, 1.0, (*shape[:-1], 1)) * share


_ERRORS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_FIXED = {"family": ("two-action",), "beta": (1.0,)}
_SHARP = {preset: product(**_FIXED, error=(0.01, 0.1)) for preset in PRESETS}

curvature_gap = Claim(
    id="tiapkin2023/curvature-gap",
    statement=(
        r"For any $\hat Q$ and $\hat\pi \propto \tilde\pi\,e^{\hat Q/\beta}$, the regularised gap is at most quadratic in the "
        r"error: $V^*_\beta - V^{\hat\pi}_\beta \le \mathbb{E}_{\hat\pi} \sum_h \min\big(M_h,\, M_h^2/(8\beta)\big)$, "
        r"$M_h = \max_a(\hat Q_h - Q^*_h) - \min_a(\hat Q_h - Q^*_h)$. The constant $1/8$ is sharp."
    ),
    origin="derived",
    cites=(PAPER.at("the analysis of UCBVI-Ent+"),),
    grid={
        "smoke": product(family=FAMILIES, beta=(0.5,), error=(0.1, 10.0)) + _SHARP["smoke"],
        "quick": product(family=FAMILIES, beta=(0.1, 0.5, 2.0), error=(0.1, 1.0, 10.0)) + _SHARP["quick"],
        "paper": product(family=FAMILIES, beta=(0.005, 0.02, 0.1, 0.5, 2.0), error=_ERRORS) + _SHARP["paper"],
        "full": product(family=FAMILIES, beta=(0.005, 0.02, 0.1, 0.5, 2.0, 20.0), error=(*_ERRORS, 100.0)) + _SHARP["full"],
    },
    measure=measure_curvature,
    rule=Inequality(tol="rounding"),
    twins=(
        Twin(
            "one-sixteenth", r"The same with $M_h^2/(16\beta)$.",
            r"a factor of 2: the fixed two-action instance with $M/\beta \le 0.1$ exceeds this bound by a factor above 1.99",
            rule=Inequality(bound="sixteenth", tol="rounding"),
            grid=_SHARP,
        ),
        Twin(
            "first-stage-only", r"The same with the first stage's term alone: errors of later stages are free.",
            r"$H-1 = 3$ of the 4 stages: some random instances with $M/\beta \le 0.1$ exceed this bound by a factor of 4 to 7",
            rule=Inequality(bound="first_stage", tol="rounding"),
            grid={preset: product(family=FAMILIES, beta=(0.5,), error=(0.1,)) for preset in PRESETS},
        ),
    ),
    seeds={"smoke": 50, "quick": 200, "paper": 2000, "full": 20000},
    tags=("exact", "random-instances"),
)
