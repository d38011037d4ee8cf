"""Posteriors, moment fits, samplers and projections: against 50-digit sums, numerical optimisers and exact laws."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
from scipy import optimize, stats

from mdpsim.solve.projection import project_markov, project_softmax
from mdpsim.solve.sequence import condition, elbo, fit_moments, importance_sample, kl, rejection_sample, tilt

ALPHA = 1e-4  # false-alarm level of each statistical test here
SEED = 20221100


def instance(k=12, zeros=0, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k))
    p[:zeros] = 0.0
    return p / p.sum(), rng.normal(size=k)


@pytest.mark.parametrize("beta", [1e-8, 1e-3, 0.5, 1.0, 1e4, 1e8, np.inf])
@pytest.mark.parametrize("forbidden", [(), (3, 7)])
def test_tilt_against_fifty_digits(beta, forbidden):
    """pi, log_pi, log Z and the value, with prior zeros and forbidden responses."""
    prior, r = instance(zeros=2)
    r[list(forbidden)] = -np.inf
    if beta == np.inf:
        if forbidden:
            with pytest.raises(ValueError, match="tilt: beta must be finite"):
                tilt(prior, r, beta)
            return
        found = tilt(prior, r, beta)
        assert found.value == pytest.approx(prior @ r, abs=1e-15)
        assert np.abs(found.pi - prior).max() < 1e-15
        return
    found = tilt(prior, r, beta)
    with mpmath.workdps(50):
        mass = [mpmath.mpf(float(p)) for p in prior]
        total = mpmath.fsum(mass)
        terms = [m / total * (mpmath.exp(mpmath.mpf(float(x)) / mpmath.mpf(beta)) if np.isfinite(x) else 0)
                 for m, x in zip(mass, r, strict=True)]
        Z = mpmath.fsum(terms)
        value, log_z = mpmath.mpf(beta) * mpmath.log(Z), mpmath.log(Z)
        scale = float(np.abs(r[np.isfinite(r)]).max()) + (beta * 4 if forbidden else 0.0)
        assert abs(found.value - value) <= 1e-13 * scale
        assert abs(found.log_Z - log_z) <= 1e-13 * (1 + scale / beta)
        for k, term in enumerate(terms):
            assert abs(found.pi[k] - term / Z) <= 1e-7 if beta < 1e-6 else 1e-12
            if term > 0:
                assert abs(found.log_pi[k] - mpmath.log(term / Z)) <= 1e-14 * (20 + 10 * scale / beta)
            else:
                assert found.pi[k] == 0.0
                assert found.log_pi[k] == -np.inf


def test_tilt_maximises_the_elbo():
    """No other policy is better, and the gap is beta KL(pi || pi*)."""
    prior, r = instance(zeros=1)
    best = tilt(prior, r, 0.3)
    assert elbo(best.pi, prior, r, 0.3) == pytest.approx(best.value, abs=1e-14)
    for pi in np.random.default_rng(1).dirichlet(np.ones(11), 50):
        pi = np.append(0.0, pi)
        assert elbo(pi, prior, r, 0.3) == pytest.approx(best.value - 0.3 * kl(pi, best.pi), abs=1e-12)
    assert elbo(np.full(12, 1 / 12), prior, r, 0.3) == -np.inf  # mass where the prior has none
    r[5] = -np.inf
    assert elbo(best.pi, prior, r, 0.3) == -np.inf


def test_condition_is_the_limit_of_tilting_and_costs_minus_log_z():
    prior, _ = instance(zeros=2)
    b = np.arange(12) % 3 == 0
    found = condition(prior, b)
    assert found.pi == pytest.approx(tilt(prior, np.where(b, 0.0, -np.inf), 1.0).pi, abs=1e-16)
    assert kl(found.pi, prior) == pytest.approx(-found.log_Z, abs=1e-14)
    soft = tilt(prior, b.astype(float), 0.2).pi  # the gap that the theory states in closed form
    Z = np.exp(found.log_Z)
    assert 0.5 * np.abs(soft - found.pi).sum() == pytest.approx((1 - Z) / (1 - Z + Z * np.exp(5.0)), abs=1e-15)


def test_moments_are_met_by_the_closest_law():
    """Against SLSQP on the primal, which knows no exponential family; redundant and constant features included."""
    prior, _ = instance(zeros=2)
    rng = np.random.default_rng(3)
    f = rng.normal(size=(12, 2))
    features = np.column_stack([f, f @ [1.0, -2.0], np.ones(12)])
    goal = rng.dirichlet(np.append([0.0, 0.0], np.ones(10)) + 1e-9) @ features
    fit = fit_moments(prior, features, goal)
    on = prior > 0
    assert fit.residual <= 1e-9
    assert not fit.pi[~on].any()
    assert np.log(fit.pi[on]) == pytest.approx(np.log(prior[on]) + features[on] @ fit.theta - fit.log_Z, abs=1e-10)
    primal = optimize.minimize(
        lambda p: float((p * np.log(p / prior[on])).sum()), np.full(on.sum(), 1 / on.sum()), method="SLSQP",
        bounds=[(1e-9, 1)] * int(on.sum()), options={"ftol": 1e-14, "maxiter": 1000},
        constraints={"type": "eq", "fun": lambda p: np.append(p @ f[on] - goal[:2], p.sum() - 1)},
    )
    assert fit.pi[on] == pytest.approx(primal.x, abs=1e-5)
    assert kl(fit.pi, prior) <= primal.fun + 1e-9


def test_infeasible_moments_say_so():
    prior, f = np.full(4, 0.25), np.array([[0.0], [1.0], [2.0], [3.0]])
    for moment, message in ((3.5, "outside the convex hull"), (-1.0, "outside the convex hull")):
        with pytest.raises(ValueError, match=message):
            fit_moments(prior, f, [moment])
    with pytest.raises(ValueError, match="outside the convex hull"):
        fit_moments([0.5, 0.5, 0.0, 0.0], f, [1.5])  # only with mass where the prior has none
    with pytest.raises(ValueError, match="on its boundary"):
        fit_moments(prior, f, [3.0], tol=1e-14)


def test_rejection_has_the_law_and_geometric_draws():
    prior, r = instance(k=6)
    accept = np.exp((r - r.max()) / 0.7)
    n, Z = 20_000, float(prior @ accept)
    found = rejection_sample(prior, accept, n, SEED)
    expected = tilt(prior, r, 0.7).pi * n
    assert stats.chisquare(np.bincount(found.samples, minlength=6), expected).pvalue > ALPHA
    cells = np.bincount(np.minimum(found.draws, 6), minlength=7)[1:]
    law, false = (n * np.append(z * (1 - z) ** np.arange(5), (1 - z) ** 5) for z in (Z, np.sqrt(Z)))
    assert stats.chisquare(cells, law).pvalue > ALPHA
    assert stats.chisquare(cells, false).pvalue < ALPHA
    assert stats.chisquare(np.bincount(found.samples, minlength=6), n * prior).pvalue < ALPHA  # the twin: the prior itself


def test_importance_weights_estimate_means_and_evidence():
    prior, r = instance(k=8, seed=2)
    r[2] = -np.inf
    target, n = tilt(prior, r, 0.5), 200_000
    found = importance_sample(prior, r, 0.5, n, SEED)
    f = np.arange(8.0)
    mean, expected = found.weights @ f[found.samples], target.pi @ f
    error = np.sqrt((found.weights**2) @ (f[found.samples] - mean) ** 2)
    z = stats.norm.isf(ALPHA / 2)
    assert abs(mean - expected) < z * error
    assert abs(prior @ f - expected) > z * error  # unweighted means are rejected
    with np.errstate(over="ignore"):
        relative = np.sqrt(float(prior @ np.exp(2 * np.where(np.isfinite(r), r, -np.inf) / 0.5)) / np.exp(2 * target.log_Z) - 1)
    assert abs(np.expm1(found.log_Z - target.log_Z)) < z * relative / np.sqrt(n)
    assert found.ess == pytest.approx(n / (1 + relative**2), rel=0.05)


TWO_BITS = np.array([[0.45, 0.05], [0.05, 0.45]])


def test_two_bits_exactly():
    """The worked example: forward keeps both modes, reverse picks one; below the threshold it does not."""
    forward, reverse = project_markov(TWO_BITS, "forward"), project_markov(TWO_BITS, "reverse")
    assert forward.pi == pytest.approx(np.full((2, 2), 0.25), abs=1e-15)
    marginals = reverse.pi.sum(axis=1)
    assert np.sort(marginals) == pytest.approx([0.25, 0.75], abs=1e-10)
    p = [mpmath.mpf(x) for x in ("0.45", "0.05", "0.05", "0.45")]
    with mpmath.workdps(30):
        assert abs(forward.kl - mpmath.fsum(x * mpmath.log(4 * x) for x in p)) < 1e-14
        q = [mpmath.mpf(9) / 16, mpmath.mpf(3) / 16, mpmath.mpf(3) / 16, mpmath.mpf(1) / 16]
        assert abs(reverse.kl - mpmath.fsum(x * mpmath.log(x / y) for x, y in zip(q, p, strict=True))) < 1e-14
    kappa = np.exp(1.9)
    below = project_markov(np.array([[kappa, 1.0], [1.0, kappa]]) / (2 * kappa + 2), "reverse")
    assert below.pi == pytest.approx(np.full((2, 2), 0.25), abs=1e-6)
    assert reverse.found[-2] - reverse.found[0] < 1e-12  # two minima of equal depth, and the forward start, a saddle
    assert reverse.found[-1] == pytest.approx(0.510826, abs=1e-6)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_markov_projections_beat_a_numerical_optimiser(order, direction):
    """BFGS over the logits of every table finds nothing better; the last order holds the law itself."""
    rng = np.random.default_rng(5)
    law = rng.dirichlet(np.full(8, 0.5)).reshape(2, 2, 2) + 1e-3
    law /= law.sum()
    found = project_markov(law, direction, order=order, restarts=20)
    shapes = [(2,) * min(t, order) for t in range(3)]
    sizes = [int(np.prod(s, dtype=int)) for s in shapes]

    def member(x):
        parts, q = np.split(1 / (1 + np.exp(-x)), np.cumsum(sizes)[:-1]), np.ones((2, 2, 2))
        for t, (part, shape) in enumerate(zip(parts, shapes, strict=True)):
            table = np.stack([part.reshape(shape), 1 - part.reshape(shape)], axis=-1)
            q = q * table.reshape((1,) * (t - len(shape)) + table.shape + (1,) * (2 - t))
        return q.reshape(-1)

    def loss(x):
        q, p = np.maximum(member(x), 1e-300), law.reshape(-1)
        return float((p * np.log(p / q)).sum() if direction == "forward" else (q * np.log(q / p)).sum())

    best = min(optimize.minimize(loss, rng.normal(size=sum(sizes)), method="BFGS").fun for _ in range(20))
    assert found.kl <= best + 1e-9
    assert found.kl >= best - 1e-7
    assert found.residual <= 1e-12
    if order == 2:
        assert found.pi == pytest.approx(law, abs=1e-10)


def test_softmax_projections():
    """Forward meets the moments; reverse is stationary and no worse than any start; both return a member unchanged."""
    rng = np.random.default_rng(7)
    f, law = rng.normal(size=(10, 3)), rng.dirichlet(np.ones(10))
    forward, reverse = (project_softmax(law, f, d) for d in ("forward", "reverse"))
    assert forward.pi @ f == pytest.approx(law @ f, abs=1e-8)
    assert reverse.residual < 1e-6
    assert kl(reverse.pi, law) < kl(forward.pi, law)
    assert kl(law, forward.pi) < kl(law, reverse.pi)
    for direction in ("forward", "reverse"):
        assert project_softmax(forward.pi, f, direction).pi == pytest.approx(forward.pi, abs=1e-6)


BAD = [
    (lambda: tilt([0.5, 0.5], [0.0, np.nan], 1.0), "tilt: r must be finite, or -inf"),
    (lambda: tilt([0.5, 0.5], [0.0, np.inf], 1.0), "tilt: r must be finite, or -inf"),
    (lambda: tilt([0.5, 0.5], [0.0], 1.0), r"tilt: r must be \[K\]"),
    (lambda: tilt([0.5, 0.5], [0.0, 1.0], 0.0), "tilt: beta must be a number in"),
    (lambda: tilt([0.5, 0.5], [0.0, 1.0], -1.0), "tilt: beta must be a number in"),
    (lambda: tilt([0.5, 0.6], [0.0, 1.0], 1.0), "tilt: pi0 must have rows"),
    (lambda: tilt([1.0, 0.0], [-np.inf, 1.0], 1.0), r"Z = 0"),
    (lambda: condition([1.0, 0.0], [0, 1]), r"condition: b must hold .*Z = 0"),
    (lambda: condition([0.5, 0.5], [0.5, 1.0]), "condition: b must be"),
    (lambda: elbo([0.5, 0.5], [0.5, 0.5], [0.0, 1.0], np.inf), "elbo: beta must be"),
    (lambda: kl([0.5, 0.5], [1.0]), "kl: q must have shape"),
    (lambda: fit_moments([0.5, 0.5], [[0.0], [1.0]], [0.5, 0.5]), "fit_moments: moments must have shape"),
    (lambda: rejection_sample([0.5, 0.5], [0.0, 1.5], 3, 0), "rejection_sample: accept must lie"),
    (lambda: rejection_sample([0.5, 0.5], [0.0, 0.0], 3, 0), "rejection_sample: accept must accept often enough"),
    (lambda: importance_sample([1.0, 0.0], [-np.inf, 0.0], 1.0, 3, 0), "importance_sample: r must allow"),
    (lambda: project_markov(np.full((2, 3), 1 / 6), "forward"), "project_markov: p must have L axes"),
    (lambda: project_markov(TWO_BITS, "sideways"), "project_markov: direction must be"),
    (lambda: project_markov(TWO_BITS, "forward", order=2), "project_markov: order must be"),
    (lambda: project_markov(np.diag([0.5, 0.5]), "reverse"), "project_markov: p must be positive"),
    (lambda: project_softmax([0.5, 0.5], [[0.0], [1.0]], "up"), "project_softmax: direction must be"),
    (lambda: project_softmax([1.0, 0.0], [[0.0], [1.0]], "reverse"), "project_softmax: p must be positive"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_prior_zeros_stay_zero_in_every_sampler():
    prior = np.array([0.0, 0.3, 0.0, 0.7, 0.0])
    accepted, weighted = rejection_sample(prior, np.ones(5), 5000, 0), importance_sample(prior, np.zeros(5), 1.0, 5000, 0)
    assert set(accepted.samples.tolist()) == set(weighted.samples.tolist()) == {1, 3}


def test_brute_force_enumeration_of_a_three_token_law():
    """Forward projection of order 1 by explicit sums over the 27 sequences."""
    law = np.random.default_rng(0).dirichlet(np.ones(27)).reshape(3, 3, 3)
    found = project_markov(law, "forward", order=1).pi
    for x in itertools.product(range(3), repeat=3):
        first, second = law.sum(axis=(1, 2)), law.sum(axis=2)
        late = law.sum(axis=0)
        expected = first[x[0]] * second[x[0], x[1]] / second[x[0]].sum() * late[x[1], x[2]] / late[x[1]].sum()
        assert found[x] == pytest.approx(expected, abs=1e-15)


def test_extremes_leave_no_nan():
    """Weights and rewards at the ends of float64: a limit, or an error that names the argument; never a NaN."""
    cold = tilt([0.3, 0.7, 0.0], [1.0, -1.0, 5.0], 5e-324)
    assert cold.pi.tolist() == [1.0, 0.0, 0.0]
    assert cold.value == 1.0
    assert cold.log_pi.tolist()[1:] == [-np.inf, -np.inf]
    assert tilt([0.5, 0.5], [1e308, -1e308], 1.0).pi.tolist() == [1.0, 0.0]
    weighted = importance_sample(np.full(4, 0.25), [1e300, -1e308, 0.0, 0.0], 1e-5, 50, 0)
    assert set(weighted.samples[weighted.weights > 0.0].tolist()) == {0}
    assert weighted.ess == pytest.approx((weighted.samples == 0).sum())
    with pytest.raises(ValueError, match="importance_sample: r must be rewards whose largest"):
        importance_sample(np.full(4, 0.25), [1e308, -1e308, 0.0, 0.0], 1e-5, 50, 0)
    unit = project_softmax([0.2, 0.5, 0.3], [[0.0], [1.0], [2.0]], "reverse")
    huge = project_softmax([0.2, 0.5, 0.3], [[0.0], [1e200], [2e200]], "reverse")
    assert huge.pi == pytest.approx(unit.pi, abs=1e-9)


def test_rare_acceptance_is_counted_across_blocks():
    """At Z = 1e-6 a dozen blocks are drawn: 2 Z times the proposals of n draws is about chi-square with 2 n degrees."""
    n, Z = 20, 1e-6
    found = rejection_sample([1.0 - Z, Z], [0.0, 1.0], n, SEED)
    assert found.draws.min() >= 1
    assert stats.chi2.sf(2 * Z * found.draws.sum(), 2 * n) > ALPHA / 2
    assert stats.chi2.cdf(2 * Z * found.draws.sum(), 2 * n) > ALPHA / 2
    assert (found.samples == 1).all()
