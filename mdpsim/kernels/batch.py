"""Many solves at once: stages of a batch that shares P, and instances of one shape side by side.

A batch of B rewards or weights that shares P has V [S, B], and P V for all of them is one matrix product a stage,
[S A, S] x [S, B], which reads P once for the whole batch. Instances with different P share nothing: they run in a loop that
threads may divide, never within an instance, so results do not depend on the threads.
"""

from __future__ import annotations

import numba
import numpy as np

from mdpsim.kernels._jit import kernel, parallel_kernel
from mdpsim.kernels._math import TINY, log_guess, log_ratio_sum, quotient, weighted_exp
from mdpsim.kernels.bellman import hard_induction, soft_induction


@kernel
def batch_stage(r, ref, beta, inverse, q, v, pi, base, high, total, excess):
    """Finish a stage of a batch: q [S, A, B] += r, and from it v [S, B] and pi [S, A, B].

    r [S, A, B or 1], ref [S, A], beta and inverse = 1 / beta [B] in (1e-300, inf); the last four, [B], are work space (an array
    each: rows of one matrix cost a third more, for the compiler cannot tell them apart). The formulas are ``bellman``'s
    row for row, with the batch innermost: every loop runs over neighbours in memory, however few the actions. Cost: O(S A B),
    one exponential and no division for each.
    """
    n_states, n_actions, n = q.shape
    for s in range(n_states):
        for b in range(n):
            base[b], high[b], total[b], excess[b] = 0.0, -np.inf, 0.0, 0.0
        for a in range(n_actions):
            guess = log_guess(ref[s, a]) if ref[s, a] > 0.0 else -np.inf
            if r.shape[2] == 1:
                reward = r[s, a, 0]
                for b in range(n):
                    y = q[s, a, b] + reward
                    q[s, a, b] = y
                    x = y + beta[b] * guess
                    base[b] = y if x > high[b] else base[b]
                    high[b] = x if x > high[b] else high[b]
            else:
                for b in range(n):
                    y = q[s, a, b] + r[s, a, b]
                    q[s, a, b] = y
                    x = y + beta[b] * guess
                    base[b] = y if x > high[b] else base[b]
                    high[b] = x if x > high[b] else high[b]
        for a in range(n_actions):
            weight = ref[s, a]
            for b in range(n):
                mass, change = weighted_exp(weight, (q[s, a, b] - base[b]) * inverse[b])
                pi[s, a, b] = mass
                total[b] += mass
                excess[b] += change
        small = 0  # a count: the compiler does not vectorise a minimum that may meet NaN
        for b in range(n):
            v[s, b] = base[b] + beta[b] * log_ratio_sum(total[b], excess[b])
            small += total[b] <= TINY
        if small == 0:
            for b in range(n):
                total[b] = quotient(1.0, total[b])
            for a in range(n_actions):
                for b in range(n):
                    pi[s, a, b] *= total[b]
        else:  # a best action that the reference all but excludes: the reciprocal may overflow
            for a in range(n_actions):
                for b in range(n):
                    pi[s, a, b] = quotient(pi[s, a, b], total[b])


def _many(P, r, ref, beta, V, Q, pi, fits):
    """The optima of B instances of one shape, each alone; fits [B] is 0 where a value left float64.

    P [B, H or 1, S, A, S], r [B, H or 1, S, A], ref [B or 1, H, S, A], beta [B] in [0, inf].
    """
    for b in numba.prange(beta.size):
        rows = ref[min(np.int64(b), ref.shape[0] - 1)]  # a threaded index is unsigned: min with a signed one is a float
        if beta[b] == 0.0:
            fits[b] = hard_induction(P[b], r[b], rows, V[b], Q[b], pi[b])
        else:
            fits[b] = soft_induction(P[b], r[b], rows, beta[b], V[b], Q[b], pi[b])


many = kernel(_many)
many_threaded = parallel_kernel(_many)
