"""The goals, and what the last `make bench` measured: a tick, or the shortfall.

    python benchmarks/speed/_goals.py

Reads the tables that the other scripts wrote in benchmarks/out/. A goal is a ratio within one run: to the limit, to the
reference implementation, or to a peer. A peer that was not installed is "missing", a topic that was not run "not measured".
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from _timing import OUT

LIMIT = "of_limit"
PLAIN = "speedup"


@dataclass(frozen=True)
class Goal:
    """A ratio that a variant must reach in a topic (the first whose title starts so).

    against: "of_limit", "speedup" (to the script's reference), or the name of another variant of the topic.
    """

    what: str
    script: str
    topic: str
    variant: str
    against: str
    least: float


BATCH = "mdpsim solve_soft_batch"
SOFT, HARD, JAX = "mdpsim solve_soft", "mdpsim solve_hard", "JAX soft (jit, CPU threads)"
GOALS = (
    Goal("dense soft, P in memory, of the streaming limit", "backward_induction", "P in memory", SOFT, LIMIT, 0.90),
    Goal("  times numpy+scipy", "backward_induction", "P in memory", SOFT, PLAIN, 2.5),
    Goal("  times JAX", "backward_induction", "P in memory", SOFT, JAX, 1.5),
    Goal("dense soft, P in L3, of the reading limit", "backward_induction", "P in the last-level", SOFT, LIMIT, 0.70),
    Goal("  times numpy+scipy", "backward_induction", "P in the last-level", SOFT, PLAIN, 3.0),
    Goal("dense hard, P in memory, of the streaming limit", "backward_induction", "P in memory", HARD, LIMIT, 0.80),
    Goal("  P in L3, times quantecon", "backward_induction", "P in the last-level", HARD, "quantecon hard", 1.0),
    Goal("policy evaluation, P in memory, of the limit", "backward_induction", "P in memory", "mdpsim evaluate", LIMIT, 0.90),
    Goal("occupancy, P in memory, of the limit", "backward_induction", "P in memory", "mdpsim occupancy", LIMIT, 0.90),
    Goal("small solve, times numpy+scipy", "small_problems", "small, staged", SOFT, PLAIN, 50.0),
    Goal("  times JAX", "small_problems", "small, staged", SOFT, JAX, 5.0),
    Goal("batch S=300 B=32, of dgemm", "batched", "batch: S=300", BATCH, LIMIT, 0.85),
    Goal("  times numpy+scipy", "batched", "batch: S=300", BATCH, PLAIN, 2.3),
    Goal("  times JAX", "batched", "batch: S=300", BATCH, "JAX (jit, CPU threads)", 1.0),
    Goal("batch S=20 B=64, of dgemm + exp", "batched", "batch: S=20", BATCH, "limit: dgemm + exp", 0.70),
    Goal("  times numpy+scipy", "batched", "batch: S=20", BATCH, PLAIN, 12.0),
    Goal("batch S=50 B=64, of dgemm + exp", "batched", "batch: S=50", BATCH, "limit: dgemm + exp", 0.70),
    Goal("  times numpy+scipy", "batched", "batch: S=50", BATCH, PLAIN, 4.0),
    Goal("discounted soft, times quantecon's hard VI", "discounted", "sparse", "mdpsim soft", "quantecon hard", 5.0),
    Goal("  times mdpsolver's hard VI", "discounted", "sparse", "mdpsim soft", "mdpsolver hard", 0.5),
    Goal("linear MDP, of the limit of phi and mu", "linear", "linear: H=10", SOFT, LIMIT, 0.80),
    Goal("UCBVI-Ent+, a planning, times numpy", "exploration", "one planning", "mdpsim", PLAIN, 10.0),
    Goal("XPO, 1000 policies, 10000 rounds, times numpy", "preference", "one run", "mdpsim", PLAIN, 5.0),
    Goal("sampling, small, times numpy", "sampling", "small", "mdpsim sample", PLAIN, 3.0),
    Goal("  large, many visits, times numpy", "sampling", "large, stationary, many", "mdpsim sample", PLAIN, 8.0),
    Goal("import mdpsim, of import numba, numpy", "import_time", "fresh", "import mdpsim", PLAIN, 1 / 1.3),
)


@cache
def table(script: str) -> list[dict[str, str]]:
    """The rows that a script wrote, none where it has not run."""
    path = OUT / f"{script}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def measured(goal: Goal) -> float | str:
    """The ratio, or why there is none."""
    topics = [row for row in table(goal.script) if row["topic"].startswith(goal.topic)]
    rows = {row["variant"]: row for row in topics if row["topic"] == topics[0]["topic"]}
    if goal.variant not in rows:
        return "not measured"
    row = rows[goal.variant]
    if goal.against in (LIMIT, PLAIN):
        return float(row[goal.against])
    other = rows.get(goal.against, {"seconds": ""})
    return float(other["seconds"]) / float(row["seconds"]) if other["seconds"] else "peer missing"


def main() -> None:
    """Print one line a goal."""
    print(f"\n{'goal':<52} {'wanted':>8} {'measured':>9}")
    for goal in GOALS:
        found = measured(goal)
        if isinstance(found, str):
            print(f"{goal.what:<52} {goal.least:>8.2f} {'':>9}  {found}")
            continue
        verdict = "ok" if found >= goal.least else f"short by {100 * (1 - found / goal.least):.0f}%"
        print(f"{goal.what:<52} {goal.least:>8.2f} {found:>9.2f}  {verdict}")


if __name__ == "__main__":
    main()
