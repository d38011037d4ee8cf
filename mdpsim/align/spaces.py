r"""Where policies live: a finite set of responses, or the continuous scale of quantiles.

On both a law is an array of masses [n] that sum to one, beside the masses ``pi_ref`` of the reference, and a transform is an
array of values [n]; so win rates, KL divergences and tilts are the same sums on both.

* ``Responses``: Y responses with rewards, ties included. Everything is exact.
* ``QuantileScale``: y <-> u = C(y), uniform under pi_ref. The masses are w f, f the density of the policy and w the weights
  of a
  quadrature: panels with Gauss-Legendre nodes in u between 1/16 and 15/16, and in log u and log(1 - u) towards the ends, down
  to 2^-56; so densities may vary on any scale near 0 and 1. The CDF at the nodes is a matrix product within each panel (the
  integral of the interpolating polynomial), summed from the nearer end. ``halved()`` is the same scale with every panel cut
  in two, for a check of any number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.calibration import Ranks, ordered, ranks
from mdpsim.arrays import FloatArray, as_count, as_floats, as_real, as_simplex, fail, frozen
from mdpsim.records import record

ORDER = 16  # Gauss-Legendre nodes in a panel
EDGE = 4  # end panels start at 2^-EDGE
DEPTH = 56  # and reach to 2^-DEPTH, below the spacing of float64 at 1
HALVINGS = 18  # of a step between nodes, in the search for jumps
STRIDE = 2  # octaves that one end panel covers


@record
@dataclass(frozen=True, init=False, eq=False)
class Responses:
    """Finitely many responses of one prompt.

    Args:
        r: [Y] finite rewards. pi_ref: [Y] reference probabilities; None takes equal ones.
    Attributes:
        C: [Y] calibrated rewards; D: 1 - C, accurate near 1.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    r: FloatArray
    pi_ref: FloatArray
    breaks: tuple[float, ...] = ()

    def __init__(self, r: ArrayLike, pi_ref: ArrayLike | None = None) -> None:
        rewards = as_floats("Responses", "r", r, "Y", (None,))
        uniform = np.full(rewards.size, 1.0 / rewards.size)
        object.__setattr__(self, "r", rewards)
        p = as_simplex("Responses", "pi_ref", uniform if pi_ref is None else pi_ref, "Y", rewards.shape)
        object.__setattr__(self, "pi_ref", p)

    @property
    def size(self) -> int:
        """Y."""
        return self.r.size

    @property
    def base(self) -> FloatArray | float:
        """The measure that powers of a law are taken against: counting."""
        return 1.0

    @cached_property
    def order(self) -> np.ndarray:
        """[1, Y] argsort of the rewards."""
        return ordered(self.r[None])

    @cached_property
    def _reference(self) -> Ranks:
        return self.ranks(self.pi_ref)

    @cached_property
    @np.errstate(under="ignore")
    def C(self) -> FloatArray:
        """[Y] P(z < y) + 1/2 P(z ties with y), z ~ pi_ref."""
        return frozen(self._reference.below + 0.5 * self._reference.mass)

    @cached_property
    @np.errstate(under="ignore")
    def D(self) -> FloatArray:
        """[Y] 1 - C, summed from the other end."""
        return frozen(self._reference.above + 0.5 * self._reference.mass)

    @np.errstate(under="ignore")
    def ranks(self, pi: FloatArray) -> Ranks:
        """Mass below, at and above each response's reward: [Y] each."""
        return Ranks(*(x[0] for x in ranks(self.r[None], np.ascontiguousarray(pi)[None], self.order)))

    @np.errstate(under="ignore")
    def climb(self, slope: FloatArray, rival: FloatArray) -> FloatArray:
        """[Y] int slope dC_rival: at level m the sum over lower levels l of slope_l (t_l + t_{l+1}) / 2.

        t are the level masses of the law ``rival``, so that (t_l + t_{l+1}) / 2 is by how much the chance to beat it rises.
        """
        sequence = self.order[0]
        mass, values = self.ranks(rival).mass[sequence], np.asarray(slope)[sequence]
        rise = np.where(np.diff(self.r[sequence]) > 0.0, values[:-1] * 0.5 * (mass[:-1] + mass[1:]), 0.0)
        out = np.empty(self.size)
        out[sequence] = np.append(0.0, np.cumsum(rise))
        return out

    @np.errstate(under="ignore")
    def sample(self, pi: FloatArray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Indices of draws from pi."""
        sums = np.cumsum(pi)
        return sums.searchsorted(rng.random(shape) * sums[-1], side="right").clip(max=self.size - 1)

    @np.errstate(under="ignore")
    def sample_top(self, pi: FloatArray, log_rank: np.ndarray, rng: np.random.Generator, lowest: bool = False) -> np.ndarray:
        """Indices of the responses at given quantiles of pi, as logarithms: from the top down, or from the lowest up.

        Where responses tie, one of the level by its mass: so the largest of N draws is at U^{1/N}, ties at random.
        """
        order = self.order[0] if lowest else self.order[0, ::-1]
        r, sums = self.r[order], np.cumsum(pi[order])
        heads = np.flatnonzero(np.append(True, r[1:] != r[:-1]))
        ends = np.append(heads[1:], self.size)
        bounds = np.append(0.0, sums[ends - 1])
        level = sums[ends - 1].searchsorted(-np.expm1(log_rank) * sums[-1], side="right").clip(max=heads.size - 1)
        at = bounds[level] + rng.random(level.shape) * (bounds[level + 1] - bounds[level])
        return order[sums.searchsorted(at, side="right").clip(heads[level], ends[level] - 1)]

    def rewards(self, drawn: np.ndarray) -> np.ndarray:
        """What draws are compared by."""
        return self.r[drawn]

    def calibrated(self, drawn: np.ndarray) -> np.ndarray:
        """C of draws."""
        return self.C[drawn]


@lru_cache(maxsize=4)
def _rule(order: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Gauss-Legendre on [0, 1]: nodes x, weights w [m]; and [m, m] matrices that take the masses of a panel to the cumulative
    mass up to each node, and from each node on."""
    x, w = np.polynomial.legendre.leggauss(order)
    # int_{-1}^{x_j} of the interpolating polynomial: in Legendre polynomials, int P_k = (P_{k+1} - P_{k-1}) / (2k + 1).
    vander = np.polynomial.legendre.legvander(x, order)
    k = np.arange(order)
    integral = np.empty((order, order))
    integral[:, 0] = x + 1.0
    integral[:, 1:] = (vander[:, 2:] - vander[:, : order - 1]) / (2 * k[1:] + 1)
    up = (integral * (2 * k + 1) / 2.0) @ vander[:, :order].T  # the weights of the masses w f
    return frozen(0.5 * (x + 1.0)), frozen(0.5 * w), frozen(up), frozen(1.0 - up)


def _edges(depth: int, breaks: tuple[float, ...], pieces: int) -> tuple[FloatArray, np.ndarray]:
    """Panel edges, and the kind of each panel: -1 in log u, 0 in u, 1 in log(1 - u); edges of kind 1 are given as 1 - u.

    Returned as [M, 2] (low, high) in the panel's own variable.
    """
    tail = 2.0 ** -np.arange(EDGE, depth + 1, STRIDE, dtype=float)
    middle = np.arange(1, 16) / 16.0
    plain = np.unique(np.concatenate([middle, [b for b in breaks if 1 / 16 < b < 15 / 16]]))
    low = np.unique(np.concatenate([tail, [b for b in breaks if tail[-1] < b < 1 / 16]]))
    high = np.unique(np.concatenate([tail, [1.0 - b for b in breaks if 15 / 16 < b < 1.0 - tail[-1]]]))
    rows = [(0, 0.0, low[0])]
    rows += [(-1, np.log(a), np.log(b)) for a, b in itertools.pairwise(low)]
    rows += [(0, a, b) for a, b in itertools.pairwise(plain)]
    rows += [(1, np.log(a), np.log(b)) for a, b in itertools.pairwise(high[::-1])]
    rows += [(2, high[0], 0.0)]
    kinds, spans = [], []
    for kind, a, b in rows:
        cuts = np.linspace(a, b, pieces + 1)
        kinds += [kind] * pieces
        spans += list(itertools.pairwise(cuts))
    return np.array(spans), np.array(kinds)


def check_breaks(where: str, breaks: object) -> None:
    """Guard a tuple of points in (0, 1)."""
    if not isinstance(breaks, tuple):
        fail(where, "breaks", "be a tuple", repr(breaks))
    for b in breaks:
        if not 0.0 < as_real(where, "breaks", b, -1e300, 1e300) < 1.0:
            fail(where, "breaks", "lie in (0, 1)", b)


@record
@dataclass(frozen=True, eq=False)
class QuantileScale:
    """The quantiles u = C(y) of a reference without ties, with a quadrature.

    Args:
        breaks: points in (0, 1) where densities or transforms jump or have kinks: panels end there.
        depth: panels towards the ends reach to 2^-depth, at least 8, at most 1000; towards 1 float64 knows u only to 2^-53, but
            transforms that take 1 - u (the logit) use what lies beyond.
        pieces: into how many each panel is cut.
    Attributes:
        u, v: [n] nodes and 1 - nodes. pi_ref: [n] weights, which sum to one. C, D: u and v.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    breaks: tuple[float, ...] = ()
    depth: int = DEPTH
    pieces: int = 1
    u: FloatArray = field(init=False, repr=False)
    v: FloatArray = field(init=False, repr=False)
    pi_ref: FloatArray = field(init=False, repr=False)

    @np.errstate(under="ignore")
    def __post_init__(self) -> None:
        as_count("QuantileScale", "depth", self.depth, low=8, high=1000)
        as_count("QuantileScale", "pieces", self.pieces, high=1000)
        check_breaks("QuantileScale", self.breaks)
        x, w, _, _ = _rule(ORDER)
        spans, kinds = _edges(self.depth, tuple(self.breaks), self.pieces)
        low, width = spans[:, :1], np.diff(spans, axis=1)
        at, kind = low + width * x, kinds[:, None]
        near = np.where(np.abs(kind) == 1, np.exp(np.where(np.abs(kind) == 1, at, 0.0)), at)
        weight = np.abs(width) * w * np.where(np.abs(kind) == 1, near, 1.0)
        u = np.where(kind > 0, 1.0 - near, near)
        v = np.where(kind > 0, near, 1.0 - near)
        object.__setattr__(self, "u", frozen(u.reshape(-1)))
        object.__setattr__(self, "v", frozen(v.reshape(-1)))
        object.__setattr__(self, "pi_ref", frozen(weight.reshape(-1) / weight.sum()))

    @property
    def size(self) -> int:
        """Number of nodes."""
        return self.u.size

    @property
    def base(self) -> FloatArray:
        """The measure that powers of a law are taken against: du."""
        return self.pi_ref

    @property
    def C(self) -> FloatArray:
        """u."""
        return self.u

    @property
    def D(self) -> FloatArray:
        """1 - u."""
        return self.v

    def ends_at(self, b: float) -> bool:
        """Whether a panel ends at b: a jump there costs no accuracy."""
        return b in self.breaks or float(16.0 * b).is_integer()

    def halved(self) -> QuantileScale:
        """The same with every panel cut in two."""
        return self.cut(2)

    def cut(self, k: int) -> QuantileScale:
        """The same with every panel cut in k."""
        return QuantileScale(self.breaks, self.depth, k * self.pieces)

    @np.errstate(under="ignore")
    def cumulate(self, mass: FloatArray) -> FloatArray:
        """[n] mass up to each node."""
        _, _, up, _ = _rule(ORDER)
        panels = mass.reshape(-1, ORDER)
        start = np.cumsum(panels.sum(axis=1))
        return (np.append(0.0, start[:-1])[:, None] + panels @ up.T).reshape(-1)

    @np.errstate(under="ignore")
    def ranks(self, pi: FloatArray) -> Ranks:
        """F and 1 - F at each node, each summed from its own end; no level has mass."""
        _, _, up, down = _rule(ORDER)
        panels = pi.reshape(-1, ORDER)
        totals = panels.sum(axis=1)
        start, end = np.cumsum(totals), np.cumsum(totals[::-1])[::-1]
        below = np.append(0.0, start[:-1])[:, None] + panels @ up.T
        above = np.append(end[1:], 0.0)[:, None] + panels @ down.T
        return Ranks(below.reshape(-1).clip(min=0.0), np.zeros(self.size), above.reshape(-1).clip(min=0.0))

    @np.errstate(under="ignore")
    def climb(self, slope: FloatArray, rival: FloatArray) -> FloatArray:
        """[n] int_0^u slope dT, T the CDF of the law ``rival``: by how much the chance to beat it rises."""
        return self.cumulate(slope * rival)

    @np.errstate(under="ignore")
    def sample(self, pi: FloatArray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Draws u from pi, by linear interpolation of its CDF between the nodes."""
        below = self.ranks(pi).below
        keep = np.append(True, np.diff(np.maximum.accumulate(below)) > 0.0)
        return np.interp(rng.random(shape) * below[-1], below[keep], self.u[keep])

    @np.errstate(under="ignore")
    def sample_top(self, pi: FloatArray, log_rank: np.ndarray, rng: np.random.Generator, lowest: bool = False) -> np.ndarray:
        """u at given quantiles of pi, as logarithms: from the top down, or from the lowest up (no draw is needed: no ties)."""
        found = self.ranks(pi)
        mass, u = (found.below, self.u) if lowest else (found.above[::-1], self.u[::-1])
        keep = np.append(True, np.diff(np.maximum.accumulate(mass)) > 0.0)
        return np.interp(-np.expm1(log_rank), mass[keep], u[keep])

    def rewards(self, drawn: np.ndarray) -> np.ndarray:
        """What draws are compared by."""
        return drawn

    def calibrated(self, drawn: np.ndarray) -> np.ndarray:
        """C of draws."""
        return drawn


Space = Responses | QuantileScale


@lru_cache(maxsize=32)
def quantile_scale(breaks: tuple[float, ...] = (), depth: int = DEPTH, pieces: int = 1) -> QuantileScale:
    """A QuantileScale, made once."""
    return QuantileScale(tuple(sorted(breaks)), depth, pieces)


@np.errstate(under="ignore")
def jumps(function: Callable[[FloatArray, FloatArray], FloatArray], space: QuantileScale) -> str | None:
    """Where a function of (u, 1 - u) jumps within panels of a scale, in words; None where every panel resolves it.

    The panels interpolate by polynomials of degree 15, and one of those that varies by V over a panel of length 1 is nowhere
    steeper than 15^2 V (Markov). So the larger half of each step between two nodes is followed down to 2^-18 of it, and what
    is then steeper is a jump for the panel, as is any of more than V / 10^4. Not looked for: jumps in the first
    panel and above 1 - 2^-30, where u itself is a grid; thin spikes between two nodes; kinks.
    """
    spans, kinds = _edges(space.depth, tuple(space.breaks), space.pieces)
    seen = ((kinds == 0) & (spans[:, 1] > 1 / 16)) | (kinds == -1) | ((kinds == 1) & (spans[:, 1] > np.log(2.0**-30)))
    low, width, kind = spans[seen, :1], np.diff(spans[seen], axis=1), kinds[seen, None]

    def at(t: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(u, Phi) at places t in [0, 1] of the panels."""
        x = low + width * t
        near = np.where(kind == 0, x, np.exp(np.where(kind == 0, 0.0, x)))
        u, v = np.where(kind == 1, 1.0 - near, near), np.where(kind == 1, near, 1.0 - near)
        values = function(frozen(u.reshape(-1)), frozen(v.reshape(-1))).reshape(u.shape)
        return u, np.maximum(values, -1e300)  # -inf is far below, not nothing

    inside = np.concatenate([[1e-9], _rule(ORDER)[0], [1.0 - 1e-9]])
    a, b = (np.repeat(x[None], len(low), axis=0) for x in (inside[:-1], inside[1:]))
    (_, below), (_, above) = at(a), at(b)
    variation = np.maximum(below, above).max(axis=1, keepdims=True) - np.minimum(below, above).min(axis=1, keepdims=True)
    size = np.maximum(np.abs(below), np.abs(above)).max(axis=1, keepdims=True)
    for _ in range(HALVINGS):
        middle = 0.5 * (a + b)
        value = at(middle)[1]
        upper = np.abs(above - value) > np.abs(value - below)
        a, below = np.where(upper, middle, a), np.where(upper, value, below)
        b, above = np.where(upper, b, middle), np.where(upper, above, value)
    step = np.abs(above - below)
    within = (a > inside[0]) & (b < inside[-1])  # a vertical tangent at the end of a panel is no jump
    found = within & (step > (ORDER - 1) ** 2 * variation * (b - a)) & (step > 1e-12 * size + 1e-290)
    if not found.any():
        return None
    return f"jumps of {step[found].max():.3g} at most, near u = {', '.join(f'{u:.6g}' for u in at(b)[0][found][:4])}"
