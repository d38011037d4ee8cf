r"""Experts to be cloned: policies whose distance from the optimum, support or temperature is known by construction.

========================  ============================================================================================
optimal_expert            deterministic, the first optimal action: value V*, one action a state
soft_expert               \propto pi_ref exp(Q / beta): full support, the maximiser of V - beta KL
epsilon_greedy_expert     the optimal action, with epsilon spread uniformly: full support, least mass epsilon / A
random_expert             a random support of a given size a row, random probabilities not below ``least``
suboptimal_expert         exactly eps below V*: mixed with the worst policy as far as that takes
========================  ============================================================================================
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_count, as_real, fail, frozen
from mdpsim.mdp.families import Rng, uniform_policy
from mdpsim.mdp.forms import AnyMDP, form
from mdpsim.mdp.tabular import MDP
from mdpsim.rng import as_generator
from mdpsim.solve.exact import evaluate, solve_hard, solve_soft


def optimal_expert(mdp: AnyMDP) -> FloatArray:
    """The deterministic optimal policy [H, S, A]: the first action of largest Q*, exact to the ties of rounding.

    Cost: one backward induction. Raises ValueError where mdp is no MDP, LinearMDP or TokenMDP.
    """
    return _greedy("optimal_expert", mdp, forbids=True)


def _greedy(function: str, mdp: AnyMDP, *, forbids: bool = False) -> FloatArray:
    form(function, mdp, forbids=forbids)  # names the caller where mdp is none
    return frozen(np.eye(mdp.A)[solve_hard(mdp).Q.argmax(axis=-1)])


def soft_expert(mdp: AnyMDP, *, beta: float, pi_ref: ArrayLike | None = None) -> FloatArray:
    """The maximiser [H, S, A] of V - beta KL_traj(. || pi_ref): temperature beta in [0, inf]; pi_ref None is uniform.

    Cost: one backward induction. Raises ValueError naming the argument, as solve_soft does.
    """
    H, S, A = form("soft_expert", mdp, forbids=True).shape
    return solve_soft(mdp, uniform_policy(H, S, A) if pi_ref is None else pi_ref, beta).pi


def epsilon_greedy_expert(mdp: AnyMDP, *, epsilon: float) -> FloatArray:
    """(1 - epsilon) times the optimal expert plus epsilon / A: [H, S, A], epsilon in [0, 1].

    Cost: one backward induction. Raises ValueError naming the argument, what was wanted and what came.
    """
    share = as_real("epsilon_greedy_expert", "epsilon", epsilon, 0.0, 1.0)
    return frozen((1.0 - share) * _greedy("epsilon_greedy_expert", mdp) + share / mdp.A)


def random_expert(*, H: int, S: int, A: int, support: int, rng: Rng, least: float = 0.0) -> FloatArray:
    """Every row plays ``support`` actions, a uniform choice, with probabilities least + (1 - support least) Dirichlet(1).

    Args:
        support: actions played in each state and stage, 1 to A.
        least: lower end of the probabilities played, in [0, 1 / support].
    Returns:
        pi [H, S, A]: deterministic for support = 1, interior for support = A.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    H, S, A = (as_count("random_expert", name, n) for name, n in (("H", H), ("S", S), ("A", A)))
    size = as_count("random_expert", "support", support, high=A)
    floor = as_real("random_expert", "least", least, 0.0, 1.0 / size)
    generator = as_generator("random_expert", rng)
    played = generator.random((H, S, A)).argsort(axis=-1)[..., :size]
    rows = floor + (1.0 - size * floor) * generator.dirichlet(np.ones(size), size=(H, S))
    pi = np.zeros((H, S, A))
    np.put_along_axis(pi, played, rows, axis=-1)
    return frozen(pi)


def suboptimal_expert(mdp: MDP, *, eps: float) -> FloatArray:
    """A policy whose value from mu0 is exactly ``eps`` below the optimum: (1 - w) optimal + w worst, w by root finding.

    The value falls from V* to the least value of any policy as w goes from 0 to 1, continuously.

    Args:
        mdp: with rewards r; the worst policy is optimal for -r.
        eps: in [0, V* - V_worst].
    Returns:
        pi [H, S, A].
    Exactness: V* - V^pi = eps to 1e-12 of V* - V_worst.
    Cost: some 10 policy evaluations.
    Raises:
        ValueError: eps beyond what any policy loses (the message gives the range); an MDP that is not tabular.
    """
    from scipy.optimize import root_scalar  # slow to import

    if not isinstance(mdp, MDP):
        fail("suboptimal_expert", "mdp", "be an MDP (see to_tabular)", type(mdp).__name__)
    form("suboptimal_expert", mdp)
    best = optimal_expert(mdp)
    worst = optimal_expert(MDP(mdp.P, -mdp.r, mdp.mu0, horizon=mdp.H))
    top = evaluate(mdp, best).J
    range_ = top - evaluate(mdp, worst).J
    wanted = as_real("suboptimal_expert", "eps", eps, 0.0, 1e300)
    if wanted > range_:
        fail("suboptimal_expert", "eps", f"be in [0, V* - V_worst] = [0, {range_:.6g}]", f"{wanted:g}")

    def excess(w: float) -> float:
        return top - evaluate(mdp, (1.0 - w) * best + w * worst).J - wanted

    if wanted == 0.0:
        return best
    weight = 1.0 if excess(1.0) <= 0.0 else float(root_scalar(excess, bracket=(0.0, 1.0), xtol=1e-15, method="brentq").root)
    return frozen((1.0 - weight) * best + weight * worst)
