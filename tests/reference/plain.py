"""Bellman's equations in plain numpy and scipy: what one would write without mdpsim; the speed benchmarks use it too."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp, rel_entr


def stage(x, h):
    """Stage h of an array that has one stage or H."""
    return x[min(h, len(x) - 1)]


def solve_soft(mdp, pi_ref, beta):
    """(V, Q, pi) for 0 < beta < inf, by scipy's logsumexp."""
    V, Q, pi = np.zeros((mdp.H + 1, mdp.S)), np.zeros((mdp.H, mdp.S, mdp.A)), np.zeros((mdp.H, mdp.S, mdp.A))
    for h in reversed(range(mdp.H)):
        Q[h] = stage(mdp.r, h) + stage(mdp.P, h) @ V[h + 1]
        V[h] = beta * logsumexp(Q[h] / beta, b=pi_ref[h], axis=-1)
        pi[h] = pi_ref[h] * np.exp((Q[h] - V[h][:, None]) / beta)
    return V, Q, pi


def solve_hard(mdp):
    """(V, Q, pi) of the hard optimum, the first best action."""
    V, Q, pi = np.zeros((mdp.H + 1, mdp.S)), np.zeros((mdp.H, mdp.S, mdp.A)), np.zeros((mdp.H, mdp.S, mdp.A))
    for h in reversed(range(mdp.H)):
        Q[h] = stage(mdp.r, h) + stage(mdp.P, h) @ V[h + 1]
        V[h] = Q[h].max(axis=-1)
        pi[h] = np.eye(mdp.A)[Q[h].argmax(axis=-1)]
    return V, Q, pi


def evaluate(mdp, pi, pi_ref=None, beta=0.0):
    """(V, Q) of a policy, regularised for beta > 0."""
    V, Q = np.zeros((mdp.H + 1, mdp.S)), np.zeros((mdp.H, mdp.S, mdp.A))
    for h in reversed(range(mdp.H)):
        Q[h] = stage(mdp.r, h) + stage(mdp.P, h) @ V[h + 1]
        V[h] = (pi[h] * Q[h]).sum(axis=-1)
        if beta > 0.0:
            V[h] -= beta * rel_entr(pi[h], pi_ref[h]).sum(axis=-1)
    return V, Q


def occupancy(mdp, pi):
    """[H, S] law of the state at each stage."""
    occ = np.zeros((mdp.H, mdp.S))
    occ[0] = mdp.mu0
    for h in range(mdp.H - 1):
        occ[h + 1] = np.einsum("s,sa,saj->j", occ[h], pi[h], stage(mdp.P, h))
    return occ


def trajectory_kl(mdp, pi, other):
    """E_pi sum_h KL(pi_h || other_h)."""
    return float((occupancy(mdp, pi) * rel_entr(pi, other).sum(axis=-1)).sum())
