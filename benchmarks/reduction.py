"""Regularising towards a clone: what it loses against the optimum, and the theorem's bound, against the weight beta.

    python benchmarks/reduction.py

Left: V* - V of the exact regularised optimum towards clones of N demonstrations, with the bound eps_E + beta KL (dashed), mean
over random MDPs, the expert 0.1 below the optimum by construction. Right: the largest share of the bound that is ever used.
The figure goes to benchmarks/out. Takes a few seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _claims import table

from mdpsim import evaluate, fit_bc, sample_counts, solve_hard, solve_soft, suboptimal_expert, trajectory_kl
from mdpsim.mdp.families import random_mdp
from mdpsim.plots.style import DOUBLE, MEASURED, NOTE, OTHERS, legend, new_figure, save, style
from mdpsim.rng import generator
from mdpsim.versions import commit

BETAS = np.geomspace(1e-3, 10.0, 25)
DEMOS = (10, 100, 1000)
EPS_EXPERT, REPLICATIONS, SEED = 0.1, 60, 0


def losses(n_demos: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(V* - V [replications, betas], the bounds, the clones' mean loss)."""
    rng = generator(SEED)
    loss, bound, cloning = np.empty((REPLICATIONS, BETAS.size)), np.empty((REPLICATIONS, BETAS.size)), 0.0
    for i in range(REPLICATIONS):
        mdp = random_mdp(S=5, A=3, H=4, rng=rng)
        expert = suboptimal_expert(mdp, eps=EPS_EXPERT)
        clone = fit_bc(sample_counts(mdp, expert, n_demos, rng))
        best = float(mdp.mu0 @ solve_hard(mdp).V[0])
        kl = trajectory_kl(mdp, expert, clone)
        loss[i] = [best - evaluate(mdp, solve_soft(mdp, clone, float(b)).pi).J for b in BETAS]
        bound[i] = EPS_EXPERT + BETAS * kl
        cloning += (best - evaluate(mdp, clone).J) / REPLICATIONS
    return loss, bound, cloning


def main() -> None:
    """Write the figure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    out, rows = parser.parse_args().out, []
    with style():
        figure = new_figure(DOUBLE, 2.8)
        (left, right), handles = figure.subplots(1, 2), {}
        for n, colour, marker in zip(DEMOS, (MEASURED, *OTHERS), "osD", strict=False):
            loss, bound, cloning = losses(n)
            (handles[f"N = {n}"],) = left.loglog(BETAS, loss.mean(axis=0), color=colour, marker=marker, markevery=4)
            (dashed,) = left.loglog(BETAS, bound.mean(axis=0), color=colour, linestyle="--")
            right.semilogx(BETAS, (loss / bound).max(axis=0), color=colour, marker=marker, markevery=4)
            ends = f"{loss[:, 0].mean():.2e}", f"{loss[:, -1].mean():.4f}"
            rows.append((n, f"{cloning:.4f}", *ends, f"{(loss / bound).max():.3f}"))
        handles[r"bound $\varepsilon_E + \beta\,\mathrm{KL}$ (dashed)"] = dashed
        handles[r"the expert's own loss $\varepsilon_E$"] = left.axhline(EPS_EXPERT, color=NOTE, linestyle=":")
        left.set(xlabel=r"$\beta$", ylabel=r"$V^* - V^{\pi}$")
        right.set(xlabel=r"$\beta$", ylabel="largest loss / bound", ylim=(0, 1))
        legend(figure, handles)
    side = {"script": "benchmarks/reduction.py", "seed": SEED, "replications": REPLICATIONS, "commit": commit()}
    print(save(figure, out / "reduction", side)[1])
    print(table(("N", "cloning alone loses", "loss at beta = 1e-3", "loss at beta = 10", "largest loss / bound"), rows))


if __name__ == "__main__":
    main()
