"""Within-trial axes: a trial that measures a curve, read as points of a grid that share their trials.

Values at different positions of one curve are dependent, and so are points with common random numbers: the rules that compare
points (Rate) work on each trial's values across them, so nothing else is needed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mdpsim.arrays import fail
from mdpsim.claims.claim import Claim, Point
from mdpsim.claims.records import Columns, Records


def unfold(claim: Claim, records: Records) -> tuple[Claim, Records]:
    """A claim and its records with the within-trial axis, if there is one, as an axis of the grid.

    A column [n, L] gives its j-th value to the j-th point of the axis; a column [n] is the same at all of them.

    Raises:
        ValueError: a column with another number of values than the axis.
    """
    if not claim.within:
        return claim, records
    ((axis, values),) = claim.within.items()
    arms = {
        arm: {
            Point(point, **{axis: value}): _at(claim, axis, columns, j, len(values))
            for point, columns in points.items() for j, value in enumerate(values)
        }
        for arm, points in records.arms.items()
    }
    return claim.unfolded(), replace(records, arms=arms)


def _at(claim: Claim, axis: str, columns: Columns, j: int, length: int) -> Columns:
    """The columns at position j of the axis."""
    found = {}
    for name, column in columns.items():
        if column.ndim == 2 and column.shape[1] != length:
            wanted = f"have one value for each of the {length} of {axis!r}"
            fail(claim.id, f"column {name!r}", wanted, f"{column.shape[1]} values a trial")
        found[name] = np.ascontiguousarray(column[:, j]) if column.ndim == 2 else column
    return found
