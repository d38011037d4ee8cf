"""Loops that draw until something holds: where it never would, or hardly ever, they say what is needed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mdpsim import Point, Rejection, Responses, fit_moments, rejection_sample
from mdpsim.papers.balashankar2024 import quantiles
from mdpsim.papers.tiapkin2023 import constant, value_limits
from mdpsim.papers.tiapkin2023.bounds import FAMILIES, redrawn


def needed(error: pytest.ExceptionInfo[ValueError]) -> int:
    """The number of demonstrations that a message asks for."""
    found = re.search(r"n_demos must .* times: (\d+), for half of the random instances; got", str(error.value))
    assert found, str(error.value)
    return int(found[1])


def test_a_condition_is_redrawn_until_it_holds_or_its_price_is_named() -> None:
    masses = iter([0.001, 0.002, 0.5, 0.1])
    assert redrawn("f", 10, 2.0, lambda: ("third", next(masses))) == "third"
    assert next(masses) == 0.1, "no draw too many"
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"\Af: n_demos must") as error:
        redrawn("f", 3, 2.0, lambda: (None, float(rng.uniform(0.1, 0.3))))
    assert abs(needed(error) - 10) <= 1, "2 over the median 0.2"


@pytest.mark.parametrize("family", FAMILIES)
def test_too_few_demonstrations_for_the_sharp_constant(family: str) -> None:
    """States and actions cannot each be expected 200 times in 300 demonstrations; twice what is asked will do."""
    point = {"family": family, "expert": "interior"}
    with pytest.raises(ValueError, match=r"measure_constant: n_demos must be so large") as error:
        constant.measure_constant(Point(n_demos=300, **point), [1])
    enough = constant.measure_constant(Point(n_demos=2 * needed(error), **point), [1, 2])
    assert np.isfinite(np.asarray(enough["ratio"])).all()


def test_too_few_demonstrations_for_the_late_gap() -> None:
    with pytest.raises(ValueError, match="measure_late_gap: n_demos must be so large"):
        value_limits.measure_late_gap(Point(family="garnet", n_demos=9_999), [1])  # d <= 1: never expected 10000 times


def test_too_many_rounds_for_a_rare_response_of_a_language_model() -> None:
    pytest.importorskip("torch", reason="needs [lm]")
    from mdpsim.papers.xie2024 import small_lm

    rng = np.random.default_rng(0)
    for change in ({"vocabulary": 1}, {"rounds": 10**12}):
        point = Point(**({"vocabulary": 2, "length": 1, "rounds": 64} | change))
        with pytest.raises(ValueError, match=r"draw_instance: rounds must leave a response .* T from .* to .*; got \d+"):
            small_lm.draw_instance(point, rng)


def test_draws_that_are_hardly_ever_accepted() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"measure_only_transform: n must be at most \d+, for 1e\+09 draws"):
        quantiles._accepted("normal", lambda r: np.full(r.size, -40.0), 4 * quantiles.PAIRS, rng)
    assert quantiles._accepted("normal", lambda r: np.full(r.size, -3.0), 800, rng).size == 800
    with pytest.raises(ValueError, match="measure_only_transform: n must be an integer >= 1 and <= 100000"):
        quantiles.measure_only_transform(Point(family="normal", procedure="best-of", n=10**9), [1])


def test_rejection_without_a_limit_needs_a_policy_that_reaches_the_threshold() -> None:
    space, rng = Responses([0.0, 1.0], [0.5, 0.5]), np.random.default_rng(0)
    assert (Rejection(0.6).simulate(space, np.array([1.0 - 1e-12, 1e-12]), 3, rng) == 1).all()  # not one by one
    assert (Rejection(0.6).simulate(space, np.array([0.9, 0.1]), 50, rng) == 1).all()
    with pytest.raises(ValueError, match="rejection_sample: accept must accept often enough"):
        rejection_sample([0.5, 0.5], [1e-12, 0.0], 1, 0)


@pytest.mark.parametrize(("features", "moment"), [([[0.0], [1.0]], 1e308), ([[0.0], [1.0]], -1e308), ([[0.0], [1.0]], 1.01)])
def test_moments_outside_the_range_of_the_features(features: list[list[float]], moment: float) -> None:
    """Newton's loop ends where the residual is NaN: it is not entered with one."""
    with pytest.raises(ValueError, match="fit_moments: moments must be those of a law on the prior's support"):
        fit_moments([0.5, 0.5], features, [moment])
    with pytest.raises(ValueError, match=r"fit_moments: features must lie within \+-1e\+150"):
        fit_moments([0.5, 0.5], [[0.0], [1e308]], [1.0])
