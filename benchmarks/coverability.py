"""Coverability: how often past data can fail to predict, beside its bounds, and what coverability depends on.

    python benchmarks/coverability.py --preset quick

Runs what the store does not hold yet, prints the verdicts, and writes to benchmarks/out:

* coverability_sec: the greedy lower bound of the extrapolation coefficient against T, beside the proven bound (dashed, the
  least over the instances), 1.5 Ccov log T, which one wrong policy refutes, and Ccov (D^2 / lambda + 1 + log T), an observation
  without a proof;
* coverability_box: Ccov of a box of rewards against 1 / beta and against the reference's rare mass;
* coverability_starts: how often CCCP from pi_ref alone misses the least value of XPO's objective, and how much is proven.

A minute on two cores.
"""

from __future__ import annotations

import argparse

import numpy as np
from _claims import judged, options, table, write

from mdpsim import Point, get_claim
from mdpsim.align.cccp import fit_softmax
from mdpsim.align.coverage import box_coverability, coverability, extrapolation_bound, greedy_extrapolation
from mdpsim.align.softmax_class import LinearBox
from mdpsim.papers.xie2024.coverability import random_class
from mdpsim.papers.xie2024.softmax_class import random_fit
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, NOTE, OTHERS, legend, new_figure, style
from mdpsim.report import citation
from mdpsim.rng import generator, key

STEPS = 4 ** np.arange(1, 8)
CLASSES = {"box": "box of rewards", "prompts": "two prompts", "tokens": "token trees", "laws": "random laws",
           "needles": "32 needles", "wrong": "one wrong policy"}


def extrapolation(seed: int, instances: int = 20):  # type: ignore[no-untyped-def]
    """Greedy / Ccov against T with lambda = 1: every class with 6 responses (needles 32, trees 8), beta = 0.05."""
    colours = (MEASURED, *OTHERS, NOTE)
    with style():
        figure = new_figure(DOUBLE, 2.9)
        one, two = figure.subplots(1, 2)
        handles, rows = {}, []
        for (family, text), colour in zip(CLASSES.items(), colours, strict=True):
            curves, bounds, guesses = [], [], []
            for i in range(instances):
                point = Point(family=family, n_responses=32 if family == "needles" else 6, beta=0.05)
                logs, ref, r, mu0 = random_class(point, generator(key("coverability", seed, family, i)))
                found = greedy_extrapolation(logs, ref, r, beta=0.05, mu0=mu0, steps=int(STEPS[-1]), least=1.0)
                ccov = coverability(logs, mu0=mu0)
                guesses.append(found.value[STEPS - 1] / (ccov * (found.D**2 + 1.0 + np.log(STEPS))))
                curves.append(found.value[STEPS - 1] / ccov)
                bounds.append(extrapolation_bound(ccov, D=found.D, least=1.0, steps=STEPS) / ccov)
            mean, low, high = np.mean(curves, axis=0), np.min(curves, axis=0), np.max(curves, axis=0)
            (handles[text],) = one.plot(STEPS, mean, color=colour)
            one.fill_between(STEPS, low, high, color=colour, alpha=0.15, linewidth=0)
            two.plot(STEPS, mean / np.log(STEPS), color=colour)
            two.fill_between(STEPS, low / np.log(STEPS), high / np.log(STEPS), color=colour, alpha=0.15, linewidth=0)
            one.plot(STEPS, np.min(bounds, axis=0), color=colour, linestyle="--", linewidth=0.9)
            worst = (np.array(curves) / np.log(STEPS))[:, STEPS >= 64].max()
            slack = np.min(np.array(bounds) / curves)
            rows.append((text, f"{mean[-1]:.2f}", f"{worst:.2f}", f"{np.max(guesses):.2f}", f"{slack:.1f}"))
        (handles[r"$1.5 \log T$: refuted"],) = one.plot(STEPS, 1.5 * np.log(STEPS), color=NOTE, linestyle=":")
        (handles[r"$4 + 1 + \log T$: observed"],) = one.plot(STEPS, 5.0 + np.log(STEPS), color=NOTE, linestyle="-.")
        two.plot(STEPS, 5.0 / np.log(STEPS) + 1.0, color=NOTE, linestyle="-.")
        two.axhline(1.5, color=NOTE, linestyle=":")
        (handles["proven bound"],) = one.plot([], [], color=BOUND, linestyle="--", linewidth=0.9)
        one.set(xscale="log", yscale="log", xlabel="steps $T$", ylabel=r"greedy SEC / $C_{\mathrm{cov}}$")
        two.set(xscale="log", xlabel="steps $T$", ylabel=r"greedy SEC / ($C_{\mathrm{cov}} \log T$)")
        legend(figure, handles)
    print(table(("class", f"mean SEC / Ccov at T = {STEPS[-1]}", "largest SEC / (Ccov log T), T >= 64",
                 "largest SEC / (Ccov (D^2 / lambda + 1 + log T))", "least slack of the proven bound"), rows))
    return figure


def box():  # type: ignore[no-untyped-def]
    """Ccov of the box of rewards [0, 1]^5 against 1 / beta: rare responses count from 1 / beta = log(1 / pi_ref) on."""
    inverse = np.geomspace(0.5, 100.0, 200)
    with style():
        figure = new_figure(DOUBLE, 2.7)
        one, two = figure.subplots(1, 2)
        handles = {}
        for least, colour in zip((0.2, 1e-2, 1e-5, 1e-10), (MEASURED, *OTHERS), strict=False):
            ref = np.append(np.full(4, least), 1.0 - 4 * least)
            values = [box_coverability(ref, r_max=1.0, beta=1.0 / b) for b in inverse]
            text = r"$\pi_{\mathrm{ref}} = $ 1/5 each" if least == 0.2 else rf"four of $10^{{{np.log10(least):.0f}}}$"
            (handles[text],) = one.plot(inverse, values, color=colour)
            if least < 0.2:
                one.axvline(np.log(1.0 / least), color=colour, linewidth=0.7, linestyle=":")
        (handles[r"$1/\beta = \log(1/\pi_{\mathrm{ref}})$"],) = one.plot([], [], color=NOTE, linewidth=0.7, linestyle=":")
        one.axhline(5.0, color=BOUND, linestyle="--", linewidth=0.9)
        one.set(xscale="log", xlabel=r"$1/\beta$ (rewards in [0, 1])", ylabel=r"$C_{\mathrm{cov}}$, 5 responses")
        masses = np.geomspace(1e-12, 0.2, 200)
        for beta, colour in zip((1.0, 0.3, 0.1, 0.05), (MEASURED, *OTHERS), strict=False):
            refs = [np.append(np.full(4, m), 1.0 - 4 * m) for m in masses]
            values = np.array([box_coverability(p, r_max=1.0, beta=beta) for p in refs])
            two.plot(masses, values, color=colour, linestyle="--")
            at = int(np.argmax(values > 0.5 * (1.0 + values.max())))
            two.annotate(rf"$\beta = {beta:g}$", (masses[at], values[at]), textcoords="offset points", xytext=(5, -3),
                         fontsize=7.5, color=colour)
        two.set(xscale="log", xlabel=r"$\pi_{\mathrm{ref}}$ of the four rare responses", xlim=(5e-13, 4.0), ylim=(0.9, 5.6))
        legend(figure, handles)
    return figure


def starts(seed: int, instances: int = 60):  # type: ignore[no-untyped-def]
    """Share of random instances in which CCCP from pi_ref alone misses the best value found, and the certificate's width."""
    betas = np.geomspace(0.01, 3.0, 9)
    with style():
        figure = new_figure(DOUBLE, 2.7)
        one, two = figure.subplots(1, 2)
        handles = {}
        families = {"responses": "3 responses", "prompts": "2 prompts", "tokens": "2 binary tokens", "linear": "2 features"}
        for (family, text), colour in zip(families.items(), (MEASURED, *OTHERS), strict=False):
            missed, widths = [], []
            for beta in betas:
                lost, wide = [], []
                for i in range(instances):
                    problem = random_fit(Point(family=family, beta=float(beta)), generator(key("starts", seed, family, i)))
                    model, data, alpha = problem
                    fit = fit_softmax(model, **data, alpha=alpha)
                    centre = np.full((1, model.size), 0.0 if isinstance(model, LinearBox) else 0.5 * model.r_max)
                    lost.append(fit_softmax(model, **data, alpha=alpha, starts=centre, basins=0).value > fit.value + 1e-4)
                    wide.append((fit.value - fit.lower) / (len(data["prompts"]) * alpha * np.log(model.Y)))
                missed.append(np.mean(lost))
                widths.append(np.median(wide))
            (handles[text],) = one.plot(betas, missed, color=colour, marker="o", markersize=3)
            two.plot(betas, widths, color=colour, marker="o", markersize=3)
        one.set(xscale="log", xlabel=r"$\beta$", ylabel=r"share missed from $\pi_{\mathrm{ref}}$ alone", ylim=(0, None))
        two.axhline(1.0, color=BOUND, linestyle="--", linewidth=0.9)
        two.set(xscale="log", xlabel=r"$\beta$", ylabel=r"proven gap / $(n \alpha \log K)$", ylim=(0, 1.1))
        legend(figure, handles)
    return figure


def main() -> None:
    """Write the figures, print the verdicts."""
    chosen: argparse.Namespace = options(__doc__)
    for name in ("coverability-formula", "sec-coverability", "softmax-class", "softmax-certificate"):
        print(citation(get_claim(f"xie2024/{name}"), judged(f"xie2024/{name}", chosen)[1]))
    for name, figure in (
        ("coverability_sec", extrapolation(chosen.seed)), ("coverability_box", box()),
        ("coverability_starts", starts(chosen.seed)),
    ):
        write(figure, chosen, name, "coverability.py")


if __name__ == "__main__":
    main()
