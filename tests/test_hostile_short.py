"""The short form of benchmarks/hostile.py: one wrong argument in twenty-five, everything public; and what its long form found."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import mdpsim as m
from mdpsim.estimate.experts import random_expert

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "hostile.py"
LAW = [0.2, 0.3, 0.5]
SECOND = np.timedelta64(1, "s")  # numpy calls it an integer


def test_no_wrong_argument_crashes_hangs_or_is_taken() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--quick"], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


def climb(**more: object) -> object:
    goal = m.KLReward([0.0, 0.5, 1.0], LAW, beta=1.0)
    return m.ascend(m.Softmax(3), np.zeros(3), goal, **({"eta": 0.1, "steps": 2} | more))  # type: ignore[arg-type]


class Fails:
    """An array of another library that is not there when it is asked for."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise RuntimeError("no")


@pytest.mark.parametrize(("call", "message"), [
    (lambda: m.elbo(LAW, LAW, LAW, SECOND), "elbo: beta must be a number"),
    (lambda: random_expert(S=SECOND, A=2, H=2, support=1, rng=0), "random_expert: S must be an integer"),
    (lambda: climb(natural="no"), "ascend: natural must be True or False; got 'no'"),
    (lambda: m.sample_anchors(LAW, LAW, 2, 0, shared="no"), "sample_anchors: shared must be True or False"),
    (lambda: m.NoisyBestOfN(2, 0.5, breaks="no"), "NoisyBestOfN: breaks must be a tuple"),
    (lambda: m.SoftBestOfN(2, 0.5, breaks=(2.0,)), r"SoftBestOfN: breaks must lie in \(0, 1\)"),
    (lambda: m.Temperature(0.5, breaks=(1j,)), "Temperature: breaks must be a number"),
    (lambda: m.Exponential(1.0, depth=-1), "Exponential: depth must be an integer"),
    (lambda: m.Paper("k", "A", "T", "V", 1.5), "Paper: year must be an integer"),
    (lambda: m.Paper("k", ["A"], "T", "V", 2020), "Paper: authors must be a text"),
    (lambda: m.Twin("half", 3, "two", rule=m.Mean()), "Twin: statement must be a text"),
    (lambda: m.per_seed({}), "per_seed: function must be a function"),
    (lambda: m.Point("x"), "Point: values must be a mapping"),
    (lambda: m.Identity(tol=int), "Identity: tol must be a number"),
    (lambda: m.calibrate_by_anchors(LAW, Fails()), "calibrate_by_anchors: anchors must have shape"),
    (lambda: m.geometric(1, 10, 2**53), "geometric: n must be an integer"),
    (lambda: m.load_claims(None), "load_claims: path must be a path"),
    (lambda: m.optimal_transform(m.BestOfN(2), m.Responses(LAW), beta=0.1, tol="x"), "optimal_transform: tol must be a number"),
])
def test_what_the_long_form_found(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_fractions_are_ends_of_a_grid() -> None:
    assert m.geometric(Fraction(1, 2), Fraction(8), 5) == (0.5, 1.0, 2.0, 4.0, 8.0)


@pytest.mark.parametrize("bad", ["sparse", "meta"])
def test_tensors_without_numbers_in_their_places(bad: str) -> None:
    torch = pytest.importorskip("torch", reason="needs [lm]")
    from mdpsim.lm import losses

    logs = torch.log(torch.tensor([LAW], dtype=torch.float64))
    odd = logs.to_sparse() if bad == "sparse" else logs.to("meta")
    with pytest.raises(ValueError, match=f"reward: log_pi must .*; got a {bad} tensor"):
        losses.reward(odd, logs)
