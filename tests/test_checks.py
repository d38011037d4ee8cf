"""The guards' kernels, compiled and as plain Python: what a fast-math flag could fold away must still be seen."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mdpsim.arrays import ROW_SLACK, ROW_TOLERANCE, as_floats, as_simplex, frozen
from mdpsim.kernels import checks

KINDS = pytest.mark.parametrize("plain", [False, True], ids=["compiled", "plain"])


def status(rows: list[list[float]], plain: bool) -> tuple[int, int]:
    kernel = checks.row_status.py_func if plain else checks.row_status
    with np.errstate(all="ignore"):
        code, row, _ = kernel(frozen(np.array(rows)), ROW_TOLERANCE, ROW_SLACK)
    return code, row


@KINDS
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", range(17))
def test_every_not_finite_entry_is_seen(plain: bool, bad: float, where: int) -> None:
    rows = np.full((3, 17), 1 / 17)
    rows[1, where] = bad
    assert status(rows.tolist(), plain) == (checks.NOT_FINITE, 1)
    kernel = checks.first_not_finite.py_func if plain else checks.first_not_finite
    with np.errstate(all="ignore"):
        assert kernel(frozen(rows.reshape(-1))) == 17 + where
        assert kernel(frozen(np.full(5, 1e308))) == -1


@KINDS
def test_the_other_faults(plain: bool) -> None:
    assert status([[0.5, 0.5], [0.25, 0.75]], plain)[0] == checks.OK
    assert status([[0.5, 0.5], [0.25, 0.75 + 1e-12]], plain) == (checks.RENORMALISE, 1)
    assert status([[0.5, 0.5], [0.25, 0.75 + 1e-8]], plain) == (checks.SUM_OFF, 1)
    assert status([[0.5, 0.5], [-0.25, 1.25]], plain) == (checks.NEGATIVE, 1)
    assert status([[0.5, 0.5], [0.0, 0.0]], plain) == (checks.ZERO_ROW, 1)


def test_records_made_of_records_stay_the_same() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 17, 300, 100_000):  # a plain sum of the last is off by more than the slack, in whatever order it is added
        rows = rng.dirichlet(np.ones(n), 50) * (1 + 1e-10)
        once = as_simplex("f", "x", rows, "R C", (50, n))
        assert as_simplex("f", "x", once, "R C", (50, n)) is once
        assert max(abs(math.fsum(row) - 1.0) for row in once) <= ROW_SLACK


def test_a_row_in_order_does_not_change_beside_one_that_is_not() -> None:
    """Whatever else is in the batch: results of some keys are those of any split of them."""
    rows = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1 + 1e-11]])  # 1 - eps and 1 + 1e-11, added from the left
    found = as_simplex("f", "x", rows, "R C", (2, 3))
    assert found[0].tolist() == rows[0].tolist()
    assert abs(math.fsum(found[1]) - 1.0) <= ROW_SLACK


def test_what_may_be_written_is_copied_and_what_may_not_is_shared() -> None:
    mine = np.ones((2, 2))
    assert as_floats("f", "x", mine, "R C", (2, 2)) is not mine
    frozen(mine)
    assert as_floats("f", "x", mine, "R C", (2, 2)) is mine
