r"""On the quantile scale only the transform matters: win rates and KL of pi_ref e^{Phi(C)/beta} / Z, whatever rewards and
reference.

Without ties C(y) is uniform under pi_ref, so u = C(y), y ~ pi, has the density f = e^{Phi/beta} / Z: neither the reward nor the
reference is left in it. The best of N draws of pi has the CDF F^N, that of pi_ref u^N, and integrating by parts

    P(best of pi beats best of pi_ref) = int u^N dF^N = 1 - N int u^{N-1} F^N du,

for the worst N int (1-u)^{N-1} (1-F)^N du.

For Phi = log u: f = k u^{k-1}, k = 1 + 1/beta, which for integer k is best-of-k, and 1 - N int u^{N-1} u^{kN} du = k / (k+1)
for every N: the best of N draws of a best-of-k policy meets the best of N of the reference as k draws meet one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.align.inference import align, inference_loss_rate
from mdpsim.align.procedures import BestOfN, WorstOfN
from mdpsim.align.spaces import quantile_scale
from mdpsim.align.transforms import LOG, best_of_n_kl
from mdpsim.arrays import as_count, fail
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity, Limit
from mdpsim.papers.balashankar2024.bounds import KINDS, PAPER, PRESETS, Vector, random_transform

MOST_DRAWS = 10**9  # from the reference, for the draws of one policy
PAIRS = 200  # of returned responses in a trial
CDFS = {  # rewards of the reference: sampler and CDF
    "normal": lambda rng, n: rng.normal(size=n),
    "exponential": lambda rng, n: rng.exponential(size=n),
    "cauchy": lambda rng, n: rng.standard_cauchy(size=n),
    "lognormal": lambda rng, n: np.exp(rng.normal(size=n)),
}


def quantile_of(family: str, r: Vector) -> Vector:
    """The CDF of a family at rewards r: C."""
    from scipy.special import ndtr

    if family == "cauchy":
        return 0.5 + np.arctan(r) / np.pi
    if family == "exponential":
        return -np.expm1(-r)
    return ndtr(r if family == "normal" else np.log(r))


def _accepted(family: str, log_density, n: int, rng: np.random.Generator) -> Vector:  # type: ignore[no-untyped-def]
    """Rewards of n draws from pi, by rejection from the reference: log_density <= 0 is log pi / pi_ref less its maximum."""
    kept: list[Vector] = []
    have, tried = 0, 0
    while have < n:
        r = CDFS[family](rng, 4 * n)
        kept.append(r[np.log(rng.random(r.size)) < log_density(r)])
        have, tried = have + kept[-1].size, tried + r.size
        if n * tried > MOST_DRAWS * max(have, 1):  # what all n are expected to take
            wanted = f"be at most {MOST_DRAWS * have // (PAIRS * tried)}, for {MOST_DRAWS:g} draws from the reference to do"
            fail("measure_only_transform", "n", wanted, f"{n // PAIRS}, with {have} of {tried} draws accepted")
    return np.concatenate(kept)[:n]


@per_seed
def measure_only_transform(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Share of 200 comparisons of the best (worst) of N draws that the policy wins, and the integral of the statement.

    Draws of the policy are made from raw rewards of a family by rejection, for a random transform Phi at a random KL in [0.2,
    1]. False columns: the win rate of a policy tilted by Phi of the raw reward (clipped to [0, 1]) at the same beta; the
    integral without the factor N.
    """
    n, family, scale = as_count("measure_only_transform", "n", point["n"], high=10**5), point["family"], quantile_scale()
    phi = random_transform(str(rng.choice(KINDS)), rng)
    policy = align(scale, phi, kl=float(rng.uniform(0.2, 1.0)))
    worst = point["procedure"] == "worst-of"
    pick = (lambda x: x.min(axis=1)) if worst else (lambda x: x.max(axis=1))
    edge = np.array([0.0, 1.0])
    top = float(phi.function(edge)[1])

    def calibrated(r: Vector) -> Vector:
        return (phi.function(quantile_of(family, r)) - top) / policy.beta

    def raw(r: Vector) -> Vector:
        return (phi.function(np.clip(r, 0.0, 1.0)) - top) / policy.beta

    rival = pick(CDFS[family](rng, PAIRS * n).reshape(-1, n))
    shares = [
        float(np.mean(pick(_accepted(family, density, PAIRS * n, rng).reshape(-1, n)) > rival)) for density in (calibrated, raw)
    ]
    found = scale.ranks(policy.pi)
    if worst:
        integral = float(scale.pi_ref @ (n * scale.v ** (n - 1) * found.above**n))
    else:
        integral = 1.0 - float(scale.pi_ref @ (n * scale.u ** (n - 1) * found.below**n))
    return {
        "value": shares[0] - integral, "value_raw": shares[1] - integral,
        "value_without_n": shares[0] - (integral / n if worst else 1.0 - (1.0 - integral) / n),
    }


only_the_transform = Claim(
    id="balashankar2024/only-the-transform-matters",
    statement=(
        r"Without ties the inference-time win rate of $\pi \propto \pi_{\mathrm{ref}}\, e^{\Phi(C)/\beta}$ depends on $\Phi$ "
        r"and "
        r"$\beta$ only: $1 - N\int_0^1 u^{N-1} F^N du$ for best-of-$N$ and $N\int_0^1 (1-u)^{N-1}(1-F)^N du$ for "
        r"worst-of-$N$, with "
        r"$F' \propto e^{\Phi(u)/\beta}$."
    ),
    origin="derived",
    cites=(PAPER.at("calibrated reward and win rates"),),
    grid={
        "smoke": product(family=("normal", "exponential", "cauchy"), procedure=("best-of", "worst-of"), n=(4,)),
        "quick": product(family=tuple(CDFS), procedure=("best-of", "worst-of"), n=(2, 4)),
        "paper": product(family=tuple(CDFS), procedure=("best-of", "worst-of"), n=(1, 2, 4, 8)),
        "full": product(family=tuple(CDFS), procedure=("best-of", "worst-of"), n=(1, 2, 4, 8, 16)),
    },
    measure=measure_only_transform,
    rule=Limit(value=0.0, margin=0.02),
    twins=(
        Twin(
            "raw-reward", r"The same for $\pi \propto \pi_{\mathrm{ref}}\, e^{\Phi(r)/\beta}$ with the raw reward (clipped to "
            r"$[0, 1]$).", r"a win rate off by more than $0.04$", rule=Limit(value=0.0, margin=0.02, of="value_raw"),
        ),
        Twin(
            "factor-dropped", r"The same without the factor $N$ before the integrals.",
            r"$(1 - 1/N)$ times the integral, above $0.03$", rule=Limit(value=0.0, margin=0.02, of="value_without_n"),
        ),
    ),
    seeds={"smoke": 80, "quick": 80, "paper": 1000, "full": 10_000},
    tags=("quantiles", "sampling", "random-instances"),
)


# --- the logarithm ---------------------------------------------------------------------------------------------------


@per_seed
def measure_log(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Win rate less k/(k+1), KL less log k - (k-1)/k, for k = 1 + 1/beta random in [1.05, 60]; and the law at a random
    integer k against best-of-k, in total variation.

    False columns: the win rate k / (k + N) that N draws against N suggest; 1/beta = k; the worst of N for the best.
    """
    scale, n = quantile_scale(), point["n"]
    k, whole = float(np.exp(rng.uniform(np.log(1.05), np.log(60.0)))), int(rng.integers(2, 40))
    policy = align(scale, LOG, beta=1.0 / (k - 1.0))
    lost = inference_loss_rate(BestOfN(n), policy.pi, scale)
    same = BestOfN(whole).law(scale, scale.pi_ref)
    laws = [align(scale, LOG, beta=b).pi for b in (1.0 / (whole - 1.0), 1.0 / whole)]
    return {
        "win": abs(lost - 1.0 / (k + 1.0)), "kl": abs(policy.kl - best_of_n_kl(k)),
        "law": 0.5 * float(np.abs(laws[0] - same).sum()), "law_shifted": 0.5 * float(np.abs(laws[1] - same).sum()),
        "win_n": abs(lost - n / (k + n)),
        "win_worst": abs(inference_loss_rate(WorstOfN(n), policy.pi, scale) - 1.0 / (k + 1.0)),
    }


_TOL = 1e-12

log_is_best_of_n = Claim(
    id="balashankar2024/log-transform-is-best-of-n",
    statement=(
        r"Without ties $\Phi = \log u$ gives $f = k u^{k-1}$ with $k = 1 + 1/\beta$, best-of-$k$ for integer $k$: "
        r"$\mathrm{KL} = \log k - \frac{k-1}{k}$, and its best-of-$N$ win rate is $\frac{k}{k+1}$ for every $N$."
    ),
    origin="derived",
    cites=(PAPER.at("the logarithm as a transform"),),
    grid={
        preset: product(n=n) for preset, n in zip(PRESETS, ((1, 4), (1, 2, 4, 16), (1, 2, 3, 4, 8, 16, 64), (1, 2, 4, 64, 512)),
                                                  strict=True)
    },
    measure=measure_log,
    rule=Identity({"win": _TOL, "kl": _TOL, "law": _TOL}),
    twins=(
        Twin(
            "n-draws-help", r"Its best-of-$N$ win rate is $k/(k+N)$.", r"above $0.01$ for $N > 1$",
            rule=Identity({"win_n": _TOL}),
            grid={preset: product(n=(2, 4)) for preset in PRESETS},
        ),
        Twin(
            "off-by-one", r"It is best-of-$k$ for $k = 1/\beta$.", r"a total variation above $0.009$",
            rule=Identity({"law_shifted": _TOL}),
        ),
        Twin(
            "worst-too", r"Its worst-of-$N$ win rate is $k/(k+1)$ too.", r"above $0.005$ for $N > 1$",
            rule=Identity({"win_worst": _TOL}), grid={preset: product(n=(2, 4)) for preset in PRESETS},
        ),
    ),
    seeds={"smoke": 10, "quick": 50, "paper": 500, "full": 5000},
    tags=("quantiles", "exact", "random-instances"),
)
