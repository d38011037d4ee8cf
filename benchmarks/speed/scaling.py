"""How time and memory of the exact solvers and samplers grow with S, A, H and the number of successors.

    python benchmarks/speed/scaling.py [--quick]

Each panel varies one size and keeps the others; the exponent is the least-squares slope of log time against log size over the
larger half of the points, beside the one that the cost stated in the docstring gives. Memory is the peak of traced allocations
beyond the inputs: the outputs V, Q, pi and work space, never a copy of P.
"""

from __future__ import annotations

import csv
import statistics
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from _timing import OUT, interleaved, options

from mdpsim.estimate.data import sample, sample_counts
from mdpsim.mdp import families
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.solve.exact import occupancy, solve_soft

Call = Callable[[], Any]


@dataclass(frozen=True)
class Panel:
    """One size varied: calls for every value of it, and the exponent that the stated cost gives."""

    title: str
    axis: str
    expected: float
    make: Callable[[int], Call]
    sizes: tuple[int, ...]


def dense(H: int, S: int, A: int) -> MDP:
    """Staged dense rows."""
    return families.random_mdp(S=S, A=A, H=H, rng=0, start="uniform")


def sparse(H: int, S: int, A: int, K: int) -> MDP:
    """Stationary, K successors."""
    rng = np.random.default_rng(0)
    P = Successors(rng.integers(S, size=(1, S, A, K)), rng.dirichlet(np.ones(K), (1, S, A)))
    return MDP(P, rng.random((1, S, A)), np.full(S, 1.0 / S), horizon=H)


def soft(mdp: MDP) -> Call:
    """The soft optimum under the uniform reference."""
    ref = families.uniform_policy(mdp.H, mdp.S, mdp.A)
    return lambda: solve_soft(mdp, ref, 0.3)


def occupied(mdp: MDP) -> Call:
    """The occupancy of the uniform policy."""
    pi = families.uniform_policy(mdp.H, mdp.S, mdp.A)
    return lambda: occupancy(mdp, pi)


def drawn(mdp: MDP, n: int, draw: Callable[..., Any]) -> Call:
    """n episodes, or their counts."""
    pi = families.uniform_policy(mdp.H, mdp.S, mdp.A)
    return lambda: draw(mdp, pi, n, 0)


def panels(quick: bool) -> Iterable[Panel]:
    """What is varied."""
    k = 1 if quick else 2
    yield Panel("solve_soft, dense", "S", 2.0, lambda S: soft(dense(4, S, 4)), (50, 100, 200, 400, 400 * k))
    yield Panel("solve_soft, dense", "A", 1.0, lambda A: soft(dense(4, 100, A)), (4, 8, 16, 32, 64 * k))
    yield Panel("solve_soft, dense", "H", 1.0, lambda H: soft(dense(H, 60, 4)), (8, 16, 32, 64, 128 * k))
    yield Panel("solve_soft, sparse", "S", 1.0, lambda S: soft(sparse(8, S, 4, 5)), (1000, 4000, 16000, 64000 * k))
    yield Panel("solve_soft, sparse", "K", 1.0, lambda K: soft(sparse(8, 4000, 4, K)), (8, 16, 32, 64 * k))
    yield Panel("occupancy, dense", "S", 2.0, lambda S: occupied(dense(4, S, 4)), (50, 100, 200, 400, 400 * k))
    yield Panel("sample", "n", 1.0, lambda n: drawn(dense(8, 30, 4), n, sample), (2000, 8000, 32000, 64000 * k))
    yield Panel("sample_counts", "n", 0.0, lambda n: drawn(dense(8, 30, 4), n, sample_counts), (10**5, 10**7, 10**9, 10**11))


def exponent(sizes: Iterable[int], values: Iterable[float]) -> float:
    """Slope of log value against log size over the larger half."""
    x, y = np.log(list(sizes)), np.log(list(values))
    half = len(x) // 2
    return float(np.polyfit(x[half:], y[half:], 1)[0])


def memory(call: Call) -> int:
    """Peak bytes traced during the call, its results included."""
    call()
    tracemalloc.start()
    result = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del result
    return peak


def measure(panel: Panel, rounds: int) -> list[tuple[int, float, int]]:
    """(size, median seconds, peak bytes) for every size, in growing order and each once."""
    sizes = sorted(set(panel.sizes))
    calls = {str(n): panel.make(n) for n in sizes}
    times = interleaved(calls, rounds)
    return [(n, statistics.median(times[str(n)]), memory(calls[str(n)])) for n in sizes]


def chart(found: list[tuple[Panel, list[tuple[int, float, int]]]]) -> None:
    """One log-log panel a topic, with the stated exponent dashed through the last point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(2, 4, figsize=(12, 5.5), layout="constrained")
    for ax, (panel, rows) in zip(axes.flat, found, strict=True):
        x, y = np.array([r[0] for r in rows], dtype=float), np.array([r[1] for r in rows]) * 1e3
        ax.loglog(x, y, "o-", label=f"slope {exponent(x, y):.2f}")
        ax.loglog(x, y[-1] * (x / x[-1]) ** panel.expected, "k--", linewidth=1, label=f"stated {panel.expected:g}")
        ax.set_title(panel.title, fontsize=9)
        ax.set_xlabel(panel.axis)
        ax.set_xticks(x, [f"{v:g}" for v in x])
        ax.xaxis.set_minor_formatter(NullFormatter())
        low, high = ax.get_ylim()  # whole decades at both ends: one or two labels are no axis
        ax.set_ylim(10.0 ** np.floor(np.log10(low)), 10.0 ** np.ceil(np.log10(high)))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.tick_params(labelsize=8)
        ax.legend(fontsize=8, loc="lower right")
    for ax in axes[:, 0]:
        ax.set_ylabel("ms a call")
    figure.savefig(OUT / "scaling.png", dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure every panel, print exponents, save table and chart."""
    quick = options(__doc__ or "").quick
    found = []
    print(f"{'topic':<22} {'axis':<5} {'stated':>7} {'time':>7} {'memory':>7}   largest")
    for panel in panels(quick):
        rows = measure(panel, 3 if quick else 9)
        found.append((panel, rows))
        n, seconds, peak = rows[-1]
        slopes = exponent([r[0] for r in rows], [r[1] for r in rows]), exponent([r[0] for r in rows], [r[2] for r in rows])
        print(f"{panel.title:<22} {panel.axis:<5} {panel.expected:>7.1f} {slopes[0]:>7.2f} {slopes[1]:>7.2f}"
              f"   {panel.axis} = {n}: {seconds * 1e3:.2f} ms, {peak / 1e6:.2f} MB")
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "scaling.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["topic", "axis", "size", "seconds", "peak_bytes"])
        writer.writerows([p.title, p.axis, *row] for p, rows in found for row in rows)
    chart(found)
    print(f"\nwrote {OUT / 'scaling'}.csv and .png")


if __name__ == "__main__":
    main()
