r"""Calibrated rewards: exact identities with ties, and the uniform law without.

C(y) = P_{z ~ pi_ref}(r(z) < r(y)) + 1/2 P(r(z) = r(y)). With U uniform on the quantiles that the level of y takes up, C = E[U
| y]; U is uniform on [0, 1], so E C = 1/2 and Var C = 1/12 - sum_l p_l^3 / 12, p_l the masses of the levels of r (a block of
width p has variance p^2 / 12). C counts, so an increasing transform of r leaves it unchanged, and averaged over y ~ pi it is
the win rate of pi against pi_ref. Its law is within max_l p_l / 2 of the uniform one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.align.calibration import calibrate, calibration_variance
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity, Limit
from mdpsim.papers.balashankar2024.bounds import EPS, FAMILIES, PAPER, PRESETS, random_responses


def increasing(x: np.ndarray) -> np.ndarray:
    """A strictly increasing function on the line whose slope varies by orders of magnitude."""
    return np.arcsinh(50.0 * x) + x**3


@per_seed
def measure_calibration(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Gaps of the mean, of the variance (both as moments and as the package's formula), under an increasing transform, and of
    E_pi C against the win rate as a double sum over pairs.

    False columns: the mean of P(r(z) < r(y)), without half the ties; C under |r|, which is not increasing.
    """
    r, p = random_responses(point["family"], point["n_responses"], rng)
    C, pi = calibrate(r, p), rng.dirichlet(np.ones(len(r)))
    wins = (r[:, None] > r[None, :]) + 0.5 * (r[:, None] == r[None, :])
    masses = np.array([p[r == v].sum() for v in np.unique(r)])
    variance = float(p @ (C - 0.5) ** 2)
    return {
        "mean": abs(float(p @ C) - 0.5),
        "variance": max(abs(variance - (1.0 - float((masses**3).sum())) / 12.0), abs(variance - float(calibration_variance(r,
        p)))), "invariance": float(np.abs(calibrate(increasing(r), p) - C).max()), "win_rate": abs(float(pi @ C) - float(pi @
        wins @ p)), "mean_strict": abs(float(p @ ((r[:, None] > r[None, :]) @ p)) - 0.5), "invariance_abs":
        float(np.abs(calibrate(np.abs(r), p) - C).max()), "tolerance": 4 * len(r) * EPS,
    }


_GAPS = ("mean", "variance", "invariance", "win_rate")

calibration = Claim(
    id="balashankar2024/calibration",
    statement=(
        r"The calibrated reward $C(y) = \mathbb{P}_{z\sim\pi_{\mathrm{ref}}}(r(z)<r(y)) + \frac12 \mathbb{P}(r(z)=r(y))$ has "
        r"mean "
        r"$\frac12$ and variance $(1-\sum_l p_l^3)/12$ under $\pi_{\mathrm{ref}}$ ($p_l$ the masses of the levels of $r$), is "
        r"unchanged by strictly increasing transforms of $r$, and $\mathbb{E}_\pi C$ is the win rate of $\pi$ against "
        r"$\pi_{\mathrm{ref}}$."
    ),
    origin="derived",
    cites=(PAPER.at("calibrated reward"),),
    grid={
        preset: product(family=FAMILIES, n_responses=n)
        for preset, n in zip(PRESETS, ((20,), (5, 100), (2, 5, 20, 100, 400), (2, 5, 20, 100, 1000)), strict=True)
    },
    measure=measure_calibration,
    rule=Identity(dict.fromkeys(_GAPS, "tolerance")),
    twins=(
        Twin(
            "strict-wins", r"The same with $C(y) = \mathbb{P}(r(z) < r(y))$, without half the ties.",
            r"the mean is $(1 - \sum p_l^2)/2$: at least $0.001$ below $\frac12$",
            rule=Identity({"mean_strict": "tolerance"}),
        ),
        Twin(
            "any-transform", r"$C$ is unchanged by every transform of $r$, $|r|$ for one.",
            r"$C$ moves by more than $0.01$ where $r$ takes both signs",
            rule=Identity({"invariance_abs": "tolerance"}),
        ),
    ),
    seeds={"smoke": 20, "quick": 60, "paper": 600, "full": 6000},
    tags=("calibration", "exact", "random-instances"),
)


# --- the law ---------------------------------------------------------------------------------------------------------


@per_seed
def measure_uniform(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """C of one draw from a reference over 400 responses without ties; ``value_policy``: of one draw from a policy of KL about
    0.2.

    Rewards are "normal", "exponential" or "cauchy"; the policy is pi_ref e^{C / 0.4} / Z.
    """
    draw = {"normal": rng.normal, "exponential": rng.exponential, "cauchy": rng.standard_cauchy}[point["family"]]
    r, p = draw(size=400), rng.dirichlet(np.full(400, 2.0))
    C = calibrate(r, p)
    pi = p * np.exp(C / 0.4)
    u = rng.random()
    at = [int(np.searchsorted(np.cumsum(law) / law.sum(), u)) for law in (p, pi)]
    return {"value": float(C[min(at[0], 399)]), "value_policy": float(C[min(at[1], 399)])}


calibrated_uniform = Claim(
    id="balashankar2024/calibrated-uniform",
    statement=(
        r"Without ties the calibrated reward of a draw from $\pi_{\mathrm{ref}}$ is uniform on $[0, 1]$, whatever the law of "
        r"the "
        r"reward (here up to the mass of one of 400 responses)."
    ),
    origin="derived",
    cites=(PAPER.at("calibrated reward"),),
    grid={
        preset: product(family=f)
        for preset, f in zip(
            PRESETS, (("normal",), ("normal", "cauchy"), *(("normal", "exponential", "cauchy"),) * 2), strict=True
        )
    },
    measure=measure_uniform,
    rule=Limit(law=("uniform", 1.0), margin=0.1),
    twins=(
        Twin(
            "under-the-policy", r"So is that of a draw from the aligned policy $\pi_{\mathrm{ref}} e^{C/0.4}/Z$.",
            r"a Kolmogorov distance of $0.29$", rule=Limit(law=("uniform", 1.0), margin=0.1, of="value_policy"),
        ),
    ),
    seeds={"smoke": 1200, "quick": 2500, "paper": 20_000, "full": 100_000},
    tags=("calibration", "sampling", "random-instances"),
)
