"""Everything that reads transitions, for linear MDPs: in feature space, the transition matrix never formed.

P_h(s' | s, a) = sum_j phi[s, a, j] mu[h, j, s'] and r_h(s, a) = sum_j phi[s, a, j] theta[h, j], so that
    Q_h = phi (theta_h + mu_h V_{h+1}),   occ_{h+1} = sum_j w_j mu_h[j],   w = sum_{s, a} occ_h(s) pi_h(a | s) phi(s, a);
rows of phi and mu are probability vectors: a transition draws a feature j ~ phi(s, a), then s' ~ mu_h[j]. The functions bear
the names and do the work of those in ``bellman``, ``evaluate`` and ``rollout``; what happens within a stage is theirs.
Cost: O(H (S A d + d S)) where they say O(H S^2 A): one read of phi and of mu_h a stage. Plain loops: numpy's matrix times
vector (gemv) takes 1.4 to 2 times as long on a phi that does not fit the caches, and its last bits vary with the threads.
Arrays: phi [S, A, d], mu [H or 1, d, S], theta [H or 1, d], the others as there.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, kernel
from mdpsim.kernels._stream import add_rows, beyond_caches, paired_products, products
from mdpsim.kernels.bellman import all_finite, hard_stage, is_linear, soft_stage, soft_workspace
from mdpsim.kernels.evaluate import normalise, policy_stage, reach, ruin_stage
from mdpsim.kernels.rollout import BLOCK, act, begin, deal, deal_space, move, tables


@helper
def action_values(phi, mu, theta, h, v_next, w, q, far):
    """q [S, A] = phi (theta_h + mu_h v_next); w [d] is work space. One read of mu_h, one of phi."""
    products(mu[min(h, mu.shape[0] - 1)], v_next, theta[min(h, theta.shape[0] - 1)], w, far)
    products(phi.reshape(-1, w.size), w, None, q.reshape(-1), far)


@helper
def both_beyond_caches(phi, mu):
    """``far`` of ``_stream`` for phi and mu, which take turns in the caches."""
    return beyond_caches(phi) or beyond_caches(mu)


@kernel
def soft_induction(phi, mu, theta, ref, beta, V, Q, pi):
    """Fill V, Q and pi with the optimum for the weight beta in (0, inf]; False where a value left float64."""
    horizon, n_states, n_actions = Q.shape
    work, sums = soft_workspace(n_states, n_actions)
    w, linear = np.empty(phi.shape[2]), is_linear(theta, beta, horizon)  # max|r| <= max|theta|: phi averages
    far = both_beyond_caches(phi, mu)
    V[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        action_values(phi, mu, theta, h, V[h + 1], w, Q[h], far)
        soft_stage(Q[h], ref[min(h, ref.shape[0] - 1)], beta, linear, V[h], pi[h], work, sums)
    return all_finite(V[0])


@kernel
def hard_induction(phi, mu, theta, ref, V, Q, pi):
    """Fill V, Q and pi with the hard optimum over the support of ref; False where a value left float64."""
    horizon, w, far = Q.shape[0], np.empty(phi.shape[2]), both_beyond_caches(phi, mu)
    V[horizon] = 0.0
    for h in range(horizon - 1, -1, -1):
        action_values(phi, mu, theta, h, V[h + 1], w, Q[h], far)
        hard_stage(Q[h], ref[min(h, ref.shape[0] - 1)], V[h], pi[h])
    return all_finite(V[0])


@kernel
def policy_values(phi, mu, theta, pi, beta, kl, V, Q, K):
    """Fill V, Q and the KL to go K of the policy pi, with beta kl taken off V; False where a value left float64."""
    horizon, n_states, n_actions = Q.shape
    w, w_kl, features = np.empty(phi.shape[2]), np.empty(phi.shape[2]), phi.reshape(-1, phi.shape[2])
    ahead, far = np.empty((n_states, n_actions)), both_beyond_caches(phi, mu)
    V[horizon], K[horizon] = 0.0, 0.0
    for h in range(horizon - 1, -1, -1):
        laws, rewards = mu[min(h, mu.shape[0] - 1)], theta[min(h, theta.shape[0] - 1)]
        paired_products(laws, V[h + 1], K[h + 1], rewards, w, w_kl, far)
        paired_products(features, w, w_kl, None, Q[h].reshape(-1), ahead.reshape(-1), far)
        policy_stage(Q[h], ahead, pi[h], beta, kl[h], V[h], K[h])
    return all_finite(V[0])


@kernel
def ruin(phi, mu, pi, kl, V, Q):
    """Set V and Q to -inf where a state with kl[h, s] > 0 lies ahead."""
    horizon, n_states, n_actions = Q.shape
    width = phi.shape[2]
    for h in range(horizon - 1, -1, -1):
        lost = np.zeros(width, np.bool_)  # the features that may lead to ruin
        for j in range(width):
            for s in range(n_states):
                lost[j] = lost[j] or (mu[min(h, mu.shape[0] - 1), j, s] > 0.0 and V[h + 1, s] == -np.inf)
        for s in range(n_states):
            for a in range(n_actions):
                for j in range(width):
                    if lost[j] and phi[s, a, j] > 0.0:
                        Q[h, s, a] = -np.inf
        ruin_stage(pi[h], kl[h], Q[h], V[h])


@kernel
def occupancy(phi, mu, pi, mu0, occ):
    """Fill occ [H, S], the law of the state at each stage."""
    horizon, n_states, n_actions = pi.shape
    width, far = phi.shape[2], both_beyond_caches(phi, mu)
    reached, mass = np.empty(n_states * n_actions + 3, np.int64), np.empty(n_states * n_actions + 3)
    drawn, w = np.arange(width + 3), np.empty(width + 3)
    occ[0] = mu0
    for h in range(horizon - 1):
        n = reach(occ[h], pi[h], reached, mass)
        w[:] = 0.0
        add_rows(phi.reshape(-1, width), reached, mass, n, w[:width], far)
        ahead = occ[h + 1]
        ahead[:] = 0.0
        add_rows(mu[min(h, mu.shape[0] - 1)], drawn, w, width, ahead, far)
        normalise(ahead)


@kernel
def roll_episodes(
    phi, mu, theta, pi, mu0, key0, key1, phi_sums, phi_guide, mu_sums, mu_guide, states, actions, rewards
):
    """Roll N episodes out; numbers 3h + 1, 3h + 2, 3h + 3 of a stream draw the action, the feature and the next state.

    phi_sums, phi_guide, mu_sums, mu_guide: work space for the rows of phi and of mu, as in ``rollout.roll_episodes``.
    """
    n_stages, n_states, n_actions = pi.shape
    width = phi.shape[2]
    features, feature_sums = phi.reshape(-1, width), phi_sums.reshape(-1, width)
    laws, law_sums = mu.reshape(-1, n_states), mu_sums.reshape(-1, n_states)
    feature_guide, law_guide = phi_guide.reshape(-1, phi_guide.shape[-1]), mu_guide.reshape(-1, mu_guide.shape[-1])
    pi_sums, pi_guide = tables(pi.reshape(-1, n_actions))
    mu0_sums, mu0_guide = tables(mu0)
    feature_scanned, law_scanned = np.zeros(features.shape[0], np.uint8), np.zeros(laws.shape[0], np.uint8)
    starts, rows = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.int64)
    u, drawn = np.empty(BLOCK), np.empty(BLOCK, np.int64)
    for first in range(0, states.shape[0], BLOCK):
        size = min(BLOCK, states.shape[0] - first)
        begin(first, size, key0, key1, mu0_sums, mu0_guide, starts, states)
        for h in range(n_stages):
            base, stage = min(h, mu.shape[0] - 1) * width, min(h, theta.shape[0] - 1)
            act(h, first, size, np.uint64(3 * h + 1), starts, states, pi_sums, pi_guide, actions)
            for i in range(size):
                rows[i] = states[first + i, h] * n_actions + actions[first + i, h]
                reward = 0.0
                for j in range(width):
                    reward += features[rows[i], j] * theta[stage, j]
                rewards[first + i, h] = reward
            move(size, np.uint64(3 * h + 2), starts, features, feature_sums, feature_guide, feature_scanned, rows, u, drawn)
            for i in range(size):
                rows[i] = base + drawn[i]
            move(size, np.uint64(3 * h + 3), starts, laws, law_sums, law_guide, law_scanned, rows, u, drawn)
            for i in range(size):
                states[first + i, h + 1] = drawn[i]


@kernel
def roll_counts(phi, mu, pi, mu0, n, stream, visits):
    """Visits [H, S, A] of n trajectories, drawn forward in their exact joint law; O(H (S A d + d S)) at most.

    Given the visits, the numbers of features drawn are multinomial, and given those the next states are.
    """
    n_stages, n_states, n_actions = pi.shape
    S_mass, S_number, S_sums, S_guide = deal_space(n_states)
    A_mass, A_number, A_sums, A_guide = deal_space(n_actions)
    d_mass, d_number, d_sums, d_guide = deal_space(phi.shape[2])
    here, feature = np.zeros(n_states, np.int64), np.zeros(phi.shape[2], np.int64)
    deal(mu0, n, stream, S_mass, S_number, S_sums, S_guide, here)
    for h in range(n_stages):
        feature[:] = 0
        for s in range(n_states):
            if here[s] == 0:
                continue
            deal(pi[h, s : s + 1], here[s], stream, A_mass, A_number, A_sums, A_guide, visits[h, s])
            for a in range(n_actions):
                if visits[h, s, a] > 0 and h + 1 < n_stages:
                    deal(phi[s, a : a + 1], visits[h, s, a], stream, d_mass, d_number, d_sums, d_guide, feature)
        here[:] = 0
        for j in range(feature.size):
            if feature[j] > 0:
                law = mu[min(h, mu.shape[0] - 1), j : j + 1]
                deal(law, feature[j], stream, S_mass, S_number, S_sums, S_guide, here)
