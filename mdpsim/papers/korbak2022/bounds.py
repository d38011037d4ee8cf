r"""What the claims of this paper share: the citation, the random instances, and how fast a Gibbs law concentrates.

Concentration. Let M be the set of best responses, Delta the gap to the second-best level, Delta_x = max r - r(x), and
C = pi_0(second-best level) / pi_0(M). The law q_tau ~ pi_0 e^{tau r} has odds

    q_tau(not M) / q_tau(M) = u (1 + rho),   u = C e^{-Delta tau},
    rho = sum over x below the second level of [pi_0(x) / pi_0(second level)] e^{-(Delta_x - Delta) tau},

hence log q_tau(not M) = log C - Delta tau + log(1 + rho) - log(1 + u (1 + rho)), and

    |log q_tau(not M) - (log C - Delta tau)| <= rho + u (1 + rho)      for every tau,                           (2)

which is the o(1) of "q_tau(not M) = C e^{-Delta tau} (1 + o(1))" in closed form. It is attained up to a factor 1 + O(u + rho)
where one of u and rho is far below the other: a gap that equals its tolerance to six digits is what (2) predicts. Here
tau = 1/beta is the posterior at temperature beta, tau = eta k the k-th step of natural policy gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdpsim.claims.claim import Paper, Point

PAPER = Paper(
    key="korbak2022",
    authors="Korbak, Tomasz and Perez, Ethan and Buckley, Christopher L.",
    title="RL with KL penalties is better viewed as Bayesian inference",
    venue="Findings of the Association for Computational Linguistics: EMNLP 2022",
    year=2022,
    arxiv="2205.11275",
)

Vector = NDArray[np.float64]
Mask = NDArray[np.bool_]
EPS = float(np.finfo(float).eps)
FAMILIES = ("dense", "peaked", "rare")
ZEROS = (*FAMILIES, "zeros")  # for claims that a prior with zeros may meet


def random_instance(point: Point, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """A random prior and reward: "dense" (all responses likely), "peaked" (few are), "rare" (a good response is rare).

    "zeros": like dense, but a quarter of the responses has prior zero, among them one with the best reward.
    """
    n = point["n_responses"]
    if point["family"] == "dense":
        return rng.dirichlet(np.full(n, 5.0)), rng.uniform(0.0, 1.0, n)
    if point["family"] == "peaked":
        return positive(rng.dirichlet(np.full(n, 0.3))), rng.normal(0.0, 1.0, n)
    if point["family"] == "zeros":
        prior, rewards = rng.dirichlet(np.full(n, 5.0)), rng.uniform(0.0, 1.0, n)
        prior[: -(-n // 4)], rewards[0] = 0.0, 2.0
        return prior / prior.sum(), rewards
    prior = rng.dirichlet(np.ones(n))
    rewards = rng.uniform(0.0, 0.2, n)
    rewards[np.argmin(prior)] = 1.0
    return prior, rewards


def positive(p: Vector) -> Vector:
    """Keep probability rows off zero, where a policy would be outside their support."""
    p = np.maximum(p, 1e-12)
    return p / p.sum(axis=-1, keepdims=True)


# --- instances with levels -------------------------------------------------------------------------------------------

NAMED = {  # the two instances that the theory works out by hand: rewards, prior
    "five-arms": ((1.0, 1.0, 0.75, 0.5, 0.0), (0.1, 0.1, 0.3, 0.3, 0.2)),
    "six-arms": ((1.0, 1.0, 0.7, 0.4, 0.2, 0.0), (0.05, 0.15, 0.2, 0.3, 0.2, 0.1)),
}
LEVELLED = ("unique", "ties", "uniform", "rare")


class Levels(NamedTuple):
    """A prior and rewards with exact ties, and their levels.

    prior, rewards: [K]. best, second: [K] masks of the best and the second-best level. gap, third_gap: from the best
    level to the second and to the third.
    """

    prior: Vector
    rewards: Vector
    best: Mask
    second: Mask
    gap: float
    third_gap: float

    @property
    def log_ratio(self) -> float:
        """log C: log of the prior mass of the second level over that of the best."""
        return float(np.log(self.prior[self.second].sum()) - np.log(self.prior[self.best].sum()))

    def log_miss(self, tau: float) -> float:
        """log C - Delta tau: the leading term of log q_tau(not M)."""
        return self.log_ratio - self.gap * tau

    def correction(self, tau: float) -> float:
        """log q_tau(not M) - (log C - Delta tau), exactly: log(1 + rho) - log(1 + u (1 + rho))."""
        rho = self._below(tau)
        return float(np.log1p(rho) - np.log1p(np.exp(self.log_miss(tau)) * (1.0 + rho)))

    def remainder(self, tau: float) -> float:
        """The right side of (2)."""
        rho = self._below(tau)
        return rho + float(np.exp(self.log_miss(tau))) * (1.0 + rho)

    def _below(self, tau: float) -> float:
        """rho: odds of the lower levels against the second."""
        below = ~(self.best | self.second)
        distance = self.rewards[self.second].max() - self.rewards[below]
        return float((self.prior[below] * np.exp(-tau * distance)).sum() / self.prior[self.second].sum())


def levelled_instance(family: str, rng: np.random.Generator) -> Levels:
    """An instance of eight responses with at least three levels, or a named one.

    The second level lies 0.1 to 0.4 below the best, the third as much again below that, the others further down. "unique": one
    best response; "ties": two or three; "uniform": one, and a uniform prior; "rare": one or two, of prior mass 1e-3 in all.
    """
    if family in NAMED:
        rewards, prior = (np.array(v) for v in NAMED[family])
        return read_levels(prior, rewards)
    n_best = int({"unique": 1, "ties": rng.integers(2, 4), "uniform": 1, "rare": rng.integers(1, 3)}[family])
    n_second = int(rng.integers(1, 3))
    gap, further = rng.uniform(0.1, 0.4, size=2)
    rewards = np.full(8, 1.0 - gap - further)
    rewards[:n_best] = 1.0
    rewards[n_best : n_best + n_second] = 1.0 - gap
    rewards[n_best + n_second + 1 :] -= rng.uniform(0.05, 0.5, 7 - n_best - n_second)
    prior = np.full(8, 0.125) if family == "uniform" else positive(rng.dirichlet(np.ones(8)))
    if family == "rare":
        best = rewards == 1.0
        prior = np.where(best, 1e-3 * prior / prior[best].sum(), (1.0 - 1e-3) * prior / prior[~best].sum())
    return read_levels(prior, rewards)


def read_levels(prior: Vector, rewards: Vector) -> Levels:
    """The levels of rewards with three or more distinct values."""
    first, second, third = np.unique(rewards)[::-1][:3]
    return Levels(prior, rewards, rewards == first, rewards == second, float(first - second), float(first - third))
