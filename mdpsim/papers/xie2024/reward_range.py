r"""The factor e^{R_max}: what it costs to compare good responses through a poor one.

Two responses of rewards R and R - delta, each compared n times with a comparator of reward 0; maximum likelihood (DPO over
the two policies that rank them either way) ranks them by their numbers of wins S_1, S_2. S_1 - S_2 moves up with probability
p_1 q_2 and down with p_2 q_1, p_1 = sigma(R), p_2 = sigma(R - delta), q = 1 - p. Their ratio is e^delta whatever R is: the
walk of the moves is the same, with p = sigma(delta) and q = 1 - p for up and down, only its moves are rarer. Its last zero L
has P(L = 2n) = C(2n, n) (pq)^n (p - q), so E L = 4pq/(p - q)^2 = 1/sinh^2(delta/2), and the ranking is right for good from
move L + 1 on:

    E n = coth^2(delta/2) / (p_1 q_2 + p_2 q_1) = coth^2(delta/2) (1 + e^R)(1 + e^{R - delta}) / (e^R + e^{R - delta}),

of order e^R. Compared with each other the two need coth^2(delta/2), whatever R is. The paper's bound has e^{2R} in the
regret, which is e^{4R} in samples; a single comparator of reward 0 accounts for e^R of it, and no more is claimed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from mdpsim.align.rounds import PreferenceModel
from mdpsim.claims.claim import PRESETS, Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Rate
from mdpsim.papers.xie2024.bounds import PAPER

DELTAS = {"half": 0.5, "three-quarters": 0.75, "one": 1.0}
LONGEST = 20.0  # steps of the walk, in units of the time in which its drift shows: it is settled by then


def rarity_law(point: Point) -> float:
    """coth^2(delta/2) / (p_1 q_2 + p_2 q_1)."""
    delta = DELTAS[point["family"]]
    a, b = point["odds"], point["odds"] * np.exp(-delta)
    return float((1.0 + a) * (1.0 + b) / (a + b) / np.tanh(delta / 2.0) ** 2)


def _settled(steps: np.ndarray, times: np.ndarray) -> float:
    """The time from which on a walk with these steps at these times (increasing, ties allowed) stays above 0."""
    ends = np.empty(times.size, np.bool_)  # the last step of each time
    ends[-1] = True
    np.not_equal(times[1:], times[:-1], out=ends[:-1])
    wrong = np.flatnonzero(np.cumsum(steps)[ends] <= 0)
    after = int(wrong[-1]) + 1 if wrong.size else 0
    moments = times[ends]
    return float(moments[min(after, moments.size - 1)])


@lru_cache(maxsize=256)
def _wins(rewards: tuple[float, ...]) -> np.ndarray:
    return PreferenceModel().wins(np.array([rewards]))[0]


@per_seed
def measure_through_reference(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Comparisons an arm after which two responses, compared with one of reward 0 only, are ranked right for good.

    The lost comparisons of each are drawn, which are rare: independent labels with geometric gaps between the losses.
    """
    R, delta = float(np.log(point["odds"])), DELTAS[point["family"]]
    losses = _wins((R, R - delta, 0.0))[2, :2]
    n = int(LONGEST / np.tanh(delta / 2.0) ** 2)
    lost = [np.cumsum(rng.geometric(q, size=n)) for q in losses]
    end = min(lost[0][-1], lost[1][-1])
    times = np.concatenate([t[t <= end] for t in lost])
    steps = np.repeat([-1, 1], [int((t <= end).sum()) for t in lost])
    order = np.argsort(times, kind="stable")
    return {"samples": _settled(steps[order], times[order])}


@per_seed
def measure_directly(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's other comparison: the two responses with each other."""
    R, delta = float(np.log(point["odds"])), DELTAS[point["family"]]
    n = int(LONGEST / np.tanh(delta / 2.0) ** 2)
    steps = 2 * (rng.random(n) < _wins((R, R - delta))[0, 1]).astype(np.int64) - 1
    return {"samples": _settled(steps, np.arange(1, n + 1))}


def odds_of(*ranges: float) -> tuple[float, ...]:
    """e^R, to 6 digits."""
    return tuple(float(f"{np.exp(R):.6g}") for R in ranges)


reward_range = Claim(
    id="xie2024/reward-range",
    statement=(
        r"To rank responses of rewards $R$ and $R - \delta$ for good by counting the wins of each against one of reward $0$ "
        r"takes a mean number of comparisons of each that grows with $R$ in proportion to "
        r"$\coth^2(\delta/2)\,(1+e^R)(1+e^{R-\delta})/(e^R+e^{R-\delta})$, of order $e^R$: its exponent in $e^R$ is that of "
        r"this formula up to $0.15$. (A walk of labels: no learner, and no bound of one.)"
    ),
    origin="derived",
    cites=(PAPER.at("Theorem 3.1, the factor e^{2 R_max}"),),
    grid={
        "smoke": product(family=tuple(DELTAS), odds=odds_of(1.5, 4, 6.5)),
        "quick": product(family=tuple(DELTAS), odds=odds_of(2, 3.5, 5, 6.5)),
        "paper": product(family=tuple(DELTAS), odds=odds_of(1, 2, 3, 4, 5, 6.5)),
        "full": product(family=tuple(DELTAS), odds=odds_of(1, 2, 3, 4, 5, 6.5, 8)),
    },
    measure=measure_through_reference,
    rule=Rate(axis="odds", bound=rarity_law, margin=0.15, of="samples"),
    twins=(
        Twin(
            "compared-directly", r"The same where the two are compared with each other.", "an exponent of 0, 1 away",
            measure=measure_directly, grid={preset: product(family=("one",), odds=odds_of(1.5, 4, 6.5)) for preset in PRESETS},
            seeds={"smoke": 200, "quick": 200, "paper": 2000, "full": 5000},
        ),
        Twin(
            "the-bounds-exponent", r"The number grows as $e^{4R}$.", "an exponent 3 away",
            rule=Rate(axis="odds", slope=4.0, margin=0.15, of="samples"),
        ),
        Twin(
            "the-root", r"The number grows as $e^{R/2}$.", "an exponent 0.5 away",
            rule=Rate(axis="odds", slope=0.5, margin=0.15, of="samples"),
        ),
    ),
    seeds={"smoke": 500, "quick": 600, "paper": 6000, "full": 20_000},
    tags=("exploration", "rate"),
)
