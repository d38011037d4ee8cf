r"""Binary preferences: a constraint b(x) in {0, 1} as the reward, its posterior, and rejection sampling.

The posterior is pi_0 b / Z, Z = P_{pi_0}(b = 1). Proposing from pi_0 and keeping what satisfies b returns x after n proposals
with probability (1 - Z)^{n-1} pi_0(x) b(x) = [(1 - Z)^{n-1} Z] [pi_0(x) b(x) / Z]: a draw from the posterior, after a geometric
number of proposals of mean 1 / Z, independent of the draw. The posterior's ratio to pi_0 is 1 / Z wherever it has mass, so
meeting the constraint costs KL(posterior || pi_0) = -log Z. With the soft reward r = b the tilted law puts Z e^{1/beta} / (1 -
Z + Z e^{1/beta}) on the constraint, and agrees with the posterior within it, so that

    TV(pi*_beta, posterior) = (1 - Z) / (1 - Z + Z e^{1/beta}).                                                     (7)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity, Limit
from mdpsim.papers.korbak2022.bounds import EPS, PAPER, Vector, random_instance
from mdpsim.solve.sequence import condition, kl, rejection_sample, tilt

PRESETS = ("smoke", "quick", "paper", "full")


def constrained_instance(point: Point, rng: np.random.Generator) -> tuple[Vector, np.ndarray]:
    """A random prior and a random set of ``n_good`` responses; where the prior has zeros, one of the set is not among them."""
    prior, _ = random_instance(point, rng)
    good = np.zeros(len(prior), bool)
    good[rng.permutation(len(prior))[: point["n_good"]]] = True
    if not prior[good].any():
        good[np.flatnonzero(good)[0]], good[-1] = False, True
    return prior, good


@per_seed
def measure_rejection(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """One draw by rejection and how many proposals it took, both turned into numbers that are uniform if the claim is true.

    The randomised probability integral transforms u of the draw (responses in the order of decreasing prior) and v of the
    number of proposals are independent and uniform, so max(u, v)^2 is uniform too. False columns: u under the uniform law on
    the constraint, and v under acceptance sqrt(Z).
    """
    prior, good = constrained_instance(point, rng)
    posterior = condition(prior, good)
    found = rejection_sample(prior, good.astype(float), 1, rng)
    order = np.argsort(-prior)
    place, first, second = int(np.flatnonzero(order == found.samples[0])[0]), rng.random(), rng.random()
    n, Z = int(found.draws[0]), float(np.exp(posterior.log_Z))
    u = _place(posterior.pi[order], place, first)
    u_uniform = _place((good / good.sum())[order], place, first)
    v, v_root = (1.0 - (1.0 - z) ** (n - 1) * (1.0 - second * z) for z in (Z, np.sqrt(Z)))
    return {"value": max(u, v) ** 2, "uniform_on_b": max(u_uniform, v) ** 2, "root_z": max(u, v_root) ** 2}


def _place(p: Vector, place: int, u: float) -> float:
    """P(before place) + u P(place)."""
    return float(p[:place].sum() + u * p[place])


binary_posterior = Claim(
    id="korbak2022/binary-posterior",
    statement=(
        r"For a constraint $b: X \to \{0, 1\}$, rejection sampling from $\pi_0$ returns the posterior $\pi_0 b/Z$, "
        r"$Z = \mathbb{E}_{\pi_0} b$, after a geometric number of proposals of mean $1/Z$ that does not depend on what is "
        r"returned."
    ),
    origin="derived",
    cites=(PAPER.at("Section 5"),),
    grid={
        preset: product(family=("dense", "peaked", "zeros"), n_responses=(40,), n_good=n)
        for preset, n in zip(PRESETS, ((4, 12), (4, 12), (2, 4, 12), (2, 4, 12, 30)), strict=True)
    },
    measure=measure_rejection,
    rule=Limit(law=("uniform", 1.0), margin=0.1),
    twins=(
        Twin(
            "uniform-posterior", r"The posterior is uniform on $b = 1$.",
            r"the largest of the satisfying responses has most of the mass: a Kolmogorov distance of about $0.25$",
            rule=Limit(law=("uniform", 1.0), margin=0.1, of="uniform_on_b"),
            grid={preset: product(family=("peaked",), n_responses=(40,), n_good=(12,)) for preset in PRESETS},
        ),
        Twin(
            "acceptance-root-z", r"The number of proposals has mean $1/\sqrt{Z}$.",
            r"$v$ close to $1$ at a mean of $1/Z$: a Kolmogorov distance of $0.2$ to $0.45$",
            rule=Limit(law=("uniform", 1.0), margin=0.1, of="root_z"),
        ),
    ),
    # D + sqrt(log(200) / 2n) <= 0.1 is what support needs; a true sampler's D exceeds that at one of six points with
    # probability 12 e^{-2n (0.1 - sqrt(log(200) / 2n))^2}: 0.5% with 1300 trials (half with 800), by Massart's inequality
    seeds={"smoke": 1300, "quick": 1500, "paper": 15_000, "full": 100_000},
    tags=("bandit", "sampling", "random-instances"),
)


# --- what the constraint costs ---------------------------------------------------------------------------------------


@per_seed
def measure_binary_cost(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """``cost``: |KL(posterior || pi_0) + log Z|; ``soft``: TV of the tilted law and the posterior less (7); tolerances: 64
    roundings.

    False columns: cost -log(Z) / 2, and (7) without the factor Z before the exponential.
    """
    prior, good = constrained_instance(point, rng)
    beta, posterior = point["beta"], condition(prior, good)
    Z, cost = float(prior[good].sum() / prior.sum()), kl(posterior.pi, prior)
    distance = 0.5 * float(np.abs(tilt(prior, good.astype(float), beta).pi - posterior.pi).sum())
    return {
        "cost": abs(cost + np.log(Z)), "soft": abs(distance - (1 - Z) / (1 - Z + Z * np.exp(1 / beta))),
        "half_the_cost": abs(cost + 0.5 * np.log(Z)), "soft_without_z": abs(distance - (1 - Z) / (1 - Z + np.exp(1 / beta))),
        "tolerance": 64 * EPS * (1.0 - float(np.log(Z)) + 1 / beta),
    }


binary_cost = Claim(
    id="korbak2022/binary-cost",
    statement=(
        r"Meeting a constraint of prior probability $Z$ costs $\mathrm{KL}(\pi_0 b/Z\,\|\,\pi_0) = -\log Z$, and "
        r"KL-regularised RL on the "
        r"reward $b$ falls short of it by $\mathrm{TV}(\pi^*_\beta, \pi_0 b/Z) = (1-Z)/(1-Z+Z e^{1/\beta})$."
    ),
    origin="derived",
    cites=(PAPER.at("Section 5"),),
    grid={
        preset: product(family=("dense", "peaked", "zeros"), n_responses=(40,), n_good=(1, 4, 12), beta=betas)
        for preset, betas in zip(PRESETS, ((0.2,), (0.1, 0.5, 2.0), (0.05, 0.1, 0.5, 2.0), (0.05, 0.5, 2.0, 20.0)), strict=True)
    },
    measure=measure_binary_cost,
    rule=Identity({"cost": "tolerance", "soft": "tolerance"}),
    twins=(
        Twin(
            "half-the-cost", r"It costs $-\frac{1}{2} \log Z$.", r"$\frac{1}{2} |\log Z|$, above $10^{10}$ tolerances",
            rule=Identity({"half_the_cost": "tolerance"}),
        ),
        Twin(
            "z-forgotten", r"The distance is $(1-Z)/(1-Z+e^{1/\beta})$.", r"above $10^{4}$ tolerances",
            rule=Identity({"soft_without_z": "tolerance"}),
        ),
    ),
    seeds={"smoke": 20, "quick": 50, "paper": 500, "full": 5000},
    tags=("bandit", "exact", "random-instances"),
)
