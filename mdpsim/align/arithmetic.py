"""Arithmetic that procedures share: powers of quantiles without loss, the jumps of a function, picking among draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.spaces import Space
from mdpsim.arrays import FloatArray

DRAWN = 2**22  # draws that a simulation holds at a time


def power(a: ArrayLike, missing: ArrayLike, k: ArrayLike) -> FloatArray:
    """a^k for a in [0, 1] and k >= 0, where missing = 1 - a is known by its own digits: those count where a is near 1."""
    high = np.asarray(missing) < 0.5
    with np.errstate(under="ignore"):
        near_one = np.exp(k * np.log1p(-np.where(high, np.maximum(missing, 0.0), 0.0)))
        return np.where(high, near_one, np.where(high, 0.0, np.maximum(a, 0.0)) ** k)


@np.errstate(under="ignore")
def power_ratio(whole: FloatArray, part: FloatArray, missing: FloatArray, n: int) -> FloatArray:
    """(a^n - b^n) / (a - b), a = whole, b = whole - part, missing = 1 - whole.

    It is a^{n-1} (1 - (1-q)^n) / q, q = part / whole, and n a^{n-1} at q = 0.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        q = np.where(whole > 0.0, np.minimum(part / whole, 1.0), 0.0)
        blocks = np.where(q > 0.0, -np.expm1(n * np.log1p(-q)) / q, float(n))
        return power(whole, missing, n - 1) * blocks


def from_nearer_end(a: FloatArray, missing: FloatArray) -> FloatArray:
    """a, taken as 1 - missing above 1/2: the top of one level and the bottom of the next round to the same number."""
    return np.where(missing < 0.5, 1.0 - missing, a).clip(0.0, 1.0)


def largest_jump(g: Callable[[FloatArray], FloatArray], x: FloatArray) -> tuple[float, float]:
    """(size, place) of the largest jump of an increasing g found by halving every step of the grid x down to one float64.

    Near 0 and 1 a step of g within one float64 may be a power law's, and counts only above 1/10.
    """
    low, high = x[:-1], x[1:]
    below, above = g(low), g(high)
    for _ in range(60):
        middle = 0.5 * (low + high)
        value = g(middle)
        right = above - value > value - below
        low, below = np.where(right, middle, low), np.where(right, value, below)
        high, above = np.where(right, high, middle), np.where(right, above, value)
    steps = np.where((low > 1e-6) & (high < 1.0 - 1e-6), above - below, np.maximum(above - below - 0.1, 0.0))
    i = int(steps.argmax())
    return float(steps[i]), float(high[i])


def pick(
    space: Space, pi: FloatArray, score: Callable[[np.ndarray], np.ndarray], shape: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """Of each row of draws the one with the largest score, ties at random; at most ``DRAWN`` draws are in memory."""

    def choose(rows: int) -> np.ndarray:
        drawn = space.sample(pi, (rows, shape[1]), rng)
        scores = score(drawn)
        best = scores == scores.max(axis=1, keepdims=True)
        chosen = np.where(best, rng.random(best.shape), -1.0).argmax(axis=1)
        return np.take_along_axis(drawn, chosen[:, None], axis=1)[:, 0]

    return in_chunks(choose, *shape)


def in_chunks(draw: Callable[[int], np.ndarray], rows: int, width: int) -> np.ndarray:
    """``draw(rows)``, in parts of at most ``DRAWN`` numbers where a row takes ``width`` of them."""
    size = max(1, DRAWN // width)
    return np.concatenate([draw(min(size, rows - done)) for done in range(0, rows, size)])
