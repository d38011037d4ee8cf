"""Calibration against a reference, and laws tilted by a transform: rows of prompts, one pass each.

Rows are prompts, columns responses. ``order`` sorts each row by reward; ``level`` numbers the distinct rewards of a row from
the lowest up. Loops that sum store nothing (kernels/_jit.py).

Masses of levels are compensated sums (Neumaier): a law by ranks takes a CDF to the power N, which multiplies its rounding by N.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import exact, helper, kernel
from mdpsim.kernels._math import exp, kl_term


@helper
def find(x, low, high, v, right):
    """First index in [low, high) at which ascending x is >= v, or > v where ``right``."""
    while low < high:
        middle = (low + high) // 2
        if x[middle] < v or (right and x[middle] == v):
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def count_anchors(r, anchors, out):
    """out [X, Y] = (anchors below r + half of those equal to it) / K; rows of anchors [X, K] ascend.

    Cost: O(X Y log K).
    """
    n_anchors = anchors.shape[1]
    for i in range(r.shape[0]):
        row = anchors[i]
        for j in range(r.shape[1]):
            below = find(row, 0, n_anchors, r[i, j], False)
            to = find(row, below, n_anchors, r[i, j], True)
            out[i, j] = (below + 0.5 * (to - below)) / n_anchors


@kernel
def interpolate(r, anchors, out):
    """out [X, Y]: the piecewise linear CDF through (anchor number k, (k - 1/2) / K), constant beyond the outermost anchors.

    Equal anchors count as one step, at whose middle the reward lies. Rows of anchors [X, K] ascend. Cost: O(X Y log K).
    """
    n_anchors = anchors.shape[1]
    for i in range(r.shape[0]):
        row = anchors[i]
        for j in range(r.shape[1]):
            below = find(row, 0, n_anchors, r[i, j], False)
            to = find(row, below, n_anchors, r[i, j], True)
            if to > below:
                out[i, j] = 0.5 * (below + to) / n_anchors
            elif below == 0 or below == n_anchors:
                out[i, j] = min(max(below, 0.5), n_anchors - 0.5) / n_anchors
            else:
                out[i, j] = (below - 0.5 + share(row[below - 1], r[i, j], row[below])) / n_anchors


@exact
def share(a, x, b):
    """(x - a) / (b - a) for a < x < b, halved first where the difference overflows."""
    return (x - a) / (b - a) if b - a < np.inf else (0.5 * x - 0.5 * a) / (0.5 * b - 0.5 * a)


@exact
def add(high, low, x):
    """(high, low) of a sum and what its rounding lost, after one more term x."""
    total = high + x
    part = total - high
    return total, low + ((high - (total - part)) + (x - part))


@exact
def add_block(x, order, first, last, high, low):
    """(high, low) after the terms x [Y] at order[first : last]."""
    for k in range(first, last):
        high, low = add(high, low, x[order[k]])
    return high, low


@exact
def rounded(high, low):
    """The value of a compensated sum."""
    return high + low


@helper
def block_end(r, order, first):
    """One beyond the last of those that tie with order[first] in r [Y]."""
    last = first + 1
    while last < order.size and r[order[last]] == r[order[first]]:
        last += 1
    return last


@kernel
def level_sums(r, p, order, below, mass, above):
    """For each response of each row: the mass of p [X, Y] strictly below its reward, at it, and strictly above it.

    Compensated sums from the nearer end: the small ones too are accurate to rounding, relative to themselves. Cost: O(X Y).
    """
    n = r.shape[1]
    for i in range(r.shape[0]):
        high, low, first = 0.0, 0.0, 0
        while first < n:
            last = block_end(r[i], order[i], first)
            under = rounded(high, low)
            at, lost = add_block(p[i], order[i], first, last, 0.0, 0.0)
            level = rounded(at, lost)
            for k in range(first, last):
                below[i, order[i, k]] = under
                mass[i, order[i, k]] = level
            high, low = add_block(p[i], order[i], first, last, high, low)
            first = last
        high, low, last = 0.0, 0.0, n
        while last > 0:
            first = last - 1
            while first > 0 and r[i, order[i, first - 1]] == r[i, order[i, last - 1]]:
                first -= 1
            over = rounded(high, low)
            for k in range(first, last):
                above[i, order[i, k]] = over
            high, low = add_block(p[i], order[i], first, last, high, low)
            last = first


@kernel
def gibbs_rows(scores, ref, rate, pi, kl, mean, variance):
    """pi [X, Y] = ref e^{rate scores} / Z row by row, with KL(pi || ref) and the moments of (scores - top) under pi, each [X].

    top is the largest score that ref can give. Cost: one exponential and one logarithm an entry.
    """
    n_rows, n = scores.shape
    for i in range(n_rows):
        top = -np.inf
        for j in range(n):
            top = scores[i, j] if ref[i, j] > 0.0 and scores[i, j] > top else top
        for j in range(n):
            pi[i, j] = ref[i, j] * exp(rate * min(scores[i, j] - top, 0.0))
        total = 0.0
        for j in range(n):
            total += pi[i, j]
        for j in range(n):
            pi[i, j] /= total
        divergence, first, second = 0.0, 0.0, 0.0
        for j in range(n):
            divergence += kl_term(pi[i, j], ref[i, j])
            d = scores[i, j] - top
            first += pi[i, j] * d if pi[i, j] > 0.0 else 0.0
            second += pi[i, j] * d * d if pi[i, j] > 0.0 else 0.0
        kl[i], mean[i] = divergence, first
        spread = second - first * first
        variance[i] = spread if spread > 0.0 else 0.0
