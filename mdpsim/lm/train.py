r"""Training loops: a few lines each, over one guarded loop of Adam.

``fit`` minimises any loss of a model's parameters; ``maximise`` an objective over enumerated responses, with exact gradients;
``reinforce_fit`` the same from samples; ``clone`` fits demonstrations. All return a ``TrainingTrace``. Learning rates fall
linearly to zero, so that the last steps average over noise of their own.

A loss that is NaN or infinite stops a loop with a ``TrainingError`` that names the step, and puts back the last good weights.
On a GPU the loop looks at its losses only every ``every`` steps: a look waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mdpsim.arrays import FloatArray, IntArray, as_count, as_real, fail, frozen
from mdpsim.lm import losses
from mdpsim.lm.guards import (
    MAX_LENGTH,
    MAX_RESPONSES,
    as_enumerable,
    as_floating,
    as_rewards,
    as_scalar,
    guard_callable,
    guard_ids,
    guard_mu0,
)
from mdpsim.lm.model import MAX_NODES, LanguageModel, guard_language_model, guard_tokens
from mdpsim.lm.sample import enumerate_log_probs, sample_responses, sequence_log_probs
from mdpsim.records import record
from mdpsim.rng import as_generator

Watch = Callable[[], Mapping[str, Tensor]]


class TrainingError(RuntimeError):
    """A loss left the real numbers, or the norm of its gradient did: Adam stands still where a square overflows.

    ``step``: where; the model has its last good weights, those of step ``kept``.
    """

    def __init__(self, step: int, value: float, kept: int, what: str = "the loss") -> None:
        super().__init__(
            f"{what} is {value} at step {step}: the weights of step {kept} were put back (is the learning rate too large, "
            "or a response impossible?)"
        )
        self.step, self.kept = step, kept


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba, 2015). Args: steps >= 1; rate: > 0, falls linearly to zero where ``decay``; betas as usual."""

    steps: int = 500
    rate: float = 3e-3
    decay: bool = True

    def __post_init__(self) -> None:
        as_count("Adam", "steps", self.steps, high=10**9)
        as_real("Adam", "rate", self.rate, 1e-300, 1e3)

    def rate_at(self, step: int) -> float:
        """The learning rate of step 0, 1, .."""
        return self.rate * (1.0 - step / self.steps) if self.decay else self.rate

    def over(self, model: LanguageModel) -> torch.optim.Optimizer:
        """A fresh optimiser of the model's trainable parameters."""
        return torch.optim.Adam(trainable(model), lr=self.rate, eps=1e-12, fused=True)


DEFAULT = Adam()


def trainable(model: LanguageModel) -> list[torch.nn.Parameter]:
    """The parameters that training changes; a large model may have frozen ones."""
    return [p for p in model.parameters() if p.requires_grad]


@record
class TrainingTrace(NamedTuple):
    """A training run; read-only arrays. K recorded steps.

    steps: [K] 0, every, 2 every, .., the last. loss: [all steps + 1] the loss before each step, and at the end.
    seen: name -> [K] or [K, ..] what ``watch`` returned there.
    """

    steps: IntArray
    loss: FloatArray
    seen: dict[str, FloatArray]


@dataclass(frozen=True, kw_only=True)
class Space:
    """Enumerable responses.

    Args:
        prompts: [X, P] int64 ids. length: tokens of a response. mu0: [X] law of the prompt; None is uniform.
        end: id of the end token; None where there is none.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """

    prompts: Tensor
    length: int
    mu0: Tensor | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        guard_ids("Space", "prompts", self.prompts, "X P", (None, None), 2**31)
        if not len(self.prompts):
            fail("Space", "prompts", "be at least one", tuple(self.prompts.shape))
        as_count("Space", "length", self.length, high=MAX_LENGTH)
        guard_mu0("Space", self.mu0, len(self.prompts))
        if self.end is not None:
            as_count("Space", "end", self.end, low=0, high=2**31)

    def log_probs(self, model: LanguageModel) -> Tensor:
        """[X, V^length], differentiable."""
        return enumerate_log_probs(model, self.prompts, self.length, end=self.end)


def guard_space(where: str, space: object) -> None:
    """Guard a Space's type: its fields are its own."""
    if not isinstance(space, Space):
        fail(where, "space", "be a Space", type(space).__name__)


def fit(
    model: nn.Module, loss: Callable[[], Tensor], *, optimiser: Adam = DEFAULT, watch: Watch | None = None,
    every: int = 50, state: torch.optim.Optimizer | None = None,
) -> TrainingTrace:
    """Minimise a loss.

    Args:
        loss: () -> scalar, differentiable in the model's parameters. optimiser: see ``Adam``.
        watch: () -> name -> tensor, recorded at step 0, every ``every`` steps and at the end (without gradients).
        state: the optimiser of an earlier call, to go on with its moments.
    Raises:
        TrainingError: the loss became NaN or infinite, or the square of its gradient did.
        ValueError: naming the argument, what was wanted and what came.
    """
    gap = as_count("fit", "every", every)
    if not isinstance(model, nn.Module):
        fail("fit", "model", "be a torch module", type(model).__name__)
    guard_callable("fit", "loss", loss)
    if watch is not None:
        guard_callable("fit", "watch", watch)
    if not isinstance(optimiser, Adam):
        fail("fit", "optimiser", "be an Adam", type(optimiser).__name__)
    if not trainable(model):
        fail("fit", "model", "have parameters to train", "none")
    adam = optimiser.over(model) if state is None else state
    kept, kept_at = _snapshot(model), 0
    fresh: list[Tensor] = []
    curve: list[float] = []
    steps: list[int] = []
    seen: list[dict[str, np.ndarray]] = []
    for step in range(optimiser.steps + 1):
        last = step == optimiser.steps
        value = as_scalar("fit", "loss()", loss())
        fresh.append(value.detach())
        if step % gap == 0 or last:
            _check(fresh, len(curve), model, kept, kept_at)
            curve += [float(v) for v in torch.stack(fresh).double().cpu()]
            fresh, kept, kept_at = [], _snapshot(model), step
            steps.append(step)
            if watch is not None:
                with torch.no_grad():
                    seen.append({k: v.detach().double().cpu().numpy().copy() for k, v in watch().items()})
        if last:
            break
        for group in adam.param_groups:
            group["lr"] = optimiser.rate_at(step)
        adam.zero_grad(set_to_none=True)
        value.backward()
        adam.step()
    columns = {name: frozen(np.array([row[name] for row in seen])) for name in (seen[0] if seen else {})}
    return TrainingTrace(frozen(np.array(steps)), frozen(np.array(curve)), columns)


def _snapshot(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in trainable(model)]


def _check(fresh: list[Tensor], first: int, model: nn.Module, kept: list[Tensor], kept_at: int) -> None:
    """Stop at the first loss that is no real number, with the weights of the last look."""
    values = torch.stack(fresh)
    if not bool(torch.isfinite(values).all()):
        bad = int((~torch.isfinite(values)).long().argmax())
        with torch.no_grad():
            for p, good in zip(trainable(model), kept, strict=True):
                p.copy_(good)
        raise TrainingError(first + bad, float(values[bad]), kept_at)
    norms = [p.grad.norm() for p in trainable(model) if p.grad is not None]  # of the step before
    if norms and not bool(torch.isfinite(torch.stack(norms)).all()):
        with torch.no_grad():
            for p, good in zip(trainable(model), kept, strict=True):
                p.copy_(good)
        raise TrainingError(first + len(fresh) - 2, float(torch.stack(norms).max()), kept_at, "the gradient's norm")


def maximise(
    model: LanguageModel, space: Space, objective: Callable[[Tensor], Tensor], *, optimiser: Adam = DEFAULT,
    log_ref: Tensor | None = None, every: int = 50,
) -> TrainingTrace:
    """Maximise an objective of the enumerated log-probabilities [X, Y] by exact gradients.

    Args:
        objective: log_pi -> J, as in ``mdpsim.lm.losses``: ``lambda log_pi: losses.kl_reward(log_pi, r, log_ref, beta)``.
        log_ref: [X, Y], for the curve of KL(pi || pi_ref).
    Returns:
        TrainingTrace with ``value``, ``entropy`` (mean over prompts), ``top`` (largest probability), ``kl``.
    Raises:
        TrainingError, ValueError: as ``fit``.
    """
    guard_language_model("maximise", model)
    guard_space("maximise", space)
    guard_callable("maximise", "objective", objective)
    if log_ref is not None:
        as_floating("maximise", "log_ref", log_ref, "X Y", (len(space.prompts), model.vocabulary**space.length))

    def watch() -> dict[str, Tensor]:
        log_pi = space.log_probs(model)
        found = {
            "value": objective(log_pi), "entropy": losses.entropy(log_pi).mean(), "top": log_pi.exp().amax(dim=1).mean(),
        }
        return found if log_ref is None else found | {"kl": losses.divergence(log_pi, log_ref).mean()}

    def loss() -> Tensor:
        return -as_scalar("maximise", "objective(log_pi)", objective(space.log_probs(model)))

    return fit(model, loss, optimiser=optimiser, watch=watch, every=every)


def reinforce_fit(
    model: LanguageModel, prompts: Tensor, length: int, reward: Callable[[Tensor, Tensor], Tensor], n: int,
    rng: np.random.Generator | int, *, reference: LanguageModel | None = None, beta: float = 0.0,
    optimiser: Adam = DEFAULT, end: int | None = None, every: int = 50,
) -> TrainingTrace:
    """REINFORCE with a leave-one-out baseline, n fresh responses to each prompt at every step: no enumeration.

    Args:
        prompts: [X, P]. reward: (prompts [N, P], responses [N, L]) -> [N]. n: responses a prompt, at least 2.
        reference, beta: the signal is r - beta log pi / pi_ref; beta = 0 is RL without KL.
    Returns:
        TrainingTrace; its loss is minus the mean signal of each step's responses, and ``entropy`` their mean -log pi.
    Raises:
        TrainingError, ValueError: as ``fit``; rewards of another shape.
    """
    where = "reinforce_fit"
    guard_tokens(where, model, prompts, as_count(where, "length", length, high=MAX_LENGTH) - 1, name="prompts")
    guard_callable(where, "reward", reward)
    if reference is not None:
        guard_language_model(where, reference, "reference")
    times = as_count("reinforce_fit", "n", n, low=2)
    weight = as_real("reinforce_fit", "beta", beta, 0.0, 1e8)
    if weight > 0.0 and reference is None:
        fail("reinforce_fit", "reference", "be given where beta > 0", None)
    if not 0 < len(prompts) * times <= MAX_RESPONSES:
        fail(where, "n", f"give 1 to {MAX_RESPONSES} responses a step", f"{len(prompts)} * {times}")
    generator = as_generator("reinforce_fit", rng)
    many = prompts.repeat_interleave(times, dim=0)
    last: dict[str, Tensor] = {}

    def loss() -> Tensor:
        y = sample_responses(model, many, length, generator, end=end).responses
        log_pi = sequence_log_probs(model, many, y, end)
        paid = reward(many, y)
        as_rewards(where, "reward(prompts, responses)", paid, "N", (len(many),))  # [N, 1] would broadcast
        signal = paid.to(log_pi.dtype)
        if weight > 0.0:
            assert reference is not None
            with torch.no_grad():
                signal = signal - weight * (log_pi.detach() - sequence_log_probs(reference, many, y, end))
        grouped, logs = signal.view(-1, times), log_pi.view(-1, times)
        heard = (grouped - grouped.mean(dim=1, keepdim=True)) * (times / (times - 1))
        last["entropy"] = -log_pi.detach().mean()
        surrogate = (heard * logs).mean()
        return -signal.mean() - (surrogate - surrogate.detach())  # the value is the signal's, the gradient REINFORCE's

    return fit(model, loss, optimiser=optimiser, watch=lambda: dict(last), every=every)


def prefix_counts(responses: Tensor, prompt: Tensor, n_prompts: int, vocabulary: int) -> list[Tensor]:
    """How often each token followed each prefix, [X, V^t, V] for t = 0 .. L - 1: what cloning reads of demonstrations.

    Args:
        responses: [N, L] tokens. prompt: [N] numbers 0 .. X - 1 of their prompts.
    Raises:
        ValueError: naming the argument; more than 2^24 prefixes and tokens.
    """
    where = "prefix_counts"
    X = as_count(where, "n_prompts", n_prompts, high=MAX_RESPONSES)
    V = as_count(where, "vocabulary", vocabulary, high=MAX_RESPONSES)
    guard_ids(where, "responses", responses, "N L", (None, None), V)
    guard_ids(where, "prompt", prompt, "N", (len(responses),), X)
    if not responses.numel():
        fail(where, "responses", "be at least one, of at least one token", tuple(responses.shape))
    as_enumerable(where, V, responses.shape[1], X)
    counts, prefix = [], prompt
    for t in range(responses.shape[1]):
        place = prefix * vocabulary + responses[:, t]
        rows = n_prompts * vocabulary**t
        counts.append(torch.bincount(place, minlength=rows * vocabulary).double().view(n_prompts, -1, vocabulary))
        prefix = place
    return counts


def clone(
    model: LanguageModel, space: Space, counts: list[Tensor], *, kappa: float = 1.0, optimiser: Adam = DEFAULT,
    every: int = 50,
) -> TrainingTrace:
    """Behaviour cloning by regularised maximum likelihood: ``losses.cloning`` on every prefix (models with a tree).

    Args:
        counts: of demonstrations, as ``prefix_counts`` gives them. kappa: pseudo-counts.
    Raises:
        TrainingError, ValueError: as ``fit``; no demonstrations.
    """
    guard_language_model("clone", model)
    guard_space("clone", space)

    def loss() -> Tensor:
        levels = model.tree_log_probs(space.prompts, space.length)
        if levels is None:
            fail("clone", "model", f"read all prefixes at once (a tree of at most {MAX_NODES} nodes)", type(model).__name__)
        return losses.cloning(levels, counts, kappa)

    return fit(model, loss, optimiser=optimiser, every=every)
