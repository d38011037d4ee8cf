r"""Why exploration must be deliberate (Proposition 2.1), and that XPO explores.

Two arms, as in :mod:`mdpsim.papers.xie2024.bounds`. J* >= 1 + beta log eps = 1 - c and J(pi_ref) = 1 - D (1 - eps), so the
gap of pi_ref is at least D (1 - eps) - c. (The paper's range of beta reads (1/8) log 2 or 1/(8 log 2), transcription
uncertain; all points here have beta below both where c = 1/8.)

Passive. A pair of equal responses has the same DPO loss under every policy, so pi^t = pi_ref until the first mixed pair.
With p = 2 eps (1 - eps), the chance that two draws of pi_ref differ, and T rounds,

    q = P(pi^t = pi_ref for all t <= T) = (1 - p)^{T-1},

the same for online DPO, offline DPO, and iterative DPO (T - 1 rounded down to whole batches). For T <= 1/(2 eps) q is at
least 1/e: f(e) = 2e + log(1 - 2e + 2e^2) has f(0) = 0 and f' = 4e^2/(1 - 2e + 2e^2) >= 0. If the first mixed pair's label
is wrong, with probability sigma(-D), online DPO takes u = -1 and never sees a mixed pair again (up to e^{-1/beta}); if it
is right it takes u = 1, which is near-optimal. So

    P(no near-optimal iterate among pi^1 .. pi^T) = q + (1 - q) sigma(-D).

"Fails with probability at least 1/4" would have no power: online DPO fails with probability sigma(-D) however large T is.

XPO. After one round of (b, b) the bonus alone decides: rho(b) - V is least at u = 1, so pi^2 = pi_{u=1}. One wrong label
takes softplus(1) - softplus(-1) = 1 from u = 1 against u = -1, and each round gives back (alpha/beta)(1 - c): it costs at
most beta/(alpha (1 - c)) rounds. The claim allows for one: its bound is 2 + beta/(alpha (1 - c)), whatever eps is. Reaching
a policy is not knowing it: online DPO that breaks ties at random reaches all of them, and stays at u = -1 after a wrong label.
So a run counts only if its last iterate, of 400, is near-optimal too. By then XPO has seen n = 400 labels of which sigma(D) are
right; its score is least near u = D, up to 2/sqrt(n), and every u > c is near-optimal: c <= 0.2 and D >= 0.4 leave 2 of these.
The 0.9 allows for both; it is not derived.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mdpsim.align.classes import FiniteClass
from mdpsim.align.dpo import ComparatorDPO, IterativeDPO, OfflineDPO, OnlineDPO
from mdpsim.align.rounds import Exploration
from mdpsim.align.xpo import XPO
from mdpsim.claims.claim import PRESETS, Claim, Point, Twin, product
from mdpsim.claims.rules import HighProb, Limit
from mdpsim.papers.xie2024.bounds import PAPER, TWO_ARM_FAMILIES, TwoArms, by_instance, in_order, logistic, two_arms

BATCH = 8  # rounds between updates of iterative DPO
OPTIMISM = 0.05  # alpha / beta
HORIZON = 400  # rounds in which XPO must have escaped
Columns = Mapping[str, np.ndarray]
Run = Callable[[TwoArms, int, Sequence[int]], Exploration]


def on_each(point: Point, keys: Sequence[int], measure: Callable[[TwoArms, list[int]], Columns], size: int = 81) -> Columns:
    """The columns of all trials: ``measure`` sees an instance and the keys of the trials that drew it."""
    instances = by_instance(point["family"], keys)
    parts = {
        key: measure(two_arms(point["family"], point["inv_eps"], key, size=size), [keys[i] for i in where])
        for key, where in instances.items()
    }
    return in_order(parts, instances)


def run_online(x: TwoArms, rounds: int, keys: Sequence[int]) -> Exploration:
    """Online DPO: both responses from pi^t."""
    return OnlineDPO(beta=x.beta).run(x.mdp, x.policies, rounds, keys, target=x.near)


def run_random_ties(x: TwoArms, rounds: int, keys: Sequence[int]) -> Exploration:
    """Online DPO that takes any of the tied policies."""
    return OnlineDPO(beta=x.beta, ties="random").run(x.mdp, x.policies, rounds, keys, target=x.near)


def run_iterative(x: TwoArms, rounds: int, keys: Sequence[int]) -> Exploration:
    """Online DPO in batches."""
    return IterativeDPO(beta=x.beta, batch=BATCH).run(x.mdp, x.policies, rounds, keys, target=x.near)


def run_offline(x: TwoArms, rounds: int, keys: Sequence[int]) -> Exploration:
    """Offline DPO: both responses from pi_ref."""
    return OfflineDPO(beta=x.beta).run(x.mdp, x.policies, rounds, keys, target=x.near)


def run_comparator(x: TwoArms, rounds: int, keys: Sequence[int]) -> Exploration:
    """DPO against the reference: XPO with alpha = 0."""
    return ComparatorDPO(beta=x.beta).run(x.mdp, x.policies, rounds, keys, target=x.near)


def run_xpo(x: TwoArms, rounds: int, keys: Sequence[int]) -> Exploration:
    """XPO with alpha / beta = 0.05."""
    return XPO(alpha=OPTIMISM * x.beta, beta=x.beta).run(x.mdp, x.policies, rounds, keys, target=x.near)


def run_pessimist(x: TwoArms, rounds: int, keys: Sequence[int]) -> Exploration:
    """XPO with the sign of its bonus flipped."""
    learner = XPO(alpha=-OPTIMISM * x.beta, beta=x.beta, pessimism=True)
    return learner.run(x.mdp, x.policies, rounds, keys, target=x.near)


# --- passive ---------------------------------------------------------------------------------------------------------

_RUNS = {"online": run_online, "iterative": run_iterative, "offline": run_offline}


def probability(point: Point, x: TwoArms) -> float:
    """Of the point's event within T = floor(1 / (2 eps)) rounds, eps = 1 / inv_eps, by the formulas above."""
    seen = int(point["inv_eps"] / 2) - 1
    if point["learner"] == "iterative":
        seen = seen // BATCH * BATCH
    eps = 1.0 / point["inv_eps"]
    q = (1.0 - 2.0 * eps * (1.0 - eps)) ** seen
    return q if point["event"] == "never-leaves" else q + (1.0 - q) * logistic(-x.D)


def _events(point: Point, keys: Sequence[int], run: Run, even: bool = False, times: int = 1) -> Columns:
    rounds = times * int(point["inv_eps"] / 2)

    def measure(x: TwoArms, own: list[int]) -> Columns:
        if even:
            x = x._replace(policies=FiniteClass.from_rewards(x.policies.values, np.log([[0.5, 0.5]])))
        found = run(x, rounds, own)
        last = found.left if point["event"] == "never-leaves" else found.reached
        return {"value": (last > rounds).astype(np.float64), "exact": np.full(len(own), probability(point, x))}

    return on_each(point, keys, measure)


def measure_passive(point: Point, keys: Sequence[int]) -> Columns:
    """Whether the point's event happened in T = floor(1 / (2 eps)) rounds (``value``), and its probability (``exact``).

    Events: "never-leaves", every iterate is pi_ref; "never-near", no iterate has a gap below (D - c)/3.
    """
    return _events(point, keys, _RUNS[point["learner"]])


def measure_random_ties(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false algorithm: among policies of equal loss online DPO takes any, not the one nearest pi_ref."""
    return _events(point, keys, run_random_ties)


def measure_even_reference(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false assumption: pi_ref(a) = 1/2, at the same beta and T."""
    return _events(point, keys, _RUNS[point["learner"]], even=True)


def measure_long(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false horizon: 40 times as many rounds, T = 20 / eps."""
    return _events(point, keys, _RUNS[point["learner"]], times=40)


def measure_xpo_events(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's other algorithm: XPO with alpha / beta = 0.05 in the place of DPO."""
    return _events(point, keys, run_xpo)


def _total(**axes: tuple[object, ...]) -> tuple[Point, ...]:
    return product(learner=("online",), event=("never-near",), **axes)


def _stays(*learners: str, **axes: tuple[object, ...]) -> tuple[Point, ...]:
    return product(learner=learners, event=("never-leaves",), **axes)


_PASSIVE = {
    "smoke": (
        _total(family=("proposition", "rarer"), inv_eps=(100.0,))
        + _stays(*_RUNS, family=("proposition",), inv_eps=(100.0,))
    ),
    "quick": (
        _total(family=TWO_ARM_FAMILIES, inv_eps=(518.0,)) + _total(family=("proposition",), inv_eps=(12.0, 60.0))
        + _stays(*_RUNS, family=("proposition",), inv_eps=(518.0,)) + _stays("online", family=("random",), inv_eps=(518.0,))
    ),
    "paper": (
        _total(family=TWO_ARM_FAMILIES, inv_eps=(12.0, 518.0, 1808.0)) + _stays(*_RUNS, family=("random",), inv_eps=(1808.0,))
    ),
    "full": (
        _total(family=TWO_ARM_FAMILIES, inv_eps=(12.0, 60.0, 518.0, 1808.0, 22026.0))
        + _stays(*_RUNS, family=TWO_ARM_FAMILIES, inv_eps=(518.0, 22026.0))
    ),
}
_TWIN_SEEDS = {"smoke": 800, "quick": 800, "paper": 8000, "full": 80_000}
_ONE = {preset: product(family=("proposition",), learner=("online",), event=("never-near",), inv_eps=(100.0,))
        for preset in PRESETS}

passive_exploration_stalls = Claim(
    id="xie2024/passive-exploration-stalls",
    statement=(
        r"Two arms of rewards $1$ and $1-D$, $\varepsilon = \pi_{\mathrm{ref}}(a) = e^{-c/\beta}$, the class of the $\pi_u$ "
        r"with $\beta \log \pi_u/\pi_{\mathrm{ref}}(a) - \beta \log \pi_u/\pi_{\mathrm{ref}}(b) = u$, a grid of $|u| \le 1$, "
        r"ties broken towards $\pi_{\mathrm{ref}}$, $T = \lfloor 1/(2\varepsilon)\rfloor$ rounds, "
        r"$q = (1-2\varepsilon(1-\varepsilon))^{T-1} \ge 1/e$: online, iterative and offline DPO keep $\pi^t = "
        r"\pi_{\mathrm{ref}}$ throughout with probability $q$ ($T-1$ rounded down to whole batches for the iterative one), and "
        r"no iterate of online DPO is within $(D-c)/3$ of $J(\pi^*)$ with probability $q + "
        r"(1-q)\,\sigma(-D)$. Shown at a resolution of 0.06."
    ),
    origin="derived",
    cites=(PAPER.at("Proposition 2.1"),),
    grid=_PASSIVE,
    measure=measure_passive,
    rule=Limit(value="exact", margin=0.06),
    twins=(
        Twin(
            "random-ties", r"The same where ties are broken at random instead of towards $\pi_{\mathrm{ref}}$.",
            "near-optimal iterates are never found with a probability below 0.1, not 0.61", measure=measure_random_ties,
            grid=_ONE, seeds=_TWIN_SEEDS,
        ),
        Twin(
            "even-reference", r"The same for $\pi_{\mathrm{ref}}(a) = 1/2$.",
            r"only wrong labels keep it: $\sigma(-1/2) = 0.38$ instead of 0.61", measure=measure_even_reference, grid=_ONE,
            seeds=_TWIN_SEEDS,
        ),
        Twin(
            "forty-times-as-long", r"The same for $T = 20/\varepsilon$ rounds.",
            r"$q \approx e^{-40}$: $0.38$ instead of 0.61", measure=measure_long, grid=_ONE,
            seeds=_TWIN_SEEDS,
        ),
        Twin(
            "xpo", r"The same for XPO with $\alpha/\beta = 0.05$.", "a probability of 0 instead of 0.61",
            measure=measure_xpo_events, grid=_ONE,
            seeds=_TWIN_SEEDS,
        ),
    ),
    # An event of probability 0.4 is known to +-0.025 at 2500 trials (99%).
    seeds={"smoke": 2500, "quick": 2500, "paper": 25_000, "full": 250_000},
    draws=("family", "inv_eps"),
    tags=("exploration", "exact", "random-instances"),
    rev=2,
)


# --- XPO -------------------------------------------------------------------------------------------------------------


def settled(found: Exploration, near: float, rounds: int) -> np.ndarray:
    """[N] the first round with a gap below ``near``; ``rounds`` + 1 where the last iterate's is not: luck is no learning."""
    return np.where(found.gap[:, -1] < near, found.reached, rounds + 1).astype(np.float64)


def _reached(point: Point, keys: Sequence[int], run: Run) -> Columns:
    def measure(x: TwoArms, own: list[int]) -> Columns:
        found = run(x, HORIZON, own)
        return {
            "reached": found.reached.astype(np.float64), "settled": settled(found, x.near, HORIZON),
            "average": found.average[:, -1], "bound": np.full(len(own), 2.0 + 1.0 / (OPTIMISM * (1.0 - x.c))),
        }

    return on_each(point, keys, measure)


def measure_escape(point: Point, keys: Sequence[int]) -> Columns:
    """The first of 400 rounds whose policy has a gap below (D - c)/3 (401: none), for XPO with alpha / beta = 0.05.

    ``settled`` is that round, and 401 where pi^400 has no such gap; ``bound`` the instance's own 2 + beta / (alpha (1 - c)).
    """
    return _reached(point, keys, run_xpo)


def measure_escape_online(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's other algorithm: online DPO."""
    return _reached(point, keys, run_online)


def measure_escape_random_ties(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's other algorithm: online DPO that takes any of the tied policies, and so meets a good one by luck."""
    return _reached(point, keys, run_random_ties)


def measure_escape_comparator(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's other algorithm: alpha = 0, which is DPO against the reference."""
    return _reached(point, keys, run_comparator)


def measure_escape_pessimist(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false sign: alpha / beta = -0.05."""
    return _reached(point, keys, run_pessimist)


xpo_escapes = Claim(
    id="xie2024/xpo-escapes",
    statement=(
        r"Two arms of rewards $1$ and $1-D$, $\pi_{\mathrm{ref}}(a) = \varepsilon = e^{-c/\beta} \le 1/12$, on which passive "
        r"DPO needs $1/\varepsilon$ rounds ($c, D$: $1/8, 1/2$; $1/4, 3/4$; or random in $[0.1, 0.2]$, $[0.4, 0.7]$): XPO with "
        r"$\alpha/\beta = 0.05$ has an iterate within $(D-c)/3$ of $J(\pi^*)$ among its first $2 + \beta/(\alpha(1-c))$ (25 "
        r"for $c = 1/8$), and its 400th is one too, with probability at least $0.9$."
    ),
    origin="observed",
    cites=(PAPER.at("Algorithm 1, on the instance of Proposition 2.1"),),
    grid={
        "smoke": product(family=TWO_ARM_FAMILIES, inv_eps=(100.0,)),
        "quick": product(family=TWO_ARM_FAMILIES, inv_eps=(12.0, 518.0)),
        "paper": product(family=TWO_ARM_FAMILIES, inv_eps=(12.0, 148.0, 1808.0, 22026.0)),
        "full": product(family=TWO_ARM_FAMILIES, inv_eps=(12.0, 148.0, 1808.0, 22026.0, 1e9)),
    },
    measure=measure_escape,
    rule=HighProb(delta=0.1, of="settled"),
    twins=(
        Twin(
            "online-dpo", r"The same for online DPO.",
            "half of its runs or more are still at the reference after 25 rounds at 1/eps = 100",
            measure=measure_escape_online,
        ),
        Twin(
            "no-bonus", r"The same with $\alpha = 0$: DPO against the reference.",
            "half of its runs or more are still at the reference after 25 rounds at 1/eps = 100",
            measure=measure_escape_comparator,
        ),
        Twin(
            "random-ties", r"The same for online DPO that breaks ties at random: it reaches a good policy, and leaves it.",
            "0.33 of its runs or more end at the bad arm", measure=measure_escape_random_ties,
        ),
        Twin(
            "bonus-of-the-other-sign", r"The same with $\alpha/\beta = -0.05$.",
            "a share of at least 0.5 does not escape in 400 rounds", measure=measure_escape_pessimist,
        ),
    ),
    seeds={"smoke": 200, "quick": 300, "paper": 3000, "full": 30_000},
    tags=("exploration", "random-instances"),
    rev=2,
)
