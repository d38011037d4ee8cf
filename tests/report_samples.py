"""Synthetic claims, records and verdicts with every feature that figures and reports must show."""

from __future__ import annotations

import math

import numpy as np

from mdpsim.claims.claim import CLAIM_ARM, Claim, Paper, Point, Twin, product
from mdpsim.claims.rules import Identity, Inequality, Mean, Rate
from mdpsim.verdict.records import PointVerdict, Records, TwinVerdict, Verdict

DEMOS = Paper(
    "tiapkin2023", "Tiapkin, Daniil and Belomestny, Denis", "Demonstration-Regularized RL", "ICLR", 2024,
    "2310.17303", "Theorem 2",
)
OWN = Paper("own2026", "Doe, Jane", "Notes & <remarks>", "unpublished", 2026, where="Lemma 1")
TRIALS = 60
VERSIONS = {"mdpsim": "0.1.0", "numpy": "2.4.6", "platform": "x86_64 <test>"}


def no_measure(point, keys):
    """Samples are never run; their records are written here."""
    return {}


def paper_bound(point):
    """A bound as a function of the point."""
    return 60.0 / point["n_demos"]


def _claim(slug, rule, grid, twins, *, statement, origin="paper", cites=(DEMOS,), trials=TRIALS):
    return Claim(
        id=slug, statement=statement, origin=origin, cites=cites, grid={"quick": grid}, measure=no_measure, rule=rule,
        twins=twins, seeds={"quick": trials},
    )


def _records(claim, arms):
    return Records(claim.id, 1, "quick", 7, arms, seconds=1.25, versions=VERSIONS)


def verdict_of(claim, points, *, status="supported", twins="rejected", notes=(), p_value=0.5):
    """A verdict with the last of ``points`` as the worst."""
    worst = points[-1]
    told = tuple(
        TwinVerdict(t.name, t.statement, t.distance, twins, worst)
        for t in claim.twins
    )
    return Verdict(
        claim.id, claim.rev, claim.origin, "quick", 7, status, worst.estimate, worst.interval, worst.bound, worst.slack,
        twins, worst.n_trials, tuple(points), 1.25, VERSIONS, told, p_value, notes, claim.rule.name,
    )


def rate(families=("chain", "garnet", "deep_sea"), unfinished=True, slug="tiapkin2023/cloning-rate"):
    """A rate with a paper's bound, a twin of its own measure and a twin that is a false slope."""
    sizes = (10, 32, 100, 316, 1000, 3162)
    grid = product(family=families, n_demos=sizes)
    claim = _claim(
        slug, Rate("n_demos", slope=-1.0, margin=0.1, of="kl"), grid,
        (
            Twin("one-demo", "more demonstrations do not help", "slope 0 for -1", measure=no_measure),
            Twin(
                "slow-rate", "the rate is $1/\\sqrt{N}$", "slope -0.5 for -1", rule=Rate("n_demos", slope=-0.5, of="kl")
            ),
        ),
        statement=r"With $N$ demonstrations, $\mathrm{KL}_{\mathrm{traj}}(\pi^E\|\hat\pi) \le "
        r"\frac{6SAH\log(2e^4N)\log(12HN^2/\delta)}{N} + \frac{18AH}{N}$ with probability at least $1-\delta$.",
        origin="as-transcribed",
    )
    rng = np.random.default_rng(0)
    arms = {CLAIM_ARM: {}, "one-demo": {}}
    for p in grid:
        scale = 1 + families.index(p["family"])
        n = TRIALS // 2 if unfinished and p["n_demos"] == 3162 else TRIALS
        noise = rng.lognormal(0, 0.8, n)
        arms[CLAIM_ARM][p] = {"kl": 5 * scale * noise / p["n_demos"],
                              "paper_bound": np.full(n, 900 * scale * math.log(p["n_demos"]) / p["n_demos"])}
        arms["one-demo"][p] = {"kl": scale * rng.lognormal(0, 0.3, n)}
    points = [
        PointVerdict(Point(family=f), "supported", -0.98 - 0.01 * i, (-1.04, -0.93), -1.0, 180.0, TRIALS * 6, 0.5)
        for i, f in enumerate(families)
    ]
    return claim, _records(claim, arms), verdict_of(claim, points, notes=("no power: slack 180",))


def mean_along_axis():
    """A mean with a function as its bound, refuted, on one line."""
    grid = product(family=("riverswim",), n_demos=(10, 100, 1000, 10000))
    claim = _claim(
        "tiapkin2023/mean-error", Mean(bound=paper_bound), grid,
        (Twin("half", "half the bound holds", "factor 2", rule=Mean(bound=1e-3)),),
        statement="The mean error is at most $60/N$ & nothing <else>.", origin="as-transcribed",
    )
    rng = np.random.default_rng(1)
    arms = {CLAIM_ARM: {p: {"value": 75 / p["n_demos"] * rng.gamma(2, 0.5, TRIALS)} for p in grid}}
    points = [
        PointVerdict(p, "refuted", 74.4 / n, (66.6 / n, math.inf), 60 / n, 0.81, TRIALS, 1e-5)
        for p, n in ((p, p["n_demos"]) for p in grid)
    ]
    return claim, _records(claim, arms), verdict_of(claim, points, status="refuted", p_value=4e-5)


def identity(n_families=12, instances=3):
    """Many points, exact zeros, and a twin whose gaps run to infinity."""
    families = tuple(f"family_{i:02d}" for i in range(n_families))
    grid = product(family=families, instance=tuple(range(instances)))
    claim = _claim(
        "own2026/exact-dp", Identity(tol=1e-12), grid,
        (Twin("wrong-sign", "beta < 0 gives the same value", "gap of order 1", measure=no_measure),),
        statement=r"Soft values satisfy $V = \beta \log \sum_a \pi_{\mathrm{ref}}(a) e^{Q/\beta}$.", origin="derived",
        cites=(OWN,), trials=8,
    )
    rng = np.random.default_rng(2)
    arms = {CLAIM_ARM: {}, "wrong-sign": {}}
    for i, p in enumerate(grid):
        gaps = 10.0 ** rng.uniform(-16, -13, 8)
        gaps[0] = 0.0
        arms[CLAIM_ARM][p] = {"gap": gaps if i % 5 else np.zeros(8)}
        arms["wrong-sign"][p] = {"gap": np.array([0.3, 2.0, np.inf if i == 2 else 5.0])}
    points = [PointVerdict(p, "supported", 1e-13, (1e-13, 1e-13), 1e-12, 10.0, 8, 0.0) for p in grid]
    return claim, _records(claim, arms), verdict_of(claim, points, p_value=1.0)


def inequality():
    """Three instances, one with a negative bound; the twin is not rejected, so the claim is inconclusive."""
    grid = product(family=("bandit", "chain", "garnet"), H=(5,))
    claim = _claim(
        "own2026/order-of-values", Inequality(tol=1e-12), grid,
        (Twin("half-bound", "half the bound holds as well", "factor 2", measure=no_measure),),
        statement=r"For every $\pi$: $J(\pi) \le J^\star$, and a stray dollar costs 5\$.", origin="folklore",
        cites=(OWN,), trials=25,
    )
    rng = np.random.default_rng(3)
    arms = {CLAIM_ARM: {}, "half-bound": {}}
    for p, sign in zip(grid, (1, 1, -1), strict=True):
        bound = sign * rng.uniform(1, 2, 25)
        bound = bound if sign > 0 else bound[:10]  # this one is unfinished
        arms[CLAIM_ARM][p] = {"value": bound - np.abs(bound) * rng.uniform(0.01, 0.9, len(bound)), "bound": bound}
        arms["half-bound"][p] = {"value": bound * 0.9, "bound": bound * (0.5 if sign > 0 else 2)}
    points = [PointVerdict(p, "supported", 0.99, (0.99, 0.99), 1.0, 1.01, 25, 0.0) for p in grid]
    verdict = verdict_of(claim, points, status="inconclusive", twins="not rejected", notes=("a twin was not rejected",))
    return claim, _records(claim, arms), verdict


def mean_by_family():
    """A mean without an axis; infinite numbers in the verdict."""
    grid = product(family=("bandit", "chain", "garnet", "riverswim"), beta=(0.1, 1.0))
    claim = _claim(
        "tiapkin2023/regret", Mean(bound=2.0, margin=0.05, of="regret"), grid,
        (Twin("tenth", "a tenth of the bound holds", "factor 10", rule=Mean(bound=0.2, of="regret")),),
        statement=r"$\mathbb{E}[R_T] \le 2$, but $\frac{1$ is broken.",
    )
    rng = np.random.default_rng(4)
    arms = {CLAIM_ARM: {p: {"regret": rng.gamma(2, 0.4, TRIALS)} for p in grid}}
    points = [PointVerdict(p, "supported", 0.82, (-math.inf, 1.1), 2.0, math.inf, TRIALS, 1.0) for p in grid]
    return claim, _records(claim, arms), verdict_of(claim, points)


def entries():
    """All of them, in two papers."""
    return [rate(), mean_along_axis(), mean_by_family(), identity(), inequality()]
