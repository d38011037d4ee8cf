r"""Policies that are tables, in the interface of a language model: what the tabular functions work on, as a torch module.

``TokenTable`` has one row of V logits for each prompt and prefix: with one prompt its parameters are those of
``mdpsim.align.gradient.TokenSoftmax`` (with responses of one token, of ``Softmax``), so that a loss here must have the value
and the gradient of the tabular function. ``Residual`` keeps a policy within a bounded distance of a reference,

    log pi(a | prefix) = log_softmax( log pi_ref(a | prefix) + (R / beta) tanh(f(prefix)_a) ),

f a model whose head starts at zero, so that training begins at pi_ref and a token's |beta log pi / pi_ref| is at most 2 R:
the bounded class that the theorems on exploration ask for.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from mdpsim.arrays import as_count, as_floats, as_real, fail
from mdpsim.lm.device import as_device, resolve_dtype, to_device
from mdpsim.lm.guards import MAX_RESPONSES, any_of, as_enumerable
from mdpsim.lm.model import LanguageModel, guard_language_model, guard_tokens


class TokenTable(LanguageModel):
    """A softmax of its own at every prefix of responses of ``length`` tokens, for prompts numbered V .. V + X - 1.

    Args:
        V: vocabulary. length: tokens of a response. theta: [X, n] logits, n = V + V^2 + .. + V^length, shorter prefixes first.
        device, dtype: where and in which numbers.
    """

    def __init__(
        self, V: int, length: int, theta: ArrayLike, *, device: str | torch.device = "cpu", dtype: str = "float64"
    ) -> None:
        super().__init__()
        self.vocabulary = as_count("TokenTable", "V", V, high=MAX_RESPONSES)
        self.length = as_enumerable("TokenTable", V, as_count("TokenTable", "length", length, high=64))
        n = sum(V**t for t in range(1, length + 1))
        table = as_floats("TokenTable", "theta", theta, "X n", (None, n))
        self.readable, self.context = V + len(table), length + 1
        self.theta = nn.Parameter(to_device(table, as_device("TokenTable", device), resolve_dtype(dtype)))

    def tree_log_probs(self, prompts: Tensor, length: int) -> list[Tensor] | None:
        """Every row of the tables of these prompts."""
        as_count("tree_log_probs", "length", length, high=self.length)
        sizes = [self.vocabulary**t for t in range(1, self.length + 1)]
        rows = self.theta[self._number(prompts)].split(sizes, dim=1)[:length]
        return [torch.log_softmax(r.reshape(len(prompts), -1, self.vocabulary), dim=-1) for r in rows]

    def log_probs(self, tokens: Tensor, start: int = 0) -> Tensor:
        """See ``LanguageModel``; from start = 1 on, for nothing is said before the prompt."""
        guard_tokens("log_probs", self, tokens)
        if as_count("log_probs", "start", start, low=0, high=tokens.shape[1]) < 1:
            fail("log_probs", "start", "be at least 1: a table's first token is the prompt", start)
        T, N = tokens.shape[1], len(tokens)
        levels = self.tree_log_probs(tokens[:, :1], T)
        assert levels is not None
        prefix = torch.zeros(N, dtype=torch.int64, device=tokens.device)
        out = []
        for t in range(1, T + 1):
            out.append(levels[t - 1][torch.arange(N, device=tokens.device), prefix])
            if t < T:
                prefix = prefix * self.vocabulary + tokens[:, t]
        return torch.stack(out, dim=1)[:, start - 1 :]

    def _number(self, prompts: Tensor) -> Tensor:
        guard_tokens("TokenTable", self, prompts, name="prompts")
        if prompts.shape[1] != 1:
            fail("TokenTable", "prompts", "be one id each", f"{prompts.shape[1]} tokens")
        if prompts.device.type == "cpu" and any_of(prompts < self.vocabulary):  # it would be another prompt's table
            fail("TokenTable", "prompts", f"be numbers of prompts, from {self.vocabulary} on", int(prompts.min()))
        return prompts[:, 0] - self.vocabulary


class Residual(LanguageModel):
    """A reference and a bounded correction of its logits.

    Args:
        reference: pi_ref; its parameters are frozen. correction: a model of the same vocabulary, whose raw head is read: it
            should start at gain 0. bound: R / beta > 0.
    """

    def __init__(self, reference: LanguageModel, correction: LanguageModel, *, bound: float) -> None:
        super().__init__()
        for name, given in (("reference", reference), ("correction", correction)):
            guard_language_model("Residual", given, name)
        if correction.vocabulary != reference.vocabulary or correction.readable != reference.readable:
            sizes = (reference.vocabulary, reference.readable)
            fail("Residual", "correction", f"have the reference's vocabulary and readable ids {sizes}",
                 (correction.vocabulary, correction.readable))
        self.reference, self.correction = reference.requires_grad_(False), correction
        scale = torch.tensor(as_real("Residual", "bound", bound, 1e-300, 1e300), dtype=reference.dtype, device=reference.device)
        self.bound = nn.Parameter(scale, requires_grad=False)  # a weight, so that members of an ensemble may differ in it
        self.vocabulary, self.readable = reference.vocabulary, reference.readable
        self.context = min(reference.context, correction.context)

    def log_probs(self, tokens: Tensor, start: int = 0) -> Tensor:
        """See the module."""
        return self._tilt(self.reference.log_probs(tokens, start), self.correction.log_probs(tokens, start))

    def tree_log_probs(self, prompts: Tensor, length: int) -> list[Tensor] | None:
        """See the module."""
        base, change = self.reference.tree_log_probs(prompts, length), self.correction.tree_log_probs(prompts, length)
        if base is None or change is None:
            return None
        return [self._tilt(b, c) for b, c in zip(base, change, strict=True)]

    def _tilt(self, base: Tensor, change: Tensor) -> Tensor:
        """The correction's log-probabilities, centred, are its logits."""
        logits = change - change.mean(dim=-1, keepdim=True)
        return torch.log_softmax(base + self.bound * torch.tanh(logits), dim=-1)


def table_of(log_pi: ArrayLike, V: int, length: int) -> np.ndarray:
    """[X, n] logits of the ``TokenTable`` whose responses have the laws exp(log_pi) [X, V^length], all positive.

    Raises:
        ValueError: naming the argument; rows that do not sum to one within 1e-4 (what a model in float32 gives).
    """
    as_enumerable("table_of", as_count("table_of", "V", V, high=MAX_RESPONSES), as_count("table_of", "length", length, high=64))
    ahead = as_floats("table_of", "log_pi", log_pi, "X Y", (None, V**length))
    with np.errstate(over="ignore", under="ignore"):
        off = np.abs(np.exp(ahead).sum(axis=1) - 1.0)
    if not off.max() <= 1e-4:
        got = f"off by {off.max():.3g} in row {off.argmax()}"
        fail("table_of", "exp(log_pi)", "have rows that sum to one within 1e-4", got)
    parts: list[np.ndarray] = []
    for _ in range(length):
        rows = ahead.reshape(len(ahead), -1, V)
        parts.append(rows.reshape(len(rows), -1))
        top = rows.max(axis=2, keepdims=True)
        ahead = (top + np.log(np.exp(rows - top).sum(axis=2, keepdims=True)))[..., 0]
    return np.concatenate(parts[::-1], axis=1)
