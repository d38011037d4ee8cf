"""Where demonstrations pay: episodes to reach the same target with and without them, and where cloning alone suffices.

    python benchmarks/demonstrations.py

Random MDPs (S = 4, A = 2, H = 3), the optimal expert, eps = 0.01, target loss 2 eps, bonuses scaled by 0.3. Left: episodes of
demonstration-regularised RL against N_E; of the same learner regularised towards the uniform policy, with the weight
eps / KL(pi_E || uniform); of the rule without strong convexity (value known to the target, weight a tenth of eps / (H log A));
and of BPI-UCBVI, without the KL term. Right: the losses, those of the clone alone among them. A minute; figure in
benchmarks/out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _claims import table

from mdpsim import evaluate, sample_counts, solve_hard, trajectory_kl
from mdpsim.estimate.experts import optimal_expert
from mdpsim.learn.demonstration import DemonstrationRL
from mdpsim.learn.ucbvi import UCBVI
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, NOTE, OTHERS, legend, new_figure, save, style
from mdpsim.rng import generator
from mdpsim.versions import commit

S, A, H, EPS, SCALE, REPLICATIONS, SEED = 4, 2, 3, 0.01, 0.3, 30, 0
DEMOS = (4, 16, 64, 256, 1024)
SETTING = {"bonus_scale": SCALE, "replan": 0.02, "budget": 10**8}


def measure() -> dict[str, np.ndarray]:
    """Name -> [replications, N_E] or [replications]: episodes and losses."""
    uniform = families.uniform_policy(H, S, A)
    names = ("episodes", "loss", "cloning", "uniform", "uniform loss", "slow", "slow loss", "hard", "hard loss")
    seen: dict[str, list] = {name: [] for name in names}
    rng = generator(SEED)
    for _ in range(REPLICATIONS):
        mdp = families.random_mdp(S=S, A=A, H=H, rng=rng)
        expert, best = optimal_expert(mdp), float(mdp.mu0 @ solve_hard(mdp).V[0])
        runs = [DemonstrationRL(eps=EPS, **SETTING).run(mdp, sample_counts(mdp, expert, n, rng), rng) for n in DEMOS]
        seen["episodes"].append([r.trace.n_episodes for r in runs])
        seen["loss"].append([r.loss for r in runs])
        seen["cloning"].append([r.cloning_loss for r in runs])
        weak = 0.1 * EPS / (H * np.log(A))
        others = {
            "uniform": UCBVIEnt(beta=EPS / trajectory_kl(mdp, expert, uniform), eps=EPS, **SETTING),
            "slow": UCBVIEnt(beta=weak, eps=2 * EPS - weak * H * np.log(A), stop="width", **SETTING),
            "hard": UCBVI(eps=2 * EPS, **SETTING),
        }
        for name, learner in others.items():
            trace = learner.run(mdp, uniform, rng)
            seen[name].append(trace.n_episodes)
            seen[f"{name} loss"].append(best - evaluate(mdp, trace.pi).J)
    return {k: np.array(v, float) for k, v in seen.items()}


def main() -> None:
    """Write the figure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    out, m = parser.parse_args().out, measure()
    with style():
        figure = new_figure(DOUBLE, 2.8)
        (left, right), handles = figure.subplots(1, 2), {}
        (handles["with demonstrations"],) = left.loglog(DEMOS, m["episodes"].mean(axis=0), "o-", color=MEASURED)
        handles["towards the uniform policy"] = left.axhline(m["uniform"].mean(), color=OTHERS[0], linestyle="--")
        handles["without strong convexity"] = left.axhline(m["slow"].mean(), color=OTHERS[1], linestyle="-.")
        handles["without the KL term (BPI-UCBVI)"] = left.axhline(m["hard"].mean(), color=OTHERS[3], linestyle=(0, (1, 1)))
        left.set(xlabel="demonstrations $N_E$", ylabel="episodes to the target")
        right.loglog(DEMOS, m["loss"].mean(axis=0), "o-", color=MEASURED)
        (handles["cloning alone"],) = right.loglog(DEMOS, m["cloning"].mean(axis=0), "s-", color=OTHERS[2])
        handles["target $2\\varepsilon$"] = right.axhline(2 * EPS, color=BOUND, linestyle=":")
        right.axhline(max(m["uniform loss"].mean(), 1e-6), color=OTHERS[0], linestyle="--")
        right.set(xlabel="demonstrations $N_E$", ylabel="loss $V^* - V^{\\pi}$")
        right.tick_params(colors=NOTE, which="minor")
        legend(figure, handles)
    side = {"script": "benchmarks/demonstrations.py", "seed": SEED, "replications": REPLICATIONS, "commit": commit()}
    print(save(figure, out / "demonstrations", side)[1])
    rows = [
        (n, f"{m['episodes'][:, i].mean():.0f}", f"{m['loss'][:, i].mean():.1e}", f"{m['cloning'][:, i].mean():.4f}",
         f"{(m['cloning'][:, i] <= 2 * EPS).mean():.2f}") for i, n in enumerate(DEMOS)
    ]
    print(table(("N_E", "episodes", "loss", "cloning alone loses", "share of runs where cloning alone meets the target"), rows))
    print(f"towards uniform: {m['uniform'].mean():.0f} episodes, loss {m['uniform loss'].mean():.1e}; "
          f"without strong convexity: {m['slow'].mean():.0f}, loss {m['slow loss'].mean():.1e}; "
          f"BPI-UCBVI: {m['hard'].mean():.0f}, loss {m['hard loss'].mean():.1e}")


if __name__ == "__main__":
    main()
