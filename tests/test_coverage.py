"""Coverage of a class of policies against a linear program, enumeration and 50-digit arithmetic, and its bad input."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from mpmath import mp, mpf
from scipy import special
from scipy.optimize import linprog

from mdpsim.align.coverage import (
    box_coverability,
    concentrability,
    coverability,
    effective_ranges,
    extrapolation_bound,
    greedy_extrapolation,
)
from mdpsim.kernels import coverage as kernels

EPS = np.finfo(float).eps


def log_laws(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.log(rng.dirichlet(np.ones(shape[-1]), size=shape[:-1]))


def tilted(ref: np.ndarray, rho: np.ndarray, beta: float) -> np.ndarray:
    return special.log_softmax(np.log(ref) + rho / beta, axis=-1)


def least_ratio(d: np.ndarray) -> float:
    """inf_mu max d / mu by HiGHS, the definition: the smallest C with C mu >= d(pi, .) for every pi."""
    m, n = d.shape
    above = np.column_stack([np.tile(-np.eye(n), (m, 1)), d.reshape(-1)])
    found = linprog(
        np.append(np.zeros(n), -1.0), A_ub=above, b_ub=np.zeros(m * n), A_eq=np.append(np.ones(n), 0.0)[None], b_eq=[1.0],
        method="highs",
    )
    assert found.status == 0
    return -1.0 / found.fun


@pytest.mark.parametrize(("m", "n"), [(1, 4), (2, 3), (7, 5), (30, 2), (4, 12)])
def test_coverability_is_the_linear_program(m: int, n: int) -> None:
    rng = np.random.default_rng(m * n)
    logs = log_laws(rng, m, n)
    assert coverability(logs) == pytest.approx(least_ratio(np.exp(logs)), rel=1e-8)
    assert 1.0 <= coverability(logs) <= min(m, n) + 1e-12


def test_coverability_of_prompts_is_that_of_pairs() -> None:
    rng = np.random.default_rng(1)
    logs, mu0 = log_laws(rng, 6, 3, 4), rng.dirichlet(np.ones(3))
    joint = (mu0[:, None] * np.exp(logs)).reshape(6, -1)
    assert coverability(logs, mu0=mu0) == pytest.approx(least_ratio(joint), rel=1e-8)
    apart = [coverability(logs[:, x]) for x in range(3)]
    assert coverability(logs, mu0=mu0) == pytest.approx(mu0 @ apart, rel=1e-14)
    assert coverability(logs) == pytest.approx(np.mean(apart), rel=1e-14)


def test_box_coverability_is_that_of_its_corners_and_of_no_more() -> None:
    rng = np.random.default_rng(2)
    for n, beta in itertools.product((1, 2, 5), (0.05, 0.5, 20.0)):
        ref = rng.dirichlet(np.ones(n))
        corners = np.array(list(itertools.product((0.0, 0.7), repeat=n)))
        stated = box_coverability(ref, r_max=0.7, beta=beta)
        assert coverability(tilted(ref, corners, beta)) == pytest.approx(stated, rel=1e-13)
        inner = np.concatenate([corners, rng.uniform(0.0, 0.7, (500, n))])
        assert coverability(tilted(ref, inner, beta)) <= stated * (1.0 + 1e-13)


@pytest.mark.parametrize("beta", [1e-8, 1e-3, 0.05, 1.0, 1e8])
def test_box_coverability_in_50_digits(beta: float) -> None:
    ref = np.array([1.0 - 3e-10, 1e-10, 2e-10, 0.0])
    with mp.workdps(50):
        exact = [mpf(float(p)) for p in ref]
        left = mp.exp(-mpf(1) / mpf(beta))
        parts = [exact[y] / (exact[y] + (sum(exact) - exact[y]) * left) for y in range(3)]
        stated = sum(parts)
    assert box_coverability(ref, r_max=1.0, beta=beta) == pytest.approx(float(stated), rel=8 * EPS)


def test_theory_numbers_of_box_coverability() -> None:
    """At small beta Ccov ~ K, unless the reference is rarer than e^{-R / beta}."""
    for n in range(2, 7):
        assert box_coverability(np.full(n, 1 / n), r_max=1.0, beta=0.02) == pytest.approx(n, abs=1e-9)
    for n, stated in ((2, 1.05), (3, 1.09), (5, 1.19)):
        ref = np.full(n, 1e-10)
        ref[0] = 1.0 - ref[1:].sum()
        assert box_coverability(ref, r_max=1.0, beta=0.05) == pytest.approx(stated, abs=6e-3)


def test_limits_of_box_coverability() -> None:
    ref = np.array([[0.2, 0.3, 0.5, 0.0], [0.25, 0.25, 0.25, 0.25]])
    assert box_coverability(ref, r_max=0.0, beta=1.0) == pytest.approx(1.0, rel=1e-15)
    assert box_coverability(ref, r_max=1.0, beta=np.inf) == pytest.approx(1.0, rel=1e-15)
    assert box_coverability(ref, r_max=1e300, beta=1e-8, mu0=[0.4, 0.6]) == pytest.approx(0.4 * 3 + 0.6 * 4, rel=1e-15)


def test_concentrability() -> None:
    logs = np.log([[0.5, 0.5], [0.1, 0.9]])
    assert concentrability(logs, [0.05, 0.95]) == pytest.approx(10.0, rel=1e-14)
    assert concentrability(logs, [0.0, 1.0]) == np.inf
    with np.errstate(divide="ignore"):
        assert concentrability(np.log([[0.0, 1.0]]), [0.0, 1.0]) == pytest.approx(1.0)
    prompts = np.stack([logs, logs[::-1]], axis=1)
    assert concentrability(prompts, [[0.05, 0.95], [0.5, 0.5]], mu0=[0.0, 1.0]) == pytest.approx(1.8, rel=1e-14)


def test_effective_ranges_of_a_box() -> None:
    rng = np.random.default_rng(3)
    ref, beta = rng.dirichlet(np.ones(4), size=2), 0.1
    rho = rng.uniform(0.0, 1.0, (10, 2, 4))
    ranges = effective_ranges(tilted(ref, rho, beta), ref, beta)
    assert ranges.R_max == pytest.approx((rho.max(axis=2) - rho.min(axis=2)).max(), rel=1e-12)
    value = beta * special.logsumexp(rho / beta, b=ref, axis=-1)
    assert ranges.V_max == pytest.approx(np.abs(rho - value[..., None]).max(), rel=1e-12)
    assert ranges.V_max <= ranges.R_max <= 1.0
    only = effective_ranges(tilted(ref, rho, beta), ref, beta, mu0=[1.0, 0.0])
    assert only.R_max == pytest.approx((rho.max(axis=2) - rho.min(axis=2))[:, 0].max(), rel=1e-12)


def test_effective_ranges_off_the_support() -> None:
    with np.errstate(divide="ignore"):
        gives_up, leaves, both = (np.log([p]) for p in ([0.0, 0.4, 0.6], [0.2, 0.3, 0.5], [0.0, 0.5, 0.5]))
    assert effective_ranges(gives_up, [0.2, 0.3, 0.5], 1.0) == (np.inf, np.inf)
    assert effective_ranges(leaves, [0.0, 0.5, 0.5], 1.0) == (np.inf, np.inf)
    assert effective_ranges(both, [0.0, 0.5, 0.5], 1.0) == (0.0, 0.0)


# --- the sequential extrapolation coefficient --------------------------------------------------------------------------


def enumerated(logs, ref, r, beta, sequence, least, mu0, nu):
    """Partial sums of the coefficient of a sequence, from the definition over all pairs of responses."""
    h = beta * (logs - np.log(ref)) - r
    pair = h[:, :, :, None] - h[:, :, None, :]
    total, sums = 0.0, []
    for t, j in enumerate(sequence):
        laws = [mu0[:, None, None] * np.exp(logs[i])[:, :, None] * nu[:, None, :] for i in sequence[: t + 1]]
        now = float((laws[t] * pair[j]).sum())
        seen = sum(float((law * pair[j] ** 2).sum()) for law in laws[:t])
        total += now**2 / max(least, seen)
        sums.append(total)
    return np.array(sums)


@pytest.mark.parametrize("with_nu", [False, True])
def test_greedy_value_from_the_definition(with_nu: bool) -> None:
    rng = np.random.default_rng(4)
    ref, mu0, beta = rng.dirichlet(np.ones(3), size=2), np.array([0.3, 0.7]), 0.3
    logs, r = tilted(ref, rng.uniform(0, 1, (5, 2, 3)), beta), rng.uniform(0, 1, (2, 3))
    nu = rng.dirichlet(np.ones(3), size=2) if with_nu else None
    found = greedy_extrapolation(logs, ref, r, beta=beta, steps=12, least=0.04, mu0=mu0, nu=nu)
    used = ref if nu is None else nu
    stated = enumerated(logs, ref, r, beta, found.chosen, 0.04, mu0, used)
    assert found.value == pytest.approx(stated, rel=1e-12)
    for t in range(12):  # no other policy adds more
        for j in range(5):
            other = enumerated(logs, ref, r, beta, [*found.chosen[:t], j], 0.04, mu0, used)
            assert other[-1] <= found.value[t] * (1 + 1e-12)
    h = beta * (logs - np.log(ref)) - r
    assert pytest.approx(np.abs(h[..., :, None] - h[..., None, :]).max(), rel=1e-13) == found.D


def test_best_sequence_by_brute_force_is_below_the_proven_bound_and_above_greedy() -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        ref = rng.dirichlet(np.ones(3), size=1)
        logs, r = tilted(ref, rng.uniform(0, 1, (4, 1, 3)), 0.05), rng.uniform(0, 1, (1, 3))
        found = greedy_extrapolation(logs, ref, r, beta=0.05, steps=5, least=0.1)
        every = [
            enumerated(logs, ref, r, 0.05, s, 0.1, np.ones(1), ref)[-1] for s in itertools.product(range(4), repeat=5)
        ]
        bound = extrapolation_bound(coverability(logs), D=found.D, least=0.1, steps=5)
        assert found.value[-1] * (1 - 1e-12) <= max(every) <= bound


def test_greedy_kernel_compiled_and_plain_agree() -> None:
    rng = np.random.default_rng(6)
    square, second = rng.uniform(0, 1, 9), rng.uniform(0, 1, (9, 9))
    square[3] = square[4]
    for array in (square, second):
        array.flags.writeable = False
    results = []
    for function in (kernels.greedy, kernels.greedy.py_func):
        total, chosen = np.empty(50), np.empty(50, np.int64)
        function(square, second, 0.5, np.zeros(9), total, chosen)
        results.append((total, chosen))
    assert np.array_equal(results[0][1], results[1][1])
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-14)


def test_rows_off_by_less_than_the_tolerance_are_renormalised() -> None:
    logs = np.log([[0.5, 0.5]]) + 5e-10
    assert coverability(logs) == pytest.approx(1.0, abs=1e-15)
    assert concentrability(logs, [0.5, 0.5]) == pytest.approx(1.0, abs=1e-15)


def test_largest_difference_with_a_comparator_of_smaller_support() -> None:
    """tau over all responses, tau' over the comparator's only: both signs count."""
    ref, rho = np.full((1, 3), 1 / 3), np.array([[0.0, 0.4, 1.0], [1.0, 0.6, 0.0]])
    for nu, stated in (([0.0, 0.0, 1.0], 1.0), ([0.0, 1.0, 0.0], 0.6), ([1.0, 0.0, 0.0], 1.0)):
        for sign in (1.0, -1.0):
            logs = tilted(ref, sign * rho[:1] + (sign < 0), 0.5)[:, None]
            found = greedy_extrapolation(logs, ref, np.zeros(3), beta=0.5, steps=1, least=1.0, nu=nu)
            assert pytest.approx(stated, rel=1e-12) == found.D


def test_the_true_policy_extrapolates_without_error() -> None:
    ref, r = np.full((1, 3), 1 / 3), np.array([[0.1, 0.5, 1.0]])
    found = greedy_extrapolation(tilted(ref, r, 0.2)[None], ref, r, beta=0.2, steps=10, least=1e-6)
    assert found.value[-1] < 1e-20
    assert found.D < 1e-14


def test_without_lambda_the_coefficient_is_infinite() -> None:
    ref, r = np.full((1, 3), 1 / 3), np.array([[0.1, 0.5, 1.0]])
    logs = tilted(ref, np.array([[1.0, 0.0, 0.0]]), 0.2)[None]
    assert greedy_extrapolation(logs, ref, r, beta=0.2, steps=3, least=0.0).value[0] == np.inf
    assert np.array_equal(greedy_extrapolation(np.log(ref), ref, 0 * r, beta=0.2, steps=3, least=0.0).value, np.zeros(3))


def test_extrapolation_bound_by_hand() -> None:
    assert extrapolation_bound(3.0, D=2.0, least=1.0, steps=4096) == pytest.approx(48 + 2 / np.log(2) * 3 * np.log(4096))
    assert extrapolation_bound(1.0, D=0.0, least=1.0, steps=[1, 2]) == pytest.approx([0.0, 2.0])


@pytest.mark.parametrize("beta", [1e-8, 1e8])
def test_extreme_beta(beta: float) -> None:
    """Laws are given as logarithms: those of -1e8 are as good as any other."""
    ref, rho = np.array([[0.2, 0.3, 0.5]]), np.array([[0.0, 0.4, 1.0], [1.0, 0.0, 0.0]])
    logs = tilted(ref, rho, beta)[:, None]
    ranges = effective_ranges(logs, ref, beta)
    assert ranges.R_max == pytest.approx(1.0, rel=1e-6 if beta > 1 else 1e-12)
    found = greedy_extrapolation(logs, ref, rho[:1], beta=beta, steps=20, least=1.0)
    assert np.isfinite(found.value).all()
    assert coverability(logs) == pytest.approx(2.0 if beta < 1 else 1.0, abs=1e-7)


LOGS, REF, R = np.log([[0.5, 0.5], [0.1, 0.9]]), [0.5, 0.5], [0.0, 1.0]
GREEDY = {"beta": 1.0, "steps": 3, "least": 1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coverability([[0.5, 0.5]]), "coverability: log_pi must have rows whose exponentials sum to one within"),
        (lambda: coverability([0.0]), r"be log-probabilities \[M, Y\] or \[M, X, Y\]; got shape \(1,\)"),
        (lambda: coverability([[np.nan, 0.0]]), "coverability: log_pi must hold logarithms of probabilities; got NaN or inf"),
        (lambda: coverability([["a"]]), "coverability: log_pi must hold real numbers"),
        (lambda: coverability([[1e300]]), "coverability: log_pi must have rows"),
        (lambda: coverability(LOGS, mu0=[0.5, 0.5]), r"coverability: mu0 must have shape \[X\] = \(1,\); got \(2,\)"),
        (lambda: box_coverability(REF, r_max=-1.0, beta=1.0), "box_coverability: r_max must be a number in"),
        (lambda: box_coverability(REF, r_max=1.0, beta=0.0), "box_coverability: beta must be a number in"),
        (lambda: box_coverability([0.5, 0.6], r_max=1.0, beta=1.0), "box_coverability: pi_ref must have rows that sum to one"),
        (lambda: box_coverability(0.5, r_max=1.0, beta=1.0), r"box_coverability: pi_ref must have shape \[Y\]"),
        (lambda: concentrability(LOGS, [1.0]), r"concentrability: nu must have shape \[Y\] = \(2,\); got \(1,\)"),
        (lambda: effective_ranges(LOGS, REF, np.inf), r"effective_ranges: beta must be a number in \(0, inf\); got inf"),
        (lambda: effective_ranges(LOGS, REF, "1"), "effective_ranges: beta must be a number in"),
        (lambda: greedy_extrapolation(LOGS, REF, [0.0], **GREEDY), r"greedy_extrapolation: r must have shape \[Y\] = \(2,\)"),
        (lambda: greedy_extrapolation(LOGS, REF, R, **GREEDY | {"steps": 0}), "extrapolation: steps must be an integer >= 1"),
        (lambda: greedy_extrapolation(LOGS, REF, R, **GREEDY | {"least": -1.0}), "extrapolation: least must be a number in"),
        (lambda: greedy_extrapolation(LOGS, [0.0, 1.0], R, **GREEDY), "log_pi must have exactly the support of pi_ref; got"),
        (lambda: extrapolation_bound(0.5, D=1.0, least=1.0, steps=4), "extrapolation_bound: ccov must be a number in"),
        (lambda: extrapolation_bound(2.0, D=1.0, least=0.0, steps=4), "extrapolation_bound: least must be a number in"),
        (lambda: extrapolation_bound(2.0, D=1.0, least=1.0, steps=0), "extrapolation_bound: steps must be numbers >= 1; got 0"),
    ],
)
def test_bad_input(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_comparator_off_the_support() -> None:
    with np.errstate(divide="ignore"):
        logs = np.log([[0.5, 0.5, 0.0]])
    with pytest.raises(ValueError, match="greedy_extrapolation: nu must stay on the support of pi_ref"):
        greedy_extrapolation(logs, [0.5, 0.5, 0.0], np.zeros(3), **GREEDY, nu=[0.0, 0.5, 0.5])
