"""The solver in 50-digit arithmetic (mpmath): what the contract of ``mdpsim.solve.exact`` is measured against.

Loops over the definitions, nothing clever. Probability rows mean row / sum(row), here exactly. beta may be a float, 0
or inf. Arrays are numpy object arrays of mpf.
"""

from __future__ import annotations

import mpmath
import numpy as np
from mpmath import mp, mpf

DIGITS = 50
TIE_ULPS = 4


def _digits(beta):
    """50, and for a large beta as many more as log(1 + 1 / beta) loses."""
    return DIGITS + (max(0, int(np.log10(beta))) if 0 < beta < np.inf else 0)


def exact_rows(rows):
    """Object array of the same shape: each last-axis row divided by its sum."""
    with mp.workdps(max(DIGITS, mp.dps)):
        flat = []
        for row in np.asarray(rows).reshape(-1, np.shape(rows)[-1]):
            total = mpmath.fsum(float(x) for x in row)
            flat.append([mpf(float(x)) / total for x in row])
        out = np.empty(np.shape(rows), object)
        out.reshape(-1, out.shape[-1])[...] = flat
        return out


def _exact(x):
    """Object array of the same numbers."""
    out = np.empty(np.shape(x), object)
    out.reshape(-1)[:] = [mpf(float(v)) for v in np.asarray(x).reshape(-1)]
    return out


def _dot(weights, values):
    """sum of weights * values, where weight 0 times infinity is 0."""
    return mpmath.fsum(w * v for w, v in zip(weights, values, strict=True) if w != 0)


def _soft_row(q, ref, beta):
    """(V, pi) of one row."""
    if beta == np.inf:
        return _dot(ref, q), list(ref)
    if beta == 0:
        top = max(x for x, w in zip(q, ref, strict=True) if w > 0)
        largest = max(abs(float(x)) for x, w in zip(q, ref, strict=True) if w > 0)
        floor = top - TIE_ULPS * mpf(float(np.spacing(largest)))
        mass = [w if x >= floor else mpf(0) for x, w in zip(q, ref, strict=True)]
    else:
        top = max(x for x, w in zip(q, ref, strict=True) if w > 0)
        mass = [w * mpmath.exp((x - top) / mpf(beta)) if w > 0 else mpf(0) for x, w in zip(q, ref, strict=True)]
    total = mpmath.fsum(mass)
    value = top if beta == 0 else top + mpf(beta) * mpmath.log(total)
    return value, [m / total for m in mass]


def solve_soft(mdp, pi_ref, beta):
    """(V [H+1, S], Q [H, S, A], pi [H, S, A]) of the KL-regularised optimum."""
    with mp.workdps(_digits(beta)):
        P, r, ref = exact_rows(mdp.P), _exact(mdp.r), exact_rows(pi_ref)
        H, S, A = ref.shape
        V, Q, pi = np.full((H + 1, S), mpf(0), object), np.empty((H, S, A), object), np.empty((H, S, A), object)
        for h in reversed(range(H)):
            p, reward = P[min(h, len(P) - 1)], r[min(h, len(r) - 1)]
            for s in range(S):
                Q[h, s] = [reward[s, a] + _dot(p[s, a], V[h + 1]) for a in range(A)]
                V[h, s], pi[h, s] = _soft_row(Q[h, s], ref[h, s], beta)
        return V, Q, pi


def kl_row(p, q):
    """sum p log(p / q); inf without cover."""
    if any(x > 0 and y == 0 for x, y in zip(p, q, strict=True)):
        return mpf("inf")
    return mpmath.fsum(x * mpmath.log(x / y) for x, y in zip(p, q, strict=True) if x > 0)


def evaluate(mdp, pi, pi_ref=None, beta=0.0):
    """(V [H+1, S], Q [H, S, A], J) of a policy; beta in [0, inf) or inf."""
    with mp.workdps(DIGITS):
        P, r, policy = exact_rows(mdp.P), _exact(mdp.r), exact_rows(pi)
        ref = None if pi_ref is None else exact_rows(pi_ref)
        H, S, A = policy.shape
        V, Q = np.full((H + 1, S), mpf(0), object), np.empty((H, S, A), object)
        for h in reversed(range(H)):
            p, reward = P[min(h, len(P) - 1)], r[min(h, len(r) - 1)]
            for s in range(S):
                Q[h, s] = [reward[s, a] + _dot(p[s, a], V[h + 1]) for a in range(A)]
                V[h, s] = _dot(policy[h, s], Q[h, s])
                kl = kl_row(policy[h, s], ref[h, s]) if ref is not None and beta > 0 else 0
                V[h, s] -= mpf(beta) * kl if kl > 0 else 0
        return V, Q, _dot(exact_rows(mdp.mu0), V[0])


def occupancy(mdp, pi):
    """[H, S] law of the state at each stage."""
    with mp.workdps(DIGITS):
        P, policy = exact_rows(mdp.P), exact_rows(pi)
        H, S, A = policy.shape
        occ = np.full((H, S), mpf(0), object)
        occ[0] = exact_rows(mdp.mu0)
        for h in range(H - 1):
            p = P[min(h, len(P) - 1)]
            for s in range(S):
                for a in range(A):
                    occ[h + 1] = occ[h + 1] + occ[h, s] * policy[h, s, a] * p[s, a]
        return occ


def trajectory_kl(mdp, pi, other):
    """E_pi sum_h KL(pi_h || other_h)."""
    with mp.workdps(DIGITS):
        occ, policy, reference = occupancy(mdp, pi), exact_rows(pi), exact_rows(other)
        H, S, _ = policy.shape
        return mpmath.fsum(
            occ[h, s] * kl_row(policy[h, s], reference[h, s]) for h in range(H) for s in range(S) if occ[h, s] > 0
        )
