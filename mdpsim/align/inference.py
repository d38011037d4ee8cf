r"""Aligned policies, their win rates under inference-time procedures, and what they cost in KL.

On a finite space and on the quantile scale alike (:mod:`mdpsim.align.spaces`):

    pi proportional to pi_ref e^{Phi / beta},   KL(pi || pi_ref),   W = P(T(pi) beats T(pi_ref)) + 1/2 P(tie).

``align`` gives the policy at a beta, or at a KL: log KL is nearly a straight line in -log beta, with slope Var_pi(Phi) /
(beta^2 KL), and Newton's method kept inside a bracket finds the root. The KLs that can be reached are those below -log
pi_ref(the responses with the largest Phi), which on the quantile scale is no limit unless Phi is flat at its top.

Reference: Balashankar et al., "InfAlign: Inference-aware language model alignment", ICML 2025, arXiv 2412.19792.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.procedures import Procedure
from mdpsim.align.spaces import ORDER, QuantileScale, Responses, Space
from mdpsim.align.transforms import Function, Transform, as_transform
from mdpsim.arrays import FloatArray, as_beta, as_count, as_real, as_simplex, fail, frozen
from mdpsim.kernels import quantile
from mdpsim.records import record
from mdpsim.rng import as_generator
from mdpsim.solve.sequence import kl as divergence

KL_TOL = 1e-13  # relative, of a KL that was asked for
EPS = float(np.finfo(float).eps)
LOST = 1e-9  # mass that may lie in the outermost panels of the quantile scale
MAX_STEPS = 200


@record
class Policy(NamedTuple):
    """An aligned policy: pi [n] masses, scores [n] = Phi, beta, and kl = KL(pi || pi_ref)."""

    pi: FloatArray
    scores: FloatArray
    beta: float
    kl: float


class WinEstimate(NamedTuple):
    """A Monte Carlo win rate, its standard error, and from how many pairs."""

    win: float
    se: float
    n: int


@np.errstate(under="ignore")
def align(space: Space, transform: Transform, *, beta: float | None = None, kl: float | None = None) -> Policy:
    """The policy proportional to pi_ref e^{Phi / beta}, at a weight beta or at a KL divergence.

    Args:
        space: Responses or a QuantileScale. transform: see :mod:`mdpsim.align.transforms`; for the logit on the quantile scale
            take ``scale_for(LOGIT)``, for one that jumps ``scale_for(transform)`` with its breaks.
        beta: in (0, inf]. kl: >= 0; exactly one of the two is given.
    Returns:
        Policy; kl within 1e-13 of the one asked for, relative.
    Cost: one pass over the nodes, for a KL about five.
    Raises:
        ValueError: naming the argument; a KL that no beta reaches (the attainable range is given); a transform that is not
            integrable at this beta on the quantile scale, jumps within its panels, or is a Function of u alone where the
            mass lies so near 1 that u does not tell 1 - u.
    """
    if (beta is None) == (kl is None):
        fail("align", "beta or kl", "be given, exactly one of the two", (beta, kl))
    as_space("align", space)
    as_transform("align", transform)
    breaks = getattr(transform, "breaks", ())
    if isinstance(space, QuantileScale) and not all(map(space.ends_at, breaks)):
        fail("align", "space", f"have panels that end where {transform.name} jumps: QuantileScale({breaks})", space.breaks)
    scores = frozen(np.ascontiguousarray(transform(space)))
    if not np.isfinite(scores[space.pi_ref > 0.0]).any() or (scores[space.pi_ref > 0.0] == np.inf).any():
        fail("align", transform.name, "be finite somewhere, and nowhere +inf, where pi_ref has mass", scores)
    if kl is None:
        assert beta is not None
        weight = as_beta("align", beta)
        if weight == 0.0:
            fail("align", "beta", "be positive", weight)
        policy = gibbs(space, scores, weight)
    else:
        policy = gibbs_at(space, scores, as_real("align", "kl", kl, 0.0, 1e6))
    _check_integrable(space, transform, policy)
    return policy


def gibbs(space: Space, scores: FloatArray, beta: float) -> Policy:
    """The Gibbs law of given scores [n]; nothing is checked."""
    if beta == np.inf:
        return Policy(space.pi_ref, scores, beta, 0.0)
    pi, kl, _ = _tilted(space, scores, 1.0 / beta)
    return Policy(frozen(pi), scores, beta, kl)


def _tilted(space: Space, scores: FloatArray, rate: float) -> tuple[FloatArray, float, float]:
    """(pi, KL, Var_pi scores) at rate 1 / beta."""
    pi, kl, mean, variance = np.empty((1, space.size)), np.empty(1), np.empty(1), np.empty(1)
    quantile.gibbs_rows(frozen(scores[None]), frozen(space.pi_ref[None]), rate, pi, kl, mean, variance)
    return pi[0], float(kl[0]), float(variance[0])


@np.errstate(under="ignore")
def kl_limit(space: Space, scores: FloatArray) -> float:
    """The supremum of the KLs that some beta reaches: -log pi_ref(argmax scores); infinite on a scale where that is a point."""
    on = space.pi_ref > 0.0
    best = on & (scores == scores[on].max())
    if isinstance(space, QuantileScale) and best.sum() <= ORDER:
        return np.inf
    return max(0.0, -float(np.log(space.pi_ref[best].sum())))


@np.errstate(under="ignore")
def gibbs_at(space: Space, scores: FloatArray, kl: float, where: str = "align") -> Policy:
    """The Gibbs law of given scores with a given KL to pi_ref.

    Raises:
        ValueError: a KL that no beta reaches, with the attainable range.
    """
    if kl == 0.0:
        return Policy(space.pi_ref, scores, np.inf, 0.0)
    limit = kl_limit(space, scores)
    if limit < 1e-12:
        fail(where, "kl", "be 0, the only attainable one: all scores are equal", f"{kl:g}")
    if not kl < limit:
        fail(where, "kl", f"lie in the attainable range [0, {limit:.6g})", f"{kl:g}: no beta reaches it")
    width = _width(space, scores, kl)
    with np.errstate(over="ignore"):
        scaled = frozen((scores - scores[space.pi_ref > 0.0].max()) / width)
    rate = solve_rate(where, kl, limit, 1.0, lambda rate: _tilted(space, scaled, rate)[1:])
    pi, found, _ = _tilted(space, scaled, rate)
    return Policy(frozen(pi), scores, width / rate, found)


def _width(space: Space, scores: FloatArray, kl: float) -> float:
    """By how much the scores vary over the best e^{-kl} of the reference's mass, or more of it where they are flat there.

    A saturated transform varies by 1e-100 of its range where a policy of this KL lives.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[(space.pi_ref[order] > 0.0) & (scores[order] > -np.inf)]
    drop = scores[order[0]] - scores[order]
    at = int(np.searchsorted(np.cumsum(space.pi_ref[order]), np.exp(-kl)))
    below = drop[min(at, len(drop) - 1) :]
    below = below[below > 0.0]
    if below.size == 0 and (scores[space.pi_ref > 0.0] == -np.inf).any():
        return 1.0  # two levels, one of them at -inf: any rate gives the same
    return float(below[0]) if below.size else float(drop.max())


def solve_rate(where: str, kl: float, limit: float, width: float, tilted: Callable[[float], tuple[float, float]]) -> float:
    """The rate 1 / beta at which an (average) KL has a value: Newton on log KL against log rate, kept inside a bracket.

    Args:
        limit: the supremum of the KLs. width: the range of the scores, for the first guess. tilted: rate -> (KL, variance of
        the
            scores), whose slope d log KL / d log rate is rate^2 variance / KL.
    """
    x = np.log(max(np.sqrt(2.0 * kl), 4.0 * kl) / max(width, 1e-300))
    low, high, best, best_gap = -np.inf, np.inf, x, np.inf
    for _ in range(MAX_STEPS):
        rate = float(np.exp(x))
        found, variance = tilted(rate)
        if abs(found - kl) < best_gap:
            best, best_gap = x, abs(found - kl)
        if best_gap <= KL_TOL * kl:
            break
        low, high = (x, high) if found < kl else (low, x)
        slope = rate * rate * variance / found if found > 0.0 else 0.0
        step = float(np.log(kl / found)) / slope if slope > 1e-6 else float(np.sign(kl - found)) * 2.0
        x = x + float(np.clip(step, -3.0, 3.0))
        if not low < x < high:
            x = 0.5 * (low + high) if np.isfinite(low + high) else (low + 3.0 if np.isfinite(low) else high - 3.0)
        if x in (low, high) or not abs(x) < 700.0:
            break
    if not best_gap <= 1e-9 * kl + 1e-13:
        fail(where, "kl", f"be one that float64 resolves for these scores (attainable: [0, {limit:.6g}))", f"{kl:g}")
    return float(np.exp(best))


def _check_integrable(space: Space, transform: Transform, policy: Policy) -> None:
    """On the quantile scale the mass must die out towards both ends, as far as the panels reach.

    A bounded density has a quarter of its mass in each panel of the one before; one like v^{a-1} a share of 4^{-a}.
    """
    if not isinstance(space, QuantileScale):
        return
    if isinstance(transform, Function) and transform.both is None:
        lost = EPS * float((policy.pi / np.maximum(space.v, EPS)).sum())
        if not lost <= 1e-6:
            wanted = "be given as a function of (u, 1 - u) too (both=): float64 does not resolve u where the policy's mass lies"
            fail("align", transform.name, wanted, f"beta = {policy.beta:.6g}, relative errors of {min(lost, 1.0):.2g}")
    panels = policy.pi.reshape(-1, ORDER * space.pieces).sum(axis=1)
    if max(panels[0], panels[-1]) <= LOST:
        return
    where = "0" if panels[0] > panels[-1] else "1"
    outer = panels[1:3] if where == "0" else panels[-2:-4:-1]
    if outer[0] < 0.4 * outer[1]:
        return
    if outer[0] >= outer[1] * (1.0 - 1e-3):
        wanted = f"be such that e^{{Phi / beta}} is integrable at this beta, and no sharper than 2^-{space.depth}"
        fail("align", transform.name, wanted, f"beta = {policy.beta:.6g}: the mass does not die out towards {where}")
    wanted = f"leave at most {LOST:g} of the mass within 2^-{space.depth} of an end (or take scale_for(transform))"
    fail("align", transform.name, wanted, f"beta = {policy.beta:.6g}: {panels[[0, -1]].max():.2g} near {where}")


def as_space(where: str, space: object) -> None:
    """Guard a space."""
    if not isinstance(space, Responses | QuantileScale):
        fail(where, "space", "be Responses or a QuantileScale", type(space).__name__)


def as_procedure(where: str, procedure: object, needs: str = "law") -> None:
    """Guard a procedure: an instance with breaks, a law, and what else is needed of reward and simulate."""
    can = all(callable(getattr(procedure, name, None)) for name in ("law", needs))
    if isinstance(procedure, type) or not can or not isinstance(getattr(procedure, "breaks", None), tuple):
        also = "" if needs == "law" else f" and a function {needs}"
        fail(where, "procedure", f"be a procedure: BestOfN(4), .., or what has breaks, a law{also}", repr(procedure))


@np.errstate(under="ignore")
def checked_law(where: str, procedure: Procedure, space: Space, pi: FloatArray) -> FloatArray:
    """T(pi), refused where it is no law, or jumps inside a panel of the quadrature."""
    if isinstance(space, QuantileScale) and not all(map(space.ends_at, procedure.breaks)):
        fail(where, "space", f"have panels that end where the procedure jumps: QuantileScale({procedure.breaks})", space.breaks)
    with np.errstate(under="ignore"):
        law = np.asarray(procedure.law(space, pi), dtype=float)
    total = float(law.sum()) if law.shape == pi.shape else np.nan
    if not abs(total - 1.0) <= 1e-6 or law.min() < -1e-9:
        wanted = f"have a law, {pi.size} masses that sum to one (on a quantile scale: or take space.halved())"
        fail(where, "procedure", wanted, f"{type(procedure).__name__}: sum {total:.9g}")
    return law


@np.errstate(under="ignore")
def inference_win_rate(procedure: Procedure, pi: ArrayLike, space: Space, *, rival: ArrayLike | None = None) -> float:
    """P(T(pi) beats T(rival)) + 1/2 P(tie): exact on a finite space, by quadrature on the quantile scale.

    Args:
        procedure: BestOfN(4), WorstOfN(4), .. pi: [n] masses of the policy (``align(..).pi``; on a finite space any law).
        rival: [n] the policy to beat; None takes pi_ref.
    Exactness: finite: a few roundings, whatever N and the number of responses. Quantile scale, KL <= 4: 1e-14 for identity,
        logarithm, cube, logit and exponentials with -50 <= t <= 600, 1e-7 down to t = -100; below, and for transforms of
        one's own, see :func:`mdpsim.align.tradeoff.halving_error`.
    Cost: O(n) for procedures by ranks.
    Raises:
        ValueError: naming the argument; a procedure whose law does not sum to one.
    """
    return 1.0 - _lost("inference_win_rate", procedure, pi, space, rival)


@np.errstate(under="ignore")
def inference_loss_rate(procedure: Procedure, pi: ArrayLike, space: Space, *, rival: ArrayLike | None = None) -> float:
    """1 - W of :func:`inference_win_rate`, accurate where W is near 1."""
    return _lost("inference_loss_rate", procedure, pi, space, rival)


def _lost(where: str, procedure: Procedure, pi: ArrayLike, space: Space, rival: ArrayLike | None) -> float:
    as_space(where, space)
    as_procedure(where, procedure)
    mine = as_simplex(where, "pi", pi, "n", (space.size,))
    other = space.pi_ref if rival is None else as_simplex(where, "rival", rival, "n", (space.size,))
    law = checked_law(where, procedure, space, mine)
    found = space.ranks(checked_law(where, procedure, space, other))
    return float(law @ (found.above + 0.5 * found.mass))


@np.errstate(under="ignore")
def sample_win_rate(
    procedure: Procedure, pi: ArrayLike, space: Space, n: int, rng: np.random.Generator | int, *, rival: ArrayLike | None = None
) -> WinEstimate:
    """The same win rate by Monte Carlo: n independent pairs, each response made as the procedure says.

    Args:
        n: pairs, at least 2. rng: a Generator or an integer seed.
    Cost: O(n N log Y) time, but O(n log Y) for the best and the worst of N where n N is above 4e6: their rank is drawn by
        inversion. Memory: 4e6 draws at a time.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "sample_win_rate"
    as_space(where, space)
    as_procedure(where, procedure, "simulate")
    count, generator = as_count(where, "n", n, low=2), as_generator(where, rng)
    mine = as_simplex(where, "pi", pi, "n", (space.size,))
    other = space.pi_ref if rival is None else as_simplex(where, "rival", rival, "n", (space.size,))
    checked_law(where, procedure, space, mine)
    one = space.rewards(procedure.simulate(space, mine, count, generator))
    two = space.rewards(procedure.simulate(space, other, count, generator))
    wins = (one > two) + 0.5 * (one == two)
    return WinEstimate(float(wins.mean()), float(wins.std(ddof=1) / np.sqrt(count)), count)


@np.errstate(under="ignore")
def policy_kl(pi: ArrayLike, space: Space) -> float:
    """KL(pi || pi_ref), for a law that is not a Gibbs law of this module; infinite without cover."""
    as_space("policy_kl", space)
    return divergence(pi, space.pi_ref)
