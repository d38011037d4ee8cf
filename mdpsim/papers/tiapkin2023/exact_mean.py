r"""Add-one cloning of a deterministic expert: the exact expectation at every number of demonstrations, and rare states.

Given n visits the clone plays the expert's action with probability (n+1)/(n+A), whatever was seen, so with n ~ Bin(N, d)

    E KL_traj(pi_E || pi_BC) = sum_{(h,s)} d_h(s) E log((n+A)/(n+1)).                                            (11)

With log((n+A)/(n+1)) = int_0^1 u^n (1 - u^{A-1}) / (-log u) du and E u^n = (1 - d(1-u))^N, u = exp(-e^y),

    E log((n+A)/(n+1)) = int_R [1 - d(1-u)]^N (1 - u^{A-1}) u dy,                                                (12)

an analytic integrand that the trapezoidal rule sums to rounding: no binomial sum, any N. Where d = x/N and N grows, n tends to
Poi(x) and [1 - d(1-u)]^N to exp(-x(1-u)): the state adds g(x)/N with

    g(x) = x E log((n+A)/(n+1)), n ~ Poi(x):  g(x) <= (A-1)(1-e^{-x}),  g(x) ~ x log A as x -> 0,  g(x) -> A-1.   (13)

A rare state costs less than a common one: unseen, the uniform clone loses x log A of its small mass.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Limit
from mdpsim.estimate.cloning import fit_bc
from mdpsim.estimate.data import sample_counts
from mdpsim.mdp import families
from mdpsim.mdp.tabular import MDP
from mdpsim.papers.tiapkin2023.bounds import FAMILIES, PAPER, random_instance
from mdpsim.solve.exact import occupancy, trajectory_kl

STEP = 0.2  # of the trapezoidal rule: the integrand's Fourier transform is below 1e-17 at 2 pi / STEP


def _integral(powers: FloatArray, y: FloatArray, n_actions: int) -> FloatArray:
    """Trapezoidal sum of exp(powers) (1 - u^{A-1}) u over y (last axis), u = exp(-e^y)."""
    x = np.exp(y)
    return STEP * (np.exp(powers - x) * -np.expm1(-(n_actions - 1) * x)).sum(axis=-1)


def _nodes(scale: float) -> FloatArray:
    """Nodes in y from where the integrand, of width 1 / (1 + scale) in e^y, is below rounding, to where u vanishes."""
    return np.arange(-40.0 - np.log1p(scale), 4.0, STEP)


def expected_log_ratio(d: FloatArray, n_demos: int, n_actions: int) -> FloatArray:
    """E log((n+A)/(n+1)) for n ~ Bin(N, d), elementwise: (12). Relative error about 1e-14."""
    y = _nodes(float(n_demos))
    missed = np.minimum(np.asarray(d)[..., None] * -np.expm1(-np.exp(y)), 1.0 - 1e-300)
    with np.errstate(divide="ignore"):  # d = 1 and u = 0: the state is never missed
        return _integral(n_demos * np.log1p(-missed), y, n_actions)


def poisson_log_ratio(x: FloatArray | float, n_actions: int) -> FloatArray:
    """E log((n+A)/(n+1)) for n ~ Poi(x), elementwise; x times it is g(x) of (13)."""
    rate = np.asarray(x, float)
    y = _nodes(float(rate.max()))
    return _integral(rate[..., None] * np.expm1(-np.exp(y)), y, n_actions)


def exact_mean(mdp: MDP, expert: FloatArray, n_demos: int) -> float:
    """E KL_traj(pi_E || pi_BC) of add-one for a deterministic expert: (11)."""
    d = occupancy(mdp, expert)
    d = d[d > 0]
    return float(d @ expected_log_ratio(d, n_demos, mdp.A))


@per_seed
def measure_exact_mean(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """KL_traj(pi_E || pi_BC) over (11) for a random instance and deterministic expert.

    ``ratio_at_mean_count`` is it over sum d log((N d + A)/(N d + 1)), which puts the mean number of visits for the number.
    """
    mdp, n_demos = random_instance(point["family"], rng), point["n_demos"]
    expert = families.random_deterministic_policy(H=mdp.H, S=mdp.S, A=mdp.A, rng=rng)
    kl = trajectory_kl(mdp, expert, fit_bc(sample_counts(mdp, expert, n_demos, rng)))
    n = n_demos * occupancy(mdp, expert)
    at_mean = float((n * np.log((n + mdp.A) / (n + 1.0))).sum()) / n_demos
    return {"ratio": kl / exact_mean(mdp, expert, n_demos), "ratio_at_mean_count": kl / at_mean}


_DEMOS = {
    "smoke": (3, 30),
    "quick": (3, 10, 100, 10_000),
    "paper": (1, 3, 10, 30, 100, 300, 1000, 10_000, 100_000),
    "full": (1, 3, 10, 30, 100, 300, 1000, 10_000, 100_000, 1_000_000),
}

bc_exact_mean = Claim(
    id="tiapkin2023/bc-exact-mean",
    statement=(
        r"For a deterministic expert and every $N$, add-one behaviour cloning has exactly "
        r"$\mathbb{E}\,\mathrm{KL}_{\mathrm{traj}}"
        r"(\pi_E\,\|\,\pi_{\mathrm{BC}}) = \sum_{(h,s)} d_h(s)\,\mathbb{E}_{n\sim\mathrm{Bin}(N,d_h(s))} \log\frac{n+A}{n+1}$."
    ),
    origin="derived",
    cites=(PAPER.at("Corollary 1, its expectation"),),
    grid={preset: product(family=FAMILIES, n_demos=n) for preset, n in _DEMOS.items()},
    measure=measure_exact_mean,
    rule=Limit(value=1.0, margin=0.03, of="ratio"),
    twins=(
        Twin(
            "at-the-mean-count", r"The same with $n$ replaced by its mean $N d_h(s)$.",
            r"Jensen's gap: more than 10% at $N = 10$",
            rule=Limit(value=1.0, margin=0.03, of="ratio_at_mean_count"),
        ),
    ),
    # A trial's ratio has a standard deviation of up to 0.25: the 99% interval is +-0.02 at 1000 trials.
    seeds={"smoke": 700, "quick": 1000, "paper": 10_000, "full": 100_000},
    draws=("family",),
    tags=("cloning", "exact", "random-instances"),
    rev=2,
)


# --- rare states -----------------------------------------------------------------------------------------------------

RARE = 60  # rare states at every stage: their sum has a small deviation
N_RARE = 10**7


@per_seed
def measure_rare_states(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """N KL_traj over its prediction where 60 states of each of H stages are visited x times on average, and one always else.

    The expert plays random actions, A is 2, 3 or 5 and H is 1, 2 or 3 at random. ``ratio`` is over H [A-1 + 60 g(x)],
    ``ratio_as_common`` over H [A-1 + 60 (A-1)].
    """
    n_actions, horizon = int(rng.choice([2, 3, 5])), int(rng.integers(1, 4))
    mu0 = np.full(RARE + 1, point["visits"] / N_RARE)
    mu0[0] = 1.0 - mu0[1:].sum()
    P = np.broadcast_to(mu0, (1, RARE + 1, n_actions, RARE + 1))
    mdp = MDP(P, np.zeros((1, RARE + 1, n_actions)), mu0, horizon=horizon)
    expert = families.random_deterministic_policy(H=horizon, S=mdp.S, A=n_actions, rng=rng)
    kl = trajectory_kl(mdp, expert, fit_bc(sample_counts(mdp, expert, N_RARE, rng)))
    common = n_actions - 1.0
    rare = point["visits"] * float(poisson_log_ratio(point["visits"], n_actions))
    return {
        "ratio": N_RARE * kl / (horizon * (common + RARE * rare)),
        "ratio_as_common": N_RARE * kl / (horizon * (common + RARE * common)),
    }


bc_rare_states = Claim(
    id="tiapkin2023/bc-rare-states",
    statement=(
        r"A state that the $N$ demonstrations of a deterministic expert visit $x$ times on average adds $g(x)/N$ to "
        r"$\mathbb{E}\,\mathrm{KL}_{\mathrm{traj}}(\pi_E\,\|\,\pi_{\mathrm{BC}})$ as $N \to \infty$, with "
        r"$g(x) = x\,\mathbb{E}_{n\sim\mathrm{Poi}(x)} \log\frac{n+A}{n+1} \le (A-1)(1-e^{-x})$."
    ),
    origin="derived",
    cites=(PAPER.at("Corollary 1, its expectation"),),
    grid={
        "smoke": product(visits=(0.3, 10.0)),
        "quick": product(visits=(0.1, 1.0, 10.0)),
        "paper": product(visits=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)),
        "full": product(visits=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)),
    },
    measure=measure_rare_states,
    rule=Limit(value=1.0, margin=0.02, of="ratio"),
    twins=(
        Twin(
            "as-any-other-state", r"The same with $g(x) = A - 1$, as for a state visited often.",
            r"a factor above 1.1 for $x \le 10$, above 7 for $x = 0.1$",
            rule=Limit(value=1.0, margin=0.02, of="ratio_as_common"),
        ),
    ),
    seeds={"smoke": 200, "quick": 400, "paper": 4000, "full": 40_000},
    tags=("cloning", "rare-states", "random-instances"),
    rev=2,
)
