"""Time of ``import mdpsim`` against ``import numba, numpy``, each in a fresh process.

    python benchmarks/speed/import_time.py [--quick]

The goal is a ratio of at most 1.3: nothing heavier than numba is imported. Beside it: what the first call of a kernel costs
with a warm cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from _timing import compare, options, save

BASE = "import numba, numpy"
FIRST = """
import numpy as np, mdpsim
m = mdpsim.MDP(np.full((2, 2, 2, 2), 0.5), np.zeros((2, 2, 2)), [1.0, 0.0])
mdpsim.solve_soft(m, np.full((2, 2, 2), 0.5), 1.0)
"""


def fresh(code: str) -> Callable[[], Any]:
    """Run code in a process of its own, which may keep byte code, as a user's does: else every source is compiled each time."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, env=env)


def main() -> None:
    """Time, print, save."""
    rounds = 7 if options(__doc__ or "").quick else 21
    rows = compare("fresh processes", {
        "python, nothing imported": fresh("pass"), BASE: fresh(BASE), "import mdpsim": fresh("import mdpsim"),
        "import mdpsim, first solve_soft": fresh(FIRST),
    }, BASE, BASE, rounds)
    ratio = 1.0 / (rows[2].speedup or 1.0)
    print(f"  import mdpsim takes {ratio:.2f} times {BASE} (goal: at most 1.3)")
    save("import_time", rows)


if __name__ == "__main__":
    main()
