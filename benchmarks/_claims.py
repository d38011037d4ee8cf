"""What the scripts share: options, running a claim, writing its figure with where it came from, and tables."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdpsim import Store, get_claim, judge, run
from mdpsim.plots import claim_figure
from mdpsim.plots.style import save
from mdpsim.report import citation, sidecar
from mdpsim.store import DEFAULT_PATH
from mdpsim.verdict.records import Records, Verdict
from mdpsim.versions import commit


def options(doc: str | None) -> argparse.Namespace:
    """--preset, --seed, --jobs, --store, --out."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--store", type=Path, default=DEFAULT_PATH)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out")
    return parser.parse_args()


def judged(claim_id: str, chosen: argparse.Namespace) -> tuple[Records, Verdict]:
    """Run what the store does not hold yet of a claim, and judge it."""
    claim = get_claim(claim_id)
    with Store(chosen.store) as store:
        records = run(claim, preset=chosen.preset, seed=chosen.seed, store=store, jobs=chosen.jobs)
    return records, judge(claim, records)


def write_claim(claim_id: str, chosen: argparse.Namespace, name: str) -> tuple[Records, Verdict]:
    """The claim's own figure (PDF, PNG, JSON sidecar), and the sentence to cite on stdout."""
    records, verdict = judged(claim_id, chosen)
    claim = get_claim(claim_id)
    print(save(claim_figure(claim, records, verdict), chosen.out / name, sidecar(verdict, {"commit": commit()}))[1])
    print(citation(claim, verdict))
    return records, verdict


def write(figure: Any, chosen: argparse.Namespace, name: str, script: str, **more: Any) -> None:
    """A figure of a script's own."""
    side = {"script": f"benchmarks/{script}", "preset": chosen.preset, "seed": chosen.seed, "commit": commit()} | more
    print(save(figure, chosen.out / name, side)[1])


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def exponents(verdicts: Mapping[str, Verdict]) -> str:
    """The fitted slope of every line of some Rate claims, with its interval, beside the formula's on the same grid."""
    rows = [
        (name, str(p.point), f"{p.estimate:.3f}", f"[{p.interval[0]:.3f}, {p.interval[1]:.3f}]", f"{p.bound:.3f}", p.status)
        for name, verdict in verdicts.items() for p in verdict.points
    ]
    return table(("claim", "line", "exponent", "99% interval", "formula", "status"), rows)
