"""Token MDPs against enumeration in plain Python, and the n-gram model against a recount.

False-alarm level: ALPHA for the statistical test, with a negative control that it must reject.
"""

from __future__ import annotations

import itertools
import math
import re
from importlib import resources

import numpy as np
import pytest
from scipy import stats

import mdpsim
from mdpsim.estimate.data import sample
from mdpsim.mdp import ngram
from mdpsim.mdp.token import TokenMDP
from mdpsim.mdp.token_families import combination_lock, text_tree, token_tree
from mdpsim.solve.exact import evaluate, occupancy, solve_hard, solve_soft, trajectory_kl

ALPHA = 1e-4
END = 1
EPS = np.finfo(float).eps

CASES = {
    "plain": token_tree(vocabulary=3, length=4, prompts=2, rng=0),
    "ends": token_tree(vocabulary=3, length=4, prompts=3, rng=1, concentration=0.3, end=END),
    "one token": token_tree(vocabulary=4, length=1, rng=2),
    "lock": combination_lock(vocabulary=2, length=5, rare=0.05, rng=3, prompts=2),
    "text": text_tree(words=("alice", "said", "queen", "the"), length=3, prompts=2, reward=lambda x, y: len(y) / 9 + (x < y)),
}
BY_CASE = pytest.mark.parametrize("name", CASES)


def written(mdp, pi, x, y):
    """pi(y | x) by a loop over the tokens."""
    p, prefix = 1.0, 0
    for h, token in enumerate(y):
        p *= pi[h, x * mdp.A**h + prefix, token]
        prefix = prefix * mdp.A + token
    return p


def all_responses(mdp):
    """Token tuples in the order of the index."""
    return list(itertools.product(range(mdp.A), repeat=mdp.H))


@BY_CASE
def test_responses_are_enumerated_in_order_with_their_probabilities(name):
    mdp, pi = CASES[name]
    found = mdp.responses(pi)
    expected = [[written(mdp, pi, x, y) for y in all_responses(mdp)] for x in range(mdp.X)]
    np.testing.assert_array_equal(found.tokens, all_responses(mdp))
    np.testing.assert_allclose(np.exp(found.log_prob), expected, rtol=1e-13, atol=0)
    np.testing.assert_array_equal(mdp.index(found.tokens), np.arange(mdp.Y))


@BY_CASE
@pytest.mark.parametrize("beta", [0.05, 1.0])
def test_the_soft_optimum_writes_the_posterior(name, beta):
    mdp, pi_ref = CASES[name]
    solution = solve_soft(mdp, pi_ref, beta)
    law = np.exp(mdp.responses(solution.pi).log_prob)
    for x in range(mdp.X):
        weights = [written(mdp, pi_ref, x, y) * math.exp(mdp.r[x, i] / beta) for i, y in enumerate(all_responses(mdp))]
        z = math.fsum(weights)
        np.testing.assert_allclose(law[x], np.array(weights) / z, rtol=0, atol=1e-13)
        assert solution.V[0, x] == pytest.approx(beta * math.log(z), abs=1e-13)


@BY_CASE
def test_values_divergences_and_occupancies_are_those_of_responses(name):
    mdp, pi_ref = CASES[name]
    pi = solve_soft(mdp, pi_ref, 0.2).pi
    law, ref = np.exp(mdp.responses(pi).log_prob), np.exp(mdp.responses(pi_ref).log_prob)
    assert pytest.approx(float(mdp.mu0 @ (law * mdp.r).sum(axis=1)), rel=1e-13) == evaluate(mdp, pi).J
    pairs = [(m * p, p / q) for m, ps, qs in zip(mdp.mu0, law, ref, strict=True) for p, q in zip(ps, qs, strict=True) if p]
    kl = math.fsum(p * math.log(ratio) for p, ratio in pairs)
    assert trajectory_kl(mdp, pi, pi_ref) == pytest.approx(kl, rel=1e-12)
    last = occupancy(mdp, pi)[-1]
    np.testing.assert_allclose(last, (mdp.mu0[:, None] * law).reshape(mdp.S, mdp.A).sum(axis=1), rtol=0, atol=1e-14)
    best = [max(mdp.r[x, i] for i in range(mdp.Y)) for x in range(mdp.X)]  # solve_hard has no reference: all tokens
    np.testing.assert_allclose(solve_hard(mdp).V[0, : mdp.X], best, rtol=1e-14)


@BY_CASE
def test_policies_over_tokens_and_over_responses_convert_both_ways(name):
    mdp, pi = CASES[name]
    log_prob = mdp.responses(pi).log_prob
    back = mdp.token_policy(log_prob)
    for h in range(mdp.H):
        states = slice(0, mdp.X * mdp.A**h)
        np.testing.assert_allclose(back[h, states], pi[h, states], rtol=1e-12, atol=0)
    assert mdp.responses(back).log_prob == pytest.approx(log_prob, rel=1e-13, abs=1e-13)


def test_conversion_keeps_what_float64_cannot_hold_as_a_probability():
    mdp = TokenMDP(np.zeros((1, 4)), vocabulary=2, length=2)
    logs = np.array([[np.log1p(-math.exp(-2.0)), -2.0 - 1e-9, -2000.0, -1000.0]])
    logs[0, 1] = math.log(-math.expm1(logs[0, 0]))
    pi = mdp.token_policy(logs)
    assert pi[0, 0, 1] == 0.0  # e^-1000
    assert math.log(pi[1, 1, 0]) == pytest.approx(-1000.0) if pi[1, 1, 0] else pi[1, 1, 1] == 1.0
    never = mdp.token_policy([[0.0, -np.inf, -np.inf, -np.inf]])
    np.testing.assert_array_equal(never[1, 1], [0.5, 0.5])  # after a prefix that is never written


def test_what_follows_an_end_token_is_the_end_token():
    mdp, pi = CASES["ends"]
    law = np.exp(mdp.responses(pi).log_prob).sum(axis=0)
    uniform = np.exp(mdp.responses().log_prob[0])
    for i, y in enumerate(all_responses(mdp)):
        after = y[y.index(END) :] if END in y else ()
        well_formed = all(token == END for token in after)
        assert (law[i] > 0.0) == well_formed
        free = len(y) - len(after) + bool(after)
        assert uniform[i] == pytest.approx(3.0**-free if well_formed else 0.0)
    assert mdp.text(all_responses(mdp).index((0, END, END, END))) == "0 1"


def test_dense_and_sparse_forms_are_one_problem():
    mdp, pi_ref = CASES["plain"]
    dense = mdp.to_tabular()
    for beta in (0.0, 0.3, math.inf):
        np.testing.assert_allclose(solve_soft(dense, pi_ref, beta).V, solve_soft(mdp, pi_ref, beta).V, rtol=0, atol=1e-13)


def test_sampled_responses_have_their_law():
    mdp, pi = CASES["ends"]
    n = 20_000
    episodes = sample(mdp, pi, n, 0)
    x, y = episodes.states[:, 0], mdp.index(episodes.actions)
    np.testing.assert_array_equal(episodes.rewards.sum(axis=1), mdp.r[x, y])
    law = (mdp.mu0[:, None] * np.exp(mdp.responses(pi).log_prob)).reshape(-1)

    def p_value(law):
        counts, expected = np.bincount(x * mdp.Y + y, minlength=law.size), n * law
        rare = expected < 5
        f = np.append(counts[~rare], counts[rare].sum())
        e = np.append(expected[~rare], expected[rare].sum())
        return stats.chisquare(f[e > 0], e[e > 0]).pvalue

    assert p_value(law) > ALPHA
    flat = mdp.responses().log_prob
    assert p_value((mdp.mu0[:, None] * np.exp(flat)).reshape(-1)) < ALPHA


def test_a_lock_pays_for_its_code():
    mdp, pi_ref = CASES["lock"]
    log_ref = mdp.responses(pi_ref).log_prob
    assert (mdp.r == 1.0).sum(axis=1).tolist() == [1, 1]
    for x in range(mdp.X):
        y = int(mdp.r[x].argmax())
        assert log_ref[x, y] == pytest.approx(5 * math.log(0.05), rel=1e-14)
        assert mdp.r[x, mdp.Y - 1 - y] == 0.5  # binary: the decoy is the complement
        assert sorted(set(mdp.r[x])) == [0.25, 0.5, 1.0]
    fixed = combination_lock(vocabulary=3, length=2, rare=0.1, code=[[2, 0]])
    assert fixed.mdp.r[0].argmax() == 6


def recount(words):
    """The text as ids, by another route: one word at a time."""
    text = resources.files("mdpsim").joinpath("data/alice.txt").read_text()
    assert len(text) >= 50_000
    stream = []
    for piece in re.findall(r"[A-Za-z]+(?:'[A-Za-z]+)*|[.!?]+", text):
        if piece[0] in ".!?":
            if stream and stream[-1] is not None:
                stream.append(None)
        else:
            stream.append(piece.lower())
    return [w for w in stream if w is None or w in words]


def test_the_ngram_model_is_its_formula():
    words = ("alice", "said", "queen", "the")
    stream = ["." if w is None else w for w in recount(words)]
    tokens = (".", *words)
    model = ngram.fit_ngram(words, order=3, kappa=2.0)
    assert model.tokens == tokens
    padded = [".", ".", *stream]

    def p(context, w):
        n = len(context)
        grams = [tuple(padded[i - n : i + 1]) for i in range(2, len(padded))]
        seen = sum(g[:n] == context for g in grams)
        lower = p(context[1:], w) if n else 1 / len(tokens)
        return (grams.count((*context, w)) + 2.0 * lower) / (seen + 2.0)

    for context in ((".", "said"), ("the", "queen"), ("queen", "queen"), ("said", "alice")):
        ids = [tokens.index(w) for w in context]
        np.testing.assert_allclose(model.after(ids), [p(context, w) for w in tokens], rtol=1e-12)
    assert p(("said",), "alice") > 5 * p(("the",), "alice")  # the model knows the text
    np.testing.assert_allclose(model.conditionals.sum(axis=-1), 1.0, rtol=0, atol=8 * EPS)
    assert model.after([]).tolist() == model.after([0, 0]).tolist()


def test_the_most_frequent_words_are_the_texts():
    counts = {}
    for w in recount(set(ngram.frequent_words(2000))):
        counts[w] = counts.get(w, 0) + 1
    top = sorted((w for w in counts if w), key=lambda w: -counts[w])[:10]
    assert set(top) == set(ngram.frequent_words(10))


def test_a_text_trees_prompts_and_responses_are_words():
    mdp, pi_ref = CASES["text"]
    assert mdp.tokens[mdp.end] == "."
    assert all(set(prompt.split()) <= set(mdp.tokens) for prompt in mdp.prompts)
    assert mdp.mu0[0] >= mdp.mu0[1]
    law = np.exp(mdp.responses(pi_ref).log_prob)
    np.testing.assert_allclose(law.sum(axis=1), 1.0, rtol=0, atol=1e-14)
    model = ngram.fit_ngram(("alice", "said", "queen", "the"))
    ids = [mdp.tokens.index(w) for w in mdp.prompts[1].split()]
    y = mdp.index([[3, 2, 0]])[0]
    expected = model.after(ids)[3] * model.after([*ids, 3])[2] * model.after([*ids, 3, 2])[0]
    assert law[1, y] == pytest.approx(expected, rel=1e-13)
    assert mdp.text(int(y)) == "queen said ."
    assert mdp.r[1, y] == len("queen said .") / 9 + (mdp.prompts[1] < "queen said .")


GOOD = {"r": np.zeros((2, 8)), "vocabulary": 2, "length": 3}


@pytest.mark.parametrize(("change", "message"), [
    ({"r": np.zeros((2, 9))}, r"r must have shape \[X, Y\] = \(X, 8\); got \(2, 9\)"),
    ({"r": np.zeros(8)}, "r must have shape"),
    ({"r": np.full((2, 8), np.nan)}, "r must be finite"),
    ({"vocabulary": 0}, "vocabulary must be an integer >= 1"),
    ({"vocabulary": ("a", "a")}, "vocabulary must be a number or a sequence of different names"),
    ({"vocabulary": "ab"}, "vocabulary must be an integer"),
    ({"vocabulary": ()}, "vocabulary must be a number or a sequence"),
    ({"length": 0}, "length must be an integer >= 1"),
    ({"length": 40}, r"vocabulary and length must give at most 16777216 responses; got 2\^40"),
    ({"mu0": [0.5, 0.6]}, "mu0 must have rows that sum to one"),
    ({"mu0": [1.0]}, r"mu0 must have shape \[X\] = \(2,\)"),
    ({"prompts": ("one",)}, "prompts must name each of the 2 prompts"),
    ({"end": 2}, "end must be an integer >= 0 and <= 1"),
])
def test_bad_records(change, message):
    with pytest.raises(ValueError, match=message):
        TokenMDP(**(GOOD | change))


def test_policies_and_laws_of_another_problem():
    mdp, pi = CASES["ends"]
    with pytest.raises(ValueError, match="responses: pi must be over this vocabulary of 3 tokens; got a policy over 2"):
        mdp.responses(np.full((4, 81, 2), 0.5))
    with pytest.raises(ValueError, match=r"responses: pi must have shape \[H, S, A\] = \(4, 81, 3\)"):
        mdp.responses(pi[:3])
    with pytest.raises(ValueError, match=r"pi_ref must have shape \[H, S, A\] = \(4, 81, 3\)"):
        solve_soft(mdp, np.full((4, 81, 2), 0.5), 1.0)
    logs = mdp.responses(pi).log_prob
    for bad, message in (
        (logs[:, :-1], r"log_prob must have shape \[X, Y\] = \(3, 81\)"), (np.full(logs.shape, np.nan), "hold logarithms"),
        (logs - 1e-6, "rows that sum to one"), (np.full(logs.shape, -math.log(81)), "no mass to what follows an end token"),
    ):
        with pytest.raises(ValueError, match=message):
            mdp.token_policy(bad)
    for call, message in (
        (lambda: mdp.text(81), "y must be an integer >= 0 and <= 80"), (lambda: mdp.index([[0, 1, 2, 3]]), r"in \[0, 3\)"),
        (lambda: mdp.ended(5), "h must be an integer >= 0 and <= 4"),
        (lambda: ngram.fit_ngram(("alice", "xyzzy")), "words must occur in the text; got 'xyzzy'"),
        (lambda: ngram.fit_ngram(300, order=4), "table of at most"), (lambda: ngram.fit_ngram(3, kappa=0.0), "kappa must be"),
        (lambda: ngram.frequent_words(0), "n must be an integer >= 1"),
        (lambda: combination_lock(vocabulary=1, length=2, rare=0.1), "vocabulary must be an integer >= 2"),
        (lambda: combination_lock(length=2, rare=0.0), "rare must be a number"),
        (lambda: combination_lock(length=2, rare=0.5, code=[[0, 2]]), r"code must have entries in \[0, 2\)"),
        (lambda: token_tree(vocabulary=10, length=10, rng=0), "at most"),
        (lambda: text_tree(words=3, length=2, prompts=99, reward=lambda x, y: 0.0), "prompts must be at most 9"),
        (lambda: text_tree(words=3, length=2, prompts=2, reward=lambda x, y: math.inf), "r must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_record_is_public():
    assert mdpsim.TokenMDP is TokenMDP
    assert repr(CASES["text"].mdp) == "TokenMDP(prompts=2, vocabulary=5, length=3, end='.')"
