"""The reference transformer: its perplexity is the one it says, it learns something, and it repeats bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mdpsim.mdp.ngram import END, fit_ngram, frequent_words, read_sentences

torch = pytest.importorskip("torch", reason="needs [lm]")

from mdpsim.lm.device import reproducible  # noqa: E402
from mdpsim.lm.model import Config, Transformer  # noqa: E402
from mdpsim.lm.reference import LETTERS, Reference, ngram_perplexity, perplexity, train_reference  # noqa: E402
from mdpsim.lm.train import Adam  # noqa: E402

TINY: dict[str, Any] = {
    "words": 30, "context": 16, "layers": 1, "width": 16, "heads": 2, "optimiser": Adam(steps=150, rate=1e-2), "decay": 0.0,
    "rng": 3,
}


@pytest.fixture(scope="module")
def tiny() -> Reference:
    with reproducible():
        return train_reference(**TINY)


def test_it_beats_the_unigram(tiny: Reference) -> None:
    """On held-out sentences, after a few seconds; the n-grams are ordered as they should be, and the loss fell."""
    one, two, three = tiny.ngrams
    assert tiny.perplexity < one - 1.0
    assert two < one < tiny.uniform == 31.0
    assert three < one
    assert tiny.trace.loss[0] == pytest.approx(np.log(31.0), rel=1e-5)  # it starts at the uniform law, here without a prior
    assert tiny.trace.loss[-20:].mean() < tiny.trace.loss[0] - 0.4


def test_the_split_is_by_sentences(tiny: Reference) -> None:
    """Every sentence of the text is on one side, a tenth of them held out, cut at the context."""
    places = {w: i for i, w in enumerate(tiny.tokens)}
    text = [(*(places[w] for w in s if w in places), 0)[:16] for s in read_sentences()]
    assert sorted(tiny.train + tiny.held_out) == sorted(text)
    assert len(tiny.held_out) == round(0.1 * len(text))
    assert tiny.tokens[0] == END
    assert len(set(tiny.tokens)) == 31
    assert set(tiny.tokens[1:]) < set(frequent_words(40))
    other = train_reference(**{**TINY, "optimiser": Adam(steps=1), "rng": 4})
    assert sorted(other.held_out) != sorted(tiny.held_out)


def test_perplexity_by_hand(tiny: Reference) -> None:
    """Token by token, each from a pass of its own over what is before it; of sentences of different lengths."""
    sentences = [s for s in tiny.held_out if len(s) > 1][:5]
    total, n = 0.0, 0
    with torch.no_grad():
        for s in sentences:
            for t in range(len(s)):
                law = tiny.model.log_probs(torch.tensor([s[:t]], dtype=torch.int64).view(1, t), start=t)[0, 0]
                total, n = total + float(law[s[t]]), n + 1
    assert perplexity(tiny.model, sentences) == pytest.approx(np.exp(-total / n), rel=1e-5)
    many = sentences * 60  # read in parts
    assert perplexity(tiny.model, many) == pytest.approx(np.exp(-total / n), rel=1e-5)


def test_the_uniform_law_has_perplexity_v() -> None:
    model = Transformer(Config(vocabulary=7, context=5), 0)
    assert perplexity(model, [(1, 2, 0), (6, 0)]) == pytest.approx(7.0, rel=1e-12)


def test_ngrams_of_given_sentences_by_hand() -> None:
    """Counts within each sentence, after END alone at its start: the first sentence is not the second's past."""
    sentences = [("a", "b", "a"), ("b", "x", "b"), ("a",)]
    model = fit_ngram(("a", "b"), order=2, kappa=2.0, sentences=sentences)
    unigram = {".": (3 + 2 / 3) / 11, "a": (3 + 2 / 3) / 11, "b": (3 + 2 / 3) / 11}
    after = {".": {".": 0, "a": 2, "b": 1}, "a": {".": 2, "a": 0, "b": 1}, "b": {".": 1, "a": 1, "b": 1}}
    for i, c in enumerate((".", "a", "b")):
        wanted = [(after[c][w] + 2.0 * unigram[w]) / (3 + 2.0) for w in (".", "a", "b")]
        np.testing.assert_allclose(model.conditionals[i], wanted, rtol=1e-14)
    p = model.conditionals
    by_hand = (p[0, 1] * p[1, 2] * p[2, 0] * p[0, 0]) ** (-1 / 4)
    assert ngram_perplexity(model, [(1, 2, 0), (0,)]) == pytest.approx(by_hand, rel=1e-13)
    trigram = fit_ngram(("a", "b"), order=3, kappa=1.0, sentences=sentences)
    assert trigram.after([])[1] == pytest.approx((2 + fit_ngram(("a", "b"), order=2, sentences=sentences).after([])[1]) / 4)
    assert frequent_words(1, sentences) == ("a",)
    with pytest.raises(ValueError, match="words must occur in the text; got 'alice'"):
        fit_ngram(("a", "alice"), sentences=sentences)


def test_ngrams_of_the_shipped_text_are_unchanged() -> None:
    """One stream, in which a sentence comes after the one before: counted here by dictionaries."""
    model = fit_ngram(5, order=2, kappa=1.0)
    ids = {w: i for i, w in enumerate(model.tokens)}
    stream = [0] + [i for s in read_sentences() for i in [ids[w] for w in s if w in ids] + [0]]
    counts = np.zeros((6, 6))
    np.add.at(counts, (stream[:-1], stream[1:]), 1.0)
    one = (counts.sum(axis=0) + 1 / 6) / (counts.sum() + 1)
    np.testing.assert_allclose(model.conditionals, (counts + one) / (counts.sum(axis=1, keepdims=True) + 1), rtol=1e-13)


def test_it_repeats(tiny: Reference) -> None:
    """The same seed gives the same bits; another gives others. The caller watches."""
    with reproducible():
        again = train_reference(**TINY, watch=lambda model: {"norm": model.norm.weight.norm()}, every=50)
        seen = again.trace.seen["norm"]
        other = train_reference(**{**TINY, "rng": 4})
    assert again.perplexity == tiny.perplexity
    assert again.trace.loss.tobytes() == tiny.trace.loss.tobytes()
    assert again.trace.steps.tolist() == [0, 50, 100, 150]
    assert len(seen) == 4
    assert other.perplexity != tiny.perplexity


def test_decay_is_the_squares_of_the_matrices() -> None:
    """The loss of the first step, where the law is uniform, less log V."""
    shape = {**TINY, "optimiser": Adam(steps=1, rate=1e-300), "dtype": "float64"}
    free, held = train_reference(**shape), train_reference(**{**shape, "decay": 0.01})
    squares = sum(float((p.detach() ** 2).sum()) for p in free.model.parameters() if p.ndim == 2)
    assert held.trace.loss[0] - free.trace.loss[0] == pytest.approx(0.01 * squares, rel=1e-10)
    assert free.trace.loss[0] == pytest.approx(np.log(31.0), rel=1e-12)


def test_letters() -> None:
    reference = train_reference(**{**TINY, "unit": "letters", "optimiser": Adam(steps=5)})
    assert reference.tokens == (END, *LETTERS)
    assert reference.text([3, 4, 0, 5]) == "ab"
    beginnings = {" ".join(s)[:16].removesuffix(".") for s in read_sentences()}
    assert {reference.text(ids) for ids in reference.train} < beginnings
    assert 1.0 < reference.ngrams[1] < reference.ngrams[0] < 29.0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"unit": "bytes"}, "unit must be one of the known names"), ({"held_out": 0.0}, "held_out must be"),
        ({"batch": 0}, "batch must be"), ({"decay": -1.0}, "decay must be"), ({"words": 300}, "words must be at most 255"),
        ({"words": 0}, "n must be an integer"), ({"context": 0}, "context must be"),
        ({"device": "tpu"}, "device must be one of the known names"),
    ],
)
def test_bad_input(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        train_reference(**{**TINY, "optimiser": Adam(steps=1), **wrong})
    with pytest.raises(ValueError, match="sentences must be at least one, none of them empty"):
        perplexity(Transformer(Config(vocabulary=3, context=5), 0), [(1, 0), ()])
