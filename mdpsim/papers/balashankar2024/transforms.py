r"""Transforms compared at equal KL: the identity, exponentials, and the optimal one.

On the quantile scale, N = 1: W = int (1 - F) du = E_f u is linear in f, so among all f of one KL it is largest for the Gibbs
law of u (Gibbs' variational principle): the identity is the best transform for the standard win rate.

For best-of-N and worst-of-N, N > 1, W - beta KL has a maximiser (W is continuous on the sublevels of KL, which are weakly
compact), with f > 0 (W's slope is bounded, KL's is -oo where f = 0), so it satisfies beta (log f)' = N^2 (u F)^{N-1}, resp. N^2
((1-u)(1-F))^{N-1}: the derivative of the transformed reward. There is no other solution, though the worst-of-N win rate is
convex. With v = 1 - u, G(v) = 1 - F and c = N^2 / beta it reads

    G'' = -c (v G)^{N-1} G',   G(0) = 0,   G(1) = 1                       (best-of-N: v = u, G = F, and +c).      (1)

Let H solve (1) with H(0) = 0, H'(0) = 1. Then x^{N/(N-1)} H(x v) solves it too, and as x goes from 0 to oo its slope at 0 takes
every value once: these are all solutions with G(0) = 0. At v = 1 they are x^{N/(N-1)} H(x), which increases in x: one has G(1)
= 1. So the solution f_beta is the maximum at its beta, hence at its KL. It is continuous in beta, and its KL takes every value:
0 as beta -> oo, and oo as beta -> 0, where W -> 1. So at every KL nothing wins more often.

Measured, not derived (origin "observed"), and on this scale only: no response, and no level of reward, has mass of its own.
e^{tu} (best-of-N) and -e^{-|t|u} (worst-of-N) come close to f_beta: with |t| = 5 for N = 2 and 10 for N = 4, as the paper takes
them, what is lost up to KL = 1 is at most 0.0060 (best-of-4 at KL = 1; below 0.0038 in the three other cases). Beyond, the best
|t| grows with the KL (32 at KL = 2 for best-of-4), and a fixed one falls behind. What tuned exponentials gain over the identity
is 0 for N = 1 (derived above), and for N = 4 rises and falls with the KL, as both are near 1/2 at small KL and near 1 at large:
at most 0.0729 (best-of-4, KL = 0.505) and 0.0734 (worst-of-4, KL = 0.285).

With heavy atoms none of this holds. Three responses in increasing reward: a gain of 0.2019 (best-of-4, pi_ref = (0.6578,
0.3372, 0.005), KL = 0.764), a loss of 0.0283 to the optimum (best-of-4, t = 10, (0.8155, 0.1835, 0.001), KL = 0.608) and of
0.0052 (worst-of-4, (0.0745, 0.291, 0.6345), KL = 0.124). ``tests/test_paper_scopes.py`` has them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np

from mdpsim.align.inference import align, inference_win_rate
from mdpsim.align.optimum import optimal_transform
from mdpsim.align.procedures import BestOfN, Procedure, WorstOfN
from mdpsim.align.spaces import Responses, Space, quantile_scale
from mdpsim.align.tradeoff import tuned_exponential
from mdpsim.align.transforms import IDENTITY, LOG, Exponential, Transform
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity, Inequality
from mdpsim.papers.balashankar2024.bounds import KINDS, PAPER, PRESETS, procedure_of, random_transform

TOL = 1e-9  # of the quadrature, and of the optimum: both are solved to 1e-9 or better
TILT = {2: 5.0, 4: 10.0}  # |t| of the paper's exponentials
REFERENCES = ("continuous", "uniform", "dirichlet")
FOUR = tuple(Point(procedure=p, n=n) for p in ("best-of", "worst-of") for n in (2, 4))


def spans(points: Iterable[Point], low: float, high: float, pieces: int = 1) -> tuple[Point, ...]:
    """Every point with the ends of each of some pieces of [low, high], in equal ratios: KLs are drawn between them."""
    ends = [float(f"{x:.4g}") for x in np.geomspace(low, high, pieces + 1)]
    return tuple(Point(p, kl_low=a, kl_high=b) for p in points for a, b in itertools.pairwise(ends))


def drawn_kl(point: Point, rng: np.random.Generator) -> float:
    """A KL between kl_low and kl_high, log-uniform."""
    return log_uniform(rng, point["kl_low"], point["kl_high"])


def win(procedure: Procedure, transform: Transform, kl: float, space: Space | None = None) -> float:
    """Win rate of a transform at a KL."""
    on = quantile_scale() if space is None else space
    return inference_win_rate(procedure, align(on, transform, kl=kl).pi, on)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """exp of a uniform number."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def signed(point: Point, t: float) -> float:
    """t for best-of-N, -t for worst-of-N."""
    return t if point["procedure"] == "best-of" else -t


# --- the standard win rate -------------------------------------------------------------------------------------------


@per_seed
def measure_identity(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Standard win rates at a random KL of a random increasing transform and of the identity; ``win_4``,
    ``identity_4``: best-of-4 win rates.
    """
    kl, phi = drawn_kl(point, rng), random_transform(point["family"], rng)
    one, four = BestOfN(1), BestOfN(4)
    return {
        "win": win(one, phi, kl), "identity": win(one, IDENTITY, kl), "win_4": win(four, phi, kl),
        "identity_4": win(four, IDENTITY, kl),
    }


identity_optimal = Claim(
    id="balashankar2024/identity-optimal-standard",
    statement=(
        r"For the standard win rate ($N = 1$) the identity $\Phi(u) = u$ is the best transform at every KL: no increasing "
        r"$\Phi$ wins "
        r"more often at the same $\mathrm{KL}(\pi\,\|\,\pi_{\mathrm{ref}})$."
    ),
    origin="derived",
    cites=(PAPER.at("calibrated reward as a baseline for the standard win rate"),),
    grid={
        preset: spans(product(family=KINDS), 0.05, 2.0, pieces) for preset, pieces in zip(PRESETS, (1, 1, 3, 3), strict=True)
    },
    measure=measure_identity,
    rule=Inequality(of="win", bound="identity", tol=1e-11),
    twins=(
        Twin(
            "best-of-4-too", r"The same for the best-of-4 win rate.", r"beaten by up to $0.07$ at $\mathrm{KL} = 0.5$",
            rule=Inequality(of="win_4", bound="identity_4", tol=1e-11),
        ),
    ),
    seeds={"smoke": 10, "quick": 60, "paper": 400, "full": 4000},
    tags=("transforms", "exact", "random-instances"),
)


# --- the optimum -----------------------------------------------------------------------------------------------------


@per_seed
def measure_optimal(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Win rates at a random KL of a random increasing transform and of the optimum, found by the fixed point.

    False columns: the identity or the logarithm in its place; the win rate of the exponential tuned to the KL, less the
    optimum's regret tolerance: a policy said to be as good as optimal.
    """
    kl, procedure, phi = drawn_kl(point, rng), procedure_of(point), random_transform(str(rng.choice(KINDS)), rng)
    scale = quantile_scale()
    best = optimal_transform(procedure, scale, kl=kl, n_starts=1 if point["procedure"] == "best-of" else 2, rng=rng)
    known = {
        "identity": win(procedure, IDENTITY, kl), "log": win(procedure, LOG, kl),
        "tilt": win(procedure, Exponential(signed(point, TILT[point["n"]])), kl),
    }
    return {"win": max(win(procedure, phi, kl), *known.values()), "best": best.win, "residual": best.residual, **known}


optimal = Claim(
    id="balashankar2024/optimal-transform",
    statement=(
        r"Without ties, at every KL the fixed point of $\beta (\log f)' = N^2 (uF)^{N-1}$ (best-of-$N$) or "
        r"$N^2((1-u)(1-F))^{N-1}$ (worst-of-$N$) wins at least as often as every other transform: identity, logarithm, "
        r"exponential, or any increasing $\Phi$."
    ),
    origin="derived",
    cites=(PAPER.at("optimal transform on the quantile scale"),),
    grid={preset: spans(FOUR, 0.05, 2.0, pieces) for preset, pieces in zip(PRESETS, (1, 1, 3, 3), strict=True)},
    measure=measure_optimal,
    rule=Inequality(of="win", bound="best", tol=TOL),
    twins=(
        Twin(
            "identity", r"The identity wins at least as often.", r"up to $0.07$ below", rule=Inequality("identity", "win", TOL),
        ),
        Twin(
            "logarithm", r"The logarithm wins at least as often.", r"up to $0.10$ below for best-of-4",
            rule=Inequality("log", "win", TOL),
        ),
        Twin(
            "exponential", r"$e^{\pm 5u}$ ($N=2$) and $e^{\pm 10u}$ ($N=4$) win at least as often.",
            r"up to $0.01$ below, at least $10^{-4}$", rule=Inequality("tilt", "best", TOL),
        ),
    ),
    seeds={"smoke": 4, "quick": 30, "paper": 200, "full": 2000},
    tags=("transforms", "random-instances"),
)


# --- exponentials ----------------------------------------------------------------------------------------------------


@per_seed
def measure_tilt(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """What e^{tu} (worst-of-N: -e^{-tu}), t = 5 for N = 2 and 10 for N = 4, loses against the optimum at a random KL, on the
    quantile scale.

    False columns: with the wrong sign of t, and the identity.
    """
    kl, procedure, t = drawn_kl(point, rng), procedure_of(point), signed(point, TILT[point["n"]])
    best = optimal_transform(procedure, quantile_scale(), kl=kl, n_starts=1).win
    return {
        "regret": best - win(procedure, Exponential(t), kl), "regret_wrong": best - win(procedure, Exponential(-t), kl),
        "regret_identity": best - win(procedure, IDENTITY, kl),
    }


def within_tolerance(_point: Point) -> float:
    """The stated regret; a rule of its own for the twin that changes only the KL."""
    return 0.0075


exponential_tilt = Claim(
    id="balashankar2024/exponential-tilt",
    statement=(
        r"For a reference without ties (on the quantile scale) and $\mathrm{KL} \in [0.05, 1]$ the exponentials $e^{tu}$ "
        r"(best-of-$N$) and $-e^{-tu}$ (worst-of-$N$), $t = 5$ for $N = 2$ and $t = 10$ for $N = 4$, win at most $0.0075$ less "
        r"often than the best policy of the same KL."
    ),
    origin="observed",
    cites=(PAPER.at("exponential transforms"),),
    grid={preset: spans(FOUR, 0.05, 1.0, pieces) for preset, pieces in zip(PRESETS, (1, 1, 3, 3), strict=True)},
    measure=measure_tilt,
    rule=Inequality(of="regret", bound=0.0075),
    twins=(
        Twin(
            "wrong-sign", r"The same with the sign of $t$ changed.", r"a regret of $0.04$ to $0.26$",
            rule=Inequality(of="regret_wrong", bound=0.0075),
        ),
        Twin(
            "at-every-kl", r"$t = 10$ is as good for best-of-4 at $\mathrm{KL}$ about $2$.", r"a regret of $0.009$ to $0.011$",
            rule=Inequality(of="regret", bound=within_tolerance),
            grid=dict.fromkeys(PRESETS, (Point(procedure="best-of", n=4, kl_low=1.5, kl_high=2.5),)),
        ),
        Twin(
            "no-tilt", r"So does the identity.", r"a regret of up to $0.07$",
            rule=Inequality(of="regret_identity", bound=0.0075),
        ),
    ),
    seeds={"smoke": 4, "quick": 40, "paper": 200, "full": 2000},
    tags=("transforms", "fixed-instances"),
)


@per_seed
def measure_jailbreak(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """What -e^{-10u} loses against the optimum for the worst of 4 at a random KL: on the quantile scale
    ("continuous"), or on 400 responses of different rewards with a uniform or a Dirichlet(2) reference.

    On the quantile scale the regret is largest at KL = 0.126, 0.00362; it falls to 0.0002 by KL = 0.7. False columns:
    +e^{10u}, the tilt for best-of-4; the identity.
    """
    kl, worst = drawn_kl(point, rng), WorstOfN(4)
    space: Space = quantile_scale()
    if point["family"] != "continuous":
        reference = None if point["family"] == "uniform" else rng.dirichlet(np.full(400, 2.0))
        space = Responses(rng.normal(size=400), reference)
    best = optimal_transform(worst, space, kl=kl, n_starts=2).win
    found = {name: win(worst, phi, kl, space) for name, phi in (
        ("regret", Exponential(-10.0)), ("regret_best_of", Exponential(10.0)), ("regret_identity", IDENTITY))}
    return {name: best - value for name, value in found.items()}


jailbreak_tilt = Claim(
    id="balashankar2024/jailbreak-tilt",
    statement=(
        r"Against an attacker who takes the worst of $4$ responses, $\Phi = -e^{-10u}$ wins at most $0.0037$ less often than "
        r"the best policy of the same $\mathrm{KL} \in [0.1, 1]$: for a reference without ties (on the quantile scale), and "
        r"for one over $400$ responses of different rewards, uniform or Dirichlet$(2)$."
    ),
    origin="observed",
    cites=(PAPER.at("best-of-N jailbreaking"),),
    grid={
        preset: spans(product(family=REFERENCES), 0.1, 1.0, pieces)
        for preset, pieces in zip(PRESETS, (1, 1, 3, 3), strict=True)
    },
    measure=measure_jailbreak,
    rule=Inequality(of="regret", bound=0.0037),
    twins=(
        Twin(
            "tilt-for-best-of", r"So does $e^{10u}$, which is near-optimal for best-of-4.", r"a regret of $0.17$ to $0.27$",
            rule=Inequality(of="regret_best_of", bound=0.0037),
        ),
        Twin(
            "identity", r"So does the identity.", r"a regret of $0.018$ to $0.074$",
            rule=Inequality(of="regret_identity", bound=0.0037),
        ),
    ),
    seeds={"smoke": 4, "quick": 30, "paper": 200, "full": 2000},
    tags=("transforms", "jailbreak", "random-instances"),
)


# --- what is gained --------------------------------------------------------------------------------------------------

PEAK = {"best-of": (0.4, 0.65), "worst-of": (0.22, 0.38)}  # KLs between which the gain of N = 4 is largest


@lru_cache(maxsize=512)
def gain(procedure: str, n: int, kl: float) -> float:
    """Win rate of the exponential tuned to the KL less that of the identity."""
    chosen = (BestOfN if procedure == "best-of" else WorstOfN)(n)
    return tuned_exponential(chosen, kl, quantile_scale()).win - win(chosen, IDENTITY, kl)


@per_seed
def measure_gain(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Gains of N = 4 on the quantile scale at some random KLs below, at or above the peak, and of N = 1 at the least of them.

    ``wrong_way``: by how much the gain moves away from the peak between two neighbours (0 between the ends of the peak, where
    it may rise and fall); ``outside``: by how much the largest of them exceeds 0.075; ``single``: the gain of N = 1. False
    columns: the gain grows with the KL beyond the peak too; N = 1 gains as N = 4 does; the gain is at least 0.03 at KL = 3; it
    never exceeds 0.0725.
    """
    low, high = PEAK[point["procedure"]]
    ends = {"below": (0.03, low), "peak": (low, high), "above": (high, 3.0)}[point["side"]]
    kls = sorted(log_uniform(rng, *ends) for _ in range(point["kls"]))
    four = [gain(point["procedure"], 4, kl) for kl in kls]
    steps = {"below": 1.0, "peak": 0.0, "above": -1.0}[point["side"]] * np.diff(four)
    single = gain(point["procedure"], 1, kls[0])
    return {
        "wrong_way": max(0.0, -float(steps.min())), "outside": max(0.0, max(four) - 0.075), "single": abs(single),
        "always_grows": max(0.0, -float(np.diff(four).min())), "single_as_four": abs(single - four[0]),
        "lasting": max(0.0, 0.03 - gain(point["procedure"], 4, 3.0)), "outside_less": max(0.0, max(four) - 0.0725),
    }


_SIDES = {
    preset: product(procedure=("best-of", "worst-of"), side=("below", "peak", "above"), kls=n)
    for preset, n in zip(PRESETS, ((3,), (3,), (2, 5), (2, 5)), strict=True)
}


def _only(side: str) -> dict[str, tuple[Point, ...]]:
    return {preset: tuple(p for p in points if p["side"] == side) for preset, points in _SIDES.items()}


improvement_range = Claim(
    id="balashankar2024/improvement-range",
    statement=(
        r"For a reference without ties (on the quantile scale), what the exponential tuned to the KL gains over the Gibbs "
        r"policy on $C$ is $0$ for $N = 1$; for $N = 4$ and $\mathrm{KL} \in [0.03, 3]$ it rises with the KL to a peak between "
        r"$0.4$ and $0.65$ (best-of) or $0.22$ and $0.38$ (worst-of), falls beyond, and never exceeds $0.075$."
    ),
    origin="observed",
    cites=(PAPER.at("reported improvements of 3 to 8 points"),),
    grid=_SIDES,
    measure=measure_gain,
    rule=Identity({"wrong_way": 1e-6, "outside": 1e-6, "single": 1e-6}),
    twins=(
        Twin(
            "more-kl-more-gain", r"The gain grows with the KL.", r"it falls from $0.073$ to below $0.02$ by $\mathrm{KL} = 3$",
            rule=Identity({"always_grows": 1e-6}), grid=_only("above"),
        ),
        Twin(
            "a-little-less", r"The same with $0.0725$ in place of $0.075$.",
            r"it reaches $0.0729$ (best-of) and $0.0734$ (worst-of)",
            rule=Identity({"outside_less": 1e-6}), grid=_only("peak"),
        ),
        Twin(
            "one-draw-gains-too", r"$N = 1$ gains as $N = 4$ does.", r"$0$ against $0.002$ to $0.073$",
            rule=Identity({"single_as_four": 1e-6}),
        ),
        Twin(
            "lasting", r"The gain of $N = 4$ is at least $0.03$ at $\mathrm{KL} = 3$.", r"it is below $0.015$ there",
            rule=Identity({"lasting": 1e-6}),
        ),
    ),
    seeds={"smoke": 2, "quick": 8, "paper": 40, "full": 400},
    tags=("transforms", "fixed-instances"),
    rev=2,
)
