"""A claims file for the tests: a true sentence about coin tosses, with a false one beside it. Loads like a user's own file."""

from __future__ import annotations

import time

from mdpsim import Claim, Mean, Paper, Twin, per_seed, product

TOY = Paper(key="toy", authors="Nobody, Ann", title="On coins", venue="Nowhere", year=2026)


@per_seed
def measure(point, rng):
    """The share of heads in n tosses; a trial takes about ``pause`` ms."""
    time.sleep(point["pause"] / 1000)
    return {"value": float(rng.random(point["n"]).mean()), "bound": 0.55, "half_bound": 0.25}


GRID = {
    "smoke": product(n=(100, 400), pause=(2,), family=("a", "b", "c")),
    "quick": product(n=(100, 400), pause=(0,), family=("a", "b", "c")),
}
SEEDS = {"smoke": 60, "quick": 100}

coins = Claim(
    id="toy/coins", statement=r"A fair coin shows at most 55% heads on average, $\mathbb{E}\,\bar X \le 0.55$.",
    origin="folklore", cites=(TOY,), grid=GRID, measure=measure, rule=Mean(margin=0.01),
    twins=(Twin("half", "At most a quarter.", "a factor of two", rule=Mean(bound="half_bound", margin=0.01)),), seeds=SEEDS,
)
