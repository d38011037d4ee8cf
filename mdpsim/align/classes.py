r"""Classes of policies over enumerable responses: a finite one, and a box of rewards with its grids.

The reward parametrisation: a function rho of context and response stands for the policy

    beta log pi_rho(y | x) / pi_ref(y | x) = rho(x, y) - V_rho(x),     V_rho(x) = beta log E_ref e^{rho/beta},

so that rho is its implicit reward, up to a constant a context; rho = r is the optimum pi*_beta. A policy pi given as such
has the implicit reward beta log pi / pi_ref, with V = 0. For every policy

    J(pi*) - J(pi) = beta E_x KL(pi(. | x) || pi*(. | x)),

which is how gaps are computed: nothing cancels. A class that does not hold pi* is misspecified by the least of its gaps.
References: Rafailov et al. (2023); Xie et al. (2024).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import (
    ROW_SLACK,
    ROW_TOLERANCE,
    FloatArray,
    IntArray,
    as_count,
    as_floats,
    as_integers,
    as_numbers,
    as_real,
    fail,
    frozen,
)
from mdpsim.mdp.token import TokenMDP
from mdpsim.records import record

MAX_POLICIES = 2**20
MAX_ENTRIES = 2**24  # policies times contexts times responses: 128 MiB an array
LARGEST = 1e100  # of rewards and logarithms: then 10^9 squares of their differences over a beta of 1e-8 stay within float64

P, T = ParamSpec("P"), TypeVar("T")


class Misfit(NamedTuple):
    """How far a class is from the optimum: the least gap J(pi*) - J(pi), in units of reward, and the policy that has it."""

    distance: float
    index: int


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class FiniteClass:
    """n policies over Y responses to each of X contexts, with pi_ref; made by ``from_rewards`` or ``from_policies``.

    Attributes:
        log_ref: [X, Y] log pi_ref(y | x); -inf where it never writes y: no policy of the class does either.
        values: [n, X, Y] implicit rewards, or log-policies.
        of_rewards: which of the two.
    """

    log_ref: FloatArray
    values: FloatArray
    of_rewards: bool

    def __init__(self, *_: object, **__: object) -> None:
        fail("FiniteClass", "policies", "be made by FiniteClass.from_rewards or FiniteClass.from_policies", "a direct call")

    @classmethod
    def _made(cls, log_ref: FloatArray, values: FloatArray, of_rewards: bool) -> FiniteClass:
        found = object.__new__(cls)
        for name, value in (("log_ref", log_ref), ("values", values), ("of_rewards", of_rewards)):
            object.__setattr__(found, name, value)
        return found

    @classmethod
    def from_rewards(cls, rewards: ArrayLike, log_ref: ArrayLike) -> FiniteClass:
        """The policies pi_rho of n implicit rewards; which policies they are depends on the beta of the run.

        Args:
            rewards: [n, X, Y], numbers within +-1e100; those of responses that pi_ref never writes do not matter.
            log_ref: [X, Y] log-probabilities, as ``TokenMDP.responses(pi_ref).log_prob``.
        Raises:
            ValueError: naming the argument; a context without responses; more than 2^20 policies or 2^24 entries.
        """
        ref = as_log_ref("from_rewards", log_ref)
        rho = as_floats("from_rewards", "rewards", rewards, "n X Y", (None, *ref.shape))
        _guard_size("from_rewards", "rewards", rho)
        rho = np.where(ref > -np.inf, rho, 0.0)
        guard_range("from_rewards", "rewards", rho)
        return cls._made(ref, frozen(rho), True)

    @classmethod
    def from_policies(cls, log_pi: ArrayLike, log_ref: ArrayLike) -> FiniteClass:
        """The n policies given by their log-probabilities [n, X, Y], those of responses that they write at least -1e100.

        Raises:
            ValueError: rows that are no laws; a policy that writes what pi_ref never does (its divergence is infinite), or
                never writes what pi_ref does (its implicit reward is).
        """
        ref = as_log_ref("from_policies", log_ref)
        logs = as_log_policies("from_policies", log_pi, ref)
        odd = (logs > -np.inf) != (ref > -np.inf)
        if odd.any():
            k, x, y = (int(i) for i in np.argwhere(odd)[0])
            got = f"{np.exp(logs[k, x, y]):.6g} and {np.exp(ref[x, y]):.6g} at {(k, x, y)}"
            fail("from_policies", "log_pi", "write exactly the responses that pi_ref writes", got)
        return cls._made(ref, logs, False)

    @property
    def n(self) -> int:
        """Number of policies."""
        return self.values.shape[0]

    @property
    def X(self) -> int:
        """Number of contexts."""
        return self.log_ref.shape[0]

    @property
    def Y(self) -> int:
        """Number of responses to a context."""
        return self.log_ref.shape[1]

    def implicit(self, beta: float) -> tuple[FloatArray, FloatArray]:
        """(rho [n, X, Y], V [n, X]) with beta log pi / pi_ref = rho - V; rho is 0 where pi_ref never writes."""
        weight = as_temperature("implicit", beta)
        if self.of_rewards:
            return self.values, tilt_rows(self.values, self.log_ref, weight)[1]
        written = self.log_ref > -np.inf
        ref = np.where(written, self.log_ref, 0.0)
        rho = weight * (np.where(written, self.values, 0.0) - ref)
        return frozen(rho), frozen(np.zeros((self.n, self.X)))

    def log_pi(self, beta: float) -> FloatArray:
        """[n, X, Y] log-probabilities."""
        if not self.of_rewards:
            return self.values
        return tilt_rows(self.values, self.log_ref, as_temperature("log_pi", beta))[0]

    def gaps(self, mdp: TokenMDP, beta: float) -> FloatArray:
        """[n] J(pi*) - J(pi) = beta E_x KL(pi || pi*), exact to a relative error of about eps (1 + |log pi|).

        Raises:
            ValueError: another mdp than a TokenMDP of this X and Y, or one with rewards beyond +-1e100; beta out of range.
        """
        guard_sizes("gaps", mdp, self)
        return gaps(mdp, self.log_pi(beta), self.log_ref, beta)

    def misfit(self, mdp: TokenMDP, beta: float) -> Misfit:
        """The least gap of the class and whose it is: 0, up to the square of rounding, where the class holds pi*."""
        guard_sizes("misfit", mdp, self)
        found = self.gaps(mdp, beta)
        return Misfit(float(found.min()), int(found.argmin()))

    def __repr__(self) -> str:
        return f"FiniteClass(n={self.n}, X={self.X}, Y={self.Y}, {'rewards' if self.of_rewards else 'policies'})"


@dataclass(frozen=True, kw_only=True)
class RewardBox:
    """The class {pi_rho : rho in [0, r_max]^Y in each context}: it holds pi* wherever rewards range over at most r_max.

    V_rho, too, lies in [0, r_max], so |beta log pi / pi_ref| <= r_max for every policy and temperature. rho and rho + c are one
    policy: a grid keeps the one whose least entry is 0.
    """

    r_max: float = 1.0

    def __post_init__(self) -> None:
        as_real("RewardBox", "r_max", self.r_max, 1e-300, LARGEST)

    def grid(self, log_ref: ArrayLike, points: int) -> FiniteClass:
        """The rho with entries in {0, h, .. , r_max}, h = r_max / (points - 1), and least entry 0 in each context.

        Args:
            log_ref: [X, Y]. points: values of an entry, at least 2.
        Returns:
            FiniteClass of (points^Y - (points - 1)^Y)^X policies, rho = 0 (which is pi_ref) the first.
        Raises:
            ValueError: more than 2^20 policies.
        """
        ref = as_log_ref("RewardBox.grid", log_ref)
        m = as_count("RewardBox.grid", "points", points, low=2, high=MAX_POLICIES)
        X, Y = ref.shape
        if Y * np.log(m) > np.log(2.0**24) or X * np.log(m**Y - (m - 1) ** Y) > np.log(MAX_POLICIES):
            fail("RewardBox.grid", "points", f"give at most {MAX_POLICIES} policies", f"{m} values, Y = {Y}, X = {X}")
        step = self.r_max / (m - 1)
        one = np.array([v for v in itertools.product(range(m), repeat=Y) if min(v) == 0], dtype=np.float64) * step
        which = np.array(list(itertools.product(range(len(one)), repeat=X)))
        return FiniteClass.from_rewards(one[which], ref)


def quiet(function: Callable[P, T]) -> Callable[P, T]:
    """A function in which a probability that underflows is 0, also for callers who have asked numpy to raise."""
    return np.errstate(under="ignore")(function)


def as_log_ref(function: str, log_ref: ArrayLike) -> FloatArray:
    """Guard log pi_ref [X, Y]: laws of responses, every context with one."""
    logs = as_numbers(function, "log_ref", log_ref)
    if logs.ndim != 2 or 0 in logs.shape:
        fail(function, "log_ref", "have shape [X, Y] = (X, Y)", logs.shape)
    empty = np.isneginf(logs).all(axis=1)
    if empty.any():
        fail(function, "log_ref", "give every context a response", f"none in context {int(empty.argmax())}")
    return _as_laws(function, "log_ref", logs)


def as_log_policies(function: str, log_pi: ArrayLike, ref: FloatArray) -> FloatArray:
    """Guard log pi [n, X, Y] of n policies beside a guarded log pi_ref [X, Y]: laws of responses."""
    logs = as_numbers(function, "log_pi", log_pi)
    if logs.ndim != 3 or logs.shape[0] == 0 or logs.shape[1:] != ref.shape:
        fail(function, "log_pi", f"have shape [n, X, Y] = (n, {ref.shape[0]}, {ref.shape[1]})", logs.shape)
    _guard_size(function, "log_pi", logs)
    return _as_laws(function, "log_pi", logs)


def as_indices(
    function: str, argument: str, x: ArrayLike, axes: str, sizes: tuple[int | None, ...], below: int = 2**62
) -> IntArray:
    """Guard numbers in [0, below), at least one of them (numpy takes an empty list for floats, which says nothing)."""
    if np.size(x) == 0 if isinstance(x, np.ndarray) else isinstance(x, list | tuple) and not x:
        fail(function, argument, "hold at least one number", "none")
    return as_integers(function, argument, x, axes, sizes, below)


def as_temperature(function: str, beta: object) -> float:
    """Guard beta in [1e-8, 1e8]: at 0 and at infinity a policy does not tell its implicit reward."""
    return as_real(function, "beta", beta, 1e-8, 1e8)


def _as_laws(function: str, argument: str, logs: FloatArray) -> FloatArray:
    """Guard log-probabilities whose last axis sums to one within 1e-9; returns them renormalised, read-only."""
    if np.isnan(logs).any() or (logs == np.inf).any():
        fail(function, argument, "hold logarithms of probabilities", "NaN or inf")
    low = float(np.where(logs == -np.inf, 0.0, logs).min())
    if low < -LARGEST:
        fail(function, argument, f"be -inf, for what is never written, or at least {-LARGEST:g}", f"{low:.6g}")
    with np.errstate(under="ignore", over="ignore"):
        total = np.exp(logs).sum(axis=-1, keepdims=True)
    off = np.abs(total[..., 0] - 1.0)
    if off.max() > ROW_TOLERANCE:
        where = tuple(int(i) for i in np.unravel_index(int(off.argmax()), off.shape))
        wanted = f"have rows that sum to one within {ROW_TOLERANCE:g}"
        fail(function, f"exp({argument})", wanted, f"{total[where][0]:.12g} in row {where}")
    return frozen(np.where(off[..., None] > ROW_SLACK, logs - np.log(total), logs))


def guard_range(function: str, argument: str, x: FloatArray) -> None:
    """Refuse numbers so large that sums of their differences or squares could leave float64, and be compared as NaN."""
    far = max(float(x.max()), -float(x.min()))
    if not far <= LARGEST:
        fail(function, argument, f"lie within +-{LARGEST:g}", f"{far:.6g}")


def guard_mdp(where: str, mdp: TokenMDP) -> None:
    """Guard an environment: a TokenMDP with rewards within +-1e100."""
    if not isinstance(mdp, TokenMDP):
        fail(where, "mdp", "be a TokenMDP (length=1 for plain responses)", type(mdp).__name__)
    guard_range(where, "the rewards of mdp", mdp.r)


def guard_sizes(where: str, mdp: TokenMDP, policies: FiniteClass) -> None:
    """Guard an environment and a class of equal sizes."""
    guard_mdp(where, mdp)
    if not isinstance(policies, FiniteClass):
        fail(where, "policies", "be a FiniteClass", type(policies).__name__)
    if (policies.X, policies.Y) != (mdp.X, mdp.Y):
        fail(where, "policies", f"be of X, Y = {(mdp.X, mdp.Y)}", (policies.X, policies.Y))


def _guard_size(function: str, argument: str, values: FloatArray) -> None:
    if values.shape[0] > MAX_POLICIES or values.size > MAX_ENTRIES:
        fail(function, argument, f"hold at most {MAX_POLICIES} policies and {MAX_ENTRIES} entries", values.shape)


@quiet
def tilt_rows(rho: FloatArray, log_ref: FloatArray, beta: float) -> tuple[FloatArray, FloatArray]:
    """(log pi [..., X, Y], V [..., X]): log pi = log pi_ref + (rho - V) / beta, V = beta log E_ref e^{rho / beta}.

    Everything is taken relative to the likeliest response, with x = (rho - its rho) / beta: rows of pi sum to one within a few
    eps whatever beta is, and V has the error of its largest term. Where all |x| < 1/2 the digits are in E_ref expm1(x).
    """
    there = log_ref > -np.inf
    values = np.where(there, rho, 0.0)
    best = (values / beta + log_ref).argmax(axis=-1, keepdims=True)
    anchor = np.take_along_axis(values, best, axis=-1)
    x = np.where(there, (values - anchor) / beta, 0.0)
    flat = np.abs(x).max(axis=-1, keepdims=True) < 0.5
    near = (np.exp(log_ref) * np.expm1(np.where(flat, x, 0.0))).sum(axis=-1, keepdims=True)
    exponents = x + log_ref
    top = exponents.max(axis=-1, keepdims=True)
    far = top + np.log(np.exp(exponents - top).sum(axis=-1, keepdims=True))
    total = np.where(flat, np.log1p(near), far)
    return frozen(log_ref + (x - total)), frozen((anchor + beta * total)[..., 0])


@quiet
def kl_rows(log_p: FloatArray, log_q: FloatArray) -> FloatArray:
    """[..., X] KL(p || q) of rows given by logarithms with equal supports: sum p (d + e^{-d} - 1), d = log p - log q.

    No term is negative. Near d = 0 the bracket is d^2/2 - d^3/6 + .. (to d^8), beyond it is as written, and p e^{-d} is q.
    """
    there = log_p > -np.inf
    p, q = np.exp(log_p), np.exp(log_q)
    d = np.where(there, log_p, 0.0) - np.where(there, log_q, 0.0)
    small = np.abs(d) < 0.05
    z = np.where(small, d, 0.0)
    series = 0.0 * z
    for k in range(9, 1, -1):
        series = (series * -z + 1.0) / k
    return np.where(small, p * series * z * z, p * d - p + q).sum(axis=-1)


@quiet
def gaps(mdp: TokenMDP, log_pi: FloatArray, log_ref: FloatArray, beta: float) -> FloatArray:
    """[n] J(pi*) - J(pi) = beta E_x KL(pi || pi*) of policies log_pi [n, X, Y]."""
    best, _ = tilt_rows(mdp.r, log_ref, beta)
    return frozen(beta * (kl_rows(log_pi, best[None]) * mdp.mu0).sum(axis=-1))
