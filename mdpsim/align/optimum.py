r"""The optimal transform of a procedure: a fixed point.

Any local maximiser pi > 0 of W(pi) - beta KL(pi || pi_ref) over laws satisfies

    pi = pi_ref e^{R_pi / beta} / Z,   R_pi(y) = dW / dpi(y) at pi itself, up to a constant                        (KKT)

so the best policy is that of the standard problem with the transformed reward R_pi, which depends on the procedure, on beta and
through pi on itself. It is found by the damped iteration R <- (1 - s) R + s R_{Gibbs(R / beta)}, s = min(1/2, 2 beta / N)
with N the steepness of the procedure, speeded up by Anderson's mixing, and by continuation in beta from where Gibbs(R / beta)
is near pi_ref. At a given KL the same iteration takes at each step the beta at which Gibbs(R / beta) has that KL.

(KKT) is necessary. It is sufficient where W is concave (best-of-N); elsewhere there may be several solutions, so several starts
are taken and the best objective is kept: ``starts`` says what each of them found.

Reference: Balashankar et al., "InfAlign: Inference-aware language model alignment", ICML 2025, arXiv 2412.19792.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mdpsim.align.inference import Policy, as_procedure, as_space, checked_law, gibbs, gibbs_at, kl_limit
from mdpsim.align.procedures import BestOfN, Procedure, Temperature
from mdpsim.align.spaces import QuantileScale, Space
from mdpsim.arrays import FloatArray, as_count, as_floats, as_real, fail, frozen
from mdpsim.records import record
from mdpsim.rng import as_generator

MEMORY = 6  # of Anderson's mixing
TIE = 1e-9  # objectives that differ by less are one: the earlier start is kept


@record
class Optimum(NamedTuple):
    """The best policy found.

    pi: [n] masses. transform: [n] R at pi, centred under pi: what an RL step should be given. beta, kl, win, and objective =
    win - beta kl. residual: the largest |log pi - R / beta + log Z| over responses with pi > 1e-9 pi_ref. converged: residual
    <= tol.
    starts: [S, 2] win rate and residual from each start. iterations: of the start kept.
    """

    pi: FloatArray
    transform: FloatArray
    beta: float
    kl: float
    win: float
    objective: float
    residual: float
    converged: bool
    starts: FloatArray
    iterations: int


@np.errstate(under="ignore")
def optimal_transform(
    procedure: Procedure, space: Space, *, beta: float | None = None, kl: float | None = None, n_starts: int | None = None,
    tol: float = 1e-9, max_iterations: int = 1000, rng: np.random.Generator | int = 0, start: FloatArray | None = None,
) -> Optimum:
    """The optimal policy and transform of a procedure at a weight beta, or at a KL divergence.

    Args:
        procedure: see :mod:`mdpsim.align.procedures`. space: Responses, or a QuantileScale with the procedure's breaks.
        beta: in [1e-6, 1e6]; kl: in (0, 30], the KL that the policy has (not a budget: with much of pi_ref on the best
            responses no such policy has it, and the best within a budget is pi_ref given them); exactly one of the two.
        n_starts: None takes what suits: one for best-of-N, where W is concave, three on the quantile scale, up to nine on a
            finite space. The first start is the calibrated reward, with continuation from beta = 1 down; the others begin at
            beta itself (on that path all would meet): on a finite space near the single responses, those first that beat the
            rival most, on the quantile scale from -C; then from random scores.
        tol: residual in log pi. max_iterations: for each start. rng: for the random starts. start: [n] scores to begin with.
    Returns:
        Optimum; among the starts the best objective (at a KL: the best win rate). A start that leaves the policies of that KL,
            or ends at a law too sharp for the panels, is given up, with residual inf.
    Cost: about 30 gradients of the procedure a start, more for small beta.
    Raises:
        ValueError: naming the argument; a KL that is not attainable; a procedure whose law is not one; a temperature without a
            best policy. (Rejection without a limit has none either: mass drifts to what is refused, at no loss. There
            ``converged`` is False.)
    """
    where = "optimal_transform"
    if (beta is None) == (kl is None):
        fail(where, "beta or kl", "be given, exactly one of the two", (beta, kl))
    as_space(where, space)
    as_procedure(where, procedure, "reward")
    if beta is not None:
        as_real(where, "beta", beta, 1e-6, 1e6)
    else:
        as_real(where, "kl", kl, 1e-9, 30.0)
    count = _starts_for(procedure, space) if n_starts is None else as_count(where, "n_starts", n_starts, high=1000)
    as_real(where, "tol", tol, 0.0, 1e300)
    as_count(where, "max_iterations", max_iterations)
    _refuse_degenerate(where, procedure, space)
    first = space.C if start is None else as_floats(where, "start", start, "n", (space.size,))
    if kl is not None and not kl < (limit := kl_limit(space, first)) and limit > 0.0:
        wanted = f"lie in the attainable range [0, {limit:.6g}) of KL(pi || pi_ref) = kl (pi_ref given its best responses)"
        fail(where, "kl", wanted, f"{kl:g}; the nearest attainable is just below {limit:.6g}")
    problem = _Problem(procedure, space, beta, kl)
    best: Optimum | None = None
    rows = []
    for k, scores in enumerate(_starts(problem, count, first, as_generator(where, rng))):
        found: Optimum | None = None
        try:
            found = problem.solve(scores, tol, max_iterations, follow=k == 0)
            checked_law(where, procedure, space, found.pi)
        except ValueError:
            if k == 0 and found is not None and isinstance(space, QuantileScale):
                wanted = f"leave a best policy that the panels resolve (or take space.halved()): 1 - W is {1.0 - found.win:.1g}"
                fail(where, "kl" if beta is None else "beta", wanted, f"{kl if beta is None else beta:g}")
            if k == 0:
                raise
            rows.append((np.nan, np.inf))
            continue
        rows.append((found.win, found.residual))
        if best is None or problem.worth(found) > problem.worth(best) + TIE:
            best = found
    assert best is not None
    return best._replace(starts=frozen(np.array(rows)))


def _starts_for(procedure: Procedure, space: Space) -> int:
    """One start where W is concave, more elsewhere."""
    if type(procedure) is BestOfN:
        return 1
    return 3 if isinstance(space, QuantileScale) else 1 + min(space.size, 8)


def _starts(
    problem: _Problem, count: int, first: FloatArray, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Scores to begin with: see ``optimal_transform``."""
    space = problem.space
    yield first
    if isinstance(space, QuantileScale):
        if count > 1:
            yield -space.C
        waves = np.arange(1, 7)
        for _ in range(count - 2):
            yield (rng.normal(size=6) / waves) @ np.cos(np.pi * waves[:, None] * space.C)
        return
    on = np.flatnonzero(space.pi_ref > 0.0)
    pull = (problem.beta or 1.0) * np.log1p(9.0 / space.pi_ref[on].min())
    for y in on[np.argsort(problem.missed[on], kind="stable")][: count - 1]:
        yield np.where(np.arange(space.size) == y, pull, 0.0)
    for _ in range(count - 1 - on.size):
        yield rng.normal(size=space.size)


def _refuse_degenerate(where: str, procedure: Procedure, space: Space) -> None:
    """Where there is no best policy, or it is no Gibbs law.

    Sharpening on the quantile scale: a spike of height c eps^{-1/2} and width eps moves f^2 by a constant, and its KL
    vanishes with eps. Flattening: taking mass from a response that loses more often than the policy gains without bound per
    unit of mass.
    """
    if not isinstance(procedure, Temperature) or procedure.tau == 1.0:
        return
    if procedure.tau > 1.0:
        fail(where, "procedure", "have an optimum with mass everywhere: a Temperature of at most 1", f"tau = {procedure.tau:g}")
    if isinstance(space, QuantileScale):
        wanted = "have an optimum: on the quantile scale thin spikes win at no KL; take a Temperature on Responses"
        fail(where, "procedure", wanted, f"tau = {procedure.tau:g}")


class _Iterate(NamedTuple):
    """A point of the iteration: its policy, scores x and transform R, both centred, gap R - x, and what it is worth."""

    policy: Policy
    x: FloatArray
    R: FloatArray
    gap: FloatArray
    residual: float
    win: float
    value: float
    steepness: float


class _Problem:
    """W(pi) - beta KL(pi || pi_ref), or W at a fixed KL."""

    def __init__(self, procedure: Procedure, space: Space, beta: float | None, kl: float | None) -> None:
        self.procedure, self.space, self.beta, self.kl = procedure, space, beta, kl
        self.rival = checked_law("optimal_transform", procedure, space, space.pi_ref)
        found = space.ranks(self.rival)
        self.missed = found.above + 0.5 * found.mass

    def worth(self, found: Optimum) -> float:
        """What solutions are compared by."""
        return found.objective if self.kl is None else found.win

    def at(self, scores: FloatArray, beta: float | None) -> _Iterate:
        """The Gibbs law of scores at the problem's beta (or another), or at its KL, and its own transform R."""
        scores = frozen(np.ascontiguousarray(scores))
        weight = self.beta if beta is None else beta
        if weight is None:
            policy = gibbs_at(self.space, scores, self.kl or 0.0, "optimal_transform")
        else:
            policy = gibbs(self.space, scores, weight)
        law = self.procedure.law(self.space, policy.pi)  # checked where the search ends
        win = 1.0 - float(law @ self.missed) / float(law.sum())
        R = np.asarray(self.procedure.reward(self.space, policy.pi, self.rival), float)
        if not np.isfinite(R[policy.pi > 0.0]).all():
            fail("optimal_transform", "procedure", "have a finite transformed reward where pi > 0", "an infinite one")
        R = np.where(np.isfinite(R), R, 0.0)
        R, x = R - float(policy.pi @ R), scores - float(policy.pi @ scores)
        counts = policy.pi > 1e-9 * self.space.pi_ref
        residual = float(np.abs((R - x)[counts]).max()) / policy.beta
        value = win if weight is None else win - weight * policy.kl
        return _Iterate(policy, x, R, R - x, residual, win, value, float(np.ptp(R[counts])))

    def reached(self, scores: FloatArray, beta: float | None) -> _Iterate | None:
        """The same, or None where no Gibbs law of these scores has the problem's KL."""
        if self.kl is not None and not self.kl < kl_limit(self.space, scores):
            return None
        return self.at(scores, beta)

    def solve(self, scores: FloatArray, tol: float, limit: int, follow: bool) -> Optimum:
        """From scores: continuation in beta where it is given and wanted, then the iteration."""
        used = 0
        if follow and self.beta is not None and self.beta < 1.0:
            weight = 1.0
            while weight > 2.0 * self.beta:
                now, n = self.iterate(scores, weight, 1e-4, 100)
                scores, weight, used = now.x, 0.5 * weight, used + n
        now, n = self.iterate(scores, None, tol, limit)
        policy = now.policy
        return Optimum(
            policy.pi, frozen(now.R), policy.beta, policy.kl, now.win, now.win - policy.beta * policy.kl, now.residual,
            now.residual <= tol, np.empty((0, 2)), used + n,
        )

    def iterate(self, scores: FloatArray, beta: float | None, tol: float, limit: int) -> tuple[_Iterate, int]:
        """Mixed steps where they lower the residual, else damped ones that do not lower the objective."""
        now, step, damping = self.at(np.asarray(scores, float), beta), 1, 1.0
        past: list[_Iterate] = [now]
        while now.residual > tol and step < limit:
            step += 1
            mixed = self.reached(_mix(past, self.space.pi_ref), beta) if len(past) > 1 else None
            if mixed is not None and mixed.residual <= 0.9 * now.residual and mixed.value >= now.value - 1e-9:
                now = mixed
            else:
                s = min(damping, 0.5, 2.0 * now.policy.beta / max(now.steepness, 1e-12))
                plain = self.reached(now.x + s * now.gap, beta)
                if plain is None or plain.value < now.value - 1e-14:
                    damping = 0.5 * s
                    if damping < 1e-9:
                        break
                    past = past[-1:]
                    continue
                now, damping = plain, min(1.0, 1.5 * damping)
            past = [*past[1 - MEMORY :], now]
        return now, step


def _mix(past: list[_Iterate], pi_ref: FloatArray) -> FloatArray:
    """Anderson's mixing: the damped step from the combination of the last iterates whose gap R - scores is least."""
    now = past[-1]
    s = min(0.5, 2.0 * now.policy.beta / max(now.steepness, 1e-12))
    weight = np.sqrt(now.policy.pi + 1e-6 * pi_ref)
    dx, dg = np.diff(np.array([i.x for i in past]), axis=0), np.diff(np.array([i.gap for i in past]), axis=0)
    mix = np.linalg.lstsq((weight * dg).T, weight * now.gap, rcond=1e-10)[0]
    return now.x + s * now.gap - mix @ (dx + s * dg)
