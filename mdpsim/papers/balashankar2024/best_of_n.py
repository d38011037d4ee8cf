r"""Best-of-N as a policy: how far it goes and how often it wins.

Without ties best-of-N has density N u^{N-1} on the quantiles, so KL = log N + (N-1) int log u dF = log N - (N-1)/N, and it wins
against pi_ref with probability int u N u^{N-1} du = N / (N+1).

With atoms both are upper bounds. Give every response a latent u, uniform in its block of quantiles, and break ties by u: the
winner has density N u^{N-1}, and its response has the law of best-of-N. The KL of the response is at most that of u (data
processing). And in a block of quantiles [a, b] that the winner and z share, the winner wins with probability above 1/2, as
its u has the increasing density u^{N-1} there, where half credit counts 1/2.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.align.inference import inference_loss_rate
from mdpsim.align.procedures import BestOfN
from mdpsim.align.spaces import Responses, quantile_scale
from mdpsim.align.transforms import best_of_n_kl
from mdpsim.claims.claim import Claim, Paper, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.papers.balashankar2024.bounds import EPS, FAMILIES, PAPER, random_responses
from mdpsim.solve.sequence import kl

BEIRAMI = Paper(
    key="beirami2025",
    authors=(
        "Beirami, Ahmad and Agarwal, Alekh and Berant, Jonathan and D'Amour, Alexander and Eisenstein, Jacob and Nagpal, "
        "Chirag and "
        "Suresh, Ananda Theertha"
    ),
    title="Theoretical guarantees on the best-of-n alignment policy",
    venue="International Conference on Machine Learning (ICML)",
    year=2025,
    arxiv="2401.01879",
)
SMALL = 5  # atoms of the instance on which equality fails visibly


@per_seed
def measure_best_of_n(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """KL and win rate of best-of-N: on the quantile scale less the formulas, by quadrature; and by how much random discrete
    references exceed the formulas (0 where they do not).

    False columns: log N, 1 - 2^{-N}, and the gap to equality of a discrete reference with few atoms.
    """
    n, scale = point["n"], quantile_scale()
    top, few = BestOfN(n), Responses(*random_responses(point["family"], SMALL, rng))
    space = Responses(*random_responses(point["family"], point["n_responses"], rng))
    density = top.law(scale, scale.pi_ref)
    known_kl, known_loss = best_of_n_kl(n), 1.0 / (n + 1.0)
    cost, lost = kl(density / density.sum(), scale.pi_ref), inference_loss_rate(BestOfN(1), density, scale)
    discrete, small = top.law(space, space.pi_ref), top.law(few, few.pi_ref)
    discrete_loss = inference_loss_rate(BestOfN(1), discrete, space)
    return {
        "kl": abs(cost - known_kl), "kl_excess": max(0.0, kl(discrete, space.pi_ref) - known_kl),
        "win": abs(lost - known_loss), "win_excess": max(0.0, known_loss - discrete_loss),
        "kl_log_n": abs(cost - np.log(n)), "win_halves": abs(1.0 - lost - (1.0 - 0.5**n)),
        "kl_equal": abs(kl(small, few.pi_ref) - known_kl),
        "win_equal": abs(inference_loss_rate(BestOfN(1), small, few) - known_loss),
        "tolerance": 1e-12, "rounding": 64 * EPS * point["n_responses"],
    }


_GRID = {
    "smoke": product(family=FAMILIES, n=(4,), n_responses=(10,)),
    "quick": product(family=FAMILIES, n=(2, 4, 16), n_responses=(10, 100)),
    "paper": product(family=FAMILIES, n=(2, 3, 4, 8, 16, 64), n_responses=(3, 10, 100, 1000)),
    "full": product(family=FAMILIES, n=(2, 3, 4, 8, 16, 64, 1024), n_responses=(3, 10, 100, 1000)),
}
_SEEDS = {"smoke": 10, "quick": 20, "paper": 100, "full": 1000}

best_of_n_cost = Claim(
    id="balashankar2024/best-of-n-kl",
    statement=(
        r"$\mathrm{KL}(\mathrm{BoN}\,\|\,\pi_{\mathrm{ref}}) = \log N - \frac{N-1}{N}$ for a reference without ties, and at "
        r"most that "
        r"for every discrete reference."
    ),
    origin="derived",
    cites=(PAPER.at("best-of-N"), BEIRAMI.at("KL divergence of best-of-n")),
    grid=_GRID,
    measure=measure_best_of_n,
    rule=Identity({"kl": "tolerance", "kl_excess": "rounding"}),
    twins=(
        Twin("log-n", r"It is $\log N$.", r"$(N-1)/N$, at least $0.5$", rule=Identity({"kl_log_n": "tolerance"})),
        Twin(
            "equality-with-atoms", r"It is $\log N - (N-1)/N$ for every reference, five responses too.",
            r"at least $0.001$ for five responses, about $0.3$ on average", rule=Identity({"kl_equal": "tolerance"}),
        ),
    ),
    seeds=_SEEDS,
    tags=("best-of-n", "exact", "random-instances"),
)

best_of_n_win_rate = Claim(
    id="balashankar2024/best-of-n-win-rate",
    statement=(
        r"Best-of-$N$ wins against $\pi_{\mathrm{ref}}$ with probability $N/(N+1)$ where the reference has no ties, and at "
        r"most that "
        r"(ties counting half) for every discrete reference."
    ),
    origin="derived",
    cites=(PAPER.at("best-of-N"), BEIRAMI.at("win rate of best-of-n")),
    grid=_GRID,
    measure=measure_best_of_n,
    rule=Identity({"win": "tolerance", "win_excess": "rounding"}),
    twins=(
        Twin(
            "halves", r"It is $1 - 2^{-N}$.", r"$1/(N+1) - 2^{-N}$, above $0.05$ in size for $2 \le N \le 16$",
            rule=Identity({"win_halves": "tolerance"}),
        ),
        Twin(
            "equality-with-atoms", r"It is $N/(N+1)$ for every reference, five responses too.",
            r"at least $0.001$ for five responses", rule=Identity({"win_equal": "tolerance"}),
        ),
    ),
    seeds=_SEEDS,
    tags=("best-of-n", "exact", "random-instances"),
)
