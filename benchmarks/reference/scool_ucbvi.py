"""What an episode of rlberry-scool's UCBVI costs: a planning each episode, S = 20, A = 4, H = 10. Recorded, not run with ours.

rlberry needs an environment of its own (it pins an old gymnasium):

    python3 -m venv /tmp/rlberry && /tmp/rlberry/bin/pip install rlberry-scool
    /tmp/rlberry/bin/python benchmarks/reference/scool_ucbvi.py

Its agent plans once an episode (stage-dependent, 100 episodes after a first fit that compiles). Prints microseconds an episode;
what it printed once stands in scool_ucbvi.txt, with the versions. The same for mdpsim: benchmarks/speed/exploration.py.
"""

from __future__ import annotations

import platform
import time
from importlib.metadata import version

import numpy as np
from rlberry.envs.finite_mdp import FiniteMDP
from rlberry_scool.agents import UCBVIAgent

S, A, H, EPISODES, ROUNDS = 20, 4, 10, 100, 5


def main() -> None:
    """Time fits of EPISODES episodes; the first, which compiles, is not counted."""
    rng = np.random.default_rng(0)
    env = FiniteMDP(rng.random((S, A)), rng.dirichlet(np.ones(S), (S, A)), np.eye(S)[0])
    seconds = []
    for _ in range(ROUNDS + 1):
        agent = UCBVIAgent(env, gamma=1.0, horizon=H, stage_dependent=True, real_time_dp=False)
        start = time.perf_counter()
        agent.fit(EPISODES)
        seconds.append(time.perf_counter() - start)
    each = 1e6 * np.median(seconds[1:]) / EPISODES
    print(f"rlberry-scool {version('rlberry-scool')}, rlberry {version('rlberry')}, numba {version('numba')}, "
          f"numpy {version('numpy')}, Python {platform.python_version()}, {platform.machine()}")
    print(f"UCBVI, S={S} A={A} H={H}, a planning each episode: {each:.0f} microseconds an episode (median of {ROUNDS} fits)")


if __name__ == "__main__":
    main()
