"""RLHF: the composition is what it says, the oracle inequality, one-hot features, the pessimist against a convex program."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize

from mdpsim import MDP, LinearMDP, evaluate, fit_bc, occupancy, sample_counts, sample_preferences, solve_hard, solve_soft
from mdpsim.estimate.experts import epsilon_greedy_expert
from mdpsim.estimate.reward import fit_reward
from mdpsim.learn.pessimism import pessimistic_policy
from mdpsim.learn.rlhf import RLHF
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families
from mdpsim.papers.tiapkin2023.rlhf import oracle, predicted_error
from mdpsim.rng import generator

H, S, A = 3, 4, 3
LEARNER = RLHF(beta=0.2, n_pairs=(50, 400))


def setting(seed=0, n=50):
    mdp = families.random_mdp(S=S, A=A, H=H, rng=seed)
    expert = epsilon_greedy_expert(mdp, epsilon=0.05)
    return mdp, expert, sample_counts(mdp, expert, n, seed)


def test_a_run_is_clone_preferences_fit_plan():
    mdp, _, demos = setting()
    run = LEARNER.run(mdp, demos, 7)
    clone = fit_bc(demos)
    np.testing.assert_array_equal(run.clone, clone)
    prefs = sample_preferences(mdp, clone, clone, 400, generator(7))
    fit = fit_reward(prefs)
    np.testing.assert_allclose(run.fit.theta, fit.theta, atol=1e-6)
    np.testing.assert_allclose(run.fits[-1].r, fit.r, atol=1e-6)
    pi = solve_soft(MDP(mdp.P, run.fit.r, mdp.mu0), clone, 0.2).pi
    np.testing.assert_array_equal(run.pi, pi)
    best = float(mdp.mu0 @ solve_hard(mdp).V[0])
    assert run.losses[-1] == pytest.approx(best - evaluate(mdp, pi).J, abs=1e-14)
    assert run.cloning_loss == pytest.approx(best - evaluate(mdp, clone).J, abs=1e-14)
    assert run.kls[-1] == pytest.approx(evaluate(mdp, pi, pi_ref=clone).kl)
    assert run.n_pairs.tolist() == [50, 400]
    assert (run.episodes == 0).all()
    assert (run.certificates == 0).all()


def test_a_curve_is_the_method_on_prefixes():
    """The entry at n pairs is what a run with n pairs in all gives: fits to prefixes of one stream."""
    mdp, _, demos = setting()
    long, short = LEARNER.run(mdp, demos, 7), replace(LEARNER, n_pairs=(50,)).run(mdp, demos, 7)
    assert long.losses[0] == pytest.approx(short.losses[0], abs=1e-9)
    np.testing.assert_allclose(long.fits[0].r, short.fits[0].r, atol=1e-6)


def test_weights_follow_the_decay_and_zero_is_the_hard_optimum():
    mdp, _, demos = setting()
    run = RLHF(beta=3.0, decay=0.5, n_pairs=(100, 400)).run(mdp, demos, 1)
    np.testing.assert_allclose(run.betas, [0.3, 0.15])
    hard = RLHF(beta=0.0, n_pairs=(400,)).run(mdp, demos, 1)
    assert pytest.approx(
        float(mdp.mu0 @ solve_hard(MDP(mdp.P, hard.fit.r, mdp.mu0)).V[0]), abs=1e-12
    ) == evaluate(MDP(mdp.P, hard.fit.r, mdp.mu0), hard.pi).J
    huge = RLHF(beta=1e8, n_pairs=(400,)).run(mdp, demos, 1)
    np.testing.assert_allclose(huge.pi, huge.clone, atol=1e-7)
    assert huge.losses[-1] == pytest.approx(huge.cloning_loss, abs=1e-7)


def test_the_oracle_inequality_and_what_it_consists_of():
    """For the true reward the bound is beta KL; a constant a stage changes nothing; it holds for random rewards."""
    mdp, expert, demos = setting()
    clone = fit_bc(demos)
    sides = oracle(mdp, expert, clone, np.broadcast_to(mdp.r, (H, S, A)), 0.3)
    weight = 0.3 * evaluate(mdp, expert, pi_ref=clone).kl
    assert sides["bound"] == pytest.approx(weight, abs=1e-13)
    assert sides["mean_error"] == pytest.approx(weight, abs=1e-13)
    rng = generator(1)
    for _ in range(20):
        r = rng.random((H, S, A))
        pi = solve_soft(MDP(mdp.P, r, mdp.mu0), clone, 0.3).pi
        shifted = r + rng.normal(size=(H, 1, 1))  # a constant a stage is not identified, and cancels
        one, two = (oracle(mdp, expert, clone, x, 0.3)["bound"] for x in (r, shifted))
        assert one == pytest.approx(two, abs=1e-12)
        assert one + 1e-12 >= evaluate(mdp, expert).J - evaluate(mdp, pi).J


def test_predicted_error_is_the_delta_method():
    """(41) against a simulation of the score: the covariance of the normal limit by the information of pairs, drawn."""
    pi, r = np.array([0.5, 0.3, 0.2]), np.array([0.9, 0.1, 0.4])
    information = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            v = np.eye(3)[i] - np.eye(3)[j]
            p = 1 / (1 + np.exp(-(r[i] - r[j])))
            information += pi[i] * pi[j] * p * (1 - p) * np.outer(v, v)
    assert predicted_error(pi, r) == pytest.approx(
        np.trace(np.linalg.pinv(information) @ (np.diag(pi) - np.outer(pi, pi))), rel=1e-12
    )


def test_one_hot_features_agree_with_the_tabular_learner():
    """A linear MDP with phi = e_(s, a) is the tabular one: the same pairs, fit, policy and losses."""
    mdp = families.random_mdp(S=S, A=A, H=H, rng=5)
    phi = np.eye(S * A).reshape(S, A, S * A)
    linear = LinearMDP(phi, mdp.P.reshape(H, S * A, S), mdp.r.reshape(H, S * A), mdp.mu0)
    expert = epsilon_greedy_expert(mdp, epsilon=0.1)
    demos = sample_counts(mdp, expert, 50, 0)
    clone = fit_bc(demos)
    prefs = sample_preferences(mdp, clone, clone, 500, 3)
    fits = fit_reward(prefs), fit_reward(prefs, phi=phi)
    learner = RLHF(beta=0.1, n_pairs=(500,))
    plans = [learner.plan(m, clone, fit, 0.1).pi for m, fit in zip((mdp, linear), fits, strict=True)]
    np.testing.assert_allclose(plans[0], plans[1], atol=1e-6)
    run = learner.run(linear, demos, 3, clone=clone)
    assert run.fit.theta.shape == (H, S * A)
    assert run.losses[-1] == pytest.approx(evaluate(mdp, expert).J - evaluate(mdp, run.pi).J + (
        float(mdp.mu0 @ solve_hard(mdp).V[0]) - evaluate(mdp, expert).J), abs=1e-12)


def test_a_planner_may_explore():
    """P unknown: the policy is within the certificate of the regularised optimum for the fitted reward."""
    mdp, _, demos = setting()
    learner = RLHF(beta=0.5, n_pairs=(300,), planner=UCBVIEnt(beta=1.0, eps=0.2))
    run = learner.run(mdp, demos, 0)
    fitted = MDP(mdp.P, run.fit.r, mdp.mu0)
    best = float(mdp.mu0 @ solve_soft(fitted, run.clone, 0.5).V[0])
    gap = best - evaluate(fitted, run.pi, pi_ref=run.clone, beta=0.5).J
    assert 0.0 <= gap <= run.certificates[-1] <= 0.2
    assert run.episodes[-1] > 0


def objective(features, theta, radius, cov):
    return theta @ features - radius * np.sqrt(features @ cov @ features + 1e-6)


@pytest.mark.parametrize("radius", [0.0, 0.5, 3.0])
def test_the_pessimist_against_a_convex_program(radius):
    """One state, one stage: the simplex, by SLSQP from several starts; and by the duality gap in an MDP."""
    mdp, ref = families.bandit([0.9, 0.5, 0.1, 0.4]), np.array([0.6, 0.2, 0.15, 0.05]).reshape(1, 1, 4)
    fit = fit_reward(sample_preferences(mdp, ref, ref, 60, 0))
    pi, gap = pessimistic_policy(mdp, ref, fit, radius=radius, prior=0.25)
    cov = np.linalg.inv(np.linalg.inv(fit.cov) + np.eye(4) / 0.25)
    theta, base = fit.theta.ravel(), ref.ravel()
    value = objective(pi.ravel() - base, theta, radius, cov)
    others = [optimize.minimize(lambda p: -objective(p - base, theta, radius, cov), start, bounds=[(0, 1)] * 4,
                                constraints={"type": "eq", "fun": lambda p: p.sum() - 1}, method="SLSQP",
                                options={"ftol": 1e-12, "maxiter": 500})
              for start in (base, np.full(4, 0.25), np.eye(4)[0])]
    top = max(-o.fun for o in others)
    assert top - max(gap, 1e-3) <= value <= top + 1e-6
    assert pi.sum() == pytest.approx(1.0)


def test_the_pessimists_gap_bounds_what_other_policies_reach():
    mdp, _, demos = setting()
    clone = fit_bc(demos)
    fit = fit_reward(sample_preferences(mdp, clone, clone, 200, 0))
    pi, gap = pessimistic_policy(mdp, clone, fit, radius=2.0, prior=0.25)
    cov = np.linalg.inv(np.linalg.inv(fit.cov) + np.eye(36) / 0.25)

    def value(policy):
        d = (occupancy(mdp, policy)[:, :, None] * policy - occupancy(mdp, clone)[:, :, None] * clone).ravel()
        return objective(d, fit.theta.ravel(), 2.0, cov)

    mine = value(pi)
    assert gap < 0.02
    rng = generator(0)
    for weight in rng.random(50):
        other = (1 - weight) * pi + weight * rng.dirichlet(np.ones(A), (H, S))
        assert value(other) <= mine + gap + 1e-9
    for radius in (0.0,):
        greedy, _ = pessimistic_policy(mdp, clone, fit, radius=radius, prior=0.25)
        fitted = MDP(mdp.P, fit.r, mdp.mu0)
        assert pytest.approx(float(mdp.mu0 @ solve_hard(fitted).V[0]), abs=1e-3) == evaluate(fitted, greedy).J


BAD = [
    ({"beta": -1.0}, r"beta must be a number in \[0, inf\]"), ({"beta": np.inf}, "beta must be finite"),
    ({"beta": np.nan}, "beta must"), ({"n_pairs": ()}, "n_pairs must be a tuple"), ({"decay": 3.0}, "decay must"),
    ({"n_pairs": (3, 2)}, "n_pairs must increase"), ({"n_pairs": (0,)}, "n_pairs must be an integer >= 1"),
    ({"n_pairs": 5}, "n_pairs must be a tuple"),
    ({"low": 2.0}, "high must be above low"), ({"ridge": 0.0}, "ridge must"), ({"link": 3}, "link must"),
    ({"pessimism": 1.0}, "pessimism must come with beta = 0"), ({"pessimism": -1.0, "beta": 0.0}, "pessimism must"),
    ({"planner": 3}, "planner must be None or a UCBVIEnt"),
    ({"planner": UCBVIEnt(beta=1.0, eps=0.1), "high": 2.0}, r"low, high must lie in \[0, 1\]"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=f"RLHF: {message}"):
        replace(LEARNER, **change)


def test_a_planner_needs_a_weight():
    with pytest.raises(ValueError, match="UCBVIEnt: beta must be > 0"):
        RLHF(beta=0.0, n_pairs=(10,), planner=UCBVIEnt(beta=1.0, eps=0.1))


def test_bad_runs_are_refused():
    mdp, _, demos = setting()
    for args, message in (
        ((3, demos, 0), "mdp must be an MDP or a LinearMDP"), ((mdp, 3, 0), "demos must be Trajectories or Counts"),
        ((mdp, demos, "x"), "rng must be"),
        ((families.random_mdp(S=S + 1, A=A, H=H, rng=0), demos, 0), r"demos must be of H, S, A = \(3, 5, 3\)"),
    ):
        with pytest.raises(ValueError, match=f"RLHF.run: {message}"):
            LEARNER.run(*args)
    with pytest.raises(ValueError, match=r"RLHF.run: clone must have shape \[H, S, A\]"):
        LEARNER.run(mdp, demos, 0, clone=np.ones((2, 1, 1)))
    linear = families.linear_simplex(S=S, A=A, d=2, H=H, rng=0)
    with pytest.raises(ValueError, match="RLHF.run: mdp must be an MDP where a planner explores"):
        RLHF(beta=0.5, n_pairs=(10,), planner=UCBVIEnt(beta=1.0, eps=0.1)).run(linear, demos, 0)
