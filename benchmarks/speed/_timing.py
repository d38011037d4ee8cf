"""How speed is measured here: variants interleaved in one process, ratios of medians, the machine's limit beside them.

Shared machines slow down and speed up within seconds, so absolute times mean little. All variants of a topic run in turn
within a round, in an order reversed every round; each round gives one time a variant, and what is reported is the median
over rounds of the ratio within a round, to the reference and to the limit (what this machine does in the same round for
the same number of bytes or operations).
"""

from __future__ import annotations

import argparse
import csv
import importlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np

OUT = Path(__file__).resolve().parent.parent / "out"
FASTMATH = {"contract", "reassoc", "nsz", "arcp"}


@dataclass(frozen=True)
class Row:
    """One variant of one topic: seconds a call (median), and median ratios of the others' time to its own."""

    topic: str
    variant: str
    seconds: float | None
    speedup: float | None  # reference time / time
    of_limit: float | None  # limit time / time: 1 is as fast as the machine allows
    note: str = ""


def peer(name: str) -> ModuleType | None:
    """The module of a peer (`pip install -e .[peers]`), or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def options(description: str) -> argparse.Namespace:
    """The command line every script has: --quick."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller work and fewer rounds (seconds)")
    return parser.parse_args()


def _repeats(call: Callable[[], Any], least: float) -> int:
    """How many calls take at least ``least`` seconds."""
    call()
    start = time.perf_counter()
    call()
    once = max(time.perf_counter() - start, 1e-7)
    return max(1, int(least / once))


def interleaved(variants: dict[str, Callable[[], Any]], rounds: int, least: float = 0.01) -> dict[str, list[float]]:
    """Seconds a call of each variant, one number a round; the order is reversed every round."""
    repeats = {name: _repeats(call, least) for name, call in variants.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    for i in range(rounds):
        for name in list(variants)[:: 1 if i % 2 == 0 else -1]:
            call, n = variants[name], repeats[name]
            start = time.perf_counter()
            for _ in range(n):
                call()
            times[name].append((time.perf_counter() - start) / n)
    return times


def _ratio(over: list[float], under: list[float]) -> float:
    """Median over rounds of over / under."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def compare(
    topic: str, variants: dict[str, Callable[[], Any] | None], reference: str, limit: str, rounds: int
) -> list[Row]:
    """Time the variants and print their rows; a variant that is None is a peer that is not installed."""
    times = interleaved({name: call for name, call in variants.items() if call is not None}, rounds)
    rows = []
    for name in variants:
        if name not in times:
            rows.append(Row(topic, name, None, None, None, "missing: not installed"))
            continue
        seconds = statistics.median(times[name])
        rows.append(Row(topic, name, seconds, _ratio(times[reference], times[name]), _ratio(times[limit], times[name])))
    _show(rows, reference)
    return rows


def _show(rows: list[Row], reference: str) -> None:
    """Print one topic."""
    print(f"\n{rows[0].topic}")
    print(f"  {'variant':<34} {'time':>12} {'x ' + reference:>18} {'of limit':>9}")
    for row in rows:
        if row.seconds is None:
            print(f"  {row.variant:<34} {row.note}")
        else:
            print(f"  {row.variant:<34} {row.seconds * 1e6:>9.1f} us {row.speedup:>18.2f} {row.of_limit:>9.2f}")


def save(name: str, rows: list[Row]) -> None:
    """Write benchmarks/out/NAME.csv and a bar chart NAME.png of the fractions of the limit."""
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["topic", "variant", "seconds", "speedup", "of_limit", "note"])
        writer.writerows([r.topic, r.variant, r.seconds, r.speedup, r.of_limit, r.note] for r in rows)
    _chart(OUT / f"{name}.png", [row for row in rows if row.of_limit is not None])
    print(f"\nwrote {OUT / name}.csv and .png")


def _chart(path: Path, rows: list[Row]) -> None:
    """Bars of the fraction of the machine's limit, one panel a topic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    topics = list(dict.fromkeys(row.topic for row in rows))
    figure, panels = plt.subplots(len(topics), 1, figsize=(7, 2.2 * len(topics)), squeeze=False, layout="constrained")
    for panel, topic in zip(panels[:, 0], topics, strict=True):
        chosen = [row for row in rows if row.topic == topic][::-1]
        panel.barh([row.variant for row in chosen], [row.of_limit or 0.0 for row in chosen])
        panel.axvline(1.0, color="black", linestyle="--", linewidth=1)
        panel.set_title(topic, fontsize=9)
        panel.tick_params(labelsize=8)
    panels[-1, 0].set_xlabel("fraction of the machine's limit, measured in the same rounds")
    figure.savefig(path, dpi=120)
    plt.close(figure)


@numba.njit(fastmath=FASTMATH, error_model="numpy")
def read(x, times):
    """Stream over x [n] ``times`` times: the limit of anything that must read x that often."""
    total = 0.0
    for k in range(times):
        part = 0.0
        for i in range(x.size):
            part += x[i]
        total += part * (k + 1.0)  # a factor that varies, so that the passes cannot be merged
    return total


def require_close(expected: np.ndarray, found: Any, what: str) -> None:
    """Stop where a variant computes something else: its time would mean nothing."""
    gap = float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())
    if not gap <= 1e-9:
        raise SystemExit(f"{what} disagrees with the reference: relative gap {gap:.2g}")
