"""Log-linear behaviour cloning: the effective dimension decides, not the number of states.

    python benchmarks/bc_linear.py --preset paper --jobs 8

Runs what the store does not hold yet, prints the verdicts and the exponents in N, d, H and S, and writes the figures to
benchmarks/out: bc_linear_rate, bc_linear_scaling, bc_linear_qq (the chi-square law). Quick: ten seconds.
"""

from __future__ import annotations

import argparse

from _claims import exponents, judged, options, write, write_claim
from scipy.stats import chi2

from mdpsim import get_claim
from mdpsim.plots.quantiles import qq_figure


def qq(chosen: argparse.Namespace):  # type: ignore[no-untyped-def]
    """2N KL against chi-square with the effective dimension, one panel a kind of features, at the largest N."""
    records, _ = judged("tiapkin2023/bc-linear-law", chosen)
    last = {p["features"]: p for p in get_claim("tiapkin2023/bc-linear-law").grid[chosen.preset]}
    panels = {}
    for kind, point in last.items():
        columns = records.arms["claim"][point]
        df = float(columns["df"][0])
        assert (columns["df"] == df).all()
        panels[f"{kind}, {df:.0f} degrees of freedom"] = (columns["two_n_kl"], chi2(df).ppf)
    return qq_figure(panels, r"$2N\,\mathrm{KL}_{\mathrm{traj}}$")


def main() -> None:
    """Write the figures, print the exponents."""
    chosen = options(__doc__)
    verdicts = {
        name: write_claim(f"tiapkin2023/{name}", chosen, name.replace("-", "_"))[1]
        for name in ("bc-linear-rate", "bc-linear-scaling")
    }
    write(qq(chosen), chosen, "bc_linear_qq", "bc_linear.py")
    print("\n" + exponents(verdicts))


if __name__ == "__main__":
    main()
