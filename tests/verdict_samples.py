"""Synthetic claims and records of known truth, and what chance allows, for the tests of the judge."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from mdpsim.claims.claim import CLAIM_ARM, Claim, Paper, Point, Twin, product
from mdpsim.claims.rules import Inequality
from mdpsim.rng import generator
from mdpsim.verdict.judge import judge
from mdpsim.verdict.records import Records

PAPER = Paper("toy", "Nobody, Ann", "On numbers", "Nowhere", 2026)
ONE = product(case=("only",))
DOOMED = Twin("doomed", "Every value is below -1e9.", "everything", rule=Inequality(bound=-1e9))

# Laws on [0, inf) with mean 1: name -> (generator, shape) -> draws.
LAWS = {
    "normal": lambda rng, shape: rng.normal(1.0, 0.25, shape),
    "exponential": lambda rng, shape: rng.exponential(1.0, shape),
    "lognormal-half": lambda rng, shape: rng.lognormal(-0.125, 0.5, shape),
    "lognormal-one": lambda rng, shape: rng.lognormal(-0.5, 1.0, shape),
    "rare-large": lambda rng, shape: 10.0 * (rng.random(shape) < 0.1),
    "rare-small": lambda rng, shape: (1.0 - (rng.random(shape) < 0.1)) / 0.9,
    "nearly-constant": lambda rng, shape: rng.normal(1.0, 1e-6, shape),
}


def no_measure(point, keys):
    """Nothing is run here: records are written by hand."""
    return {}


def make_claim(rule, *, grid=ONE, trials=50, twins=(DOOMED,), origin="paper"):
    """A claim with one preset."""
    return Claim(
        id="toy/claim", statement="$x \\le b$", origin=origin, cites=(PAPER,), grid={"quick": grid},
        measure=no_measure, rule=rule, twins=twins, seeds={"quick": trials},
    )


def records_of(columns, **arms):
    """Records of the claim's arm (a mapping point -> columns) and of twins' arms."""
    return Records("toy/claim", 1, "quick", 0, {CLAIM_ARM: columns, **arms})


def judge_values(claim, *values):
    """Judge a claim whose points hold only the column "value", in the order of its grid."""
    return judge(claim, records_of({p: {"value": x} for p, x in zip(claim.grid["quick"], values, strict=True)}))


def line_values(law, slope, axis, trials, seed, *, replications=None):
    """[..., K, n] draws of mean axis ** slope, independent over everything."""
    shape = (len(axis), trials) if replications is None else (replications, len(axis), trials)
    return LAWS[law](generator(seed), shape) * (np.asarray(axis, dtype=float) ** slope)[:, None]


def most(replications, level):
    """The most events of probability ``level`` that chance allows (99.9% quantile)."""
    return int(binom.ppf(0.999, replications, level))


def fewest(replications, probability):
    """The fewest events of that probability that chance allows (0.1% quantile)."""
    return int(binom.ppf(0.001, replications, probability))


def tally(verdicts):
    """Status -> how many."""
    counts = {"supported": 0, "refuted": 0, "inconclusive": 0}
    for v in verdicts:
        counts[v.status] += 1
    return counts


def point(**values):
    """A grid point."""
    return Point(values)
