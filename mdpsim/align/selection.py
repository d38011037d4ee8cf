r"""Procedures that select by something other than the reward's rank: soft best-of-N, noisy and proxy rewards, majority votes.

Soft best-of-N draws y_1 .. y_N and returns y_i with probability proportional to a_i, a = e^{C(y) / tau}. With L(x) = E_pi
e^{-x a} and 1 / (a + S) = int_0^inf e^{-x (a + S)} dx,

    T(y) = pi(y) N int_0^inf a e^{-a x} L(x)^{N-1} dx,

an analytic integrand in log x, which the trapezoidal rule sums to rounding. Best-of-N by a noisy proxy s = C(y) + sigma eps,
eps normal and new for each draw, has with G the CDF of s under pi

    T(y) = pi(y) N int phi((s - C(y)) / sigma) G(s)^{N-1} ds / sigma,

again by the trapezoidal rule. A majority vote over classes of responses (final answers) enumerates the counts of its N draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.calibration import ordered, ranks
from mdpsim.align.procedures import MAX_N, _pick, _power_ratio, beats
from mdpsim.align.spaces import QuantileScale, Responses, Space
from mdpsim.arrays import FloatArray, as_count, as_floats, as_real, fail, frozen
from mdpsim.records import record

STEP = 0.25  # of the trapezoidal rule in log x: its error is below e^{-39}
NOISE_STEP = 0.4  # in units of sigma: its error is below e^{-120}
MAX_ENTRIES = 10**7
MAX_COUNTS = 200_000  # of the counts a vote can come out with


@dataclass(frozen=True)
class SoftBestOfN:
    """Draw N, return y_i with probability proportional to e^{C(y_i) / tau}. Args: n >= 1, tau > 0 (tau -> 0 is best-of-N)."""

    n: int
    tau: float
    breaks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        as_count("SoftBestOfN", "n", self.n, high=MAX_N)
        as_real("SoftBestOfN", "tau", self.tau, 1e-3, 1e6)

    def _kernel(self, space: Space) -> tuple[FloatArray, FloatArray]:
        return _exponentials(space, self.tau)

    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """The integral of the module's head."""
        E, x_a = self._kernel(space)  # e^{-x a} and x a e^{-x a}: [n, X]
        L = pi @ E
        return pi * self.n * STEP * (x_a @ L ** (self.n - 1))

    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """N int [a e^{-ax} c L^{N-1} + (N-1) e^{-ax} L^{N-2} E_pi(a e^{-ax} c)] dx."""
        E, x_a = self._kernel(space)
        c, L = beats(space, rival), pi @ E
        first = c * (x_a @ L ** (self.n - 1))
        if self.n == 1:
            return STEP * first
        inner = (self.n - 1) * L ** (self.n - 2) * ((pi * c) @ x_a)
        return self.n * STEP * (first + E @ inner)

    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """The largest of C / tau plus Gumbel noise."""
        return _pick(space, pi, lambda y: space.calibrated(y) / self.tau + rng.gumbel(size=y.shape), (n, self.n), rng)


@lru_cache(maxsize=2)
def _exponentials(space: Space, tau: float) -> tuple[FloatArray, FloatArray]:
    """e^{-x a} and x a e^{-x a} [n, X] at x = e^z, z an even grid."""
    s = (space.C - space.C.max()) / tau  # a = e^s <= 1: only ratios count
    z = np.arange(-40.0, 4.0 - s.min() + STEP, STEP)
    _check_size("SoftBestOfN", "tau", tau, space.size * z.size)
    xa = np.exp(np.minimum(z[None, :] + s[:, None], 700.0))
    E = np.exp(-xa)
    return frozen(E), frozen(xa * E)


def _check_size(where: str, argument: str, value: float, entries: int) -> None:
    """Responses times nodes of the trapezoidal rule: what is kept in memory, twice."""
    if entries > MAX_ENTRIES:
        wanted = f"be large enough for {MAX_ENTRIES} responses times nodes (else take BestOfN, its limit)"
        fail(where, argument, wanted, f"{value:g}: {entries} of them")


@dataclass(frozen=True)
class NoisyBestOfN:
    """Draw N, return the one with the largest C(y) + sigma eps, eps standard normal, new for each. Args: n >= 1, sigma > 0."""

    n: int
    sigma: float
    breaks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        as_count("NoisyBestOfN", "n", self.n, high=MAX_N)
        as_real("NoisyBestOfN", "sigma", self.sigma, 1e-3, 1e6)

    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """The integral of the module's head."""
        below, density = _noise(space, self.sigma)  # P(s <= s_k | y), density of s_k times the step: [n, S]
        return pi * self.n * (density @ (pi @ below) ** (self.n - 1))

    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """N int [phi c G^{N-1} + (N-1) Phi G^{N-2} E_pi(phi c)] ds."""
        below, density = _noise(space, self.sigma)
        c, G = beats(space, rival), pi @ below
        first = c * (density @ G ** (self.n - 1))
        if self.n == 1:
            return first
        inner = (self.n - 1) * G ** (self.n - 2) * ((pi * c) @ density)
        return self.n * (first + below @ inner)

    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """The largest noisy reward."""
        return _pick(space, pi, lambda y: space.calibrated(y) + self.sigma * rng.normal(size=y.shape), (n, self.n), rng)


@lru_cache(maxsize=2)
def _noise(space: Space, sigma: float) -> tuple[FloatArray, FloatArray]:
    """Phi((s - C) / sigma), and phi((s - C) / sigma) / sigma times the step, at an even grid of s: [n, S]."""
    from scipy.special import ndtr

    half = int(np.ceil((0.5 / sigma + 9.0) / NOISE_STEP))
    _check_size("NoisyBestOfN", "sigma", sigma, space.size * (2 * half + 1))
    z = (0.5 - space.C[:, None]) / sigma + NOISE_STEP * np.arange(-half, half + 1)[None, :]
    return frozen(ndtr(z)), frozen(np.exp(-0.5 * z * z) * (NOISE_STEP / np.sqrt(2 * np.pi)))


@record
@dataclass(frozen=True, init=False, eq=False)
class ProxyBestOfN:
    """Draw N, return the one with the largest proxy reward (ties at random); the win is judged by the true one.

    Args: n >= 1. proxy: [Y] finite, of the responses of a finite space.
    W need not be concave in the policy, and has local optima.
    """

    n: int
    proxy: FloatArray
    order: np.ndarray = field(repr=False)
    breaks: tuple[float, ...] = ()

    def __init__(self, n: int, proxy: ArrayLike) -> None:
        object.__setattr__(self, "n", as_count("ProxyBestOfN", "n", n, high=MAX_N))
        object.__setattr__(self, "proxy", as_floats("ProxyBestOfN", "proxy", proxy, "Y", (None,)))
        object.__setattr__(self, "order", ordered(self.proxy[None]))

    def _ranks(self, space: Space, pi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(mass at or below, mass at) each response's proxy reward."""
        if not isinstance(space, Responses) or space.size != self.proxy.size:
            fail("ProxyBestOfN", "space", f"be Responses with Y = {self.proxy.size}", f"{type(space).__name__} of {space.size}")
        found = ranks(self.proxy[None], np.ascontiguousarray(pi)[None], self.order)
        return found.below[0] + found.mass[0], found.mass[0]

    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """pi(y) (P_l^N - P_{l-1}^N) / p_l over the proxy's levels l."""
        upper, mass = self._ranks(space, pi)
        return pi * _power_ratio(upper, mass, self.n)

    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """sum_{l >= m} [d A_l / d p_m] cbar_l + (A_m / p_m) (c - cbar_m), cbar_l the mean of c within level l under pi.

        A level without mass takes the mean of c over its responses.
        """
        c, (upper, mass) = beats(space, rival), self._ranks(space, pi)
        _, level = np.unique(self.proxy, return_inverse=True)
        n_levels = int(level.max()) + 1
        P, p = np.zeros(n_levels), np.zeros(n_levels)
        P[level], p[level] = upper, mass
        total, count = np.bincount(level, pi * c, n_levels), np.bincount(level, minlength=n_levels)
        plain = np.bincount(level, c, n_levels) / count
        mean = np.where(p > 0.0, total / np.where(p > 0.0, p, 1.0), plain)
        slope = self.n * P ** (self.n - 1)
        # d A_l / d p_m = slope_l for l = m and slope_l - slope_{l-1} for l > m
        steps = slope[:-1] * np.diff(mean)
        base = slope[-1] * mean[-1] - np.append(np.cumsum(steps[::-1])[::-1], 0.0)
        return base[level] + _power_ratio(upper, mass, self.n) * (c - mean[level])

    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """The largest proxy reward."""
        self._ranks(space, pi)
        return _pick(space, pi, lambda y: self.proxy[y], (n, self.n), rng)


@record
@dataclass(frozen=True, init=False, eq=False)
class MajorityVote:
    """Draw N, return a draw from the class (final answer) that came most often, ties at random.

    Args:
        n: draws, at least 1.
        answers: on a finite space the class of each response, [Y] integers 0 .. K-1. On the quantile scale the ends of K
            consecutive intervals of quantiles that share an answer: K - 1 increasing numbers in (0, 1).
    Raises:
        ValueError: naming the argument; more than 200000 possible counts, C(N + K - 1, K - 1).
    """

    n: int
    answers: np.ndarray

    def __init__(self, n: int, answers: ArrayLike) -> None:
        where, given = "MajorityVote", np.asarray(answers)
        object.__setattr__(self, "n", as_count(where, "n", n, high=MAX_N))
        if given.ndim != 1 or given.size == 0:
            fail(where, "answers", "be [Y] classes, or the ends of intervals", f"shape {given.shape}")
        if given.dtype.kind in "iu":
            if set(given.tolist()) != set(range(int(given.max()) + 1)):
                fail(where, "answers", "number the classes 0, 1, .. without gaps", sorted(set(given.tolist()))[:8])
        else:
            given = as_floats(where, "answers", given, "K-1", (None,))
            if (np.diff(np.concatenate([[0.0], given, [1.0]])) <= 0.0).any():
                fail(where, "answers", "increase within (0, 1)", given)
        object.__setattr__(self, "answers", given)
        counts_of(self.n, self.n_classes)

    @property
    def n_classes(self) -> int:
        """K."""
        return int(self.answers.max()) + 1 if self.answers.dtype.kind in "iu" else self.answers.size + 1

    @property
    def breaks(self) -> tuple[float, ...]:
        """The ends of the intervals."""
        return () if self.answers.dtype.kind in "iu" else tuple(map(float, self.answers))

    def classes(self, space: Space, drawn: np.ndarray | None = None) -> np.ndarray:
        """The class of every node, or of draws."""
        finite = self.answers.dtype.kind in "iu"
        if finite != isinstance(space, Responses) or (finite and space.size != self.answers.size):
            wanted = f"be Responses with Y = {self.answers.size}" if finite else "be the quantile scale"
            fail("MajorityVote", "space", wanted, f"{type(space).__name__} of {space.size}")
        if finite:
            return self.answers if drawn is None else self.answers[drawn]
        assert isinstance(space, QuantileScale)
        return np.searchsorted(self.answers, space.u if drawn is None else drawn, side="right")

    def _vote(self, m: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(w [K] = P(class k wins), [K, K] = d w_k / d m_j) for class masses m."""
        counts, weight, share = counts_of(self.n, self.n_classes)
        powers = m[None, :] ** counts  # 0^0 = 1
        term = weight * powers.prod(axis=1)
        jacobian = np.empty((m.size, m.size))
        for j in range(m.size):
            rest = np.delete(powers, j, axis=1).prod(axis=1)
            slope = counts[:, j] * m[j] ** np.maximum(counts[:, j] - 1, 0)
            jacobian[:, j] = share.T @ (weight * rest * slope)
        return share.T @ term, jacobian

    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """pi(y) w_k / m_k."""
        k = self.classes(space)
        m = np.bincount(k, pi, self.n_classes).astype(float)
        w, _ = self._vote(m)
        return pi * np.where(m > 0.0, w / np.where(m > 0.0, m, 1.0), 0.0)[k]

    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """sum_j cbar_j dw_j/dm_k + (w_k / m_k) (c - cbar_k), cbar_k the mean of c within class k under pi."""
        k, c = self.classes(space), beats(space, rival)
        m = np.bincount(k, pi, self.n_classes).astype(float)
        w, jacobian = self._vote(m)
        plain = np.bincount(k, space.pi_ref * c, self.n_classes) / np.bincount(k, space.pi_ref, self.n_classes).clip(min=1e-300)
        mean = np.where(m > 0.0, np.bincount(k, pi * c, self.n_classes) / np.where(m > 0.0, m, 1.0), plain)
        each = np.where(m > 0.0, w / np.where(m > 0.0, m, 1.0), np.diag(jacobian))
        return (mean @ jacobian)[k] + each[k] * (c - mean[k])

    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Count the votes, break ties at random, return the first draw of the class that won."""
        drawn = space.sample(pi, (n, self.n), rng)
        k = self.classes(space, drawn)
        votes = (k[:, :, None] == np.arange(self.n_classes)).sum(axis=1)
        leads = votes == votes.max(axis=1, keepdims=True)
        winner = np.where(leads, rng.random(leads.shape), -1.0).argmax(axis=1)
        return np.take_along_axis(drawn, (k == winner[:, None]).argmax(axis=1)[:, None], axis=1)[:, 0]


@lru_cache(maxsize=32)
def counts_of(n: int, classes: int) -> tuple[np.ndarray, FloatArray, FloatArray]:
    """All counts [M, K] of n votes, their multinomial coefficients [M], and the share of each class in winning [M, K]."""
    from math import comb, lgamma

    if comb(n + classes - 1, classes - 1) > MAX_COUNTS:
        fail("MajorityVote", "n", f"give at most {MAX_COUNTS} counts over {classes} classes", f"n = {n}")
    rows = [[n]] if classes == 1 else _compositions(n, classes)
    counts = np.array(rows, dtype=np.int64)
    table = np.array([lgamma(i + 1.0) for i in range(n + 1)])
    weight = np.rint(np.exp(table[n] - table[counts].sum(axis=1))) if n <= 15 else np.exp(table[n] - table[counts].sum(axis=1))
    leads = counts == counts.max(axis=1, keepdims=True)
    return frozen(counts), frozen(weight), frozen(leads / leads.sum(axis=1, keepdims=True))


def _compositions(n: int, parts: int) -> np.ndarray:
    """All [M, parts] nonnegative integers with sum n: gaps between bars."""
    from itertools import combinations

    bars = np.array(list(combinations(range(n + parts - 1), parts - 1)), dtype=np.int64).reshape(-1, parts - 1)
    ends = np.column_stack([np.full(len(bars), -1), bars, np.full(len(bars), n + parts - 1)])
    return np.diff(ends, axis=1) - 1
