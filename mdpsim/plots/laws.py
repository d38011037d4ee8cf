"""Law plots: the empirical law of the trials against the stated one, on the scale of the stated law's probabilities.

With u = F(x) for the stated law F, the curve is (share of trials with u <= t) - t: the distance of the two laws at quantile t.
The dashed line at 0 is the stated law, the band the DKW 99% band of the trials, the dotted lines the claim's margin: the claim
is supported where curve and band lie between them. A twin (grey) is judged by its own law and should leave them.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdpsim.claims.claim import Claim, Point
from mdpsim.claims.rules import LEVEL, Limit
from mdpsim.plots import labels, series, style
from mdpsim.verdict.limit import dkw_radius, law_cdf, margin_at
from mdpsim.verdict.records import Records, Verdict
from mdpsim.verdict.sample import Sample

MAX_PANELS = 6
COLUMNS = 3


def law_plot(claim: Claim, records: Records, verdict: Verdict) -> Figure:
    """One panel a point, the six with the largest distances where there are more.

    Raises:
        TypeError: the rule is not a Limit with a law.
    """
    if not isinstance(claim.rule, Limit) or claim.rule.law is None:
        raise TypeError(f"law_plot: claim must have a Limit rule with a law; got {claim.id}")
    data = series.sample(claim, records)
    found = sorted((p for p in verdict.points if data.count(p.point)), key=lambda p: -p.estimate)[:MAX_PANELS]
    columns = min(COLUMNS, max(len(found), 1))
    rows = -(-max(len(found), 1) // columns)
    differ = labels.varying([p.point for p in verdict.points])
    with style.style():
        figure = style.new_figure(style.SINGLE if columns == 1 else style.DOUBLE, 1.75 * rows + 0.65)
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        handles: dict[str, object] = {}
        for ax, p in zip(axes.flat, found, strict=False):
            handles |= _panel(ax, claim, records, data, p.point)
            ax.set_title(labels.point_label(p.point, differ) or "all trials", loc="left", pad=12)
            low, high = p.interval
            ax.text(0.0, 1.02, f"distance {p.estimate:.3f} [{low:.3f}, {high:.3f}], margin {p.bound:g}",
                    transform=ax.transAxes, fontsize=style.SMALL, color=style.NOTE)
        for ax in axes.flat[len(found) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel("measured $-$ stated")
        for ax in axes[-1]:
            ax.set_xlabel("stated probability")
        style.legend(figure, handles)
    return figure


def _panel(ax: Axes, claim: Claim, records: Records, data: Sample, point: Point) -> dict[str, object]:
    """Curves of the claim and its twins at one point; legend text -> handle."""
    rule = claim.rule
    assert isinstance(rule, Limit)
    handles: dict[str, object] = {}
    for i, twin in enumerate(claim.twins):
        other = series.twin_rule(claim, twin)
        sample = series.sample(claim, records, twin)
        if isinstance(other, Limit) and other.law is not None and point in sample.data and sample.count(point):
            t, gap = _curve(other, sample, point)
            handles[f"twin: {twin.name.replace('-', ' ')}"] = ax.plot(
                t, gap, color=style.TWINS[i % len(style.TWINS)], linestyle=style.FALSE_BOUNDS[i % len(style.FALSE_BOUNDS)],
                linewidth=1.2, zorder=2,
            )[0]
    t, gap = _curve(rule, data, point)
    radius, margin = dkw_radius(data.count(point), LEVEL), margin_at(rule, data, point)
    ax.fill_between(t, gap - radius, gap + radius, color=style.MEASURED, alpha=0.2, linewidth=0, zorder=3)
    first = {"measured, 99% band": ax.plot(t, gap, color=style.MEASURED, linewidth=1.4, zorder=4)[0]}
    first["stated law"] = ax.axhline(0.0, color=style.BOUND, linestyle="--", linewidth=1.0, zorder=5)
    for edge in (-margin, margin):
        first["margin"] = ax.axhline(edge, color=style.OTHERS[0], linestyle=":", linewidth=1.2, zorder=1)
    ax.set_xlim(0.0, 1.0)
    return first | handles


def _curve(rule: Limit, data: Sample, point: Point) -> tuple[np.ndarray, np.ndarray]:
    """(t, share of u <= t, less t) on both sides of every jump."""
    u = np.sort(law_cdf(rule, data, point, data.column(point, rule.of)))
    n = u.size
    t = np.concatenate([[0.0], np.repeat(u, 2), [1.0]])
    share = np.concatenate([[0.0], np.stack([np.arange(n), np.arange(1, n + 1)], axis=1).reshape(-1) / n, [1.0]])
    return t, share - t
