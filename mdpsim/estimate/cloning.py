r"""Behaviour cloning: the expert's policy from counts of what it did, within all policies, log-linear ones or a finite class.

Setting: n demonstrations of an expert pi_E; N_h(s, a) counts its actions, N_h(s) = sum_a N_h(s, a). All estimators read the
counts alone: given the states, the likelihood of a policy is prod pi_h(a|s)^{N_h(s,a)}, one factor a stage.

* ``fit_bc``: add-smoothing, pi[h, s, a] = (N_h(s, a) + smoothing) / (N_h(s) + A smoothing), stages apart or pooled.
  smoothing = 1 (Laplace) is the posterior mean under a uniform (Dirichlet(1)) prior, and the posterior mean minimises the
  posterior expectation of KL(pi_E || pi): add-one is the Bayes rule for that loss. With N_h(s) = m,
      E KL(pi_E(. | s) || pi(. | s)) <= log((m + A) / (m + 1)) <= (A - 1) / (m + 1)   for every expert (Jensen).
* ``fit_bc_linear``: maximum likelihood among pi_h(a|s) \propto exp(phi(s,a) . theta_h), mixed with the uniform policy, without
  which the expected divergence is infinite at every n (separable data have positive probability).
* ``fit_bc_finite``: maximum likelihood among finitely many policies.

Reference: Tiapkin, Belomestny, Calandriello, Moulines, Munos, Naumov, Perrault, Valko, Ménard,
"Demonstration-Regularized RL", ICLR 2024, arXiv 2310.17303 (its behaviour cloning).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, IntArray, as_flag, as_floats, as_real, as_simplex, fail, frozen
from mdpsim.estimate.data import Counts, Trajectories, count
from mdpsim.kernels import loglinear
from mdpsim.records import record

MAX_SMOOTHING = 1e12  # beyond this every row is uniform to within 1e-12 of what any number of demonstrations says
GRADIENT = 1e-10  # of the mean log-likelihood, in coordinates of unit variance
MAX_STEPS = 200
RUNAWAY = 0.1  # a step that still moves a score by this much at a zero gradient runs to infinity

CONVERGED, SEPARABLE, STALLED = "converged", "separable", "stalled"


def _counts(function: str, demos: Trajectories | Counts) -> Counts:
    if not isinstance(demos, Trajectories | Counts):
        fail(function, "demos", "be Trajectories or Counts", type(demos).__name__)
    return demos if isinstance(demos, Counts) else count(demos)


def fit_bc(demos: Trajectories | Counts, *, smoothing: float = 1.0, stationary: bool = False) -> FloatArray:
    """Clone the policy behind ``demos`` by additive smoothing.

    Implements: pi[h, s, a] = (N_h(s, a) + smoothing) / (N_h(s) + A smoothing); smoothing = 1 is the Laplace estimator
    of [tiapkin2023], the KL-optimal Bayes rule under a uniform prior. A stationary clone pools the stages: it has
    sum_h N_h(s, a) in the place of N_h(s, a).

    Args:
        demos: demonstrations, or their counts (all that the estimator needs).
        smoothing: pseudo-count of each action, in [0, 1e12]. 0 is maximum likelihood: KL(expert || pi) is then infinite
            where an action of the expert was never seen.
        stationary: whether one policy, fitted to all stages together, is to stand at every stage. Right for an expert that does
            not look at the stage: its clone then has H times the data.
    Returns:
        pi [H, S, A], read-only; uniform where a state was never visited, for every smoothing.
    Exactness: closed form, a few ulp.
    Cost: O(H S A), and O(n H) to count trajectories.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    visits = _counts("fit_bc", demos).visits
    pseudo = as_real("fit_bc", "smoothing", smoothing, 0.0, MAX_SMOOTHING)
    as_flag("fit_bc", "stationary", stationary)
    if stationary:
        visits = np.broadcast_to(visits.sum(axis=0), visits.shape)
    # A row never visited has mass 0 or A smoothing, all of it prior: 1 / A whatever the smoothing, 0 / 0 included.
    unseen = visits.sum(axis=-1, keepdims=True) == 0
    mass = np.where(unseen, 1.0, visits + pseudo)
    return frozen(mass / mass.sum(axis=-1, keepdims=True))


# --- log-linear policies ---------------------------------------------------------------------------------------------


@record
class CloningFit(NamedTuple):
    """A log-linear clone.

    Args:
        pi: [H, S, A] the clone, (1 - kappa) pi_theta + kappa / A.
        theta: [H, d] maximum-likelihood parameters, of least norm in the span of the visited feature differences.
        cov: [H, d, d] inverse of n times the observed Fisher information, on that span (0 off it).
        rank: [H] effective dimension: the rank of the Fisher information, at most d and at most (states visited)(A - 1).
        gradient: [H] Euclidean norm of the gradient of the mean log-likelihood (less the ridge) at theta.
        log_likelihood: [H] of the demonstrations' actions under pi_theta.
        status: [H] "converged"; "separable" (the likelihood has no maximum: theta is where its gradient vanished on the way to
            infinity, and cov is of no use); "stalled" (200 steps did not reach a zero gradient: look at ``gradient``).
    """

    pi: FloatArray
    theta: FloatArray
    cov: FloatArray
    rank: IntArray
    gradient: FloatArray
    log_likelihood: FloatArray
    status: tuple[str, ...]


def fit_bc_linear(
    demos: Trajectories | Counts, phi: ArrayLike, *, kappa: float | None = None, ridge: float = 0.0,
    start: ArrayLike | None = None,
) -> CloningFit:
    r"""Clone by maximum likelihood in the log-linear class, stage by stage, mixed with the uniform policy.

    Implements: theta_h = argmax (1/n) sum_{s,a} N_h(s,a) log pi_theta(a|s) - ridge |theta|^2 / 2 with
    pi_theta(a|s) \propto exp(phi(s,a) . theta), and pi_h = (1 - kappa) pi_{theta_h} + kappa / A.

    Args:
        demos: n demonstrations, or their counts.
        phi: [S, A, d] features. What does not depend on the action (phi + c(s)) changes nothing, and rank-deficient features
            are fitted as they are: see ``rank``.
        kappa: weight of the uniform policy, in [0, 1]; None is A / (n + A). 0 is pure maximum likelihood.
        ridge: weight of the penalty, in [0, 1e12].
        start: [H, d] where Newton's method begins (a fit to fewer demonstrations, say); None is zero. It changes the number
            of steps; the maximum is unique on the span.
    Returns:
        CloningFit: pi [H, S, A], theta [H, d], cov [H, d, d], rank, gradient, log_likelihood, status [H].
    Exactness: the gradient of the mean log-likelihood is at most 1e-10 in coordinates in which the features have unit variance
        over the visited states. Directions below 1e-13 of the largest singular value of the features count as none.
    Separable data (some direction never lowers the likelihood): the supremum is at infinity. The fit stops where the gradient
        vanishes; the likelihood is then within about 1e-9 n of its supremum, and what pi does in unvisited states follows that
        direction. Such stages say "separable"; ridge > 0 makes the maximum finite.
    Cost: O(H S A d^2) a Newton step (5 to 30 steps), and O(n H) to count trajectories.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    counts = _counts("fit_bc_linear", demos)
    H, S, A = counts.visits.shape
    features = as_floats("fit_bc_linear", "phi", phi, "S A d", (S, A, None))
    weight = A / (counts.n + A) if kappa is None else as_real("fit_bc_linear", "kappa", kappa, 0.0, 1.0)
    penalty = as_real("fit_bc_linear", "ridge", ridge, 0.0, 1e12)
    d = features.shape[-1]
    begin = np.zeros((H, d)) if start is None else as_floats("fit_bc_linear", "start", start, "H d", (H, d))
    centred = _centred(features)
    stages = [_fit_stage(centred, counts.visits[h] / counts.n, penalty, begin[h]) for h in range(H)]
    theta = np.stack([s.theta for s in stages])
    scores = np.einsum("sad,hd->hsa", centred, theta)
    mass = np.exp(scores - scores.max(axis=-1, keepdims=True))
    pi = (1.0 - weight) * (mass / mass.sum(axis=-1, keepdims=True)) + weight / A
    return CloningFit(
        frozen(pi), frozen(theta), frozen(np.stack([s.cov for s in stages]) / counts.n),
        frozen(np.array([s.rank for s in stages], np.int64)), frozen(np.array([s.gradient for s in stages])),
        frozen(np.array([s.log_likelihood for s in stages]) * counts.n), tuple(s.status for s in stages),
    )


def _centred(features: FloatArray) -> FloatArray:
    """The features less their mean over actions: all that a policy sees of them. Products of three must not overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        centred = features - features.mean(axis=1, keepdims=True)
        largest = np.abs(centred).max()
    if largest != 0.0 and not 1e-100 <= largest <= 1e100:
        wanted = "differ between actions by 1e-100 to 1e100, or not at all"
        fail("fit_bc_linear", "phi", wanted, f"a difference of {largest:.3g}")
    return centred


class _Stage(NamedTuple):
    theta: FloatArray
    cov: FloatArray
    rank: int
    gradient: float
    log_likelihood: float
    status: str


def _fit_stage(centred: FloatArray, share: FloatArray, ridge: float, start: FloatArray) -> _Stage:
    """One stage, in coordinates z = W^-1 theta in which the information of the uniform policy is the identity.

    Its null space is that of every interior policy's information, so its rank is the effective dimension.
    """
    seen = np.flatnonzero(share.sum(axis=-1) > 0)
    x, n = centred[seen], np.ascontiguousarray(share[seen])
    A, d = x.shape[1:]
    rows = (x * np.sqrt(n.sum(axis=-1) / A)[:, None, None]).reshape(-1, d)
    _, sigma, axes = np.linalg.svd(rows, full_matrices=False)
    keep = sigma > 1e-13 * sigma[0] if sigma.size else np.zeros(0, bool)
    sigma, axes = sigma[keep], axes[keep]
    k = sigma.size
    whiten = axes.T / sigma  # theta = whiten z
    z, hessian, info = np.zeros(k), np.zeros((k, k)), np.empty(4)
    white = np.ascontiguousarray(x @ whiten)
    with np.errstate(over="ignore", invalid="ignore"):
        begin = sigma * (axes @ start)
    begin = np.where(np.isfinite(begin), begin, 0.0)
    loglinear.newton(
        frozen(white), frozen(n), frozen(ridge / sigma**2), frozen(begin), GRADIENT, MAX_STEPS,
        z, hessian, info,
    )
    symmetric = np.tril(hessian) + np.tril(hessian, -1).T
    cov = whiten @ np.linalg.pinv(symmetric, rcond=1e-15, hermitian=True) @ whiten.T
    theta = whiten @ z
    scores = x @ theta
    shifted = scores - scores.max(axis=-1, keepdims=True)
    log_pi = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    excess = n - n.sum(axis=-1, keepdims=True) * np.exp(log_pi)
    gradient = float(np.linalg.norm(np.einsum("sa,sad->d", excess, x) - ridge * theta))
    status = STALLED if info[0] > GRADIENT else SEPARABLE if info[1] > RUNAWAY else CONVERGED
    return _Stage(theta, cov, k, gradient, float((n * log_pi).sum()), status)


# --- finite classes --------------------------------------------------------------------------------------------------


@record
class FiniteFit(NamedTuple):
    """The maximum-likelihood member of a finite class.

    Args:
        pi: [H, S, A] the member.
        index: its place in the class; the first of those that tie.
        log_likelihood: [M] of the demonstrations' actions, -inf where a member gives one of them probability zero.
    """

    pi: FloatArray
    index: int
    log_likelihood: FloatArray


def fit_bc_finite(demos: Trajectories | Counts, policies: ArrayLike) -> FiniteFit:
    """Clone by maximum likelihood in a finite class of policies.

    Implements: argmax over m of sum_{h,s,a} N_h(s,a) log policies[m, h, s, a], with 0 log 0 = 0.

    Args:
        demos: demonstrations, or their counts.
        policies: [M, H, S, A], the class.
    Returns:
        FiniteFit: pi [H, S, A], index, log_likelihood [M]. KL(expert || pi) may be infinite, where the member never plays what
        the expert can.
    Exactness: sums of logarithms, relative error about 1e-15; ties within rounding go to the first.
    Cost: O(M x the number of (h, s, a) seen), one logarithm each.
    Raises:
        ValueError: naming the argument, what was wanted and what came; no member gives the demonstrations positive probability.
    """
    visits = _counts("fit_bc_finite", demos).visits
    members = as_simplex("fit_bc_finite", "policies", policies, "M H S A", (None, *visits.shape))
    seen = np.flatnonzero(visits)
    with np.errstate(divide="ignore"):  # log 0 = -inf: the member cannot have shown this
        log_likelihood = (np.log(members.reshape(len(members), -1)[:, seen]) * visits.ravel()[seen]).sum(axis=-1)
    index = int(log_likelihood.argmax())
    if log_likelihood[index] == -np.inf:
        wanted = "hold a member under which the demonstrations are possible"
        fail("fit_bc_finite", "policies", wanted, f"none of {len(members)}")
    return FiniteFit(frozen(members[index].copy()), index, frozen(log_likelihood))
