r"""DPO: direct preference optimisation. Its loss and gradient, and its learners over a finite class.

With d = beta (log pi/pi_ref(y+) - log pi/pi_ref(y-)), averaged over pairs,

    DPO:                  -log sigma(d)                                     (Rafailov et al., 2023)
    label smoothing s:    -(1 - s) log sigma(d) - s log sigma(-d)           (Mitchell's conservative DPO)
    IPO:                  (d / beta - 1 / (2 beta))^2                       (Azar et al., 2024; its tau is beta)

log pi(y | x) is the SUM of the log-probabilities of y's tokens: a mean over tokens is another loss.

Learners differ in where pairs come from. Offline: both responses from pi_ref. Online: both from pi^t. Iterative: the same,
the policy renewed every ``batch`` rounds. Against the reference: y ~ pi^t, y~ ~ pi_ref, which is XPO with alpha = 0 and
what to compare it with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.align.classes import (
    FiniteClass,
    as_indices,
    as_log_policies,
    as_log_ref,
    as_temperature,
    guard_mdp,
    guard_range,
    kl_rows,
    quiet,
)
from mdpsim.align.gradient import Policy, Softmax, TokenSoftmax
from mdpsim.align.rounds import BRADLEY_TERRY, LOSSES, NEAREST, Exploration, Plan, PreferenceModel, play
from mdpsim.arrays import FloatArray, IntArray, as_count, as_floats, as_real, as_simplex, fail, frozen, unknown
from mdpsim.estimate.preferences import Preferences
from mdpsim.mdp.token import TokenMDP
from mdpsim.records import record


@record
@dataclass(frozen=True, init=False, eq=False, repr=False)
class Pairs:
    """n labelled pairs of responses, each to one context; iterates as (context, better, worse).

    Args:
        context: [n] the number of each pair's context. better, worse: [n] the response preferred and the other.
    Raises:
        ValueError: no pairs, other than whole numbers, negative ones, different lengths.
    """

    context: IntArray
    better: IntArray
    worse: IntArray

    def __init__(self, context: ArrayLike, better: ArrayLike, worse: ArrayLike) -> None:
        contexts = as_indices("Pairs", "context", context, "n", (None,))
        for name, value in (("context", contexts), ("better", better), ("worse", worse)):
            object.__setattr__(self, name, as_indices("Pairs", name, value, "n", (contexts.size,)))

    def __iter__(self) -> Iterator[IntArray]:
        return iter((self.context, self.better, self.worse))

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.context.size

    def __repr__(self) -> str:
        return f"Pairs(n={self.n})"


def pairs(better: ArrayLike, worse: ArrayLike) -> Pairs:
    """Labelled pairs of responses, each given as (context, response).

    Args:
        better, worse: [n, 2] integers; the two of a pair are responses to one context.
    Raises:
        ValueError: a pair of two contexts; negative or other than integer numbers; different lengths.
    """
    one = as_indices("pairs", "better", better, "n 2", (None, 2))
    two = as_indices("pairs", "worse", worse, "n 2", (one.shape[0], 2))
    apart = one[:, 0] != two[:, 0]
    if apart.any():
        i = int(apart.argmax())
        got = f"contexts {one[i, 0]} and {two[i, 0]} in pair {i}"
        fail("pairs", "worse", "answer the context of better: a preference is between responses to one context", got)
    return Pairs(one[:, 0], one[:, 1], two[:, 1])


def pairs_of(mdp: TokenMDP, preferences: Preferences) -> Pairs:
    """The pairs of responses in labelled pairs of episodes of a token MDP.

    Raises:
        ValueError: episodes of another length or vocabulary.
    """
    guard_mdp("pairs_of", mdp)
    if not isinstance(preferences, Preferences):
        fail("pairs_of", "preferences", "be Preferences", type(preferences).__name__)
    if (preferences.H, preferences.S, preferences.A) != (mdp.H, mdp.S, mdp.A):
        fail("pairs_of", "preferences", f"be of H, S, A = {(mdp.H, mdp.S, mdp.A)}",
             (preferences.H, preferences.S, preferences.A))
    context = preferences.first.states[:, 0]
    one, two = mdp.index(preferences.first.actions), mdp.index(preferences.second.actions)
    won = preferences.label == 1
    return Pairs(context, np.where(won, one, two), np.where(won, two, one))


@quiet
def dpo_losses(
    log_pi: ArrayLike, log_ref: ArrayLike, data: Pairs, *, beta: float, smoothing: float = 0.0, loss: str = "logistic"
) -> FloatArray:
    """The mean loss of each of n policies on labelled pairs.

    Args:
        log_pi: [n, X, Y] log-probabilities of whole responses (sums over tokens); rows are laws within 1e-9.
        log_ref: [X, Y] those of pi_ref. data: labelled pairs.
        beta: in [1e-8, 1e8]. smoothing: in [0, 1/2]. loss: "logistic" or "ipo".
    Returns:
        [n]; infinite for a policy that never writes a preferred response.
    Cost: O(X Y) a policy, and O(n) a pair.
    Raises:
        ValueError: naming the argument; rows that are no laws; a pair outside X, Y or of probability zero under pi_ref.
    """
    ref = as_log_ref("dpo_losses", log_ref)
    logs = as_log_policies("dpo_losses", log_pi, ref)
    margin = _margins("dpo_losses", logs, ref, data, beta)
    return frozen(_losses("dpo_losses", margin, beta, smoothing, loss).mean(axis=-1))


@quiet
def dpo_gradient(
    policy: Policy, theta: ArrayLike, log_ref: ArrayLike, data: Pairs, *, beta: float, smoothing: float = 0.0,
    loss: str = "logistic",
) -> FloatArray:
    """The gradient of the mean loss in the logits of a softmax in each context.

    Implements: (1/n) sum_i loss'(d_i) beta (grad log pi(y+_i) - grad log pi(y-_i)); the normaliser of a context cancels.

    Args:
        policy: Softmax over Y responses, or TokenSoftmax over V^L = Y. theta: [X, policy.size].
        log_ref, data, beta, smoothing, loss: as in ``dpo_losses``.
    Returns:
        [X, policy.size].
    Cost: O(X Y + n).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "dpo_gradient"
    ref = as_log_ref(where, log_ref)
    X, Y = ref.shape
    if not isinstance(policy, Softmax | TokenSoftmax):
        fail(where, "policy", "be a Softmax or a TokenSoftmax", type(policy).__name__)
    size = policy.K if isinstance(policy, Softmax) else policy.V**policy.L
    if size != Y:
        fail(where, "policy", f"write {Y} responses", size)
    x = as_floats(where, "theta", theta, "X n", (X, policy.size))
    guard_range(where, "theta", x)
    logs = np.stack([policy.log_pi(row) for row in x])
    margin = _margins(where, logs[None], ref, data, beta)[0]
    slope = _slopes(where, margin, beta, smoothing, loss) / margin.size
    weights = np.zeros(X * Y)
    np.add.at(weights, data.context * Y + data.better, slope)
    np.add.at(weights, data.context * Y + data.worse, -slope)
    return frozen(np.stack([policy.pullback(row, w) for row, w in zip(x, weights.reshape(X, Y), strict=True)]))


def _margins(where: str, logs: FloatArray, ref: FloatArray, data: Pairs, beta: float) -> FloatArray:
    """d [n, pairs] = beta (log pi/pi_ref(better) - log pi/pi_ref(worse)), after guarding data and beta.

    -inf where the better response is never written, whether the worse one is or not.
    """
    weight = as_temperature(where, beta)
    if not isinstance(data, Pairs):
        fail(where, "data", "be Pairs", type(data).__name__)
    X, Y = ref.shape
    top = max(int(data.better.max()), int(data.worse.max()))
    if data.context.max() >= X or top >= Y:
        fail(where, "data", f"answer {X} contexts with {Y} responses", f"context {data.context.max()}, response {top}")
    for name, y in (("better", data.better), ("worse", data.worse)):
        never = np.isneginf(ref[data.context, y])
        if never.any():
            i = int(never.argmax())
            fail(where, f"data.{name}", "be written by pi_ref", f"response {y[i]} to context {data.context[i]} in pair {i}")
    c, a, b = data
    better, worse = logs[:, c, a], logs[:, c, b]
    gone = np.isneginf(better)
    return np.where(gone, -np.inf, weight * ((better - ref[c, a]) - (np.where(gone, 0.0, worse) - ref[c, b])))


def _guard_loss(where: str, smoothing: float, loss: str) -> float:
    if not isinstance(loss, str) or loss not in LOSSES:
        unknown(where, "loss", loss, LOSSES)
    s = as_real(where, "smoothing", smoothing, 0.0, 0.5)
    if loss == "ipo" and s > 0.0:
        fail(where, "smoothing", "be 0 for the loss 'ipo'", s)
    return s


def _losses(where: str, d: FloatArray, beta: float, smoothing: float, loss: str) -> FloatArray:
    s = _guard_loss(where, smoothing, loss)
    if loss == "ipo":
        return ((d - 0.5) / beta) ** 2
    return np.logaddexp(0.0, -d) + (s * np.where(np.isneginf(d), 0.0, d) if s > 0.0 else 0.0)


def _slopes(where: str, d: FloatArray, beta: float, smoothing: float, loss: str) -> FloatArray:
    """beta loss'(d): what multiplies grad log pi(better) - grad log pi(worse)."""
    s = _guard_loss(where, smoothing, loss)
    if loss == "ipo":
        return 2.0 * (d - 0.5) / beta
    with np.errstate(over="ignore"):
        return beta * (s - 1.0 / (1.0 + np.exp(d)))


@record
class DPOFit(NamedTuple):
    """The policy of a class that fits pairs best: its index, its log-probabilities [X, Y], and the mean losses [n] of all."""

    index: int
    log_pi: FloatArray
    losses: FloatArray


@quiet
def fit_dpo(
    policies: FiniteClass, data: Pairs, *, beta: float, smoothing: float = 0.0, loss: str = "logistic",
    mu0: ArrayLike | None = None,
) -> DPOFit:
    """The least DPO loss over a finite class, by brute force; ties as in ``align.rounds``: towards pi_ref.

    Args:
        policies: the class. data, beta, smoothing, loss: as in ``dpo_losses``.
        mu0: [X] law of the contexts in the divergence that decides ties; None is uniform.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    if not isinstance(policies, FiniteClass):
        fail("fit_dpo", "policies", "be a FiniteClass", type(policies).__name__)
    log_pi = policies.log_pi(as_temperature("fit_dpo", beta))
    losses = dpo_losses(log_pi, policies.log_ref, data, beta=beta, smoothing=smoothing, loss=loss)
    weights = np.full(policies.X, 1.0 / policies.X) if mu0 is None else as_simplex("fit_dpo", "mu0", mu0, "X", (policies.X,))
    away = (kl_rows(log_pi, policies.log_ref[None]) * weights).sum(axis=1)
    k = int((losses * data.n + NEAREST * away).argmin())
    return DPOFit(k, log_pi[k], losses)


@dataclass(frozen=True, kw_only=True)
class _DPO:
    """What the learners share.

    Args:
        beta: KL weight, in [1e-8, 1e8].
        smoothing: label smoothing in [0, 1/2]. loss: "logistic" or "ipo". ties: "reference" or "random"; see ``align.rounds``.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    beta: float
    smoothing: float = 0.0
    loss: str = "logistic"
    ties: str = "reference"

    def __post_init__(self) -> None:
        self._plan()

    def _plan(self) -> Plan:
        raise NotImplementedError

    def _with(self, first: str, second: str, every: int = 1) -> Plan:
        return Plan(where=type(self).__name__, beta=self.beta, first=first, second=second, every=every,
                    smoothing=self.smoothing, loss=self.loss, ties=self.ties)

    def run(
        self, mdp: TokenMDP, policies: FiniteClass, rounds: int, seeds: int | Sequence[int], *,
        preference: PreferenceModel = BRADLEY_TERRY, start: int | None = None, target: float = 0.0,
        checkpoints: ArrayLike | None = None, keep: bool = False,
    ) -> Exploration:
        """Play T rounds, once a seed; arguments, cost and errors as in ``XPO.run``."""
        return play(self._plan(), mdp, policies, rounds, seeds, preference=preference, start=start, target=target,
                    checkpoints=checkpoints, keep=keep)


class OfflineDPO(_DPO):
    """Both responses from pi_ref; pi^t is fitted to the first t - 1 pairs."""

    def _plan(self) -> Plan:
        return self._with("reference", "reference")


class OnlineDPO(_DPO):
    """Both responses from pi^t, renewed every round."""

    def _plan(self) -> Plan:
        return self._with("policy", "policy")


@dataclass(frozen=True, kw_only=True)
class IterativeDPO(_DPO):
    """Both responses from the current policy, which is renewed every ``batch`` rounds."""

    batch: int = 100

    def _plan(self) -> Plan:
        return self._with("policy", "policy", as_count("IterativeDPO", "batch", self.batch, high=10**9))


@dataclass(frozen=True, kw_only=True)
class ComparatorDPO(_DPO):
    """y ~ pi^t, y~ ~ pi_ref (or the history): XPO with alpha = 0, bit for bit."""

    comparator: str = "reference"

    def _plan(self) -> Plan:
        if not isinstance(self.comparator, str) or self.comparator not in ("reference", "history"):
            unknown("ComparatorDPO", "comparator", self.comparator, ("reference", "history"))
        return self._with("policy", self.comparator)
