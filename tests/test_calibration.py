"""Calibrated rewards: against sums over pairs, scipy's Kolmogorov-Smirnov distance, laws of the estimators, and extremes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mdpsim.align.calibration import (
    calibrate,
    calibrate_by_anchors,
    calibrate_by_interpolation,
    calibration_mse,
    calibration_variance,
    ks_distance,
    ordered,
    ranks,
    sample_anchors,
)
from mdpsim.arrays import frozen
from mdpsim.kernels import quantile
from tolerances import EPS


def wins(r: np.ndarray, z: np.ndarray) -> np.ndarray:
    return (r[:, None] > z[None, :]) + 0.5 * (r[:, None] == z[None, :])


def instance(seed: int, n: int = 12, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    r = rng.integers(0, 4, n).astype(float) if ties else rng.normal(size=n)
    p = rng.dirichlet(np.full(n, 0.5))
    p[: n // 4] = 0.0
    return r, p / p.sum()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_exact_calibration_is_the_sum_over_pairs(seed: int, ties: bool) -> None:
    r, p = instance(seed, ties=ties)
    C = calibrate(r, p)
    assert np.abs(C - wins(r, r) @ p).max() <= 20 * EPS
    assert p @ C == pytest.approx(0.5, abs=20 * EPS)
    assert calibration_variance(r, p) == pytest.approx(p @ (C - 0.5) ** 2, abs=20 * EPS)
    masses = np.array([p[r == v].sum() for v in np.unique(r)])
    assert calibration_variance(r, p) == pytest.approx((1 - (masses**3).sum()) / 12, abs=20 * EPS)
    w = wins(r, r)
    spread = (w**2) @ p - C**2
    assert calibration_mse(r, p, 7) == pytest.approx(p @ spread / 7, abs=20 * EPS)


def test_prompts_are_rows() -> None:
    rows = [instance(s) for s in range(5)]
    r, p = np.array([x[0] for x in rows]), np.array([x[1] for x in rows])
    C = calibrate(r, p)
    for many, one in ((C, calibrate), (calibration_variance(r, p), calibration_variance), (ks_distance(C, p), None)):
        for i in range(5):
            single = ks_distance(calibrate(r[i], p[i]), p[i]) if one is None else one(r[i], p[i])
            assert many[i] == pytest.approx(single, abs=4 * EPS)
    z = sample_anchors(r, p, 6, 0)
    assert calibrate_by_anchors(r, z)[3] == pytest.approx(calibrate_by_anchors(r[3], z[3]), abs=EPS)
    assert calibrate_by_interpolation(r, z)[2] == pytest.approx(calibrate_by_interpolation(r[2], z[2]), abs=4 * EPS)
    free = sample_anchors(r, p, 6, 0, shared=False)
    assert free.shape == (5, 12, 6)
    assert calibrate_by_anchors(r, free)[3] == pytest.approx(calibrate_by_anchors(r[3], free[3]), abs=EPS)


def test_no_digits_are_lost_at_either_end() -> None:
    """Masses of 1e-300 below and above: each end is summed from its own side."""
    r, p = np.arange(4.0), np.array([1e-300, 0.5, 0.5, 1e-300])
    found = ranks(frozen(r[None].copy()), frozen((p / p.sum())[None]), ordered(r[None]))
    assert calibrate(r, p)[0] == pytest.approx(5e-301, rel=1e-12)
    assert found.above[0, 2] + 0.5 * found.mass[0, 3] == pytest.approx(1.5e-300, rel=1e-12)
    big = np.array([-1e308, 0.0, 5e-324, 1e308])
    assert np.array_equal(calibrate(big, np.full(4, 0.25)), [0.125, 0.375, 0.625, 0.875])


@pytest.mark.parametrize("shape", ["shared", "independent"])
def test_anchors_count(shape: str) -> None:
    r, p = instance(3)
    shared = shape == "shared"
    z = sample_anchors(r, p, 9, np.random.default_rng(1), shared=shared)
    table = z if not shared else np.broadcast_to(z, (12, 9))
    brute = [float(np.mean(wins(r[i : i + 1], table[i]))) for i in range(12)]
    assert calibrate_by_anchors(r, z) == pytest.approx(brute, abs=EPS)


def test_anchors_come_from_the_reference() -> None:
    """Chi-square of 20000 anchors against pi_ref; against the uniform law it is rejected."""
    rng = np.random.default_rng(2)
    r, p = rng.normal(size=6), rng.dirichlet(np.full(6, 3.0))
    z = sample_anchors(r, p, 20_000, 5)
    seen = np.array([(z == v).sum() for v in r])
    assert stats.chisquare(seen, 20_000 * p).pvalue > 1e-4
    assert stats.chisquare(seen, np.full(6, 20_000 / 6)).pvalue < 1e-6
    zero = sample_anchors([0.0, 1.0, 2.0], [0.0, 1.0, 0.0], 100, 0)
    assert set(zero.tolist()) == {1.0}


def test_the_error_of_the_estimator_is_the_formula() -> None:
    """Mean squared error over 4000 sets of 5 anchors: within 4 standard errors, ties or none; 1/(6K) fails with ties."""
    for ties in (False, True):
        r, p = instance(4, ties=ties)
        C, K = calibrate(r, p), 5
        z = sample_anchors(r, p, 4000 * K, 9).reshape(4000, K)
        each = (calibrate_by_anchors(np.broadcast_to(r, (4000, 12)), z) - C) ** 2 @ p
        se = each.std() / np.sqrt(4000)
        assert abs(each.mean() - calibration_mse(r, p, K)) < 4 * se
        if ties:
            assert abs(each.mean() - 1 / (6 * K)) > 20 * se


def test_interpolation_is_the_piecewise_linear_cdf() -> None:
    rng = np.random.default_rng(7)
    r, z = rng.normal(size=50), rng.normal(size=(1, 20))[0]
    found = calibrate_by_interpolation(r, z)
    assert found == pytest.approx(np.interp(r, np.sort(z), (np.arange(20) + 0.5) / 20), abs=1e-14)
    assert np.all(np.diff(found[np.argsort(r)]) >= 0)
    assert calibrate_by_interpolation(z, z) == pytest.approx((stats.rankdata(z) - 0.5) / 20, abs=1e-14)
    tied = calibrate_by_interpolation([0.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.0, 3.0])
    assert tied == pytest.approx([0.125, 0.375, 0.75, 0.875], abs=1e-14)
    assert np.array_equal(calibrate_by_interpolation([0.0, 1.0, 2.0], [1.0]), [0.5, 0.5, 0.5])


def test_ks_distance_is_scipys() -> None:
    u = np.random.default_rng(0).random(200) ** 1.3
    assert ks_distance(u, np.full(200, 1 / 200)) == pytest.approx(stats.kstest(u, "uniform").statistic, abs=1e-14)
    assert ks_distance([0.5], [1.0]) == 0.5
    rounded = np.round(u, 1)
    assert ks_distance(rounded, np.full(200, 1 / 200)) == pytest.approx(stats.kstest(rounded, "uniform").statistic, abs=1e-14)


def test_kernels_as_plain_python() -> None:
    r, p = instance(5)
    R, P, order = frozen(r[None].copy()), frozen(p[None].copy()), ordered(r[None])
    z = frozen(np.sort(sample_anchors(r, p, 8, 0))[None].copy())
    for kernel, args, shapes in (
        (quantile.level_sums, (R, P, order), [(1, 12)] * 3), (quantile.count_anchors, (R, z), [(1, 12)]),
        (quantile.interpolate, (R, z), [(1, 12)]), (quantile.gibbs_rows, (R, P, 1.7), [(1, 12), 1, 1, 1]),
    ):
        one, two = ([np.empty(s) for s in shapes] for _ in range(2))
        kernel(*args, *one)
        kernel.py_func(*args, *two)
        for a, b in zip(one, two, strict=True):
            assert a == pytest.approx(b, abs=1e-13)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibrate([0.0, np.nan], [0.5, 0.5]), "calibrate: r must be finite"),
        (lambda: calibrate([0.0, np.inf], [0.5, 0.5]), "calibrate: r must be finite"),
        (lambda: calibrate([0.0, 1.0], [0.5, 0.6]), "calibrate: pi_ref must have rows that sum to one"),
        (lambda: calibrate([0.0, 1.0], [[0.5, 0.5]]), r"calibrate: pi_ref must have shape \[Y\] = \(2,\)"),
        (lambda: calibrate(np.zeros((2, 2, 2)), np.zeros((2, 2, 2))), r"calibrate: r must have shape"),
        (lambda: calibrate([], []), "calibrate: r must have shape"),
        (lambda: sample_anchors([0.0, 1.0], [0.5, 0.5], 0, 0), "sample_anchors: K must be an integer >= 1; got 0"),
        (lambda: sample_anchors([0.0, 1.0], [0.5, 0.5], 2, "x"), "sample_anchors: rng must"),
        (lambda: calibration_mse([0.0], [1.0], 0), "calibration_mse: K must be an integer >= 1"),
        (lambda: calibrate_by_anchors([0.0, 1.0], [np.nan]), "calibrate_by_anchors: anchors must be finite"),
        (lambda: calibrate_by_anchors([0.0, 1.0], np.zeros((3, 4))), r"calibrate_by_anchors: anchors must have shape \[Y, K\]"),
        (lambda: calibrate_by_anchors([0.0, 1.0], 3.0), "calibrate_by_anchors: anchors must have shape"),
        (lambda: calibrate_by_interpolation([0.0], np.zeros((1, 4))), "calibrate_by_interpolation: anchors must be shared"),
        (lambda: ks_distance([1.5], [1.0]), r"ks_distance: C must have entries in \[0, 1\]"),
    ],
)
def test_bad_input_is_named(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
