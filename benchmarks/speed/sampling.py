"""Sampling episodes and counts against vectorised numpy, gymnasium's step and the machine's limit.

    python benchmarks/speed/sampling.py [--quick]

Three topics: a small MDP (its tables stay in the caches), a large one with few visits a row (every row of P has to be read, and
none twice), and the large one with many. The limit draws the same numbers from the same streams and writes the same arrays, and
does nothing else. Before timing, the state occupancies of every variant are compared with the exact ones: mean squares of their
z-scores, which are 1 for the right law. rlberry and rlberry-scool need an environment of their own and are not timed here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from _timing import FASTMATH, Row, compare, options, peer, save

from mdpsim.estimate.data import sample, sample_counts
from mdpsim.kernels.rollout import BLOCK, stream_start, stream_uniform
from mdpsim.mdp import families
from mdpsim.mdp.tabular import MDP
from mdpsim.solve.exact import occupancy

NUMPY, LIMIT, ALIAS = "vectorised numpy", "limit: streams and writes", "alias tables, built before"
SEED = 0
MORE = 400  # gymnasium plays this many times fewer episodes in the same topic


def numpy_sample(mdp: MDP, pi: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """All episodes at once, stage by stage: sums of the rows once a call, then a comparison with one uniform number a row."""
    P = np.cumsum(mdp.P, axis=-1)
    policy = np.cumsum(pi, axis=-1)
    states, actions = np.empty((n, mdp.H + 1), np.int64), np.empty((n, mdp.H), np.int64)
    rewards = np.empty((n, mdp.H))
    states[:, 0] = rng.choice(mdp.S, n, p=mdp.mu0)
    for h in range(mdp.H):
        s = states[:, h]
        a = np.minimum((policy[h, s] <= rng.random((n, 1))).sum(axis=1), mdp.A - 1)
        actions[:, h], rewards[:, h] = a, mdp.r[min(h, len(mdp.r) - 1), s, a]
        rows = P[min(h, len(P) - 1), s, a]
        states[:, h + 1] = np.minimum((rows <= rng.random((n, 1))).sum(axis=1), mdp.S - 1)
    return states, actions, rewards


@numba.njit(fastmath=FASTMATH, error_model="numpy")
def draw_and_write(key0: Any, key1: Any, states: Any, actions: Any, rewards: Any) -> None:
    """2H + 1 numbers of each episode's stream, and the outputs: what every sampler must do."""
    n, horizon = actions.shape
    for e in range(n):
        start = stream_start(key0, key1, np.uint64(e))
        states[e, 0] = np.int64(8.0 * stream_uniform(start, np.uint64(0)))
        for h in range(horizon):
            u = stream_uniform(start, np.uint64(2 * h + 1))
            actions[e, h] = np.int64(8.0 * u)
            rewards[e, h] = u
            states[e, h + 1] = np.int64(8.0 * stream_uniform(start, np.uint64(2 * h + 2)))


@numba.njit(fastmath=FASTMATH, error_model="numpy")
def alias_tables(p: Any, keep: Any, other: Any) -> None:
    """Walker's tables of the rows of p [R, C] (Vose's construction): cell j holds j with chance keep[j], else other[j]."""
    n_rows, n = p.shape
    small, large = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(n_rows):
        n_small, n_large = 0, 0
        for j in range(n):
            keep[i, j], other[i, j] = p[i, j] * n, j
            if keep[i, j] < 1.0:
                small[n_small] = j
                n_small += 1
            else:
                large[n_large] = j
                n_large += 1
        while n_small > 0 and n_large > 0:
            n_small -= 1
            j, k = small[n_small], large[n_large - 1]
            other[i, j] = k
            keep[i, k] -= 1.0 - keep[i, j]
            if keep[i, k] < 1.0:
                n_large -= 1
                small[n_small] = k
                n_small += 1
        for k in range(n_small):
            keep[i, small[k]] = 1.0
        for k in range(n_large):
            keep[i, large[k]] = 1.0


@numba.njit(fastmath=FASTMATH, error_model="numpy")
def alias_roll(
    keep: Any, other: Any, pi_keep: Any, pi_other: Any, r: Any, start: Any, states: Any, actions: Any, rewards: Any
) -> None:
    """Episodes of a stationary MDP by alias tables, a block of episodes a stage as in ``rollout``; states[:, 0] is given."""
    n, horizon = actions.shape
    n_actions, n_states = pi_keep.shape[1], keep.shape[1]
    for first in range(0, n, BLOCK):
        last = min(n, first + BLOCK)
        for h in range(horizon):
            for e in range(first, last):
                s = states[e, h]
                u = n_actions * stream_uniform(start[e], np.uint64(2 * h + 1))
                a = int(u)
                row = h * n_states + s
                a = a if u - a < pi_keep[row, a] else pi_other[row, a]
                actions[e, h], rewards[e, h] = a, r[s, a]
            for e in range(first, last):
                u = n_states * stream_uniform(start[e], np.uint64(2 * h + 2))
                j, row = int(u), states[e, h] * n_actions + actions[e, h]
                states[e, h + 1] = j if u - j < keep[row, j] else other[row, j]


def by_alias(mdp: MDP, pi: np.ndarray, n: int) -> Callable[[], np.ndarray]:
    """n episodes of a stationary MDP by tables that are ready: what the method reaches when it costs nothing to build."""
    P, policy = mdp.P.reshape(-1, mdp.S), np.ascontiguousarray(pi.reshape(-1, mdp.A))
    keep, other = np.empty(P.shape), np.empty(P.shape, np.int32)
    pi_keep, pi_other = np.empty(policy.shape), np.empty(policy.shape, np.int32)
    alias_tables(P, keep, other)
    alias_tables(policy, pi_keep, pi_other)
    start = np.random.default_rng(SEED).integers(2**64, size=n, dtype=np.uint64)
    first = np.random.default_rng(SEED).choice(mdp.S, n, p=mdp.mu0)

    def run() -> np.ndarray:
        states, actions, rewards = np.empty((n, mdp.H + 1), np.int64), np.empty((n, mdp.H), np.int64), np.empty((n, mdp.H))
        states[:, 0] = first
        alias_roll(keep, other, pi_keep, pi_other, mdp.r[0], start, states, actions, rewards)
        return states

    return run


def limit(mdp: MDP, n: int) -> None:
    """Fresh outputs, as ``sample`` makes them."""
    outputs = np.empty((n, mdp.H + 1), np.int64), np.empty((n, mdp.H), np.int64), np.empty((n, mdp.H))
    draw_and_write(np.uint64(1), np.uint64(2), *outputs)


def gymnasium_steps(mdp: MDP, n: int) -> Callable[[], None] | None:
    """n episodes through gymnasium's interface, one step a call; None without gymnasium or for a large table."""
    gymnasium = peer("gymnasium")
    if gymnasium is None:
        return None
    env = gymnasium.make("FrozenLake-v1", is_slippery=True)

    def play() -> None:
        env.reset(seed=SEED)
        for _ in range(n * mdp.H):
            _, _, terminated, truncated, _ = env.step(1)
            if terminated or truncated:
                env.reset()

    return play


def require_law(mdp: MDP, pi: np.ndarray, states: np.ndarray, what: str) -> None:
    """Stop where a variant has another law: mean squared z-score of the visits of (h, s), about 1."""
    occ, n = occupancy(mdp, pi), len(states)
    visits = np.stack([np.bincount(states[:, h], minlength=mdp.S) for h in range(mdp.H)])
    likely = (n * occ > 1) & (occ < 0.99)
    z = (visits - n * occ)[likely] / np.sqrt(n * occ * (1 - occ))[likely]
    if not abs(np.mean(z**2) - 1.0) < 0.25:
        raise SystemExit(f"{what} does not have the law of the MDP: mean squared z-score {np.mean(z**2):.2f}")


def topic(title: str, mdp: MDP, n: int, rounds: int, steps: int = 0) -> list[Row]:
    """Check the laws, time the variants for n episodes."""
    pi = families.random_policy(H=mdp.H, S=mdp.S, A=mdp.A, rng=1)
    require_law(mdp, pi, sample(mdp, pi, n, SEED).states, "sample")
    require_law(mdp, pi, numpy_sample(mdp, pi, n, np.random.default_rng(SEED))[0], NUMPY)
    alias = by_alias(mdp, pi, n) if mdp.P.shape[0] == len(mdp.r) == 1 else None
    if alias is not None:
        require_law(mdp, pi, alias(), ALIAS)
    variants: dict[str, Callable[[], Any] | None] = {
        NUMPY: lambda: numpy_sample(mdp, pi, n, np.random.default_rng(SEED)),
        "mdpsim sample": lambda: sample(mdp, pi, n, SEED),
        "mdpsim sample_counts": lambda: sample_counts(mdp, pi, n, SEED),
        LIMIT: lambda: limit(mdp, n),
    }
    if alias is not None:
        variants[ALIAS] = alias
    rows = compare(f"{title}: S={mdp.S} A={mdp.A} H={mdp.H}, {n} episodes", variants, NUMPY, LIMIT, rounds)
    if steps:
        play = gymnasium_steps(mdp, steps)
        per_step: dict[str, Callable[[], Any] | None] = {
            "gymnasium step (FrozenLake)": play,
            "mdpsim sample": lambda: sample(mdp, pi, MORE * steps, SEED),
            LIMIT: lambda: limit(mdp, MORE * steps),
        }
        if play is None:
            print("  gymnasium is missing: not installed")
        else:
            title = f"{steps} episodes by gymnasium, {MORE * steps} by mdpsim, H={mdp.H}"
            found = compare(title, per_step, "gymnasium step (FrozenLake)", LIMIT, rounds)
            rows += found
            print(f"  a step: mdpsim {MORE * (found[1].speedup or 0.0):.0f} times as fast as gymnasium")
    return rows


def main() -> None:
    """Run the topics and save the table."""
    quick = options(__doc__ or "").quick
    rounds = 5 if quick else 15
    small = families.random_mdp(S=30, A=5, H=20, rng=0, start="uniform")
    rows = topic("small", small, 20_000, rounds, steps=25)
    large = families.random_mdp(S=500, A=8, H=1, rng=0, start="uniform")
    stationary = MDP(large.P, large.r, large.mu0, horizon=50)
    rows += topic("large, stationary, few visits a row", stationary, 1_000, rounds)
    rows += topic("large, stationary, many visits a row", stationary, 5_000 if quick else 50_000, rounds)
    if not quick:
        rows += topic("large, staged", families.random_mdp(S=500, A=8, H=20, rng=0, start="uniform"), 5_000, rounds)
    save("sampling", rows)


if __name__ == "__main__":
    main()
