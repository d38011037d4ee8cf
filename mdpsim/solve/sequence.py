r"""Posteriors over an enumerable space, and how to sample from them.

Setting: K responses (or whole sequences, enumerated), a prior pi0 [K], which may have zeros, and a target made from it:

* tilting by a reward, pi*(x) = pi0(x) e^{r(x) / beta} / Z: the optimum of E_pi r - beta KL(pi || pi0), with Z the evidence;
* conditioning on a constraint, pi0(x) b(x) / Z with b(x) in {0, 1}: tilting by a reward of 0 or -inf;
* moment constraints, E_pi f = moments: the law closest to pi0 in KL, pi0(x) e^{theta . f(x)} / Z.

Everything is exact and in the log domain; projections onto policy classes are in ``solve.projection``.
References: Korbak, Perez and Buckley (2022), section 3; Khalifa, Elsahar and Dymetman (2021); Csiszar (1975).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, IntArray, as_beta, as_count, as_floats, as_numbers, as_real, as_simplex, fail, frozen
from mdpsim.kernels import bellman
from mdpsim.kernels import evaluate as kernels
from mdpsim.records import record
from mdpsim.rng import as_generator

MAX_NEWTON, MAX_HALVINGS = 200, 60
MAX_DRAWS = 10**9
LARGEST = 1e150  # of features


@record
class Posterior(NamedTuple):
    """A target made from a prior: read-only arrays.

    pi: [K] probabilities; log_pi: [K] their logarithms (-inf where forbidden), accurate where pi underflows.
    log_Z: logarithm of the normalising constant; value: beta log Z, the largest E_pi r - beta KL(pi || pi0).
    """

    pi: FloatArray
    log_pi: FloatArray
    log_Z: float
    value: float


@record
class MomentFit(NamedTuple):
    """The law pi0 e^{theta . f} / Z that meets moment constraints.

    pi: [K]; theta: [m] multipliers (of least norm where features are redundant); log_Z; residual: the largest
    |E_pi f - moments|; iterations: Newton steps.
    """

    pi: FloatArray
    theta: FloatArray
    log_Z: float
    residual: float
    iterations: int


@record
class Accepted(NamedTuple):
    """What rejection sampling returned: samples [n] in [0, K), and how many proposals each took [n]."""

    samples: IntArray
    draws: IntArray


@record
class Weighted(NamedTuple):
    """A self-normalised importance sample: samples [n] from the prior, weights [n] that sum to one.

    ess: effective sample size 1 / sum weights^2, in [1, n]. log_Z: logarithm of the mean unnormalised weight, an estimate of
    log Z whose exponential is unbiased.
    """

    samples: IntArray
    weights: FloatArray
    ess: float
    log_Z: float


@np.errstate(under="ignore")
def tilt(pi0: ArrayLike, r: ArrayLike, beta: float) -> Posterior:
    """The posterior pi0 e^{r / beta} / Z: the optimum of E_pi r - beta KL(pi || pi0).

    Args:
        pi0: [K] prior; zeros stay zeros.
        r: [K] rewards, finite or -inf (a forbidden response: it gets no mass).
        beta: in (0, inf], in reward units; inf gives pi0 and its mean reward, and takes finite rewards only.
    Returns:
        Posterior: pi, log_pi, log_Z, value = beta log Z.
    Exactness: value within 1e-13 max|r| where no response is forbidden, for every beta; log_pi within a few eps max|r| / beta.
    Cost: O(K).
    Raises:
        ValueError: naming the argument, what was wanted and what came; r forbidding every response of the prior (Z = 0).
    """
    prior = as_simplex("tilt", "pi0", pi0, "K", (None,))
    weight = _positive_beta("tilt", beta)
    rewards, allowed = _rewards("tilt", r, prior.size)
    if weight == np.inf and not allowed.all():
        fail("tilt", "beta", "be finite where a reward is -inf", "inf")
    mass = float(prior[allowed].sum())
    if mass == 0.0:
        fail("tilt", "r", "leave a response that the prior can give (Z = 0)", "-inf wherever pi0 > 0")
    full = bool((allowed | (prior == 0.0)).all())
    ref = prior if full else np.where(allowed, prior, 0.0) / mass
    V, Q, pi = np.empty((2, 1)), np.empty((1, 1, prior.size)), np.empty((1, 1, prior.size))
    P, shaped = frozen(np.ones((1, 1, prior.size, 1))), frozen(np.where(allowed, rewards, 0.0).reshape(1, 1, -1))
    if not bellman.soft_induction(P, shaped, frozen(ref.reshape(1, 1, -1).copy()), weight, V, Q, pi):
        fail("tilt", "r", "be rewards that stay within float64", "values that overflow")
    log_mass, best = 0.0 if full else float(np.log(mass)), float(V[0, 0])
    with np.errstate(divide="ignore", over="ignore"):  # below e^-1e308 a logarithm is -inf too
        log_pi = np.log(ref) + np.where(ref > 0.0, shaped[0, 0] - best, 0.0) / weight
    log_Z = best / weight + log_mass
    return Posterior(frozen(pi[0, 0]), frozen(log_pi), log_Z, best if full else best + weight * log_mass)


@np.errstate(under="ignore")
def condition(pi0: ArrayLike, b: ArrayLike) -> Posterior:
    """The posterior pi0 b / Z of a constraint, Z = P(b) the acceptance probability of rejection sampling.

    KL(pi || pi0) = -log Z = -value: what it costs to meet the constraint always.

    Args:
        pi0: [K] prior. b: [K] bool, or integers 0 and 1.
    Returns:
        Posterior: pi, log_pi, log_Z, value = log Z.
    Cost: O(K).
    Raises:
        ValueError: naming the argument; a constraint that no response of the prior meets (Z = 0).
    """
    prior = as_simplex("condition", "pi0", pi0, "K", (None,))
    keep = as_numbers("condition", "b", b)
    if keep.shape != prior.shape or np.asarray(b).dtype.kind not in "biu" or not np.isin(keep, (0, 1)).all():
        fail("condition", "b", f"be [K] = ({prior.size},) booleans or integers 0 and 1", repr(b))
    mass = float(prior[keep != 0].sum())
    if mass == 0.0:
        fail("condition", "b", "hold for a response that the prior can give (Z = 0)", "no such response")
    pi = np.where(keep != 0, prior, 0.0) / mass
    with np.errstate(divide="ignore"):
        return Posterior(frozen(pi), frozen(np.log(pi)), float(np.log(mass)), float(np.log(mass)))


@np.errstate(under="ignore")
def fit_moments(pi0: ArrayLike, features: ArrayLike, moments: ArrayLike, *, tol: float = 1e-10) -> MomentFit:
    """The law closest to the prior, in KL(. || pi0), whose features have the given means.

    Implements: pi = pi0 e^{theta . f} / Z with theta the minimum of the convex dual log Z(theta) - theta . moments, by Newton's
    method (the Hessian is the covariance of f) with step halving.

    Args:
        pi0: [K] prior. features: [K, m]. moments: [m].
        tol: largest |E_pi f_i - moments_i| accepted, in units of the range of feature i over the prior's support.
    Returns:
        MomentFit: pi [K], theta [m], log_Z, residual, iterations.
    Cost: O(K m^2 + m^3) a Newton step, ten or so.
    Raises:
        ValueError: naming the argument; moments that no law on the prior's support has, or only one without full support
            (which the family reaches in the limit only): found by a linear program.
    """
    where = "fit_moments"
    prior = as_simplex(where, "pi0", pi0, "K", (None,))
    f = as_floats(where, "features", features, "K m", (prior.size, None))
    goal = as_floats(where, "moments", moments, "m", (f.shape[1],))
    tol = as_real(where, "tol", tol, 1e-14, 1.0)
    on = prior > 0.0
    low, high = f[on].min(axis=0), f[on].max(axis=0)
    if max(-low.min(), high.max()) > LARGEST:
        fail(where, "features", f"lie within +-{LARGEST:g}", f"{low.min():.6g} to {high.max():.6g}")
    width = np.where(high > low, high - low, 1.0)
    if (np.maximum(low - goal, goal - high) > tol * width).any():  # and Newton's method would meet NaN
        fail(where, "moments", "be those of a law on the prior's support", "moments outside the convex hull of the features")
    g, log_prior = (f[on] - goal) / width, np.log(prior[on])
    theta, steps = np.zeros(goal.size), 0
    log_z, p = _family(g, log_prior, theta)
    while np.abs(p @ g).max() > tol:
        step, slope = _newton_step(g, p)
        size = _halve(g, log_prior, theta, step, slope, log_z)
        if steps == MAX_NEWTON or size == 0.0:
            _check_feasible(where, g)
            fail(where, "tol", "be reachable in float64 for these features", f"{tol:g}, reached {np.abs(p @ g).max():.2g}")
        theta, steps = theta + size * step, steps + 1
        log_z, p = _family(g, log_prior, theta)
    if (p < 1e-9 * prior[on]).any():
        _check_feasible(where, g)  # a limit, perhaps
    pi = np.zeros(prior.size)
    pi[on] = p
    scaled = theta / width
    return MomentFit(frozen(pi), frozen(scaled), float(log_z + scaled @ goal), float(np.abs(p @ g * width).max()), steps)


@np.errstate(under="ignore")
def elbo(pi: ArrayLike, pi0: ArrayLike, r: ArrayLike, beta: float) -> float:
    """The objective E_pi r - beta KL(pi || pi0) = beta log Z - beta KL(pi || pi*): an evidence lower bound.

    Args:
        pi, pi0: [K]. r: [K], finite or -inf. beta: in (0, inf).
    Returns:
        A float; -inf where pi has mass outside the prior's support or on a forbidden response.
    Cost: O(K).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    prior = as_simplex("elbo", "pi0", pi0, "K", (None,))
    policy = as_simplex("elbo", "pi", pi, "K", (prior.size,))
    weight = _positive_beta("elbo", beta)
    if weight == np.inf:
        fail("elbo", "beta", "be a number in (0, inf)", "inf")
    rewards, allowed = _rewards("elbo", r, prior.size)
    if policy[~allowed].any():
        return -np.inf
    return float(policy @ np.where(allowed, rewards, 0.0)) - weight * kl(policy, prior)


def kl(p: ArrayLike, q: ArrayLike) -> float:
    """KL(p || q) = sum p log(p / q) of two laws [K], in [0, inf], without cancellation where they are close. Cost: O(K)."""
    one = as_simplex("kl", "p", p, "K", (None,))
    other = as_simplex("kl", "q", q, "K", (one.size,))
    rows = np.empty((1, 1))
    kernels.kl_rows(frozen(one.reshape(1, 1, -1).copy()), frozen(other.reshape(1, 1, -1).copy()), rows)
    return float(rows[0, 0])


@np.errstate(under="ignore")
def rejection_sample(pi0: ArrayLike, accept: ArrayLike, n: int, rng: np.random.Generator | int) -> Accepted:
    """n exact draws of the law pi0 accept / Z: propose x ~ pi0, keep it with probability accept[x].

    The number of proposals a draw takes is geometric of mean 1 / Z, Z = sum pi0 accept. For a reward take accept =
    e^{(r - max r) / beta}; for a constraint its indicator.

    Args:
        pi0: [K] proposals. accept: [K] in [0, 1]. n: at least 1. rng: Generator or an integer seed.
    Returns:
        Accepted: samples [n], draws [n].
    Cost: O(K + n / Z) expected.
    Raises:
        ValueError: naming the argument; Z = 0, or so small that 10^9 proposals would not do.
    """
    where = "rejection_sample"
    prior = as_simplex(where, "pi0", pi0, "K", (None,))
    keep = as_floats(where, "accept", accept, "K", (prior.size,))
    if keep.min() < 0.0 or keep.max() > 1.0:
        fail(where, "accept", "lie in [0, 1]", f"{keep.min():.6g} to {keep.max():.6g}")
    count, generator = as_count(where, "n", n, high=2**30), as_generator(where, rng)
    Z = float(prior @ keep)
    if count > Z * MAX_DRAWS:
        fail(where, "accept", f"accept often enough for {count} draws from 1e9 proposals", f"acceptance probability {Z:.3g}")
    edges, found, at, seen, have = _edges(prior), [], [], 0, 0
    while have < count:
        size = int(min(1.2 * (count - have) / Z + 16.0, 2.0**22))
        x = edges.searchsorted(generator.random(size), side="right")
        kept = np.flatnonzero(generator.random(size) < keep[x])
        found.append(x[kept])
        at.append(kept + seen + 1)
        seen, have = seen + size, have + kept.size
    return Accepted(frozen(np.concatenate(found)[:count]), frozen(np.diff(np.concatenate(at)[:count], prepend=0)))


@np.errstate(under="ignore")
def importance_sample(pi0: ArrayLike, r: ArrayLike, beta: float, n: int, rng: np.random.Generator | int) -> Weighted:
    """n draws of the prior with self-normalised weights proportional to e^{r / beta}: estimates of the posterior's means.

    sum_i weights_i f(samples_i) is consistent for E_{pi*} f, with a bias of order 1 / ess.

    Args:
        pi0: [K]. r: [K], finite or -inf. beta: in (0, inf]. n: at least 1. rng: Generator or an integer seed.
    Returns:
        Weighted: samples [n], weights [n], ess, log_Z.
    Cost: O(K + n log K).
    Raises:
        ValueError: naming the argument; a sample in which every response is forbidden (all weights zero).
    """
    where = "importance_sample"
    prior = as_simplex(where, "pi0", pi0, "K", (None,))
    weight = _positive_beta(where, beta)
    rewards, allowed = _rewards(where, r, prior.size)
    x = _edges(prior).searchsorted(as_generator(where, rng).random(as_count(where, "n", n, high=2**30)), side="right")
    if not allowed[x].any():
        fail(where, "r", "allow a response among the n that were drawn", "only forbidden ones: all weights are zero")
    top = float(rewards[x[allowed[x]]].max())
    with np.errstate(over="ignore"):
        raw = np.where(allowed[x], np.exp(np.minimum(rewards[x] - top, 0.0) / weight), 0.0)
    log_Z = top / weight + float(np.log(raw.mean()))
    if not np.isfinite(log_Z):
        fail(where, "r", "be rewards whose largest, divided by beta, stays within float64", f"{top:.6g} / {weight:.6g}")
    weights = raw / raw.sum()
    return Weighted(frozen(x), frozen(weights), float(1.0 / (weights @ weights)), log_Z)


def _positive_beta(where: str, beta: float) -> float:
    weight = as_beta(where, beta)
    if weight == 0.0:
        fail(where, "beta", "be a number in (0, inf]: the posterior needs it positive", repr(beta))
    return weight


def _rewards(where: str, r: ArrayLike, size: int) -> tuple[FloatArray, np.ndarray]:
    """(rewards with 0 for -inf, where they are finite)."""
    rewards = as_numbers(where, "r", r)
    if rewards.shape != (size,):
        fail(where, "r", f"be [K] = ({size},) numbers", f"shape {rewards.shape}")
    bad = np.isnan(rewards) | (rewards == np.inf)
    if bad.any():
        fail(where, "r", "be finite, or -inf for a forbidden response", f"{rewards[bad][0]} at {int(bad.argmax())}")
    allowed = rewards != -np.inf
    return np.where(allowed, rewards, 0.0), allowed


def _edges(prior: FloatArray) -> FloatArray:
    """Cumulative sums whose last positive entry is infinite: no outcome of probability zero is drawn."""
    edges = np.cumsum(prior)
    edges[np.flatnonzero(prior)[-1] :] = np.inf
    return edges


def _family(g: FloatArray, log_prior: FloatArray, theta: FloatArray) -> tuple[float, FloatArray]:
    """(log Z, p) of the exponential family at theta."""
    x = log_prior + g @ theta
    top = float(x.max())
    p = np.exp(x - top)
    total = float(p.sum())
    p /= total
    return top + float(np.log(total)), p


def _newton_step(g: FloatArray, p: FloatArray) -> tuple[FloatArray, float]:
    """(-H^+ grad, grad . step): least squares where features are redundant or a law has nearly collapsed."""
    slope = p @ g
    centred = g - slope
    step = np.asarray(-np.linalg.lstsq((centred * p[:, None]).T @ centred, slope, rcond=1e-13)[0], np.float64)
    return step, float(slope @ step)


def _halve(g: FloatArray, log_prior: FloatArray, theta: FloatArray, step: FloatArray, slope: float, log_z: float) -> float:
    """The first of 1, 1/2, 1/4, .. that lowers the dual enough; 0 where none does."""
    size = 1.0
    for _ in range(MAX_HALVINGS):
        after = _family(g, log_prior, theta + size * step)[0]
        if after <= log_z + 1e-4 * size * slope + 1e-15 * abs(log_z):
            return size
        size /= 2.0
    return 0.0


def _check_feasible(where: str, g: FloatArray) -> None:
    """Refuse moments outside the relative interior: maximise t over laws p >= t with sum p g = 0."""
    from scipy.optimize import linprog  # slow to import, and needed only where something is wrong

    n, m = g.shape
    equalities = np.vstack([np.hstack([g.T, np.zeros((m, 1))]), np.append(np.ones(n), 0.0)])
    above = np.hstack([-np.eye(n), np.ones((n, 1))]) if n <= 2000 else None
    cost = np.append(np.zeros(n), -1.0 if above is not None else 0.0)
    found = linprog(
        cost, above, None if above is None else np.zeros(n), equalities, np.append(np.zeros(m), 1.0),
        bounds=[(0.0, None)] * n + [(None, None) if above is not None else (0.0, 0.0)],
    )
    if found.status == 2:
        fail(where, "moments", "be those of a law on the prior's support", "moments outside the convex hull of the features")
    if found.status == 0 and above is not None and found.x[-1] <= 1e-9:
        fail(where, "moments", "lie inside the convex hull of the features", "moments on its boundary: a limit only")
