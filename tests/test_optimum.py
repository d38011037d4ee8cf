"""The optimal transform: against shooting of its differential equation, BFGS, a grid over the simplex; one's own procedures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, optimize

from mdpsim.align.inference import align, gibbs, inference_win_rate
from mdpsim.align.optimum import optimal_transform
from mdpsim.align.procedures import BestOfN, Custom, Distortion, Rejection, Temperature, WorstOfN
from mdpsim.align.selection import MajorityVote, ProxyBestOfN, SoftBestOfN
from mdpsim.align.spaces import QuantileScale, Responses, quantile_scale
from mdpsim.align.tradeoff import halving_error, tradeoff, tuned_exponential
from mdpsim.align.transforms import CUBIC, IDENTITY, LOG, Exponential

SCALE = quantile_scale()


def shoot(n: int, beta: float, worst: bool) -> tuple[float, float]:
    """(KL, win) of beta (log f)' = n^2 (u F)^{n-1}, or with 1-u and 1-F, F(0) = 0, F(1) = 1, by shooting in log f(0)."""
    def slope(u: float, y: np.ndarray) -> list[float]:
        F, log_f = y[0], y[1]
        f = np.exp(log_f)
        x = ((1 - u) * max(1 - F, 0.0) if worst else u * max(F, 0.0)) ** (n - 1)
        chance = n * ((1 - u) ** (n - 1) * max(1 - F, 0.0) ** n if worst else u ** (n - 1) * max(F, 0.0) ** n)
        return [f, n * n * x / beta, f * log_f, chance]

    def end(log_f0: float) -> np.ndarray:
        found = integrate.solve_ivp(slope, (0, 1), [0.0, log_f0, 0.0, 0.0], rtol=1e-11, atol=1e-13, method="DOP853")
        return found.y[:, -1]

    low = -12.0 if not worst else -300.0
    root = optimize.brentq(lambda s: end(s)[0] - 1.0, low, 0.0, xtol=1e-13)
    y = end(root)
    return float(y[2]), float(y[3] if worst else 1.0 - y[3])


@pytest.mark.parametrize(("n", "beta", "worst"), [(2, 0.2272, False), (4, 0.0827, False), (4, 0.3, False), (2, 0.1036, True),
                                                  (4, 0.2031, True), (8, 0.5, True)])
def test_fixed_point_is_the_solution_of_the_ode(n: int, beta: float, worst: bool) -> None:
    kl, win = shoot(n, beta, worst)
    procedure = WorstOfN(n) if worst else BestOfN(n)
    found = optimal_transform(procedure, SCALE, beta=beta)
    assert found.converged
    assert found.residual <= 1e-9
    assert found.kl == pytest.approx(kl, abs=1e-7)
    assert found.win == pytest.approx(win, abs=1e-7)
    again = optimal_transform(procedure, SCALE, kl=found.kl)
    assert again.beta == pytest.approx(beta, rel=1e-6)
    assert again.win == pytest.approx(win, abs=1e-7)
    assert inference_win_rate(procedure, found.pi, SCALE) == pytest.approx(found.win, abs=1e-12)
    # a wrong factor in the equation gives another solution
    assert abs(shoot(n, beta / n, worst)[1] - win) > 1e-3


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("kl", [0.1, 1.0, 2.0])
def test_nothing_beats_the_optimum_and_halving_does_not_move_it(n: int, kl: float) -> None:
    for procedure, sign in ((BestOfN(n), 1), (WorstOfN(n), -1)):
        best = optimal_transform(procedure, SCALE, kl=kl)
        assert best.kl == pytest.approx(kl, rel=1e-9)
        fine = optimal_transform(procedure, SCALE.halved(), kl=kl)
        assert fine.win == pytest.approx(best.win, abs=1e-9)
        for transform in (IDENTITY, LOG, CUBIC, *(Exponential(sign * t) for t in (3.0, 5.0, 10.0, 20.0))):
            assert inference_win_rate(procedure, align(SCALE, transform, kl=kl).pi, SCALE) < best.win
        tuned = tuned_exponential(procedure, kl)
        assert best.win - 0.002 < tuned.win < best.win + 1e-9
        assert np.sign(tuned.t) == sign


def objective(procedure, space, beta):  # type: ignore[no-untyped-def]
    def value(theta: np.ndarray) -> float:
        pi = np.exp(theta - theta.max())
        pi /= pi.sum()
        kl = float((pi * np.log(np.maximum(pi, 1e-300) / space.pi_ref)).sum())
        return beta * kl - inference_win_rate(procedure, pi, space)

    return value


@pytest.mark.parametrize("name", ["best", "worst", "proxy", "temperature", "majority", "rejection", "soft"])
def test_as_good_as_bfgs_on_finite_spaces(name: str) -> None:
    """Six responses, ties among them: the objective is at least that of six BFGS starts, and the standard one is below it."""
    losses = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        r = np.append(rng.normal(size=4), [0.0, 0.0])
        space = Responses(r, 0.9 * rng.dirichlet(np.ones(6)) + 0.1 / 6)
        procedure = {
            "best": BestOfN(4), "worst": WorstOfN(4), "proxy": ProxyBestOfN(4, r + rng.normal(size=6)),
            "temperature": Temperature(0.5), "majority": MajorityVote(5, [0, 0, 1, 1, 2, 3]), "rejection": Rejection(0.5, 3),
            "soft": SoftBestOfN(3, 0.2),
        }[name]
        beta = 0.15
        found = optimal_transform(procedure, space, beta=beta)
        value = objective(procedure, space, beta)
        others = [optimize.minimize(value, x, method="BFGS", options={"gtol": 1e-7}).fun for x in rng.normal(size=(6, 6))]
        assert found.converged
        assert found.objective >= -min(others) - 1e-6
        policy = gibbs(space, found.transform, beta)
        assert policy.pi == pytest.approx(found.pi, abs=1e-8)  # it is the Gibbs law of its own transform
        losses.append(found.objective + value(np.log(align(space, IDENTITY, beta=beta).pi)))
    assert min(losses) >= -1e-9
    assert max(losses) > 1e-3


def test_one_start_can_miss_the_maximum() -> None:
    """Worst-of-4 on eight responses (seed 49): from the calibrated reward alone a local maximum 0.06 below is found."""
    rng = np.random.default_rng(49)
    r, ref = rng.normal(size=8), rng.dirichlet(np.ones(8))
    space = Responses(r, ref)
    one = optimal_transform(WorstOfN(4), space, beta=0.03, n_starts=1)
    all_ = optimal_transform(WorstOfN(4), space, beta=0.03)
    assert one.converged
    assert all_.converged
    assert all_.objective > one.objective + 0.05
    assert all_.starts.shape == (9, 2)


def test_three_responses_against_a_grid() -> None:
    """Best-of-4 and worst-of-4 at a KL budget, over a grid of 500^2 laws."""
    space = Responses([0.0, 1.0, 2.0], [0.5, 0.4, 0.1])
    a, b = np.meshgrid(np.linspace(0, 1, 501), np.linspace(0, 1, 501))
    pi = np.stack([a, b, 1 - a - b], axis=-1)[a + b <= 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.where(pi > 0, pi * np.log(pi / space.pi_ref), 0.0).sum(axis=1)
    inside = pi[kl <= 0.3]
    for procedure in (BestOfN(4), WorstOfN(4)):
        ends = np.cumsum(np.column_stack([np.zeros(len(inside)), inside]), axis=1)
        law = np.diff(ends**4 if procedure == BestOfN(4) else 1 - (1 - ends) ** 4, axis=1)
        known = procedure.law(space, space.pi_ref)
        wins = law @ (np.cumsum(known) - 0.5 * known)
        found = optimal_transform(procedure, space, kl=0.3)
        assert wins.max() - 1e-9 <= found.win <= wins.max() + 2e-3
        assert found.pi == pytest.approx(inside[wins.argmax()], abs=0.02)
        standard = inference_win_rate(procedure, align(space, IDENTITY, kl=0.3).pi, space)
        assert found.win - standard > 0.03


def median_law(pi, space):  # type: ignore[no-untyped-def]
    """The median of three draws, on cells without ties: F -> 3 F^2 - 2 F^3."""
    order = np.argsort(space.r)
    F = np.cumsum(pi[order])
    out = np.empty(pi.size)
    out[order] = np.diff(np.append(0.0, 3 * F**2 - 2 * F**3))
    return out


def sharpened_best_of_two(pi, space):  # type: ignore[no-untyped-def]
    """Temperature 1/2, then the best of two draws."""
    return BestOfN(2).law(space, Temperature(0.5).law(space, pi))


def test_procedures_of_ones_own() -> None:
    """Two that the paper does not treat: by a function of the law with numerical derivatives, and by g; one optimum."""
    space = Responses(np.random.default_rng(3).normal(size=30))
    by_law, by_g = Custom(median_law), Distortion(lambda x: 3 * x**2 - 2 * x**3, lambda x: 6 * x - 6 * x**2)
    one = optimal_transform(by_law, space, kl=0.5, n_starts=1, tol=1e-7)
    two = optimal_transform(by_g, space, kl=0.5, n_starts=1)
    assert one.converged
    assert one.pi == pytest.approx(two.pi, abs=1e-6)
    curve = tradeoff(Custom(sharpened_best_of_two), [0.2, 0.6], transforms=[IDENTITY, LOG],
                     space=Responses([0.0, 1.0, 2.0, 3.0, 4.0]))
    assert curve.names == ("identity", "log", "exp tuned")
    assert all(o.converged for o in curve.optima)
    assert curve.regret.min() > -1e-7
    assert (np.diff(curve.win, axis=1) > 0).all()
    assert curve.gap() == pytest.approx(curve.regret[0])
    by_hand = Custom(median_law, derivative=lambda pi, c, s: Distortion(lambda x: 3 * x**2 - 2 * x**3).reward(
        s, pi, by_law.law(s, s.pi_ref)))
    rival = by_law.law(space, space.pi_ref)
    pi = align(space, IDENTITY, kl=0.4).pi
    numerical, exact = by_law.reward(space, pi, rival), by_hand.reward(space, pi, rival)
    assert numerical - pi @ numerical == pytest.approx(exact - pi @ exact, abs=1e-9)


def test_the_table_of_a_procedure() -> None:
    curve = tradeoff(BestOfN(4), [0.1, 0.5])
    assert curve.names == ("identity", "log", "cubic", "logit", "exp tuned")
    assert curve.win.shape == curve.loss.shape == curve.beta.shape == (5, 2)
    assert curve.regret.min() > -1e-9
    for t, kl, row in zip(curve.tilts, curve.kls, curve.loss[-1], strict=True):
        for other in (0.8 * t, 1.2 * t):
            lost = 1 - inference_win_rate(BestOfN(4), align(SCALE, Exponential(float(other)), kl=float(kl)).pi, SCALE)
            assert row < lost
    assert 0.0 < curve.error < 1e-9
    for procedure in (BestOfN(4), WorstOfN(4)):
        assert tradeoff(procedure, [4.0]).error < 1e-6  # what is promised up to KL = 4
    assert halving_error(BestOfN(2), Exponential(-400.0), 0.3) > 1e-6  # a tilt too sharp for its panels shows
    assert halving_error(BestOfN(2), Exponential(-400.0), 0.3, QuantileScale(pieces=8)) < 1e-9
    assert halving_error(BestOfN(2), IDENTITY, 0.1, Responses([0.0, 1.0])) == 0.0
    only = tradeoff(BestOfN(1), [0.5], transforms=[LOG])
    assert only.names[0] == "identity"
    assert abs(only.gap()[0]) < 1e-9
    assert abs(only.tilts[0]) < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimal_transform(BestOfN(2), SCALE), "beta or kl must be given"),
        (lambda: optimal_transform(BestOfN(2), SCALE, beta=0.0), "optimal_transform: beta must be a number in"),
        (lambda: optimal_transform(BestOfN(2), SCALE, kl=-1.0), "optimal_transform: kl must be a number in"),
        (lambda: optimal_transform(BestOfN(2), SCALE, beta=0.1, n_starts=0), "optimal_transform: n_starts must"),
        (lambda: optimal_transform(BestOfN(2), Responses([0.0, 1.0], [0.9, 0.1]), kl=3.0), "attainable range"),
        (lambda: optimal_transform(BestOfN(2), 3, beta=0.1), "optimal_transform: space must"),
        (lambda: optimal_transform(BestOfN(2), SCALE, beta=0.1, start=[0.0]), r"start must have shape \[n\]"),
        (lambda: optimal_transform(Temperature(0.5), SCALE, beta=0.1), "thin spikes win at no KL"),
        (lambda: optimal_transform(Temperature(2.0), Responses([0.0, 1.0]), beta=0.1), "a Temperature of at most 1"),
        (lambda: optimal_transform(Custom(lambda pi, s: pi * 1.1), Responses([0.0, 1.0]), beta=0.1), "law that sums"),
        (lambda: tradeoff(BestOfN(2), [0.5, 0.1]), "tradeoff: kls must be positive and increase"),
        (lambda: tradeoff(BestOfN(2), [0.5], space=3), "tradeoff: space must"),
    ],
)
def test_bad_input_is_named(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_rejection_without_a_limit_has_no_best_policy() -> None:
    """What is refused is free: the win rate goes to 1 at KL = log 2, and the iteration says that it has not converged."""
    found = optimal_transform(Rejection(0.5), quantile_scale((0.5,)), beta=0.2, n_starts=1, max_iterations=300)
    assert not found.converged
    assert found.win > 0.999
    assert found.kl == pytest.approx(np.log(2.0), abs=0.01)
