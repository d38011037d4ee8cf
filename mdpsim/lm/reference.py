r"""A reference policy that is a language model: a small transformer trained on the shipped text, beside n-grams.

The text's sentences (``mdpsim.mdp.ngram``) are written in words, of which those outside a vocabulary are left out, or in
letters; each ends with ``END``, token 0, and the transformer reads its first ``context`` tokens. A share of the sentences,
drawn at random, is held out. On the others n-grams are fitted, interpolated, and the transformer on minibatches of sentences:

    mean of -log p over tokens + decay * (sum of the squares of all matrices),

a Gaussian prior, for 17,000 words are few. All are judged by their perplexity on the same held-out tokens,

    exp( -(1/n) sum_i log p(token_i | the tokens before it in its sentence) ),      the end of the sentence among them.

The vocabulary is that of the training sentences. Nothing of the transformer is chosen on the held-out ones (steps and decay
were chosen on the split of seed 1). The n-grams' pseudo-count is the best of ``KAPPAS`` in hindsight at each order, and their
sentences are not cut: a comparison in their favour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mdpsim.arrays import as_count, as_integers, as_real, axes_of, fail, unknown
from mdpsim.lm.device import resolve_device, to_device
from mdpsim.lm.model import Config, LanguageModel, Transformer, guard_language_model
from mdpsim.lm.train import Adam, TrainingTrace, fit
from mdpsim.mdp.ngram import END, NGram, fit_ngram, frequent_words, read_sentences
from mdpsim.rng import as_generator

UNITS = ("words", "letters")
LETTERS = (" ", "'", *"abcdefghijklmnopqrstuvwxyz")
HALF_A_MINUTE = Adam(steps=400, rate=3e-3)
KAPPAS = (1.0, 3.0, 10.0, 30.0, 100.0)
READ_AT_ONCE = 256  # held-out sentences

Sentences = Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A trained transformer and what it is worth.

    model: its ids are places in ``tokens``, 0 the end of a sentence. tokens: their names.
    perplexity: on the held-out sentences. ngrams: that of the n-grams of order 1, 2, 3. uniform: of the uniform law, V.
    train, held_out: the sentences as ids. trace: of the training.
    """

    model: Transformer
    tokens: tuple[str, ...]
    perplexity: float
    ngrams: tuple[float, float, float]
    train: tuple[tuple[int, ...], ...]
    held_out: tuple[tuple[int, ...], ...]
    trace: TrainingTrace

    @property
    def uniform(self) -> float:
        """Perplexity of the uniform law."""
        return float(len(self.tokens))

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text, up to the first end of a sentence."""
        if len(ids):
            as_integers("text", "ids", ids, "n", (None,), len(self.tokens))
        names = [self.tokens[i] for i in ids]
        names = names[: names.index(END)] if END in names else names
        return ("" if self.tokens[1:] == LETTERS else " ").join(names)


def train_reference(
    words: int = 100, *, unit: str = "words", context: int = 48, layers: int = 2, width: int = 64, heads: int = 4,
    held_out: float = 0.1, batch: int = 64, decay: float = 1e-3, rng: np.random.Generator | int = 0,
    optimiser: Adam = HALF_A_MINUTE, device: str = "cpu", dtype: str = "float32",
    watch: Callable[[Transformer], Mapping[str, Tensor]] | None = None, every: int = 50,
) -> Reference:
    """Train a transformer on the shipped text and compare it with n-grams.

    Args:
        words: vocabulary, the most frequent words of the training sentences; not read for letters.
        unit: "words" or "letters" (26, the apostrophe and the space).
        context: tokens of a sentence that are read; layers, width, heads: the transformer's shape.
        held_out: share of the sentences, in [0.01, 0.9]. batch: sentences a step. decay: see the module.
        rng: Generator or seed of the split, the weights and the batches: the same gives the same model on one machine,
            within ``mdpsim.lm.device.reproducible``.
        watch: model -> name -> tensor, recorded every ``every`` steps: the caller's progress.
    Returns:
        Reference.
    Cost: the default takes about half a minute of one core.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "train_reference"
    if unit not in UNITS:
        unknown(where, "unit", unit, UNITS)
    share = as_real(where, "held_out", held_out, 0.01, 0.9)
    size, weight = as_count(where, "batch", batch, high=2**20), as_real(where, "decay", decay, 0.0, 1e3)
    generator = as_generator(where, rng)
    train, held = _split(unit, share, generator)
    tokens = (END, *(LETTERS if unit == "letters" else frequent_words(words, train)))
    if len(tokens) ** 3 > 2**24:
        fail(where, "words", "be at most 255: the n-grams are tables of V^3 numbers", words)
    config = Config(vocabulary=len(tokens), context=context, layers=layers, width=width, heads=heads)
    seen, unseen = (_ids(part, tokens, config.context) for part in (train, held))
    model = Transformer(config, generator, device=resolve_device(device), dtype=dtype)
    padded, lengths = _padded(seen)
    matrices = [p for p in model.parameters() if p.ndim == 2]

    def loss() -> Tensor:
        rows = generator.integers(0, len(seen), size)
        prior = torch.stack([(p * p).sum() for p in matrices]).sum()
        return weight * prior - _log_probs(model, padded[rows], lengths[rows]).mean()

    trace = fit(model, loss, optimiser=optimiser, watch=None if watch is None else lambda: watch(model), every=every)
    one, two, three = (_best_ngram(tokens, n, train, unseen) for n in (1, 2, 3))
    return Reference(
        model=model, tokens=tokens, perplexity=perplexity(model, unseen), ngrams=(one, two, three), train=seen,
        held_out=unseen, trace=trace,
    )


@torch.no_grad()
def perplexity(model: LanguageModel, sentences: Sentences) -> float:
    """exp(-mean log p) over all tokens of sentences of ids, each read from the start symbol on.

    Raises:
        ValueError: no sentence, an empty one, or one longer than the context; ids outside the vocabulary.
    """
    guard_language_model("perplexity", model)
    padded, lengths = _padded(sentences)
    _guard_ids("perplexity", padded, model.vocabulary)
    parts = range(0, len(padded), READ_AT_ONCE)
    logs = [_log_probs(model, padded[i : i + READ_AT_ONCE], lengths[i : i + READ_AT_ONCE]).double() for i in parts]
    return float(torch.cat(logs).mean().neg().exp())


def ngram_perplexity(model: NGram, sentences: Sentences) -> float:
    """The same of an n-gram, whose first tokens of a sentence come after its end token alone."""
    if not isinstance(model, NGram):
        fail("ngram_perplexity", "model", "be an NGram", type(model).__name__)
    _guard_ids("ngram_perplexity", _padded(sentences)[0], len(model.tokens))
    logs = [np.log(model.after(s[:t])[s[t]]) for s in sentences for t in range(len(s))]
    return float(np.exp(-np.mean(logs)))


def _best_ngram(tokens: tuple[str, ...], order: int, train: Sequence[Sequence[str]], held: Sentences) -> float:
    """The n-gram's perplexity with the pseudo-count that suits the held-out sentences best."""
    fits = (fit_ngram(tokens[1:], order=order, kappa=kappa, sentences=train) for kappa in KAPPAS)
    return min(ngram_perplexity(model, held) for model in fits)


def _split(unit: str, share: float, rng: np.random.Generator) -> tuple[list[Sequence[str]], list[Sequence[str]]]:
    """(training sentences, held-out ones), as words or letters, in the order of the text."""
    text = read_sentences()
    out = np.zeros(len(text), bool)
    out[rng.permutation(len(text))[: max(1, round(share * len(text)))]] = True
    spelled: list[Sequence[str]] = [tuple(" ".join(s)) if unit == "letters" else s for s in text]
    train, held = ([s for s, o in zip(spelled, out, strict=True) if o == side] for side in (False, True))
    return train, held


def _ids(sentences: Sequence[Sequence[str]], tokens: tuple[str, ...], context: int) -> tuple[tuple[int, ...], ...]:
    """The first ``context`` tokens of each sentence in the vocabulary, its end among them."""
    places = {token: i for i, token in enumerate(tokens)}
    return tuple((*(places[w] for w in s if w in places), 0)[:context] for s in sentences)


def _padded(sentences: Sentences) -> tuple[np.ndarray, np.ndarray]:
    """(ids [N, T], zero after the end, lengths [N])."""
    listed = isinstance(sentences, Sequence) or (isinstance(sentences, np.ndarray) and sentences.ndim == 2)
    if not listed or not all(isinstance(s, Sequence | np.ndarray) and not isinstance(s, str) for s in sentences):
        fail("perplexity", "sentences", "be a sequence of sequences of integers", type(sentences).__name__)
    lengths = np.array([len(s) for s in sentences], dtype=np.int64)
    if not len(lengths) or not lengths.all():
        fail("perplexity", "sentences", "be at least one, none of them empty", f"lengths {lengths.tolist()[:8]}")
    for row in sentences:
        if axes_of(row) != 1 or np.asarray(row).dtype.kind not in "iu":
            fail("perplexity", "sentences", "be sequences of integers", repr(row))
    ids = np.zeros((len(lengths), int(lengths.max())), np.int64)
    for row, sentence in zip(ids, sentences, strict=True):
        row[: len(sentence)] = sentence
    return ids, lengths


def _guard_ids(where: str, ids: np.ndarray, below: int) -> None:
    """Refuse ids outside a vocabulary: a negative one would be read from the end."""
    if ids.min() < 0 or ids.max() >= below:
        fail(where, "sentences", f"hold ids in 0 .. {below - 1}", int(ids.min() if ids.min() < 0 else ids.max()))


def _log_probs(model: LanguageModel, ids: np.ndarray, lengths: np.ndarray) -> Tensor:
    """[number of tokens] log p(token | those before) of padded sentences, differentiable."""
    ids = ids[:, : int(lengths.max())]
    tokens = to_device(ids, model.device)
    logs = model.log_probs(tokens[:, :-1], start=0).gather(2, tokens[..., None])[..., 0]
    return logs[to_device(np.arange(ids.shape[1]) < lengths[:, None], model.device)]
