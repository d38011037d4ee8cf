"""Forbidden actions (rewards of -inf) and states that end an episode, in an MDP itself."""

from __future__ import annotations

import copy
import pickle
from itertools import product

import mpmath
import numpy as np
import pytest

import mdpsim
from mdpsim import MDP, DiscountedMDP, Successors, evaluate, solve_hard, solve_soft
from mdpsim.estimate.experts import epsilon_greedy_expert, optimal_expert, soft_expert, suboptimal_expert
from mdpsim.learn.pessimism import pessimistic_policy
from tolerances import policy as policy_tolerance
from tolerances import value as value_tolerance

H, S, A = 3, 4, 3
RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(S), (H, S, A))
R = RNG.normal(size=(H, S, A))
LOST = RNG.random((H, S, A)) < 0.4
LOST[..., 0] &= ~LOST.all(axis=-1)
BARRED = np.where(LOST, -np.inf, R)
MU0 = np.array([0.5, 0.5, 0.0, 0.0])
REF = RNG.dirichlet(np.ones(A), (H, S))
ON = np.where(LOST, 0.0, REF) / np.where(LOST, 0.0, REF).sum(axis=-1, keepdims=True)
INF = np.inf
TOLERANCE = value_tolerance(H, S, A, H * np.abs(R).max())


def models():
    """Dense and sparse; r of every stage, and of one."""
    ids = np.broadcast_to(np.arange(S), P.shape)
    for r in (BARRED, BARRED[:1]):
        yield MDP(P, r, MU0)
        yield MDP(Successors(ids, P), r, MU0)


def literal(mdp, beta):
    """V, Q, pi by the definition with 50 digits: V = beta log sum_a ref e^{Q/beta}, e^{-inf} = 0; a maximum for beta = 0."""
    with mpmath.workdps(50):
        V = [[mpmath.mpf(0)] * S for _ in range(H + 1)]
        Q, pi = np.zeros((H, S, A)), np.zeros((H, S, A))
        dense = mdp.P.to_dense() if isinstance(mdp.P, Successors) else mdp.P
        for h in reversed(range(H)):
            for s in range(S):
                r = mdp.r[min(h, len(mdp.r) - 1), s]
                q = [mpmath.mpf(r[a]) + mpmath.fsum(dense[h, s, a, t] * V[h + 1][t] for t in range(S)) for a in range(A)]
                played = [a for a in range(A) if r[a] > -INF]
                if beta == 0:
                    V[h][s] = max(q[a] for a in played)
                    masses = [mpmath.mpf(a in played and q[a] == V[h][s]) for a in range(A)]
                else:
                    masses = [REF[h, s, a] * mpmath.exp(q[a] / beta) if a in played else mpmath.mpf(0) for a in range(A)]
                    V[h][s] = beta * mpmath.log(mpmath.fsum(masses))
                Q[h, s] = [float(x) for x in q]
                pi[h, s] = [float(m / mpmath.fsum(masses)) for m in masses]
        return np.array(V, float), Q, pi


@pytest.mark.parametrize("beta", [1e-3, 0.1, 1.0, 50.0, 1e6])
def test_soft_optima_are_those_of_the_definition(beta):
    for mdp in models():
        V, Q, pi = literal(mdp, beta)
        found = solve_soft(mdp, REF, beta)
        scale = max(1.0, np.abs(V).max() / (H * np.abs(R).max()))  # the mass that is lost costs beta |log|
        np.testing.assert_allclose(found.V, V, rtol=0, atol=TOLERANCE * scale)
        np.testing.assert_allclose(found.Q, Q, rtol=0, atol=TOLERANCE * scale)
        error = policy_tolerance(H, S, A, H * np.abs(R).max() * scale, beta)
        np.testing.assert_allclose(found.pi, pi, rtol=error, atol=0)
        lost = np.broadcast_to(mdp.forbidden, found.pi.shape)
        assert (found.pi[lost] == 0.0).all()
        assert (found.Q[lost] == -INF).all()
        value = evaluate(mdp, found.pi, pi_ref=REF, beta=beta)
        np.testing.assert_allclose(value.V, V, rtol=0, atol=2 * TOLERANCE * scale)
        assert (value.Q[lost] == -INF).all()


def test_hard_optima_are_the_best_of_all_allowed_policies():
    """By enumeration of the deterministic policies of a small MDP, A^(H S) of them."""
    h, s, a = 2, 2, 3
    for seed in range(20):
        rng = np.random.default_rng(seed)
        r = rng.normal(size=(h, s, a)) + 1.0
        lost = rng.random((h, s, a)) < 0.5
        lost[..., 1] &= ~lost.all(axis=-1)
        lost[0, 0] |= np.arange(a) == r[0, 0].argmax() if lost[0, 0].sum() < 2 else False
        p, mu0 = rng.dirichlet(np.ones(s), (h, s, a)), rng.dirichlet(np.ones(s))
        mdp = MDP(p, np.where(lost, -INF, r), mu0)
        plain, best = MDP(p, r, mu0), -INF
        for choice in product(range(a), repeat=h * s):
            pi = np.eye(a)[np.array(choice).reshape(h, s)]
            if not (pi * lost).any():
                best = max(best, evaluate(plain, pi).J)
        found = solve_hard(mdp)
        np.testing.assert_allclose(found.V[0] @ mu0, best, rtol=1e-13)
        assert (found.pi[lost] == 0.0).all()
        np.testing.assert_allclose(evaluate(mdp, found.pi).J, best, rtol=1e-13)
        np.testing.assert_array_equal(solve_soft(mdp, np.full((s, a), 1 / a), 0.0).V, found.V)
        assert not (optimal_expert(mdp) * lost).any()


def test_a_reference_that_plays_nothing_forbidden_gives_the_optimum_of_finite_rewards():
    """What stands in place of -inf then does not count, to the last bit: for every weight, 0 and inf too."""
    for r in (0.0, 1e3):
        other = MDP(P, np.where(LOST, r, R), MU0)
        for beta in (0.0, 0.3, 1e12, INF):
            one, two = solve_soft(MDP(P, BARRED, MU0), ON, beta), solve_soft(other, ON, beta)
            np.testing.assert_allclose(one.V, two.V, rtol=0, atol=TOLERANCE)
            np.testing.assert_allclose(one.pi, two.pi, rtol=1e-12, atol=0)
        finite, barred = evaluate(other, ON, pi_ref=REF, beta=0.2), evaluate(MDP(P, BARRED, MU0), ON, pi_ref=REF, beta=0.2)
        np.testing.assert_array_equal(barred.V, finite.V)
        assert (barred.J, barred.kl) == (finite.J, finite.kl)


def test_samplers_play_what_is_allowed():
    mdp, finite = MDP(P, BARRED, MU0), MDP(P, R, MU0)
    np.testing.assert_array_equal(mdpsim.sample(mdp, ON, 200, 0).rewards, mdpsim.sample(finite, ON, 200, 0).rewards)
    np.testing.assert_array_equal(mdpsim.sample_counts(mdp, ON, 200, 0).visits, mdpsim.sample_counts(finite, ON, 200, 0).visits)
    np.testing.assert_array_equal(mdpsim.occupancy(mdp, ON), mdpsim.occupancy(finite, ON))
    pairs = mdpsim.sample_preferences(mdp, ON, ON, 50, 0)
    np.testing.assert_array_equal(pairs.label, mdpsim.sample_preferences(finite, ON, ON, 50, 0).label)
    assert mdpsim.trajectory_kl(mdp, ON, REF) == mdpsim.trajectory_kl(finite, ON, REF)  # a clone may give mass to anything
    uniform = np.full((S, A), 1 / A)
    np.testing.assert_allclose(soft_expert(mdp, beta=0.3), soft_expert(mdp, beta=0.3, pi_ref=uniform), rtol=1e-15)


H0, S0, A0 = (int(i) for i in np.argwhere(LOST)[0])


@pytest.mark.parametrize("call", [
    lambda m: evaluate(m, REF), lambda m: mdpsim.occupancy(m, REF), lambda m: mdpsim.trajectory_kl(m, REF, ON),
    lambda m: mdpsim.sample(m, REF, 3, 0), lambda m: mdpsim.sample_counts(m, REF, 3, 0),
    lambda m: mdpsim.sample_preferences(m, REF, ON, 3, 0),
    lambda m: mdpsim.sample_preferences(m, optimal_expert(m), REF, 3, 0),
    lambda m: solve_soft(m, REF, INF),
])
def test_a_policy_that_may_play_it_is_refused(call):
    for mdp in models():
        where = tuple(int(i) for i in np.argwhere(np.broadcast_to(mdp.forbidden, REF.shape) & (REF > 0))[0])
        with pytest.raises(ValueError, match=r"must play no forbidden action .*; got [\d.]+ at \(h, s, a\) = ") as caught:
            call(mdp)
        assert str(where) in str(caught.value)


FIT = mdpsim.fit_reward(mdpsim.sample_preferences(MDP(P, R, MU0), ON, ON, 20, 0))


@pytest.mark.parametrize("call", [
    lambda m: mdpsim.solve_soft_batch(m, ON, [0.1]), lambda m: mdpsim.solve_soft_many([m], ON, 0.1),
    lambda m: mdpsim.UCBVI(eps=1.0).run(m, ON, 0), lambda m: mdpsim.UCBVIEnt(beta=1.0, eps=1.0).run(m, ON, 0),
    lambda m: mdpsim.DemonstrationRL(eps=1.0).run(m, mdpsim.sample_counts(m, ON, 5, 0), 0),
    lambda m: mdpsim.RLHF(beta=1.0, n_pairs=(5,)).run(m, mdpsim.sample_counts(m, ON, 5, 0), 0),
    lambda m: mdpsim.RLHF(beta=1.0, n_pairs=(5,)).plan(m, ON, FIT, 1.0),
    lambda m: pessimistic_policy(m, ON, FIT, radius=1.0, prior=1.0),
    mdpsim.to_gymnasium, lambda m: epsilon_greedy_expert(m, epsilon=0.1), lambda m: suboptimal_expert(m, eps=0.1),
])
def test_what_does_not_know_of_them_refuses_the_mdp(call):
    with pytest.raises(ValueError, match=f"mdp must have no forbidden actions .*; got {LOST.sum()} of them"):
        call(MDP(P, BARRED, MU0))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: MDP(P, np.where(np.arange(S)[:, None] == 2, -INF, R), MU0),
     "MDP: r must leave every state an action that is allowed (-inf forbids one); got none at (h, s) = (0, 2)"),
    (lambda: MDP(P, np.where(LOST, np.nan, BARRED), MU0), "MDP: r must be finite; got nan"),
    (lambda: MDP(P, np.where(LOST, INF, BARRED), MU0), "MDP: r must be finite; got inf"),
    (lambda: MDP(P, BARRED[:, :2], MU0), "MDP: r must have shape [H, S, A] = (H, 4, 3); got (3, 2, 3)"),
    (lambda: MDP(P, np.where(P > 0.1, -INF, 0.0), MU0), "MDP: r must be finite; got -inf (an action is forbidden by"),
    (lambda: MDP(P, np.ma.masked_array(BARRED, LOST), MU0), "MDP: r must have no mask that is set"),
    (lambda: DiscountedMDP(P[0], BARRED[0], 0.9), "DiscountedMDP: r must be finite; got -inf"),
    (lambda: solve_soft(MDP(P, BARRED, MU0), np.where(LOST, 1.0, 1e-300 * 0) / np.maximum(LOST.sum(-1, keepdims=True), 1)
                        + (~LOST.any(-1, keepdims=True)) / A, 0.3),
     f"solve_soft: pi_ref must play an allowed action in every state; got forbidden ones only at (h, s) = ({H0}, {S0})"),
])
def test_bad_input(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared whole
        make()
    assert str(caught.value).startswith(message)


def test_the_record_keeps_what_is_forbidden():
    mdp = MDP(P, BARRED, MU0)
    for x in (mdp, copy.deepcopy(mdp), pickle.loads(pickle.dumps(mdp))):
        np.testing.assert_array_equal(x.forbidden, LOST)
        np.testing.assert_array_equal(x.r, BARRED)
        assert not x.forbidden.flags.writeable
        assert "forbidden actions" in repr(x)
    assert MDP(P, R, MU0).forbidden is None


# --- states that end an episode --------------------------------------------------------------------------------------


def test_a_terminal_state_by_hand():
    """State 1 ends: action 0 in state 0 goes there with probability 1/4 and earns 2, so V_h = 2 (1 + 3/4 + ..)."""
    p = np.array([[[[0.75, 0.25], [0.0, 1.0]], [[0.0, 0.0], [np.nan, 7.0]]]])
    r = np.array([[[2.0, 1.0], [np.nan, -np.inf]]])
    for terminal in ([1], np.array([False, True]), np.array([1], np.uint8), [1, 1]):
        mdp = MDP(p, r, [1.0, 0.0], horizon=3, terminal=terminal)
        np.testing.assert_allclose(solve_hard(mdp).V[:, 0], [2 * (1 + 0.75 + 0.75**2), 2 * 1.75, 2, 0], rtol=1e-15)
        assert (solve_hard(mdp).V[:, 1] == 0.0).all()
        assert mdp.forbidden is None
    assert np.isnan(p).any()  # what the user holds is not touched
    found = mdpsim.sample(MDP(p, r, [1.0, 0.0], horizon=50, terminal=[1]), np.full((2, 2), 0.5), 100, 0)
    ended = found.states[:, :-1] == 1
    assert (found.rewards[ended] == 0.0).all()
    assert (np.diff(found.states, axis=1) >= 0).all()


def test_terminal_states_of_every_form():
    ids = np.broadcast_to(np.arange(S), P.shape)
    by_next = RNG.normal(size=P.shape)
    dense = MDP(P, by_next, MU0, terminal=[2, 3])
    sparse = MDP(Successors(ids, P), by_next, MU0, terminal=[2, 3])
    assert dense.r_next is not None
    np.testing.assert_array_equal(dense.P, sparse.P.to_dense())
    np.testing.assert_array_equal(dense.r, sparse.r)
    assert (dense.r[:, 2:] == 0.0).all()
    assert (dense.P[:, 2, :, 2] == 1.0).all()
    discount = DiscountedMDP(P[0], R[0], 0.9, terminal=[0])
    value = mdpsim.solve_discounted(discount, tol=1e-10).V
    again = mdpsim.solve_discounted(DiscountedMDP(Successors(ids[:1], P[:1]), R[0], 0.9, terminal=[0]), tol=1e-10).V
    assert abs(value[0]) <= 1e-10
    np.testing.assert_allclose(value, again, rtol=0, atol=2e-10)
    np.testing.assert_array_equal(MDP(P, R, MU0, terminal=np.zeros(S, bool)).P, P)
    np.testing.assert_array_equal(MDP(P, R, MU0, terminal=[]).r, R)


@pytest.mark.parametrize(("bad", "message"), [
    ([4], "MDP: terminal must have entries in [0, 4); got 4"), ([-1], "MDP: terminal must have entries in [0, 4); got -1"),
    (1, "MDP: terminal must have shape [k] = (k,); got ()"), ([1.0], "MDP: terminal must hold integers; got dtype float64"),
    ([True, False], "MDP: terminal must have shape [S] = (4,) where it is a mask; got (2,)"),
    ("2", "MDP: terminal must hold integers"),
    ([[1], [2, 3]], "MDP: terminal must have shape [k] = (k,); got a ragged sequence"),
    (np.ma.masked_array(np.arange(S) == 1, np.arange(S) == 1), "MDP: terminal must have no mask that is set"),
])
def test_bad_terminal_states(bad, message):
    for p in (P, Successors(np.broadcast_to(np.arange(S), P.shape), P)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared whole
            MDP(p, R, MU0, terminal=bad)
        assert str(caught.value).startswith(message)
    with pytest.raises(ValueError, match="MDP: P must have as many next states"):
        MDP(np.full((H, S, A, 3), 1 / 3), R, MU0, terminal=[0])
    with pytest.raises(ValueError, match="MDP: r must have shape"):
        MDP(P, R[0], MU0, terminal=[0])
