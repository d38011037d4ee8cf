"""numpy's PCG64 and its binomials, on a state that a kernel carries: kernels draw without a numpy Generator.

A kernel that took a Generator would have it unboxed by Python code, and an exception raised there (a signal handler's, at
Ctrl-C) ends the process. So the caller hands over the state: stream [4] (uint64) holds the high and low words of PCG64's
state and of its increment; every draw advances the first two in place, and the caller writes them back.

The generator (O'Neill 2014, "PCG: a family of simple fast space-efficient statistically good algorithms for random number
generation", XSL RR 128/64): state <- a state + c mod 2^128, then the two words of the state, xored and rotated. 128-bit
products are put together from 64-bit ones.

Binomials: inversion for n p <= 30, else BTPE (Kachitvichyanukul and Schmeiser 1988, "Binomial random variate generation",
CACM 31), after numpy's ``random_binomial`` (numpy/random/src/distributions/distributions.c, BSD 3-clause, (c) NumPy Developers)
and its translation in numba (numba/np/random/distributions.py, BSD 2-clause, (c) Anaconda, Inc.): the numbers of numpy 2.5 from
the same state. Before 2.5 numpy (and numba) have 13680 for 13860 in ``_stirling`` and two signs wrong in ``_above_stirling``,
which puts BTPE's law 1.1e-4 off in total variation where n p (1 - p) is some 200 to 300; here both are as in the paper.

Nothing is contracted: with fused products the integer parts would differ from processor to processor.
"""

from __future__ import annotations

import numpy as np

from mdpsim.kernels._jit import helper, rounded

A_HIGH, A_LOW = np.uint64(0x2360ED051FC65DA4), np.uint64(0x4385DF649FCCF645)  # the multiplier a
HALF, LOW_HALF = np.uint64(32), np.uint64(0xFFFFFFFF)
ONE, NONE = np.uint64(1), np.uint64(0)


@helper
def high_word(x, y):
    """The high word of the 128-bit product of two words."""
    x_high, x_low, y_high, y_low = x >> HALF, x & LOW_HALF, y >> HALF, y & LOW_HALF
    middle = x_high * y_low + ((x_low * y_low) >> HALF)
    other = x_low * y_high + (middle & LOW_HALF)
    return x_high * y_high + (middle >> HALF) + (other >> HALF)


@helper
def word(stream):
    """The next 64 bits."""
    high, low = stream[0], stream[1]
    product = low * A_LOW
    high = high_word(low, A_LOW) + high * A_LOW + low * A_HIGH + stream[2]
    low = product + stream[3]
    high = high + (ONE if low < product else NONE)
    stream[0], stream[1] = high, low
    mixed, turn = high ^ low, high >> np.uint64(58)
    return (mixed >> turn) | (mixed << ((np.uint64(64) - turn) & np.uint64(63)))


@helper
def uniform(stream):
    """The next number, uniform on the multiples of 2^-53 in [0, 1): Generator.random."""
    return np.float64(np.int64(word(stream) >> np.uint64(11))) * 2.0**-53


@rounded
def _inversion(stream, n, p):
    """Binomial(n, p) by a search from 0 upwards; for n p <= 30."""
    q = 1.0 - p
    none = np.exp(n * np.log(q))  # the probability of 0
    bound = min(float(n), n * p + 10.0 * np.sqrt(n * p * q + 1.0))  # beyond it rounding would decide: drawn again
    x, mass, u = 0, none, uniform(stream)
    while u > mass:
        x += 1
        if x > bound:
            x, mass, u = 0, none, uniform(stream)
        else:
            u -= mass
            mass = ((n - x + 1) * p * mass) / (x * q)
    return x


@rounded
def _stirling(x):
    """Stirling's series for log Gamma(x) beyond its first terms: 1/(12 x) - 1/(360 x^3) + 1/(1260 x^5) - .."""
    square = x * x
    return (13860.0 - (462.0 - (132.0 - (99.0 - 140.0 / square) / square) / square) / square) / x / 166320.0


@rounded
def _above_stirling(log_v, y, n, mode, p):
    """Whether log_v lies above log of f(y) / f(mode), by Stirling's series."""
    after, first, rest, other = float(y + 1), float(mode + 1), float(n + 1 - mode), float(n - y + 1)
    power = (mode + 0.5) * np.log(first / after) + (n - mode + 0.5) * np.log(rest / other)
    power += (y - mode) * np.log(other * p / (after * (1.0 - p)))
    return log_v > power + _stirling(first) + _stirling(rest) - _stirling(after) - _stirling(other)


@rounded
def _rejected(v, y, n, mode, p):
    """Whether v lies above f(y) / f(mode), f the binomial law: by recursion near the mode and far out, else by squeezes."""
    q = 1.0 - p
    variance = n * p * q
    k = abs(y - mode)
    if k > 20 and k < variance / 2.0 - 1.0:
        slack = (k / variance) * ((k * (k / 3.0 + 0.625) + 0.16666666666666666) / variance + 0.5)
        normal = -k * k / (2.0 * variance)
        log_v = np.log(v)
        if log_v < normal - slack:
            return False
        return log_v > normal + slack or _above_stirling(log_v, y, n, mode, p)
    odds = p / q
    a = odds * (n + 1)
    ratio = 1.0
    for i in range(mode + 1, y + 1):
        ratio = ratio * (a / i - odds)
    for i in range(y + 1, mode + 1):
        ratio = ratio / (a / i - odds)
    return v > ratio


@rounded
def _btpe(stream, n, p):
    """Binomial(n, p) by rejection from a triangle, two parallelograms and two exponential tails; for n p > 30."""
    q = 1.0 - p
    top = n * p + p
    mode = int(np.floor(top))
    p1 = np.floor(2.195 * np.sqrt(n * p * q) - 4.6 * q) + 0.5
    middle = mode + 0.5
    left, right = middle - p1, middle + p1
    c = 0.134 + 20.5 / (15.3 + mode)
    a = (top - left) / (top - left * p)
    rate_left = a * (1.0 + a / 2.0)
    a = (right - top) / (right * q)
    rate_right = a * (1.0 + a / 2.0)
    p2 = p1 * (1.0 + 2.0 * c)
    p3 = p2 + c / rate_left
    p4 = p3 + c / rate_right
    while True:
        u = uniform(stream) * p4
        v = uniform(stream)
        if u <= p1:  # the triangle lies below the law: no rejection
            return int(np.floor(middle - p1 * v + u))
        if u <= p2:
            x = left + (u - p1) / c
            v = v * c + 1.0 - abs(mode - x + 0.5) / p1
            if v > 1.0:
                continue
            y = int(np.floor(x))
        elif v == 0.0:  # its logarithm is no place in a tail
            continue
        elif u <= p3:
            y = int(np.floor(left + np.log(v) / rate_left))
            v = v * (u - p2) * rate_left
        else:
            y = int(np.floor(right - np.log(v) / rate_right))
            v = v * (u - p3) * rate_right
        if 0 <= y <= n and not _rejected(v, y, n, mode, p):
            return y


@rounded
def binomial(stream, n, p):
    """Binomial(n, p) for n >= 0 and p in [0, 1/2]: what numpy's Generator draws; nothing is drawn where n or p is 0.

    Cost: O(n p) for n p <= 30, else O(1): about 1.2 pairs of numbers.
    """
    if n == 0 or p == 0.0:
        return 0
    return _inversion(stream, n, p) if p * n <= 30.0 else _btpe(stream, n, p)
