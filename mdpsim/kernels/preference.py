"""Preference labels: Bradley-Terry probabilities, and labels drawn from streams keyed by (key, pair).

    P(first preferred to second) = sigma(difference) = 1 / (1 + exp(-difference))
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import kernel
from mdpsim.kernels._math import exp, quotient
from mdpsim.kernels.rollout import stream_start, stream_uniform


@kernel
def logistic(difference, p):
    """p [n] = sigma(difference [n]), relative error a few ulp at both ends: exp(-x) overflows to infinity, and p is 0."""
    for i in range(p.size):
        p[i] = quotient(1.0, 1.0 + exp(-difference[i]))


@kernel
def draw_labels(p, key0, key1, label):
    """label [n] = 1 with probability p [n] (to 2^-53), else 0, by the first number of the stream of each pair."""
    for i in range(p.size):
        label[i] = stream_uniform(stream_start(key0, key1, np.uint64(i)), np.uint64(0)) < p[i]
