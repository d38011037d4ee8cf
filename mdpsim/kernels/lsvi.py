"""LSVI-UCB-Ent: soft planning by ridge regression on features, its certificates, and the loop that explores.

Notation: phi [S, A, d] the learner's features, simplex rows; Lambda_h = ridge I + sum phi phi^T and Sigma_h = sum phi e_{s'}^T
over the transitions seen at stage h; |x|_h the norm sqrt(x^T Lambda_h^{-1} x); c the bonus scale; span_h = H - h - 1. For f on
the states with a range [lo, hi] that is known (see ``_range``), of half-width w and centre m,

    est(f) = m + phi . Lambda^{-1} Sigma (f - m),     rad(f) = c w U |phi|_h,
    U = sqrt(log det(Lambda/ridge) + 2 (S-1) log 2 + 2 log(H/delta)) + sqrt(ridge d)      (vertex, and range)
    U = 2 d sqrt(log(2 d H (t+1) / delta)),  m = 0 in est                                 (covering, as transcribed)

estimate P f; both ends are clipped to [lo, hi], where P f lies. With these

    Qu = r + est(Vu) + rad(Vu),   Ql = r + est(Vl) - rad(Vl);   r at the last stage
    G_h(s) = min(M, M^2/(8 beta)) + sum_a pi(a|s) (est(G) + rad(G)),   M = max_a (Qu - Ql) over the support of the reference

and the oracle's G has the true P G in the place of est + rad. What they certify, and why, stands in
mdpsim/learn/lsvi_ucb_ent.py. No array here is larger than phi, mu [H, d, S] or Q [H, S, A].
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, kernel
from mdpsim.kernels._math import log, log1p
from mdpsim.kernels._stream import products
from mdpsim.kernels.bellman import soft_stage, soft_workspace
from mdpsim.kernels.rollout import locate, scan, stream_start, stream_uniform, tables
from mdpsim.kernels.ucbvi import BUDGET, STOPPED, stage_gaps, violation, widest_actions

COVERING, VERTEX, RANGE = 0, 1, 2  # bonuses
CERTIFICATE, WIDTH, ORACLE = 0, 1, 2  # stopping rules: columns 1, 2, 3 of the marks
REFRESH = 256  # rank-one updates of an inverse after which the learner has it computed afresh


@helper
def invert(gram, floor, factor, inverse):
    """Fill inverse [d, d] with that of gram >= floor I, by Cholesky; log det(gram / floor). factor [d, d] is work space.

    Reads the lower triangle of gram. In exact arithmetic no pivot is below floor: what rounding takes from it is given back.
    """
    d = gram.shape[0]
    log_det = 0.0
    for i in range(d):
        for j in range(i + 1):
            total = gram[i, j]
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            factor[i, j] = np.sqrt(max(total, floor)) if i == j else total / factor[j, j]
    for i in range(d):
        log_det += 2.0 * log(factor[i, i]) - log(floor)
    for j in range(d):  # the inverse of the factor, in its place: column by column, from the right
        i = d - 1 - j
        factor[i, i] = 1.0 / factor[i, i]
        for k in range(i + 1, d):
            total = 0.0
            for m in range(i + 1, k + 1):
                total += factor[k, m] * factor[m, i]
            inverse[k, i] = total  # work space: column i of factor is still read
        for k in range(i + 1, d):
            factor[k, i] = -inverse[k, i] * factor[i, i]
    for i in range(d):
        for j in range(i + 1):
            total = 0.0
            for k in range(i, d):
                total += factor[k, i] * factor[k, j]
            inverse[i, j] = total
    for i in range(d):
        for j in range(i):
            inverse[j, i] = inverse[i, j]
    return log_det


@helper
def times(matrix, x, y):
    """y [d] = matrix [d, d] x [d]."""
    for i in range(x.size):
        total = 0.0
        for j in range(x.size):
            total += matrix[i, j] * x[j]
        y[i] = total


@helper
def dot(x, y):
    """x . y."""
    total = 0.0
    for j in range(x.size):
        total += x[j] * y[j]
    return total


@helper
def rank_one(inverse, x, y):
    """Sherman-Morrison: inverse [d, d] of L becomes that of L + x x^T; log det(L + x x^T) - log det(L). y [d]: work space."""
    times(inverse, x, y)
    q = dot(x, y)
    share = 1.0 / (1.0 + q)
    for i in range(x.size):
        for j in range(x.size):
            inverse[i, j] -= share * (y[i] * y[j])
    return log1p(q)


@helper
def quadratic(inverse, x):
    """x^T inverse x, not below 0."""
    total = 0.0
    for i in range(x.size):
        total += x[i] * dot(inverse[i], x)
    return max(total, 0.0)


@helper
def regress(inverse, sums, v, centre, w, work):
    """w [d] = Lambda^{-1} sum_i phi_i (v(s'_i) - centre), from sums [S, d], the transpose of Sigma; work [d]."""
    work[:] = 0.0
    for s in range(v.size):
        x = v[s] - centre
        for j in range(w.size):
            work[j] += sums[s, j] * x
    times(inverse, work, w)


@helper
def confidence_radius(kind, log_det, t, d, n_states, horizon, delta, ridge):
    """U of the module's head, after t episodes."""
    if kind == COVERING:
        return 2.0 * d * np.sqrt(log(2.0 * d * horizon * (t + 1.0) / delta))
    noise = log_det + 2.0 * (n_states - 1) * log(2.0) + 2.0 * log(horizon / delta)
    return np.sqrt(noise) + np.sqrt(ridge * d)


@helper
def _range(f, kind, top):
    """(lo, hi, centre of the regression): [0, top], or for RANGE that of f [S]; 0 is the centre for COVERING."""
    if kind != RANGE:
        return 0.0, top, 0.5 * top if kind == VERTEX else 0.0
    low, high = f[0], f[0]
    for s in range(f.size):
        low = f[s] if f[s] < low else low
        high = f[s] if f[s] > high else high
    return low, high, 0.5 * (low + high)


@helper
def _clip(x, low, high):
    return min(max(x, low), high)


@helper
def _stage(phi, r, inverse, sums, radius, kind, span, v_up, v_low, gap, w, work, q_up, q_low, ahead):
    """Fill q_up, q_low, ahead [S, A] from v_up, v_low, gap [S] of the next stage; radius is c U, w [3, d] work space."""
    up_lo, up_hi, up_mid = _range(v_up, kind, span)
    low_lo, low_hi, low_mid = _range(v_low, kind, span)
    gap_lo, gap_hi, gap_mid = _range(gap, RANGE, 0.0)
    regress(inverse, sums, v_up, up_mid, w[0], work)
    regress(inverse, sums, v_low, low_mid, w[1], work)
    regress(inverse, sums, gap, gap_mid, w[2], work)
    for s in range(r.shape[0]):
        for a in range(r.shape[1]):
            x = phi[s, a]
            norm = 0.5 * radius * np.sqrt(quadratic(inverse, x))
            up = up_mid + dot(x, w[0]) + (up_hi - up_lo) * norm
            low = low_mid + dot(x, w[1]) - (low_hi - low_lo) * norm
            slack = gap_mid + dot(x, w[2]) + (gap_hi - gap_lo) * norm
            q_up[s, a] = r[s, a] + _clip(up, up_lo, up_hi)
            q_low[s, a] = r[s, a] + _clip(low, low_lo, low_hi)
            ahead[s, a] = _clip(slack, gap_lo, gap_hi)


@helper
def plan(
    phi, world, mu, r, ref, inverse, sums, radius, kind, beta, q_up, q_low, pi, widest, v_up, v_low, gap, oracle, work,
    soft_sums,
):
    """One backward induction on inverse [H, d, d] and sums [H, S, d]; radius [H] is c U.

    Fills q_up, q_low, pi [H, S, A], widest [H, S], v_up, v_low, gap, oracle [H+1, S] (row H stays 0). The true transitions
    are world [S, A, D] times mu [H or 1, D, S]; only ``oracle`` reads them. Never the linear limit of large beta, as in ucbvi.
    """
    horizon, n_states, n_actions = pi.shape
    ahead, true_ahead, other = np.zeros((n_states, n_actions)), np.zeros((n_states, n_actions)), np.empty((n_states, n_actions))
    w, scratch = np.empty((3, phi.shape[2])), np.empty(phi.shape[2])
    w_true, features = np.empty(world.shape[2]), world.reshape(-1, world.shape[2])
    for back in range(horizon):
        h = horizon - 1 - back
        reward, allowed = r[min(h, r.shape[0] - 1)], ref[h]
        if back == 0:
            q_up[h], q_low[h] = reward, reward
        else:
            _stage(phi, reward, inverse[h], sums[h], radius[h], kind, float(back), v_up[h + 1], v_low[h + 1], gap[h + 1],
                   w, scratch, q_up[h], q_low[h], ahead)
            products(mu[min(h, mu.shape[0] - 1)], oracle[h + 1], None, w_true, False)
            products(features, w_true, None, true_ahead.reshape(-1), False)
        soft_stage(q_low[h], allowed, beta, False, v_low[h], other, work, soft_sums)
        soft_stage(q_up[h], allowed, beta, False, v_up[h], pi[h], work, soft_sums)
        widest_actions(q_up[h], q_low[h], allowed, widest[h])
        stage_gaps(q_up[h], q_low[h], pi[h], ahead, widest[h], beta, gap[h])
        stage_gaps(q_up[h], q_low[h], pi[h], true_ahead, widest[h], beta, oracle[h])


@helper
def _episode(
    phi, world_sums, world_guide, mu_sums, mu_guide, first_sums, first_guide, pi, widest, deviates, track, start, visits, gram,
    sums, inverse, log_det, y,
):
    """Play pi, but the widest action at one stage drawn among none and 0 .. H-1; add what was seen to gram and sums.

    gram [H, d, d] is kept in its lower triangle, sums [H, S, d] is the transpose of Sigma; ``track`` keeps inverse [H, d, d]
    and log_det [H] up to date too. The last stage needs no regression. Numbers of the stream: 0 the stage to deviate in, 1 the
    first state, 3h + 2, 3h + 3, 3h + 4 action, feature and next state of stage h.
    """
    horizon, _, n_actions = pi.shape
    width = phi.shape[2]
    deviate = int(stream_uniform(start, np.uint64(0)) * (horizon + 1)) - 1 if deviates else -1
    state = locate(0, stream_uniform(start, np.uint64(1)), first_sums, first_guide)
    laws = mu_sums.shape[0] // world_sums.shape[1]  # stages of mu
    for h in range(horizon):
        action = widest[h, state] if h == deviate else scan(pi[h], state, stream_uniform(start, np.uint64(3 * h + 2)))
        feature = locate(state * n_actions + action, stream_uniform(start, np.uint64(3 * h + 3)), world_sums, world_guide)
        law = min(h, laws - 1) * world_sums.shape[1] + feature
        after = locate(law, stream_uniform(start, np.uint64(3 * h + 4)), mu_sums, mu_guide)
        visits[h, state, action] += 1.0
        if h < horizon - 1:
            x = phi[state, action]
            for i in range(width):
                sums[h, after, i] += x[i]
                for j in range(i + 1):
                    gram[h, i, j] += x[i] * x[j]
            if track:
                log_det[h] += rank_one(inverse[h], x, y)
        state = after


@kernel
def explore(
    phi, world, mu, theta, mu0, ref, q_star, beta, eps, delta, scale, ridge, growth, refresh, kind, rule, deviates, budget,
    key0, key1, checkpoints, visits, q_up, q_low, pi, marks, policies, info,
):
    """Run until the quantity that ``rule`` names is at most eps, or ``budget`` episodes are played.

    phi [S, A, d] the learner's features; world [S, A, D], mu [H or 1, D, S] and theta [H or 1, D] the MDP; mu0 [1, S], ref,
    q_star [H, S, A], checkpoints [K] (episodes, increasing). Fills visits [H, S, A], q_up, q_low, pi [H, S, A], marks
    [K+1, 4] (episodes, certificate, width, oracle; the last row is the end), policies [K, H, S, A] and info [status,
    episodes, worst violation of the bounds, re-plannings, checkpoints passed]. Plans again at t -> max(t+1, (1+growth) t).
    Inverses are computed afresh, or, where few episodes lie between plannings, updated at most ``refresh`` times before
    they are. Cost of a plan: H (S A d^2 + S A D + S d + S D + d^3); of an episode: H (A + d^2).
    """
    horizon, n_states, n_actions = pi.shape
    d = phi.shape[2]
    r = np.empty((theta.shape[0], n_states, n_actions))
    for h in range(theta.shape[0]):
        products(world.reshape(-1, world.shape[2]), theta[h], None, r[h].reshape(-1), False)
    v_up, v_low = np.zeros((horizon + 1, n_states)), np.zeros((horizon + 1, n_states))
    gap, oracle = np.zeros((horizon + 1, n_states)), np.zeros((horizon + 1, n_states))
    widest = np.zeros((horizon, n_states), np.int64)
    work, soft_sums = soft_workspace(n_states, n_actions)
    gram, sums = np.zeros((horizon, d, d)), np.zeros((horizon, n_states, d))
    inverse, factor = np.zeros((horizon, d, d)), np.zeros((d, d))
    log_det, radius, y = np.zeros(horizon), np.zeros(horizon), np.empty(d)
    for h in range(horizon):
        for j in range(d):
            gram[h, j, j] = ridge
    world_sums, world_guide = tables(world.reshape(-1, world.shape[2]))
    mu_sums, mu_guide = tables(mu.reshape(-1, n_states))
    first_sums, first_guide = tables(mu0)
    t, k, plans, worst, updates, track = 0, 0, 0, 0.0, 0, False
    while True:
        if not track or updates > refresh:
            updates = 0
            for h in range(horizon - 1):
                log_det[h] = invert(gram[h], ridge, factor, inverse[h])
        for h in range(horizon - 1):
            radius[h] = scale * confidence_radius(kind, log_det[h], t, d, n_states, horizon, delta, ridge)
        plan(phi, world, mu, r, ref, inverse, sums, radius, kind, beta, q_up, q_low, pi, widest, v_up, v_low, gap, oracle,
             work, soft_sums)
        plans += 1
        off = violation(q_up, q_low, q_star, ref)
        worst = max(worst, off)
        certificate, truth = dot(mu0[0], gap[0]), dot(mu0[0], oracle[0])
        width = dot(mu0[0], v_up[0]) - dot(mu0[0], v_low[0])
        stop = (certificate if rule == CERTIFICATE else width if rule == WIDTH else truth) <= eps
        ended = stop or t >= budget
        while k < checkpoints.size and checkpoints[k] <= t:
            marks[k, 0], marks[k, 1], marks[k, 2], marks[k, 3] = t, certificate, width, truth
            policies[k] = pi
            k += 1
        if ended:
            last = checkpoints.size
            marks[last, 0], marks[last, 1], marks[last, 2], marks[last, 3] = t, certificate, width, truth
            info[0], info[1], info[2], info[3], info[4] = STOPPED if stop else BUDGET, t, worst, plans, k
            return
        ahead = max(t + 1, int((1.0 + growth) * t))
        track = ahead - t <= d  # few updates before the next planning: cheaper than an inverse
        until = min(ahead, budget)
        while t < until:
            _episode(phi, world_sums, world_guide, mu_sums, mu_guide, first_sums, first_guide, pi, widest, deviates, track,
                     stream_start(key0, key1, np.uint64(t)), visits, gram, sums, inverse, log_det, y)
            t += 1
            updates += 1
