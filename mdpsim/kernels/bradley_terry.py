"""Bradley-Terry rewards on a box: the likelihood of labelled differences, and Newton's method for its maximum.

    L(theta) = sum_i w_i softplus(-y_i x_i . theta) + (ridge/2) |theta - centre|^2,   y_i = +-1,   low <= theta <= high

x_i is a row of fixed width K: columns idx [i, :] with values val [i, :], which may name a column twice. L is convex. A step
minimises its quadratic model on the box exactly, by a primal active-set method, and is halved until L falls. (Clipping Newton's
step in place of that stalls: along what only the ridge decides the model is so flat that steps run from bound to bound.)
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, kernel
from mdpsim.kernels._math import exp, log1p, quotient
from mdpsim.kernels.loglinear import cholesky_solve

HALVINGS = 60  # a step 2^-60 long is none
SUFFICIENT = 1e-4  # Armijo's share of the slope
ROUNDING = 1e-13  # changes below it are not seen in L
STILL = 1e-7  # a step that changes no score x . theta by more is the last: Newton's next would be rounding


@helper
def _score(idx, val, theta, i):
    """x_i . theta."""
    total = 0.0
    for k in range(idx.shape[1]):
        total += val[i, k] * theta[idx[i, k]]
    return total


@helper
def _value(idx, val, label, weight, centre, ridge, theta):
    """L(theta)."""
    total = 0.0
    for i in range(idx.shape[0]):
        z = _score(idx, val, theta, i)
        z = z if label[i] == 1 else -z
        total += weight[i] * (max(-z, 0.0) + log1p(exp(-abs(z))))
    for j in range(theta.size):
        total += 0.5 * ridge * (theta[j] - centre) * (theta[j] - centre)
    return total


@helper
def _derivatives(idx, val, label, weight, centre, ridge, theta, gradient, hessian):
    """gradient [D] and the lower triangle of hessian [D, D] of L at theta."""
    n, width = idx.shape
    for j in range(theta.size):
        gradient[j] = ridge * (theta[j] - centre)
        for k in range(j + 1):
            hessian[j, k] = 0.0
        hessian[j, j] = ridge
    for i in range(n):
        z = _score(idx, val, theta, i)
        small = exp(-abs(z))
        large = quotient(weight[i], 1.0 + small)  # w times the probability of the likelier label, and of the other
        rest = small * large
        slope = (-rest if z > 0.0 else -large) if label[i] == 1 else (large if z > 0.0 else rest)
        curve = quotient(rest, 1.0 + small)
        for k in range(width):
            gradient[idx[i, k]] += slope * val[i, k]
            for m in range(width):
                if idx[i, m] <= idx[i, k]:
                    hessian[idx[i, k], idx[i, m]] += curve * val[i, k] * val[i, m]


@helper
def _multiplier(hessian, gradient, d, r):
    """r = gradient + hessian d, from the lower triangle."""
    for j in range(d.size):
        r[j] = gradient[j]
        for k in range(j + 1):
            r[j] += hessian[j, k] * d[k]
        for k in range(j + 1, d.size):
            r[j] += hessian[k, j] * d[k]


@helper
def _box_step(hessian, gradient, theta, low, high, tol, d, side, reduced, chol, right, p, trial):
    """d minimises gradient . d + d' hessian d / 2 over low <= theta + d <= high; side is -1, 0, 1: at low, free, at high.

    Free coordinates move to their minimum. Those that this carries over a bound stop there at once if the model falls, else
    all move up to the first bound on the way. At a minimum the coordinates whose multipliers have the wrong sign most are let
    go. At most 20 n + 20 changes; wherever it ends the model is below its value at d = 0.
    """
    n = d.size
    for j in range(n):
        d[j] = 0.0
        side[j] = -1 if theta[j] <= low else (1 if theta[j] >= high else 0)
    for _ in range(20 * n + 20):
        _multiplier(hessian, gradient, d, right)
        for j in range(n):
            for k in range(j + 1):
                reduced[j, k] = hessian[j, k] if j == k or (side[j] == 0 and side[k] == 0) else 0.0
            right[j] = -right[j] if side[j] == 0 else 0.0
        cholesky_solve(reduced, right, chol, p)
        before, after = 0.0, 0.0  # the model at d and at the clipped step
        cut = 0  # coordinates that clipping changed
        _multiplier(hessian, gradient, d, right)
        for j in range(n):
            before += 0.5 * (gradient[j] + right[j]) * d[j]
        for j in range(n):
            trial[j] = min(max(theta[j] + d[j] + p[j], low), high) - theta[j]
            cut += 1 if trial[j] != d[j] + p[j] else 0
        _multiplier(hessian, gradient, trial, right)
        for j in range(n):
            after += 0.5 * (gradient[j] + right[j]) * trial[j]
        if cut > 1 and after < before:  # all that the step carries over a bound stop there at once
            for j in range(n):
                if side[j] == 0 and theta[j] + d[j] + p[j] <= low:
                    side[j], d[j] = -1, low - theta[j]
                elif side[j] == 0 and theta[j] + d[j] + p[j] >= high:
                    side[j], d[j] = 1, high - theta[j]
                elif side[j] == 0:
                    d[j] = trial[j]
            continue
        share, block = 1.0, -1
        for j in range(n):
            room = (high if p[j] > 0.0 else low) - theta[j] - d[j]
            if side[j] == 0 and p[j] != 0.0 and abs(room) < share * abs(p[j]):
                share, block = abs(room) / abs(p[j]), j
        for j in range(n):
            d[j] += share * p[j]
        if block >= 0:
            side[block] = 1 if p[block] > 0.0 else -1
            d[block] = (high if p[block] > 0.0 else low) - theta[block]
            continue
        _multiplier(hessian, gradient, d, right)
        least = tol
        for j in range(n):
            least = max(least, side[j] * right[j])
        if least <= tol:
            return
        for j in range(n):
            if side[j] * right[j] >= 0.1 * least:
                side[j] = 0


@kernel
def fit(idx, val, label, weight, low, high, centre, ridge, start, tol, max_steps, theta, hessian, info):
    """Minimise L over the box.

    idx, val [n, K], label [n] in {0, 1}, weight [n] with sum 1, start [D] in the box. Fills theta [D], the lower triangle of
    hessian [D, D] at theta and info: [largest projected gradient, steps, L]. Stops where |theta - clip(theta - gradient)| is at
    most tol everywhere, or after a step so short that the next would be rounding. Cost of a step: n K^2, and D^3/6 for each of
    some D changes of the active set.
    """
    n = theta.size
    gradient, d, trial = np.empty(n), np.empty(n), np.empty(n)
    side, reduced, chol, right, p = np.zeros(n, np.int64), np.zeros((n, n)), np.empty((n, n)), np.empty(n), np.empty(n)
    for j in range(n):
        theta[j] = start[j]
    value, steps, largest, last = _value(idx, val, label, weight, centre, ridge, theta), 0, np.inf, False
    while True:
        _derivatives(idx, val, label, weight, centre, ridge, theta, gradient, hessian)
        largest = 0.0
        for j in range(n):
            largest = max(largest, abs(theta[j] - min(max(theta[j] - gradient[j], low), high)))
        if last or largest <= tol or steps >= max_steps:
            break
        _box_step(hessian, gradient, theta, low, high, tol, d, side, reduced, chol, right, p, trial)
        slope, change = 0.0, 0.0
        for j in range(n):
            slope += gradient[j] * d[j]
        for i in range(idx.shape[0]):
            change = max(change, abs(_score(idx, val, d, i)))
        last = change <= STILL
        scale, fell, ahead = 1.0, False, value
        for _ in range(HALVINGS):
            for j in range(n):
                trial[j] = min(max(theta[j] + scale * d[j], low), high)
                trial[j] = (low if side[j] < 0 else high) if scale == 1.0 and side[j] != 0 else trial[j]
            ahead = _value(idx, val, label, weight, centre, ridge, trial)
            if ahead <= value + SUFFICIENT * scale * slope + ROUNDING:
                fell = True
                break
            scale *= 0.5
        if not fell:
            break
        value = ahead
        for j in range(n):
            theta[j] = trial[j]
        steps += 1
    info[0], info[1], info[2] = largest, steps, value
