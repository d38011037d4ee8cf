"""The hard optimum of a finite-horizon MDP as a linear program over occupancy measures (scipy HiGHS).

    maximise sum x[h, s, a] r[h, s, a]  over x >= 0  with
    sum_a x[0, s, a] = mu0[s],  sum_a x[h+1, s', a] = sum_{s, a} P[h, s, a, s'] x[h, s, a]
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog


def optimum(mdp):
    """(J, occupancy x [H, S, A]) of an optimal policy; HiGHS's feasibility tolerance is set to 1e-10."""
    H, S, A = mdp.H, mdp.S, mdp.A
    equations, right = np.zeros((H, S, H, S, A)), np.zeros((H, S))
    right[0] = mdp.mu0
    for h in range(H):
        for s in range(S):
            equations[h, s, h, s, :] = 1.0
        if h > 0:
            equations[h, :, h - 1] -= np.moveaxis(mdp.P[min(h - 1, len(mdp.P) - 1)], -1, 0)
    rewards = np.broadcast_to(mdp.r, (H, S, A))
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    left = equations.reshape(H * S, -1)
    found = linprog(-rewards.reshape(-1), A_eq=left, b_eq=right.reshape(-1), method="highs", options=options)
    assert found.status == 0, found.message
    return -found.fun, found.x.reshape(H, S, A)
