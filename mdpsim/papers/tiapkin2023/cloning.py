r"""Add-one cloning: the sharp bound on its mean divergence from the expert, and its rate.

The bound is (2) of :mod:`mdpsim.papers.tiapkin2023.bounds`, with its derivation. It is attained as N grows by a deterministic
expert; an interior one tends to half of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.claims.claim import PRESETS, Claim, Point, Twin, geometric, per_seed, product
from mdpsim.claims.rules import HighProb, Mean, Rate
from mdpsim.estimate.cloning import fit_bc
from mdpsim.estimate.data import sample_counts
from mdpsim.mdp import families
from mdpsim.papers.tiapkin2023.bounds import DELTA, EXPERTS, FAMILIES, PAPER, paper_bound, random_instance, sharp_bound
from mdpsim.solve.exact import occupancy, trajectory_kl


@per_seed
def measure_cloning(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """KL_traj(pi_E || pi_BC) of the add-one clone of N demonstrations, and the bounds for that very instance.

    The expert is "deterministic" (a random action in every state and stage) or "interior" (Dirichlet(1) rows). ``kl`` is
    exact given the counts; ``sharp_bound`` is (2) with the instance's exact occupancies.
    """
    return _clone(point, rng, noise=0.0)


@per_seed
def measure_noisy_cloning(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: demonstrations with 5% uniform actions mixed in, judged against the clean expert."""
    return _clone(point, rng, noise=0.05)


@per_seed
def measure_tail(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """measure_cloning with ``markov_bound``, (2) over delta = 0.1: by Markov's inequality a bound with probability 0.9."""
    seen = _clone(point, rng, noise=0.0)
    return seen | {"markov_bound": seen["sharp_bound"] / DELTA}


@per_seed
def measure_unsmoothed(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: maximum likelihood, whose divergence is infinite where an action was not seen."""
    return _clone(point, rng, noise=0.0, smoothing=0.0)


def _clone(point: Point, rng: np.random.Generator, noise: float, smoothing: float = 1.0) -> dict[str, float]:
    mdp, n_demos = random_instance(point["family"], rng), point["n_demos"]
    kind = families.random_deterministic_policy if point["expert"] == "deterministic" else families.random_policy
    expert = kind(H=mdp.H, S=mdp.S, A=mdp.A, rng=rng)
    shown = (1 - noise) * expert + noise / mdp.A
    clone = fit_bc(sample_counts(mdp, shown, n_demos, rng), smoothing=smoothing)
    sharp = sharp_bound(occupancy(mdp, expert), mdp.A, n_demos)
    return {
        "kl": trajectory_kl(mdp, expert, clone),
        "sharp_bound": sharp,
        "sharp_halved": 0.5 * sharp,
        "paper_bound": paper_bound(mdp, n_demos),
        "paper_over_n": paper_bound(mdp, n_demos) / n_demos,
    }


_SHARP = (
    r"(A-1)\sum_{(h,s):\,d_h(s)>0} \frac{1-(1-d_h(s))^{N+1}}{N+1}"
)

bc_sharp_mean = Claim(
    id="tiapkin2023/bc-sharp-mean",
    statement=(
        r"With $N$ demonstrations of any expert, add-one behaviour cloning has "
        rf"$\mathbb{{E}}\,\mathrm{{KL}}_{{\mathrm{{traj}}}}(\pi_E\,\|\,\pi_{{\mathrm{{BC}}}}) \le {_SHARP} \le (A-1)SH/(N+1)$."
    ),
    origin="derived",
    cites=(PAPER.at("Corollary 1, sharpened"),),
    grid={
        "smoke": product(family=FAMILIES, expert=EXPERTS, n_demos=(30, 300)),
        "quick": product(family=FAMILIES, expert=EXPERTS, n_demos=(30, 100, 300, 1000)),
        "paper": product(family=FAMILIES, expert=EXPERTS, n_demos=(10, 30, 56, 100, 178, 300, 562, 1000)),
        "full": product(family=FAMILIES, expert=EXPERTS, n_demos=(3, 10, 30, 56, 100, 178, 300, 562, 1000)),
    },
    measure=measure_cloning,
    rule=Mean(bound="sharp_bound", margin=0.01, of="kl"),
    twins=(
        Twin(
            "half-the-bound",
            r"The same with half the right side, $(A-1)/2$ in place of $A-1$: the interior expert's constant for every expert.",
            r"a factor of 2: the mean over this bound tends to $2$ as $N$ grows, for a deterministic expert",
            rule=Mean(bound="sharp_halved", margin=0.01, of="kl"),
        ),
        Twin(
            "maximum-likelihood", "The same without smoothing: the frequencies of what was seen.",
            r"the divergence is infinite in most runs at $N = 30$, interior expert",
            measure=measure_unsmoothed,
            grid={preset: product(family=FAMILIES, expert=("interior",), n_demos=(30,)) for preset in PRESETS},
            seeds=dict.fromkeys(PRESETS, 100),
        ),
    ),
    seeds={"smoke": 100, "quick": 400, "paper": 4000, "full": 40000},
    draws=("family", "expert"),
    tags=("cloning", "random-instances"),
    rev=2,
)

bc_sharp_tail = Claim(
    id="tiapkin2023/bc-sharp-tail",
    statement=(
        r"With $N$ demonstrations of any expert, with probability at least $1-\delta$, add-one behaviour cloning has "
        rf"$\mathrm{{KL}}_{{\mathrm{{traj}}}}(\pi_E\,\|\,\pi_{{\mathrm{{BC}}}}) \le \frac1\delta {_SHARP}$ ($\delta = 0.1$)."
    ),
    origin="derived",
    cites=(PAPER.at("Corollary 1, sharpened"),),
    grid={
        "smoke": product(family=FAMILIES, expert=EXPERTS, n_demos=(30, 1000)),
        "quick": product(family=FAMILIES, expert=EXPERTS, n_demos=(30, 1000)),
        "paper": product(family=FAMILIES, expert=EXPERTS, n_demos=(3, 30, 300, 3000)),
        "full": product(family=FAMILIES, expert=EXPERTS, n_demos=(1, 3, 30, 300, 3000)),
    },
    measure=measure_tail,
    rule=HighProb(bound="markov_bound", delta=DELTA, of="kl"),
    twins=(
        Twin(
            "the-mean-as-a-quantile", r"The same without $1/\delta$: the bound on the mean, with probability $1-\delta$.",
            "a deterministic expert's divergence exceeds its mean with probability above 0.3, not 0.1",
            rule=HighProb(bound="sharp_bound", delta=DELTA, of="kl"),
            grid={preset: product(family=FAMILIES, expert=("deterministic",), n_demos=(1000,)) for preset in PRESETS},
        ),
    ),
    seeds={"smoke": 100, "quick": 200, "paper": 2000, "full": 20_000},
    draws=("family", "expert"),
    tags=("cloning", "random-instances"),
    rev=2,
)

bc_rate = Claim(
    id="tiapkin2023/bc-rate",
    statement=(
        r"$\mathbb{E}\,\mathrm{KL}_{\mathrm{traj}}(\pi_E\,\|\,\pi_{\mathrm{BC}})$ of add-one behaviour cloning decays in the "
        rf"number of demonstrations $N$ as the sharp bound ${_SHARP}$ does, that is as $1/N$ up to a constant."
    ),
    origin="derived",
    cites=(PAPER.at("Corollary 1"),),
    grid={
        "smoke": product(family=FAMILIES, expert=EXPERTS, n_demos=geometric(100, 10_000, 3)),
        "quick": product(family=FAMILIES, expert=EXPERTS, n_demos=geometric(100, 30_000, 6)),
        "paper": product(family=FAMILIES, expert=EXPERTS, n_demos=geometric(100, 100_000, 10)),
        "full": product(family=FAMILIES, expert=EXPERTS, n_demos=geometric(100, 1_000_000, 13)),
    },
    measure=measure_cloning,
    rule=Rate(axis="n_demos", bound="sharp_bound", margin=0.1, of="kl"),
    twins=(
        Twin(
            "noisy-demonstrations",
            r"The same for demonstrations in which 5% of the actions are uniform, judged against the clean expert.",
            r"the divergence has a floor ($-H \log(0.95 + 0.05/A)$, deterministic expert): a slope flatter by more than 0.3",
            measure=measure_noisy_cloning,
        ),
        Twin(
            "root-n", r"The divergence decays as $N^{-1/2}$.", "a slope 0.5 away",
            rule=Rate(axis="n_demos", slope=-0.5, margin=0.1, of="kl"),
        ),
        Twin(
            "n-to-the-three-halves", r"The divergence decays as $N^{-3/2}$.", "a slope 0.5 away",
            rule=Rate(axis="n_demos", slope=-1.5, margin=0.1, of="kl"),
        ),
    ),
    seeds={"smoke": 100, "quick": 200, "paper": 2000, "full": 20000},
    draws=("family", "expert"),
    tags=("cloning", "rate", "random-instances"),
    rev=2,
)
