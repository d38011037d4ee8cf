"""Discounted MDPs: the certificate against 50-digit optima, linear programs and linear systems; textbooks; properties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import logsumexp, rel_entr

import tolerances
from mdpsim.kernels import bellman, successors
from mdpsim.kernels import discounted as kernels
from mdpsim.mdp.discounted import DiscountedMDP
from mdpsim.mdp.successors import Successors
from mdpsim.solve.discounted import METHODS, Status, evaluate_discounted, solve_discounted
from reference import instances, mp_discounted

few = settings(max_examples=40, deadline=None, derandomize=True)
BETAS = [0.0, 1e-8, 1e-3, 0.1, 1.0, 30.0, 1e8, math.inf]
GAMMAS = [0.0, 0.3, 0.9, 0.99, 0.9999]


def random_problem(rng, S, A, gamma, *, kernel="dirichlet", reference="dirichlet", scale=1.0):
    """(DiscountedMDP, pi_ref [S, A]) from the instances of the finite horizon."""
    mdp = instances.mdp(rng, 1, S, A, scale=scale, kernel=kernel)
    return DiscountedMDP(mdp.P[0], mdp.r[0], gamma), instances.policy(rng, 1, S, A, reference)[0]


def as_sparse(mdp):
    """The same MDP with all S successors stored, in reversed order, and one cell of padding."""
    S, A = mdp.S, mdp.A
    ids = np.broadcast_to(np.append(np.arange(S)[::-1], 0), (1, S, A, S + 1))
    prob = np.concatenate([mdp.P[None, :, :, ::-1], np.zeros((1, S, A, 1))], axis=-1)
    return DiscountedMDP(Successors(ids, prob), mdp.r, mdp.gamma)


def policy_value(mdp, pi, ref=None, beta=0.0):
    """V of a policy by numpy's linear solver, from the definition."""
    reward = (pi * mdp.r).sum(1) - (beta * rel_entr(pi, ref).sum(1) if beta > 0 else 0.0)
    return np.linalg.solve(np.eye(mdp.S) - mdp.gamma * np.einsum("sa,saj->sj", pi, mdp.P), reward)


def solver_error(mdp, values):
    """What numpy's solution of the system may be off by: backward stable, and a condition number of 2 / (1 - gamma)."""
    return 4 * mdp.S * tolerances.EPS * np.abs(values).max() * 2 / (1 - mdp.gamma)


def linear_program(mdp):
    """Hard V*: minimise sum V subject to V >= r + gamma P V (HiGHS)."""
    S, A = mdp.S, mdp.A
    left = mdp.gamma * mdp.P.reshape(S * A, S) - np.repeat(np.eye(S), A, axis=0)
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    found = linprog(np.ones(S), left, -mdp.r.reshape(-1), bounds=(None, None), method="highs", options=options)
    assert found.status == 0
    return found.x


# ------------------------------------------------------------------ the certificate

@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_bounds_hold_in_50_digits(gamma, beta):
    rng = np.random.default_rng(int(1e4 * gamma) + BETAS.index(beta))
    kinds = itertools.product(["dirichlet", "deterministic"], instances.REFERENCES)
    for (kernel, reference), tol in zip(kinds, itertools.cycle([1e-2, 1e-5, 1e-10]), strict=False):
        scale = 10.0 ** rng.integers(-3, 4)
        mdp, ref = random_problem(rng, int(rng.integers(1, 5)), 3, gamma, kernel=kernel, reference=reference, scale=scale)
        truth = mp_discounted.optimum(mdp.P, mdp.r, gamma, ref, beta)
        for problem, method in ((mdp, METHODS[1]), (mdp, METHODS[2]), (as_sparse(mdp), METHODS[3])):
            found = solve_discounted(problem, ref, beta, method=method, tol=tol)
            assert all(low <= v <= high for low, v, high in zip(found.lower, truth, found.upper, strict=True))
            if found.status is Status.CONVERGED:
                assert max(abs(v - x) for v, x in zip(found.V, truth, strict=True)) <= tol
            else:
                # what is asked lies below the rounding error at this gamma and scale
                assert found.status is Status.ROUNDING
                assert tol * (1 - gamma) < 300 * tolerances.EPS * (scale + np.ptp(found.V))


@pytest.mark.parametrize("most", [1, 2, 5, 17])
@pytest.mark.parametrize("method", METHODS)
def test_an_iteration_limit_still_gives_true_bounds(method, most):
    rng = np.random.default_rng(most)
    for beta in (0.0, 0.2):
        mdp, ref = random_problem(rng, 4, 3, 0.999, kernel="deterministic")
        truth = mp_discounted.optimum(mdp.P, mdp.r, mdp.gamma, ref, beta)
        found = solve_discounted(mdp, ref, beta, method=method, tol=1e-6, max_iterations=most)
        assert found.iterations <= most
        assert all(low <= v <= high for low, v, high in zip(found.lower, truth, found.upper, strict=True))
        assert (found.status is Status.CONVERGED) == (np.max(found.upper - found.lower) <= 2e-6)
        if most == 1:
            assert found.status is Status.ITERATION_LIMIT


def test_an_iteration_limit_has_a_status_with_advice():
    mdp, _ = random_problem(np.random.default_rng(0), 6, 3, 0.99)
    found = solve_discounted(mdp, method="value_iteration", tol=1e-6, max_iterations=3)
    assert (found.status, found.iterations) == (Status.ITERATION_LIMIT, 3)
    assert "max_iterations" in found.status.value
    assert solve_discounted(mdp, method="value_iteration", tol=1e-6).status is Status.CONVERGED


def test_a_tol_below_float64_says_so_and_keeps_true_bounds():
    for seed in range(5):
        mdp, ref = random_problem(np.random.default_rng(seed), 4, 3, 0.9999)
        for beta, method in itertools.product((0.0, 0.3), METHODS):
            found = solve_discounted(mdp, ref, beta, method=method, tol=1e-18)
            truth = mp_discounted.optimum(mdp.P, mdp.r, mdp.gamma, ref, beta)
            assert found.status is Status.ROUNDING
            assert all(low <= v <= high for low, v, high in zip(found.lower, truth, found.upper, strict=True))
            assert np.max(found.upper - found.lower) <= 1e3 * tolerances.EPS / (1 - mdp.gamma), "and they are tight"


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("beta", [0.0, 1e-8, 0.05, 2.0, 1e8])
def test_the_policy_is_worth_what_the_bounds_say(gamma, beta):
    """T_pi V = T V, so the bounds hold for the returned policy's value too: an independent linear solve, S = 40."""
    rng = np.random.default_rng(1)
    for kernel, reference, method in itertools.product(["dirichlet", "deterministic"], ["dirichlet", "zeros"], METHODS):
        mdp, ref = random_problem(rng, 40, 4, gamma, kernel=kernel, reference=reference)
        found = solve_discounted(mdp, ref, beta, method=method, tol=1e-4)
        value = policy_value(mdp, found.pi, ref, beta)
        slack = solver_error(mdp, value) + beta * (40 * tolerances.EPS) / (1 - gamma)  # rel_entr near 0
        assert found.status is Status.CONVERGED
        assert np.all(value >= found.lower - slack)
        assert np.all(value <= found.upper + slack)
        assert np.abs(found.V - value).max() <= 1e-4 + slack


@pytest.mark.parametrize("method", METHODS)
def test_hard_optima_are_those_of_a_linear_program(method):
    rng = np.random.default_rng(2)
    for gamma, kernel in itertools.product((0.5, 0.95, 0.999), ("dirichlet", "deterministic")):
        mdp, _ = random_problem(rng, 12, 4, gamma, kernel=kernel)
        found = solve_discounted(mdp, method=method, tol=1e-7)
        best = linear_program(mdp)
        slack = 2 * tolerances.LINEAR_PROGRAM * np.abs(best).max() / (1 - gamma)
        assert np.abs(found.V - best).max() <= 1e-7 + slack
        assert np.all(found.lower <= best + slack)
        assert np.all(found.upper >= best - slack)


@pytest.mark.parametrize("beta", [0.0, 0.1, math.inf])
def test_v_is_the_backup_of_q_and_pi_its_policy(beta):
    mdp, ref = random_problem(np.random.default_rng(3), 9, 4, 0.95, reference="zeros")
    found = solve_discounted(mdp, ref, beta, tol=1e-9)
    masked = np.where(ref > 0, found.Q, -np.inf)
    if beta == 0:
        backup = masked.max(1)
    else:
        backup = (ref * found.Q).sum(1) if beta == math.inf else beta * logsumexp(found.Q / beta, b=ref, axis=1)
    np.testing.assert_allclose(found.V, backup, rtol=tolerances.KERNEL)
    np.testing.assert_allclose(found.pi.sum(1), 1.0, rtol=0, atol=tolerances.row_sum(4))
    np.testing.assert_allclose(found.Q, mdp.r + mdp.gamma * mdp.P @ found.V, atol=2e-9)
    assert np.all(found.pi[ref == 0] == 0)
    if beta == 0.1:
        np.testing.assert_allclose(found.pi, ref * np.exp((found.Q - found.V[:, None]) / beta), rtol=1e-11)
    for array in found[:5]:
        assert not array.flags.writeable


def test_dense_and_sparse_agree():
    rng = np.random.default_rng(4)
    for beta, gamma, method in itertools.product((0.0, 0.3, 1e8), (0.0, 0.9, 0.9999), METHODS):
        mdp, ref = random_problem(rng, 8, 3, gamma, kernel="deterministic" if gamma else "dirichlet", reference="zeros")
        one, other = (solve_discounted(x, ref, beta, method=method, tol=1e-5) for x in (mdp, as_sparse(mdp)))
        assert one.status is other.status is Status.CONVERGED
        assert np.all(np.maximum(one.lower, other.lower) <= np.minimum(one.upper, other.upper))
        v, w = (evaluate_discounted(x, one.pi, pi_ref=ref, beta=beta).V for x in (mdp, as_sparse(mdp)))
        np.testing.assert_allclose(v, w, rtol=0, atol=solver_error(mdp, v))


# ------------------------------------------------------------------ textbooks

def two_states(gamma=0.95):
    """Puterman (1994), section 3.1: QuantEcon's first example of DiscreteDP; its second action in state 2 is infeasible."""
    P = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    return DiscountedMDP(P, [[5.0, 10.0], [-1.0, -1.0]], gamma)


@pytest.mark.parametrize("method", METHODS)
def test_putermans_two_states(method):
    """Closed form: v2 = -1 / (1 - g); v1 = max((5 + g v2 / 2) / (1 - g / 2), 10 + g v2), which cross at g = 10 / 11."""
    for gamma, first in ((0.95, 0), (0.5, 1), (0.9, 1), (0.92, 0)):
        found = solve_discounted(two_states(gamma), method=method, tol=1e-10)
        second = -1 / (1 - gamma)
        values = [(5 + gamma * second / 2) / (1 - gamma / 2), 10 + gamma * second]
        np.testing.assert_allclose(found.V, [max(values), second], rtol=0, atol=1e-10)
        assert np.argmax(found.pi[0]) == first == np.argmax(values)
    found = solve_discounted(two_states(), method=method, tol=1e-10)
    np.testing.assert_allclose(found.V, [-8.571428571428573, -20.0], atol=1e-10)  # as QuantEcon's documentation prints


@pytest.mark.parametrize("method", METHODS)
def test_the_forest_of_pymdptoolbox(method):
    """mdptoolbox.example.forest() at discount 0.9: wait always; its documentation prints V = 26.244, 29.484, 33.484."""
    P = np.zeros((3, 2, 3))
    P[:, 0] = [[0.1, 0.9, 0.0], [0.1, 0.0, 0.9], [0.1, 0.0, 0.9]]
    P[:, 1, 0] = 1.0
    r = np.array([[0.0, 0.0], [0.0, 1.0], [4.0, 2.0]])
    found = solve_discounted(DiscountedMDP(P, r, 0.9), method=method, tol=1e-9)
    np.testing.assert_allclose(found.V, [26.244, 29.484, 33.484], atol=1e-9)
    np.testing.assert_array_equal(found.pi.argmax(1), 0)


def test_one_state_is_a_bandit():
    """V = beta log sum_a ref e^{r / beta} / (1 - gamma)."""
    r, ref = np.array([[1.0, -2.0, 0.3]]), np.array([[0.2, 0.5, 0.3]])
    for gamma, beta in itertools.product((0.0, 0.5, 0.9999), (0.05, 1.0, 40.0)):
        found = solve_discounted(DiscountedMDP(np.ones((1, 3, 1)), r, gamma), ref, beta, tol=1e-8)
        assert found.iterations == 1
        assert found.V[0] == pytest.approx(beta * logsumexp(r / beta, b=ref) / (1 - gamma), rel=1e-13)


# ------------------------------------------------------------------ sweeps

def test_far_fewer_sweeps_than_the_sup_norm_needs():
    """S = 2000, 5 successors, gamma = 0.99: sweeps until |V - V*| <= tol is certified, by span and by sup norm."""
    rng = np.random.default_rng(5)
    S, A, K, gamma, tol = 2000, 5, 5, 0.99, 1e-6
    P = Successors(rng.integers(S, size=(1, S, A, K)), rng.dirichlet(np.ones(K), (1, S, A)))
    mdp, ref = DiscountedMDP(P, rng.random((S, A)), gamma), np.full((S, A), 1 / A)
    found = solve_discounted(mdp, ref, 0.1, method="value_iteration", tol=tol)
    V, change, sweeps = np.zeros(S), np.inf, 0
    while gamma / (1 - gamma) * change > tol:
        Q = mdp.r + gamma * (P.prob[0] * V[P.next_state[0]]).sum(-1)
        after = 0.1 * logsumexp(Q / 0.1, b=ref, axis=1)
        V, change, sweeps = after, np.abs(after - V).max(), sweeps + 1
    assert found.status is Status.CONVERGED
    assert np.abs(V - found.V).max() <= 2 * tol
    assert sweeps >= 10 * found.iterations


def test_policy_iteration_takes_a_handful_of_steps_where_nothing_mixes():
    """A ring of 300 states at gamma = 0.9999, where value iteration needs about 1e5 sweeps."""
    S = 300
    P = np.zeros((S, 2, S))
    P[np.arange(S), 0, (np.arange(S) + 1) % S] = P[np.arange(S), 1, np.arange(S)] = 1.0
    r = np.stack([np.sin(np.arange(S) / 9.0), np.zeros(S)], axis=1)
    for beta in (0.0, 0.01):
        found = solve_discounted(DiscountedMDP(P, r, 0.9999), np.full((S, 2), 0.5), beta, method="policy_iteration", tol=1e-5)
        assert found.status is Status.CONVERGED
        assert found.iterations <= 40


# ------------------------------------------------------------------ evaluation

@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_evaluation_is_the_linear_system(beta):
    rng = np.random.default_rng(6)
    for gamma in GAMMAS:
        mdp, ref = random_problem(rng, 15, 3, gamma)
        pi = instances.policy(rng, 1, 15, 3, "zeros")[0]
        V, Q = evaluate_discounted(mdp, pi, pi_ref=ref, beta=beta)
        expected = policy_value(mdp, pi, ref, beta)
        np.testing.assert_allclose(V, expected, rtol=0, atol=solver_error(mdp, expected))
        np.testing.assert_allclose(Q, mdp.r + gamma * mdp.P @ V, rtol=tolerances.KERNEL, atol=tolerances.KERNEL)


def test_an_infinite_weight_ruins_what_leads_to_other_policies():
    P = np.zeros((4, 2, 4))
    P[0, :, 1] = P[1, :, 1] = P[2, :, 3] = P[3, 0, 3] = P[3, 1, 0] = 1.0
    ref = np.full((4, 2), 0.5)
    pi = ref.copy()
    pi[1] = [0.25, 0.75]
    for mdp in (m := DiscountedMDP(P, np.ones((4, 2)), 0.5), as_sparse(m)):
        V, Q = evaluate_discounted(mdp, pi, pi_ref=ref, beta=math.inf)
        assert np.all(np.isneginf(V)), "state 3 takes action 1 half of the time, to 0, to 1, where pi differs"
        still = pi.copy()
        still[3] = ref[3] = [1.0, 0.0]
        V, Q = evaluate_discounted(mdp, still, pi_ref=ref, beta=math.inf)
        np.testing.assert_array_equal(V, [-np.inf, -np.inf, 2.0, 2.0])
        np.testing.assert_array_equal(Q, [[-np.inf] * 2, [-np.inf] * 2, [2.0, 2.0], [2.0, -np.inf]])
        ref[3] = 0.5


# ------------------------------------------------------------------ what is refused

def test_bad_input_is_named():
    mdp, ref = random_problem(np.random.default_rng(7), 4, 3, 0.9)
    for gamma in (1.0, 1.5, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="^DiscountedMDP: gamma must be"):
            DiscountedMDP(mdp.P, mdp.r, gamma)
    for tol in (0.0, -1e-3, math.nan, math.inf):
        with pytest.raises(ValueError, match="^solve_discounted: tol must be a positive finite number"):
            solve_discounted(mdp, tol=tol)
    with pytest.raises(ValueError, match="solve_discounted: pi_ref must be given where beta > 0"):
        solve_discounted(mdp, beta=0.1)
    with pytest.raises(ValueError, match=r"evaluate_discounted: pi must stay on pi_ref's support.* at \(s, a\) = \(0, 1\)"):
        evaluate_discounted(mdp, ref, pi_ref=np.eye(3)[[0, 0, 0, 0]], beta=0.1)
    with pytest.raises(ValueError, match="DiscountedMDP: P must have one stage"):
        DiscountedMDP(Successors(np.zeros((2, 3, 1, 1), int), np.ones((2, 3, 1, 1))), np.zeros((3, 1)), 0.5)
    for call in (lambda m: solve_discounted(m), lambda m: evaluate_discounted(m, ref)):
        with pytest.raises(ValueError, match="mdp must have rewards whose discounted sums stay below 1e300"):
            call(DiscountedMDP(mdp.P, mdp.r * 1e300, 0.9))


# ------------------------------------------------------------------ properties

@st.composite
def problems(draw):
    """(mdp, pi_ref) of any small shape, kernel, scale, discount and kind of reference."""
    S, A = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kernel, reference = draw(st.sampled_from(["dirichlet", "deterministic"])), draw(st.sampled_from(instances.REFERENCES))
    gamma, scale = draw(st.sampled_from([0.0, 0.5, 0.95, 0.999])), 10.0 ** draw(st.integers(-3, 3))
    return random_problem(rng, S, A, gamma, kernel=kernel, reference=reference, scale=scale)


betas = st.floats(-6, 6).map(lambda x: 10.0**x) | st.sampled_from([0.0, math.inf])


@few
@given(problems(), betas, st.floats(-3, 3))
def test_a_constant_reward_shifts_values_and_leaves_the_rest(problem, beta, shift):
    mdp, ref = problem
    step = shift * float(np.abs(mdp.r).max())
    moved = DiscountedMDP(mdp.P, mdp.r + step, mdp.gamma)
    one, other = solve_discounted(mdp, ref, beta), solve_discounted(moved, ref, beta)
    width = np.max(one.upper - one.lower) + np.max(other.upper - other.lower)
    rounding = 8 * tolerances.EPS * (np.abs(mdp.r).max() + abs(step)) / (1 - mdp.gamma) ** 2
    assert np.abs(other.V - one.V - step / (1 - mdp.gamma)).max() <= width + rounding


@few
@given(problems(), betas, betas)
def test_values_rise_with_rewards_and_fall_with_beta(problem, beta, other_beta):
    mdp, ref = problem
    low, high = sorted((beta, other_beta))
    assert np.all(solve_discounted(mdp, ref, high).lower <= solve_discounted(mdp, ref, low).upper)
    better = DiscountedMDP(mdp.P, mdp.r + np.random.default_rng(0).random(mdp.r.shape), mdp.gamma)
    assert np.all(solve_discounted(mdp, ref, beta).lower <= solve_discounted(better, ref, beta).upper)


@few
@given(problems(), betas)
def test_the_methods_agree_within_their_bounds(problem, beta):
    mdp, ref = problem
    found = [solve_discounted(mdp, ref, beta, method=m, tol=1e-5) for m in METHODS]
    assert np.all(np.max([x.lower for x in found], axis=0) <= np.min([x.upper for x in found], axis=0))


# ------------------------------------------------------------------ the kernels as plain Python

def test_the_kernels_are_the_same_as_plain_python(monkeypatch):
    rng = np.random.default_rng(8)
    mdp, ref = random_problem(rng, 4, 3, 0.9, reference="zeros")
    compiled = [solve_discounted(m, ref, b, tol=1e-6) for m in (mdp, as_sparse(mdp)) for b in (0.0, 0.3)]
    for module in (bellman, kernels, successors):
        for name, value in vars(module).copy().items():
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        plain = [solve_discounted(m, ref, b, tol=1e-6) for m in (mdp, as_sparse(mdp)) for b in (0.0, 0.3)]
    for one, other in zip(compiled, plain, strict=True):
        assert abs(one.iterations - other.iterations) <= 1  # the last bit may decide whether a bound is met a step earlier
        for x, y in zip(one[:5], other[:5], strict=True):  # each within tol of the truth, pi through Q / beta
            np.testing.assert_allclose(x, y, rtol=tolerances.KERNEL, atol=2e-5 * (one.iterations != other.iterations))
