"""Inference-aware alignment: the full trade-off table, its parts, and tables of prompts.

    python benchmarks/speed/inference.py [--quick]

The table is that of benchmarks/inference_aware.py: best-of-N and worst-of-N for N = 2 and 4, six transforms and the optimum
at 20 KL levels. The limit of a part is the passes over the nodes that it cannot do without: one tilt, one CDF.
"""

from __future__ import annotations

import numpy as np
from _timing import compare, options, save

from mdpsim.align.calibration import calibrate, calibrate_by_anchors, sample_anchors
from mdpsim.align.ctrl import CTRL
from mdpsim.align.inference import align, gibbs, inference_win_rate
from mdpsim.align.optimum import optimal_transform
from mdpsim.align.procedures import BestOfN, WorstOfN
from mdpsim.align.spaces import quantile_scale
from mdpsim.align.tradeoff import STANDARD, tradeoff
from mdpsim.align.transforms import IDENTITY, Exponential


def table(levels: int) -> None:
    """Four procedures, six transforms, the optimum."""
    kls = np.geomspace(0.05, 4.0, levels)
    for n, t in ((2, 5.0), (4, 10.0)):
        tradeoff(BestOfN(n), kls, transforms=[*STANDARD, Exponential(t)])
        tradeoff(WorstOfN(n), kls, transforms=[*STANDARD, Exponential(-t)])


def plain_calibration(r: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The definition, as a sum over pairs (numpy)."""
    out = np.empty(r.shape)
    for i, (row, law) in enumerate(zip(r, p, strict=True)):
        out[i] = (row[:, None] > row[None, :]) @ law + 0.5 * ((row[:, None] == row[None, :]) @ law)
    return out


def main() -> None:
    """Time the table and its parts."""
    quick = options(__doc__ or "").quick
    rounds = 3 if quick else 10
    scale, four = quantile_scale(), BestOfN(4)
    scores = IDENTITY(scale)
    pi = gibbs(scale, scores, 0.2).pi
    rows = compare(
        f"one policy on the quantile scale ({scale.size} nodes)",
        {
            "tilt": lambda: gibbs(scale, scores, 0.2), "ranks": lambda: scale.ranks(pi),
            "at a KL": lambda: align(scale, IDENTITY, kl=0.5), "win rate": lambda: inference_win_rate(four, pi, scale),
            "optimum at a beta": lambda: optimal_transform(four, scale, beta=0.1),
            "optimum at a KL": lambda: optimal_transform(four, scale, kl=0.5),
        }, "at a KL", "tilt", rounds,
    )
    rng = np.random.default_rng(0)
    r, p = rng.normal(size=(300, 200)), rng.dirichlet(np.ones(200), 300)
    z = sample_anchors(r, p, 64, rng)
    rows += compare(
        "300 prompts x 200 responses",
        {
            "calibrate": lambda: calibrate(r, p), "numpy, over pairs": lambda: plain_calibration(r, p),
            "64 anchors": lambda: calibrate_by_anchors(r, z), "CTRL at an average KL": lambda: CTRL(kl=0.5).run(r, p),
            "argsort": lambda: np.argsort(r, axis=1),
        }, "numpy, over pairs", "argsort", rounds,
    )
    levels = 5 if quick else 20
    whole = {"table": lambda: table(levels)}
    rows += compare(f"the trade-off table, {levels} KL levels", whole, "table", "table", 1 if quick else 3)
    save("inference", rows)


if __name__ == "__main__":
    main()
