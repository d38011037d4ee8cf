r"""Calibrate and transform (CTRL), on tables of prompts and responses, and what it is compared with.

For each prompt the reward is calibrated (exactly, or from K anchors drawn from pi_ref), a transform Phi is applied, and the
KL-regularised problem is solved with the one weight beta for all prompts:

    pi(y | x) proportional to pi_ref(y | x) e^{Phi(C(x, y)) / beta}.

Baselines take other scores: the raw reward r, the reward standardised per prompt (r - E r) / sd r under pi_ref, and the
calibrated reward itself (the identity). They are compared at the same AVERAGE KL over prompts: a raw reward whose scale
differs between prompts spends the KL where it is large.

Reference: Balashankar et al., "InfAlign: Inference-aware language model alignment", ICML 2025, arXiv 2412.19792.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.calibration import calibrate_by_anchors, calibrate_by_interpolation, ordered, ranks, sample_anchors
from mdpsim.align.inference import as_procedure, checked_law, solve_rate
from mdpsim.align.procedures import Procedure, Ranked
from mdpsim.align.spaces import Responses
from mdpsim.align.transforms import IDENTITY, Transform, as_transform
from mdpsim.arrays import FloatArray, as_count, as_flag, as_floats, as_real, as_simplex, fail, frozen
from mdpsim.kernels import quantile
from mdpsim.memory import empty
from mdpsim.records import record
from mdpsim.rng import as_generator

MAX = float(np.finfo(float).max)


@record
class PromptPolicies(NamedTuple):
    """Aligned policies of X prompts: pi [X, Y], the scores [X, Y] that they tilt by, beta, and kl [X] of each."""

    pi: FloatArray
    scores: FloatArray
    beta: float
    kl: FloatArray


@record
class Quantiles(NamedTuple):
    """What a transform sees of a table: C [X, Y] and D = 1 - C."""

    C: FloatArray
    D: FloatArray

    @property
    def size(self) -> int:
        """X Y."""
        return self.C.size


@np.errstate(under="ignore")
def calibrated(r: ArrayLike, pi_ref: ArrayLike) -> Quantiles:
    """Exact calibrated rewards of a table [X, Y], with 1 - C summed from its own end."""
    rewards, p = _table("calibrated", r, pi_ref)
    found = ranks(rewards, p)
    return Quantiles(found.below + 0.5 * found.mass, found.above + 0.5 * found.mass)


def standardised(r: ArrayLike, pi_ref: ArrayLike) -> FloatArray:
    """[X, Y] (r - E r) / sd r under pi_ref, prompt by prompt; 0 where a prompt's rewards are all equal."""
    rewards, p = _table("standardised", r, pi_ref)
    on = p > 0.0
    # In units of a power of two (no rounding) and from the least: squares of 1e200 and of 1e-200, and means of 1e9 + x.
    power = np.frexp(np.where(on, np.abs(rewards), 0.0).max(axis=1, keepdims=True))[1]
    with np.errstate(over="ignore", under="ignore"):
        x = np.clip(np.ldexp(rewards, -power), -MAX, MAX)  # what pi_ref never gives may be larger
        x = x - np.where(on, x, np.inf).min(axis=1, keepdims=True)
        unit = np.where(on, x, 0.0).max(axis=1, keepdims=True)
        x = np.clip(x / np.where(unit > 0.0, unit, 1.0), -MAX, MAX)
        inner = np.where(on, x, 0.0)
        mean = (p * inner).sum(axis=1, keepdims=True)
        sd = np.sqrt((p * np.where(on, x - mean, 0.0) ** 2).sum(axis=1, keepdims=True))
        return frozen(np.clip(np.where(sd > 0.0, (x - mean) / np.where(sd > 0.0, sd, 1.0), 0.0), -MAX, MAX))


@np.errstate(under="ignore")
def align_prompts(
    scores: ArrayLike, pi_ref: ArrayLike, *, beta: float | None = None, kl: float | None = None
) -> PromptPolicies:
    """pi proportional to pi_ref e^{scores / beta} at every prompt, at one beta, or at the beta with a given average KL.

    Args:
        scores: [X, Y] finite. pi_ref: [X, Y]. beta: in (0, 1e300]; kl: the mean over prompts, >= 0; exactly one of the two.
    Cost: one pass over the table, for a KL about six.
    Raises:
        ValueError: naming the argument; an average KL that no beta reaches, with the attainable range.
    """
    where = "align_prompts"
    x, p = _table(where, scores, pi_ref, "scores")
    if (beta is None) == (kl is None):
        fail(where, "beta or kl", "be given, exactly one of the two", (beta, kl))
    if kl is not None:
        return _at_kl(where, x, p, as_real(where, "kl", kl, 0.0, 1e6))
    weight = as_real(where, "beta", beta, 1e-300, 1e300)
    pi, out, _ = _tilted(x, p, 1.0 / weight)
    return PromptPolicies(frozen(pi), x, weight, frozen(out))


def _at_kl(where: str, x: FloatArray, p: FloatArray, kl: float) -> PromptPolicies:
    """The policies of an average KL."""
    if kl == 0.0:
        return PromptPolicies(p, x, np.inf, frozen(np.zeros(len(x))))
    top = np.where(p > 0.0, x, -np.inf).max(axis=1, keepdims=True)
    limit = max(0.0, -float(np.log(np.where(x == top, p, 0.0).sum(axis=1)).mean()))
    if not kl < limit - 1e-12:
        fail(where, "kl", f"lie in the attainable range [0, {limit:.6g}) of averages", f"{kl:g}: no beta reaches it")
    ranges = np.where(p > 0.0, top - x, 0.0).max(axis=1)
    width = float(np.median(ranges[ranges > 0.0]))
    scaled = frozen(np.where(p > 0.0, (x - top) / width, 0.0))  # neither squares of 1e300 nor of 1e-300

    def tilted(rate: float) -> tuple[float, float]:
        _, found, variance = _tilted(scaled, p, rate)
        return float(found.mean()), float(variance.mean())

    rate = solve_rate(where, kl, limit, 1.0, tilted)
    pi, out, _ = _tilted(scaled, p, rate)
    return PromptPolicies(frozen(pi), x, width / rate, frozen(out))


def _tilted(x: FloatArray, p: FloatArray, rate: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    pi, kl, mean, variance = empty(x.shape), np.empty(len(x)), np.empty(len(x)), np.empty(len(x))
    quantile.gibbs_rows(x, p, rate, pi, kl, mean, variance)
    return pi, kl, variance


@np.errstate(under="ignore")
def prompt_win_rates(procedure: Procedure, pi: ArrayLike, r: ArrayLike, pi_ref: ArrayLike) -> FloatArray:
    """[X] win rates P(T(pi) beats T(pi_ref)) + 1/2 P(tie), prompt by prompt, exact with ties.

    Cost: O(X Y log Y) for procedures by ranks, in one pass; the others go prompt by prompt.
    Raises:
        ValueError: naming the argument; a procedure whose law does not sum to one.
    """
    where = "prompt_win_rates"
    as_procedure(where, procedure)
    rewards, p = _table(where, r, pi_ref)
    mine = as_simplex(where, "pi", pi, "X Y", p.shape)
    if not isinstance(procedure, Ranked):
        return frozen(np.array([_one(where, procedure, *row) for row in zip(mine, rewards, p, strict=True)]))
    order = ordered(rewards)
    with np.errstate(under="ignore"):
        law, other = (x * procedure.factor(ranks(rewards, x, order)) for x in (mine, p))
    for found in (law, other):
        totals = found.sum(axis=1)
        if not (np.abs(totals - 1.0) <= 1e-6).all() or found.min() < -1e-9:
            worst = float(totals[np.abs(totals - 1.0).argmax()])
            fail(where, "procedure", "have a law, masses that sum to one", f"{type(procedure).__name__}: sum {worst:.9g}")
    rival = ranks(rewards, frozen(other), order)
    return frozen(1.0 - (law * (rival.above + 0.5 * rival.mass)).sum(axis=1))


def _one(where: str, procedure: Procedure, pi: FloatArray, r: FloatArray, pi_ref: FloatArray) -> float:
    space = Responses(r, pi_ref)
    found = space.ranks(checked_law(where, procedure, space, space.pi_ref))
    return 1.0 - float(checked_law(where, procedure, space, pi) @ (found.above + 0.5 * found.mass))


@dataclass(frozen=True, kw_only=True)
class CTRL:
    """Configuration of calibrate and transform.

    Args:
        transform: Phi, applied to the calibrated reward. K: anchors per prompt, at least 1; None calibrates exactly.
        shared: anchors shared by the responses of a prompt, or new ones for each. interpolate: the piecewise linear CDF of the
            anchors instead of their counts (shared anchors only); transforms that are infinite at 0 or 1 need it.
        beta, kl: the weight, or the average KL; exactly one of the two.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    transform: Transform = IDENTITY
    K: int | None = None
    shared: bool = True
    interpolate: bool = False
    beta: float | None = None
    kl: float | None = None

    def __post_init__(self) -> None:
        as_transform("CTRL", self.transform)
        if self.K is not None:
            as_count("CTRL", "K", self.K)
        for name, flag in (("shared", self.shared), ("interpolate", self.interpolate)):
            as_flag("CTRL", name, flag)
        if (self.beta is None) == (self.kl is None):
            fail("CTRL", "beta or kl", "be given, exactly one of the two", (self.beta, self.kl))
        if self.beta is not None:
            as_real("CTRL", "beta", self.beta, 1e-300, 1e300)
        if self.kl is not None:
            as_real("CTRL", "kl", self.kl, 0.0, 1e6)
        if self.interpolate and (self.K is None or not self.shared):
            fail("CTRL", "interpolate", "go with a number K of shared anchors", (self.K, self.shared))

    @np.errstate(under="ignore")
    def run(self, r: ArrayLike, pi_ref: ArrayLike, rng: np.random.Generator | int = 0) -> PromptPolicies:
        """Calibrate, transform, align.

        Args:
            r, pi_ref: [X, Y] rewards and reference probabilities. rng: for the anchors (unused where K is None).
        Returns:
            PromptPolicies; scores = Phi(C).
        Cost: O(X (K + Y) log K) and some passes over the table.
        Raises:
            ValueError: naming the argument, what was wanted and what came.
        """
        rewards, p = _table("CTRL.run", r, pi_ref)
        if self.K is None:
            seen = calibrated(rewards, p)
        else:
            anchors = sample_anchors(rewards, p, self.K, as_generator("CTRL.run", rng), shared=self.shared)
            C = (calibrate_by_interpolation if self.interpolate else calibrate_by_anchors)(rewards, anchors)
            seen = Quantiles(C, 1.0 - C)
        scores = self.transform(seen)  # type: ignore[arg-type]
        if not np.isfinite(scores[p > 0.0]).all():
            fail("CTRL.run", self.transform.name, "be finite at every calibrated reward (interpolate: never 0 or 1)", "inf")
        return align_prompts(np.where(p > 0.0, scores, 0.0), p, beta=self.beta, kl=self.kl)


def _table(where: str, r: ArrayLike, pi_ref: ArrayLike, name: str = "r") -> tuple[FloatArray, FloatArray]:
    rewards = as_floats(where, name, r, "X Y", (None, None))
    return rewards, as_simplex(where, "pi_ref", pi_ref, "X Y", rewards.shape)
