"""Bradley-Terry rewards on a box: against scipy, by hand, one-hot features against the tabular fit, and the edges."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from mdpsim import LinearMDP, sample_preferences
from mdpsim.estimate.reward import differences, fit_reward
from mdpsim.mdp import families
from mdpsim.rng import generator

H, S, A = 3, 4, 3
UNIFORM = families.uniform_policy(H, S, A)


def design(prefs, phi=None):
    """Dense rows x_i, one number at a time."""
    width = (H, S, A) if phi is None else (H, phi.shape[-1])
    x = np.zeros((prefs.n, *width))
    for i in range(prefs.n):
        for sign, t in ((1.0, prefs.first), (-1.0, prefs.second)):
            for h in range(H):
                s, a = t.states[i, h], t.actions[i, h]
                if phi is None:
                    x[i, h, s, a] += sign
                else:
                    x[i, h] += sign * phi[s, a]
    return x.reshape(prefs.n, -1)


def loss(theta, x, label, low, high, ridge):
    """The objective and its gradient, as the module states them."""
    y = 2.0 * label - 1.0
    z = y * (x @ theta)
    away = theta - 0.5 * (low + high)
    value = np.logaddexp(0.0, -z).mean() + 0.5 * ridge * away @ away
    return value, -(x * (y / (1.0 + np.exp(z)))[:, None]).mean(axis=0) + ridge * away


@pytest.mark.parametrize("n", [3, 60, 1500])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-2.0, 3.0), (0.4, 0.6)])
def test_the_fit_is_the_minimum_on_the_box(n, low, high):
    """Against scipy's L-BFGS-B, and by the optimality conditions, which need no other solver."""
    ridge = 1e-4
    prefs = sample_preferences(families.random_mdp(S=S, A=A, H=H, rng=n), UNIFORM, UNIFORM, n, 1)
    fit = fit_reward(prefs, low=low, high=high, ridge=ridge)
    x = design(prefs)
    rows = differences(prefs, None)
    dense = np.zeros_like(x)
    np.add.at(dense, (np.arange(n)[:, None], rows.idx), rows.val)
    np.testing.assert_array_equal(dense, x)
    theta = fit.theta.ravel()
    value, slope = loss(theta, x, prefs.label, low, high, ridge)
    assert abs(theta - np.clip(theta - slope, low, high)).max() <= 1e-10
    assert fit.status in ("converged", "ridge")  # a ridge of 1e-4 decides where few labels went one way: test_reward_ridge
    other = optimize.minimize(loss, np.full(36, 0.5 * (low + high)), (x, prefs.label, low, high, ridge), jac=True,
                              bounds=[(low, high)] * 36, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9})
    assert value <= other.fun + 1e-13
    np.testing.assert_allclose(theta, other.x, atol=1e-3)
    assert fit.log_likelihood == pytest.approx(-np.logaddexp(0.0, -(2.0 * prefs.label - 1.0) * (x @ theta)).sum(), abs=1e-9 * n)
    assert fit.at_bound == ((theta <= low) | (theta >= high)).sum()
    p = 1.0 / (1.0 + np.exp(-x @ theta))
    information = x.T @ (x * (p * (1 - p))[:, None]) + n * ridge * np.eye(36)
    np.testing.assert_allclose(fit.cov @ information, np.eye(36), atol=1e-8)


def test_two_arms_by_hand():
    """The log-odds of the counts, split around the middle; at a bound where every comparison went one way."""
    mdp, ref = families.bandit([0.7, 0.2]), np.full((1, 1, 2), 0.5)
    prefs = sample_preferences(mdp, ref, ref, 2000, 0)
    one, two = prefs.first.actions[:, 0], prefs.second.actions[:, 0]
    mixed = one != two
    wins = ((one == 0) == (prefs.label == 1))[mixed].sum()
    odds = np.log(wins / (mixed.sum() - wins))
    fit = fit_reward(prefs, low=-5.0, high=5.0)
    np.testing.assert_allclose(fit.r[0, 0], [odds / 2, -odds / 2], atol=1e-6)
    sure = sample_preferences(mdp, ref, ref, 200, 0, link=lambda d: np.heaviside(d, 0.5))
    np.testing.assert_allclose(fit_reward(sure, low=-1.0, high=2.0).r[0, 0], [2.0, -1.0])


def test_warm_starts_change_nothing():
    prefs = sample_preferences(families.random_mdp(S=S, A=A, H=H, rng=2), UNIFORM, UNIFORM, 3000, 1)
    cold = fit_reward(prefs)
    for start in (np.zeros((H, S, A)), np.ones((H, S, A)), generator(0).normal(size=(H, S, A)) * 10):
        np.testing.assert_allclose(fit_reward(prefs, start=start).theta, cold.theta, atol=1e-6)


def test_one_hot_features_are_the_tabular_fit():
    """phi = e_(s, a): the same problem in the same coordinates."""
    prefs = sample_preferences(families.random_mdp(S=S, A=A, H=H, rng=3), UNIFORM, UNIFORM, 800, 1)
    phi = np.eye(S * A).reshape(S, A, S * A)
    linear, tabular = fit_reward(prefs, phi=phi), fit_reward(prefs)
    np.testing.assert_allclose(linear.r, tabular.r, atol=1e-8)
    assert linear.log_likelihood == pytest.approx(tabular.log_likelihood, abs=1e-8)


def test_linear_rewards_are_found():
    """Consistency with features: 100000 pairs of a linear MDP; errors of returns within 5 standard errors."""
    mdp = families.linear_simplex(S=S, A=A, d=2, H=H, rng=0, overlap=0.3)
    assert isinstance(mdp, LinearMDP)
    prefs = sample_preferences(mdp, UNIFORM, UNIFORM, 100_000, 1)
    fit = fit_reward(prefs, phi=mdp.phi, low=-1.0, high=2.0)
    np.testing.assert_allclose(design(prefs, mdp.phi)[:50], differences(prefs, mdp.phi).val[:50], atol=1e-15)
    for direction in np.eye(H):  # contrasts of the two features of a stage: constants are not identified
        v = np.kron(direction, [1.0, -1.0])
        off = v @ (fit.theta - mdp.theta).ravel()
        assert abs(off) < 5 * np.sqrt(v @ fit.cov @ v)


def test_what_no_pair_shows_stays_in_the_middle():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    fit = fit_reward(sample_preferences(mdp, UNIFORM, UNIFORM, 5, 1), low=0.0, high=2.0)
    assert (fit.r[0, 1:] == 1.0).all()  # the fixed start reaches state 0 only
    assert np.isfinite(fit.cov).all()


@pytest.mark.parametrize("half", [1e3, 1e6])
def test_wide_boxes_and_far_starts_converge(half):
    """The step that is the last is measured by what it changes, not by the width of the box."""
    prefs = sample_preferences(families.random_mdp(S=S, A=A, H=H, rng=4), UNIFORM, UNIFORM, 500, 1)
    wide = fit_reward(prefs, low=-half, high=half)
    assert wide.status == "converged"
    near = fit_reward(prefs, low=-100.0, high=100.0)  # the likelihood has its maximum well inside both
    assert near.at_bound == wide.at_bound == 0
    assert wide.log_likelihood == pytest.approx(near.log_likelihood, abs=1e-6)
    for start in (np.full((H, S, A), 1e300), np.full((H, S, A), -1e300)):  # clipped to the box
        np.testing.assert_allclose(fit_reward(prefs, start=start).theta, fit_reward(prefs).theta, atol=1e-6)


def test_a_start_from_which_newtons_step_overshoots_converges():
    """Two arms, far apart on the wrong side: the curvature there is nearly none."""
    mdp, ref = families.bandit([0.7, 0.2]), np.full((1, 1, 2), 0.5)
    prefs = sample_preferences(mdp, ref, ref, 300, 0)
    far = fit_reward(prefs, low=-50.0, high=50.0, start=np.array([[[50.0, -50.0]]]))
    np.testing.assert_allclose(far.theta, fit_reward(prefs, low=-50.0, high=50.0).theta, atol=1e-5)


def test_a_fit_that_did_not_converge_says_so(monkeypatch):
    monkeypatch.setattr("mdpsim.estimate.reward.MAX_STEPS", 1)
    fit = fit_reward(sample_preferences(families.random_mdp(S=S, A=A, H=H, rng=0), UNIFORM, UNIFORM, 60, 0))
    assert fit.status == "stalled"
    assert fit.gradient > 1e-10


def test_kinds_of_long_episodes_are_not_confused():
    """S A H = 16 and 16 columns a row: one 64-bit number cannot name a kind, so every pair is kept."""
    mdp = families.random_mdp(S=1, A=2, H=8, rng=0)
    pi = np.broadcast_to([0.97, 0.03], (8, 1, 2))
    prefs = sample_preferences(mdp, pi, pi, 3000, 0)
    fit = fit_reward(prefs)
    x = np.zeros((3000, 16))
    rows = differences(prefs, None)
    np.add.at(x, (np.arange(3000)[:, None], rows.idx), rows.val)
    _, slope = loss(fit.theta.ravel(), x, prefs.label, 0.0, 1.0, 1e-9)
    assert abs(fit.theta.ravel() - np.clip(fit.theta.ravel() - slope, 0.0, 1.0)).max() <= 1e-10


def test_many_parameters_want_features():
    mdp = families.random_mdp(S=60, A=10, H=10, rng=0)
    ref = families.uniform_policy(10, 60, 10)
    with pytest.raises(ValueError, match=r"phi must leave at most 5000 parameters \(give features\); got 6000 parameters"):
        fit_reward(sample_preferences(mdp, ref, ref, 5, 1))


def test_many_rewards_at_a_bound_are_quick():
    """689 columns seen, most of them at a bound: seconds, not half a minute; and the optimality conditions."""
    mdp = families.random_mdp(S=60, A=4, H=5, rng=0)
    ref = families.uniform_policy(5, 60, 4)
    prefs = sample_preferences(mdp, ref, ref, 100, 1)
    fit = fit_reward(prefs)
    assert fit.status == "converged"
    assert fit.at_bound > 200


def test_bad_input_is_refused():
    prefs = sample_preferences(families.random_mdp(S=S, A=A, H=H, rng=0), UNIFORM, UNIFORM, 5, 1)
    for change, message in (
        ({"low": 1.0}, "high must be above low = 1"), ({"low": np.nan}, "low must be"), ({"high": np.inf}, "high must be"),
        ({"ridge": 0.0}, r"ridge must be a number in \[1e-11, 1\]"), ({"ridge": 1e-12}, "ridge must be"),
        ({"phi": np.full((S, A, 1), 1e7)}, "phi must have entries of size 1e6 at most"),
        ({"phi": np.ones((2, 2, 2))}, r"phi must have shape \[S, A, d\]"), ({"start": np.zeros(3)}, "start must have shape"),
        ({"phi": np.full((S, A, 2), np.nan)}, "phi must be finite"),
    ):
        with pytest.raises(ValueError, match=f"fit_reward: {message}"):
            fit_reward(prefs, **change)
    with pytest.raises(ValueError, match="fit_reward: prefs must be Preferences; got list"):
        fit_reward([1])  # type: ignore[arg-type]
