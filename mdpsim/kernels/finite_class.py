"""Preference optimisation over a finite class of policies: exact argmin, O(n) a round, whole runs of T rounds.

Setting: n policies, X contexts, Y responses; response y to context x is row x Y + y. rho [X Y, n] are implicit rewards, centred
[X Y, n] = rho - V = beta log(pi / pi_ref). Each policy k carries a score, to which a round with the pair (better, worse)
and the comparator's response y~ adds

    loss(rho[better, k] - rho[worse, k]) + weight centred[y~, k],        weight = alpha / beta;

the next policy has the least score. A pair of equal responses has the same loss under every policy: it is skipped, exactly.
Losses of a pair are computed once and kept (``capacity`` rows of n numbers), so that a round adds rows and compares.

Streams: round t of a run reads numbers 0 .. 5 of the stream (key0, key1, t): context, first response, policy of the history,
second response, label, ties. So a run depends on its key alone, and runs that differ in alpha only share all of them.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, kernel
from mdpsim.kernels._math import exp, log1p
from mdpsim.kernels.rollout import scan, stream_start, stream_uniform

REFERENCE, CURRENT, HISTORY, GIVEN = 0, 1, 2, 3  # where a response comes from
TIE = 1e-9  # scores closer than this are tied, where ties are random


@helper
def _pair_loss(row, better, worse, beta, smoothing, squared):
    """row[k] = the loss of (better [n], worse [n]), d = better - worse.

    softplus(-d) + smoothing d, which is (1 - s) softplus(-d) + s softplus(d); squared: ((d - 1/2) / beta)^2 (IPO).
    """
    if squared:
        for k in range(row.size):
            d = (better[k] - worse[k] - 0.5) / beta
            row[k] = d * d
        return
    for k in range(row.size):
        row[k] = exp(-abs(better[k] - worse[k]))
    for k in range(row.size):
        d = better[k] - worse[k]
        row[k] = log1p(row[k]) + max(-d, 0.0) + smoothing * d


@helper
def _kept_loss(rho, better, worse, n_responses, beta, smoothing, squared, slot, kept, used):
    """The row of ``kept`` that holds the losses of a pair of rows of rho; the last row is for pairs that found no room."""
    pair = better * n_responses + worse % n_responses
    row = slot[pair]
    if row < 0:
        row = kept.shape[0] - 1
        if used[0] < row:
            row = used[0]
            slot[pair] = row
            used[0] += 1
        _pair_loss(kept[row], rho[better], rho[worse], beta, smoothing, squared)
    return kept[row]


@helper
def _add(score, row, weight):
    """score += weight row."""
    for k in range(score.size):
        score[k] += weight * row[k]


@helper
def _lowest(score):
    """The least score."""
    low = np.inf
    for k in range(score.size):
        low = score[k] if score[k] < low else low
    return low


@helper
def least(score):
    """The first index of the least score; ends at the last score whatever the scores are, NaN included."""
    low = _lowest(score)
    for k in range(score.size):
        if score[k] == low:
            return k
    return 0  # no score is a number: the callers' guards see to it that this is not reached


@helper
def _any_least(score, u):
    """An index among those within TIE of the least score, uniform by u in [0, 1)."""
    high = _lowest(score) + TIE
    count = 0
    for k in range(score.size):
        count += score[k] <= high
    left = int(u * count)
    for k in range(score.size):
        if score[k] <= high:
            if left == 0:
                return k
            left -= 1
    return 0  # as in ``least``


@helper
def _policy_of(source, current, history, t, n, u):
    """Which policy writes: n is pi_ref, n + 1 the given one; the history is pi^1 .. pi^t."""
    if source == CURRENT:
        return current
    if source == HISTORY:
        return history[int(u * t)]
    return n if source == REFERENCE else n + 1


@helper
def _draw_pair(stream, mu0, one, two, law, wins):
    """(context, first response, second response, whether the first was preferred) of policies one and two."""
    n_contexts, n_responses = mu0.shape[1], law.shape[1]
    x = scan(mu0, 0, stream_uniform(stream, np.uint64(0)))
    y = scan(law, one * n_contexts + x, stream_uniform(stream, np.uint64(1)))
    z = scan(law, two * n_contexts + x, stream_uniform(stream, np.uint64(3)))
    return x, y, z, stream_uniform(stream, np.uint64(4)) < wins[x * n_responses + y, z]


@helper
def _against(difference, label):
    """Whether a label contradicts the difference of the rewards."""
    return difference < 0.0 if label else difference > 0.0


@kernel
def run_class(
    rho, centred, law, mu0, wins, prior, gaps, masses, rewards, modes, reals, keys, checkpoints, capacity,
    curves, chosen, ends, pairs, scores,
):
    """Play T rounds for every key.

    Args:
        rho, centred: [X Y, n]. prior: [n] scores at the start.
        law: [(n + 2) X, Y] responses of the n policies, of pi_ref and of the given comparator. mu0: [1, X].
        wins: [X Y, Y] probability that the first response is preferred. rewards: [X Y].
        gaps, masses: [n + 1] of every policy and of pi_ref: J(pi*) - J, and the probability of a best response.
        modes: int64 [8]: T; sources of the first and the second response; rounds between updates; start (a policy, or n); home,
            the policy nearest pi_ref; 1 for random ties; 1 for the squared loss.
        reals: [4]: beta, weight, smoothing, target.
        keys: uint64 [R, 2]. checkpoints: int64 [K], increasing, within 1 .. T.
        curves: [R, K, 6] at each checkpoint t: gap of pi^t, average and least gap of pi^1 .. pi^t, mass of pi^t, and among the
            first t pairs those of different responses, and those of them whose label contradicts the rewards.
        chosen: [R, K] pi^t. ends: int64 [R, 3]: first t at which pi^t is neither the start nor home,
            first t whose gap is below target (T + 1: never), and pi^{T+1}.
        pairs: int64 [R, T or 0, 4]: context, first, second, label. scores: [R, n or 0] at the end.
    """
    n_policies, n_responses = rho.shape[1], law.shape[1]
    n_rounds, first, second, every, start, home, random_ties, squared = modes
    beta, weight, smoothing, target = reals
    slot, kept, used = np.full(rho.shape[0] * n_responses, -1), np.empty((capacity, n_policies)), np.zeros(1, np.int64)
    history = np.empty(n_rounds if HISTORY in (first, second) else 1, np.int64)
    score = np.empty(n_policies)
    for run in range(keys.shape[0]):
        score[:] = prior
        current, k, total, best, mixed, wrong = start, 0, 0.0, np.inf, 0, 0
        ends[run, 0], ends[run, 1] = n_rounds + 1, n_rounds + 1
        for t in range(1, n_rounds + 1):
            history[min(t, history.size) - 1] = current
            stream = stream_start(keys[run, 0], keys[run, 1], np.uint64(t))
            u = stream_uniform(stream, np.uint64(2))
            one = _policy_of(first, current, history, t, n_policies, u)
            two = _policy_of(second, current, history, t, n_policies, u)
            x, y, z, label = _draw_pair(stream, mu0, one, two, law, wins)
            a, b, gap = x * n_responses + y, x * n_responses + z, gaps[current]
            mixed += y != z
            wrong += _against(rewards[a] - rewards[b], label)
            total += gap
            best = min(best, gap)
            if gap < target:
                ends[run, 1] = min(ends[run, 1], t)
            if current != start and current != home:
                ends[run, 0] = min(ends[run, 0], t)
            while k < checkpoints.size and checkpoints[k] == t:
                curves[run, k, 0], curves[run, k, 1], curves[run, k, 2] = gap, total / t, best
                curves[run, k, 3], curves[run, k, 4], curves[run, k, 5] = masses[current], mixed, wrong
                chosen[run, k] = current
                k += 1
            if pairs.shape[1] > 0:
                pairs[run, t - 1, 0], pairs[run, t - 1, 1], pairs[run, t - 1, 2], pairs[run, t - 1, 3] = x, y, z, label
            if y != z:
                better, worse = (a, b) if label else (b, a)
                _add(score, _kept_loss(rho, better, worse, n_responses, beta, smoothing, squared, slot, kept, used), 1.0)
            if weight != 0.0:
                _add(score, centred[b], weight)
            if t % every == 0:
                if random_ties:
                    current = _any_least(score, stream_uniform(stream, np.uint64(5)))
                elif y != z or weight != 0.0 or every > 1 or t == 1:
                    current = least(score)
        ends[run, 2] = current
        if scores.shape[1] > 0:
            scores[run] = score
