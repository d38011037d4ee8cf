"""RLHF near a clone: what preferences bring, why the KL term is needed, which weights are safe, and what pessimism adds.

    python benchmarks/rlhf.py --preset quick

Runs what the store does not hold yet of rlhf-rate and rlhf-linear and writes their figures (rlhf_rate, rlhf_linear); then
rlhf_losses: the loss V* - V against the number of preferences, on random MDPs (S = 4, A = 3, H = 3, the clone of 50
demonstrations) and on arms of every probability 2^-l, for fixed weights, weights falling as n^-1/2, none, and the pessimistic
baseline; and rlhf_error: the error of the fitted reward where every arm is covered and where not, beside its limit. All in
benchmarks/out.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from _claims import exponents, options, table, write, write_claim

from mdpsim import evaluate, fit_reward, sample_preferences, solve_hard
from mdpsim.learn.rlhf import RLHF
from mdpsim.mdp import families
from mdpsim.papers.tiapkin2023.rlhf import pipeline, predicted_error
from mdpsim.papers.tiapkin2023.rlhf_coverage import BOX, MASSES, RADIUS, rare_arms
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, OTHERS, legend, new_figure, style
from mdpsim.rng import generator

PAIRS, RUNS = (100, 300, 1000, 3000, 10_000, 30_000), 20
ARMS = {  # name -> (beta, decay), and how it is drawn
    "no KL term": (0.0, 0.0), r"$\beta = 0.1$": (0.1, 0.0), r"$\beta = 0.3$": (0.3, 0.0),
    r"$\beta = 4\,n^{-1/2}$": (4.0, 0.5), r"$\beta = n^{-1/2}$": (1.0, 0.5),
}
PESSIMIST, CLONE = "pessimistic, no KL term", "the clone"


def losses(kind: str, seed: int) -> dict[str, np.ndarray]:
    """Name -> losses [runs, pairs]; one stream of preferences and one fit a number of pairs serve all of a run's arms."""
    found: dict[str, list] = {name: [] for name in (*ARMS, PESSIMIST, CLONE)}
    learner = RLHF(beta=0.0, n_pairs=PAIRS, high=BOX if kind == "rare-arms" else 1.0)
    for i in range(RUNS):
        rng = generator(seed + i)
        mdp, run = rare_arms(learner, rng) if kind == "rare-arms" else pipeline(kind, 50, learner, rng)[::2]
        best = float(mdp.mu0 @ solve_hard(mdp).V[0])
        for name, (beta, decay) in ARMS.items():
            plans = [learner.plan(mdp, run.clone, fit, beta * n**-decay) for n, fit in zip(PAIRS, run.fits, strict=True)]
            found[name].append([best - evaluate(mdp, plan.pi).J for plan in plans])
        careful = replace(learner, pessimism=RADIUS)
        found[PESSIMIST].append([best - evaluate(mdp, careful.plan(mdp, run.clone, fit, 0.0).pi).J for fit in run.fits])
        found[CLONE].append([run.cloning_loss] * len(PAIRS))
    return {name: np.array(rows) for name, rows in found.items()}


def loss_figure(results: dict[str, dict[str, np.ndarray]]):  # type: ignore[no-untyped-def]
    """A panel an instance."""
    looks = {
        "no KL term": (OTHERS[0], "o-"), r"$\beta = 0.1$": (OTHERS[1], "s-"), r"$\beta = 0.3$": (OTHERS[1], "^--"),
        r"$\beta = 4\,n^{-1/2}$": (MEASURED, "o-"), r"$\beta = n^{-1/2}$": (MEASURED, "v--"), PESSIMIST: (OTHERS[2], "d-"),
        CLONE: (BOUND, ":"),
    }
    titles = {"dirichlet": "random MDPs", "rare-arms": "arms of every probability"}
    with style():
        figure = new_figure(DOUBLE, 3.0)
        handles = {}
        for panel, (kind, rows) in zip(figure.subplots(1, 2), results.items(), strict=True):
            for name, values in rows.items():
                colour, mark = looks[name]
                (handles[name],) = panel.loglog(PAIRS, values.mean(axis=0), mark, color=colour, markersize=3.5)
            panel.set(xlabel="preferences $n$", ylabel=r"loss $V^* - V^{\hat\pi}$", title=titles[kind])
        legend(figure, handles)
    return figure


def error_rows(seed: int) -> dict[str, tuple[np.ndarray, float]]:
    """Name -> (n Var(err) [runs, pairs], its limit) for eight covered arms, and for the rare arms."""
    covered = np.geomspace(0.2, 0.05, 8)
    found = {}
    for name, pi in (("eight covered arms", covered / covered.sum()), ("arms of every probability", MASSES)):
        rows, limits = [], []
        for i in range(RUNS):
            rng = generator(seed + i)
            mdp, ref = families.bandit(rng.random(pi.size)), pi.reshape(1, 1, -1)
            pairs = [sample_preferences(mdp, ref, ref, n, rng) for n in PAIRS]
            errs = [fit_reward(p, low=-1.0, high=2.0).r[0, 0] - mdp.r[0, 0] for p in pairs]
            rows.append([n * float(pi @ (e - pi @ e) ** 2) for n, e in zip(PAIRS, errs, strict=True)])
            limits.append(predicted_error(pi, mdp.r[0, 0]))
        found[name] = np.array(rows), float(np.mean(limits))
    return found


def error_figure(found: dict[str, tuple[np.ndarray, float]]):  # type: ignore[no-untyped-def]
    """n times the error against n: flat at its limit where covered."""
    with style():
        figure = new_figure(DOUBLE, 2.7)
        panel, handles = figure.subplots(), {}
        for colour, (name, (rows, limit)) in zip((MEASURED, OTHERS[0]), found.items(), strict=True):
            (handles[name],) = panel.loglog(PAIRS, rows.mean(axis=0), "o-", color=colour)
            handles["the limit (41)"] = panel.axhline(limit, color=BOUND, linestyle="--" if colour == MEASURED else ":")
        panel.set(xlabel="preferences $n$", ylabel=r"$n\,\mathrm{Var}_{\pi_{BC}}(\hat r - r)$")
        legend(figure, handles)
    return figure


def main() -> None:
    """Write the figures, print the tables."""
    chosen: argparse.Namespace = options(__doc__)
    names = ("rlhf-rate", "rlhf-linear")
    verdicts = {name: write_claim(f"tiapkin2023/{name}", chosen, name.replace("-", "_"))[1] for name in names}
    print("\n" + exponents(verdicts) + "\n")
    results = {kind: losses(kind, chosen.seed) for kind in ("dirichlet", "rare-arms")}
    write(loss_figure(results), chosen, "rlhf_losses", "rlhf.py", runs=RUNS)
    for kind, rows in results.items():
        print(f"\nmean loss of {RUNS} runs, {kind}")
        means = [(k, *(f"{x:.4f}" for x in v.mean(axis=0))) for k, v in rows.items()]
        print(table(("method", *(f"n = {n}" for n in PAIRS)), means))
    found = error_rows(chosen.seed)
    write(error_figure(found), chosen, "rlhf_error", "rlhf.py", runs=RUNS)
    print("\n" + table(("n Var(err)", *(f"n = {n}" for n in PAIRS), "limit"), [
        (k, *(f"{x:.1f}" for x in v.mean(axis=0)), f"{limit:.1f}") for k, (v, limit) in found.items()]))


if __name__ == "__main__":
    main()
