"""Stationary policies [S, A] and [1, S, A] wherever a finite horizon takes [H, S, A], and clones that pool the stages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mdpsim
from mdpsim.estimate.experts import soft_expert
from mdpsim.learn.pessimism import pessimistic_policy
from mdpsim.mdp import families
from mdpsim.mdp.policies import as_policy

H, S, A = 3, 4, 2
RNG = np.random.default_rng(0)
ROWS = RNG.dirichlet(np.ones(A), S)
OTHER = RNG.dirichlet(np.ones(A), S)
MODEL = mdpsim.MDP(RNG.dirichlet(np.ones(S), (H, S, A)), RNG.random((H, S, A)), np.full(S, 1 / S))
LINEAR = families.linear_simplex(H=H, S=S, A=A, d=2, rng=1)
TOKENS = mdpsim.TokenMDP(RNG.random((1, 4)), vocabulary=2, length=2)
TOKEN_ROWS = RNG.dirichlet(np.ones(2), TOKENS.S)
DEMOS = mdpsim.sample_counts(MODEL, np.tile(ROWS, (H, 1, 1)), 20, 0)
PREFS = mdpsim.sample_preferences(MODEL, np.tile(ROWS, (H, 1, 1)), np.tile(ROWS, (H, 1, 1)), 30, 0)
FIT = mdpsim.fit_reward(PREFS)

CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "solve_soft": lambda p, q: mdpsim.solve_soft(MODEL, p, 0.3),
    "solve_soft hard": lambda p, q: mdpsim.solve_soft(MODEL, p, 0.0),
    "solve_soft of a LinearMDP": lambda p, q: mdpsim.solve_soft(LINEAR, p, 0.3),
    "solve_soft_batch": lambda p, q: mdpsim.solve_soft_batch(MODEL, p, [0.1, 0.2, 0.3, 0.4, 0.5]),
    "solve_soft_many": lambda p, q: mdpsim.solve_soft_many([MODEL, MODEL], p, 0.3),
    "evaluate": lambda p, q: mdpsim.evaluate(MODEL, p, pi_ref=q, beta=0.2),
    "occupancy": lambda p, q: mdpsim.occupancy(MODEL, p),
    "trajectory_kl": lambda p, q: mdpsim.trajectory_kl(MODEL, p, q),
    "sample": lambda p, q: vars(mdpsim.sample(MODEL, p, 50, 0)),
    "sample_counts": lambda p, q: vars(mdpsim.sample_counts(MODEL, p, 50, 0)),
    "sample_preferences": lambda p, q: vars(mdpsim.sample_preferences(MODEL, p, q, 50, 0).second),
    "soft_expert": lambda p, q: soft_expert(MODEL, beta=0.3, pi_ref=p),
    "UCBVI": lambda p, q: mdpsim.UCBVI(eps=1.0, budget=50).run(MODEL, p, 0),
    "UCBVIEnt": lambda p, q: mdpsim.UCBVIEnt(beta=1.0, eps=1.0, delta=0.1, budget=50).run(MODEL, p, 0),
    "LSVIUCBEnt": lambda p, q: mdpsim.LSVIUCBEnt(beta=1.0, eps=1.0, budget=50).run(LINEAR, p, 0),
    "RLHF": lambda p, q: mdpsim.RLHF(beta=1.0, n_pairs=(20,)).run(MODEL, DEMOS, 0, clone=p).pi,
    "RLHF.plan": lambda p, q: mdpsim.RLHF(beta=1.0, n_pairs=(20,)).plan(MODEL, p, FIT, 1.0),
    "pessimistic_policy": lambda p, q: pessimistic_policy(MODEL, p, FIT, radius=1.0, prior=0.25),
}

def numbers(result: Any) -> list[np.ndarray]:
    """All arrays and numbers of a result."""
    if isinstance(result, dict):
        result = [x for x in result.values() if x is not None]
    elif not isinstance(result, tuple):
        result = vars(result).values() if hasattr(result, "__dict__") else [result]
    return [np.asarray(x) for x in result]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("given", [ROWS, ROWS[None], ROWS.tolist()], ids=["[S, A]", "[1, S, A]", "lists"])
def test_one_stage_stands_for_all(call: str, given: Any) -> None:
    """Each function gives what it gives for the same rows written H times, whichever policy is the stationary one."""
    full, other = np.tile(ROWS, (H, 1, 1)), np.tile(OTHER, (H, 1, 1))
    wanted = numbers(CALLS[call](full, other))
    for found in (CALLS[call](given, other), CALLS[call](given, OTHER), CALLS[call](full, OTHER[None])):
        for x, y in zip(numbers(found), wanted, strict=True):
            np.testing.assert_array_equal(x, y)


def test_a_policy_over_tokens_has_its_stages() -> None:
    """A state of a TokenMDP is another prefix at every stage: one row for all of them means nothing."""
    for call in (TOKENS.responses, lambda p: mdpsim.TokenBox(TOKENS, p, beta=1.0, r_max=1.0)):
        for given in (TOKEN_ROWS, TOKEN_ROWS[None]):
            with pytest.raises(ValueError, match=r"pi(_ref)? must have shape \[H, S, A\] = \(2, 2, 2\)"):
                call(given)


def test_the_value_of_a_stationary_policy_is_that_of_its_powers() -> None:
    """J = sum_h mu0 T^h r_pi for a stationary MDP: by matrix powers."""
    P, r, mu0 = MODEL.P[:1], MODEL.r[:1], MODEL.mu0
    T, earned = np.einsum("sa,sat->st", ROWS, P[0]), (ROWS * r[0]).sum(axis=1)
    value = mdpsim.evaluate(mdpsim.MDP(P, r, mu0, horizon=7), ROWS)
    expected = sum(mu0 @ np.linalg.matrix_power(T, h) @ earned for h in range(7))
    np.testing.assert_allclose(value.J, expected, rtol=1e-13)
    assert value.Q.shape == (7, S, A)


def test_the_number_of_axes_decides_where_the_horizon_equals_the_number_of_states() -> None:
    square = mdpsim.MDP(np.full((2, 2, 2, 2), 0.5), np.zeros((2, 2, 2)), [0.5, 0.5])
    rows = np.array([[1.0, 0.0], [0.25, 0.75]])
    found = mdpsim.sample_counts(square, rows, 4000, 0).visits
    assert (found[:, 0, 1] == 0).all()  # state 0 plays action 0 at both stages: not "stage 0 plays action 0"
    assert (found[:, 1, 1] > 0).all()


def test_what_kernels_get_is_whole_contiguous_and_read_only() -> None:
    full = as_policy("f", "pi", ROWS, (H, S, A))
    assert full.shape == (H, S, A)
    assert full.flags.c_contiguous
    assert not full.flags.writeable


@pytest.mark.parametrize(("bad", "message"), [
    (ROWS.T, "pi must have shape [S, A] = (4, 2); got (2, 4)"),
    (ROWS[None, :2], "pi must have shape [1, S, A] = (1, 4, 2); got (1, 2, 2)"),
    (np.tile(ROWS, (2, 1, 1)), "pi must have shape [H, S, A] = (3, 4, 2); got (2, 4, 2)"),
    (ROWS[0], "pi must have shape [H, S, A] = (3, 4, 2); got (2,)"),
    (2 * ROWS, "pi must have rows that sum to one"),
])
def test_other_shapes_are_refused(bad: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"evaluate: {message}")):
        mdpsim.evaluate(MODEL, bad)


# --- clones that pool the stages -------------------------------------------------------------------------------------


def test_a_stationary_clone_pools_the_stages() -> None:
    """By hand: state 0 sees actions 0, 0, 1 over both stages, state 1 action 1 once, state 2 nothing."""
    demos = mdpsim.Trajectories([[0, 1, 2], [0, 0, 2]], [[0, 1], [0, 1]], np.zeros((2, 2)), S=3, A=2)
    row = [[3 / 5, 2 / 5], [1 / 3, 2 / 3], [1 / 2, 1 / 2]]
    np.testing.assert_allclose(mdpsim.fit_bc(demos, stationary=True), [row, row], rtol=1e-15)
    row = [[2 / 3, 1 / 3], [0, 1], [1 / 2, 1 / 2]]
    np.testing.assert_allclose(mdpsim.fit_bc(demos, stationary=True, smoothing=0.0), [row, row], rtol=1e-15)


def test_a_stationary_clone_of_a_stationary_expert_is_nearer() -> None:
    pi = np.tile(ROWS, (H, 1, 1))
    gaps = [[mdpsim.trajectory_kl(MODEL, pi, mdpsim.fit_bc(mdpsim.sample_counts(MODEL, pi, 50, seed), stationary=pooled))
             for seed in range(40)] for pooled in (True, False)]
    assert np.mean(gaps[0]) < 0.6 * np.mean(gaps[1])  # a third of the parameters: .33, and .6 is six standard deviations off


def test_stationary_is_a_bool() -> None:
    with pytest.raises(ValueError, match="fit_bc: stationary must be True or False; got 'yes'"):
        mdpsim.fit_bc(DEMOS, stationary="yes")
