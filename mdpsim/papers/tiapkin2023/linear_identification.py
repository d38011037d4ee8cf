r"""Regularised best-policy identification in linear MDPs: valid bounds and certificate, and d U^2 / (beta eps) episodes.

The learner, its confidence lemma and the proof of its certificate stand in mdpsim/learn/lsvi_ucb_ent.py: with probability at
least 1 - delta, at every time, Ql <= Q*_beta <= Qu and V*_beta - V_beta^pi <= G. Its rate: after n episodes |phi|^2 is of order
d/n, the widths M are of order U |phi|, and G of the order of M^2 / beta. So it stops when n solves

    n = d U(n)^2 / (beta eps),   U(n) = sqrt(d log(1 + n/(ridge d)) + 2 (S-1) log 2 + 2 log(H/delta)) + sqrt(ridge d),     (22)

up to a constant: a slope a little below -1 in eps and in beta, the logarithm included. The same holds for the oracle's
certificate (the true transitions in place of estimated ones). Without strong convexity one waits for the widths: a slope of -2,
whatever beta.

This needs every state to be reached at every later stage. Where one never is, its own G stays, and with it the range of G:
rad(G) is then of order U |phi|, not U |phi| |phi|^2, and n of order d U^2 / eps^2 in the end (the observable certificate; a
twin, with one-hot features, where bonuses scaled by 0.1 show it at small n: the two terms meet at |phi| of order 1/U).

The certificate is loose (the gap is some hundred times below it), so the bounds have no power as tests where c = 1: the twins
scale the bonuses down, or explore an MDP that is not linear in the features, until they fail. Rates need eps < R_0/4 (R_0 the
largest gap; beyond it nothing is to be learnt) and M <= 8 beta (beyond it widths enter, not their squares).

The bonus is the lemma's, with the range of values stated ("vertex") or seen ("range"). The paper's, d H sqrt(log) by covering,
is taken with a constant of ours, 0.3 (H-h-1) d sqrt(log(2dH(t+1)/delta)): its rate is a claim of its own, (22) with U = 2d
sqrt(log(2dH(n+1)/delta)) by the same argument; its bounds are not claimed to be valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import PRESETS, Claim, Point, Twin, geometric, per_seed, product
from mdpsim.claims.rules import HighProb, Rate
from mdpsim.learn.lsvi_ucb_ent import LSVIUCBEnt
from mdpsim.learn.trace import STOPPED
from mdpsim.mdp import families
from mdpsim.mdp.linear import LinearMDP
from mdpsim.papers.tiapkin2023.bounds import DELTA, PAPER, TOLERANCE

S, A, H, D = 12, 3, 3, 4
ONE_HOT = (4, 2)  # S, A of the instance one state of which is never reached
RIDGE = 1.0
BUDGET = 10**7
REF = families.uniform_policy(H, S, A)
OVERLAP = {"peaked": 0.1, "flat": 1.0, "even": 10.0}
KINDS = tuple(OVERLAP)
BONUSES = ("vertex", "range")


def instance(kind: str, rng: np.random.Generator) -> LinearMDP:
    """Features Dirichlet(0.1) ("peaked": nearly one-hot), Dirichlet(1) ("flat") or Dirichlet(10) ("even": nearly all alike)."""
    return families.linear_simplex(S=S, A=A, d=D, H=H, rng=rng, overlap=OVERLAP[kind])


def nonlinear_instance(rng: np.random.Generator) -> LinearMDP:
    """Deterministic transitions, uniform at random: linear in one-hot features [S, A, S A] only."""
    mdp = families.random_deterministic(S=S, A=A, H=H, rng=rng)
    P = np.asarray(mdp.P)
    return LinearMDP(np.eye(S * A).reshape(S, A, S * A), P.reshape(-1, S * A, S), mdp.r.reshape(-1, S * A), mdp.mu0)


def one_hot_instance(rng: np.random.Generator, *, unreached: bool) -> LinearMDP:
    """Four states, two actions, one-hot features: a tabular MDP whose last state is never reached, or may be."""
    S, A = ONE_HOT
    mu = np.zeros((S * A, S))
    reached = S - unreached
    mu[:, :reached] = rng.dirichlet(np.ones(reached), size=S * A)
    return LinearMDP(
        np.eye(S * A).reshape(S, A, S * A), np.repeat(mu[None], H, axis=0), np.repeat(rng.random((1, S * A)), H, axis=0),
        np.eye(S)[0],
    )


def linear_law(point: Point) -> float:
    """The n of (22)."""
    return linear_stopping_law(point["beta"] * point["eps"])


def one_hot_law(point: Point) -> float:
    """The n of (22) with the sizes of the one-hot instance."""
    S, A = ONE_HOT
    return linear_stopping_law(point["beta"] * point["eps"], d=S * A, states=S)


def covering_law(point: Point) -> float:
    """The n of (22) with the covering bonus's U."""
    n = 1.0
    for _ in range(200):
        n = 4.0 * D**3 * np.log(2.0 * D * H * (n + 1.0) / DELTA) / (point["beta"] * point["eps"])
    return n


def linear_stopping_law(product_: float, *, d: int = D, states: int = S) -> float:
    """The n with n = d U(n)^2 / product_, for the sizes of this file unless others are given."""
    n = 1.0
    for _ in range(200):
        noise = d * np.log1p(n / (RIDGE * d)) + 2.0 * (states - 1) * np.log(2.0) + 2.0 * np.log(H / DELTA)
        n = d * (np.sqrt(noise) + np.sqrt(RIDGE * d)) ** 2 / product_
    return n


# --- validity --------------------------------------------------------------------------------------------------------


@per_seed
def measure_linear_sandwich(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The most by which Q*_beta was outside [Ql, Qu] at any planning of 3000 episodes, on a random linear MDP; c = 1.

    ``certificate`` is what the run could say of its policy at the end.
    """
    return _sandwich(point, rng, 1.0, instance(point["family"], rng))


@per_seed
def measure_thin_linear_sandwich(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: c = 0.03."""
    return _sandwich(point, rng, 0.03, instance(point["family"], rng))


@per_seed
def measure_nonlinear_sandwich(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false assumption: deterministic transitions that are not linear in the features the learner is given."""
    features = instance(point["family"], rng).phi
    return _sandwich(point, rng, 1.0, nonlinear_instance(rng), features)


def _sandwich(
    point: Point, rng: np.random.Generator, scale: float, mdp: LinearMDP, features: FloatArray | None = None
) -> dict[str, float]:
    learner = LSVIUCBEnt(
        beta=point["beta"], eps=1e-12, delta=DELTA, bonus=point["bonus"], bonus_scale=scale, replan=0.05, budget=3000,
    )
    trace = learner.run(mdp, REF, rng, phi=features)
    return {"violation": trace.violation, "certificate": trace.certificate}


_THIN = {preset: product(family=("peaked",), bonus=("vertex",), beta=(0.1,)) for preset in PRESETS}

lsvi_ucb_ent_valid = Claim(
    id="tiapkin2023/lsvi-ucb-ent-valid",
    statement=(
        r"With probability at least $1-\delta$, at every planning of LSVI-UCB-Ent in a linear MDP (bonus of the vertex lemma) "
        r"and for all $(h,s,a)$: "
        r"$\underline{Q}_h(s,a) \le Q^*_{\beta,h}(s,a) \le \overline{Q}_h(s,a)$ ($\delta = 0.1$)."
    ),
    origin="derived",
    cites=(PAPER.at("LSVI-UCB-Ent"),),
    grid={
        "smoke": product(family=KINDS, bonus=BONUSES, beta=(0.1,)),
        "quick": product(family=KINDS, bonus=BONUSES, beta=(0.1,)),
        "paper": product(family=KINDS, bonus=BONUSES, beta=(0.01, 0.1, 1.0)),
        "full": product(family=KINDS, bonus=BONUSES, beta=(0.01, 0.1, 1.0, 10.0)),
    },
    measure=measure_linear_sandwich,
    rule=HighProb(bound=TOLERANCE, delta=DELTA, of="violation"),
    twins=(
        Twin(
            "three-hundredths-of-the-bonus", "The same with bonuses 0.03 times as wide.",
            "more than 90% of the runs violate it, with features that are nearly one-hot",
            measure=measure_thin_linear_sandwich, grid=_THIN,
        ),
        Twin(
            "not-linear", "The same where the transitions are deterministic and not linear in the features.",
            "all of the runs violate it, by some 0.4 of a reward",
            measure=measure_nonlinear_sandwich,
            grid={preset: product(family=("flat",), bonus=("vertex",), beta=(0.1,)) for preset in PRESETS},
        ),
    ),
    seeds={"smoke": 50, "quick": 60, "paper": 600, "full": 6000},
    draws=("family",),
    tags=("learning", "linear", "random-instances"),
)


@per_seed
def measure_linear_certificate(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The largest gap over certificate at the checkpoints of a run until the certificate is at most eps; c = 1.

    eps is the point's ``fraction`` of the certificate before the first episode, so that every run has something to learn
    (``episodes`` > 0). Infinite where the run does not stop within 10^7 episodes.
    """
    return _certificate(point, rng, 1.0)


@per_seed
def measure_thin_linear_certificate(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: c = 0.01, beta = 0.1, eps = 0.0004 of the first certificate."""
    return _certificate(point, rng, 0.01)


def _certificate(point: Point, rng: np.random.Generator, scale: float) -> dict[str, float]:
    mdp = instance(point["family"], rng)
    learner = LSVIUCBEnt(
        beta=point["beta"], eps=1e-12, delta=DELTA, bonus=point["bonus"], bonus_scale=scale, replan=0.02, budget=BUDGET,
    )
    first = replace(learner, budget=1).run(mdp, REF, 0).certificates[0]
    trace = replace(learner, eps=point["fraction"] * float(first)).run(mdp, REF, rng)
    ratio = float((trace.gaps / trace.certificates).max())
    return {"gap_over_certificate": ratio if trace.status == STOPPED else np.inf, "episodes": float(trace.n_episodes)}


lsvi_ucb_ent_pac = Claim(
    id="tiapkin2023/lsvi-ucb-ent-pac",
    statement=(
        r"With probability at least $1-\delta$ LSVI-UCB-Ent (bonus of the vertex lemma) stops, and at every checkpoint the "
        r"regularised gap of its policy is at most its observable certificate: $V^*_\beta - V^{\pi}_\beta \le G$, and "
        r"$G \le \varepsilon$ at the stop ($\delta = 0.1$, $\varepsilon$ a fifth of $G$ before the first episode, or less)."
    ),
    origin="derived",
    cites=(PAPER.at("LSVI-UCB-Ent"),),
    grid={
        "smoke": product(family=KINDS, bonus=BONUSES, beta=(1.0,), fraction=(0.2,)),
        "quick": product(family=KINDS, bonus=BONUSES, beta=(1.0,), fraction=(0.1,)),
        "paper": product(family=KINDS, bonus=BONUSES, beta=(0.1, 1.0), fraction=(0.05, 0.2)),
        "full": product(family=KINDS, bonus=BONUSES, beta=(0.1, 1.0), fraction=(0.02, 0.05, 0.2)),
    },
    measure=measure_linear_certificate,
    rule=HighProb(bound=1.0, delta=DELTA, of="gap_over_certificate"),
    twins=(
        Twin(
            "a-hundredth-of-the-bonus", "The same with bonuses a hundredth as wide.",
            r"the gap exceeds $G$ in more than 90% of the runs at $\beta = 0.1$, $\varepsilon = 0.0004$ of the first $G$",
            measure=measure_thin_linear_certificate,
            grid=dict.fromkeys(PRESETS, product(family=("flat",), bonus=("range",), beta=(0.1,), fraction=(0.0004,))),
        ),
    ),
    seeds={"smoke": 50, "quick": 60, "paper": 600, "full": 6000},
    draws=("family",),
    tags=("learning", "linear", "random-instances"),
    rev=2,
)


# --- rates -----------------------------------------------------------------------------------------------------------


@per_seed
def measure_linear_stopping(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Episodes until the observable certificate ("certificate") or the oracle's ("oracle") is at most eps; vertex bonus, c = 1.

    On a random linear MDP with flat features. ``unstopped`` is 1 where it never was within 10^7 episodes.
    """
    return _stopping(point, rng, point["stop"], "vertex", 1.0)


@per_seed
def measure_stopping_of_kind(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The same with features of the point's family."""
    return _stopping(point, rng, point["stop"], "vertex", 1.0)


@per_seed
def measure_unreached_stopping(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false assumption: one-hot features, and a state that is never reached; observable certificate, c = 0.1."""
    return _stopped(point, rng, "certificate", "vertex", 0.1, one_hot_instance(rng, unreached=True))


@per_seed
def measure_linear_width_stopping(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Episodes until Vu - Vl is at most eps (no strong convexity): c = 0.1."""
    return _stopping(point, rng, "width", "vertex", 0.1)


@per_seed
def measure_covering_stopping(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The same with the covering bonus, c = 0.3."""
    return _stopping(point, rng, point["stop"], "covering", 0.3)


@per_seed
def measure_covering_width_stopping(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Episodes until Vu - Vl is at most eps (no strong convexity), covering bonus, c = 0.03."""
    return _stopping(point, rng, "width", "covering", 0.03)


def _stopping(point: Point, rng: np.random.Generator, stop: str, bonus: str, scale: float) -> dict[str, float]:
    return _stopped(point, rng, stop, bonus, scale, instance(point.get("family", "flat"), rng))


def _stopped(
    point: Point, rng: np.random.Generator, stop: str, bonus: str, scale: float, mdp: LinearMDP
) -> dict[str, float]:
    learner = LSVIUCBEnt(
        beta=point["beta"], eps=point["eps"], delta=DELTA, bonus=bonus, bonus_scale=scale, stop=stop, replan=0.02,
        budget=BUDGET,
    )
    trace = learner.run(mdp, families.uniform_policy(mdp.H, mdp.S, mdp.A), rng)
    unstopped = trace.status != STOPPED
    return {"episodes": np.inf if unstopped else float(trace.n_episodes), "unstopped": float(unstopped)}


_STOPS = ("certificate", "oracle")
_EPS = {  # at beta = 1, from the largest eps that is below R_0 / 4 = 0.156
    "smoke": geometric(0.02, 0.12, 3), "quick": geometric(0.02, 0.14, 4),
    "paper": geometric(0.003, 0.15, 7), "full": geometric(0.001, 0.15, 9),
}
_BETAS = {
    "smoke": geometric(0.2, 1.0, 3), "quick": geometric(0.1, 1.0, 4),
    "paper": geometric(0.1, 1.4, 7), "full": geometric(0.1, 1.4, 9),
}
_SEEDS = {"smoke": 40, "quick": 40, "paper": 400, "full": 4000}
_REACHED = r"In a linear MDP in which every state is reached at every stage but the first, the number of episodes after which "
_RATES = {
    preset: product(family=("flat",) if preset == "smoke" else KINDS, stop=_STOPS, beta=(1.0,), eps=eps)
    for preset, eps in _EPS.items()
}
_RATES["smoke"] += product(family=("peaked", "even"), stop=("certificate",), beta=(1.0,), eps=_EPS["smoke"])
_UNREACHED = product(family=("one-hot",), stop=("certificate",), beta=(1.0,), eps=geometric(0.00025, 0.004, 3))

lsvi_ucb_ent_rate = Claim(
    id="tiapkin2023/lsvi-ucb-ent-rate",
    statement=(
        _REACHED + r"a certificate of LSVI-UCB-Ent (the observable one, or the oracle's) is at most "
        r"$\varepsilon$ grows as the solution of $n = d\,U(n)^2/(\beta\varepsilon)$, "
        r"$U(n) = \sqrt{d\log(1+n/d) + 2(S-1)\log 2 + 2\log(H/\delta)} + \sqrt{d}$, "
        r"that is as $1/\varepsilon$ up to a logarithm (vertex bonus, ridge 1)."
    ),
    origin="derived",
    cites=(PAPER.at("LSVI-UCB-Ent, sample complexity"),),
    grid=_RATES,
    measure=measure_stopping_of_kind,
    rule=Rate(axis="eps", bound=linear_law, margin=0.1, of="episodes"),
    twins=(
        Twin(
            "without-strong-convexity", r"The same for the rule that waits until the value is known to $\varepsilon$.",
            r"its exponent is about $-2.1$, 1 away",
            measure=measure_linear_width_stopping,
            grid={
                preset: product(family=("flat",), stop=("width",), beta=(1.0,), eps=eps) for preset, eps in _EPS.items()
            },
        ),
        Twin(
            "a-state-never-reached",
            r"The same for one-hot features ($S = 4$, $A = 2$) and a state that is never reached ($c = 0.1$).",
            r"its exponent is about $-1.6$ for $\varepsilon$ from 0.004 to 0.00025, 0.5 away, on its way to $-2$",
            measure=measure_unreached_stopping, grid=dict.fromkeys(PRESETS, _UNREACHED),
            rule=Rate(axis="eps", bound=one_hot_law, margin=0.1, of="episodes"),
            seeds={"smoke": 20, "quick": 30, "paper": 300, "full": 3000},
        ),
    ),
    seeds=_SEEDS | {"smoke": 24},
    draws=("family",),
    tags=("learning", "linear", "rate", "random-instances"),
    rev=2,
)

lsvi_ucb_ent_beta_rate = Claim(
    id="tiapkin2023/lsvi-ucb-ent-beta-rate",
    statement=(
        _REACHED + r"a certificate of LSVI-UCB-Ent (the observable one, or the oracle's) is at most "
        r"$\varepsilon = 0.1$ grows in $\beta \ge 0.1$ as the solution of $n = d\,U(n)^2/(\beta\varepsilon)$, that is as "
        r"$1/\beta$ up to a logarithm (vertex bonus, ridge 1)."
    ),
    origin="derived",
    cites=(PAPER.at("LSVI-UCB-Ent, sample complexity"),),
    grid={preset: product(stop=_STOPS, beta=betas, eps=(0.1,)) for preset, betas in _BETAS.items()},
    measure=measure_linear_stopping,
    rule=Rate(axis="beta", bound=linear_law, margin=0.2, of="episodes"),
    twins=(
        Twin(
            "without-strong-convexity", r"The same for the rule that waits until the value is known to $\varepsilon$.",
            r"it does not depend on $\beta$: an exponent 1 away",
            measure=measure_linear_width_stopping,
            grid={preset: product(stop=("width",), beta=betas, eps=(0.1,)) for preset, betas in _BETAS.items()},
        ),
    ),
    seeds=_SEEDS,
    draws=(),
    tags=("learning", "linear", "rate", "random-instances"),
)

lsvi_ucb_ent_covering_rate = Claim(
    id="tiapkin2023/lsvi-ucb-ent-covering-rate",
    statement=(
        _REACHED + r"a certificate of LSVI-UCB-Ent (the one computed from data, or the oracle's), with the covering bonus "
        r"$0.3\, d (H-h-1) \sqrt{\log(2dH(t+1)/\delta)}\, \|\phi\|_{\Lambda^{-1}}$ (of the order of the paper's; its constants "
        r"are ours, and not shown to be valid), is at most $\varepsilon$ grows as the solution of "
        r"$n = 4 d^3 \log(2dH(n+1)/\delta)/(\beta\varepsilon)$: as $1/\varepsilon$ up to a logarithm."
    ),
    origin="derived",
    cites=(PAPER.at("LSVI-UCB-Ent, sample complexity"),),
    grid={preset: product(stop=_STOPS, beta=(1.0,), eps=eps) for preset, eps in _EPS.items()},
    measure=measure_covering_stopping,
    rule=Rate(axis="eps", bound=covering_law, margin=0.1, of="episodes"),
    twins=(
        Twin(
            "without-strong-convexity", r"The same for the rule that waits until the value is known to $\varepsilon$.",
            r"its exponent is about $-2.1$, 1 away",
            measure=measure_covering_width_stopping,
            grid={preset: product(stop=("width",), beta=(1.0,), eps=eps) for preset, eps in _EPS.items()},
        ),
    ),
    seeds=_SEEDS,
    draws=(),
    tags=("learning", "linear", "rate", "random-instances"),
)
