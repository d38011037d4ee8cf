"""Backward induction, policy evaluation, occupancy and trajectory KL against numpy+scipy, peers and the machine's limit.

    python benchmarks/speed/backward_induction.py [--quick]

Three topics: P larger than the caches (one stream from memory is the limit), P in the last-level cache and read H times,
and a small problem through the public functions, where what counts is the cost of a call. The limit is a compiled sum over
the same P, as often as the method must read it. Peers: quantecon (hard, stationary), JAX (soft, compiled, one device).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from _timing import Row, compare, options, peer, read, require_close, save
from scipy.special import logsumexp

from mdpsim.mdp.tabular import MDP
from mdpsim.solve.exact import evaluate, occupancy, solve_hard, solve_soft, trajectory_kl

BETA = 0.3
SOFT, HARD, PLAIN, LIMIT = "mdpsim solve_soft", "mdpsim solve_hard", "numpy+scipy soft", "limit: read P"


def problem(H: int, S: int, A: int, stationary: bool) -> tuple[MDP, np.ndarray]:
    """A random MDP with dense rows and a random reference."""
    rng = np.random.default_rng(0)
    n = 1 if stationary else H
    P = rng.exponential(size=(n, S, A, S))
    P /= P.sum(axis=-1, keepdims=True)
    P.flags.writeable = False
    ref = rng.dirichlet(np.ones(A), size=(H, S))
    return MDP(P, rng.uniform(size=(n, S, A)), np.full(S, 1.0 / S), horizon=H), ref


def numpy_soft(mdp: MDP, ref: np.ndarray, beta: float) -> np.ndarray:
    """V [H+1, S] as one would write it: a matrix product and scipy's logsumexp a stage."""
    V = np.zeros((mdp.H + 1, mdp.S))
    for h in range(mdp.H - 1, -1, -1):
        Q = mdp.r[min(h, len(mdp.r) - 1)] + mdp.P[min(h, len(mdp.P) - 1)] @ V[h + 1]
        V[h] = beta * logsumexp(Q / beta, b=ref[h], axis=-1)
    return V


def jax_soft(mdp: MDP, ref: np.ndarray, beta: float) -> Callable[[], Any] | None:
    """The same recursion compiled by JAX in float64, or None."""
    jax = peer("jax")
    if jax is None:
        return None
    jax.config.update("jax_enable_x64", True)
    jnp, lax = jax.numpy, jax.lax
    stationary = len(mdp.P) == 1
    P, r, log_ref = jnp.asarray(mdp.P), jnp.asarray(np.broadcast_to(mdp.r, ref.shape)), jnp.log(jnp.asarray(ref))

    def stage(v: Any, x: Any) -> tuple[Any, Any]:
        p, reward, logs = (P[0], *x) if stationary else x
        v = beta * jax.nn.logsumexp((reward + p @ v) / beta + logs, axis=-1)
        return v, v

    @jax.jit
    def solve(P: Any, r: Any, log_ref: Any) -> Any:
        stages = (r, log_ref) if stationary else (P, r, log_ref)
        return lax.scan(stage, jnp.zeros(mdp.S), stages, reverse=True)[1]

    return lambda: solve(P, r, log_ref).block_until_ready()


def quantecon_hard(mdp: MDP) -> Callable[[], Any] | None:
    """quantecon's finite-horizon backward induction (stationary problems only), or None."""
    quantecon = peer("quantecon")
    if quantecon is None:
        return None
    from quantecon.markov import DiscreteDP, backward_induction  # type: ignore[import-not-found]

    # it warns at a discount of exactly 1
    ddp = DiscreteDP(mdp.r[0].copy(), mdp.P[0].copy(), 1.0 - 1e-16)
    return lambda: backward_induction(ddp, mdp.H, np.zeros(mdp.S))[0]


def topic(title: str, H: int, S: int, A: int, stationary: bool, rounds: int) -> list[Row]:
    """Build the work once, check that all variants agree, time them."""
    mdp, ref = problem(H, S, A, stationary)
    flat = mdp.P.reshape(-1)
    soft, hard = solve_soft(mdp, ref, BETA), solve_hard(mdp)
    by_jax, by_quantecon = jax_soft(mdp, ref, BETA), quantecon_hard(mdp) if stationary else None
    require_close(soft.V, numpy_soft(mdp, ref, BETA), PLAIN)
    require_close(soft.V, evaluate(mdp, soft.pi, pi_ref=ref, beta=BETA).V, "evaluate")
    if by_jax is not None:
        require_close(soft.V[:-1], by_jax(), "JAX")
    if by_quantecon is not None:
        require_close(hard.V, by_quantecon(), "quantecon")
    variants: dict[str, Callable[[], Any] | None] = {
        PLAIN: lambda: numpy_soft(mdp, ref, BETA),
        SOFT: lambda: solve_soft(mdp, ref, BETA),
        HARD: lambda: solve_hard(mdp),
        "mdpsim evaluate": lambda: evaluate(mdp, soft.pi),
        "mdpsim evaluate with pi_ref": lambda: evaluate(mdp, soft.pi, pi_ref=ref, beta=BETA),
        "mdpsim occupancy": lambda: occupancy(mdp, soft.pi),
        "mdpsim trajectory_kl": lambda: trajectory_kl(mdp, soft.pi, ref),
        "JAX soft (jit, CPU threads)": by_jax,
        LIMIT: lambda: read(flat, H if stationary else 1),
    }
    if stationary:
        variants["quantecon hard"] = by_quantecon
    return compare(f"{title}: H={H} S={S} A={A}", variants, PLAIN, LIMIT, rounds)


def main() -> None:
    """Run the topics and save the table."""
    quick = options(__doc__ or "").quick
    rounds = 7 if quick else 25
    rows = topic("P in memory", 20 if quick else 50, 300, 8, False, rounds)
    rows += topic("P in the last-level cache", 20, 300, 8, True, rounds)
    save("backward_induction", rows)


if __name__ == "__main__":
    main()
