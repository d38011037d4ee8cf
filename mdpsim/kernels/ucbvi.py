"""UCBVI: optimistic and pessimistic planning on an empirical model, hard or soft, its certificate, and the loop that explores.

Notation: H, S, A sizes; c the bonus scale; n = n_h(s, a) visits; phat = next [h, s, a, :] / n; span_h = H - h - 1 the range of
V_{h+1}. k = 2, or 3 where the rewards are unknown: L(n) = log(k S A H sqrt(n+1) / delta), K(n) = log(3 S A H / delta) + (S-1)
log(e (1 + n/(S-1))), C(n) = log(3 S A H / delta) + log(4 e n (2n + 1)), kappa = c^2 K(n) / n.

    b = c span sqrt((1 + 1/n) L(n) / (2 n))                                                              (Hoeffding)
    b = c (3 sqrt(Var_phat(Vu) C(n)/n) + m H^2 K(n)/n) + phat (Vu - Vl) / H,  m = 9 soft, 14 hard      (Bernstein)
    Qu = ru + min(phat Vu + b, span),   Ql = rl + max(phat Vl - b, 0);   ru + span and rl where n = 0; ru, rl at the last stage
    ru = rl = r, or min(rhat + b_r, 1) and max(rhat - b_r, 0), b_r = c sqrt((1 + 1/n) L(n) / (2 n)), 1 and 0 where n = 0

Soft (beta > 0): V by log-sum-exp, and with M = max_a (Qu - Ql) over the support of the reference,

    G_h(s) = min(M, M^2/(8 beta)) + sum_a pi(a|s) g_a
    g_a = min(R_{h+1}, y + sqrt(2 R_{h+1} kappa y) + 2 R_{h+1} kappa),   y = phat G_{h+1};   R_{h+1} where n = 0
    R_H = 0,   R_h = R_{h+1} + min(w, w^2/(8 beta)),   w = span, or H - h where the rewards are unknown

Hard (beta = 0): V by the maximum, and G_h(s) = sum_a pi(a|s) (g_a + ru - rl), with R_h = H - h and

    g_a = min(span, 2 b + y + sqrt(2 span kappa y) + 2 span kappa)                                       (Hoeffding)
    g_a = min(span, c (6 sqrt(Var_phat(Vu) C(n)/n) + 36 H^2 K(n)/n) + (1 + 3/H) y)                              (Bernstein)

The Bernstein forms are as transcribed. What the certificates certify, and why, stands in mdpsim/learn/ucbvi_ent.py and
mdpsim/learn/ucbvi.py.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, kernel
from mdpsim.kernels._math import log
from mdpsim.kernels.bellman import hard_stage, soft_stage, soft_workspace
from mdpsim.kernels.rollout import scan, stream_start, stream_uniform

STOPPED, BUDGET = 1.0, 0.0


@helper
def gap_ranges(horizon, beta, unknown):
    """R [H+1]: the largest gap of a policy that is optimal (soft where beta > 0) for values of the right range."""
    ranges = np.zeros(horizon + 1)
    for back in range(horizon):
        h = horizon - 1 - back
        if beta == 0.0:
            ranges[h] = float(horizon - h)
        else:
            width = float(horizon - h if unknown else horizon - h - 1)
            ranges[h] = ranges[h + 1] + min(width, width * width / (8.0 * beta))
    return ranges


@helper
def _model(visits, next_counts, v_up, v_low, gap):
    """(phat . v_up, phat . v_low, phat . gap) of one row of next-state counts [S] with ``visits`` > 0 in all."""
    up, low, slack = 0.0, 0.0, 0.0
    for j in range(next_counts.size):
        up += next_counts[j] * v_up[j]
        low += next_counts[j] * v_low[j]
        slack += next_counts[j] * gap[j]
    return up / visits, low / visits, slack / visits


@helper
def _variance(visits, next_counts, v, mean):
    """Var_phat(v) about its mean."""
    total = 0.0
    for j in range(next_counts.size):
        total += next_counts[j] * (v[j] - mean) * (v[j] - mean)
    return total / visits


@helper
def _radii(n, size, n_states, delta, scale, unknown):
    """(bonus over span, kappa, C(n)/n) of n > 0 visits; ``size`` is S A H."""
    plain = log((3.0 if unknown else 2.0) * size / delta) + 0.5 * log(n + 1.0)
    bonus = scale * np.sqrt((1.0 + 1.0 / n) * plain / (2.0 * n))
    spread = log(3.0 * size / delta)
    if n_states > 1:
        spread += (n_states - 1) * (1.0 + log(1.0 + n / (n_states - 1)))
    concentration = log(3.0 * size / delta) + log(4.0 * np.e * n * (2.0 * n + 1.0))
    return bonus, scale * scale * spread / n, concentration / n


@helper
def _rewards(n, mean, total, radius, unknown):
    """(ru, rl) of one (s, a): the known mean, or a band around total / n."""
    if not unknown:
        return mean, mean
    if n == 0.0:
        return 1.0, 0.0
    return min(total / n + radius, 1.0), max(total / n - radius, 0.0)


@helper
def _bernstein(n, next_counts, v_up, up, width, y, hard, horizon, scale, kappa, concentration):
    """(bonus, and the slack of the hard certificate) of one (s, a) with n > 0 visits; up and width are means of phat."""
    spread = scale * np.sqrt(_variance(n, next_counts, v_up, up) * concentration)
    square = horizon * horizon * kappa / scale if scale > 0.0 else 0.0  # kappa carries scale^2
    bonus = 3.0 * spread + (14.0 if hard else 9.0) * square + width / horizon
    return bonus, 6.0 * spread + 36.0 * square + (1.0 + 3.0 / horizon) * y


@helper
def _stage(
    h, visits, next_counts, totals, r, ranges, hard, delta, scale, bernstein, unknown, v_up, v_low, gap, q_up, q_low, ahead,
    radii,
):
    """Fill q_up, q_low and ahead (the g_a, and ru - rl where planning is hard) [S, A] from v_up, v_low, gap [S] of stage h + 1.

    radii [4, S, A] remembers the visits, bonus over span, kappa and C(n)/n of the last planning: few change in an episode.
    """
    n_states, n_actions = r.shape
    horizon = ranges.size - 1
    span, size = float(horizon - h - 1), float(n_states * n_actions * horizon)
    rest = ranges[h + 1]
    for s in range(n_states):
        for a in range(n_actions):
            n = visits[s, a]
            if n > 0.0 and radii[0, s, a] != n:
                radii[0, s, a] = n
                radii[1, s, a], radii[2, s, a], radii[3, s, a] = _radii(n, size, n_states, delta, scale, unknown)
            r_up, r_low = _rewards(n, r[s, a], totals[s, a], radii[1, s, a], unknown)
            if h == horizon - 1:
                q_up[s, a], q_low[s, a], slack = r_up, r_low, 0.0
            elif n == 0.0:
                q_up[s, a], q_low[s, a], slack = r_up + span, r_low, rest
            else:
                up, low, y = _model(n, next_counts[s, a], v_up, v_low, gap)
                bonus, kappa = span * radii[1, s, a], radii[2, s, a]
                slack = y + np.sqrt(2.0 * rest * kappa * y) + 2.0 * rest * kappa
                if bernstein:
                    bonus, other = _bernstein(n, next_counts[s, a], v_up, up, up - low, y, hard, horizon, scale, kappa,
                                              radii[3, s, a])
                    slack = other if hard else slack
                elif hard:
                    slack = slack + 2.0 * bonus
                q_up[s, a] = r_up + min(up + bonus, span)
                q_low[s, a] = r_low + max(low - bonus, 0.0)
                slack = min(rest, slack)
            ahead[s, a] = slack + (r_up - r_low) if hard else slack


@helper
def widest_actions(q_up, q_low, ref, widest):
    """widest [S] = the supported action of largest q_up - q_low, the first of ties."""
    for s in range(q_up.shape[0]):
        best, high = 0, -1.0
        for a in range(q_up.shape[1]):
            width = q_up[s, a] - q_low[s, a] if ref[s, a] > 0.0 else -1.0
            best = a if width > high else best
            high = width if width > high else high
        widest[s] = best


@helper
def stage_gaps(q_up, q_low, pi, ahead, widest, beta, gap):
    """gap [S] of a stage from what lies ahead and, where beta > 0, its widths."""
    for s in range(gap.size):
        a = widest[s]
        m = max(q_up[s, a] - q_low[s, a], 0.0)
        total = 0.0
        for b in range(pi.shape[1]):
            total += pi[s, b] * ahead[s, b]
        gap[s] = total if beta == 0.0 else min(m, m * m / (8.0 * beta)) + total


@helper
def plan(
    visits, next_counts, totals, r, ref, beta, delta, scale, bernstein, unknown, ranges, q_up, q_low, pi, widest, v_up, v_low,
    gap, work, sums, radii,
):
    """One backward induction on the counts: q_up, q_low, pi [H, S, A], widest [H, S], v_up, v_low, gap [H+1, S].

    totals [H, S, A] are sums of observed rewards (read where ``unknown``); radii [H, 4, S, A], zero at first, belongs to one
    delta and scale. Never the linear limit of large beta: bounds are of order H at beta <= 1e8, whatever the rewards.
    """
    horizon = q_up.shape[0]
    ahead, other = np.empty(r.shape[1:]), np.empty(r.shape[1:])
    for back in range(horizon):
        h = horizon - 1 - back
        reward, allowed = r[min(h, r.shape[0] - 1)], ref[h]
        _stage(h, visits[h], next_counts[h], totals[h], reward, ranges, beta == 0.0, delta, scale, bernstein, unknown,
               v_up[h + 1], v_low[h + 1], gap[h + 1], q_up[h], q_low[h], ahead, radii[h])
        if beta == 0.0:
            hard_stage(q_low[h], allowed, v_low[h], other)
            hard_stage(q_up[h], allowed, v_up[h], pi[h])
        else:
            soft_stage(q_low[h], allowed, beta, False, v_low[h], other, work, sums)
            soft_stage(q_up[h], allowed, beta, False, v_up[h], pi[h], work, sums)
        widest_actions(q_up[h], q_low[h], allowed, widest[h])
        stage_gaps(q_up[h], q_low[h], pi[h], ahead, widest[h], beta, gap[h])


@helper
def violation(q_up, q_low, q_star, ref):
    """How far the true q_star lies outside [q_low, q_up], at worst over supported entries."""
    worst = 0.0
    for h in range(q_up.shape[0]):
        for s in range(q_up.shape[1]):
            for a in range(q_up.shape[2]):
                off = max(q_star[h, s, a] - q_up[h, s, a], q_low[h, s, a] - q_star[h, s, a])
                worst = off if off > worst and ref[h, s, a] > 0.0 else worst
    return worst


@helper
def _episode(P, r, R, mu0, pi, widest, explore, unknown, start, visits, next_counts, totals):
    """Play pi, but the widest action at one stage drawn among none and 0 .. H-1; count what was seen.

    Where the rewards are unknown, totals gains R(s, a, s'), for R of size 0 a Bernoulli reward of mean r(s, a), a step.
    """
    horizon = pi.shape[0]
    deviate = int(stream_uniform(start, np.uint64(0)) * (horizon + 1)) - 1 if explore else -1
    state = scan(mu0, 0, stream_uniform(start, np.uint64(1)))
    for h in range(horizon):
        rows = P[min(h, P.shape[0] - 1), state]
        action = widest[h, state] if h == deviate else scan(pi[h], state, stream_uniform(start, np.uint64(2 + 2 * h)))
        after = scan(rows, action, stream_uniform(start, np.uint64(3 + 2 * h)))
        visits[h, state, action] += 1.0
        next_counts[h, state, action, after] += 1.0
        if R.size > 0:
            if unknown:
                totals[h, state, action] += R[min(h, R.shape[0] - 1), state, action, after]
        elif unknown and stream_uniform(start, np.uint64(2 + 2 * horizon + h)) < r[min(h, r.shape[0] - 1), state, action]:
            totals[h, state, action] += 1.0
        state = after


@kernel
def explore(
    P, r, R, mu0, ref, q_star, beta, eps, delta, scale, bernstein, unknown, growth, stop_by_width, deviate, budget, key0, key1,
    checkpoints, visits, next_counts, q_up, q_low, pi, marks, policies, info,
):
    """Run until the certificate (or the width) is at most eps, or ``budget`` episodes are played; beta = 0 plans hard.

    P [H or 1, S, A, S], r [H or 1, S, A], R [H or 1, S, A, S] or of size 0 (see ``_episode``), mu0 [1, S], ref, q_star
    [H, S, A], checkpoints [K] (episodes, increasing). Fills visits [H, S, A], next_counts [H, S, A, S], q_up, q_low, pi
    [H, S, A], marks [K+1, 3] (episodes, certificate, width; the last row is the end), policies [K, H, S, A] and info [status,
    episodes, worst violation of the bounds, re-plannings, checkpoints passed]. Plans again at t -> max(t+1, (1+growth) t).
    Cost of a plan: H S^2 A; of an episode: H S.
    """
    horizon, n_states, _ = pi.shape
    ranges = gap_ranges(horizon, beta, unknown)
    v_up, v_low = np.zeros((horizon + 1, n_states)), np.zeros((horizon + 1, n_states))
    gap, widest = np.zeros((horizon + 1, n_states)), np.zeros((horizon, n_states), np.int64)
    work, sums = soft_workspace(n_states, pi.shape[2])
    radii, totals = np.zeros((horizon, 4, n_states, pi.shape[2])), np.zeros(pi.shape)
    t, k, plans, worst = 0, 0, 0, 0.0
    while True:
        plan(visits, next_counts, totals, r, ref, beta, delta, scale, bernstein, unknown, ranges, q_up, q_low, pi, widest, v_up,
             v_low, gap, work, sums, radii)
        plans += 1
        off = violation(q_up, q_low, q_star, ref)
        worst = max(worst, off)
        certificate, width = 0.0, 0.0
        for s in range(n_states):
            certificate += mu0[0, s] * gap[0, s]
            width += mu0[0, s] * (v_up[0, s] - v_low[0, s])
        stop = (width if stop_by_width else certificate) <= eps
        while k < checkpoints.size and checkpoints[k] <= t:
            marks[k, 0], marks[k, 1], marks[k, 2] = t, certificate, width
            policies[k] = pi
            k += 1
        if stop or t >= budget:
            marks[checkpoints.size, 0], marks[checkpoints.size, 1], marks[checkpoints.size, 2] = t, certificate, width
            info[0], info[1], info[2], info[3], info[4] = STOPPED if stop else BUDGET, t, worst, plans, k
            return
        until = min(max(t + 1, int((1.0 + growth) * t)), budget)
        while t < until:
            start = stream_start(key0, key1, np.uint64(t))
            _episode(P, r, R, mu0, pi, widest, deviate, unknown, start, visits, next_counts, totals)
            t += 1
