r"""Policy gradients over enumerable responses: exact and sampled, plain and natural, as steps and as a flow.

Two parametrisations: ``Softmax`` has one logit a response, pi = softmax(theta); ``TokenSoftmax`` one row of V logits for each
prefix of a tree of depth L, pi(x) = prod_t softmax(theta[prefix of x before t])[x_t]. Each pulls weights back: for weights w on
responses, sum_x w(x) grad log pi_theta(x), so that

    exact gradient = pullback of pi signal;   sampled gradient = pullback of (1/N) sum_i (signal(x_i) - baseline) at x_i.

The natural gradient of a softmax is F^+ grad J = signal - mean(signal), F = diag(pi) - pi pi^T: the least-norm solution,
free of divisions by pi. The flow theta' = grad J is integrated in s = log(1 + t), where its power laws are straight lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.objectives import Distribution, Objective
from mdpsim.arrays import FloatArray, as_count, as_flag, as_floats, as_real, fail, frozen
from mdpsim.kernels import softmax
from mdpsim.memory import empty
from mdpsim.records import record
from mdpsim.rng import as_generator

MAX_RESPONSES = 2**24
MAX_EVALUATIONS = 200_000
MAX_STEPS = 10**8  # of an ascent: days
MAX_DRAWS = 2**30  # of a sample that is held at once


@dataclass(frozen=True)
class Softmax:
    """pi = softmax(theta) over K responses; theta is [K]."""

    K: int

    def __post_init__(self) -> None:
        as_count("Softmax", "K", self.K)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.K

    @np.errstate(under="ignore")
    def log_pi(self, theta: FloatArray) -> FloatArray:
        """[K] log probabilities."""
        return _log_softmax(theta[None])[0]

    @np.errstate(under="ignore")
    def pullback(self, theta: FloatArray, w: FloatArray) -> FloatArray:
        """sum_x w(x) grad log pi(x) = w - pi sum(w). Cost: O(K)."""
        return _pullback(_log_softmax(theta[None]), w[None])[0][0]


@dataclass(frozen=True)
class TokenSoftmax:
    """Autoregressive softmax over V^L responses; theta holds the rows [V] of every prefix, shorter prefixes first.

    Response number x has the digits x_1 .. x_L to base V, the first token first; theta has (V^L - 1) / (V - 1) V entries.
    """

    V: int
    L: int

    def __post_init__(self) -> None:
        as_count("TokenSoftmax", "V", self.V)
        as_count("TokenSoftmax", "L", self.L, high=1000)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(self.V ** (t + 1) for t in range(self.L))

    def tables(self, theta: FloatArray) -> list[FloatArray]:
        """theta as [V^t, V] logits for the prefixes of length t = 0 .. L - 1 (views)."""
        ends = np.cumsum([self.V ** (t + 1) for t in range(self.L)])
        return [part.reshape(-1, self.V) for part in np.split(theta, ends[:-1])]

    @np.errstate(under="ignore")
    def log_pi(self, theta: FloatArray) -> FloatArray:
        """[V^L] log probabilities. Cost: O(V^L)."""
        total = np.zeros(1)
        for table in self.tables(theta):
            total = (total[:, None] + _log_softmax(table)).reshape(-1)
        return total

    @np.errstate(under="ignore")
    def pullback(self, theta: FloatArray, w: FloatArray) -> FloatArray:
        """sum_x w(x) grad log pi(x): at each prefix, the weights of its children less pi(a | prefix) times their sum.

        Cost: O(V^L): the sums go up the tree once.
        """
        parts: list[FloatArray] = []
        mass = w
        for table in reversed(self.tables(theta)):
            part, mass = _pullback(_log_softmax(table), mass.reshape(-1, self.V))
            parts.append(part.reshape(-1))
        return np.concatenate(parts[::-1])


Policy = Softmax | TokenSoftmax


@record
class Path(NamedTuple):
    """A policy along its training: read-only arrays over the recorded times.

    time: [T] eta k for steps, t for a flow. log_pi: [T, K]. theta: [T, n]. The measures by which collapse shows: value of the
    objective, entropy, perplexity e^entropy, top (the largest probability), and support, the expected number of distinct
    responses among 1000 draws, sum_x 1 - (1 - pi(x))^1000: each [T].
    """

    time: FloatArray
    log_pi: FloatArray
    theta: FloatArray
    value: FloatArray
    entropy: FloatArray
    perplexity: FloatArray
    top: FloatArray
    support: FloatArray


@np.errstate(under="ignore")
def exact_gradient(policy: Policy, theta: ArrayLike, objective: Objective) -> FloatArray:
    """grad J = sum_x pi(x) (signal(x) - E signal) grad log pi(x), exactly.

    Args:
        policy: Softmax or TokenSoftmax. theta: [policy.size]. objective: see ``align.objectives``.
    Returns:
        [policy.size]. For a Distribution the weights are the target itself: no division by pi.
    Cost: O(K).
    Raises:
        ValueError: naming the argument; an objective of another number of responses.
    """
    x = _theta("exact_gradient", policy, theta)
    return policy.pullback(x, _weights("exact_gradient", objective, policy.log_pi(x)))


@np.errstate(under="ignore")
def natural_gradient(policy: Softmax, theta: ArrayLike, objective: Objective) -> FloatArray:
    """F^+ grad J = signal - mean(signal) of a softmax, F = diag(pi) - pi pi^T.

    Args:
        policy: Softmax (for token trees F is not of this form). theta: [K]. objective: one whose signal is finite.
    Cost: O(K).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    if not isinstance(policy, Softmax):
        fail("natural_gradient", "policy", "be a Softmax", type(policy).__name__)
    with np.errstate(over="ignore", invalid="ignore"):
        signal = _signal("natural_gradient", objective, policy.log_pi(_theta("natural_gradient", policy, theta)))
        step = signal - signal.mean()
    if not np.isfinite(step).all():
        fail("natural_gradient", "theta", "be a policy at which the objective's signal is finite", "an infinite one")
    return step


@np.errstate(under="ignore")
def sampled_gradient(
    policy: Policy, theta: ArrayLike, objective: Objective, n: int, rng: np.random.Generator | int, *,
    baseline: float | str = 0.0, estimate_Z: bool = False,
) -> FloatArray:
    """Unbiased estimate of grad J from n responses of the policy (REINFORCE; for a Distribution, GDC).

    Implements: (1/n) sum_i (signal(x_i) - baseline) grad log pi(x_i).

    Args:
        n: responses drawn, at least 1 (2 with baseline "leave-one-out"). rng: Generator or an integer seed.
        baseline: a number, or "leave-one-out": for each response the mean signal of the others, which keeps it unbiased.
        estimate_Z: for a Distribution only: divide P / pi by its mean in the sample instead of the exact Z, as one must where Z
            is unknown; biased of order 1/n. A sample without any response of the target says nothing, and is refused.
    Returns:
        [policy.size].
    Cost: O(K + n log K).
    Raises:
        ValueError: naming the argument, what was wanted and what came; with ``estimate_Z`` a sample that the target gives no
            mass at all (its estimate of Z is 0).
    """
    where = "sampled_gradient"
    x, count, generator = _theta(where, policy, theta), as_count(where, "n", n, high=MAX_DRAWS), as_generator(where, rng)
    log_pi = policy.log_pi(x)
    signal = _signal(where, objective, log_pi)
    cumulative = np.cumsum(np.exp(log_pi))
    drawn = cumulative.searchsorted(generator.random(count) * cumulative[-1], side="right")
    heard = signal[drawn]
    if as_flag(where, "estimate_Z", estimate_Z):
        if not isinstance(objective, Distribution):
            fail(where, "estimate_Z", "be False for an objective without a partition function", True)
        total = float(heard.mean())
        if not total > 0.0:
            fail(where, "n", "be so large that the target gives some draw mass (estimate_Z)", f"{count}, none that it gives")
        heard = heard / total
    if isinstance(baseline, str) and baseline == "leave-one-out":
        if count == 1:
            fail(where, "n", "be an integer >= 2 for the baseline 'leave-one-out'", 1)
        heard = (heard - heard.mean()) * (count / (count - 1))
    elif isinstance(baseline, str):
        fail(where, "baseline", "be a number or 'leave-one-out'", repr(baseline))
    else:
        heard = heard - as_real(where, "baseline", baseline, -1e300, 1e300)
    return policy.pullback(x, np.bincount(drawn, heard, minlength=log_pi.size) / count)


@np.errstate(under="ignore")
def ascend(
    policy: Policy, theta: ArrayLike, objective: Objective, *, eta: float, steps: int, natural: bool = False, every: int = 1
) -> Path:
    """Gradient ascent theta <- theta + eta g, exact gradients, recorded at step 0, every ``every`` steps and at the end.

    Args:
        eta: step size > 0. steps: at least 1. natural: take the natural gradient (Softmax only).
    Returns:
        Path with time = eta k.
    Cost: O(K) a step; memory O(K steps / every).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    x = _theta("ascend", policy, theta).copy()
    size = as_real("ascend", "eta", eta, 1e-300, 1e300)
    count, gap = as_count("ascend", "steps", steps, high=MAX_STEPS), as_count("ascend", "every", every)
    step: Callable[[FloatArray], FloatArray] = lambda t: exact_gradient(policy, t, objective)  # noqa: E731
    if as_flag("ascend", "natural", natural):
        if not isinstance(policy, Softmax):
            fail("ascend", "natural", "be False for a policy other than Softmax", True)
        soft: Softmax = policy
        step = lambda t: natural_gradient(soft, t, objective)  # noqa: E731
    times, thetas = [0.0], [x.copy()]
    for k in range(1, count + 1):
        with np.errstate(over="ignore", invalid="ignore"):
            x = x + size * step(x)
        if not np.isfinite(x).all():
            fail("ascend", "eta", "keep the parameters within float64", f"{size:g}: they leave it at step {k}")
        if k % gap == 0 or k == count:
            times.append(size * k)
            thetas.append(x.copy())
    return _path(policy, objective, np.array(times), np.array(thetas))


@np.errstate(under="ignore")
def flow(policy: Policy, theta: ArrayLike, objective: Objective, times: ArrayLike, *, rtol: float = 1e-10) -> Path:
    """The gradient flow theta'(t) = grad J from theta at t = 0, by LSODA in s = log(1 + t).

    Args:
        times: [T] increasing, >= 0. rtol: relative tolerance of the integrator, 1e-13 to 1e-3.
    Returns:
        Path at the given times.
    Cost: O(K) an evaluation, some thousands of them for t up to 1e9 (LSODA's stiff steps add O(n^2) memory: n to about 1000).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
        RuntimeError: the integrator gave up, or took more than 200 000 evaluations (rewards of 1e300).
    """
    from scipy.integrate import solve_ivp  # slow to import: at the first call

    x = _theta("flow", policy, theta)
    t = as_floats("flow", "times", times, "T", (None,))
    if t[0] < 0.0 or (np.diff(t) <= 0.0).any():
        fail("flow", "times", "be increasing and >= 0", t)
    accuracy = as_real("flow", "rtol", rtol, 1e-13, 1e-3)
    s = np.log1p(t)

    evaluations = 0

    def slope(now: float, y: FloatArray) -> FloatArray:
        nonlocal evaluations
        evaluations += 1
        if evaluations > MAX_EVALUATIONS or not np.isfinite(y).all():
            raise RuntimeError(f"flow: no end after {evaluations} evaluations, at t = {np.expm1(now):.6g}")
        return np.exp(now) * exact_gradient(policy, y, objective)

    if s[-1] == 0.0:
        return _path(policy, objective, t, x[None])
    found = solve_ivp(slope, (0.0, s[-1]), x, method="LSODA", t_eval=s, rtol=accuracy, atol=1e-3 * accuracy)
    if not found.success:
        raise RuntimeError(f"flow: the integrator stopped at t = {np.expm1(found.t[-1]):.6g}: {found.message}")
    return _path(policy, objective, t, found.y.T)


def _path(policy: Policy, objective: Objective, time: FloatArray, theta: FloatArray) -> Path:
    log_pi = np.array([policy.log_pi(x) for x in theta])
    pi = np.exp(log_pi)
    entropy = -(pi * np.where(pi > 0.0, log_pi, 0.0)).sum(axis=1)
    value = np.array([objective.value(x) for x in log_pi])
    support = -np.expm1(1000.0 * np.log1p(-np.minimum(pi, 1.0 - 1e-16))).sum(axis=1)
    parts = (time, log_pi, np.ascontiguousarray(theta), value, entropy, np.exp(entropy), pi.max(axis=1), support)
    return Path(*(frozen(p) for p in parts))


def _log_softmax(x: FloatArray) -> FloatArray:
    """Of the rows of x [R, V]."""
    out = empty(x.shape)
    softmax.log_softmax(_view(x), out, np.empty(len(x)))
    return frozen(out)


def _pullback(log_p: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(w - p mass, mass), mass [R] the sums of the rows of w [R, V]."""
    out, mass = empty(w.shape), np.empty(len(w))
    softmax.pullback(log_p, _view(w), out, mass)
    return out, mass


def _view(x: FloatArray) -> FloatArray:
    """A read-only view in C order, as kernels take them."""
    return frozen(np.ascontiguousarray(x).view())


def _theta(where: str, policy: Policy, theta: ArrayLike) -> FloatArray:
    """Guard the policy's shape and its parameters."""
    if not isinstance(policy, Softmax | TokenSoftmax):
        fail(where, "policy", "be a Softmax or a TokenSoftmax", type(policy).__name__)
    if isinstance(policy, TokenSoftmax) and policy.L * np.log(policy.V) > np.log(MAX_RESPONSES):
        fail(where, "policy", f"have at most {MAX_RESPONSES} responses", f"{policy.V}^{policy.L}")
    return as_floats(where, "theta", theta, "n", (policy.size,))


def _signal(where: str, objective: Objective, log_pi: FloatArray) -> FloatArray:
    if not callable(getattr(objective, "signal", None)):
        fail(where, "objective", "be an objective: Reward, KLReward, .., or anything with signal and value", repr(objective))
    signal = objective.signal(log_pi)
    if signal.shape != log_pi.shape:
        fail(where, "objective", f"be about K = {log_pi.size} responses", signal.size)
    return signal


def _weights(where: str, objective: Objective, log_pi: FloatArray) -> FloatArray:
    """pi (signal - E signal), whose sum is zero up to rounding; the target less pi for a Distribution."""
    if isinstance(objective, Distribution):
        if objective.target.shape != log_pi.shape:
            fail(where, "objective", f"be about K = {log_pi.size} responses", objective.target.size)
        return objective.target - np.exp(log_pi)
    out = empty(log_pi.shape)
    softmax.centred_weights(_view(log_pi), _view(_signal(where, objective, log_pi)), out)
    return out
