"""A process that compiles a kernel gives the bits of one that loads it from the cache."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mdpsim.kernels import _jit

LEARN = """
import hashlib
import numpy as np
import mdpsim
from mdpsim.mdp import families

mdp = families.linear_simplex(S=10, A=3, H=4, d=4, rng=5)
pi_ref = families.uniform_policy(mdp.H, mdp.S, mdp.A)
trace = mdpsim.LSVIUCBEnt(beta=0.5, eps=0.05, budget=3000, bonus_scale=0.1).run(mdp, pi_ref, 5)
solution = mdpsim.solve_soft(mdp, pi_ref, 0.5)
arrays = (trace.pi, trace.visits, trace.upper, trace.certificates, solution.V, solution.pi)
print(hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in arrays)).hexdigest())
"""


def test_compiled_and_loaded_kernels_give_the_same_bits(tmp_path, root):
    """The learner whose helpers LLVM would rather not inline: without ``forceinline`` its bounds differ in the last bit."""
    environment = os.environ | {"MDPSIM_CACHE_DIR": str(tmp_path)}
    found = []
    for _ in range(2):
        command = [sys.executable, "-c", LEARN]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
        found.append(done.stdout)
    assert found[0] == found[1]


@pytest.mark.parametrize("decorate", [_jit.helper, _jit.exact, _jit.rounded])
def test_callees_are_inlined(decorate):
    def twice(x):
        return x + x

    assert decorate(twice).targetoptions["forceinline"] is True
