"""Sparse and linear MDPs: solving, evaluation and occupancy against numpy+scipy and the machine's limit.

    python benchmarks/speed/linear.py [--quick]

The limit is a compiled sum over the arrays of the dynamics, as often as the method must read them: phi once a stage and mu
once for a linear MDP; the ids and the probabilities once a stage for a sparse one. It leaves out the rows themselves (an
exponential for each (s, a), and writing Q and pi), which take as long as a read of phi at d = 20 and most of the time of a
sparse stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from _timing import Row, compare, options, read, require_close, save
from scipy import sparse
from scipy.special import logsumexp

from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.solve.exact import evaluate, occupancy, solve_hard, solve_soft, trajectory_kl

BETA = 0.3
PLAIN, LIMIT = "numpy+scipy soft", "limit: read the dynamics"


def random_linear(H: int, S: int, A: int, d: int) -> LinearMDP:
    """Dense phi and mu."""
    rng = np.random.default_rng(0)
    mu = rng.standard_exponential((H, d, S))
    mu /= mu.sum(axis=-1, keepdims=True)
    return LinearMDP(rng.dirichlet(np.ones(d), (S, A)), mu, rng.random((H, d)), np.full(S, 1.0 / S))


def random_sparse(H: int, S: int, A: int, K: int) -> MDP:
    """Stationary, K uniform successors."""
    rng = np.random.default_rng(0)
    P = Successors(rng.integers(S, size=(1, S, A, K)), rng.dirichlet(np.ones(K), (1, S, A)))
    return MDP(P, rng.random((1, S, A)), np.full(S, 1.0 / S), horizon=H)


def plain_soft(mdp: Any, ref: np.ndarray, action_values: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
    """V [H+1, S] by scipy's logsumexp and the given backup."""
    V = np.zeros((mdp.H + 1, mdp.S))
    for h in range(mdp.H - 1, -1, -1):
        V[h] = BETA * logsumexp(action_values(h, V[h + 1]) / BETA, b=ref[h], axis=-1)
    return V


def topic(title: str, mdp: Any, plain: Callable[[int, np.ndarray], np.ndarray], limit: Callable[[], Any], n: int) -> list[Row]:
    """Check that the variants agree, time them."""
    ref = np.full((mdp.H, mdp.S, mdp.A), 1.0 / mdp.A)
    soft = solve_soft(mdp, ref, BETA)
    require_close(soft.V, plain_soft(mdp, ref, plain), PLAIN)
    require_close(soft.V, evaluate(mdp, soft.pi, pi_ref=ref, beta=BETA).V, "evaluate")
    variants: dict[str, Callable[[], Any] | None] = {
        PLAIN: lambda: plain_soft(mdp, ref, plain),
        "mdpsim solve_soft": lambda: solve_soft(mdp, ref, BETA),
        "mdpsim solve_hard": lambda: solve_hard(mdp),
        "mdpsim evaluate": lambda: evaluate(mdp, soft.pi),
        "mdpsim evaluate with pi_ref": lambda: evaluate(mdp, soft.pi, pi_ref=ref, beta=BETA),
        "mdpsim occupancy": lambda: occupancy(mdp, soft.pi),
        "mdpsim trajectory_kl": lambda: trajectory_kl(mdp, soft.pi, ref),
        LIMIT: limit,
    }
    return compare(title, variants, PLAIN, LIMIT, n)


def linear_topic(H: int, S: int, A: int, d: int, rounds: int) -> list[Row]:
    """A linear MDP: numpy multiplies phi and mu with vectors by BLAS."""
    mdp = random_linear(H, S, A, d)
    phi, mu = mdp.phi.reshape(-1), mdp.mu.reshape(-1)
    return topic(
        f"linear: H={H} S={S} A={A} d={d}", mdp, lambda h, v: mdp.phi @ (mdp.theta[h] + mdp.mu[h] @ v),
        lambda: (read(phi, H), read(mu, 1)), rounds,
    )


def sparse_topic(H: int, S: int, A: int, K: int, rounds: int) -> list[Row]:
    """A sparse MDP: scipy multiplies a CSR matrix with a vector."""
    mdp = random_sparse(H, S, A, K)
    P = mdp.P
    assert isinstance(P, Successors)
    ids, prob = P.next_state.view(np.float64).reshape(-1), P.prob.reshape(-1)
    matrix = sparse.csr_array((prob, P.next_state.reshape(-1), np.arange(S * A + 1) * K), shape=(S * A, S))
    return topic(
        f"sparse: H={H} S={S} A={A} K={K}", mdp, lambda h, v: mdp.r[0] + (matrix @ v).reshape(S, A),
        lambda: (read(ids, H), read(prob, H)), rounds,
    )


def main() -> None:
    """Run the topics and save the table."""
    quick = options(__doc__ or "").quick
    rounds = 5 if quick else 15
    rows = linear_topic(10, 100_000, 4, 20, rounds)
    rows += linear_topic(10, 200, 4, 6, rounds)
    rows += sparse_topic(20, 20_000, 5, 5, rounds)
    rows += sparse_topic(20, 200, 4, 1, rounds)
    save("linear", rows)


if __name__ == "__main__":
    main()
