"""LSVI-UCB-Ent: a planning against the same in numpy, rank-one updates against fresh inverses, and the cost of episodes.

    python benchmarks/speed/linear_exploration.py [--quick]

S = 20, A = 4, H = 10, d = 8. The numpy re-planner computes the same bounds and certificates, vectorised over states and
actions, and is checked to agree; the limit is one read of the features for each stage.
"""

from __future__ import annotations

import numpy as np
from _timing import compare, options, read, require_close, save

from mdpsim.kernels import bellman, lsvi
from mdpsim.learn.lsvi_ucb_ent import LSVIUCBEnt
from mdpsim.mdp import families
from mdpsim.mdp.linear import LinearMDP

S, A, H, D, BETA, DELTA = 20, 4, 10, 8, 0.1, 0.1


def numpy_plan(mdp, r, ref, inverse, sums, radius):  # type: ignore[no-untyped-def]
    """G_0(s) and the policy for the vertex bonus, by vectorised numpy: what a careful user would write."""
    up, low, gap, oracle = np.zeros(S), np.zeros(S), np.zeros(S), np.zeros(S)
    pi = np.empty((H, S, A))
    for h in range(H - 1, -1, -1):
        q_up, q_low, ahead, true = r[h], r[h], 0.0, 0.0
        if h < H - 1:
            span = H - h - 1.0
            norm = 0.5 * radius[h] * np.sqrt(np.einsum("sai,ij,saj->sa", mdp.phi, inverse[h], mdp.phi, optimize=True))
            least, most = gap.min(), gap.max()
            middle = np.array([span / 2, span / 2, (least + most) / 2])
            w = inverse[h] @ (sums[h].T @ (np.stack([up, low, gap], axis=1) - middle))
            x = mdp.phi @ w + middle
            q_up = r[h] + np.clip(x[..., 0] + span * norm, 0.0, span)
            q_low = r[h] + np.clip(x[..., 1] - span * norm, 0.0, span)
            ahead = np.clip(x[..., 2] + (most - least) * norm, least, most)
            true = mdp.phi @ (mdp.mu[h] @ oracle)
        top_up, top_low = q_up.max(axis=-1, keepdims=True), q_low.max(axis=-1, keepdims=True)
        weight = ref[h] * np.exp((q_up - top_up) / BETA)
        total = weight.sum(axis=-1, keepdims=True)
        pi[h] = weight / total
        up = (top_up + BETA * np.log(total))[:, 0]
        low = top_low[:, 0] + BETA * np.log((ref[h] * np.exp((q_low - top_low) / BETA)).sum(axis=-1))
        m = (q_up - q_low).max(axis=-1)
        bend = np.minimum(m, m * m / (8 * BETA))
        gap, oracle = bend + (pi[h] * ahead).sum(axis=-1), bend + (pi[h] * true).sum(axis=-1)
    return gap, pi


def planning(rounds: int) -> list:
    """One planning on the sums of 3000 uniform transitions a stage."""
    mdp, ref = families.linear_simplex(S=S, A=A, d=D, H=H, rng=0), families.uniform_policy(H, S, A)
    rng, r = np.random.default_rng(0), np.ascontiguousarray(np.moveaxis(mdp.phi @ mdp.theta.T, -1, 0))
    n = rng.multinomial(3000, np.full(S * A, 1 / (S * A)), size=H).reshape(H, S, A)
    gram = np.eye(D) + np.einsum("hsa,sai,saj->hij", n, mdp.phi, mdp.phi)
    sums = np.einsum("hsaj,sai->hji", rng.multinomial(n, mdp.to_tabular().P), mdp.phi)
    inverse, radius = np.linalg.inv(gram), np.zeros(H)
    for h in range(H - 1):
        radius[h] = lsvi.confidence_radius(lsvi.VERTEX, np.linalg.slogdet(gram[h])[1], 3000, D, S, H, DELTA, 1.0)
    q_up, q_low, pi, widest = *(np.empty((H, S, A)) for _ in range(3)), np.zeros((H, S), np.int64)
    up, low, gap, oracle = (np.zeros((H + 1, S)) for _ in range(4))
    work, soft_sums = bellman.soft_workspace(S, A)
    flat = mdp.phi.reshape(-1)

    def ours() -> np.ndarray:
        lsvi.plan(mdp.phi, mdp.phi, mdp.mu, r, ref, inverse, sums, radius, lsvi.VERTEX, BETA, q_up, q_low, pi, widest,
                  up, low, gap, oracle, work, soft_sums)
        return gap[0]

    first, policy = numpy_plan(mdp, r, ref, inverse, sums, radius)
    require_close(first, ours(), "the certificate")
    require_close(policy, pi, "the policy")
    variants = {
        "numpy": lambda: numpy_plan(mdp, r, ref, inverse, sums, radius), "mdpsim": ours,
        "read of the features": lambda: read(flat, H),
    }
    return compare("one planning of LSVI-UCB-Ent, S=20 A=4 H=10 d=8", variants, "numpy", "read of the features", rounds)


def run(learner: LSVIUCBEnt, mdp: LinearMDP, refresh: int) -> None:
    """A run with inverses computed afresh after ``refresh`` updates."""
    before, lsvi.REFRESH = lsvi.REFRESH, refresh
    try:
        learner.run(mdp, families.uniform_policy(mdp.H, mdp.S, mdp.A), 0)
    finally:
        lsvi.REFRESH = before


def episodes(rounds: int) -> list:
    """1000 episodes with a planning each, by updated and by fresh inverses; 3 10^5 with geometric re-planning."""
    rows, each = [], LSVIUCBEnt(beta=BETA, eps=1e-12, replan=0.0, budget=1000)
    for d in (8, 32):
        mdp = families.linear_simplex(S=S, A=A, d=d, H=H, rng=0)
        variants = {
            "fresh inverses": lambda m=mdp: run(each, m, 0), "rank-one updates": lambda m=mdp: run(each, m, lsvi.REFRESH),
        }
        rows += compare(f"1000 episodes, a planning each, d={d}", variants, "fresh inverses", "rank-one updates", rounds)
    small, long = families.linear_simplex(S=12, A=3, d=4, H=3, rng=0), LSVIUCBEnt(beta=BETA, eps=1e-12, budget=300_000)
    last = {"mdpsim": lambda: run(long, small, lsvi.REFRESH)}
    return rows + compare("300 000 episodes, S=12 A=3 H=3 d=4", last, "mdpsim", "mdpsim", 5)


def main() -> None:
    """Time and save."""
    rounds = 7 if options(__doc__ or "").quick else 25
    save("linear_exploration", planning(rounds) + episodes(rounds))


if __name__ == "__main__":
    main()
