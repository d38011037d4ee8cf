r"""An entropy bonus keeps the prior in part, and without a KL term drifts from it.

E_pi r + alpha H(pi) - beta KL(pi || pi_0) is E_pi[r + beta log pi_0] + (alpha + beta) H(pi), so its maximiser is
pi_0^{beta / (alpha + beta)} e^{r / (alpha + beta)} up to normalisation: the prior counts only in part. With beta = 0 it is the
posterior of a uniform prior, E_pi r + alpha H(pi) = alpha log K + E_pi r - alpha KL(pi || uniform). What such a policy q loses
by the measure of the KL-regularised objective at the same weight is alpha KL(q || pi*), by the evidence lower bound: the drift.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from mdpsim.align.gradient import Softmax, exact_gradient
from mdpsim.align.objectives import EntropyReward
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.papers.korbak2022.bounds import EPS, FAMILIES, PAPER, Vector, positive, random_instance
from mdpsim.solve.sequence import elbo, kl, tilt

TOL_P = 1e-5  # what BFGS reaches on probabilities, as in ``posterior``
PRESETS = ("smoke", "quick", "paper", "full")


def maximise(objective: EntropyReward, start: Vector) -> Vector:
    """The maximiser over softmax policies by BFGS, restarted until it stands still; it knows no closed form."""
    from scipy import optimize

    policy, theta = Softmax(len(start)), start
    for _ in range(20):
        found = optimize.minimize(
            lambda x: (-objective.value(policy.log_pi(x)), -exact_gradient(policy, x, objective)), theta, jac=True,
            method="BFGS", options={"gtol": 1e-11, "maxiter": 2000},
        )
        moved = float(np.abs(special.softmax(found.x) - special.softmax(theta)).max())
        theta = found.x - found.x.max()
        if moved < 1e-9:
            break
    return special.softmax(theta)


@per_seed
def measure_entropy_bonus(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """``optimum``: largest difference of a numerical maximiser from the closed form; ``drift``: |J(pi*) - J(q) - alpha KL(q ||
    pi*)| for the optimum q of the entropy bonus alone, J the KL-regularised objective of weight alpha (tolerance: 64
    roundings).

    False columns: the full prior in the closed form, e^{r / beta} in it, and no loss at all from the drift.
    """
    prior, rewards = random_instance(point, rng)
    prior, alpha, beta = positive(prior), point["alpha"], point["beta"]
    found = maximise(EntropyReward(rewards, prior, alpha=alpha, beta=beta), np.zeros(len(prior)))
    total, log_prior = alpha + beta, np.log(prior)
    stated = special.softmax((rewards + beta * log_prior) / total)
    q = tilt(np.full(len(prior), 1.0 / len(prior)), rewards, alpha).pi
    best = tilt(prior, rewards, alpha)
    value, drift = elbo(q, prior, rewards, alpha), alpha * kl(q, best.pi)
    size = float(np.abs(rewards).max()) + alpha * kl(q, prior) + abs(best.value)
    return {
        "optimum": float(np.abs(found - stated).max()),
        "full_prior": float(np.abs(found - special.softmax(log_prior + rewards / total)).max()),
        "beta_alone": float(np.abs(found - special.softmax(beta / total * log_prior + rewards / beta)).max()),
        "drift": abs(best.value - value - drift), "no_drift": abs(best.value - value), "tolerance": 64 * EPS * size,
    }


entropy_bonus_drift = Claim(
    id="korbak2022/entropy-bonus-drift",
    statement=(
        r"With an entropy bonus, $\mathbb{E}_\pi r + \alpha H(\pi) - \beta\,\mathrm{KL}(\pi\,\|\,\pi_0)$ is largest at $\pi "
        r"\propto "
        r"\pi_0^{\beta/(\alpha+\beta)}\,e^{r/(\alpha+\beta)}$. The optimum $q \propto e^{r/\alpha}$ of the bonus alone "
        r"($\beta = 0$) drifts from the prior: it loses $J(\pi^*) - J(q) = \alpha\,\mathrm{KL}(q\,\|\,\pi^*)$, $J(\pi) = "
        r"\mathbb{E}_\pi r - \alpha\,\mathrm{KL}(\pi\,\|\,\pi_0)$ and $\pi^*$ its maximiser."
    ),
    origin="derived",
    cites=(PAPER.at("entropy bonus"),),
    grid={
        preset: product(family=FAMILIES, n_responses=(10,), alpha=alphas, beta=(0.5, 2.0))
        for preset, alphas in zip(PRESETS, ((0.5,), (0.2, 1.0), (0.2, 0.5, 1.0), (0.1, 0.2, 0.5, 1.0)), strict=True)
    },
    measure=measure_entropy_bonus,
    rule=Identity({"optimum": TOL_P, "drift": "tolerance"}),
    twins=(
        Twin(
            "full-prior", r"The optimum is $\propto \pi_0\,e^{r/(\alpha+\beta)}$.",
            r"a factor $\pi_0^{\alpha/(\alpha+\beta)}$: above $10^2$ tolerances", rule=Identity({"full_prior": TOL_P}),
        ),
        Twin(
            "beta-alone", r"The optimum is $\propto \pi_0^{\beta/(\alpha+\beta)}\,e^{r/\beta}$.",
            r"exponents $r/\beta$ in place of $r/(\alpha+\beta)$: above $10^2$ tolerances",
            rule=Identity({"beta_alone": TOL_P}),
        ),
        Twin(
            "no-drift", r"The entropy bonus alone loses nothing.", r"$\alpha\,\mathrm{KL}(q\,\|\,\pi^*)$, above $10^{6}$ "
            "tolerances",
            rule=Identity({"no_drift": "tolerance"}),
        ),
    ),
    seeds={"smoke": 3, "quick": 10, "paper": 100, "full": 1000},
    tags=("bandit", "exact", "random-instances"),
)
