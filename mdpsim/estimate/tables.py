"""Episodes from a flat table, a row a step: what ``Trajectories.from_table`` and ``Preferences.from_table`` read.

A table is anything whose columns are found by name: a pandas DataFrame, a structured numpy array, a mapping of columns. Its
rows may stand in any order: episodes are put in the order of their ids, steps in that of t. Nothing is guessed. Columns of
integers are numbers from 0; text, or anything with given labels, is labels, numbered in the order given, else sorted. Episodes
of different lengths, or tables that do not say where the last action led, need a state to end in: ``terminal`` names it.

Every fault is named by episode and t.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mdpsim.arrays import IntArray, _dtype, as_array, as_count, as_numbers, axes_of, fail, shown, unknown
from mdpsim.memory import GIB, machine

Label = str | int
NUMBER = "hold integers, or text where it holds labels"


class Names(NamedTuple):
    """The names of the columns of a step, as the user gave them; ``next_state`` and ``reward`` may be None."""

    t: str
    state: str
    action: str
    reward: str | None
    next_state: str | None


class Spaces(NamedTuple):
    """What the user said of states and actions, unguarded: sizes, labels, the label of the state that ends episodes."""

    S: Any
    A: Any
    state_labels: Any
    action_labels: Any
    terminal: Any


def as_labels(function: str, argument: str, labels: Any, n: int | None = None) -> tuple[Label, ...]:
    """Guard labels: a sequence of different strings or integers, n of them where n is given."""
    if isinstance(labels, str) or (not isinstance(labels, Sequence) and axes_of(labels) < 1):
        fail(function, argument, "be a sequence of different strings or integers", shown(labels))
    held = [int(x) if isinstance(x, numbers.Integral) and not isinstance(x, bool) else x for x in list(labels)]
    for x in held:
        if isinstance(x, bool | np.bool_) or not isinstance(x, str | int):
            fail(function, argument, "hold strings or integers", f"{x!r} of type {type(x).__name__}")
    found = tuple(str(x) if isinstance(x, str) else x for x in held)
    if len(set(found)) < len(found):
        fail(function, argument, "be different", f"{next(x for x in found if found.count(x) > 1)!r} twice")
    if n is not None and len(found) != n:
        fail(function, argument, f"have a label for each of {n}", f"{len(found)} labels")
    return found


def read_episodes(function: str, table: Any, episode: str, names: Names, spaces: Spaces) -> dict[str, Any]:
    """The arguments of Trajectories: states, actions, rewards, S, A and labels. Cost: a sort of the rows, and O(N H)."""
    columns = _Columns(function, table)
    ids, code = np.unique(columns.keys(episode), return_inverse=True)
    return _episodes(columns, code, ids.size, lambda e: f"episode {ids[e].item()!r}", names, spaces)


def read_pairs(
    function: str, table: Any, pair: str, which: str, label: str, names: Names, spaces: Spaces
) -> tuple[dict[str, Any], dict[str, Any], IntArray]:
    """The arguments of two Trajectories, first and second, and the label of each pair. Cost: as ``read_episodes``."""
    columns = _Columns(function, table)
    ids, code = np.unique(columns.keys(pair), return_inverse=True)
    side = columns.sides(which)

    def pair_of(row: int) -> str:
        return f"pair {ids[code[row]].item()!r}"

    both = np.bincount(2 * code + side, minlength=2 * ids.size).reshape(-1, 2)
    if not both.all():
        p, k = (int(i) for i in np.argwhere(both == 0)[0])
        fail(function, f"column {which!r}", "name both episodes of each pair", f"no {SIDES[k]} in pair {ids[p].item()!r}")
    given = columns.integers(label, lambda i: f"in {pair_of(i)}")
    bad = (given < 0) | (given > 1)
    if bad.any():
        i = int(bad.argmax())
        fail(function, f"column {label!r}", "hold 1 (the first is preferred) or 0", f"{given[i]} in {pair_of(i)}")
    labels = np.zeros(ids.size, np.int64)
    labels[code] = given
    if (labels[code] != given).any():
        i = int((labels[code] != given).argmax())
        fail(function, f"column {label!r}", "be one in every row of a pair", f"0 and 1 in {pair_of(i)}")
    found = _episodes(
        columns, 2 * code + side, 2 * ids.size, lambda e: f"pair {ids[e // 2].item()!r}, {SIDES[e % 2]}", names, spaces
    )
    starts = found["states"][:, 0].reshape(-1, 2)
    if (starts[:, 0] != starts[:, 1]).any():
        p = int((starts[:, 0] != starts[:, 1]).argmax())
        named = [found["state_labels"][s] if found["state_labels"] else int(s) for s in starts[p]]
        wanted = "be one in both episodes of a pair at t = 0 (a preference is between episodes of one context)"
        fail(function, f"column {names.state!r}", wanted, f"{named[0]!r} and {named[1]!r} in pair {ids[p].item()!r}")
    first, second = ({**found, **{k: found[k][i::2] for k in ("states", "actions", "rewards")}} for i in (0, 1))
    return first, second, labels


SIDES = ("first", "second")


class _Columns:
    """The columns of a table, by name, each guarded and of one length."""

    def __init__(self, function: str, table: Any) -> None:
        self.function, self.table, self.rows = function, table, -1
        dtype = getattr(table, "dtype", None)
        if getattr(dtype, "names", None):
            self.known = list(dtype.names)  # type: ignore[union-attr]
        elif hasattr(table, "columns") and hasattr(table, "__getitem__"):
            self.known = list(table.columns)
        elif isinstance(table, Mapping):
            self.known = list(table)
        else:
            wanted = "be a table: a DataFrame, a structured array or a mapping of columns"
            fail(function, "table", wanted, f"{type(table).__name__}{'' if dtype is None else f' of dtype {dtype}'}")

    def get(self, name: Any) -> np.ndarray:
        """One column [rows]."""
        argument = f"column {name!r}"
        if name not in self.known:
            unknown(self.function, argument, name, map(str, self.known))
        column = self.table[name]
        a = as_array(self.function, argument, column, lambda: "be one column")
        if isinstance(column, list | tuple) and a.dtype.kind in "fU":  # numpy makes text of 1 beside "a", 1.0 of 1 beside 2.0
            a = np.array(column, dtype=object)
        if a.ndim != 1:
            fail(self.function, argument, "be one column", f"shape {a.shape}")
        if a.size == 0:
            fail(self.function, argument, "have a row at least", "none")
        if self.rows not in (-1, a.size):
            fail(self.function, argument, f"have {self.rows} rows, as the columns before it", a.size)
        if 8.0 * a.size > machine():  # a view may repeat one number for ever
            fail(self.function, argument, "fit in memory", f"{a.size} rows")
        self.rows = a.size
        return a

    def keys(self, name: Any, where: Callable[[int], str] = "in row {}".format) -> np.ndarray:
        """A column of integers (int64) or of text (numpy's str); ``where`` says which row is at fault."""
        a, argument = self.get(name), f"column {name!r}"
        if a.dtype.kind in "OT":
            held = a.tolist()
            for i, x in enumerate(held):
                text = isinstance(x, str)
                if not text and (isinstance(x, bool) or not isinstance(x, numbers.Integral)):
                    what = "nothing" if _missing(x) else f"{x!r} of type {type(x).__name__}"
                    fail(self.function, argument, NUMBER, f"{what} {where(i)}")
                if text != isinstance(held[0], str):
                    fail(self.function, argument, "hold integers or text, not both", f"{held[0]!r} and {x!r} {where(i)}")
            a = np.array(held) if isinstance(held[0], str) else _whole(held)
        if a.dtype.kind == "f":
            lost = np.isnan(a)
            hint = "nan is what is missing" if lost.any() else "x.astype(int) if all are whole"
            i = int(lost.argmax()) if lost.any() else 0
            fail(self.function, argument, NUMBER, f"dtype {a.dtype}, {a[i]} {where(i)} ({hint})")
        if a.dtype.kind not in "iuU":
            hint = {"b": " (x.astype(int) makes 0 and 1 of it)", "S": " (x.astype(str) makes text of bytes)"}
            fail(self.function, argument, NUMBER, f"{_dtype(a, self.table[name])}{hint.get(a.dtype.kind, '')}")
        if a.dtype.kind in "iu" and (int(a.min()) < -(2**63) or int(a.max()) >= 2**63):
            fail(self.function, argument, "hold integers below 2^63", int(a.max()))
        return a.astype(np.int64) if a.dtype.kind in "iu" else a

    def integers(self, name: Any, where: Callable[[int], str]) -> IntArray:
        """A column of integers."""
        a = self.keys(name, where)
        if a.dtype.kind != "i":
            fail(self.function, f"column {name!r}", "hold integers", f"{a[0].item()!r} {where(0)}")
        return a

    def sides(self, name: Any) -> IntArray:
        """The column that says which episode of a pair a row is of: 0 is the first, 1 the second."""
        a = self.keys(name)
        table: dict[Any, int] = dict(zip(SIDES, (0, 1), strict=True)) if a.dtype.kind == "U" else {0: 0, 1: 1}
        side = np.array([table.get(x, -1) for x in a.tolist()])
        if (side < 0).any():
            i = int((side < 0).argmax())
            fail(self.function, f"column {name!r}", "hold 0 and 1, or 'first' and 'second'", f"{a[i].item()!r} in row {i}")
        return side


def _missing(x: Any) -> bool:
    """Whether an entry stands for nothing: None, NaN, pandas' NA and NaT."""
    return x is None or type(x).__name__ in ("NAType", "NaTType") or (isinstance(x, float) and x != x)


def _whole(held: list[Any]) -> np.ndarray:
    """Python's integers as an array; those beyond 64 bits as the largest of uint64, which the caller refuses."""
    fits = all(-(2**63) <= int(x) < 2**63 for x in held)
    return np.array(held, np.int64) if fits else np.array([2**64 - 1], np.uint64)


def _episodes(
    columns: _Columns, code: IntArray, n: int, name: Callable[[int], str], names: Names, spaces: Spaces
) -> dict[str, Any]:
    """The arguments of Trajectories for n episodes: row i of the table is a step of episode code[i]."""
    where = columns.function
    t = columns.integers(names.t, lambda i: f"in a row of {name(int(code[i]))}")

    def step(i: int) -> str:
        return f"in {name(int(code[i]))} at t = {t[i]}"

    order, lengths = _in_order(where, names.t, code, t, n, name)
    at_state, ahead, labels, S, end = _states(columns, names, spaces, step)
    action_column = columns.keys(names.action, step)
    (actions,), action_labels, A = _numbered(
        where, [(names.action, action_column)], "action_labels", spaces.action_labels, "A", spaces.A, step
    )
    earned = _rewards(columns, names.reward, step)
    horizon, e, h = int(lengths.max()), code[order], t[order]
    if end is None and lengths.min() < horizon:
        wanted = "be given where episodes have different lengths: the label of a state, added last, in which they then stay"
        short, long = int(lengths.argmin()), int(lengths.argmax())
        got = f"None, {name(short)} of {lengths[short]} steps and {name(long)} of {lengths[long]}"
        fail(where, "terminal", wanted, got)
    if end is None and ahead is None:
        wanted = "be given where no column says what state the last action led to: the label of a state, added last, for that"
        fail(where, "terminal", wanted, f"None, and no column {names.next_state!r}")
    needed, there = 8.0 * n * (3 * horizon + 1), machine()
    if needed > there:
        fail(where, "table", f"have episodes that fit {there / GIB:.3g} GiB of memory", f"{n} of up to {horizon} steps")
    states = np.full((n, horizon + 1), 0 if end is None else end, np.int64)
    padded, rewards = np.zeros((n, horizon), np.int64), np.zeros((n, horizon))
    states[e, h], padded[e, h], rewards[e, h] = at_state[order], actions[order], earned[order]
    if ahead is not None:
        then = ahead[order]
        inside = h + 1 < lengths[e]
        broken = inside & (then != states[e, h + 1])
        if broken.any():
            i = int(broken.argmax())
            show = [labels[s] if labels else int(s) for s in (then[i], states[e[i], h[i] + 1])]
            got = f"{show[0]!r} {step(int(order[i]))}, and {show[1]!r} in the row after it"
            fail(where, f"column {names.next_state!r}", "be the state of the next row", got)
        last = h + 1 == horizon
        states[e[last], horizon] = then[last]
    return {"states": states, "actions": padded, "rewards": rewards, "S": S, "A": A, "state_labels": labels,
            "action_labels": action_labels}


def _in_order(
    where: str, column: str, code: IntArray, t: IntArray, n: int, name: Callable[[int], str]
) -> tuple[IntArray, IntArray]:
    """(the rows by episode and t, the length of each episode): every episode has t = 0, 1, .., once each."""
    order = np.lexsort((t, code))
    lengths = np.bincount(code, minlength=n)
    e = code[order]
    wrong = t[order] != np.arange(t.size) - (np.cumsum(lengths) - lengths)[e]
    if wrong.any():
        i = int(wrong.argmax())
        first = i == 0 or e[i - 1] != e[i]
        found, before = int(t[order[i]]), -1 if first else int(t[order[i - 1]])
        argument, wanted = f"column {column!r}", "count the steps of each episode: 0, 1, .., each once"
        if not first and found == before:
            fail(where, argument, wanted, f"t = {found} twice in {name(int(e[i]))}")
        hint = " (steps that count from 1: subtract 1)" if first and found == 1 else ""
        fail(where, argument, wanted, f"no t = {before + 1} in {name(int(e[i]))}, which has t = {found}{hint}")
    return order, lengths


def _states(
    columns: _Columns, names: Names, spaces: Spaces, step: Callable[[int], str]
) -> tuple[IntArray, IntArray | None, tuple[Label, ...] | None, int, int | None]:
    """(states [rows], next states [rows] or None, labels or None, S, the number of the state that ends episodes or None)."""
    where, terminal, labels, S = columns.function, spaces.terminal, spaces.state_labels, spaces.S
    if terminal is not None and (not isinstance(terminal, str) or not terminal):
        fail(where, "terminal", "be None, or a string: the label of a state that is added", repr(terminal))
    given = [(names.state, columns.keys(names.state, step))]
    if names.next_state is not None and (names.next_state != "next_state" or "next_state" in columns.known):
        given.append((names.next_state, columns.keys(names.next_state, step)))
    if terminal is not None and labels is not None:
        held = as_labels(where, "state_labels", labels)
        labels = held[:-1] if held and held[-1] == terminal else held  # those of a record made with the same terminal
    numbered, found, n_states = _numbered(where, given, "state_labels", labels, "S", S, step)
    end = None
    if terminal is not None:
        end, n_states = n_states, n_states + 1
        if found is not None and terminal in found:
            fail(where, "terminal", "be a label that no state of the table has: a state is added", repr(terminal))
        found = None if found is None else (*found, terminal)
    return numbered[0], numbered[1] if len(numbered) > 1 else None, found, n_states, end


def _numbered(
    where: str, columns: list[tuple[str, np.ndarray]], argument: str, labels: Any, size: str, n: Any,
    step: Callable[[int], str],
) -> tuple[list[IntArray], tuple[Label, ...] | None, int]:
    """Columns of one kind of thing as numbers: (the numbers, the labels or None, how many there are)."""
    count = None if n is None else as_count(where, size, n)
    kinds = {a.dtype.kind for _, a in columns}
    if len(kinds) > 1:
        got = " and ".join(f"{a[0].item()!r} in {name!r}" for name, a in columns)
        fail(where, f"column {columns[1][0]!r}", f"hold what column {columns[0][0]!r} holds", got)
    if labels is None and kinds == {"i"}:
        for name, a in columns:
            bad = (a < 0) | (a >= (2**62 if count is None else count))
            if bad.any():
                i = int(bad.argmax())
                limit = ">= 0" if count is None else f"in [0, {count})"
                fail(where, f"column {name!r}", f"hold numbers {limit}, or come with {argument}", f"{a[i]} {step(i)}")
        return [a for _, a in columns], None, count or 1 + max(int(a.max()) for _, a in columns)
    if labels is None:
        held: tuple[Label, ...] = tuple(np.unique(np.concatenate([a for _, a in columns])).tolist())
    else:
        held = as_labels(where, argument, labels)
    if count is not None and count != len(held):
        fail(where, size, f"be the number of labels, {len(held)} ({argument} names those that the table lacks)", count)
    place = {x: i for i, x in enumerate(held)}
    found = []
    for name, a in columns:
        kept, inverse = np.unique(a, return_inverse=True)
        numbers_of = np.array([place.get(x, -1) for x in kept.tolist()])[inverse]
        if (numbers_of < 0).any():
            i = int((numbers_of < 0).argmax())
            fail(where, f"column {name!r}", f"hold labels of {argument}", f"{a[i].item()!r} {step(i)}")
        found.append(numbers_of)
    return found, held, len(held)


def _rewards(columns: _Columns, name: str | None, step: Callable[[int], str]) -> np.ndarray:
    """Rewards [rows]; 0 where the user has none."""
    if name is None:
        return np.zeros(columns.rows)
    if name not in columns.known:
        wanted = "be one of the columns, or None where no reward was seen (0 is kept)"
        fail(columns.function, "reward", wanted, f"{name!r}, columns {', '.join(map(str, columns.known))}")
    column = columns.get(name)
    if column.dtype == object:
        column = column.tolist()
        for i, x in enumerate(column):
            if _missing(x) or not isinstance(x, numbers.Real):
                what = "nothing" if _missing(x) else f"{x!r} of type {type(x).__name__}"
                fail(columns.function, f"column {name!r}", "hold numbers", f"{what} {step(i)}")
    earned = as_numbers(columns.function, f"column {name!r}", column)
    if not np.isfinite(earned).all():
        i = int(np.isfinite(earned).argmin())
        fail(columns.function, f"column {name!r}", "be finite", f"{earned[i]} {step(i)}")
    return earned
