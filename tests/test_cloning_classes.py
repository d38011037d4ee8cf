"""Cloning within log-linear and finite classes against plain Python, scipy's optimiser and closed forms; the experts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog, minimize
from scipy.special import log_softmax

from mdpsim import (
    Counts,
    evaluate,
    fit_bc,
    fit_bc_finite,
    fit_bc_linear,
    optimal_expert,
    random_expert,
    sample,
    sample_counts,
    soft_expert,
    solve_hard,
    solve_soft,
    suboptimal_expert,
    trajectory_kl,
)
from mdpsim.estimate.experts import epsilon_greedy_expert
from mdpsim.kernels import loglinear
from mdpsim.mdp import families
from mdpsim.papers.tiapkin2023.linear import log_linear_instance
from mdpsim.rng import generator

S, A, H, D = 6, 4, 2, 3


def instance(kind="gaussian", seed=0, n=500, S=S, A=A, H=H, d=D):
    rng = generator(seed)
    x = log_linear_instance(kind, S, A, H, d, rng)
    return x, sample_counts(x.mdp, x.expert, n, rng)


def objective(theta, phi, visits, ridge=0.0):
    """Minus the mean penalised log-likelihood of one stage."""
    return -(visits * log_softmax(phi @ theta, axis=-1)).sum() / visits.sum() + ridge * theta @ theta / 2


@pytest.mark.parametrize("ridge", [0.0, 0.01])
@pytest.mark.parametrize("seed", range(5))
def test_equals_a_general_optimiser(seed, ridge):
    x, counts = instance(seed=seed)
    fit = fit_bc_linear(counts, x.phi, kappa=0.0, ridge=ridge)
    assert set(fit.status) == {"converged"}
    assert (fit.gradient <= 1e-8).all()
    for h in range(H):
        found = minimize(objective, np.zeros(D), args=(x.phi, counts.visits[h], ridge), method="BFGS", options={"gtol": 1e-9})
        assert objective(fit.theta[h], x.phi, counts.visits[h], ridge) <= found.fun + 1e-13
        assert fit.theta[h] == pytest.approx(found.x, abs=1e-5)
        assert fit.log_likelihood[h] == pytest.approx(-counts.n * objective(fit.theta[h], x.phi, counts.visits[h]), rel=1e-12)
        assert fit.pi[h] == pytest.approx(np.exp(log_softmax(x.phi @ fit.theta[h], axis=-1)), abs=1e-13)


def test_covariance_is_the_inverse_information():
    """Against finite differences of the log-likelihood, and against the spread of estimates."""
    x, counts = instance(n=2000)
    fit, step = fit_bc_linear(counts, x.phi), 1e-4
    hessian = np.empty((D, D))
    for i, j in itertools.product(range(D), repeat=2):
        e, f = step * np.eye(D)[i], step * np.eye(D)[j]
        ends = [objective(fit.theta[0] + a * e + b * f, x.phi, counts.visits[0]) * a * b for a in (-1, 1) for b in (-1, 1)]
        hessian[i, j] = counts.n * sum(ends) / (4 * step**2)
    assert np.linalg.inv(fit.cov[0]) == pytest.approx(hessian, rel=1e-4, abs=1e-2)
    rng = generator(3)
    again = [fit_bc_linear(sample_counts(x.mdp, x.expert, 2000, rng), x.phi).theta[0] for _ in range(500)]
    spread = np.cov(again, rowvar=False)
    assert np.diag(spread) == pytest.approx(np.diag(fit.cov[0]), rel=0.35)  # chi-square with 499 degrees: 5 deviations


def test_one_hot_features_are_the_tabular_frequencies():
    """Maximum likelihood over one-hot features is the share of each action, the mixture its uniform shift."""
    x, counts = instance("one-hot", S=4, A=3, n=5000)
    fit = fit_bc_linear(counts, x.phi, kappa=0.0)
    assert fit.pi == pytest.approx(fit_bc(counts, smoothing=0.0), abs=1e-8)
    assert fit.rank.tolist() == [4 * 2] * H
    kappa = 3 / 5003
    assert fit_bc_linear(counts, x.phi).pi == pytest.approx((1 - kappa) * fit.pi + kappa / 3, abs=1e-13)


def test_dependent_features_change_nothing_but_the_parameters():
    """Functions of the state, repeated columns, another scale or a huge shift: the same policy and effective dimension."""
    x, counts = instance(n=1000)
    plain = fit_bc_linear(counts, x.phi)
    of_state = np.broadcast_to(generator(1).normal(size=(S, 1, 1)), (S, A, 1))
    for phi in (np.concatenate([x.phi, x.phi[..., :1], of_state], axis=-1), x.phi + 1e6 * of_state, x.phi * [1e3, 1e-3, 1.0]):
        other = fit_bc_linear(counts, phi)
        assert other.rank.tolist() == plain.rank.tolist() == [D] * H
        assert other.pi == pytest.approx(plain.pi, abs=1e-7)
        assert set(other.status) == {"converged"}
    nothing = fit_bc_linear(counts, of_state)
    assert nothing.rank.tolist() == [0] * H
    assert nothing.pi == pytest.approx(np.full((H, S, A), 1 / A))


def separable(phi, visits):
    """Whether some direction never lowers the likelihood: a linear program, independent of the fit."""
    seen = [(s, a) for s in range(S) for a in range(A) if visits[s, a]]
    rows = np.array([phi[s, b] - phi[s, a] for s, a in seen for b in range(A) if b != a])
    best = linprog(rows.sum(axis=0), A_ub=rows, b_ub=np.zeros(len(rows)), bounds=[(-1, 1)] * phi.shape[-1])
    return best.fun < -1e-9


def test_separable_data_are_named_and_near_their_supremum():
    """Status against a linear program on small samples of both kinds; the likelihood tends to its supremum."""
    kinds = set()
    for seed in range(60):
        x, counts = instance(seed=seed, n=5, H=1, d=2)
        fit = fit_bc_linear(counts, x.phi)
        expected = separable(x.phi, counts.visits[0])
        assert fit.status == ("separable" if expected else "converged",), seed
        assert np.isfinite(fit.theta).all()
        assert np.isfinite(fit.cov).all()
        kinds.add(expected)
    assert kinds == {True, False}
    greedy = np.eye(A)[(x.phi @ np.array([1.0, -2.0])).argmax(axis=-1)][None]
    fit = fit_bc_linear(sample_counts(x.mdp, greedy, 1000, 0), x.phi, kappa=0.0)
    assert fit.status == ("separable",)
    assert -1e-5 < fit.log_likelihood[0] <= 0.0
    assert trajectory_kl(x.mdp, greedy, fit.pi) < 1e-7
    assert fit_bc_linear(sample_counts(x.mdp, greedy, 1000, 0), x.phi, ridge=1e-6).status == ("converged",)


def test_warm_starts_save_steps_and_change_nothing():
    x, counts = instance(n=10_000)
    fit = fit_bc_linear(counts, x.phi)
    for start in (fit.theta, fit.theta + 0.01, np.full((H, D), 1e3), np.full((H, D), -1e300)):
        assert fit_bc_linear(counts, x.phi, start=start).theta == pytest.approx(fit.theta, abs=1e-8)
    white, n = np.ascontiguousarray(x.phi), counts.visits[0] / counts.n
    steps = []
    for start in (np.zeros(D), fit.theta[0]):
        info = np.empty(4)
        arrays = [a.copy() for a in (white, n, np.zeros(D), start)]
        for a in arrays:
            a.flags.writeable = False
        loglinear.newton(*arrays, 1e-10, 100, np.empty(D), np.empty((D, D)), info)
        steps.append(info[2])
    assert steps[1] <= 1 < steps[0]


def test_the_kernel_equals_its_plain_python(monkeypatch):
    x, counts = instance()
    compiled = fit_bc_linear(counts, x.phi)
    for name in ("_row", "_value", "_derivatives", "cholesky_solve"):
        monkeypatch.setattr(loglinear, name, getattr(loglinear, name).py_func)
    monkeypatch.setattr(loglinear, "newton", loglinear.newton.py_func)
    assert fit_bc_linear(counts, x.phi).theta == pytest.approx(compiled.theta, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-90, 1e90])
def test_the_unit_of_the_features_does_not_matter(scale):
    x, counts = instance()
    assert fit_bc_linear(counts, scale * x.phi).pi == pytest.approx(fit_bc_linear(counts, x.phi).pi, abs=1e-10)


def test_trajectories_and_one_demonstration():
    x, _ = instance()
    demos = sample(x.mdp, x.expert, 1, 0)
    fit = fit_bc_linear(demos, x.phi)
    assert fit.pi.sum(axis=-1) == pytest.approx(np.ones((H, S)))
    assert (fit.rank <= A - 1).all()


BAD = [
    ({"phi": np.zeros((S, A))}, r"phi must have shape \[S, A, d\] = \(6, 4, d\); got \(6, 4\)"),
    ({"phi": np.zeros((S, A + 1, 2))}, r"phi must have shape \[S, A, d\]"),
    ({"phi": np.zeros((S, A, 0))}, r"phi must have shape \[S, A, d\]"),
    ({"phi": np.full((S, A, 2), np.nan)}, "phi must be finite; got nan"),
    ({"phi": "features"}, "phi must hold real numbers"),
    ({"kappa": -0.1}, r"kappa must be a number in \[0, 1\]; got -0.1"),
    ({"kappa": 1.5}, "kappa must be"),
    ({"ridge": np.inf}, "ridge must be"),
    ({"start": np.zeros((H, D + 1))}, r"start must have shape \[H, d\] = \(2, 3\); got \(2, 4\)"),
    ({"start": np.full((H, D), np.inf)}, "start must be finite"),
    ({"phi": 1e200 * np.arange(S * A).reshape(S, A, 1)}, "phi must differ between actions by 1e-100 to 1e100, or not at all"),
    ({"phi": 1e-200 * np.arange(S * A).reshape(S, A, 1)}, "phi must differ between actions"),
    ({"phi": np.where(np.arange(S * A) % 2, 1.7e308, -1.7e308).reshape(S, A, 1)}, "phi must differ between actions"),
    ({"demos": 3}, "demos must be Trajectories or Counts"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_refuses(change, message):
    x, counts = instance()
    with pytest.raises(ValueError, match=f"fit_bc_linear: {message}"):
        fit_bc_linear(**({"demos": counts, "phi": x.phi} | change))


# --- finite classes --------------------------------------------------------------------------------------------------


def test_finite_class_equals_plain_python():
    mdp = families.random_mdp(S=S, A=A, H=H, rng=0)
    policies = np.stack([families.random_policy(S=S, A=A, H=H, rng=i) for i in range(7)])
    policies[3, 0, 0] = [0.5, 0.5, 0, 0]
    counts = sample_counts(mdp, policies[5], 50, 1)
    fit = fit_bc_finite(counts, policies)
    for m in range(7):
        total = 0.0
        for h, s, a in np.ndindex(H, S, A):
            if counts.visits[h, s, a]:
                p = policies[m, h, s, a]
                total += counts.visits[h, s, a] * (np.log(p) if p > 0 else -np.inf)
        assert fit.log_likelihood[m] == pytest.approx(total, rel=1e-13)
    assert fit.log_likelihood[3] == -np.inf
    assert fit.index == 5 == fit.log_likelihood.argmax()
    np.testing.assert_array_equal(fit.pi, policies[5])


def test_finite_class_ties_and_impossible_data():
    counts = Counts(np.array([[[2, 1]]]), 3)
    same = np.full((2, 1, 1, 2), 0.5)
    assert fit_bc_finite(counts, same).index == 0
    with pytest.raises(ValueError, match="fit_bc_finite: policies must hold a member under which .*; got none of 2"):
        fit_bc_finite(counts, np.array([[[[1.0, 0.0]]], [[[0.0, 1.0]]]]))


# --- experts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_experts_are_what_they_are_called(seed):
    mdp = families.random_mdp(S=S, A=A, H=4, rng=seed)
    best = float(mdp.mu0 @ solve_hard(mdp).V[0])
    greedy = optimal_expert(mdp)
    assert pytest.approx(best, abs=1e-13) == evaluate(mdp, greedy).J
    assert set(np.unique(greedy)) == {0.0, 1.0}
    np.testing.assert_array_equal(epsilon_greedy_expert(mdp, epsilon=0.2), 0.8 * greedy + 0.2 / A)
    uniform = families.uniform_policy(4, S, A)
    np.testing.assert_array_equal(soft_expert(mdp, beta=0.3), solve_soft(mdp, uniform, 0.3).pi)
    for eps in (0.0, 1e-6, 0.3, 1.0):
        assert best - evaluate(mdp, suboptimal_expert(mdp, eps=eps)).J == pytest.approx(eps, abs=1e-12)


def test_the_range_of_suboptimality_is_that_of_all_policies():
    mdp = families.random_mdp(S=2, A=2, H=2, rng=3)
    values = []
    for choice in itertools.product(range(2), repeat=4):
        values.append(evaluate(mdp, np.eye(2)[np.array(choice).reshape(2, 2)]).J)
    worst = max(values) - min(values)
    assert pytest.approx(min(values), abs=1e-8) == evaluate(mdp, suboptimal_expert(mdp, eps=worst - 1e-9)).J
    with pytest.raises(ValueError, match=r"suboptimal_expert: eps must be in \[0, V\* - V_worst\]"):
        suboptimal_expert(mdp, eps=worst + 1e-6)


@pytest.mark.parametrize("support", [1, 2, A])
def test_random_experts_have_their_support_everywhere(support):
    pi = random_expert(H=5, S=S, A=A, support=support, rng=0, least=0.1)
    assert (np.count_nonzero(pi, axis=-1) == support).all()
    assert pi[pi > 0].min() >= 0.1
    assert pi.sum(axis=-1) == pytest.approx(np.ones((5, S)))
    assert (pi > 0).any(axis=(0, 1)).all()  # every action somewhere
