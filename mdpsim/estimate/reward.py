r"""Rewards from preferences: Bradley-Terry maximum likelihood on a box.

Setting: n pairs of episodes, the first of a pair preferred with probability sigma(R(first) - R(second)), R the sum of an
episode's rewards r_h(s, a) = theta_h(s, a), or phi(s, a) . theta_h. With x_i the difference of the two episodes' feature sums,

    theta = argmin over low <= theta <= high of (1/n) sum_i log(1 + e^{-y_i x_i . theta}) + (ridge/2) |theta - centre|^2.

What preferences cannot show: anything that adds the same to both episodes of every pair, such as a constant per stage, a
function of the first state, or potential-based shaping. A vanishing ridge around the middle of the box decides there: rewards
never seen are ``centre``. Judge a fit by the policies it leads to, or by differences of returns, not by theta itself. Where
every comparison of an episode went one way, the likelihood has no maximum: the fit ends at the box (``at_bound`` tells), or, in
a box so wide that the ridge stops it first, where e^{-y x . theta} is about ridge times its way from the middle (``status``).
References: Bradley and Terry (1952); Tiapkin et al., "Demonstration-Regularized RL", ICLR 2024 (the estimator of its section on
preferences); Zhu, Jiao and Jordan, "Principled reinforcement learning with human feedback", ICML 2023.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, IntArray, as_floats, as_real, fail, frozen
from mdpsim.estimate.preferences import Preferences
from mdpsim.kernels import bradley_terry
from mdpsim.records import record

TOLERANCE = 1e-14  # projected gradient of the mean loss at which steps end: far below the ridge's part
GRADIENT = 1e-10  # and at which the fit has converged
MAX_STEPS = 200
MAX_SIZE = 5000  # parameters: their covariance takes 200 MB
RUNAWAY = 0.1  # a difference of returns that moves by more where the ridge is dropped is the ridge's doing
CONVERGED, RIDGE, STALLED = "converged", "ridge", "stalled"


@record
class RewardFit(NamedTuple):
    """Rewards fitted to preferences.

    Args:
        r: [H, S, A] rewards; at (h, s, a) that no episode saw, ``centre`` (tabular), or what the features say.
        theta: [H, S, A], or [H, d] with features: the maximiser on the box.
        cov: [D, D] inverse of n times the observed information plus the ridge, over the D = theta.size coordinates flattened;
            of the likelihood, the box left out. Directions that no pair shows have variance 1 / (n ridge).
        gradient: largest projected gradient of the mean loss at theta.
        at_bound: coordinates of theta at a bound.
        log_likelihood: of the labels.
        n: number of pairs.
        status: "converged"; "ridge" (the minimum, but how far some pair's returns are apart is the ridge's doing: nothing else
            balances labels that went one way, and a Newton step without its pull would move them by more than 0.1. In a
            narrower box, or with a smaller ridge, the box stops them, and ``at_bound`` tells); "stalled" (steps ended with a
            projected gradient above 1e-10: look at ``gradient``).
    """

    r: FloatArray
    theta: FloatArray
    cov: FloatArray
    gradient: float
    at_bound: int
    log_likelihood: float
    n: int
    status: str


@record
class Differences(NamedTuple):
    """Pairs as sparse rows: columns idx and values val [n, K] of first minus second, label [n], and the shape of theta."""

    idx: IntArray
    val: FloatArray
    label: IntArray
    shape: tuple[int, ...]

    def head(self, n: int) -> Differences:
        """The first n pairs."""
        return Differences(self.idx[:n], self.val[:n], self.label[:n], self.shape)


def differences(prefs: Preferences, phi: FloatArray | None) -> Differences:
    """The rows x_i of some preferences: 2 H entries each, or H d with features phi [S, A, d]."""
    stages = np.arange(prefs.H)
    if phi is None:
        sides = [(stages * prefs.S + t.states[:, :-1]) * prefs.A + t.actions for t in (prefs.first, prefs.second)]
        idx = np.concatenate(sides, axis=1)
        val = np.broadcast_to(np.repeat([1.0, -1.0], prefs.H), idx.shape)
        return _rows(idx, val, prefs, (prefs.H, prefs.S, prefs.A))
    one, two = (phi[t.states[:, :-1], t.actions] for t in (prefs.first, prefs.second))
    d = phi.shape[-1]
    val = (one - two).reshape(prefs.n, prefs.H * d)
    return _rows(np.broadcast_to(np.arange(prefs.H * d), val.shape), val, prefs, (prefs.H, d))


def _rows(idx: ArrayLike, val: ArrayLike, prefs: Preferences, shape: tuple[int, ...]) -> Differences:
    return Differences(
        frozen(np.array(idx, np.int64, order="C")), frozen(np.array(val, np.float64, order="C")), prefs.label, shape
    )


def fit_reward(
    prefs: Preferences, *, phi: ArrayLike | None = None, low: float = 0.0, high: float = 1.0, ridge: float = 1e-9,
    start: ArrayLike | None = None,
) -> RewardFit:
    r"""Bradley-Terry maximum likelihood of the rewards on a box.

    Implements: theta = argmin over [low, high]^D of the mean of log(1 + e^{-y_i x_i . theta}) + (ridge/2) |theta - centre|^2.

    Args:
        prefs: n labelled pairs of episodes. Where the MDP's rewards depend on the next state the labels need not follow any
            r_h(s, a): the fit then tends to the nearest such law on the box, in Kullback-Leibler divergence.
        phi: None for a reward r_h(s, a) of its own in each (h, s, a), else [S, A, d] features of r_h(s, a) = phi . theta_h, of
            size 1e6 at most. D = theta.size, H S A or H d, may be 5000 at most.
        low, high: the box of every coordinate of theta, -1e6 <= low < high <= 1e6; its middle is ``centre``.
        ridge: in [1e-11, 1]. The default is far below the weight 1/n of one pair: it decides what no pair shows, and how far
            an estimate goes that the likelihood sends to infinity and the box does not stop (status "ridge").
        start: theta to begin at (a fit to fewer pairs, say), clipped to the box; None is the middle. It changes the number of
            steps; the minimum is unique.
    Returns:
        RewardFit: r [H, S, A], theta, cov, gradient, at_bound, log_likelihood, n, status.
    Exactness: the projected gradient of the mean loss is at most 1e-10; what only the ridge decides is right to 1e-6.
    Cost of a Newton step: n K^2, K = 2H entries a pair (H d with features), and D^3/6, D = H S A (H d), for each coordinate
        that meets or leaves a bound; 5 to 10 steps.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    if not isinstance(prefs, Preferences):
        fail("fit_reward", "prefs", "be Preferences", type(prefs).__name__)
    features = None if phi is None else as_floats("fit_reward", "phi", phi, "S A d", (prefs.S, prefs.A, None))
    if features is not None and np.abs(features).max() > 1e6:
        fail("fit_reward", "phi", "have entries of size 1e6 at most", f"{np.abs(features).max():g}")
    low, high, ridge = check_box("fit_reward", low, high, ridge)
    size = prefs.H * (prefs.S * prefs.A if features is None else features.shape[2])
    if size > MAX_SIZE:
        fail("fit_reward", "phi", f"leave at most {MAX_SIZE} parameters (give features)", f"{size} parameters")
    rows = differences(prefs, features)
    begin = None if start is None else as_floats("fit_reward", "start", start, " ".join("HSAd"[: len(rows.shape)]), rows.shape)
    return fit_rows(rows, features, (prefs.H, prefs.S, prefs.A), low, high, ridge, begin)


def check_box(function: str, low: object, high: object, ridge: object) -> tuple[float, float, float]:
    """Guard the box and the ridge."""
    bottom, top = as_real(function, "low", low, -1e6, 1e6), as_real(function, "high", high, -1e6, 1e6)
    if not bottom < top:
        fail(function, "high", f"be above low = {bottom:g}", f"{top:g}")
    return bottom, top, as_real(function, "ridge", ridge, 1e-11, 1.0)  # below, rounding decides what no pair shows


def _distinct(rows: Differences, size: int) -> tuple[IntArray, FloatArray]:
    """(the first of each kind of pair, its share): equal indices and label; all kept where one number cannot name a kind."""
    n, width = rows.idx.shape
    if 2.0 * float(size) ** width > 2.0**62:
        return np.arange(n), np.full(n, 1.0 / n)
    code = rows.label.copy()
    for k in range(width):
        code = code * size + rows.idx[:, k]
    _, first, counts = np.unique(code, return_index=True, return_counts=True)
    return first, counts / n


def fit_rows(
    rows: Differences, phi: FloatArray | None, shape: tuple[int, int, int], low: float, high: float, ridge: float,
    start: FloatArray | None,
) -> RewardFit:
    """fit_reward of rows that were built before (prefixes of one stream share them), for the columns that some row names."""
    size, centre = int(np.prod(rows.shape)), 0.5 * (low + high)
    seen = np.unique(rows.idx)
    place = np.zeros(size, np.int64)
    place[seen] = np.arange(seen.size)
    begin = np.full(seen.size, centre) if start is None else np.clip(start.reshape(-1)[seen], low, high)
    found, hessian, info = np.empty(seen.size), np.zeros((seen.size, seen.size)), np.empty(3)
    n = rows.label.size
    kept, weight = _distinct(rows, size) if phi is None else (np.arange(n), np.full(n, 1.0 / n))
    bradley_terry.fit(
        frozen(place[rows.idx[kept]]), frozen(rows.val[kept]), frozen(rows.label[kept]), frozen(weight), low, high, centre,
        ridge, frozen(begin), TOLERANCE, MAX_STEPS, found, hessian, info,
    )
    theta = np.full(size, centre)
    theta[seen] = found
    cov = np.eye(size) / (n * ridge)
    cov[np.ix_(seen, seen)] = np.linalg.inv(n * (np.tril(hessian) + np.tril(hessian, -1).T))
    theta = theta.reshape(rows.shape)
    prior = 0.5 * ridge * float(((found - centre) ** 2).sum())
    r = theta if phi is None else np.einsum("sad,hd->hsa", phi, theta)
    held = _held(rows.val[kept], place[rows.idx[kept]], hessian, ridge * (found - centre), found, low, high)
    return RewardFit(
        frozen(np.ascontiguousarray(r)), frozen(theta), frozen(cov), float(info[0]),
        int(((found <= low) | (found >= high)).sum()), -n * (float(info[2]) - prior), n,
        STALLED if info[0] > GRADIENT else RIDGE if held > RUNAWAY else CONVERGED,
    )


def _held(
    val: FloatArray, idx: IntArray, hessian: FloatArray, pull: FloatArray, theta: FloatArray, low: float, high: float
) -> float:
    """By how much a pair's difference of returns moves, at most, in a Newton step within the box without the ridge's pull.

    About one where nothing but the ridge balances the labels (the scale of e^{-z} is one), of order n ridge elsewhere.
    """
    free = np.flatnonzero((low < theta) & (theta < high))
    step = np.zeros(theta.size)
    H = hessian[np.ix_(free, free)]
    step[free] = np.linalg.solve(np.tril(H) + np.tril(H, -1).T, pull[free])
    moved = np.clip(theta + step, low, high) - theta
    return float(np.abs((val * moved[idx]).sum(axis=1)).max())
