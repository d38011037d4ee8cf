r"""Pessimism in the face of uncertain rewards: the best policy for the least reward that preferences allow, against the clone.

With fitted rewards r-hat, d the occupancy of a policy (or its feature sums) and d_BC that of the clone,

    maximise over policies   <r-hat, d - d_BC> - radius (|d - d_BC|_Sigma^2 + s^2)^{1/2},   Sigma^-1 = cov^-1 + 1/prior,

which is the least of <r, d - d_BC> over the ellipsoid |r - r-hat|_{Sigma^-1} <= radius, its norm smoothed at 0 by s = 1e-3. The
objective is concave in d, which mixtures of policies make any point of the hull of. Frank-Wolfe: the best response to the
gradient (one backward induction), then the best mixture with it; the duality gap <gradient, best - now> bounds what is missing.

Reference: Zhu, Jiao and Jordan, "Principled reinforcement learning with human feedback from pairwise or K-wise comparisons",
ICML 2023 (pessimistic maximum likelihood, with the clone's feature sums as the reference vector).
"""

from __future__ import annotations

import numpy as np

from mdpsim.arrays import FloatArray, as_real, fail, frozen
from mdpsim.estimate.reward import RewardFit
from mdpsim.mdp.forms import form
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.policies import as_policy
from mdpsim.mdp.tabular import MDP

SMOOTH = 1e-3
GAP = 1e-3  # duality gap at which steps end
STEPS = 300


def pessimistic_policy(
    mdp: MDP | LinearMDP, clone: FloatArray, fit: RewardFit, *, radius: float, prior: float
) -> tuple[FloatArray, float]:
    """(policy [H, S, A], duality gap) of the objective above.

    Args:
        mdp: its dynamics; rewards are those of ``fit``.
        clone: [H, S, A], which pairs were drawn from.
        fit: as fit_reward returns it for preferences in ``mdp``.
        radius: of the ellipsoid, >= 0.
        prior: variance of a coordinate before any pair, > 0.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    Exactness: the objective is within the duality gap of its maximum; steps end at 1e-3, or after 300.
    Cost: a backward induction, an occupancy and D^2 a step, D = fit.theta.size.
    """
    model = form("pessimistic_policy", mdp)
    clone = as_policy("pessimistic_policy", "clone", clone, model.shape)
    if not isinstance(fit, RewardFit) or fit.r.shape != model.shape:
        fail("pessimistic_policy", "fit", f"be a RewardFit of H, S, A = {model.shape}", getattr(fit, "r", fit))
    radius = as_real("pessimistic_policy", "radius", radius, 0.0, 1e6)
    prior = as_real("pessimistic_policy", "prior", prior, 1e-300, 1e300)
    theta = fit.theta.reshape(-1)
    phi = mdp.phi if isinstance(mdp, LinearMDP) else None
    cov = np.linalg.inv(np.linalg.inv(fit.cov) + np.eye(theta.size) / prior)
    shape = model.shape
    V, Q, pi, occ = np.empty((shape[0] + 1, shape[1])), np.empty(shape), np.empty(shape), np.empty(shape[:2])
    uniform = frozen(np.ones((1, *shape[1:])))

    def visits_of(policy: FloatArray) -> FloatArray:
        model.value.occupancy(*model.dynamics, frozen(policy), model.mu0, occ)
        return occ[:, :, None] * policy

    def best_response(reward: FloatArray) -> FloatArray:
        pi.flags.writeable = True
        model.solve.hard_induction(*model.dynamics, frozen(reward.reshape(fit.theta.shape)), uniform, V, Q, pi)
        return visits_of(pi)

    def features(visits: FloatArray) -> FloatArray:
        return (visits if phi is None else np.einsum("hsa,sad->hd", visits, phi)).reshape(-1)

    now, away, gap = visits_of(clone), np.zeros(theta.size), np.inf
    for _ in range(STEPS):
        pull = cov @ away
        gradient = theta - radius * pull / np.sqrt(away @ pull + SMOOTH**2)
        best = best_response(gradient)
        step = features(best - now)
        gap = float(gradient @ step)
        if gap <= GAP:
            break
        share = _best_share(float(theta @ step), float(away @ pull), float(step @ pull), float(step @ cov @ step), radius)
        now, away = now + share * (best - now), away + share * step
    mass = now.sum(axis=-1, keepdims=True)
    policy = np.where(mass > 0, now, clone) / np.where(mass > 0, mass, 1.0)
    return frozen(policy), gap


def _best_share(linear: float, aa: float, ab: float, bb: float, radius: float) -> float:
    """The x in [0, 1] that maximises linear x - radius (aa + 2 ab x + bb x^2 + SMOOTH^2)^{1/2}, concave, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(40):
        x = 0.5 * (low + high)
        slope = linear - radius * (ab + bb * x) / (aa + 2.0 * ab * x + bb * x * x + SMOOTH**2) ** 0.5
        low, high = (x, high) if slope > 0.0 else (low, x)
    return high if high == 1.0 else 0.5 * (low + high)
