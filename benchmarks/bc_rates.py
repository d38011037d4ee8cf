"""Behaviour cloning in tabular MDPs: rates with three lines (measured, sharp bound, the paper's bound), exponents, laws, slack.

    python benchmarks/bc_rates.py --preset paper --jobs 8

Runs what the store does not hold yet, prints the verdicts and tables, writes the figures (PDF, PNG, JSON) to benchmarks/out:
bc_rate (KL against N), bc_scaling (against S, A, H), bc_qq (the chi-square law), bc_rare (rare states), bc_minimax (estimators
against the Bayes risk), bc_value (what the errors cost, stochastic and deterministic experts). Quick: half a minute.
"""

from __future__ import annotations

import argparse

import numpy as np
from _claims import exponents, judged, options, table, write, write_claim
from scipy.stats import chi2

from mdpsim import Point, fit_bc, get_claim, occupancy, sample_counts, trajectory_kl
from mdpsim.estimate.experts import random_expert
from mdpsim.mdp import families
from mdpsim.mdp.tabular import MDP
from mdpsim.papers.tiapkin2023.bounds import paper_bound, sharp_bound
from mdpsim.papers.tiapkin2023.exact_mean import poisson_log_ratio
from mdpsim.plots.quantiles import qq_figure
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, OTHERS, SINGLE, legend, new_figure, style
from mdpsim.rng import generator

SCRIPT = "bc_rates.py"
REPLICATIONS = 200


def qq(chosen: argparse.Namespace):  # type: ignore[no-untyped-def]
    """2N KL against chi-square, one panel a family, at the largest N; instances of different df through their probabilities."""
    records, _ = judged("tiapkin2023/bc-chi-square", chosen)
    last: dict[str, Point] = {}
    for point in get_claim("tiapkin2023/bc-chi-square").grid[chosen.preset]:
        last[point["family"]] = point
    panels = {}
    for family, point in last.items():
        columns = records.arms["claim"][point]
        u = chi2.cdf(columns["two_n_kl"], columns["df"])
        panels[f"{family}, N = {point['n_demos']:.0e}"] = (chi2.ppf(u, 32), lambda p: chi2.ppf(p, 32))
    return qq_figure(panels, r"$2N\,\mathrm{KL}$, as a $\chi^2_{32}$ variable")


def rare_states(n_demos: int = 10**6, seed: int = 0):  # type: ignore[no-untyped-def]
    """What a state visited x times on average adds to N KL, measured and stated (A = 3, deterministic expert)."""
    A, rare = 3, 100
    x = np.geomspace(0.03, 100, 40)
    g = x * poisson_log_ratio(x, A)
    seen, rng = [], generator(seed)
    at = x[::4]
    for visits in at:
        mu0 = np.full(rare + 1, visits / n_demos)
        mu0[0] = 1 - mu0[1:].sum()
        mdp = MDP(np.eye(rare + 1)[:, None, :].repeat(A, 1)[None], np.zeros((1, rare + 1, A)), mu0)
        expert = families.random_deterministic_policy(H=1, S=rare + 1, A=A, rng=rng)
        kl = [trajectory_kl(mdp, expert, fit_bc(sample_counts(mdp, expert, n_demos, rng))) for _ in range(50)]
        seen.append((n_demos * np.mean(kl) - (A - 1)) / rare)
    with style():
        figure = new_figure(SINGLE, 2.8)
        ax = figure.subplots()
        handles = {
            "measured": ax.loglog(at, seen, "o", color=MEASURED)[0],
            r"$x\,\mathbb{E}\,\log\frac{n+A}{n+1}$": ax.loglog(x, g, color=BOUND, linestyle="--")[0],
            r"$(A-1)(1-e^{-x})$": ax.loglog(x, -(A - 1) * np.expm1(-x), color=OTHERS[0], linestyle=":")[0],
            r"$x \log A$": ax.loglog(x[x < 3], x[x < 3] * np.log(A), color=OTHERS[1], linestyle="-.")[0],
        }
        ax.set(xlabel="expected visits $x = N d_h(s)$", ylabel=r"part of $N\,\mathrm{KL}$")
        legend(figure, handles)
    return figure


def estimators(chosen: argparse.Namespace):  # type: ignore[no-untyped-def]
    """Mean divergence over the Bayes risk for seven estimators: none below 1; the upper bound's constant is at 2."""
    records, _ = judged("tiapkin2023/bc-minimax-lower", chosen)
    points = get_claim("tiapkin2023/bc-minimax-lower").grid[chosen.preset]
    names = list(dict.fromkeys(p["estimator"] for p in points))
    sizes = list(dict.fromkeys((p["S"], p["A"], p["n_demos"]) for p in points))
    with style():
        figure = new_figure(SINGLE, 2.9)
        ax = figure.subplots()
        handles = {}
        for (S, A, n), colour, marker in zip(sizes[:4], (MEASURED, *OTHERS), "osD^", strict=False):
            values = [records.arms["claim"][Point(estimator=e, S=S, A=A, n_demos=n)]["risk"] for e in names]
            error = [2.58 * v.std() / np.sqrt(v.size) for v in values]
            handles[f"S = {S}, A = {A}, N = {n}"] = ax.errorbar(
                range(len(names)), [v.mean() for v in values], error, color=colour, marker=marker, linestyle="none")
        handles["Bayes risk"] = ax.axhline(1.0, color=BOUND, linestyle="--")
        ax.set_xticks(range(len(names)), [n.replace("-", " ") for n in names], rotation=35, ha="right")
        ax.set_ylabel("mean KL / Bayes risk")
        legend(figure, handles)
    return figure


def value_gaps(chosen: argparse.Namespace):  # type: ignore[no-untyped-def]
    """E|V_E - V_BC| against N: the root law of stochastic experts and the linear law of deterministic ones, with constants."""
    claim = get_claim("tiapkin2023/bc-value-gap-root")
    records, _ = judged(claim.id, chosen)
    lines = {"stochastic": ("claim", "predicted"), "deterministic": ("deterministic-expert", None)}
    families_ = list(dict.fromkeys(p["family"] for p in claim.grid[chosen.preset]))
    with style():
        figure = new_figure(DOUBLE, 2.5)
        axes, handles = figure.subplots(1, len(families_), sharex=True, sharey=True), {}
        for ax, family in zip(axes, families_, strict=True):
            points = [p for p in claim.grid[chosen.preset] if p["family"] == family]
            n = np.array([p["n_demos"] for p in points])
            for (name, (arm, predicted)), colour, marker in zip(lines.items(), (MEASURED, OTHERS[0]), "os", strict=True):
                columns = [records.arms[arm][p] for p in points]
                mean = np.array([c["value"].mean() for c in columns])
                (handles[f"{name} expert"],) = ax.loglog(n, mean, color=colour, marker=marker)
                if predicted:
                    limit = [c[predicted].mean() for c in columns]
                    name = r"stated: $\sqrt{2\,\mathrm{Var}/\pi N}$"
                else:
                    limit = [(c["value"] / c["ratio"]).mean() for c in columns]
                    name = "stated: $B/N$"
                (handles[name],) = ax.loglog(n, limit, color=BOUND, linestyle="--" if predicted else ":")
            ax.set(title=family, xlabel="demonstrations $N$")
        axes[0].set_ylabel(r"$\mathbb{E}|V_E - V_{\mathrm{BC}}|$")
        legend(figure, handles)
    return figure


def slack() -> str:
    """How far the bounds are from what is measured, around S = 5, A = 3, H = 4, N = 1000, one size at a time."""
    base = {"N": 1000, "S": 5, "A": 3, "H": 4}
    others = {"N": (30, 10_000, 100_000), "S": (3, 10, 20), "A": (2, 6, 12), "H": (2, 8, 16)}
    settings = [base] + [base | {axis: v} for axis, values in others.items() for v in values]
    rows = []
    for sizes in settings:
        shape, cells = {k: sizes[k] for k in "SAH"}, []
        for support in (1, sizes["A"]):
            rng, kl, sharp, paper = generator(0), [], [], []
            for _ in range(REPLICATIONS):
                mdp = families.random_mdp(**shape, rng=rng)
                expert = random_expert(**shape, support=support, rng=rng)
                kl.append(trajectory_kl(mdp, expert, fit_bc(sample_counts(mdp, expert, sizes["N"], rng))))
                sharp.append(sharp_bound(occupancy(mdp, expert), mdp.A, sizes["N"]))
                paper.append(paper_bound(mdp, sizes["N"]))
            cells += [f"{np.mean(paper) / np.quantile(kl, 0.9):.0f}", f"{np.mean(sharp) / np.mean(kl):.3f}"]
        rows.append((*sizes.values(), *cells))
    head = ("N", "S", "A", "H", "paper / 90% quantile, deterministic", "sharp / mean, deterministic",
            "paper / 90% quantile, interior", "sharp / mean, interior")
    return table(head, rows)


def main() -> None:
    """Write the figures, print the tables."""
    chosen = options(__doc__)
    verdicts = {
        name: write_claim(f"tiapkin2023/{name}", chosen, name.replace("-", "_"))[1] for name in ("bc-rate", "bc-scaling")
    }
    write(qq(chosen), chosen, "bc_qq", SCRIPT)
    write(rare_states(), chosen, "bc_rare", SCRIPT)
    write(estimators(chosen), chosen, "bc_minimax", SCRIPT)
    write(value_gaps(chosen), chosen, "bc_value", SCRIPT)
    print("\n" + exponents(verdicts))
    print(f"\nslack of the bounds, {REPLICATIONS} replications\n" + slack())


if __name__ == "__main__":
    main()
