"""DPO's loss and gradient against the published formula, by hand, and finite differences; pairs; the fit over a class."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from mdpsim import Softmax, TokenSoftmax, sample_preferences
from mdpsim.align.classes import FiniteClass
from mdpsim.align.dpo import Pairs, dpo_gradient, dpo_losses, fit_dpo, pairs, pairs_of
from mdpsim.mdp import families
from mdpsim.mdp.token import TokenMDP
from reference import preferences as plain

LOSSES = [("logistic", 0.0), ("logistic", 0.15), ("ipo", 0.0)]
V, L, X = 2, 3, 2
Y = V**L


def data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    context = rng.integers(X, size=n)
    return pairs(np.stack([context, rng.integers(Y, size=n)], 1), np.stack([context, rng.integers(Y, size=n)], 1))


def policies(seed=0):
    """(token tables [X] of lists, theta [X, size], log_ref [X, Y]) with the reference another softmax."""
    rng = np.random.default_rng(seed)
    model = TokenSoftmax(V, L)
    theta, ref = rng.normal(size=(2, X, model.size))
    return model, theta, np.stack([model.log_pi(row) for row in ref])


def sequence_log_prob(theta, y):
    """Sum over tokens of the log-softmax of the logits at the prefix: theta lists the prefixes, shorter ones first."""
    digits = [y >> (L - 1 - t) & 1 for t in range(L)]
    total, offset, prefix = 0.0, 0, 0
    for t, digit in enumerate(digits):
        row = [theta[offset + prefix * V + a] for a in range(V)]
        total += row[digit] - math.log(sum(math.exp(v) for v in row))
        offset += V ** (t + 1)
        prefix = prefix * V + digit
    return total


@pytest.mark.parametrize(("loss", "smoothing"), LOSSES)
@pytest.mark.parametrize("beta", [0.05, 1.0, 7.0])
def test_the_loss_is_the_published_one_with_sums_over_tokens(loss, smoothing, beta):
    model, theta, log_ref = policies()
    log_pi = np.stack([model.log_pi(row) for row in theta])
    total, sample = 0.0, data()
    for x, a, b in zip(*sample, strict=True):
        h = [sequence_log_prob(theta[x], int(y)) - log_ref[x, y] for y in (a, b)]
        if loss == "ipo":
            total += (h[0] - h[1] - 1 / (2 * beta)) ** 2
        else:
            right, wrong = (1 / (1 + math.exp(-sign * beta * (h[0] - h[1]))) for sign in (1, -1))
            total += -(1 - smoothing) * math.log(right) - smoothing * math.log(wrong)
    found = dpo_losses(log_pi[None], log_ref, sample, beta=beta, loss=loss, smoothing=smoothing)
    assert found[0] == pytest.approx(total / sample.context.size, rel=1e-12)


@pytest.mark.parametrize(("loss", "smoothing"), LOSSES)
@pytest.mark.parametrize("flat", [True, False])
def test_the_gradient_is_that_of_the_loss(loss, smoothing, flat):
    model, theta, log_ref = policies(1)
    if flat:
        model, theta = Softmax(Y), np.random.default_rng(2).normal(size=(X, Y))
    sample, beta, step = data(30, 3), 0.7, 1e-5

    def value(t):
        logs = np.stack([model.log_pi(row) for row in t])
        return dpo_losses(logs[None], log_ref, sample, beta=beta, loss=loss, smoothing=smoothing)[0]

    found = dpo_gradient(model, theta, log_ref, sample, beta=beta, loss=loss, smoothing=smoothing)
    numeric = np.empty_like(theta)
    for i in np.ndindex(theta.shape):
        bump = np.zeros_like(theta)
        bump[i] = step
        numeric[i] = (value(theta + bump) - value(theta - bump)) / (2 * step)
    assert np.abs(found - numeric).max() < 1e-8 * max(1.0, np.abs(numeric).max())
    assert np.abs(found).max() > 1e-3


def test_a_gradient_step_lowers_the_loss_until_label_smoothing_holds():
    """Smoothed, the optimum has sigma(d) = 1 - s; unsmoothed, d grows without bound."""
    model, log_ref = Softmax(2), np.log([[0.5, 0.5]])
    sample = pairs([[0, 0]], [[0, 1]])
    theta = np.zeros((1, 2))
    for _ in range(400):
        theta = theta - 5.0 * dpo_gradient(model, theta, log_ref, sample, beta=1.0, smoothing=0.1)
    assert theta[0, 0] - theta[0, 1] == pytest.approx(math.log(9.0), rel=1e-6)
    theta = np.zeros((1, 2))
    for _ in range(300):
        theta = theta - 0.1 * dpo_gradient(model, theta, log_ref, sample, beta=0.5, loss="ipo")
    assert theta[0, 0] - theta[0, 1] == pytest.approx(1.0, rel=1e-6)  # 1 / (2 beta)


def test_extreme_differences_neither_overflow_nor_vanish():
    log_ref = np.log([[0.5, 0.5]])
    sample = pairs([[0, 0]], [[0, 1]])
    for d in (-1e4, -800.0, 800.0, 1e4):
        log_pi = np.array([[[0.0, -d]]]) if d > 0 else np.array([[[d, 0.0]]])
        found = dpo_losses(log_pi, log_ref, sample, beta=1.0)[0]
        assert found == (-d if d < 0 else 0.0)
        theta = np.array([[d, 0.0]])
        gradient = dpo_gradient(Softmax(2), theta, log_ref, sample, beta=1.0)
        assert np.isfinite(gradient).all()
        assert gradient[0, 0] == pytest.approx(-1.0 if d < 0 else 0.0, abs=1e-300)
    never = np.array([[[-np.inf, 0.0]]])
    assert dpo_losses(never, log_ref, sample, beta=1.0)[0] == np.inf


def test_the_fit_is_the_best_of_the_class_by_plain_python():
    rng = np.random.default_rng(4)
    for trial in range(10):
        ref, rho = rng.dirichlet(np.ones(4), size=2), rng.random((9, 2, 4))
        cls, beta = FiniteClass.from_rewards(rho, np.log(ref)), 0.2
        context = rng.integers(2, size=15)
        y = rng.integers(4, size=(2, 15))
        sample = pairs(np.stack([context, y[0]], 1), np.stack([context, y[1]], 1))
        for loss, smoothing in LOSSES:
            totals = []
            for k in range(9):
                d = [rho[k][x][a] - rho[k][x][b] for x, a, b in zip(*sample, strict=True)]
                totals.append(sum(plain.loss(v, beta, smoothing, loss) for v in d) / 15)
            found = fit_dpo(cls, sample, beta=beta, loss=loss, smoothing=smoothing)
            assert np.allclose(found.losses, totals, rtol=1e-12)
            assert found.index == int(np.argmin(totals)), trial
            assert np.array_equal(found.log_pi, cls.log_pi(beta)[found.index])


def test_a_fit_that_nothing_decides_is_nearest_the_reference():
    rho = np.array([[[1.0, 0.0]], [[0.1, 0.0]], [[0.0, 0.6]]])
    cls = FiniteClass.from_rewards(rho, np.log([[0.3, 0.7]]))
    assert fit_dpo(cls, pairs([[0, 1]], [[0, 1]]), beta=0.5).index == 1


def test_pairs_of_sampled_episodes():
    """Episodes of a token MDP become (context, response) pairs: labels, tokens and prompts in their places."""
    mdp = TokenMDP(np.random.default_rng(0).random((3, 8)), vocabulary=2, length=3)
    pi = families.random_policy(H=3, S=mdp.S, A=2, rng=1)
    prefs = sample_preferences(mdp, pi, mdp.uniform_policy(), 200, 5)
    found = pairs_of(mdp, prefs)
    for i in range(200):
        one, two = (int("".join(str(a) for a in t.actions[i]), 2) for t in (prefs.first, prefs.second))
        better, worse = (one, two) if prefs.label[i] else (two, one)
        assert (found.context[i], found.better[i], found.worse[i]) == (prefs.first.states[i, 0], better, worse)
    gain = mdp.r[found.context, found.better] - mdp.r[found.context, found.worse]
    assert gain.mean() > 0.0
    other = TokenMDP(np.zeros((3, 4)), vocabulary=2, length=2)
    with pytest.raises(ValueError, match=r"^pairs_of: preferences must be of H, S, A"):
        pairs_of(other, prefs)
    with pytest.raises(ValueError, match=r"^pairs_of: preferences must be Preferences"):
        pairs_of(mdp, found)


LOG_PI, LOG_REF = np.log(np.full((1, 2, 2), 0.5)), np.log(np.full((2, 2), 0.5))
GOOD = pairs([[0, 1], [1, 0]], [[0, 0], [1, 1]])
BAD = {
    "two contexts": (lambda: pairs([[0, 1], [1, 0]], [[0, 0], [0, 1]]),
                     "worse must answer the context of better: a preference is between responses to one context"),
    "negative": (lambda: pairs([[0, -1]], [[0, 0]]), "better must have entries in"),
    "fractions": (lambda: pairs([[0, 0.5]], [[0, 0]]), "better must hold integers"),
    "lengths": (lambda: pairs([[0, 1], [0, 1]], [[0, 0]]), "worse must have shape [n, 2] = (2, 2)"),
    "no pairs": (lambda: dpo_losses(LOG_PI, LOG_REF, [(0, 1, 0)], beta=1.0), "data must be Pairs"),
    "outside": (lambda: dpo_losses(LOG_PI, LOG_REF, pairs([[2, 0]], [[2, 1]]), beta=1.0), "data must answer 2 contexts with 2"),
    "unknown response": (lambda: dpo_losses(LOG_PI, LOG_REF, pairs([[0, 2]], [[0, 1]]), beta=1.0), "data must answer"),
    "reference never writes it": (
        lambda: dpo_losses(LOG_PI, np.array([[0.0, -np.inf], LOG_REF[0]]), GOOD, beta=1.0),
        "data.better must be written by pi_ref; got response 1 to context 0 in pair 0",
    ),
    "beta": (lambda: dpo_losses(LOG_PI, LOG_REF, GOOD, beta=0.0), "beta must be a number in [1e-08, 1e+08]"),
    "loss": (lambda: dpo_losses(LOG_PI, LOG_REF, GOOD, beta=1.0, loss="ip"), "loss must be one of the known names"),
    "smoothing": (lambda: dpo_losses(LOG_PI, LOG_REF, GOOD, beta=1.0, smoothing=0.7), "smoothing must be a number in [0, 0.5]"),
    "smoothed ipo": (lambda: dpo_losses(LOG_PI, LOG_REF, GOOD, beta=1.0, smoothing=0.1, loss="ipo"), "smoothing must be 0"),
    "shape": (lambda: dpo_losses(LOG_PI[0], LOG_REF, GOOD, beta=1.0), "log_pi must have shape [n, X, Y]"),
    "positive": (lambda: dpo_losses(-LOG_PI, LOG_REF, GOOD, beta=1.0), "exp(log_pi) must have rows that sum to one within"),
    "policy": (lambda: dpo_gradient("softmax", np.zeros((2, 2)), LOG_REF, GOOD, beta=1.0), "policy must be a Softmax"),
    "policy size": (lambda: dpo_gradient(Softmax(3), np.zeros((2, 3)), LOG_REF, GOOD, beta=1.0), "policy must write 2"),
    "theta": (lambda: dpo_gradient(Softmax(2), np.zeros(2), LOG_REF, GOOD, beta=1.0), "theta must have shape [X, n] = (2, 2)"),
    "class": (lambda: fit_dpo(LOG_PI, GOOD, beta=1.0), "policies must be a FiniteClass"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=r"\A[\w.]+: .+ must .+; got .+") as error:
        call()
    assert re.search(re.escape(message), str(error.value)), str(error.value)


def test_pairs_cannot_be_written():
    assert isinstance(GOOD, Pairs)
    with pytest.raises(ValueError, match="read-only"):
        GOOD.better[0] = 0
