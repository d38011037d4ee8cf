"""BPI-UCBVI, the baseline without the KL term, and learners that do not know the rewards or use Bernstein bonuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mdpsim import MDP, evaluate, solve_hard, solve_soft
from mdpsim.learn.ucbvi import UCBVI
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families

H, S, A = 3, 4, 2
UNIFORM = families.uniform_policy(H, S, A)


@pytest.mark.parametrize("reward", ["known", "unknown"])
@pytest.mark.parametrize("bonus", ["hoeffding", "bernstein"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_bounds_hold_and_certificates_are_above_exact_gaps(beta, bonus, reward):
    """At every checkpoint of a run with the full bonus; the policy at the end is worth what the trace says."""
    setting = {"eps": 0.3, "budget": 10**5, "bonus": bonus, "reward": reward}
    for seed in range(3):
        mdp = families.random_mdp(S=S, A=A, H=H, rng=seed)
        trace = (UCBVIEnt(beta=beta, **setting) if beta else UCBVI(**setting)).run(mdp, UNIFORM, seed)
        best = solve_soft(mdp, UNIFORM, beta)
        assert trace.violation <= 1e-12
        assert (trace.gaps <= trace.certificates).all()
        assert (trace.gaps >= -1e-13).all()
        assert (trace.widths > 0).all()
        value = evaluate(mdp, trace.pi, pi_ref=UNIFORM, beta=beta)
        assert trace.gap == pytest.approx(float(mdp.mu0 @ best.V[0]) - value.J, abs=1e-13)
        assert ((trace.lower <= best.Q + 1e-12) & (trace.upper + 1e-12 >= best.Q)).all()


def test_the_baseline_is_greedy_and_finds_the_optimum():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    trace = UCBVI(eps=0.05).run(mdp, UNIFORM, 0)
    assert trace.status == "stopped"
    assert trace.certificate <= 0.05
    greedy = trace.upper == trace.upper.max(axis=-1, keepdims=True)
    np.testing.assert_array_equal(trace.pi > 0, greedy)
    assert float(mdp.mu0 @ solve_hard(mdp).V[0]) - evaluate(mdp, trace.pi).J <= 0.05
    assert trace.n_episodes == trace.visits[0].sum()


def test_the_baseline_stays_on_the_support_and_compares_with_the_optimum_there():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    best = solve_hard(mdp).pi
    ref = np.where(best > 0, 0.0, 1.0)  # the optimal actions are forbidden
    ref /= ref.sum(axis=-1, keepdims=True)
    trace = UCBVI(eps=0.1).run(mdp, ref, 0)
    assert trace.visits[best > 0].sum() == 0
    assert trace.gap == pytest.approx(0.0, abs=1e-13)  # A = 2: one action is left


def test_without_strong_convexity_more_episodes_are_needed():
    """The same target: with beta = 1 the certificate falls as 1/n, without as its root."""
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    fast, slow = (learner.run(mdp, UNIFORM, 0).n_episodes for learner in (UCBVIEnt(beta=1.0, eps=0.05), UCBVI(eps=0.05)))
    assert slow > 10 * fast


def test_unknown_rewards_are_bernoulli_draws_of_their_mean():
    """At the last stage the band is rhat -+ radius: rhat n is a whole number, binomial around r."""
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    trace = UCBVIEnt(beta=1e8, eps=1e-12, reward="unknown", explore=False, budget=40_000).run(mdp, UNIFORM, 1)
    n, r = trace.visits[-1].astype(float), mdp.r[-1]
    logs = np.log(3 * S * A * H * np.sqrt(n + 1) / 0.1)
    radius = np.sqrt((1 + 1 / n) * logs / (2 * n))
    inside = (trace.upper[-1] < 1.0) & (trace.lower[-1] > 0.0)
    assert inside.sum() >= 4
    total = (0.5 * (trace.upper[-1] + trace.lower[-1]) * n)[inside]
    np.testing.assert_allclose(total, np.round(total), atol=1e-6)
    np.testing.assert_allclose(0.5 * (trace.upper[-1] - trace.lower[-1])[inside], radius[inside], rtol=1e-12)
    z = (total - (n * r)[inside]) / np.sqrt((n * r * (1 - r))[inside])
    assert stats.chi2.sf(float(z @ z), z.size) > 1e-4


def test_known_rewards_draw_the_same_episodes_as_unknown_ones():
    """Streams of a learner that never plans again differ in nothing but the rewards seen."""
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    runs = [UCBVIEnt(beta=1e8, eps=1e-12, reward=reward, explore=False, budget=200).run(mdp, UNIFORM, 3)
            for reward in ("known", "unknown")]
    np.testing.assert_array_equal(runs[0].visits, runs[1].visits)


def test_all_zero_rewards_are_no_linear_limit():
    """Bounds are of order H whatever the rewards: the policy is soft in the upper values, and not the reference."""
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    trace = UCBVIEnt(beta=0.1, eps=1e-12, budget=500).run(MDP(mdp.P, np.zeros((H, S, A)), mdp.mu0), UNIFORM, 0)
    weight = np.exp((trace.upper - trace.upper.max(axis=-1, keepdims=True)) / 0.1)
    np.testing.assert_allclose(trace.pi, weight / weight.sum(axis=-1, keepdims=True), atol=1e-12)
    assert abs(trace.pi - UNIFORM).max() > 0.01


def test_exploration_deviates_at_the_last_stage_too():
    """A bandit whose reference hardly plays one arm, rewards unknown: half of the episodes deviate, at the only stage."""
    learner = UCBVIEnt(beta=1e8, eps=1e-12, reward="unknown", budget=200)
    trace = learner.run(families.bandit([0.5, 0.5]), np.array([[[0.999, 0.001]]]), 0)
    assert trace.visits.min() > 40


def test_sparse_plannings_leave_no_repeated_rows():
    trace = UCBVI(eps=1e-12, replan=1e3, budget=5000).run(families.random_mdp(S=S, A=A, H=H, rng=0), UNIFORM, 0)
    assert (np.diff(trace.episodes) > 0).all()
    assert trace.episodes[-1] == 5000


EXTREMES = [{"budget": 1}, {"replan": 0.0}, {"bonus_scale": 0.0}, {"bonus_scale": 1e6}, {"eps": 1e-12}, {"delta": 1e-12},
            {"stop": "width", "replan": 1e3}]


@pytest.mark.parametrize("reward", ["known", "unknown"])
@pytest.mark.parametrize("bonus", ["hoeffding", "bernstein"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 3, 5), (4, 1, 3), (7, 2, 1), (20, 3, 4)])
def test_extreme_settings_give_numbers_and_valid_bounds(sizes, bonus, reward):
    n_states, n_actions, horizon = sizes
    mdp = families.random_mdp(S=n_states, A=n_actions, H=horizon, rng=1)
    ref = families.uniform_policy(horizon, n_states, n_actions)
    for change in EXTREMES:
        setting = {"eps": 0.1, "budget": 200, "bonus": bonus, "reward": reward} | change
        for learner in (UCBVI(**setting), UCBVIEnt(beta=1e-8, **setting), UCBVIEnt(beta=1e8, **setting)):
            trace = learner.run(mdp, ref, 0)
            assert all(np.isfinite(np.asarray(x, float)).all() for x in trace if not isinstance(x, str)), change
            if change.get("bonus_scale", 1.0) >= 1.0:
                assert trace.violation <= 1e-10, change
                assert (trace.gaps <= trace.certificates + 1e-9 * horizon).all(), change


BAD = [
    ({"eps": 0.0}, "eps must"), ({"delta": 1.0}, "delta must"), ({"delta": 0.0}, "delta must"),
    ({"replan": -1.0}, "replan must"), ({"bonus": "none"}, "bonus must be one of"), ({"reward": 3}, "reward must be one of"),
    ({"stop": "soon"}, "stop must be one of"), ({"bonus_scale": -1.0}, "bonus_scale must"), ({"budget": 0}, "budget must"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=f"UCBVI: {message}"):
        replace(UCBVI(eps=0.1), **change)


def test_bad_runs_are_refused():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    with pytest.raises(ValueError, match=r"UCBVI.run: pi_ref must have shape \[H, S, A\] = \(3, 4, 2\)"):
        UCBVI(eps=0.1).run(mdp, UNIFORM[:2], 0)
    with pytest.raises(ValueError, match=r"UCBVI.run: mdp must have rewards in \[0, 1\]; got \[0, 2\]"):
        UCBVI(eps=0.1).run(families.bandit([0.0, 2.0]), np.full((1, 1, 2), 0.5), 0)
    with pytest.raises(ValueError, match="UCBVI.run: mdp must be an MDP with dense P; got str"):
        UCBVI(eps=0.1).run("mdp", UNIFORM, 0)  # type: ignore[arg-type]
