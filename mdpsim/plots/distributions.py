"""Margin plots: how near every trial came to its bound or tolerance, one row a point, on a log scale.

A row shows the range of the trials as a hairline, their middle half as a bar and what the rule judges as a dot: the
worst trial for deterministic rules, the mean (Mean, Order) or the quantile (HighProb) with its interval. A Limit has no
trials to show, only its interval, as distance over margin. The dashed line at 1 is the bound; a claim
lies left of it, its twins (grey) should lie right of it. Exact zeros and infinities sit in marked margins of the axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from mdpsim.claims.claim import Claim, Point
from mdpsim.claims.rules import HighProb, Identity, Limit, Mean, Order, Rate, Rule
from mdpsim.plots import labels, series, style
from mdpsim.verdict.records import REFUTED, PointVerdict, Records, Verdict

MAX_ROWS = 36
_JUDGED: Mapping[type, str] = {
    Mean: "mean, interval, range of trials", Order: "mean, interval, range of trials",
    HighProb: "quantile, interval, range of trials", Limit: "estimate, interval",
}
_LONG_LABEL = 26  # characters that fit beside the strips in one column


@dataclass(frozen=True)
class Row:
    """One strip: where, what, whose."""

    label: str
    claim: np.ndarray
    twins: tuple[np.ndarray, ...]
    verdict: PointVerdict | None = None
    done: bool = True


def margin_plot(claim: Claim, records: Records, verdict: Verdict) -> Figure:
    """Strips of what :func:`mdpsim.plots.series.ratios` compares with 1, over trials, point by point.

    Beyond 36 points the 35 nearest to the bound keep their own rows and the others are pooled in one.

    Raises:
        TypeError: the rule is Rate; see :func:`mdpsim.plots.rates.rate_plot`.
    """
    if isinstance(claim.rule, Rate):
        raise TypeError(f"margin_plot: claim must not have a Rate rule; got {claim.id}")
    rows = _capped(_rows(claim, records, verdict))
    longest = max((len(r.label.replace("$", "")) for r in rows), default=0)
    width = style.DOUBLE if longest > _LONG_LABEL else style.SINGLE
    with style.style():
        figure = style.new_figure(width, 0.155 * len(rows) + 0.7 + 0.15 * (2 + len(claim.twins)))
        ax = figure.subplots()
        scale = _Scale.of([a for r in rows for a in (r.claim, *r.twins)])
        ax.axvline(1.0, linestyle="--", color=style.BOUND, linewidth=1.0, gid="bound", zorder=2)
        for y, row in enumerate(rows):
            for i, values in enumerate(row.twins):
                _twin(ax, scale, y + 0.3, values, i, series.twin_rule(claim, claim.twins[i]))
            _strip(ax, scale, y, row, claim.rule)
        _axes(ax, scale, rows, claim.rule)
        _legend(figure, claim, rows)
    return figure


def _rows(claim: Claim, records: Records, verdict: Verdict) -> list[Row]:
    """A row for every recorded point of the claim, then for points that only twins visit."""
    data = series.sample(claim, records)
    present = set(data.present)  # twins that read the claim's own trials may visit other points
    decided = {p.point: p for p in verdict.points}
    twins: list[dict[Point, np.ndarray]] = []
    for twin in claim.twins:
        rule, seen = series.twin_rule(claim, twin), series.sample(claim, records, twin)
        twins.append({} if isinstance(rule, Rate) else {p: series.ratios(rule, p, seen) for p in seen.present})
    points = list(dict.fromkeys([*data.present, *(p for t in twins for p in t)]))
    names = labels.telling(points)
    empty = np.zeros(0)
    return [
        Row(
            labels.point_label(p, names),
            series.ratios(claim.rule, p, data) if p in present else empty,
            tuple(t.get(p, empty) for t in twins),
            decided.get(p),
            p not in data.grid or data.count(p) >= data.trials,
        )
        for p in points
    ]


def _capped(rows: list[Row]) -> list[Row]:
    """At most MAX_ROWS: the nearest to the bound in grid order, then the rest in one row."""
    if len(rows) <= MAX_ROWS:
        return rows
    worst = sorted(range(len(rows)), key=lambda i: -_top(rows[i].claim))[: MAX_ROWS - 1]
    rest = [r for i, r in enumerate(rows) if i not in set(worst)]
    pooled = Row(
        f"{len(rest)} other points",
        np.concatenate([r.claim for r in rest]),
        tuple(np.concatenate(arms) for arms in zip(*(r.twins for r in rest), strict=True)),
        done=all(r.done for r in rest),
    )
    return [*(rows[i] for i in sorted(worst)), pooled]


def _top(values: np.ndarray) -> float:
    return float(np.max(values)) if len(values) else -math.inf


@dataclass(frozen=True)
class _Scale:
    """The log axis: limits of the finite positive values, and where zeros and infinities are put."""

    low: float
    high: float
    zero: bool
    infinite: bool

    @staticmethod
    def of(arrays: Sequence[np.ndarray]) -> _Scale:
        x = np.concatenate([np.ones(1), *arrays])
        inside = x[np.isfinite(x) & (x > 0)]
        low, high = float(inside.min()) / 1.6, float(inside.max()) * 1.6
        return _Scale(low, max(high, 2.0), bool((x <= 0).any()), bool(np.isposinf(x).any()))

    @property
    def gutter(self) -> float:
        """Factor from the end of the axis to the mark of zero or infinity."""
        return (self.high / self.low) ** 0.06

    @property
    def ends(self) -> tuple[float, float]:
        g = self.gutter
        return self.low / (g**1.6 if self.zero else 1), self.high * (g**1.6 if self.infinite else 1)

    def place(self, values: np.ndarray) -> np.ndarray:
        """Values where they are drawn."""
        x = np.where(values > 0, values, self.low / self.gutter)
        return np.where(np.isposinf(x), self.high * self.gutter, x)

    def ticks(self) -> Mapping[float, str]:
        """Decades, at most seven, the one at 1 always among them; 1-2-5 on short axes; the marked ends."""
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        step = max(1, -(-(last - first) // 6))
        if math.log10(self.high / self.low) < 2:
            near = (m * 10.0**k for k in range(first - 1, last + 1) for m in (1, 2, 5))
            ticks = {t: f"{t:g}" for t in near if self.low <= t <= self.high}
        else:
            ticks = {10.0**k: (f"$10^{{{k}}}$" if k else "1") for k in range(first, last + 1) if k % step == 0}
        inner = (self.low * self.gutter if self.zero else 0.0, self.high / self.gutter if self.infinite else math.inf)
        ticks = {t: text for t, text in ticks.items() if inner[0] <= t <= inner[1] or t == 1.0}  # clear of the marked ends
        if self.zero:
            ticks[self.low / self.gutter] = "0"
        if self.infinite:
            ticks[self.high * self.gutter] = r"$\infty$"
        return dict(sorted(ticks.items()))


def _strip(ax: Axes, scale: _Scale, y: float, row: Row, rule: Rule) -> None:
    """The claim's trials at one point: hairline, bar, dot."""
    if not len(row.claim):
        return
    refuted = row.verdict is not None and row.verdict.status == REFUTED
    color = style.OTHERS[0] if refuted else style.MEASURED
    look: dict[str, Any] = {"color": color, "alpha": 1.0 if row.done else style.PALE}
    gid = "points" if row.done else "unfinished"
    x = scale.place(np.sort(row.claim))
    quarter = [x[round(q * (len(x) - 1))] for q in (0.25, 0.75)]
    ax.plot(x[[0, -1]], [y, y], linewidth=0.7, zorder=3, **look)
    ax.plot(quarter, [y, y], linewidth=2.8, solid_capstyle="butt", zorder=3, **{**look, "alpha": 0.4 * look["alpha"]})
    face = color if row.done else "white"
    if isinstance(rule, Mean | HighProb | Order | Limit):
        dot, low, high = _judged(row, rule)
        ends = [v if math.isfinite(v) else dot for v in (low, high)]  # an open side is not drawn
        ax.plot(scale.place(np.array(ends)), [y, y], linewidth=1.6, zorder=4, **look)
        ax.plot(scale.place(np.array([dot])), [y], "D", markersize=3.2, markerfacecolor=face, gid=gid, zorder=5, **look)
    else:
        marker = "<" if row.claim.max() <= 0 else ">" if np.isposinf(row.claim.max()) else "o"
        ax.plot(x[-1:], [y], marker, markerfacecolor=face, gid=gid, zorder=5, **look)


def _judged(row: Row, rule: Rule) -> tuple[float, float, float]:
    """What is judged, and its interval, in units of the bound: the verdict's for Mean and HighProb, else from the row."""
    p = row.verdict
    if isinstance(rule, Limit):
        low, dot, high = row.claim
        return dot, low, high
    if p is None or math.isnan(p.estimate) or isinstance(rule, Order):
        return series.mean_interval(row.claim)
    ratio, low, high = (series.in_bounds(v, p.bound) for v in (p.estimate, *p.interval))
    return ratio, low, high


def _judged_of(values: np.ndarray, rule: Rule) -> float:
    """What a rule judges of a twin's trials: mean, quantile, the estimate of a limit, or the worst trial."""
    if isinstance(rule, Mean | Order):
        return float(values.mean())
    if isinstance(rule, HighProb):
        return float(np.quantile(values, 1.0 - rule.delta, method="inverted_cdf"))
    return float(values[1] if isinstance(rule, Limit) else values.max())


def _twin(ax: Axes, scale: _Scale, y: float, values: np.ndarray, i: int, rule: Rule) -> None:
    """A twin's trials: a grey hairline with its own marker at what its rule judges."""
    if not len(values):
        return
    color, marker = style.TWINS[i % len(style.TWINS)], style.TWIN_MARKERS[i % 4]
    x = scale.place(np.sort(values))
    ax.plot(x[[0, -1]], [y, y], color=color, linewidth=0.7, gid=f"twin-{i}", zorder=1)
    judged = scale.place(np.array([_judged_of(values, rule)]))
    ax.plot(judged, [y], marker, color=color, markersize=2.6, gid=f"twin-{i}", zorder=1)


def _axes(ax: Axes, scale: _Scale, rows: Sequence[Row], rule: Rule) -> None:
    """Log axis with its marked ends, a label for every row, light guides across."""
    ax.set_xscale("log")
    ax.set_xlim(*scale.ends)
    ticks = scale.ticks()
    ax.xaxis.set_major_locator(FixedLocator(list(ticks)))
    ax.xaxis.set_major_formatter(FixedFormatter(list(ticks.values())))
    ax.xaxis.set_minor_locator(NullLocator())
    if scale.zero:
        ax.axvspan(scale.ends[0], scale.low, color="#f4f4f4", zorder=0, gid="edge-zero")
    if scale.infinite:
        ax.axvspan(scale.high, scale.ends[1], color="#f4f4f4", zorder=0, gid="edge-infinity")
    ax.set_yticks(range(len(rows)), [r.label for r in rows])
    ax.set_ylim(len(rows) - 0.3, -0.7)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(_ratio_label(rule))


def _ratio_label(rule: Rule) -> str:
    if isinstance(rule, Identity):
        return "gap / tolerance" if len(rule.gaps) == 1 else "worst gap / tolerance"
    if isinstance(rule, Order):
        return f"{labels.column_label(rule.smaller)} / {labels.column_label(rule.larger)}"
    if isinstance(rule, Limit):
        return "distance / margin"
    return f"{labels.column_label(rule.of)} / bound"


def _legend(figure: Figure, claim: Claim, rows: Sequence[Row]) -> None:
    """One legend above the strips, with an entry for what is there and for nothing else."""
    blue = style.MEASURED
    judged = _JUDGED.get(type(claim.rule))
    handles: list[Any] = [Line2D([], [], color=blue, marker="D" if judged else "o", linewidth=0.7)]
    texts = [judged or "worst trial, range of trials"]
    name = {Identity: "tolerance", Limit: "margin", Order: "equality"}.get(type(claim.rule), "bound")
    handles.append(Line2D([], [], color=style.BOUND, linestyle="--", linewidth=1.0))
    texts.append(name)
    if any(r.verdict is not None and r.verdict.status == REFUTED for r in rows):
        handles.append(Line2D([], [], color=style.OTHERS[0], marker="o", linestyle="-", linewidth=0.7))
        texts.append("refuted")
    if not all(r.done for r in rows):
        handles.append(Line2D([], [], color=blue, marker="o", markerfacecolor="white", alpha=style.PALE, linestyle=""))
        texts.append("unfinished")
    for i, twin in enumerate(claim.twins):
        if any(len(r.twins[i]) for r in rows):
            look: dict[str, Any] = {"color": style.TWINS[i % len(style.TWINS)], "marker": style.TWIN_MARKERS[i % 4]}
            handles.append(Line2D([], [], linewidth=0.7, markersize=2.6, **look))
            texts.append(f"twin: {twin.name.replace('-', ' ')}")
    style.legend(figure, dict(zip(texts, handles, strict=True)))
