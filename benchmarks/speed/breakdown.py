"""Where the time goes in the operations that fall short of a goal: their parts, timed alone in the same rounds.

    python benchmarks/speed/breakdown.py [--quick]

Each topic lists the whole, parts that add up to about the whole (work done between them, cold caches and overlap are what is
missing), and the roofline: what the machine needs for the same reads, writes, products and exponentials with nothing else
between them. A part's share is its time over that of the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from _timing import FASTMATH, Row, compare, options, read, save
from batched import BLAS, exponentials

from mdpsim.arrays import as_simplex, frozen
from mdpsim.estimate.data import sample
from mdpsim.kernels import batch, linear
from mdpsim.kernels.bellman import soft_stage, soft_workspace
from mdpsim.kernels.rollout import guide_width, tabulate
from mdpsim.mdp import families
from mdpsim.mdp.discounted import DiscountedMDP
from mdpsim.mdp.forms import form
from mdpsim.mdp.linear import LinearMDP
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.memory import empty
from mdpsim.solve.batch import solve_soft_batch
from mdpsim.solve.discounted import solve_discounted
from mdpsim.solve.exact import solve_soft

BETA, WHOLE, ROOF = 0.3, "the whole", "roofline"


@numba.njit(fastmath=FASTMATH, error_model="numpy")
def all_rows(Q: Any, ref: Any, beta: float, V: Any, pi: Any) -> None:
    """The rows of every stage: V and pi from Q."""
    work, sums = soft_workspace(Q.shape[1], Q.shape[2])
    for h in range(Q.shape[0]):
        soft_stage(Q[h], ref[h], beta, False, V[h], pi[h], work, sums)


@numba.njit(fastmath=FASTMATH, error_model="numpy")
def all_products(phi: Any, w: Any, Q: Any) -> None:
    """Q_h = phi w for every stage."""
    for h in range(Q.shape[0]):
        linear.project(phi, w, Q[h])


@numba.njit(fastmath=FASTMATH, error_model="numpy")
def fill(x: Any, y: Any) -> None:
    """Write two arrays."""
    for i in range(x.size):
        x[i] = 1.0
        y[i] = 2.0


@numba.njit(fastmath=FASTMATH, error_model="numpy")
def chase(table: Any, seats: Any, steps: int) -> None:
    """``steps`` dependent random reads for each of many seats, seat after seat: the misses of different seats overlap."""
    for _ in range(steps):
        for i in range(seats.size):
            seats[i] = table[seats[i]]


@numba.njit(fastmath=FASTMATH, error_model="numpy")
def gather(ids: Any, prob: Any, v: Any, out: Any) -> None:
    """Expected values of v under K successors a row: what a sparse sweep cannot do without."""
    for i in range(out.size):
        total = 0.0
        for k in range(ids.shape[1]):
            total += prob[i, k] * v[ids[i, k]]
        out[i] = total


def topic(title: str, parts: dict[str, Callable[[], Any]], rounds: int) -> list[Row]:
    """Time the parts and say their shares."""
    rows = compare(title, dict(parts), WHOLE, ROOF, rounds)
    shares = ", ".join(f"{row.variant} {(row.seconds or 0.0) / (rows[0].seconds or 1.0):.2f}" for row in rows[1:])
    print(f"  shares: {shares}")
    return rows


def small(rounds: int) -> list[Row]:
    """One small solve through the public function."""
    H, S, A = 10, 20, 5
    mdp, ref = families.random_mdp(S=S, A=A, H=H, rng=0, start="uniform"), families.uniform_policy(H, S, A)
    model, guarded = form("breakdown", mdp), frozen(ref.copy())
    V, Q, pi = np.empty((H + 1, S)), np.empty((H, S, A)), np.empty((H, S, A))
    none = np.empty((0, S, A, S)), np.empty((0, S, A)), np.empty((0, S, A))
    nothing = (frozen(none[0]), frozen(none[1].copy()), frozen(none[1].copy()))
    x, P = np.zeros(H * S * A), mdp.P.reshape(-1)
    out = np.empty_like(x)
    return topic(f"small: H={H} S={S} A={A}", {
        WHOLE: lambda: solve_soft(mdp, ref, BETA),
        "kernel": lambda: model.solve.soft_induction(*model.dynamics, model.reward, guarded, BETA, V, Q, pi),
        "a call that does nothing": lambda: model.solve.soft_induction(*nothing, BETA, V[:1], none[1], none[2]),
        "three empty arrays": lambda: (np.empty((H + 1, S)), np.empty((H, S, A)), np.empty((H, S, A))),
        "guard of one policy": lambda: as_simplex("breakdown", "pi", ref, "H S A", ref.shape),
        ROOF: lambda: (read(P, 1), exponentials(x, out)),
    }, rounds)


def batched(S: int, A: int, B: int, rounds: int) -> list[Row]:
    """A batch of weights that share P."""
    H = 20
    one = families.random_mdp(S=S, A=A, H=1, rng=0, start="uniform")
    mdp, ref = MDP(one.P, one.r, one.mu0, horizon=H), families.random_policy(H=H, S=S, A=A, rng=1)
    betas, r = frozen(np.geomspace(0.05, 5.0, B)), frozen(mdp.r[0][..., None].copy())
    inverse, guarded, work = frozen(1.0 / betas), frozen(ref.copy()), [np.empty(B) for _ in range(4)]
    V, Q, pi = (np.array(np.moveaxis(x, 0, -1)) for x in solve_soft_batch(mdp, ref, betas))
    P, product, flat = mdp.P[0].reshape(-1, S), np.empty((S * A, B)), np.empty(S * A * B)

    def products(out: Callable[[int], np.ndarray]) -> None:
        with BLAS.limit(limits=1, user_api="blas"):
            for h in range(H):
                np.matmul(P, V[h + 1], out=out(h))

    def rows() -> None:
        for h in range(H):
            batch.batch_stage(r, guarded[h], betas, inverse, Q[h], V[h], pi[h], *work)

    def roof() -> None:
        products(lambda _: product)
        for _ in range(H):
            exponentials(product.reshape(-1), flat)

    return topic(f"batch: S={S} A={A} H={H} B={B}", {
        WHOLE: lambda: solve_soft_batch(mdp, ref, betas),
        "matrix products": lambda: products(lambda h: Q[h].reshape(-1, B)),
        "rows": lambda: (products(lambda h: Q[h].reshape(-1, B)), rows()),
        "three empty arrays": lambda: (empty(V.shape), empty(Q.shape), empty(Q.shape)),
        ROOF: roof,
    }, rounds)


def linear_mdp(rounds: int) -> list[Row]:
    """A linear MDP whose phi does not fit the caches."""
    H, S, A, d = 10, 100_000, 4, 20
    rng = np.random.default_rng(0)
    mu = rng.standard_exponential((H, d, S))
    mu /= mu.sum(axis=-1, keepdims=True)
    mdp = LinearMDP(rng.dirichlet(np.ones(d), (S, A)), mu, rng.random((H, d)), np.full(S, 1.0 / S))
    ref = frozen(np.full((H, S, A), 1.0 / A))
    V, Q, pi = (x.copy() for x in solve_soft(mdp, ref, BETA))
    phi, flat_mu, w = mdp.phi.reshape(-1), mdp.mu.reshape(-1), np.ones(d)
    x, out = np.zeros(S * A), np.empty(S * A)

    def roof() -> None:
        read(phi, H)
        read(flat_mu, 1)
        read(ref.reshape(-1), 1)
        fill(Q.reshape(-1), pi.reshape(-1))
        for _ in range(H):
            exponentials(x, out)

    return topic(f"linear: H={H} S={S} A={A} d={d}", {
        WHOLE: lambda: solve_soft(mdp, ref, BETA),
        "read phi and mu": lambda: (read(phi, H), read(flat_mu, 1)),
        "products with phi": lambda: all_products(mdp.phi, w, Q),
        "rows": lambda: all_rows(Q, ref, BETA, V, pi),
        "guard of the policy": lambda: as_simplex("breakdown", "pi", ref, "H S A", ref.shape),
        "write Q and pi": lambda: fill(Q.reshape(-1), pi.reshape(-1)),
        ROOF: roof,
    }, rounds)


def discounted(rounds: int) -> list[Row]:
    """Certified soft value iteration on a sparse problem."""
    S, A, K = 20_000, 5, 5
    rng = np.random.default_rng(0)
    P = Successors(rng.integers(S, size=(1, S, A, K)), rng.dirichlet(np.ones(K), (1, S, A)))
    mdp, ref = DiscountedMDP(P, rng.random((S, A)), 0.99), np.full((S, A), 1.0 / A)
    sweeps = solve_discounted(mdp, ref, 0.1, method="value_iteration", tol=1e-6).iterations
    ids, prob, v = P.next_state.reshape(-1, K), P.prob.reshape(-1, K), rng.random(S)
    q, out = np.zeros(S * A), np.empty(S * A)

    def gathers() -> None:
        for _ in range(sweeps):
            gather(ids, prob, v, out)

    def weights() -> None:
        for _ in range(sweeps):
            exponentials(q, out)

    return topic(f"discounted: S={S} A={A} K={K}, {sweeps} sweeps", {
        WHOLE: lambda: solve_discounted(mdp, ref, 0.1, method="value_iteration", tol=1e-6),
        "the same, hard": lambda: solve_discounted(mdp, ref, 0.0, method="value_iteration", tol=1e-6),
        "gathers and products": gathers, "exponentials": weights,
        "guard of the policy": lambda: as_simplex("breakdown", "pi", ref, "S A", ref.shape),
        ROOF: lambda: (gathers(), weights()),
    }, rounds)


def sampling(n: int, rounds: int) -> list[Row]:
    """Episodes of a large MDP: random reads of tables that do not fit L2."""
    large = families.random_mdp(S=500, A=8, H=1, rng=0, start="uniform")
    mdp = MDP(large.P, large.r, large.mu0, horizon=50)
    pi, P = families.random_policy(H=50, S=500, A=8, rng=1), mdp.P.reshape(-1, 500)
    sums, guide = np.empty(P.shape), np.empty((len(P), guide_width(500)), np.int32)
    table, seats = np.random.default_rng(0).permutation(P.size), np.arange(1024)

    def roof() -> None:
        for _ in range(n // seats.size + 1):
            chase(table, seats, 2 * mdp.H)

    return topic(f"sampling: S=500 A=8 H=50, {n} episodes", {
        WHOLE: lambda: sample(mdp, pi, n, 0),
        "tables of every row": lambda: tabulate(P, 0, sums, guide),
        "guard of the policy": lambda: as_simplex("breakdown", "pi", pi, "H S A", pi.shape),
        ROOF: roof,
    }, rounds)


def main() -> None:
    """Run the topics and save the table."""
    rounds = 5 if options(__doc__ or "").quick else 15
    rows = small(rounds) + batched(300, 8, 32, rounds) + batched(20, 5, 64, rounds) + batched(50, 5, 64, rounds)
    rows += linear_mdp(rounds) + discounted(rounds) + sampling(5_000, rounds)
    save("breakdown", rows)


if __name__ == "__main__":
    main()
