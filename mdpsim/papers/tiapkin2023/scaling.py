r"""How the divergence of a clone grows with the problem: exponents in S, A, H and d.

Tabular add-one, by the limit of constant.py: N E KL_traj -> c (A-1) |{(h,s): d_h(s)>0}|, with c = 1 for a deterministic expert
and 1/2 for one that plays every action: exponent 1 in S, in H and in A-1 (not A). Log-linear maximum likelihood, by (16) of
linear.py: N E KL_traj -> dH/2: exponent 1 in d and H, and 0 in S. Instances have a uniform start and dense kernels, so that all
(h, s) are reached.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Rate
from mdpsim.estimate.cloning import fit_bc, fit_bc_linear
from mdpsim.estimate.data import sample_counts
from mdpsim.estimate.experts import random_expert
from mdpsim.mdp import families
from mdpsim.papers.tiapkin2023.bounds import PAPER
from mdpsim.papers.tiapkin2023.linear import log_linear_instance
from mdpsim.solve.exact import trajectory_kl

N = 10**6  # demonstrations: every (h, s, a) of the largest problems is expected some 500 times


@per_seed
def measure_size(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """KL_traj of add-one at N = 10^6 where ``axis`` (S, A or H) has ``size`` and the others are S=5, A=3, H=3.

    The expert plays one action ("deterministic") or all ("interior", none below 1/(4A)). ``predicted`` is
    c (A-1)SH/N, ``with_a`` c ASH/N.
    """
    sizes = {"S": 5, "A": 3, "H": 3} | {point["axis"]: point["size"]}
    mdp = families.random_mdp(**sizes, rng=rng, concentration=5.0, start="uniform")
    deterministic = point["expert"] == "deterministic"
    support, least = (1, 0.0) if deterministic else (mdp.A, 0.25 / mdp.A)
    expert = random_expert(**sizes, support=support, rng=rng, least=least)
    kl = trajectory_kl(mdp, expert, fit_bc(sample_counts(mdp, expert, N, rng)))
    cell = (1.0 if deterministic else 0.5) * mdp.S * mdp.H / N
    return {"kl": kl, "predicted": cell * (mdp.A - 1), "with_a": cell * mdp.A}


@per_seed
def measure_linear_size(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """KL_traj of the log-linear fit at N = 10^6 where ``axis`` (d, H or S) has ``size`` and the others are d=4, H=2, S=10.

    A = 4, Gaussian features. ``predicted`` is dH/(2N), ``tabular`` (A-1)SH/(2N).
    """
    sizes = {"d": 4, "H": 2, "S": 10} | {point["axis"]: point["size"]}
    x = log_linear_instance("gaussian", sizes["S"], 4, sizes["H"], sizes["d"], rng)
    kl = trajectory_kl(x.mdp, x.expert, fit_bc_linear(sample_counts(x.mdp, x.expert, N, rng), x.phi).pi)
    return {"kl": kl, "predicted": x.rank / (2 * N), "tabular": 3 * sizes["S"] * sizes["H"] / (2 * N)}


def _sizes(grid: Mapping[str, tuple[int, ...]], **more: tuple[str, ...]) -> tuple[Point, ...]:
    return tuple(p for axis, sizes in grid.items() for p in product(axis=(axis,), size=sizes, **more))


_BOTH = ("deterministic", "interior")
_TABULAR = {
    "smoke": {"S": (2, 6, 18), "A": (2, 6, 18), "H": (2, 6, 18)},
    "quick": {"S": (2, 4, 8, 16), "A": (2, 4, 8, 16), "H": (2, 4, 8, 16)},
    "paper": {"S": (2, 4, 8, 16, 32), "A": (2, 4, 8, 16, 32), "H": (1, 2, 4, 8, 16, 32)},
    "full": {"S": (2, 4, 8, 16, 32, 64), "A": (2, 4, 8, 16, 32), "H": (1, 2, 4, 8, 16, 32, 64)},
}
_ACTIONS = {preset: _sizes({"A": grid["A"]}, expert=_BOTH) for preset, grid in _TABULAR.items()}

bc_scaling = Claim(
    id="tiapkin2023/bc-scaling",
    statement=(
        r"$\mathbb{E}\,\mathrm{KL}_{\mathrm{traj}}(\pi_E\,\|\,\pi_{\mathrm{BC}})$ of add-one behaviour cloning grows as "
        r"$S$, as "
        r"$H$ and as $A-1$, each with exponent 1, where all states are reached."
    ),
    origin="derived",
    cites=(PAPER.at("Corollary 1"),),
    grid={preset: _sizes(grid, expert=_BOTH) for preset, grid in _TABULAR.items()},
    measure=measure_size,
    rule=Rate(axis="size", bound="predicted", margin=0.1, of="kl"),
    twins=(
        Twin(
            "root-of-the-size", "It grows as the square root of each.", "an exponent 0.5 away",
            rule=Rate(axis="size", slope=0.5, margin=0.1, of="kl"),
        ),
        Twin(
            "as-a", r"It grows as $A$ in place of $A-1$.", r"exponents in $A$ between 1.3 and 1.4 on these grids",
            rule=Rate(axis="size", bound="with_a", margin=0.1, of="kl"), grid=_ACTIONS,
        ),
    ),
    seeds={"smoke": 160, "quick": 300, "paper": 3000, "full": 30_000},
    tags=("cloning", "rate", "random-instances"),
    rev=2,
)

_LINEAR = {
    "smoke": {"d": (2, 6, 18), "H": (1, 3, 9), "S": (5, 15, 45)},
    "quick": {"d": (2, 4, 8, 16), "H": (1, 2, 4, 8), "S": (5, 10, 20, 40)},
    "paper": {"d": (1, 2, 4, 8, 16, 24), "H": (1, 2, 4, 8, 16), "S": (5, 10, 20, 40, 80)},
    "full": {"d": (1, 2, 4, 8, 16, 24), "H": (1, 2, 4, 8, 16, 32), "S": (5, 10, 20, 40, 80, 160)},
}

bc_linear_scaling = Claim(
    id="tiapkin2023/bc-linear-scaling",
    statement=(
        r"$\mathbb{E}\,\mathrm{KL}_{\mathrm{traj}}$ of log-linear maximum likelihood (mixed with the uniform policy at "
        r"$A/(N+A)$) grows as the dimension $d$ and as $H$, with exponent 1, and does not grow with $S$."
    ),
    origin="derived",
    cites=(PAPER.at("linear policies, behaviour cloning"),),
    grid={preset: _sizes(grid) for preset, grid in _LINEAR.items()},
    measure=measure_linear_size,
    rule=Rate(axis="size", bound="predicted", margin=0.15, of="kl"),
    twins=(
        Twin(
            "the-tabular-law", r"It grows as $(A-1)SH$, whatever $d$.", "an exponent 1 away in $d$, and in $S$",
            rule=Rate(axis="size", bound="tabular", margin=0.15, of="kl"),
        ),
    ),
    seeds={"smoke": 200, "quick": 300, "paper": 3000, "full": 30_000},
    tags=("cloning", "linear", "rate", "random-instances"),
    rev=2,
)
