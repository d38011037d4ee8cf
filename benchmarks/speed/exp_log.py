"""The kernels' exp, expm1 and log against numba's own, numpy's, and the speed of memory.

    python benchmarks/speed/exp_log.py [--quick]

The array (16 KiB in, 16 KiB out) lies in the first cache; the limit multiplies it by two. Accuracy is printed beside the times:
the worst error in units in the last place against 50-digit arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numba
import numpy as np
from _timing import FASTMATH, Row, compare, options, save

from mdpsim.kernels import _math

N = 2048
NUMBA, LIMIT = "numba math", "limit: read and write"


def mapped(function: Callable[[float], float]) -> Callable[[np.ndarray, np.ndarray], None]:
    """A compiled loop with the flags of a kernel."""

    @numba.njit(fastmath=FASTMATH, error_model="numpy")
    def loop(x: Any, out: Any) -> None:
        for i in range(x.size):
            out[i] = function(x[i])

    return loop


@numba.njit
def double(x: float) -> float:
    """What costs nothing."""
    return 2.0 * x


def worst_ulp(exact: Callable[[Any], Any], x: np.ndarray, found: np.ndarray) -> float:
    """Largest error in units in the last place of the correctly rounded result."""
    with mpmath.workdps(50):
        true = [exact(mpmath.mpf(float(v))) for v in x]
        return max(abs(float((mpmath.mpf(float(f)) - y) / math.ulp(float(y)))) for y, f in zip(true, found, strict=True))


def topic(name: str, x: np.ndarray, rounds: int) -> list[Row]:
    """One function on one range."""
    out = np.empty_like(x)
    ours, numbas = mapped(getattr(_math, name)), mapped(getattr(math, name))
    plain, limit = getattr(np, name), mapped(double)
    exact = getattr(mpmath, name)
    variants = {NUMBA: lambda: numbas(x, out), "mdpsim": lambda: ours(x, out), "numpy": lambda: plain(x, out=out)}
    shown = []
    for label, fill in variants.items():
        fill()
        shown.append(f"{label} {worst_ulp(exact, x, out):.2f}")
    title = f"{name} on [{x.min():.3g}, {x.max():.3g}], {N} numbers"
    rows = compare(title, {**variants, LIMIT: lambda: limit(x, out)}, NUMBA, LIMIT, rounds)
    print(f"  {(rows[1].seconds or 0.0) / N * 1e9:.2f} ns a number; worst error in ulp: {', '.join(shown)}")
    return rows


def main() -> None:
    """Run the topics and save the table."""
    rounds = 7 if options(__doc__ or "").quick else 25
    rng = np.random.default_rng(0)
    rows = topic("exp", rng.uniform(-700.0, 0.0, N), rounds)
    rows += topic("expm1", rng.uniform(-2.0, 0.0, N), rounds)
    rows += topic("log", 10.0 ** rng.uniform(-300.0, 300.0, N), rounds)
    rows += topic("log", rng.uniform(0.5, 2.0, N), rounds)
    save("exp_log", rows)


if __name__ == "__main__":
    main()
