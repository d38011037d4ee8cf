"""Figures of trade-offs: what is drawn is the record's numbers, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from mdpsim.align.procedures import BestOfN, WorstOfN
from mdpsim.align.tradeoff import tradeoff
from mdpsim.align.transforms import IDENTITY, LOG
from mdpsim.plots.tradeoff import regret_figure, tradeoff_figure

CURVES = {name: tradeoff(p, [0.1, 0.4, 1.0], transforms=[IDENTITY, LOG]) for name, p in
          (("best of 2", BestOfN(2)), ("worst of 2", WorstOfN(2)))}


def test_lines_are_the_numbers_of_the_record() -> None:
    figure = tradeoff_figure(CURVES)
    for panel, (title, curve) in zip(figure.axes, CURVES.items(), strict=True):
        assert panel.get_title(loc="left") == title
        drawn = [line.get_ydata() for line in panel.lines]
        assert len(drawn) == 4
        assert drawn[0] == pytest.approx(curve.win[0])
        assert drawn[-1] == pytest.approx(1 - curve.optimal_loss)
        assert all((drawn[-1] >= row - 1e-9).all() for row in drawn[:-1])  # the envelope
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["identity", "log", "exp tuned", "optimum"]
    lost = regret_figure(CURVES).axes[0]
    assert lost.lines[1].get_ydata() == pytest.approx(CURVES["best of 2"].regret[1])
    assert lost.get_yscale() == "log"
    assert np.array_equal(lost.lines[0].get_xdata(), CURVES["best of 2"].kls)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="tradeoff_figure: curves must hold one to four"):
        tradeoff_figure({})
    other = {**CURVES, "x": tradeoff(BestOfN(2), [0.1], transforms=[IDENTITY])}
    with pytest.raises(ValueError, match="regret_figure: curves must have the same transforms"):
        regret_figure(other)
