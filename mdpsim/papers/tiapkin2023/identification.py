r"""Regularised best-policy identification: the sample complexity of UCBVI-Ent+ is 1/(eps beta), that of its baseline 1/eps^2.

The learners and the proofs of their certificates G stand in mdpsim/learn/ucbvi_ent.py and ucbvi.py; that they are valid is
claimed in validity.py. With the KL term, widths after n visits are of order sqrt(log n / n), and the certificate is of the
order of their squares over beta (curvature), plus a model error R kappa of the same order: G ~ K(n)/(beta n). So the run stops
when n solves

    n = K(n) / (beta eps),     K(n) = log(3 S A H / delta) + (S-1) log(e (1 + n/(S-1))),                            (21)

up to a constant in n: a slope a little below -1 in eps and in beta, the logarithm included, whether the rewards are known or
not. Rates need eps < R_0/4 (beyond it nothing is to be learnt) and eps <= 8 beta (beyond it widths enter, not their squares).
With the Bernstein bonuses of validity.py the term 9 H^2 K/n rules the widths until very small eps: squared, it gives a slope
of about -0.6. That is slower than 1/eps, so it contradicts no upper bound of that order, and nothing is claimed of it here.
Bonuses scaled by c scale the widths, and with them n by c^2: exponents stay; the guarantee does not.

Without strong convexity one waits until the widths themselves are at most eps: n = H^2 L(n)/eps^2, L(n) = log(2 S A H
sqrt(n+1)/delta), a slope of -2. Without the KL term, BPI-UCBVI stops after the t at which the recursion of its certificate, on
the visits of a run that sees the S states of a stage equally often (n_0 = t, n_h = t/S), is eps:

    G_{H} = 0,   G_h = min(span, 2 b(n_h) + G_{h+1} + sqrt(2 span kappa G_{h+1}) + 2 span kappa) + (ru - rl)(n_h),     (23)

a slope of -1.7 at eps = 0.4 to -2 at 0.03, the terms in 1/n included; -2 up to the logarithm in the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mdpsim.claims.claim import Claim, Point, Twin, geometric, per_seed, product
from mdpsim.claims.rules import Rate
from mdpsim.learn.trace import STOPPED
from mdpsim.learn.ucbvi import UCBVI
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families
from mdpsim.mdp.tabular import MDP
from mdpsim.papers.tiapkin2023.bounds import DELTA, PAPER

S, A, H = 4, 2, 3
BUDGET = 10**8
REF = families.uniform_policy(H, S, A)


def random_instance(kind: str, rng: np.random.Generator) -> MDP:
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


def unregularised_law(point: Point) -> float:
    """The t at which G_0 of (23) is eps, by bisection of its logarithm."""
    low, high = 0.0, 60.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = _certificate(np.exp(middle), point["reward"] == "unknown") > point["eps"]
        low, high = (middle, high) if above else (low, middle)
    return float(np.exp(low))


def _certificate(t: float, unknown: bool) -> float:
    """G_0 of (23), for S=4, A=2, H=3, delta=0.1."""
    gap = 0.0
    for span in range(H):
        n = t if span == H - 1 else t / S
        spread = np.log(3 * S * A * H / DELTA) + (S - 1) * (1 + np.log1p(n / (S - 1)))
        radius = np.sqrt((1 + 1 / n) * np.log((3 if unknown else 2) * S * A * H * np.sqrt(n + 1) / DELTA) / (2 * n))
        ahead = 2 * span * radius + gap + np.sqrt(2 * span * spread / n * gap) + 2 * span * spread / n
        gap = min(span, ahead) + (min(1.0, 2 * radius) if unknown else 0.0)
    return gap


@per_seed
def measure_stopping(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Episodes until the certificate is at most eps: c = 1, on a random MDP of Dirichlet(1) rows; whether it never stopped."""
    return _stopping(point, rng)


@per_seed
def measure_width_stopping(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Episodes until Vu - Vl is at most eps (no strong convexity): c = 0.3."""
    return _stopping(point, rng, stop="width", bonus_scale=0.3)


@per_seed
def measure_unregularised_stopping(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Episodes until the certificate of BPI-UCBVI (c = 1) is at most eps, on a random MDP of Dirichlet(1) rows."""
    return _stopped(UCBVI(eps=point["eps"], delta=DELTA, reward=point["reward"], replan=0.02, budget=BUDGET), rng)


def _stopping(point: Point, rng: np.random.Generator, **more: Any) -> dict[str, float]:
    reward = point.get("reward", "known")
    learner = UCBVIEnt(
        beta=point["beta"], eps=point["eps"], delta=DELTA, reward=reward, replan=0.02, budget=BUDGET, **more
    )
    return _stopped(learner, rng)


def _stopped(learner: UCBVI | UCBVIEnt, rng: np.random.Generator) -> dict[str, float]:
    trace = learner.run(random_instance("dirichlet", rng), REF, rng)
    unstopped = trace.status != STOPPED
    return {"episodes": np.inf if unstopped else float(trace.n_episodes), "unstopped": float(unstopped)}


_EPS = {  # from the largest eps that is below R_0 / 4 = 0.156 at beta = 1
    "smoke": geometric(0.06, 0.15, 3), "quick": geometric(0.02, 0.15, 4),
    "paper": geometric(0.005, 0.15, 7), "full": geometric(0.002, 0.15, 9),
}
_BETAS = {
    "smoke": geometric(0.1, 1.0, 3), "quick": geometric(0.05, 1.0, 4),
    "paper": geometric(0.02, 1.0, 7), "full": geometric(0.01, 1.0, 9),
}
_SEEDS = {"smoke": 25, "quick": 40, "paper": 400, "full": 4000}
REWARDS = ("known", "unknown")

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
    grid={preset: product(beta=(1.0,), eps=eps, reward=REWARDS) for preset, eps in _EPS.items()},
    measure=measure_stopping,
    rule=Rate(axis="eps", bound=fast_law, margin=0.2, of="episodes"),
    twins=(
        Twin(
            "without-strong-convexity",
            r"The same for the rule that waits until the value is known to $\varepsilon$ (bonuses scaled by $c = 0.3$).",
            r"its exponent is about $-2.1$, 0.9 away",
            measure=measure_width_stopping,
            grid={preset: product(beta=(1.0,), eps=eps) for preset, eps in _EPS.items()},
        ),
        Twin(
            "three-halves", r"It grows as $\varepsilon^{-3/2}$.", "an exponent 0.35 away or more",
            rule=Rate(axis="eps", slope=-1.5, margin=0.2, of="episodes"),
        ),
        Twin(
            "two-thirds", r"It grows as $\varepsilon^{-2/3}$.", "an exponent 0.35 away or more",
            rule=Rate(axis="eps", slope=-2.0 / 3.0, margin=0.2, of="episodes"),
        ),
    ),
    seeds=_SEEDS,
    draws=(),
    tags=("learning", "rate", "random-instances"),
    rev=2,
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
    grid={preset: product(beta=betas, eps=(0.05,), reward=REWARDS) for preset, betas in _BETAS.items()},
    measure=measure_stopping,
    rule=Rate(axis="beta", bound=fast_law, margin=0.2, of="episodes"),
    twins=(
        Twin(
            "without-strong-convexity",
            r"The same for the rule that waits until the value is known to $\varepsilon$ (bonuses scaled by $c = 0.3$).",
            r"it does not depend on $\beta$: an exponent 1 away",
            measure=measure_width_stopping,
            grid={preset: product(beta=betas, eps=(0.05,)) for preset, betas in _BETAS.items()},
        ),
    ),
    seeds=_SEEDS,
    draws=(),
    tags=("learning", "rate", "random-instances"),
    rev=2,
)

fast_versus_slow = Claim(
    id="tiapkin2023/fast-versus-slow",
    statement=(
        r"UCBVI-Ent+ (Hoeffding variant, bonuses scaled by $c = 0.3$), stopped where the value is known to $\varepsilon$ "
        r"(which uses no strong convexity), needs a number of episodes that grows as the solution of "
        r"$n = H^2 L(n)/\varepsilon^2$, $L(n) = \log(2SAH\sqrt{n+1}/\delta)$: as $1/\varepsilon^2$, not $1/\varepsilon$."
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

_UNREGULARISED = {
    "smoke": geometric(0.15, 0.4, 3), "quick": geometric(0.1, 0.4, 4),
    "paper": geometric(0.03, 0.4, 7), "full": geometric(0.01, 0.4, 9),
}

ucbvi_eps_rate = Claim(
    id="tiapkin2023/ucbvi-eps-rate",
    statement=(
        r"Without the KL term, BPI-UCBVI (Hoeffding variant) certifies an $\varepsilon$-optimal policy after a number of "
        r"episodes that grows as the $t$ at which the recursion of its certificate, on equal visits $n_0 = t$, $n_h = t/S$, "
        r"falls to $\varepsilon$, whether the rewards are known or not: its exponent is between $-1.7$ and $-2$ for "
        r"$\varepsilon$ from $0.4$ down to $0.03$ ($-2$, up to a logarithm, in the limit)."
    ),
    origin="derived",
    cites=(PAPER.at("the unregularised baseline"),),
    grid={preset: product(eps=eps, reward=REWARDS) for preset, eps in _UNREGULARISED.items()},
    measure=measure_unregularised_stopping,
    rule=Rate(axis="eps", bound=unregularised_law, margin=0.2, of="episodes"),
    twins=(
        Twin(
            "as-fast", r"It grows as $1/\varepsilon$.", "an exponent 0.6 away or more",
            rule=Rate(axis="eps", slope=-1.0, margin=0.2, of="episodes"),
        ),
    ),
    seeds=_SEEDS,
    draws=(),
    tags=("learning", "baseline", "rate", "random-instances"),
)
