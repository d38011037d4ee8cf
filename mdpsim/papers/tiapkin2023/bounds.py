r"""What the claims of this paper share: the citation, the random instances, and the sharp bound on cloning.

Cloning, sharp. Given n = N_h(s) visits, Jensen and E[1/(Bin(n,p)+1)] <= 1/((n+1)p) give

    E[KL(pi_E(.|s) || pi_BC(.|s)) | n] <= log((n+A)/(n+1)) <= (A-1)/(n+1),                                       (1)

with equality in the first step for a deterministic expert. The same identity for n ~ Bin(N, d) gives, for any expert,

    E KL_traj(pi_E || pi_BC) <= (A-1) sum_{(h,s): d_h(s)>0} (1 - (1-d_h(s))^{N+1}) / (N+1).                      (2)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from mdpsim.arrays import FloatArray, fail
from mdpsim.claims.claim import Paper
from mdpsim.mdp import families
from mdpsim.mdp.tabular import MDP

PAPER = Paper(
    key="tiapkin2023",
    authors=(
        "Tiapkin, Daniil and Belomestny, Denis and Calandriello, Daniele and Moulines, Eric and Munos, Remi and "
        "Naumov, Alexey and Perrault, Pierre and Valko, Michal and Menard, Pierre"
    ),
    title="Demonstration-Regularized RL",
    venue="International Conference on Learning Representations (ICLR)",
    year=2024,
    arxiv="2310.17303",
)

EPS = float(np.finfo(float).eps)
S, A, H = 5, 3, 4  # size of the random instances
DELTA = 0.1  # confidence at which the paper's bound is drawn
MOST_REDRAWS = 1000  # of instances; at the claims' own points 9 in 10 do at once
TOLERANCE = 1e-10  # of a sandwich of values: rounding of a few backward inductions

Drawn = TypeVar("Drawn")

FAMILIES = ("dirichlet", "deterministic", "garnet")
EXPERTS = ("deterministic", "interior")  # the first attains the sharp bound, the second half of it as N grows


def random_instance(family: str, rng: np.random.Generator) -> MDP:
    """A random MDP: "dirichlet" kernels, "deterministic" transitions, "garnet" (two next states); or the "two-arm" bandit."""
    if family == "two-arm":
        return families.bandit(np.array([1.0, 0.0]))
    if family == "dirichlet":
        return families.random_mdp(S=S, A=A, H=H, rng=rng)
    if family == "deterministic":
        return families.random_deterministic(S=S, A=A, H=H, rng=rng)
    return families.garnet(S=S, A=A, H=H, branching=2, rng=rng)


def sharp_bound(d: FloatArray, n_actions: int, n_demos: int) -> float:
    """The right side of (2), for occupancies d [H, S]."""
    return float((n_actions - 1) * hit_rate(d[d > 0], n_demos).sum() / (n_demos + 1))


def hit_rate(d: FloatArray, n_demos: int) -> FloatArray:
    """1 - (1-d)^{N+1}, elementwise: (N+1) d E[1/(n+1)] for n ~ Bin(N, d)."""
    with np.errstate(divide="ignore"):  # log1p(-1) = -inf: a state visited surely
        return -np.expm1((n_demos + 1) * np.log1p(-np.minimum(d, 1.0)))


def paper_bound(mdp: MDP, n_demos: int, delta: float = DELTA) -> float:
    """Corollary 1 as transcribed: 6SAH log(2e^4 N) log(12HN^2/delta)/N + 18AH/N, with probability 1 - delta."""
    logs = np.log(2 * np.e**4 * n_demos) * np.log(12 * mdp.H * n_demos**2 / delta)
    return float(6 * mdp.S * mdp.A * mdp.H * logs / n_demos + 18 * mdp.A * mdp.H / n_demos)


def redrawn(where: str, n_demos: int, least: float, draw: Callable[[], tuple[Drawn, float]]) -> Drawn:
    """What is drawn, drawn again until ``n_demos`` times its mass is at least ``least``: all of it expected so often.

    Raises:
        ValueError: MOST_REDRAWS without one; the message says how many demonstrations half of the draws would do with.
    """
    masses = []
    for _ in range(MOST_REDRAWS):
        found, mass = draw()
        if n_demos * mass >= least:
            return found
        masses.append(mass)
    needed = np.ceil(least / np.median(masses))
    wanted = f"be so large that everything visited is expected {least:g} times: {needed:.0f}, for half of the random instances"
    fail(where, "n_demos", wanted, f"{n_demos}, too few for each of {MOST_REDRAWS}")


def mixed(pi: FloatArray, rng: np.random.Generator, low: float, high: float) -> FloatArray:
    """(1-w) pi + w (a random policy), w log-uniform in [low, high]."""
    weight = np.exp(rng.uniform(np.log(low), np.log(high)))
    other = families.random_policy(H=pi.shape[0], S=pi.shape[1], A=pi.shape[2], rng=rng)
    return (1 - weight) * pi + weight * other
