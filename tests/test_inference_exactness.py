"""Laws and win rates at the ends of what is admitted: N of 10^6, 10^5 responses, votes of 10^5, sharp tilts, jumps.

The right values are sums of exact fractions in 40 digits, quadratures of mpmath, or closed forms.
"""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy import special

from mdpsim.align.calibration import calibrate, calibrate_by_interpolation
from mdpsim.align.inference import align, inference_loss_rate, inference_win_rate, kl_limit, policy_kl
from mdpsim.align.optimum import optimal_transform
from mdpsim.align.procedures import BestOfN, Distortion, Rejection, WorstOfN
from mdpsim.align.selection import MajorityVote, NoisyBestOfN, ProxyBestOfN, SoftBestOfN, multinomial
from mdpsim.align.spaces import QuantileScale, Responses, quantile_scale
from mdpsim.align.tradeoff import halving_error, tradeoff
from mdpsim.align.transforms import CUBIC, IDENTITY, LOG, Function, best_of_n_kl, identity_kl, scale_for

MILLION = 10**6


def instance(Y: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rewards, reference, policy), with ties and zeros where the kind says so."""
    rng = np.random.default_rng(Y)
    r = rng.permutation(Y).astype(float) if kind == "uniform" else rng.integers(0, max(2, Y // 3), Y).astype(float)
    p = np.full(Y, 1.0 / Y) if kind == "uniform" else rng.dirichlet(np.full(Y, 0.3))
    if kind == "zeros":
        p[:: 3] = 0.0
    return r, p / p.sum(), rng.dirichlet(np.ones(Y))


def level_masses(r: np.ndarray, p: np.ndarray, n: int, worst: bool) -> dict[float, mpmath.mpf]:
    """Reward level -> P_l^n - P_{l-1}^n (or of the tails from above), from exact sums, in 40 digits."""
    levels: dict[float, Fraction] = {}
    for reward, mass in zip(r, p, strict=True):
        levels[reward] = levels.get(reward, Fraction(0)) + Fraction(float(mass))
    total, P, before, out = sum(levels.values()), Fraction(0), mpmath.mpf(0), {}
    for level in sorted(levels, reverse=worst):
        P += levels[level]
        share = P / total
        now = (mpmath.mpf(share.numerator) / mpmath.mpf(share.denominator)) ** n
        out[level], before = now - before, now
    return out


@pytest.mark.parametrize("n", [1, 2, 1000, MILLION])
@pytest.mark.parametrize("kind", ["uniform", "ties", "zeros"])
@pytest.mark.parametrize("worst", [False, True])
def test_laws_by_ranks_in_40_digits(n: int, kind: str, worst: bool) -> None:
    """Each level's mass to 1e-12 of itself, the win rate to 1e-13: by fractions and mpmath."""
    r, ref, pi = instance(600, kind)
    space, procedure = Responses(r, ref), (WorstOfN if worst else BestOfN)(n)
    with mpmath.workdps(40):
        mine, rival = (level_masses(r, p, n, worst) for p in (pi, ref))
        law = procedure.law(space, pi)
        for level, mass in mine.items():
            if mass > 1e-30:
                assert abs(mpmath.mpf(float(law[r == level].sum())) / mass - 1) < 1e-12
        win, below = mpmath.mpf(0), mpmath.mpf(0)
        for level in sorted(mine):
            win, below = win + mine[level] * (below + rival[level] / 2), below + rival[level]
        assert abs(inference_win_rate(procedure, pi, space) - win) < 1e-13
        assert abs(inference_loss_rate(procedure, pi, space) - (1 - win)) < 1e-13


@pytest.mark.parametrize("kind", ["uniform", "ties", "zeros"])
@pytest.mark.parametrize("n", [1, 1000, MILLION])
def test_laws_of_many_responses_sum_to_one(kind: str, n: int) -> None:
    """10^5 responses: the law is one, is accepted as one, ties with itself half the time."""
    r, ref, _ = instance(100_000, kind)
    space = Responses(r, ref)
    cube = Distortion(lambda x: 3 * x**2 - 2 * x**3, lambda x: 6 * x - 6 * x**2)
    for procedure in (BestOfN(n), WorstOfN(n), ProxyBestOfN(n, -r), Distortion(lambda x: x**n), cube, Rejection(0.9999, n)):
        law = procedure.law(space, space.pi_ref)
        assert math.fsum(law) == pytest.approx(1.0, abs=1e-12)
        assert inference_win_rate(procedure, space.pi_ref, space) == pytest.approx(0.5, abs=1e-12)
        assert inference_win_rate(BestOfN(1), law, space) <= 1.0 + 1e-12
        assert policy_kl(law, space) >= 0.0


def test_calibration_of_a_million_responses() -> None:
    """Against sums without rounding (math.fsum): 1e-15, where a running sum loses 1e-11."""
    r = np.arange(1e6)
    p = np.full(MILLION, 1e-6)
    C = calibrate(r, p)
    for k in (0, 1, 123_456, 500_000, 999_998, 999_999):
        assert C[k] == pytest.approx(math.fsum(p[:k]) + 0.5e-6, rel=1e-14)
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(100_000, 0.1))
    p /= p.sum()
    C = calibrate(r[:100_000], p)
    for k in rng.integers(0, 100_000, 20):
        assert C[k] == pytest.approx(math.fsum(p[:k]) + 0.5 * p[k], rel=4e-15)


@pytest.mark.parametrize("n", [1, 1000, MILLION])
def test_best_of_n_on_the_quantile_scale(n: int) -> None:
    """KL log n - (n - 1)/n and win rate n/(n+1), to 1e-12 for every n."""
    scale = quantile_scale()
    law = BestOfN(n).law(scale, scale.pi_ref)
    assert policy_kl(law / law.sum(), scale) == pytest.approx(best_of_n_kl(n), abs=1e-12)
    assert inference_loss_rate(BestOfN(1), law / law.sum(), scale) == pytest.approx(1 / (n + 1), rel=1e-12)


@pytest.mark.parametrize("n", [4, 16, 64, 1000, MILLION])
@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_noisy_best_of_n_in_20_digits(n: int, sigma: float) -> None:
    """N int phi(z_y) G^{N-1} ds / sigma by mpmath, to 1e-12; the step 0.4 of N = 1 is off by 1e-3 at N = 1000."""
    space = Responses([0.0, 1.0, 2.0], [0.5, 0.3, 0.2])
    pi = np.array([0.2, 0.3, 0.5])
    law = NoisyBestOfN(n, sigma).law(space, pi)
    with mpmath.workdps(20):
        C = [mpmath.mpf(float(c)) for c in space.C]

        def density(s, y):  # type: ignore[no-untyped-def]
            G = mpmath.fsum(mpmath.mpf(float(p)) * mpmath.ncdf((s - c) / sigma) for p, c in zip(pi, C, strict=True))
            return n * mpmath.npdf((s - C[y]) / sigma) / sigma * G ** (n - 1)

        ends = [mpmath.mpf(k) * sigma for k in range(-9, 11 + int(1 / sigma))]
        for y in (0, 2):
            assert law[y] == pytest.approx(float(pi[y] * mpmath.quad(lambda s, y=y: density(s, y), ends)), abs=1e-12)
    assert law.sum() == pytest.approx(1.0, abs=1e-12)
    assert inference_win_rate(NoisyBestOfN(n, sigma), space.pi_ref, space) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("tau", [0.01, 1.0, 100.0])
def test_soft_best_of_a_million(tau: float) -> None:
    space = Responses(np.arange(6.0), [0.3, 0.2, 0.2, 0.1, 0.1, 0.1])
    assert SoftBestOfN(MILLION, tau).law(space, space.pi_ref).sum() == pytest.approx(1.0, abs=1e-14)
    assert inference_win_rate(SoftBestOfN(MILLION, tau), space.pi_ref, space) == pytest.approx(0.5, abs=1e-14)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 1029, 1030, 1031, 20_000, 199_998, 199_999])
@pytest.mark.parametrize("m", [0.5, 0.499, 0.3, 0.0])
def test_majority_votes_up_to_the_limit(n: int, m: float) -> None:
    """Two classes: P(Bin(n, m) > n/2) + 1/2 P(tie), each term of the sum in 40 digits by its ratio to the one before."""
    space = Responses([0.0, 1.0, 2.0], np.array([m, 0.4 * (1 - m), 0.6 * (1 - m)]))
    law = MajorityVote(n, [0, 1, 1]).law(space, space.pi_ref)
    if m == 0.0:
        assert law[0] == 0.0
    else:
        with mpmath.workdps(40):
            q = mpmath.mpf(float(space.pi_ref[0])) / mpmath.fsum(map(float, space.pi_ref))
            k = n // 2 + n % 2
            term = mpmath.binomial(n, k) * q**k * (1 - q) ** (n - k)
            win = term / 2 if n % 2 == 0 else term
            while k < n and term > win * mpmath.mpf(10) ** -25:
                term *= q / (1 - q) * (n - k) / (k + 1)
                k, win = k + 1, win + term
            assert law[0] == pytest.approx(float(win), rel=1e-11, abs=1e-14)
    assert law.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.isfinite(MajorityVote(n, [0, 1, 1]).reward(space, space.pi_ref, law)).all()


def test_multinomial_probabilities_are_scipys() -> None:
    rng = np.random.default_rng(0)
    for n, K in ((3, 4), (40, 3), (600, 3)):
        m = rng.dirichlet(np.ones(K))
        counts = np.array([rng.multinomial(n, m) for _ in range(50)])
        log_p = special.gammaln(n + 1) - special.gammaln(counts + 1).sum(axis=1) + special.xlogy(counts, m).sum(axis=1)
        assert multinomial(counts, m) == pytest.approx(np.exp(log_p), rel=1e-11)
    assert multinomial(np.array([[2, 1], [3, 0]]), np.array([1.0, 0.0])) == pytest.approx([0.0, 1.0], abs=0)


# --- the quantile scale: jumps, sharp tilts, and what the trade-off certifies -----------------------------------------


def step(u: np.ndarray) -> np.ndarray:
    return (u > 0.3).astype(float)


def step_win(kl: float) -> float:
    """Best-of-4 win rate of the two-level density f = a below .3, b above, at a KL: the integral of u^4 dF^4 in closed form."""
    from scipy import optimize

    def gap(x: float) -> float:  # x: the mass below .3
        return special.rel_entr(x, 0.3) + special.rel_entr(1 - x, 0.7) - kl

    x = optimize.brentq(gap, 1e-300, 0.3, xtol=1e-300, rtol=1e-15)
    a, b = x / 0.3, (1 - x) / 0.7
    with mpmath.workdps(30):
        low = mpmath.quad(lambda u: 4 * u**3 * (a * u) ** 4, [0, 0.3])
        high = mpmath.quad(lambda u: 4 * u**3 * (x + b * (u - mpmath.mpf(0.3))) ** 4, [0.3, 1])
        return float(1 - low - high)


def test_the_tradeoff_takes_the_scale_that_it_is_given() -> None:
    """A step at .3: with the break of the scale, of the function, or both, the win rate is right and so is its error."""
    plain, declared = Function(step, "step"), Function(step, "step", breaks=(0.3,))
    with mpmath.workdps(30):
        true = step_win(0.3)
    assert true == pytest.approx(0.5967988534, abs=1e-9)
    named, other = quantile_scale((0.3,)), quantile_scale((0.7,))
    for transform, space in ((plain, named), (declared, named), (declared, other), (declared, None)):
        found = tradeoff(BestOfN(4), [0.3], transforms=[transform], space=space)
        win = found.win[found.names.index("step"), 0]
        assert abs(win - true) <= max(found.error, 1e-14)
        assert found.error < 1e-9
    assert kl_limit(quantile_scale((0.3,)), plain(quantile_scale((0.3,)))) == pytest.approx(-math.log(0.7), rel=1e-13)
    with pytest.raises(ValueError, match=r"attainable range \[0, 0.356675\)"):
        align(scale_for(declared), declared, kl=0.36)


@pytest.mark.parametrize("at", [0.003, 0.3, 0.61, 0.999])
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_jumps_within_a_panel_are_refused(at: float, size: float) -> None:
    jump = Function(lambda u: u + size * (u > at), "jump")
    for call in (lambda: align(quantile_scale(), jump, kl=0.3), lambda: halving_error(BestOfN(4), jump, 0.3),
                 lambda: tradeoff(BestOfN(4), [0.3], transforms=[jump])):
        with pytest.raises(ValueError, match=f"Function: jump must jump at its breaks only.* near u = {at:g}"):
            call()
    align(quantile_scale((at,)), jump, kl=0.3)
    align(Responses(np.arange(50.0)), jump, kl=0.3)
    with pytest.raises(ValueError, match=r"align: space must have panels that end where jump jumps: QuantileScale\(\("):
        align(quantile_scale(), Function(jump.function, "jump", breaks=(at,)), kl=0.3)


@pytest.mark.parametrize("kind", ["kink", "steep", "steeper", "power"])
def test_the_certificate_is_never_smaller_than_the_error(kind: str) -> None:
    """What is not smooth within a panel and no jump: at 25 random places against panels that end there, refused or covered."""
    makers = {
        "kink": lambda b: lambda u: np.minimum(u, b) + 0.1 * u, "power": lambda b: lambda u: np.abs(u - b) ** 1.5,
        "steep": lambda b: lambda u: np.tanh((u - b) / 0.01), "steeper": lambda b: lambda u: np.tanh((u - b) / 5e-4) + u,
    }
    rng, covered = np.random.default_rng(7), 0
    for i in range(25):
        b = float(rng.integers(1, 15) / 16 + rng.uniform(0.002, 0.06))
        procedure, f = (BestOfN(4), WorstOfN(4), BestOfN(1))[i % 3], makers[kind](b)
        near = tuple(x for k in (0.0, 5e-4, 2e-3, 1e-2, 4e-2) for x in (b - k, b + k) if 0 < x < 1)
        fine = QuantileScale(tuple(sorted(set(near))), pieces=4)
        true = inference_loss_rate(procedure, align(fine, Function(f, breaks=near), kl=0.3).pi, fine)
        try:
            error = halving_error(procedure, Function(f), 0.3)
        except ValueError:
            assert kind == "steeper"
            continue
        found = inference_loss_rate(procedure, align(quantile_scale(), Function(f), kl=0.3).pi, quantile_scale())
        assert abs(found - true) <= error + 1e-13
        covered += abs(found - true) > 1e-12
    assert covered >= 10


@pytest.mark.parametrize("beta", [1e-6, 1e-10, 1e-14])
def test_sharp_tilts_are_right_or_refused(beta: float) -> None:
    """Down to the end of the scale: KLs in closed form; a function of u alone is refused where u is not resolved."""
    scale = quantile_scale()
    assert align(scale, LOG, beta=beta).kl == pytest.approx(math.log1p(1 / beta) - 1 / (1 + beta), rel=1e-13)
    lost = inference_loss_rate(BestOfN(4), align(scale, LOG, beta=beta).pi, scale)
    assert lost == pytest.approx(beta / (1 + 2 * beta), rel=1e-12)
    assert align(scale, IDENTITY, beta=beta).kl == pytest.approx(-math.log(beta) - 1, rel=1e-13)
    assert align(scale, CUBIC, beta=beta).kl == pytest.approx(-math.log(beta / 3) - 1, abs=3 * beta)
    if beta > 1e-8:
        assert identity_kl(beta) == pytest.approx(align(scale, IDENTITY, beta=beta).kl, rel=1e-12)
        assert align(scale, Function(np.log), beta=beta).kl == pytest.approx(align(scale, LOG, beta=beta).kl, rel=1e-9)
    else:
        with pytest.raises(ValueError, match=r"align: own must be given as a function of \(u, 1 - u\) too"):
            align(scale, Function(np.log, "own"), beta=beta)
    with pytest.raises(ValueError, match="align: log must leave at most|no sharper than"):
        align(scale, LOG, beta=1e-17)


def test_optimal_transforms_say_what_a_kl_means() -> None:
    heavy = Responses(np.arange(400.0), np.append(np.full(399, 0.5 / 399), 0.5))
    with pytest.raises(ValueError, match=r"optimal_transform: kl must lie in the attainable range \[0, 0.693147\).* nearest"):
        optimal_transform(BestOfN(4), heavy, kl=1.0)
    with pytest.raises(ValueError, match="optimal_transform: kl must leave a best policy that the panels resolve"):
        optimal_transform(WorstOfN(256), quantile_scale(), kl=0.5, n_starts=1)


def test_interpolation_between_anchors_at_both_ends_of_float64() -> None:
    assert calibrate_by_interpolation([0.0, 1.0], [-1.7e308, 1.7e308]) == pytest.approx([0.5, 0.5], abs=1e-15)
    assert calibrate_by_interpolation([-0.85e308], [-1.7e308, 1.7e308]) == pytest.approx([0.375], abs=1e-15)
    assert calibrate_by_interpolation([5e-324], [0.0, 1e-323]) == pytest.approx([0.5], abs=1e-15)
