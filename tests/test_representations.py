"""One textbook problem in every representation, under one set of assertions: dense (staged or not), sparse, linear, tokens.

False-alarm level: ALPHA for each statistical test, split evenly (Bonferroni) over what it looks at; each carries a negative
control, a law that is slightly wrong, which the same test must reject.
"""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats

import tolerances
from mdpsim.estimate.data import count, sample, sample_counts
from mdpsim.kernels import _math, bellman, linear, rollout, successors
from mdpsim.kernels import evaluate as values
from mdpsim.mdp import families
from mdpsim.mdp.forms import form
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.mdp.token import TokenMDP
from mdpsim.solve.exact import evaluate, occupancy, solve_hard, solve_soft, trajectory_kl
from reference import instances, mp_solver

ALPHA = 1e-4
BETAS = (0.0, 1e-8, 1.0, 1e8, math.inf)


def staged(mdp):
    """The same MDP with every stage stored."""
    shape = (mdp.H, mdp.S, mdp.A)
    return MDP(np.broadcast_to(mdp.P, (*shape, mdp.S)), np.broadcast_to(mdp.r, shape), mdp.mu0)


def padded(P):
    """P [H or 1, S, A, S] as Successors, by a loop: the last id of a row comes twice, with half its probability each; what is
    left is padding, which names the last state (where the tests put infinities)."""
    width = int((P > 0).sum(axis=-1).max()) + 1
    next_state, prob = np.full((*P.shape[:3], width), P.shape[1] - 1), np.zeros((*P.shape[:3], width))
    for index in np.ndindex(P.shape[:3]):
        ids = np.flatnonzero(P[index])
        next_state[index][: ids.size], prob[index][: ids.size] = ids, P[index][ids]
        next_state[index][-1] = ids[-1]
        prob[index][[ids.size - 1, -1]] = P[index][ids[-1]] / 2
    return Successors(next_state, prob)


def with_successors(mdp):
    """The same MDP, sparse."""
    return MDP(padded(mdp.P), mdp.r, mdp.mu0, horizon=mdp.H)


def tabular_as_linear(mdp):
    """A tabular MDP is linear with d = S A: phi(s, a) is the unit vector of (s, a), mu_h its row of P, theta_h its reward."""
    cells = mdp.S * mdp.A
    phi = np.eye(cells).reshape(mdp.S, mdp.A, cells)
    return LinearMDP(
        phi, mdp.P.reshape(-1, cells, mdp.S), mdp.r.reshape(-1, cells), mdp.mu0, horizon=mdp.H
    )


def linear_mdp(S, A, d, H, seed=0, zeros=0.3, stages=None):
    """Random linear MDP whose phi and mu have zeros."""
    rng = np.random.default_rng(seed)

    def rows(*shape):
        p = rng.exponential(size=shape) * (rng.random(shape) > zeros)
        p[..., rng.integers(shape[-1])] += 0.2
        return p / p.sum(axis=-1, keepdims=True)

    n = stages or H
    return LinearMDP(rows(S, A, d), rows(n, d, S), rng.uniform(-0.3, 1.0, (n, d)), rows(S), horizon=H)


def random_tokens():
    """Three prompts, responses of four tokens out of three, rewards in [-0.3, 1]."""
    rng = np.random.default_rng(3)
    return TokenMDP(rng.uniform(-0.3, 1.0, (3, 81)), vocabulary=3, length=4, mu0=[0.5, 0.2, 0.3])


def problem(name):
    """{representation: MDP}; the first, dense, is what the others are compared with."""
    if name == "riverswim":
        mdp = families.riverswim(H=12)
        return {
            "dense stationary": mdp, "dense staged": staged(mdp), "sparse stationary": with_successors(mdp),
            "sparse staged": with_successors(staged(mdp)), "linear stationary": tabular_as_linear(mdp),
            "linear staged": tabular_as_linear(staged(mdp)),
        }
    if name == "tokens":
        mdp = random_tokens()
        return {"dense": mdp.to_tabular(), "sparse": with_successors(mdp.to_tabular()), "tokens": mdp}
    if name == "deterministic":
        mdp = families.random_deterministic(S=6, A=3, H=5, rng=1)
        return {"dense": mdp, "sparse": MDP(one_successor(mdp.P), mdp.r, mdp.mu0), "linear": tabular_as_linear(mdp)}
    model = linear_mdp(7, 3, 5, 6, stages=1 if name == "linear stationary" else 6)
    mdp = model.to_tabular()
    return {"dense": mdp, "sparse": with_successors(mdp), "linear": model}


def one_successor(P):
    """K = 1."""
    return Successors(P.argmax(axis=-1)[..., None], np.ones((*P.shape[:3], 1)))


PROBLEMS = ("riverswim", "deterministic", "tokens", "linear", "linear stationary")
CASES = [(name, which) for name in PROBLEMS for which in list(problem(name))[1:]]
BY_CASE = pytest.mark.parametrize(("name", "which"), CASES)


def policies(mdp, kind="zeros"):
    """(pi, reference): pi lies inside the support of the reference."""
    rng = np.random.default_rng(5)
    ref = instances.policy(rng, mdp.H, mdp.S, mdp.A, kind)
    pi = ref * rng.uniform(0.1, 1.0, size=ref.shape)
    return pi / pi.sum(axis=-1, keepdims=True), ref


def same(found, expected, scale=None):
    """Equal within the contract, infinities included."""
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0) if scale is None else scale
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerances.CONTRACT * scale)


@BY_CASE
@pytest.mark.parametrize("beta", BETAS)
def test_the_optimum_is_the_same(name, which, beta):
    models = problem(name)
    mdp, model = next(iter(models.values())), models[which]
    assert (model.H, model.S, model.A) == (mdp.H, mdp.S, mdp.A)
    _, ref = policies(mdp)
    expected, found = solve_soft(mdp, ref, beta), solve_soft(model, ref, beta)
    same(found.V, expected.V)
    same(found.Q, expected.Q)
    if beta in (0.0, 1.0, 1e8, math.inf):  # 1e-8 turns the last digit of Q into 1e-8 of pi: V is what is promised
        tie = 1e-13 if beta == 0.0 else tolerances.policy(mdp.H, mdp.S, mdp.A, float(np.abs(expected.Q).max()), beta)
        np.testing.assert_allclose(found.pi, expected.pi, rtol=0, atol=tie)
    assert not any(x.flags.writeable for x in found)


@BY_CASE
def test_the_hard_optimum_is_the_same(name, which):
    models = problem(name)
    expected, found = solve_hard(next(iter(models.values()))), solve_hard(models[which])
    for x, y in zip(found, expected, strict=True):
        same(x, y)


@BY_CASE
@pytest.mark.parametrize("beta", BETAS)
def test_values_of_a_policy_are_the_same(name, which, beta):
    models = problem(name)
    mdp, model = next(iter(models.values())), models[which]
    pi, ref = policies(mdp)
    if beta == math.inf:  # ruin ahead of some states only: the policies differ at one stage in one state
        pi, ref = ref, ref.copy()
        ref[-1, mdp.S - 1] = np.full(mdp.A, 1 / mdp.A)
        pi = pi.copy()
        pi[-1, mdp.S - 1] = np.eye(mdp.A)[0]
    expected, found = evaluate(mdp, pi, pi_ref=ref, beta=beta), evaluate(model, pi, pi_ref=ref, beta=beta)
    for x, y in zip(found[:3], expected, strict=False):
        same(x, np.asarray(y))
    assert found.kl == pytest.approx(expected.kl, rel=tolerances.CONTRACT)
    if beta == math.inf:
        assert np.isneginf(found.V).any()
        assert np.isfinite(found.V[:-1]).any()


@BY_CASE
def test_occupancy_and_divergence_are_the_same(name, which):
    models = problem(name)
    mdp, model = next(iter(models.values())), models[which]
    pi, ref = policies(mdp)
    occ = occupancy(model, pi)
    same(occ, occupancy(mdp, pi))
    assert np.abs(occ.sum(axis=1) - 1.0).max() <= tolerances.row_sum(mdp.S)
    assert trajectory_kl(model, pi, ref) == pytest.approx(trajectory_kl(mdp, pi, ref), rel=tolerances.CONTRACT)
    uncovered = np.zeros(ref.shape)
    uncovered[..., 0] = 1.0
    assert trajectory_kl(model, pi, uncovered) == trajectory_kl(mdp, pi, uncovered) == math.inf


@pytest.mark.parametrize("beta", [1e-8, 1.0, 1e8])
def test_linear_against_fifty_digits(beta):
    model = linear_mdp(4, 3, 3, 4)
    _, ref = policies(model)
    with mp_solver.mp.workdps(50):  # P and r formed exactly
        phi, mu = mp_solver.exact_rows(model.phi), mp_solver.exact_rows(model.mu)
        P, r = np.empty((4, 4, 3, 4), object), np.empty((4, 4, 3), object)
        for h in range(4):
            P[h] = phi.reshape(-1, 3).dot(mu[h]).reshape(4, 3, 4)
            r[h] = phi.dot(np.array([mp_solver.mpf(x) for x in model.theta[h]]))
    rounded = MDP(P.astype(float), r.astype(float), model.mu0)
    V, _, _ = mp_solver.solve_soft(rounded, ref, beta)
    assert float(abs(solve_soft(model, ref, beta).V - V).max()) <= tolerances.CONTRACT * float(abs(V).max())


@pytest.fixture
def plain_python(monkeypatch):
    """Every kernel and every callee as plain Python."""
    for module in (_math, bellman, values, rollout, successors, linear):
        for name, value in list(vars(module).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("which", ["sparse", "linear"])
def test_kernels_as_plain_python_do_the_same(which, request):
    model = problem("linear")[which]
    pi, ref = policies(model)

    def everything():
        yield from (x for beta in (0.0, 1.0) for x in solve_soft(model, ref, beta))
        yield from evaluate(model, pi, pi_ref=ref, beta=1.0)[:3]
        yield evaluate(model, pi, pi_ref=ref, beta=math.inf).V
        yield occupancy(model, pi)
        t = sample(model, pi, 50, 3)
        yield from (t.states, t.actions, t.rewards)
        yield from (sample_counts(model, pi, n, 4).visits for n in (5, 2000))

    compiled = list(everything())
    request.getfixturevalue("plain_python")
    for x, y in zip(compiled, everything(), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerances.CONTRACT, atol=tolerances.CONTRACT)


def test_a_horizon_of_one_and_one_of_everything():
    one = LinearMDP(np.ones((1, 1, 1)), np.ones((1, 1, 1)), [[0.5]], [1.0])
    assert solve_hard(one).V.tolist() == [[0.5], [0.0]]
    pi = np.ones((3, 1, 1))
    three = LinearMDP(np.ones((1, 1, 1)), np.ones((1, 1, 1)), [[0.5]], [1.0], horizon=3)
    assert evaluate(three, pi).J == 1.5
    assert sample(three, pi, 2, 0).rewards.tolist() == [[0.5] * 3] * 2
    assert evaluate(MDP(Successors([[[[0]]]], [[[[1.0]]]]), [[[0.5]]], [1.0], horizon=3), pi).J == 1.5


# ---- sampling: the law


def chi_square_p(observed, rows):
    """p-value of counts [R, C] against probability rows [R, C], given the row totals; none seen where p = 0.

    Rows with a cell of fewer than 8 expected are left out: the totals, which decide that, are given.
    """
    assert (observed[rows == 0] == 0).all()
    mean = observed.sum(axis=1, keepdims=True) * rows
    full = (mean >= 8).sum(axis=1) == (rows > 0).sum(axis=1)
    use = (rows > 0) & full[:, None]
    degrees = np.maximum(use.sum(axis=1) - 1, 0).sum()
    return stats.chi2.sf(((observed - mean)[use] ** 2 / mean[use]).sum(), degrees) if degrees else 1.0


def law_p(model, mdp, pi, n):
    """Smallest p-value over starts, actions and moves of ``model`` against those of the dense ``mdp``, times three."""
    t = sample(model, pi, n, 11)
    H, S, A = mdp.H, mdp.S, mdp.A
    cell = (np.arange(H) * S + t.states[:, :-1]) * A + t.actions
    moves = np.bincount((cell * S + t.states[:, 1:]).ravel(), minlength=H * S * A * S).reshape(-1, S)
    start = np.bincount(t.states[:, 0], minlength=S)[None]
    P = np.broadcast_to(mdp.P, (H, S, A, S)).reshape(-1, S)
    looks = (start, mdp.mu0[None]), (count(t).visits.reshape(-1, A), pi.reshape(-1, A)), (moves, P)
    np.testing.assert_allclose(t.rewards, np.broadcast_to(mdp.r, (H, S, A))[np.arange(H), t.states[:, :-1], t.actions])
    return 3 * min(chi_square_p(*look) for look in looks)


def bent(mdp):
    """The same support, 5% off."""
    P = mdp.P * (1 + 0.05 * np.cos(2 * np.arange(mdp.S)))
    return MDP(P / P.sum(axis=-1, keepdims=True), mdp.r, mdp.mu0, horizon=mdp.H)


@BY_CASE
def test_samples_have_the_law_of_the_mdp(name, which):
    models = problem(name)
    mdp, model = next(iter(models.values())), models[which]
    pi, _ = policies(mdp, "dirichlet")
    assert law_p(model, mdp, pi, 100_000) > ALPHA
    if name not in ("deterministic", "tokens"):  # there is no row to bend
        assert law_p(model, bent(mdp), pi, 100_000) < ALPHA


@pytest.mark.parametrize("which", ["sparse", "linear"])
def test_samples_are_prefixes_without_impossible_outcomes(which):
    model = problem("linear stationary")[which]
    pi, _ = policies(model)
    long = sample(model, pi, 2500, 7)
    for n in (1, 1024, 1025):
        short = sample(model, pi, n, 7)
        for field in ("states", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(short, field), getattr(long, field)[:n])


def counts_p(model, mdp, pi, n, repetitions):
    """Two-sample p-value: means and covariances of forward counts of ``model`` against counted samples of ``mdp``."""
    rng = np.random.default_rng(3)
    forward = np.array([sample_counts(model, pi, n, rng).visits.ravel() for _ in range(repetitions)], float)
    counted = np.array([count(sample(mdp, pi, n, rng)).visits.ravel() for _ in range(repetitions)], float)
    mean = n * (occupancy(mdp, pi)[:, :, None] * pi).ravel()
    i, j = np.triu_indices(mean.size)
    a, b = (np.concatenate([x, (x - mean)[:, i] * (x - mean)[:, j]], axis=1) for x in (forward, counted))
    keep = a.std(axis=0) + b.std(axis=0) > 0
    z = (a.mean(0) - b.mean(0))[keep] / np.sqrt(a.var(0) / len(a) + b.var(0) / len(b))[keep]
    return 2 * stats.norm.sf(np.abs(z).max()) * keep.sum()


@pytest.mark.parametrize("n", [6, 60])  # rows dealt one by one, and rows split by binomials
@pytest.mark.parametrize("which", ["sparse", "linear"])
def test_forward_counts_have_the_moments_of_counted_samples(which, n):
    model = linear_mdp(3, 2, 2, 3, zeros=0.0)
    mdp = model.to_tabular()
    pi, _ = policies(mdp, "dirichlet")
    model = model if which == "linear" else with_successors(mdp)
    assert counts_p(model, mdp, pi, n, 4000) > ALPHA
    assert counts_p(model, families.random_mdp(S=3, A=2, H=3, rng=0, concentration=20.0, start="uniform"), pi, n, 4000) < ALPHA


@pytest.mark.parametrize("which", ["sparse", "linear"])
def test_large_counts_have_the_means_of_the_occupancy(which):
    model = linear_mdp(40, 3, 4, 5)
    mdp = model.to_tabular()
    pi, _ = policies(mdp)
    d = occupancy(mdp, pi)[:, :, None] * pi
    visits = sample_counts(model if which == "linear" else with_successors(mdp), pi, 10**9, 0).visits
    assert (visits[d == 0] == 0).all()
    z = (visits - 1e9 * d)[d > 0] / np.sqrt(1e9 * d * (1 - d))[d > 0]
    assert 2 * stats.norm.sf(np.abs(z).max()) * z.size > ALPHA


# ---- memory: nothing of size S A S


def test_a_linear_mdp_never_forms_its_transitions():
    S, A, d, H = 20_000, 4, 6, 3
    rng = np.random.default_rng(0)
    mu = rng.exponential(size=(H, d, S))
    model = LinearMDP(rng.dirichlet(np.ones(d), (S, A)), mu / mu.sum(-1, keepdims=True), rng.random((H, d)), np.full(S, 1 / S))
    pi = families.uniform_policy(H, S, A)
    tracemalloc.start()
    try:
        best = solve_soft(model, pi, 0.5)
        solve_hard(model)
        evaluate(model, best.pi, pi_ref=pi, beta=0.5)
        trajectory_kl(model, best.pi, pi)
        sample(model, pi, 100, 0)
        sample_counts(model, pi, 1000, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 8 * (S * A * (d + 2 * H) + H * d * S)  # a dozen arrays as large as the inputs: 50 MB
    assert peak < 8 * S * A * S / 100  # P would take 12.8 GB


def test_dispatch_follows_the_representation():
    models = problem("linear")
    assert [form("f", m).solve for m in models.values()] == [bellman, successors, linear]
