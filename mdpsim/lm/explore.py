r"""Online preference optimisation with a language model: XPO and DPO on the full history, round by round.

A round draws x ~ mu0, y ~ pi^t and y~ from pi_ref or pi^t, sees a Bradley-Terry label, and seeks the least value of

    F(pi) = sum_i -log sigma(rho(y+_i) - rho(y-_i)) + alpha sum_i log pi(y~_i),    rho = beta log pi / pi_ref,

over all pairs so far. Responses are enumerated, so the history is its counts and a step costs the same at every round.
Sampling is untempered. alpha > 0 is XPO's optimism, alpha = 0 DPO, alpha < 0 the wrong sign.

The search. The theory's argmin is global, and F has a basin for every response that optimism may favour (``align.cccp``). The
gradient of the bonus is alpha (pi - e_{y~}) in logits: proportional to pi(y), so that steps from the last policy see nothing
of a response that it hardly gives, and follow the likely ones (measured: such steps end above the least F in most rounds,
and XPO then finds a rare response no more often than DPO). ``Search`` therefore starts every round at pi^1, with fresh
moments (where the data leave F flat it stays there: the tie rule of the theory), and anneals: it first reads every token's
law at a temperature h > 1, log pi -> h log softmax(log pi / h), where rare responses weigh nearly as much as likely ones, and
lowers h to 1, so that its last steps are on F itself. ``loss`` and ``slope`` record what a search leaves.

Runs are independent of each other and played side by side (``explore_many``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mdpsim.arrays import FloatArray, IntArray, as_count, as_floats, as_real, fail, frozen, unknown
from mdpsim.lm import losses
from mdpsim.lm.device import to_device
from mdpsim.lm.ensemble import Ensemble
from mdpsim.lm.guards import as_floating, guard_laws
from mdpsim.lm.model import LanguageModel, guard_language_model
from mdpsim.lm.train import Adam, Space, TrainingError, guard_space
from mdpsim.records import record
from mdpsim.rng import as_generator

SOURCES = ("policy", "reference")


@dataclass(frozen=True, kw_only=True)
class Search(Adam):
    """How a round seeks the least F: Adam's settings, and

    Args:
        heat: the temperature h at which a search begins, at least 1; it falls in equal ratios to 1 over the first nine tenths
            of the steps. About 2 R / beta makes all policies of a class |tilt| <= R alike; 1 does not anneal.
        restart: every search begins at pi^1 with fresh moments; False goes on from the last policy with the moments kept.
        lazy: a search is made only where the history has grown by this share since the last one: O(log T / lazy) searches.
            Between them the policy stays. 0 searches every round.
    """

    steps: int = 10
    rate: float = 3e-2
    decay: bool = False
    heat: float = 32.0
    restart: bool = True
    lazy: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        as_real("Search", "heat", self.heat, 1.0, 1e6)
        as_real("Search", "lazy", self.lazy, 0.0, 1e6)

    def heat_at(self, step: int) -> float:
        """The temperature of step 0, 1, .."""
        return max(1.0, self.heat ** (1.0 - step / (0.9 * self.steps)))


A_ROUND = Search()


@record
class LMExploration(NamedTuple):
    """A run of T rounds; read-only arrays, each with an axis [K] of runs in front in ``explore_many``.

    gap: [T + 1] J(pi*) - J(pi^t) = beta KL(pi^t || pi*), exact, pi^1 = the start. mass: [T + 1] probability of a best response.
    kl: [T + 1] KL(pi^t || pi_ref). loss: [T] F / t after each round's search (in rounds without one, the last search's).
    slope: [T] the norm of its gradient.
    pairs: [T, 4] prompt, first response, second response, whether the first was preferred. log_pi: [X, Y] at the end.
    """

    gap: FloatArray
    mass: FloatArray
    kl: FloatArray
    loss: FloatArray
    slope: FloatArray
    pairs: IntArray
    log_pi: FloatArray


def explore(
    model: LanguageModel, space: Space, r: ArrayLike, log_ref: Tensor, *, rounds: int, alpha: float, beta: float,
    rng: np.random.Generator | int, second: str = "reference", optimiser: Search = A_ROUND,
) -> LMExploration:
    """Play T rounds.

    Args:
        model: pi^1, changed in place; a ``Residual`` of pi_ref starts there and stays in a bounded class.
        r: [X, Y] rewards, behind the labels. log_ref: [X, Y] of pi_ref; its rows are laws.
        second: "reference" (XPO) or "policy" (online DPO's, where alpha = 0).
        optimiser: how each round searches.
    Returns:
        LMExploration.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
        TrainingError: a loss became NaN or infinite, or the square of its gradient did.
    """
    guard_language_model("explore", model)
    guard_space("explore", space)
    as_floating("explore", "log_ref", log_ref, "X Y", (len(space.prompts), model.vocabulary**space.length))
    rewards = as_floats("explore", "r", r, "X Y", tuple(log_ref.shape))
    found = explore_many([model], space, rewards[None], log_ref[None], rounds=rounds, alpha=[alpha], beta=[beta], rngs=[rng],
                         second=[second], optimiser=optimiser)
    return LMExploration(*(column[0] for column in found))


def explore_many(
    models: Sequence[LanguageModel], space: Space, r: ArrayLike, log_ref: Tensor, *, rounds: int, alpha: ArrayLike,
    beta: ArrayLike, rngs: Sequence[np.random.Generator | int], second: Sequence[str], optimiser: Search = A_ROUND,
) -> LMExploration:
    """K runs side by side: run k is ``explore`` of the k-th of everything.

    Args:
        models: [K] of one shape, changed in place. r, log_ref: [K, X, Y]. alpha, beta: [K]. rngs, second: K of them.
    Returns:
        LMExploration with an axis [K] in front.
    Cost: a step of K small models at little more than that of one; O(T (X Y + V^L)) numbers on the CPU for the draws.
    Raises:
        ValueError, TrainingError: as ``explore``.
    """
    if not isinstance(optimiser, Search):
        fail("explore", "optimiser", "be a Search", type(optimiser).__name__)
    play = _Play(models, space, r, log_ref, rounds, alpha, beta, rngs, second)
    ensemble, curves, ends, searched = play.ensemble, [], [], 0
    start, adam = ensemble.flat.detach().clone(), ensemble.adam(optimiser.rate)
    log_pi = play.look().detach()
    for t in range(play.rounds):
        curves.append(play.numbers(log_pi))
        play.compare(t, log_pi.double().cpu().numpy())
        if t + 1 < (1.0 + optimiser.lazy) * searched:
            ends.append(ends[-1])
            continue
        searched, kept = t + 1, ensemble.flat.detach().clone()
        if optimiser.restart:
            adam = ensemble.adam(optimiser.rate)
            with torch.no_grad():
                ensemble.flat.copy_(start)
        loss, slope, log_pi = play.search(optimiser, adam, t + 1)
        for what, column in (("the loss", loss), ("the gradient's norm", slope)):
            if not bool(torch.isfinite(column).all()):
                with torch.no_grad():
                    ensemble.flat.copy_(kept)
                ensemble.put_back(models)
                raise TrainingError(t, float(column[~torch.isfinite(column)][0]), max(t - 1, 0), what)
        ends.append(torch.stack([loss, slope]))
    curves.append(play.numbers(log_pi))
    ensemble.put_back(models)
    gap, mass, kl = torch.stack(curves, dim=2).double().cpu().numpy()
    left, slopes = torch.stack(ends, dim=2).double().cpu().numpy()
    columns = (gap, mass, kl, left, slopes, play.pairs, log_pi.double().cpu().numpy())
    return LMExploration(*(frozen(np.ascontiguousarray(c)) for c in columns))


class _Heated(LanguageModel):
    """h log softmax(log pi / h) in the place of every token's log pi: V is taken at the temperature h beta."""

    def __init__(self, model: LanguageModel, heat: float) -> None:
        super().__init__()
        self.model, self.heat = model, heat
        self.vocabulary, self.readable, self.context = model.vocabulary, model.readable, model.context

    def log_probs(self, tokens: Tensor, start: int = 0) -> Tensor:
        return self._warm(self.model.log_probs(tokens, start))

    def tree_log_probs(self, prompts: Tensor, length: int) -> list[Tensor] | None:
        levels = self.model.tree_log_probs(prompts, length)
        return None if levels is None else [self._warm(level) for level in levels]

    def _warm(self, log_p: Tensor) -> Tensor:
        return self.heat * torch.log_softmax(log_p / self.heat, dim=-1)


class _Play:
    """The state of K runs: models, histories as counts, and the numbers that the draws need."""

    def __init__(
        self, models: Sequence[LanguageModel], space: Space, r: ArrayLike, log_ref: Tensor, rounds: int, alpha: ArrayLike,
        beta: ArrayLike, rngs: Sequence[np.random.Generator | int], second: Sequence[str],
    ) -> None:
        where = "explore"
        if not isinstance(models, Sequence) or not models:
            fail(where, "models", "be a sequence of at least one model", repr(models))
        for model in models:
            guard_language_model(where, model, "each of models")
        guard_space(where, space)
        K, (X, Y) = len(models), (len(space.prompts), models[0].vocabulary**space.length)
        as_floating(where, "log_ref", log_ref, "K X Y", (K, X, Y))
        guard_laws(where, "log_ref", log_ref.detach(), logs=True)
        if log_ref.dtype != models[0].dtype or log_ref.device.type != models[0].device.type:
            wanted = f"be of the models' type and device, {models[0].dtype} on {models[0].device}"
            fail(where, "log_ref", wanted, f"{log_ref.dtype} on {log_ref.device}")
        self.rounds = as_count(where, "rounds", rounds, high=10**6)
        self.r = as_floats(where, "r", r, "K X Y", (K, X, Y))
        weights = as_floats(where, "alpha", alpha, "K", (K,))
        betas = as_floats(where, "beta", beta, "K", (K,))
        if not ((betas >= 1e-8) & (betas <= 1e8)).all():
            fail(where, "beta", "be in [1e-8, 1e8]", float(betas[(betas < 1e-8) | (betas > 1e8)][0]))
        for name, given in (("rngs", rngs), ("second", second)):
            if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != K:
                fail(where, name, f"be a sequence of {K}, one a run", repr(given))
        for source in second:
            if not isinstance(source, str) or source not in SOURCES:
                unknown(where, "second", source, SOURCES)
        self.space, self.log_ref, self.ensemble = space, log_ref, Ensemble(models)
        self.table, self.alpha, self.beta = (to_device(a, log_ref, log_ref.dtype) for a in (self.r, weights, betas))
        even = torch.full((X,), 1.0 / X, dtype=log_ref.dtype, device=log_ref.device)
        mu0 = even if space.mu0 is None else space.mu0.to(log_ref)
        self.mu0, b = mu0, self.beta[:, None, None]
        possible = self.table.masked_fill(torch.isneginf(log_ref), -torch.inf)
        self.best = possible == possible.amax(dim=2, keepdim=True)
        self.top = self.beta * (torch.logsumexp(log_ref + self.table / b, dim=2) @ mu0)
        # Each run's own draws: [T, 4] uniforms for the prompt, the two responses and the label.
        uniforms = np.stack([as_generator(where, g).random((self.rounds, 4)) for g in rngs])
        cumulative = np.cumsum(mu0.double().cpu().numpy())
        self.prompts = np.minimum(np.searchsorted(cumulative, uniforms[:, :, 0] * cumulative[-1], side="right"), X - 1)
        self.uniforms, self.from_ref = uniforms, np.array([s == "reference" for s in second])
        self.reference = log_ref.double().cpu().numpy()
        self.wins, self.against = np.zeros((K, X, Y, Y)), np.zeros((K, X, Y))
        self.pairs = np.empty((K, self.rounds, 4), dtype=np.int64)

    def look(self, heat: float = 1.0) -> Tensor:
        """[K, X, Y] log pi, differentiable."""
        log_probs = self.space.log_probs
        return self.ensemble.read(log_probs if heat == 1.0 else lambda model: log_probs(_Heated(model, heat)))

    def search(self, how: Search, adam: torch.optim.Optimizer, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """([K] F / n, [K] norm of its gradient, [K, X, Y] log pi) after the steps of one search."""
        for step in range(how.steps):
            self._slope(n, how.heat_at(step))
            adam.param_groups[0]["lr"] = how.rate_at(step)
            adam.step()
        loss, log_pi = self._slope(n)
        assert self.ensemble.flat.grad is not None
        return loss.detach(), self.ensemble.flat.grad.norm(dim=1), log_pi.detach()

    def _slope(self, n: int, heat: float = 1.0) -> tuple[Tensor, Tensor]:
        """([K] F / n, log pi [K, X, Y]), the gradients of the first left in the ensemble."""
        log_pi = self.look(heat)
        loss = losses.history_loss(log_pi, self.log_ref, *self.counts, alpha=self.alpha, beta=self.beta) / n
        self.ensemble.flat.grad = None
        loss.sum().backward()
        return loss, log_pi

    def compare(self, t: int, log_pi: FloatArray) -> None:
        """Round t: a pair and its label in each run, added to the counts."""
        runs, x, u = np.arange(len(log_pi)), self.prompts[:, t], self.uniforms[:, t]
        mine, reference = log_pi[runs, x], self.reference[runs, x]
        y, other = _pick(mine, u[:, 1]), _pick(np.where(self.from_ref[:, None], reference, mine), u[:, 2])
        with np.errstate(over="ignore"):
            won = u[:, 3] < 1.0 / (1.0 + np.exp(self.r[runs, x, other] - self.r[runs, x, y]))
        self.wins[runs, x, np.where(won, y, other), np.where(won, other, y)] += 1.0
        self.against[runs, x, other] += 1.0
        self.pairs[:, t] = np.stack([x, y, other, won], axis=1)
        self.counts = tuple(to_device(c, self.log_ref, self.log_ref.dtype) for c in (self.wins, self.against))

    def numbers(self, log_pi: Tensor) -> Tensor:
        """[3, K] gap, mass of best responses, KL to pi_ref."""
        kl = losses.divergence(log_pi, self.log_ref) @ self.mu0
        p = log_pi.exp()
        value = (p * self.table).sum(dim=2) @ self.mu0 - self.beta * kl
        return torch.stack([self.top - value, (p * self.best).sum(dim=2) @ self.mu0, kl])


def _pick(log_p: FloatArray, u: FloatArray) -> IntArray:
    """[K] responses at uniforms [K], by the cumulative laws [K, Y]; never one of probability zero."""
    p = np.exp(log_p)
    cumulative = np.cumsum(p, axis=1)
    found = (cumulative <= (u * cumulative[:, -1])[:, None]).sum(axis=1)
    last = p.shape[1] - 1 - np.argmax(p[:, ::-1] > 0.0, axis=1)
    return np.minimum(found, last)
