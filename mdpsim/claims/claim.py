"""A claim: a sentence of a paper made executable, with the twins that the same test must reject.

A claim says what is measured, at which points, under which rule, and what would be false: its twins. It runs nothing
and decides nothing: :mod:`mdpsim.claims.run` produces records, :mod:`mdpsim.verdict.judge` reads them.
"""

from __future__ import annotations

import inspect
import itertools
import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, update_wrapper
from typing import Any

import numpy as np

from mdpsim import rng as rng_
from mdpsim.arrays import as_count, as_real, fail, unknown
from mdpsim.claims.rules import Rate, Rule
from mdpsim.versions import EXTRAS

PRESETS = ("smoke", "quick", "paper", "full")
ORIGINS = ("paper", "as-transcribed", "derived", "observed", "folklore")
CLAIM_ARM = "claim"
DEVICE_AXES = ("device", "dtype")  # where and in which precision a trial is computed: in its record's key, never in its draws

Measure = Callable[["Point", Sequence[int]], Mapping[str, np.ndarray]]


class Point(Mapping[str, Any]):
    """One point of a grid: an immutable flat mapping of names to str, int and finite float values.

    Two points are the same if their canonical JSON is: 1 and 1.0 differ.
    """

    def __init__(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any) -> None:
        data = dict(values, **more)
        for name, value in data.items():
            if not isinstance(name, str) or not name.isidentifier():
                fail("Point", "names", "be identifiers", repr(name))
            if isinstance(value, np.integer | np.floating):
                data[name] = value = value.item()  # numpy's numbers have no JSON
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                fail("Point", name, "be a str, int or float literal", repr(value))
            if isinstance(value, float) and not math.isfinite(value):
                fail("Point", name, "be finite", repr(value))
        self._data = {name: data[name] for name in sorted(data)}

    @cached_property
    def json(self) -> str:
        """Canonical JSON."""
        return rng_.canonical(self._data)

    def without(self, *names: str) -> Point:
        """The point with these axes left out."""
        return Point({k: v for k, v in self._data.items() if k not in names})

    def __getitem__(self, name: str) -> Any:
        try:
            return self._data[name]
        except KeyError:
            raise KeyError(f"the point has no axis {name!r}; it has {', '.join(self._data) or 'none'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __hash__(self) -> int:
        return hash(self.json)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.json == other.json

    def __reduce__(self) -> tuple[Any, ...]:
        return (Point, (self._data,))

    def __repr__(self) -> str:
        return f"Point({', '.join(f'{k}={v!r}' for k, v in self._data.items())})"

    def __str__(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in self._data.items())


def product(**axes: Iterable[Any]) -> tuple[Point, ...]:
    """All points of a grid: ``product(family=("a", "b"), n_demos=(10, 100))`` has four."""
    for name, values in axes.items():
        if isinstance(values, str) or not isinstance(values, Iterable):
            fail("product", name, "be a sequence of values", repr(values))
    names = list(axes)
    return tuple(
        Point(zip(names, values, strict=True)) for values in itertools.product(*(list(axes[n]) for n in names))
    )


def geometric(low: float, high: float, n: int) -> tuple[Any, ...]:
    """n points from low to high in equal ratios: ints where both ends are ints, else floats of 6 digits."""
    n = as_count("geometric", "n", n, low=2)
    low_, high_ = (as_real("geometric", name, x, 0.0, 1e300) for name, x in (("low", low), ("high", high)))
    if not 0 < low_ < high_:
        fail("geometric", "low and high", "satisfy 0 < low < high", (low, high))
    values = np.geomspace(low, high, n)
    if isinstance(low, int | np.integer) and isinstance(high, int | np.integer):
        return tuple(round(v) for v in values)
    return tuple(float(f"{v:.6g}") for v in values)


@dataclass(frozen=True)
class Paper:
    """What a claim cites: a paper, and where in it."""

    key: str
    authors: str
    title: str
    venue: str
    year: int
    arxiv: str = ""
    where: str = ""

    def at(self, where: str) -> Paper:
        """This paper, at a theorem or equation."""
        return replace(self, where=where)

    def __str__(self) -> str:
        first = self.authors.split(" and ")[0].split(",")[0]
        others = " et al." if " and " in self.authors else ""
        return f"{first}{others} ({self.year})" + (f", {self.where}" if self.where else "")

    def bibtex(self) -> str:
        """A BibTeX entry."""
        rows = {"author": self.authors, "title": "{" + self.title + "}", "booktitle": self.venue, "year": str(self.year)}
        if self.arxiv:
            rows |= {"eprint": self.arxiv, "archiveprefix": "arXiv"}
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in rows.items())
        return f"@inproceedings{{{self.key},\n{body}\n}}"


@dataclass(frozen=True)
class Twin:
    """The claim made false on purpose: the same test must reject it.

    Args:
        name: kebab-slug, unique in the claim.
        statement: the false sentence.
        distance: how far from the truth it is, in words with a number.
        measure: a false algorithm; None uses the claim's own records (common random numbers come with them).
        rule: a false statement; None uses the claim's rule.
        grid, seeds: where power needs other points or more trials than the claim's; None uses the claim's.
    """

    name: str
    statement: str
    distance: str
    measure: Measure | None = None
    rule: Rule | None = None
    grid: Mapping[str, Sequence[Point]] | None = None
    seeds: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name) or self.name == CLAIM_ARM:
            fail("Twin", "name", f"be a kebab-slug other than {CLAIM_ARM!r}", repr(self.name))
        if self.measure is None and self.rule is None:
            fail("Twin", "measure or rule", "differ from the claim's", f"neither, in {self.name!r}")
        if not self.statement.strip() or not self.distance.strip():
            fail("Twin", "statement and distance", "not be empty", repr(self.name))

    @property
    def arm(self) -> str:
        """The arm whose records it reads."""
        return CLAIM_ARM if self.measure is None else self.name


@dataclass(frozen=True)
class Claim:
    """A theorem as an experiment.

    Args:
        id: "paper/kebab-slug".
        statement: the sentence with its formula, LaTeX between dollar signs.
        origin: "paper" (checked against its text), "as-transcribed" (the paper's, not checked), "derived" (ours, with
            the derivation in the module's docstring), "observed" (a measured fact about the instances that the statement names;
            no derivation) or "folklore".
        cites: the papers, each at its theorem.
        grid: preset -> points. Presets: smoke, quick, paper, and optionally full.
        measure: ``measure(point, keys) -> {column: array [n]}``, a module-level function; n trials, one per key.
        rule: one of :mod:`mdpsim.claims.rules`.
        twins: one or more :class:`Twin`.
        seeds: preset -> number of trials at each point.
        draws: names of the axes that a trial's random numbers depend on; None means all but ``device`` and ``dtype``, on which
            they never do. Points that differ elsewhere only share their draws (common random numbers).
        needs: extras of the package that the measure imports, as ("lm",). Where one is not installed the claim is listed and
            judged by what a store holds, but not run.
        tags: free words for ``mdpsim list --tag``.
        within: a within-trial axis and its values, as {"n_episodes": (10, 100, 1000)}: every column may hold one number for
            each of them (a learning curve); rules, bounds and figures see points of the grid that share their trials.
        rev: raised whenever measure or draws change; records of other revisions are ignored.
    Raises:
        ValueError: naming the claim and the argument.
    """

    id: str
    statement: str
    origin: str
    cites: tuple[Paper, ...]
    grid: Mapping[str, Sequence[Point]]
    measure: Measure
    rule: Rule
    twins: tuple[Twin, ...]
    seeds: Mapping[str, int]
    draws: tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    within: Mapping[str, Sequence[float]] = field(default_factory=dict)
    rev: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not re.fullmatch(r"[a-z0-9_-]+/[a-z0-9]+(-[a-z0-9]+)*", self.id):
            fail("Claim", "id", "be 'paper/kebab-slug'", repr(self.id))
        where = f"Claim {self.id}"
        if self.origin not in ORIGINS:
            fail(where, "origin", f"be one of {', '.join(ORIGINS)}", repr(self.origin))
        if not isinstance(self.statement, str) or not self.statement.strip():
            fail(where, "statement", "not be empty", repr(self.statement))
        if not isinstance(self.cites, tuple) or not self.cites or not all(isinstance(c, Paper) for c in self.cites):
            fail(where, "cites", "be a tuple of one or more Paper", repr(self.cites))
        if not callable(self.measure):
            fail(where, "measure", "be a function (point, keys) -> columns", repr(self.measure))
        if not isinstance(self.rule, Rule):
            fail(where, "rule", "be one of mdpsim.claims.rules", repr(self.rule))
        object.__setattr__(self, "rev", as_count(where, "rev", self.rev))
        self._check_twins(where)
        if self.draws is not None and not isinstance(self.draws, tuple):
            fail(where, "draws", "be None or a tuple of names of axes", repr(self.draws))
        if on := set(self.draws or ()) & set(DEVICE_AXES):
            fail(where, "draws", "leave out device and dtype: every device computes with the same draws", ", ".join(sorted(on)))
        if not isinstance(self.needs, tuple) or not set(self.needs) <= set(EXTRAS):
            fail(where, "needs", f"be a tuple of extras among {', '.join(EXTRAS)}", repr(self.needs))
        if self.within:
            self._check_within(where)
            self.unfolded()  # the rules are checked on the points that they will see
            return
        _check_plan(where, self.grid, self.seeds, self.rule, self.draws)
        for twin in self.twins:
            if twin.grid is not None and not set(twin.grid) >= set(self.grid):
                fail(f"{where}, twin {twin.name}", "grid", f"have the presets {', '.join(self.grid)}", list(twin.grid))
            _check_plan(
                f"{where}, twin {twin.name}", twin.grid or self.grid, twin.seeds or self.seeds,
                twin.rule or self.rule, self.draws,
            )

    def _check_twins(self, where: str) -> None:
        if not isinstance(self.twins, tuple) or not all(isinstance(t, Twin) for t in self.twins):
            fail(where, "twins", "be a tuple of Twin", repr(self.twins))
        if not self.twins:
            fail(where, "twins", "hold at least one Twin: a test that rejects nothing shows nothing", "none")
        names = [t.name for t in self.twins]
        if len(set(names)) < len(names):
            fail(where, "twins", "have different names", names)

    def _check_within(self, where: str) -> None:
        """One axis of strictly increasing numbers that is no axis of the grid."""
        if not isinstance(self.within, Mapping) or len(self.within) != 1:
            fail(where, "within", "map the name of one axis to its values", repr(self.within))
        ((axis, values),) = self.within.items()
        numbers = not isinstance(values, str) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if not numbers or len(values) < 2 or any(not a < b for a, b in itertools.pairwise(values)):
            fail(where, f"within[{axis!r}]", "be two or more increasing numbers", repr(values))
        grids = [self.grid, *(t.grid for t in self.twins if t.grid is not None)]
        if any(axis in p for grid in grids for points in grid.values() for p in points):
            fail(where, "within", "name an axis that the grid does not have", repr(axis))

    def unfolded(self) -> Claim:
        """The same claim with the within-trial axis as an axis of its grids: what rules, bounds and figures see."""
        if not self.within:
            return self
        ((axis, values),) = self.within.items()

        def wider(grid: Mapping[str, Sequence[Point]]) -> dict[str, tuple[Point, ...]]:
            return {name: tuple(Point(p, **{axis: v}) for p in points for v in values) for name, points in grid.items()}

        twins = tuple(t if t.grid is None else replace(t, grid=wider(t.grid)) for t in self.twins)
        return replace(self, grid=wider(self.grid), twins=twins, within={})

    @property
    def paper(self) -> str:
        """The part of the id before the slash."""
        return self.id.split("/")[0]

    def twin(self, name: str) -> Twin:
        """The twin of that name."""
        for twin in self.twins:
            if twin.name == name:
                return twin
        unknown(f"Claim {self.id}", "twin", name, [t.name for t in self.twins])

    def check_preset(self, preset: str) -> str:
        """The preset, if this claim has it."""
        if preset not in self.grid:
            unknown(f"Claim {self.id}", "preset", preset, self.grid)
        return preset

    def plan(self, preset: str) -> dict[str, dict[Point, int]]:
        """What a preset needs: arm -> point -> number of trials (the claim's and its twins' together)."""
        self.check_preset(preset)
        arms: dict[str, dict[Point, int]] = {CLAIM_ARM: dict.fromkeys(self.grid[preset], self.seeds[preset])}
        for twin in self.twins:
            trials = (twin.seeds or self.seeds)[preset]
            wanted = arms.setdefault(twin.arm, {})
            for point in (twin.grid or self.grid)[preset]:
                wanted[point] = max(wanted.get(point, 0), trials)
        return arms

    def measure_of(self, arm: str) -> Measure:
        """The measure that fills an arm."""
        if arm == CLAIM_ARM:
            return self.measure
        return self.twin(arm).measure or self.measure

    def measure_text(self, arm: str) -> str:
        """Hash (16 hex digits) of the source of the measure that fills an arm: an edit without a new rev can be seen."""
        measure = self.measure_of(arm)
        return (_source_hash if isinstance(measure, Hashable) else _source_hash.__wrapped__)(measure)

    def trial_key(self, point: Point, seed: int, trial: int) -> int:
        """Key of a trial's Generator: (claim id, the drawn subset of the point, K, i); never the arm, the rev, the device."""
        names = [name for name in point if name not in DEVICE_AXES] if self.draws is None else self.draws
        return rng_.key("trial", self.id, {name: point[name] for name in names}, seed, trial)


@lru_cache(maxsize=1024)
def _source_hash(measure: Any) -> str:
    """Kept, for it is asked for with every commit and takes as long as the rest of it."""
    try:
        text = inspect.getsource(inspect.unwrap(measure))
    except (OSError, TypeError):
        text = f"{getattr(measure, '__module__', '')}.{getattr(measure, '__qualname__', '')}"
    return rng_.digest(text).hex()[:16]


def _check_plan(
    where: str, grid: Mapping[str, Sequence[Point]], seeds: Mapping[str, int], rule: Rule, draws: Sequence[str] | None
) -> None:
    """Guard the points and trial numbers of a claim or a twin."""
    if not isinstance(grid, Mapping) or not grid or not set(grid) <= set(PRESETS):
        fail(where, "grid", f"map presets among {', '.join(PRESETS)} to points", repr(grid))
    if not isinstance(seeds, Mapping) or not set(seeds) >= set(grid):
        fail(where, "seeds", f"have a number of trials for {', '.join(grid)}", repr(seeds))
    for preset, points in grid.items():
        if not points or not all(isinstance(p, Point) for p in points):
            fail(where, f"grid[{preset!r}]", "hold one or more Point", repr(points)[:80])
        if len(set(points)) < len(points):
            twice = next(p for i, p in enumerate(points) if p in points[:i])
            fail(where, f"grid[{preset!r}]", "have different points", f"{twice} twice")
        for name in draws or ():
            if any(name not in p for p in points):
                fail(where, "draws", f"name axes of every point of grid[{preset!r}]", repr(name))
        as_count(where, f"seeds[{preset!r}]", seeds[preset], low=rule.fewest)
        if isinstance(rule, Rate):
            _check_axis(where, preset, points, rule)


def _check_axis(where: str, preset: str, points: Sequence[Point], rule: Rate) -> None:
    """A rate needs an axis of positive numbers, three or more on each line."""
    if any(isinstance(p.get(rule.axis), str | None) or p[rule.axis] <= 0 for p in points):
        fail(where, "rule", f"have its axis {rule.axis!r} as a positive number in every point of grid[{preset!r}]",
             f"axes {sorted({name for p in points for name in p})}")
    lines: dict[Point, int] = {}
    for p in points:
        lines[p.without(rule.axis)] = lines.get(p.without(rule.axis), 0) + 1
    if min(lines.values()) < 3:
        fail(where, f"grid[{preset!r}]", f"have three or more values of {rule.axis!r} on every line", min(lines.values()))


class per_seed:  # noqa: N801 - used as a decorator
    """Lift ``f(point, rng) -> {column: float or 1-D array}`` to a measure over keys, one Generator a trial.

    Each trial sees only its own key, so the result on some keys equals that on any split of them, bit for bit.
    """

    def __init__(self, function: Callable[[Point, np.random.Generator], Mapping[str, Any]]) -> None:
        self.function = function
        update_wrapper(self, function)

    def __call__(self, point: Point, keys: Sequence[int]) -> dict[str, np.ndarray]:
        trials = [self.function(point, rng_.generator(k)) for k in keys]
        for trial in trials:
            if trial.keys() != trials[0].keys():
                fail(self.function.__name__, "columns", f"be {', '.join(trials[0])} in every trial", ", ".join(trial))
        return {name: np.array([t[name] for t in trials], dtype=np.float64) for name in trials[0]} if trials else {}

    def __reduce__(self) -> str:
        return self.function.__qualname__  # pickled by name, like any module-level function
