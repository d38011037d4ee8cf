r"""What the clone's errors cost, to the last constant: the limits behind the bounds of value_gap.py.

Stochastic expert. The clone's row is pi_E + (its error), of order N^{-1/2}; by the performance-difference lemma the first
order of V_E - V_BC is sum_h sum_s d_h(s) <pi_E - pi_BC, Q_h^E>, and the rows' errors are independent given the visits, with
covariance (diag pi_E - pi_E pi_E^T)/(N d_h(s)):

    sqrt(N) (V_E - V_BC) -> N(0, sum_h sum_s d_h(s) Var_{a ~ pi_E} Q_h^E(s,a)),                                     (19)

so E|V_E - V_BC| is of the order N^{-1/2}, wherever the variance is not zero.

Deterministic expert. The variance in (19) is zero, and the next order is add-one's pull towards the uniform policy, 1/N each:

    N E[V_E - V_BC] -> B = sum_{(h,s): d_h(s)>0} [A V_h(s) - sum_a Q_h(s,a)],     N Var(V_E - V_BC) -> 0,           (20)

with V, Q those of pi_inf: the expert on states it visits, uniform elsewhere (the clone never learns these). pi_E's own V, Q
give another number as soon as an action that the expert does not play leads off its states.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mdpsim.arrays import FloatArray, fail
from mdpsim.claims.claim import Claim, Point, Twin, geometric, per_seed, product
from mdpsim.claims.rules import Limit, Rate
from mdpsim.estimate.cloning import fit_bc
from mdpsim.estimate.data import sample_counts
from mdpsim.estimate.experts import optimal_expert, random_expert
from mdpsim.mdp.tabular import MDP
from mdpsim.papers.tiapkin2023.bounds import FAMILIES, PAPER, A, H, S, random_instance, redrawn
from mdpsim.papers.tiapkin2023.value_gap import lost_value
from mdpsim.solve.exact import evaluate, occupancy


def gap_variance(mdp: MDP, expert: FloatArray) -> tuple[float, float]:
    """(the variance of (19), the same with every occupancy replaced by one)."""
    q = evaluate(mdp, expert).Q
    centred = q - (expert * q).sum(axis=-1, keepdims=True)
    rows = (expert * centred**2).sum(axis=-1)
    d = occupancy(mdp, expert)
    return float((d * rows).sum()), float(rows.sum())


def limit_constant(mdp: MDP, expert: FloatArray, *, own: bool) -> float:
    """B of (20); with ``own`` from the expert's own V and Q."""
    reached = occupancy(mdp, expert) > 0
    values = evaluate(mdp, expert if own else np.where(reached[..., None], expert, 1.0 / mdp.A))
    return float((mdp.A * values.V[:-1] - values.Q.sum(axis=-1))[reached].sum())


MIN_EXPECTED = 10_000.0  # visits from which on a state's part is within A / 10000 of its limit


@per_seed
def measure_stochastic_gap(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """V_E - V_BC for a random instance and an expert that plays every action with at least 0.1.

    ``value`` is |gap|, ``predicted`` its limit E|N(0, variance/N)| = sqrt(2 variance/(pi N)); ``z`` is gap sqrt(N / variance)
    with (19), ``z_all`` with every state counted fully.
    """
    mdp, n_demos = random_instance(point["family"], rng), point["n_demos"]
    expert = random_expert(H=H, S=S, A=A, support=A, rng=rng, least=0.1)
    return _gap(mdp, expert, n_demos, rng)


def _gap(mdp: MDP, expert: FloatArray, n_demos: int, rng: np.random.Generator) -> dict[str, float]:
    gap = lost_value(mdp, expert, fit_bc(sample_counts(mdp, expert, n_demos, rng)))
    variance, everywhere = gap_variance(mdp, expert)
    _check_positive("limit variance", variance)
    return {
        "value": abs(gap), "predicted": np.sqrt(2.0 * variance / (np.pi * n_demos)),
        "z": gap * np.sqrt(n_demos / variance), "z_all": gap * np.sqrt(n_demos / everywhere),
    }


@per_seed
def measure_optimal_gap(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The deterministic optimal expert of a random instance: ``value`` is |V_E - V_BC|, ``ratio`` N (V_E - V_BC) / B of (20).

    ``ratio_own`` is over the constant from pi_E's own V and Q. ``predicted`` is N^{-1/2}, for the twin.
    """
    mdp = random_instance(point["family"], rng)
    return _optimal_gap(mdp, optimal_expert(mdp), point["n_demos"], rng)


@per_seed
def measure_late_gap(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The same, on instances redrawn until every reached (h, s) is expected MIN_EXPECTED times: where the limit is near."""

    def draw() -> tuple[tuple[MDP, FloatArray], float]:
        mdp = random_instance(point["family"], rng)
        expert = optimal_expert(mdp)
        d = occupancy(mdp, expert)
        return (mdp, expert), float(d[d > 0].min())

    mdp, expert = redrawn("measure_late_gap", point["n_demos"], MIN_EXPECTED, draw)
    return _optimal_gap(mdp, expert, point["n_demos"], rng)


def _optimal_gap(mdp: MDP, expert: FloatArray, n_demos: int, rng: np.random.Generator) -> dict[str, float]:
    gap = lost_value(mdp, expert, fit_bc(sample_counts(mdp, expert, n_demos, rng)))
    limit, own = (limit_constant(mdp, expert, own=own) for own in (False, True))
    _check_positive("B", min(limit, own))
    return {
        "value": abs(gap), "predicted": n_demos**-0.5, "ratio": n_demos * gap / limit, "ratio_own": n_demos * gap / own,
    }


def _check_positive(name: str, value: float) -> None:
    """The limits are measured as ratios to their own constant: without one there is nothing to measure."""
    if not value > 0.0:
        fail("value_limits", f"the instance's {name}", "be positive (rewards or values that depend on the action)", value)


bc_value_gap_root = Claim(
    id="tiapkin2023/bc-value-gap-root",
    statement=(
        r"For an expert that plays every action, where the limit variance $\sum_h \sum_s d_h(s) \mathrm{Var}_{a\sim\pi_E} "
        r"Q_h^E(s,a)$ is positive, $\mathbb{E}|V_E - V_{\mathrm{BC}}|$ decays in the number of demonstrations as $N^{-1/2}$: "
        r"Pinsker's root law, not the linear law of deterministic experts."
    ),
    origin="derived",
    cites=(PAPER.at("behaviour cloning"),),
    grid={
        "smoke": product(family=FAMILIES, n_demos=geometric(1000, 100_000, 3)),
        "quick": product(family=FAMILIES, n_demos=geometric(1000, 1_000_000, 5)),
        "paper": product(family=FAMILIES, n_demos=geometric(1000, 10_000_000, 9)),
        "full": product(family=FAMILIES, n_demos=geometric(1000, 100_000_000, 11)),
    },
    measure=measure_stochastic_gap,
    rule=Rate(axis="n_demos", bound="predicted", margin=0.1),
    twins=(
        Twin(
            "linear-law", r"It decays as $1/N$.", "a slope 0.5 away", rule=Rate(axis="n_demos", slope=-1.0, margin=0.1),
        ),
        Twin(
            "deterministic-expert", r"The same for the deterministic optimal expert.", "its slope is $-1$, 0.5 away",
            measure=measure_optimal_gap,
        ),
    ),
    seeds={"smoke": 150, "quick": 200, "paper": 2000, "full": 20_000},
    draws=("family",),
    tags=("cloning", "value", "rate", "random-instances"),
    rev=2,
)

bc_value_gap_normal = Claim(
    id="tiapkin2023/bc-value-gap-normal",
    statement=(
        r"For an expert that plays every action, $\sqrt{N}\,(V_E - V_{\mathrm{BC}}) \to \mathcal{N}(0, \sigma^2)$ in law, "
        r"where $\sigma^2 = \sum_h \sum_s d_h(s) \mathrm{Var}_{a\sim\pi_E} Q_h^E(s,a)$ is positive."
    ),
    origin="derived",
    cites=(PAPER.at("behaviour cloning"),),
    grid={
        "smoke": product(family=FAMILIES, n_demos=(10_000_000,)),
        "quick": product(family=FAMILIES, n_demos=(10_000_000,)),
        "paper": product(family=FAMILIES, n_demos=(1_000_000, 10_000_000, 100_000_000)),
        "full": product(family=FAMILIES, n_demos=(1_000_000, 10_000_000, 100_000_000)),
    },
    measure=measure_stochastic_gap,
    rule=Limit(law=("normal", 1.0), margin=0.1, of="z"),
    twins=(
        Twin(
            "without-occupancies", r"The same with $\sum_h \sum_s \mathrm{Var}_{a\sim\pi_E} Q_h^E(s,a)$: every state counts "
            "fully.",
            r"about $S$ times the variance: a Kolmogorov distance of about 0.25",
            rule=Limit(law=("normal", 1.0), margin=0.1, of="z_all"),
        ),
    ),
    seeds={"smoke": 1000, "quick": 1200, "paper": 12_000, "full": 120_000},
    tags=("cloning", "value", "law", "random-instances"),
    rev=2,
)

_OFF = ("deterministic", "garnet")  # families in which an action can lead off the expert's states


def _late(families: tuple[str, ...]) -> dict[str, tuple[Point, ...]]:
    demos = {"smoke": (10**9,), "quick": (10**8, 10**9), "paper": (10**7, 10**8, 10**9, 10**10)}
    demos["full"] = (10**8, 10**10, 10**12)
    return {preset: product(family=families, n_demos=n) for preset, n in demos.items()}


bc_value_gap_limit = Claim(
    id="tiapkin2023/bc-value-gap-limit",
    statement=(
        r"For a deterministic optimal expert $N\,\mathbb{E}[V_E - V_{\mathrm{BC}}] \to B = \sum_{(h,s):\,d_h(s)>0} [A V_h(s) - "
        r"\sum_a Q_h(s,a)]$, with $V, Q$ those of the expert on the states it visits and of the uniform policy elsewhere "
        r"(a ratio of $1$ to $B$, where $B$ is positive)."
    ),
    origin="derived",
    cites=(PAPER.at("behaviour cloning"),),
    grid=_late(FAMILIES),
    measure=measure_late_gap,
    rule=Limit(value=1.0, margin=0.01, of="ratio"),
    twins=(
        Twin(
            "the-experts-own-values", r"The same with $V, Q$ those of the expert everywhere.",
            "10% and more where actions lead off the expert's states",
            rule=Limit(value=1.0, margin=0.01, of="ratio_own"), grid=_late(_OFF),
        ),
    ),
    seeds={"smoke": 150, "quick": 200, "paper": 2000, "full": 20_000},
    tags=("cloning", "value", "random-instances"),
    rev=2,
)
