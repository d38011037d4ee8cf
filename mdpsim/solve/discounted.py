"""Exact solution and evaluation of discounted MDPs, with and without KL regularisation, within a certified distance.

    V* = T V*,   (T V)[s] = beta log sum_a pi_ref[s, a] exp(Q[s, a] / beta),   Q = r + gamma P V

beta = 0 is the hard optimum over pi_ref's support, beta = inf is pi_ref itself. From any V one application of T gives
bounds on V* from both sides (see ``mdpsim.kernels.discounted``), so every method ends with the same certificate:

    T V + gamma / (1 - gamma) min(T V - V) - e  <=  V*  <=  T V + gamma / (1 - gamma) max(T V - V) + e.

The methods differ in what they do between applications: nothing (value iteration); V <- V + (I - gamma P_pi)^-1 (T V - V),
with pi the policy of T at V, a Newton step and policy iteration; or some sweeps towards it (modified policy iteration).

e bounds what float64 rounds: in units of eps / (1 - gamma), a backup of n products loses (n + 10) max|V| and 2 max|r|, a
soft row of A actions (3A + 26) times the span of its Q (a first-order count of the operations in ``kernels.bellman``, each at
its stated accuracy); rows that sum to one within a few eps are in it. V is taken from the middle of its range, which makes
max|V| the difference between states, not the size of the values: at gamma = 0.9999 that is four digits more.

References: Puterman (1994), chapter 6; MacQueen (1966); Porteus (1971); Geist, Scherrer and Pietquin (2019).
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_beta, as_count, as_simplex, fail, frozen, real_or_nan, shown, unknown
from mdpsim.kernels import evaluate as kernels
from mdpsim.mdp.discounted import DiscountedMDP
from mdpsim.mdp.forms import discounted_form
from mdpsim.mdp.successors import Successors
from mdpsim.records import record

EPS = float(np.finfo(np.float64).eps)
METHODS = ("auto", "value_iteration", "policy_iteration", "modified_policy_iteration")
EVALUATION_SWEEPS = 20  # of modified policy iteration, between two improvements
FIRST_SWEEPS, FEW_STATES = 100, 500  # of the method "auto": what it tries first, and up to where LU is cheap


class Status(Enum):
    """How a solver ended; the value says what to do. The bounds are true with every status."""

    CONVERGED = "V, Q, lower and upper are within tol of the optimum."
    ITERATION_LIMIT = "max_iterations came first: raise it, or take what lower and upper say."
    ROUNDING = "float64 cannot certify tol at this gamma and scale: take what lower and upper say, or a larger tol."


@record
class DiscountedSolution(NamedTuple):
    """An optimum with its certificate: read-only float64 arrays.

    V: [S] optimal values, the middle of the bounds.
    Q: [S, A] optimal action values, for every action, also outside the reference's support; V is exactly its backup.
    pi: [S, A] the policy of Q; rows sum to one.
    lower: [S] certified lower bounds on the optimal values.
    upper: [S] certified upper bounds.
    status: whether upper - V and V - lower are within tol, and if not, why.
    iterations: how often the optimality operator was applied, each time to all states.
    """

    V: FloatArray
    Q: FloatArray
    pi: FloatArray
    lower: FloatArray
    upper: FloatArray
    status: Status
    iterations: int


@record
class DiscountedValue(NamedTuple):
    """Values of a policy: read-only float64 arrays.

    V: [S] values, regularised by beta.
    Q: [S, A] action values, for every action.
    """

    V: FloatArray
    Q: FloatArray


def solve_discounted(
    mdp: DiscountedMDP, pi_ref: ArrayLike | None = None, beta: float = 0.0, *,
    method: str = "auto", tol: float = 1e-8, max_iterations: int | None = None,
) -> DiscountedSolution:
    """Optimum of a discounted MDP, hard or KL-regularised, to a certified absolute accuracy in the sup norm.

    Implements: V[s] = beta log sum_a pi_ref[s, a] exp(Q[s, a] / beta), Q = r + gamma P V, pi = pi_ref exp((Q - V) / beta).

    Args:
        mdp: S states, A actions, discount gamma in [0, 1).
        pi_ref: [S, A] reference policy; a zero forbids the action. None allows all actions, for beta = 0 only.
        beta: in [0, inf], in reward units; 0 is the hard optimum on pi_ref's support (ties, within 4 ulp of the row's
            largest |Q|, share mass in proportion to pi_ref), inf is pi_ref.
        method: "value_iteration" (best where states mix fast, or S is large); "policy_iteration" (a linear system of S
            equations each time, a handful of times); "modified_policy_iteration" (20 sweeps of evaluation in its place);
            "auto": 100 sweeps of value iteration, enough where states mix, then policy iteration for S <= 500 and
            modified policy iteration above.
        tol: largest |V - V*|, in reward units.
        max_iterations: limit of ``iterations``; None for as many as contraction by gamma can need.
    Returns:
        DiscountedSolution: V [S], Q [S, A], pi [S, A], lower [S], upper [S], status, iterations.
    Exactness: lower <= V* <= upper at every state, rounding included (entries of pi_ref among the denormals excepted); with
        status CONVERGED, |V - V*| <= tol. Smallest tol that float64 can certify: about
        (K + 6 A) eps (max|r| + span V*) / (1 - gamma), K the products in a backup.
    Cost: O(S^2 A) an iteration (O(S A K) for Successors), and policy iteration O(S^3) more. Value iteration takes at most
        log(1 / tol) / (1 - gamma) iterations, and far fewer where states mix.
    Raises:
        ValueError: naming the argument, what was wanted and what came; beta > 0 without pi_ref.
    """
    module, dynamics, products = discounted_form("solve_discounted", mdp)
    beta, tol = as_beta("solve_discounted", beta), _tolerance(tol)
    if method not in METHODS:
        unknown("solve_discounted", "method", method, METHODS)
    most = _enough(mdp.gamma) if max_iterations is None else as_count("solve_discounted", "max_iterations", max_iterations)
    ref = _reference(mdp, pi_ref, beta)
    exactly = method == "policy_iteration" or (method == "auto" and mdp.S <= FEW_STATES)
    batch = {"auto": FIRST_SWEEPS, "value_iteration": most}.get(method, 1)
    rounding = _Rounding.of(mdp, ref, beta, products)
    V, after, change = np.zeros(mdp.S), np.empty(mdp.S), np.empty(2)
    Q, pi = np.empty(mdp.r.shape), np.empty(mdp.r.shape)
    done = 0
    limits = frozen(np.array([tol, *rounding.line(mdp.gamma)]))
    while True:
        sweeps, settled = module.value_iteration(
            *dynamics, mdp.r, ref, mdp.gamma, beta, limits, min(batch, most - done), V, after, Q, pi, change
        )
        done += sweeps
        if settled or done >= most:
            break
        V, batch = _improved(mdp, V, after, pi, exactly), 1
    V, Q, half = _certified(V, after, Q, change, mdp.gamma, rounding, ref)
    lower, upper = V - half, V + half
    status = Status.ROUNDING if settled or max_iterations is None else Status.ITERATION_LIMIT
    if max(float(np.max(upper - V)), float(np.max(V - lower))) <= tol:
        status = Status.CONVERGED
    return DiscountedSolution(frozen(V), frozen(Q), frozen(pi), frozen(lower), frozen(upper), status, int(done))


def evaluate_discounted(
    mdp: DiscountedMDP, pi: ArrayLike, *, pi_ref: ArrayLike | None = None, beta: float = 0.0
) -> DiscountedValue:
    """Values of a policy by a linear system, regularised where beta > 0.

    Implements: V = (I - gamma P_pi)^-1 (r_pi - beta KL(pi || pi_ref)), Q = r + gamma P V.

    Args:
        mdp: S states, A actions, discount gamma in [0, 1).
        pi: [S, A] the policy.
        pi_ref: [S, A] reference policy; needed for beta > 0.
        beta: in [0, inf], in reward units. With inf, V is -inf where a state of positive KL can be reached, and the plain
            value elsewhere; equal means equal to the last bit.
    Returns:
        DiscountedValue: V [S], Q [S, A].
    Exactness: LU with one step of refinement: some eps max|V| plus S eps (span of V) / (1 - gamma).
    Cost: O(S^2 A + S^3); for Successors a sparse LU, whose fill-in depends on the graph (a random graph fills all).
    Raises:
        ValueError: naming the argument; beta > 0 without pi_ref, or with a policy that leaves pi_ref's support.
    """
    discounted_form("evaluate_discounted", mdp)
    beta = as_beta("evaluate_discounted", beta)
    policy = as_simplex("evaluate_discounted", "pi", pi, "S A", mdp.r.shape)
    kl = np.zeros(mdp.S)
    if beta > 0.0:
        kl = _divergence(mdp, policy, pi_ref, beta)
    reward = (policy * mdp.r).sum(axis=1) - (beta * kl if beta < np.inf else 0.0)
    _refuse_overflow("evaluate_discounted", float(np.abs(reward).max()), mdp.gamma)
    V = _Chain.of(mdp, policy).solve(reward)
    Q = mdp.r + mdp.gamma * _expected(mdp, V)
    if beta == np.inf:
        _ruin(mdp, policy, kl, V, Q)
    return DiscountedValue(frozen(V), frozen(Q))


class _Chain(NamedTuple):
    """The Markov chain of a policy: its transition matrix [S, S], dense or scipy.sparse, and the discount."""

    matrix: Any
    gamma: float

    @staticmethod
    def of(mdp: DiscountedMDP, pi: np.ndarray) -> _Chain:
        if not isinstance(mdp.P, Successors):
            return _Chain((pi[:, None, :] @ mdp.P)[:, 0, :], mdp.gamma)
        from scipy import sparse

        weights = pi[:, :, None] * mdp.P.prob[0]
        starts = np.arange(mdp.S + 1) * weights[0].size
        matrix = sparse.csr_array((weights.reshape(-1), mdp.P.next_state.reshape(-1).copy(), starts), shape=(mdp.S, mdp.S))
        matrix.eliminate_zeros()
        return _Chain(matrix, mdp.gamma)

    def solve(self, x: np.ndarray) -> np.ndarray:
        """(I - gamma P)^-1 x; the constant in the middle of x comes out exactly, and rounds nothing else."""
        middle = 0.5 * x.min() + 0.5 * x.max()
        right, lu = x - middle, self._factors()
        y = lu(right)
        y += lu(right - (y - self.gamma * (self.matrix @ y)))
        return y + middle / (1.0 - self.gamma)

    def series(self, x: np.ndarray, terms: int) -> np.ndarray:
        """(I - gamma P)^-1 x nearly: Richardson's iteration, full and half steps in turn (a half step ends short cycles)."""
        total, step = np.zeros(x.size), x
        for k in range(terms):
            share = 1.0 - 0.5 * (k % 2)
            total += share * step
            step = (1.0 - share) * step + share * self.gamma * (self.matrix @ step)
        return total + step

    def _factors(self) -> Any:
        """A function that solves with I - gamma P."""
        n = self.matrix.shape[0]
        if isinstance(self.matrix, np.ndarray):
            from scipy.linalg import lu_factor, lu_solve

            factors = lu_factor(np.eye(n) - self.gamma * self.matrix)
            return lambda b: lu_solve(factors, b)
        from scipy import sparse
        from scipy.sparse.linalg import splu

        system = (sparse.eye_array(n, format="csr") - self.gamma * self.matrix).tocsc()
        system.sum_duplicates()
        return splu(system).solve


def _improved(mdp: DiscountedMDP, V: np.ndarray, after: np.ndarray, pi: np.ndarray, exactly: bool) -> np.ndarray:
    """The values of pi, the policy of T at V, or what some sweeps of its evaluation make of V; up to a constant.

    T V = T_pi V, so that V_pi = V + (I - gamma P_pi)^-1 (T V - V): no rewards, no KL, and errors relative to the step.
    """
    step = after - V
    step -= 0.5 * step.min() + 0.5 * step.max()
    chain = _Chain.of(mdp, pi)
    V = V + (chain.solve(step) if exactly else chain.series(step, EVALUATION_SWEEPS))
    return V - (0.5 * V.min() + 0.5 * V.max())


class _Rounding(NamedTuple):
    """Bound on the rounding error of one application of T: eps (2 max|r| + soft D + per_value max|V|), D the span of rows of Q.

    rows: largest span of a row of r over the support; D <= rows + 2 gamma max|V|.
    """

    reward: float
    rows: float
    soft: float
    per_value: float

    @staticmethod
    def of(mdp: DiscountedMDP, ref: np.ndarray, beta: float, products: int) -> _Rounding:
        """The constants, for a backup of so many products."""
        largest = float(np.abs(mdp.r).max())
        _refuse_overflow("solve_discounted", largest, mdp.gamma)
        soft = 3.0 * mdp.A + 26.0 if beta > 0.0 else 0.0
        return _Rounding(largest, _row_span(mdp.r, ref), soft, (products + 10) * mdp.gamma + 1.0)

    def line(self, gamma: float) -> tuple[float, float]:
        """(e, f) such that e + f max|V| bounds the error of the bounds."""
        unit = EPS / (1.0 - gamma)
        return unit * (2.0 * self.reward + self.soft * self.rows), unit * (self.per_value + 2.0 * gamma * self.soft)

    def bound(self, V: np.ndarray, Q: np.ndarray, ref: np.ndarray, gamma: float) -> float:
        """The error of the bounds after a sweep from V that gave Q."""
        size = float(np.abs(V).max())
        return EPS / (1.0 - gamma) * (2.0 * self.reward + self.soft * _row_span(Q, ref) + self.per_value * size)


def _row_span(x: np.ndarray, ref: np.ndarray) -> float:
    """The largest max - min of a row of x [S, A] over the support of ref."""
    high, low = np.where(ref > 0.0, x, -np.inf).max(axis=1), np.where(ref > 0.0, x, np.inf).min(axis=1)
    return float((high - low).max())


def _certified(
    V: np.ndarray, after: np.ndarray, Q: np.ndarray, change: np.ndarray, gamma: float, rounding: _Rounding, ref: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """(V, Q, half the distance of the bounds) from the last sweep: both move by one constant, so V stays the backup of Q."""
    low, high = (gamma / (1.0 - gamma) * float(x) for x in change)
    shift = 0.5 * low + 0.5 * high
    values = after + shift
    own = 4.0 * EPS * (abs(shift) + float(np.abs(after).max()))  # of the few operations here
    return values, Q + shift, 0.5 * (high - low) + rounding.bound(V, Q, ref, gamma) + own


def _enough(gamma: float) -> int:
    """Sweeps after which contraction by gamma alone has left float64 behind."""
    return math.ceil((40.0 - math.log1p(-gamma)) / (1.0 - gamma))


def _tolerance(tol: object) -> float:
    found = real_or_nan(tol)
    if 0.0 < found < np.inf:
        return found
    fail("solve_discounted", "tol", "be a positive finite number", shown(tol))


def _reference(mdp: DiscountedMDP, pi_ref: ArrayLike | None, beta: float) -> FloatArray:
    """The guarded reference; all ones where none is needed (the hard stage asks for no sums)."""
    if pi_ref is not None:
        return as_simplex("solve_discounted", "pi_ref", pi_ref, "S A", mdp.r.shape)
    if beta > 0.0:
        fail("solve_discounted", "pi_ref", f"be given where beta > 0 (beta = {beta:g})", None)
    return frozen(np.ones(mdp.r.shape))


def _refuse_overflow(function: str, largest: float, gamma: float) -> None:
    if not largest / (1.0 - gamma) < 1e300:
        fail(function, "mdp", "have rewards whose discounted sums stay below 1e300", f"rewards of {largest:g}")


def _divergence(mdp: DiscountedMDP, policy: FloatArray, pi_ref: ArrayLike | None, beta: float) -> np.ndarray:
    """KL(pi || pi_ref) [S] of a guarded policy, or the error that there is none."""
    if pi_ref is None:
        fail("evaluate_discounted", "pi_ref", f"be given where beta > 0 (beta = {beta:g})", None)
    ref = as_simplex("evaluate_discounted", "pi_ref", pi_ref, "S A", mdp.r.shape)
    where = kernels.first_uncovered(policy[None], ref[None])
    if where >= 0:
        s, a = divmod(where, mdp.A)
        got = f"pi = {policy[s, a]:.6g} where pi_ref = 0, at (s, a) = ({s}, {a})"
        fail("evaluate_discounted", "pi", "stay on pi_ref's support where beta > 0", got)
    kl = np.empty((1, mdp.S))
    kernels.kl_rows(policy[None], ref[None], kl)
    return kl[0]


def _expected(mdp: DiscountedMDP, x: np.ndarray) -> np.ndarray:
    """P x [S, A]."""
    if isinstance(mdp.P, Successors):
        return (mdp.P.prob[0] * x[mdp.P.next_state[0]]).sum(axis=-1)
    return mdp.P @ x


def _ruin(mdp: DiscountedMDP, pi: FloatArray, kl: np.ndarray, V: np.ndarray, Q: np.ndarray) -> None:
    """Set V and Q to -inf where a state of positive KL lies ahead: the limit of infinite beta. O(S) sweeps at most."""
    lost, found = kl > 0.0, -1
    doomed = np.zeros(Q.shape, dtype=bool)
    while lost.sum() > found:
        found = int(lost.sum())
        doomed = _expected(mdp, lost.astype(float)) > 0.0
        lost = lost | ((pi > 0.0) & doomed).any(axis=1)
    V[lost], Q[doomed] = -np.inf, -np.inf
