"""n-gram models of a real text: reference policies whose responses are words.

The text shipped with the package is Lewis Carroll's "Alice's Adventures in Wonderland" (1865, public domain). It is read as
sentences of lower-case words; words outside a vocabulary are left out, and each sentence ends with the token ``END``. With c
the last n - 1 tokens and c' those without the first, the model is interpolated by pseudo-counts (MacKay and Peto 1995):

    p(w | c) = (N(c, w) + kappa p(w | c')) / (N(c) + kappa),      p(w) = (N(w) + kappa / V) / (N + kappa),

so that every token has positive probability after every context.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from mdpsim.arrays import FloatArray, as_count, as_real, fail, frozen
from mdpsim.records import record

END = "."
MAX_CELLS = 2**24  # numbers in a table of conditionals


@record
@dataclass(frozen=True, eq=False, repr=False)
class NGram:
    """A model of order n over V tokens, token 0 being the end of a sentence.

    tokens: their names. conditionals: [V] * n, read-only: p(last axis | the n - 1 tokens before it, oldest first).
    """

    tokens: tuple[str, ...]
    conditionals: FloatArray

    @property
    def order(self) -> int:
        """n: a token depends on the n - 1 before it."""
        return self.conditionals.ndim

    def after(self, context: Sequence[int]) -> FloatArray:
        """p(. | context) [V] for the token ids written so far; a text begins after the end of a sentence."""
        padded = [0] * (self.order - 1) + [int(i) for i in context]
        return self.conditionals[tuple(padded[len(padded) - self.order + 1 :])]

    def __repr__(self) -> str:
        return f"NGram(order={self.order}, vocabulary={len(self.tokens)})"


@cache
def read_sentences() -> tuple[tuple[str, ...], ...]:
    """The shipped text as sentences of lower-case words. Cost: a tenth of a second, once a process."""
    text = resources.files("mdpsim").joinpath("data/alice.txt").read_text(encoding="ascii").lower()
    sentences = (re.findall(r"[a-z]+(?:'[a-z]+)*", s) for s in re.split(r"[.!?]+", text))
    return tuple(tuple(s) for s in sentences if s)


def frequent_words(n: int, sentences: Sequence[Sequence[str]] | None = None) -> tuple[str, ...]:
    """The n most frequent words of the shipped text (or of other sentences), ties in alphabetical order.

    Raises:
        ValueError: n < 1, or more than the text has.
    """
    counts = Counter(word for sentence in (read_sentences() if sentences is None else sentences) for word in sentence)
    n = as_count("frequent_words", "n", n, high=len(counts))
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:n])


def fit_ngram(
    words: int | Sequence[str], *, order: int = 3, kappa: float = 1.0, sentences: Sequence[Sequence[str]] | None = None
) -> NGram:
    """The interpolated n-gram model of the shipped text, restricted to a vocabulary.

    Args:
        words: how many of the most frequent words, or the words themselves; the vocabulary is ``END`` and these.
        order: n, from 1 (no context) to 6.
        kappa: pseudo-count of the lower order, in [1e-6, 1e6].
        sentences: others than the shipped text, each by itself: its first tokens come after nothing but ``END``. The shipped
            text is one stream, in which a sentence comes after the one before.
    Returns:
        NGram with V = 1 + number of words.
    Cost: one pass over the text (27,000 words) an order; V^n numbers.
    Raises:
        ValueError: naming the argument, what was wanted and what came; a word that the text does not have.
    """
    named = frequent_words(words, sentences) if isinstance(words, int) and not isinstance(words, bool) else words
    if isinstance(named, str) or not isinstance(named, Sequence) or not named or len(set(named)) < len(named):
        fail("fit_ngram", "words", "be a number or a sequence of different words", repr(words))
    n = as_count("fit_ngram", "order", order, high=6)
    weight = as_real("fit_ngram", "kappa", kappa, 1e-6, 1e6)
    tokens = (END, *named)
    if len(tokens) ** n > MAX_CELLS:
        fail("fit_ngram", "words and order", f"give a table of at most {MAX_CELLS} numbers", f"{len(tokens)}^{n}")
    ids = {token: i for i, token in enumerate(tokens)}
    apart = 0 if sentences is None else n - 1  # ends of sentences before each, which are read and not counted
    texts = ([ids[w] for w in sentence if w in ids] for sentence in (read_sentences() if sentences is None else sentences))
    parts = [np.array([0] * apart + text + [0]) for text in texts]
    stream, counted = np.concatenate(parts), np.concatenate([np.arange(len(part)) >= apart for part in parts])
    for i, token in enumerate(tokens):
        if not (stream[counted] == i).any():
            fail("fit_ngram", "words", "occur in the text", repr(token))
    return NGram(tokens, frozen(_conditionals(stream, counted, len(tokens), n, weight)))


def _conditionals(stream: np.ndarray, counted: np.ndarray, V: int, n: int, kappa: float) -> FloatArray:
    """[V] * n interpolated conditionals of the counted ids of a stream that begins after the end of a sentence."""
    p = np.full(V, 1.0 / V)
    for k in range(1, n + 1):
        padded = np.concatenate([np.zeros(k - 1, np.int64), stream])
        cell = np.sum([padded[i : i + stream.size] * V ** (k - 1 - i) for i in range(k)], axis=0)
        counts = np.bincount(cell[counted], minlength=V**k).reshape((V,) * k)
        p = (counts + kappa * p) / (counts.sum(axis=-1, keepdims=True) + kappa)
    return p
