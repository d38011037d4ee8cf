"""The rate plot of behaviour cloning: KL to the expert against demonstrations, with the sharp bound and the paper's.

    python benchmarks/bc_rate.py --preset paper --jobs 8

Runs what the store does not hold yet, prints the verdict and writes the figure (PDF, PNG, JSON sidecar) to benchmarks/out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mdpsim import Store, get_claim, judge, run
from mdpsim.plots import claim_figure
from mdpsim.plots.style import save
from mdpsim.report import citation, sidecar
from mdpsim.store import DEFAULT_PATH
from mdpsim.versions import commit

CLAIM = "tiapkin2023/bc-rate"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--store", type=Path, default=DEFAULT_PATH)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    options = parser.parse_args()
    claim = get_claim(CLAIM)
    with Store(options.store) as store:
        records = run(claim, preset=options.preset, seed=options.seed, store=store, jobs=options.jobs)
    verdict = judge(claim, records)
    for path in save(claim_figure(claim, records, verdict), options.out / "bc_rate", sidecar(verdict, {"commit": commit()})):
        print(path)
    print(citation(claim, verdict))


if __name__ == "__main__":
    main()
