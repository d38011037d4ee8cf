r"""Inference-time procedures: what turns draws of a policy into the response that is returned.

A procedure T maps the law pi of one draw to the law T(pi) of what is returned. What counts is the win rate

    W(pi) = P(y beats z) + 1/2 P(tie),   y ~ T(pi), z ~ T(pi_ref) independent.

Its gradient is the transformed reward R(y) = dW/dpi(y), up to a constant: the KL-regularised optimum of W is a Gibbs law with
reward R taken at itself (:mod:`mdpsim.align.optimum`). A procedure gives

* ``law(space, pi)`` -> [n] masses of T(pi);
* ``reward(space, pi, rival)`` -> [n] R at pi, against the law ``rival`` (T(pi_ref), or any other);
* ``simulate(space, pi, n, rng)`` -> n returned draws, made as the procedure says, not from ``law``;
* ``breaks``: quantiles where its law jumps.

``Ranked`` procedures act on ranks alone: the CDF of what is returned is g(F). With levels l, cumulative masses P_l and A_l =
g(P_l) - g(P_{l-1}) they have T(y) = pi(y) A_l / p_l, and for a rival whose chance to be beaten at level l is c_l,

    R at level m = sum_{l < m} g'(P_l) (c_{l+1} - c_l) + const;   continuous: R(u) = int_0^u g'(F) dC.

A power N multiplies the rounding of what it is taken of, and near 1 float64 has only 16 digits: there P^N = e^{N log1p(-(1 -
P))} with 1 - P summed from its own end. So laws sum to one within a few roundings for every N.

Reference: Balashankar et al., "InfAlign: Inference-aware language model alignment", ICML 2025, arXiv 2412.19792.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mdpsim.align.arithmetic import DRAWN, from_nearer_end, largest_jump, pick, power, power_ratio
from mdpsim.align.calibration import Ranks
from mdpsim.align.spaces import Responses, Space, check_breaks
from mdpsim.arrays import ROW_TOLERANCE, FloatArray, as_count, as_real, fail

MAX_N = 10**6
RETRIES = 1000  # of rejection, drawn one by one
STEP = 2e-3  # of the numerical derivatives
JUMP = 1e-6  # of a distortion: a steeper one is not continuous for float64
STENCIL = np.array([-25 / 12, 4.0, -3.0, 4 / 3, -1 / 4])  # derivative from values at 0, 1, .., 4: exact to degree 4


class Procedure(Protocol):
    """Anything with a law, a transformed reward and a simulation."""

    @property
    def breaks(self) -> tuple[float, ...]:
        """Quantiles where the law jumps."""
        ...

    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """[n] masses of T(pi)."""
        ...

    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """[n] dW/dpi(y) at pi against ``rival``, up to a constant."""
        ...

    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """n draws of what is returned."""
        ...


@np.errstate(under="ignore")
def beats(space: Space, law: FloatArray) -> FloatArray:
    """[n] chance to beat a draw from ``law``, ties half."""
    found = space.ranks(law)
    return found.below + 0.5 * found.mass


class Ranked:
    """The base of procedures that see ranks only. Subclasses give ``slope`` and ``factor``, from ranks of the policy."""

    breaks: tuple[float, ...] = ()

    def slope(self, ranks: Ranks) -> FloatArray:
        """g'(P_l) at the top of each level."""
        raise NotImplementedError

    def factor(self, ranks: Ranks) -> FloatArray:
        """A_l / p_l, the limit g' where p_l = 0."""
        raise NotImplementedError

    @np.errstate(under="ignore")
    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """pi(y) A_l / p_l."""
        return pi * self.factor(space.ranks(pi))

    @np.errstate(under="ignore")
    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """The formula of the module's head."""
        return space.climb(self.slope(space.ranks(pi)), rival)

    @np.errstate(under="ignore")
    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """From the law: subclasses that are a selection among draws select."""
        return space.sample(self.law(space, pi), (n,), rng)


@dataclass(frozen=True)
class BestOfN(Ranked):
    """Draw N responses, return the one with the largest reward (ties at random): g = F^N. Args: n >= 1."""

    n: int

    def __post_init__(self) -> None:
        as_count(type(self).__name__, "n", self.n, high=MAX_N)

    @np.errstate(under="ignore")
    def slope(self, ranks: Ranks) -> FloatArray:
        """N P_l^{N-1}."""
        return self.n * power(ranks.below + ranks.mass, ranks.above, self.n - 1)

    @np.errstate(under="ignore")
    def factor(self, ranks: Ranks) -> FloatArray:
        """(P_l^N - P_{l-1}^N) / p_l, without cancellation."""
        return power_ratio(ranks.below + ranks.mass, ranks.mass, ranks.above, self.n)

    @np.errstate(under="ignore")
    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """The best of N draws; where they are more than ``DRAWN``, their largest rank by inversion: U^{1/N}, U uniform."""
        if n * self.n > DRAWN:
            return space.sample_top(pi, np.log(rng.random(n)) / self.n, rng)
        return pick(space, pi, space.rewards, (n, self.n), rng)


@dataclass(frozen=True)
class WorstOfN(BestOfN):
    """Draw N responses, return the one with the smallest reward: what best-of-N jailbreaking does; g = 1 - (1 - F)^N."""

    @np.errstate(under="ignore")
    def slope(self, ranks: Ranks) -> FloatArray:
        """N (1 - P_l)^{N-1}."""
        return self.n * power(ranks.above, ranks.below + ranks.mass, self.n - 1)

    @np.errstate(under="ignore")
    def factor(self, ranks: Ranks) -> FloatArray:
        """((1 - P_{l-1})^N - (1 - P_l)^N) / p_l."""
        return power_ratio(ranks.above + ranks.mass, ranks.mass, ranks.below, self.n)

    @np.errstate(under="ignore")
    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """The worst of N draws; where they are more than ``DRAWN``, their least rank by inversion."""
        if n * self.n > DRAWN:
            return space.sample_top(pi, np.log(rng.random(n)) / self.n, rng, lowest=True)
        return pick(space, pi, lambda drawn: -space.rewards(drawn), (n, self.n), rng)


def Identity() -> BestOfN:
    """One draw, returned: the standard win rate (best-of-1)."""
    return BestOfN(1)


@dataclass(frozen=True)
class Distortion(Ranked):
    """A procedure by ranks of one's own: the CDF of what is returned is g(F), F that of one draw.

    Args:
        g: continuous and increasing on [0, 1] with g(0) = 0 and g(1) = 1, taking arrays. The median of three draws: 3 F^2 -
            2 F^3. The argument is F rounded to float64, which costs the law eps times the slope of g.
        slope_of: g'; None differentiates g numerically (five points, one-sided at the ends; exact to degree 4).
    Raises:
        ValueError: a law that does not sum to one (g(0), g(1)) or has negative masses (a decreasing g); a g that jumps, or
            takes no arrays.
    """

    g: Callable[[Any], Any]
    slope_of: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        x = np.linspace(0.0, 1.0, 1001)
        values = self._values(x)
        if values.shape != (1001,) or not np.isfinite(values).all():
            fail("Distortion", "g", "be finite on [0, 1] and take arrays", f"values of shape {values.shape}")
        if abs(values[0]) > ROW_TOLERANCE or abs(values[-1] - 1.0) > ROW_TOLERANCE:
            ends = f"{values[0]:.12g}, {values[-1]:.12g}"
            fail("Distortion", "g", "have g(0) = 0 and g(1) = 1 (a law that sums to one)", ends)
        if (np.diff(values) < -1e-12).any():
            fail("Distortion", "g", "increase: its steps are masses", f"a step of {np.diff(values).min():.3g}")
        size, at = largest_jump(self._values, x)
        if size > JUMP:
            fail("Distortion", "g", "be continuous: g' is a density (a Custom may jump)", f"a jump of {size:.3g} at {at:.9g}")

    def _values(self, x: FloatArray) -> FloatArray:
        """g(x), or the error of the house where it takes no arrays."""
        try:
            with np.errstate(under="ignore"):
                return np.asarray(self.g(x), dtype=float)
        except (TypeError, ValueError) as error:
            return fail("Distortion", "g", "take arrays (numpy.where, not if) and return numbers", error)

    def _derivative(self, x: FloatArray) -> FloatArray:
        x = np.clip(x, 0.0, 1.0)
        with np.errstate(under="ignore"):
            if self.slope_of is not None:
                return np.asarray(self.slope_of(x), dtype=float)
            h = np.where(x <= 0.5, STEP, -STEP)
            return sum(c * self._values(x + k * h) for k, c in enumerate(STENCIL)) / h

    @np.errstate(under="ignore")
    def slope(self, ranks: Ranks) -> FloatArray:
        """g'(P_l)."""
        return self._derivative(from_nearer_end(ranks.below + ranks.mass, ranks.above))

    @np.errstate(under="ignore")
    def factor(self, ranks: Ranks) -> FloatArray:
        """(g(P_l) - g(P_{l-1})) / p_l, or g' where that would cancel: where it is numerical, only where p_l = 0."""
        low = from_nearer_end(ranks.below, ranks.above + ranks.mass)
        top = from_nearer_end(ranks.below + ranks.mass, ranks.above)
        wide = ranks.mass > (0.0 if self.slope_of is None else 1e-9)
        with np.errstate(under="ignore"):
            steps = (self._values(top) - self._values(low)) / np.where(wide, ranks.mass, 1.0)
            return np.where(wide, steps, self._derivative(low + 0.5 * ranks.mass))


@dataclass(frozen=True)
class Temperature:
    """Draw from the law proportional to pi^{1/tau}. On the quantile scale pi_ref is uniform, and this is f^{1/tau}.

    Args: tau > 0; below 1 sharpens. With p = 1/tau, R = p pi^{p-1} (c - W) / sum pi^p: the -W matters.
    """

    tau: float
    breaks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        as_real("Temperature", "tau", self.tau, 1e-3, 1e3)
        check_breaks("Temperature", self.breaks)

    @staticmethod
    def _powers(space: Space, pi: FloatArray, power: float) -> FloatArray:
        """(f / max f)^power, f = pi / base: in logarithms, so that no power over- or underflows at the top."""
        with np.errstate(divide="ignore"):
            x = np.log(pi / space.base)
        return np.exp(power * (x - x.max())) if power != 0.0 else np.ones(pi.shape)

    @np.errstate(under="ignore")
    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """pi^{1/tau} / sum."""
        mass = space.base * self._powers(space, pi, 1.0 / self.tau)
        return mass / mass.sum()

    @np.errstate(under="ignore")
    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """p pi^{p-1} (c - W) / sum pi^p."""
        p, c = 1.0 / self.tau, beats(space, rival)
        mass = space.base * self._powers(space, pi, p)
        total, top = mass.sum(), (pi / space.base).max()
        win = float(mass @ c) / total
        with np.errstate(over="ignore"):
            return p * self._powers(space, pi, p - 1.0) * (c - win) / (total * top)

    @np.errstate(under="ignore")
    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws from the law: that is the procedure."""
        return space.sample(self.law(space, pi), (n,), rng)


@dataclass(frozen=True)
class Rejection:
    """Draw until a response has calibrated reward of at least ``threshold``, at most n draws; the last one is returned.

    Args: threshold in (0, 1). n >= 1, or None for no limit (then a policy must reach the threshold).
    With A the mass below it and G = 1 + A + .. + A^{n-1}: T(y) = pi(y) G above it, pi(y) A^{n-1} below.
    """

    threshold: float
    n: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < as_real("Rejection", "threshold", self.threshold, 0.0, 1.0) < 1.0:
            fail("Rejection", "threshold", "lie in (0, 1)", self.threshold)
        if self.n is not None:
            as_count("Rejection", "n", self.n, high=MAX_N)

    @property
    def breaks(self) -> tuple[float, ...]:
        """The law jumps at the threshold."""
        return (self.threshold,)

    def _parts(self, space: Space, pi: FloatArray) -> tuple[np.ndarray, float, float, float, float]:
        """(accepted, A, G, A^{n-1}, G'(A))."""
        accepted = self.threshold <= space.C
        good, A = (math.fsum(pi[on]) for on in (accepted, ~accepted))
        if self.n is None:
            if good <= 0.0:
                fail("Rejection", "pi", f"reach the threshold {self.threshold:g} with positive probability", good)
            return accepted, A, 1.0 / good, 0.0, 1.0 / good**2
        powers = power(A, good, np.arange(self.n))
        rise = float((np.arange(1, self.n) * powers[:-1]).sum())
        return accepted, A, float(powers.sum()), float(powers[-1]), rise

    @np.errstate(under="ignore")
    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """The formula above."""
        accepted, _, more, left, _ = self._parts(space, pi)
        return pi * np.where(accepted, more, left)

    @np.errstate(under="ignore")
    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """G c above the threshold; below it A^{n-1} c + G'(A) E[c; above] + (n-1) A^{n-2} E[c; below]."""
        accepted, A, more, left, rise = self._parts(space, pi)
        c = beats(space, rival)
        above, below = float(pi[accepted] @ c[accepted]), float(pi[~accepted] @ c[~accepted])
        good = math.fsum(pi[accepted])
        down = 0.0 if self.n is None or self.n == 1 else (self.n - 1) * float(power(A, good, self.n - 2))
        return np.where(accepted, more * c, left * c + rise * above + down * below)

    @np.errstate(under="ignore")
    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw again what was refused; after ``RETRIES`` rounds, whether a draw is ever accepted, and which one, at once."""
        accepted, A, _, _, _ = self._parts(space, pi)
        drawn, tries = space.sample(pi, (n,), rng), 1
        while self.n is None or tries < self.n:
            refused = np.flatnonzero(space.calibrated(drawn) < self.threshold)
            if refused.size == 0:
                break
            if tries == RETRIES:
                never = 0.0 if self.n is None else float(power(A, math.fsum(pi[accepted]), self.n - tries))
                kept = refused[rng.random(refused.size) >= never]
                if kept.size:
                    drawn[kept] = space.sample(np.where(accepted, pi, 0.0), (kept.size,), rng)
                break  # the others keep a refused draw: all draws that are refused have one law
            drawn[refused] = space.sample(pi, (refused.size,), rng)
            tries += 1
        return drawn


@dataclass(frozen=True)
class Custom:
    """A procedure of one's own on a finite space, as a function of the policy's law.

    Args:
        function: ``(pi [Y], space) -> [Y]`` the law of what is returned, defined for every law pi.
        derivative: ``(pi, c [Y], space) -> [Y]``, the derivative of sum_y T(pi)(y) c(y) in pi, up to a constant; None takes it
            numerically: along (1 - h) pi + h e_y, h = 0, .., 4 STEP, exact where T is a polynomial of degree 4 in pi.
    Cost: with the numerical derivative 4 Y evaluations of the function for each gradient.
    Raises:
        ValueError: a law of another shape, with negative or non-finite masses, or that does not sum to one.
    """

    function: Callable[[FloatArray, Any], Any]
    derivative: Callable[[FloatArray, FloatArray, Any], Any] | None = None
    breaks: tuple[float, ...] = ()

    @np.errstate(under="ignore")
    def law(self, space: Space, pi: FloatArray) -> FloatArray:
        """function(pi), checked."""
        if not isinstance(space, Responses):
            fail("Custom", "space", "be Responses (cells of equal mass stand for the quantile scale)", type(space).__name__)
        law = np.asarray(self.function(pi, space), dtype=float)
        if law.shape != pi.shape or not np.isfinite(law).all() or law.min() < -ROW_TOLERANCE:
            fail("Custom", "function", f"return {pi.size} masses, finite and not negative", f"{law!r}")
        if abs(law.sum() - 1.0) > ROW_TOLERANCE:
            fail("Custom", "function", f"return a law that sums to one within {ROW_TOLERANCE:g}", f"sum {law.sum():.12g}")
        return law

    @np.errstate(under="ignore")
    def reward(self, space: Space, pi: FloatArray, rival: FloatArray) -> FloatArray:
        """The derivative given, or the numerical one."""
        c = beats(space, rival)
        if self.derivative is not None:
            return np.asarray(self.derivative(pi, c, space), dtype=float)
        at_pi = float(self.law(space, pi) @ c)
        out = np.empty(pi.size)
        for y in range(pi.size):
            values = [at_pi]
            for k in range(1, STENCIL.size):
                mixed = (1.0 - k * STEP) * pi
                mixed[y] += k * STEP
                values.append(float(self.law(space, mixed) @ c))
            out[y] = STENCIL @ values / STEP
        return out

    @np.errstate(under="ignore")
    def simulate(self, space: Space, pi: FloatArray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draws from the law."""
        return space.sample(self.law(space, pi), (n,), rng)
