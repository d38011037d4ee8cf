"""UCBVI-Ent+ with re-planning at every episode, against the same loop in numpy, and the cost of an episode alone.

    python benchmarks/speed/exploration.py [--quick]

S = 20, A = 4, H = 10. The numpy re-planner computes the same bounds and certificate, vectorised over states and actions, and is
checked to agree. rlberry-scool's UCBVI is not run here: its environment is its own.
"""

from __future__ import annotations

import numpy as np
from _timing import compare, options, read, require_close, save

from mdpsim.kernels import bellman, ucbvi
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families

S, A, H, BETA, DELTA = 20, 4, 10, 0.1, 0.1


def numpy_plan(visits, nexts, r, ref):  # type: ignore[no-untyped-def]
    """G_0(s) and the policy, by vectorised numpy: what a careful user would write."""
    ranges = np.zeros(H + 1)
    for h in range(H - 1, -1, -1):
        span = H - h - 1
        ranges[h] = ranges[h + 1] + min(span, span**2 / (8 * BETA))
    up, low, gap = np.zeros(S), np.zeros(S), np.zeros(S)
    pi = np.empty((H, S, A))
    seen = visits > 0
    n = np.where(seen, visits, 1.0)
    radius = np.sqrt((1 + 1 / n) * (np.log(2 * S * A * H / DELTA) + 0.5 * np.log(n + 1)) / (2 * n))
    kappa = (np.log(3 * S * A * H / DELTA) + (S - 1) * (1 + np.log1p(n / (S - 1)))) / n
    for h in range(H - 1, -1, -1):
        span = H - h - 1
        p = nexts[h] / n[h][..., None]
        rest = ranges[h + 1]
        y = p @ gap
        q_up = r[h] + np.where(seen[h], np.minimum(p @ up + span * radius[h], span), span)
        q_low = r[h] + np.where(seen[h], np.maximum(p @ low - span * radius[h], 0.0), 0.0)
        ahead = np.where(seen[h], np.minimum(rest, y + np.sqrt(2 * rest * kappa[h] * y) + 2 * rest * kappa[h]), rest)
        top_up, top_low = q_up.max(axis=-1, keepdims=True), q_low.max(axis=-1, keepdims=True)
        weight = ref[h] * np.exp((q_up - top_up) / BETA)
        total = weight.sum(axis=-1, keepdims=True)
        pi[h] = weight / total
        up = (top_up + BETA * np.log(total))[:, 0]
        low = (top_low[:, 0] + BETA * np.log((ref[h] * np.exp((q_low - top_low) / BETA)).sum(axis=-1)))
        m = (q_up - q_low).max(axis=-1)
        gap = np.minimum(m, m**2 / (8 * BETA)) + (pi[h] * ahead).sum(axis=-1)
    return gap, pi


def main() -> None:
    """One planning on the counts of 3000 episodes; the limit is one read of the counts of next states."""
    rounds = 7 if options(__doc__ or "").quick else 25
    mdp, ref = families.random_mdp(S=S, A=A, H=H, rng=0), families.uniform_policy(H, S, A)
    trace = UCBVIEnt(beta=BETA, eps=1e-12, budget=3000).run(mdp, ref, 0)
    visits = trace.visits.astype(float)
    nexts = np.random.default_rng(0).multinomial(trace.visits, mdp.P).astype(float)
    q_up, q_low, pi, widest = *(np.empty((H, S, A)) for _ in range(3)), np.zeros((H, S), np.int64)
    up, low, gap = (np.zeros((H + 1, S)) for _ in range(3))
    (work, sums), radii = bellman.soft_workspace(S, A), np.zeros((H, 4, S, A))
    ranges, flat = ucbvi.gap_ranges(H, BETA, False), nexts.reshape(-1)

    def ours() -> np.ndarray:
        ucbvi.plan(visits, nexts, nexts[..., 0], mdp.r, ref, BETA, DELTA, 1.0, False, False, ranges, q_up, q_low, pi, widest,
                   up, low, gap, work, sums, radii)
        return gap[0]

    first, policy = numpy_plan(visits, nexts, mdp.r, ref)
    require_close(first, ours(), "the certificate")
    require_close(policy, pi, "the policy")
    rows = compare(
        "one planning of UCBVI-Ent+, S=20 A=4 H=10",
        {"numpy": lambda: numpy_plan(visits, nexts, mdp.r, ref), "mdpsim": ours, "read of the counts": lambda: read(flat, 1)},
        "numpy", "read of the counts", rounds,
    )
    learner = UCBVIEnt(beta=BETA, eps=1e-12, replan=0.0, budget=1000)
    rows += compare(
        "1000 episodes, a planning each", {"mdpsim": lambda: learner.run(mdp, ref, 0), "its plannings alone": lambda: [
            ours() for _ in range(1000)]}, "mdpsim", "its plannings alone", rounds,
    )
    small, uniform = families.random_mdp(S=6, A=3, H=4, rng=0), families.uniform_policy(4, 6, 3)
    long = UCBVIEnt(beta=BETA, eps=1e-12, budget=2_500_000)
    rows += compare("2.5 million episodes, S=6 A=3 H=4", {"mdpsim": lambda: long.run(small, uniform, 0)}, "mdpsim", "mdpsim", 3)
    save("exploration", rows)


if __name__ == "__main__":
    main()
