"""Backward induction over finite-horizon MDPs, hard and KL-regularised: what a stage does, and the dense transitions.

    Q[h, s, a] = r[h, s, a] + sum_s' P[h, s, a, s'] V[h+1, s']
    V[h, s]    = beta log sum_a ref[h, s, a] exp(Q[h, s, a] / beta)

A stage has three passes: the dot products, here one read of P from end to end (at the speed of memory); one exponential for
each (s, a), flat over the stage so that it vectorises for any A; one logarithm for each s, flat too. An array with
one stage in place of H stands for all stages: the stage index is min(h, n_stages - 1).

Accuracy of a row. With a pivot k, d_a = (q_a - q_k) / beta, s = sum ref_a e^{d_a} and t = sum ref_a (e^{d_a} - 1),
V = q_k + beta log(s) = q_k + beta log1p(t); the first is used for s <= 1/2, the second, which keeps its digits where
beta is large, above. The pivot is the action of the largest ref_a e^{q_a / beta}, compared as q + beta log(ref) with a
logarithm guessed from the bits (to 0.06): q_k is never far above V, and log(s) does not cancel against it.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, kernel
from mdpsim.kernels._math import log_guess, log_ratio_sum, quotient, ulp, weighted_exp
from mdpsim.kernels._stream import beyond_caches, products

LINEAR = 2.0**-54  # where no |d| exceeds this, e^d = 1 + d to the last bit: V is the mean of q and pi is ref
TIE_ULPS = 4.0


@helper
def action_values(P, r, v_next, q, far):
    """q [S, A] = r [S, A] + P [S, A, S] v_next [S]: one read of P; ``far`` as in ``_stream``."""
    products(P.reshape(-1, v_next.size), v_next, r.reshape(-1), q.reshape(-1), far)


@helper
def _padded(n):
    """The next multiple of eight, the widest vector."""
    return (n + 7) // 8 * 8


@helper
def all_finite(v):
    """Whether v [S] holds numbers only: one overflow anywhere makes every earlier value infinite or NaN."""
    check = 0.0
    for s in range(v.size):
        check += 0.0 * v[s]
    return check == 0.0


@helper
def _top(q, ref, s):
    """Largest q[s, a] over the actions that ref[s, :] supports; selects, not branches, which would mispredict."""
    high = -np.inf
    for a in range(q.shape[1]):
        x = q[s, a] if ref[s, a] > 0.0 else -np.inf
        high = x if x > high else high
    return high


@helper
def _weigh(q, ref, beta, weight, rank):
    """Copy ref [S, A] to weight and fill rank with q + beta log(ref) (log to 0.06), both flat and longer than S A."""
    flat_q, flat_ref = q.reshape(-1), ref.reshape(-1)
    for i in range(flat_q.size):
        weight[i] = flat_ref[i]
        rank[i] = flat_q[i] + beta * log_guess(flat_ref[i]) if flat_ref[i] > 0.0 else -np.inf


@helper
def _centre(q, rank, base):
    """Fill base [S] with the q of the action of highest rank and put q - base in the place of rank."""
    n_states, n_actions = q.shape
    for s in range(n_states):
        pivot, high = q[s, 0], rank[s * n_actions]
        for a in range(1, n_actions):
            x = rank[s * n_actions + a]
            pivot = q[s, a] if x > high else pivot
            high = x if x > high else high
        base[s] = pivot
        for a in range(n_actions):
            rank[s * n_actions + a] = q[s, a] - pivot


@helper
def _soft_stage(q, ref, beta, v, pi, work, sums):
    """Soft values v [S] and policy pi [S, A] of q [S, A]; work [2, >= S A] and sums [3, >= S] are padded work space.

    The padding, which holds zeros, lets the two loops that matter run in whole vectors.
    """
    n_states, n_actions = q.shape
    mass, d = work[0], work[1]
    base, total, excess = sums[0], sums[1], sums[2]
    _weigh(q, ref, beta, mass, d)
    _centre(q, d, base)
    for i in range(d.size):
        mass[i], d[i] = weighted_exp(mass[i], quotient(d[i], beta))
    for s in range(n_states):
        first, one, two = s * n_actions, 0.0, 0.0
        for a in range(n_actions):
            one += mass[first + a]
            two += d[first + a]
        total[s], excess[s] = one, two
        for a in range(n_actions):
            d[first + a] = one
    flat_pi = pi.reshape(-1)
    for i in range(flat_pi.size):
        flat_pi[i] = quotient(mass[i], d[i])
    for s in range(total.size):
        excess[s] = log_ratio_sum(total[s], excess[s])
    for s in range(n_states):
        v[s] = base[s] + beta * excess[s]


@helper
def _linear_stage(q, ref, v, pi):
    """The limit of large beta: pi = ref and v [S] the mean of q [S, A] under it, taken from the row's largest q."""
    n_states, n_actions = q.shape
    for s in range(n_states):
        base = _top(q, ref, s)
        total = 0.0
        for a in range(n_actions):
            total += ref[s, a] * (q[s, a] - base)
        for a in range(n_actions):  # apart: see ``_jit``, on loops that store and sum
            pi[s, a] = ref[s, a]
        v[s] = base + total


@helper
def hard_stage(q, ref, v, pi):
    """Hard values v [S] of q [S, A] over the support of ref [S, A]; ties share mass in proportion to ref.

    Selects, not branches, which would mispredict: a third less time.
    """
    n_states, n_actions = q.shape
    for s in range(n_states):
        top, largest = -np.inf, 0.0
        for a in range(n_actions):
            x = q[s, a] if ref[s, a] > 0.0 else -np.inf
            size = abs(q[s, a]) if ref[s, a] > 0.0 else 0.0
            top = x if x > top else top
            largest = size if size > largest else largest
        floor = top - TIE_ULPS * ulp(largest)
        total = 0.0
        for a in range(n_actions):
            pi[s, a] = ref[s, a] if q[s, a] >= floor else 0.0
        for a in range(n_actions):
            total += pi[s, a]
        for a in range(n_actions):
            pi[s, a] = quotient(pi[s, a], total)
        v[s] = top


@helper
def soft_workspace(n_states, n_actions):
    """Zeroed work space of ``soft_stage``: [2, S A] and [3, S], each row padded to whole vectors."""
    return np.zeros((2, _padded(n_states * n_actions))), np.zeros((3, _padded(n_states)))


@helper
def soft_stage(q, ref, beta, linear, v, pi, work, sums):
    """Values v [S] and policy pi [S, A] of q [S, A] for any beta in (0, inf]; ``linear`` is that of ``is_linear``."""
    if linear:
        _linear_stage(q, ref, v, pi)
    else:
        _soft_stage(q, ref, beta, v, pi, work, sums)


@helper
def is_linear(r, beta, horizon):
    """Whether beta is so large that every row of every stage is linear: |q_a - q_k| <= 2 H max|r| <= LINEAR beta."""
    largest = 0.0
    flat = r.reshape(-1)
    for i in range(flat.size):
        largest = max(largest, abs(flat[i]))
    return 2.0 * horizon * largest <= LINEAR * beta


@kernel
def soft_induction(P, r, ref, beta, V, Q, pi):
    """Fill V [H+1, S], Q [H, S, A] and pi [H, S, A] with the optimum for the weight beta in (0, inf].

    P [H or 1, S, A, S], r [H or 1, S, A], ref [H or 1, S, A], whose rows are probability vectors. beta = inf gives
    pi = ref and its values. Returns False where a value left float64. Cost: O(H S^2 A), one read of P.
    """
    horizon, n_states, n_actions = Q.shape
    work, sums = soft_workspace(n_states, n_actions)
    linear, far = is_linear(r, beta, horizon), beyond_caches(P)
    V[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        action_values(P[min(h, P.shape[0] - 1)], r[min(h, r.shape[0] - 1)], V[h + 1], Q[h], far)
        soft_stage(Q[h], ref[min(h, ref.shape[0] - 1)], beta, linear, V[h], pi[h], work, sums)
    return all_finite(V[0])


@kernel
def hard_induction(P, r, ref, V, Q, pi):
    """Fill V [H+1, S], Q [H, S, A] and pi [H, S, A] with the hard optimum over the support of ref.

    Ties (within 4 ulp of the row's largest |q|) share mass in proportion to ref [H or 1, S, A], whose rows need not sum
    to one. Returns False where a value left float64. Cost: O(H S^2 A), one read of P.
    """
    horizon, far = Q.shape[0], beyond_caches(P)
    V[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        action_values(P[min(h, P.shape[0] - 1)], r[min(h, r.shape[0] - 1)], V[h + 1], Q[h], far)
        hard_stage(Q[h], ref[min(h, ref.shape[0] - 1)], V[h], pi[h])
    return all_finite(V[0])
