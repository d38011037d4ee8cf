r"""Rounds of preference optimisation over a finite class: what XPO and every kind of DPO here have in common.

A round draws a context x ~ mu0 and two responses to it, sees which is preferred, and (every ``every`` rounds) takes the
policy of the class with the least score

    sum_i loss(rho(y+_i) - rho(y-_i)) + (alpha / beta) sum_i (rho(y~_i) - V_rho),      beta log pi/pi_ref = rho - V_rho,

y~_i the second response. The learners differ in where responses come from and in alpha alone.

Tie rule. Scores start at 1e-9 KL(pi || pi_ref) (x ~ mu0): where the data leave policies tied, the one nearest pi_ref is taken,
as gradient flow from pi_ref would; where they all are, that is pi_ref itself if it is in the class. What is still tied,
such as two policies that mirror each other, goes to the one listed first. ``ties="random"`` takes any of the tied with
equal chances instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.classes import FiniteClass, as_indices, as_temperature, gaps, guard_sizes, kl_rows, quiet
from mdpsim.arrays import FloatArray, IntArray, as_count, as_flag, as_floats, as_real, as_simplex, fail, frozen, unknown
from mdpsim.estimate.preferences import Link, win_probabilities
from mdpsim.kernels import finite_class as kernels
from mdpsim.learn.trace import log_spaced
from mdpsim.mdp.token import TokenMDP
from mdpsim.records import record
from mdpsim.rng import words

SOURCES = {
    "reference": kernels.REFERENCE, "policy": kernels.CURRENT, "history": kernels.HISTORY, "given": kernels.GIVEN,
}
LOSSES, TIES = ("logistic", "ipo"), ("reference", "random")
NEAREST = 1e-9  # weight of the divergence that decides ties
MAX_PAIRS = 2**24  # contexts times pairs of responses
MAX_KEPT = 2**26  # rounds of all runs whose pairs are kept, and rounds of a run whose history is
KEPT = 2**21  # losses of pairs kept at once: 16 MiB
_GRID = frozen(np.concatenate([[0.0], np.geomspace(1e-6, 100.0, 81)]))  # differences at which a link is tried


@dataclass(frozen=True, kw_only=True)
class PreferenceModel:
    """P(first preferred) = noise + (1 - 2 noise) link(r(first) - r(second)).

    Args:
        link: a function p from differences [n] to probabilities [n] with p(d) + p(-d) = 1, tried at 163 differences within
            +-100; None is Bradley-Terry's sigma(x) = 1 / (1 + e^-x).
        noise: probability in [0, 1/2] that a label is flipped.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    link: Link | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.link is not None and not callable(self.link):
            fail("PreferenceModel", "link", "be a function of the differences, or None", repr(self.link))
        as_real("PreferenceModel", "noise", self.noise, 0.0, 0.5)
        with np.errstate(all="ignore"):  # that a link underflows at a difference of 100 is no fault
            win_probabilities("PreferenceModel", _GRID, self.link)

    def wins(self, rewards: ArrayLike) -> FloatArray:
        """[X, Y, Y] probability that the first response is preferred to the second, of rewards [X, Y].

        Raises:
            ValueError: naming the argument, what was wanted and what came.
        """
        r = as_floats("wins", "rewards", rewards, "X Y", (None, None))
        if r.size * r.shape[1] > MAX_PAIRS:
            fail("wins", "rewards", f"give at most {MAX_PAIRS} pairs of responses", f"{r.shape[0]} * {r.shape[1]}^2")
        with np.errstate(over="ignore"):
            difference = frozen((r[:, :, None] - r[:, None, :]).reshape(-1))
        p = win_probabilities("PreferenceModel", difference, self.link)
        return frozen((self.noise + (1.0 - 2.0 * self.noise) * p).reshape(*r.shape, -1))


BRADLEY_TERRY = PreferenceModel()


@record
class Exploration(NamedTuple):
    """N runs of T rounds, one a seed; read-only arrays. K checkpoints, pi^t the policy that round t plays.

    checkpoints: [K] rounds t, log-spaced from 1 to T.
    gap: [N, K] J(pi*) - J(pi^t) = beta KL(pi^t || pi*). average: its mean over pi^1 .. pi^t. best: its least value among them.
    mass: [N, K] probability of a best response (of the highest reward among those pi_ref writes) under pi^t.
    mixed: [N, K] pairs of different responses among the first t. wrong: those of them labelled against their rewards.
    chosen: [N, K] index of pi^t in the class; n stands for pi_ref.
    left: [N] first round that plays neither pi^1 nor the class's nearest to pi_ref; T + 1 where none does.
    reached: [N] first round whose gap is below ``target``; T + 1 where none is.
    final: [N] index of pi^{T+1}, chosen after all T pairs. final_gap: [N] its gap.
    distance: the least gap of the class: 0, up to rounding, where it holds pi*; else the class is misspecified by that much.
    alpha: the weight of the bonus.
    pairs: [N, T, 4] context, first response, second response, label (1: the first was preferred); [N, 0, 4] unless kept.
    scores: [N, n] at the end; [N, 0] unless kept.
    """

    checkpoints: IntArray
    gap: FloatArray
    average: FloatArray
    best: FloatArray
    mass: FloatArray
    mixed: IntArray
    wrong: IntArray
    chosen: IntArray
    left: IntArray
    reached: IntArray
    final: IntArray
    final_gap: FloatArray
    distance: float
    alpha: float
    pairs: IntArray
    scores: FloatArray


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What distinguishes learners: sources of the two responses, the bonus, the rhythm, the loss and the tie rule."""

    where: str
    beta: float
    alpha: float = 0.0
    first: str = "policy"
    second: str = "policy"
    every: int = 1
    smoothing: float = 0.0
    loss: str = "logistic"
    ties: str = "reference"

    def __post_init__(self) -> None:
        as_temperature(self.where, self.beta)
        as_real(self.where, "smoothing", self.smoothing, 0.0, 0.5)
        if not isinstance(self.loss, str) or self.loss not in LOSSES:
            unknown(self.where, "loss", self.loss, LOSSES)
        if not isinstance(self.ties, str) or self.ties not in TIES:
            unknown(self.where, "ties", self.ties, TIES)
        if self.loss == "ipo" and self.smoothing > 0.0:
            fail(self.where, "smoothing", "be 0 for the loss 'ipo'", self.smoothing)


@quiet
def play(
    plan: Plan, mdp: TokenMDP, policies: FiniteClass, rounds: int, seeds: int | Sequence[int], *,
    preference: PreferenceModel = BRADLEY_TERRY, start: int | None = None, target: float = 0.0,
    checkpoints: ArrayLike | None = None, given: ArrayLike | None = None, keep: bool = False,
) -> Exploration:
    """Run a plan for T rounds, once a seed; see the learners' ``run`` for the arguments."""
    where = f"{plan.where}.run"
    T = as_count(where, "rounds", rounds, high=10**9)
    guard_pairs(where, mdp, policies)
    keys, marks = _keys(where, seeds), _checkpoints(where, checkpoints, T)
    if not isinstance(preference, PreferenceModel):
        fail(where, "preference", "be a PreferenceModel", type(preference).__name__)
    begin = policies.n if start is None else as_count(where, "start", start, low=0, high=policies.n - 1)
    goal = as_real(where, "target", target, 0.0, 1e300)
    X, Y, n, N, K = policies.X, policies.Y, policies.n, len(keys), marks.size
    if (as_flag(where, "keep", keep) and N * T > MAX_KEPT) or ("history" in (plan.first, plan.second) and T > MAX_KEPT):
        fail(where, "rounds", f"keep pairs, or a history, of at most {MAX_KEPT} rounds", f"{N} runs of {T}")
    extra = np.exp(policies.log_ref) if given is None else _comparator(where, given, policies)
    x = _tables(mdp, policies, float(plan.beta), extra)
    bonus = T * (abs(plan.alpha) / plan.beta) * max(float(x.centred.max()), -float(x.centred.min()))
    if not bonus < 1e306:  # scores that overflow are compared as NaN
        got = f"alpha = {plan.alpha:g}, up to {bonus:g}"
        fail(where, "alpha", "keep sums of T bonuses alpha log pi/pi_ref below 1e306", got)
    random_ties = plan.ties == "random"
    modes = (T, SOURCES[plan.first], SOURCES[plan.second], plan.every, begin, int(x.away.argmin()), random_ties,
             plan.loss == "ipo")
    curves, chosen, ends = np.zeros((N, K, 6)), np.zeros((N, K), np.int64), np.zeros((N, 3), np.int64)
    pairs, scores = np.zeros((N, T if keep else 0, 4), np.int64), np.zeros((N, n if keep else 0))
    kernels.run_class(
        x.rho, x.centred, x.law, frozen(mdp.mu0.reshape(1, -1)), frozen(preference.wins(mdp.r).reshape(X * Y, Y)),
        frozen(np.zeros(n) if random_ties else NEAREST * x.away), x.gaps, x.masses, frozen(mdp.r.reshape(-1)),
        frozen(np.array(modes, np.int64)), frozen(np.array([plan.beta, plan.alpha / plan.beta, plan.smoothing, goal])), keys,
        marks, max(2, min(X * Y * Y + 1, KEPT // n)), curves, chosen, ends, pairs, scores,
    )
    gap, average, best, mass = (frozen(np.ascontiguousarray(curves[..., i])) for i in range(4))
    mixed, wrong = (frozen(curves[..., i].astype(np.int64)) for i in (4, 5))
    left, reached, final = (frozen(np.ascontiguousarray(ends[:, i])) for i in range(3))
    return Exploration(
        checkpoints=marks, gap=gap, average=average, best=best, mass=mass, mixed=mixed, wrong=wrong, chosen=frozen(chosen),
        left=left, reached=reached, final=final, final_gap=frozen(x.gaps[final]), distance=float(x.gaps[:n].min()),
        alpha=plan.alpha, pairs=frozen(pairs), scores=frozen(scores),
    )


class _Tables(NamedTuple):
    """What the kernel reads of a class: see its arguments; away [n] are the divergences from pi_ref."""

    rho: FloatArray
    centred: FloatArray
    law: FloatArray
    gaps: FloatArray
    masses: FloatArray
    away: FloatArray


def _tables(mdp: TokenMDP, policies: FiniteClass, beta: float, extra: FloatArray) -> _Tables:
    """Tables of the n policies, of pi_ref after them, and (``law`` only) of the given comparator."""
    rho, V = policies.implicit(beta)
    log_pi = np.concatenate([policies.log_pi(beta), policies.log_ref[None]])
    law, written = np.exp(log_pi), policies.log_ref > -np.inf
    top = np.where(written, mdp.r, -np.inf).max(axis=1, keepdims=True)
    masses = (np.where((mdp.r == top) & written, law, 0.0).sum(axis=2) * mdp.mu0).sum(axis=1)
    away = (kl_rows(log_pi[:-1], policies.log_ref[None]) * mdp.mu0).sum(axis=1)
    return _Tables(
        _by_policy(rho), _by_policy(rho - V[..., None]), frozen(np.concatenate([law, extra[None]]).reshape(-1, policies.Y)),
        gaps(mdp, log_pi, policies.log_ref, beta), frozen(masses), away,
    )


def _by_policy(x: FloatArray) -> FloatArray:
    """[X Y, n] of [n, X, Y]: the policies of one response side by side."""
    return frozen(np.ascontiguousarray(x.reshape(x.shape[0], -1).T))


def guard_pairs(where: str, mdp: TokenMDP, policies: FiniteClass) -> None:
    """Guard an environment and a class: of equal sizes, with few enough pairs of responses."""
    guard_sizes(where, mdp, policies)
    if mdp.X * mdp.Y**2 > MAX_PAIRS:
        fail(where, "mdp", f"have at most {MAX_PAIRS} pairs of responses", f"{mdp.X} * {mdp.Y}^2")


def _comparator(where: str, given: ArrayLike, policies: FiniteClass) -> FloatArray:
    """The law [X, Y] of the second response: within pi_ref's support, where log pi / pi_ref is defined."""
    law = as_simplex(where, "comparator", given, "X Y", (policies.X, policies.Y))
    off = (law > 0.0) & (policies.log_ref == -np.inf)
    if off.any():
        x, y = (int(i) for i in np.argwhere(off)[0])
        got = f"{law[x, y]:.6g} for response {y} to context {x}, of probability 0"
        fail(where, "comparator", "stay on the support of pi_ref", got)
    return law


def _keys(where: str, seeds: int | Sequence[int]) -> np.ndarray:
    """uint64 [N, 2], two words of each seed."""
    many = isinstance(seeds, Sequence | np.ndarray) and np.shape(seeds) and not isinstance(seeds, bytes)
    given = list(seeds) if many else [seeds]  # type: ignore[arg-type]
    if not given:
        fail(where, "seeds", "be a seed or a sequence of seeds", seeds)
    whole = [as_count(where, "seeds", s, low=0, high=2**128 - 1) for s in given]
    return frozen(np.array([words(s) for s in whole], dtype=np.uint64))


def _checkpoints(where: str, given: ArrayLike | None, rounds: int) -> IntArray:
    if given is None:
        return frozen(log_spaced(rounds)[1:])
    marks = as_indices(where, "checkpoints", given, "K", (None,), rounds + 1)
    if marks[0] < 1 or (np.diff(marks) <= 0).any():
        fail(where, "checkpoints", f"be increasing, in 1 .. {rounds}", marks)
    return marks
