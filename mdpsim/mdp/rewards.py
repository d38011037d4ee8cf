"""Rewards as the records hold them: the mean of a state and an action, and what the transition makes of it.

A reward may depend on the next state, r(s, a, s'). Values read only its mean,

    r(s, a) = sum_{s'} P(s' | s, a) r(s, a, s'),

but what is observed is the reward of the transition: samplers draw r(s, a, s') for the s' they drew. The number of axes of what
the user gives says which of the two it is, never its sizes (A may equal S).

A mean of -inf forbids the action (MDP only). Every state has an action that is allowed, so optimal values are finite.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_floats, as_numbers, axes_of, fail, frozen
from mdpsim.kernels import checks
from mdpsim.mdp.successors import Successors


def as_rewards(
    function: str, r: ArrayLike, P: FloatArray | Successors, *, staged: bool
) -> tuple[FloatArray, FloatArray | None]:
    """(means, rewards of transitions or None where no reward depends on the next state), both read-only.

    Args:
        r: [H or 1, S, A] means, or [H or 1, S, A, S] rewards of transitions, for Successors [H or 1, S, A, K], where
            entry k belongs to next_state[.., k]; without the first axis where not ``staged``. Finite, whatever P is there; what
            it says of transitions of probability 0 does not count. Means may be -inf where ``staged``.
        P: guarded transitions, [H or 1, S, A, S] or Successors; [S, A, S] where not ``staged``.
    Exactness: means to a few ulp of max |r|; a mean lies between the rewards it is of.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    axes, sizes = ("H S A" if staged else "S A"), ((None,) if staged else ()) + P.shape[-3:-1]
    means_only = axes_of(r) != len(sizes) + 1
    if _forbids(r):
        if staged and means_only:
            return _with_forbidden(function, r, axes, sizes), None
        hint = "-inf (an action is forbidden by the r [H, S, A] of an MDP, or through from_matrices)"
        fail(function, "r", "be finite", hint)
    if means_only:
        return as_floats(function, "r", r, axes, sizes), None
    last = "K" if isinstance(P, Successors) else "S'"
    given = as_floats(function, "r", r, f"{axes} {last}", (*sizes, P.shape[-1]))
    prob = P.prob if isinstance(P, Successors) else P if staged else P[None]
    paid = given if staged else given[None]
    if len(prob) > 1 and len(paid) not in (1, len(prob)):
        fail(function, "r", f"have 1 or H = {len(prob)} stages", len(paid))
    means = np.empty((max(len(prob), len(paid)), *P.shape[-3:-1]))
    differs = checks.expectation(prob, paid, means)
    return frozen(means if staged else means[0]), given if differs else None


def _forbids(r: ArrayLike) -> bool:
    """Whether -inf is among the rewards."""
    try:
        a = np.asarray(r)
        a = a[tuple(slice(1) if step == 0 else slice(None) for step in a.strides)]  # a view may repeat one number for ever
        return a.dtype.kind == "f" and a.size > 0 and bool(a.min() == -np.inf)  # NaN is found by the guard
    except Exception:  # no array: the guard says so
        return False


def _with_forbidden(function: str, r: ArrayLike, axes: str, sizes: tuple[int | None, ...]) -> FloatArray:
    """Guard means [H or 1, S, A] among which -inf forbids an action."""
    given = as_numbers(function, "r", r)
    lost = np.isneginf(given)
    as_floats(function, "r", np.where(lost, 0.0, given), axes, sizes)  # the shape, and all that is not -inf
    none = lost.all(axis=-1)
    if none.any():
        h, s = (int(i) for i in np.unravel_index(none.argmax(), none.shape))
        fail(function, "r", "leave every state an action that is allowed (-inf forbids one)", f"none at (h, s) = ({h}, {s})")
    return given
