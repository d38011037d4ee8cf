"""Preference fits over softmax classes on a box: a convex logistic part and a concave optimism part (CCCP).

    F(theta) = sum_j c_j softplus(-Z_j theta) + kappa sum_y m_y (Phi_y theta - V_x(y)(theta)),
    V_x(theta) = beta log sum_{y of x} ref_y exp(Phi_y theta / beta),      low <= theta <= high.

V is convex, so -V lies below its tangents: replacing V by its tangent at theta_k majorises F, and minimising that convex
function (logistic plus linear) never raises F. Rows y of one prompt x are neighbours, edges[x] to edges[x + 1].

The convex problems: Newton's method on the coordinates that are free (not held at a bound by their gradient), its step bent
along the box, with a multiple of the identity added that shrinks with the gradient. Directions without curvature then move by
about the width of the box, and ones without gradient not at all: unidentified coordinates stay where they started.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, kernel
from mdpsim.kernels._math import exp, log1p, log_ratio_sum, quotient, weighted_exp

NEWTON_STEPS, HALVINGS, DAMPINGS = 200, 40, 12
ROUNDING = 1e-15


@helper
def _dot(x, y):
    total = 0.0
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@helper
def softplus(x):
    """log(1 + e^x)."""
    return (x if x > 0.0 else 0.0) + log1p(exp(-abs(x)))


@helper
def _convex_value(Z, c, b, theta):
    """sum_j c_j softplus(-Z_j theta) + b theta."""
    total = 0.0
    for j in range(c.size):
        total += c[j] * softplus(-_dot(Z[j], theta))
    return total + _dot(b, theta)


@helper
def _slopes(Z, c, b, theta, grad, curvature):
    """Fill grad [d] of the convex function and curvature [J] = c sigma'."""
    for i in range(grad.size):
        grad[i] = b[i]
    for j in range(c.size):
        s = _dot(Z[j], theta)
        wrong = quotient(1.0, 1.0 + exp(s))
        right = quotient(1.0, 1.0 + exp(-s))
        curvature[j] = c[j] * wrong * right
        pull = c[j] * wrong
        for i in range(grad.size):
            grad[i] -= pull * Z[j, i]


@helper
def _box_gap(grad, theta, low, high):
    """max over the box of grad (theta - theta'): for a convex function, at least its value less its minimum."""
    total = 0.0
    for i in range(grad.size):
        down, up = grad[i] * (theta[i] - low[i]), grad[i] * (theta[i] - high[i])
        total += down if down > up else up
    return total


@helper
def _hold(grad, theta, low, high, free):
    """Fill free [d] (first n entries) with the coordinates not held at a bound; return (n, their largest |grad|, width)."""
    n = 0
    steep, wide = 0.0, 0.0
    for i in range(grad.size):
        held = (theta[i] <= low[i] and grad[i] >= 0.0) or (theta[i] >= high[i] and grad[i] <= 0.0)
        if not held:
            free[n] = i
            n += 1
            steep = max(steep, abs(grad[i]))
            wide = max(wide, high[i] - low[i])
    return n, steep, wide


@helper
def _curve(Z, curvature, free, n, A):
    """Fill A [n, n] with the Hessian on the free coordinates; return its largest diagonal entry."""
    for a in range(n):
        for e in range(n):
            A[a, e] = 0.0
    for j in range(curvature.size):
        if curvature[j] > 0.0:
            for a in range(n):
                z = curvature[j] * Z[j, free[a]]
                if z != 0.0:
                    for e in range(a + 1):
                        A[a, e] += z * Z[j, free[e]]
    top = 0.0
    for a in range(n):
        top = max(top, A[a, a])
    return top


@helper
def _solve(A, shift, rhs, n, L, x):
    """x [n] = -(A + shift I)^-1 rhs by Cholesky (lower triangle of A); False where it breaks down."""
    for a in range(n):
        for e in range(a + 1):
            s = A[a, e] + (shift if a == e else 0.0)
            for k in range(e):
                s -= L[a, k] * L[e, k]
            if a == e:
                if not s > 0.0:
                    return False
                L[a, a] = np.sqrt(s)
            else:
                L[a, e] = s / L[e, e]
    for a in range(n):
        s = -rhs[a]
        for k in range(a):
            s -= L[a, k] * x[k]
        x[a] = s / L[a, a]
    for r in range(n):
        a = n - 1 - r
        s = x[a]
        for k in range(a + 1, n):
            s -= L[k, a] * x[k]
        x[a] = s / L[a, a]
    return True


@helper
def _bend(theta, step, size, free, n, low, high, trial):
    """trial [d] = theta + size step on the free coordinates, clipped to the box."""
    for i in range(theta.size):
        trial[i] = theta[i]
    for a in range(n):
        i = free[a]
        trial[i] = min(max(theta[i] + size * step[a], low[i]), high[i])


@helper
def _decrease(grad, theta, trial):
    total = 0.0
    for i in range(grad.size):
        total += grad[i] * (trial[i] - theta[i])
    return total


@helper
def _line_search(Z, c, b, low, high, theta, grad, step, free, n, value, least, trial):
    """Halve the step until it lowers the function enough: (value, 1); 0 where none does, -1 where only rounding is left."""
    size = 1.0
    for _ in range(HALVINGS):
        _bend(theta, step, size, free, n, low, high, trial)
        promised = _decrease(grad, theta, trial)
        if promised < 0.0:
            after = _convex_value(Z, c, b, trial)
            if after <= value + 1e-4 * promised and after < value:
                return after, 1
            if -promised <= least:
                return value, -1
        size *= 0.5
    return value, 0


@helper
def _damped_step(Z, c, b, low, high, theta, grad, curvature, free, n, shift, value, least, work, trial):
    """Newton steps with more and more damping until the line search ends: (value at trial, outcome); work [2 d + 2, d]."""
    d = theta.size
    A, L, picked, step = work[:d], work[d : 2 * d], work[2 * d], work[2 * d + 1]
    shift += 1e-14 * _curve(Z, curvature, free, n, A)
    for a in range(n):
        picked[a] = grad[free[a]]
    for _ in range(DAMPINGS):
        if _solve(A, shift, picked, n, L, step):
            after, outcome = _line_search(Z, c, b, low, high, theta, grad, step, free, n, value, least, trial)
            if outcome != 0:
                if outcome < 0:
                    _bend(theta, step, 1.0, free, n, low, high, trial)
                return after, outcome
        shift = 30.0 * shift + 1e-300
    return value, 0


@helper
def _descend(Z, c, b, low, high, theta):
    """Minimise sum c softplus(-Z theta) + b theta over the box, in place; return (value, box gap).

    Where a step promises no more than rounding it is taken whole as long as it halves the box gap, which wide boxes magnify.
    """
    d = theta.size
    grad, ahead, curvature, trial = np.empty(d), np.empty(d), np.empty(c.size), np.empty(d)
    free, work = np.empty(d, np.int64), np.empty((2 * d + 2, d))
    value, gap, scale = _convex_value(Z, c, b, theta), 0.0, 0.0
    for j in range(c.size):
        scale += c[j]
    for i in range(d):
        scale += abs(b[i]) * max(abs(low[i]), abs(high[i]))
    for _ in range(NEWTON_STEPS):
        _slopes(Z, c, b, theta, grad, curvature)
        gap = _box_gap(grad, theta, low, high)
        n, steep, wide = _hold(grad, theta, low, high, free)
        if n == 0 or gap <= ROUNDING * scale:
            break
        after, outcome = _damped_step(
            Z, c, b, low, high, theta, grad, curvature, free, n, 0.5 * steep / wide, value, ROUNDING * scale, work, trial
        )
        if outcome < 0:
            _slopes(Z, c, b, trial, ahead, curvature)
            after = _convex_value(Z, c, b, trial)
            outcome = 1 if _box_gap(ahead, trial, low, high) < 0.5 * gap else 0
        if outcome == 0:
            break
        value = after
        for i in range(d):
            theta[i] = trial[i]
    return value, gap


@kernel
def minimise_convex(Z, c, b, low, high, theta, value, gap):
    """Minimise S convex functions that differ in b [S, d], each from its theta [S, d], in place; value [S], gap [S]."""
    for s in range(theta.shape[0]):
        value[s], gap[s] = _descend(Z, c, b[s], low, high, theta[s])


@helper
def _centred(rho, log_ref, beta, start, end, d):
    """Fill d with (rho - pivot) / beta on the rows of a prompt; return the pivot, rho where ref e^{rho / beta} is largest."""
    pivot, high = rho[start], -np.inf
    for y in range(start, end):
        rank = rho[y] + beta * log_ref[y]
        pivot = rho[y] if rank > high else pivot
        high = rank if rank > high else high
    for y in range(start, end):
        d[y] = quotient(rho[y] - pivot, beta)
    return pivot


@helper
def _masses(ref, d, start, end):
    """(sum ref e^d, sum ref (e^d - 1)) over the rows of a prompt."""
    total, excess = 0.0, 0.0
    for y in range(start, end):
        one, two = weighted_exp(ref[y], d[y])
        total += one
        excess += two
    return total, excess


@helper
def soft_values(rho, edges, ref, log_ref, beta, V, p):
    """V [X] and p [N] = softmax of rho / beta weighted by ref, prompt by prompt; exact for every beta in (0, inf)."""
    for x in range(V.size):
        start, end = edges[x], edges[x + 1]
        pivot = _centred(rho, log_ref, beta, start, end, p)
        total, excess = _masses(ref, p, start, end)
        V[x] = pivot + beta * log_ratio_sum(total, excess)
        for y in range(start, end):
            p[y] = quotient(weighted_exp(ref[y], p[y])[0], total)


@helper
def _apply(Phi, theta, rho):
    for y in range(rho.size):
        rho[y] = _dot(Phi[y], theta)


@helper
def _optimism(rho, V, edges, m):
    """sum_y m_y (rho_y - V_x(y))."""
    total = 0.0
    for x in range(V.size):
        for y in range(edges[x], edges[x + 1]):
            total += m[y] * (rho[y] - V[x])
    return total


@helper
def _tangent(Phi, edges, m, p, kappa, b):
    """b [d] = kappa sum_x (sum_{y of x} m_y Phi_y - n_x sum_y p_y Phi_y), n_x = sum of m over x."""
    for i in range(b.size):
        b[i] = 0.0
    for x in range(edges.size - 1):
        n = 0.0
        for y in range(edges[x], edges[x + 1]):
            n += m[y]
        for y in range(edges[x], edges[x + 1]):
            w = kappa * (m[y] - n * p[y])
            if w != 0.0:
                for i in range(b.size):
                    b[i] += w * Phi[y, i]


@kernel
def minimise(Z, c, Phi, edges, ref, log_ref, m, kappa, beta, low, high, most, theta, value, gap, count):
    """CCCP from each of S starts theta [S, d], in place: value [S] of F, first-order gap [S], tangents taken [S]."""
    n_rows, d, n_prompts = Phi.shape[0], Phi.shape[1], edges.size - 1
    rho, p, V, b, none = np.empty(n_rows), np.empty(n_rows), np.empty(n_prompts), np.empty(d), np.zeros(d)
    grad, curvature, scale = np.empty(d), np.empty(c.size), 0.0
    for j in range(c.size):
        scale += c[j]
    for s in range(theta.shape[0]):
        before = np.inf
        count[s] = 0
        for _ in range(most):
            _apply(Phi, theta[s], rho)
            soft_values(rho, edges, ref, log_ref, beta, V, p)
            now = _convex_value(Z, c, none, theta[s]) + kappa * _optimism(rho, V, edges, m)
            value[s] = now
            _tangent(Phi, edges, m, p, kappa, b)
            _slopes(Z, c, b, theta[s], grad, curvature)
            gap[s] = _box_gap(grad, theta[s], low, high)
            if not before - now > ROUNDING * (scale + abs(now)):
                break
            before = now
            count[s] += 1
            _descend(Z, c, b, low, high, theta[s])


@kernel
def evaluate(Z, c, Phi, edges, ref, log_ref, m, kappa, beta, theta, value):
    """value [S] = F at the rows of theta [S, d]."""
    n_rows, n_prompts = Phi.shape[0], edges.size - 1
    rho, p, V, none = np.empty(n_rows), np.empty(n_rows), np.empty(n_prompts), np.zeros(theta.shape[1])
    for s in range(theta.shape[0]):
        _apply(Phi, theta[s], rho)
        soft_values(rho, edges, ref, log_ref, beta, V, p)
        value[s] = _convex_value(Z, c, none, theta[s]) + kappa * _optimism(rho, V, edges, m)


@kernel
def log_policies(Phi, edges, ref, log_ref, beta, theta, log_p):
    """log_p [N] = log softmax at theta [d]; not by way of V, whose rounding a small beta would magnify."""
    rho, d = np.empty(Phi.shape[0]), np.empty(Phi.shape[0])
    _apply(Phi, theta, rho)
    for x in range(edges.size - 1):
        start, end = edges[x], edges[x + 1]
        _centred(rho, log_ref, beta, start, end, d)
        total, excess = _masses(ref, d, start, end)
        log_mass = log_ratio_sum(total, excess)
        for y in range(start, end):
            log_p[y] = log_ref[y] + d[y] - log_mass
