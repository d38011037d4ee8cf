"""Finite-horizon tabular MDPs: records of read-only arrays.

An episode starts at s_0 ~ mu0; at stage h = 0 .. H-1 the action a_h ~ pi_h(. | s_h) earns r[h, s_h, a_h] and the next
state is s_{h+1} ~ P[h, s_h, a_h]. A stationary MDP stores one stage and a horizon; nothing is ever copied H times.
Rewards may depend on the next state too: values read their mean, samplers draw them (mdpsim/mdp/rewards.py). A reward of -inf
forbids an action; states may be named that end an episode.
References: Puterman (1994), chapter 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdpsim.arrays import FloatArray, as_count, as_simplex, fail, frozen
from mdpsim.mdp.absorbing import absorbing
from mdpsim.mdp.rewards import as_rewards
from mdpsim.mdp.successors import Successors
from mdpsim.records import record


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class MDP:
    """A finite-horizon MDP with dense or sparse transition probabilities.

    Args:
        P: [H, S, A, S] transition probabilities, or [1, S, A, S] for stationary dynamics; or Successors.
        r: [H, S, A] or [1, S, A] rewards, any finite real numbers; or, with one axis more, rewards of transitions:
            [H or 1, S, A, S], for Successors [H or 1, S, A, K] along next_state. What stands where P is 0 does not count.
            Means may be -inf: that forbids the action, in every state but one action is left; its row of P is any law.
        mu0: [S] law of the first state.
        horizon: number of stages H; needed where P and r are both stationary (else 1), optional elsewhere.
        terminal: states that end an episode, as numbers or as a mask [S]: whatever P and r hold there, zeros or NaN, every
            action leads back to the state and earns 0. What is earned on the way in is the reward of the action that led there.
    Rows that do not sum to one within 1e-9 are an error; the others are renormalised. Input is copied, but for read-only
    C-contiguous float64 arrays in memory of their own, which nobody can write: they are shared.
    The field ``r`` is always the mean, [H or 1, S, A]: what every value function reads. The field ``r_next`` holds the rewards
    of transitions as they were given, None where no reward depends on the next state: ``sample``, ``sample_preferences``,
    learners that observe rewards and ``to_gymnasium`` draw from it.
    The field ``forbidden`` is the mask [H or 1, S, A] of what r = -inf forbids, None where nothing is: ``solve_soft`` and
    ``solve_hard`` never choose it; ``evaluate``, ``occupancy``, ``trajectory_kl`` and the samplers refuse a policy that may
    play it, in whatever state; functions that know nothing of it refuse the MDP.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    P: FloatArray | Successors
    r: FloatArray
    mu0: FloatArray
    horizon: int
    r_next: FloatArray | None
    forbidden: NDArray[np.bool_] | None

    def __init__(
        self, P: ArrayLike | Successors, r: ArrayLike, mu0: ArrayLike, *, horizon: int | None = None,
        terminal: ArrayLike | None = None,
    ) -> None:
        if terminal is not None:
            P, r = absorbing("MDP", P, r, terminal, staged=True)
        p = P if isinstance(P, Successors) else as_simplex("MDP", "P", P, "H S A S", (None, None, None, None))
        n_stages, n_states, _, width = p.shape
        if not isinstance(p, Successors) and width != n_states:
            fail("MDP", "P", "have as many next states as states, [H, S, A, S]", p.shape)
        rewards, by_transition = as_rewards("MDP", r, p, staged=True)
        start = as_simplex("MDP", "mu0", mu0, "S", (n_states,))
        longest = max(n_stages, rewards.shape[0])
        stages = longest if horizon is None else as_count("MDP", "horizon", horizon)
        for name, n in (("P", n_stages), ("r", rewards.shape[0])):
            if n not in (1, stages):
                fail("MDP", name, f"have 1 or H = {stages} stages", n)
        lost = frozen(np.isneginf(rewards))
        fields = {"P": p, "r": rewards, "mu0": start, "horizon": stages, "r_next": by_transition,
                  "forbidden": lost if lost.any() else None}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def H(self) -> int:
        """Number of stages."""
        return self.horizon

    @property
    def S(self) -> int:
        """Number of states."""
        return self.P.shape[1]

    @property
    def A(self) -> int:
        """Number of actions."""
        return self.P.shape[2]

    def __repr__(self) -> str:
        kind = "stationary" if self.P.shape[0] == 1 and self.H > 1 else "staged"
        sparse = f", {self.P.shape[3]} successors" if isinstance(self.P, Successors) else ""
        paid = "" if self.r_next is None else ", rewards of transitions"
        barred = "" if self.forbidden is None else ", forbidden actions"
        return f"MDP(H={self.H}, S={self.S}, A={self.A}, {kind} dynamics{sparse}{paid}{barred})"
