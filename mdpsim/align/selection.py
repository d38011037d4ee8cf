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

from mdpsim.align.arithmetic import in_chunks, pick, power, power_ratio
from mdpsim.align.calibration import ordered, ranks
from mdpsim.align.procedures import MAX_N, beats
from mdpsim.align.spaces import QuantileScale, Responses, Space, check_breaks
from mdpsim.arrays import FloatArray, as_array, as_count, as_floats, as_real, fail, frozen
from mdpsim.records import record

MAX_CLASSES = 2**32  # responses that a vote numbers: a view that repeats one number has any shape at no cost
STEP = 0.25  # of the trapezoidal rule in log x: its error is below e^{-39}
NOISE_STEP = 0.4  # in units of sigma, for N = 1: its error is below e^{-120}; for larger N see _noise
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
        check_breaks("SoftBestOfN", self.breaks)

    @np.errstate(under="ignore")
    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """The integral of the module's head."""
        E, missing, x_a = _exponentials(space, self.tau, self.n)
        return pi * self.n * STEP * (x_a @ power(pi @ E, pi @ missing, self.n - 1))

    @np.errstate(under="ignore")
    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """N int [a e^{-ax} c L^{N-1} + (N-1) e^{-ax} L^{N-2} E_pi(a e^{-ax} c)] dx."""
        E, missing, x_a = _exponentials(space, self.tau, self.n)
        c, L, lost = beats(space, rival), pi @ E, pi @ missing
        first = c * (x_a @ power(L, lost, self.n - 1))
        if self.n == 1:
            return STEP * first
        inner = (self.n - 1) * power(L, lost, self.n - 2) * ((pi * c) @ x_a)
        return self.n * STEP * (first + E @ inner)

    @np.errstate(under="ignore")
    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """The largest of C / tau plus Gumbel noise."""
        return pick(space, pi, lambda y: space.calibrated(y) / self.tau + rng.gumbel(size=y.shape), (n, self.n), rng)


@lru_cache(maxsize=2)
@np.errstate(under="ignore")
def _exponentials(space: Space, tau: float, n: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """e^{-x a}, 1 - e^{-x a} and x a e^{-x a}, each [n, X], at x = e^z, z an even grid."""
    s = (space.C - space.C.max()) / tau  # a = e^s <= 1: only ratios count
    z = np.arange(-40.0 - STEP * np.ceil(np.log(n) / STEP), 4.0 - s.min() + STEP, STEP)  # below lies e^{-40} of the mass
    _check_size("SoftBestOfN", "tau", tau, space.size * z.size)
    xa = np.exp(np.minimum(z[None, :] + s[:, None], 700.0))
    E = np.exp(-xa)
    return frozen(E), frozen(-np.expm1(-xa)), frozen(xa * E)


def _check_size(where: str, argument: str, value: float, entries: int) -> None:
    """Responses times nodes of the trapezoidal rule: what is kept in memory, three times."""
    if entries > MAX_ENTRIES:
        wanted = f"be large enough for {MAX_ENTRIES} responses times nodes (else take BestOfN, its limit)"
        fail(where, argument, wanted, f"{value:g}: {entries} of them")


@dataclass(frozen=True)
class NoisyBestOfN:
    """Draw N, return the one with the largest C(y) + sigma eps, eps standard normal, new for each. Args: n >= 1, sigma > 0.

    Exactness: rounding, up to the largest N: the largest of N normals varies by sigma / sqrt(2 log N), and the nodes of the
    integral get as much closer, so that its error stays below 1e-13. Cost: O(Y sqrt(log N) (1 + 1/sigma)).
    """

    n: int
    sigma: float
    breaks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        as_count("NoisyBestOfN", "n", self.n, high=MAX_N)
        as_real("NoisyBestOfN", "sigma", self.sigma, 1e-3, 1e6)
        check_breaks("NoisyBestOfN", self.breaks)

    @np.errstate(under="ignore")
    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """The integral of the module's head."""
        below, above, density = _noise(space, self.sigma, self.n)
        return pi * self.n * (density @ power(pi @ below, pi @ above, self.n - 1))

    @np.errstate(under="ignore")
    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """N int [phi c G^{N-1} + (N-1) Phi G^{N-2} E_pi(phi c)] ds."""
        below, above, density = _noise(space, self.sigma, self.n)
        c, G, rest = beats(space, rival), pi @ below, pi @ above
        first = c * (density @ power(G, rest, self.n - 1))
        if self.n == 1:
            return first
        inner = (self.n - 1) * power(G, rest, self.n - 2) * ((pi * c) @ density)
        return self.n * (first + below @ inner)

    @np.errstate(under="ignore")
    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """The largest noisy reward."""
        return pick(space, pi, lambda y: space.calibrated(y) + self.sigma * rng.normal(size=y.shape), (n, self.n), rng)


@lru_cache(maxsize=2)
@np.errstate(under="ignore")
def _noise(space: Space, sigma: float, n: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """P(s <= s_k | y), P(s > s_k | y), and the density of s_k times the step, at an even grid of s: [n, S] each."""
    from scipy.special import ndtr

    step = NOISE_STEP / np.sqrt(1.0 + 5.0 * np.log(n))
    half = int(np.ceil((0.5 / sigma + 9.0) / step))
    _check_size("NoisyBestOfN", "sigma", sigma, space.size * (2 * half + 1))
    z = (0.5 - space.C[:, None]) / sigma + step * np.arange(-half, half + 1)[None, :]
    return frozen(ndtr(z)), frozen(ndtr(-z)), frozen(np.exp(-0.5 * z * z) * (step / np.sqrt(2 * np.pi)))


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

    def _ranks(self, space: Space, pi: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(mass at or below, mass at, mass above) each response's proxy reward."""
        if not isinstance(space, Responses) or space.size != self.proxy.size:
            fail("ProxyBestOfN", "space", f"be Responses with Y = {self.proxy.size}", f"{type(space).__name__} of {space.size}")
        found = ranks(self.proxy[None], np.ascontiguousarray(pi)[None], self.order)
        return found.below[0] + found.mass[0], found.mass[0], found.above[0]

    @np.errstate(under="ignore")
    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """pi(y) (P_l^N - P_{l-1}^N) / p_l over the proxy's levels l."""
        return pi * power_ratio(*self._ranks(space, pi), self.n)

    @np.errstate(under="ignore")
    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """sum_{l >= m} [d A_l / d p_m] cbar_l + (A_m / p_m) (c - cbar_m), cbar_l the mean of c within level l under pi.

        A level without mass takes the mean of c over its responses.
        """
        c, (upper, mass, above) = beats(space, rival), self._ranks(space, pi)
        _, level = np.unique(self.proxy, return_inverse=True)
        n_levels = int(level.max()) + 1
        slope, p = np.zeros(n_levels), np.zeros(n_levels)
        slope[level], p[level] = self.n * power(upper, above, self.n - 1), mass
        total, count = np.bincount(level, pi * c, n_levels), np.bincount(level, minlength=n_levels)
        plain = np.bincount(level, c, n_levels) / count
        mean = np.where(p > 0.0, total / np.where(p > 0.0, p, 1.0), plain)
        # d A_l / d p_m = slope_l for l = m and slope_l - slope_{l-1} for l > m
        steps = slope[:-1] * np.diff(mean)
        base = slope[-1] * mean[-1] - np.append(np.cumsum(steps[::-1])[::-1], 0.0)
        return base[level] + power_ratio(upper, mass, above, self.n) * (c - mean[level])

    @np.errstate(under="ignore")
    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """The largest proxy reward."""
        self._ranks(space, pi)
        return pick(space, pi, lambda y: self.proxy[y], (n, self.n), rng)


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
        where = "MajorityVote"
        given = as_array(where, "answers", answers, lambda: "be [Y] classes, or the ends of intervals")
        object.__setattr__(self, "n", as_count(where, "n", n, high=MAX_N))
        if given.ndim != 1 or given.size == 0:
            fail(where, "answers", "be [Y] classes, or the ends of intervals", f"shape {given.shape}")
        if given.dtype.kind in "iu" and given.size > MAX_CLASSES:
            fail(where, "answers", f"be of at most {MAX_CLASSES} responses", given.size)
        if given.dtype.kind in "iu":
            classes = np.unique(given)
            if classes[0] != 0 or classes[-1] != classes.size - 1:
                fail(where, "answers", "number the classes 0, 1, .. without gaps", classes[:8].tolist())
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
        counts, share = counts_of(self.n, self.n_classes)
        jacobian = np.empty((m.size, m.size))
        for j in range(m.size):  # d/dm_j: the draw that came from class j is given, n of them may be it
            some = counts[:, j] > 0
            jacobian[:, j] = self.n * share[some].T @ multinomial(counts[some] - (np.arange(m.size) == j), m)
        return share.T @ multinomial(counts, m), jacobian

    @np.errstate(under="ignore")
    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """pi(y) w_k / m_k."""
        k = self.classes(space)
        m = np.bincount(k, pi, self.n_classes).astype(float)
        w, _ = self._vote(m)
        return pi * np.where(m > 0.0, w / np.where(m > 0.0, m, 1.0), 0.0)[k]

    @np.errstate(under="ignore")
    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """sum_j cbar_j dw_j/dm_k + (w_k / m_k) (c - cbar_k), cbar_k the mean of c within class k under pi."""
        k, c = self.classes(space), beats(space, rival)
        m = np.bincount(k, pi, self.n_classes).astype(float)
        w, jacobian = self._vote(m)
        plain = np.bincount(k, space.pi_ref * c, self.n_classes) / np.bincount(k, space.pi_ref, self.n_classes).clip(min=1e-300)
        mean = np.where(m > 0.0, np.bincount(k, pi * c, self.n_classes) / np.where(m > 0.0, m, 1.0), plain)
        each = np.where(m > 0.0, w / np.where(m > 0.0, m, 1.0), np.diag(jacobian))
        return (mean @ jacobian)[k] + each[k] * (c - mean[k])

    @np.errstate(under="ignore")
    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Count the votes, break ties at random, return the first draw of the class that won."""

        def vote(rows: int) -> np.ndarray:
            drawn = space.sample(pi, (rows, self.n), rng)
            k = self.classes(space, drawn)
            votes = (k[:, :, None] == np.arange(self.n_classes)).sum(axis=1)
            leads = votes == votes.max(axis=1, keepdims=True)
            winner = np.where(leads, rng.random(leads.shape), -1.0).argmax(axis=1)
            return np.take_along_axis(drawn, (k == winner[:, None]).argmax(axis=1)[:, None], axis=1)[:, 0]

        return in_chunks(vote, n, self.n * self.n_classes)


@lru_cache(maxsize=32)
def counts_of(n: int, classes: int) -> tuple[np.ndarray, FloatArray]:
    """All counts [M, K] of n votes, and the share of each class in winning [M, K]."""
    from math import comb

    if comb(n + classes - 1, classes - 1) > MAX_COUNTS:
        fail("MajorityVote", "n", f"give at most {MAX_COUNTS} counts over {classes} classes", f"n = {n}")
    rows = [[n]] if classes == 1 else _compositions(n, classes)
    counts = np.array(rows, dtype=np.int64)
    leads = counts == counts.max(axis=1, keepdims=True)
    return frozen(counts), frozen(leads / leads.sum(axis=1, keepdims=True))


@np.errstate(under="ignore")
def multinomial(counts: np.ndarray, m: FloatArray) -> FloatArray:
    """[M] probabilities n! prod_k m_k^{c_k} / c_k! of counts c [M, K] of n draws, whatever n.

    By Stirling's formula with its remainder (Loader 2000): log p = delta(n) - sum delta(c_k) + log(2 pi n) / 2 - sum_{c_k > 0}
    log(2 pi c_k) / 2 - sum [c_k log(c_k / (n m_k)) - c_k + n m_k], in which no term of size n cancels.
    """
    n = int(counts[0].sum())
    rest, half = _stirling(n)
    expected = n * m
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        d = (counts - expected) / np.where(expected > 0.0, expected, 1.0)
        apart = np.where(counts > 0, counts * np.log1p(d), 0.0) - (counts - expected)
        apart = np.where(expected > 0.0, apart, np.where(counts > 0, np.inf, 0.0))
        return np.exp(rest[n] + half[n] - (rest[counts] + half[counts] + apart).sum(axis=1))


@lru_cache(maxsize=8)
def _stirling(n: int) -> tuple[FloatArray, FloatArray]:
    """delta(k) = log k! - log(sqrt(2 pi k) (k / e)^k) and log(2 pi k) / 2, both 0 at 0, for k = 0 .. n."""
    from math import lgamma, log, pi

    k = np.arange(1.0, n + 1.0)
    half = 0.5 * np.log(2.0 * np.pi * k)
    square = k * k
    rest = (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - (1 / 1188) / square) / square) / square) / square) / k
    for i in range(1, min(n, 15) + 1):  # the series is exact above
        rest[i - 1] = lgamma(i + 1.0) - (i * log(i) - i + 0.5 * log(2.0 * pi * i))
    return frozen(np.append(0.0, rest)), frozen(np.append(0.0, half))


def _compositions(n: int, parts: int) -> np.ndarray:
    """All [M, parts] nonnegative integers with sum n: gaps between bars."""
    from itertools import combinations

    bars = np.array(list(combinations(range(n + parts - 1), parts - 1)), dtype=np.int64).reshape(-1, parts - 1)
    ends = np.column_stack([np.full(len(bars), -1), bars, np.full(len(bars), n + parts - 1)])
    return np.diff(ends, axis=1) - 1
