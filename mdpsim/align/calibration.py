r"""Calibrated rewards: where a response stands among those of the reference policy.

    C(y) = E_{z ~ pi_ref} w(y, z),   w(y, z) = 1{r(y) > r(z)} + 1/2 1{r(y) = r(z)}.

C has mean 1/2 under pi_ref, and variance (1 - sum_l p_l^3) / 12 where p_l is the mass of reward level l, 1/12 where no level
has mass; strictly increasing transforms of r leave it unchanged; and E_pi C is the win rate of pi against pi_ref. Proof of
the
variance: replace a draw from level l by a uniform point of its block of quantiles, U uniform on [0, 1]; C is the mean of U over
the block, so Var U = 1/12 = Var C + sum_l p_l p_l^2 / 12.

Where pi_ref can only be sampled, K anchors z_k per prompt give C_hat(y) = (1/K) sum_k w(y, z_k), unbiased with
E (C_hat - C)^2 = Var w / K: 1/(6K) on average over pi_ref without ties. Shared anchors (the same for all responses of a prompt)
keep C_hat increasing in r; independent anchors (new ones for each response) do not.

Everything takes [Y] responses of one prompt, or [X, Y] with one row a prompt.

Reference: Balashankar et al., "InfAlign: Inference-aware language model alignment", ICML 2025, arXiv 2412.19792.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_count, as_flag, as_floats, as_simplex, axes_of, fail, frozen
from mdpsim.kernels import quantile
from mdpsim.memory import empty
from mdpsim.records import record
from mdpsim.rng import as_generator


@record
class Ranks(NamedTuple):
    """For each response, the mass of a law strictly below its reward, at it (itself included), and strictly above it."""

    below: FloatArray
    mass: FloatArray
    above: FloatArray


@np.errstate(under="ignore")
def calibrate(r: ArrayLike, pi_ref: ArrayLike) -> FloatArray:
    """The calibrated reward C(y) = P_{z ~ pi_ref}(r(z) < r(y)) + 1/2 P(r(z) = r(y)), exactly.

    Args:
        r: [Y] or [X, Y] rewards. pi_ref: probabilities of the same shape; a zero is a response that the reference never gives.
    Returns:
        C in [0, 1], of the shape of r.
    Exactness: a sum of at most Y probabilities: relative error Y eps.
    Cost: O(X Y log Y).
    Raises:
        ValueError: naming the argument, what was wanted and what came (rewards that are not finite among them).
    """
    rewards, p = _pair("calibrate", r, pi_ref)
    found = ranks(rewards, p)
    return frozen(_shaped(found.below + 0.5 * found.mass, r))


def ranks(r: FloatArray, p: FloatArray, order: np.ndarray | None = None) -> Ranks:
    """Ranks of [X, Y] guarded rewards under laws p [X, Y]; ``order`` = argsort of r along rows, where it is known."""
    if order is None:
        order = ordered(r)
    out = Ranks(empty(p.shape), empty(p.shape), empty(p.shape))
    quantile.level_sums(r, frozen(p.view()), order, *out)
    return out


def ordered(r: FloatArray) -> np.ndarray:
    """[X, Y] read-only argsort of the rows of r."""
    return frozen(np.argsort(r, axis=1, kind="stable"))


@np.errstate(under="ignore")
def calibration_variance(r: ArrayLike, pi_ref: ArrayLike) -> FloatArray | float:
    """Var_{y ~ pi_ref} C(y) = (1 - sum_l p_l^3) / 12, p_l the mass of reward level l: a float for [Y], else [X]."""
    rewards, p = _pair("calibration_variance", r, pi_ref)
    return _scalar((1.0 - (p * ranks(rewards, p).mass ** 2).sum(axis=1)) / 12.0, r)


@np.errstate(under="ignore")
def calibration_mse(r: ArrayLike, pi_ref: ArrayLike, K: int) -> FloatArray | float:
    """E_{y ~ pi_ref} E (C_hat(y) - C(y))^2 of K anchors: (1/6 + sum p_l^3 / 12 - sum p_l^2 / 4) / K; a float for [Y], else [X].

    Derivation: Var w(y, z) = C (1 - C) - p_l / 4 at level l; its mean under pi_ref is 1/2 - 1/4 - Var C - sum p_l^2 / 4.
    """
    rewards, p = _pair("calibration_mse", r, pi_ref)
    n, mass = as_count("calibration_mse", "K", K), ranks(rewards, p).mass
    square, cube = (p * mass).sum(axis=1), (p * mass**2).sum(axis=1)
    return _scalar((1.0 / 6.0 + cube / 12.0 - square / 4.0) / n, r)


@np.errstate(under="ignore")
def sample_anchors(
    r: ArrayLike, pi_ref: ArrayLike, K: int, rng: np.random.Generator | int, *, shared: bool = True
) -> FloatArray:
    """Rewards of K anchors per prompt, drawn from pi_ref.

    Args:
        K: at least 1. shared: the same anchors for all responses of a prompt, [.., K]; else new ones for each, [.., Y, K].
    Cost: O(X K log Y), times Y where they are not shared.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "sample_anchors"
    rewards, p = _pair(where, r, pi_ref)
    n, generator = as_count(where, "K", K, high=2**30), as_generator(where, rng)
    shape = (rewards.shape[0], n) if as_flag(where, "shared", shared) else (rewards.shape[0], rewards.shape[1] * n)
    out = np.empty(shape)
    for i, sums in enumerate(np.cumsum(p, axis=1)):
        drawn = sums.searchsorted(generator.random(shape[1]) * sums[-1], side="right")
        out[i] = rewards[i, drawn]
    out = out.reshape(*rewards.shape, n) if not shared else out
    return frozen(out[0] if axes_of(r) == 1 else out)


def calibrate_by_anchors(r: ArrayLike, anchors: ArrayLike) -> FloatArray:
    """The empirical calibrated reward C_hat(y) = (1/K) sum_k w(y, z_k), from the rewards of anchors.

    Args:
        r: [Y] or [X, Y] rewards. anchors: [K] or [X, K], shared by the responses of a prompt; or one axis more, [Y, K] or
            [X, Y, K], independent for each response (:func:`sample_anchors` gives both).
    Returns:
        C_hat, of the shape of r: multiples of 1 / (2K).
    Cost: O((X K + X Y) log K).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    rewards = _rewards("calibrate_by_anchors", r)
    z, independent = _anchors("calibrate_by_anchors", anchors, axes_of(r), rewards)
    flat = frozen(rewards.reshape(-1, 1)) if independent else rewards
    out = np.empty(flat.shape)
    quantile.count_anchors(flat, z, out)
    return frozen(out.reshape(np.shape(r)))


def calibrate_by_interpolation(r: ArrayLike, anchors: ArrayLike) -> FloatArray:
    """The calibrated reward by interpolation of the reference's quantiles, from shared anchors [K] or [X, K].

    The CDF is linear between the sorted anchors z_(k) -> (k - 1/2) / K, and constant beyond them: continuous and increasing in
    r, where :func:`calibrate_by_anchors` has steps. Equal anchors count as one step.

    Cost: O((X K + X Y) log K).
    Raises:
        ValueError: naming the argument; independent anchors (there is no common CDF to interpolate).
    """
    rewards = _rewards("calibrate_by_interpolation", r)
    z, independent = _anchors("calibrate_by_interpolation", anchors, axes_of(r), rewards)
    if independent:
        fail("calibrate_by_interpolation", "anchors", "be shared: one axis K beside the prompts", np.shape(anchors))
    out = np.empty(rewards.shape)
    quantile.interpolate(rewards, z, out)
    return frozen(out.reshape(np.shape(r)))


@np.errstate(under="ignore")
def ks_distance(C: ArrayLike, pi: ArrayLike) -> FloatArray | float:
    """Kolmogorov distance sup_u |P_pi(C <= u) - u| between the law of C under pi and the uniform law on [0, 1].

    Args:
        C: [Y] or [X, Y], values in [0, 1]. pi: probabilities of the same shape (1/n each for a sample of n).
    Returns:
        A float for [Y], else [X].
    Exactness: rounding only. Cost: O(X Y log Y).
    Raises:
        ValueError: naming the argument; values outside [0, 1].
    """
    values, p = _pair("ks_distance", C, pi, "C")
    if values.min() < 0.0 or values.max() > 1.0:
        fail("ks_distance", "C", "have entries in [0, 1]", f"{values.min():g} .. {values.max():g}")
    found = ranks(values, p)
    gaps = np.maximum(np.abs(found.below - values), np.abs(found.below + found.mass - values))
    return _scalar(np.where(p > 0.0, gaps, 0.0).max(axis=1), C)


def _rewards(where: str, r: ArrayLike, name: str = "r") -> FloatArray:
    """[Y] or [X, Y] as [X, Y]."""
    if axes_of(r) == 2:
        return as_floats(where, name, r, "X Y", (None, None))
    return frozen(as_floats(where, name, r, "Y", (None,)).reshape(1, -1))


def _pair(where: str, r: ArrayLike, pi_ref: ArrayLike, name: str = "r") -> tuple[FloatArray, FloatArray]:
    """Rewards and probabilities of one shape, as [X, Y]."""
    rewards = _rewards(where, r, name)
    axes, sizes = ("X Y", rewards.shape) if axes_of(r) == 2 else ("Y", rewards.shape[1:])
    p = as_simplex(where, "pi" if name == "C" else "pi_ref", pi_ref, axes, sizes)
    return rewards, frozen(p.reshape(rewards.shape))


def _anchors(where: str, anchors: ArrayLike, ndim: int, rewards: FloatArray) -> tuple[FloatArray, bool]:
    """Sorted anchors [rows, K], and whether they are independent (one row a response)."""
    independent = axes_of(anchors) == ndim + 1
    prompts, responses = (rewards.shape[:1] if ndim == 2 else ()), (rewards.shape[1],) if independent else ()
    axes = " ".join(("X" if ndim == 2 else "", "Y" if independent else "", "K"))
    z = as_floats(where, "anchors", anchors, " ".join(axes.split()), (*prompts, *responses, None))
    return frozen(np.sort(z.reshape(-1, z.shape[-1]), axis=1)), independent


def _shaped(x: FloatArray, like: ArrayLike) -> FloatArray:
    return x[0] if axes_of(like) == 1 else x


def _scalar(x: FloatArray, like: ArrayLike) -> FloatArray | float:
    """[X] row values: a float where the caller gave one prompt."""
    return float(x[0]) if axes_of(like) == 1 else frozen(x)
