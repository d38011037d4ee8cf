"""Discounted optima in 50-digit arithmetic (mpmath): Newton's method on V = T V, from the definitions.

beta in [0, inf]; probability rows mean row / sum(row), here exactly; gamma is the float64 number it is.
"""

from __future__ import annotations

import mpmath
import numpy as np
from mpmath import mp, mpf

from reference.mp_solver import _digits, _dot, _soft_row, exact_rows

RESIDUAL = mpf(10) ** -38


def _row(q, ref, beta):
    """(V, pi) of one row; for beta = 0 the first best action, without any tolerance for ties."""
    if beta > 0:
        return _soft_row(q, ref, beta)
    best = max((a for a in range(len(q)) if ref[a] > 0), key=lambda a: q[a])
    return q[best], [mpf(int(a == best)) for a in range(len(q))]


def optimum(P, r, gamma, pi_ref, beta):
    """V [S] as mpf for dense P [S, A, S]: its residual |T V - V| is below 1e-38 / (1 - gamma) of the truth."""
    with mp.workdps(_digits(beta)):
        p, ref, g = exact_rows(P), exact_rows(pi_ref), mpf(float(gamma))
        S, A = np.shape(r)
        reward = [[mpf(float(x)) for x in row] for row in r]
        V = [mpf(0)] * S
        for _ in range(200):
            rows = [_row([reward[s][a] + g * _dot(p[s, a], V) for a in range(A)], ref[s], beta) for s in range(S)]
            d = [row[0] - v for row, v in zip(rows, V, strict=True)]
            if max(abs(x) for x in d) < RESIDUAL * (1 + max(abs(v) for v in V)):
                return np.array([row[0] for row in rows], object)
            system = mpmath.eye(S)
            for s in range(S):
                for j in range(S):
                    system[s, j] -= g * mpmath.fsum(rows[s][1][a] * p[s, a, j] for a in range(A))
            step = mpmath.lu_solve(system, mpmath.matrix(d))
            V = [v + step[s] for s, v in enumerate(V)]
        raise AssertionError("Newton's method did not end")
