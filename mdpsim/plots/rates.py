"""Rate plots: a measured mean along an axis against the bound, on log-log axes, one panel a line of the grid.

Roles have fixed looks in every figure: measured mean blue with its 99% interval shaded, the rule's bound dashed black,
other bounds dotted, twins grey, unfinished points pale and hollow. Panels share their axes, so slopes compare by eye.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from mdpsim.claims.claim import Claim, Point, Twin
from mdpsim.claims.rules import Mean, Rate
from mdpsim.plots import labels, series, style
from mdpsim.plots.series import Curve
from mdpsim.verdict.records import REFUTED, PointVerdict, Records, Verdict
from mdpsim.verdict.sample import Sample

MAX_PANELS = 12


def rate_plot(claim: Claim, records: Records, verdict: Verdict) -> Figure:
    """Log-log plot of a claim whose rule is Rate, or Mean along a numeric axis.

    Where the grid has more than 12 lines the 12 with the least favourable verdicts are shown, and the figure says so.

    Raises:
        ValueError: the claim has no axis to plot along.
    """
    axis = series.rate_axis(claim, records)
    if axis is None:
        raise ValueError(f"rate_plot: claim must have a numeric axis with three values; got {claim.id}")
    data = series.sample(claim, records)
    groups = series.lines(data.present, axis) or series.lines(data.grid, axis)
    shown = _worst_lines(list(groups), verdict, axis)
    with style.style():
        figure, panels = _panels(len(shown))
        names = labels.telling(list(groups))
        for shared, panel in zip(shown, panels, strict=True):
            _panel(panel, claim, records, axis, shared, groups[shared])
            _headline(panel, claim, verdict, axis, shared, names)
        _finish(figure, panels, axis, claim)
        if len(shown) < len(groups):
            figure.supxlabel(f"the {len(shown)} least favourable of {len(groups)} lines", fontsize=style.SMALL,
                             color=style.NOTE, x=0.99, ha="right")
    return figure


def _worst_lines(shared: list[Point], verdict: Verdict, axis: str) -> list[Point]:
    """At most MAX_PANELS lines in grid order, those nearest to refutation kept."""
    if len(shared) <= MAX_PANELS:
        return shared
    rank = {s: min((p.p_value for p in _verdicts(verdict, axis, s)), default=1.0) for s in shared}
    keep = set(sorted(shared, key=lambda s: rank[s])[:MAX_PANELS])
    return [s for s in shared if s in keep]


def _verdicts(verdict: Verdict, axis: str, shared: Point) -> list[PointVerdict]:
    """The decisions on one line: a rate has one for the line, a mean one for each of its points."""
    return [p for p in verdict.points if p.point.without(axis) == shared]


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    """One panel fills a column; two or more share the width of the page, at most three abreast."""
    if n <= 1:
        figure = style.new_figure(style.SINGLE, 2.8)
        return figure, [figure.subplots()]
    columns = 2 if n in (2, 4) else 3
    rows = -(-n // columns)
    figure = style.new_figure(style.DOUBLE, (2.1 if columns == 2 else 1.75) * rows + 0.75)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for extra in grid.flat[n:]:
        extra.remove()
    for above in grid[-2, n - (rows - 1) * columns :] if rows > 1 else ():
        above.tick_params(labelbottom=True)  # the panel below it is missing
    return figure, list(grid.flat[:n])


def _panel(ax: Axes, claim: Claim, records: Records, axis: str, shared: Point, points: Sequence[Point]) -> None:
    """Everything known of one line, from back to front: twins, bounds, the measured mean."""
    data, rule = series.sample(claim, records), claim.rule
    assert isinstance(rule, Rate | Mean)
    measured = series.curve(points, data, axis, rule.of)
    _twins(ax, claim, records, axis, shared, points, measured)
    for i, name in enumerate(series.other_bounds(claim, data)):
        has = [p for p in points if data.count(p) and name in data.data[p]]
        _curve(ax, series.curve(has, data, axis, name), labels.column_label(name), linestyle=":",
               color=style.OTHERS[i % len(style.OTHERS)], linewidth=1.5)
    name = labels.column_label(rule.bound) if isinstance(rule.bound, str) else "bound"
    _reference(ax, rule, measured, points, data, axis, name, "", color=style.BOUND, gid="bound")
    _measured(ax, measured)


def _reference(
    ax: Axes, rule: Rate | Mean, measured: Curve, points: Sequence[Point], data: Sample, axis: str,
    name: str, prefix: str, **look: Any,
) -> None:
    """The rule's bound as a dashed curve; for a stated exponent a dashed line of that slope through the data."""
    look = {"linestyle": "--", "linewidth": 1.1} | look
    if rule.bound is not None:
        _curve(ax, series.curve(points, data, axis, rule.bound), name, **look)
        return
    ok = np.isfinite(measured.mean) & (measured.mean > 0)
    slope = rule.slope if isinstance(rule, Rate) else None
    if slope is None or not ok.any():
        return
    x, y = np.log(measured.x[ok]), np.log(measured.mean[ok])
    line = np.exp(y.mean() + slope * (np.log(measured.x) - x.mean()))
    text = f"{prefix}slope {labels.format_number(slope, script='latex')}"
    _curve(ax, Curve(measured.x, line, line, line, measured.done), text, **look)


def _measured(ax: Axes, c: Curve) -> None:
    """The measured mean, its interval shaded; points with fewer trials than planned pale and hollow."""
    seen = np.isfinite(c.mean) & (c.mean > 0)
    color = style.MEASURED
    done, part = seen & c.done, seen & ~c.done
    ax.plot(c.x[seen], c.mean[seen], "-", color=color, alpha=style.PALE if part.any() else 1.0, gid="path", zorder=4)
    ax.plot(c.x[seen], np.where(c.done, c.mean, np.nan)[seen], "-", color=color, label="measured mean",
            gid="measured", zorder=4)
    tiny = np.min(c.mean[seen]) * 0.1 if seen.any() else 1.0  # an interval that reaches zero goes a decade below
    ax.fill_between(c.x[seen], np.maximum(c.low[seen], tiny), c.high[seen], color=color, alpha=0.22, linewidth=0,
                    label="99% interval", gid="interval", zorder=3)
    ax.plot(c.x[done], c.mean[done], "o", color=color, gid="points", zorder=5)
    if part.any():
        ax.plot(c.x[part], c.mean[part], "o", color=color, markerfacecolor="white", alpha=style.PALE,
                label="unfinished", gid="unfinished", zorder=5)
    if (zero := np.isfinite(c.mean) & (c.mean <= 0)).any():
        ax.plot(c.x[zero], np.full(zero.sum(), 0.02), "v", color=color, transform=ax.get_xaxis_transform(),
                clip_on=False, label="mean at or below zero", gid="zero", zorder=5)


def _twins(
    ax: Axes, claim: Claim, records: Records, axis: str, shared: Point, points: Sequence[Point], measured: Curve
) -> None:
    """Each twin in grey: its own measurements, or the false bound or slope it puts to the claim's."""
    false_bounds = 0
    for i, twin in enumerate(claim.twins):
        look: dict[str, Any] = {"color": style.TWINS[i % len(style.TWINS)], "gid": f"twin-{twin.name}"}
        rule, data = series.twin_rule(claim, twin), series.sample(claim, records, twin)
        if not isinstance(rule, Rate | Mean) or not _judged_here(twin, records, points):
            continue
        if twin.measure is None and rule.of == getattr(claim.rule, "of", None):
            look["linestyle"] = style.FALSE_BOUNDS[false_bounds % len(style.FALSE_BOUNDS)]
            false_bounds += 1
            _reference(ax, rule, measured, points, data, axis, f"twin: {_words(twin.name)}",
                       f"twin: {_words(twin.name)}, ", **look)
            continue
        own = series.lines(data.present, axis).get(shared, [])
        c = series.curve(own, data, axis, rule.of)
        look |= {"marker": style.TWIN_MARKERS[i % 4], "markersize": 2.6, "linewidth": 0.9}
        _curve(ax, c, f"twin: {_words(twin.name)}", **look)


def _judged_here(twin: Twin, records: Records, points: Sequence[Point]) -> bool:
    """Whether a twin without records of its own has any of these points on its grid."""
    return twin.measure is not None or twin.grid is None or not set(points).isdisjoint(twin.grid[records.preset])


def _curve(ax: Axes, c: Curve, label: str, **look: Any) -> None:
    """A curve where it is finite and positive; nothing, not an empty legend entry, where it is nowhere."""
    seen = np.isfinite(c.mean) & (c.mean > 0)
    if seen.any():
        ax.plot(c.x[seen], c.mean[seen], label=label, **look)


def _headline(ax: Axes, claim: Claim, verdict: Verdict, axis: str, shared: Point, names: list[str]) -> None:
    """Above a panel: which line it is, and the fitted slope (or the worst ratio) with its interval."""
    title = labels.point_label(shared, names)
    decided = _verdicts(verdict, axis, shared)
    worst = max(decided, key=lambda p: (p.status == REFUTED, series.in_bounds(p.estimate, p.bound)), default=None)
    text = _numbers(claim, worst) if worst is not None else ""
    if worst is not None and worst.status == REFUTED:
        title = f"{title}: refuted" if title else "refuted"
    if title:
        ax.set_title(title, pad=14 if text else 4)
    if text:
        note = ax.annotate(text, (0, 1), (0, 3.5), xycoords="axes fraction", textcoords="offset points", va="bottom",
                           fontsize=style.SMALL, color=style.NOTE, gid="numbers")
        note.set_in_layout(not title)  # below a title its room is kept, and its width must not shrink the panels


def _numbers(claim: Claim, p: PointVerdict) -> str:
    """Fitted slope with interval against the reference, or the worst ratio of mean to bound."""
    if not math.isfinite(p.estimate):
        return ""
    if isinstance(claim.rule, Rate):
        shown = labels.format_estimate(p.estimate, p.interval, script="latex")
        return f"slope {shown} vs {labels.format_number(p.bound, script='latex')}"
    ratio, low, high = (series.in_bounds(v, p.bound) for v in (p.estimate, *p.interval))
    return f"worst mean / bound {labels.format_estimate(ratio, (low, high), script='latex')}"


def _words(name: str) -> str:
    return name.replace("-", " ")


def _finish(figure: Figure, panels: Sequence[Axes], axis: str, claim: Claim) -> None:
    """Scales, ticks that do not collide, axis labels on the outside only, one legend for the figure."""
    of = getattr(claim.rule, "of", "value")
    if not any(len(np.asarray(one.get_ydata())) for ax in panels for one in ax.lines):
        for ax in panels:  # nothing to scale by: any decade will do
            ax.set(xlim=(1, 10), ylim=(1, 10))
            ax.text(0.5, 0.5, "no positive means yet", transform=ax.transAxes, ha="center", color=style.NOTE)
    for ax in panels:
        ax.set_xscale("log")
        ax.set_yscale("log")
        place = ax.get_subplotspec()
        if place is None or place.is_first_col():
            ax.set_ylabel(labels.column_label(of))
        if place is None or ax.xaxis.get_tick_params(which="major").get("labelbottom", True):
            ax.set_xlabel(labels.axis_label(axis))
    for ax in panels:
        _ticks(ax)
    unique: dict[str, Any] = {}
    for ax in panels:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            unique.setdefault(label, handle)
    _legend(figure, unique)


def _ticks(ax: Axes) -> None:
    """Decades labelled; where there are less than two, 2 and 5 as well."""
    for one, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        if not 0.0 < low < high < math.inf:
            continue  # nothing that a logarithm shows was drawn
        decades = math.log10(high / low)
        one.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if decades < 1.6 else (1.0,), numticks=6))
        one.set_minor_locator(LogLocator(base=10, subs=tuple(range(2, 10)) if decades < 6 else (1.0,), numticks=20))
        one.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, entries: dict[str, Any]) -> None:
    """One legend above the panels: measured, bounds, unfinished, twins; the mean's entry names its interval."""
    if entries.pop("99% interval", None) is not None and "measured mean" in entries:
        entries = {("measured mean, 99% interval" if k == "measured mean" else k): v for k, v in entries.items()}
    order = sorted(entries, key=lambda text: _legend_rank(text, entries[text]))
    style.legend(figure, {k: _proxy(entries[k]) for k in order})


def _legend_rank(text: str, handle: Any) -> int:
    if isinstance(handle, Line2D) and handle.get_gid() == "bound":
        return 1
    ranks = ("measured", "bound", "slope", "", "mean at", "unfinished", "twin")
    return next((i for i, start in enumerate(ranks) if start and text.startswith(start)), ranks.index(""))


def _proxy(handle: Any) -> Any:
    """A measured mean is drawn as line and points apart; its legend entry shows both."""
    if isinstance(handle, Line2D) and handle.get_gid() == "measured":
        return Line2D([], [], color=handle.get_color(), marker="o", linestyle="-")
    return handle
