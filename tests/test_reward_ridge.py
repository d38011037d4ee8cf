"""Labels that went one way: the fit is the minimum of what it says, and tells when the box or the ridge decides it."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy import optimize

from mdpsim import Preferences, Trajectories, fit_reward, sample_preferences
from mdpsim.estimate.reward import differences
from mdpsim.mdp import families


def duels(*won: tuple[int, int]) -> Preferences:
    """Pairs of arms, the winner first."""
    arms, n = 1 + max(max(pair) for pair in won), len(won)
    first, second = (
        Trajectories(np.zeros((n, 2), int), [[pair[k]] for pair in won], np.zeros((n, 1)), S=1, A=arms) for k in (0, 1)
    )
    return Preferences(first, second, np.ones(n, int))


@pytest.mark.parametrize("half", [5.0, 10.0, 100.0])
@pytest.mark.parametrize("ridge", [1e-11, 1e-9, 1e-6, 1e-3])
def test_five_wins_of_one_arm(half: float, ridge: float) -> None:
    """theta = (t, -t) minimises log(1 + e^{-2t}) + ridge t^2 on [0, half], in 40 digits; beyond the box at_bound tells."""
    fit = fit_reward(duels(*[(0, 1)] * 5), low=-half, high=half, ridge=ridge)
    with mpmath.workdps(40):
        t = mpmath.findroot(lambda t: ridge * t - 1 / (1 + mpmath.exp(2 * t)), (0, 200), solver="anderson", tol=1e-30)
    np.testing.assert_allclose(fit.r[0, 0], [min(float(t), half), -min(float(t), half)], rtol=1e-6)
    inside = t < half
    assert (fit.status, fit.at_bound) == ("ridge" if inside else "converged", 0 if inside else 2)


def test_one_arm_above_two_that_are_compared() -> None:
    """The ridge decides how far the first is above the others, not which of those two is better: again against 40 digits."""
    won = [(0, 1)] * 4 + [(0, 2)] * 4 + [(1, 2)] * 3 + [(2, 1)] * 2
    fit = fit_reward(duels(*won), low=-100.0, high=100.0)
    assert (fit.status, fit.at_bound) == ("ridge", 0)
    with mpmath.workdps(40):
        def slope(*theta):
            out = [mpmath.mpf("1e-9") * x for x in theta]
            for a, b in won:
                rest = 1 / (1 + mpmath.exp(theta[a] - theta[b])) / len(won)
                out[a] -= rest
                out[b] += rest
            return out

        exact = mpmath.findroot(slope, tuple(fit.r[0, 0]), tol=1e-30)
    np.testing.assert_allclose(fit.r[0, 0], [float(x) for x in exact], atol=1e-6)
    assert fit.r[0, 0, 1] - fit.r[0, 0, 2] == pytest.approx(np.log(1.5), abs=1e-4)


@pytest.mark.parametrize("half", [5.0, 100.0, 1e6])
def test_labels_that_went_both_ways_need_no_ridge(half: float) -> None:
    fit = fit_reward(duels(*[(0, 1)] * 3, *[(1, 0)] * 2), low=-half, high=half)
    assert (fit.status, fit.at_bound) == ("converged", 0)
    assert fit.r[0, 0, 0] - fit.r[0, 0, 1] == pytest.approx(np.log(1.5), abs=1e-6)


def separable(x: np.ndarray) -> bool:
    """Whether some direction agrees with every label, and strictly with one: by a linear program."""
    limits = np.append(np.zeros(len(x)), np.ones(len(x)))  # 0 <= x v <= 1
    found = optimize.linprog(-x.sum(axis=0), np.vstack([-x, x]), limits, bounds=(None, None))
    assert found.status == 0
    return -found.fun > 0.5


@pytest.mark.parametrize("n", [3, 10, 30, 100, 300])
def test_separable_pairs_are_told_and_only_they(n: int) -> None:
    """In a box that no fit reaches the status is "ridge" where a linear program finds a direction that labels leave free."""
    H, S, A, seen = 2, 2, 2, set()
    uniform = families.uniform_policy(H, S, A)
    for seed in range(8):
        mdp = families.random_mdp(S=S, A=A, H=H, rng=seed)
        prefs = sample_preferences(mdp, uniform, uniform, n, seed)
        rows = differences(prefs, None)
        x = np.zeros((n, H * S * A))
        np.add.at(x, (np.arange(n)[:, None], rows.idx), rows.val)
        free = separable(x * (2.0 * prefs.label - 1.0)[:, None])
        fit = fit_reward(prefs, low=-100.0, high=100.0)
        assert (fit.status, fit.at_bound) == ("ridge" if free else "converged", 0)
        seen.add(free)
    assert True in seen or n > 10
    assert False in seen or n < 30
