"""Behaviour cloning: a log-linear fit of a large problem, and a rate plot's worth of tabular replications.

    python benchmarks/speed/cloning.py [--quick]
"""

from __future__ import annotations

import numpy as np
from _timing import compare, options, save

from mdpsim import fit_bc, fit_bc_linear, sample, sample_counts, trajectory_kl
from mdpsim.estimate.data import count
from mdpsim.mdp import families
from mdpsim.papers.tiapkin2023.linear import log_linear_instance

DEMOS = (30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)


def replications(n: int = 400) -> None:
    """n random MDPs, interior experts and add-one clones at each of eight N: S=5, A=3, H=4."""
    for n_demos in DEMOS:
        for seed in range(n):
            rng = np.random.default_rng(seed)
            mdp, expert = families.random_mdp(S=5, A=3, H=4, rng=rng), families.random_policy(S=5, A=3, H=4, rng=rng)
            trajectory_kl(mdp, expert, fit_bc(sample_counts(mdp, expert, n_demos, rng)))


def main() -> None:
    """S=100, A=10, d=20, H=5, N=1e5: the whole fit, without counting, and its counting alone (the limit)."""
    rounds = 3 if options(__doc__ or "").quick else 10
    x = log_linear_instance("gaussian", 100, 10, 5, 20, np.random.default_rng(0))
    demos = sample(x.mdp, x.expert, 100_000, 1)
    counts = count(demos)
    rows = compare(
        "log-linear fit, S=100 A=10 d=20 H=5 N=1e5",
        {"from trajectories": lambda: fit_bc_linear(demos, x.phi), "from counts": lambda: fit_bc_linear(counts, x.phi),
         "counting": lambda: count(demos)}, "from trajectories", "counting", rounds,
    )
    rows += compare("400 replications x 8 N, S=5 A=3 H=4", {"mdpsim": replications}, "mdpsim", "mdpsim", 3)
    save("cloning", rows)


if __name__ == "__main__":
    main()
