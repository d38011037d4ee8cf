r"""Theorem 3.1's rate, where it can be seen, and what the comparator does to it.

The bound as transcribed, sqrt(C log(|Pi| T/delta) log^2 T / T) (V + R) e^{2R} up to a constant, is vacuous here (above 20
at T = 1000 with its constant set to 1, for rewards in [0, 1]); what is tested is its rate. The regime: pi_ref plays one
arm, all others with probability 1e-6, the best of them too; beta log(1/eps) = 0.276 is below its gain, so pi* plays it. DPO
hardly ever leaves pi_ref there (T eps << 1), whether against the reference or online: an average regret of gap(pi_ref) at
every T. XPO leaves at once; its average regret is then that of sorting arms out with one bit a round, and of alpha itself, of
order alpha/beta (``optimism``): both T^{-1/2} at the theorem's alpha. A slope means something near that alpha only: for
beta fixed, large T and a reference that covers pi* any alpha decays faster, alpha = 0 too.

Comparators (the decomposition holds for every one). The history, y~_t ~ Unif(pi^1 .. pi^t) kept: it decays, faster than
against pi_ref, since once pi^t has settled it spends no more labels on the arm that pi_ref plays. The current policy, y~_t
~ pi^t: it does not decay. Where pi^t is nearly deterministic both responses are the same, so nothing is learnt, and the
bonus drives it off whatever it plays.

The best iterate of a finite class that holds pi* is nearly always exact: the average is what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from mdpsim.align.rounds import PreferenceModel
from mdpsim.align.xpo import XPO, theorem_alpha
from mdpsim.claims.claim import PRESETS, Claim, Point, Twin, product
from mdpsim.claims.rules import Rate
from mdpsim.papers.xie2024.bounds import DELTA, PAPER, RARE_FAMILIES, RareArms, by_instance, in_order, rare_arms, rare_bound

Columns = Mapping[str, np.ndarray]
CONSTANT = 0.1  # alpha / beta of the twin that does not shrink it
INVERSE = 2.0  # T alpha / beta of the twin that shrinks it too fast


def learner(x: RareArms, rounds: int, comparator: str = "reference", schedule: str = "theorem") -> XPO:
    """XPO at the theorem's alpha (c = 1, R_max = V_max = 1), or at a false one."""
    policies = x.policies
    alpha = theorem_alpha(beta=x.beta, rounds=rounds, n_policies=policies.n, coverability=float(policies.Y), delta=DELTA)
    alpha = {
        "theorem": alpha, "flipped": -alpha, "zero": 0.0, "constant": CONSTANT * x.beta, "inverse": INVERSE * x.beta / rounds,
    }[schedule]
    return XPO(alpha=alpha, beta=x.beta, comparator=comparator, pessimism=schedule == "flipped")


def _average(
    point: Point, keys: Sequence[int], comparator: str = "reference", schedule: str = "theorem", noise: float = 0.0
) -> Columns:
    """``value``: the average regret after the point's rounds; ``bound``: Theorem 3.1's, as transcribed."""
    rounds, instances = point["rounds"], by_instance(point["family"], keys)
    parts = {}
    for key, where in instances.items():
        x = rare_arms(point["family"], key)
        found = learner(x, rounds, comparator, schedule).run(
            x.mdp, x.policies, rounds, [keys[i] for i in where], checkpoints=[rounds], preference=PreferenceModel(noise=noise)
        )
        parts[key] = {"value": found.average[:, 0], "bound": np.full(len(where), rare_bound(point))}
    return in_order(parts, instances)


def measure_xpo(point: Point, keys: Sequence[int]) -> Columns:
    """Average regret of XPO after the point's rounds, against pi_ref, at the theorem's alpha; and the theorem's bound."""
    return _average(point, keys)


def measure_history(point: Point, keys: Sequence[int]) -> Columns:
    """The same with y~ of round t drawn from the history pi^1 .. pi^t, at round t, and kept."""
    return _average(point, keys, "history")


def measure_on_policy(point: Point, keys: Sequence[int]) -> Columns:
    """The same with y~ of round t drawn from pi^t."""
    return _average(point, keys, "policy")


def measure_no_bonus(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's other algorithm: alpha = 0, DPO against the reference."""
    return _average(point, keys, schedule="zero")


def measure_flipped(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false sign: minus the theorem's alpha."""
    return _average(point, keys, schedule="flipped")


def measure_constant(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false schedule: alpha / beta = 0.1 at every T."""
    return _average(point, keys, schedule="constant")


def measure_inverse(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false schedule: alpha / beta = 2 / T."""
    return _average(point, keys, schedule="inverse")


def measure_flipped_labels(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's false assumption: Bradley-Terry labels, each flipped with probability 0.3."""
    return _average(point, keys, noise=0.3)


def measure_history_no_bonus(point: Point, keys: Sequence[int]) -> Columns:
    """The twin's other algorithm: alpha = 0 with the history as comparator."""
    return _average(point, keys, "history", "zero")


_ROUNDS = {
    "smoke": (256, 1024, 4096, 16384), "quick": (256, 1024, 4096, 16384), "paper": (256, 1024, 4096, 16384, 65536),
    "full": (256, 1024, 4096, 16384, 65536, 262144),
}
_FAMILIES = {"smoke": RARE_FAMILIES[:1], "quick": RARE_FAMILIES, "paper": (*RARE_FAMILIES, "four-arms"),
             "full": (*RARE_FAMILIES, "four-arms")}
_GRID = {preset: product(family=_FAMILIES[preset], rounds=_ROUNDS[preset]) for preset in PRESETS}
_TWIN_GRID = {preset: product(family=("three-arms",), rounds=_ROUNDS["quick"]) for preset in PRESETS}
_SEEDS = {"smoke": 150, "quick": 150, "paper": 900, "full": 10_000}
_TWIN_SEEDS = {"smoke": 100, "quick": 100, "paper": 1000, "full": 5000}
_twin = partial(Twin, grid=_TWIN_GRID, seeds=_TWIN_SEEDS)
_REGIME = (
    r"With three or four arms of which $\pi_{\mathrm{ref}}$ plays all but the first with probability $\varepsilon = 10^{-6}$, "
    r"the best one too, $\beta \log(1/\varepsilon) = 0.276$ below its gain of $1/2$ or more, and the class of rewards on the "
    r"grid of step $1/4$ (with $\pi^*$), "
)

xpo_regret_rate = Claim(
    id="xie2024/xpo-regret-rate",
    statement=_REGIME + (
        r"XPO with the theorem's $\alpha$ has an average regret that falls at least as fast as its bound "
        r"$(V+R)e^{2R}\sqrt{C_{\mathrm{cov}} \log(|\Pi|T/\delta)\log^2 T/T}$, up to $0.1$ in the exponent, from $T = 4^4$ to "
        r"$4^7$ and beyond."
    ),
    origin="as-transcribed",
    cites=(PAPER.at("Theorem 3.1"),),
    grid=_GRID,
    measure=measure_xpo,
    rule=Rate(axis="rounds", bound="bound", margin=0.1, side="at_most"),
    twins=(
        _twin("no-bonus", r"The same with $\alpha = 0$.", "an exponent of 0, 0.33 away: it stays at the reference",
              measure=measure_no_bonus),
        _twin("constant-alpha", r"The same with $\alpha/\beta = 0.1$ at every $T$.", "an exponent of about -0.05, 0.28 away",
              measure=measure_constant),
        _twin("alpha-over-t", r"The same with $\alpha/\beta = 2/T$.", "an exponent of about -0.02, 0.31 away",
              measure=measure_inverse),
        _twin("on-policy-comparator", r"The same with $\tilde y_t \sim \pi^t$.", "an exponent of about 0.02, 0.35 away",
              measure=measure_on_policy),
        _twin("flipped-labels", r"The same for labels of which three in ten are flipped.", "an exponent of -0.02, 0.31 away",
              measure=measure_flipped_labels),
        _twin("bonus-of-the-other-sign", r"The same with the theorem's $\alpha$ negated.", "an exponent of 0, 0.33 away",
              measure=measure_flipped),
    ),
    seeds=_SEEDS,
    draws=("family",),
    tags=("exploration", "rate", "random-instances"),
    rev=2,
)

comparator_history = Claim(
    id="xie2024/comparator-history",
    statement=_REGIME + (
        r"XPO whose comparator of round $t$ is drawn from $\mathrm{Unif}(\pi^1..\pi^t)$ and kept has an average regret that "
        r"falls at least as fast as the bound of Theorem 3.1, up to $0.1$ in the exponent over $T = 4^4 .. 4^7$."
    ),
    origin="observed",
    cites=(PAPER.at("Algorithm 1, with other comparators"),),
    grid=_GRID,
    measure=measure_history,
    rule=Rate(axis="rounds", bound="bound", margin=0.1, side="at_most"),
    twins=(
        _twin("on-policy-comparator", r"The same with $\tilde y_t \sim \pi^t$.", "an exponent of about 0.02, 0.35 away",
              measure=measure_on_policy),
        _twin("no-bonus", r"The same with $\alpha = 0$.", "an exponent of 0, 0.33 away: it stays at the reference",
              measure=measure_history_no_bonus),
    ),
    seeds=_SEEDS,
    draws=("family",),
    tags=("exploration", "rate", "random-instances"),
    rev=2,
)

comparator_on_policy = Claim(
    id="xie2024/comparator-on-policy",
    statement=_REGIME + (
        r"XPO whose comparator is its current policy, $\tilde y_t \sim \pi^t$, with the theorem's $\alpha$, does not learn: "
        r"its average regret has exponent $0 \pm 0.1$ over $T = 4^4 .. 4^7$."
    ),
    origin="observed",
    cites=(PAPER.at("Algorithm 1, with other comparators"),),
    grid=_GRID,
    measure=measure_on_policy,
    rule=Rate(axis="rounds", slope=0.0, margin=0.1),
    twins=(
        _twin("reference-comparator", r"The same with $\tilde y_t \sim \pi_{\mathrm{ref}}$.", "an exponent of -0.43",
              measure=measure_xpo),
        _twin("history-comparator", r"The same with $\tilde y_t \sim \mathrm{Unif}(\pi^1..\pi^t)$.", "an exponent of -0.5",
              measure=measure_history),
    ),
    seeds={"smoke": 40, "quick": 50, "paper": 600, "full": 5000},
    draws=("family",),
    tags=("exploration", "rate", "random-instances"),
    rev=2,
)
