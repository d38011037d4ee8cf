"""Enumeration: every deterministic policy for the hard optimum, every trajectory for expectations. Tiny MDPs only."""

from __future__ import annotations

import itertools
import math

import numpy as np


def trajectories(mdp, pi):
    """Yield (probability, states s_0 .. s_{H-1}, actions, total reward) of every possible trajectory."""
    H, S, A = pi.shape

    def extend(h, s, probability, states, actions, reward):
        if probability == 0.0:
            return
        if h == H:
            yield probability, states, actions, reward
            return
        P, r = mdp.P[min(h, len(mdp.P) - 1)], mdp.r[min(h, len(mdp.r) - 1)]
        for a in range(A):
            # the state after the last action does not matter, so it is not enumerated
            for j, p in enumerate(P[s, a]) if h + 1 < H else [(s, 1.0)]:
                mass = probability * pi[h, s, a] * p
                yield from extend(h + 1, j, mass, (*states, s), (*actions, a), reward + r[s, a])

    for s in range(S):
        yield from extend(0, s, mdp.mu0[s], (), (), 0.0)


def value(mdp, pi):
    """E_pi of the total reward."""
    return math.fsum(p * reward for p, _, _, reward in trajectories(mdp, pi))


def occupancy(mdp, pi):
    """[H, S] law of the state at each stage."""
    occ = np.zeros(pi.shape[:2])
    for p, states, _, _ in trajectories(mdp, pi):
        for h, s in enumerate(states):
            occ[h, s] += p
    return occ


def trajectory_kl(mdp, pi, other):
    """E_pi log of the ratio of the two laws of a trajectory."""
    terms = []
    for p, states, actions, _ in trajectories(mdp, pi):
        for h, (s, a) in enumerate(zip(states, actions, strict=True)):
            if other[h, s, a] == 0.0:
                return math.inf
            terms.append(p * math.log(pi[h, s, a] / other[h, s, a]))
    return math.fsum(terms)


def hard_optimum(mdp, support):
    """Best J over the deterministic policies inside support [H, S, A] (A^(H S) of them)."""
    H, S, A = support.shape
    choices = [np.flatnonzero(support[h, s]) for h in range(H) for s in range(S)]
    identity = np.eye(A)
    return max(value(mdp, identity[list(actions)].reshape(H, S, A)) for actions in itertools.product(*choices))
