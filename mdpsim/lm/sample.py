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

from mdpsim.arrays import as_count, fail, unknown
from mdpsim.lm.device import to_device
from mdpsim.lm.model import LanguageModel, guard_tokens
from mdpsim.rng import as_generator

METHODS = ("auto", "tree", "prefixes")
MAX_RESPONSES = 2**24  # log-probabilities at once
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
    ids = tokens.detach().cpu().numpy() if isinstance(tokens, Tensor) else np.asarray(tokens)
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
    if responses.shape[1] == 0:
        fail("token_log_probs", "responses", "have at least one token", tuple(responses.shape))
    guard_tokens("token_log_probs", model, prompts, responses.shape[1] - 1)
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
    n = as_count("sample_responses", "length", length, high=2**20)
    guard_tokens("sample_responses", model, prompts, n - 1)
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
    """[N] tokens: the first whose cumulative probability exceeds u times the total; log_p [N, V], u [N] in [0, 1)."""
    p = log_p.double().exp()
    cumulative = _cumulative(p)
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
    """
    times = as_count("best_of_n", "n", n)
    many = prompts.repeat_interleave(times, dim=0)
    found = sample_responses(model, many, length, rng, end=end)
    if isinstance(reward, Tensor):
        shape = (len(prompts), model.vocabulary**length)
        if reward.shape != shape:
            fail("best_of_n", "reward", f"have shape [N, V^L] = {shape}", tuple(reward.shape))
        place = response_index(found.responses, model.vocabulary)
        values = reward.repeat_interleave(times, dim=0).gather(1, place[:, None])[:, 0]
    else:
        values = reward(many, found.responses)
    scores = values.view(-1, times)
    best = (scores.argmin(dim=1) if worst else scores.argmax(dim=1)) + times * torch.arange(len(prompts), device=scores.device)
    return Sample(found.responses[best], found.log_prob[best])


def response_index(responses: Tensor, vocabulary: int) -> Tensor:
    """[N] the place of responses [N, L] in an enumeration."""
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
    L, V = as_count(where, "length", length), model.vocabulary
    guard_tokens(where, model, prompts, L - 1)
    if L * np.log(V) + np.log(len(prompts)) > np.log(MAX_RESPONSES) + 1e-9:
        fail(where, "prompts and length", f"give at most {MAX_RESPONSES} responses", f"{len(prompts)} * {V}^{L}")
    if method not in METHODS:
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
