"""Many solves at once: stages of a batch that shares P, and instances of one shape side by side.

A batch of B rewards or weights that shares P has V [B, S], and P V for all of them is one matrix product a stage,
[B, S] x [S, S A], which reads P once for the whole batch; what happens within a stage is ``bellman``'s. Instances with
different P share nothing: they run in a loop that threads may divide, never within an instance, so results do not depend on
the threads.
"""

from __future__ import annotations

import numba
import numpy as np

from mdpsim.kernels._jit import kernel, parallel_kernel
from mdpsim.kernels.bellman import hard_induction, hard_stage, is_linear, soft_induction, soft_stage, soft_workspace


@kernel
def batch_stage(h, product, r, ref, beta, v, V, Q, pi):
    """Finish stage h of a batch: Q[:, h], V[:, h], pi[:, h] and v [B, S] = V[:, h] from product [B, S A] = P_h V_{h+1}.

    r [B or 1, H or 1, S, A], ref [S, A], beta [B] in [0, inf]; V [B, H+1, S], Q and pi [B, H, S, A]. Cost: O(B S A).
    """
    _, horizon, n_states, n_actions = Q.shape
    work, sums = soft_workspace(n_states, n_actions)
    for b in range(beta.size):
        rewards = r[min(b, r.shape[0] - 1)]
        flat_q, flat_r = Q[b, h].reshape(-1), rewards[min(h, r.shape[1] - 1)].reshape(-1)
        for i in range(flat_q.size):
            flat_q[i] = flat_r[i] + product[b, i]
        if beta[b] == 0.0:
            hard_stage(Q[b, h], ref, V[b, h], pi[b, h])
        else:
            linear = is_linear(rewards, beta[b], horizon)
            soft_stage(Q[b, h], ref, beta[b], linear, V[b, h], pi[b, h], work, sums)
        v[b] = V[b, h]


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
