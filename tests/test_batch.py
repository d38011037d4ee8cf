"""Batches and many instances against one solve at a time, and against 50-digit arithmetic through it (test_exact)."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import mdpsim
import tolerances
from mdpsim import solve_soft, solve_soft_batch, solve_soft_many
from mdpsim.mdp import families
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.mdp.token import TokenMDP
from reference import instances

BETAS = [0.0, 1e-8, 0.03, 1.0, 1e8, math.inf]
STAGED = families.random_mdp(S=6, A=4, H=5, rng=0, start="uniform")
STATIONARY = families.riverswim(H=7)
LINEAR = families.linear_simplex(S=7, A=3, d=4, H=4, rng=1)
TOKENS = TokenMDP(np.random.default_rng(2).normal(size=(2, 27)), vocabulary=3, length=3)
SPARSE = MDP(Successors(np.argsort(STAGED.P, axis=-1), np.sort(STAGED.P, axis=-1)), STAGED.r, STAGED.mu0)
MODELS = {"staged": STAGED, "stationary": STATIONARY, "linear": LINEAR, "tokens": TOKENS, "sparse": SPARSE}


def reference(mdp):
    """A reference with zeros."""
    return instances.policy(np.random.default_rng(5), mdp.H, mdp.S, mdp.A, "zeros")


def with_reward(mdp, r):
    return mdpsim.LinearMDP(mdp.phi, mdp.mu, r, mdp.mu0, horizon=mdp.H) if mdp is LINEAR else MDP(
        mdp.tabular.P if mdp is TOKENS else mdp.P, r, mdp.tabular.mu0 if mdp is TOKENS else mdp.mu0, horizon=mdp.H
    )


def close(found, b, alone):
    scale = np.abs(alone.V).max()
    np.testing.assert_allclose(found.V[b], alone.V, rtol=0, atol=tolerances.CONTRACT * scale)
    np.testing.assert_allclose(found.Q[b], alone.Q, rtol=0, atol=tolerances.CONTRACT * max(scale, np.abs(alone.Q).max()))


@pytest.mark.parametrize("name", MODELS)
def test_weights_that_share_an_mdp(name):
    mdp = MODELS[name]
    ref = reference(mdp)
    found = solve_soft_batch(mdp, ref, BETAS)
    assert found.pi.shape == (len(BETAS), mdp.H, mdp.S, mdp.A)
    for b, beta in enumerate(BETAS):
        alone = solve_soft(mdp, ref, beta)
        close(found, b, alone)
        if beta > 1e-7:  # log pi is known to eps max|Q| / beta
            np.testing.assert_allclose(found.pi[b], alone.pi, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("stages", [1, None])
def test_rewards_and_weights_together(name, stages):
    mdp = MODELS[name]
    ref, rng = reference(mdp), np.random.default_rng(3)
    tail = (4,) if mdp is LINEAR else (mdp.S, mdp.A)
    r = rng.normal(size=(len(BETAS), stages or mdp.H, *tail))
    found = solve_soft_batch(mdp, ref, BETAS, r)
    for b, beta in enumerate(BETAS):
        close(found, b, solve_soft(with_reward(mdp, r[b]), ref, beta))
    one = solve_soft_batch(mdp, ref, 0.3, r[:1])
    close(one, 0, solve_soft(with_reward(mdp, r[0]), ref, 0.3))
    shared = solve_soft_batch(mdp, ref, [0.3, 0.4], r[0])
    close(shared, 1, solve_soft(with_reward(mdp, r[0]), ref, 0.4))
    assert not np.allclose(found.V[2], found.V[3])


def test_a_batch_does_not_depend_on_threads():
    mdp = families.random_mdp(S=60, A=5, H=4, rng=0)
    ref, betas = families.uniform_policy(4, 60, 5), np.geomspace(0.01, 10, 33)
    found = []
    for n in (1, 2):
        with threadpool_limits(n, user_api="blas"):
            found.append(solve_soft_batch(mdp, ref, betas))
    assert all(x.tobytes() == y.tobytes() for x, y in zip(*found, strict=True))


@pytest.mark.parametrize("large", [2**17, 0])
@pytest.mark.parametrize("stationary", [True, False])
def test_many_instances_are_those_alone(stationary, large, monkeypatch):
    monkeypatch.setattr("mdpsim.solve.batch.LARGE_BYTES", large)
    mdps = [
        families.garnet(S=5, A=3, H=4, rng=i, branching=3) if stationary else families.random_mdp(S=5, A=3, H=4, rng=i)
        for i in range(6)
    ]
    refs = np.stack([families.random_policy(H=4, S=5, A=3, rng=i) for i in range(6)])
    found, shared = solve_soft_many(mdps, refs, BETAS), solve_soft_many(mdps, refs[0], 0.5)
    for b, mdp in enumerate(mdps):
        close(found, b, solve_soft(mdp, refs[b], BETAS[b]))
        close(shared, b, solve_soft(mdp, refs[0], 0.5))


def test_many_instances_do_not_depend_on_threads_or_blocks(monkeypatch):
    monkeypatch.setattr("mdpsim.solve.batch.THREAD_BYTES", 0)
    mdps = [families.random_mdp(S=8, A=3, H=3, rng=i) for i in range(9)]
    ref = families.uniform_policy(3, 8, 3)
    before, found = numba.get_num_threads(), []
    for threads, block in ((1, 2**26), (2, 2**26), (2, 4 * mdps[0].P.nbytes)):
        monkeypatch.setattr("mdpsim.solve.batch.BLOCK_BYTES", block)
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        found.append(solve_soft_many(mdps, ref, 0.2))
    numba.set_num_threads(before)
    assert found[0].V.tobytes() == found[1].V.tobytes()
    for b, mdp in enumerate(mdps):
        alone = solve_soft(mdp, ref, 0.2)
        close(found[0], b, alone)
        close(found[2], b, alone)  # the block of one goes through another compilation of the same loops


REF = reference(STAGED)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: solve_soft_batch(STAGED, REF, [0.1, 0.2], np.zeros((3, 1, 6, 4))), "beta must have 1 or B = 3 entries"),
    (lambda: solve_soft_batch(STAGED, REF, [0.1, 0.2, 0.3], np.zeros((2, 1, 6, 4))), "r must have 1 or B = 3 entries"),
    (lambda: solve_soft_batch(STAGED, REF, 0.1, np.zeros((2, 3, 6, 4))), "r must have 1 or H = 5 stages; got 3"),
    (lambda: solve_soft_batch(STAGED, REF, 0.1, np.zeros((2, 1, 4, 6))), "r must have shape"),
    (lambda: solve_soft_batch(STAGED, REF, 0.1, np.full((1, 6, 4), np.nan)), "r must be finite"),
    (lambda: solve_soft_batch(STAGED, REF, 0.1, np.full((1, 6, 4), 1e308)), "r must be rewards whose sums stay within float64"),
    (lambda: solve_soft_batch(STAGED, REF, []), r"beta must be a number or \[B\] numbers"),
    (lambda: solve_soft_batch(STAGED, REF, [0.1, -1.0]), r"beta must be a number or \[B\] numbers"),
    (lambda: solve_soft_batch(STAGED, REF, [math.nan]), r"beta must be a number or \[B\] numbers"),
    (lambda: solve_soft_batch(STAGED, REF[:2], 0.1), "pi_ref must have shape"),
    (lambda: solve_soft_batch("mdp", REF, 0.1), "mdp must be an mdpsim.MDP"),
    (lambda: solve_soft_many([], REF, 0.1), "mdps must be a sequence of one or more MDPs"),
    (lambda: solve_soft_many(STAGED, REF, 0.1), "mdps must be a sequence of one or more MDPs"),
    (lambda: solve_soft_many([STAGED, STATIONARY], REF, 0.1), "mdps must have one shape"),
    (lambda: solve_soft_many([SPARSE], REF, 0.1), "mdps must be MDPs with dense transitions; got MDP"),
    (lambda: solve_soft_many([STAGED], np.stack([REF, REF]), 0.1), r"pi_ref must have shape \[B, H, S, A\] = \(1, 5, 6, 4\)"),
    (lambda: solve_soft_many([STAGED], REF, [0.1, 0.2]), "beta must have 1 or B = 1 entries"),
    (lambda: solve_soft_many([with_reward(STAGED, np.full((1, 6, 4), 1e308))], REF, 0.1), "values that overflow at 0"),
])
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_rare_best_action_does_not_cancel():
    """r = (1, 0), ref = (1e-300, 1 - 1e-300): V is about 1e-300 beta (e^{1 / beta} - 1), not 1 + beta log(e^{-1 / beta})."""
    mdp, ref = families.bandit([1.0, 0.0]), np.array([[[1e-300, 1.0]]])
    betas = np.array([0.004, 0.006, 0.01, 0.02, 0.05, 0.1])
    found = solve_soft_batch(mdp, ref, betas)
    for b, beta in enumerate(betas):
        expected = beta * math.log1p(1e-300 * math.expm1(1 / beta))
        assert found.V[b, 0, 0] == pytest.approx(expected, rel=1e-12, abs=0.0)


@pytest.mark.parametrize("denormal", [False, True])
def test_reciprocals_that_overflow_are_not_taken(denormal):
    """A reference of 1e-310 on the best action, and weights below 1e-300: the policies are those of solve_soft, without NaN."""
    mdp = mdpsim.MDP(np.full((1, 2, 2, 2), 0.5), np.array([[[1.0, 0.0], [0.5, 0.0]]]), [0.5, 0.5], horizon=3)
    ref = np.tile([0.5, 0.5] if denormal else [1e-310, 1.0], (3, 2, 1))
    betas = np.array([1e-310, 3e-306, 2e-304, 1e-303]) if denormal else np.array([1e-4, 2e-4, 1e-5, 1e-3])
    with np.errstate(all="raise", under="ignore"):
        found = mdpsim.solve_soft_batch(mdp, ref, betas)
    for b, beta in enumerate(betas):
        one = mdpsim.solve_soft(mdp, ref, beta)
        assert found.pi[b] == pytest.approx(one.pi, abs=1e-13)
        assert found.V[b] == pytest.approx(one.V, abs=1e-13)
