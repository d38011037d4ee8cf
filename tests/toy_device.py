"""A claims file for the tests: a toy whose trials say where they were computed, with a twin of its own trials and points."""

from __future__ import annotations

from mdpsim import Claim, Mean, Paper, Twin, per_seed, product

TOY = Paper(key="toy", authors="Nobody, Ann", title="On devices", venue="Nowhere", year=2026)
HERE = {"device": ("cpu",), "dtype": ("float64",)}


@per_seed
def measure(point, rng):
    """A uniform number, and whether a GPU drew it."""
    return {"value": float(rng.random()), "on_cuda": float(point["device"] == "cuda")}


@per_seed
def doubled(point, rng):
    """Twice a uniform number."""
    return {name: 2 * value for name, value in measure.function(point, rng).items()}


GRID = {"smoke": product(family=("a", "b", "c"), **HERE), "quick": product(family=("a", "b", "c"), n=(1, 2), **HERE)}
claim = Claim(
    id="toy/devices", statement=r"The mean of a uniform number is at most $0.75$.", origin="folklore", cites=(TOY,),
    grid=GRID, measure=measure, rule=Mean(bound=0.75, margin=0.01),
    twins=(
        Twin("doubled", "Also twice the number.", "a factor of 2", measure=doubled,
             grid={name: product(family=("d",), **HERE) for name in GRID}),
        Twin("low", "At most 0.2.", "a factor of 3.75", rule=Mean(bound=0.2, margin=0.01)),
    ),
    seeds={"smoke": 100, "quick": 200}, draws=("family",),
)
