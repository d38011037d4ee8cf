"""exp, expm1, log, log1p and the KL term against 50-digit arithmetic, in a vectorised loop and as plain Python."""

from __future__ import annotations

import math

import mpmath
import numba
import numpy as np
import pytest
from mpmath import mp, mpf

import tolerances
from mdpsim.kernels import _jit, _math

N = 1500
INF, NAN = math.inf, math.nan
SPECIAL = [0.0, -0.0, INF, -INF, NAN, 5e-324, 1e308, -1e308, 710.0, -746.0]


def spread(*ranges, seed=0):
    """N numbers from each range (low, high): uniform."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(low, high, N) for low, high in ranges])


def powers(low, high, seed=0):
    """N numbers, log-uniform in [10^low, 10^high]."""
    return 10.0 ** np.random.default_rng(seed).uniform(low, high, N)


INPUTS = {
    "exp": spread((-700, 0), (-745.2, -700), (0, 709.78), (-1, 1), (-1e-8, 1e-8)),
    "expm1": np.concatenate([spread((-700, 0), (0, 709.78), (-1, 1)), powers(-300, 0), -powers(-300, 0)]),
    "log": np.concatenate([powers(-308, 308), powers(-323.3, -308), spread((0.5, 2.0), (1 - 1e-8, 1 + 1e-8))]),
    "log1p": np.concatenate([powers(-300, 300), spread((-0.5, 1.0), (-1, -0.5), (-1e-8, 1e-8))]),
}
IEEE = {
    "exp": [1.0, 1.0, INF, 0.0, NAN, 1.0, INF, 0.0, INF, 0.0],
    "expm1": [0.0, -0.0, INF, -1.0, NAN, 5e-324, INF, -1.0, INF, -1.0],
    "log": [-INF, -INF, INF, NAN, NAN, math.log(5e-324), math.log(1e308), NAN, math.log(710), NAN],
    "log1p": [0.0, -0.0, INF, NAN, NAN, 5e-324, math.log(1e308), NAN, math.log(711), NAN],
}


def in_a_loop(name):
    """The function inside a vectorised loop with the flags of a kernel, where reassociation is allowed around it."""
    f = getattr(_math, name)

    @numba.njit(error_model="numpy", fastmath=set(_jit.FASTMATH))
    def loop(x):
        out = np.empty_like(x)
        for i in range(x.size):
            out[i] = f(x[i])
        return out

    return loop


def as_python(name):
    """The function as plain Python on numpy scalars."""
    f = getattr(_math, name).py_func

    def loop(x):
        with np.errstate(all="ignore"):
            return np.array([f(v) for v in x])

    return loop


def worst_ulps(values, name, x):
    """Largest error in units of the last place of the true value."""
    truth = getattr(mpmath, name)
    worst = 0.0
    with mp.workdps(50):
        for value, v in zip(values, x, strict=True):
            exact = truth(mpf(float(v)))
            unit = float(np.spacing(abs(float(exact))))
            worst = max(worst, float(abs(mpf(float(value)) - exact) / unit))
    return worst


@pytest.mark.parametrize("name", list(INPUTS))
def test_within_the_stated_ulps_in_a_vectorised_loop(name):
    x = INPUTS[name]
    assert worst_ulps(in_a_loop(name)(x), name, x) <= tolerances.ULPS[name]


@pytest.mark.parametrize("name", list(INPUTS))
def test_within_the_stated_ulps_as_plain_python(name, monkeypatch):
    x = INPUTS[name][::10]
    loop = as_python(name)
    for inner in ("_reduce", "log", "log_ratio_sum"):
        monkeypatch.setattr(_math, inner, getattr(_math, inner).py_func)
    assert worst_ulps(loop(x), name, x) <= tolerances.ULPS[name]


@pytest.mark.parametrize("name", list(INPUTS))
@pytest.mark.parametrize("how", [in_a_loop, as_python])
def test_special_values_are_those_of_ieee_754(name, how):
    found = how(name)(np.array(SPECIAL * 5))  # long enough for the vectorised part of the loop
    np.testing.assert_allclose(found, IEEE[name] * 5, rtol=2 * tolerances.EPS, atol=0)
    if name in ("expm1", "log1p"):
        assert found[0] == 0.0


def test_exp_of_a_row_of_integers_is_monotone_and_exact_at_zero():
    x = np.arange(-745.0, 710.0, 0.25)
    values = in_a_loop("exp")(x)
    assert np.all(np.diff(values) >= 0)
    assert values[x == 0.0] == 1.0


def test_weighted_exp_reaches_where_the_exponential_alone_overflows():
    for w, x in [(1e-300, 700.0), (5e-324, 744.0), (1e-300, -5.0), (0.3, 1e-12), (0.3, -1e-12), (1.0, -800.0)]:
        mass, excess = _math.weighted_exp(w, x)
        with mp.workdps(50):
            truth, truth_excess = mpf(w) * mpmath.exp(mpf(x)), mpf(w) * mpmath.expm1(mpf(x))
            tolerance = tolerances.ULPS["expm1"] * tolerances.EPS
            assert abs(mpf(mass) - truth) <= 2 * tolerances.EPS * truth + 5e-324
            assert abs(mpf(excess) - truth_excess) <= tolerance * abs(truth_excess) + 5e-324
    for x in (0.0, 1e9, -1e9, math.inf, -math.inf):
        assert _math.weighted_exp(0.0, x) == (0.0, 0.0)


def test_log_ratio_sum_takes_the_digits_from_where_they_are():
    for t in (1e-20, -1e-20, 1e-9, -1e-9, -0.4999, 3.0):
        assert _math.log_ratio_sum(1.0 + t, t) == pytest.approx(math.log1p(t), rel=4 * tolerances.EPS, abs=0)
    for s in (0.5, 1e-3, 1e-17, 1e-300):  # s - 1 has lost these digits
        assert _math.log_ratio_sum(s, s - 1.0) == pytest.approx(math.log(s), rel=4 * tolerances.EPS, abs=0)
    assert _math.log_ratio_sum(0.0, -1.0) == -math.inf


def test_log_guess_is_within_its_stated_distance():
    x = powers(-307, 0)
    assert max(abs(_math.log_guess(v) - math.log(v)) for v in x) < 0.06


def test_ulp_is_the_spacing():
    for x in [1.0, -1.0, 1.5, 2.0, 3e300, 1e-300, 0.1, 1e6, 5e-324, 0.0, -7.25]:
        assert _math.ulp(x) == np.spacing(abs(x))
        assert _math.ulp.py_func(np.float64(x)) == np.spacing(abs(x))


def kl_truth(p, o):
    """p log(p / o) - p + o in 60 digits."""
    with mp.workdps(60):
        p, o = mpf(p), mpf(o)
        return p * mpmath.log(p / o) - p + o


@pytest.mark.parametrize("function", [_math.kl_term, _math.kl_term.py_func], ids=["compiled", "python"])
def test_kl_term_has_relative_accuracy_everywhere(function, monkeypatch):
    if not hasattr(function, "py_func"):
        monkeypatch.setattr(_math, "log", _math.log.py_func)
    rng = np.random.default_rng(0)
    o = 10.0 ** rng.uniform(-3, 0, 600)
    x = np.concatenate([rng.uniform(-1, 1, 200), 10.0 ** rng.uniform(-12, 3, 400)]) * rng.choice([-1.0, 1.0], 600)
    p = np.abs(o * (1.0 + x))
    extreme = [(0.5, 1e-300), (1e-300, 0.5), (0.5, 5e-324), (5e-324, 0.5), (0.2, 0.16), (0.2, 0.25)]
    for one, two in [*zip(p, o, strict=True), *extreme]:
        truth = kl_truth(one, two)
        found = function(np.float64(one), np.float64(two))
        assert found >= 0.0
        assert abs(mpf(float(found)) - truth) <= tolerances.KL * truth, (one, two)


def test_kl_term_at_the_edges():
    for function in (_math.kl_term, _math.kl_term.py_func):
        with np.errstate(all="ignore"):
            edges = [function(np.float64(p), np.float64(o)) for p, o in [(0, 0), (0, 0.3), (0.3, 0), (0.3, 0.3)]]
        assert edges == [0.0, 0.3, math.inf, 0.0]
