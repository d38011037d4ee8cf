"""A solve allocates its outputs and work space, never a copy of P: peak memory of a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MEASURE = """
import sys
import numpy as np
from mdpsim import MDP, solve_soft

S, A, H = 1000, 10, 50
small = MDP(np.full((1, 4, 2, 4), 0.25), np.zeros((1, 4, 2)), np.full(4, 0.25), horizon=2)
solve_soft(small, np.full((2, 4, 2), 0.5), 0.5)  # the kernels are loaded
P = np.random.default_rng(0).random((1, S, A, S))
P /= P.sum(axis=-1, keepdims=True)
P.flags.writeable = False
ref = np.full((H, S, A), 1.0 / A)
ref.flags.writeable = False
mdp = MDP(P, np.zeros((1, S, A)), np.full(S, 1.0 / S), horizon=H)


def peak():  # not ru_maxrss, which a child inherits from the process that started it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))


before = peak()
held = P[0] if "copy" not in sys.argv else P.copy() + 0.0
solution = solve_soft(mdp, ref, 0.5)
print((peak() - before) / 1024)
"""


def growth(*argv):
    """MiB by which the peak of resident memory grew. Building P leaves no slack: P / sums is made in place of P."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc, which this system lacks")
    return float(subprocess.run([sys.executable, "-c", MEASURE, *argv], check=True, capture_output=True, text=True).stdout)


def test_a_large_stationary_solve_takes_20_megabytes_beyond_p():
    assert growth() < 20.0


def test_a_copy_of_p_would_be_seen():
    assert growth("copy") > 70.0
