"""Random MDPs and policies of every kind the solvers must stand: records built from a seed, nothing solved here."""

from __future__ import annotations

import numpy as np

from mdpsim.mdp.tabular import MDP

REFERENCES = ("dirichlet", "zeros", "tiny", "deterministic", "spread")


def mdp(rng, H, S, A, *, scale=1.0, kernel="dirichlet", stationary=False, start="dirichlet"):
    """MDP with rewards in scale * [-0.3, 1] and a dirichlet or deterministic kernel."""
    n = 1 if stationary else H
    spread = kernel == "dirichlet"
    P = rng.dirichlet(np.ones(S), size=(n, S, A)) if spread else np.eye(S)[rng.integers(S, size=(n, S, A))]
    mu0 = rng.dirichlet(np.ones(S)) if start == "dirichlet" else np.eye(S)[0]
    return MDP(P, scale * rng.uniform(-0.3, 1.0, size=(n, S, A)), mu0, horizon=H)


def policy(rng, H, S, A, kind="dirichlet"):
    """[H, S, A]: dirichlet rows; with zeros; with entries of 1e-300; one action a row; spread over 300 decades."""
    pi = rng.dirichlet(np.ones(A), size=(H, S))
    if kind == "deterministic":
        return np.eye(A)[rng.integers(A, size=(H, S))]
    if kind == "spread":
        pi = 10.0 ** rng.uniform(-300, 0, size=(H, S, A))
    if kind in ("zeros", "tiny"):
        hit = rng.uniform(size=pi.shape) < 0.5
        np.put_along_axis(hit, rng.integers(A, size=(H, S, 1)), False, axis=-1)
        pi[hit] = 0.0 if kind == "zeros" else 1e-300
    return pi / pi.sum(axis=-1, keepdims=True)
