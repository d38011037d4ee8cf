"""Properties that hold on every MDP (hypothesis): Bellman's equation, mass, order in beta, invariances, occupancy."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import tolerances
from mdpsim.mdp.tabular import MDP
from mdpsim.solve.exact import evaluate, occupancy, solve_hard, solve_soft, trajectory_kl
from reference import instances

few = settings(max_examples=60, deadline=None, derandomize=True)  # no deadline: the first example compiles


@st.composite
def problems(draw, kinds=instances.REFERENCES):
    """(mdp, pi_ref) of any small shape, kernel, scale and kind of reference."""
    H, S, A = draw(st.integers(1, 6)), draw(st.integers(1, 7)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kernel, start = draw(st.sampled_from(["dirichlet", "deterministic"])), draw(st.sampled_from(["dirichlet", "first"]))
    scale, stationary = 10.0 ** draw(st.integers(-6, 6)), draw(st.booleans())
    mdp = instances.mdp(rng, H, S, A, scale=scale, kernel=kernel, stationary=stationary, start=start)
    return mdp, instances.policy(rng, H, S, A, draw(st.sampled_from(kinds)))


betas = st.floats(-8, 8).map(lambda x: 10.0**x) | st.sampled_from([0.0, math.inf])


def scale_of(mdp):
    """The largest value there can be."""
    return mdp.H * float(np.abs(mdp.r).max())


def tolerance(mdp):
    """Absolute tolerance of an identity between values."""
    return 4 * tolerances.value(mdp.H, mdp.S, mdp.A, scale_of(mdp))


@few
@given(problems(), betas)
def test_bellman_residual_and_mass(problem, beta):
    mdp, ref = problem
    V, Q, pi = solve_soft(mdp, ref, beta)
    following = np.einsum("hsaj,hj->hsa", np.broadcast_to(mdp.P, (mdp.H, *mdp.P.shape[1:])), V[1:])
    np.testing.assert_allclose(Q, mdp.r + following, atol=tolerance(mdp), rtol=0)
    assert np.abs(pi.sum(axis=-1) - 1.0).max() <= tolerances.row_sum(mdp.A)
    assert np.all(pi >= 0.0)
    assert np.all(pi[ref == 0.0] == 0.0)
    supported = np.where(ref > 0.0, Q, -np.inf).max(axis=-1)
    mean = (ref * Q).sum(axis=-1)
    assert np.all(V[:-1] <= supported + tolerance(mdp))
    assert np.all(V[:-1] >= mean - tolerance(mdp))


@few
@given(problems(), st.lists(betas, min_size=2, max_size=4))
def test_values_fall_as_beta_grows(problem, weights):
    mdp, ref = problem
    values = [solve_soft(mdp, ref, beta).V for beta in sorted(weights)]
    assert all(np.all(one >= other - tolerance(mdp)) for one, other in itertools.pairwise(values))
    hard = solve_hard(mdp)
    assert np.all(values[0] - hard.V <= tolerance(mdp))


@few
@given(problems(), betas, st.floats(-3, 3))
def test_shifting_rewards_shifts_values_and_leaves_the_policy(problem, beta, shift):
    mdp, ref = problem
    step = shift * float(np.abs(mdp.r).max())
    moved = MDP(mdp.P, mdp.r + step, mdp.mu0, horizon=mdp.H)
    left = np.arange(mdp.H, -1, -1.0)[:, None]
    one, other = solve_soft(mdp, ref, beta), solve_soft(moved, ref, beta)
    np.testing.assert_allclose(other.V, one.V + left * step, atol=4 * tolerance(mdp), rtol=0)
    if beta > 1e-3 * scale_of(mdp):
        relative = 8 * tolerances.policy(mdp.H, mdp.S, mdp.A, 4 * scale_of(mdp), beta)
        np.testing.assert_allclose(other.pi, one.pi, rtol=relative, atol=tolerances.policy_floor(1e-300))


@few
@given(problems(), betas, st.integers(-8, 8))
def test_scaling_rewards_and_beta_by_a_power_of_two_is_exact(problem, beta, exponent):
    mdp, ref = problem
    factor = 2.0**exponent
    one = solve_soft(mdp, ref, beta)
    other = solve_soft(MDP(mdp.P, mdp.r * factor, mdp.mu0, horizon=mdp.H), ref, beta * factor)
    np.testing.assert_array_equal(other.V, one.V * factor)
    np.testing.assert_array_equal(other.pi, one.pi)


@few
@given(problems(), betas, st.randoms(use_true_random=False))
def test_renaming_states_and_actions_renames_the_solution(problem, beta, random):
    mdp, ref = problem
    states, actions = random.sample(range(mdp.S), mdp.S), random.sample(range(mdp.A), mdp.A)
    P = mdp.P[:, states][:, :, actions][..., states]
    renamed = MDP(P, mdp.r[:, states][:, :, actions], mdp.mu0[states], horizon=mdp.H)
    V = solve_soft(mdp, ref, beta).V[:, states]
    np.testing.assert_allclose(
        solve_soft(renamed, ref[:, states][:, :, actions], beta).V, V, atol=tolerance(mdp), rtol=0
    )


@few
@given(problems(("dirichlet", "zeros", "deterministic")), betas, st.integers(0, 2**32 - 1))
def test_no_policy_beats_the_optimum(problem, beta, seed):
    mdp, ref = problem
    pi = ref * np.random.default_rng(seed).uniform(0.01, 1.0, size=ref.shape)
    pi /= pi.sum(axis=-1, keepdims=True)
    best = solve_soft(mdp, ref, beta)
    rival = evaluate(mdp, pi, pi_ref=ref, beta=beta)
    slack = tolerance(mdp)
    finite = np.isfinite(rival.V)
    slack = slack + 64 * tolerances.EPS * np.abs(rival.V[finite])  # a large beta times KL may dwarf the rewards
    assert np.all(rival.V[finite] <= best.V[finite] + slack)


@few
@given(problems(), st.integers(0, 2**32 - 1))
def test_values_decompose_over_the_occupancy(problem, seed):
    mdp, ref = problem
    rng = np.random.default_rng(seed)
    pi = ref * rng.uniform(0.1, 1.0, size=ref.shape)
    pi /= pi.sum(axis=-1, keepdims=True)
    occ = occupancy(mdp, pi)
    assert np.abs(occ.sum(axis=1) - 1.0).max() <= tolerances.row_sum(mdp.S)
    assert np.all(occ >= 0.0)
    plain = evaluate(mdp, pi, pi_ref=ref)
    assert abs(plain.J - float((occ[:, :, None] * pi * mdp.r).sum())) <= tolerance(mdp)
    beta = scale_of(mdp)
    weighed = evaluate(mdp, pi, pi_ref=ref, beta=beta)
    assert weighed.kl == plain.kl
    assert abs(plain.kl - trajectory_kl(mdp, pi, ref)) <= tolerances.KL * plain.kl  # backward and forward
    assert abs(weighed.J - (plain.J - beta * plain.kl)) <= tolerance(mdp) * (1.0 + plain.kl)


@few
@given(problems(), st.integers(0, 2**32 - 1))
def test_kl_is_never_negative_and_zero_only_for_equal_policies(problem, seed):
    mdp, ref = problem
    assert trajectory_kl(mdp, ref, ref) == 0.0
    other = instances.policy(np.random.default_rng(seed), *ref.shape)
    assert trajectory_kl(mdp, ref, other) >= 0.0
    assert trajectory_kl(mdp, other, ref) >= 0.0


@few
@given(problems(("dirichlet", "zeros")))
def test_the_soft_optimum_is_worth_its_value_at_every_state(problem):
    mdp, ref = problem
    beta = scale_of(mdp) / 4
    best = solve_soft(mdp, ref, beta)
    found = evaluate(mdp, best.pi, pi_ref=ref, beta=beta)
    np.testing.assert_allclose(found.V, best.V, atol=4 * tolerance(mdp), rtol=0)
