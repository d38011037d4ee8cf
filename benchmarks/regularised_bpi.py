"""Regularised best-policy identification: stopping times against eps and beta, and what a run knows while it learns.

    python benchmarks/regularised_bpi.py --preset paper --jobs 8

Runs what the store does not hold yet, prints the verdicts and exponents, and writes to benchmarks/out: bpi_eps, bpi_beta,
bpi_slow, bpi_baseline (the claims' figures), and bpi_curves: the certificate, the width Vu - Vl and the exact gap along single
runs. Prints how episodes grow with S, A and H (reported, not claimed), how the variants compare, and how well each stage is
known.
"""

from __future__ import annotations

import argparse

import numpy as np
from _claims import exponents, options, table, write, write_claim

from mdpsim.learn.ucbvi import UCBVI
from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, OTHERS, legend, new_figure, style

CLAIMS = {"bpi_eps": "ucbvi-ent-eps-rate", "bpi_beta": "ucbvi-ent-beta-rate", "bpi_slow": "fast-versus-slow",
          "bpi_baseline": "ucbvi-eps-rate"}


def curves(chosen: argparse.Namespace):  # type: ignore[no-untyped-def]
    """One run a panel, beta = 0.1 and 1: S = 4, A = 2, H = 3, 10^6 episodes, c = 1."""
    mdp, ref = families.random_mdp(S=4, A=2, H=3, rng=chosen.seed), families.uniform_policy(3, 4, 2)
    with style():
        figure = new_figure(DOUBLE, 2.7)
        panels, handles = figure.subplots(1, 2, sharey=True), {}
        for panel, beta in zip(panels, (0.1, 1.0), strict=True):
            trace = UCBVIEnt(beta=beta, eps=1e-12, budget=10**6).run(mdp, ref, chosen.seed)
            on = trace.episodes > 0
            t = trace.episodes[on]
            (handles[r"width $\overline{V} - \underline{V}$"],) = panel.loglog(t, trace.widths[on], color=OTHERS[0])
            (handles["certificate $G$"],) = panel.loglog(t, trace.certificates[on], color=MEASURED)
            (handles["exact regularised gap"],) = panel.loglog(t, np.maximum(trace.gaps[on], 1e-15), color=OTHERS[1])
            for power, dash in ((-0.5, ":"), (-1.0, "--")):
                line = trace.certificates[-1] * (t / t[-1]) ** power * (1.0 if power == -1.0 else 30.0)
                (handles[f"slope ${power:g}$"],) = panel.loglog(t, line, color=BOUND, linestyle=dash, linewidth=0.9)
            panel.set(xlabel="episodes", title=rf"$\beta = {beta:g}$")
            panel.set_ylim(1e-7, 5)
        legend(figure, handles)
    return figure


def validity(seed: int, runs: int = 100) -> str:
    """Share of runs (3000 episodes, beta = 0.1, Dirichlet(0.3) kernels) whose bounds ever failed, by the bonus scale."""
    ref, rows = families.uniform_policy(3, 4, 2), []
    for scale in (1.0, 0.3, 0.1, 0.03):
        learner = UCBVIEnt(beta=0.1, eps=1e-12, bonus_scale=scale, budget=3000)
        instances = (families.random_mdp(S=4, A=2, H=3, rng=seed + i, concentration=0.3) for i in range(runs))
        failed = [learner.run(mdp, ref, seed + i).violation > 1e-10 for i, mdp in enumerate(instances)]
        rows.append((scale, f"{np.mean(failed):.2f}"))
    return table(("bonus scale c", f"share of {runs} runs whose bounds failed"), rows)


def stopping(seed: int, runs: int = 20) -> str:
    """Mean episodes until the certificate is at most eps, S = 4, A = 2, H = 3, beta = 1, c = 1."""
    ref, rows = families.uniform_policy(3, 4, 2), []
    for eps in (0.1, 0.05):
        instances = [families.random_mdp(S=4, A=2, H=3, rng=seed + i) for i in range(runs)]
        found = [UCBVIEnt(beta=1.0, eps=eps).run(mdp, ref, seed + i).n_episodes for i, mdp in enumerate(instances)]
        rows.append((eps, f"{np.mean(found):.0f}"))
    return table(("eps", f"mean episodes of {runs} runs"), rows)


def sizes(seed: int, runs: int = 10) -> str:
    """Mean episodes until the certificate is at most 0.03 as S, A or H grows from (4, 2, 3); beta = 1, c = 1."""
    rows = []
    for name, values in (("S", (4, 8, 16)), ("A", (2, 4, 8)), ("H", (3, 4, 6))):
        episodes = []
        for value in values:
            size = {"S": 4, "A": 2, "H": 3} | {name: value}
            ref = families.uniform_policy(size["H"], size["S"], size["A"])
            learner = UCBVIEnt(beta=1.0, eps=0.03, replan=0.02, budget=10**8)
            found = [learner.run(families.random_mdp(**size, rng=seed + i), ref, seed + i).n_episodes for i in range(runs)]
            episodes.append(np.mean(found))
        slopes = np.diff(np.log(episodes)) / np.diff(np.log(values))
        rows.append((name, values, ", ".join(f"{e:.0f}" for e in episodes), ", ".join(f"{x:.2f}" for x in slopes)))
    return table(("size", "values", "episodes", "exponents between them"), rows)


def variants(seed: int, runs: int = 10) -> str:
    """Mean episodes at beta = 1 (the baseline: no KL term), c = 1, of each variant; local exponents in eps."""
    ref, grid, rows = families.uniform_policy(3, 4, 2), (0.1, 0.05, 0.025), []
    for reward in ("known", "unknown"):
        for bonus in ("hoeffding", "bernstein"):
            setting = {"bonus": bonus, "reward": reward, "replan": 0.02, "budget": 10**8}
            for name in ("UCBVI-Ent+", "BPI-UCBVI"):
                if bonus == "bernstein" and name == "BPI-UCBVI":
                    continue  # millions of episodes
                learners = [UCBVIEnt(beta=1.0, eps=eps, **setting) if name == "UCBVI-Ent+" else UCBVI(eps=eps, **setting)
                            for eps in grid]
                mdps = [families.random_mdp(S=4, A=2, H=3, rng=seed + i) for i in range(runs)]
                tau = [np.mean([x.run(mdp, ref, seed + i).n_episodes for i, mdp in enumerate(mdps)]) for x in learners]
                slopes = np.diff(np.log(tau)) / np.diff(np.log(grid))
                rows.append((name, bonus, reward, *(f"{t:.0f}" for t in tau), ", ".join(f"{x:.2f}" for x in slopes)))
    return table(("learner", "bonus", "rewards", *(f"eps = {e:g}" for e in grid), "exponents"), rows)


def stages(seed: int) -> str:
    """What 10^5 episodes at beta = 0.1 show of each stage: an episode deviates at one of them or none, chance 1/4 each."""
    mdp, ref = families.random_mdp(S=4, A=2, H=3, rng=seed), families.uniform_policy(3, 4, 2)
    trace = UCBVIEnt(beta=0.1, eps=1e-12, budget=10**5).run(mdp, ref, seed)
    width, reached = trace.upper - trace.lower, trace.visits.sum(axis=-1) > 0
    rows = [(h, int(trace.visits[h][reached[h]].min()), int(trace.visits[h].max()), f"{width[h][reached[h]].max():.3f}")
            for h in range(3)]
    return table(("stage", "least visits of an action", "most", "widest Qu - Ql"), rows)


def main() -> None:
    """Write the figures, print the exponents."""
    chosen = options(__doc__)
    verdicts = {claim: write_claim(f"tiapkin2023/{claim}", chosen, name)[1] for name, claim in CLAIMS.items()}
    write(curves(chosen), chosen, "bpi_curves", "regularised_bpi.py")
    print("\n" + exponents(verdicts))
    print("\n" + validity(chosen.seed))
    for part in (stopping, sizes, variants, stages):
        print("\n" + part(chosen.seed))


if __name__ == "__main__":
    main()
