"""Simulations in bounded memory, guards, scales of rewards, samples without information, and the threshold of mean field."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import stats

from mdpsim.align import arithmetic
from mdpsim.align.ctrl import CTRL, prompt_win_rates, standardised
from mdpsim.align.gradient import Softmax, sampled_gradient
from mdpsim.align.inference import inference_loss_rate, inference_win_rate, sample_win_rate
from mdpsim.align.objectives import Distribution
from mdpsim.align.optimum import optimal_transform
from mdpsim.align.procedures import BestOfN, Custom, Distortion, Ranked, Rejection, WorstOfN
from mdpsim.align.selection import MajorityVote, SoftBestOfN
from mdpsim.align.spaces import QuantileScale, Responses, quantile_scale
from mdpsim.align.tradeoff import halving_error, tradeoff, tuned_exponential
from mdpsim.align.transforms import IDENTITY, Function, scale_for
from mdpsim.solve.projection import project_markov

REF = np.array([0.3, 0.2, 0.25, 0.05, 0.2])
PI = np.array([0.1, 0.3, 0.1, 0.1, 0.4])
SPACE = Responses([0.0, 1.0, 1.0, 2.0, 0.5], REF)
PLAIN = quantile_scale()


@pytest.mark.parametrize("space", [SPACE, PLAIN], ids=["finite", "scale"])
@pytest.mark.parametrize("procedure", [BestOfN(10**6), WorstOfN(10**6)], ids=lambda p: type(p).__name__)
def test_the_best_of_a_million_needs_no_million_draws(procedure, space) -> None:  # type: ignore[no-untyped-def]
    """2e9 draws would take 16 GB: below 100 MB here, and the win rate within 4.5 standard errors."""
    pi = PI if space is SPACE else space.pi_ref * (2.0 * space.u if type(procedure) is BestOfN else 2.0 * space.v)
    tracemalloc.start()
    try:
        found = sample_win_rate(procedure, pi, space, 1000, 3)
        assert tracemalloc.get_traced_memory()[1] < 1e8
    finally:
        tracemalloc.stop()
    assert abs(found.win - inference_win_rate(procedure, pi, space)) <= 4.5 * found.se + 1e-12


@pytest.mark.parametrize("procedure", [BestOfN(3), WorstOfN(4)], ids=lambda p: type(p).__name__)
def test_ranks_by_inversion_have_the_law_of_the_draws(procedure, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Chi-square of 100000 against the law, ties shared by their masses; the law of one draw more is rejected."""
    monkeypatch.setattr("mdpsim.align.procedures.DRAWN", 1)
    seen = np.bincount(procedure.simulate(SPACE, PI, 100_000, np.random.default_rng(1)), minlength=5)
    assert stats.chisquare(seen, 100_000 * procedure.law(SPACE, PI)).pvalue > 1e-4
    assert stats.chisquare(seen, 100_000 * type(procedure)(procedure.n + 1).law(SPACE, PI)).pvalue < 1e-6
    drawn = procedure.simulate(PLAIN, PLAIN.pi_ref, 20_000, np.random.default_rng(2))
    a, b = (procedure.n, 1) if type(procedure) is BestOfN else (1, procedure.n)
    assert stats.kstest(drawn, stats.beta(a, b).cdf).statistic < 0.02  # the CDF is linear between nodes


@pytest.mark.parametrize("procedure", [SoftBestOfN(5, 0.1), MajorityVote(5, [0, 0, 1, 1, 2])], ids=lambda p: type(p).__name__)
def test_simulations_in_chunks_have_the_same_law(procedure, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(arithmetic, "DRAWN", 1000)
    seen = np.bincount(procedure.simulate(SPACE, PI, 50_001, np.random.default_rng(1)), minlength=5)
    assert seen.sum() == 50_001
    assert stats.chisquare(seen, 50_001 * procedure.law(SPACE, PI)).pvalue > 1e-4


@pytest.mark.parametrize("procedure", [Rejection(0.9999, 3000), Rejection(0.9999), Rejection(0.9999, 10**6)], ids=repr)
def test_rejection_ends_whatever_the_threshold(procedure) -> None:  # type: ignore[no-untyped-def]
    """Accepted once in 3000 (1e5, 1e5) draws: after 1000 rounds the rest at once, by the law (chi-square, 20000 draws)."""
    good = 1.0 / 3000 if procedure.n == 3000 else 1e-5
    space = Responses([0.0, 1.0, 2.0], [0.5, 0.5 - 1e-6, 1e-6])
    pi = np.array([0.3, 0.7 - good, good])
    seen = np.bincount(procedure.simulate(space, pi, 20_000, np.random.default_rng(5)), minlength=3)
    law = procedure.law(space, pi)
    on = 20_000 * law > 5.0
    assert (seen[~on] <= 10).all()
    if on.sum() > 1:
        assert stats.chisquare(seen[on], seen[on].sum() * law[on] / law[on].sum()).pvalue > 1e-4


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e308, 1e-300, -1e200])
def test_standardised_rewards_at_any_scale(scale: float) -> None:
    """(1, 2, 3) with equal masses: (-1, 0, 1) sqrt(3/2), whatever the unit; what pi_ref never gives stays finite."""
    wanted = np.sign(scale) * np.sqrt(1.5) * np.array([-1.0, 0.0, 1.0])
    third = np.full((1, 3), 1 / 3)
    assert standardised([np.array([0.5, 1.0, 1.5]) * scale], third)[0] == pytest.approx(wanted, abs=1e-12)
    assert standardised([[-1.7e308, 0.0, 1.7e308]], third)[0] == pytest.approx(np.abs(wanted) * [-1, 0, 1], abs=1e-12)
    outside = standardised([[1e-200, 2e-200, 3e-200, 1.7e308]], [[1 / 3, 1 / 3, 1 / 3, 0.0]])[0]
    assert outside[:3] == pytest.approx(np.abs(wanted) * [-1, 0, 1], abs=1e-12)
    assert np.isfinite(outside).all()
    far = 1e9 + np.array([[1.0, 2.0, 3.0]])
    assert standardised(far, third)[0] == pytest.approx(np.abs(wanted) * [-1, 0, 1], abs=1e-12)


def test_a_sample_without_information_is_no_stationary_point() -> None:
    target = Distribution([0.0, 0.0, 1.0])
    theta = np.array([0.0, 0.0, -60.0])
    with pytest.raises(ValueError, match="sampled_gradient: n must be so large that the target gives some draw mass"):
        sampled_gradient(Softmax(3), theta, target, 50, 0, estimate_Z=True)
    assert np.array_equal(sampled_gradient(Softmax(3), theta, target, 50, 0), np.zeros(3))  # unbiased: rare and large
    assert np.isfinite(sampled_gradient(Softmax(3), np.zeros(3), target, 50, 0, estimate_Z=True)).all()


# --- mean field at the threshold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [-2.0, 1.99, 2.0, 2.0 + 1e-7, 2.001])
def test_mean_field_at_the_threshold(kappa: float) -> None:
    """p ~ e^{kappa [x = y]}: m = 1/2 up to |kappa| = 2, beyond it logit m = (2 m - 1) kappa; KL of the factorised law there."""
    p = np.exp(kappa * np.eye(2))
    found = project_markov(p / p.sum(), "reverse", restarts=10)

    def divergence(m: float, n: float) -> float:
        q = np.outer([m, 1 - m], [n, 1 - n])
        return float((q * np.log(q / (p / p.sum()))).sum())

    m = 0.5
    if kappa > 2.0:
        low, high = 0.5 + 1e-9, 1.0 - 1e-9
        for _ in range(100):
            m = 0.5 * (low + high)
            low, high = (m, high) if np.log(m / (1 - m)) < (2 * m - 1) * kappa else (low, m)
    means = found.pi.sum(axis=1).max(), found.pi.sum(axis=0).max()
    assert means == pytest.approx((m, m), abs=1e-5 if kappa in (-2.0, 1.99, 2.0) else 1e-3)
    assert found.kl == pytest.approx(divergence(m, m if kappa > 0 else 1 - m), abs=1e-13)
    assert found.residual <= 1e-9
    assert found.found.size == 11


def test_sweeps_are_few_at_the_threshold(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Without acceleration each start takes 20 000 sweeps of two updates; some hundreds are enough."""
    from mdpsim.solve import projection

    count, inner = [0], projection._minimiser

    def counting(*args):  # type: ignore[no-untyped-def]
        count[0] += 1
        return inner(*args)

    monkeypatch.setattr(projection, "_minimiser", counting)
    p = np.exp(2.0 * np.eye(2))
    project_markov(p / p.sum(), "reverse", restarts=5)
    assert count[0] < 6 * 2 * 1000


# --- guards ------------------------------------------------------------------------------------------------------------


class Halved(Ranked):
    """No law: half the mass is missing."""

    def factor(self, ranks):  # type: ignore[no-untyped-def]
        return 0.5 * np.ones_like(ranks.below)


TABLE = np.arange(4.0).reshape(2, 2), np.full((2, 2), 0.5)


@pytest.mark.parametrize("wrong", [None, 3, BestOfN, "best", IDENTITY], ids=["none", "number", "class", "text", "transform"])
@pytest.mark.parametrize("call", [
    ("inference_win_rate", lambda x: inference_win_rate(x, PI, SPACE)),
    ("inference_loss_rate", lambda x: inference_loss_rate(x, PI, SPACE)),
    ("sample_win_rate", lambda x: sample_win_rate(x, PI, SPACE, 10, 0)),
    ("prompt_win_rates", lambda x: prompt_win_rates(x, TABLE[1], *TABLE)),
    ("optimal_transform", lambda x: optimal_transform(x, SPACE, beta=1.0)),
    ("tuned_exponential", lambda x: tuned_exponential(x, 0.1)), ("halving_error", lambda x: halving_error(x, IDENTITY, 0.1)),
    ("tradeoff", lambda x: tradeoff(x, [0.1])),
], ids=lambda c: c[0])
def test_procedures_are_guarded(call, wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=f"{call[0]}: procedure must be a procedure: BestOfN"):
        call[1](wrong)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tuned_exponential(BestOfN(2), 0.1, 3), "tuned_exponential: space must be Responses or a QuantileScale"),
        (lambda: tradeoff(BestOfN(2), [0.1], transforms=IDENTITY), "tradeoff: transforms must be a list of transforms"),
        (lambda: tradeoff(BestOfN(2), [0.1], transforms="log"), "tradeoff: transforms must be a list of transforms"),
        (lambda: tradeoff(BestOfN(2), [0.1], transforms=[None]), r"tradeoff: transforms\[0\] must be a transform"),
        (lambda: halving_error(BestOfN(2), np.log, 0.1), "halving_error: transform must be a transform"),
        (lambda: scale_for(3), "scale_for: transform must be a transform"),
        (lambda: CTRL(beta=np.nan), "CTRL: beta must be a number in"),
        (lambda: CTRL(beta=0.0), "CTRL: beta must be a number in"),
        (lambda: CTRL(kl=-1.0), "CTRL: kl must be a number in"),
        (lambda: CTRL(kl=0.1, transform=None), "CTRL: transform must be a transform"),
        (lambda: CTRL(kl=0.1, K=3, shared="no"), "CTRL: shared must be True or False"),
        (lambda: prompt_win_rates(Halved(), TABLE[1], *TABLE), "prompt_win_rates: procedure must have a law"),
        (lambda: MajorityVote(3, np.array([0, 2**31])), r"MajorityVote: answers must number the classes.*\[0, 2147483648\]"),
        (lambda: MajorityVote(3, np.array([-1, 0])), "MajorityVote: answers must number the classes"),
        (lambda: MajorityVote(200_000, [0, 1]), "MajorityVote: n must give at most 200000 counts"),
        (lambda: Distortion(lambda F: F if F < 1 else 1), "Distortion: g must take arrays"),
        (lambda: Distortion(3), "Distortion: g must take arrays"),
        (lambda: Distortion(lambda F: (np.asarray(F) > 0.5) * 1.0), "Distortion: g must be continuous.* a jump of 1 at 0.5"),
        (lambda: Distortion(lambda F: np.where(F < 1, 0.5 * F, 1.0)), "Distortion: g must be continuous"),
        (lambda: Function(3), "Function: function must be a function"),
        (lambda: Function(np.log, name=3), "Function: name must be a text"),
        (lambda: Function(np.log, breaks=[0.5]), "Function: breaks must be a tuple"),
        (lambda: Function(np.log, breaks=(1.5,)), r"Function: breaks must lie in \(0, 1\)"),
        (lambda: Function(lambda u: 1.0 if u > 0.5 else 0.0, "scalar")(SPACE), "Function: scalar must take arrays"),
        (lambda: Function(lambda u: 1.0 if u > 0.5 else 0.0, "scalar")(PLAIN), "Function: scalar must take arrays"),
    ],
)
def test_bad_input_is_named(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_distortions_that_are_steep_are_taken() -> None:
    """Powers up to 10^6 and roots are continuous, near 0 and 1 too."""
    for g in (lambda x: x**1_000_000, lambda x: x**0.1, lambda x: 1 - (1 - x) ** 0.1, lambda x: x**20 * (1 + 20 * (1 - x))):
        assert Distortion(g).law(SPACE, PI).sum() == pytest.approx(1.0, abs=1e-12)


def test_fine_scales_can_be_cut() -> None:
    assert QuantileScale(pieces=40).halved().pieces == 80
    assert Custom(lambda pi, s: pi).law(SPACE, PI) == pytest.approx(PI)
