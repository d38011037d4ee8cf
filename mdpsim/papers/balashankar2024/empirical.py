r"""Calibration from K anchors: its error is of order K^{-1/2}, what it costs in win rate of order 1/K.

Error. w(y, z) = 1{r(y) > r(z)} + 1/2 1{r(y) = r(z)} has mean C(y) under z ~ pi_ref and variance C (1 - C) - p_l / 4 at a
level of mass p_l (a tie is 1/2 surely, where a coin would be 0 or 1). So E (C_hat - C)^2 = (C (1 - C) - p_l / 4) / K, and
averaged over y ~ pi_ref, with E C = 1/2 and Var C = (1 - sum p^3) / 12,

    MSE = (1/6 + sum_l p_l^3 / 12 - sum_l p_l^2 / 4) / K,   1/(6K) without ties.

Cost. At equal average KL the win rate is a smooth function w of the calibrated rewards, through scores Phi(C) and the Gibbs
law. C_hat = C + e with E e = 0 and E e e^T = Sigma / K exactly (K independent anchors; those of a prompt are shared by its
responses), and E |e|^3 is of order K^{-3/2}. So E w(C_hat) = w(C) + tr(w''(C) Sigma) / (2 K) + O(K^{-3/2}): what is lost is of
order 1/K, whatever the procedure and Phi, though the error itself is K^{-1/2}; and not of a smaller one where that trace is not
zero (for N = 1 the exact C maximises w, and it is negative). Measured for K = 32 to 256, at average KLs of 0.25 and 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.align.calibration import calibrate, calibrate_by_anchors, calibration_mse, sample_anchors
from mdpsim.align.ctrl import CTRL, align_prompts, prompt_win_rates
from mdpsim.align.procedures import BestOfN, WorstOfN
from mdpsim.align.transforms import IDENTITY, Exponential
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Limit, Rate
from mdpsim.papers.balashankar2024.bounds import FAMILIES, PAPER, PRESETS, random_responses

ARMS = {"standard": (BestOfN(1), IDENTITY), "worst-of-4": (WorstOfN(4), Exponential(-10.0))}
ANCHORS = (32, 64, 128, 256)
PROMPTS, RESPONSES = 30, 200
SETS = 200  # of anchors in a trial


class _Scores:
    """Calibrated rewards as a transform sees them."""

    def __init__(self, C: np.ndarray) -> None:
        self.C, self.D, self.size = C, 1.0 - C, C.size


@per_seed
def measure_loss(point: Point, rng: np.random.Generator) -> Mapping[str, np.ndarray]:
    """Win rate lost by K shared anchors against exact calibration, at one beta each and one average KL, over 30 prompts
    of 200 responses with random references, for K = 32, .., 256 (the first K of the same anchors).

    False column ``loss_policy``: the anchors come from the aligned policy instead of the reference.
    """
    procedure, transform = ARMS[point["arm"]]
    r, p = rng.normal(size=(PROMPTS, RESPONSES)), rng.dirichlet(np.full(RESPONSES, 5.0), PROMPTS)
    exact = CTRL(transform=transform, kl=point["kl"]).run(r, p)
    best = float(prompt_win_rates(procedure, exact.pi, r, p).mean())
    losses = []
    for law in (p, np.asarray(exact.pi)):
        anchors = sample_anchors(r, law, ANCHORS[-1], rng)
        for k in ANCHORS:
            scores = transform(_Scores(calibrate_by_anchors(r, anchors[:, :k])))  # type: ignore[arg-type]
            found = align_prompts(scores, p, kl=point["kl"])
            losses.append(best - float(prompt_win_rates(procedure, found.pi, r, p).mean()))
    return {"loss": np.array(losses[: len(ANCHORS)]), "loss_policy": np.array(losses[len(ANCHORS) :])}


empirical_rate = Claim(
    id="balashankar2024/empirical-calibration-rate",
    statement=(
        r"Calibrating with $K$ anchors from $\pi_{\mathrm{ref}}$ per prompt (shared by its responses) loses a win rate of "
        r"order $1/K$ against exact calibration at equal average $\mathrm{KL}$ of $0.25$ or $0.5$, for the standard win rate "
        r"($\Phi = u$) and for the worst of 4 ($\Phi = -e^{-10u}$)."
    ),
    origin="derived",
    cites=(PAPER.at("empirical calibration"),),
    grid={
        preset: product(arm=tuple(ARMS), kl=kl)
        for preset, kl in zip(PRESETS, ((0.5,), (0.5,), (0.25, 0.5), (0.25, 0.5)), strict=True)
    },
    measure=measure_loss,
    rule=Rate(axis="K", slope=-1.0, margin=0.2, of="loss"),
    twins=(
        Twin(
            "as-the-error", r"The loss is of order $K^{-1/2}$, as the error of $\hat C$ is.",
            r"an exponent of $-0.5$ against $-1$",
            rule=Rate(axis="K", slope=-0.5, margin=0.2, of="loss"),
        ),
        Twin(
            "anchors-from-the-policy", r"The anchors may come from the aligned policy.",
            r"the loss stays above $0.01$: an exponent above $-0.3$",
            rule=Rate(axis="K", slope=-1.0, margin=0.2, of="loss_policy"),
        ),
    ),
    seeds={"smoke": 25, "quick": 40, "paper": 400, "full": 2000},
    within={"K": ANCHORS},
    tags=("calibration", "rate", "random-instances"),
)


# --- the error -------------------------------------------------------------------------------------------------------


@per_seed
def measure_error(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """E_{y ~ pi_ref} (C_hat - C)^2 of 200 sets of K anchors over the formula; ``no_ties``: over 1/(6K); ``policy``: with
    anchors from a policy that prefers high rewards.
    """
    r, p = random_responses(point["family"], 30, rng)
    p = 0.7 * p + 0.3 * (p > 0.0) / np.count_nonzero(p)  # no response has nearly all the mass: rare anchors would decide
    C, K = calibrate(r, p), point["K"]
    tilted = p * np.exp(2.0 * C)
    wanted, sets = float(calibration_mse(r, p, K)), np.broadcast_to(r, (SETS, r.size))

    def error(law: np.ndarray) -> float:
        anchors = sample_anchors(r, law, SETS * K, rng).reshape(SETS, K)
        return float(np.mean((calibrate_by_anchors(sets, anchors) - C) ** 2 @ p))

    mse = error(p)
    return {"ratio": mse / wanted, "no_ties": mse * 6.0 * K, "policy": error(tilted / tilted.sum()) / wanted}


empirical_error = Claim(
    id="balashankar2024/empirical-calibration-error",
    statement=(
        r"$K$ anchors from $\pi_{\mathrm{ref}}$ give $\hat C$ with $\mathbb{E}\,(\hat C - C)^2 = (\frac16 + \frac1{12}\sum_l "
        r"p_l^3 - "
        r"\frac14 \sum_l p_l^2)/K$ on average over $\pi_{\mathrm{ref}}$: a root mean square of $1/\sqrt{6K}$ without ties."
    ),
    origin="derived",
    cites=(PAPER.at("empirical calibration"),),
    grid={
        preset: product(family=FAMILIES, K=k)
        for preset, k in zip(PRESETS, ((16,), (4, 64), (1, 4, 16, 64, 256), (1, 4, 16, 64, 256)), strict=True)
    },
    measure=measure_error,
    rule=Limit(value=1.0, margin=0.05, of="ratio"),
    twins=(
        Twin(
            "ties-forgotten", r"It is $1/(6K)$ with ties too.", r"a factor below $0.9$ where levels have mass $1/7$",
            rule=Limit(value=1.0, margin=0.05, of="no_ties"),
            grid={preset: product(family=("ties",), K=(16,)) for preset in PRESETS},
        ),
        Twin(
            "anchors-from-a-policy", r"The same with anchors from an aligned policy.",
            r"a bias of $0.1$: a factor above $2$ at $K = 16$", rule=Limit(value=1.0, margin=0.05, of="policy"),
            grid={preset: product(family=FAMILIES, K=(16,)) for preset in PRESETS},
        ),
    ),
    seeds={"smoke": 60, "quick": 100, "paper": 1000, "full": 10_000},
    tags=("calibration", "sampling", "random-instances"),
)
