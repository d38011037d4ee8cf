"""Linear MDPs of the simplex kind: dynamics and rewards linear in d known features, never stored as a matrix [S, A, S].

    P_h(s' | s, a) = sum_j phi[s, a, j] mu[h, j, s'],   r_h(s, a) = sum_j phi[s, a, j] theta[h, j]

The family is defined by two simplices: every phi[s, a] is a probability vector over the d features, and every mu[h, j] one
over the states. That makes every row of phi mu a probability vector, with two cheap checks (a general linear MDP would need
one of each of the S A rows), and a transition a mixture: draw a feature, then a state from the feature's law. Values need
O(S A d + d S) work a stage: Q_h = phi (theta_h + mu_h V_{h+1}).
Reference: Jin, Yang, Wang and Jordan, "Provably efficient reinforcement learning with linear function approximation", COLT
2020, assumption A and example 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_count, as_floats, as_simplex, fail, frozen
from mdpsim.mdp.tabular import MDP
from mdpsim.records import record


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class LinearMDP:
    """A finite-horizon linear MDP on the simplex; every exact function and both samplers accept it as it is.

    Args:
        phi: [S, A, d] features; every row a probability vector (the family's definition, see the module).
        mu: [H, d, S] laws of the next state, one a feature; [1, d, S] for stationary dynamics.
        theta: [H, d] or [1, d] rewards of the features, any finite real numbers.
        mu0: [S] law of the first state.
        horizon: number of stages H; needed where mu and theta are both stationary (else 1), optional elsewhere.
    Rows that do not sum to one within 1e-9 are an error; the others are renormalised. Input is copied, but for read-only
    C-contiguous float64 arrays in memory of their own, which nobody can write: they are shared. Cost: one read of phi and mu.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    phi: FloatArray
    mu: FloatArray
    theta: FloatArray
    mu0: FloatArray
    horizon: int

    def __init__(
        self, phi: ArrayLike, mu: ArrayLike, theta: ArrayLike, mu0: ArrayLike, *, horizon: int | None = None
    ) -> None:
        features = as_simplex("LinearMDP", "phi", phi, "S A d", (None, None, None))
        n_states, _, d = features.shape
        laws = as_simplex("LinearMDP", "mu", mu, "H d S", (None, d, n_states))
        rewards = as_floats("LinearMDP", "theta", theta, "H d", (None, d))
        start = as_simplex("LinearMDP", "mu0", mu0, "S", (n_states,))
        longest = max(laws.shape[0], rewards.shape[0])
        stages = longest if horizon is None else as_count("LinearMDP", "horizon", horizon)
        for name, x in (("mu", laws), ("theta", rewards)):
            if x.shape[0] not in (1, stages):
                fail("LinearMDP", name, f"have 1 or H = {stages} stages", x.shape[0])
        for name, value in (("phi", features), ("mu", laws), ("theta", rewards), ("mu0", start), ("horizon", stages)):
            object.__setattr__(self, name, value)

    @property
    def H(self) -> int:
        """Number of stages."""
        return self.horizon

    @property
    def S(self) -> int:
        """Number of states."""
        return self.phi.shape[0]

    @property
    def A(self) -> int:
        """Number of actions."""
        return self.phi.shape[1]

    @property
    def d(self) -> int:
        """Number of features."""
        return self.phi.shape[2]

    def to_tabular(self) -> MDP:
        """The same MDP with dense transitions [H or 1, S, A, S]. Cost: O(H S^2 A d) time, O(H S^2 A) memory."""
        P = np.matmul(self.phi.reshape(1, -1, self.d), self.mu).reshape(-1, self.S, self.A, self.S)
        r = np.moveaxis(self.phi @ self.theta.T, -1, 0)
        return MDP(frozen(P), r, self.mu0, horizon=self.H)

    def __repr__(self) -> str:
        kind = "stationary" if self.mu.shape[0] == 1 and self.H > 1 else "staged"
        return f"LinearMDP(H={self.H}, S={self.S}, A={self.A}, d={self.d}, {kind} dynamics)"
