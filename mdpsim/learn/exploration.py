"""What the exploring learners share: guards of their configuration, the run itself, and the trace it leaves."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_count, as_real, fail, frozen, shown, unknown
from mdpsim.kernels import ucbvi
from mdpsim.learn.trace import BUDGET, STOPPED, Trace, log_spaced
from mdpsim.mdp.forms import AnyMDP, by_next, form
from mdpsim.mdp.policies import as_policy
from mdpsim.mdp.successors import Successors
from mdpsim.mdp.tabular import MDP
from mdpsim.rng import as_generator
from mdpsim.solve.exact import Solution, evaluate, solve_soft

TABULAR = {"bonus": ("hoeffding", "bernstein"), "reward": ("known", "unknown"), "stop": ("certificate", "width")}


def check(learner: Any, **choices: Iterable[str]) -> None:
    """Guard the fields that exploring learners share, and those whose values are among ``choices``."""
    name = type(learner).__name__
    as_real(name, "eps", learner.eps, 1e-12, 1e12)
    as_real(name, "delta", learner.delta, 1e-12, 1.0 - 1e-12)
    as_real(name, "bonus_scale", learner.bonus_scale, 0.0, 1e6)
    as_real(name, "replan", learner.replan, 0.0, 1e3)
    as_count(name, "budget", learner.budget, high=10**9)
    for argument, known in choices.items():
        value = getattr(learner, argument)
        if not isinstance(value, str) or value not in known:
            unknown(name, argument, value, known)


def check_beta(name: str, beta: object) -> None:
    """Guard the weight of a learner that is regularised."""
    if isinstance(beta, numbers.Real) and beta <= 0:
        fail(name, "beta", "be > 0 (the baseline without the KL term is UCBVI)", shown(beta))
    as_real(name, "beta", beta, 1e-8, 1e8)


def explore(
    learner: Any, mdp: MDP, pi_ref: ArrayLike, rng: np.random.Generator | int, *, beta: float, deviate: bool
) -> Trace:
    """Run a learner (``check`` has passed) on ``mdp``: plan, play, until its rule is met or its budget spent.

    Args:
        learner: eps, delta, bonus, bonus_scale, reward, stop, replan, budget; its class names the errors.
        mdp: dense P and rewards in [0, 1].
        pi_ref: [H, S, A], or [S, A] for every stage.
        rng: Generator (advanced by two 64-bit words) or seed.
        beta: weight of the KL divergence; 0 plans hard.
        deviate: whether an episode may deviate from the policy to the widest action.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = f"{type(learner).__name__}.run"
    if not isinstance(mdp, MDP) or isinstance(mdp.P, Successors):
        fail(where, "mdp", "be an MDP with dense P", f"{type(mdp).__name__}{' of Successors' if isinstance(mdp, MDP) else ''}")
    form(where, mdp)
    if mdp.r.min() < 0.0 or mdp.r.max() > 1.0:
        fail(where, "mdp", "have rewards in [0, 1]", f"[{mdp.r.min():g}, {mdp.r.max():g}]")
    shown = by_next(mdp)
    if shown.size and learner.reward == "unknown":  # what is observed is then bounded too, not only its mean
        possible = np.where(mdp.P > 0.0, shown, 0.0)
        if possible.min() < 0.0 or possible.max() > 1.0:
            fail(where, "mdp", "have rewards of transitions in [0, 1]", f"[{possible.min():g}, {possible.max():g}]")
    shape = (mdp.H, mdp.S, mdp.A)
    ref = as_policy(where, "pi_ref", pi_ref, shape)
    key = as_generator(where, rng).integers(0, 2**64, size=2, dtype=np.uint64)
    best = solve_soft(mdp, ref, beta)
    checkpoints = log_spaced(learner.budget)
    visits, next_counts = np.zeros(shape), np.zeros((*shape, mdp.S))
    upper, lower, pi = np.empty(shape), np.empty(shape), np.empty(shape)
    marks, policies, info = np.zeros((checkpoints.size + 1, 3)), np.empty((checkpoints.size, *shape)), np.empty(5)
    ucbvi.explore(
        mdp.P, mdp.r, shown, mdp.mu0.reshape(1, -1), ref, best.Q, float(beta), float(learner.eps), float(learner.delta),
        float(learner.bonus_scale), learner.bonus == "bernstein", learner.reward == "unknown", float(learner.replan),
        learner.stop == "width", deviate, int(learner.budget), *key, frozen(checkpoints), visits, next_counts, upper, lower, pi,
        marks, policies, info,
    )
    return as_trace(mdp, ref, beta, best, marks, policies, info, pi, visits, upper, lower)


def as_trace(
    mdp: AnyMDP, ref: FloatArray, beta: float, best: Solution, marks: FloatArray, policies: FloatArray, info: FloatArray,
    pi: FloatArray, visits: FloatArray, upper: FloatArray, lower: FloatArray,
) -> Trace:
    """The trace of what a kernel filled: marks [K+1, 3 or 4] (episodes, certificate, width, oracle), info [5] as they say."""
    optimum = float(mdp.mu0 @ best.V[0])
    _, first = np.unique(marks[: int(info[4]), 0], return_index=True)  # checkpoints between two plannings are one row
    kept = [int(i) for i in first if marks[i, 0] < marks[-1, 0]]  # and the end is a row of its own
    values = [evaluate(mdp, p, pi_ref=ref, beta=beta) for p in (*policies[kept], pi)]
    rows = np.append(marks[kept], marks[-1:], axis=0)
    columns = [frozen(np.ascontiguousarray(rows[:, i])) for i in range(1, rows.shape[1])]
    gaps = np.array([optimum - v.J for v in values])
    return Trace(
        pi=frozen(pi), status=STOPPED if info[0] else BUDGET, n_episodes=int(info[1]), certificate=float(marks[-1, 1]),
        gap=float(gaps[-1]), episodes=frozen(rows[:, 0].astype(np.int64)), certificates=columns[0], widths=columns[1],
        gaps=frozen(gaps), kls=frozen(np.array([v.kl for v in values])), visits=frozen(visits.astype(np.int64)),
        upper=frozen(upper), lower=frozen(lower), violation=float(info[2]), n_plans=int(info[3]),
        oracles=columns[2] if len(columns) > 2 else frozen(np.empty(0)),
    )
