r"""What optimism costs: its price where there is nothing to find, and an instance on which it loses to alpha = 0.

The price (``xpo-optimism-cost``). Two arms of which the rare one, a, is the worse: r(a) = 1/2, r(b) = 1, eps = pi_ref(a) =
e^{-c/beta}, c = 1/8, beta = 0.02, rho_a - rho_b = u in [-U, U]. A round against pi_ref adds (alpha/beta)(rho_b - V_u) =
-(alpha/beta)(u - c)_+ (up to beta) to the score of u, and a comparison of a with b adds, over the best score, log-loss at
the rate KL(Ber(sigma(-1/2)) || Ber(sigma(u))). After n rounds of which n_a played a, playing a stays optimal as long as n
(alpha/beta)(u - c) exceeds n_a KL for some u in (c, U]; so in the long run

    n_a / n -> rho = min(1, (alpha/beta) max_{c < u <= U} (u - c) / KL(Ber(sigma(-1/2)) || Ber(sigma(u)))),

and a pull of a costs J(pi*) - J(a) = 1/2 + c = 0.625: the average regret tends to 0.625 rho (2.047 alpha/beta for U = 1,
until it saturates at alpha/beta = 0.305). So alpha must vanish, as T^{-1/2} does.

Where exploring does not pay (``optimism-can-cost``). K arms, the class {0, e_1, .., e_K} of implicit rewards, r = e_1,
pi_ref = 1/2 on the last arm and equal on the others, beta = 0.3. The sign of the difference depends on all of this; it is
the negative control of the other claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from mdpsim.align.classes import FiniteClass
from mdpsim.align.xpo import XPO
from mdpsim.claims.claim import PRESETS, Claim, Point, Twin, product
from mdpsim.claims.rules import Limit, Order
from mdpsim.mdp.token import TokenMDP
from mdpsim.papers.xie2024.bounds import PAPER, RareArms, bandit, logistic, rare_arms

Columns = Mapping[str, np.ndarray]
BETA, RARITY, LOSS = 0.02, 1 / 8, 0.5  # beta, c = beta log(1/eps), r(b) - r(a)
CAPS = {"cap-1": 1.0, "cap-0.7": 0.7, "cap-0.5": 0.5}


# --- the price of optimism -------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def bad_rare_arm(cap: float) -> tuple[TokenMDP, FiniteClass]:
    """Two arms, the rare one the worse, and the class of 201 differences u in [-cap, cap]."""
    u = np.unique(np.append(np.linspace(-cap, cap, 201), -LOSS))
    rho = np.stack([np.maximum(u, 0.0), np.maximum(-u, 0.0)], axis=1)[:, None]
    x = RARITY / BETA
    return bandit(np.array([1.0 - LOSS, 1.0])), FiniteClass.from_rewards(rho, np.array([[-x, np.log1p(-np.exp(-x))]]))


@lru_cache(maxsize=8)
def price(cap: float) -> float:
    """max over u in (c, cap] of (u - c) / KL(Ber(sigma(-1/2)) || Ber(sigma(u)))."""
    u = np.linspace(RARITY, cap, 20_001)[1:]
    p, q = logistic(-LOSS), 1.0 / (1.0 + np.exp(-u))
    return float(((u - RARITY) / (p * np.log(p / q) + (1.0 - p) * np.log((1.0 - p) / (1.0 - q)))).max())


def predicted_cost(point: Point) -> float:
    """(1/2 + c) min(1, (alpha/beta) price)."""
    return (LOSS + RARITY) * min(1.0, point["optimism"] * price(CAPS[point["family"]]))


def half_the_cost(point: Point) -> float:
    """The twin's false law."""
    return 0.5 * predicted_cost(point)


def quadratic_cost(point: Point) -> float:
    """The twin's false law: proportional to the square of alpha/beta, right at alpha/beta = 0.1."""
    return predicted_cost(point) * point["optimism"] / 0.1


def cost_margin(point: Point) -> float:
    """6% of the predicted cost."""
    return 0.06 * predicted_cost(point)


def _cost(point: Point, keys: Sequence[int], sign: float) -> Columns:
    mdp, policies = bad_rare_arm(CAPS[point["family"]])
    learner = XPO(alpha=sign * point["optimism"] * BETA, beta=BETA, pessimism=sign < 0.0)
    found = learner.run(mdp, policies, point["rounds"], keys, checkpoints=[point["rounds"]])
    return {"regret": found.average[:, 0]}


def measure_cost(point: Point, keys: Sequence[int]) -> Columns:
    """Average regret of XPO where the rare arm is bad, after the point's rounds, at alpha / beta = ``optimism``."""
    return _cost(point, keys, 1.0)


def measure_cost_flipped(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false sign: -alpha."""
    return _cost(point, keys, -1.0)


def _costs(rounds: int, *optimism: tuple[float, ...]) -> tuple[Point, ...]:
    """Points of each cap, alpha/beta as given for it."""
    return tuple(
        Point(family=family, optimism=value, rounds=rounds) for family, own in zip(CAPS, optimism, strict=True) for value in own
    )


xpo_optimism_cost = Claim(
    id="xie2024/xpo-optimism-cost",
    statement=(
        r"Where the arm that $\pi_{\mathrm{ref}}$ rarely plays is the worse by $\Delta = 1/2$, the average regret of XPO with "
        r"$\alpha/\beta$ held fixed tends, as $T \to \infty$ and then $\beta \to 0$, to $(\Delta + c) \min(1, "
        r"\frac{\alpha}{\beta} \max_{c<u\le U} (u-c)/\mathrm{KL}(\sigma(-\Delta)\,\|\,\sigma(u)))$, $c = \beta "
        r"\log(1/\varepsilon) = 1/8$: $2.05\,\alpha/\beta$ for $U = 1$ up to $\alpha/\beta = 0.3$. Shown at $\beta = 0.02$, "
        r"$T = 4096$ to $16\,384$, at a resolution of 6%."
    ),
    origin="derived",
    cites=(PAPER.at("Theorem 3.1, the choice of alpha"),),
    grid={
        "smoke": _costs(4096, (0.1, 0.2), (0.2,), (0.2,)),
        "quick": _costs(4096, (0.05, 0.1, 0.2, 0.4), (0.1,), (0.1, 0.2)),
        "paper": _costs(8192, *3 * ((0.05, 0.1, 0.2, 0.4),)),
        "full": _costs(16384, *3 * ((0.02, 0.05, 0.1, 0.2, 0.4),)),
    },
    measure=measure_cost,
    rule=Limit(value=predicted_cost, margin=cost_margin, of="regret"),
    twins=(
        Twin(
            "half-the-constant", r"The same with half the constant.", "a factor of 2",
            rule=Limit(value=half_the_cost, margin=cost_margin, of="regret"),
        ),
        Twin(
            "quadratic", r"The cost is quadratic in $\alpha/\beta$, with the same value at $0.1$.",
            r"a factor of 2 at $\alpha/\beta = 0.2$",
            rule=Limit(value=quadratic_cost, margin=cost_margin, of="regret"),
        ),
        Twin(
            "bonus-of-the-other-sign", r"The same with $-\alpha$.", "a cost below 0.01 instead of 0.2 at 0.1",
            measure=measure_cost_flipped,
            grid={preset: (Point(family="cap-1", optimism=0.1, rounds=1024),) for preset in PRESETS},
            seeds={"smoke": 60, "quick": 60, "paper": 600, "full": 6000},
        ),
    ),
    # A trial deviates by 14% of the mean at alpha/beta = 0.05: +-2.6% at 200 trials.
    seeds={"smoke": 100, "quick": 200, "paper": 2000, "full": 10_000},
    tags=("exploration", "exact"),
)


# --- where exploring does not pay ------------------------------------------------------------------------------------

HARD = {  # arms, rounds
    "64-arms": (64, 60), "64-arms-longer": (64, 240), "128-arms": (128, 60), "256-arms": (256, 60),
    "256-arms-longer": (256, 240),
}
_NAMED = tuple(HARD)[:3]
HOT, PUSH = 0.3, 0.3  # beta, alpha / beta


@lru_cache(maxsize=8)
def one_hot(arms: int) -> RareArms:
    """r = e_1; the class {0, e_1, .., e_K}; pi_ref = 1/2 on the last arm, the rest shared equally."""
    log_ref = np.full((1, arms), np.log(0.5 / (arms - 1)))
    log_ref[0, -1] = np.log(0.5)
    rho = np.concatenate([np.zeros((1, 1, arms)), np.eye(arms)[:, None]])
    return RareArms(bandit(np.eye(arms)[0]), FiniteClass.from_rewards(rho, log_ref), HOT)


def _both(x: RareArms, rounds: int, keys: Sequence[int], optimism: float) -> Columns:
    found = [
        XPO(alpha=a * x.beta, beta=x.beta).run(x.mdp, x.policies, rounds, keys, checkpoints=[rounds]).average[:, 0]
        for a in (optimism, 0.0)
    ]
    return {"optimistic": found[0], "no_bonus": found[1]}


def measure_can_cost(point: Point, keys: Sequence[int]) -> Columns:
    """Average regrets of XPO at alpha / beta = 0.3 and at 0 (DPO against the reference), by the same random numbers."""
    arms, rounds = HARD[point["family"]]
    return _both(one_hot(arms), rounds, keys, PUSH)


def measure_uncovered(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's other instance: three arms whose best one pi_ref plays with probability 1e-6, 4096 rounds, alpha/beta =
    0.01."""
    return _both(rare_arms("three-arms"), 4096, keys, 0.01)


optimism_can_cost = Claim(
    id="xie2024/optimism-can-cost",
    statement=(
        r"Optimism is not free: with $K$ arms, the class $\{0, e_1, .., e_K\}$, $r = e_1$, $\pi_{\mathrm{ref}} = 1/2$ on the "
        r"last arm and equal on the others, $\beta = 0.3$, XPO with $\alpha/\beta = 0.3$ has a higher average regret than "
        r"with $\alpha = 0$ ($K = 64$ to $256$, $T = 60$ or $240$)."
    ),
    origin="observed",
    cites=(PAPER.at("Algorithm 1, its ablation"),),
    grid={
        "smoke": product(family=_NAMED), "quick": product(family=_NAMED), "paper": product(family=tuple(HARD)),
        "full": product(family=tuple(HARD)),
    },
    measure=measure_can_cost,
    rule=Order(larger="optimistic", smaller="no_bonus"),
    twins=(
        Twin(
            "optimism-helps", r"The same with the two exchanged.", "0.020 in average regret for $K = 64$, $T = 60$",
            rule=Order(larger="no_bonus", smaller="optimistic"),
        ),
        Twin(
            "where-the-reference-does-not-cover",
            r"The same where $\pi_{\mathrm{ref}}$ plays the best arm with probability $10^{-6}$ ($\alpha/\beta = 0.01$, $T = "
            r"4096$).",
            "optimism is lower by 0.17 there", measure=measure_uncovered,
            grid={preset: (Point(family="three-arms"),) for preset in PRESETS},
            seeds={"smoke": 50, "quick": 50, "paper": 500, "full": 5000},
        ),
    ),
    seeds={"smoke": 400, "quick": 1000, "paper": 10_000, "full": 100_000},
    tags=("exploration",),
)
