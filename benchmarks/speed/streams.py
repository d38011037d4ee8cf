"""How the rows of P stream through the forms of ``kernels/_stream.py`` on the machine at hand, against a plain sum.

    python benchmarks/speed/streams.py [--quick]

For several numbers of states, in the caches and beyond them: the share of the streaming read that a row at a time reaches,
without and with lines asked for ahead, and several adjacent rows at once; below them what mdpsim takes for a product (backward
induction), two at once (evaluation with its KL) and a weighted sum of rows (occupancy). Run it on every kind of processor that
a kernel is tuned for: a form that is best on one kind can be half as fast on another.
"""

from __future__ import annotations

import platform
from collections.abc import Callable

import numba
import numpy as np
from _timing import FASTMATH, Row, compare, options, read, save

from mdpsim.kernels import _stream
from mdpsim.kernels._stream import fetch_ahead

LIMIT, TAKEN = "limit: read P", "mdpsim takes"
jit = numba.njit(fastmath=FASTMATH, error_model="numpy")


@jit
def one_row(rows, v, q, ahead):
    """A dot product at a time."""
    flat, width = rows.reshape(-1), v.size
    for i in range(q.size):
        if ahead:
            fetch_ahead(flat, i * width, (i + 1) * width)
        total = 0.0
        for j in range(width):
            total += rows[i, j] * v[j]
        q[i] = total


@jit
def four_rows(rows, v, q, ahead):
    """Four at a time."""
    flat, width = rows.reshape(-1), v.size
    for i in range(0, q.size // 4 * 4, 4):
        if ahead:
            fetch_ahead(flat, i * width, (i + 4) * width)
        x0, x1, x2, x3 = 0.0, 0.0, 0.0, 0.0
        for j in range(width):
            x0 += rows[i, j] * v[j]
            x1 += rows[i + 1, j] * v[j]
            x2 += rows[i + 2, j] * v[j]
            x3 += rows[i + 3, j] * v[j]
        q[i], q[i + 1], q[i + 2], q[i + 3] = x0, x1, x2, x3


@jit
def taken(rows, v, q):
    _stream.products(rows, v, None, q, _stream.beyond_caches(rows))


@jit
def taken_pair(rows, v, k, q, y):
    _stream.paired_products(rows, v, k, None, q, y, _stream.beyond_caches(rows))


@jit
def taken_sum(rows, chosen, weight, out):
    out[:] = 0.0
    _stream.add_rows(rows, chosen, weight, rows.shape[0], out, _stream.beyond_caches(rows))


def topic(n: int, S: int, rounds: int) -> list[Row]:
    """n rows of S numbers."""
    rng = np.random.default_rng(0)
    rows, v, k, q, y = rng.random((n, S)), rng.random(S), rng.random(S), np.empty(n), np.empty(n)
    chosen, weight, out = np.arange(n + 3), rng.random(n + 3), np.empty(S)
    flat = rows.reshape(-1)
    variants: dict[str, Callable[[], object] | None] = {
        LIMIT: lambda: read(flat, 1),
        "one row": lambda: one_row(rows, v, q, False),
        "one row, asked ahead": lambda: one_row(rows, v, q, True),
        "four rows": lambda: four_rows(rows, v, q, False),
        "four rows, asked ahead": lambda: four_rows(rows, v, q, True),
        "BLAS": lambda: rows @ v,
        TAKEN: lambda: taken(rows, v, q),
        f"{TAKEN}, two products": lambda: taken_pair(rows, v, k, q, y),
        f"{TAKEN}, sum of rows": lambda: taken_sum(rows, chosen, weight, out),
    }
    where = "beyond the caches" if rows.size > _stream.CACHED else "in the caches"
    return compare(f"{rows.nbytes / 1e6:.2f} MB, S={S}, {where}", variants, "BLAS", LIMIT, rounds)


def main() -> None:
    """Every size, and the processor's name: what holds on one kind need not on another."""
    quick = options(__doc__ or "").quick
    print(f"{platform.processor() or platform.machine()}: {_cpu()}")
    rows = []
    for S in (20, 100, 300):
        rows += topic(max(8, _stream.CACHED // S // 8 * 4), S, 7 if quick else 25)
    for S in (20, 30, 100, 300, 1000):
        rows += topic((15_000_000 if quick else 60_000_000) // S // 4 * 4, S, 7 if quick else 25)
    save("streams", rows)


def _cpu() -> str:
    """The name that the system gives the processor, with the target that numba compiles for."""
    import llvmlite.binding as llvm

    try:
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        name = ""
    return f"{name} ({llvm.get_host_cpu_name()})"


if __name__ == "__main__":
    main()
