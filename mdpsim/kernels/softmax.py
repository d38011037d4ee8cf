"""Softmax rows and the pullback of weights through them: what a policy gradient step consists of.

Two passes over each row, written into arrays that the caller keeps: a step on 16^4 responses is then bound by its exponentials.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import kernel
from mdpsim.kernels._math import exp, log


@kernel
def log_softmax(x, out, total):
    """out [R, V] = log softmax of the rows of x [R, V]; total [R] is work space. Cost: one exponential an entry."""
    n_rows, width = x.shape
    for i in range(n_rows):
        top = -np.inf
        for j in range(width):
            top = x[i, j] if x[i, j] > top else top
        mass = 0.0
        for j in range(width):
            mass += exp(x[i, j] - top)
        for j in range(width):
            out[i, j] = x[i, j] - top
        total[i] = mass
    for i in range(n_rows):
        total[i] = log(total[i])
    for i in range(n_rows):
        for j in range(width):
            out[i, j] -= total[i]


@kernel
def pullback(log_p, w, out, mass):
    """out [R, V] = w - p mass and mass [R] = the row sums of w [R, V], p = e^{log_p}. Cost: one exponential an entry."""
    n_rows, width = w.shape
    for i in range(n_rows):
        total = 0.0
        for j in range(width):
            total += w[i, j]
        mass[i] = total
        for j in range(width):
            out[i, j] = w[i, j] - exp(log_p[i, j]) * total


@kernel
def centred_weights(log_pi, signal, out):
    """out [K] = pi (signal - E_pi signal), pi = e^{log_pi}; responses of probability zero get nothing."""
    mean = 0.0
    for i in range(out.size):
        out[i] = exp(log_pi[i])
    for i in range(out.size):
        mean += out[i] * signal[i] if out[i] > 0.0 else 0.0
    for i in range(out.size):
        out[i] = out[i] * (signal[i] - mean) if out[i] > 0.0 else 0.0
