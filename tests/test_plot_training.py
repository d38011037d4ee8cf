"""Figures of training: what they draw is what the paths hold."""

from __future__ import annotations

import numpy as np
import pytest

from mdpsim import Distribution, Reward, Softmax, ascend
from mdpsim.plots.training import simplex_figure, training_figure

PATHS = {
    "RL": ascend(Softmax(3), np.zeros(3), Reward([1.0, 0.5, 0.0]), eta=1.0, steps=20),
    "GDC": ascend(Softmax(3), np.zeros(3), Distribution([0.5, 0.3, 0.2]), eta=1.0, steps=20),
}


def test_lines_are_the_measures_against_time():
    figure = training_figure(PATHS, ("entropy", "top", "support"))
    for panel, name in zip(figure.axes, ("entropy", "top", "support"), strict=True):
        for line, path in zip(panel.lines, PATHS.values(), strict=True):
            assert line.get_xdata() == pytest.approx(path.time[1:])
            assert line.get_ydata() == pytest.approx(getattr(path, name)[1:])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["RL", "GDC"]


def test_the_simplex_has_its_corners_and_points():
    """A law on a corner lies on it, the uniform law in the middle; colours and dashes tell the paths apart."""
    figure = simplex_figure(PATHS, {"corner": [0, 1, 0], "middle": [1 / 3] * 3}, ("a", "b", "c"))
    triangle, *paths, corner, middle = figure.axes[0].lines
    assert np.allclose(triangle.get_xydata()[1], corner.get_xydata()[0])
    assert np.allclose(triangle.get_xydata()[:3].mean(axis=0), middle.get_xydata()[0])
    assert np.allclose(paths[0].get_xydata()[0], middle.get_xydata()[0])  # they start uniform
    assert len({(line.get_color(), line.get_linestyle()) for line in paths}) == 2


def test_refusals():
    four = {"x": ascend(Softmax(4), np.zeros(4), Reward(np.zeros(4)), eta=1.0, steps=1)}
    with pytest.raises(ValueError, match="training_figure: measures must be of"):
        training_figure(PATHS, ("loss",))
    with pytest.raises(ValueError, match="training_figure: paths must hold"):
        training_figure({})
    with pytest.raises(ValueError, match="simplex_figure: paths must be about K = 3"):
        simplex_figure(four, {}, ("a", "b", "c"))
