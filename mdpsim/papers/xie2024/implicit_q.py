r"""A policy is a reward model: the optimum's log-ratios are soft advantages, and along a trajectory they sum to its reward.

Setting: Q_h = r_h + E[V_{h+1}], V_h(s) = beta log sum_a pi_ref(a|s) e^{Q_h(s, a) / beta}, V_H = 0.

Local. For every policy mu, with the tilt pi*(a|s) = pi_ref(a|s) e^{(Q_h - V_h) / beta}, the performance difference is

    J(pi*) - J(mu) = beta KL_traj(mu || pi*) >= 0,                                                               (1)

by induction from the last stage: sum_a mu (Q_h - beta log mu / pi_ref) = V_h - beta KL(mu || pi*), and the part of Q_h that
comes from later stages falls short by its own KL. So pi* is the optimum, whatever the dynamics, and by its definition

    beta log pi*(a|s) / pi_ref(a|s) = Q_h(s, a) - V_h(s).                                                        (2)

Along a trajectory. Summing (2) over h and telescoping, with Q_h = r_h + E[V_{h+1}],

    sum_h beta log pi* / pi_ref (a_h|s_h) = r(tau) - V_0(s_0) + M(tau),
    M(tau) = sum_h E[V_{h+1} | s_h, a_h] - V_{h+1}(s_{h+1}).                                                     (3)

M is a sum of martingale differences under every policy: E M = 0 and E M^2 = sum_h E Var(V_{h+1} | s_h, a_h). So for
a policy of full support the log-ratio of a trajectory is its reward up to V_0(s_0) if and only if V_{h+1} is almost surely
the same at every successor of every (s, a) that is reached; deterministic dynamics suffice, as for responses of a language
model.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity
from mdpsim.mdp.tabular import MDP
from mdpsim.papers.xie2024.bounds import PAPER
from mdpsim.papers.xie2024.trajectories import (
    DETERMINISTIC,
    STOCHASTIC,
    Paths,
    list_paths,
    random_policy,
    random_problem,
    rounding,
)
from mdpsim.solve.exact import evaluate, solve_hard, solve_soft, trajectory_kl


def _largest(x: FloatArray) -> float:
    return float(np.abs(x).max())


@per_seed
def measure_local(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Largest errors of (1) and (2) in a random MDP with a reference above 1e-4.

    ``local``: (2) over all (h, s, a), Q and V by evaluating pi* as a policy (not those of the induction that gave pi*).
    ``bellman``: V against beta log sum pi_ref e^{Q / beta} by scipy. ``optimal``: (1) at three random policies. False formulas:
    Q and V without the regulariser (``hard``), beta log pi* in place of the log-ratio (``no_reference``), the stage's reward in
    place of Q (``myopic``).
    """
    mdp, ref = random_problem(point, rng)
    beta = point["beta"]
    best = solve_soft(mdp, ref, beta).pi
    own = evaluate(mdp, best, pi_ref=ref, beta=beta)
    ratio = beta * np.log(best / ref)
    advantage = own.Q - own.V[:-1, :, None]
    hard, r = solve_hard(mdp), np.broadcast_to(mdp.r, ref.shape)
    gaps = []
    for _ in range(3):
        other = random_policy(ref, rng)
        lost = own.J - evaluate(mdp, other, pi_ref=ref, beta=beta).J
        gaps.append(lost - beta * trajectory_kl(mdp, other, best))
    return {
        "local": _largest(ratio - advantage),
        "bellman": _largest(beta * np.asarray(special.logsumexp(own.Q / beta, b=ref, axis=-1)) - own.V[:-1]),
        "optimal": _largest(np.array(gaps)),
        "tolerance": rounding(mdp, ref, beta),
        "hard": _largest(ratio - (hard.Q - hard.V[:-1, :, None])),
        "no_reference": _largest(beta * np.log(best) - advantage),
        "myopic": _largest(ratio - (r - beta * np.asarray(special.logsumexp(r / beta, b=ref, axis=-1))[..., None])),
    }


_GRID = {
    "smoke": product(family=("deterministic", "dirichlet", "tokens"), size=(3,), beta=(0.2,)),
    "quick": product(family=(*DETERMINISTIC, *STOCHASTIC), size=(3,), beta=(0.05, 0.2, 1.0)),
    "paper": product(family=(*DETERMINISTIC, *STOCHASTIC), size=(2, 3, 4), beta=(0.05, 0.2, 1.0, 5.0)),
    "full": product(family=(*DETERMINISTIC, *STOCHASTIC), size=(2, 3, 4), beta=(0.02, 0.05, 0.2, 1.0, 5.0)),
}


implicit_q = Claim(
    id="xie2024/implicit-q",
    statement=(
        r"For any dynamics the KL-regularised optimum is its own soft action value: $\beta \log \frac{\pi^*(a|s)}"
        r"{\pi_{\mathrm{ref}}(a|s)} = Q^*_h(s,a) - V^*_h(s)$ with $Q^*_h = r_h + \mathbb{E} V^*_{h+1}$ and $V^*_h = \beta \log "
        r"\sum_a \pi_{\mathrm{ref}}\,e^{Q^*_h/\beta}$; and $J(\pi^*) - J(\pi) = \beta\,\mathrm{KL}_{\mathrm{traj}}(\pi\,\|\,"
        r"\pi^*)$ for every policy $\pi$."
    ),
    origin="derived",
    cites=(PAPER.at("implicit Q*-approximation"),),
    grid=_GRID,
    measure=measure_local,
    rule=Identity({"local": "tolerance", "bellman": "tolerance", "optimal": "tolerance"}),
    twins=(
        Twin(
            "hard-q", r"The same with the unregularised $Q^*$ and $V^*$.",
            r"at most $\beta \log (1/\pi_{\mathrm{ref}})$ a stage; 0.01 to 1, above $10^{10}$ tolerances",
            rule=Identity({"hard": "tolerance"}),
        ),
        Twin(
            "without-reference", r"$\beta \log \pi^*(a|s) = Q^*_h(s,a) - V^*_h(s)$.",
            r"$\beta \log(1/\pi_{\mathrm{ref}})$: above $10^{10}$ tolerances",
            rule=Identity({"no_reference": "tolerance"}),
        ),
        Twin(
            "myopic", r"The same with $r_h(s,a)$ in place of $Q^*_h(s,a)$.",
            r"the differences of $\mathbb{E} V^*_{h+1}$ between actions: 0.01 to 1, above $10^{10}$ tolerances",
            rule=Identity({"myopic": "tolerance"}),
        ),
    ),
    seeds={"smoke": 5, "quick": 10, "paper": 100, "full": 1000},
    tags=("exact", "random-instances"),
)


# --- along a trajectory ------------------------------------------------------------------------------------------------


def _excess(mdp: MDP, ref: FloatArray, beta: float) -> tuple[Paths, FloatArray, FloatArray, FloatArray]:
    """(paths, sum of log-ratios - (r(tau) - V_0(s_0)) [N], M(tau) [N], Var(V_{h+1} | s, a) [H, S, A])."""
    best, paths = solve_soft(mdp, ref, beta), list_paths(mdp)
    excess = paths.total(beta * np.log(best.pi / ref)) - (paths.total(mdp.r) - best.V[0, paths.states[:, 0]])
    P = np.broadcast_to(np.asarray(mdp.P), (mdp.H, mdp.S, mdp.A, mdp.S))
    ahead = np.einsum("hsat,ht->hsa", P, best.V[1:])
    spread = np.einsum("hsat,hsat->hsa", P, (best.V[1:, None, None, :] - ahead[..., None]) ** 2)
    arrived = best.V[np.arange(1, mdp.H), paths.states[:, 1:]].sum(axis=1)  # V_H = 0
    return paths, excess, paths.total(ahead) - arrived, spread


@per_seed
def measure_sum(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Largest |sum_h beta log pi*/pi_ref - (r(tau) - V_0(s_0))| over all trajectories of a random MDP.

    ``uncentred`` omits V_0, ``last_only`` has the last log-ratio alone in place of the sum.
    """
    return _sum_errors(*random_problem(point, rng), point["beta"])


@per_seed
def measure_noisy_sum(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The twin's MDPs: those of the family "deterministic" with one transition in ten uniform."""
    mdp, ref = random_problem({**point, "family": "deterministic"}, rng)
    return _sum_errors(MDP(0.9 * np.asarray(mdp.P) + 0.1 / mdp.S, mdp.r, mdp.mu0), ref, point["beta"])


def _sum_errors(mdp: MDP, ref: FloatArray, beta: float) -> dict[str, float]:
    paths, excess, _, _ = _excess(mdp, ref, beta)
    best = solve_soft(mdp, ref, beta)
    last = np.log(best.pi / ref) * (np.arange(mdp.H) == mdp.H - 1)[:, None, None]
    start = best.V[0, paths.states[:, 0]]
    return {
        "gap": _largest(excess),
        "tolerance": rounding(mdp, ref, beta),
        "uncentred": _largest(excess - start),
        "last_only": _largest(paths.total(beta * last) - (paths.total(mdp.r) - start)),
    }


def _sums(families: tuple[str, ...]) -> dict[str, tuple[Point, ...]]:
    return {
        "smoke": product(family=families, size=(3,), beta=(0.2,)),
        "quick": product(family=families, size=(3,), beta=(0.05, 0.2, 1.0)),
        "paper": product(family=families, size=(2, 3), beta=(0.02, 0.05, 0.2, 1.0, 5.0)),
        "full": product(family=families, size=(2, 3, 4), beta=(0.02, 0.05, 0.2, 1.0, 5.0)),
    }


_NOISY = {preset: product(family=("deterministic",), size=(3,), beta=(0.2,)) for preset in _GRID}

trajectory_sum = Claim(
    id="xie2024/trajectory-sum",
    statement=(
        r"Where all successors of a state and action have the same value, as in deterministic dynamics, the optimum's "
        r"log-ratios sum to the reward of the trajectory: $\sum_h \beta \log \frac{\pi^*(a_h|s_h)}"
        r"{\pi_{\mathrm{ref}}(a_h|s_h)} = r(\tau) - V^*_0(s_0)$ for every $\tau$."
    ),
    origin="derived",
    cites=(PAPER.at("implicit Q*-approximation"),),
    grid=_sums(DETERMINISTIC),
    measure=measure_sum,
    rule=Identity({"gap": "tolerance"}),
    twins=(
        Twin(
            "stochastic-dynamics", r"The same in every MDP; tried where one transition in ten is uniform.",
            r"the largest residual of an instance is 0.01 to 0.5, above $10^{9}$ tolerances",
            measure=measure_noisy_sum, grid=_NOISY,
        ),
        Twin(
            "uncentred", r"The same without $V^*_0(s_0)$.", r"$V^*_0$, of order 1: $10^{11}$ tolerances",
            rule=Identity({"uncentred": "tolerance"}),
        ),
        Twin(
            "last-token-only", r"The last log-ratio alone is $r(\tau) - V^*_0(s_0)$.", r"of order 0.1: $10^{10}$ tolerances",
            rule=Identity({"last_only": "tolerance"}),
        ),
    ),
    seeds={"smoke": 5, "quick": 20, "paper": 200, "full": 1000},
    tags=("exact", "random-instances", "tokens"),
)


@per_seed
def measure_residual(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Largest errors of (3) and of the two moments of M, in a random MDP with random transitions.

    ``pathwise`` over all trajectories; ``mean`` and ``variance`` under a random policy, the trajectories weighted by their law.
    ``zero`` is the largest |residual| itself, ``variance_half`` compares with half of the sum of variances.
    """
    mdp, ref = random_problem(point, rng)
    paths, excess, martingale, spread = _excess(mdp, ref, point["beta"])
    law = paths.law(random_policy(ref, rng))
    variance, stated = float(law @ excess**2), float(law @ paths.total(spread * (np.arange(mdp.H) < mdp.H - 1)[:, None, None]))
    return {
        "pathwise": _largest(excess - martingale), "mean": abs(float(law @ excess)), "variance": abs(variance - stated),
        "tolerance": rounding(mdp, ref, point["beta"]),
        "zero": _largest(excess), "variance_half": abs(variance - 0.5 * stated),
    }


trajectory_residual = Claim(
    id="xie2024/trajectory-residual",
    statement=(
        r"In any dynamics $\sum_h \beta \log \frac{\pi^*(a_h|s_h)}{\pi_{\mathrm{ref}}(a_h|s_h)} = r(\tau) - V^*_0(s_0) + "
        r"\sum_h \big(\mathbb{E}[V^*_{h+1}|s_h,a_h] - V^*_{h+1}(s_{h+1})\big)$; under every policy the last sum has mean zero "
        r"and second moment $\sum_h \mathbb{E}\,\mathrm{Var}(V^*_{h+1}|s_h,a_h)$."
    ),
    origin="derived",
    cites=(PAPER.at("implicit Q*-approximation"),),
    grid=_sums(STOCHASTIC),
    measure=measure_residual,
    rule=Identity({"pathwise": "tolerance", "mean": "tolerance", "variance": "tolerance"}),
    twins=(
        Twin(
            "no-residual", r"The last sum is zero on every trajectory.",
            r"the largest residual of an instance is 0.01 to 0.5, above $10^{9}$ tolerances",
            rule=Identity({"zero": "tolerance"}),
        ),
        Twin(
            "half-the-variance", r"Its second moment is half of that.", r"$10^{-4}$ to $10^{-2}$, above $10^8$ tolerances",
            rule=Identity({"variance_half": "tolerance"}),
        ),
    ),
    seeds={"smoke": 5, "quick": 20, "paper": 200, "full": 1000},
    tags=("exact", "random-instances"),
)
