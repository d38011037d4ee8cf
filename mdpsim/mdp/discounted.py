"""Discounted tabular MDPs: records of read-only arrays.

In state s the action a earns r[s, a] and the next state is drawn from P[s, a]; what is earned t steps ahead counts gamma^t.
Everything is stationary, so no axis of stages: P [S, A, S], r [S, A]. Reference: Puterman (1994), chapter 6.
"""

from __future__ import annotations

from dataclasses import dataclass

from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_real, as_simplex, fail
from mdpsim.mdp.absorbing import absorbing
from mdpsim.mdp.rewards import as_rewards
from mdpsim.mdp.successors import Successors
from mdpsim.records import record


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class DiscountedMDP:
    """An infinite-horizon MDP with discounting, and dense or sparse transition probabilities.

    Args:
        P: [S, A, S] transition probabilities; or Successors of one stage, [1, S, A, K].
        r: [S, A] rewards, any finite real numbers; or rewards of transitions, [S, A, S] or, for Successors, [S, A, K] along
            next_state, of which the mean is kept: all that values depend on, and nothing samples from this record.
        gamma: discount in [0, 1).
        terminal: states that end an episode, as numbers or as a mask [S]: whatever P and r hold there, every action leads back
            to the state and earns 0.
    Rows that do not sum to one within 1e-9 are an error; the others are renormalised. Input is copied, but for read-only
    C-contiguous float64 arrays in memory of their own, which nobody can write: they are shared.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    P: FloatArray | Successors
    r: FloatArray
    gamma: float

    def __init__(
        self, P: ArrayLike | Successors, r: ArrayLike, gamma: float, *, terminal: ArrayLike | None = None
    ) -> None:
        if terminal is not None:
            P, r = absorbing("DiscountedMDP", P, r, terminal, staged=False)
        if isinstance(P, Successors):
            p = P
            if P.shape[0] != 1:
                fail("DiscountedMDP", "P", "have one stage, [1, S, A, K]", P.shape)
        else:
            p = as_simplex("DiscountedMDP", "P", P, "S A S", (None, None, None))
            if p.shape[2] != p.shape[0]:
                fail("DiscountedMDP", "P", "have as many next states as states, [S, A, S]", p.shape)
        rewards, _ = as_rewards("DiscountedMDP", r, p, staged=False)
        discount = as_real("DiscountedMDP", "gamma", gamma, 0.0, 1.0)
        if discount == 1.0:
            fail("DiscountedMDP", "gamma", "be below 1 (without discounting, use a horizon: mdpsim.MDP)", discount)
        for name, value in (("P", p), ("r", rewards), ("gamma", discount)):
            object.__setattr__(self, name, value)

    @property
    def S(self) -> int:
        """Number of states."""
        return self.r.shape[0]

    @property
    def A(self) -> int:
        """Number of actions."""
        return self.r.shape[1]

    def __repr__(self) -> str:
        sparse = f", {self.P.shape[3]} successors" if isinstance(self.P, Successors) else ""
        return f"DiscountedMDP(S={self.S}, A={self.A}, gamma={self.gamma:g}{sparse})"
