r"""Calibrate and transform over tables of prompts, against the raw reward.

With one beta for all prompts, a reward whose scale differs between prompts spends its KL on the prompts of large scale, where
more of it wins little, and has none left for the others. Calibration takes the scale out. What the raw reward loses is
measured, not derived (origin "observed"). It depends on the spread, on the shapes and on the KL: here scales are e^{Z}, Z
standard normal, shapes are mixed (normal, exponential, Student t with 3 degrees of freedom, each as likely), and the average KL
is 0.2 to 1, where it is above 0.05. Where little KL is spent little can be lost (N = 1: 0.024 at KL = 0.02), and where much is
spent all policies win (best of 4: 0.047 at KL = 3). A shift per prompt has no effect on any of the policies. Standardising per
prompt takes the scale out as well, not the shape; for best-of-N its heavy right tails act as a tilt of their own, and beat the
calibrated identity.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.align.ctrl import CTRL, align_prompts, prompt_win_rates, standardised
from mdpsim.align.procedures import BestOfN, WorstOfN
from mdpsim.align.transforms import IDENTITY, Exponential
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Order
from mdpsim.papers.balashankar2024.bounds import PAPER, PRESETS

ARMS = {
    "standard": (BestOfN(1), IDENTITY), "best-of-4": (BestOfN(4), Exponential(10.0)),
    "worst-of-4": (WorstOfN(4), Exponential(-10.0)),
}
PROMPTS, RESPONSES, K = 20, 200, 64


def random_table(rng: np.random.Generator, spread: float, shapes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rewards [X, Y] of 20 prompts with log-normal scales and mixed shapes, and a uniform reference."""
    draw = {"normal": rng.normal, "exponential": rng.exponential, "student": lambda size: rng.standard_t(3.0, size)}
    rows = [draw[str(rng.choice(shapes))](size=RESPONSES) for _ in range(PROMPTS)]
    scales = np.exp(spread * rng.normal(size=(PROMPTS, 1)))
    return scales * np.array(rows) + rng.normal(size=(PROMPTS, 1)), np.full((PROMPTS, RESPONSES), 1.0 / RESPONSES)


def _wins(point: Point, r: np.ndarray, p: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    procedure, transform = ARMS[point["arm"]]
    policies = {
        "ctrl": CTRL(transform=transform, K=K, kl=point["kl"]).run(r, p, rng), "identity": CTRL(kl=point["kl"]).run(r, p),
        "raw": align_prompts(r, p, kl=point["kl"]), "standardised": align_prompts(standardised(r, p), p, kl=point["kl"]),
    }
    return {name: float(prompt_win_rates(procedure, x.pi, r, p).mean()) for name, x in policies.items()}


@per_seed
def measure_ctrl(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Mean win rates over 20 prompts of 200 responses, all at one average KL: CTRL with 64 shared anchors, the raw reward, the
    reward standardised per prompt, and the exact calibrated reward (identity).
    """
    return _wins(point, *random_table(rng, 1.0, ("normal", "exponential", "student")), rng)


@per_seed
def measure_homogeneous(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The same where all prompts have normal rewards of one scale."""
    return _wins(point, *random_table(rng, 0.0, ("normal",)), rng)


_STANDARD = {preset: product(arm=("standard",), kl=(0.5,)) for preset in PRESETS}

ctrl_beats_raw = Claim(
    id="balashankar2024/ctrl-beats-raw-reward",
    statement=(
        r"Over prompts whose reward scales are log-normal (log-scale standard deviation $1$) and whose rewards are normal, "
        r"exponential or Student $t_3$, calibrate-and-transform with $64$ anchors wins on average at least $0.05$ more often "
        r"than alignment to the raw reward at the same average $\mathrm{KL} \in [0.2, 1]$: for $N = 1$ with $\Phi = u$, the "
        r"best of 4 with $e^{10u}$ and the worst of 4 with $-e^{-10u}$."
    ),
    origin="observed",
    cites=(PAPER.at("InfAlign-CTRL against uncalibrated rewards"),),
    grid={
        "smoke": product(arm=tuple(ARMS), kl=(0.5,)), "quick": product(arm=tuple(ARMS), kl=(0.25, 0.5, 1.0)),
        "paper": product(arm=tuple(ARMS), kl=(0.2, 0.25, 0.5, 0.75, 1.0)),
        "full": product(arm=tuple(ARMS), kl=(0.2, 0.25, 0.5, 0.75, 1.0)),
    },
    measure=measure_ctrl,
    rule=Order(larger="ctrl", smaller="raw", margin=0.05),
    twins=(
        Twin(
            "one-scale", r"The same where all prompts have normal rewards of one scale, $N = 1$.",
            r"the gain is $0.01$, not above $0.05$", measure=measure_homogeneous, grid=_STANDARD,
        ),
        Twin(
            "calibration-alone", r"For the best of 4 the calibrated reward without a transform beats the standardised reward.",
            r"it wins $0.04$ less often at $\mathrm{KL} = 0.5$", rule=Order(larger="identity", smaller="standardised"),
            grid={preset: product(arm=("best-of-4",), kl=(0.5,)) for preset in PRESETS},
        ),
    ),
    seeds={"smoke": 50, "quick": 60, "paper": 600, "full": 6000},
    tags=("ctrl", "random-instances"),
)
