"""Calibrate and transform over tables: against prompt-by-prompt computation, invariances, and the average KL."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from mdpsim.align.calibration import calibrate
from mdpsim.align.ctrl import CTRL, align_prompts, calibrated, prompt_win_rates, standardised
from mdpsim.align.inference import align, inference_win_rate
from mdpsim.align.procedures import BestOfN, Temperature, WorstOfN
from mdpsim.align.selection import SoftBestOfN
from mdpsim.align.spaces import Responses
from mdpsim.align.transforms import IDENTITY, LOG, LOGIT, Exponential


def table(seed: int = 0, X: int = 6, Y: int = 15) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    r = rng.normal(size=(X, Y)) * np.exp(rng.normal(size=(X, 1)))
    r[0] = np.round(r[0])
    p = rng.dirichlet(np.full(Y, 2.0), X)
    p[1, :3] = 0.0
    return r, p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("procedure", [BestOfN(4), WorstOfN(3), SoftBestOfN(3, 0.2), Temperature(0.5)], ids=str)
def test_prompts_are_solved_one_by_one(procedure) -> None:  # type: ignore[no-untyped-def]
    r, p = table()
    found = CTRL(transform=Exponential(3.0), beta=0.4).run(r, p)
    wins = prompt_win_rates(procedure, found.pi, r, p)
    for i in range(len(r)):
        space = Responses(r[i], p[i])
        single = align(space, Exponential(3.0), beta=0.4)
        assert found.pi[i] == pytest.approx(single.pi, abs=1e-14)
        assert found.kl[i] == pytest.approx(single.kl, abs=1e-13)
        assert wins[i] == pytest.approx(inference_win_rate(procedure, single.pi, space), abs=1e-12)
    assert found.pi[1, :3].sum() == 0.0


@pytest.mark.parametrize("kl", [1e-6, 0.1, 0.5, 1.0])
def test_the_average_kl_is_met_with_one_beta(kl: float) -> None:
    r, p = table(1)
    for scores in (r, standardised(r, p), calibrate(r, p)):
        found = align_prompts(scores, p, kl=kl)
        assert found.kl.mean() == pytest.approx(kl, rel=1e-9)
        assert special.rel_entr(found.pi, p).sum(axis=1) == pytest.approx(found.kl, rel=1e-5, abs=1e-13)
        again = align_prompts(scores, p, beta=found.beta)
        assert again.pi == pytest.approx(found.pi, abs=1e-12)
    assert found.kl.std() > 0.01 * kl
    for K in (None, 4):
        assert CTRL(K=K, kl=kl).run(r, p, 0).kl.mean() == pytest.approx(kl, rel=1e-9)
    assert align_prompts(r, p, kl=0.0).pi == pytest.approx(p, abs=1e-15)


def test_what_each_score_does_not_see() -> None:
    """A shift per prompt changes nothing; a scale per prompt changes the raw reward's policy only."""
    r, p = table(2)
    shift = np.arange(6.0)[:, None]
    scale = np.exp(shift - 3.0)
    runs = {
        "raw": lambda x: align_prompts(x, p, kl=0.4).pi,
        "standardised": lambda x: align_prompts(standardised(x, p), p, kl=0.4).pi,
        "ctrl": lambda x: CTRL(transform=LOG, kl=0.4).run(x, p).pi,
    }
    for name, run in runs.items():
        assert run(r + shift) == pytest.approx(run(r), abs=1e-9), name
        moved = np.abs(run(r * scale) - run(r)).max()
        assert moved > 0.01 if name == "raw" else moved < 1e-9
    z = standardised(r, p)
    assert (p * z).sum(axis=1) == pytest.approx(np.zeros(6), abs=1e-14)
    assert (p * z**2).sum(axis=1) == pytest.approx(np.ones(6), abs=1e-13)
    assert np.array_equal(standardised(np.ones((2, 3)), np.full((2, 3), 1 / 3)), np.zeros((2, 3)))


def test_more_anchors_come_nearer() -> None:
    """What is lost at K = 8 is lost at K = 512 no more: with shared anchors, independent ones, and interpolation."""
    rng = np.random.default_rng(3)
    r, p = rng.normal(size=(60, 100)), np.full((60, 100), 0.01)
    exact = prompt_win_rates(BestOfN(1), CTRL(kl=0.5).run(r, p).pi, r, p).mean()
    lost = {}
    for K in (8, 64, 512):
        for name, more in (("shared", {}), ("independent", {"shared": False}), ("interpolated", {"interpolate": True})):
            run = CTRL(K=K, kl=0.5, **more).run(r, p, 5)
            lost[name, K] = exact - prompt_win_rates(BestOfN(1), run.pi, r, p).mean()
    for name in ("shared", "independent", "interpolated"):
        assert lost[name, 8] > lost[name, 64] > lost[name, 512] > -1e-3
        assert lost[name, 512] < 2e-3
        assert lost[name, 8] > 0.005
    assert lost["independent", 8] > lost["shared", 8]
    same = CTRL(K=8, kl=0.5).run(r, p, 5)
    assert np.abs(same.pi - CTRL(K=8, kl=0.5).run(r, p, np.random.default_rng(0)).pi).max() > 1e-3
    assert np.array_equal(same.pi, CTRL(K=8, kl=0.5).run(r, p, 5).pi)
    seen = calibrated(r, p)
    assert np.abs(seen.C + seen.D - 1.0).max() < 1e-14
    assert np.isfinite(CTRL(transform=LOGIT, K=8, interpolate=True, kl=0.2).run(r, p).pi).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CTRL(kl=0.1, beta=0.1), "CTRL: beta or kl must be given"),
        (lambda: CTRL(), "CTRL: beta or kl must be given"),
        (lambda: CTRL(K=0, kl=0.1), "CTRL: K must be an integer >= 1"),
        (lambda: CTRL(interpolate=True, kl=0.1), "CTRL: interpolate must go with a number K of shared anchors"),
        (lambda: CTRL(kl=0.1).run([[0.0, np.nan]], [[0.5, 0.5]]), "CTRL.run: r must be finite"),
        (lambda: CTRL(kl=0.1).run([0.0, 1.0], [0.5, 0.5]), r"CTRL.run: r must have shape \[X, Y\]"),
        (lambda: CTRL(kl=0.1).run([[0.0, 1.0]], [[0.5, 0.6]]), "CTRL.run: pi_ref must have rows"),
        (lambda: CTRL(transform=LOG, K=2, kl=0.01).run(*table(), 0), "CTRL.run: log must be finite at every calibrated reward"),
        (lambda: CTRL(transform=LOGIT, K=2, kl=0.01).run(*table(), 0), "CTRL.run: logit must be finite at every calibrated"),
        (lambda: align_prompts([[0.0, 1.0], [0.0, 1.0]], [[0.5, 0.5], [0.8, 0.2]], kl=1.2),
         r"align_prompts: kl must lie in the attainable range \[0, 1.15129\) of averages; got 1.2"),
        (lambda: align_prompts([[1.0, 1.0]], [[0.5, 0.5]], kl=0.1), r"attainable range \[0, 0\)"),
        (lambda: align_prompts([[0.0, 1.0]], [[0.5, 0.5]], beta=0.0), "align_prompts: beta must"),
        (lambda: align_prompts([[0.0, 1.0]], [[0.5, 0.5]]), "align_prompts: beta or kl must"),
        (lambda: prompt_win_rates(BestOfN(2), [[0.5, 0.6]], [[0.0, 1.0]], [[0.5, 0.5]]), "prompt_win_rates: pi must have rows"),
        (lambda: prompt_win_rates(BestOfN(2), [[1.0]], [[0.0, 1.0]], [[0.5, 0.5]]), r"pi must have shape \[X, Y\]"),
    ],
)
def test_bad_input_is_named(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_extremes() -> None:
    """Rewards of 1e300 and 1e-300, a beta of 1e-8 and 1e8, one response, a reference of one response."""
    r, p = table(4)
    for scale in (1e300, 1e-300):
        assert CTRL(kl=0.5).run(r * scale / 10, p).pi == pytest.approx(CTRL(kl=0.5).run(r / 10, p).pi, abs=1e-12)
        raw = align_prompts(r * (scale / 1e10), p, kl=0.5)
        assert raw.kl.mean() == pytest.approx(0.5, rel=1e-9)
    hard, soft = CTRL(beta=1e-8).run(r, p), CTRL(beta=1e8).run(r, p)
    assert soft.pi == pytest.approx(p, abs=1e-8)
    assert all(hard.pi[i][(r[i] == r[i][p[i] > 0].max())].sum() == pytest.approx(1.0) for i in range(6))
    assert np.array_equal(CTRL(beta=1.0).run([[3.0]], [[1.0]]).pi, [[1.0]])
    assert prompt_win_rates(BestOfN(4), [[1.0, 0.0]], [[0.0, 5.0]], [[1.0, 0.0]])[0] == pytest.approx(0.5)
    assert np.array_equal(align(Responses([1.0, 2.0], [1.0, 0.0]), IDENTITY, beta=0.1).pi, [1.0, 0.0])
