"""What the claims of this paper share: the citation, random responses, random increasing transforms, procedures by name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mdpsim.align.procedures import BestOfN, WorstOfN
from mdpsim.align.transforms import Function
from mdpsim.claims.claim import Paper, Point

PAPER = Paper(
    key="balashankar2024",
    authors=(
        "Balashankar, Ananth and Sun, Ziteng and Berant, Jonathan and Eisenstein, Jacob and Collins, Michael and Hutter, "
        "Adrian and "
        "Lee, Jong and Nagpal, Chirag and Prost, Flavien and Sinha, Aradhana and Suresh, Ananda Theertha and Beirami, Ahmad"
    ),
    title="InfAlign: Inference-aware language model alignment",
    venue="International Conference on Machine Learning (ICML)",
    year=2025,
    arxiv="2412.19792",
)

Vector = NDArray[np.float64]
EPS = float(np.finfo(float).eps)
PRESETS = ("smoke", "quick", "paper", "full")
FAMILIES = ("plain", "ties", "peaked", "zeros")
KINDS = ("powers", "exponentials", "sigmoids", "logarithms")


def procedure_of(point: Point) -> BestOfN:
    """best-of or worst-of, of point["n"] draws."""
    return (BestOfN if point["procedure"] == "best-of" else WorstOfN)(point["n"])


def random_responses(family: str, n: int, rng: np.random.Generator) -> tuple[Vector, Vector]:
    """Rewards and a reference over n responses.

    "plain": distinct rewards; "ties": integer rewards; "peaked": a few responses have most of the mass; "zeros": a quarter of
    the responses is never given by the reference.
    """
    p = rng.dirichlet(np.full(n, 0.3 if family == "peaked" else 2.0)) + 1e-12
    r = rng.integers(-3, 4, n).astype(float) if family == "ties" else rng.normal(size=n)
    if family == "zeros":
        p[: n // 4] = 0.0
    return r, p / p.sum()


def random_transform(kind: str, rng: np.random.Generator) -> Function:
    """A smooth increasing transform: a random positive combination of three of a kind, and a little of the identity."""
    weights = rng.dirichlet(np.ones(4))
    if kind == "powers":
        a = np.exp(rng.uniform(np.log(0.3), np.log(8.0), 3))
        parts = [lambda u, k=k: u**k for k in a]
    elif kind == "exponentials":
        t = rng.uniform(-12.0, 12.0, 3)
        parts = [lambda u, k=k: np.expm1(k * u) / np.expm1(k) for k in t]
    elif kind == "sigmoids":
        at, width = rng.uniform(0.1, 0.9, 3), rng.uniform(0.1, 0.4, 3)
        parts = [lambda u, m=m, w=w: np.tanh((u - m) / w) for m, w in zip(at, width, strict=True)]
    else:
        c = np.exp(rng.uniform(np.log(0.02), 0.0, 3))
        parts = [lambda u, k=k: np.log(u + k) for k in c[:2]] + [lambda u, k=c[2]: -np.log(1.0 - u + k)]

    def phi(u: Vector) -> Vector:
        return 0.05 * u + sum(w * part(u) for w, part in zip(weights[:3], parts, strict=True))

    return Function(phi, kind)
