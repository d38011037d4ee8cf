"""Named token MDPs: the instance axis of claims about responses.

========================  ============================================================================================
token_tree                random rewards and a random reference: the generic case
combination_lock          one response of V^L pays: hard for exploration by the reference
text_tree                 prompts and reference from an n-gram model of a real text: peaked, with structure, readable
========================  ============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mdpsim.arrays import FloatArray, as_count, as_integers, as_real, fail, frozen
from mdpsim.mdp.families import Rng, _dirichlet
from mdpsim.mdp.ngram import END, NGram, fit_ngram
from mdpsim.mdp.token import TokenMDP
from mdpsim.records import record
from mdpsim.rng import as_generator


@record
class TokenInstance(NamedTuple):
    """A token MDP with the reference policy that belongs to it, pi_ref [H, S, A]."""

    mdp: TokenMDP
    pi_ref: FloatArray


def token_tree(
    *, vocabulary: int, length: int, rng: Rng, prompts: int = 1, concentration: float = 1.0, end: int | None = None
) -> TokenInstance:
    """Rewards uniform on [0, 1], independent over responses; reference conditionals ~ Dirichlet(concentration, ..).

    Hard for: nothing in particular. A reward without structure makes every prefix informative about nothing but itself; a small
    concentration makes some responses very rare under the reference.

    Args:
        vocabulary, length, prompts: sizes V, L, X, at least 1; X V^L at most 2^24.
        rng: Generator or seed.
        concentration: of the reference's rows, in [0.1, 1e6].
        end: id of the end token; after it the reference writes nothing else.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    V, L, X = (as_count("token_tree", n, x, high=2**24) for n, x in
               (("vocabulary", vocabulary), ("length", length), ("prompts", prompts)))
    generator = as_generator("token_tree", rng)
    if L * np.log(V) + np.log(X) > np.log(2.0**24) + 1e-9:
        fail("token_tree", "prompts, vocabulary and length", "give at most 2^24 pairs", f"{X} * {V}^{L}")
    mdp = TokenMDP(frozen(generator.random((X, V**L))), vocabulary=V, length=L, end=end)
    rows = _dirichlet("token_tree", generator, concentration, (mdp.H, mdp.S, mdp.A), 0.1)
    return TokenInstance(mdp, _with_end(mdp, rows))


def combination_lock(
    *, vocabulary: int = 2, length: int, rare: float, rng: Rng | None = None, prompts: int = 1, code: ArrayLike | None = None,
    decoy: float = 0.5,
) -> TokenInstance:
    """One response a prompt pays 1, the code; one decoy pays ``decoy``; all others pay half the decoy.

    At each stage the reference writes the token of the code with probability ``rare`` and the others equally often, so the code
    has pi_ref = rare^L. The decoy is the code with every token replaced by the next one (modulo V).

    Hard for: exploration by the reference or by the current policy. The code is found by chance after rare^-L episodes, the
    rewards on the way are flat, and the decoy is what a learner settles on; coverability is V^L at most.

    Args:
        vocabulary: V, at least 2. length: L. prompts: X.
        rare: probability of the code's token at each stage, in (0, 1).
        rng: Generator or seed that draws each prompt's code; None needs ``code`` or takes the last token throughout.
        code: [X, L] token ids.
        decoy: reward in [0, 1).
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    where = "combination_lock"
    V, L, X = as_count(where, "vocabulary", vocabulary, low=2), as_count(where, "length", length, high=24), \
        as_count(where, "prompts", prompts)
    p = as_real(where, "rare", rare, 1e-300, 1.0 - 1e-12)
    pay = as_real(where, "decoy", decoy, 0.0, 1.0 - 1e-12)
    if code is not None:
        codes = as_integers(where, "code", code, "X L", (X, L), V)
    elif rng is not None:
        codes = as_generator(where, rng).integers(V, size=(X, L))
    else:
        codes = np.full((X, L), V - 1)
    place = V ** np.arange(L)[::-1]
    r = np.full((X, V**L), pay / 2)
    r[np.arange(X), (codes + 1) % V @ place] = pay
    r[np.arange(X), codes @ place] = 1.0
    mdp = TokenMDP(frozen(r), vocabulary=V, length=L)
    pi = np.full((L, mdp.S, V), 1.0 / V)
    for h in range(L):
        states = np.arange(X * V**h)
        pi[h, states] = (1.0 - p) / (V - 1)
        pi[h, states, codes[states // V**h, h]] = p
    return TokenInstance(mdp, frozen(pi))


def text_tree(
    *, words: int | Sequence[str], length: int, reward: Callable[[str, str], float], prompts: int = 4,
    prompt_length: int = 2, order: int = 3, kappa: float = 1.0,
) -> TokenInstance:
    """Sentences after an n-gram model of a real text: prompts are its most probable beginnings, the reference goes on.

    The prompts are the ``prompts`` most probable beginnings of ``prompt_length`` words under the model, mu0 their
    renormalised probabilities; the reference is the model given prompt and prefix. The end of a sentence ends a response.

    Hard for: methods that assume a flat or a full-support reference. A few responses have most of the mass, others 1e-8 of
    it, and neighbouring prompts have different optima. Pictures show words, not indices.

    Args:
        words: how many of the text's most frequent words, or the words; V = 1 + that.
        length: tokens of a response.
        reward: function of the prompt and the response, each a string of words with blanks between.
        prompts, prompt_length: number X, and words of each.
        order, kappa: of the model, see ``fit_ngram``.
    Cost: X V^L calls of ``reward``.
    Raises:
        ValueError: naming the argument, what was wanted and what came.
    """
    model = fit_ngram(words, order=order, kappa=kappa)
    X = as_count("text_tree", "prompts", prompts)
    L = as_count("text_tree", "length", length, high=24)
    begun, law = _beginnings(model, X, as_count("text_tree", "prompt_length", prompt_length, high=8))
    V = len(model.tokens)
    if X * V**L > 2**24:
        fail("text_tree", "prompts, words and length", "give at most 2^24 pairs", f"{X} * {V}^{L}")
    named = [" ".join(model.tokens[i] for i in ids) for ids in begun]
    blank = TokenMDP(np.zeros((X, V**L)), vocabulary=model.tokens, length=L, end=0)
    texts = [blank.text(y) for y in range(blank.Y)]
    r = np.array([[float(reward(prompt, text)) for text in texts] for prompt in named])
    mdp = TokenMDP(frozen(r), vocabulary=model.tokens, length=L, mu0=law, prompts=named, end=model.tokens.index(END))
    pi = np.full((L, mdp.S, V), 1.0 / V)
    for h in range(L):
        for s in range(X * V**h):
            prefix = [s // V**k % V for k in reversed(range(h))]
            pi[h, s] = model.after([*begun[s // V**h], *prefix])
    return TokenInstance(mdp, _with_end(mdp, pi))


def _beginnings(model: NGram, n: int, length: int) -> tuple[list[tuple[int, ...]], FloatArray]:
    """The n most probable beginnings of ``length`` words (no end among them), and their law."""
    found: list[tuple[float, tuple[int, ...]]] = [(1.0, ())]
    for _ in range(length):
        found = [(p * float(q), (*ids, w)) for p, ids in found for w, q in enumerate(model.after(ids)) if w > 0]
        found = sorted(found, key=lambda x: (-x[0], x[1]))[: max(n, 4096)]
    if len(found) < n:
        fail("text_tree", "prompts", f"be at most {len(found)} (all beginnings of {length} words)", n)
    p = np.array([p for p, _ in found[:n]])
    return [ids for _, ids in found[:n]], frozen(p / p.sum())


def _with_end(mdp: TokenMDP, pi: FloatArray) -> FloatArray:
    """The policy that writes nothing but the end token after an end token, and what ``pi`` says elsewhere."""
    out = np.array(pi)
    for h in range(mdp.H):
        ended = mdp.ended(h)
        out[h, : ended.size][ended] = np.arange(mdp.A) == mdp.end
    return frozen(out)
