r"""Causal language models: the interface, and a transformer of our own.

A model reads token ids and gives the law of the next token. With <s> a start symbol, and V tokens that can be written,

    log_probs(tokens, start)[n, t - start] = log p(. | <s>, tokens[n, :t]),   t = start .. T,   [N, T - start + 1, V].

Ids 0 .. V - 1 are read and written; ids V .. V + prompts - 1 are only read: a prompt that is one symbol of its own. The
transformer is pre-norm with learned positions (Vaswani et al., 2017; Radford et al., 2019), biases, GELU, and a head that
starts at zero times ``gain``; its default is 2 layers of width 64.

``tree_log_probs`` reads every prefix of a response once: the nodes of the tree are one sequence of tokens, each attending
to its ancestors alone, so all V^L responses cost 1 + V + .. + V^(L-1) tokens instead of L V^(L-1). A small tree attends by
one mask over its n rows (n^2 products, one call); a large one level by level (n L products: the keys of a node are shared by
what is below it).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpsim.arrays import as_count, as_real, fail
from mdpsim.lm.device import as_device, resolve_dtype
from mdpsim.lm.guards import dense
from mdpsim.rng import as_generator

MAX_NODES = 2**14  # of a tree that is read as one sequence
MAX_SQUARE = 160  # rows that attend by one mask: beyond, its square costs more than the levels' many small products

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys and values, [N, heads, rows, d] each -> [N, heads, rows, d]


class LanguageModel(nn.Module, ABC):
    """A law of the next token. ``vocabulary``: tokens it writes; ``readable``: ids it reads; ``context``: most ids at once."""

    vocabulary: int
    readable: int
    context: int

    @abstractmethod
    def log_probs(self, tokens: Tensor, start: int = 0) -> Tensor:
        """[N, T - start + 1, V] log-probabilities of the token after each prefix tokens[:, :t], t = start .. T."""

    def next_log_probs(self, tokens: Tensor, past: Any = None) -> tuple[Tensor, Any]:
        """([N, V] the law of the next token, what to hand in with the next ones): ``past`` None begins with the start symbol.

        Here what is handed on are the ids themselves, read again each time; a model with a cache does better.
        """
        seen = tokens if past is None else torch.cat([past, tokens], dim=1)
        return self.log_probs(seen, start=seen.shape[1])[:, 0], seen

    def tree_log_probs(self, prompts: Tensor, length: int) -> list[Tensor] | None:
        """Level t of the tree of responses: [X, V^t, V], t = 0 .. length - 1; None where a model has no quick way."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(self.parameters()).dtype


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a transformer.

    Args:
        vocabulary: V, tokens that are written. prompts: further ids that are only read.
        context: most tokens of prompt and response together.
        layers, width, heads: of the transformer; heads divides width.
        gain: scale of the initial head: 0 starts at the uniform law, larger values at more peaked ones.
    """

    vocabulary: int
    context: int
    prompts: int = 0
    layers: int = 2
    width: int = 64
    heads: int = 4
    gain: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocabulary", "context", "layers", "width", "heads"):
            as_count("Config", name, getattr(self, name), high=2**20)
        as_count("Config", "prompts", self.prompts, low=0, high=2**20)
        as_real("Config", "gain", self.gain, 0.0, 1e6)
        if self.width % self.heads:
            fail("Config", "heads", f"divide the width {self.width}", self.heads)


class _Block(nn.Module):
    """Attention and a two-layer perceptron, each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, attend: Attend, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(x, keys and values [2, N, heads, T, d] of all so far); with a past, each new row sees it and its forerunners."""
        N, T, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(N, T, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        held = qkv[1:] if past is None else torch.cat([past, qkv[1:]], dim=3)
        x = x + self.out(attend(qkv[0], held[0], held[1]).transpose(1, 2).reshape(N, T, width))
        return x + self.down(functional.gelu(self.up(self.norm_mlp(x)))), held


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each row sees itself and those before it; a single row sees all keys."""
    return functional.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)


def _masked(mask: Tensor) -> Attend:
    """Rows see where the mask [rows, keys] is true."""
    return partial(functional.scaled_dot_product_attention, attn_mask=mask)


class Transformer(LanguageModel):
    """A small causal transformer with a seeded start.

    Args:
        config: its shape. rng: numpy Generator or an integer seed: the same seed gives the same weights on every device.
        device, dtype: where and in which numbers ("float64", "float32", "bfloat16").
    """

    def __init__(
        self, config: Config, rng: np.random.Generator | int = 0, *, device: str | torch.device = "cpu", dtype: str = "float64"
    ) -> None:
        super().__init__()
        if not isinstance(config, Config):
            fail("Transformer", "config", "be a Config", repr(config))
        self.config, self.vocabulary, self.context = config, config.vocabulary, config.context
        self.readable = config.vocabulary + config.prompts
        self.embed = nn.Embedding(self.readable + 1, config.width)  # the last row is the start symbol
        self.place = nn.Embedding(config.context + 1, config.width)
        self.blocks = nn.ModuleList(_Block(config.width, config.heads) for _ in range(config.layers))
        self.norm, self.head = nn.LayerNorm(config.width), nn.Linear(config.width, config.vocabulary)
        self.double().restart(as_generator("Transformer", rng))
        self.to(device=as_device("Transformer", device), dtype=resolve_dtype(dtype))

    def restart(self, rng: np.random.Generator | int) -> Transformer:
        """Draw the weights anew: embeddings of variance 1/2 each (they are added), matrices of 1 / inputs, biases 0."""
        with torch.no_grad():
            for name, p in self.named_parameters():
                p.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        self._add_noise(1.0, as_generator("restart", rng))
        return self

    @torch.no_grad()
    def _add_noise(self, sd: float, rng: np.random.Generator) -> None:
        for name, p in self.named_parameters():
            if not name.endswith("bias") and "norm" not in name:
                scale = 0.5**0.5 if name.startswith(("embed", "place")) else p.shape[1] ** -0.5
                scale *= self.config.gain if name.startswith("head") else 1.0
                p.add_(torch.from_numpy(sd * scale * rng.standard_normal(tuple(p.shape))).to(p))

    def perturbed(self, sd: float, rng: np.random.Generator | int) -> Transformer:
        """A copy to whose embeddings and matrices ``sd`` times noise of the law of their start is added."""
        other = deepcopy(self)
        other._add_noise(as_real("perturbed", "sd", sd, 0.0, 1e6), as_generator("perturbed", rng))
        return other

    def log_probs(self, tokens: Tensor, start: int = 0) -> Tensor:
        """See the module; a causal pass over the start symbol and the tokens."""
        guard_tokens("log_probs", self, tokens)
        as_count("log_probs", "start", start, low=0, high=tokens.shape[1])
        ids = functional.pad(tokens, (1, 0), value=self.readable)
        return self._read(ids, torch.arange(ids.shape[1], device=ids.device), _causal)[0][:, start:]

    def next_log_probs(self, tokens: Tensor, past: Any = None) -> tuple[Tensor, Any]:
        """See the interface; keys and values are kept, so that a token costs one row."""
        first = past is None
        guard_tokens("next_log_probs", self, tokens)
        ids = functional.pad(tokens, (1, 0), value=self.readable) if first else tokens
        done = 0 if first else past[0].shape[3]
        if done + ids.shape[1] > self.context + 1:
            fail("next_log_probs", "tokens", f"fit the context of {self.context} tokens", done + ids.shape[1] - 1)
        places = torch.arange(done, done + ids.shape[1], device=ids.device)
        attend = _causal
        if done and len(places) > 1:
            attend = _masked(torch.ones(len(places), done + len(places), dtype=torch.bool, device=ids.device).tril(done))
        out, held = self._read(ids, places, attend, past, last=True)
        return out[:, -1], held

    def tree_log_probs(self, prompts: Tensor, length: int) -> list[Tensor] | None:
        """Every level of the tree of responses in one pass, for trees of at most MAX_NODES nodes."""
        guard_tokens("tree_log_probs", self, prompts, name="prompts")
        as_count("tree_log_probs", "length", length)
        V, (X, P), n = self.vocabulary, prompts.shape, 0
        for t in range(length):  # not a sum over all levels: their numbers grow without bound
            n += V**t
            if n > MAX_NODES:
                return None
        guard_tokens("tree_log_probs", self, prompts, length - 1, name="prompts")
        tree = _tree(V, length, P, self.device)
        ids = functional.pad(prompts, (1, 0), value=self.readable)
        ids = torch.cat([ids, tree.tokens.expand(X, -1)], dim=1)
        out = self._read(ids, tree.places, tree.attend)[0][:, P:]
        return list(out.split([V**t for t in range(length)], dim=1))

    def _read(
        self, ids: Tensor, places: Tensor, attend: Attend, past: list[Tensor] | None = None, *, last: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Log-probabilities after every row (or the last alone), and the keys and values of each layer."""
        x, held = self.embed(ids) + self.place(places), []
        for i, block in enumerate(self.blocks):
            x, kept = block(x, attend, None if past is None else past[i])
            held.append(kept)
        x = x[:, -1:] if last else x
        return torch.log_softmax(self.head(self.norm(x)), dim=-1), held

    def save(self, path: str | PathLike[str]) -> None:
        """Write shape and weights to a file."""
        torch.save({"config": asdict(self.config), "weights": self.state_dict()}, path)

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, vocabulary: int | None = None, device: str | torch.device = "cpu",
        dtype: str = "float64",
    ) -> Transformer:
        """Read what ``save`` wrote.

        Raises:
            ValueError: no such file, no checkpoint of mdpsim, or (where ``vocabulary`` is given) one of another vocabulary.
        """
        try:
            held: Any = torch.load(path, map_location="cpu", weights_only=True)
            model = cls(Config(**held["config"]), dtype=dtype)
            model.load_state_dict(held["weights"])
        except Exception as error:
            got = f"{str(path)!r} ({shortened(error)})"
            fail("Transformer.load", "path", "be a checkpoint that Transformer.save wrote", got)
        if vocabulary is not None and model.vocabulary != vocabulary:
            fail("Transformer.load", "path", f"hold a model of this vocabulary of {vocabulary} tokens", model.vocabulary)
        return model.to(as_device("Transformer.load", device))


def shortened(error: Exception) -> str:
    """The first line of a message: torch's go on for pages."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"


@dataclass(frozen=True)
class _Tree:
    """The prefixes of responses as one sequence after the start symbol and P prompt tokens.

    tokens: [n - 1] the last token of each prefix but the empty one, whose row is that of the prompt's last token.
    places: [P + n] positions. attend: which rows see which.
    """

    tokens: Tensor
    places: Tensor
    attend: Attend


@lru_cache(maxsize=64)
def _tree(V: int, length: int, P: int, device: torch.device) -> _Tree:
    levels = [np.arange(V**t) for t in range(length)]
    tokens = np.concatenate([level % V for level in levels[1:]] or [np.empty(0, np.int64)])
    places = np.concatenate([np.arange(P + 1), *(np.full(V**t, P + t) for t in range(1, length))])
    small = len(places) <= MAX_SQUARE
    attend = _masked(torch.from_numpy(_ancestors(V, length, P)).to(device)) if small else partial(_by_levels, V, length, P)
    return _Tree(torch.from_numpy(tokens).to(device), torch.from_numpy(places).to(device), attend)


def _ancestors(V: int, length: int, P: int) -> np.ndarray:
    """[P + n, P + n] whether a row sees a column: prompts what is before them, nodes the prompt and their ancestors."""
    offsets = np.cumsum([0] + [V**t for t in range(length)])
    n = int(offsets[-1])
    mask = np.zeros((P + n, P + n), dtype=bool)
    mask[:, : P + 1] = True
    mask[: P + 1, : P + 1] = np.tri(P + 1, dtype=bool)
    for t in range(1, length):
        nodes = np.arange(V**t)
        for up in range(t):  # the ancestor ``up`` levels above, the node itself among them
            mask[P + offsets[t] + nodes, P + offsets[t - up] + nodes // V**up] = True
    return mask


def _by_levels(V: int, length: int, P: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of a tree without its square: a level sees the prompt, and of each level above the one node it is below."""
    sizes = [P + 1] + [V**t for t in range(1, length)]
    qs, ks, vs = (q * q.shape[-1] ** -0.5).split(sizes, dim=2), k.split(sizes, dim=2), v.split(sizes, dim=2)
    seen = [_causal(q[:, :, : P + 1], ks[0], vs[0])]
    for t in range(1, length):
        scores = [qs[t] @ ks[0].transpose(2, 3)]
        for up in range(1, t + 1):
            below = qs[t].unflatten(2, (V**up, -1)) * ks[up][:, :, :, None]
            scores.append(below.sum(dim=-1).flatten(2, 3)[..., None])
        weights = torch.cat(scores, dim=-1).softmax(dim=-1)
        found = weights[..., : P + 1] @ vs[0]
        for up in range(1, t + 1):
            share = weights[..., P + up].unflatten(2, (V**up, -1))[..., None]
            found = found + (share * vs[up][:, :, :, None]).flatten(2, 3)
        seen.append(found)
    return torch.cat(seen, dim=2)


def guard_language_model(where: str, model: object, name: str = "model") -> None:
    """Guard a model's type."""
    if not isinstance(model, LanguageModel):
        fail(where, name, "be a LanguageModel", type(model).__name__)


def guard_tokens(where: str, model: LanguageModel, tokens: Tensor, more: int = 0, name: str = "tokens") -> None:
    """Guard ids [N, T] that a model is to read, with room for ``more`` after them. Values are checked on the CPU only.

    On a GPU a look at the values would wait for the device in every inner loop: ``as_tokens`` checks what users bring.
    """
    guard_language_model(where, model)
    if not dense(tokens) or tokens.ndim != 2 or tokens.dtype != torch.int64:
        got = f"{tokens.dtype} {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
        fail(where, name, "be an int64 tensor [N, T]", got)
    if tokens.shape[1] + more > model.context:
        text = f"{tokens.shape[1]} and {more} to come" if more else tokens.shape[1]
        fail(where, name, f"fit the context of {model.context} tokens, prompt and response together", text)
    if tokens.device.type == "cpu" and tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < model.readable:
        worst = int(tokens.min()) if int(tokens.min()) < 0 else int(tokens.max())
        fail(where, name, f"be ids of the vocabulary, 0 .. {model.readable - 1}", worst)
