"""Saving and loading what was seen of an MDP: one npz file a record, with a versioned header.

The header is a JSON text stored as the array ``header``: {"format": "mdpsim", "schema": 1, "record": "Counts", "n": 10}.
Labels of states and actions stand there too (schema 2). The other arrays are the record's own. Nothing is pickled. A file is
written beside its place and moved there in one step; it is read through the record's constructor, so that a file passes the
same guards as an argument. zip's CRC-32 covers every array.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mdpsim.arrays import fail
from mdpsim.atomic import replacing
from mdpsim.estimate.data import Counts, Trajectories
from mdpsim.estimate.preferences import Preferences

FORMAT, SCHEMA = "mdpsim", 2  # 2: labels of states and actions; what has none is written as 1
# What numpy and zipfile raise at files that are cut, changed, or none of theirs.
DAMAGE = (
    ValueError, KeyError, EOFError, AttributeError, TypeError, NotImplementedError, RuntimeError, MemoryError, OverflowError,
    zipfile.BadZipFile, zlib.error, struct.error,
)

Record = Trajectories | Counts | Preferences


class _Layout(NamedTuple):
    """How a record lies in a file: its arrays, its scalars, and how it is made of both."""

    arrays: Callable[[Any], dict[str, np.ndarray]]
    scalars: Callable[[Any], dict[str, Any]]
    make: Callable[..., Record]


def _episodes(t: Trajectories, prefix: str = "") -> dict[str, np.ndarray]:
    return {f"{prefix}states": t.states, f"{prefix}actions": t.actions, f"{prefix}rewards": t.rewards}


def _spaces(t: Trajectories) -> dict[str, Any]:
    """S, A, and the labels where there are any."""
    labels = {"state_labels": t.state_labels, "action_labels": t.action_labels}
    return {"S": t.S, "A": t.A, **{name: list(value) for name, value in labels.items() if value is not None}}


def _preferences(
    S: int, A: int, label: Any, state_labels: Any = None, action_labels: Any = None, **arrays: Any
) -> Preferences:
    spaces = {"S": S, "A": A, "state_labels": state_labels, "action_labels": action_labels}
    first, second = ([arrays[f"{p}_{name}"] for name in ("states", "actions", "rewards")] for p in ("first", "second"))
    return Preferences(Trajectories(*first, **spaces), Trajectories(*second, **spaces), label)


_LAYOUTS: dict[str, _Layout] = {
    "Trajectories": _Layout(_episodes, _spaces, Trajectories),
    "Counts": _Layout(lambda c: {"visits": c.visits}, lambda c: {"n": c.n}, Counts),
    "Preferences": _Layout(
        lambda p: {**_episodes(p.first, "first_"), **_episodes(p.second, "second_"), "label": p.label},
        lambda p: _spaces(p.first), _preferences,
    ),
}


def save(record: Record, path: str | os.PathLike[str]) -> None:
    """Write Trajectories, Counts or Preferences to a file, bit for bit.

    Args:
        record: what to keep.
        path: of the file; its directory exists. What stands there is replaced in one step: readers see the old file or the new.
    Raises:
        ValueError: another kind of record, or a path that cannot be written.
    """
    kind = type(record).__name__
    if kind not in _LAYOUTS or not isinstance(record, Record):
        fail("save", "record", f"be one of {', '.join(_LAYOUTS)}", kind)
    layout = _LAYOUTS[kind]
    scalars = layout.scalars(record)
    schema = SCHEMA if {"state_labels", "action_labels"} & set(scalars) else 1
    header = {"format": FORMAT, "schema": schema, "record": kind, **scalars}
    try:
        arrays: dict[str, Any] = {"header": np.array(json.dumps(header)), **layout.arrays(record)}
        with replacing(path) as name, open(name, "wb") as stream:
            np.savez(stream, **arrays)
    except OSError as error:
        fail("save", "path", "be a file that can be written", f"{str(path)!r} ({error.strerror or error})")


def load(path: str | os.PathLike[str]) -> Record:
    """Read what ``save`` wrote.

    Returns:
        Trajectories, Counts or Preferences, equal to what was saved in every bit.
    Raises:
        ValueError: no such file, one that is damaged or another program's, one of a newer schema, or arrays that are no such
            record; the message names the path.
    """
    if not isinstance(path, str | os.PathLike):  # an integer would be an open file descriptor
        fail("load", "path", "be a path", repr(path))
    where = f"load({str(path)!r})"
    try:
        with open(path, "rb") as stream, zipfile.ZipFile(stream) as held:
            arrays = {member.filename.removesuffix(".npy"): _array(held, member) for member in held.infolist()}
    except OSError as error:
        fail(where, "path", "be a file written by mdpsim.save", error.strerror or error)
    except DAMAGE as error:
        fail(where, "the file", "be one written by mdpsim.save, undamaged", error)
    kind, scalars = _header(where, arrays.pop("header", None))
    try:
        return _LAYOUTS[kind].make(**scalars, **arrays)
    except (TypeError, KeyError) as error:
        fail(where, "the file", f"hold the arrays and sizes of {kind}", error)
    except ValueError as error:  # the record's own guard, which does not know the file
        fail(where, "the file", f"hold a valid record of {kind}", error)


def _array(held: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array, of no more bytes than the file has for it: a few bytes must not ask for gigabytes."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError(f"{member.filename} is compressed or encrypted")
    with held.open(member) as stream:
        major, _ = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded: they are code")
        if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{member.filename} says it has shape {shape}, more than the file holds")
    with held.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _header(where: str, header: np.ndarray | None) -> tuple[str, dict[str, Any]]:
    """The record's kind and scalars, checked."""
    try:
        given = json.loads(str(header[()])) if header is not None and header.ndim == 0 else None
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or given.pop("format", None) != FORMAT:
        fail(where, "the file", "have the header of mdpsim.save", "another program's arrays")
    schema, kind = given.pop("schema", None), given.pop("record", None)
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        fail(where, "the file", f"have schema <= {SCHEMA} (this mdpsim's), from 1", f"schema {schema}")
    if not isinstance(kind, str) or kind not in _LAYOUTS:
        fail(where, "the file", f"hold one of {', '.join(_LAYOUTS)}", repr(kind))
    return kind, given
