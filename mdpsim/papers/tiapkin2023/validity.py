r"""The bounds and certificates of UCBVI-Ent+ and BPI-UCBVI are valid.

The learners and the proofs stand in mdpsim/learn/ucbvi_ent.py and ucbvi.py: with probability at least 1 - delta, at every
planning, Ql <= Q* <= Qu, and the (regularised) gap of the policy held is at most G, so that a run that stops at G <= eps
returns an eps-optimal policy. Both hold with known rewards and with unknown ones, of which each visit shows a Bernoulli draw.
The Bernstein bonuses are as transcribed, from a source that was not found (the version of the paper that was read has none but
Hoeffding's): their validity is observed here, on random MDPs with S = 4, A = 2, H = 3, without a proof.

The bounds are loose (at c = 1 nothing fails; the true gap at the stop is some hundred times below eps), so they have no power
as tests: the twins scale the bonuses down until they fail.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.claims.claim import PRESETS, Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import HighProb
from mdpsim.learn.trace import STOPPED
from mdpsim.learn.ucbvi import UCBVI
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.papers.tiapkin2023.bounds import DELTA, PAPER, TOLERANCE
from mdpsim.papers.tiapkin2023.identification import BUDGET, REF, random_instance

KINDS = ("dirichlet", "sparse", "garnet")
REWARDS = ("known", "unknown")
THIN_BERNSTEIN = 0.001  # of the twin: the bonus has a term in 1/n that hides a tenth of it


def _sandwich(point: Point, rng: np.random.Generator, bonus: str, scale: float) -> dict[str, float]:
    learner = UCBVIEnt(beta=point["beta"], eps=1e-12, delta=DELTA, bonus=bonus, bonus_scale=scale, reward=point["reward"],
                       budget=3000)
    trace = learner.run(random_instance(point["family"], rng), REF, rng)
    return {"violation": trace.violation, "certificate": trace.certificate}


@per_seed
def measure_sandwich(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The most by which Q*_beta was outside [Ql, Qu] at any planning of 3000 episodes, on a random MDP; c = 1.

    ``certificate`` is what the run could say of its policy at the end.
    """
    return _sandwich(point, rng, "hoeffding", 1.0)


@per_seed
def measure_thin_sandwich(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: bonuses a tenth as wide, c = 0.1."""
    return _sandwich(point, rng, "hoeffding", 0.1)


@per_seed
def measure_bernstein_sandwich(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The most by which Q*_beta was outside [Ql, Qu] at any planning of 3000 episodes, with the Bernstein bonuses; c = 1."""
    return _sandwich(point, rng, "bernstein", 1.0)


@per_seed
def measure_thin_bernstein_sandwich(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: Bernstein bonuses 0.001 times as wide."""
    return _sandwich(point, rng, "bernstein", THIN_BERNSTEIN)


_SANDWICH_TWIN = {preset: product(family=("sparse",), beta=(0.1,), reward=REWARDS) for preset in PRESETS}
_SANDWICHES = {
    "smoke": product(family=KINDS, beta=(0.1,), reward=REWARDS),
    "quick": product(family=KINDS, beta=(0.1, 1.0), reward=REWARDS),
    "paper": product(family=KINDS, beta=(0.01, 0.1, 1.0), reward=REWARDS),
    "full": product(family=KINDS, beta=(0.01, 0.1, 1.0, 10.0), reward=REWARDS),
}

ucbvi_ent_valid = Claim(
    id="tiapkin2023/ucbvi-ent-valid",
    statement=(
        r"With probability at least $1-\delta$, at every planning of UCBVI-Ent+ (Hoeffding variant) and for all $(h,s,a)$: "
        r"$\underline{Q}_h(s,a) \le Q^*_{\beta,h}(s,a) \le \overline{Q}_h(s,a)$ ($\delta = 0.1$), whether the rewards are "
        r"known or not."
    ),
    origin="derived",
    cites=(PAPER.at("UCBVI-Ent+"),),
    grid=_SANDWICHES,
    measure=measure_sandwich,
    rule=HighProb(bound=TOLERANCE, delta=DELTA, of="violation"),
    twins=(
        Twin(
            "a-tenth-of-the-bonus", "The same with bonuses a tenth as wide ($c = 0.1$).",
            r"80% of the runs at $\beta = 0.1$ violate it, on kernels that are Dirichlet(0.3)",
            measure=measure_thin_sandwich, grid=_SANDWICH_TWIN,
        ),
    ),
    # About one run in 1200 violates it with unknown rewards: 81 trials support with two violations, 50 with none.
    seeds={"smoke": 81, "quick": 200, "paper": 2000, "full": 20_000},
    draws=("family",),
    tags=("learning", "random-instances"),
    rev=2,
)

ucbvi_ent_bernstein_valid = Claim(
    id="tiapkin2023/ucbvi-ent-bernstein-valid",
    statement=(
        r"On random MDPs ($S = 4$, $A = 2$, $H = 3$), with probability at least $1-\delta$, at every planning of UCBVI-Ent+ "
        r"with Bernstein bonuses $b = "
        r"3 \sqrt{\mathrm{Var}_{\hat p}(\overline{V})\, \beta_{conc}/n} + 9 H^2 \beta_{KL}/n + "
        r"\hat p (\overline{V} - \underline{V})/H$ and for all $(h,s,a)$: $\underline{Q}_h(s,a) \le Q^*_{\beta,h}(s,a) \le "
        r"\overline{Q}_h(s,a)$ ($\delta = 0.1$)."
    ),
    origin="observed",
    cites=(PAPER.at("UCBVI-Ent+, with other bonuses"),),
    grid=_SANDWICHES,
    measure=measure_bernstein_sandwich,
    rule=HighProb(bound=TOLERANCE, delta=DELTA, of="violation"),
    twins=(
        Twin(
            "hardly-a-bonus", "The same with the first two terms 0.001 times as wide.",
            r"more than 90% of the runs at $\beta = 0.1$ violate it, on kernels that are Dirichlet(0.3)",
            measure=measure_thin_bernstein_sandwich, grid=_SANDWICH_TWIN,
        ),
    ),
    seeds={"smoke": 60, "quick": 120, "paper": 1200, "full": 12_000},
    draws=("family",),
    tags=("learning", "random-instances"),
)


def _stopped_gap(point: Point, rng: np.random.Generator, learner: UCBVI | UCBVIEnt) -> dict[str, float]:
    trace = learner.run(random_instance(point["family"], rng), REF, rng)
    return {"gap_over_eps": trace.gap / point["eps"] if trace.status == STOPPED else np.inf}


def _regularised(point: Point, scale: float) -> UCBVIEnt:
    return UCBVIEnt(beta=0.1, eps=point["eps"], delta=DELTA, bonus_scale=scale, reward=point["reward"], budget=BUDGET)


@per_seed
def measure_stopped_gap(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The regularised gap of the policy that UCBVI-Ent+ returns, over eps; beta = 0.1, c = 1; infinite if it did not stop."""
    return _stopped_gap(point, rng, _regularised(point, 1.0))


@per_seed
def measure_thin_gap(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: c = 0.003, which stops after a few episodes."""
    return _stopped_gap(point, rng, _regularised(point, 0.003))


ucbvi_ent_pac = Claim(
    id="tiapkin2023/ucbvi-ent-pac",
    statement=(
        r"With probability at least $1-\delta$ UCBVI-Ent+ (Hoeffding variant) stops with a policy whose regularised gap is "
        r"at most $\varepsilon$: $V^*_\beta - V^{\hat\pi}_\beta \le \varepsilon$ ($\delta = 0.1$), whether the rewards are "
        r"known or not."
    ),
    origin="derived",
    cites=(PAPER.at("UCBVI-Ent+"),),
    grid={
        "smoke": product(family=KINDS, eps=(0.3,), reward=REWARDS),
        "quick": product(family=KINDS, eps=(0.1,), reward=REWARDS),
        "paper": product(family=KINDS, eps=(0.03, 0.1), reward=REWARDS),
        "full": product(family=KINDS, eps=(0.01, 0.03, 0.1), reward=REWARDS),
    },
    measure=measure_stopped_gap,
    rule=HighProb(bound=1.0, delta=DELTA, of="gap_over_eps"),
    twins=(
        Twin(
            "no-bonus-to-speak-of", "The same with bonuses 0.003 times as wide.",
            r"more than 30% of the runs return a policy that is not $\varepsilon$-optimal at $\varepsilon = 0.01$",
            measure=measure_thin_gap,
            grid={preset: product(family=("dirichlet",), eps=(0.01,), reward=("known",)) for preset in PRESETS},
            seeds={"smoke": 200, "quick": 200, "paper": 2000, "full": 20_000},
        ),
    ),
    seeds={"smoke": 60, "quick": 200, "paper": 2000, "full": 20_000},
    draws=("family",),
    tags=("learning", "random-instances"),
    rev=2,
)


@per_seed
def measure_unregularised_gap(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """V* - V of the policy that BPI-UCBVI (Hoeffding variant, c = 1) returns, over eps; infinite if it did not stop."""
    return _stopped_gap(point, rng, UCBVI(eps=point["eps"], delta=DELTA, reward=point["reward"], budget=BUDGET))


@per_seed
def measure_thin_unregularised_gap(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: c = 0.001."""
    learner = UCBVI(eps=point["eps"], delta=DELTA, bonus_scale=0.001, reward=point["reward"], budget=BUDGET)
    return _stopped_gap(point, rng, learner)


ucbvi_pac = Claim(
    id="tiapkin2023/ucbvi-pac",
    statement=(
        r"With probability at least $1-\delta$ BPI-UCBVI (Hoeffding variant, no KL term) stops with an $\varepsilon$-optimal "
        r"policy: $V^* - V^{\hat\pi} \le \varepsilon$ ($\delta = 0.1$), whether the rewards are known or not."
    ),
    origin="derived",
    cites=(PAPER.at("the unregularised baseline"),),
    grid={
        "smoke": product(family=KINDS, eps=(0.3,), reward=REWARDS),
        "quick": product(family=KINDS, eps=(0.2,), reward=REWARDS),
        "paper": product(family=KINDS, eps=(0.05, 0.2), reward=REWARDS),
        "full": product(family=KINDS, eps=(0.02, 0.05, 0.2), reward=REWARDS),
    },
    measure=measure_unregularised_gap,
    rule=HighProb(bound=1.0, delta=DELTA, of="gap_over_eps"),
    twins=(
        Twin(
            "no-bonus-to-speak-of", "The same with bonuses 0.001 times as wide.",
            r"more than 30% of the runs return a policy that is not $\varepsilon$-optimal at $\varepsilon = 0.01$",
            measure=measure_thin_unregularised_gap,
            grid={preset: product(family=("dirichlet",), eps=(0.01,), reward=("known",)) for preset in PRESETS},
            seeds={"smoke": 200, "quick": 200, "paper": 2000, "full": 20_000},
        ),
    ),
    seeds={"smoke": 60, "quick": 120, "paper": 1200, "full": 12_000},
    draws=("family",),
    tags=("learning", "baseline", "random-instances"),
)
