"""Error rates and power of judge, on synthetic records of known truth, at the smallest n a claim may use.

A rate is tested against the binomial quantile of its replications: 99.9% up for errors, 0.1% down for power. Where a
test looks for an error there is a negative control beside it: the same records, a little further on, decided.
"""

from __future__ import annotations

import numpy as np
import pytest

from mdpsim.claims.claim import product
from mdpsim.claims.rules import MIN_MEAN_TRIALS, MIN_RATE_TRIALS, Identity, Inequality, Mean, Rate
from mdpsim.rng import generator
from mdpsim.verdict.judge import judge
from verdict_samples import LAWS, fewest, judge_values, line_values, make_claim, most, records_of, tally

REPLICATIONS = 400
LEVEL = 0.01
AXIS = (10, 100, 1000)
LINE = product(n=AXIS)


def mean_verdicts(law, mean, rule, *, trials=MIN_MEAN_TRIALS, points=1, scale=1.0):
    """Judge REPLICATIONS samples of a law scaled to the mean at every point."""
    claim = make_claim(rule, grid=product(k=tuple(range(points))), trials=trials)
    draws = mean * scale * LAWS[law](generator(11), (REPLICATIONS, points, trials))
    return tally(judge_values(claim, *sample) for sample in draws)


def rate_verdicts(law, slope, rule, *, trials=MIN_RATE_TRIALS, seed=12):
    """Judge REPLICATIONS samples of a line of that slope."""
    claim = make_claim(rule, grid=LINE, trials=trials)
    draws = line_values(law, slope, AXIS, trials, seed, replications=REPLICATIONS)
    return tally(judge_values(claim, *sample) for sample in draws)


# ---------------------------------------------------------------- Mean


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("trials", [MIN_MEAN_TRIALS, 200])
def test_mean_at_the_margin_is_neither_supported_nor_refuted(law, trials):
    # On the boundary 1 + margin both errors are at their worst.
    got = mean_verdicts(law, 1.05, Mean(bound=1.0), trials=trials)
    assert got["supported"] <= most(REPLICATIONS, LEVEL)
    assert got["refuted"] <= most(REPLICATIONS, LEVEL)


@pytest.mark.parametrize("law", LAWS)
def test_mean_equal_to_its_bound_is_not_refuted(law):
    assert mean_verdicts(law, 1.0, Mean(bound=1.0))["refuted"] <= most(REPLICATIONS, LEVEL)


@pytest.mark.parametrize("law", LAWS)
def test_mean_bonferroni_holds_over_points(law):
    # 100 trials: ten samples of 50 miss a value of weight 0.1 in 5% of replications, and equal trials are a point.
    got = mean_verdicts(law, 1.05, Mean(bound=1.0), points=10, trials=100)
    assert got["refuted"] <= most(REPLICATIONS, LEVEL)
    assert got["supported"] == 0


@pytest.mark.parametrize(
    ("law", "mean", "trials"),
    [("normal", 0.85, 50), ("nearly-constant", 1.0, 50), ("rare-small", 0.85, 50), ("exponential", 0.3, 50),
     ("exponential", 0.6, 200), ("lognormal-half", 0.5, 50), ("lognormal-half", 0.8, 200), ("lognormal-one", 0.08, 50),
     ("lognormal-one", 0.45, 200), ("rare-large", 0.09, 50), ("rare-large", 0.5, 200)],
)
def test_mean_with_room_is_supported(law, mean, trials):
    got = mean_verdicts(law, mean, Mean(bound=1.0), trials=trials)
    assert got["supported"] >= fewest(REPLICATIONS, 0.95)


@pytest.mark.parametrize(
    ("law", "mean"),
    [("normal", 1.25), ("nearly-constant", 1.06), ("exponential", 2.0), ("lognormal-half", 1.5),
     ("lognormal-one", 2.5)],
)
def test_mean_above_its_bound_is_refuted(law, mean):
    got = mean_verdicts(law, mean, Mean(bound=1.0))
    assert got["refuted"] >= fewest(REPLICATIONS, 0.95)
    assert got["supported"] == 0


def test_mean_of_ratios_to_each_trials_own_bound():
    # The bound is a column that varies a hundredfold: the ratio is what is judged.
    rng, claim = generator(13), make_claim(Mean(bound="own"))
    own = rng.lognormal(0.0, 1.5, MIN_MEAN_TRIALS)
    x = own * rng.normal(0.8, 0.1, MIN_MEAN_TRIALS)
    verdict = judge(claim, records_of({claim.grid["quick"][0]: {"value": x, "own": own}}))
    assert verdict.status == "supported"
    assert verdict.bound == pytest.approx(own.mean())
    assert verdict.estimate == pytest.approx(np.mean(x / own) * own.mean())
    assert verdict.slack == pytest.approx(1.0 / np.mean(x / own))


# ---------------------------------------------------------------- Rate


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("slope", [-0.8, -1.2])
def test_slope_outside_its_margin_is_never_supported(law, slope):
    # True slope 0.2 away from the claimed one, margin 0.1: "not rejected" is not "supported".
    got = rate_verdicts(law, slope, Rate("n", slope=-1.0, margin=0.1))
    assert got["supported"] <= most(REPLICATIONS, LEVEL)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("side", "trials"), [("two_sided", MIN_RATE_TRIALS), ("at_most", MIN_RATE_TRIALS), ("two_sided", 100)]
)
def test_slope_at_its_margin_is_neither_supported_nor_refuted(law, side, trials):
    rule = Rate("n", slope=-1.0, margin=0.1, side=side)
    # A hair outside and a hair inside: on the margin itself, samples without spread are met exactly, and rightly so.
    assert rate_verdicts(law, -0.9 + 1e-9, rule, trials=trials, seed=15)["supported"] <= most(REPLICATIONS, LEVEL)
    assert rate_verdicts(law, -0.9 - 1e-9, rule, trials=trials, seed=15)["refuted"] <= most(REPLICATIONS, LEVEL)


@pytest.mark.parametrize("side", ["two_sided", "at_most"])
@pytest.mark.parametrize(
    ("law", "trials"),
    [("normal", 40), ("nearly-constant", 20), ("rare-small", 60), ("lognormal-half", 100), ("exponential", 300),
     ("lognormal-one", 600), ("rare-large", 3000)],
)
def test_claimed_slope_is_supported(law, side, trials):
    replications = REPLICATIONS if trials <= 300 else 100
    claim = make_claim(Rate("n", slope=-1.0, margin=0.1, side=side), grid=LINE, trials=trials)
    draws = (line_values(law, -1.0, AXIS, trials, 1000 + i) for i in range(replications))
    assert tally(judge_values(claim, *x) for x in draws)["supported"] >= fewest(replications, 0.95)


@pytest.mark.parametrize("side", ["two_sided", "at_most"])
@pytest.mark.parametrize(
    ("law", "slope"), [("normal", -0.7), ("lognormal-half", -0.2), ("exponential", 0.2), ("nearly-constant", -0.89)]
)
def test_wrong_slope_is_refuted(law, slope, side):
    got = rate_verdicts(law, slope, Rate("n", slope=-1.0, margin=0.1, side=side))
    assert got["refuted"] >= fewest(REPLICATIONS, 0.95)


def test_faster_decay_supports_an_upper_bound_and_refutes_an_exact_rate():
    fast = {side: rate_verdicts("normal", -1.5, Rate("n", slope=-1.0, side=side)) for side in ("at_most", "two_sided")}
    assert fast["at_most"]["supported"] == REPLICATIONS
    assert fast["two_sided"]["refuted"] == REPLICATIONS


def log_bound(at):
    """A formula with a logarithm: its slope on the grid is not -1."""
    return np.log(2.0 * at["n"]) / at["n"]


@pytest.mark.parametrize("law", ["normal", "lognormal-half", "exponential"])
def test_slope_against_a_formula_has_its_logarithm(law):
    trials = 300
    claim = make_claim(Rate("n", bound=log_bound, margin=0.1), grid=LINE, trials=trials)
    factor = np.array([[log_bound(p)] for p in LINE])
    rng, good, bad = generator(16), [], []
    for _ in range(REPLICATIONS):
        noise = LAWS[law](rng, (3, trials))
        good.append(judge_values(claim, *(0.1 * factor * noise)))
        bad.append(judge_values(claim, *(noise / np.array(AXIS)[:, None] ** 1.5)))
    assert tally(good)["supported"] >= fewest(REPLICATIONS, 0.95)
    assert tally(bad)["refuted"] >= fewest(REPLICATIONS, 0.95)
    assert good[0].bound == pytest.approx(np.polyfit(np.log(AXIS), np.log(factor[:, 0]), 1)[0])
    assert good[0].slack == pytest.approx(10.0, rel=0.5)


def test_rates_over_lines_keep_the_level():
    # Five lines at the margin: some line is falsely refuted in at most 1% of replications.
    grid = product(family=tuple("abcde"), n=AXIS)
    claim = make_claim(Rate("n", slope=-1.0, margin=0.1), grid=grid, trials=MIN_RATE_TRIALS)
    rng, verdicts = generator(17), []
    for _ in range(REPLICATIONS):
        x = LAWS["lognormal-half"](rng, (5, 3, MIN_RATE_TRIALS)) * (np.array(AXIS, float) ** -0.9)[:, None]
        verdicts.append(judge_values(claim, *x.reshape(15, -1)))
    got = tally(verdicts)
    assert got["refuted"] <= most(REPLICATIONS, LEVEL)
    assert got["supported"] == 0


@pytest.mark.parametrize("law", LAWS)
def test_p_values_of_true_claims_are_not_too_small(law):
    # Uniform or larger: at most 10% below 0.1, for a mean on its margin and a slope on its margin.
    mean = make_claim(Mean(bound=1.0, margin=0.0))
    rate = make_claim(Rate("n", slope=-1.0, margin=0.0, side="at_most"), grid=LINE, trials=MIN_RATE_TRIALS)
    lines = line_values(law, -1.0, AXIS, MIN_RATE_TRIALS, 18, replications=REPLICATIONS)
    small = [judge_values(rate, *x).p_value <= 0.1 for x in lines]
    assert sum(small) <= most(REPLICATIONS, 0.1)
    draws = LAWS[law](generator(19), (REPLICATIONS, MIN_MEAN_TRIALS))
    small = [judge_values(mean, x).p_value <= 0.1 for x in draws]
    assert sum(small) <= most(REPLICATIONS, 0.1)


# ---------------------------------------------------------------- deterministic rules


@pytest.mark.parametrize(("rule", "column"), [(Identity(tol=1.0), "gap"), (Inequality(bound=1.0), "value")])
@pytest.mark.parametrize(("largest", "status"), [(1.0, "supported"), (1.0 + 1e-9, "refuted")])
def test_deterministic_rules_have_no_errors(rule, column, largest, status):
    claim = make_claim(rule, trials=30)
    for x in generator(20).random((50, 30)):
        scaled = largest * x / x.max()
        columns = {claim.grid["quick"][0]: {"value": scaled, column: scaled}}
        assert judge(claim, records_of(columns)).status == status
