"""What a learner leaves behind: a learning curve at log-spaced checkpoints, the policy it returns, and how it ended."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mdpsim.arrays import FloatArray, IntArray, frozen
from mdpsim.records import record

STOPPED, BUDGET = "stopped", "budget"


@record
class Trace(NamedTuple):
    """A run of a learner.

    Args:
        pi: [H, S, A] the policy returned.
        status: "stopped" (the rule was met) or "budget" (it was not: ``certificate`` says how good pi is known to be).
        n_episodes: episodes played.
        certificate: upper bound of the regularised gap of pi that the run itself could see, at the end.
        gap: V*_beta - V_beta^pi from mu0, exact: what the certificate bounds.
        episodes, certificates, widths, gaps, kls: [K] the learning curve: episodes played; certificate and Vu - Vl from
            mu0; exact gap and KL_traj(pi || pi_ref) of the policy held then.
        visits: [H, S, A] counts at the end.
        upper, lower: [H, S, A] bounds of Q*_beta at the end.
        violation: the most by which Q*_beta was ever outside [lower, upper] at a planning (0: the bounds held throughout).
        n_plans: number of plannings.
        oracles: [K] the certificate as one who knows the transitions would compute it; empty where a learner has none.
    """

    pi: FloatArray
    status: str
    n_episodes: int
    certificate: float
    gap: float
    episodes: IntArray
    certificates: FloatArray
    widths: FloatArray
    gaps: FloatArray
    kls: FloatArray
    visits: IntArray
    upper: FloatArray
    lower: FloatArray
    violation: float
    n_plans: int
    oracles: FloatArray = frozen(np.empty(0))


def log_spaced(budget: int, per_decade: int = 8) -> IntArray:
    """Episodes at which a curve is recorded: 0, 1, .. in equal ratios up to the budget."""
    n = int(np.ceil(np.log10(max(budget, 1)) * per_decade)) + 1
    return np.unique(np.concatenate([[0], np.geomspace(1, max(budget, 1), n).round()]).astype(np.int64))
