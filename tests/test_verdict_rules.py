"""HighProb, Order and Limit: error rates, power and coverage on records of known truth, at the smallest n a claim may use.

Thresholds are binomial quantiles of the replications, as in test_verdict.py; each size test has a power test beside it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, chi2, expon, kstest, lognorm, norm

from mdpsim.claims.claim import Twin, product
from mdpsim.claims.rules import LEVEL, MIN_MEAN_TRIALS, HighProb, Inequality, Limit, Order
from mdpsim.rng import generator
from mdpsim.verdict.high_prob import quantile_interval, share_interval
from mdpsim.verdict.judge import judge
from mdpsim.verdict.limit import dkw_radius
from verdict_samples import LAWS, fewest, judge_values, make_claim, most, records_of, tally

REPLICATIONS = 400
N = MIN_MEAN_TRIALS
INF, NAN = math.inf, math.nan
QUANTILES = {"normal": norm(1.0, 0.25), "exponential": expon(), "lognormal-one": lognorm(1.0, scale=math.exp(-0.5))}
DOOMED = (Twin("t", "false", "far", rule=Inequality(bound=-1e9, of="value")),)


def claim_of(rule, points=1, trials=N):
    return make_claim(rule, grid=product(k=tuple(range(points))), trials=trials, twins=DOOMED)


def judge_columns(claim, **columns):
    """Judge one point that holds these columns."""
    value = next(iter(columns.values()))
    return judge(claim, records_of({claim.grid["quick"][0]: {"value": np.asarray(value), **columns}}))


# ---------------------------------------------------------------- HighProb


def high_prob_verdicts(law, probability, *, delta=0.1, trials=44, points=1):
    """Judge samples in which the bound is exceeded with this probability."""
    bound = float(QUANTILES[law].isf(probability))
    claim = claim_of(HighProb(bound, delta), points, trials)
    draws = LAWS[law](generator(31), (REPLICATIONS, points, trials))
    return tally(judge_values(claim, *x) for x in draws)


@pytest.mark.parametrize("law", QUANTILES)
@pytest.mark.parametrize(("trials", "points"), [(44, 1), (200, 1), (200, 10)])
def test_probability_equal_to_delta_is_neither_supported_nor_refuted(law, trials, points):
    got = high_prob_verdicts(law, 0.1, trials=trials, points=points)
    assert got["supported"] <= most(REPLICATIONS, LEVEL)
    assert got["refuted"] <= most(REPLICATIONS, LEVEL)


@pytest.mark.parametrize("law", QUANTILES)
def test_probability_away_from_delta_is_decided(law):
    assert high_prob_verdicts(law, 1e-5)["supported"] >= fewest(REPLICATIONS, 0.99)
    assert high_prob_verdicts(law, 0.03, trials=400)["supported"] >= fewest(REPLICATIONS, 0.95)
    assert high_prob_verdicts(law, 0.5)["refuted"] >= fewest(REPLICATIONS, 0.95)


@pytest.mark.parametrize(("delta", "n"), [(0.1, 44), (0.05, 90), (0.01, 459), (0.5, 60), (0.1, 300)])
def test_the_quantile_decides_as_clopper_and_pearson_do(delta, n):
    for k in range(0, n + 1, 1 + n // 100):
        x = np.r_[np.full(n - k, 0.5), np.full(k, 2.0)]
        low, high = (beta.ppf(LEVEL / 3, k, n - k + 1) if k else 0.0), (beta.isf(LEVEL, k + 1, n - k) if k < n else 1.0)
        assert share_interval(k, n, LEVEL / 3) == pytest.approx((low, high), rel=1e-9)
        middle, lower, upper = quantile_interval(x, delta, LEVEL / 3)
        assert (upper <= 1.0, lower > 1.0) == (high <= delta, low > delta), (k, low, high)
        assert lower <= middle <= upper
        assert (middle > 1.0) == (k > n * delta * (1 + 1e-12))


def test_the_fewest_trials_are_the_fewest_that_can_support():
    for delta in (0.5, 0.1, 0.05, 0.01, 0.003):
        n = HighProb(delta=delta).fewest
        for trials, reachable in ((n, True), (n - 1, False)):
            assert math.isfinite(quantile_interval(np.zeros(trials), delta, LEVEL)[2]) is reachable


def test_violations_are_counted_against_each_trials_own_bound():
    own = generator(32).lognormal(0.0, 2.0, 100)
    x = own * 0.5
    x[:2] = INF
    got = judge_columns(claim_of(HighProb("own", 0.2), trials=100), value=x, own=own)
    assert (got.status, got.slack, got.p_value) == ("supported", pytest.approx(2.0), pytest.approx(1.0, abs=1e-6))
    assert got.bound == pytest.approx(own.mean())
    assert "2 of 100 trials exceed the bound" in got.worst.note
    x[7] = NAN
    assert judge_columns(claim_of(HighProb("own", 0.2), trials=100), value=x, own=own).status == "inconclusive"
    tie = judge_columns(claim_of(HighProb(0.1, 0.2)), value=np.full(N, 0.3 - 0.2))
    assert (tie.status, tie.points[0].p_value) == ("supported", 1.0)


# ---------------------------------------------------------------- Order


def order_verdicts(larger, smaller, margin=0.0, points=1):
    claim = claim_of(Order("a", "b", margin), points)
    grid = claim.grid["quick"]
    return tally(
        judge(claim, records_of({p: {"a": a, "b": b, "value": a} for p, a, b in zip(grid, *pair, strict=True)}))
        for pair in zip(larger, smaller, strict=True)
    )


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("swapped", [False, True])
def test_a_difference_at_its_margin_is_neither_supported_nor_refuted(law, swapped):
    noise, one = LAWS[law](generator(33), (REPLICATIONS, 1, N)), np.ones((REPLICATIONS, 1, N))
    pair = (one + 0.5, noise) if swapped else (noise + 0.5, one)
    got = order_verdicts(*pair, margin=0.5)
    assert got["supported"] <= most(REPLICATIONS, LEVEL)
    assert got["refuted"] <= most(REPLICATIONS, LEVEL)


def test_order_bonferroni_holds_over_points():
    noise = LAWS["lognormal-one"](generator(34), (2, REPLICATIONS, 10, N))
    got = order_verdicts(*noise, points=10)
    assert got["refuted"] <= most(REPLICATIONS, LEVEL)
    assert got["supported"] == 0


@pytest.mark.parametrize("law", ["normal", "exponential", "lognormal-half"])
def test_a_clear_order_is_seen_in_both_directions_and_pairing_counts(law):
    rng = generator(35)
    shared = 1e4 * rng.standard_normal((REPLICATIONS, 1, N))  # without pairing nothing would be seen
    high = shared + 3.0 + LAWS[law](rng, shared.shape)
    low = shared + LAWS[law](rng, shared.shape)
    assert order_verdicts(high, low)["supported"] >= fewest(REPLICATIONS, 0.99)
    assert order_verdicts(low, high)["refuted"] >= fewest(REPLICATIONS, 0.99)
    assert order_verdicts(high, low, margin=6.0)["refuted"] >= fewest(REPLICATIONS, 0.99)


@pytest.mark.parametrize(
    ("a", "b", "status", "p_value"),
    [(1.0, 1.0, "refuted", 0.0), (0.3, 0.1 + 0.2, "refuted", 0.0), (0.1 + 0.2, 0.3, "refuted", 0.0),
     (0.0, 0.0, "refuted", 0.0), (2.0, 1.0, "supported", 1.0), (INF, 1.0, "supported", 1.0), (1.0, INF, "refuted", 0.0),
     (INF, INF, "inconclusive", 1.0), (NAN, 1.0, "inconclusive", 1.0)],
)
def test_ties_and_odd_numbers_in_an_order(a, b, status, p_value):
    got = judge_columns(claim_of(Order("a", "b")), value=np.zeros(N), a=np.full(N, a), b=np.full(N, b))
    assert (got.points[0].status, got.points[0].p_value) == (status, p_value)


def test_an_order_carried_by_one_trial_is_open():
    a, b = np.r_[np.full(N - 1, 2.0), -3.0], np.ones(N)
    assert judge_columns(claim_of(Order("a", "b")), a=a, b=b).status == "inconclusive"


# ---------------------------------------------------------------- Limit


def limit_verdicts(law, rule, points=1):
    claim = claim_of(rule, points)
    return tally(judge_values(claim, *x) for x in LAWS[law](generator(36), (REPLICATIONS, points, N)))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("side", [-1, 1])
def test_a_mean_at_the_end_of_its_margin_is_neither_supported_nor_refuted(law, side):
    got = limit_verdicts(law, Limit(1.0 + side * 2.0, margin=2.0))
    assert got["supported"] <= most(REPLICATIONS, LEVEL)
    assert got["refuted"] <= most(REPLICATIONS, LEVEL)


@pytest.mark.parametrize(("law", "margin"), [("normal", 0.2), ("nearly-constant", 1e-5), ("exponential", 3.0)])
def test_a_mean_is_placed(law, margin):
    assert limit_verdicts(law, Limit(1.0, margin=margin))["supported"] >= fewest(REPLICATIONS, 0.95)
    assert limit_verdicts(law, Limit(1.0 + 3 * margin, margin=margin))["refuted"] >= fewest(REPLICATIONS, 0.95)
    assert limit_verdicts(law, Limit(1.0 - 3 * margin, margin=margin))["refuted"] >= fewest(REPLICATIONS, 0.95)


def test_limit_bonferroni_and_coverage():
    got = limit_verdicts("lognormal-one", Limit(0.5, margin=0.5), points=10)
    assert (got["supported"], got["refuted"] <= most(REPLICATIONS, LEVEL)) == (0, True)


def stated_margin(point):
    return 0.1 * (1 + point["k"])


def test_the_value_is_each_trials_own_and_the_margin_may_vary_over_points():
    own = generator(37).lognormal(3.0, 2.0, N)
    got = judge_columns(claim_of(Limit("own", margin=stated_margin)), value=own + 0.05, own=own)
    assert (got.status, got.bound) == ("supported", pytest.approx(own.mean()))
    assert got.estimate == pytest.approx(own.mean() + 0.05)
    assert judge_columns(claim_of(Limit("own", margin=stated_margin)), value=own + 0.15, own=own).status == "refuted"


@pytest.mark.parametrize(("odd", "status"), [(INF, "refuted"), (-INF, "refuted"), (NAN, "inconclusive")])
def test_odd_numbers_in_a_limit(odd, status):
    x = np.zeros(N)
    x[3] = odd
    assert judge_values(claim_of(Limit(0.0)), x).points[0].status == status
    x[3] = 1.0  # one trial carries the mean
    assert judge_values(claim_of(Limit(0.0, margin=0.9)), x).points[0].status == "inconclusive"


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("points", [1, 10])
def test_a_law_at_the_margin_is_neither_supported_nor_refuted(points):
    rule = Limit(law=("uniform", 1.0), margin=0.1)  # uniform on [0.1, 1] is at distance 0.1
    draws = generator(38).uniform(0.1, 1.0, (REPLICATIONS, points, rule.fewest))
    verdicts = [judge_values(claim_of(rule, points, rule.fewest), *x) for x in draws]
    assert tally(verdicts)["supported"] <= most(REPLICATIONS, LEVEL)
    assert tally(verdicts)["refuted"] <= most(REPLICATIONS, LEVEL)
    covered = sum(v.points[0].interval[0] <= 0.1 <= v.points[0].interval[1] for v in verdicts)
    assert covered >= fewest(REPLICATIONS, 1.0 - 2 * LEVEL)


def lognormal_cdf(x, point):
    return lognorm(1.0).cdf(x)


@pytest.mark.parametrize(
    ("law", "draw"),
    [(("chi2", 3), lambda rng, n: rng.chisquare(3, n)), (("normal", 2.0), lambda rng, n: 2.0 * rng.standard_normal(n)),
     (lognormal_cdf, lambda rng, n: rng.lognormal(0.0, 1.0, n))],
)
def test_a_law_is_recognised_and_another_refuted(law, draw):
    rule, rng, n = Limit(law=law, margin=0.05), generator(39), 4240
    claim = claim_of(rule, trials=n)
    right = tally(judge_values(claim, draw(rng, n)) for _ in range(100))
    wrong = tally(judge_values(claim, 1.5 * draw(rng, n) + 0.3) for _ in range(100))
    assert right["supported"] >= fewest(100, 0.98)  # four times the fewest trials: both errors of 0.01 fit in the margin
    assert wrong["refuted"] == 100


def test_distance_is_that_of_kolmogorov_and_a_law_may_vary_over_trials():
    rng, rule = generator(40), Limit(law=("chi2", "df"), margin=0.1)
    df = rng.integers(1, 9, rule.fewest).astype(float)
    x = rng.chisquare(df)
    got = judge_columns(claim_of(rule, trials=rule.fewest), value=x, df=df)
    want = kstest(chi2(df).cdf(x), "uniform").statistic
    assert got.estimate == pytest.approx(want, rel=1e-9)
    assert dkw_radius(200, 0.01) == pytest.approx(math.sqrt(5.298317366548036 / 400))
    assert got.interval[1] == pytest.approx(want + math.sqrt(math.log(200) / (2 * len(x))))
    x[0] = NAN
    assert judge_columns(claim_of(rule, trials=rule.fewest), value=x, df=df).status == "inconclusive"


def half(x, point):
    return np.full(len(x), 1.5)


def test_a_law_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"rule law: law must give numbers in \[0, 1\]"):
        judge_values(claim_of(Limit(law=half, margin=0.3)), np.zeros(N))
