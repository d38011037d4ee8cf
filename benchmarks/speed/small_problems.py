"""Small problems through the public functions: what theorists sweep.

    python benchmarks/speed/small_problems.py [--quick]

The topics are those of backward_induction.py with S of ten or twenty, where guards and calls weigh as much as arithmetic;
breakdown.py says how much each takes.
"""

from __future__ import annotations

from _timing import options, save
from backward_induction import topic


def main() -> None:
    """Run the topics and save the table."""
    rounds = 7 if options(__doc__ or "").quick else 25
    rows = topic("small, staged", 10, 20, 5, False, rounds)
    rows += topic("small, stationary", 10, 10, 4, True, rounds)
    save("small_problems", rows)


if __name__ == "__main__":
    main()
