"""States that end an episode: every action leads back to the state and earns 0, whatever the tables hold there.

An MDP with a horizon has no end but the last stage. An episode that ends before it stays in an absorbing state, worth 0: what
it earned on the way in is the reward of the action that led there. Tables of other packages have rows of zeros, or nothing that
means anything, in such states; here they are written over before anything is checked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import IntArray, as_integers, as_numbers, fail, frozen
from mdpsim.mdp.successors import Successors


def absorbing(
    function: str, P: ArrayLike | Successors, r: ArrayLike, terminal: ArrayLike, *, staged: bool
) -> tuple[ArrayLike | Successors, ArrayLike]:
    """(P, r) with the rows of terminal states made absorbing; what has a wrong shape is left to the guards of the record.

    Args:
        P: [H or 1, S, A, S], or Successors; [S, A, S] where not ``staged``.
        r: means or rewards of transitions, as ``as_rewards`` takes them.
        terminal: states, as numbers in [0, S) or as a mask [S] of bools.
    Cost: a copy of P and r.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    axis = 1 if staged else 0
    if isinstance(P, Successors):
        states = _states(function, terminal, P.shape[1])
        ids, prob = np.array(P.next_state), np.array(P.prob)
        ids[:, states], prob[:, states] = states[:, None, None], np.arange(P.shape[3]) == 0
        n_states, P = P.shape[1], Successors(frozen(ids), frozen(prob))
    else:
        rows = np.array(as_numbers(function, "P", P))
        if rows.ndim != axis + 3 or 0 in rows.shape or rows.shape[axis] != rows.shape[-1]:
            return P, r
        n_states = rows.shape[-1]
        states = _states(function, terminal, n_states)
        rows[(slice(None),) * axis + (states,)] = np.eye(n_states)[states][:, None]
        P = frozen(rows)
    rewards = np.array(as_numbers(function, "r", r))
    if rewards.ndim in (axis + 2, axis + 3) and rewards.shape[axis] == n_states:
        rewards[(slice(None),) * axis + (states,)] = 0.0
        r = frozen(rewards)
    return P, r


def _states(function: str, terminal: ArrayLike, n_states: int) -> IntArray:
    """The states named, as numbers."""
    try:
        given = np.asanyarray(terminal)
    except Exception:  # the guard says so
        given = np.zeros(1)
    if given.dtype == bool and not isinstance(given, np.ma.MaskedArray):
        if given.shape != (n_states,):
            fail(function, "terminal", f"have shape [S] = ({n_states},) where it is a mask", given.shape)
        return np.flatnonzero(given)
    if given.shape == (0,):
        return np.zeros(0, np.int64)
    return as_integers(function, "terminal", terminal, "k", (None,), n_states)
