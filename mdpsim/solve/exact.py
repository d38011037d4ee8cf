"""Exact solution, evaluation and divergences of finite-horizon MDPs, with and without KL regularisation.

The KL-regularised problem with reference pi_ref and weight beta (in reward units) maximises

    J(pi) = E_pi sum_h r_h(s_h, a_h) - beta E_pi sum_h KL(pi_h(. | s_h) || pi_ref,h(. | s_h)),

whose Bellman equation is closed form: V = beta log sum_a pi_ref e^{Q / beta}, pi = pi_ref e^{(Q - V) / beta}. beta = 0 is
the hard optimum over pi_ref's support, beta = inf is pi_ref itself. Exact means to rounding: the worst error of V is at
most max(1e-13, 5 H eps) of the largest |V|, for every beta, without NaN (see ``mdpsim.kernels.bellman`` for how).

Why it grows with H: a stage adds r to P V, and the sum is rounded; what is lost is never seen again, so H stages lose up to
H eps / 2 of max|V| (measured: at most H eps / 4). And a row counts as row / sum(row), but one whose sum is off by at most 4 eps
is used as it is: V is off by as much a stage, at most. For rows that sum to one 1e-13 holds to some 2000 stages, 1e-11 to 10^5.

Forbidden actions (r = -inf) have Q = -inf and probability 0 in every optimum. A reference may play them, and e^{-inf} = 0: V is
beta log of the sum over what is allowed, and the mass that the reference loses is paid for in KL. That is the optimum for the
reference renormalised over what is allowed, with beta log(allowed mass) added to the rewards of the state: so it is computed.

A probability row means row / sum(row). Each function reads P once; wrappers check their arguments in microseconds. Costs
are those of dense transitions; Successors of width K take O(H S A K), and a LinearMDP O(H (S A d + d S)), without forming P.
References: Puterman (1994), chapter 4; Ziebart (2010); Geist, Scherrer and Pietquin (2019).
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdpsim.arrays import ROW_SLACK, FloatArray, as_beta, fail, frozen
from mdpsim.kernels import evaluate as kernels
from mdpsim.mdp.forms import AnyMDP, Form, form
from mdpsim.mdp.policies import as_policy, check_allowed
from mdpsim.memory import empty
from mdpsim.records import record


@record
class Solution(NamedTuple):
    """An optimum: read-only float64 arrays.

    V: [H+1, S] optimal values; V[H] = 0.
    Q: [H, S, A] optimal action values, for every action, also outside the reference's support.
    pi: [H, S, A] the optimal policy; rows sum to one.
    """

    V: FloatArray
    Q: FloatArray
    pi: FloatArray


@record
class Value(NamedTuple):
    """Values of a policy: read-only float64 arrays and two numbers.

    V: [H+1, S] values, regularised by beta; V[H] = 0.
    Q: [H, S, A] action values, for every action.
    J: value of the start, sum_s mu0[s] V[0, s].
    kl: trajectory KL of the policy to pi_ref; 0.0 where no pi_ref was given.
    """

    V: FloatArray
    Q: FloatArray
    J: float
    kl: float


def solve_soft(mdp: AnyMDP, pi_ref: ArrayLike, beta: float) -> Solution:
    """KL-regularised optimum by exact backward induction.

    Implements: V[h, s] = beta log sum_a pi_ref[h, s, a] exp(Q[h, s, a] / beta), pi = pi_ref exp((Q - V) / beta).

    Args:
        mdp: H stages, S states, A actions.
        pi_ref: [H, S, A] reference policy, or [S, A] for every stage; a zero forbids the action (pi is exactly zero there).
        beta: in [0, inf], in reward units; 0 is the hard optimum on pi_ref's support (ties, within 4 ulp of the row's
            largest |Q|, share mass in proportion to pi_ref), inf is pi_ref.
        A state in which pi_ref plays forbidden actions only (r = -inf) is an error; so is any that it plays, with beta = inf.
    Returns:
        Solution: V [H+1, S], Q [H, S, A], pi [H, S, A].
    Exactness: closed form; max|V - V*| <= max(1e-13, 5 H eps) max|V*|; log pi within a few eps max|Q| / beta, and that error.
    Cost: O(H S^2 A) time, one read of P; microseconds for S, H of ten.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    model = form("solve_soft", mdp, forbids=True)
    beta = as_beta("solve_soft", beta)
    ref, reward, lost = _policy("solve_soft", "pi_ref", pi_ref, model), model.reward, None
    if model.forbidden is not None:
        ref, reward, lost = _restricted("solve_soft", ref, model.forbidden, reward, beta)
    V, Q, pi = _outputs(model)
    if beta == 0.0:
        fits = model.solve.hard_induction(*model.dynamics, reward, ref, V, Q, pi)
    else:
        fits = model.solve.soft_induction(*model.dynamics, reward, ref, beta, V, Q, pi)
    if not fits:
        _overflow("solve_soft")
    if lost is not None:
        Q -= lost
    _bar(Q, model)
    return Solution(frozen(V), frozen(Q), frozen(pi))


def solve_hard(mdp: AnyMDP) -> Solution:
    """Optimum without regularisation, by exact backward induction.

    Implements: V[h, s] = max_a Q[h, s, a]; pi is uniform over the actions within 4 ulp of the row's largest |Q|.

    Args:
        mdp: H stages, S states, A actions.
    Returns:
        Solution: V [H+1, S], Q [H, S, A], pi [H, S, A].
    Exactness: to rounding; max|V - V*| <= max(1e-13, 5 H eps) max|V*|.
    Cost: O(H S^2 A) time, one read of P.
    Raises:
        ValueError: an argument that is no MDP, or values beyond float64.
    """
    model = form("solve_hard", mdp, forbids=True)
    V, Q, pi = _outputs(model)
    allowed = np.ones((1, *model.shape[1:])) if model.forbidden is None else (~model.forbidden).astype(float)
    uniform = frozen(allowed)  # ties share in proportion to this; its rows need no sum
    if not model.solve.hard_induction(*model.dynamics, model.reward, uniform, V, Q, pi):
        _overflow("solve_hard")
    _bar(Q, model)
    return Solution(frozen(V), frozen(Q), frozen(pi))


def evaluate(mdp: AnyMDP, pi: ArrayLike, *, pi_ref: ArrayLike | None = None, beta: float = 0.0) -> Value:
    """Values of a policy, regularised where beta > 0, and its trajectory KL to a reference.

    Implements: V[h, s] = sum_a pi[h, s, a] Q[h, s, a] - beta KL(pi[h, s] || pi_ref[h, s]), J = sum_s mu0[s] V[0, s].

    Args:
        mdp: H stages, S states, A actions.
        pi: [H, S, A] the policy, or [S, A] for every stage.
        pi_ref: reference policy, of either shape; needed for beta > 0. With beta = 0 it only defines ``kl``, which may be inf.
        beta: in [0, inf], in reward units. With inf, V is -inf where a stage of positive KL can be reached, and the
            plain value elsewhere; equal means equal to the last bit.
    Returns:
        Value: V [H+1, S], Q [H, S, A], J, kl (0.0 without pi_ref).
    Exactness: to rounding, max(1e-13, 5 H eps) max|V|; kl to a relative max(1e-14, 5 H eps), also where the policies differ
        by 1e-8.
    Cost: O(H S^2 A) time, one read of P; a second one where beta = 0 and pi_ref does not cover pi.
    Raises:
        ValueError: naming the argument; beta > 0 without pi_ref, or with a policy that leaves pi_ref's support at any
            (h, s, a), reached or not; a policy that may play a forbidden action (r = -inf) at any (h, s, a), reached or not.
    """
    model = form("evaluate", mdp, forbids=True)
    beta = as_beta("evaluate", beta)
    policy = _acting("evaluate", pi, model)
    if pi_ref is None:
        if beta > 0.0:
            fail("evaluate", "pi_ref", f"be given where beta > 0 (beta = {beta:g})", None)
        rows, worst = frozen(np.zeros(model.shape[:2])), 0.0
    else:
        ref = _policy("evaluate", "pi_ref", pi_ref, model)
        if beta > 0.0:
            _check_cover(policy, ref)
        rows, worst = _kl_rows(policy, ref)
    V, Q, _ = _outputs(model)
    K = np.empty(V.shape)
    weight = beta if beta < np.inf else 0.0
    if not model.value.policy_values(*model.dynamics, model.reward, policy, weight, rows, V, Q, K):
        _overflow("evaluate")
    if beta == np.inf:
        model.value.ruin(*model.dynamics, policy, rows, V, Q)
    _bar(Q, model)
    J = kernels.expectation(model.mu0, frozen(V)[0])
    # without cover somewhere, what counts is whether pi ever gets there
    kl = kernels.expectation(model.mu0, frozen(K)[0]) if worst < np.inf else _expected_kl(model, policy, rows)
    return Value(V, frozen(Q), float(J), float(kl))


def occupancy(mdp: AnyMDP, pi: ArrayLike) -> FloatArray:
    """Law of the state at each stage under a policy.

    Implements: occ[0] = mu0, occ[h+1, s'] = sum_{s, a} occ[h, s] pi[h, s, a] P[h, s, a, s'].

    Args:
        mdp: H stages, S states, A actions.
        pi: [H, S, A] the policy, or [S, A] for every stage.
    Returns:
        [H, S], read-only; each stage sums to one within a few eps.
    Exactness: to rounding. Cost: O(H S^2 A) time, one read of P.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    model = form("occupancy", mdp, forbids=True)
    return _occupancy(model, _acting("occupancy", pi, model))


def trajectory_kl(mdp: AnyMDP, pi: ArrayLike, other: ArrayLike) -> float:
    """KL divergence between the laws of trajectories under two policies of one MDP.

    Implements: KL = sum_h sum_s occ[h, s] KL(pi[h, s] || other[h, s]), occ the occupancy of pi.

    Args:
        mdp: H stages, S states, A actions.
        pi: [H, S, A] the policy that acts, or [S, A] for every stage.
        other: the policy it is compared with, of either shape.
    Returns:
        In [0, inf]; inf where occupied mass has no cover by ``other``. States never reached count 0, covered or not.
    Exactness: a relative max(1e-14, 5 H eps), also where the policies differ by 1e-8 only: no term is negative, none cancels.
    Cost: O(H S^2 A) time, one read of P.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    model = form("trajectory_kl", mdp, forbids=True)
    policy = _acting("trajectory_kl", pi, model)
    rows, worst = _kl_rows(policy, _policy("trajectory_kl", "other", other, model))
    return _expected_kl(model, policy, rows) if worst > 0.0 else 0.0


def _policy(function: str, argument: str, pi: ArrayLike, model: Form) -> FloatArray:
    """Guard a policy of the MDP: [H, S, A], or [S, A] for every stage; returns [H, S, A].

    What is in order already (nearly every call, in a loop of small solves) is not copied: the kernel gets a read-only
    view, and nothing returned shares memory with it. All else, and every fault, goes the long way.
    """
    shape = model.shape
    if type(pi) is np.ndarray and pi.shape == shape and pi.dtype == np.float64 and pi.flags.c_contiguous:
        view = pi.view()
        view.flags.writeable = False
        if kernels.rows_in_order(view.reshape(-1, shape[2]), ROW_SLACK):
            return view
    return as_policy(function, argument, pi, shape)


def _acting(function: str, pi: ArrayLike, model: Form) -> FloatArray:
    """Guard the policy ``pi`` that acts: it may play no forbidden action."""
    policy = _policy(function, "pi", pi, model)
    check_allowed(function, "pi", policy, model.forbidden)
    return policy


def _bar(Q: FloatArray, model: Form) -> None:
    """Set Q [H, S, A] to -inf at forbidden actions, whose rewards the kernels saw as 0."""
    if model.forbidden is not None:
        Q[np.broadcast_to(model.forbidden, Q.shape)] = -np.inf


def _restricted(
    function: str, ref: FloatArray, forbidden: NDArray[np.bool_], reward: FloatArray, beta: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(reference over allowed actions, rewards, what was added to them) with the optimum of ``ref``; the module says why."""
    barred = np.where(forbidden, ref, 0.0).sum(axis=-1, keepdims=True)
    kept = np.where(forbidden, 0.0, ref)
    mass = kept.sum(axis=-1, keepdims=True)
    if not mass.all():
        h, s = (int(i) for i in np.unravel_index((mass == 0.0).argmax(), mass.shape[:2]))
        fail(function, "pi_ref", "play an allowed action in every state", f"forbidden ones only at (h, s) = ({h}, {s})")
    if beta == np.inf:
        check_allowed(function, "pi_ref where beta = inf", ref, forbidden)
    with np.errstate(divide="ignore", over="ignore"):  # log(0) of what is not chosen; a sum beyond float64 is seen below
        log_mass = np.where(barred <= 0.5, np.log1p(-np.minimum(barred, 0.5)), np.log(mass))
        paid = np.where(barred > 0.0, (beta if beta < np.inf else 0.0) * log_mass, 0.0)
        total = reward + paid
    if not np.isfinite(total).all():
        _overflow(function)
    return frozen(kept / np.where(barred > 0.0, mass, 1.0)), frozen(total), paid


def _outputs(model: Form) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Empty V [H+1, S], Q [H, S, A], pi [H, S, A]."""
    horizon, n_states, _ = model.shape
    return empty((horizon + 1, n_states)), empty(model.shape), empty(model.shape)


def _overflow(function: str) -> NoReturn:
    """The values left float64: rewards of 1e300 and the like."""
    fail(function, "mdp", "have rewards whose sums stay within float64", "values that overflow")


def _occupancy(model: Form, pi: FloatArray) -> FloatArray:
    """Occupancy [H, S] of a guarded policy."""
    occ = np.empty(model.shape[:2])
    model.value.occupancy(*model.dynamics, pi, model.mu0, occ)
    return frozen(occ)


def _kl_rows(pi: FloatArray, other: FloatArray) -> tuple[FloatArray, float]:
    """(KL(pi[h, s] || other[h, s]) [H, S], the largest of them) for guarded policies."""
    rows = np.empty(pi.shape[:2])
    worst = kernels.kl_rows(pi, other, rows)
    return frozen(rows), worst


def _expected_kl(model: Form, pi: FloatArray, rows: FloatArray) -> float:
    """Trajectory KL from the KL of the rows [H, S], infinite ones included."""
    return float(kernels.expectation(_occupancy(model, pi).reshape(-1), rows.reshape(-1)))


def _check_cover(pi: FloatArray, ref: FloatArray) -> None:
    """Refuse a policy that leaves the reference's support."""
    where = kernels.first_uncovered(pi, ref)
    if where >= 0:
        h, s, a = (int(i) for i in np.unravel_index(where, pi.shape))
        got = f"pi = {pi[h, s, a]:.6g} where pi_ref = 0, at (h, s, a) = ({h}, {s}, {a})"
        fail("evaluate", "pi", "stay on pi_ref's support where beta > 0", got)
