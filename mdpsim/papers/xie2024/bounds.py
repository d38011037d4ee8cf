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


@lru_cache(maxsize=256)
def two_arms(family: str, inv_eps: float, key: int = 0, *, size: int = 81) -> TwoArms:
    """Two arms with pi_ref(a) = 1 / inv_eps, so beta = c / log(inv_eps).

    Families: "proposition" (c, D = 1/8, 1/2), "rarer" (1/4, 3/4), "random" (c uniform on [0.1, 0.2], D on [0.4, 0.7], drawn
    from the key).
    """
    c, D = FIXED.get(family) or _uniform(key, (0.1, 0.4), (0.2, 0.7))
    u = np.unique(np.append(np.linspace(-1.0, 1.0, size), D))
    rho = np.stack([np.maximum(u, 0.0), np.maximum(-u, 0.0)], axis=1)[:, None]
    log_ref = np.array([[-np.log(inv_eps), np.log1p(-1.0 / inv_eps)]])
    policies, beta = FiniteClass.from_rewards(rho, log_ref), float(c / np.log(inv_eps))
    return TwoArms(bandit(np.array([1.0, 1.0 - D])), policies, beta, 1.0 / inv_eps, c, D, (D - c) / 3)


class RareArms(NamedTuple):
    """Arms of which pi_ref plays the first but for eps each, the grid class of step 1/4 with pi* in it, and beta."""

    mdp: TokenMDP
    policies: FiniteClass
    beta: float


RARE_BETA, RARE_EPS = 0.02, 1e-6  # beta log(1/eps) = 0.276: below the gain of the best arm, 1/2
REWARDS = {"three-arms": (0.5, 0.25, 1.0), "four-arms": (0.5, 0.25, 0.25, 1.0)}
RARE_FAMILIES = ("three-arms", "random")


@lru_cache(maxsize=64)
def rare_arms(family: str, key: int = 0) -> RareArms:
    """Rewards of the family; pi_ref = (1 - (K - 1) eps, eps, .., eps).

    "random", drawn from the key: three arms, the first pays x in [0, 1/2], the best, a rare one, x + 1/2 to 1, the third 1/4
    below the best or less (each uniform); their own pi* joins the class.
    """
    r = REWARDS.get(family) or _random_rewards(key)
    log_ref = np.full((1, len(r)), np.log(RARE_EPS))
    log_ref[0, 0] = np.log1p(-(len(r) - 1) * RARE_EPS)
    policies = RewardBox().grid(log_ref, 5)
    if family not in REWARDS:
        policies = FiniteClass.from_rewards(np.concatenate([policies.values, np.array([[r]])]), log_ref)
    return RareArms(bandit(np.array(r)), policies, RARE_BETA)


def _random_rewards(key: int) -> tuple[float, ...]:
    x, best, third = _uniform(key, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    x *= 0.5
    best = x + 0.5 + best * (0.5 - x)
    return (x, third * (best - 0.25), best)


def _uniform(key: int, low: tuple[float, ...], high: tuple[float, ...]) -> tuple[float, ...]:
    """Independent uniform numbers, drawn from a key: its own stream, beside that of the rounds."""
    return tuple(float(x) for x in rng.generator(rng.key("instance", key)).uniform(low, high))


def rare_bound(point: Point) -> float:
    """Theorem 3.1's bound at the point's family and rounds, R_max = V_max = 1 and C_cov = K (the class's own up to 1e-14)."""
    x = rare_arms(point["family"])
    return theorem_bound(rounds=point["rounds"], n_policies=x.policies.n, coverability=float(x.policies.Y))


def by_instance(family: str, keys: Sequence[int]) -> dict[int, list[int]]:
    """Key of an instance -> positions of the trials that run on it, together: all, or each alone in the family "random"."""
    if family != "random":
        return {0: list(range(len(keys)))}
    found: dict[int, list[int]] = {}
    for i, k in enumerate(keys):
        found.setdefault(k, []).append(i)
    return found


def in_order(parts: Mapping[int, Mapping[str, FloatArray]], where: Mapping[int, Sequence[int]]) -> dict[str, FloatArray]:
    """Columns of every instance, put back in the order of the trials."""
    total = sum(len(own) for own in where.values())
    columns: dict[str, FloatArray] = {}
    for key, found in parts.items():
        for name, values in found.items():
            columns.setdefault(name, np.empty((total, *values.shape[1:])))[where[key]] = values
    return columns


def logistic(x: float) -> float:
    """sigma(x)."""
    return float(1.0 / (1.0 + np.exp(-x)))

