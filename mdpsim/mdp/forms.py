"""The representations of an MDP, and the kernels that read each: the one place where a record's type decides anything.

Each representation has kernels of the same names, which take the arrays of its dynamics first and do the same work:

==================  =====================  ====================================================
record              dynamics               kernels
==================  =====================  ====================================================
MDP                 P                      bellman, evaluate, rollout
MDP of Successors   next_state, prob       successors
LinearMDP           phi, mu                linear
DiscountedMDP       P                      discounted
.. of Successors    next_state, prob       successors
==================  =====================  ====================================================

A new representation is a record, a kernel module with these names, and a row here.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdpsim.arrays import FloatArray, fail, frozen
from mdpsim.kernels import bellman, discounted, evaluate, linear, rollout, successors
from mdpsim.mdp.discounted import DiscountedMDP
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.mdp.token import TokenMDP

AnyMDP = MDP | LinearMDP | TokenMDP
NO_REWARDS = frozen(np.empty((0, 0, 0, 0)))


class Form(NamedTuple):
    """How the kernels see a record.

    solve: module of soft_induction and hard_induction(*dynamics, reward, ..).
    value: module of policy_values(*dynamics, reward, ..), ruin and occupancy(*dynamics, ..).
    roll: module of roll_episodes(*dynamics, *paid, ..) and roll_counts(*dynamics, ..).
    dynamics: arrays of the transitions.
    reward: array of the rewards, or of their means.
    paid: arrays of the rewards that episodes are paid: ``reward``, and those of transitions (of size 0 where there are none).
    rows: those of the dynamics that hold probability rows, from which sampling draws.
    shape: (H, S, A).
    mu0: [S] law of the first state.
    forbidden: None, or the mask [H or 1, S, A] of forbidden actions, whose ``reward`` is 0 here: callers keep policies off.
    """

    solve: ModuleType
    value: ModuleType
    roll: ModuleType
    dynamics: tuple[np.ndarray, ...]
    reward: FloatArray
    paid: tuple[FloatArray, ...]
    rows: tuple[FloatArray, ...]
    shape: tuple[int, int, int]
    mu0: FloatArray
    forbidden: NDArray[np.bool_] | None = None


def form(function: str, mdp: Any, *, forbids: bool = False) -> Form:
    """The form of a record; ``function`` is who asks, ``forbids`` whether it reads ``Form.forbidden``.

    Raises:
        ValueError: anything but an MDP, a LinearMDP or a TokenMDP; forbidden actions, where the function does not know of them.
    """
    if isinstance(mdp, TokenMDP):
        mdp = mdp.tabular
    if isinstance(mdp, MDP):
        p = mdp.P
        _, n_states, n_actions, _ = p.shape
        shape, r, lost = (mdp.horizon, n_states, n_actions), mdp.r, mdp.forbidden
        if lost is not None:
            if not forbids:
                known = "solve_soft, solve_hard, evaluate and the samplers know them"
                fail(function, "mdp", f"have no forbidden actions (rewards of -inf; {known})", f"{int(lost.sum())} of them")
            r = frozen(np.where(lost, 0.0, r))
        if isinstance(p, Successors):
            dynamics = (p.next_state, p.prob)
            return Form(successors, successors, successors, dynamics, r, (r, by_next(mdp)), (p.prob,), shape, mdp.mu0, lost)
        return Form(bellman, evaluate, rollout, (p,), r, (r, by_next(mdp)), (p,), shape, mdp.mu0, lost)
    if isinstance(mdp, LinearMDP):
        dynamics, shape = (mdp.phi, mdp.mu), (mdp.H, mdp.S, mdp.A)
        return Form(linear, linear, linear, dynamics, mdp.theta, (mdp.theta,), dynamics, shape, mdp.mu0)
    fail(function, "mdp", "be an mdpsim.MDP, LinearMDP or TokenMDP", type(mdp).__name__)


def by_next(mdp: MDP) -> FloatArray:
    """Rewards of transitions as kernels take them: [H or 1, S, A, S or K], or of size 0 where there are none."""
    return NO_REWARDS if mdp.r_next is None else mdp.r_next


def discounted_form(function: str, mdp: Any) -> tuple[ModuleType, tuple[np.ndarray, ...], int]:
    """(module of value_iteration(*dynamics, ..), dynamics of the one stage, products in a backup) of a DiscountedMDP.

    Raises:
        ValueError: anything but a DiscountedMDP.
    """
    if not isinstance(mdp, DiscountedMDP):
        fail(function, "mdp", "be an mdpsim.DiscountedMDP", type(mdp).__name__)
    if isinstance(mdp.P, Successors):
        return successors, (mdp.P.next_state[0], mdp.P.prob[0]), mdp.P.shape[3]
    return discounted, (mdp.P,), mdp.S
