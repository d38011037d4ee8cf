r"""What the claims of this paper share: the citation, the theorem's bound as transcribed, and the two-armed instance.

Two arms: a pays 1, b pays 1 - D, and pi_ref(a) = eps = e^{-c/beta}; the class holds pi_u(a) = sigma(u/beta + logit eps) for
u = rho_a - rho_b in [-1, 1], D among them. For 0 < c < D the gap of pi_ref tends to D - c as beta -> 0 (for c > D it
vanishes: pi* is near pi_ref), while eps falls as e^{-c/beta}. The paper's Proposition 2.1 has c = 1/8, D = 1/2 and calls a
policy near-optimal if its gap is below 1/8; here that is (D - c)/3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mdpsim import rng
from mdpsim.align.classes import FiniteClass, RewardBox
from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Paper, Point
from mdpsim.mdp.token import TokenMDP

PAPER = Paper(
    key="xie2024",
    authors=(
        "Xie, Tengyang and Foster, Dylan J. and Krishnamurthy, Akshay and Rosset, Corby and Awadallah, Ahmed and "
        "Rakhlin, Alexander"
    ),
    title="Exploratory Preference Optimization: Harnessing Implicit Q*-Approximation for Sample-Efficient RLHF",
    venue="International Conference on Learning Representations (ICLR)",
    year=2025,
    arxiv="2405.21046",
)
DELTA = 0.05


def theorem_bound(
    *, rounds: int, n_policies: int, coverability: float, r_max: float = 1.0, v_max: float = 1.0, delta: float = DELTA
) -> float:
    """Theorem 3.1 as transcribed, its constant set to 1: sqrt(C log(|Pi| T/delta) log^2 T / T) (V + R) e^{2R}."""
    logs = np.log(n_policies * rounds / delta) * np.log(rounds) ** 2
    return float(np.sqrt(coverability * logs / rounds) * (v_max + r_max) * np.exp(2.0 * r_max))


def bandit(r: FloatArray) -> TokenMDP:
    """Responses without structure: rewards [Y], one context."""
    return TokenMDP(np.array([r], dtype=np.float64), vocabulary=len(r), length=1)


class TwoArms(NamedTuple):
    """The instance, its class, beta, eps, c, D, and the gap below which a policy counts as near-optimal."""

    mdp: TokenMDP
    policies: FiniteClass
    beta: float
    eps: float
    c: float
    D: float
    near: float


FIXED = {"proposition": (1 / 8, 1 / 2), "rarer": (1 / 4, 3 / 4)}
TWO_ARM_FAMILIES = (*FIXED, "random")
KINDS = 8  # instances of a random family: trials that draw the same one run together


@lru_cache(maxsize=256)
def two_arms(family: str, inv_eps: float, kind: int = 0, *, size: int = 81) -> TwoArms:
    """Two arms with pi_ref(a) = 1 / inv_eps, so beta = c / log(inv_eps).

    Families: "proposition" (c, D = 1/8, 1/2), "rarer" (1/4, 3/4), "random" (8 kinds: c in [0.1, 0.2], D in [0.4, 0.7]).
    """
    c, D = FIXED.get(family) or (0.1 + 0.1 * (kind % 4) / 3, 0.4 + 0.3 * (kind // 4))
    u = np.unique(np.append(np.linspace(-1.0, 1.0, size), D))
    rho = np.stack([np.maximum(u, 0.0), np.maximum(-u, 0.0)], axis=1)[:, None]
    log_ref = np.array([[-np.log(inv_eps), np.log1p(-1.0 / inv_eps)]])
    policies, beta = FiniteClass.from_rewards(rho, log_ref), float(c / np.log(inv_eps))
    return TwoArms(bandit(np.array([1.0, 1.0 - D])), policies, beta, 1.0 / inv_eps, c, D, (D - c) / 3)


class RareArms(NamedTuple):
    """Arms of which pi_ref plays the first but for eps each, the grid class of step 1/4 that holds pi*, and beta."""

    mdp: TokenMDP
    policies: FiniteClass
    beta: float


RARE_BETA, RARE_EPS = 0.02, 1e-6  # beta log(1/eps) = 0.276: below the gain of the best arm, 1/2
REWARDS = {"three-arms": (0.5, 0.25, 1.0), "four-arms": (0.5, 0.25, 0.25, 1.0)}
RANDOM_REWARDS = (  # the best arm is rare and gains 1/2 or more, the third arm is anywhere below it
    (0.5, 0.0, 1.0), (0.5, 0.5, 1.0), (0.5, 0.75, 1.0), (0.25, 0.0, 0.75), (0.25, 0.5, 0.75), (0.25, 0.0, 1.0), (0.25, 0.5,
    1.0), (0.0, 0.25, 0.75),
)
RARE_FAMILIES = ("three-arms", "random")


@lru_cache(maxsize=64)
def rare_arms(family: str, kind: int = 0) -> RareArms:
    """Rewards of the family, or of the random kind; pi_ref = (1 - (K - 1) eps, eps, .., eps)."""
    r = REWARDS.get(family) or RANDOM_REWARDS[kind]
    log_ref = np.full((1, len(r)), np.log(RARE_EPS))
    log_ref[0, 0] = np.log1p(-(len(r) - 1) * RARE_EPS)
    return RareArms(bandit(np.array(r)), RewardBox().grid(log_ref, 5), RARE_BETA)


def rare_bound(point: Point) -> float:
    """Theorem 3.1's bound at the point's family and rounds, R_max = V_max = 1 and C_cov = K (the class's own up to 1e-14)."""
    x = rare_arms(point["family"])
    return theorem_bound(rounds=point["rounds"], n_policies=x.policies.n, coverability=float(x.policies.Y))


def by_kind(family: str, keys: Sequence[int]) -> dict[int, list[int]]:
    """Kind -> positions of the trials that drew it, each by its own key; one kind, 0, for a family that is not random."""
    if family != "random":
        return {0: list(range(len(keys)))}
    found: dict[int, list[int]] = {}
    for i, k in enumerate(keys):
        found.setdefault(rng.key("kind", k) % KINDS, []).append(i)
    return found


def in_order(parts: Mapping[int, Mapping[str, FloatArray]], kinds: Mapping[int, Sequence[int]]) -> dict[str, FloatArray]:
    """Columns of every kind, put back in the order of the trials."""
    total = sum(len(where) for where in kinds.values())
    columns: dict[str, FloatArray] = {}
    for kind, found in parts.items():
        for name, values in found.items():
            columns.setdefault(name, np.empty((total, *values.shape[1:])))[kinds[kind]] = values
    return columns


def logistic(x: float) -> float:
    """sigma(x)."""
    return float(1.0 / (1.0 + np.exp(-x)))

