r"""Exploration time against coverage: e^{c/beta} for passive DPO, flat for XPO (the paper's comparison of C_cov with
concentrability).

Two arms as in :mod:`mdpsim.papers.xie2024.bounds`, eps = pi_ref(a) = e^{-c/beta}: the axis is 1/eps, whose logarithm is
c/beta. Passive DPO, online or against the reference, keeps pi_ref until its first mixed pair, whose round is geometric of
mean 1/p, p = 2 eps (1 - eps); so the first round that plays another policy has mean

    1 + 1 / (2 eps (1 - eps)).

(eps fixed while beta -> 0 gives no exponential growth, and for c > D nothing is to be found: pi* is near pi_ref.) XPO's bonus
moves it after one round whatever eps is; a wrong label then costs beta/(alpha (1 - c)) rounds, and wrong labels before that
are the rarer the smaller eps is: see :mod:`mdpsim.papers.xie2024.passive`. C_cov <= 2 throughout, while the concentrability
of pi_ref is 1/eps.

A first hit alone is met by chance: online DPO with random ties meets a good policy in a few rounds, whatever eps is, and then
stays at the bad arm in a third of its runs. So all learners run T = 8/eps rounds, and a run whose last iterate is not
near-optimal counts as T + 1 rounds: a share of them that does not vanish makes the mean grow as 1/eps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdpsim.claims.claim import Claim, Point, Twin, product
from mdpsim.claims.rules import Rate
from mdpsim.papers.xie2024.bounds import PAPER, TWO_ARM_FAMILIES, TwoArms
from mdpsim.papers.xie2024.passive import (
    Columns,
    Run,
    on_each,
    run_comparator,
    run_online,
    run_random_ties,
    run_xpo,
    settled,
)


def passive_rounds(point: Point) -> float:
    """1 + 1 / (2 eps (1 - eps))."""
    eps = 1.0 / point["inv_eps"]
    return 1.0 + 1.0 / (2.0 * eps * (1.0 - eps))


def _times(point: Point, keys: Sequence[int], run: Run, rounds: int) -> Columns:
    def measure(x: TwoArms, own: list[int]) -> Columns:
        found = run(x, rounds, own)
        rounds_to = {"reached": found.reached.astype(np.float64), "left": found.left.astype(np.float64)}
        return rounds_to | {"settled": settled(found, x.near, rounds), "average": found.average[:, -1]}

    return on_each(point, keys, measure)


def _long(point: Point) -> int:
    """8 / eps rounds: a mixed pair is then missed with probability e^-16."""
    return int(8 * point["inv_eps"])


def measure_xpo_time(point: Point, keys: Sequence[int]) -> Columns:
    """First round of XPO (alpha/beta = 0.05) with a gap below (D - c)/3 (``reached``), of 8/eps; and with another policy.

    ``settled`` is ``reached``, and T + 1 where the last of the T rounds has no such gap.
    """
    return _times(point, keys, run_xpo, _long(point))


def measure_online_time(point: Point, keys: Sequence[int]) -> Columns:
    """The same rounds of online DPO, of at most 8/eps: ``left`` is the first that does not play pi_ref."""
    return _times(point, keys, run_online, _long(point))


def measure_no_bonus_time(point: Point, keys: Sequence[int]) -> Columns:
    """The same rounds of DPO against the reference, XPO with alpha = 0."""
    return _times(point, keys, run_comparator, _long(point))


def measure_random_ties_time(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false algorithm: online DPO that takes any of the tied policies."""
    return _times(point, keys, run_random_ties, _long(point))


_RARITIES = {
    "smoke": (12.0, 60.0, 300.0), "quick": (12.0, 42.0, 148.0, 518.0, 1808.0),
    "paper": (12.0, 42.0, 148.0, 518.0, 1808.0, 6310.0),
    "full": (12.0, 42.0, 148.0, 518.0, 1808.0, 6310.0, 22026.0),
}
_SEEDS = {"smoke": 400, "quick": 300, "paper": 3600, "full": 10_000}
_GRID = {preset: product(family=TWO_ARM_FAMILIES, inv_eps=values) for preset, values in _RARITIES.items()}
_ONE = {preset: product(family=("proposition",), inv_eps=_RARITIES["smoke"]) for preset in _RARITIES}

coverage_invariance = Claim(
    id="xie2024/coverage-invariance",
    statement=(
        r"Two arms of rewards $1$ and $1-D$, $\pi_{\mathrm{ref}}(a) = \varepsilon = e^{-c/\beta}$ ($c, D$: $1/8, 1/2$; $1/4, "
        r"3/4$; or random in $[0.1, 0.2]$, $[0.4, 0.7]$). The mean round in which XPO ($\alpha/\beta = 0.05$) first plays a "
        r"policy within $(D-c)/3$ of $J(\pi^*)$, counted as $T = 8/\varepsilon$ where $\pi^T$ is not one, does not grow as "
        r"$\pi_{\mathrm{ref}}$ covers $\pi^*$ less and less: its exponent in $1/\varepsilon$ is at most $0.1$."
    ),
    origin="observed",
    cites=(PAPER.at("Algorithm 1, coverability against concentrability"),),
    grid=_GRID,
    measure=measure_xpo_time,
    rule=Rate(axis="inv_eps", slope=0.0, margin=0.1, side="at_most", of="settled"),
    twins=(
        Twin(
            "online-dpo", r"The same for online DPO.", "an exponent of about 1", measure=measure_online_time, grid=_ONE,
        ),
        Twin(
            "no-bonus", r"The same with $\alpha = 0$: DPO against the reference.", "an exponent of about 1",
            measure=measure_no_bonus_time, grid=_ONE,
        ),
        Twin(
            "random-ties", r"The same for online DPO that breaks ties at random.", "an exponent of about 1",
            measure=measure_random_ties_time, grid=_ONE,
        ),
    ),
    seeds=_SEEDS,
    draws=("family",),
    tags=("exploration", "rate", "random-instances"),
    rev=2,
)

passive_escape_time = Claim(
    id="xie2024/passive-escape-time",
    statement=(
        r"Two arms of rewards $1$ and $1-D$, $\pi_{\mathrm{ref}}(a) = \varepsilon = e^{-c/\beta}$, the class of the $\pi_u$ "
        r"with $\beta \log \pi_u/\pi_{\mathrm{ref}}(a) - \beta \log \pi_u/\pi_{\mathrm{ref}}(b) = u$, a grid of $|u| \le 1$, "
        r"ties broken towards $\pi_{\mathrm{ref}}$: the mean of the first round in which online DPO plays another policy than "
        r"$\pi_{\mathrm{ref}}$ grows in proportion to $1 + 1/(2\varepsilon(1-\varepsilon))$, exponentially in $1/\beta$: its "
        r"exponent in $1/\varepsilon$ is that of this formula up to $0.1$."
    ),
    origin="derived",
    cites=(PAPER.at("Proposition 2.1"),),
    grid=_GRID,
    measure=measure_online_time,
    rule=Rate(axis="inv_eps", bound=passive_rounds, margin=0.1, of="left"),
    twins=(
        Twin(
            "random-ties", r"The same where ties are broken at random.", "an exponent of 0, 1 away",
            measure=measure_random_ties_time, grid=_ONE,
        ),
        Twin(
            "xpo", r"The same for XPO with $\alpha/\beta = 0.05$.", "an exponent of 0, 1 away",
            measure=measure_xpo_time, grid=_ONE,
        ),
        Twin(
            "square-root", r"The mean grows as $\varepsilon^{-1/2}$.", "an exponent 0.5 away",
            rule=Rate(axis="inv_eps", slope=0.5, margin=0.1, of="left"),
        ),
    ),
    seeds=_SEEDS,
    draws=("family",),
    tags=("exploration", "rate", "random-instances"),
    rev=2,
)
