"""What solve/exact.py refuses, and how it says so; what it does with input that is right but not in order."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tolerances
from mdpsim.mdp.tabular import MDP
from mdpsim.solve import exact
from mdpsim.solve.exact import evaluate, occupancy, solve_hard, solve_soft, trajectory_kl
from reference import instances

RNG = np.random.default_rng(14)
SMALL = instances.mdp(RNG, 4, 6, 3)
GOOD = instances.policy(RNG, 4, 6, 3)
CALLS = {
    "solve_soft: pi_ref": lambda x: solve_soft(SMALL, x, 1.0),
    "evaluate: pi": lambda x: evaluate(SMALL, x),
    "evaluate: pi_ref": lambda x: evaluate(SMALL, GOOD, pi_ref=x, beta=1.0),
    "occupancy: pi": lambda x: occupancy(SMALL, x),
    "trajectory_kl: pi": lambda x: trajectory_kl(SMALL, x, GOOD),
    "trajectory_kl: other": lambda x: trajectory_kl(SMALL, GOOD, x),
}


def spoiled(value, index=(1, 2, 0)):
    """GOOD with one entry replaced."""
    out = GOOD.copy()
    out[index] = value
    return out


BAD = {
    "shape": (GOOD[:2], r"have shape \[H, S, A\] = \(4, 6, 3\); got \(2, 6, 3\)"),
    "axes": (GOOD[0, 0], r"have shape \[H, S, A\] = \(4, 6, 3\); got \(3,\)"),
    "complex": (GOOD.astype(complex), "hold real numbers.*dtype complex128"),
    "object": (GOOD.astype(object), "hold real numbers.*dtype object"),
    "nan": (spoiled(math.nan), r"be finite; got nan at \(1, 2, 0\)"),
    "inf": (spoiled(math.inf), "be finite; got inf"),
    "negative": (spoiled(-0.1), r"have no negative entries; got -0.1 in row \(1, 2\)"),
    "row sum": (spoiled(GOOD[1, 2, 0] + 1e-8), r"have rows that sum to one within 1e-09; got sum 1.00000001 in"),
    "zero row": (spoiled(0.0, (1, 2)), r"have rows that sum to one; got only zeros in row \(1, 2\)"),
}


@pytest.mark.parametrize("name", list(CALLS))
@pytest.mark.parametrize("fault", list(BAD))
def test_bad_policies_are_named(name, fault):
    value, message = BAD[fault]
    with pytest.raises(ValueError, match=f"^{name} must {message}"):
        CALLS[name](value)


@pytest.mark.parametrize("beta", [-1.0, math.nan, "1", None, -math.inf, 1j, True])
@pytest.mark.parametrize("function", [solve_soft, lambda m, p, b: evaluate(m, p, pi_ref=p, beta=b)])
def test_bad_betas_are_named(function, beta):
    with pytest.raises(ValueError, match=r"(solve_soft|evaluate): beta must be a number in \[0, inf\]"):
        function(SMALL, GOOD, beta)


def test_a_weight_without_a_reference_is_refused():
    with pytest.raises(ValueError, match="evaluate: pi_ref must be given where beta > 0"):
        evaluate(SMALL, GOOD, beta=1.0)


@pytest.mark.parametrize("call", [
    lambda m: solve_soft(m, GOOD, 1.0), solve_hard, lambda m: evaluate(m, GOOD), lambda m: occupancy(m, GOOD),
    lambda m: trajectory_kl(m, GOOD, GOOD),
])
def test_anything_but_an_mdp_is_refused(call):
    with pytest.raises(ValueError, match=r"mdp must be an mdpsim.MDP, LinearMDP or TokenMDP; got tuple"):
        call((SMALL.P, SMALL.r))


def test_values_beyond_float64_are_refused():
    mdp = MDP(np.ones((1, 1, 2, 1)), [[[1.7e308, -1.7e308]]], [1.0], horizon=3)
    pi = np.broadcast_to([[[1.0, 0.0]]], (3, 1, 2))
    for call in (lambda: solve_hard(mdp), lambda: solve_soft(mdp, pi, 1.0), lambda: evaluate(mdp, pi)):
        with pytest.raises(ValueError, match="mdp must have rewards whose sums stay within float64"):
            call()


def test_rows_off_by_a_little_mean_the_normalised_row():
    off = GOOD * (1.0 + 5e-10)
    found = solve_soft(SMALL, off, 0.5)
    expected = solve_soft(SMALL, GOOD, 0.5)
    np.testing.assert_allclose(found.V, expected.V, rtol=tolerances.KERNEL)


def test_what_the_caller_passes_is_neither_changed_nor_shared():
    mine = GOOD.copy()
    solution = solve_soft(SMALL, mine, math.inf)
    assert mine.flags.writeable
    mine[:] = 0.0
    np.testing.assert_array_equal(solution.pi, GOOD)
    integers = np.eye(3, dtype=np.int64)[np.zeros((4, 6), int)]
    np.testing.assert_array_equal(solve_soft(SMALL, integers, 1.0).pi, integers)
    np.testing.assert_array_equal(solve_soft(SMALL, np.asfortranarray(GOOD), 1.0).V, solve_soft(SMALL, GOOD, 1.0).V)


def test_the_fields_are_documented_with_their_shapes():
    for record in (exact.Solution, exact.Value):
        for field in record._fields:
            assert f"{field}:" in (record.__doc__ or "")
