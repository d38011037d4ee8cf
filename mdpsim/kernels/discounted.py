"""Value iteration for discounted MDPs, hard and KL-regularised, with two-sided bounds; and the dense transitions.

    (T V)[s] = beta log sum_a ref[s, a] exp(Q[s, a] / beta),   Q[s, a] = r[s, a] + gamma sum_s' P[s, a, s'] V[s']

T is monotone and T(V + c) = T V + gamma c. So with d = T V - V, from any V whatever (MacQueen, 1966; Porteus, 1971),

    T V + gamma / (1 - gamma) min d  <=  V*  <=  T V + gamma / (1 - gamma) max d.

The gap is the span of d, not its size: a constant by which V is wrong does not count. It is therefore taken out after each
sweep, which keeps the numbers as small as the differences between states and the rounding errors with them. Where a policy
goes round in a short cycle V overshoots for 1 / (1 - gamma) sweeps; one sweep in 16 goes half way, which stops that (the
aperiodicity transformation of Puterman, 1994, section 8.5.4, now and then).
What happens within a sweep is a stage of ``bellman``; the constant gamma goes into V.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, kernel
from mdpsim.kernels._stream import beyond_caches
from mdpsim.kernels.bellman import action_values, hard_stage, is_linear, soft_stage, soft_workspace

DAMPED = 16  # one sweep in so many goes half way
NEGLIGIBLE = 0.5  # of the rounding error: a span below that does not shrink the bounds any more


@helper
def scale(x, factor, out):
    """out [S] = factor x [S]."""
    for s in range(x.size):
        out[s] = factor * x[s]


@helper
def optimum_stage(q, ref, beta, linear, v, pi, work, sums):
    """Values v [S] and policy pi [S, A] of q [S, A] for any beta in [0, inf]."""
    if beta == 0.0:
        hard_stage(q, ref, v, pi)
    else:
        soft_stage(q, ref, beta, linear, v, pi, work, sums)


@helper
def settled(V, after, gamma, limits, change):
    """Whether V = after - d is good enough: the bounds are within limits[0], or rounding is what keeps them apart.

    limits [3] = (tol, e, f): the rounding error of a bound is at most e + f max|V|. Fills change [2] with min d, max d.
    """
    low, high, size = np.inf, -np.inf, 0.0
    for s in range(V.size):
        d = after[s] - V[s]
        low = d if d < low else low
        high = d if d > high else high
        size = max(size, abs(V[s]))
    change[0], change[1] = low, high
    apart = 0.5 * gamma / (1.0 - gamma) * (high - low)
    rounding = limits[1] + limits[2] * size
    return apart + rounding <= limits[0] or apart <= NEGLIGIBLE * rounding


@helper
def advance(after, sweep, V):
    """V [S] becomes after, or every ``DAMPED`` sweeps half of it and half of V; minus the middle of its range."""
    share = 0.5 if sweep % DAMPED == 0 else 1.0
    low, high = np.inf, -np.inf
    for s in range(V.size):
        x = share * after[s] + (1.0 - share) * V[s]
        V[s] = x
        low = x if x < low else low
        high = x if x > high else high
    middle = 0.5 * low + 0.5 * high
    for s in range(V.size):
        V[s] -= middle


@kernel
def value_iteration(P, r, ref, gamma, beta, limits, most, V, after, Q, pi, change):
    """At most ``most`` sweeps from V [S], in place, until ``settled``: (sweeps, whether it is).

    P [S, A, S], r and ref [S, A], beta in [0, inf]. Leaves after = T V [S], Q [S, A], pi [S, A] of the last sweep, and
    change [2] = (min d, max d) of d = after - V. Cost: O(S^2 A) a sweep, one read of P.
    """
    work, sums = soft_workspace(r.shape[0], r.shape[1])
    linear, ahead, far = is_linear(r, beta, 1.0 / (1.0 - gamma)), np.empty(V.size), beyond_caches(P)
    sweeps = 0
    while True:
        scale(V, gamma, ahead)
        action_values(P, r, ahead, Q, far)
        optimum_stage(Q, ref, beta, linear, after, pi, work, sums)
        sweeps += 1
        good = settled(V, after, gamma, limits, change)
        if good or sweeps >= most:
            return sweeps, good
        advance(after, sweeps, V)
