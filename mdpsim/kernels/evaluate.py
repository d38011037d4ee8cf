"""Values, occupancy and trajectory KL of a given policy in a finite-horizon MDP with dense transitions.

    Q[h, s, a] = r[h, s, a] + sum_s' P[h, s, a, s'] V[h+1, s'],   V[h, s] = sum_a pi[h, s, a] Q[h, s, a] - beta KL[h, s]
    occ[h+1, s'] = sum_{s, a} occ[h, s] pi[h, s, a] P[h, s, a, s'],   occ[0] = mu0
    KL(pi || other) = sum_h sum_s occ[h, s] KL(pi[h, s] || other[h, s])

Each pass reads P once, from end to end. An array with one stage in place of H stands for all stages.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, kernel
from mdpsim.kernels._math import kl_term
from mdpsim.kernels._stream import add_rows, beyond_caches, paired_products
from mdpsim.kernels.bellman import action_values, all_finite


@kernel
def rows_in_order(x, slack):
    """Whether the rows of x [R, C] are probability vectors as they stand: no negative entry or NaN, sums within slack."""
    good = True
    for i in range(x.shape[0]):
        total, low = 0.0, 0.0
        for j in range(x.shape[1]):
            total += x[i, j]
            low = min(low, x[i, j])
        good = good and abs(total - 1.0) <= slack and low >= 0.0  # written so that NaN is not good
    return good


@kernel
def kl_rows(pi, other, out):
    """out [H, S] = KL(pi[h, s] || other[h, s]) >= 0 for pi, other [H, S, A]; inf without cover. Returns the maximum."""
    flat_pi, flat_other, flat_out = pi.reshape(-1), other.reshape(-1), out.reshape(-1)
    terms = np.empty(flat_pi.size)
    for i in range(flat_pi.size):
        terms[i] = kl_term(flat_pi[i], flat_other[i])
    n_actions = pi.shape[2]
    worst = 0.0
    for row in range(flat_out.size):
        total = 0.0
        for a in range(n_actions):
            total += terms[row * n_actions + a]
        flat_out[row] = total
        worst = max(worst, total)
    return worst


@kernel
def first_uncovered(pi, ref):
    """Flat index of the first action with pi > 0 = ref in arrays of one shape [H, S, A], or -1."""
    flat_pi, flat_ref = pi.reshape(-1), ref.reshape(-1)
    for i in range(flat_pi.size):
        if flat_pi[i] > 0.0 and flat_ref[i] == 0.0:
            return i
    return -1


@helper
def policy_stage(q, y, pi, beta, kl, v, k):
    """Values v [S] and KL to go k [S] of a policy pi [S, A] from q and y [S, A], the KL to go behind each action."""
    n_states, n_actions = q.shape
    for s in range(n_states):
        value, divergence = 0.0, kl[s]
        for a in range(n_actions):
            value += pi[s, a] * q[s, a]
            divergence += pi[s, a] * y[s, a]
        v[s] = value - beta * kl[s] if beta > 0.0 else value
        k[s] = divergence


@helper
def ruin_stage(pi, kl, q, v):
    """Set v [S] to -inf where kl [S] > 0 or an action of pi [S, A] has q [S, A] = -inf."""
    for s in range(v.size):
        lost = kl[s] > 0.0
        for a in range(pi.shape[1]):
            lost = lost or (pi[s, a] > 0.0 and q[s, a] == -np.inf)
        if lost:
            v[s] = -np.inf


@helper
def reach(occ, pi, reached, mass):
    """The rows (s, a) that have positive mass occ [S] pi [S, A], in order, with that mass; returns their number."""
    n = 0
    for s in range(pi.shape[0]):
        for a in range(pi.shape[1]):
            reached[n], mass[n] = s * pi.shape[1] + a, occ[s] * pi[s, a]
            n += mass[n] > 0.0
    return n


@helper
def normalise(law):
    """Divide law [S] by its sum: rows of P and pi sum to one up to rounding only; over many stages that would drift."""
    total = 0.0
    for j in range(law.size):
        total += law[j]
    for j in range(law.size):
        law[j] /= total


@kernel
def policy_values(P, r, pi, beta, kl, V, Q, K):
    """Fill V [H+1, S] and Q [H, S, A] for pi [H, S, A], with beta kl [H, S] taken off V where beta > 0; and K [H+1, S].

    K is the KL to go, K[h, s] = kl[h, s] + sum_a pi[h, s, a] sum_s' P[h, s, a, s'] K[h+1, s'], from the same read of P;
    it is of no use where a kl is infinite. P [H or 1, S, A, S], r [H or 1, S, A]. Returns False where a value left
    float64. Cost: O(H S^2 A), one read of P.
    """
    horizon, n_states, n_actions = Q.shape
    ahead, far = np.empty((n_states, n_actions)), beyond_caches(P)
    V[horizon], K[horizon] = 0.0, 0.0
    for h in range(horizon - 1, -1, -1):
        rows, rewards = P[min(h, P.shape[0] - 1)], r[min(h, r.shape[0] - 1)]
        if np.any(K[h + 1] != 0.0):
            flat = rows.reshape(-1, n_states)
            paired_products(flat, V[h + 1], K[h + 1], rewards.reshape(-1), Q[h].reshape(-1), ahead.reshape(-1), far)
        else:
            ahead[:] = 0.0
            action_values(rows, rewards, V[h + 1], Q[h], far)
        policy_stage(Q[h], ahead, pi[h], beta, kl[h], V[h], K[h])
    return all_finite(V[0])


@kernel
def ruin(P, pi, kl, V, Q):
    """Set V [H+1, S] and Q [H, S, A] to -inf where a state with kl[h, s] > 0 lies ahead: the limit of infinite beta.

    A product 0 * inf counts as 0: only actions of pi and transitions of P with positive probability lead ahead.
    """
    horizon, n_states, n_actions = Q.shape
    for h in range(horizon - 1, -1, -1):
        rows = P[min(h, P.shape[0] - 1)]
        for s in range(n_states):
            for a in range(n_actions):
                for j in range(n_states):
                    if rows[s, a, j] > 0.0 and V[h + 1, j] == -np.inf:
                        Q[h, s, a] = -np.inf
                        break
        ruin_stage(pi[h], kl[h], Q[h], V[h])


@kernel
def occupancy(P, pi, mu0, occ):
    """Fill occ [H, S], the law of the state at each stage under pi [H, S, A] from mu0 [S]; each stage sums to one.

    P [H or 1, S, A, S]. Cost: O(H S^2 A), one read of the rows of P that pi reaches.
    """
    horizon, n_states, n_actions = pi.shape
    reached, mass = np.empty(n_states * n_actions + 3, np.int64), np.empty(n_states * n_actions + 3)
    occ[0], far = mu0, beyond_caches(P)
    for h in range(horizon - 1):
        n = reach(occ[h], pi[h], reached, mass)
        occ[h + 1] = 0.0
        add_rows(P[min(h, P.shape[0] - 1)].reshape(-1, n_states), reached, mass, n, occ[h + 1], far)
        normalise(occ[h + 1])


@kernel
def expectation(weights, x):
    """sum of weights * x over two arrays [n], where weight 0 times infinity is 0."""
    total = 0.0
    for i in range(weights.size):
        if weights[i] > 0.0:
            total += weights[i] * x[i]
    return total
