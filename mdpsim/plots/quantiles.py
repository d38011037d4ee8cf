"""Quantile-quantile plots: ordered measurements against the quantiles of a stated law, with the band in which they belong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdpsim.arrays import as_floats, fail
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, SINGLE, legend, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Quantiles = Callable[[NDArray[np.float64]], NDArray[np.float64]]
MAX_POINTS = 300


def qq_figure(panels: Mapping[str, tuple[ArrayLike, Quantiles]], label: str = "measured") -> Figure:
    """One panel a sample: its order statistics against the law's quantiles at (i - 1/2)/n, the line y = x, and a 99% band.

    The band is pointwise: the i-th of n independent draws of a law lies at the quantile of a Beta(i, n-i+1) variable. Of more
    than 300 draws, 300 evenly spaced order statistics are drawn.

    Args:
        panels: title -> (sample [n], the law's quantile function, which takes probabilities [k]).
        label: of the vertical axis.
    Raises:
        ValueError: no panel, more than four, or a sample that is not finite.
    """
    from scipy.stats import beta

    if not 1 <= len(panels) <= 4:
        fail("qq_figure", "panels", "hold one to four samples", len(panels))
    with style():
        figure = new_figure(SINGLE if len(panels) == 1 else DOUBLE, 2.8)
        axes, handles = figure.subplots(1, len(panels), squeeze=False)[0], {}
        for ax, (title, (values, quantiles)) in zip(axes, panels.items(), strict=True):
            sample = np.sort(as_floats("qq_figure", f"panels[{title!r}]", values, "n", (None,)))
            n = sample.size
            i = np.unique(np.linspace(1, n, min(n, MAX_POINTS)).round().astype(int))
            stated = quantiles((i - 0.5) / n)
            low, high = (quantiles(beta.ppf(p, i, n - i + 1)) for p in (0.005, 0.995))
            handles["99% band"] = ax.fill_between(stated, low, high, color=MEASURED, alpha=0.2, linewidth=0)
            (handles["measured"],) = ax.plot(stated, sample[i - 1], ".", color=MEASURED, markersize=3)
            (handles["stated law"],) = ax.plot(stated[[0, -1]], stated[[0, -1]], color=BOUND, linestyle="--", linewidth=1.0)
            ax.set(title=title, xlabel="stated quantile")
        axes[0].set_ylabel(label)
        legend(figure, {k: handles[k] for k in ("measured", "99% band", "stated law")})
    return figure
