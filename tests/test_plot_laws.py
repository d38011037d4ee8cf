"""The law plot shows the numbers that the judge compares with the margin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mdpsim import Claim, Limit, Mean, Paper, Twin, get_claim, judge, per_seed, product, run
from mdpsim.plots import claim_figure
from mdpsim.plots.laws import law_plot
from mdpsim.plots.quantiles import qq_figure
from mdpsim.rng import generator

PAPER = Paper(key="law", authors="Nobody", title="t", venue="v", year=2026)


@per_seed
def squares(point, rng):
    """Sum of d squared normals."""
    return {"value": float((rng.standard_normal(point["d"]) ** 2).sum())}


def degrees(point):
    return point["d"]


def one_more(point):
    return point["d"] + 1


claim = Claim(
    id="law/chi-square", statement="A sum of d squared normals is chi-square.", origin="folklore", cites=(PAPER,),
    grid={"smoke": product(d=(1, 2, 3, 4, 5, 6, 7))}, measure=squares, rule=Limit(law=("chi2", degrees), margin=0.15),
    twins=(Twin("one-more", "d + 1 degrees", "0.1 to 0.4", rule=Limit(law=("chi2", one_more), margin=0.05)),),
    seeds={"smoke": 1100},
)


@pytest.fixture(scope="module")
def drawn():
    records = run(claim, preset="smoke")
    verdict = judge(claim, records)
    return records, verdict, claim_figure(claim, records, verdict)


def lines(ax):
    return [line for line in ax.lines if len(line.get_xdata()) > 100]


def test_curves_are_the_distances_that_are_judged(drawn):
    records, verdict, figure = drawn
    shown = [ax for ax in figure.axes if ax.get_visible()]
    worst = sorted(verdict.points, key=lambda p: -p.estimate)[:6]
    assert len(shown) == 6
    for ax, p in zip(shown, worst, strict=True):
        twin, own = lines(ax)
        assert np.abs(own.get_ydata()).max() == pytest.approx(p.estimate, abs=1e-12)
        values = records.arms["claim"][p.point]["value"]
        expected = stats.kstest(values, stats.chi2(p.point["d"] + 1).cdf).statistic
        assert np.abs(twin.get_ydata()).max() == pytest.approx(expected, abs=1e-12)
        band = ax.collections[0].get_datalim(ax.transData)
        radius = np.sqrt(np.log(200) / (2 * 1100))
        assert band.y1 == pytest.approx(own.get_ydata().max() + radius)
        flat = {round(float(line.get_ydata()[0]), 6) for line in ax.lines if len(line.get_xdata()) == 2}
        assert flat == {0.0, 0.15, -0.15}


def test_only_laws_are_drawn_so(drawn):
    records, verdict, _ = drawn
    other = Claim(
        id=claim.id, statement="s", origin="folklore", cites=(PAPER,), grid=claim.grid, measure=squares, rule=Mean(bound=10.0),
        twins=(Twin("t", "s", "d", rule=Mean(bound=0.1)),), seeds=claim.seeds,
    )
    with pytest.raises(TypeError, match="law_plot: claim must have a Limit rule with a law; got law/chi-square"):
        law_plot(other, records, verdict)


def test_quantile_plots_show_the_order_statistics_and_a_band_that_holds_them() -> None:
    """A sample of the law lies in the band nearly everywhere; one of another law leaves it."""
    rng = generator(0)
    right, wrong = rng.standard_normal(1000), 1.5 * rng.standard_normal(1000)
    figure = qq_figure({"right": (right, stats.norm.ppf), "wrong": (wrong, stats.norm.ppf)})
    shares = []
    for ax, sample in zip(figure.axes, (right, wrong), strict=True):
        x, y = ax.lines[0].get_data()
        assert np.isin(y, sample).all()
        assert x == pytest.approx(stats.norm.ppf((np.sort(sample).searchsorted(y) + 0.5) / 1000), abs=1e-12)
        rank = np.sort(sample).searchsorted(y) + 1
        low, high = (stats.norm.ppf(stats.beta.ppf(p, rank, 1001 - rank)) for p in (0.005, 0.995))
        shares.append(((low <= y) & (y <= high)).mean())
    assert shares[0] > 0.95
    assert shares[1] < 0.5
    with pytest.raises(ValueError, match="qq_figure: panels must hold one to four samples; got 0"):
        qq_figure({})
    with pytest.raises(ValueError, match="qq_figure: panels\\['x'\\] must be finite"):
        qq_figure({"x": ([1.0, np.nan], stats.norm.ppf)})


def test_a_twin_may_read_the_claims_arm_at_points_of_its_own():
    """A Limit whose twin visits another point than the claim: the figure is drawn, the claim's strip there is empty."""
    claim = get_claim("balashankar2024/empirical-calibration-error")
    moved = replace(claim, grid={**claim.grid, "smoke": product(family=("ties",), K=(4,))})
    records = run(moved, preset="smoke")
    figure = claim_figure(moved, records, judge(moved, records))
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert any("16" in label for label in labels)
    assert any("4" in label for label in labels)
