"""Figures of inference-aware alignment: win rates against KL with the optimum as their envelope, and what transforms lose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mdpsim.align.tradeoff import Tradeoff
from mdpsim.arrays import fail
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, NOTE, OTHERS, SINGLE, legend, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (MEASURED, *OTHERS, NOTE)
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (3, 1, 1, 1)), (0, (6, 1, 1, 1, 1, 1)), (0, (2, 2)))
FLOOR = 1e-8  # regrets below are not told from zero


def tradeoff_figure(curves: Mapping[str, Tradeoff]) -> Figure:
    """One panel a procedure: win rate against KL of every transform, and the best policy as a dashed black envelope.

    Args:
        curves: title -> Tradeoff; one to four, with the same transforms (up to six).
    Raises:
        ValueError: no curve, more than four, or different transforms.
    """
    def draw(panel: Axes, curve: Tradeoff) -> dict[str, object]:
        handles = _lines(panel, curve, curve.win)
        (handles["optimum"],) = panel.plot(curve.kls, 1.0 - curve.optimal_loss, color=BOUND, linestyle="--", linewidth=1.4)
        panel.set_ylim(0.5, 1.01)
        return handles

    return _panels("tradeoff_figure", curves, draw, "win rate")


def regret_figure(curves: Mapping[str, Tradeoff]) -> Figure:
    """One panel a procedure: what every transform loses against the best policy of the same KL, on logarithmic axes.

    Args:
        curves: as for :func:`tradeoff_figure`.
    """
    def draw(panel: Axes, curve: Tradeoff) -> dict[str, object]:
        handles = _lines(panel, curve, np.where(curve.regret > FLOOR, curve.regret, np.nan))
        panel.set_yscale("log")
        return handles

    return _panels("regret_figure", curves, draw, "win rate lost")


def _lines(panel: Axes, curve: Tradeoff, values: np.ndarray) -> dict[str, object]:
    handles: dict[str, object] = {}
    for name, row, colour, dash in zip(curve.names, values, COLOURS, DASHES, strict=False):
        (handles[name],) = panel.plot(curve.kls, row, color=colour, linestyle=dash)
    return handles


def _panels(where: str, curves: Mapping[str, Tradeoff], draw, label: str) -> Figure:  # type: ignore[no-untyped-def]
    if not 1 <= len(curves) <= 4 or any(len(c.names) > len(COLOURS) for c in curves.values()):
        fail(where, "curves", f"hold one to four, of at most {len(COLOURS)} transforms", len(curves))
    if len({c.names for c in curves.values()}) > 1:
        fail(where, "curves", "have the same transforms", [c.names for c in curves.values()])
    rows = -(-len(curves) // 2)
    with style():
        figure = new_figure(DOUBLE if len(curves) > 1 else SINGLE, 2.5 * rows + 0.4)
        panels = figure.subplots(rows, min(len(curves), 2), squeeze=False).reshape(-1)
        handles: dict[str, object] = {}
        for panel, (title, curve) in zip(panels, curves.items(), strict=False):
            handles |= draw(panel, curve)
            panel.set(title=title, xlabel=r"KL$(\pi\,\|\,\pi_{\mathrm{ref}})$", ylabel=label, xscale="log")
        for panel in panels[len(curves) :]:
            panel.axis("off")
        legend(figure, handles)
    return figure
