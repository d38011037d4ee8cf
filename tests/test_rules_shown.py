"""What figures, pages and citations make of HighProb, Order and Limit: the judge's own numbers, in the judge's units."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mdpsim.claims.claim import Twin, product
from mdpsim.claims.rules import HighProb, Limit, Order
from mdpsim.plots import claim_figure
from mdpsim.report import citation, write_report
from mdpsim.rng import generator
from mdpsim.verdict.judge import judge
from verdict_samples import make_claim, records_of

GRID = product(family=("bandit", "chain", "garnet"))
N = 300

# rule, its twin, what the page says, what the citation says
SHOWN = [
    (HighProb(4.0, 0.1), HighProb(0.5, 0.1), "probability that measured value exceeds its bound is at most 0.1",
     "quantile"),
    (Order("value", "other"), Order("other", "value"), "measured value is above other at every point",
     "mean difference"),
    (Limit(1.0, margin=0.4), Limit(2.0, margin=0.4), "the mean of measured value is its stated value ± 0.4", "mean"),
    (Limit(law=("chi2", 2.0), margin=0.6), Limit(law=("chi2", 40.0), margin=0.6),
     "within Kolmogorov distance 0.6 of the chi2 law", "Kolmogorov distance"),
]


def entry(rule, false):
    """A claim, its records and its verdict."""
    claim = make_claim(rule, grid=GRID, trials=N, twins=(Twin("false", "It is not so.", "a factor 2", rule=false),))
    rng = generator(51)
    columns = {p: {"value": rng.exponential(1.0, N), "other": rng.exponential(0.3, N)} for p in GRID}
    records = records_of(columns)
    return claim, records, judge(claim, records)


def dots(figure):
    """Where what is judged is drawn."""
    return [one.get_xdata()[0] for one in figure.axes[0].lines if one.get_gid() == "points"]


@pytest.mark.parametrize(("rule", "false", "words", "noun"), SHOWN)
def test_page_and_citation_say_what_was_judged(tmp_path, rule, false, words, noun):
    claim, records, verdict = entry(rule, false)
    assert (verdict.status, verdict.twin_status) == ("supported", "rejected")
    assert f"{noun} " in citation(claim, verdict)
    page = write_report([(claim, records, verdict)], tmp_path, context={}).read_text()
    assert words in page


def judged(figure, rule):
    """What the figure says is judged: dots, or the largest distance of each curve of a law, over the margin."""
    if not isinstance(rule, Limit) or rule.law is None:
        return dots(figure)
    curves = [[line for line in ax.lines if len(line.get_xdata()) > 2][-1] for ax in figure.axes if ax.get_visible()]
    return [float(np.abs(line.get_ydata()).max()) / rule.margin for line in curves]


@pytest.mark.parametrize(("rule", "false", "words", "noun"), SHOWN)
def test_the_dot_is_what_is_judged_and_lies_on_its_side_of_one(rule, false, words, noun):
    claim, records, verdict = entry(rule, false)
    figure = claim_figure(claim, records, verdict)
    drawn, points = judged(figure, rule), verdict.points
    if isinstance(rule, Limit) and rule.law is not None:
        points = sorted(points, key=lambda p: -p.estimate)  # a law plot has the largest distance first
    if isinstance(rule, Order):
        want = [np.mean(c["other"]) / np.mean(c["value"]) for c in records.arms["claim"].values()]
    elif isinstance(rule, Limit):
        want = [abs(p.estimate - (p.bound if rule.law is None else 0.0)) / rule.margin for p in points]
    else:
        want = [p.estimate / p.bound for p in points]
    assert drawn == pytest.approx(want)
    assert max(drawn) < 1.0
    wrong = replace(claim, rule=false, twins=(replace(claim.twins[0], rule=rule),))
    assert min(judged(claim_figure(wrong, records, judge(wrong, records)), false)) > 1.0
