"""Regularised best-policy identification: stopping times against eps and beta, and what a run knows while it learns.

    python benchmarks/regularised_bpi.py --preset paper --jobs 8

Runs what the store does not hold yet, prints the verdicts and exponents, and writes to benchmarks/out: bpi_eps, bpi_beta,
bpi_slow (the claims' figures), and bpi_curves: the certificate, the width Vu - Vl and the exact gap along single runs.
"""

from __future__ import annotations

import argparse

import numpy as np
from _claims import exponents, options, write, write_claim

from mdpsim.learn.ucbvi_ent import UCBVIEnt
from mdpsim.mdp import families
from mdpsim.plots.style import BOUND, DOUBLE, MEASURED, OTHERS, legend, new_figure, style

CLAIMS = {"bpi_eps": "ucbvi-ent-eps-rate", "bpi_beta": "ucbvi-ent-beta-rate", "bpi_slow": "fast-versus-slow"}


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


def main() -> None:
    """Write the figures, print the exponents."""
    chosen = options(__doc__)
    verdicts = {claim: write_claim(f"tiapkin2023/{claim}", chosen, name)[1] for name, claim in CLAIMS.items()}
    write(curves(chosen), chosen, "bpi_curves", "regularised_bpi.py")
    print("\n" + exponents(verdicts))


if __name__ == "__main__":
    main()
