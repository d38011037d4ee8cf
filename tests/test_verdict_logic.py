"""What judge makes of points, twins, missing trials, odd numbers and wrong records: exact statements, no chance."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from mdpsim.claims.claim import Twin, product
from mdpsim.claims.rules import LEVEL, MIN_MEAN_TRIALS, Identity, Inequality, Mean, Rate
from mdpsim.rng import generator
from mdpsim.verdict import judge as judge_module
from mdpsim.verdict import stats
from mdpsim.verdict.judge import judge
from verdict_samples import DOOMED, ONE, judge_values, make_claim, no_measure, records_of

N = MIN_MEAN_TRIALS
THREE = product(k=(1, 2, 3))
LINE = product(n=(10, 100, 1000))
INF, NAN = math.inf, math.nan


def at(value, n=N):
    """Equal trials."""
    return np.full(n, float(value))


def strict(verdict):
    """The verdict as strict JSON and back."""
    return json.loads(json.dumps(verdict.to_json(), allow_nan=False))


def line(slope=-1.0, n=20):
    """A line without noise."""
    return [at(p["n"] ** slope, n) for p in LINE]


# ---------------------------------------------------------------- points


def test_worst_point_is_shown_and_one_refuted_point_refutes():
    claim = make_claim(Mean(bound=1.0), grid=THREE)
    fine = judge_values(claim, at(0.2), at(0.9), at(0.5))
    assert (fine.status, fine.estimate, fine.bound, fine.interval) == ("supported", 0.9, 1.0, (0.9, 0.9))
    assert fine.slack == pytest.approx(1 / 0.9)
    assert fine.worst is fine.points[1]
    assert [p.estimate for p in fine.points] == [0.2, 0.9, 0.5]
    bad = judge_values(claim, at(0.2), at(1.2), at(1.1))
    assert (bad.status, bad.estimate, bad.p_value) == ("refuted", 1.2, 0.0)
    assert [p.status for p in bad.points] == ["supported", "refuted", "refuted"]


def test_refuted_goes_before_inconclusive_before_supported():
    claim = make_claim(Mean(bound=1.0), grid=THREE)
    wide = generator(1).exponential(1.3, N)
    assert judge_values(claim, at(0.99), wide, at(1.06)).estimate == 1.06
    open_ = judge_values(claim, at(0.99), wide, at(0.5))
    assert (open_.status, open_.estimate) == ("inconclusive", pytest.approx(wide.mean()))


def test_refutation_is_at_the_level_over_the_number_of_points():
    x = generator(2).normal(1.2, 0.1, N)
    m = stats.moments(x)
    between = stats.lower_limit(m, LEVEL / 2)  # above the lower limit for three points, below that for one
    one = make_claim(Mean(bound=1.0, margin=float(between) - 1.0))
    three = make_claim(one.rule, grid=THREE)
    assert judge_values(one, x).status == "refuted"
    many = judge_values(three, x, at(0.1), at(0.1))
    assert (many.status, many.points[0].status) == ("inconclusive", "inconclusive")
    assert many.p_value == pytest.approx(3 * LEVEL / 2, rel=1e-6)
    assert many.interval[0] == pytest.approx(stats.lower_limit(m, LEVEL / 3))
    assert many.interval[1] == pytest.approx(stats.upper_limit(m, LEVEL))


@pytest.mark.parametrize(("side", "level"), [("at_most", LEVEL), ("two_sided", LEVEL / 2)])
def test_refutation_of_a_slope_is_at_the_level_over_the_number_of_lines(side, level):
    x = generator(4).normal(1.0, 0.1, (3, 20)) * np.array([10.0, 100.0, 1000.0])[:, None] ** -0.5
    m = stats.slope_moments(np.array([10.0, 100.0, 1000.0]), x).shifted(1.0)
    margin = float(stats.lower_limit(m, level / 2))  # refuted by one line, not by one of three
    rule = Rate("n", slope=-1.0, margin=margin, side=side)
    assert judge_values(make_claim(rule, grid=LINE, trials=20), *x).status == "refuted"
    three = make_claim(rule, grid=product(family=("a", "b", "c"), n=(10, 100, 1000)), trials=20)
    many = judge_values(three, *x, *line(), *line())
    assert (many.status, many.worst.point["family"]) == ("inconclusive", "a")
    assert many.interval[0] == pytest.approx(-1.0 + stats.lower_limit(m, level / 3))
    assert many.p_value == pytest.approx(3 * LEVEL / 2, rel=1e-6)


def test_trials_and_points_beyond_the_plan_are_ignored():
    claim = make_claim(Mean(bound=1.0))
    only = claim.grid["quick"][0]
    more = {only: {"value": np.r_[at(0.5), at(99.0)]}, THREE[0]: {"value": at(99.0)}}
    assert judge(claim, records_of(more)) == judge(claim, records_of({only: {"value": at(0.5)}}))


# ---------------------------------------------------------------- twins


def test_every_twin_must_be_rejected():
    kind = Twin("kind", "At most twice.", "none", rule=Mean(bound=2.0))
    claim = make_claim(Mean(bound=1.0), twins=(DOOMED, kind))
    good = judge_values(claim, at(0.5))
    assert (good.status, good.twin_status) == ("inconclusive", "not rejected")
    assert [t.status for t in good.twins] == ["rejected", "not rejected"]
    assert "twin 'kind' not rejected" in good.notes[0]
    assert "but for its twins this claim would be supported" in good.notes
    bad = judge_values(claim, at(1.5))
    assert (bad.status, bad.points[0].status) == ("inconclusive", "refuted")
    assert "but for its twins this claim would be refuted" in bad.notes
    assert judge_values(make_claim(Mean(bound=1.0)), at(0.5)).twin_status == "rejected"


def test_twin_reads_its_own_arm_grid_rule_and_trials():
    twin = Twin(
        "slow", "false", "twofold", measure=no_measure, rule=Mean(bound="cap", of="other"),
        grid={"quick": LINE}, seeds={"quick": 60},
    )
    claim = make_claim(Mean(bound=1.0), twins=(twin,))
    own = {ONE[0]: {"value": at(0.5)}}
    # The violation sits beyond the twin's 60 trials at first, then within them.
    for extra, status in ((at(9.0, 5), "not rejected"), (at(9.0, 0), "rejected")):
        other = np.r_[at(1.0, 60), extra] if len(extra) else at(2.0, 60)
        arm = {p: {"other": other, "cap": at(1.0, len(other))} for p in LINE}
        verdict = judge(claim, records_of(own, slow=arm))
        assert verdict.twin_status == verdict.twins[0].status == status
    short = judge(claim, records_of(own, slow={LINE[0]: {"other": at(1.0, 60), "cap": at(1.0, 60)}}))
    assert (short.status, short.twins[0].note) == ("inconclusive", "60 of 180 trials present; 60 equal trials: a point "
            "interval, blind to values of weight below 0.074 (n=10)")


# ---------------------------------------------------------------- missing trials


def test_missing_trials_leave_a_claim_open_unless_refuted():
    claim = make_claim(Mean(bound=1.0), grid=THREE, trials=60)
    full, short, bad = {"value": at(0.5, 60)}, {"value": at(0.5, 55)}, {"value": at(1.5, 55)}
    a, b, c = THREE
    assert judge(claim, records_of({a: full, b: full, c: full})).status == "supported"
    open_ = judge(claim, records_of({a: full, b: short, c: full}))
    assert (open_.status, open_.points[1].n_trials) == ("inconclusive", 55)
    assert "175 of 180 trials present" in open_.notes
    assert "55 of 60 trials present" in open_.points[1].note
    assert judge(claim, records_of({a: full, b: full})).status == "inconclusive"
    refuted = judge(claim, records_of({a: full, b: bad}))
    assert (refuted.status, refuted.notes[0]) == ("refuted", "115 of 180 trials present")


def test_no_records_at_all():
    for rule, grid in ((Mean(bound=1.0), ONE), (Rate("n", slope=-1.0), LINE), (Identity(tol=1.0), ONE)):
        verdict = judge(make_claim(rule, grid=grid), records_of({}))
        assert (verdict.status, verdict.n_trials, verdict.points, verdict.worst) == ("inconclusive", 0, (), None)
        assert math.isnan(verdict.estimate)
        shown = strict(verdict)
        assert (shown["estimate"], shown["interval"], shown["bound"]) == (None, [None, None], None)
        assert f"0 of {50 * len(grid)} trials present" in verdict.notes


def test_a_line_with_a_missing_point_is_open_though_its_part_is_steep():
    claim = make_claim(Rate("n", slope=-1.0), grid=LINE, trials=20)
    x = {p: {"value": v} for p, v in zip(LINE, line(-3.0), strict=True)}
    assert judge(claim, records_of(x)).status == "refuted"
    del x[LINE[1]]
    verdict = judge(claim, records_of(x))
    assert (verdict.status, verdict.estimate) == ("inconclusive", pytest.approx(-3.0))
    assert "points of the n axis are missing" in verdict.points[0].note


# ---------------------------------------------------------------- notes


def test_notes_on_power_and_on_transcription():
    far = judge_values(make_claim(Mean(bound=1.0)), at(1 / 3012))
    assert "no power: slack 3000" in far.notes
    assert "no power: slack infinite" in judge_values(make_claim(Inequality(bound=1.0)), at(0.0)).notes
    near = judge_values(make_claim(Mean(bound=1.0)), at(0.02))
    assert not any("power" in note for note in near.notes)
    rate = judge_values(make_claim(Rate("n", bound=lambda p: 500 / p["n"]), grid=LINE, trials=20), *line())
    assert (rate.status, rate.slack) == ("supported", pytest.approx(500.0))
    assert "no power: slack 500" in rate.notes
    identity = make_claim(Identity(tol=1.0))
    tiny = judge(identity, records_of({ONE[0]: {"gap": at(1e-9), "value": at(0.0)}}))
    assert (tiny.status, tiny.slack) == ("supported", pytest.approx(1e9))
    assert not any("power" in note for note in tiny.notes)
    wrong = judge_values(make_claim(Mean(bound=1.0), origin="as-transcribed"), at(2.0))
    assert "refuted as transcribed: check the text" in wrong.notes
    assert not any("transcribed" in n for n in judge_values(make_claim(Mean(bound=1.0)), at(2.0)).notes)


def test_inequality_names_the_closest_trial():
    x = at(0.1)
    x[17] = 0.8
    verdict = judge_values(make_claim(Inequality(bound=1.0), grid=THREE), at(0.2), x, at(0.3))
    assert (verdict.estimate, verdict.bound, verdict.slack) == (0.8, 1.0, 1.25)
    assert "trial 17 came closest to its bound (k=2)" in verdict.notes
    x[31] = 1.1
    verdict = judge_values(make_claim(Inequality(bound=1.0), grid=THREE), at(0.2), x, at(0.3))
    assert (verdict.status, verdict.p_value) == ("refuted", 0.0)
    assert "trial 31 exceeds its bound (k=2)" in verdict.notes
    assert judge_values(make_claim(Inequality(bound=1.0, tol=0.2)), x).status == "supported"


def test_identity_with_several_gaps_and_tolerances_per_trial():
    claim = make_claim(Identity(tol={"a": "tol_a", "b": 1e-9}))
    tol = np.linspace(1e-12, 1e-10, N)
    columns = {"a": 0.5 * tol, "b": at(9e-10), "tol_a": tol, "value": at(0.0)}
    verdict = judge(claim, records_of({ONE[0]: columns}))
    assert (verdict.status, verdict.estimate, verdict.bound) == ("supported", 9e-10, 1e-9)
    columns["a"] = -columns["a"]
    columns["a"][3] = 1.1 * tol[3]
    verdict = judge(claim, records_of({ONE[0]: columns}))
    assert (verdict.status, verdict.bound) == ("refuted", tol[3])
    assert "'a', trial 3" in verdict.worst.note


# ---------------------------------------------------------------- odd numbers


@pytest.mark.parametrize(
    ("rule", "x", "status"),
    [
        (Mean(bound=1.0), INF, "refuted"), (Mean(bound=1.0), NAN, "inconclusive"),
        (Mean(bound=1.0), -INF, "inconclusive"), (Mean(bound=-1.0), -0.5, "refuted"),
        (Mean(bound=0.0), 0.0, "supported"), (Mean(bound=0.0), 1e-9, "refuted"), (Mean(bound=0.0), -1.0, "supported"),
        (Mean(bound=-1.0), -2.0, "supported"), (Mean(bound=-1.0), -1.0, "supported"),
        (Mean(bound=INF), 5.0, "supported"), (Mean(bound=INF), INF, "supported"), (Mean(bound=1.0), 0.0, "supported"),
        (Mean(bound=1e-300), 1e300, "refuted"), (Mean(bound=1.0, margin=0.0), 1.0, "supported"),
        (Mean(bound=0.1, margin=0.0), 0.3 - 0.2, "supported"),
        (Inequality(bound=1.0), INF, "refuted"), (Inequality(bound=1.0), NAN, "inconclusive"),
        (Inequality(bound=INF), INF, "supported"), (Inequality(bound=0.0), 0.0, "supported"),
        (Inequality(bound=-1.0), -0.5, "refuted"), (Inequality(bound=-INF), 0.0, "refuted"),
        (Identity(tol={"value": 1.0}), NAN, "refuted"), (Identity(tol={"value": 1.0}), INF, "refuted"),
        (Identity(tol={"value": 0.0}), 0.0, "supported"), (Identity(tol={"value": 0.0}), 5e-324, "refuted"),
    ],
)
@pytest.mark.parametrize("everywhere", [True, False])
def test_odd_numbers(rule, x, status, everywhere):
    values = at(x)
    if not everywhere and (not math.isfinite(x)):
        values = at(0.5)
        values[7] = x
    verdict = judge_values(make_claim(rule, twins=(Twin("t", "false", "far", rule=Inequality(bound=-INF)),)), values)
    assert verdict.worst.status == status
    strict(verdict)
    if status != "inconclusive":
        numbers = [verdict.estimate, verdict.bound, verdict.p_value, *verdict.interval, verdict.slack or 0.0]
        assert not any(math.isnan(v) for v in numbers)


@pytest.mark.parametrize("mean", [0.0, INF, NAN, -1.0])
def test_a_mean_without_a_logarithm_leaves_a_rate_open(mean):
    values = line()
    values[2] = at(mean, 20)
    for rule in (Rate("n", slope=-1.0), Rate("n", slope=-1.0, side="at_most"), Rate("n", bound=lambda p: 1 / p["n"])):
        verdict = judge_values(make_claim(rule, grid=LINE, trials=20), *values)
        assert (verdict.worst.status, verdict.estimate) == ("inconclusive", pytest.approx(-1.0))
        assert "at n = 1000 has no logarithm" in verdict.worst.note
        strict(verdict)
    nothing = judge_values(make_claim(Rate("n", slope=-1.0), grid=LINE, trials=20), *[at(mean, 20)] * 3)
    assert nothing.worst.status == "inconclusive"
    strict(nothing)


def test_exact_rates_are_points():
    claim = make_claim(Rate("n", slope=-1.0, margin=0.0), grid=LINE, trials=20)
    verdict = judge_values(claim, *line(-1.0))
    assert verdict.status == "supported"
    assert verdict.interval == (pytest.approx(-1.0), pytest.approx(-1.0))
    assert judge_values(claim, *line(-1.0 + 1e-6)).status == "refuted"


def test_few_trials_decide_no_mean():
    few = generator(3).normal(0.1, 0.01, N - 1)
    verdict = judge_values(make_claim(Mean(bound=1.0)), few)
    assert (verdict.status, verdict.interval) == ("inconclusive", (-INF, INF))
    assert any(f"{N - 1} trials: a mean needs {N}" in note for note in verdict.notes)
    # Two equal tosses of a fair coin are no point interval: half of all pairs are equal.
    assert judge_values(make_claim(Mean(bound=0.6)), at(1.0, 2)).status == "inconclusive"


def test_a_mean_carried_by_one_trial_is_supported_only_if_that_trial_is_inside():
    x = at(0.0)
    x[0] = 4.0
    assert judge_values(make_claim(Mean(bound=1.0)), x / 2).status == "inconclusive"
    assert judge_values(make_claim(Mean(bound=1.0)), x / 4).status == "supported"
    almost = at(0.5)
    almost[9] = np.nextafter(0.5, 1.0)
    assert judge_values(make_claim(Mean(bound=1.0)), almost).status == "supported"


# ---------------------------------------------------------------- wrong records


def test_errors_name_what_is_wrong():
    claim = make_claim(Mean(bound="cap"))
    with pytest.raises(ValueError, match=r"toy/claim.*rule mean: column 'cap' must be measured; got columns value, x"):
        judge(claim, records_of({ONE[0]: {"value": at(1.0), "x": at(1.0)}}))
    with pytest.raises(ValueError, match=r"toy/claim.*rule mean: column 'value' must hold one number a trial"):
        judge(make_claim(Mean(bound=1.0)), records_of({ONE[0]: {"value": np.ones((N, 3))}}))
    with pytest.raises(ValueError, match="tolerance of 'value' must be finite"):
        judge_values(make_claim(Identity(tol={"value": -1.0})), at(0.0))
    records = records_of({})
    for wrong in (replace(records, claim="toy/other"), replace(records, rev=2), replace(records, preset="smoke")):
        with pytest.raises(ValueError, match="must be"):
            judge(claim, wrong)


def test_a_rule_without_a_decider_is_named(monkeypatch):
    monkeypatch.delitem(judge_module.DECIDERS, Mean)
    with pytest.raises(ValueError, match="judge: rule of toy/claim must be one of the known names"):
        judge(make_claim(Mean(bound=1.0)), records_of({}))


def test_judge_reads_only():
    x = at(0.5)
    x.flags.writeable = False
    claim = make_claim(Mean(bound=1.0))
    assert judge_values(claim, x) == judge_values(claim, x)
