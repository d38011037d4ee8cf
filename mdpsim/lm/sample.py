r"""Responses of a language model: their log-probabilities, samples, the best and the worst of N, and enumeration.

A response of L tokens has log pi(y | x) = sum_t log p(y_t | x, y_<t), a SUM over tokens. Enumeration lists all V^L responses in
the order of ``mdpsim.mdp.token`` (the first token most significant): by the tree where the model has it, else by the prefix
trick, one pass over the V^(L-1) prefixes of L - 1 tokens, in whose rows every token's log-probability stands.

``end``: the id after which a response is over; from there on it repeats with probability one.

Sampling inverts the cumulative law at uniforms drawn by numpy: a draw is the same on every device, up to rounding at the edges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mdpsim.arrays import as_array, as_count, fail, unknown
from mdpsim.lm.device import to_device
from mdpsim.lm.guards import (
    MAX_LENGTH,
    MAX_RESPONSES,
    any_of,
    as_enumerable,
    as_floating,
    as_rewards,
    dense,
    got,
    guard_callable,
    guard_end,
    guard_ids,
)
from mdpsim.lm.model import LanguageModel, guard_language_model, guard_tokens
from mdpsim.rng import as_generator

METHODS = ("auto", "tree", "prefixes")
BATCH = 2**14  # prefixes that are read at once
_BLOCK = 256  # entries of a law whose cumulative sums are one product of matrices

RewardFunction = Callable[[Tensor, Tensor], Tensor]  # (prompts [N, P], responses [N, L]) -> [N]


class Sample(NamedTuple):
    """responses [N, L] int64 and log_prob [N], the sum of their tokens' log-probabilities."""

    responses: Tensor
    log_prob: Tensor


def as_tokens(where: str, name: str, tokens: ArrayLike, model: LanguageModel, below: int | None = None) -> Tensor:
    """Ids [N, T] of any integer array, checked, on the model's device; T may be 0.

    Raises:
        ValueError: another shape, no integers, ids outside the vocabulary, more than the context holds.
    """
    guard_language_model(where, model)
    if isinstance(tokens, Tensor) and not dense(tokens):
        fail(where, name, "have shape [N, T], N >= 1", got(tokens))
    given = tokens.detach().cpu().numpy() if isinstance(tokens, Tensor) else tokens
    ids = as_array(where, name, given, lambda: "have shape [N, T], N >= 1")
    if ids.ndim != 2 or len(ids) == 0:
        fail(where, name, "have shape [N, T], N >= 1", ids.shape)
    if ids.size and ids.dtype.kind not in "iu":
        fail(where, name, "hold integers", f"dtype {ids.dtype}")
    if ids.shape[1] > model.context:
        fail(where, name, f"fit the context of {model.context} tokens", f"{ids.shape[1]} tokens")
    high = model.readable if below is None else below
    if ids.size and not 0 <= ids.min() <= ids.max() < high:
        fail(where, name, f"be ids of the vocabulary, 0 .. {high - 1}", int(ids.min() if ids.min() < 0 else ids.max()))
    return to_device(ids.astype(np.int64), model.device)


def token_log_probs(model: LanguageModel, prompts: Tensor, responses: Tensor, end: int | None = None) -> Tensor:
    """[N, L] log-probabilities of the tokens of responses [N, L] to prompts [N, P]; 0 for those after the end token."""
    where = "token_log_probs"
    guard_tokens(where, model, prompts, name="prompts")
    guard_ids(where, "responses", responses, "N L", (len(prompts), None), model.vocabulary)
    if responses.shape[1] == 0:
        fail(where, "responses", "have at least one token", tuple(responses.shape))
    guard_tokens(where, model, prompts, responses.shape[1] - 1, name="prompts")
    guard_end(where, end, model.vocabulary)
    rows = model.log_probs(torch.cat([prompts, responses[:, :-1]], dim=1), start=prompts.shape[1])
    picked = rows.gather(2, responses[..., None])[..., 0]
    return picked if end is None else picked.masked_fill(_over(responses, end), 0.0)


def sequence_log_probs(model: LanguageModel, prompts: Tensor, responses: Tensor, end: int | None = None) -> Tensor:
    """[N] log pi(y | x): the sums of ``token_log_probs``, differentiable in the model's parameters."""
    return token_log_probs(model, prompts, responses, end).sum(dim=1)


def _over(responses: Tensor, end: int) -> Tensor:
    """[N, L] whether the end token stands before this place."""
    before = (responses == end).long().cumsum(dim=1)
    return (before - (responses == end).long()) > 0


@torch.no_grad()
def sample_responses(
    model: LanguageModel, prompts: Tensor, length: int, rng: np.random.Generator | int, *, end: int | None = None,
) -> Sample:
    """One response to each prompt, token by token.

    Args:
        prompts: [N, P]; repeat a prompt for several responses. length: L >= 1. rng: Generator or an integer seed.
    Returns:
        Sample. Untempered: a response is drawn with the probability that ``sequence_log_probs`` gives it.
    Cost: L steps of one token each, for models that keep their keys and values.
    Raises:
        ValueError: naming the argument; prompt and response longer than the context.
    """
    n = as_count("sample_responses", "length", length, high=MAX_LENGTH)
    guard_tokens("sample_responses", model, prompts, n - 1, name="prompts")
    guard_end("sample_responses", end, model.vocabulary)
    N = len(prompts)
    uniforms = to_device(as_generator("sample_responses", rng).random((n, N)), model.device)
    tokens, past = prompts, None
    over = torch.zeros(N, dtype=torch.bool, device=model.device)
    total = torch.zeros(N, dtype=torch.float64, device=model.device)
    drawn = []
    for t in range(n):
        law, past = model.next_log_probs(tokens, past)
        y = draw(law, uniforms[t])
        log_p = law.gather(1, y[:, None])[:, 0].double()
        if end is not None:
            y, log_p = torch.where(over, end, y), torch.where(over, 0.0, log_p)
            over = y == end
        total = total + log_p
        drawn.append(y)
        tokens = y[:, None]
    return Sample(torch.stack(drawn, dim=1), total)


def draw(log_p: Tensor, uniforms: Tensor) -> Tensor:
    """[N] tokens: the first whose cumulative probability exceeds u times the total; log_p [N, V], u [N] in [0, 1).

    Raises:
        ValueError: other shapes; on the CPU also NaN, a row of zeros, or a number outside [0, 1).
    """
    N, _ = as_floating("draw", "log_p", log_p, "N V", (None, None))
    as_floating("draw", "uniforms", uniforms, "N", (N,))
    p = log_p.double().exp()
    cumulative = _cumulative(p)
    if cumulative.device.type == "cpu":  # a law of NaN would be read as the first token
        if any_of(~(cumulative[:, -1] > 0.0)):
            fail("draw", "log_p", "hold logarithms of laws", "NaN, or only zeros")
        if any_of(~((uniforms >= 0.0) & (uniforms < 1.0))):
            fail("draw", "uniforms", "lie in [0, 1)", f"{float(uniforms.min()):g} to {float(uniforms.max()):g}")
    aim = uniforms.double()[:, None] * cumulative[:, -1:]
    return (cumulative <= aim).sum(dim=1)  # u < 1, so that the aim is below the total, in floating point too


def _cumulative(p: Tensor) -> Tensor:
    """Cumulative sums of rows as products with triangles of ones: deterministic on a GPU, where cumsum is not."""
    N, V = p.shape
    width = min(V, _BLOCK)
    blocks = torch.nn.functional.pad(p, (0, -V % width)).view(N, -1, width)
    ones = torch.ones(width, width, dtype=p.dtype, device=p.device).triu()
    inner = blocks @ ones
    B = inner.shape[1]
    before = inner[..., -1] @ torch.ones(B, B, dtype=p.dtype, device=p.device).triu(1)
    return (inner + before[..., None]).view(N, -1)[:, :V]


def best_of_n(
    model: LanguageModel, prompts: Tensor, length: int, reward: RewardFunction | Tensor, n: int,
    rng: np.random.Generator | int, *, worst: bool = False, end: int | None = None,
) -> Sample:
    """For each prompt the response of highest (``worst``: lowest) reward among n samples; ties go to the first.

    Args:
        reward: a function (prompts [M, P], responses [M, L]) -> [M], or a table [N, V^L] of the prompts' responses.
        n: number of samples of each prompt.
    Returns:
        Sample; log_prob is that of the model, not of best-of-n.
    Raises:
        ValueError: naming the argument; rewards of another shape, or NaN.
    """
    times = as_count("best_of_n", "n", n)
    guard_tokens("best_of_n", model, prompts, as_count("best_of_n", "length", length, high=MAX_LENGTH) - 1, name="prompts")
    if times * len(prompts) > MAX_RESPONSES:
        fail("best_of_n", "n", f"draw at most {MAX_RESPONSES} responses in all", f"{len(prompts)} * {times}")
    if isinstance(reward, Tensor):
        as_enumerable("best_of_n", model.vocabulary, length)
        as_rewards("best_of_n", "reward", reward, "N V^L", (len(prompts), model.vocabulary**length))
    else:
        guard_callable("best_of_n", "reward", reward)
    many = prompts.repeat_interleave(times, dim=0)
    found = sample_responses(model, many, length, rng, end=end)
    if isinstance(reward, Tensor):
        place = response_index(found.responses, model.vocabulary)
        values = reward.repeat_interleave(times, dim=0).gather(1, place[:, None])[:, 0]
    else:
        values = reward(many, found.responses)
        as_rewards("best_of_n", "reward(prompts, responses)", values, "M", (len(many),))
    if any_of(torch.isnan(reward if isinstance(reward, Tensor) else values)):  # which argmax takes for the largest
        fail("best_of_n", "reward", "give numbers", "NaN")
    scores = values.view(-1, times)
    best = (scores.argmin(dim=1) if worst else scores.argmax(dim=1)) + times * torch.arange(len(prompts), device=scores.device)
    return Sample(found.responses[best], found.log_prob[best])


def response_index(responses: Tensor, vocabulary: int) -> Tensor:
    """[N] the place of responses [N, L] in an enumeration.

    Raises:
        ValueError: naming the argument; responses of which there are more than 2^62.
    """
    V = as_count("response_index", "vocabulary", vocabulary, high=2**31)
    guard_ids("response_index", "responses", responses, "N L", (None, None), V)
    if responses.shape[1] * np.log2(V) > 62.0:
        fail("response_index", "responses", "be among at most 2^62", f"{V}^{responses.shape[1]}")
    place = torch.zeros(len(responses), dtype=torch.int64, device=responses.device)
    for t in range(responses.shape[1]):
        place = place * vocabulary + responses[:, t]
    return place


def enumerate_log_probs(
    model: LanguageModel, prompts: Tensor, length: int, *, end: int | None = None, method: str = "auto"
) -> Tensor:
    """[X, V^L] log pi(y | x) of every response to every prompt, differentiable.

    Args:
        prompts: [X, P]. length: L. end: id after which a response is over; what follows it other than itself has -inf.
        method: "tree" (each prefix is read once), "prefixes" (the prefix trick), or "auto": the tree where the model has it.
    Cost: tree X (V^L - 1) / (V - 1) tokens; prefixes X V^(L-1) (P + L).
    Raises:
        ValueError: more than 2^24 responses in all; prompt and response longer than the context; "tree" without one.
    """
    where = "enumerate_log_probs"
    guard_tokens(where, model, prompts, as_count(where, "length", length, high=MAX_LENGTH) - 1, name="prompts")
    if not len(prompts):
        fail(where, "prompts", "be at least one", tuple(prompts.shape))
    V = model.vocabulary
    L = as_enumerable(where, V, length, len(prompts))
    guard_end(where, end, V)
    if not isinstance(method, str) or method not in METHODS:
        unknown(where, "method", method, METHODS)
    levels = None if method == "prefixes" else model.tree_log_probs(prompts, L)
    if levels is None:
        if method == "tree":
            fail(where, "method", "be one this model has, at this size", "'tree'")
        levels = _by_prefixes(model, prompts, L)
    total = torch.zeros(len(prompts), 1, dtype=levels[0].dtype, device=levels[0].device)
    for t, level in enumerate(levels):
        if end is not None:
            level = _ended(level, V, t, end)
        total = (total[..., None] + level).flatten(1)
    return total


def _by_prefixes(model: LanguageModel, prompts: Tensor, length: int) -> list[Tensor]:
    """The levels [X, V^t, V] of the tree, from passes over whole prefixes."""
    V, (X, P), n = model.vocabulary, prompts.shape, model.vocabulary ** (length - 1)
    places = torch.arange(n, device=prompts.device)
    digits = [places // V ** (length - 2 - t) % V for t in range(length - 1)]
    prefixes = torch.stack(digits, dim=1) if digits else places[:, None][:, :0]
    ids = torch.cat([prompts.repeat_interleave(n, dim=0), prefixes.repeat(X, 1)], dim=1)
    rows = torch.cat([model.log_probs(part, start=P) for part in ids.split(BATCH)]).view(X, n, length, V)
    return [rows[:, :: V ** (length - 1 - t), t] for t in range(length)]


def _ended(level: Tensor, V: int, t: int, end: int) -> Tensor:
    """A level whose rows after an end token allow nothing else: log-probability 0 of the end token, -inf of the others."""
    gone = np.zeros(1, dtype=bool)
    for _ in range(t):
        gone = (gone[:, None] | (np.arange(V) == end)).reshape(-1)
    only = torch.full((V,), -torch.inf, dtype=level.dtype, device=level.device)
    only[end] = 0.0
    return torch.where(torch.from_numpy(gone).to(level.device)[None, :, None], only, level)
