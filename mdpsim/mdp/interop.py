"""MDPs as users of other packages hold them: the matrices of pymdptoolbox and of QuantEcon's DiscreteDP.

==============================  =========================================  ===============================================
layout                          transitions                                rewards
==============================  =========================================  ===============================================
"mdptoolbox"                    [A, S, S], or A matrices [S, S] in a        [S], [S, A], or like the transitions (a reward
                                sequence, dense or scipy.sparse            for each (a, s, s'))
"quantecon"                     [S, A, S]                                  [S, A]; -inf where an action is infeasible
"quantecon", pairs              [L, S], dense or scipy.sparse, row l for   [L]
                                the pair (s_indices[l], a_indices[l])
==============================  =========================================  ===============================================

A reward for each transition is kept as such: values read its mean, samplers draw it. The rewards that come out are finite (an
MDP of one's own may hold -inf, which not every function reads): an infeasible action is forbidden by the reference policy that
comes with the MDP; and it is stored as a copy of the first feasible action of its state, so that the hard optimal values are
right without the reference too.
References: the documentation of mdptoolbox.mdp.MDP (pymdptoolbox 4.0) and quantecon.markov.DiscreteDP (QuantEcon.py 0.8).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_count, as_integers, as_numbers, fail, frozen
from mdpsim.mdp.discounted import DiscountedMDP
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.records import record

LAYOUTS = ("mdptoolbox", "quantecon")


@record
class Imported(NamedTuple):
    """An MDP and the policy that forbids what it forbids.

    mdp: a DiscountedMDP where gamma was given, an MDP where horizon was.
    pi_ref: [S, A], or [H, S, A] with a horizon: uniform over the feasible actions of each state, 0 elsewhere.
    """

    mdp: MDP | DiscountedMDP
    pi_ref: FloatArray


class _Rows(NamedTuple):
    """What every layout becomes: rows of transitions [L, S], their rewards, and the row of each (s, a), -1 for none.

    rewards: [L], -inf where a row is infeasible; or, like the transitions dense or sparse, [L, S].
    """

    transitions: Any
    rewards: Any
    row_of: np.ndarray


def from_matrices(
    P: Any, r: Any, *, gamma: float | None = None, horizon: int | None = None, mu0: ArrayLike | None = None,
    s_indices: ArrayLike | None = None, a_indices: ArrayLike | None = None, layout: str | None = None,
) -> Imported:
    """An MDP from the matrices of pymdptoolbox or QuantEcon (the table above).

    Args:
        P: transitions in one of the layouts.
        r: rewards in the same layout.
        gamma: discount in [0, 1), for a DiscountedMDP; exactly one of gamma and horizon is given.
        horizon: number of stages, for an MDP with stationary dynamics.
        mu0: [S] law of the first state; needed with a horizon.
        s_indices: [L] states of the pairs, in the layout of pairs.
        a_indices: [L] their actions; each pair occurs once, and every state has at least one.
        layout: "mdptoolbox" or "quantecon"; needed only for an array [S, S, S], where A = S and both would fit.
    Returns:
        Imported: mdp, with Successors where the matrices were scipy.sparse; pi_ref [S, A] or [H, S, A].
    Cost: O(S^2 A), or the number of entries.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    if (gamma is None) == (horizon is None):
        fail("from_matrices", "gamma or horizon", "be given, and not both", f"gamma = {gamma}, horizon = {horizon}")
    if (mu0 is None) != (horizon is None):
        fail("from_matrices", "mu0", "be given with a horizon, and only there", mu0)
    rows = _read(P, r, s_indices, a_indices, layout)
    feasible = rows.row_of >= 0
    if rows.rewards.ndim == 1 and np.isneginf(rows.rewards).any():
        feasible &= ~np.isneginf(rows.rewards)[rows.row_of]
    if not feasible.any(axis=1).all():
        state = int(np.argmin(feasible.any(axis=1)))
        fail("from_matrices", "r", "leave every state a feasible action", f"none in state {state}")
    first = np.take_along_axis(rows.row_of, feasible.argmax(axis=1)[:, None], axis=1)
    chosen = np.where(feasible, rows.row_of, first)
    transitions = _tensor(rows.transitions, chosen)
    rewards = rows.rewards[chosen] if rows.rewards.ndim == 1 else _of_transitions(rows.rewards, transitions, chosen)
    pi_ref = feasible / feasible.sum(axis=1, keepdims=True)
    if gamma is not None:
        return Imported(DiscountedMDP(transitions, rewards, gamma), frozen(pi_ref))
    assert mu0 is not None
    stages = as_count("from_matrices", "horizon", horizon)
    staged = transitions if isinstance(transitions, Successors) else transitions[None]
    return Imported(MDP(staged, rewards[None], mu0, horizon=stages), frozen(np.array([pi_ref] * stages)))


def _read(P: Any, r: Any, s_indices: ArrayLike | None, a_indices: ArrayLike | None, layout: str | None) -> _Rows:
    """The rows of any layout."""
    if layout is not None and layout not in LAYOUTS:
        fail("from_matrices", "layout", f"be None or one of {', '.join(LAYOUTS)}", repr(layout))
    if s_indices is not None or a_indices is not None:
        return _pairs(P, r, s_indices, a_indices)
    if _is_sparse(P):
        fail("from_matrices", "P", "be one sparse matrix an action, or come with s_indices and a_indices", f"one, {P.shape}")
    if isinstance(P, list | tuple) and any(_is_sparse(x) for x in P):
        matrices: Any = list(P)
    elif _is_objects(P):
        matrices = list(P)
    else:
        matrices = _numbers("P", P)
        if _layout(matrices, layout) == "quantecon":
            n_states, n_actions, _ = matrices.shape
            rewards = _shaped("r", r, "S A", (n_states, n_actions))
            return _Rows(
                matrices.reshape(-1, n_states), rewards.reshape(-1), np.arange(rewards.size).reshape(n_states, n_actions)
            )
    return _by_action(matrices, r)


def _layout(P: np.ndarray, layout: str | None) -> str:
    """Which layout an array with three axes has."""
    if P.ndim != 3 or 0 in P.shape:
        fail("from_matrices", "P", "have shape [A, S, S] (pymdptoolbox) or [S, A, S] (QuantEcon)", P.shape)
    fits = [name for name, axis in (("mdptoolbox", 1), ("quantecon", 0)) if P.shape[axis] == P.shape[2]]
    if layout in fits or (layout is None and len(fits) == 1):
        return layout or fits[0]
    if layout is None and fits:
        fail("from_matrices", "layout", "be given, mdptoolbox or quantecon, where A = S and both would fit", f"P of {P.shape}")
    shapes = {"mdptoolbox": "[A, S, S]", "quantecon": "[S, A, S]", None: "[A, S, S] (pymdptoolbox) or [S, A, S] (QuantEcon)"}
    return fail("from_matrices", "P", f"have shape {shapes[layout]}", P.shape)


def _by_action(P: Any, r: Any) -> _Rows:
    """pymdptoolbox: one matrix [S, S] an action; row s A + a of the result is row s of matrix a."""
    matrices = [x.tocsr() if _is_sparse(x) else _numbers("P", x) for x in P]
    n_actions, n_states = len(matrices), matrices[0].shape[-1]
    for a, x in enumerate(matrices):
        if x.shape != (n_states, n_states):
            fail("from_matrices", "P", f"hold matrices [S, S] = ({n_states}, {n_states})", f"{x.shape} for action {a}")
    row_of = np.arange(n_states * n_actions).reshape(n_states, n_actions)
    order = (np.arange(n_actions) * n_states + np.arange(n_states)[:, None]).reshape(-1)
    transitions = _stacked(matrices)[order]
    if _is_objects(r) or _is_sparse(r) or (isinstance(r, list | tuple) and any(_is_sparse(x) for x in r)):
        return _Rows(transitions, _rewards(matrices, list(r) if not _is_sparse(r) else [r])[order], row_of)
    given = _numbers("r", r)
    if given.ndim == 3:
        return _Rows(transitions, _rewards(matrices, list(given))[order], row_of)
    if given.shape not in ((n_states,), (n_states, n_actions)):
        wanted = f"have shape [S] = ({n_states},), [S, A] = ({n_states}, {n_actions}) or [A, S, S]"
        fail("from_matrices", "r", wanted, given.shape)
    if not np.isfinite(given).all():
        fail("from_matrices", "r", "be finite (-inf for an infeasible action is QuantEcon's)", "NaN or infinity")
    return _Rows(transitions, np.array(np.broadcast_to(given.reshape(n_states, -1), row_of.shape)).reshape(-1), row_of)


def _stacked(matrices: list[Any]) -> Any:
    """Matrices one above the other: dense, or a csr_array where one of them is sparse."""
    if not any(_is_sparse(x) for x in matrices):
        return np.concatenate(matrices)
    from scipy import sparse

    return sparse.vstack([sparse.csr_array(x) for x in matrices], format="csr")


def _rewards(matrices: list[Any], r: list[Any]) -> Any:
    """A reward for each transition, from a matrix an action: guarded, stacked; where sparse, each entry once and in order."""
    given: list[Any] = [x.tocsr() if _is_sparse(x) else _numbers("r", x) for x in r]
    wanted = [x.shape for x in matrices]
    if [x.shape for x in given] != wanted:
        got = f"{len(given)} of {given[0].shape}" if given else "none"
        fail("from_matrices", "r", f"hold {len(wanted)} matrices [S, S] = {wanted[0]}, one an action", got)
    for x in given:
        if not np.isfinite(x.data if _is_sparse(x) else x).all():
            fail("from_matrices", "r", "be finite where it depends on the next state", "NaN or infinity")
    stacked = _stacked(given)
    if _is_sparse(stacked):
        stacked.sum_duplicates()
    return stacked


def _of_transitions(rewards: Any, transitions: FloatArray | Successors, chosen: np.ndarray) -> FloatArray:
    """Rewards [L, S] as they stand beside the transitions: [S, A, S], or [S, A, K] along the successors."""
    if isinstance(transitions, Successors):
        ids = transitions.next_state[0]
        return frozen(_entries(rewards, np.broadcast_to(chosen[..., None], ids.shape), ids))
    return frozen((rewards.toarray() if _is_sparse(rewards) else rewards)[chosen])


def _entries(x: Any, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """x[rows, columns] of a dense matrix, or of a csr_array as ``_rewards`` makes it."""
    if not _is_sparse(x):
        return x[rows, columns]
    width = x.shape[1]
    keys = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr)) * width + x.indices
    wanted = rows * width + columns
    place = np.minimum(np.searchsorted(keys, wanted), max(keys.size - 1, 0))
    return np.where(keys[place] == wanted, x.data[place], 0.0) if keys.size else np.zeros(wanted.shape)


def _pairs(P: Any, r: Any, s_indices: ArrayLike | None, a_indices: ArrayLike | None) -> _Rows:
    """QuantEcon's pairs of states and actions."""
    if s_indices is None or a_indices is None:
        fail("from_matrices", "s_indices and a_indices", "be given together", "a_indices" if s_indices is None else "s_indices")
    transitions = P.tocsr() if _is_sparse(P) else _numbers("P", P)
    if transitions.ndim != 2 or 0 in transitions.shape:
        fail("from_matrices", "P", "have shape [L, S], a row for each pair", transitions.shape)
    n_pairs, n_states = transitions.shape
    rewards = _shaped("r", r, "L", (n_pairs,))
    states = as_integers("from_matrices", "s_indices", s_indices, "L", (n_pairs,), n_states)
    actions = as_integers("from_matrices", "a_indices", a_indices, "L", (n_pairs,), 2**31)
    row_of = np.full((n_states, int(actions.max()) + 1), -1)
    row_of[states, actions] = np.arange(n_pairs)
    twice = np.flatnonzero(row_of[states, actions] != np.arange(n_pairs))
    if twice.size:
        pair = (int(states[twice[0]]), int(actions[twice[0]]))
        fail("from_matrices", "s_indices", "name each pair (s, a) once, with a_indices", f"{pair} twice")
    return _Rows(transitions, rewards, row_of)


def _tensor(transitions: Any, chosen: np.ndarray) -> FloatArray | Successors:
    """P [S, A, S] or Successors [1, S, A, K] from the row of each (s, a)."""
    if _is_sparse(transitions):
        return Successors.from_csr(transitions[chosen.reshape(-1)])
    return frozen(transitions[chosen])


def _is_objects(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype == object and x.ndim == 1  # pymdptoolbox's other way to hold one an action


def _is_sparse(x: Any) -> bool:
    return hasattr(x, "tocsr")  # anything like scipy's: no need to import it for that


def _numbers(argument: str, x: Any) -> np.ndarray:
    """A float64 array of any shape; its values are guarded later."""
    return as_numbers("from_matrices", argument, x, "be an array, or one matrix an action")


def _shaped(argument: str, x: Any, axes: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array of numbers of one shape, finite or -inf."""
    a = _numbers(argument, x.toarray() if _is_sparse(x) else x)
    if a.shape != shape:
        fail("from_matrices", argument, f"have shape [{', '.join(axes.split())}] = {shape}", a.shape)
    if not (np.isfinite(a) | np.isneginf(a)).all():
        fail("from_matrices", argument, "be finite, or -inf where an action is infeasible", "NaN or infinity")
    return a
