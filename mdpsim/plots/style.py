"""The look of a figure, and how it is written to disk.

Figures are made with :class:`matplotlib.figure.Figure` and the Agg canvas, never through pyplot, under the settings of
``mdpsim.mplstyle`` only: the user's rcParams and open figures neither change them nor are changed by them.

``save`` writes PDF and PNG that are byte-identical on repeat (no dates, no software metadata) with one matplotlib
version, and a JSON sidecar with where the numbers came from.

Colours are Okabe and Ito's, distinguishable with any colour vision; no meaning rests on colour alone: the bound is
dashed, other bounds dotted, a twin grey with its own marker, an unfinished point pale and hollow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import matplotlib.style as mpl_style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mdpsim.atomic import replacing, write_text

SINGLE, DOUBLE = 3.4, 7.0  # inches: one and two columns of a paper
MEASURED, BOUND, OTHERS = "#0072B2", "#111111", ("#D55E00", "#009E73", "#CC79A7", "#E69F00")
TWINS = ("#8a8a8a", "#a3a3a3", "#767676")  # grey says "made false on purpose"
FALSE_BOUNDS = ("--", "-.", (0, (6, 1.5, 1, 1.5, 1, 1.5)))  # one after the other where a claim has several
TWIN_MARKERS = ("s", "^", "D", "v")
NOTE = "#555555"
SMALL = 7.5  # points; nothing is smaller than 7
PALE = 0.35  # opacity of an unfinished point


@contextmanager
def style() -> Iterator[None]:
    """The house style over matplotlib's defaults, for the duration of a ``with`` block."""
    with as_file(files("mdpsim.plots") / "mdpsim.mplstyle") as sheet, mpl_style.context(sheet, after_reset=True):
        yield


def new_figure(width: float = SINGLE, height: float = 2.5) -> Figure:
    """An empty figure in inches on the Agg canvas; call it inside :func:`style`."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def legend(figure: Figure, entries: Mapping[str, Any]) -> None:
    """One legend above the panels, text -> handle, in as many columns as fit the width of the figure."""
    if not entries:
        return
    room = figure.get_figwidth() * 22  # letters of 7.5 pt to the inch; a handle takes the room of ten
    sizes = [len(re.sub(r"[\\${}^]", "", text)) + 10 for text in entries]
    columns = len(sizes)
    while columns > 1:
        deep = -(-len(sizes) // columns)
        if sum(max(sizes[i : i + deep]) for i in range(0, len(sizes), deep)) <= room:
            break
        columns -= 1
    columns = -(-len(sizes) // -(-len(sizes) // columns))  # as even as the number of rows allows
    figure.legend(list(entries.values()), list(entries), loc="outside upper left", ncols=columns)


def save(figure: Figure, path: str | Path, sidecar: Mapping[str, Any]) -> tuple[Path, Path, Path]:
    """Write ``path``.pdf, .png (300 dpi) and .json; the same figure and sidecar give the same bytes.

    Args:
        path: without a suffix; folders are made as needed.
        sidecar: JSON-ready: claim, rev, preset, seed, versions, commit and device, as given.
    Returns:
        The three paths: PDF, PNG, JSON.
    """
    base = Path(path)
    base.parent.mkdir(parents=True, exist_ok=True)
    pdf, png, side = (base.with_name(base.name + suffix) for suffix in (".pdf", ".png", ".json"))
    text = json.dumps(dict(sidecar), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    with style():
        with replacing(pdf) as name:
            figure.savefig(name, metadata={"CreationDate": None, "Creator": None, "Producer": None})
        with replacing(png) as name:
            figure.savefig(name, metadata={"Software": None})
    write_text(side, text + "\n")
    return pdf, png, side
