"""How often the limits of ``mdpsim.verdict.stats`` miss the truth: the numbers quoted in its docstrings.

    python benchmarks/interval_size.py [replications]

Each row is a law with mean 1; each number is a percentage of replications whose one-sided limit misses the truth.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mdpsim.rng import generator
from mdpsim.verdict import stats

LAWS: dict[str, Callable[..., np.ndarray]] = {
    "normal, sd 0.3": lambda rng, shape: rng.normal(1.0, 0.3, shape),
    "exponential": lambda rng, shape: rng.exponential(1.0, shape),
    "gamma(1/2)": lambda rng, shape: rng.gamma(0.5, 2.0, shape),
    "lognormal 0.5": lambda rng, shape: rng.lognormal(-0.125, 0.5, shape),
    "lognormal 1": lambda rng, shape: rng.lognormal(-0.5, 1.0, shape),
    "lognormal 1.5": lambda rng, shape: rng.lognormal(-1.125, 1.5, shape),
    "lognormal 2": lambda rng, shape: rng.lognormal(-2.0, 2.0, shape),
    "Pareto, tail 3": lambda rng, shape: 2.0 * rng.pareto(3.0, shape),
    "Pareto, tail 1.5": lambda rng, shape: 0.5 * rng.pareto(1.5, shape),
    "10 w.p. 0.1": lambda rng, shape: 10.0 * (rng.random(shape) < 0.1),
    "5 w.p. 0.2": lambda rng, shape: 5.0 * (rng.random(shape) < 0.2),
}


def samples(law: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Independent draws of a law with mean 1."""
    return LAWS[law](generator(seed), shape)


def student(m: stats.Moments) -> stats.Moments:
    """The same moments with a skewness whose correction vanishes: Student's limits."""
    return replace(m, skew=np.full_like(np.asarray(m.skew, dtype=float), -np.inf))


def mean_table(replications: int, level: float, counts: tuple[int, ...]) -> None:
    """Misses of the upper limit, which decides support; by symmetry those of the lower limit for left-skewed data."""
    print(f"\nmean: misses of the upper limit in %, nominal {100 * level:g}; Student's in brackets")
    print("law".ljust(16), *(f"n = {n}".rjust(16) for n in counts))
    for law in LAWS:
        cells = []
        for n in counts:
            m = stats.moments(samples(law, (replications, n), seed=n))
            spread = m.sd > 0  # a sample without spread is a point: see the module docstring of stats
            new, old = (100 * np.mean((stats.upper_limit(k, level) < 1.0) & spread) for k in (m, student(m)))
            cells.append(f"{new:7.3f} ({old:6.3f})")
        print(law.ljust(16), *cells)


def rate_table(replications: int, level: float, counts: tuple[int, ...]) -> None:
    """Misses of the upper limit of a slope over three decades, by where the noise sits."""
    axis = np.array([10.0, 100.0, 1000.0])
    print(f"\nrate: misses of the upper limit in %, nominal {100 * level:g}: noise at every point, at the last one")
    print("only, and shared by all points (common random numbers, times 10% of noise at each)")
    print("law".ljust(16), *(f"n = {n}".rjust(22) for n in counts))
    for law in LAWS:
        cells = []
        for n in counts:
            last = np.ones((replications, 3, n))
            last[:, 2] = samples(law, (replications, n), seed=n)
            own = generator(7 * n).lognormal(-0.005, 0.1, (replications, 3, n))
            shared = last[:, 2:] * own
            misses = []
            for x in (samples(law, (replications, 3, n), seed=n), last, shared):
                x = x[np.all(x.mean(axis=-1) > 0.0, axis=-1)]
                upper = stats.upper_limit(stats.slope_moments(axis, x), level)
                misses.append(f"{100 * np.mean(upper < 0.0):6.2f}")
            cells.append(" ".join(misses).rjust(22))
        print(law.ljust(16), *cells)


if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 40_000
    mean_table(size, 0.01, (50, 100, 200, 500))
    mean_table(size, 0.0005, (50, 200))
    rate_table(size // 5, 0.01, (20, 50, 200))
