"""Procedures and win rates: against enumeration of all draws, numerical derivatives, closed forms in 50 digits, sampling."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy import integrate, special, stats

from mdpsim.align import procedures as pr
from mdpsim.align.inference import align, inference_loss_rate, inference_win_rate, policy_kl, sample_win_rate
from mdpsim.align.procedures import BestOfN, Custom, Distortion, Identity, Rejection, Temperature, WorstOfN
from mdpsim.align.selection import MajorityVote, NoisyBestOfN, ProxyBestOfN, SoftBestOfN
from mdpsim.align.spaces import QuantileScale, Responses, quantile_scale
from mdpsim.align.transforms import (
    CUBIC,
    IDENTITY,
    LOG,
    LOGIT,
    Exponential,
    Function,
    best_of_n_kl,
    best_of_n_win,
    identity_kl,
    identity_mean,
    logit_cdf,
    logit_kl,
    scale_for,
)
from reference import enumeration

R = np.array([0.0, 1.0, 1.0, 2.0, 0.5])
ANSWERS = np.array([0, 1, 2, 1, 0])
PROXY = np.array([0.3, 0.3, -1.0, 0.2, 0.9])


def laws(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))


REF, PI = laws()
SPACE = Responses(R, REF)
PLAIN = quantile_scale().pi_ref, quantile_scale()
MANY = Responses(np.arange(9000.0)), np.full(9000, 1 / 9000)
ENUMERATED = {
    "best": (BestOfN(3), 3, enumeration.best(R)),
    "worst": (WorstOfN(4), 4, enumeration.best(-R)),
    "single": (Identity(), 1, enumeration.best(R)),
    "proxy": (ProxyBestOfN(3, PROXY), 3, enumeration.best(PROXY)),
    "soft": (SoftBestOfN(3, 0.3), 3, enumeration.soft(SPACE.C, 0.3)),
    "majority": (MajorityVote(4, ANSWERS), 4, enumeration.majority(ANSWERS)),
    "rejection": (Rejection(0.5, 3), 3, enumeration.first_accepted(SPACE.C >= 0.5)),
    "median": (Distortion(lambda x: 3 * x**2 - 2 * x**3, lambda x: 6 * x - 6 * x**2), 3, enumeration.median(R)),
}
OTHERS = {
    "sharp": Temperature(0.5), "flat": Temperature(1.5), "unlimited": Rejection(0.5), "noisy": NoisyBestOfN(4, 0.3),
    "numerical": Distortion(lambda x: 3 * x**2 - 2 * x**3),
    "composed": Custom(lambda pi, space: Temperature(0.5).law(space, BestOfN(2).law(space, pi))),
}
EVERY = {name: row[0] for name, row in ENUMERATED.items()} | OTHERS


@pytest.mark.parametrize("name", ENUMERATED)
def test_laws_and_win_rates_are_those_of_all_draws(name: str) -> None:
    procedure, n, choose = ENUMERATED[name]
    mine, rival = enumeration.law(PI, n, choose), enumeration.law(REF, n, choose)
    assert procedure.law(SPACE, PI) == pytest.approx(mine, abs=1e-12)
    win = enumeration.win_rate(mine, rival, R)
    assert inference_win_rate(procedure, PI, SPACE) == pytest.approx(win, abs=1e-12)
    assert inference_loss_rate(procedure, PI, SPACE) == pytest.approx(1 - win, abs=1e-12)
    assert inference_win_rate(procedure, REF, SPACE) == pytest.approx(0.5, abs=1e-12)
    other = inference_win_rate(procedure, PI, SPACE, rival=PI[::-1])
    assert other == pytest.approx(enumeration.win_rate(mine, enumeration.law(PI[::-1], n, choose), R), abs=1e-12)


def test_noisy_best_of_n_is_its_integral() -> None:
    """Against adaptive quadrature of the two-level formula of the docstring, and against best-of-N as the noise vanishes."""
    def cdf(s: float) -> float:
        return float(PI @ stats.norm.cdf((s - SPACE.C) / 0.3))

    for y in range(5):
        value = integrate.quad(lambda s, y=y: 4 * stats.norm.pdf((s - SPACE.C[y]) / 0.3) / 0.3 * cdf(s) ** 3, -3, 4)[0]
        assert NoisyBestOfN(4, 0.3).law(SPACE, PI)[y] == pytest.approx(PI[y] * value, abs=1e-8)
    assert NoisyBestOfN(4, 1e-3).law(SPACE, PI) == pytest.approx(BestOfN(4).law(SPACE, PI), abs=1e-9)
    assert NoisyBestOfN(4, 1e4).law(SPACE, PI) == pytest.approx(PI, abs=1e-3)
    assert SoftBestOfN(4, 1e-3).law(SPACE, PI) == pytest.approx(BestOfN(4).law(SPACE, PI), abs=1e-9)
    assert SoftBestOfN(4, 1e5).law(SPACE, PI) == pytest.approx(PI, abs=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_transformed_reward_is_the_derivative_of_the_win_rate(name: str) -> None:
    """R - E_pi R against central differences along pi +- h (e_y - pi); another procedure's R is far off."""
    procedure = EVERY[name]
    rival = procedure.law(SPACE, REF)
    found = procedure.reward(SPACE, PI, rival)
    chance = pr.beats(SPACE, rival)
    h = 1e-5
    for y in range(5):
        step = h * (np.eye(5)[y] - PI)
        slope = float((procedure.law(SPACE, PI + step) - procedure.law(SPACE, PI - step)) @ chance) / (2 * h)
        assert found[y] - PI @ found == pytest.approx(slope, abs=2e-8)
    other = BestOfN(7).reward(SPACE, PI, rival)
    assert np.abs((found - PI @ found) - (other - PI @ other)).max() > 1e-2


@pytest.mark.parametrize("name", EVERY)
def test_simulations_have_the_stated_win_rate(name: str) -> None:
    """Within 4.5 standard errors; with policy and reference exchanged far from it."""
    found = sample_win_rate(EVERY[name], PI, SPACE, 40_000, 11)
    assert abs(found.win - inference_win_rate(EVERY[name], PI, SPACE)) < 4.5 * found.se
    reverse = sample_win_rate(EVERY[name], REF, SPACE, 40_000, 11, rival=PI)
    assert abs(reverse.win - inference_win_rate(EVERY[name], PI, SPACE)) > 10 * found.se


@pytest.mark.parametrize(
    "procedure",
    [BestOfN(4), WorstOfN(3), Temperature(0.5), Rejection(0.4, 3), SoftBestOfN(3, 0.1), NoisyBestOfN(4, 0.2),
     MajorityVote(5, [0.4, 0.7]), Distortion(lambda x: 3 * x**2 - 2 * x**3)],
    ids=lambda p: type(p).__name__,
)
def test_on_the_quantile_scale(procedure) -> None:  # type: ignore[no-untyped-def]
    """The law sums to one, the gradient is a derivative, simulation agrees, halving the panels changes nothing; many cells of
    equal mass come close."""
    scale = quantile_scale(tuple(procedure.breaks))
    pi = align(scale, Exponential(4.0), kl=0.7).pi
    assert procedure.law(scale, pi).sum() == pytest.approx(1.0, abs=1e-12)
    win = inference_win_rate(procedure, pi, scale)
    direction = scale.pi_ref * np.cos(5.0 * scale.u)
    direction -= scale.pi_ref * direction.sum()
    slope = (inference_win_rate(procedure, pi + 1e-4 * direction, scale)
             - inference_win_rate(procedure, pi - 1e-4 * direction, scale)) / 2e-4
    assert float(procedure.reward(scale, pi, procedure.law(scale, scale.pi_ref)) @ direction) == pytest.approx(slope, abs=2e-8)
    fine = scale.halved()
    assert inference_win_rate(procedure, align(fine, Exponential(4.0), kl=0.7).pi, fine) == pytest.approx(win, abs=1e-10)
    found = sample_win_rate(procedure, pi, scale, 40_000, 5)
    assert abs(found.win - win) < 4.5 * found.se
    if not isinstance(procedure, MajorityVote):
        cells = Responses(np.arange(2000.0))
        assert inference_win_rate(procedure, align(cells, Exponential(4.0), kl=0.7).pi, cells) == pytest.approx(win, abs=2e-3)


# --- closed forms ----------------------------------------------------------------------------------------------------


def identity_cdf(u, b):  # type: ignore[no-untyped-def]
    return mpmath.expm1(u / b) / mpmath.expm1(1 / b)


@pytest.mark.parametrize("beta", [1e-3, 0.02, 0.2, 1.0, 7.0, 19.0, 21.0, 300.0, 1e5])
def test_identity_in_50_digits(beta: float) -> None:
    with mpmath.workdps(50):
        b = mpmath.mpf(beta)
        mean = 1 / (1 - mpmath.exp(-1 / b)) - b
        kl = mean / b - mpmath.log(b * mpmath.expm1(1 / b))
        assert identity_mean(beta) == pytest.approx(float(mean), rel=1e-12)
        assert identity_kl(beta) == pytest.approx(float(kl), rel=1e-11)
        policy = align(quantile_scale(), IDENTITY, beta=beta)
        assert policy.kl == pytest.approx(float(kl), rel=1e-11)
        assert inference_win_rate(Identity(), policy.pi, quantile_scale()) == pytest.approx(float(mean), abs=1e-12)
        for n in (2, 4):
            ends = [0, max(0.0, 1 - 40 * beta), max(0.0, 1 - 5 * beta), 1] if beta < 0.2 else [0, 1]
            points = sorted(set(ends))
            best = n * mpmath.quad(lambda u, n=n, b=b: u ** (n - 1) * identity_cdf(u, b) ** n, points)
            worst = n * mpmath.quad(lambda u, n=n, b=b: (1 - u) ** (n - 1) * (1 - identity_cdf(u, b)) ** n, points)
            assert inference_loss_rate(BestOfN(n), policy.pi, quantile_scale()) == pytest.approx(float(best), abs=1e-12)
            assert inference_win_rate(WorstOfN(n), policy.pi, quantile_scale()) == pytest.approx(float(worst), abs=1e-12)


@pytest.mark.parametrize("k", [1.001, 1.5, 4.0, 17.0, 400.0])
def test_the_logarithm_is_best_of_k(k: float) -> None:
    scale = quantile_scale()
    policy = align(scale, LOG, beta=1.0 / (k - 1.0))
    assert policy.kl == pytest.approx(best_of_n_kl(k), abs=1e-12)
    for n in (1, 2, 4, 32):
        assert inference_win_rate(BestOfN(n), policy.pi, scale) == pytest.approx(best_of_n_win(k), abs=1e-12)
    if k == int(k):
        assert policy.pi == pytest.approx(BestOfN(int(k)).law(scale, scale.pi_ref), abs=1e-14)


@pytest.mark.parametrize("beta", [1.08, 1.3548, 2.0, 9.0, 1e4])
def test_the_logit_is_a_beta_law(beta: float) -> None:
    """KL by digammas in 50 digits; F by the incomplete Beta function; win rates by the integral of the exact F."""
    scale = scale_for(LOGIT)
    policy = align(scale, LOGIT, beta=beta)
    with mpmath.workdps(50):
        a, b = 1 + 1 / mpmath.mpf(beta), 1 - 1 / mpmath.mpf(beta)
        kl = (a - 1) * mpmath.digamma(a) + (b - 1) * mpmath.digamma(b) - mpmath.log(mpmath.beta(a, b))
    assert logit_kl(beta) == pytest.approx(float(kl), abs=1e-12)
    assert policy.kl == pytest.approx(float(kl), abs=1e-11)
    below, above = logit_cdf(scale, beta)
    found = scale.ranks(policy.pi)
    assert found.below == pytest.approx(below, abs=1e-11)
    assert found.above == pytest.approx(above, abs=1e-11)
    for n in (1, 4):
        assert inference_loss_rate(BestOfN(n), policy.pi, scale) == pytest.approx(
            float(scale.pi_ref @ (n * scale.u ** (n - 1) * below**n)), abs=1e-11)
    with pytest.raises(ValueError, match="exceed 1"):
        logit_kl(1.0)


@pytest.mark.parametrize("n", [1, 2, 4, 100, 10**6])
def test_best_of_n_facts(n: int) -> None:
    scale = quantile_scale()
    law = BestOfN(n).law(scale, scale.pi_ref)
    tol = 1e-12 if n <= 100 else 1e-8
    assert policy_kl(law / law.sum(), scale) == pytest.approx(best_of_n_kl(n), abs=tol)
    assert inference_win_rate(Identity(), law / law.sum(), scale) == pytest.approx(n / (n + 1), abs=tol)


TRANSFORMS = [IDENTITY, LOG, CUBIC, LOGIT, Exponential(10.0), Exponential(-10.0), Exponential(32.0), Exponential(0.0)]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: t.name)
@pytest.mark.parametrize("kl", [1e-6, 0.1, 1.0, 4.0])
def test_quadrature_is_checked_by_halving(transform, kl) -> None:  # type: ignore[no-untyped-def]
    """1e-6 is promised for KL <= 4; the halved panels agree to 1e-9."""
    coarse = scale_for(transform)
    fine = coarse.halved()
    one, two = align(coarse, transform, kl=kl), align(fine, transform, kl=kl)
    assert one.kl == pytest.approx(kl, rel=1e-12)
    assert one.beta == pytest.approx(two.beta, rel=1e-7)
    for procedure in (Identity(), BestOfN(2), BestOfN(4), WorstOfN(2), WorstOfN(4)):
        gap = inference_loss_rate(procedure, one.pi, coarse) - inference_loss_rate(procedure, two.pi, fine)
        assert abs(gap) < 1e-9


def test_an_exponential_against_adaptive_quadrature() -> None:
    """Best-of-4 and worst-of-4 at t = +-10 with F by mpmath, at a beta near KL = 2."""
    for t, beta in ((10.0, 0.13), (-10.0, 3e-4)):
        policy = align(quantile_scale(), Exponential(t), beta=beta)
        span = mpmath.expm1(abs(t))

        def density(u, t=t, beta=beta, span=span):  # type: ignore[no-untyped-def]
            phi = (mpmath.exp(t * u) - 1) / span if t > 0 else (1 - mpmath.exp(t * u)) / -mpmath.expm1(t)
            return mpmath.exp((phi - 1) / beta)

        grid = np.concatenate([np.linspace(0, 1, 4001)])
        values = np.array([float(density(u)) for u in grid])
        F = integrate.cumulative_simpson(values, x=grid, initial=0.0)
        F = F / F[-1]
        best = 4 * integrate.simpson(grid**3 * F**4, x=grid)
        worst = 4 * integrate.simpson((1 - grid) ** 3 * (1 - F) ** 4, x=grid)
        assert inference_loss_rate(BestOfN(4), policy.pi, quantile_scale()) == pytest.approx(best, abs=1e-8)
        assert inference_win_rate(WorstOfN(4), policy.pi, quantile_scale()) == pytest.approx(worst, abs=1e-8)


# --- scales, spaces, and what is refused -----------------------------------------------------------------------------


def test_the_scale_integrates_what_it_should() -> None:
    scale = quantile_scale()
    assert np.all(np.diff(scale.u) >= 0)
    assert np.all(np.diff(scale.v) <= 0)
    assert scale.pi_ref.sum() == pytest.approx(1.0, abs=1e-14)
    assert float(scale.pi_ref @ np.log(scale.u)) == pytest.approx(-1.0, abs=1e-13)
    assert float(scale.pi_ref @ np.log(scale.v) ** 2) == pytest.approx(2.0, abs=1e-12)
    assert float(scale.pi_ref @ np.exp(-200.0 * scale.v)) == pytest.approx(1 / 200, rel=1e-12)
    mass = scale.pi_ref * 3.0 * scale.u**2
    found = scale.ranks(mass)
    assert found.below == pytest.approx(scale.u**3, abs=1e-15)
    assert found.above == pytest.approx(3 * scale.v - 3 * scale.v**2 + scale.v**3, rel=1e-12)
    jump = QuantileScale(breaks=(0.3, 0.01, 0.999))
    for at in (0.3, 0.01, 0.999):
        assert float(jump.pi_ref @ (jump.u < at)) == pytest.approx(at, abs=1e-14)
    assert abs(float(scale.pi_ref @ (scale.u < 0.3)) - 0.3) > 1e-4


@pytest.mark.parametrize("beta", [1e-8, 1e-3, 1.0, 1e3, 1e8])
def test_extreme_betas_on_a_finite_space(beta: float) -> None:
    """Gibbs laws and their KL against 50 digits, zeros in the reference and ties included."""
    ref = np.array([0.2, 0.0, 0.3, 0.4999999, 1e-7])
    space = Responses(R, ref / ref.sum())
    policy = align(space, IDENTITY, beta=beta)
    with mpmath.workdps(50):
        mass = mpmath.fsum(mpmath.mpf(float(p)) for p in space.pi_ref)  # one only up to rounding
        weights = [mpmath.mpf(float(p)) / mass * mpmath.exp(mpmath.mpf(float(c)) / mpmath.mpf(beta))
                   for p, c in zip(space.pi_ref, space.C, strict=True)]
        total = mpmath.fsum(weights)
        pi = [w / total for w in weights]
        pairs = [(p, mpmath.mpf(float(q)) / mass) for p, q in zip(pi, space.pi_ref, strict=True) if p > 0]
        kl = mpmath.fsum(p * mpmath.log(p / q) for p, q in pairs)
    assert policy.pi == pytest.approx([float(p) for p in pi], abs=1e-13)
    assert policy.kl == pytest.approx(float(kl), rel=1e-6, abs=1e-30)
    assert policy_kl(policy.pi, space) == pytest.approx(policy.kl, rel=1e-6, abs=1e-30)
    assert policy.pi[1] == 0.0


@pytest.mark.parametrize("kl", [1e-12, 1e-3, 0.5, 1.1, 2.302])
def test_a_kl_is_met_on_a_finite_space(kl: float) -> None:
    space = Responses([0.0, 1.0, 2.0], [0.5, 0.4, 0.1])
    policy = align(space, IDENTITY, kl=kl)
    assert policy.kl == pytest.approx(kl, rel=1e-9)
    assert special.rel_entr(policy.pi, space.pi_ref).sum() == pytest.approx(kl, rel=1e-6, abs=1e-15)
    assert align(space, IDENTITY, beta=policy.beta).pi == pytest.approx(policy.pi, abs=1e-12)
    assert np.array_equal(align(space, IDENTITY, kl=0.0).pi, space.pi_ref)
    assert np.array_equal(align(space, LOG, beta=np.inf).pi, space.pi_ref)


def test_transforms_that_are_infinite_where_the_reference_is_not() -> None:
    """log and logit of responses below and above all mass: they get none, at a beta and at a KL."""
    space = Responses([-1.0, 0.0, 1.0, 2.0, 3.0], [0.0, 0.5, 0.3, 0.2, 0.0])
    for transform in (LOG, LOGIT):
        for given in ({"beta": 0.5}, {"kl": 0.4}, {"beta": np.inf}):
            policy = align(space, transform, **given)
            inner = Responses([0.0, 1.0, 2.0], [0.5, 0.3, 0.2])
            assert policy.pi[[0, 4]].sum() == 0.0
            same = align(inner, transform, beta=policy.beta)
            assert policy.pi[1:4] == pytest.approx(same.pi, abs=1e-12)
            assert policy.kl == pytest.approx(same.kl, abs=1e-12)


def test_saturated_tilts_reach_every_kl() -> None:
    """-e^{-600u} varies by 1e-260 of its range where the policy lives: the KL is met, the limit of large |t| approached."""
    for kl in (0.5, 4.0):
        scale = quantile_scale(pieces=4)
        wins = [inference_win_rate(Identity(), align(scale, Exponential(t), kl=kl).pi, scale) for t in (-150.0, -600.0)]
        # the limit is the reference above a quantile q: KL = -log(1 - q), win (1 + q) / 2
        limit = (2.0 - np.exp(-kl)) / 2.0
        assert abs(wins[1] - limit) < abs(wins[0] - limit) < 0.02


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BestOfN(0), "BestOfN: n must be an integer >= 1"),
        (lambda: WorstOfN(-2), "WorstOfN: n must be an integer >= 1"),
        (lambda: BestOfN(2.5), "BestOfN: n must be an integer >= 1"),
        (lambda: SoftBestOfN(0, 1.0), "SoftBestOfN: n must"),
        (lambda: SoftBestOfN(2, 0.0), "SoftBestOfN: tau must"),
        (lambda: NoisyBestOfN(2, -1.0), "NoisyBestOfN: sigma must"),
        (lambda: NoisyBestOfN(2, 1e-3).law(*MANY), "NoisyBestOfN: sigma must be large enough"),
        (lambda: SoftBestOfN(2, 1e-3).law(*MANY), "SoftBestOfN: tau must be large enough"),
        (lambda: Temperature(0.0), "Temperature: tau must"),
        (lambda: Rejection(1.0), r"Rejection: threshold must lie in \(0, 1\)"),
        (lambda: Rejection(0.5, 0), "Rejection: n must"),
        (lambda: ProxyBestOfN(2, [0.0, np.nan]), "ProxyBestOfN: proxy must be finite"),
        (lambda: ProxyBestOfN(2, [0.0, 1.0]).law(SPACE, PI), "ProxyBestOfN: space must be Responses with Y = 2"),
        (lambda: MajorityVote(3, [0, 2]), "MajorityVote: answers must number the classes"),
        (lambda: MajorityVote(3, [0.5, 0.2]), "MajorityVote: answers must increase"),
        (lambda: MajorityVote(1000, np.arange(9)), "MajorityVote: n must give at most 200000 counts"),
        (lambda: MajorityVote(3, [0.5]).law(SPACE, PI), "MajorityVote: space must be the quantile scale"),
        (lambda: Distortion(lambda x: x**2 + 0.1), r"Distortion: g must have g\(0\) = 0 and g\(1\) = 1 \(a law that sums"),
        (lambda: Distortion(lambda x: x + 0.5 * np.sin(6 * np.pi * x)), "Distortion: g must increase"),
        (lambda: inference_win_rate(Custom(lambda pi, s: 2 * pi), PI, SPACE), "Custom: function must return a law that sums"),
        (lambda: inference_win_rate(Custom(lambda pi, s: pi[:2]), PI, SPACE), "Custom: function must return 5 masses"),
        (lambda: inference_win_rate(Custom(lambda pi, s: pi), quantile_scale().pi_ref, quantile_scale()), "Custom: space must"),
        (lambda: inference_win_rate(BestOfN(2), PI[:3], SPACE), r"inference_win_rate: pi must have shape \[n\] = \(5,\)"),
        (lambda: inference_win_rate(BestOfN(2), PI * 2, SPACE), "inference_win_rate: pi must have rows that sum to one"),
        (lambda: inference_win_rate(BestOfN(2), PI, R), "inference_win_rate: space must be Responses or a QuantileScale"),
        (lambda: sample_win_rate(BestOfN(2), PI, SPACE, 1, 0), "sample_win_rate: n must be an integer >= 2"),
        (lambda: Responses([0.0, np.inf]), "Responses: r must be finite"),
        (lambda: Responses([0.0, 1.0], [0.5, 0.6]), "Responses: pi_ref must have rows that sum to one"),
        (lambda: QuantileScale(breaks=(1.0,)), r"QuantileScale: breaks must lie in \(0, 1\)"),
        (lambda: QuantileScale(breaks=[0.5]), "QuantileScale: breaks must be a tuple"),
        (lambda: inference_win_rate(Rejection(0.4), *PLAIN), "panels that end where the procedure jumps"),
        (lambda: sample_win_rate(MajorityVote(3, [0.3]), *PLAIN, 10, 0), "panels that end where the procedure jumps"),
        (lambda: align(SPACE, IDENTITY), "align: beta or kl must be given, exactly one"),
        (lambda: align(SPACE, IDENTITY, beta=0.0), "align: beta must be positive"),
        (lambda: align(SPACE, IDENTITY, beta=-1.0), "align: beta must be a number"),
        (lambda: align(SPACE, IDENTITY, kl=-0.1), "align: kl must be a number in"),
        (lambda: align(Responses([0.0, 1.0, 2.0], [0.5, 0.4, 0.1]), IDENTITY, kl=2.4),
         r"align: kl must lie in the attainable range \[0, 2.30259\); got 2.4"),
        (lambda: align(Responses([1.0, 1.0]), IDENTITY, kl=0.1), "align: kl must be 0, the only attainable one"),
        (lambda: align(quantile_scale(), Function(lambda u: np.minimum(u, 0.75)), kl=2.0), r"attainable range \[0, 1.386"),
        (lambda: align(scale_for(LOGIT), LOGIT, beta=0.9), "align: logit must be such that .* is integrable at this beta"),
        (lambda: align(quantile_scale(), LOGIT, beta=1.2), "align: logit must"),
        (lambda: align(quantile_scale(), Function(lambda u: -np.log(u), "falling"), beta=0.8), "falling must .* integrable"),
        (lambda: align(quantile_scale(), Function(lambda u: u * np.nan, "nan"), beta=0.8), "Function: nan must return"),
        (lambda: Exponential(np.inf), "Exponential: t must"),
        (lambda: align(SPACE, Function(lambda u: np.full(u.shape, -np.inf), "none"), beta=1.0), "align: none must be finite"),
    ],
)
def test_bad_input_is_named(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
