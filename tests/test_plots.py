"""Figures: the right artists in the right roles, and the same bytes on repeat."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex

import report_samples as samples
from mdpsim.claims.claim import CLAIM_ARM, Point
from mdpsim.claims.rules import Identity, Inequality
from mdpsim.plots import claim_figure, labels, series, style
from mdpsim.plots.distributions import MAX_ROWS, margin_plot
from mdpsim.plots.rates import MAX_PANELS, rate_plot
from mdpsim.verdict.records import Records
from mdpsim.verdict.sample import Sample


def artists(figure, gid):
    """All lines and collections of that role."""
    return [a for ax in figure.axes for a in (*ax.lines, *ax.collections, *ax.patches) if a.get_gid() == gid]


def line(figure, label):
    """The first line with that label."""
    return next(x for ax in figure.axes for x in ax.lines if x.get_label() == label)


def legend_texts(figure):
    return [t.get_text() for t in figure.legends[0].get_texts()]


@pytest.fixture(scope="module")
def rate_figure():
    return claim_figure(*samples.rate())


def test_rate_plot_has_a_panel_a_line_of_the_grid(rate_figure):
    assert [ax.get_title(loc="left") for ax in rate_figure.axes] == ["chain", "garnet", "deep sea"]
    assert {ax.get_xscale() for ax in rate_figure.axes} == {ax.get_yscale() for ax in rate_figure.axes} == {"log"}
    assert rate_figure.axes[0].get_xlabel() == "demonstrations $N$"
    assert rate_figure.get_figwidth() == style.DOUBLE


def test_rate_plot_draws_means_and_intervals_of_the_records(rate_figure):
    claim, records, _ = samples.rate()
    measured = artists(rate_figure, "measured")[0]
    first = records.arms[CLAIM_ARM][claim.grid["quick"][0]]["kl"]
    assert measured.get_ydata()[0] == pytest.approx(first.mean())
    assert len(artists(rate_figure, "interval")) == 3
    low, mean, high = np.array(series.mean_interval(first))[[1, 0, 2]]
    assert low < mean < high


def test_rate_plot_reference_slope_is_dashed_with_the_stated_slope(rate_figure):
    dashed = line(rate_figure, "slope $-1$")
    assert dashed.get_linestyle() == "--"
    x, y = np.log(dashed.get_xdata()), np.log(dashed.get_ydata())
    assert np.polyfit(x, y, 1)[0] == pytest.approx(-1.0)


def test_rate_plot_other_bounds_are_dotted_and_named(rate_figure):
    assert line(rate_figure, "paper’s bound").get_linestyle() == ":"


def test_rate_plot_twins_are_grey_and_a_false_slope_is_dashed(rate_figure):
    own, false = artists(rate_figure, "twin-one-demo")[0], artists(rate_figure, "twin-slow-rate")[0]
    for artist in (own, false):
        red, green, blue = (int(to_hex(artist.get_color())[i : i + 2], 16) for i in (1, 3, 5))
        assert red == green == blue
    assert (own.get_linestyle(), false.get_linestyle()) == ("-", "--")
    slope = np.polyfit(np.log(false.get_xdata()), np.log(false.get_ydata()), 1)[0]
    assert slope == pytest.approx(-0.5)


def test_rate_plot_unfinished_points_are_pale_and_named(rate_figure):
    pale = artists(rate_figure, "unfinished")
    assert {a.get_alpha() for a in pale} == {style.PALE}
    assert list(pale[0].get_xdata()) == [3162]
    assert "unfinished" in legend_texts(rate_figure)
    assert "unfinished" not in legend_texts(claim_figure(*samples.rate(unfinished=False)))


def test_rate_plot_writes_the_fitted_slope_with_its_interval(rate_figure):
    texts = [t.get_text() for t in rate_figure.axes[0].texts]
    assert texts == ["slope $-0.98$ [$-1.04$, $-0.93$] vs $-1$"]


def test_mean_along_an_axis_gets_a_rate_plot_with_the_bound_dashed():
    claim, records, verdict = samples.mean_along_axis()
    figure = claim_figure(claim, records, verdict)
    bound = line(figure, "bound")
    assert bound.get_linestyle() == "--"
    np.testing.assert_allclose(bound.get_ydata(), [samples.paper_bound(p) for p in claim.grid["quick"]])
    assert line(figure, "twin: half").get_linestyle() == "--"
    assert figure.axes[0].get_title(loc="left") == "riverswim: refuted"
    assert "1.24" in figure.axes[0].texts[0].get_text()
    assert figure.get_figwidth() == style.SINGLE


def test_rate_plot_of_many_lines_keeps_the_least_favourable_and_says_so():
    figure = claim_figure(*samples.rate(tuple(f"f{i:02d}" for i in range(14))))
    assert len(figure.axes) == MAX_PANELS
    assert figure.get_supxlabel() == "the 12 least favourable of 14 lines"


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_rate_plot_survives_means_without_a_logarithm(value, tmp_path):
    claim, records, verdict = samples.rate(("chain",))
    arms = {CLAIM_ARM: {p: dict(c) for p, c in records.arms[CLAIM_ARM].items()}}
    point = claim.grid["quick"][1]
    arms[CLAIM_ARM][point] = {"kl": np.full(samples.TRIALS, value), "paper_bound": np.full(samples.TRIALS, 1.0)}
    figure = claim_figure(claim, Records(claim.id, 1, "quick", 7, arms), verdict)
    style.save(figure, tmp_path / "f", {})
    assert len(artists(figure, "zero")) == (value <= 0)
    assert point["n_demos"] not in artists(figure, "points")[0].get_xdata()


@pytest.mark.parametrize("make", [samples.rate, samples.identity, samples.inequality, samples.mean_by_family])
def test_figures_of_nothing_recorded_yet_can_be_drawn(make, tmp_path):
    claim, _, verdict = make()
    style.save(claim_figure(claim, Records(claim.id, 1, "quick", 7, {}), verdict), tmp_path / "f", {})


def test_margin_plot_has_a_row_a_point_and_the_bound_dashed_at_one():
    figure = claim_figure(*samples.inequality())
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["bandit", "chain", "garnet"]
    (bound,) = artists(figure, "bound")
    assert bound.get_linestyle() == "--"
    assert list(bound.get_xdata()) == [1.0, 1.0]
    done = artists(figure, "points")
    assert len(done) == 2
    assert all(a.get_xdata()[0] < 1 for a in done)
    assert [a.get_alpha() for a in artists(figure, "unfinished")] == [style.PALE]
    assert all(a.get_xdata().max() > 1 for a in artists(figure, "twin-0"))


def test_margin_plot_marks_zeros_and_infinities_at_the_ends_of_the_axis():
    figure = claim_figure(*samples.identity())
    ax = figure.axes[0]
    ticks = [t.get_text() for t in ax.get_xticklabels()]
    assert ticks[0] == "0"
    assert ticks[-1] == r"$\infty$"
    assert "1" in ticks
    assert len(artists(figure, "edge-zero")) == len(artists(figure, "edge-infinity")) == 1
    assert all(np.all(np.isfinite(x.get_xdata())) and np.min(x.get_xdata()) > 0 for x in ax.lines)
    assert [a.get_marker() for a in artists(figure, "points")].count("<") == 8


def test_margin_plot_pools_what_does_not_fit():
    figure = margin_plot(*samples.identity(27, 3))
    rows = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert len(rows) == MAX_ROWS
    assert rows[-1] == f"{81 - MAX_ROWS + 1} other points"


def test_margin_plot_of_a_mean_shows_it_in_units_of_the_bound():
    figure = claim_figure(*samples.mean_by_family())
    assert [a.get_xdata()[0] for a in artists(figure, "points")] == pytest.approx([0.41] * 8)


def test_each_kind_of_figure_refuses_the_other_kind():
    with pytest.raises(ValueError, match="numeric axis"):
        rate_plot(*samples.identity())
    with pytest.raises(TypeError, match="Rate"):
        margin_plot(*samples.rate())


def test_an_index_is_not_an_axis():
    claim, records, _ = samples.mean_by_family()
    assert series.rate_axis(claim, records) is None
    assert series.rate_axis(*samples.mean_along_axis()[:2]) == "n_demos"


def test_ratios_follow_the_judge_for_all_signs():
    point = Point(family="x")
    data = Sample("t", (point,), 4, {point: {"value": np.array([1.0, -3.0, 1.0, np.nan]),
                                             "bound": np.array([2.0, -2.0, 0.0, 1.0]),
                                             "gap": np.array([0.0, -1e-12, np.nan, 1.0])}})
    assert series.ratios(Inequality(), point, data).tolist() == [0.5, 0.5, math.inf, math.inf]
    assert series.ratios(Identity(1e-12), point, data).tolist() == [0.0, 1.0, math.inf, pytest.approx(1e12)]
    assert series.ratios(Identity(0.0), point, data).tolist() == [0.0, math.inf, math.inf, math.inf]


def test_save_writes_the_same_bytes_and_the_sidecar(tmp_path):
    entry, sidecar = samples.rate(), {"claim": "a/b", "rev": 1, "seed": 7, "commit": None, "versions": {"numpy": "2"}}
    digests = []
    for name in ("one", "two"):
        paths = style.save(claim_figure(*entry), tmp_path / name / "figure", sidecar)
        digests.append([hashlib.sha256(p.read_bytes()).hexdigest() for p in paths])
    assert digests[0] == digests[1]
    pdf, png, side = paths
    assert json.loads(side.read_text()) == sidecar
    assert pdf.read_bytes()[:5] == b"%PDF-"
    assert b"/Type3" not in pdf.read_bytes()
    for word in (b"CreationDate", b"Matplotlib", b"matplotlib"):
        assert word not in pdf.read_bytes() + png.read_bytes()


def test_two_processes_write_the_same_bytes(tmp_path):
    code = (
        "import sys, hashlib, report_samples as s; from mdpsim.plots import claim_figure, style\n"
        "paths = style.save(claim_figure(*s.inequality()), sys.argv[1], {})\n"
        "print([hashlib.sha256(p.read_bytes()).hexdigest() for p in paths])"
    )
    here = str(samples.__file__).rsplit("/", 1)[0]
    runs = [
        subprocess.run([sys.executable, "-c", code, str(tmp_path / n)], capture_output=True, text=True, check=True,
                       cwd=here).stdout
        for n in ("a", "b")
    ]
    assert runs[0] == runs[1]


def test_the_users_settings_neither_change_nor_are_changed():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30.0, "lines.linewidth": 9.0, "axes.grid": False}):
        figure = claim_figure(*samples.inequality())
        assert mpl.rcParams["font.size"] == 30.0
        assert figure.axes[0].xaxis.label.get_size() == 8.5
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_importing_the_package_does_not_import_matplotlib():
    code = (
        "import sys, mdpsim, mdpsim.plots, mdpsim.report\n"
        "print([m for m in ('matplotlib', 'pandas', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_text_is_smaller_than_seven_points():
    from matplotlib.text import Text

    for make in (samples.rate, samples.identity):
        sizes = [t.get_fontsize() for t in claim_figure(*make()).findobj(Text) if t.get_text()]
        assert min(sizes) >= 7


@pytest.mark.parametrize(
    ("x", "text", "html", "latex"),
    [
        (0.0123456, "0.0123", "0.0123", "$0.0123$"),
        (-0.5, "-0.5", "−0.5", "$-0.5$"),
        (1.0, "1", "1", "$1$"),
        (-3.14e-16, "-3.14e-16", "−3.14 × 10<sup>−16</sup>", r"$-3.14 \times 10^{-16}$"),
        (1e-12, "1e-12", "10<sup>−12</sup>", "$10^{-12}$"),
        (123456.0, "123456", "123456", "$123456$"),
        (1.23456e7, "1.23e+07", "1.23 × 10<sup>7</sup>", r"$1.23 \times 10^{7}$"),
        (0.99999, "1.00", "1.00", "$1.00$"),
        (math.inf, "inf", "∞", r"$\infty$"),
        (-math.inf, "-inf", "−∞", r"$-\infty$"),
        (math.nan, "-", "–", "--"),
        (None, "-", "–", "--"),
        (0.0, "0", "0", "$0$"),
        (-0.0, "0", "0", "$0$"),
    ],
)
def test_numbers(x, text, html, latex):
    assert [labels.format_number(x, script=s) for s in labels.SCRIPTS] == [text, html, latex]


@pytest.mark.parametrize(
    ("estimate", "interval", "text"),
    [
        (0.981, (0.958, 1.0041), "0.981 [0.958, 1.004]"),
        (-1.00001, (-1.00004, -0.99998), "-1.000010 [-1.000040, -0.999980]"),
        (3e-16, (3e-16, 3e-16), "3e-16"),
        (0.4, (-math.inf, 0.55), "0.4 (at most 0.55)"),
        (1.2, (1.1, math.inf), "1.2 (at least 1.1)"),
        (1.2, (-math.inf, math.inf), "1.2 (unbounded)"),
        (math.nan, (-math.inf, math.inf), "-"),
        (math.inf, (math.inf, math.inf), "inf"),
        (-0.0001, (-0.5, 0.4999), "0.000 [-0.500, 0.500]"),
    ],
)
def test_estimates(estimate, interval, text):
    assert labels.format_estimate(estimate, interval) == text


def test_names():
    assert labels.axis_label("n_widgets") == "widgets"
    assert labels.column_label("sharp_bound") == "sharp bound"
    point = Point(family="deep_sea", H=5, expert="5$")
    assert labels.point_label(point, labels.varying([point, Point()])) == r"deep sea, 5\$ expert, $H$ = $5$"
    with pytest.raises(ValueError, match="script"):
        labels.format_number(1.0, script="pdf")
