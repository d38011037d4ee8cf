"""solve/exact.py against 50-digit arithmetic, enumeration, a linear program and plain numpy; and its edges."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import tolerances
from mdpsim.kernels import _math, bellman
from mdpsim.kernels import evaluate as kernels
from mdpsim.mdp.tabular import MDP
from mdpsim.solve.exact import evaluate, occupancy, solve_hard, solve_soft, trajectory_kl
from reference import brute_force, instances, linear_program, mp_solver, plain

BETAS = (1e-8, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e8, 0.0, math.inf)
SCALES = (1e-6, 1e-3, 1.0, 1e3, 1e6)
SHAPES = list(itertools.product(range(1, 7), range(1, 7), range(1, 6)))


def instance(index, H, S, A):
    """(mdp, pi_ref): kernel, reference, scale and stationarity all vary with the index."""
    rng = np.random.default_rng(index)
    kernel = ("dirichlet", "deterministic")[index % 2]
    kind = instances.REFERENCES[index % 5]
    mdp = instances.mdp(rng, H, S, A, scale=SCALES[index // 5 % 5], kernel=kernel, stationary=index % 3 == 0)
    return mdp, instances.policy(rng, H, S, A, kind)


def check_solution(solution, mdp, ref, beta):
    """V within the contract; pi within its conditioning; rows sum to one; exact zeros; no NaN; read-only."""
    H, S, A = ref.shape
    V, _, pi = mp_solver.solve_soft(mdp, ref, beta)
    scale = float(abs(V).max())
    assert float(abs(solution.V - V).max()) <= tolerances.value(H, S, A, scale)
    assert np.isfinite(solution.pi).all()
    assert np.isfinite(solution.Q).all()
    assert np.all(solution.pi[ref == 0.0] == 0.0)
    assert np.all(solution.V[H] == 0.0)
    assert np.abs(solution.pi.sum(axis=-1) - 1.0).max() <= tolerances.row_sum(A)
    assert not any(x.flags.writeable for x in solution)
    scale_q = max(scale, float(np.abs(solution.Q).max()))
    relative = tolerances.policy(H, S, A, scale_q, beta) if beta > 0.0 else A * tolerances.EPS
    floor = tolerances.policy_floor(float(ref[ref > 0.0].min()))
    if relative < 0.1:
        assert np.all(abs(solution.pi - pi) <= relative * pi + floor)


@pytest.mark.parametrize("H", range(1, 7))
def test_solve_soft_against_fifty_digits_at_every_shape_and_beta(H):
    for index, (h, S, A) in enumerate(SHAPES):
        if h == H:
            mdp, ref = instance(index, H, S, A)
            for beta in BETAS:
                check_solution(solve_soft(mdp, ref, beta), mdp, ref, beta)


@pytest.mark.parametrize("kind", instances.REFERENCES)
@pytest.mark.parametrize("kernel", ["dirichlet", "deterministic"])
def test_solve_soft_against_fifty_digits_at_every_scale(kind, kernel):
    rng = np.random.default_rng(7)
    for scale, beta in itertools.product(SCALES, BETAS):
        mdp = instances.mdp(rng, 3, 3, 4, scale=scale, kernel=kernel)
        ref = instances.policy(rng, 3, 3, 4, kind)
        check_solution(solve_soft(mdp, ref, beta), mdp, ref, beta)


@pytest.mark.parametrize("beta", [5e-324, 1e-310, 1e-300, 1e-100, 1e15, 1e18, 1e100, 1e300, 1.7e308])
@pytest.mark.parametrize("kind", instances.REFERENCES)
def test_betas_far_outside_the_contract_are_right_too(beta, kind):
    rng = np.random.default_rng(3)
    mdp, ref = instances.mdp(rng, 3, 4, 3), instances.policy(rng, 3, 4, 3, kind)
    check_solution(solve_soft(mdp, ref, beta), mdp, ref, beta)


def test_an_unlikely_action_of_large_value_does_not_spoil_the_digits():
    """Needs the pivot by weight: from the largest q = 1e6, V = 1 would lose six digits."""
    mdp = MDP(np.ones((1, 1, 2, 1)), [[[1e6, 1.0]]], [1.0])
    for beta in (1e5, 1e4, 3e3):
        check_solution(solve_soft(mdp, [[[1e-300, 1.0]]], beta), mdp, np.array([[[1e-300, 1.0]]]), beta)


def test_large_beta_keeps_relative_accuracy():
    """Needs log1p of the excess: log(sum) loses beta * eps. V must be right to a relative 1e-13 of itself."""
    mdp = MDP(np.ones((1, 1, 2, 1)), [[[0.0, 1e-3]]], [1.0])
    V, _, _ = mp_solver.solve_soft(mdp, [[[0.25, 0.75]]], 1e8)
    assert solve_soft(mdp, [[[0.25, 0.75]]], 1e8).V[0, 0] == pytest.approx(float(V[0, 0]), rel=4 * tolerances.EPS)


# --- the hard optimum


def test_solve_hard_against_enumeration_of_every_policy():
    rng = np.random.default_rng(1)
    for H, S, A in [(1, 2, 3), (2, 2, 3), (3, 2, 2), (2, 3, 2)]:
        for start in ("dirichlet", "first"):
            mdp = instances.mdp(rng, H, S, A, start=start)
            best = brute_force.hard_optimum(mdp, np.ones((H, S, A)))
            assert mdp.mu0 @ solve_hard(mdp).V[0] == pytest.approx(best, rel=tolerances.KERNEL)
            ref = instances.policy(rng, H, S, A, "zeros")
            best = brute_force.hard_optimum(mdp, ref)
            assert mdp.mu0 @ solve_soft(mdp, ref, 0.0).V[0] == pytest.approx(best, rel=tolerances.KERNEL)


def test_solve_hard_against_a_linear_program():
    rng = np.random.default_rng(2)
    for H, S, A, scale in [(3, 4, 3, 1.0), (6, 5, 2, 1.0), (5, 8, 4, 1e3), (10, 6, 3, 1.0)]:
        mdp = instances.mdp(rng, H, S, A, scale=scale)
        best, x = linear_program.optimum(mdp)
        solution = solve_hard(mdp)
        tolerance = tolerances.LINEAR_PROGRAM * H * S * scale
        assert mdp.mu0 @ solution.V[0] == pytest.approx(best, abs=tolerance)
        np.testing.assert_allclose(occupancy(mdp, solution.pi), x.sum(axis=-1), atol=tolerance)


def test_ties_share_in_proportion_to_the_reference():
    ulp = np.spacing(1.0)
    rewards = [1.0, 1.0 - 4 * ulp, 1.0 - 6 * ulp, 1.0, 5.0]
    mdp = MDP(np.ones((1, 1, 5, 1)), [[rewards]], [1.0])
    ref = [[[0.1, 0.3, 0.2, 0.4, 0.0]]]  # the best action is forbidden, and its |q| does not widen the ties
    solution = solve_soft(mdp, ref, 0.0)
    np.testing.assert_allclose(solution.pi[0, 0], [0.125, 0.375, 0.0, 0.5, 0.0], rtol=4 * tolerances.EPS)
    assert solution.V[0, 0] == 1.0
    np.testing.assert_array_equal(solve_hard(mdp).pi[0, 0], [0, 0, 0, 0, 1])
    two = MDP(np.ones((1, 1, 3, 1)), [[[2.0, 2.0, 1.0]]], [1.0])
    np.testing.assert_array_equal(solve_hard(two).pi[0, 0], [0.5, 0.5, 0])


def test_the_width_of_a_tie_is_that_of_the_largest_magnitude():
    low = -1024.0  # 4 ulp of 1024 are 9.1e-13, far more than 4 ulp of the top value
    mdp = MDP(np.ones((1, 1, 3, 1)), [[[1.0, 1.0 - 8e-13, low]]], [1.0])
    np.testing.assert_allclose(solve_hard(mdp).pi[0, 0], [0.5, 0.5, 0.0])
    narrow = MDP(np.ones((1, 1, 2, 1)), [[[1.0, 1.0 - 8e-13]]], [1.0])
    np.testing.assert_array_equal(solve_hard(narrow).pi[0, 0], [1.0, 0.0])


def test_beta_infinite_is_the_reference_itself():
    rng = np.random.default_rng(4)
    mdp, ref = instances.mdp(rng, 4, 3, 3), instances.policy(rng, 4, 3, 3, "zeros")
    solution = solve_soft(mdp, ref, math.inf)
    np.testing.assert_allclose(solution.pi, ref, rtol=tolerances.EPS)
    np.testing.assert_allclose(solution.V, evaluate(mdp, ref).V, rtol=tolerances.KERNEL)


# --- values of a policy


@pytest.mark.parametrize("kernel", ["dirichlet", "deterministic"])
@pytest.mark.parametrize("beta", [b for b in BETAS if b < math.inf])
def test_evaluate_against_fifty_digits(kernel, beta):
    rng = np.random.default_rng(5)
    for H, S, A, kind in [(1, 1, 1, "dirichlet"), (4, 3, 3, "zeros"), (6, 4, 2, "tiny"), (3, 6, 5, "spread")]:
        mdp, ref = instances.mdp(rng, H, S, A, kernel=kernel), instances.policy(rng, H, S, A, kind)
        pi = ref * rng.uniform(0.1, 1.0, size=ref.shape)
        pi /= pi.sum(axis=-1, keepdims=True)
        found = evaluate(mdp, pi, pi_ref=ref, beta=beta)
        V, _, J = mp_solver.evaluate(mdp, pi, ref, beta)
        assert float(abs(found.V - V).max()) <= tolerances.value(H, S, A, float(abs(V).max()))
        assert float(abs(found.J - J)) <= tolerances.value(H, S, A, float(abs(V).max()))
        assert found.kl == pytest.approx(float(mp_solver.trajectory_kl(mdp, pi, ref)), rel=tolerances.KL)
        assert isinstance(found.J, float)
        assert isinstance(found.kl, float)


def test_evaluate_and_occupancy_against_every_trajectory():
    rng = np.random.default_rng(6)
    for kind in ("dirichlet", "zeros", "deterministic"):
        mdp, pi = instances.mdp(rng, 3, 3, 2), instances.policy(rng, 3, 3, 2, kind)
        other = instances.policy(rng, 3, 3, 2)
        _, _, J, _ = evaluate(mdp, pi)
        assert pytest.approx(brute_force.value(mdp, pi), rel=tolerances.KERNEL) == J
        np.testing.assert_allclose(occupancy(mdp, pi), brute_force.occupancy(mdp, pi), atol=tolerances.KERNEL)
        expected = brute_force.trajectory_kl(mdp, pi, other)
        assert trajectory_kl(mdp, pi, other) == pytest.approx(expected, rel=tolerances.KERNEL)


def test_the_optimal_policy_is_worth_its_value():
    rng = np.random.default_rng(8)
    for beta in (1e-2, 1.0, 1e2):
        mdp, ref = instances.mdp(rng, 5, 6, 4), instances.policy(rng, 5, 6, 4, "zeros")
        solution = solve_soft(mdp, ref, beta)
        found = evaluate(mdp, solution.pi, pi_ref=ref, beta=beta)
        np.testing.assert_allclose(found.V, solution.V, atol=tolerances.KERNEL * np.abs(solution.V).max())


def test_evaluate_without_a_reference_reports_no_divergence():
    rng = np.random.default_rng(9)
    mdp, pi = instances.mdp(rng, 3, 4, 2), instances.policy(rng, 3, 4, 2)
    found = evaluate(mdp, pi)
    assert found.kl == 0.0
    assert not found.V.flags.writeable
    assert not found.Q.flags.writeable


def fork():
    """Two stages; action 0 keeps state 0, action 1 leads to state 1; state 2 leads to 1 with either action."""
    P = np.zeros((1, 3, 2, 3))
    P[0, 0, 0, 0] = P[0, 0, 1, 1] = P[0, 1, :, 1] = P[0, 2, :, 1] = 1.0
    return MDP(P, np.ones((1, 3, 2)), [1.0, 0.0, 0.0], horizon=2)


def test_beta_infinite_ruins_exactly_the_states_that_reach_a_divergence():
    mdp, ref = fork(), np.full((2, 3, 2), 0.5)
    pi = ref.copy()
    pi[1, 1] = [0.25, 0.75]  # the only divergence: stage 1, state 1
    pi[0, 0] = [1.0, 0.0]  # would diverge too
    ref[0, 0] = [1.0, 0.0]  # so the reference follows it: state 1 is out of reach from state 0
    found = evaluate(mdp, pi, pi_ref=ref, beta=math.inf)
    assert found.V[0].tolist() == [2.0, -math.inf, -math.inf]
    assert found.V[1].tolist() == [1.0, -math.inf, 1.0]
    assert found.V[2].tolist() == [0.0, 0.0, 0.0]
    assert found.Q[0, 0].tolist() == [2.0, -math.inf]  # the action that pi never takes leads to ruin
    assert found.J == 2.0  # 0 * inf = 0
    assert found.kl == 0.0
    pi[0, 0] = ref[0, 0] = [0.5, 0.5]
    found = evaluate(mdp, pi, pi_ref=ref, beta=math.inf)
    assert np.isneginf(found.J)
    assert 0.0 < found.kl < math.inf
    assert not np.isnan(found.Q).any()


def test_cover_missing_matters_only_where_there_is_mass():
    mdp, pi, other = fork(), np.full((2, 3, 2), 0.5), np.full((2, 3, 2), 0.5)
    other[:, 2] = [1.0, 0.0]  # state 2 is never reached: 0 * inf = 0
    assert trajectory_kl(mdp, pi, other) == 0.0
    assert evaluate(mdp, pi, pi_ref=other).kl == 0.0
    other[1, 1] = [1.0, 0.0]
    assert trajectory_kl(mdp, pi, other) == math.inf
    found = evaluate(mdp, pi, pi_ref=other, beta=0.0)
    assert found.kl == math.inf
    assert found.J == 2.0


@pytest.mark.parametrize("beta", [1e-8, 1.0, math.inf])
def test_a_policy_off_the_support_is_refused_at_any_state(beta):
    mdp, pi, ref = fork(), np.full((2, 3, 2), 0.5), np.full((2, 3, 2), 0.5)
    ref[1, 2] = [1.0, 0.0]  # never reached, refused all the same
    with pytest.raises(ValueError, match=r"evaluate: pi must stay on pi_ref's support.*\(h, s, a\) = \(1, 2, 1\)"):
        evaluate(mdp, pi, pi_ref=ref, beta=beta)


# --- divergence and occupancy


@pytest.mark.parametrize("distance", [1e-12, 1e-8, 1e-4, 1e-2, 0.3])
def test_kl_keeps_its_digits_where_the_policies_are_close(distance):
    rng = np.random.default_rng(10)
    mdp, other = instances.mdp(rng, 4, 3, 3), instances.policy(rng, 4, 3, 3)
    pi = other * (1.0 + distance * rng.uniform(-1.0, 1.0, size=other.shape))
    pi /= pi.sum(axis=-1, keepdims=True)
    truth = mp_solver.trajectory_kl(mdp, pi, other)
    # rows whose mass is one only up to rounding are felt to second order: (a few eps)^2
    assert abs(trajectory_kl(mdp, pi, other) - float(truth)) <= tolerances.KL * float(truth) + 64 * tolerances.EPS**2


def test_occupancy_of_a_long_horizon_sums_to_one():
    rng = np.random.default_rng(11)
    row = [0.5, 0.5 + 2 * tolerances.EPS]  # as good as one, and kept as it is: unchecked, 3000 stages would add up
    mdp = MDP(np.broadcast_to(row, (1, 2, 1, 2)), np.zeros((1, 2, 1)), [0.5, 0.5], horizon=3000)
    assert mdp.P[0, 0, 0].tolist() == row
    occ = occupancy(mdp, np.ones((3000, 2, 1)))
    assert np.abs(occ.sum(axis=1) - 1.0).max() <= tolerances.row_sum(2)
    small = instances.mdp(rng, 5, 4, 3)
    policy = instances.policy(rng, 5, 4, 3)
    assert float(abs(occupancy(small, policy) - mp_solver.occupancy(small, policy)).max()) <= 5 * 12 * tolerances.EPS


# --- kernels: larger shapes against plain numpy, and as plain Python


@pytest.mark.parametrize(("H", "S", "A"), [(3, 40, 7), (2, 130, 3), (30, 9, 17)])
def test_larger_shapes_against_plain_numpy(H, S, A):
    rng = np.random.default_rng(12)
    mdp, ref = instances.mdp(rng, H, S, A), instances.policy(rng, H, S, A)
    for found, expected in [
        (solve_soft(mdp, ref, 0.3), plain.solve_soft(mdp, ref, 0.3)),
        (solve_hard(mdp), plain.solve_hard(mdp)),
        (evaluate(mdp, ref)[:2], plain.evaluate(mdp, ref)),
    ]:
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=tolerances.KERNEL, atol=tolerances.KERNEL)
    pi = solve_soft(mdp, ref, 0.3).pi
    np.testing.assert_allclose(occupancy(mdp, pi), plain.occupancy(mdp, pi), rtol=tolerances.KERNEL)
    assert trajectory_kl(mdp, pi, ref) == pytest.approx(plain.trajectory_kl(mdp, pi, ref), rel=tolerances.KERNEL)


@pytest.fixture
def plain_python(monkeypatch):
    """Every kernel and every callee as plain Python."""
    for module in (_math, bellman, kernels):
        for name, value in list(vars(module).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)


@pytest.mark.parametrize("beta", [0.0, 1e-4, 1.0, 1e8, math.inf])
def test_kernels_as_plain_python_agree_with_the_contract(plain_python, beta):
    rng = np.random.default_rng(13)
    mdp, ref = instances.mdp(rng, 3, 3, 3), instances.policy(rng, 3, 3, 3, "zeros")
    with np.errstate(all="ignore"):
        solution = solve_soft(mdp, ref, beta)
        check_solution(solution, mdp, ref, beta)
        found = evaluate(mdp, solution.pi, pi_ref=ref, beta=min(beta, 1e8))
        occ = occupancy(mdp, solution.pi)
    V, _, _ = mp_solver.evaluate(mdp, solution.pi, ref, min(beta, 1e8))
    assert float(abs(found.V - V).max()) <= tolerances.value(3, 3, 3, float(abs(V).max()))
    assert float(abs(occ - mp_solver.occupancy(mdp, solution.pi)).max()) <= 3 * 12 * tolerances.EPS


def test_ruin_as_plain_python(plain_python):
    with np.errstate(all="ignore"):
        test_beta_infinite_ruins_exactly_the_states_that_reach_a_divergence()
