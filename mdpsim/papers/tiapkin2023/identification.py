r"""Regularised best-policy identification: the certificate of UCBVI-Ent+ is valid, and its sample complexity is 1/(eps beta).

The learner and the proof of its certificate stand in mdpsim/learn/ucbvi_ent.py: with probability at least 1 - delta, at every
time, Ql <= Q*_beta <= Qu and V*_beta - V_beta^pi <= G. Its rate: widths after n visits are of order sqrt(log n / n), and the
certificate is of the order of their squares over beta (curvature), plus a model error R kappa of the same order: G ~
K(n)/(beta n). So the run stops when n solves

    n = K(n) / (beta eps),     K(n) = log(3 S A H / delta) + (S-1) log(e (1 + n/(S-1))),                            (21)

up to a constant in n: a slope a little below -1 in eps and in beta, the logarithm included. Without strong convexity one waits
until the widths themselves are at most eps: n = H^2 L(n)/eps^2, L(n) = log(2 S A H sqrt(n+1)/delta), a slope of -2.

The certificate is loose (the true gap at the stop is some hundred times below eps), so the bounds have no power as tests where
c = 1: the twins scale the bonuses down until they fail. Rates need eps < R_0/4 (beyond it nothing is to be learnt) and
eps <= 8 beta (beyond it widths enter, not their squares).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mdpsim.claims.claim import Claim, Point, Twin, geometric, per_seed, product
from mdpsim.claims.rules import HighProb, Rate
from mdpsim.learn.trace import STOPPED
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families
from mdpsim.mdp.tabular import MDP
from mdpsim.papers.tiapkin2023.bounds import DELTA, PAPER

S, A, H = 4, 2, 3
BUDGET = 10**8
REF = families.uniform_policy(H, S, A)
KINDS = ("dirichlet", "sparse", "garnet")
TOLERANCE = 1e-10  # rounding of a few backward inductions


def _instance(kind: str, rng: np.random.Generator) -> MDP:
    """Dirichlet(1) or Dirichlet(0.3) rows ("sparse"), or two next states ("garnet"); rewards uniform on [0, 1]."""
    if kind == "garnet":
        return families.garnet(S=S, A=A, H=H, branching=2, rng=rng)
    return families.random_mdp(S=S, A=A, H=H, rng=rng, concentration=1.0 if kind == "dirichlet" else 0.3)


def _fixed_point(right: Callable[[float], float]) -> float:
    """The n > 0 with n = right(n), for right concave and increasing."""
    n = 1.0
    for _ in range(200):
        n = right(n)
    return n


def fast_law(point: Point) -> float:
    """The n of (21)."""
    return stopping_law(point["beta"] * point["eps"])


def stopping_law(product_: float) -> float:
    """The n with n = K(n) / product_, for S=4, A=2, H=3, delta=0.1."""
    constant = np.log(3 * S * A * H / DELTA)
    return _fixed_point(lambda n: (constant + (S - 1) * (1 + np.log1p(n / (S - 1)))) / product_)


def slow_law(point: Point) -> float:
    """n = H^2 log(2SAH sqrt(n+1)/delta) / eps^2."""
    return _fixed_point(lambda n: H**2 * (np.log(2 * S * A * H / DELTA) + 0.5 * np.log1p(n)) / point["eps"] ** 2)


# --- validity --------------------------------------------------------------------------------------------------------


@per_seed
def measure_sandwich(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The most by which Q*_beta was outside [Ql, Qu] at any planning of 3000 episodes, on a random MDP; c = 1.

    ``certificate`` is what the run could say of its policy at the end.
    """
    return _sandwich(point, rng, 1.0)


@per_seed
def measure_thin_sandwich(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: bonuses a tenth as wide, c = 0.1."""
    return _sandwich(point, rng, 0.1)


def _sandwich(point: Point, rng: np.random.Generator, scale: float) -> dict[str, float]:
    learner = UCBVIEnt(beta=point["beta"], eps=1e-12, delta=DELTA, bonus_scale=scale, budget=3000)
    trace = learner.run(_instance(point["family"], rng), REF, rng)
    return {"violation": trace.violation, "certificate": trace.certificate}


ucbvi_ent_valid = Claim(
    id="tiapkin2023/ucbvi-ent-valid",
    statement=(
        r"With probability at least $1-\delta$, at every planning of UCBVI-Ent+ (Hoeffding variant) and for all $(h,s,a)$: "
        r"$\underline{Q}_h(s,a) \le Q^*_{\beta,h}(s,a) \le \overline{Q}_h(s,a)$ ($\delta = 0.1$)."
    ),
    origin="derived",
    cites=(PAPER.at("UCBVI-Ent+"),),
    grid={
        "smoke": product(family=KINDS, beta=(0.1,)),
        "quick": product(family=KINDS, beta=(0.1, 1.0)),
        "paper": product(family=KINDS, beta=(0.01, 0.1, 1.0)),
        "full": product(family=KINDS, beta=(0.01, 0.1, 1.0, 10.0)),
    },
    measure=measure_sandwich,
    rule=HighProb(bound=TOLERANCE, delta=DELTA, of="violation"),
    twins=(
        Twin(
            "a-tenth-of-the-bonus", "The same with bonuses a tenth as wide ($c = 0.1$).",
            r"80% of the runs at $\beta = 0.1$ violate it, on kernels that are Dirichlet(0.3)",
            measure=measure_thin_sandwich,
            grid={preset: product(family=("sparse",), beta=(0.1,)) for preset in ("smoke", "quick", "paper", "full")},
        ),
    ),
    seeds={"smoke": 60, "quick": 200, "paper": 2000, "full": 20_000},
    draws=("family",),
    tags=("learning", "random-instances"),
)


@per_seed
def measure_stopped_gap(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The regularised gap of the policy that UCBVI-Ent+ returns, over eps; beta = 0.1, c = 1, and whether it stopped."""
    return _stopped_gap(point, rng, 1.0)


@per_seed
def measure_thin_gap(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's false algorithm: c = 0.003, which stops after a few episodes."""
    return _stopped_gap(point, rng, 0.003)


def _stopped_gap(point: Point, rng: np.random.Generator, scale: float) -> dict[str, float]:
    learner = UCBVIEnt(beta=0.1, eps=point["eps"], delta=DELTA, bonus_scale=scale, budget=BUDGET)
    trace = learner.run(_instance(point["family"], rng), REF, rng)
    return {"gap_over_eps": trace.gap / point["eps"] if trace.status == STOPPED else np.inf}


ucbvi_ent_pac = Claim(
    id="tiapkin2023/ucbvi-ent-pac",
    statement=(
        r"With probability at least $1-\delta$ UCBVI-Ent+ (Hoeffding variant) stops with a policy whose regularised gap is "
        r"at most "
        r"$\varepsilon$: $V^*_\beta - V^{\hat\pi}_\beta \le \varepsilon$ ($\delta = 0.1$)."
    ),
    origin="derived",
    cites=(PAPER.at("UCBVI-Ent+"),),
    grid={
        "smoke": product(family=KINDS, eps=(0.05,)),
        "quick": product(family=KINDS, eps=(0.01, 0.1)),
        "paper": product(family=KINDS, eps=(0.003, 0.01, 0.03, 0.1)),
        "full": product(family=KINDS, eps=(0.001, 0.003, 0.01, 0.03, 0.1)),
    },
    measure=measure_stopped_gap,
    rule=HighProb(bound=1.0, delta=DELTA, of="gap_over_eps"),
    twins=(
        Twin(
            "no-bonus-to-speak-of", "The same with bonuses 0.003 times as wide.",
            r"more than 30% of the runs return a policy that is not $\varepsilon$-optimal at $\varepsilon = 0.01$",
            measure=measure_thin_gap,
            grid={preset: product(family=("dirichlet",), eps=(0.01,)) for preset in ("smoke", "quick", "paper", "full")},
            seeds={"smoke": 200, "quick": 200, "paper": 2000, "full": 20_000},
        ),
    ),
    seeds={"smoke": 60, "quick": 120, "paper": 1200, "full": 12_000},
    draws=("family",),
    tags=("learning", "random-instances"),
)


# --- rates -----------------------------------------------------------------------------------------------------------


@per_seed
def measure_stopping(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Episodes until the certificate is at most eps: c = 1, on a random MDP of Dirichlet(1) rows; whether it never stopped."""
    return _stopping(point, rng, "certificate", 1.0)


@per_seed
def measure_width_stopping(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Episodes until Vu - Vl is at most eps (no strong convexity): c = 0.3."""
    return _stopping(point, rng, "width", 0.3)


def _stopping(point: Point, rng: np.random.Generator, stop: str, scale: float) -> dict[str, float]:
    learner = UCBVIEnt(
        beta=point["beta"], eps=point["eps"], delta=DELTA, bonus_scale=scale, stop=stop, replan=0.02, budget=BUDGET,
    )
    trace = learner.run(_instance("dirichlet", rng), REF, rng)
    unstopped = trace.status != STOPPED
    return {"episodes": np.inf if unstopped else float(trace.n_episodes), "unstopped": float(unstopped)}


@per_seed
def measure_never_exploring(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """1 where a learner that always plays its own policy has not stopped after 20 times the episodes of one that explores."""
    mdp = _instance("dirichlet", rng)
    setting = {"beta": point["beta"], "eps": point["eps"], "delta": DELTA, "bonus_scale": 0.3, "replan": 0.02}
    first = UCBVIEnt(**setting, budget=BUDGET).run(mdp, REF, rng)
    again = UCBVIEnt(**setting, explore=False, budget=20 * first.n_episodes).run(mdp, REF, rng)
    return {"unstopped": float(again.status != STOPPED), "episodes": float(again.n_episodes)}


_EPS = {  # from the largest eps that is below R_0 / 4 = 0.156 at beta = 1
    "smoke": geometric(0.04, 0.15, 3), "quick": geometric(0.02, 0.15, 4),
    "paper": geometric(0.005, 0.15, 7), "full": geometric(0.002, 0.15, 9),
}
_BETAS = {
    "smoke": geometric(0.1, 1.0, 3), "quick": geometric(0.05, 1.0, 4),
    "paper": geometric(0.02, 1.0, 7), "full": geometric(0.01, 1.0, 9),
}
_SEEDS = {"smoke": 50, "quick": 60, "paper": 600, "full": 6000}
_HARD = {preset: product(beta=(0.02,), eps=(0.05,)) for preset in _EPS}

ucbvi_ent_eps_rate = Claim(
    id="tiapkin2023/ucbvi-ent-eps-rate",
    statement=(
        r"The number of episodes that UCBVI-Ent+ (Hoeffding variant) needs to certify an $\varepsilon$-optimal regularised "
        r"policy "
        r"grows as the solution of $n = K(n)/(\beta\varepsilon)$, $K(n) = \log(3SAH/\delta) + (S-1)\log(e(1+n/(S-1)))$, "
        r"that is "
        r"as $1/\varepsilon$ up to a logarithm."
    ),
    origin="derived",
    cites=(PAPER.at("UCBVI-Ent+, sample complexity"),),
    grid={preset: product(beta=(1.0,), eps=eps) for preset, eps in _EPS.items()},
    measure=measure_stopping,
    rule=Rate(axis="eps", bound=fast_law, margin=0.2, of="episodes"),
    twins=(
        Twin(
            "without-strong-convexity", r"The same for the rule that waits until the value is known to $\varepsilon$.",
            r"its exponent is about $-2.1$, 0.9 away",
            measure=measure_width_stopping,
        ),
        Twin(
            "never-exploring", "A learner that never deviates from its own policy stops within 20 times the episodes.",
            "more than 90% of the runs do not",
            measure=measure_never_exploring, rule=HighProb(bound=0.5, delta=DELTA, of="unstopped"), grid=_HARD,
        ),
    ),
    seeds=_SEEDS,
    draws=(),
    tags=("learning", "rate", "random-instances"),
)

ucbvi_ent_beta_rate = Claim(
    id="tiapkin2023/ucbvi-ent-beta-rate",
    statement=(
        r"The number of episodes that UCBVI-Ent+ (Hoeffding variant) needs to certify an $\varepsilon$-optimal regularised "
        r"policy "
        r"grows in $\beta$ as the solution of $n = K(n)/(\beta\varepsilon)$, that is as $1/\beta$ up to a logarithm, while "
        r"$\varepsilon \le 8\beta$."
    ),
    origin="derived",
    cites=(PAPER.at("UCBVI-Ent+, sample complexity"),),
    grid={preset: product(beta=betas, eps=(0.05,)) for preset, betas in _BETAS.items()},
    measure=measure_stopping,
    rule=Rate(axis="beta", bound=fast_law, margin=0.2, of="episodes"),
    twins=(
        Twin(
            "without-strong-convexity", r"The same for the rule that waits until the value is known to $\varepsilon$.",
            r"it does not depend on $\beta$: an exponent 1 away",
            measure=measure_width_stopping,
        ),
    ),
    seeds=_SEEDS,
    draws=(),
    tags=("learning", "rate", "random-instances"),
)

fast_versus_slow = Claim(
    id="tiapkin2023/fast-versus-slow",
    statement=(
        r"The same learner, stopped where the value is known to $\varepsilon$ (which uses no strong convexity), needs as "
        r"many episodes "
        r"as $n = H^2 L(n)/\varepsilon^2$ grows, $L(n) = \log(2SAH\sqrt{n+1}/\delta)$: as $1/\varepsilon^2$, not "
        r"$1/\varepsilon$."
    ),
    origin="derived",
    cites=(PAPER.at("UCBVI-Ent+, against the unregularised rate"),),
    grid={
        "smoke": product(beta=(0.1,), eps=geometric(0.1, 0.4, 3)),
        "quick": product(beta=(0.1,), eps=geometric(0.04, 0.4, 4)),
        "paper": product(beta=(0.1,), eps=geometric(0.02, 0.4, 7)),
        "full": product(beta=(0.1,), eps=geometric(0.01, 0.4, 9)),
    },
    measure=measure_width_stopping,
    rule=Rate(axis="eps", bound=slow_law, margin=0.2, of="episodes"),
    twins=(
        Twin(
            "as-fast", r"It grows as the solution of $n = K(n)/(\beta\varepsilon)$ does.", "an exponent 0.9 away",
            rule=Rate(axis="eps", bound=fast_law, margin=0.2, of="episodes"),
        ),
    ),
    seeds=_SEEDS,
    draws=(),
    tags=("learning", "rate", "random-instances"),
)
