r"""Transforms of the calibrated reward, and closed forms of the policies that they give.

A transform Phi turns quantiles into scores; the aligned policy is pi proportional to pi_ref e^{Phi(C) / beta}, on the quantile
scale the density f(u) = e^{Phi(u) / beta} / Z. Adding a constant to Phi changes nothing, scaling it scales beta.

* ``IDENTITY``: Phi = u (the same as "linear"): standard RLHF on the calibrated reward. E u = 1 / (1 - e^{-1/b}) - b, KL = E u
  / b - log(b (e^{1/b} - 1)), F = (e^{u/b} - 1) / (e^{1/b} - 1).
* ``LOG``: Phi = log u: f = k u^{k-1}, F = u^k with k = 1 + 1/beta, which is best-of-k for integer k. KL = log k - (k-1)/k,
  and the best-of-N win rate is k / (k + 1) for every N.
* ``LOGIT``: Phi = log(u / (1-u)): Beta(1 + 1/beta, 1 - 1/beta), which exists for beta > 1 only.
* ``CUBIC``: Phi = u^3. ``Exponential(t)``: e^{tu} for t > 0, -e^{tu} for t < 0, in units of its range. ``Function``: any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from mdpsim.align.spaces import DEPTH, QuantileScale, Space, check_breaks, jumps, quantile_scale
from mdpsim.arrays import FloatArray, as_count, as_real, fail

DEEP = 1000  # octaves towards 1 that the logit needs: its densities have heavy ends there


class Transform(Protocol):
    """Scores of quantiles: ``name``, ``depth`` (of the quantile scale that it needs), and values on a space."""

    @property
    def name(self) -> str:
        """For tables and messages."""
        ...

    @property
    def depth(self) -> int:
        """Octaves of the quantile scale towards its ends."""
        ...

    def __call__(self, space: Space) -> FloatArray:
        """[n] scores."""
        ...


@dataclass(frozen=True)
class Function:
    """Phi(u) of one's own.

    Args:
        function: taking arrays of quantiles in (0, 1). name: for tables and messages. depth: of the quantile scale it needs.
        breaks: quantiles in (0, 1) where it jumps or has kinks: panels of the quantile scale must end there, as those of
            ``scale_for(function)`` do.
        both: the same up to a constant, as a function of (u, 1 - u), for the quantile scale: near 1 u is known to 1e-16 only,
            and a policy of KL 20 has its mass within 1e-9 of it.
    Raises:
        ValueError: naming the argument; when called on a quantile scale: a jump within a panel.
    """

    function: Callable[[Any], Any]
    name: str = "Phi"
    depth: int = DEPTH
    breaks: tuple[float, ...] = ()
    both: Callable[[Any, Any], Any] | None = None

    def __post_init__(self) -> None:
        for name, given in (("function", self.function), ("both", self.both or self.function)):
            if not callable(given):
                fail("Function", name, "be a function of arrays", repr(given))
        if not isinstance(self.name, str):
            fail("Function", "name", "be a text", repr(self.name))
        as_count("Function", "depth", self.depth, low=8, high=1000)
        check_breaks("Function", self.breaks)

    @np.errstate(under="ignore")
    def __call__(self, space: Space) -> FloatArray:
        """function(C)."""
        if not isinstance(space, QuantileScale):
            return self._values(space.C, space.D)
        if isinstance(found := jumps(self._values, space), str):
            fail("Function", self.name, "jump at its breaks only, where panels end: Function(.., breaks=(..))", found)
        return self._values(space.C, space.D, self.both)

    def _values(self, u: FloatArray, v: FloatArray, both: Callable[[Any, Any], Any] | None = None) -> FloatArray:
        """Phi, checked."""
        try:
            with np.errstate(divide="ignore", under="ignore"):
                values = np.asarray(self.function(u) if both is None else both(u, v), dtype=float)
        except (TypeError, ValueError) as error:
            fail("Function", self.name, "take arrays (numpy.where, not if) and return numbers", error)
        if values.shape != u.shape or np.isnan(values).any() or np.isposinf(values).any():
            fail("Function", self.name, f"return {u.size} numbers, none NaN or +inf", f"shape {values.shape}: {values!r}")
        return values


def _identity(u: FloatArray) -> FloatArray:
    return u


def _identity_below_one(u: FloatArray, v: FloatArray) -> FloatArray:
    return -v


def _log(u: FloatArray, v: FloatArray) -> FloatArray:
    return np.where(u < 0.5, np.log(u), np.log1p(-np.minimum(v, 0.5)))


def _cube(u: FloatArray) -> FloatArray:
    return u**3


def _cube_below_one(u: FloatArray, v: FloatArray) -> FloatArray:
    return -v * (3.0 - v * (3.0 - v))  # (1 - v)^3 - 1


IDENTITY = Function(_identity, "identity", both=_identity_below_one)
LOG = Function(np.log, "log", both=_log)
CUBIC = Function(_cube, "cubic", both=_cube_below_one)


@dataclass(frozen=True)
class Exponential:
    """e^{tu} for t > 0 and -e^{tu} for t < 0, shifted and scaled to [-1, 0]; t = 0 is its limit, u - 1.

    Phi = (e^{-t(1-u)} - 1) / (1 - e^{-t}) for t > 0, and -(e^{|t|(1-u)} - 1) / (e^{|t|} - 1) for t < 0: differences near u = 1,
    where -e^{-|t|u} is flat to within rounding, keep their digits. So beta is in units of the range of Phi: divide a beta that
    goes with e^{tu} by |e^t - 1|.
    """

    t: float
    depth: int = DEPTH

    def __post_init__(self) -> None:
        as_real("Exponential", "t", self.t, -700.0, 1e6)
        as_count("Exponential", "depth", self.depth, low=8, high=1000)

    @property
    def name(self) -> str:
        """exp with its t."""
        return f"exp t={self.t:g}"

    @np.errstate(under="ignore")
    def __call__(self, space: Space) -> FloatArray:
        """The formula above."""
        if abs(self.t) < 1e-12:
            return -space.D
        with np.errstate(over="ignore"):
            return -np.abs(np.expm1(-self.t * space.D) / np.expm1(-self.t))


@dataclass(frozen=True)
class Logit:
    """log(u / (1 - u)), whose law on the quantile scale is Beta(1 + 1/beta, 1 - 1/beta)."""

    name: str = "logit"
    depth: int = DEEP

    @np.errstate(under="ignore")
    def __call__(self, space: Space) -> FloatArray:
        """log C - log(1 - C), each accurate at its own end; -inf and inf where C is 0 and 1 (no mass there)."""
        with np.errstate(divide="ignore"):
            return np.log(space.C) - np.log(space.D)


LOGIT = Logit()


def scale_for(transform: Transform, breaks: tuple[float, ...] = (), given: QuantileScale | None = None) -> QuantileScale:
    """The quantile scale that a transform needs, with panels that end at its breaks and at those of a procedure.

    Where a scale is given, that one: with as many pieces, and its own breaks and depth beside those that the transform needs.
    """
    as_transform("scale_for", transform)
    depth, pieces = (transform.depth, 1) if given is None else (max(transform.depth, given.depth), given.pieces)
    every = {*breaks, *getattr(transform, "breaks", ()), *(() if given is None else given.breaks)}
    if given is not None and depth == given.depth and every == set(given.breaks):
        return given
    return quantile_scale(tuple(sorted(every)), depth, pieces)


def as_transform(where: str, x: Any, argument: str = "transform") -> Transform:
    """Guard a transform: what can be called on a space and has a name and a depth."""
    named = isinstance(getattr(x, "name", None), str) and isinstance(getattr(x, "depth", None), int)
    if isinstance(x, type) or not callable(x) or not named:
        fail(where, argument, "be a transform: IDENTITY, LOG, Function(..), .., or what has name and depth", repr(x))
    return cast(Transform, x)


# --- closed forms on the quantile scale ------------------------------------------------------------------------------


@np.errstate(under="ignore")
def identity_mean(beta: float) -> float:
    """E u of f = e^{u/beta} / Z: 1 / (1 - e^{-1/beta}) - beta; it is the win rate for N = 1."""
    b = as_real("identity_mean", "beta", beta, 1e-8, 1e8)
    x = 1.0 / b
    if x < 0.05:  # 1/2 + x/12 - x^3/720 + x^5/30240 - x^7/1209600
        return 0.5 + x / 12.0 - x**3 / 720.0 + x**5 / 30240.0 - x**7 / 1209600.0
    return 1.0 / -float(np.expm1(-x)) - b


@np.errstate(under="ignore")
def identity_kl(beta: float) -> float:
    """KL of the identity's policy: E u / beta - log(beta (e^{1/beta} - 1))."""
    b = as_real("identity_kl", "beta", beta, 1e-8, 1e8)
    x = 1.0 / b
    if x < 0.05:  # x^2/24 - x^4/960 + x^6/36288 - x^8/1382400
        return x**2 / 24.0 - x**4 / 960.0 + x**6 / 36288.0 - x**8 / 1382400.0
    rest = -float(np.expm1(-x))  # E u / b - 1/b = x / (e^x - 1) - 1
    return x * float(np.exp(-x)) / rest - 1.0 - float(np.log(b)) - float(np.log(rest))


def best_of_n_kl(k: float) -> float:
    """KL of best-of-k against a reference without ties: log k - (k-1)/k; also that of Phi = log u with k = 1 + 1/beta."""
    x = as_real("best_of_n_kl", "k", k, 1.0, 1e300)
    return float(np.log(x)) - (x - 1.0) / x


def best_of_n_win(k: float) -> float:
    """Standard win rate of best-of-k without ties: k / (k + 1); for Phi = log u the best-of-N win rate for every N."""
    x = as_real("best_of_n_win", "k", k, 1.0, 1e300)
    return x / (x + 1.0)


def logit_beta(beta: float) -> tuple[float, float]:
    """(a, b) = (1 + 1/beta, 1 - 1/beta), the parameters of the logit's Beta law.

    Raises:
        ValueError: beta <= 1: the density is not integrable.
    """
    weight = as_real("logit_beta", "beta", beta, 0.0, 1e8)
    if not weight > 1.0:
        fail("logit_beta", "beta", "exceed 1: e^{Phi / beta} = (u / (1-u))^{1/beta} is not integrable below", weight)
    return 1.0 + 1.0 / weight, 1.0 - 1.0 / weight


@np.errstate(under="ignore")
def logit_kl(beta: float) -> float:
    """KL of Beta(a, b) with a + b = 2 to the uniform law: (a-1) (psi(a) - psi(b)) - log B(a, b), as b - 1 = -(a - 1)."""
    from scipy.special import betaln, psi

    a, b = logit_beta(beta)
    return float((a - 1.0) * (psi(a) - psi(b)) - betaln(a, b))


@np.errstate(under="ignore")
def logit_cdf(space: QuantileScale, beta: float) -> tuple[FloatArray, FloatArray]:
    """(F, 1 - F) of the logit's law at the nodes of a scale, by the incomplete Beta function, each node from its nearer end."""
    from scipy.special import betainc

    a, b = logit_beta(beta)
    low = space.u < 0.5
    near = np.where(low, betainc(a, b, np.where(low, space.u, 0.5)), betainc(b, a, np.where(low, 0.5, space.v)))
    return np.where(low, near, 1.0 - near), np.where(low, 1.0 - near, near)
