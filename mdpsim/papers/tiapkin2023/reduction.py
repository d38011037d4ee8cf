r"""Reduction: what regularised RL towards the clone loses against the expert, exactly.

With V_beta^pi = V^pi - beta KL_traj(pi || pi_BC), pi*_beta its maximiser, V_beta^* its maximum. At each state the soft Bellman
equation reads Q = V + beta log(pi*_beta / pi_BC), so along a trajectory of any policy pi

    V_beta^* - V_beta^pi = beta KL_traj(pi || pi*_beta)                                                          (3)

(the several-stage form of the evidence lower bound). Write eps_E = V* - V^{pi_E} and eps_RL = V_beta^* - V_beta^{pi_RL}, and
use (3) for the expert: V_beta^* = V^{pi_E} - beta KL(pi_E||pi_BC) + beta KL(pi_E||pi*_beta). Then

    V* - V^{pi_RL} = eps_E + eps_RL + beta [KL(pi_E||pi_BC) - KL(pi_RL||pi_BC) - KL(pi_E||pi*_beta)]             (4)

exactly (trajectory KLs); dropping the two last terms, which are not positive, is the theorem.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mdpsim.arrays import FloatArray
from mdpsim.claims.claim import Claim, Point, Twin, per_seed, product
from mdpsim.claims.rules import Identity, Inequality
from mdpsim.estimate.cloning import fit_bc
from mdpsim.estimate.data import sample_counts
from mdpsim.mdp.tabular import MDP
from mdpsim.papers.tiapkin2023.bounds import EPS, FAMILIES, PAPER, mixed, random_instance
from mdpsim.solve.exact import Solution, evaluate, solve_hard, solve_soft, trajectory_kl

_FAMILIES = (*FAMILIES, "two-arm")


class Pipeline(NamedTuple):
    """One run of the method: an MDP, an expert, its clone, the regularised optimum and a policy near it; exact values."""

    mdp: MDP
    expert: FloatArray
    clone: FloatArray
    best: Solution
    policy: FloatArray
    loss: float
    eps_expert: float
    eps_rl: float
    kl_clone: float


def random_pipeline(point: Point, rng: np.random.Generator) -> Pipeline:
    """A random MDP, expert, clone and policy.

    The expert mixes the optimal policy with a random one (weight log-uniform in [1e-3, 1/2]; the two-arm expert is optimal);
    the clone is fitted to N of its demonstrations; the policy mixes the regularised optimum with a random policy (weight
    log-uniform in [1e-6, 1]). ``loss`` is V* - V^{pi_RL}, ``kl_clone`` is KL_traj(pi_E || pi_BC).
    """
    mdp, beta = random_instance(point["family"], rng), point["beta"]
    optimum = solve_hard(mdp)
    expert = mixed(optimum.pi, rng, 1e-3, 0.5)
    if point["family"] == "two-arm":
        expert = optimum.pi
    clone = fit_bc(sample_counts(mdp, expert, point["n_demos"], rng))
    best = solve_soft(mdp, clone, beta)
    policy = mixed(best.pi, rng, 1e-6, 1.0)
    v_star, v_beta = float(mdp.mu0 @ optimum.V[0]), float(mdp.mu0 @ best.V[0])
    return Pipeline(
        mdp, expert, clone, best, policy,
        loss=v_star - evaluate(mdp, policy).J,
        eps_expert=v_star - evaluate(mdp, expert).J,
        eps_rl=v_beta - evaluate(mdp, policy, pi_ref=clone, beta=beta).J,
        kl_clone=trajectory_kl(mdp, expert, clone),
    )


@per_seed
def measure_reduction(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """Both sides of the reduction for a random MDP, expert, clone and policy (see random_pipeline), all solved exactly.

    ``value`` is V* - V^{pi_RL}, ``bound`` is eps_E + eps_RL + beta KL_traj(pi_E || pi_BC); the twin's bound leaves the last
    term out. Tolerance: 64 float64 roundings of the largest number on either side.
    """
    x, beta = random_pipeline(point, rng), point["beta"]
    return {
        "value": x.loss,
        "bound": x.eps_expert + x.eps_rl + beta * x.kl_clone,
        "bound_without_kl": x.eps_expert + x.eps_rl,
        "rounding": 64 * EPS * (x.mdp.H + x.eps_rl + beta * x.kl_clone),
    }


_AXES = {  # beta, N
    "smoke": ((0.1,), (10,)),
    "quick": ((0.02, 0.1, 0.5), (5, 50)),
    "paper": ((0.005, 0.02, 0.1, 0.5, 2.0), (2, 5, 50, 500)),
    "full": ((0.005, 0.02, 0.1, 0.5, 2.0), (2, 5, 50, 500, 5000)),
}


def _grid(*among: str) -> dict[str, tuple[Point, ...]]:
    return {preset: product(family=among, beta=betas, n_demos=demos) for preset, (betas, demos) in _AXES.items()}


reduction = Claim(
    id="tiapkin2023/reduction",
    statement=(
        r"If $\pi_{\mathrm{RL}}$ is $\varepsilon_{\mathrm{RL}}$-optimal for the objective regularised by $\beta$ towards "
        r"$\pi_{\mathrm{BC}}$, then $V^* - V^{\pi_{\mathrm{RL}}} \le \varepsilon_E + \varepsilon_{\mathrm{RL}} + "
        r"\beta\,\mathrm{KL}_{\mathrm{traj}}(\pi_E\,\|\,\pi_{\mathrm{BC}})$."
    ),
    origin="derived",
    cites=(PAPER.at("Theorem 3"),),
    grid=_grid(*_FAMILIES),
    measure=measure_reduction,
    rule=Inequality(tol="rounding"),
    twins=(
        Twin(
            "without-kl",
            r"$V^* - V^{\pi_{\mathrm{RL}}} \le \varepsilon_E + \varepsilon_{\mathrm{RL}}$: regularisation is free.",
            r"the term $\beta\,\mathrm{KL}_{\mathrm{traj}}$: without it about 50% of the random instances break the bound",
            rule=Inequality(bound="bound_without_kl", tol="rounding"),
        ),
    ),
    seeds={"smoke": 50, "quick": 400, "paper": 4000, "full": 40000},
    tags=("exact", "random-instances"),
    rev=2,
)


# --- the same as an identity -----------------------------------------------------------------------------------------


@per_seed
def measure_identity(point: Point, rng: np.random.Generator) -> Mapping[str, float]:
    """The gaps of (3) and (4) for a random MDP, expert, clone and policy (see random_pipeline), all solved exactly.

    ``reduction`` is the gap of (4), ``optimality`` that of (3) at pi_RL; the others drop a term of (4) or reverse the
    divergence of (3). Tolerance: 64 float64 roundings of the largest numbers, H and the divergences times beta; values and
    divergences are sums over H stages, each known to a few roundings of that.
    """
    x, beta = random_pipeline(point, rng), point["beta"]
    kl_policy = trajectory_kl(x.mdp, x.policy, x.clone)
    kl_expert_to_best = trajectory_kl(x.mdp, x.expert, x.best.pi)
    right = x.eps_expert + x.eps_rl + beta * (x.kl_clone - kl_policy - kl_expert_to_best)
    return {
        "reduction": abs(x.loss - right),
        "optimality": abs(x.eps_rl - beta * trajectory_kl(x.mdp, x.policy, x.best.pi)),
        "tolerance": 64 * EPS * (x.mdp.H + x.eps_rl + beta * (x.kl_clone + kl_policy + kl_expert_to_best)),
        "without_policy_kl": abs(x.loss - right - beta * kl_policy),
        "without_expert_kl": abs(x.loss - right - beta * kl_expert_to_best),
        "reverse_kl": abs(x.eps_rl - beta * trajectory_kl(x.mdp, x.best.pi, x.policy)),
    }


def _twin(name: str, column: str, statement: str, distance: str) -> Twin:
    """Judged on random instances: in the two-arm bandit of an optimal expert every term is nearly nothing."""
    return Twin(name, statement, distance, rule=Identity({column: "tolerance"}), grid=_grid(*FAMILIES))


_KL = r"\mathrm{KL}_{\mathrm{traj}}"

reduction_identity = Claim(
    id="tiapkin2023/reduction-identity",
    statement=(
        r"For every expert, clone and policy: $V^* - V^{\pi_{\mathrm{RL}}} = \varepsilon_E + \varepsilon_{\mathrm{RL}} + "
        rf"\beta\,[{_KL}(\pi_E\|\pi_{{\mathrm{{BC}}}}) - {_KL}(\pi_{{\mathrm{{RL}}}}\|\pi_{{\mathrm{{BC}}}}) - "
        rf"{_KL}(\pi_E\|\pi^*_\beta)]$, and $\varepsilon_{{\mathrm{{RL}}}} = "
        rf"\beta\,{_KL}(\pi_{{\mathrm{{RL}}}}\|\pi^*_\beta)$."
    ),
    origin="derived",
    cites=(PAPER.at("Theorem 3, as an identity"),),
    grid=_grid(*_FAMILIES),
    measure=measure_identity,
    rule=Identity({"reduction": "tolerance", "optimality": "tolerance"}),
    twins=(
        _twin(
            "without-policy-kl", "without_policy_kl",
            rf"The same without ${_KL}(\pi_{{\mathrm{{RL}}}}\|\pi_{{\mathrm{{BC}}}})$.",
            r"$\beta$ times a divergence: up to $1$, in the worst instance more than $10^{11}$ tolerances",
        ),
        _twin(
            "without-expert-kl", "without_expert_kl", rf"The same without ${_KL}(\pi_E\|\pi^*_\beta)$.",
            r"$\beta$ times a divergence: up to $1$, in the worst instance more than $10^{11}$ tolerances",
        ),
        _twin(
            "reverse-kl", "reverse_kl",
            rf"$\varepsilon_{{\mathrm{{RL}}}} = \beta\,{_KL}(\pi^*_\beta\|\pi_{{\mathrm{{RL}}}})$: the divergence reversed.",
            r"$\beta$ times the difference of the divergences: up to $1$, in the worst instance more than $10^{11}$ tolerances",
        ),
    ),
    seeds={"smoke": 50, "quick": 200, "paper": 2000, "full": 20000},
    tags=("exact", "random-instances"),
    rev=2,
)
