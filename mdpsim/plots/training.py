"""Figures of policies in training: the measures by which collapse shows, and the path on a simplex of three responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.gradient import Path
from mdpsim.arrays import fail
from mdpsim.plots.style import DOUBLE, MEASURED, NOTE, OTHERS, SINGLE, legend, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS, DASHES = (MEASURED, *OTHERS), ("-", "--", "-.", ":", (0, (5, 1, 1, 1)))
LABELS = {
    "entropy": "entropy (nats)", "top": "probability of the\nmost likely response", "perplexity": "perplexity",
    "support": "distinct responses in 1000", "value": "objective",
}


def training_figure(paths: Mapping[str, Path], measures: Sequence[str] = ("entropy", "top")) -> Figure:
    """One panel a measure, one line a path, against training time on a logarithmic axis.

    Args:
        paths: name -> Path; the record at time 0 is not drawn.
        measures: of "entropy", "top", "perplexity", "support", "value".
    Raises:
        ValueError: an unknown measure, no path, or more than five.
    """
    if not paths or len(paths) > len(COLOURS):
        fail("training_figure", "paths", f"hold one to {len(COLOURS)} paths", len(paths))
    for name in measures:
        if name not in LABELS:
            fail("training_figure", "measures", f"be of {', '.join(LABELS)}", repr(name))
    with style():
        figure = new_figure(min(SINGLE * len(measures), DOUBLE), 2.6)
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        handles = {}
        for panel, measure in zip(panels, measures, strict=True):
            for (name, path), colour, dash in zip(paths.items(), COLOURS, DASHES, strict=False):
                on = path.time > 0.0
                (handles[name],) = panel.plot(path.time[on], getattr(path, measure)[on], color=colour, linestyle=dash)
            panel.set_xscale("log")
            panel.set_xlabel("training time $t$")
            panel.set_ylabel(LABELS[measure])
        legend(figure, handles)
    return figure


def simplex_figure(paths: Mapping[str, Path], points: Mapping[str, ArrayLike], corners: Sequence[str]) -> Figure:
    """Paths of policies over three responses in their triangle, and marked laws (a prior, a posterior).

    Args:
        paths: name -> Path over K = 3 responses. points: name -> law [3]. corners: what the three responses are called.
    Raises:
        ValueError: paths or points about another number of responses.
    """
    for name, path in paths.items():
        if path.log_pi.shape[1] != 3:
            fail("simplex_figure", "paths", "be about K = 3 responses", f"{path.log_pi.shape[1]} in {name!r}")
    with style():
        figure = new_figure(SINGLE, 3.2)
        panel = figure.subplots()
        edge = _flat(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], float))
        panel.plot(edge[:, 0], edge[:, 1], color=NOTE, linewidth=0.8)
        handles = {}
        for (name, path), colour, dash in zip(paths.items(), COLOURS, DASHES, strict=False):
            flat = _flat(np.exp(path.log_pi))
            (handles[name],) = panel.plot(flat[:, 0], flat[:, 1], color=colour, linestyle=dash)
        for (name, law), marker in zip(points.items(), ("o", "*", "s", "^"), strict=False):
            (at,) = _flat(np.asarray(law, float)[None])
            (handles[name],) = panel.plot(*at, marker=marker, color="black", linestyle="none", markersize=7)
        for text, (x, y), where in zip(corners, edge, ("right", "left", "center"), strict=False):
            panel.annotate(text, (x, y), xytext=(0, 4 if where == "center" else -11), textcoords="offset points", ha="center")
        panel.set_aspect("equal")
        panel.axis("off")
        legend(figure, handles)
    return figure


def _flat(p: np.ndarray) -> np.ndarray:
    """[T, 3] laws to [T, 2]: corners at (0, 0), (1, 0) and (1/2, sqrt(3)/2)."""
    return p @ np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
