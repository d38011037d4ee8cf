r"""Intervals for means and log-log slopes whose error rates hold at the sample sizes that claims use.

Setting: n independent trials, unknown law, error rate 0.01 or (after Bonferroni) less. Student's t is exact for normal
data and wrong for skewed data: the mean and the standard deviation of a right-skewed sample rise together, so that a
sample that missed the tail looks both small and precise. At n = 50 its 99% upper limit misses a lognormal mean
(sigma = 1) 6.3% of the time, and each miss is a theorem falsely supported.

Correction: Hall's cubic transformation of the t statistic. With T = (mean - mu) / sd and skewness g,

    h(T; g) = T + g T^2 / 3 + g^2 T^3 / 27 + g / (6 n),       sqrt(n) h ~ Student t, n - 1 degrees,

is monotone in T ((1 + g T / 3)^3, shifted and scaled) and inverts in closed form. Sample skewness is biased towards
zero for heavy tails and is noisy, so the skewness used is what the sample may hide: g+ = 1.5 g + sqrt(6 / n) (1.5:
measured, see below; sqrt(6/n): standard error of g for normal data). A limit is the widest over g in {0, g+ / 2, g+}:
never narrower than Student's.

Measured misses of the upper limit of a mean at level 0.01, in percent, Student's in brackets; and of a slope over
three decades at level 0.01, n = 20: noise at every point, at the last one only, shared by all points
(``python benchmarks/interval_size.py``: 40000 replications, standard error 0.05; slopes 8000, 0.11):

    law                mean, n = 50     mean, n = 200    slope, n = 20
    normal             0.78  (0.99)     0.95  (1.02)     0.60  0.36  0.61
    exponential        0.46  (3.22)     0.61  (1.92)     0.40  0.07  0.66
    lognormal 0.5      0.76  (2.58)     0.78  (1.78)     0.71  0.59  0.71
    lognormal 1        0.86  (6.32)     0.83  (3.75)     0.90  0.43  0.99
    lognormal 1.5      0.77 (14.17)     1.06  (8.24)     1.05  0.25  0.76
    lognormal 2        2.46 (26.14)     1.00 (17.29)     1.14  0.29  0.45
    Pareto, tail 3     0.92  (7.89)     1.06  (4.73)     0.61  0.12  0.69
    Pareto, tail 1.5   2.02 (26.71)     3.21 (22.24)     0.76  0.47  0.66
    10 w.p. 0.1        0.00  (2.78)     0.00  (3.29)     0.00  0.00  0.37

At level 0.0005 (twenty points) a mean's limit misses at most 0.06% for the same laws at n = 50, but 0.71% for
lognormal 2 and 0.21% for Pareto 1.5. So the stated error holds from n = 50 (a slope: n = 20) up to lognormal(1)
(skewness 6), is at most 1.2 times as large for lognormal(1.5) (skewness 33), and does not hold for lognormal(2) or an
infinite variance: such samples often show no skewness at all, so that no look at the sample would tell.

What no interval can see: a value that occurs in a fraction f of trials is absent from n trials with probability
(1 - f)^n. Fifty trials show any value of weight 0.09 or more with probability 0.99 (:func:`unseen_weight`); a mean that
hangs on rarer ones needs more trials or a rule on quantiles. The rows above count samples with some spread.

Reference: P. Hall, "On the removal of skewness by transformation", J. R. Statist. Soc. B 54 (1992) 221-228.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mdpsim.arrays import FloatArray, fail

SKEW_FACTOR = 1.5  # the sample skewness of lognormal(1) data at n = 50 .. 1000 is about two thirds of the true one


@dataclass(frozen=True)
class Moments:
    """What an interval needs of a sample; arrays over replications where the sample had leading axes.

    Attributes:
        n: number of trials.
        df: degrees of freedom of the standard deviation: n - 1, or fewer where few trials carry the weight.
        mean, sd: sample mean and standard deviation (n - 1); sd is exactly 0 where all trials are equal.
        skew: bias-adjusted sample skewness G1; 0 where sd is 0 or n < 3.
    """

    n: int
    df: Any
    mean: Any
    sd: Any
    skew: Any

    def negated(self) -> Moments:
        """The moments of the negated sample: an upper limit of -x is minus a lower limit of x."""
        return replace(self, mean=-self.mean, skew=-self.skew)

    def shifted(self, by: float) -> Moments:
        """The moments of the sample plus a constant."""
        return replace(self, mean=self.mean + by)


def moments(x: FloatArray) -> Moments:
    """Sample moments over the last axis of finite data, without overflow.

    Args:
        x: [..., n], n >= 1.
    Returns:
        Moments: of floats where x is 1-D. Equal trials give sd = 0 and the mean exactly, whatever the rounding of sums.
    """
    n = x.shape[-1]
    scale = np.max(np.abs(x), axis=-1, keepdims=True)
    y = x / np.where(scale > 0, scale, 1.0)
    mean = y.mean(axis=-1, keepdims=True)
    deviation = y - mean
    variance = np.mean(deviation**2, axis=-1)
    equal = (x.min(axis=-1) == x.max(axis=-1)) | (variance == 0.0)
    spread = np.where(equal, 1.0, np.sqrt(variance))
    third = np.mean((deviation / spread[..., None]) ** 3, axis=-1)
    skew = third * np.sqrt(n * (n - 1)) / (n - 2) if n > 2 else np.zeros_like(third)
    sd = scale[..., 0] * np.sqrt(variance * n / max(n - 1, 1))
    centre = np.where(equal, x[..., 0], scale[..., 0] * mean[..., 0])
    sd, skew = np.where(equal, 0.0, sd), np.where(equal, 0.0, skew)
    return Moments(n, max(n - 1, 1), centre[()], sd[()], skew[()])


def _skews(m: Moments) -> list[Any]:
    """The positive skewnesses that the sample leaves possible: half and all of 1.5 g + sqrt(6/n)."""
    most = np.maximum(SKEW_FACTOR * m.skew + np.sqrt(6.0 / m.n), 0.0)
    return [0.5 * most, most]


def upper_limit(m: Moments, level: float) -> Any:
    """One-sided upper confidence limit of the mean, at confidence 1 - level.

    mean + sd max_g (3 / g) (1 - (1 - g (q + g / (6 n)))^(1/3)), q = t_df(1 - level) / sqrt(n); g = 0 is Student's.

    Raises:
        ValueError: fewer than two trials, or a level outside (0, 0.5).
    """
    from scipy.special import stdtrit

    if m.n < 2 or not 0.0 < level < 0.5:
        fail("upper_limit", "n and level", "be at least 2 and in (0, 0.5)", (m.n, level))
    q = stdtrit(m.df, 1.0 - level) / np.sqrt(m.n)
    widest: Any = q
    for g in _skews(m):
        reach = q + g / (6.0 * m.n)
        root = np.cbrt(1.0 - g * reach)
        widest = np.maximum(widest, 3.0 * reach / (1.0 + root + root**2))  # (3 / g) (1 - root), also at g = 0
    return m.mean + m.sd * widest


def lower_limit(m: Moments, level: float) -> Any:
    """One-sided lower confidence limit of the mean, at confidence 1 - level."""
    return -upper_limit(m.negated(), level)


def p_below(m: Moments, value: float) -> Any:
    """p-value against "the mean is at least ``value``": small where the sample lies clearly below.

    p <= level exactly where upper_limit(m, level) <= value. Without spread it is 0 or 1.
    """
    from scipy.special import stdtr

    with np.errstate(over="ignore"):
        t = np.clip((m.mean - value) / np.where(m.sd > 0, m.sd, 1.0), -1e50, 1e50)  # its cube must not overflow
    statistic = t
    for g in _skews(m):
        statistic = np.maximum(statistic, t + g * t**2 / 3.0 + g**2 * t**3 / 27.0 + g / (6.0 * m.n))
    p = stdtr(m.df, np.sqrt(m.n) * statistic)
    return np.where(m.sd > 0, p, np.where(m.mean < value, 0.0, 1.0))[()]


def p_above(m: Moments, value: float) -> Any:
    """p-value against "the mean is at most ``value``": small where the sample lies clearly above."""
    return p_below(m.negated(), -value)


def unseen_weight(n: int, level: float) -> float:
    """The largest probability of an outcome that n trials all miss with probability ``level``: 1 - level^(1/n)."""
    return 1.0 - level ** (1.0 / n)


def slope_weights(axis: FloatArray) -> FloatArray:
    """Weights w [K] of the least-squares slope: sum_k w_k y_k is the slope of y against log(axis [K])."""
    centred = np.log(axis) - np.mean(np.log(axis))
    total = np.sum(centred**2)
    if not total > 0.0:
        fail("slope_weights", "axis", "hold two or more different positive numbers", axis)
    return centred / total


def log_slope(axis: FloatArray, means: FloatArray) -> Any:
    """Least-squares slope of log(means [..., K]) against log(axis [K]); all positive and finite."""
    return np.sum(slope_weights(axis) * np.log(means), axis=-1)[()]


def slope_moments(axis: FloatArray, values: FloatArray, bounds: FloatArray | None = None) -> Moments:
    """Moments whose mean is the slope of log(mean(values) / mean(bounds)) against log(axis), with its jackknife spread.

    The delta method with the leverage of each trial taken into account: with r_ik = x_ik / mean x_k,

        z_i = sum_k w_k (l(r_ik) - l(b_ik / mean b_k)),     l(r) = -(n - 1) log(1 + (1 - r) / (n - 1)),

    where l(r) = r - 1 to first order (the plain delta method, which is too short where few trials carry the mean).
    Trials are paired by index, so sd(z) / sqrt(n) is the standard error whether or not trial i shares its random
    numbers across k. Where it does share them, heavy trials dominate z; the degrees of freedom are therefore those of
    Kish's effective number of trials, (sum_i a_i)^2 / sum_i a_i^2 - 1 with a_i = mean_k r_ik, at most n - 1.

    Args:
        axis: [K]. values, bounds: [..., K, n], with positive finite means, n >= 3.
    Returns:
        Moments: sd is infinite where leaving out one trial leaves a mean without a logarithm.
    """
    n = values.shape[-1]
    relative = _relative(values)
    share, slope = _leave_one_out(relative), log_slope(axis, values.mean(axis=-1))
    if bounds is not None:
        share = share - _leave_one_out(_relative(bounds))
        slope = slope - log_slope(axis, bounds.mean(axis=-1))
    known = np.all(np.isfinite(share), axis=(-2, -1))
    z = np.sum(slope_weights(axis)[:, None] * np.where(known[..., None, None], share, 0.0), axis=-2)
    m = moments(z)
    effective = n / np.mean(np.mean(relative, axis=-2) ** 2, axis=-1)
    sd = np.where(known, m.sd, np.inf)[()]
    return replace(m, mean=slope, sd=sd, df=np.clip(effective - 1.0, 1.0, n - 1.0))


def _relative(x: FloatArray) -> FloatArray:
    """r_ik = x_ik / mean x_k, exactly 1 in rows without spread."""
    equal = (x.min(axis=-1) == x.max(axis=-1))[..., None]
    return np.where(equal, 1.0, x / x.mean(axis=-1, keepdims=True))


def _leave_one_out(r: FloatArray) -> FloatArray:
    """n log(mean) - (n - 1) log(mean without trial i), less log(mean): exactly 0 for r = 1, not finite for r >= n."""
    n = r.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return -(n - 1) * np.log1p((1.0 - r) / (n - 1))


def holm(p_values: FloatArray) -> FloatArray:
    """Holm's step-down adjusted p-values [m]: rejecting those <= level keeps the family-wise error at level.

    p_(i) -> max_{j <= i} min(1, (m - j + 1) p_(j)), in the order given.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or np.any(~((p >= 0.0) & (p <= 1.0))):
        fail("holm", "p_values", "be a vector of numbers in [0, 1]", p_values)
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, (p.size - np.arange(p.size)) * p[order])
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(stepped)
    return adjusted
