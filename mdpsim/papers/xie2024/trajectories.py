"""Random instances whose trajectories can all be listed, and the list: what the exact claims are summed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mdpsim.arrays import FloatArray, IntArray
from mdpsim.mdp import families
from mdpsim.mdp.tabular import MDP
from mdpsim.mdp.token_families import token_tree

EPS = float(np.finfo(float).eps)
FLOOR = 1e-4  # smallest probability of a reference: log-ratios stay within float64


class Paths(NamedTuple):
    """All trajectories with positive probability under a policy of full support.

    states, actions: [N, H]. log_dynamics: [N] log mu0(s_0) + sum_h log P(s_{h+1} | s_h, a_h), the last transition left out.
    """

    states: IntArray
    actions: IntArray
    log_dynamics: FloatArray

    def total(self, table: FloatArray) -> FloatArray:
        """[N] sum_h table[h, s_h, a_h] of a table [H or 1, S, A]."""
        stages = np.minimum(np.arange(self.states.shape[1]), len(table) - 1)
        return table[stages, self.states, self.actions].sum(axis=1)

    def law(self, pi: FloatArray) -> FloatArray:
        """[N] probabilities of the trajectories under a policy [H, S, A]."""
        with np.errstate(divide="ignore"):
            return np.exp(self.log_dynamics + self.total(np.log(pi)))


def list_paths(mdp: MDP) -> Paths:
    """Every trajectory of a dense MDP. Cost: O(S^H A^H)."""
    P = np.asarray(mdp.P)
    states, actions = np.flatnonzero(mdp.mu0)[:, None], np.empty((np.count_nonzero(mdp.mu0), 0), dtype=np.int64)
    logs = np.log(mdp.mu0[states[:, 0]])
    for h in range(mdp.H):
        n = len(states)
        states, actions, logs = (np.repeat(x, mdp.A, axis=0) for x in (states, actions, logs))
        actions = np.column_stack([actions, np.tile(np.arange(mdp.A), n)])
        if h + 1 == mdp.H:
            break
        rows = P[min(h, len(P) - 1), states[:, -1], actions[:, -1]]
        parent, child = np.nonzero(rows)
        states, actions = np.column_stack([states[parent], child]), actions[parent]
        logs = logs[parent] + np.log(rows[parent, child])
    return Paths(states, actions, np.asarray(logs, dtype=np.float64))


DETERMINISTIC = ("deterministic", "tokens", "clones")  # V_{h+1} is the same at every successor
STOCHASTIC = ("dirichlet", "noisy", "garnet")


def random_problem(point: Mapping[str, Any], rng: np.random.Generator) -> tuple[MDP, FloatArray]:
    """A random MDP of H = S = A = ``size`` and a reference of full support.

    "deterministic": one successor each; "tokens": a token tree; "clones": two copies of every state, between which chance
    decides: transitions are random, and all successors have the same value. "dirichlet" and "garnet": random transitions;
    "noisy": deterministic with probability 0.9, else uniform.
    """
    n, family = point["size"], point["family"]
    if family == "tokens":
        tree = token_tree(vocabulary=n, length=min(n, 3), rng=rng)
        mdp = tree.mdp.to_tabular()
        return mdp, _floored(tree.pi_ref)
    if family == "clones":
        base, ref = _deterministic(n, rng), _reference(n, n, n, rng)
        share = rng.uniform(0.1, 0.9, size=(n, 2 * n, n, n))
        P = np.repeat(np.asarray(base.P), 2, axis=1)
        P = np.stack([P * share, P * (1.0 - share)], axis=-1).reshape(n, 2 * n, n, 2 * n)
        return MDP(P, np.repeat(base.r, 2, axis=1), np.repeat(base.mu0, 2) / 2.0), np.repeat(ref, 2, axis=1)
    if family == "dirichlet":
        mdp = families.random_mdp(S=n, A=n, H=n, rng=rng)
    elif family == "garnet":
        mdp = families.garnet(S=n, A=n, H=n, rng=rng, branching=2)
    else:
        mdp = _deterministic(n, rng)
        if family == "noisy":
            mdp = MDP(0.9 * np.asarray(mdp.P) + 0.1 / n, mdp.r, mdp.mu0)
    return mdp, _reference(mdp.H, mdp.S, mdp.A, rng)


def _deterministic(n: int, rng: np.random.Generator) -> MDP:
    return families.random_deterministic(S=n, A=n, H=n, rng=rng)


def _reference(H: int, S: int, A: int, rng: np.random.Generator) -> FloatArray:
    return _floored(rng.dirichlet(np.ones(A), size=(H, S)))


def _floored(pi: FloatArray) -> FloatArray:
    pi = np.maximum(pi, FLOOR)
    return pi / pi.sum(axis=-1, keepdims=True)


def random_policy(like: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A policy of the shape and support size of another, rows Dirichlet(1) kept above the floor."""
    return _floored(rng.dirichlet(np.ones(like.shape[-1]), size=like.shape[:-1]))


def rounding(mdp: MDP, pi_ref: FloatArray, beta: float) -> float:
    """64 float64 roundings of the largest sum over a trajectory: H (1 + max|r|) values, and H log-ratios times beta."""
    logs = 1.0 + float(np.abs(np.log(pi_ref)).max())
    return 64.0 * EPS * mdp.H * (mdp.H * float(np.abs(mdp.r).max()) + beta * logs)
