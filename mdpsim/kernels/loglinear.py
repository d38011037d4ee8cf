"""Log-linear policies pi(a|s) = exp(x(s,a) . z) / sum_a': the likelihood of counts, its gradient and Hessian, and Newton's
method.

    f(z) = sum_{s,a} n(s,a) log pi_z(a|s) - sum_i rho_i z_i^2 / 2,     n >= 0 with sum 1
    grad f = sum_{s,a} [n(s,a) - n(s) pi(a|s)] x(s,a) - rho z
    -Hess f = sum_s n(s) Cov_{a ~ pi(.|s)} x(s,a) + diag(rho)           (features centred at their mean: no cancellation)

f is concave. The caller gives coordinates in which -Hess f(0) is about the identity.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, kernel
from mdpsim.kernels._math import exp, log

HALVINGS = 60  # a step 2^-60 long is none
SUFFICIENT = 1e-4  # Armijo's share of the slope
ROUNDING = 1e-13  # gains below it are not seen in f


@helper
def _row(x, z, s, score, pi):
    """Fill score and pi [A] for state s; returns log sum_a exp(score)."""
    width, k = x.shape[1], x.shape[2]
    for a in range(width):
        total = 0.0
        for i in range(k):
            total += x[s, a, i] * z[i]
        score[a] = total
    top = -np.inf
    for a in range(width):
        top = score[a] if score[a] > top else top
    for a in range(width):
        pi[a] = exp(score[a] - top)
    mass = 0.0
    for a in range(width):
        mass += pi[a]
    for a in range(width):
        pi[a] /= mass
    return top + log(mass)


@helper
def _value(x, n, rho, z, score, pi):
    """f(z)."""
    total = 0.0
    for s in range(x.shape[0]):
        normaliser = _row(x, z, s, score, pi)
        part = 0.0
        for a in range(x.shape[1]):
            part += n[s, a] * (score[a] - normaliser)
        total += part
    for i in range(z.size):
        total -= 0.5 * rho[i] * z[i] * z[i]
    return total


@helper
def _derivatives(x, n, rho, z, gradient, hessian, score, pi, mean):
    """gradient [k] = grad f(z), the lower triangle of hessian [k, k] = -Hess f(z)."""
    n_states, width, k = x.shape
    for i in range(k):
        gradient[i] = -rho[i] * z[i]
        for j in range(i + 1):
            hessian[i, j] = 0.0
        hessian[i, i] = rho[i]
    for s in range(n_states):
        _row(x, z, s, score, pi)
        visits = 0.0
        for a in range(width):
            visits += n[s, a]
        for i in range(k):
            mean[i] = 0.0
        for a in range(width):
            for i in range(k):
                mean[i] += pi[a] * x[s, a, i]
        for a in range(width):
            for i in range(k):
                gradient[i] += n[s, a] * (x[s, a, i] - mean[i])  # sum_a n(s,a) mean = n(s) mean
            weight = visits * pi[a]
            for i in range(k):
                left = weight * (x[s, a, i] - mean[i])
                for j in range(i + 1):
                    hessian[i, j] += left * (x[s, a, j] - mean[j])


@helper
def cholesky_solve(hessian, gradient, chol, step):
    """step = hessian^-1 gradient by Cholesky; pivots lost to rounding are raised to 1e-15 of the trace."""
    k = gradient.size
    floor = 0.0
    for i in range(k):
        floor += hessian[i, i]
    floor = max(1e-15 * floor, 1e-300)
    for i in range(k):
        for j in range(i + 1):
            total = hessian[i, j]
            for m in range(j):
                total -= chol[i, m] * chol[j, m]
            chol[i, j] = np.sqrt(max(total, floor)) if i == j else total / chol[j, j]
    for i in range(k):
        total = gradient[i]
        for m in range(i):
            total -= chol[i, m] * step[m]
        step[i] = total / chol[i, i]
    for back in range(k):
        i = k - 1 - back
        total = step[i]
        for m in range(i + 1, k):
            total -= chol[m, i] * step[m]
        step[i] = total / chol[i, i]


@kernel
def newton(x, n, rho, start, tol, max_steps, z, hessian, info):
    """Maximise f by Newton's method with halving line search.

    x [S, A, k], n [S, A] with sum 1, rho [k] >= 0, start [k]. Fills z [k], the lower triangle of hessian [k, k] at z, and info:
    [largest |gradient|, largest change of a score x . z that the next step would make, steps, f(z)].
    Stops where the largest |gradient| is at most tol. Cost: S A k^2 / 2 multiply-adds a step.
    """
    width, k = x.shape[1], x.shape[2]
    gradient, step, trial, mean = np.empty(k), np.empty(k), np.empty(k), np.empty(k)
    chol, score, pi = np.empty((k, k)), np.empty(width), np.empty(width)
    for i in range(k):
        z[i] = start[i]
        trial[i] = 0.0
    value = _value(x, n, rho, z, score, pi)
    at_zero = _value(x, n, rho, trial, score, pi)
    if not value >= at_zero:  # a start worse than none, or one that overflows
        value = at_zero
        for i in range(k):
            z[i] = 0.0
    largest, steps = np.inf, 0
    while True:
        _derivatives(x, n, rho, z, gradient, hessian, score, pi, mean)
        cholesky_solve(hessian, gradient, chol, step)
        largest = 0.0
        for i in range(k):
            largest = max(largest, abs(gradient[i]))
        if largest <= tol or steps >= max_steps:
            break
        slope = 0.0
        for i in range(k):
            slope += gradient[i] * step[i]
        scale, gained = 1.0, False
        for _ in range(HALVINGS):
            for i in range(k):
                trial[i] = z[i] + scale * step[i]
            ahead = _value(x, n, rho, trial, score, pi)
            if ahead >= value + SUFFICIENT * scale * slope - ROUNDING:
                gained = True
                break
            scale *= 0.5
        if not gained:
            break
        value = ahead
        for i in range(k):
            z[i] = trial[i]
        steps += 1
    change = 0.0
    for s in range(x.shape[0]):
        for a in range(width):
            total = 0.0
            for i in range(k):
                total += x[s, a, i] * step[i]
            change = max(change, abs(total))
    info[0] = largest
    info[1] = change
    info[2] = steps
    info[3] = value
