"""Many KL-regularised optima in one call: rewards and weights that share an MDP, and many MDPs of one shape.

Sweeps over beta, rewards, instances and seeds are what theorists run most. ``solve_soft_batch`` turns the B matrix-vector
products of a stage into one matrix product, so that P is read once and not B times; ``solve_soft_many`` divides instances among
threads. Both agree with ``solve_soft`` called one by one within its own accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_floats, as_numbers, as_simplex, axes_of, fail, frozen
from mdpsim.kernels import batch, bellman
from mdpsim.mdp.forms import AnyMDP, Form, form
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.policies import as_policy
from mdpsim.mdp.tabular import MDP
from mdpsim.memory import empty
from mdpsim.solve.exact import Solution

TINY = 1e-300  # below, 1 / beta and what it multiplies may leave float64
FEW = 4  # fewer elements are solved one by one: the loops over the batch would be too short
LARGE_BYTES = 2**17  # an instance whose transitions take more is not copied into a stack: that costs as much as solving it
BLOCK_BYTES = 2**26  # instances are stacked at most this many bytes at a time
THREAD_BYTES = 2**24  # below this much work a parallel region costs more than it saves


def solve_soft_batch(mdp: AnyMDP, pi_ref: ArrayLike, beta: ArrayLike, r: ArrayLike | None = None) -> Solution:
    """KL-regularised optima of B rewards and/or weights that share transitions and reference.

    Implements: V[b, h, s] = beta[b] log sum_a pi_ref[h, s, a] exp(Q[b, h, s, a] / beta[b]), Q[b, h] = r[b, h] + P_h V[b, h+1].

    Args:
        mdp: H stages, S states, A actions.
        pi_ref: [H, S, A] reference policy, or [S, A] for every stage; the same for all.
        beta: a number or [B], each in [0, inf]; 0 and inf as in ``solve_soft``.
        r: [B, H or 1, S, A] rewards, or [H or 1, S, A] for all; None takes the MDP's. For a LinearMDP theta, [B, H or 1, d] or
            [H or 1, d].
    Returns:
        Solution with a leading axis: V [B, H+1, S], Q [B, H, S, A], pi [B, H, S, A], views of arrays in which the batch is the
            last axis. B = 1 where nothing has a batch axis.
    Exactness: each b as ``solve_soft`` alone, to its accuracy; bitwise independent of the number of threads (one computes).
        Dense transitions: the last bits may depend on B, for a matrix product of another size may add in another order.
    Cost: dense: one matrix product [B, S] x [S, S A] a stage. Sparse and linear: B solves, one after the other.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "solve_soft_batch"
    model = form(where, mdp)
    ref = as_policy(where, "pi_ref", pi_ref, model.shape)
    betas = _betas(where, beta)
    rewards = _rewards(where, mdp, model, r)
    n = max(betas.size, rewards.shape[0])
    for name, size in (("beta", betas.size), ("r", rewards.shape[0])):
        if size not in (1, n):
            fail(where, name, f"have 1 or B = {n} entries, as beta and r broadcast", size)
    betas = frozen(np.ascontiguousarray(np.broadcast_to(betas, n)))
    rewards = np.broadcast_to(rewards, (n, *rewards.shape[1:]))
    horizon, n_states, _ = model.shape
    V, Q, pi = empty((horizon + 1, n_states, n)), empty((*model.shape, n)), empty((*model.shape, n))
    together = _together(model, betas, rewards)
    fits = True
    if together.any():
        fits = _dense(model, ref, betas, rewards, together, V, Q, pi)
    for b in np.flatnonzero(~together):
        one = np.empty((horizon + 1, n_states)), np.empty(model.shape), np.empty(model.shape)
        fits = fits and _one(model, frozen(np.ascontiguousarray(rewards[b])), ref, float(betas[b]), *one)
        V[..., b], Q[..., b], pi[..., b] = one
    if not fits:
        fail(where, "r", "be rewards whose sums stay within float64", "values that overflow")
    return Solution(*(np.moveaxis(frozen(x), -1, 0) for x in (V, Q, pi)))


def solve_soft_many(mdps: Sequence[MDP], pi_ref: ArrayLike, beta: ArrayLike) -> Solution:
    """KL-regularised optima of many dense MDPs of one shape.

    Args:
        mdps: B MDPs with dense transitions and equal H, S, A; all staged or all stationary in P, and in r.
        pi_ref: [H, S, A] for all, or [S, A] for all and every stage, or [B, H, S, A].
        beta: a number or [B], each in [0, inf].
    Returns:
        Solution with a leading axis: V [B, H+1, S], Q [B, H, S, A], pi [B, H, S, A].
    Exactness: each as ``solve_soft`` alone, 1e-13 max|V|; the same bits whatever the number of threads
        (``numba.set_num_threads``). The last bits may depend on B: another compilation of the same loops solves a few.
    Cost: B times that of ``solve_soft``. Small instances (up to 128 KiB of transitions) are stacked, at most 64 MB at a time,
        and divided among threads where there is enough work (16 MB); large ones run one after the other.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "solve_soft_many"
    if not isinstance(mdps, Sequence) or not mdps:
        fail(where, "mdps", "be a sequence of one or more MDPs", repr(mdps) if not isinstance(mdps, Sequence) else "none")
    shapes = [_shapes(where, b, m) for b, m in enumerate(mdps)]
    for b, found in enumerate(shapes):
        if found != shapes[0]:
            fail(where, "mdps", f"have one shape (of P, of r, H), {shapes[0]}", f"{found} at {b}")
    n, horizon, (n_states, n_actions) = len(mdps), mdps[0].H, shapes[0][1][1:]
    shape = (horizon, n_states, n_actions)
    given = axes_of(pi_ref) == 4
    if given:
        ref = as_simplex(where, "pi_ref", pi_ref, "B H S A", (n, *shape))
    else:
        ref = as_policy(where, "pi_ref", pi_ref, shape)[None]
    betas = _betas(where, beta)
    if betas.size not in (1, n):
        fail(where, "beta", f"have 1 or B = {n} entries", betas.size)
    betas = frozen(np.ascontiguousarray(np.broadcast_to(betas, n)))
    V, Q, pi = empty((n, horizon + 1, n_states)), empty((n, *shape)), empty((n, *shape))
    fits = np.empty(n, np.uint8)
    size = np.asarray(mdps[0].P).nbytes
    if size > LARGE_BYTES:
        for b, m in enumerate(mdps):
            fits[b] = _one(form(where, m), m.r, ref[b if given else 0], float(betas[b]), V[b], Q[b], pi[b])
        n = 0  # nothing is left for the stacks
    step = max(1, BLOCK_BYTES // size)
    for i in range(0, n, step):
        j = min(i + step, n)
        P, r = (frozen(np.stack(x)) for x in ([np.asarray(m.P) for m in mdps[i:j]], [m.r for m in mdps[i:j]]))
        reads = P.nbytes * (horizon if P.shape[1] == 1 else 1)
        solve = batch.many_threaded if reads >= THREAD_BYTES and j - i > 1 else batch.many
        solve(P, r, ref[i:j] if given else ref, betas[i:j], V[i:j], Q[i:j], pi[i:j], fits[i:j])
    if not fits.all():
        fail(where, "mdps", "have rewards whose sums stay within float64", f"values that overflow at {int(fits.argmin())}")
    return Solution(frozen(V), frozen(Q), frozen(pi))


def _betas(where: str, beta: ArrayLike) -> FloatArray:
    """[B] weights in [0, inf]."""
    betas = np.atleast_1d(as_numbers(where, "beta", beta))
    if betas.ndim != 1 or betas.size == 0 or not (betas >= 0.0).all() or np.asarray(beta).dtype == bool:
        fail(where, "beta", "be a number or [B] numbers in [0, inf]", repr(beta))
    return betas


def _rewards(where: str, mdp: AnyMDP, model: Form, r: ArrayLike | None) -> FloatArray:
    """[B or 1, H or 1, ..] rewards as the kernels of the form read them."""
    if r is None:
        return model.reward[None]
    tail, names = ((model.reward.shape[1],), "d") if isinstance(mdp, LinearMDP) else (model.shape[1:], "S A")
    if axes_of(r) == len(tail) + 1:
        rewards = as_floats(where, "r", r, f"H {names}", (None, *tail))[None]
    else:
        rewards = as_floats(where, "r", r, f"B H {names}", (None, None, *tail))
    if rewards.shape[1] not in (1, model.shape[0]):
        fail(where, "r", f"have 1 or H = {model.shape[0]} stages", rewards.shape[1])
    return rewards


def _shapes(where: str, b: int, mdp: Any) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Shapes of P and r, and H, of one dense MDP."""
    if not isinstance(mdp, MDP) or not isinstance(mdp.P, np.ndarray):
        fail(where, "mdps", "be MDPs with dense transitions", f"{mdp!r} at {b}")
    form(where, mdp)
    return mdp.P.shape, mdp.r.shape, mdp.H


def _one(model: Form, reward: FloatArray, ref: FloatArray, beta: float, V: Any, Q: Any, pi: Any) -> bool:
    """One solve by the kernels of a form."""
    if beta == 0.0:
        return model.solve.hard_induction(*model.dynamics, reward, ref, V, Q, pi)
    return model.solve.soft_induction(*model.dynamics, reward, ref, beta, V, Q, pi)


@cache
def _blas() -> Any:
    """The BLAS that numpy has loaded: found once."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _together(model: Form, betas: FloatArray, rewards: np.ndarray) -> np.ndarray:
    """[B] bool: the elements that share matrix products.

    Not hard optima, nor weights whose reciprocal overflows or that are so large that e^d = 1 + d; nor few.
    """
    if model.solve is not bellman:
        return np.zeros(betas.size, bool)
    largest = np.abs(rewards if rewards.strides[0] else rewards[:1]).max(axis=(1, 2, 3))
    soft = (betas > TINY) & (largest > bellman.LINEAR / (2.0 * model.shape[0]) * betas)
    return soft & (int(soft.sum()) >= FEW)


def _dense(
    model: Form, ref: FloatArray, betas: FloatArray, rewards: np.ndarray, which: np.ndarray, V: Any, Q: Any, pi: Any
) -> bool:
    """Backward induction of the elements ``which`` of a batch: a matrix product and a pass over the rows at each stage."""
    (P,) = model.dynamics
    horizon, n_states, n_actions = model.shape
    weights = frozen(betas[which])
    n, inverse = weights.size, frozen(1.0 / weights)
    shared = rewards.strides[0] == 0
    r = frozen(np.ascontiguousarray(np.moveaxis(rewards[:1] if shared else rewards[which], 0, -1)))
    everything = n == betas.size
    one = (1, n_states, n_actions, n)
    stages = (V, Q, pi) if everything else (empty((horizon + 1, n_states, n)), empty(one), empty(one))
    values, work = stages[0], [np.empty(n) for _ in range(4)]
    values[horizon] = 0.0
    with _blas().limit(limits=1, user_api="blas"), np.errstate(over="ignore", invalid="ignore"):
        for h in range(horizon - 1, -1, -1):
            here, plan = stages[1][h if everything else 0], stages[2][h if everything else 0]
            rows = P[min(h, len(P) - 1)].reshape(-1, n_states)
            np.matmul(rows, values[h + 1], out=here.reshape(-1, n))
            batch.batch_stage(r[min(h, len(r) - 1)], ref[h], weights, inverse, here, values[h], plan, *work)
            if not everything:
                Q[h][..., which], pi[h][..., which] = here, plan
    if not everything:
        V[..., which] = values
    return bool(np.isfinite(values[0]).all())
