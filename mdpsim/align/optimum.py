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

from typing import NamedTuple

import numpy as np

from mdpsim.align.inference import Policy, _space, checked_law, gibbs, gibbs_at
from mdpsim.align.procedures import Procedure
from mdpsim.align.spaces import Space
from mdpsim.arrays import FloatArray, as_count, as_real, fail, frozen
from mdpsim.rng import as_generator

MEMORY = 6  # of Anderson's mixing


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


def optimal_transform(
    procedure: Procedure, space: Space, *, beta: float | None = None, kl: float | None = None, n_starts: int = 3,
    tol: float = 1e-9, max_iterations: int = 4000, rng: np.random.Generator | int = 0, start: FloatArray | None = None,
) -> Optimum:
    """The optimal policy and transform of a procedure at a weight beta, or at a KL divergence.

    Args:
        procedure: see :mod:`mdpsim.align.procedures`. space: Responses, or a QuantileScale with the procedure's breaks.
        beta: in [1e-6, 1e6]; kl: in (0, 30]; exactly one of the two is given.
        n_starts: the calibrated reward first, then its negative, then random scores; one is enough where W is concave.
        tol: residual in log pi. max_iterations: for each start. rng: for the random starts. start: [n] scores, taken first.
    Returns:
        Optimum; among the starts the best objective (at a KL: the best win rate).
    Cost: about 50 gradients of the procedure a start, more for small beta.
    Raises:
        ValueError: naming the argument; a KL that is not attainable; a procedure whose law is not one.
    """
    where = "optimal_transform"
    if (beta is None) == (kl is None):
        fail(where, "beta or kl", "be given, exactly one of the two", (beta, kl))
    _space(where, space)
    if beta is not None:
        as_real(where, "beta", beta, 1e-6, 1e6)
    else:
        as_real(where, "kl", kl, 1e-9, 30.0)
    as_count(where, "n_starts", n_starts, high=1000)
    generator = as_generator(where, rng)
    problem = _Problem(procedure, space, beta, kl)
    best: Optimum | None = None
    rows = []
    for k in range(n_starts):
        scores = np.asarray(start, float) if start is not None and k == 0 else _start(space, k, generator)
        found = problem.solve(scores, tol, max_iterations)
        rows.append((found.win, found.residual))
        value = found.objective if kl is None else found.win
        if best is None or (found.converged, value) > (best.converged, best.objective if kl is None else best.win):
            best = found
    assert best is not None
    return best._replace(starts=frozen(np.array(rows)))


def _start(space: Space, k: int, rng: np.random.Generator) -> FloatArray:
    """Scores to begin with: C, -C, then random ones (smooth on the quantile scale)."""
    if k < 2:
        return space.C if k == 0 else -space.C
    if space.size <= 64:
        return rng.normal(size=space.size)
    waves = np.arange(1, 7)
    return (rng.normal(size=6) / waves) @ np.cos(np.pi * waves[:, None] * space.C)


class _Problem:
    """W(pi) - beta KL(pi || pi_ref), or W at a fixed KL."""

    def __init__(self, procedure: Procedure, space: Space, beta: float | None, kl: float | None) -> None:
        self.procedure, self.space, self.beta, self.kl = procedure, space, beta, kl
        self.rival = checked_law("optimal_transform", procedure, space, space.pi_ref)
        found = space.ranks(self.rival)
        self.missed = found.above + 0.5 * found.mass

    def policy(self, scores: FloatArray, beta: float | None = None) -> Policy:
        """The Gibbs law of scores at the problem's beta (or another), or at its KL."""
        scores = frozen(np.ascontiguousarray(scores))
        if beta is not None or self.beta is not None:
            return gibbs(self.space, scores, beta or self.beta)  # type: ignore[arg-type]
        assert self.kl is not None
        return gibbs_at(self.space, scores, self.kl)

    def reward(self, policy: Policy) -> FloatArray:
        """R at a policy, centred under it."""
        R = np.asarray(self.procedure.reward(self.space, policy.pi, self.rival), float)
        if not np.isfinite(R[policy.pi > 0.0]).all():
            fail("optimal_transform", "procedure", "have a finite transformed reward where pi > 0", "an infinite one")
        R = np.where(np.isfinite(R), R, 0.0)
        return R - float(policy.pi @ R)

    def residual(self, policy: Policy, R: FloatArray) -> float:
        """max |R - scores| / beta up to a constant, over responses that count."""
        gap = R - policy.scores
        gap = gap - float(policy.pi @ gap)
        counts = policy.pi > 1e-9 * self.space.pi_ref
        return float(np.abs(gap[counts]).max()) / policy.beta

    def solve(self, scores: FloatArray, tol: float, limit: int) -> Optimum:
        """From scores: continuation in beta where it is given, then the iteration."""
        used = 0
        if self.beta is not None and self.beta < 1.0:
            weight = 1.0
            while weight > 2.0 * self.beta:
                scores, n = self.iterate(scores, weight, 1e-4, 200)
                weight, used = 0.5 * weight, used + n
        scores, n = self.iterate(scores, None, tol, limit)
        policy = self.policy(scores)
        R = self.reward(policy)
        # one undamped step: the policy is the Gibbs law of its own transform up to the residual
        law = checked_law("optimal_transform", self.procedure, self.space, policy.pi)
        win, residual = 1.0 - float(law @ self.missed), self.residual(policy, R)
        return Optimum(
            policy.pi, frozen(R), policy.beta, policy.kl, win, win - policy.beta * policy.kl, residual, residual <= tol,
            np.empty((0, 2)), used + n,
        )

    def iterate(self, scores: FloatArray, beta: float | None, tol: float, limit: int) -> tuple[FloatArray, int]:
        """Damped steps with Anderson mixing over the last few, restarted where the residual grows."""
        x = np.asarray(scores, float)
        xs: list[FloatArray] = []
        gaps: list[FloatArray] = []
        best, best_x, damping = np.inf, x, 0.5
        for step in range(1, limit + 1):
            policy = self.policy(x, beta)
            R = self.reward(policy)
            x = x - float(policy.pi @ x)
            gap, size = R - x, self.residual(policy, R)
            if size < best:
                best, best_x = size, x
            if size <= tol:
                return x, step
            if size > 4.0 * best and len(xs) > 1:  # mixing led astray: back to the best point, plain steps from there
                x, xs, gaps = best_x, [], []
                damping = max(0.5 * damping, 1e-3)
                best = np.inf
                continue
            xs.append(x)
            gaps.append(gap)
            xs, gaps = xs[-MEMORY:], gaps[-MEMORY:]
            s = min(damping, 2.0 * policy.beta / max(float(np.ptp(R[policy.pi > 1e-9 * self.space.pi_ref])), 1e-12))
            x = x + s * gap
            if len(xs) > 1:
                weight = np.sqrt(policy.pi + 1e-6 * self.space.pi_ref)
                dx, dg = np.diff(np.array(xs), axis=0), np.diff(np.array(gaps), axis=0)
                mix = np.linalg.lstsq((weight * dg).T, weight * gap, rcond=1e-10)[0]
                x = x - mix @ (dx + s * dg)
        return best_x, limit
