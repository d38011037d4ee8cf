"""RLHF: what reaches the fit and the planner, the pessimist inside a run and its gap, guards of what plans."""

from __future__ import annotations

import numpy as np
import pytest

from mdpsim import MDP, evaluate, fit_bc_linear, occupancy, sample_counts, sample_preferences, solve_hard
from mdpsim.estimate.reward import fit_reward
from mdpsim.learn.pessimism import pessimistic_policy
from mdpsim.learn.rlhf import RLHF
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families
from mdpsim.rng import generator

H, S, A = 3, 4, 3
UNIFORM = families.uniform_policy(H, S, A)


def setting():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    return mdp, sample_counts(mdp, UNIFORM, 50, 0)


def flipped(difference):
    return 1.0 / (1.0 + np.exp(difference))


def test_the_link_the_box_and_the_ridge_reach_the_fit():
    mdp, demos = setting()
    run = RLHF(beta=0.2, n_pairs=(2000,), link=flipped).run(mdp, demos, 7)
    prefs = sample_preferences(mdp, run.clone, run.clone, 2000, generator(7), link=flipped)
    np.testing.assert_allclose(run.fit.theta, fit_reward(prefs).theta, atol=1e-6)
    run = RLHF(beta=0.2, n_pairs=(400,), low=-1.0, high=3.0, ridge=1e-3).run(mdp, demos, 7)
    prefs = sample_preferences(mdp, run.clone, run.clone, 400, generator(7))
    np.testing.assert_allclose(run.fit.theta, fit_reward(prefs, low=-1.0, high=3.0, ridge=1e-3).theta, atol=1e-6)


def test_a_linear_mdp_is_cloned_in_its_features():
    mdp = families.linear_simplex(S=6, A=A, d=2, H=H, rng=0)
    demos = sample_counts(mdp, families.uniform_policy(H, 6, A), 30, 0)
    run = RLHF(beta=0.2, n_pairs=(10,)).run(mdp, demos, 7)
    np.testing.assert_array_equal(run.clone, fit_bc_linear(demos, mdp.phi).pi)
    assert run.fit.theta.shape == (H, 2)


def test_the_pessimist_inside_a_run():
    mdp, demos = setting()
    run = RLHF(beta=0.0, pessimism=2.5, high=3.0, n_pairs=(200,)).run(mdp, demos, 7)
    pi, gap = pessimistic_policy(mdp, run.clone, run.fit, radius=2.5, prior=0.25 * 9)
    np.testing.assert_array_equal(run.pi, pi)
    assert run.certificates[-1] == gap


def test_losses_are_against_the_best_policy_not_the_best_on_the_clones_support():
    mdp, demos = setting()
    best = solve_hard(mdp)
    clone = np.where(best.pi > 0, 0.0, 1.0)
    clone /= clone.sum(axis=-1, keepdims=True)
    run = RLHF(beta=0.2, n_pairs=(50,)).run(mdp, demos, 1, clone=clone)
    optimum = float(mdp.mu0 @ best.V[0])
    assert run.cloning_loss == pytest.approx(optimum - evaluate(mdp, clone).J)
    assert run.losses[-1] == pytest.approx(optimum - evaluate(mdp, run.pi).J)
    assert (run.pi[clone == 0] == 0).all()


@pytest.mark.parametrize("linear", [False, True])
def test_the_pessimists_gap_is_the_duality_gap(linear):
    """<gradient, best - now>, from the policy alone: the gradient as a reward, its optimum less the policy's value."""
    if linear:
        mdp = families.linear_simplex(S=S, A=A, d=2, H=H, rng=0, overlap=0.3)
        tabular, phi = mdp.to_tabular(), mdp.phi
    else:
        mdp = tabular = setting()[0]
        phi = None
    clone = families.random_policy(S=S, A=A, H=H, rng=3)
    fit = fit_reward(sample_preferences(mdp, clone, clone, 200, 0), phi=phi)
    pi, gap = pessimistic_policy(mdp, clone, fit, radius=2.0, prior=0.25)
    visits = occupancy(tabular, pi)[:, :, None] * pi - occupancy(tabular, clone)[:, :, None] * clone
    d = (visits if phi is None else np.einsum("hsa,sad->hd", visits, phi)).ravel()
    cov = np.linalg.inv(np.linalg.inv(fit.cov) + np.eye(d.size) / 0.25)
    gradient = (fit.theta.ravel() - 2.0 * cov @ d / np.sqrt(d @ cov @ d + 1e-6)).reshape(fit.theta.shape)
    reward = gradient if phi is None else np.einsum("sad,hd->hsa", phi, gradient)
    priced = MDP(tabular.P, reward, tabular.mu0, horizon=H)
    assert gap == pytest.approx(float(priced.mu0 @ solve_hard(priced).V[0]) - evaluate(priced, pi).J, abs=1e-6)
    assert gap <= (1e-3 if linear else 6e-3)


def test_states_never_visited_keep_the_clones_rows():
    mdp, _ = setting()
    P = np.zeros((H, S, A, S))
    P[..., 0] = 1.0
    mdp = MDP(P, mdp.r, np.eye(S)[0])
    clone = families.random_policy(S=S, A=A, H=H, rng=3)
    pi, _ = pessimistic_policy(mdp, clone, fit_reward(sample_preferences(mdp, clone, clone, 50, 0)), radius=2.0, prior=0.25)
    np.testing.assert_array_equal(pi[:, 1:], clone[:, 1:])


def test_bad_plans_are_refused():
    mdp, _ = setting()
    fit = fit_reward(sample_preferences(mdp, UNIFORM, UNIFORM, 20, 0))
    other = fit_reward(sample_preferences(*(families.random_mdp(S=5, A=A, H=H, rng=0),
                                            *[families.uniform_policy(H, 5, A)] * 2), 20, 0))
    good = {"radius": 1.0, "prior": 0.25}
    for args, more, message in (
        ((mdp, UNIFORM[:2], fit), good, r"clone must have shape \[H, S, A\]"),
        ((mdp, 2 * UNIFORM, fit), good, "clone must have rows"),
        ((mdp, np.full((H, S, A), np.nan), fit), good, "clone must be finite"),
        ((mdp, UNIFORM, other), good, "fit must be a RewardFit"),
        ((mdp, UNIFORM, 3), good, "fit must be a RewardFit"), ((mdp, UNIFORM, fit), good | {"radius": np.nan}, "radius must"),
        ((mdp, UNIFORM, fit), good | {"prior": 0.0}, "prior must"),
    ):
        with pytest.raises(ValueError, match=f"pessimistic_policy: {message}"):
            pessimistic_policy(*args, **more)
    learner = RLHF(beta=0.0, n_pairs=(50,), pessimism=1.0)
    for args, message in (
        ((mdp, UNIFORM[:2], fit, 0.0), "clone must have shape"), ((mdp, UNIFORM, other, 0.0), "fit must be a RewardFit"),
        ((mdp, UNIFORM, fit, -1.0), "beta must be a number"),
    ):
        with pytest.raises(ValueError, match=f"RLHF.plan: {message}"):
            learner.plan(*args)


def test_planners_that_do_not_fit_are_refused_at_once():
    with pytest.raises(ValueError, match="RLHF: planner must take the fitted reward as known; got reward = 'unknown'"):
        RLHF(beta=0.5, n_pairs=(10,), planner=UCBVIEnt(beta=1.0, eps=0.1, reward="unknown"))
    with pytest.raises(ValueError, match="UCBVIEnt: beta must be a number"):
        RLHF(beta=1e9, decay=1.0, n_pairs=(1, 1000), planner=UCBVIEnt(beta=1.0, eps=0.1))
    RLHF(beta=0.5, decay=1.0, n_pairs=(np.int64(10),), planner=UCBVIEnt(beta=1.0, eps=0.1))  # type: ignore[arg-type]
