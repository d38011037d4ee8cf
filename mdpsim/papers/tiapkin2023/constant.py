r"""Add-one cloning: the paper's high-probability bound, the sharp constant, and the limit law.

The bound is Corollary 1 as transcribed. It holds with a slack of thousands, so its own test has no power; its twin has
another power of N, at N beyond that slack, and the sharp constant is its companion:

    N E KL_traj(pi_E || pi_BC) -> sum_{(h,s): d_h(s)>0} [(A - k_h(s)) + (k_h(s) - 1)/2],     k_h(s) = |supp pi_E,h(.|s)|.   (1)

An action that the expert never plays keeps mass 1/(n + A) of the clone, which costs 1/n each: A - k. On the support the
clone is a multinomial estimate with k - 1 free parameters: 2 n KL -> chi^2_{k-1}, of mean k - 1. Visits n ~ Bin(N, d)
divide out, because N d / n -> 1. Where k = A everywhere, 2 N KL_traj -> chi^2 with (A-1) #{(h,s): d_h(s) > 0} degrees of
freedom (rows are independent given the visits). Both limits need N d_h(s) pi_E(a|s) large on the support: instances are
redrawn until it is at least 200.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import HighProb, Limit
from mdpsim.estimate.cloning import fit_bc
from mdpsim.estimate.data import Counts, sample_counts
from mdpsim.estimate.experts import random_expert
from mdpsim.mdp.tabular import MDP
from mdpsim.papers.tiapkin2023.bounds import DELTA, EXPERTS, FAMILIES, PAPER, A, H, S, random_instance, redrawn
from mdpsim.papers.tiapkin2023.cloning import measure_cloning
from mdpsim.solve.exact import occupancy, trajectory_kl

MIN_EXPECTED = 200.0  # expected count of every supported (h, s, a) that is reached
COPIES = 10  # how often the twin shows each demonstration


# --- Corollary 1 -----------------------------------------------------------------------------------------------------

bc_tabular_bound = Claim(
    id="tiapkin2023/bc-tabular-bound",
    statement=(
        r"With probability at least $1-\delta$, for $N \ge A$, $\mathrm{KL}_{\mathrm{traj}}(\pi_E\,\|\,\pi_{\mathrm{BC}}) \le "
        r"6SAH \log(2e^4 N) \log(12HN^2/\delta)/N + 18AH/N$."
    ),
    origin="as-transcribed",
    cites=(PAPER.at("Corollary 1"),),
    grid={
        "smoke": product(family=FAMILIES, expert=EXPERTS, n_demos=(30, 100_000)),
        "quick": product(family=FAMILIES, expert=EXPERTS, n_demos=(30, 1000, 100_000)),
        "paper": product(family=FAMILIES, expert=EXPERTS, n_demos=(3, 30, 1000, 30_000, 100_000, 1_000_000)),
        "full": product(family=FAMILIES, expert=EXPERTS, n_demos=(3, 10, 30, 1000, 30_000, 100_000, 1_000_000)),
    },
    measure=measure_cloning,
    rule=HighProb(bound="paper_bound", delta=DELTA, of="kl"),
    twins=(
        Twin(
            "one-over-n-squared", r"The same bound divided by $N$, so that it decays as $N^{-2}$.",
            r"a factor $N = 10^5$ at the largest $N$, past the slack of the bound (thousands)",
            rule=HighProb(bound="paper_over_n", delta=DELTA, of="kl"),
        ),
    ),
    seeds={"smoke": 60, "quick": 200, "paper": 2000, "full": 20000},
    draws=("family", "expert"),
    tags=("cloning", "random-instances"),
    rev=2,
)


# --- the sharp constant and the law ----------------------------------------------------------------------------------


@per_seed
def measure_constant(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """N KL_traj(pi_E || pi_BC) over the constant of (1), for a random instance whose supported (h, s, a) are all well visited.

    ``ratio`` is that quotient, ``ratio_to_half`` the one over (A-1)/2 a state. ``two_n_kl`` and ``df`` are for the limit law.
    Experts play one action ("deterministic"), two ("two-action") or all ("interior"), none with probability below 0.1.
    """
    return _constant(point, rng, copies=1)


@per_seed
def measure_copies(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: N demonstrations of which only N / 10 are different, each shown ten times."""
    return _constant(point, rng, copies=COPIES)


def _constant(point: Point, rng: np.random.Generator, copies: int) -> dict[str, float]:
    n_demos = point["n_demos"]
    mdp, expert, d = _well_visited(point, rng)
    counts = sample_counts(mdp, expert, n_demos // copies, rng)
    kl = trajectory_kl(mdp, expert, fit_bc(Counts(counts.visits * copies, counts.n * copies)))
    support = np.count_nonzero(expert, axis=-1)[d > 0]
    limit = float(np.sum((mdp.A - support) + (support - 1) / 2))
    half = (mdp.A - 1) / 2 * len(support)
    return {
        "ratio": n_demos * kl / limit, "ratio_to_half": n_demos * kl / half, "two_n_kl": 2 * n_demos * kl,
        "df": 2 * half, "df_all_actions": float(mdp.A * len(support)),
    }


def _well_visited(point: Point, rng: np.random.Generator) -> tuple[MDP, FloatArray, FloatArray]:
    """An instance, its expert and occupancies, redrawn until the condition of (1) holds."""

    def draw() -> tuple[tuple[MDP, FloatArray, FloatArray], float]:
        mdp, expert = random_instance(point["family"], rng), _expert(point["expert"], rng)
        d = occupancy(mdp, expert)
        mass = d[..., None] * expert
        return (mdp, expert, d), float(mass[mass > 0].min())

    return redrawn("measure_constant", point["n_demos"], MIN_EXPECTED, draw)


def _expert(kind: str, rng: np.random.Generator) -> FloatArray:
    """A random expert of the kind, with no probability in (0, 0.1)."""
    return random_expert(H=H, S=S, A=A, support=_SUPPORT[kind], rng=rng, least=0.1)


_SUPPORT = {"deterministic": 1, "two-action": 2, "interior": A}
_ALL = tuple(_SUPPORT)

bc_sharp_constant = Claim(
    id="tiapkin2023/bc-sharp-constant",
    statement=(
        r"For add-one behaviour cloning $N\,\mathbb{E}\,\mathrm{KL}_{\mathrm{traj}}(\pi_E\,\|\,\pi_{\mathrm{BC}}) \to "
        r"\sum_{(h,s):\,d_h(s)>0} [(A-k_h(s)) + (k_h(s)-1)/2]$ with $k_h(s) = |\mathrm{supp}\,\pi_{E,h}(\cdot|s)|$."
    ),
    origin="derived",
    cites=(PAPER.at("Corollary 1, its constant"),),
    grid={
        "smoke": product(family=FAMILIES, expert=EXPERTS, n_demos=(30_000_000,)),
        "quick": product(family=FAMILIES, expert=_ALL, n_demos=(10_000_000, 100_000_000)),
        "paper": product(family=FAMILIES, expert=_ALL, n_demos=(3_000_000, 10_000_000, 100_000_000)),
        "full": product(family=FAMILIES, expert=_ALL, n_demos=(3_000_000, 10_000_000, 100_000_000)),
    },
    measure=measure_constant,
    rule=Limit(value=1.0, margin=0.05, of="ratio"),
    twins=(
        Twin(
            "half-for-every-expert", r"The same with $(A-1)/2$ for every $(h,s)$, whatever the expert.",
            r"a factor of 2 for a deterministic expert, 1.5 for one of two actions ($A = 3$)",
            rule=Limit(value=1.0, margin=0.05, of="ratio_to_half"),
        ),
        Twin(
            "copied-demonstrations", r"The same for $N$ demonstrations of which $N/10$ are different, each shown 10 times.",
            r"a factor that tends to 10 for an interior expert",
            measure=measure_copies,
            seeds={"smoke": 100, "quick": 200, "paper": 2000, "full": 20000},
        ),
    ),
    # A trial has a relative deviation of up to 0.35: the 99% interval is +-0.018 at 2400 trials.
    seeds={"smoke": 2000, "quick": 2400, "paper": 24000, "full": 240000},
    tags=("cloning", "random-instances"),
    rev=3,
)

bc_chi_square = Claim(
    id="tiapkin2023/bc-chi-square",
    statement=(
        r"For an expert that plays every action, $2N\,\mathrm{KL}_{\mathrm{traj}}(\pi_E\,\|\,\pi_{\mathrm{BC}})$ tends in law "
        r"to $\chi^2$ with $(A-1)\,|\{(h,s): d_h(s)>0\}|$ degrees of freedom."
    ),
    origin="derived",
    cites=(PAPER.at("Corollary 1, its constant"),),
    grid={
        "smoke": product(family=FAMILIES, expert=("interior",), n_demos=(30_000_000,)),
        "quick": product(family=FAMILIES, expert=("interior",), n_demos=(10_000_000, 100_000_000)),
        "paper": product(family=FAMILIES, expert=("interior",), n_demos=(3_000_000, 10_000_000, 100_000_000)),
        "full": product(family=FAMILIES, expert=("interior",), n_demos=(3_000_000, 10_000_000, 100_000_000)),
    },
    measure=measure_constant,
    rule=Limit(law=("chi2", "df"), margin=0.1, of="two_n_kl"),
    twins=(
        Twin(
            "a-degree-for-every-action", r"The same with $A$ degrees of freedom for each $(h,s)$.",
            r"$A/(A-1) = 1.5$ times the degrees of freedom: a Kolmogorov distance above 0.5",
            rule=Limit(law=("chi2", "df_all_actions"), margin=0.1, of="two_n_kl"),
        ),
    ),
    seeds={"smoke": 1200, "quick": 1500, "paper": 15000, "full": 150000},
    tags=("cloning", "law", "random-instances"),
    rev=3,
)
