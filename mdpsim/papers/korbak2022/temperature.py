r"""Zero temperature: the posterior leaves the suboptimal responses at the rate of the gap.

The posterior pi*_beta ~ pi_0 e^{r/beta} is q_tau of :mod:`mdpsim.papers.korbak2022.bounds` at tau = 1/beta, so by (2) there

    |log(1 - pi*_beta(M)) - (log C - Delta/beta)| <= rho + u (1 + rho),   u = C e^{-Delta/beta},
    rho <= [pi_0(lower levels) / pi_0(second level)] e^{-(Delta_3 - Delta)/beta},

Delta_3 the gap to the third level. For the slope between 1/beta and 2/beta, in 1/beta, the two remainders add up and are
divided by the length 1/beta of the step: it tends to -Delta exactly.

1 - pi*(M) is the sum of the exact solver's probabilities outside M, each known to a few eps max|r| / beta relatively:
never one minus a number near one.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.claims.claim import PRESETS, Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.mdp.families import bandit
from mdpsim.papers.korbak2022.bounds import EPS, LEVELLED, PAPER, Levels, levelled_instance
from mdpsim.solve.exact import solve_soft


@per_seed
def measure_temperature(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """How far log(1 - pi*_beta(M)) is from log C - Delta/beta, and its slope in 1/beta from -Delta.

    The tolerance is the explicit remainder above plus 32 float64 roundings of the exponents; the slope is taken between beta
    and beta/2. The twins' columns replace Delta by the third level's gap, leave C out, or have Delta beta for Delta/beta.
    """
    levels, tau = levelled_instance(point["family"], rng), 1.0 / point["beta"]
    here, further = log_miss(levels, tau), log_miss(levels, 2.0 * tau)
    slope = (further - here) / tau
    tolerance = levels.remainder(tau) + _rounding(levels, tau)
    both = tolerance + levels.remainder(2.0 * tau) + _rounding(levels, 2.0 * tau)
    return {
        "value": abs(here - levels.log_miss(tau)),
        "value_tolerance": tolerance,
        "slope": abs(slope + levels.gap),
        "slope_tolerance": both / tau,
        "slope_third_level": abs(slope + levels.third_gap),
        "value_without_ratio": abs(here + levels.gap * tau),
        "value_in_beta": abs(here - levels.log_ratio + levels.gap / tau),
    }


def log_miss(levels: Levels, tau: float) -> float:
    """log(1 - pi*(M)) of the posterior at temperature 1/tau, from the probabilities outside M."""
    pi = solve_soft(bandit(levels.rewards), levels.prior[None, None], 1.0 / tau).pi[0, 0]
    return float(np.log(pi[~levels.best].sum()))


def _rounding(levels: Levels, tau: float) -> float:
    """32 roundings of the largest exponent: tau |r|, and the logarithms of the prior."""
    return 32 * EPS * (1.0 + tau * float(np.abs(levels.rewards).max()) + float(np.abs(np.log(levels.prior)).max()))


_BETAS = (0.2, 0.1, 0.05, 0.03, 0.02, 0.01)  # those of the theory's table of local slopes
_FAMILIES = ("five-arms", *LEVELLED)


def _cold(*families: str) -> dict[str, tuple[Point, ...]]:
    """Points of the claim's own grids where a twin can be told from the truth."""
    return {preset: product(family=families, beta=(0.01,)) for preset in PRESETS}


zero_temperature = Claim(
    id="korbak2022/zero-temperature",
    statement=(
        r"As $\beta \to 0$ the posterior $\pi^*_\beta$ concentrates on the set $M$ of best responses: "
        r"$\log(1 - \pi^*_\beta(M)) = \log C - \Delta/\beta + o(1)$, $\Delta$ the gap to the second-best level and "
        r"$C = \pi_0(\text{second-best level})/\pi_0(M)$; its slope in $1/\beta$ tends to $-\Delta$. The $o(1)$ is at most "
        r"$\rho + u(1+\rho)$, $u = C e^{-\Delta/\beta}$, $\rho = O(e^{-(\Delta_3-\Delta)/\beta})$."
    ),
    origin="derived",
    cites=(PAPER.at("the posterior, in the limit of no regularisation"),),
    grid={
        "smoke": product(family=_FAMILIES, beta=(0.2, 0.05, 0.01)),
        "quick": product(family=_FAMILIES, beta=_BETAS),
        "paper": product(family=_FAMILIES, beta=(1.0, 0.5, *_BETAS, 0.005)),
        "full": product(family=_FAMILIES, beta=(1.0, 0.5, *_BETAS, 0.005, 0.002)),
    },
    measure=measure_temperature,
    rule=Identity({"value": "value_tolerance", "slope": "slope_tolerance"}),
    twins=(
        Twin(
            "third-level-gap", r"The slope tends to $-\Delta_3$, the gap to the third level.",
            r"$\Delta_3 - \Delta$, at least 0.1, against a tolerance below $10^{-3}$ at $\beta = 0.01$",
            rule=Identity({"slope_third_level": "slope_tolerance"}),
            grid=_cold(*_FAMILIES),
        ),
        Twin(
            "without-the-prior", r"$\log(1 - \pi^*_\beta(M)) = -\Delta/\beta + o(1)$: the prior is forgotten.",
            r"$|\log C|$, 0.41 in the five-arm instance, against a tolerance below $10^{-2}$ at $\beta = 0.01$",
            rule=Identity({"value_without_ratio": "value_tolerance"}),
            grid=_cold("five-arms", "unique", "ties", "rare"),
        ),
        Twin(
            "linear-in-beta", r"$\log(1 - \pi^*_\beta(M)) = \log C - \Delta\,\beta + o(1)$.",
            r"$\Delta(1/\beta - \beta)$: 10 or more at $\beta = 0.01$",
            rule=Identity({"value_in_beta": "value_tolerance"}),
            grid=_cold(*_FAMILIES),
        ),
    ),
    seeds={"smoke": 40, "quick": 200, "paper": 2000, "full": 20000},
    tags=("bandit", "exact", "random-instances"),
)
