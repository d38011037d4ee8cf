"""Everything that reads transitions, for rows stored as a fixed number of successors: the sparse form.

Row (s, a) of stage h leads to next_state[h, s, a, k] with probability prob[h, s, a, k], k = 0 .. K-1; ids may repeat, and
padding has probability 0. The functions bear the names and do the work of those in ``bellman``, ``discounted``,
``evaluate`` and ``rollout`` (see there for the equations); what happens within a stage is theirs. Cost: O(H S A K) where
they say O(H S^2 A).
Arrays: next_state int64 and prob float64 [H or 1, S, A, K], the others as there.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, kernel
from mdpsim.kernels.bellman import all_finite, hard_stage, is_linear, soft_stage, soft_workspace
from mdpsim.kernels.discounted import advance, optimum_stage, scale, settled
from mdpsim.kernels.evaluate import normalise, policy_stage, ruin_stage
from mdpsim.kernels.rollout import forward, roll


@helper
def action_values(next_state, prob, r, v_next, q):
    """q [S, A] = r [S, A] + sum_k prob [S, A, K] v_next[next_state [S, A, K]]."""
    n_states, n_actions, width = prob.shape
    for s in range(n_states):
        for a in range(n_actions):
            total = 0.0
            for k in range(width):
                total += prob[s, a, k] * v_next[np.uint64(next_state[s, a, k])]  # unsigned: no wrap-around to handle
            q[s, a] = r[s, a] + total


@kernel
def soft_induction(next_state, prob, r, ref, beta, V, Q, pi):
    """Fill V, Q and pi with the optimum for the weight beta in (0, inf]; False where a value left float64."""
    horizon, n_states, n_actions = Q.shape
    work, sums = soft_workspace(n_states, n_actions)
    linear = is_linear(r, beta, horizon)
    V[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        i = min(h, prob.shape[0] - 1)
        action_values(next_state[i], prob[i], r[min(h, r.shape[0] - 1)], V[h + 1], Q[h])
        soft_stage(Q[h], ref[min(h, ref.shape[0] - 1)], beta, linear, V[h], pi[h], work, sums)
    return all_finite(V[0])


@kernel
def hard_induction(next_state, prob, r, ref, V, Q, pi):
    """Fill V, Q and pi with the hard optimum over the support of ref; False where a value left float64."""
    horizon = Q.shape[0]
    V[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        i = min(h, prob.shape[0] - 1)
        action_values(next_state[i], prob[i], r[min(h, r.shape[0] - 1)], V[h + 1], Q[h])
        hard_stage(Q[h], ref[min(h, ref.shape[0] - 1)], V[h], pi[h])
    return all_finite(V[0])


@kernel
def value_iteration(next_state, prob, r, ref, gamma, beta, limits, most, V, after, Q, pi, change):
    """At most ``most`` sweeps from V, in place, until ``settled``; next_state and prob [S, A, K]. (sweeps, whether it is)."""
    work, sums = soft_workspace(r.shape[0], r.shape[1])
    linear, ahead = is_linear(r, beta, 1.0 / (1.0 - gamma)), np.empty(V.size)
    sweeps = 0
    while True:
        scale(V, gamma, ahead)
        action_values(next_state, prob, r, ahead, Q)
        optimum_stage(Q, ref, beta, linear, after, pi, work, sums)
        sweeps += 1
        good = settled(V, after, gamma, limits, change)
        if good or sweeps >= most:
            return sweeps, good
        advance(after, sweeps, V)


@kernel
def policy_values(next_state, prob, r, pi, beta, kl, V, Q, K):
    """Fill V, Q and the KL to go K of the policy pi, with beta kl taken off V; False where a value left float64."""
    horizon, n_states, n_actions = Q.shape
    ahead = np.empty((n_states, n_actions))
    V[horizon], K[horizon] = 0.0, 0.0
    for h in range(horizon - 1, -1, -1):
        i = min(h, prob.shape[0] - 1)
        rewards, v_next, k_next = r[min(h, r.shape[0] - 1)], V[h + 1], K[h + 1]
        for s in range(n_states):
            for a in range(n_actions):
                x, y = 0.0, 0.0
                for k in range(prob.shape[3]):
                    j = np.uint64(next_state[i, s, a, k])
                    x += prob[i, s, a, k] * v_next[j]
                    y += prob[i, s, a, k] * k_next[j]
                Q[h, s, a] = rewards[s, a] + x
                ahead[s, a] = y
        policy_stage(Q[h], ahead, pi[h], beta, kl[h], V[h], K[h])
    return all_finite(V[0])


@kernel
def ruin(next_state, prob, pi, kl, V, Q):
    """Set V and Q to -inf where a state with kl[h, s] > 0 lies ahead."""
    horizon, n_states, n_actions = Q.shape
    for h in range(horizon - 1, -1, -1):
        i = min(h, prob.shape[0] - 1)
        for s in range(n_states):
            for a in range(n_actions):
                for k in range(prob.shape[3]):
                    if prob[i, s, a, k] > 0.0 and V[h + 1, next_state[i, s, a, k]] == -np.inf:
                        Q[h, s, a] = -np.inf
        ruin_stage(pi[h], kl[h], Q[h], V[h])


@kernel
def occupancy(next_state, prob, pi, mu0, occ):
    """Fill occ [H, S], the law of the state at each stage."""
    horizon, n_states, n_actions = pi.shape
    occ[0] = mu0
    for h in range(horizon - 1):
        i, ahead = min(h, prob.shape[0] - 1), occ[h + 1]
        ahead[:] = 0.0
        for s in range(n_states):
            for a in range(n_actions):
                mass = occ[h, s] * pi[h, s, a]
                if mass > 0.0:
                    for k in range(prob.shape[3]):
                        ahead[next_state[i, s, a, k]] += mass * prob[i, s, a, k]
        normalise(ahead)


@kernel
def roll_episodes(next_state, prob, r, R, pi, mu0, key0, key1, cumulative, guide, states, actions, rewards):
    """Roll N episodes out; R [H or 1, S, A, K] or of size 0, cumulative and guide work space for the rows of prob."""
    ids = next_state.reshape(-1, next_state.shape[-1])
    roll(prob, ids, r, R, pi, mu0, key0, key1, cumulative, guide, states, actions, rewards)


@kernel
def roll_counts(next_state, prob, pi, mu0, n, stream, visits):
    """Visits [H, S, A] of n trajectories, drawn forward in their exact joint law; O(H S A K) at most."""
    forward(prob, next_state.reshape(-1, next_state.shape[-1]), pi, mu0, n, stream, visits)
