"""Batches that share P, and many instances, against one solve at a time, numpy+scipy, JAX and the machine's limit.

    python benchmarks/speed/batched.py [--quick]

The limit of a batch is the matrix product of every stage into arrays that exist, by the same BLAS on one thread; the row below
it adds one compiled exponential for each (b, s, a). For many instances the limit is a compiled sum over all P.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from _timing import FASTMATH, Row, compare, options, peer, read, require_close, save
from scipy.special import logsumexp
from threadpoolctl import ThreadpoolController

from mdpsim.kernels._math import exp
from mdpsim.mdp import families
from mdpsim.mdp.tabular import MDP
from mdpsim.solve.batch import solve_soft_batch, solve_soft_many
from mdpsim.solve.exact import solve_soft

PLAIN, ALONE, GEMM, LIMIT = "numpy+scipy, batched", "mdpsim solve_soft, one by one", "limit: dgemm", "limit: read all P"
BLAS = ThreadpoolController()


def numpy_batch(mdp: MDP, ref: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """V [B, H+1, S] as one would write it: a matrix product and scipy's logsumexp a stage."""
    V = np.zeros((betas.size, mdp.H + 1, mdp.S))
    b = betas[:, None, None]
    for h in range(mdp.H - 1, -1, -1):
        product = V[:, h + 1] @ mdp.P[min(h, len(mdp.P) - 1)].reshape(-1, mdp.S).T
        Q = mdp.r[min(h, len(mdp.r) - 1)] + product.reshape(betas.size, mdp.S, mdp.A)
        V[:, h] = betas[:, None] * logsumexp(Q / b, b=ref[h], axis=-1)
    return V


def jax_batch(mdp: MDP, ref: np.ndarray, betas: np.ndarray) -> Callable[[], Any] | None:
    """The same compiled by JAX in float64, returning V, Q and pi; None without JAX."""
    jax = peer("jax")
    if jax is None:
        return None
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy
    P, r = jnp.asarray(mdp.P[0].reshape(-1, mdp.S)), jnp.asarray(mdp.r[0])
    logs, b = jnp.log(jnp.asarray(ref)), jnp.asarray(betas)

    @jax.jit
    def solve(P: Any, r: Any, logs: Any, b: Any) -> Any:
        def stage(v: Any, log_ref: Any) -> tuple[Any, Any]:
            Q = r + (v @ P.T).reshape(b.size, mdp.S, mdp.A)
            x = Q / b[:, None, None] + log_ref
            v = b[:, None] * jax.nn.logsumexp(x, axis=-1)
            return v, (v, Q, jnp.exp(x - v[:, :, None] / b[:, None, None]))

        return jax.lax.scan(stage, jnp.zeros((b.size, mdp.S)), logs, reverse=True)[1]

    return lambda: jax.block_until_ready(solve(P, r, logs, b))


@numba.njit(fastmath=FASTMATH, error_model="numpy")
def exponentials(x: Any, out: Any) -> None:
    """One exponential an element."""
    for i in range(x.size):
        out[i] = exp(x[i])


def batch_topic(S: int, A: int, H: int, B: int, rounds: int) -> list[Row]:
    """B weights, stationary dense P."""
    one = families.random_mdp(S=S, A=A, H=1, rng=0, start="uniform")
    mdp = MDP(one.P, one.r, one.mu0, horizon=H)
    ref, betas = families.random_policy(H=H, S=S, A=A, rng=1), np.geomspace(0.05, 5.0, B)
    v, matrix = np.random.default_rng(0).random((B, S)), mdp.P[0].reshape(-1, S).T
    product, flat = np.empty((B, S * A)), np.empty(B * S * A)

    def gemm() -> None:
        with BLAS.limit(limits=1, user_api="blas"):
            for _ in range(H):
                np.matmul(v, matrix, out=product)

    def gemm_exp() -> None:
        gemm()
        for _ in range(H):
            exponentials(product.reshape(-1), flat)

    expected = numpy_batch(mdp, ref, betas)
    require_close(expected, solve_soft_batch(mdp, ref, betas).V, "solve_soft_batch")
    by_jax = jax_batch(mdp, ref, betas)
    if by_jax is not None:
        require_close(expected[:, :-1], np.moveaxis(np.asarray(by_jax()[0]), 0, 1), "JAX")
    return compare(f"batch: S={S} A={A} H={H} B={B}", {
        PLAIN: lambda: numpy_batch(mdp, ref, betas),
        "mdpsim solve_soft_batch": lambda: solve_soft_batch(mdp, ref, betas),
        ALONE: lambda: [solve_soft(mdp, ref, b) for b in betas],
        "JAX (jit, CPU threads)": by_jax, GEMM: gemm, "limit: dgemm + exp": gemm_exp,
    }, PLAIN, GEMM, rounds)


def many_topic(S: int, A: int, H: int, B: int, rounds: int) -> list[Row]:
    """B instances with their own P."""
    mdps = [families.random_mdp(S=S, A=A, H=H, rng=i, start="uniform") for i in range(B)]
    ref, everything = families.uniform_policy(H, S, A), np.stack([m.P for m in mdps]).reshape(-1)
    require_close(np.stack([solve_soft(m, ref, 0.3).V for m in mdps]), solve_soft_many(mdps, ref, 0.3).V, "solve_soft_many")
    betas = np.array([0.3])
    return compare(f"many: S={S} A={A} H={H} B={B}, {numba.get_num_threads()} threads", {
        PLAIN: lambda: [numpy_batch(m, ref, betas) for m in mdps],
        "mdpsim solve_soft_many": lambda: solve_soft_many(mdps, ref, 0.3),
        ALONE: lambda: [solve_soft(m, ref, 0.3) for m in mdps], LIMIT: lambda: read(everything, 1),
    }, PLAIN, LIMIT, rounds)


def main() -> None:
    """Run the topics and save the table."""
    rounds = 5 if options(__doc__ or "").quick else 15
    rows = batch_topic(300, 8, 20, 32, rounds)
    rows += batch_topic(20, 5, 20, 64, rounds)
    rows += batch_topic(50, 5, 20, 64, rounds)
    rows += many_topic(10, 4, 10, 500, rounds)
    rows += many_topic(60, 5, 10, 40, rounds)
    save("batched", rows)


if __name__ == "__main__":
    main()
