r"""Coverage of a class of policies: coverability, concentrability, effective ranges, the sequential extrapolation coefficient.

Setting: X prompts x ~ mu0 and Y responses; a class of M policies as log-probabilities log pi(y | x), [M, Y] or [M, X, Y]; a
trajectory is tau = (x, y) and d^pi(tau) = mu0(x) pi(y | x).

Coverability: Ccov = inf_mu sup_{pi, tau} d^pi(tau) / mu(tau). For any mu, d^pi <= C mu for all pi iff sup_pi d^pi <= C mu;
summing over tau, C >= sum_tau sup_pi d^pi(tau), with equality at mu proportional to sup_pi d^pi. So

    Ccov = sum_tau sup_pi d^pi(tau) = E_x sum_y sup_pi pi(y | x),      1 <= Ccov <= min(M, Y).                   (1)

On a box of rewards, {pi_rho ~ pi_ref e^{rho / beta}: 0 <= rho <= R}, log pi_rho(y) grows with rho_y and falls with every other
rho_z, so the supremum at y is that of rho = R 1_y, and with p = pi_ref(y)

    sup pi(y) = p / (p + (1 - p) e^{-R / beta}).                                                                 (2)

Sequential extrapolation (SEC). h_pi = beta log(pi / pi_ref) - r, delta_pi(tau, tau') = h_pi(tau) - h_pi(tau') for tau, tau' of
one prompt, E_i over tau ~ pi^i, tau' ~ nu (the comparator, pi_ref unless another is given):

    SEC = sup over sequences of sum_{t <= T} E_t[delta_t]^2 / max(lambda, sum_{i < t} E_i[delta_t^2]).           (3)

If |delta| <= D then SEC <= 4 Ccov D^2 / lambda + (2 / log 2) Ccov log T. Proof: let S_t(tau) = sum_{i <= t} d^i(tau), mu
the minimiser of (1). As (a + b)^2 <= 2 a^2 + 2 b^2, split tau by whether S_{t-1} < Ccov mu. (i) While it is, E_t[|delta| 1]
<= D b_t with b_t <= 1 the mass d^t of those tau; each tau adds at most 2 Ccov mu(tau) before it leaves, so sum b_t^2 <= sum
b_t <= 2 Ccov, which makes 4 Ccov D^2 / lambda. (ii) Afterwards Cauchy-Schwarz gives E_t[delta 1]^2 <= (sum_i E_i delta_t^2)
(sum_tau d^t (d^t / S_{t-1})), and d^t <= Ccov mu <= S_{t-1}, so d^t / S_{t-1} <= log2(S_t / S_{t-1}): this telescopes to at
most log2 T, for S_T is at most T Ccov mu.

References: Xie, Foster, Krishnamurthy, Rosset, Awadallah and Rakhlin (2024); Xie, Foster, Bai, Jiang and Kakade (2023).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.classes import guard_range, quiet
from mdpsim.arrays import FloatArray, IntArray, as_count, as_floats, as_numbers, as_real, as_simplex, axes_of, fail, frozen
from mdpsim.kernels import coverage as kernels
from mdpsim.records import record

MAX_POLICIES = 8192  # the adversary's table is M x M
MAX_STEPS = 2**24  # of the adversary: 256 MiB of results


class Ranges(NamedTuple):
    """How far the implicit rewards beta log(pi / pi_ref) of a class reach.

    R_max: the largest difference of two responses to one prompt; the smallest R such that every policy of the class is pi_ref
        tilted by a reward in [0, R].
    V_max: the largest absolute value.
    Both inf where a policy leaves pi_ref's support or gives up a response of it.
    """

    R_max: float
    V_max: float


@record
class Extrapolation(NamedTuple):
    """A greedy sequence, and what it extrapolates: a lower bound of the SEC for every number of steps.

    value: [T] partial sums of (3). chosen: [T] policies. D: the largest |delta|.
    """

    value: FloatArray
    chosen: IntArray
    D: float


@quiet
def coverability(log_pi: ArrayLike, *, mu0: ArrayLike | None = None) -> float:
    """Ccov = E_x sum_y sup_pi pi(y | x) of a class.

    Args:
        log_pi: [M, Y] or [M, X, Y] log-probabilities, -inf for 0; the rows are laws within 1e-9.
        mu0: [X] law of the prompt; None is uniform.
    Returns:
        In [1, min(M, Y)].
    Exactness: a sum of X Y nonnegative terms.
    Cost: O(M X Y).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    logs, start = _class("coverability", log_pi, mu0)
    return float(start @ np.exp(logs.max(axis=0)).sum(axis=-1))


@quiet
def box_coverability(pi_ref: ArrayLike, *, r_max: float, beta: float, mu0: ArrayLike | None = None) -> float:
    """Ccov of all policies pi_ref e^{rho / beta} / Z with rewards rho of responses in [0, r_max]: (2) summed.

    Args:
        pi_ref: [Y] or [X, Y]; responses of probability zero are in no policy.
        r_max: R, in [0, 1e300]. beta: in (0, inf]. mu0: [X]; None is uniform.
    Returns:
        Between 1 (R / beta -> 0) and the number of responses that pi_ref can give (R / beta -> inf).
    Exactness: relative 1e-15 (Y + 4).
    Cost: O(X Y).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "box_coverability"
    wide = axes_of(pi_ref) >= 2
    ref = as_simplex(where, "pi_ref", pi_ref, "X Y" if wide else "Y", (None, None) if wide else (None,))
    ref = ref.reshape(-1, ref.shape[-1])
    start = _start(where, mu0, len(ref))
    left = np.exp(-as_real(where, "r_max", r_max, 0.0, 1e300) / positive_beta(where, beta))
    return float(start @ np.where(ref > 0.0, ref / np.where(ref > 0.0, ref + (1.0 - ref) * left, 1.0), 0.0).sum(axis=1))


@quiet
def concentrability(log_pi: ArrayLike, nu: ArrayLike, *, mu0: ArrayLike | None = None) -> float:
    """sup over the class, prompts and responses of pi(y | x) / nu(y | x); inf where nu does not cover.

    Args:
        log_pi: [M, Y] or [M, X, Y]. nu: [Y] or [X, Y], the law that data come from. mu0: [X]; prompts of
            probability 0 do not count.
    Cost: O(M X Y).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "concentrability"
    logs, start = _class(where, log_pi, mu0)
    log_nu = _law(where, "nu", nu, logs.shape[1:])
    with np.errstate(invalid="ignore", over="ignore"):
        ratio = np.where(logs > -np.inf, logs - log_nu, -np.inf)[:, start > 0.0]
        return float(np.exp(ratio.max()))


@quiet
def effective_ranges(log_pi: ArrayLike, pi_ref: ArrayLike, beta: float, *, mu0: ArrayLike | None = None) -> Ranges:
    """The reward range R_max and the log-ratio range V_max that a class really has.

    Args:
        log_pi: [M, Y] or [M, X, Y]. pi_ref: [Y] or [X, Y]. beta: in (0, inf). mu0: [X]; prompts of probability 0 do not count.
    Returns:
        Ranges. On a box of rewards [0, R] both are at most R.
    Cost: O(M X Y).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "effective_ranges"
    logs, start = _class(where, log_pi, mu0)
    weight, on = _finite_beta(where, beta), start > 0.0
    reward = _log_ratio(logs, _law(where, "pi_ref", pi_ref, logs.shape[1:]))[:, on]
    if not np.isfinite(reward[~np.isnan(reward)]).all():
        return Ranges(np.inf, np.inf)
    span = np.nanmax(reward, axis=2) - np.nanmin(reward, axis=2)
    return Ranges(weight * float(span.max()), weight * float(np.nanmax(np.abs(reward))))


@quiet
def greedy_extrapolation(
    log_pi: ArrayLike, pi_ref: ArrayLike, r: ArrayLike, *, beta: float, steps: int, least: float, mu0: ArrayLike | None = None,
    nu: ArrayLike | None = None,
) -> Extrapolation:
    """A lower bound of the sequential extrapolation coefficient (3): the sequence that adds most at every step.

    Greedy is a lower bound of the supremum: it can refute an upper bound, not prove one.

    Args:
        log_pi: [M, Y] or [M, X, Y], M at most 8192; the policies have exactly pi_ref's support.
        pi_ref: [Y] or [X, Y]. r: [Y] or [X, Y] the true reward. beta: in (0, inf).
        steps: T, at most 2^24. least: lambda >= 0; 0 makes the coefficient infinite at the first step.
        mu0: [X]; None is uniform. nu: [Y] or [X, Y] comparator inside pi_ref's support; None is pi_ref.
    Returns:
        Extrapolation: value [T], chosen [T], D.
    Exactness: to rounding; moments are centred at E_nu h before they are squared.
    Cost: O(M^2 X Y + T M).
    Raises:
        ValueError: naming the argument; a policy or comparator of another support.
    """
    where = "greedy_extrapolation"
    logs, start = _class(where, log_pi, mu0)
    n, shape = len(logs), logs.shape[1:]
    if n > MAX_POLICIES:
        fail(where, "log_pi", f"hold at most {MAX_POLICIES} policies", n)
    weight = _finite_beta(where, beta)
    wide = axes_of(r) == 2
    reward = as_floats(where, "r", r, "X Y" if wide else "Y", shape if wide else shape[1:])
    log_ref = _law(where, "pi_ref", pi_ref, shape)
    on = np.isfinite(log_ref)
    compare = log_ref if nu is None else _law(where, "nu", nu, shape)
    for name, wanted, other in (
        ("log_pi", "have exactly the support of pi_ref", (logs > -np.inf) != on),
        ("nu", "stay on the support of pi_ref", (compare > -np.inf) & ~on),
    ):
        if other.any():
            at = np.argwhere(other)[0].tolist()
            fail(where, name, wanted, f"another one at {at}")
    count = as_count(where, "steps", steps, high=MAX_STEPS)
    floor = as_real(where, "least", least, 0.0, 1e300)
    q = np.exp(compare)
    with np.errstate(invalid="ignore", over="ignore"):
        h = np.where(on, weight * (logs - log_ref) - reward, 0.0)
    guard_range(where, "beta log(pi / pi_ref) - r", h)
    centred = np.where(on, h - (h * q).sum(axis=-1, keepdims=True), 0.0)
    law = start[:, None] * np.exp(logs)
    mean = (law * centred).sum(axis=(1, 2))
    tail = (start[:, None] * q * centred**2).sum(axis=(1, 2))
    second, seen, total, chosen = np.empty((n, n)), np.zeros(n), np.empty(count), np.empty(count, np.int64)
    kernels.second_moments(_flat(law), _flat(centred**2), frozen(tail), second)
    kernels.greedy(frozen(mean**2), frozen(second), floor, seen, total, chosen)
    return Extrapolation(frozen(total), frozen(chosen), _widest(h, on, compare > -np.inf, start > 0.0))


def extrapolation_bound(ccov: float, *, D: float, least: float, steps: ArrayLike) -> FloatArray:
    """4 Ccov D^2 / lambda + (2 / log 2) Ccov log T: the proven upper bound of (3).

    Args:
        ccov: coverability, at least 1. D: the largest |delta| (2 R on a box [0, R] that holds the reward; Extrapolation.D for a
            given class). least: lambda > 0. steps: [..] numbers of steps T >= 1.
    Returns:
        [..] floats.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "extrapolation_bound"
    cover = as_real(where, "ccov", ccov, 1.0 - 1e-9, 1e300)
    far, floor = as_real(where, "D", D, 0.0, 1e150), as_real(where, "least", least, 1e-300, 1e300)
    t = as_numbers(where, "steps", steps)
    if t.size == 0 or not np.isfinite(t).all() or t.min() < 1.0:
        fail(where, "steps", "be numbers >= 1", repr(steps))
    return frozen(np.asarray(4.0 * cover * far / floor * far + 2.0 / np.log(2.0) * cover * np.log(t)))


def positive_beta(where: str, beta: object) -> float:
    """Guard beta in (0, inf]."""
    if isinstance(beta, float) and beta == np.inf:
        return np.inf
    return as_real(where, "beta", beta, 5e-324, 1e308)


def _finite_beta(where: str, beta: object) -> float:
    weight = positive_beta(where, beta)
    if weight == np.inf:
        fail(where, "beta", "be a number in (0, inf)", "inf")
    return weight


def _start(where: str, mu0: ArrayLike | None, n: int) -> FloatArray:
    return np.full(n, 1.0 / n) if mu0 is None else as_simplex(where, "mu0", mu0, "X", (n,))


def _class(where: str, log_pi: ArrayLike, mu0: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    """(log-probabilities [M, X, Y], mu0 [X]), checked; rows are normalised."""
    logs = as_numbers(where, "log_pi", log_pi)
    if logs.ndim not in (2, 3) or 0 in logs.shape:
        fail(where, "log_pi", "be log-probabilities [M, Y] or [M, X, Y]", f"shape {logs.shape}")
    if np.isnan(logs).any() or (logs == np.inf).any():
        fail(where, "log_pi", "hold logarithms of probabilities", "NaN or inf")
    logs = logs[:, None, :] if logs.ndim == 2 else logs
    with np.errstate(over="ignore", under="ignore"):
        total = np.exp(logs).sum(axis=-1)
    worst = np.unravel_index(int(np.argmax(np.abs(total - 1.0))), total.shape)
    if not abs(total[worst] - 1.0) <= 1e-9:
        fail(where, "log_pi", "have rows whose exponentials sum to one within 1e-9", f"sum {total[worst]:.12g}")
    logs = logs - np.log(total)[..., None]
    return logs, _start(where, mu0, logs.shape[1])


def _law(where: str, name: str, p: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    """log p [X, Y] of a law given as [Y] (the same for every prompt) or [X, Y]."""
    wide = axes_of(p) == 2
    law = as_simplex(where, name, p, "X Y" if wide else "Y", shape if wide else shape[1:])
    with np.errstate(divide="ignore"):
        return np.broadcast_to(np.log(law), shape)


def _log_ratio(logs: FloatArray, log_ref: FloatArray) -> FloatArray:
    """log pi / pi_ref [M, X, Y]; NaN where neither gives the response."""
    with np.errstate(invalid="ignore"):
        return np.where((logs == -np.inf) & (log_ref == -np.inf), np.nan, logs - log_ref)


def _widest(h: FloatArray, first: np.ndarray, second: np.ndarray, prompts: np.ndarray) -> float:
    """max |h(y) - h(y')| over policies, prompts, y in ``first`` and y' in ``second`` [X, Y]."""
    top = (np.where(mask, h, -np.inf).max(axis=-1)[:, prompts] for mask in (first, second))
    low = (np.where(mask, h, np.inf).min(axis=-1)[:, prompts] for mask in (first, second))
    (top1, top2), (low1, low2) = top, low
    return float(np.maximum(top1 - low2, top2 - low1).max())


def _flat(x: FloatArray) -> FloatArray:
    return frozen(np.ascontiguousarray(x.reshape(len(x), -1)))
