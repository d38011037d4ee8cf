"""Policies as arguments: [H, S, A], or a stationary one, [S, A] or [1, S, A], which stands for the same rows at every stage.

The number of axes says which of the two was meant, never the sizes (H may equal S): two axes are a stationary policy, three one
of stages. What kernels, and callers, get is always [H, S, A]. A policy that acts may play no action that its MDP forbids.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdpsim.arrays import FloatArray, as_simplex, fail, frozen


def as_policy(function: str, argument: str, pi: ArrayLike, shape: tuple[int, int, int]) -> FloatArray:
    """Guard a policy of an MDP of ``shape`` (H, S, A): [H, S, A], or [S, A] or [1, S, A] for every stage.

    Returns:
        [H, S, A], read-only and C-contiguous. Cost: one pass; a stationary policy is repeated H times.
    Raises:
        ValueError: as :func:`mdpsim.arrays.as_simplex`.
    """
    _, n_states, n_actions = shape
    sizes = _sizes(pi)
    if len(sizes) == 2:
        rows = as_simplex(function, argument, pi, "S A", (n_states, n_actions))
    elif len(sizes) == 3 and sizes[0] == 1:
        rows = as_simplex(function, argument, pi, "1 S A", (1, n_states, n_actions))
    else:
        return as_simplex(function, argument, pi, "H S A", shape)
    return frozen(np.ascontiguousarray(np.broadcast_to(rows, shape)))


def check_allowed(function: str, argument: str, pi: FloatArray, forbidden: NDArray[np.bool_] | None) -> None:
    """Refuse a guarded policy that may play a forbidden action, in whatever state: its value has no meaning there.

    Args:
        pi: [H, S, A]. forbidden: [H or 1, S, A], or None.
    Raises:
        ValueError: naming the first (h, s, a).
    """
    if forbidden is None:
        return
    plays = (pi > 0.0) & forbidden
    if plays.any():
        h, s, a = (int(i) for i in np.unravel_index(plays.argmax(), plays.shape))
        got = f"{pi[h, s, a]:.6g} at (h, s, a) = ({h}, {s}, {a}), where r is -inf"
        fail(function, argument, "play no forbidden action (set it to 0 there, and renormalise)", got)


def _sizes(pi: ArrayLike) -> tuple[int, ...]:
    """The shape; () for what is no array."""
    try:
        return np.shape(pi)
    except Exception:  # a ragged sequence, a tensor on a GPU: the guard says so
        return ()
