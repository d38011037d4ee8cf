"""Discounted value iteration to a certified error, hard and soft, against numpy+scipy and peers; sweeps are counted.

    python benchmarks/speed/discounted.py [--quick]

A sparse problem of random successors. The reference stops where the sup norm certifies tol: gamma / (1 - gamma) |TV - V|
is at most tol; mdpsim where the span does. The limit reads the transitions once a sweep, as often as mdpsim sweeps.
Peers (hard only): quantecon, mdpsolver, pymdptoolbox, each with how far its own V is from the optimum; one that is not
installed is reported as missing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _timing import Row, compare, options, peer, read, save
from scipy import sparse
from scipy.special import logsumexp

from mdpsim.mdp.discounted import DiscountedMDP
from mdpsim.mdp.successors import Successors
from mdpsim.solve.discounted import solve_discounted

BETA, TOL, PLAIN, LIMIT = 0.1, 1e-6, "numpy+scipy soft, sup norm", "limit: read P each sweep"


def plain(mdp: DiscountedMDP, matrix: Any, ref: np.ndarray, beta: float) -> tuple[np.ndarray, int]:
    """(V, sweeps) as one would write it."""
    V, change, sweeps = np.zeros(mdp.S), np.inf, 0
    while mdp.gamma / (1 - mdp.gamma) * change > TOL:
        Q = mdp.r + mdp.gamma * (matrix @ V).reshape(mdp.r.shape)
        after = beta * logsumexp(Q / beta, b=ref, axis=1) if beta > 0 else Q.max(axis=1)
        change, V, sweeps = float(np.abs(after - V).max()), after, sweeps + 1
    return V, sweeps


def quantecon_hard(mdp: DiscountedMDP, matrix: Any) -> Any:
    """quantecon's value iteration, or None."""
    if peer("quantecon") is None:
        return None
    from quantecon.markov import DiscreteDP  # type: ignore[import-not-found]

    states, actions = (x.reshape(-1) for x in np.indices(mdp.r.shape))
    ddp = DiscreteDP(mdp.r.reshape(-1), sparse.csr_matrix(matrix), mdp.gamma, states, actions)
    return lambda: ddp.solve(method="value_iteration", epsilon=2 * TOL, max_iter=10**6).v


def toolbox_hard(mdp: DiscountedMDP, matrix: Any) -> Any:
    """pymdptoolbox's value iteration, or None."""
    if peer("mdptoolbox") is None:
        return None
    from mdptoolbox.mdp import ValueIteration  # type: ignore[import-not-found]

    by_action = [sparse.csr_matrix(matrix[a :: mdp.A]) for a in range(mdp.A)]

    def run() -> np.ndarray:
        solver = ValueIteration(by_action, mdp.r, mdp.gamma, epsilon=TOL)
        solver.run()
        return np.array(solver.V)

    return run


def mdpsolver_hard(mdp: DiscountedMDP, matrix: Any) -> Any:
    """mdpsolver's value iteration on one core (the model is built once), or None."""
    if peer("mdpsolver") is None:
        return None
    from mdpsolver import model  # type: ignore[import-not-found]

    rows = sparse.csr_matrix(matrix, copy=True)
    rows.sum_duplicates()
    cut = [(rows.indptr[i], rows.indptr[i + 1]) for i in range(rows.shape[0])]
    probs, columns = ([x[i:j].tolist() for i, j in cut] for x in (rows.data, rows.indices))
    by_state = [[x[s * mdp.A : (s + 1) * mdp.A] for s in range(mdp.S)] for x in (probs, columns)]
    peer_model = model()
    peer_model.mdp(discount=mdp.gamma, rewards=mdp.r.tolist(), tranMatProbs=by_state[0], tranMatColumns=by_state[1])

    def run() -> np.ndarray:
        peer_model.solve(algorithm="vi", tolerance=TOL, parallel=False)
        return np.array(peer_model.getValueVector())

    return run


def topic(S: int, A: int, K: int, gamma: float, rounds: int) -> list[Row]:
    """Check that the variants agree, count their sweeps, time them."""
    rng = np.random.default_rng(0)
    P = Successors(rng.integers(S, size=(1, S, A, K)), rng.dirichlet(np.ones(K), (1, S, A)))
    mdp, ref = DiscountedMDP(P, rng.random((S, A)), gamma), np.full((S, A), 1.0 / A)
    matrix = sparse.csr_array((P.prob.reshape(-1), P.next_state.reshape(-1), np.arange(S * A + 1) * K), shape=(S * A, S))
    ids, prob = P.next_state.view(np.float64).reshape(-1), P.prob.reshape(-1)
    soft, hard = (solve_discounted(mdp, ref, b, method="value_iteration", tol=TOL) for b in (BETA, 0.0))
    (V, sweeps), (V_hard, hard_sweeps) = plain(mdp, matrix, ref, BETA), plain(mdp, matrix, ref, 0.0)
    for name, found, expected in (("soft", soft, V), ("hard", hard, V_hard)):
        if not np.abs(found.V - expected).max() <= 2 * TOL:
            raise SystemExit(f"{name} disagrees with the reference")
    print(f"\nsweeps to a certified {TOL:g}: soft {soft.iterations} (sup norm {sweeps}), "
          f"hard {hard.iterations} (sup norm {hard_sweeps}); fewer by {sweeps / soft.iterations:.1f} and "
          f"{hard_sweeps / hard.iterations:.1f}")
    adapters = {"quantecon hard": quantecon_hard, "mdpsolver hard": mdpsolver_hard, "pymdptoolbox hard": toolbox_hard}
    peers = {name: adapt(mdp, matrix) for name, adapt in adapters.items()}
    for name, solve in peers.items():
        if solve is not None:
            print(f"  {name}: its V is off by {np.abs(solve() - V_hard).max():.2g} at a tolerance of {TOL:g}")
    variants: dict[str, Any] = {
        PLAIN: lambda: plain(mdp, matrix, ref, BETA),
        "numpy+scipy hard, sup norm": lambda: plain(mdp, matrix, ref, 0.0),
        "mdpsim soft": lambda: solve_discounted(mdp, ref, BETA, method="value_iteration", tol=TOL),
        "mdpsim hard": lambda: solve_discounted(mdp, ref, 0.0, method="value_iteration", tol=TOL),
        "mdpsim soft, modified PI": lambda: solve_discounted(mdp, ref, BETA, method="modified_policy_iteration", tol=TOL),
        **peers,
        LIMIT: lambda: (read(ids, soft.iterations), read(prob, soft.iterations)),
    }
    return compare(f"sparse: S={S} A={A} K={K} gamma={gamma}", variants, PLAIN, LIMIT, rounds)


def main() -> None:
    """Run the topics and save the table."""
    quick = options(__doc__ or "").quick
    rows = topic(2_000 if quick else 20_000, 5, 5, 0.99, 3 if quick else 5)
    save("discounted", rows)


if __name__ == "__main__":
    main()
