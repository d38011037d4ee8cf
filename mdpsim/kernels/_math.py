"""exp, expm1 and log that vectorise, and the forms of log-sum-exp and of KL that do not cancel.

numba's own math.exp and math.log are scalar library calls (4.5 ns an element); these are straight lines of arithmetic
with selects in the place of branches, so LLVM turns a loop over them into vector code (0.8 ns). Constants: exp takes
ln 2 in two parts (Cody and Waite, 1980) and the Taylor polynomial of degree 13; log is that of FDLIBM (Sun, 1993).

Guarantees, over all of float64: ``exp`` 1 ulp (denormal results included), ``log`` 2 ulp, ``expm1`` and ``log1p``
4 ulp; 0, infinities and NaN give what IEEE 754 says. They are compiled with ``exact``: were reassociation allowed,
LLVM would fold ``x + MAGIC - MAGIC`` to ``x``. Everything runs as plain Python too (``.py_func``).
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import exact

LOG2_E = 1.4426950408889634
LN2_HI = 6.93147180369123816490e-01  # 33 bits: k * LN2_HI is exact for every exponent k
LN2_LO = 1.90821492927058770002e-10
MAGIC = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer, which then stands in the low bits
FAR = 746.0  # exp(-FAR) rounds to 0, and exp(FAR) to infinity

BIAS = np.int64(1023 << 52)
MANTISSA = np.int64((1 << 52) - 1)
EXPONENT = np.int64(0x7FF << 52)
SQRT_HALF = np.int64(0x3FE6A09E00000000)  # bits of sqrt(1/2), cut to 32
TWO_52 = np.int64(0x4330000000000000)  # bits of 2**52
SHIFT_52 = np.int64(52)
TINY = 2.2250738585072014e-308  # the smallest normal number
TWO_60 = 1152921504606846976.0
LN_2_60 = 41.58883083359672  # 60 ln 2
GUESS_SLOPE = 1.539095918623324e-16  # 2**-52 ln 2
GUESS_BIAS = 709.0895657128241  # 1023 ln 2
INF = np.inf
NAN = np.nan


@exact
def _reduce(x):
    """(q, a, b) with exp(x) = (1 + q) a b: q = expm1 of the remainder, a and b powers of two.

    The power is split in two halves so that results among the denormals and above 1/TINY come out too.
    """
    x = -FAR if x < -FAR else x
    x = FAR if x > FAR else x
    k = (x * LOG2_E + MAGIC) - MAGIC
    half = k * 0.5 + MAGIC
    rest = (k - (half - MAGIC)) + MAGIC
    a = np.int64((np.float64(half).view(np.int64) << SHIFT_52) + BIAS).view(np.float64)
    b = np.int64((np.float64(rest).view(np.int64) << SHIFT_52) + BIAS).view(np.float64)
    r = (x - k * LN2_HI) - k * LN2_LO
    p = 1.6059043836821613e-10
    p = p * r + 2.08767569878681e-09
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 1.984126984126984e-04
    p = p * r + 1.388888888888889e-03
    p = p * r + 8.333333333333333e-03
    p = p * r + 4.1666666666666664e-02
    p = p * r + 1.6666666666666666e-01
    p = p * r + 0.5
    return r * r * p + r, a, b


@exact
def exp(x):
    """e**x within 1 ulp."""
    q, a, b = _reduce(x)
    return (a * q + a) * b


@exact
def expm1(x):
    """e**x - 1 within 4 ulp, without cancellation near 0."""
    q, a, b = _reduce(x)
    ab = a * b
    near = ab * q + (ab - 1.0)
    return near if x < 700.0 else (a * q + a) * b


@exact
def weighted_exp(w, x):
    """(w e**x, w (e**x - 1)) from one polynomial; w >= 0.

    Neither over- nor underflows where w e**x does not, and is (0, 0) for w = 0 whatever x is.
    """
    q, a, b = _reduce(x)
    wa = w * a
    wab = wa * b
    return (wa * q + wa) * b, wab * q + (wab - w)


@exact
def log(x):
    """Natural logarithm within 2 ulp; -inf at 0, NaN below."""
    denormal = x < TINY
    y = x * 18014398509481984.0 if denormal else x  # 2**54
    bits = np.float64(y).view(np.int64) + (BIAS - SQRT_HALF)
    k = np.int64((bits >> SHIFT_52) | TWO_52).view(np.float64) - (4503599627370496.0 + 1023.0)
    k = k - 54.0 if denormal else k
    f = np.int64((bits & MANTISSA) + SQRT_HALF).view(np.float64) - 1.0  # y = 2^k (1 + f), 1 + f in [0.707, 1.414)
    s = f / (2.0 + f)
    z = s * s
    p = 1.479819860511658591e-01
    p = p * z + 1.531383769920937332e-01
    p = p * z + 1.818357216161805012e-01
    p = p * z + 2.222219843214978396e-01
    p = p * z + 2.857142874366239149e-01
    p = p * z + 3.999999999940941908e-01
    p = p * z + 6.666666666666735130e-01
    square = 0.5 * f * f
    value = k * LN2_HI - ((square - (s * (square + z * p) + k * LN2_LO)) - f)
    value = value if x < INF else x  # infinity and NaN are their own logarithm
    value = value if x != 0.0 else -INF
    return NAN if x < 0.0 else value


@exact
def log_guess(x):
    """log(x) to within 0.06 for normal x > 0, in two operations: the bits of a float are its logarithm, nearly."""
    return np.float64(np.float64(x).view(np.int64)) * GUESS_SLOPE - GUESS_BIAS


@exact
def log_ratio_sum(s, t):
    """log(s) where s = 1 + t is known in both forms, each accurate relative to itself (t = sum of w expm1(d)).

    Near 1 the digits are in t: log1p(t) = log(u) + (t - (u - 1)) / u with u = 1 + t rounded (Kahan's correction, here
    to first order); below 1/2 they are in s.
    """
    near = t > -0.5
    u = 1.0 + t if near else s
    lost = (t - (u - 1.0)) / u if near else 0.0
    lost = lost if u < 4503599627370496.0 else 0.0  # also keeps inf - inf out
    return log(u) + lost


@exact
def log1p(x):
    """log(1 + x) within 4 ulp, without cancellation near 0."""
    return log_ratio_sum(1.0 + x, x)


@exact
def quotient(x, y):
    """x / y, rounded once: never x * (1 / y), whose reciprocal overflows for a denormal y and makes 0 * inf."""
    return x / y


@exact
def ulp(x):
    """Distance from |x| to the next larger float64."""
    power = np.int64(np.float64(x).view(np.int64) & EXPONENT).view(np.float64)
    return max(power * 2.220446049250313e-16, 5e-324)


@exact
def kl_term(p, o):
    """o g(p / o), g(y) = y log(y) - y + 1 >= 0: one term of KL(p || o) as a sum of terms none of which is negative.

    Summed over rows that both have mass one it is sum p log(p / o), and to first order it does not feel rows whose mass
    is one only up to rounding. For |p - o| <= o / 4 nothing cancels in the form, with s = (p - o) / (p + o),
        o g(p / o) = (p + o) s^2 (1 + (1 + s) (s/3 + s^3/5 + s^5/7 + ...)).
    Infinite for p > 0 = o; o for p = 0.
    """
    s = (p - o) / (p + o)
    z = s * s
    c = 1.0 / 21.0
    c = c * z + 1.0 / 19.0
    c = c * z + 1.0 / 17.0
    c = c * z + 1.0 / 15.0
    c = c * z + 1.0 / 13.0
    c = c * z + 1.0 / 11.0
    c = c * z + 1.0 / 9.0
    c = c * z + 1.0 / 7.0
    c = c * z + 1.0 / 5.0
    c = c * z + 1.0 / 3.0
    near = (p + o) * (z * (1.0 + (1.0 + s) * (s * c)))
    denormal = o < TINY  # p / o may overflow
    ratio = p / (o * TWO_60 if denormal else o)
    ratio = ratio if ratio > TINY else TINY  # far below o its logarithm does not count
    far = p * (log(ratio) + (LN_2_60 if denormal else 0.0)) - (p - o)
    value = near if abs(p - o) <= 0.25 * o else far
    value = value if p > 0.0 else o
    return value if o > 0.0 or p == 0.0 else INF
