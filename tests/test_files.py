"""Records go through files unchanged in every bit; a damaged file is an error, never another record."""

from __future__ import annotations

import io
import json
import os
import zipfile

import numpy as np
import pytest

import mdpsim
from mdpsim.mdp import families

MDP = families.random_mdp(S=3, A=2, H=4, rng=0, start="uniform")
PI = families.uniform_policy(4, 3, 2)
RECORDS = {
    "Trajectories": mdpsim.sample(MDP, PI, 7, 0),
    "Counts": mdpsim.sample_counts(MDP, PI, 10**12, 0),
    "Preferences": mdpsim.sample_preferences(MDP, PI, PI, 5, 0),
}
BY_RECORD = pytest.mark.parametrize("name", RECORDS)


def flat(record):
    """Every array and number of a record."""
    found = {}
    for name, value in vars(record).items():
        found |= {f"{name}.{k}": v for k, v in flat(value).items()} if isinstance(value, mdpsim.Trajectories) else {name: value}
    return found


def same(a, b):
    x, y = flat(a), flat(b)
    return type(a) is type(b) and x.keys() == y.keys() and all(
        np.asarray(x[k]).dtype == np.asarray(y[k]).dtype and np.asarray(x[k]).tobytes() == np.asarray(y[k]).tobytes() for k in x
    )


@BY_RECORD
def test_round_trip_is_bitwise(name, tmp_path):
    mdpsim.save(RECORDS[name], tmp_path / "r.npz")
    assert same(mdpsim.load(tmp_path / "r.npz"), RECORDS[name])
    assert os.listdir(tmp_path) == ["r.npz"]
    assert not same(RECORDS["Trajectories"], mdpsim.sample(MDP, PI, 7, 1))


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "r.npz"
    mdpsim.save(RECORDS["Counts"], path)

    def full(*args, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(ValueError, match="path must be a file that can be written; got .*No space left"):
        mdpsim.save(RECORDS["Trajectories"], path)
    monkeypatch.undo()
    assert same(mdpsim.load(path), RECORDS["Counts"])
    assert os.listdir(tmp_path) == ["r.npz"]


@BY_RECORD
def test_a_cut_or_changed_file_is_an_error_or_the_record(name, tmp_path):
    """Cut at 40 lengths, and one byte changed at 300 places: zip's directory and CRC-32 tell, or nothing was lost."""
    path, bad = tmp_path / "r.npz", tmp_path / "bad.npz"
    mdpsim.save(RECORDS[name], path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    cuts = [whole[:n] for n in rng.integers(0, len(whole), 40)]
    flips = []
    for i in rng.integers(0, len(whole), 300):
        changed = bytearray(whole)
        changed[i] ^= int(rng.integers(1, 256))
        flips.append(bytes(changed))
    refused = 0
    for data in cuts + flips:
        bad.write_bytes(data)
        try:
            found = mdpsim.load(bad)
        except ValueError as error:
            refused += str(bad) in str(error)
        else:
            assert same(found, RECORDS[name])
    assert refused > 250


def rewritten(path, **changes):
    """A saved file of counts with other arrays or another header; None leaves an array out."""
    mdpsim.save(RECORDS["Counts"], path)
    with np.load(path) as held:
        arrays = dict(held) | changes
    header = json.loads(str(arrays["header"])) if "header" not in changes else changes["header"]
    header = header if isinstance(header, np.ndarray) else np.array(json.dumps(header))
    np.savez(path, **{k: v for k, v in (arrays | {"header": header}).items() if v is not None})


HEADER = {"format": "mdpsim", "schema": 1, "record": "Counts", "n": 10**12}


@pytest.mark.parametrize(("changes", "message"), [
    ({"header": HEADER | {"schema": 3}}, r"have schema <= 2 \(this mdpsim.s\), from 1; got schema 3"),
    ({"header": HEADER | {"schema": 0}}, "from 1; got schema 0"),
    ({"header": HEADER | {"schema": True}}, "from 1; got schema True"),
    ({"header": HEADER | {"record": ["Counts"]}}, "hold one of Trajectories"),
    ({"header": np.array("[" * 100_000)}, "have the header"),
    ({"header": HEADER | {"format": "other"}}, "have the header of mdpsim.save"),
    ({"header": HEADER | {"record": "MDP"}}, "hold one of Trajectories, Counts, Preferences; got 'MDP'"),
    ({"header": np.array(3.0)}, "have the header"),
    ({"header": np.array(["{}"])}, "have the header"),
    ({"header": HEADER | {"n": 3}}, "visits must have entries in"),
    ({"header": HEADER | {"m": 3}}, "hold the arrays and sizes of Counts"),
    ({"visits": None}, "hold the arrays and sizes of Counts"),
    ({"more": np.zeros(3)}, "hold the arrays and sizes of Counts"),
    ({"visits": np.zeros((4, 3, 2))}, "visits must hold integers"),
    ({"visits": np.array([[["x"]]], dtype=object)}, "be one written by mdpsim.save, undamaged; got Object arrays cannot"),
])
def test_files_that_are_something_else(tmp_path, changes, message):
    path = tmp_path / "r.npz"
    rewritten(path, **changes)
    with pytest.raises(ValueError, match=message) as refused:
        mdpsim.load(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("shape", [(10**12,), (10**30,), (2**31, 2**31), (-1, 3)])
def test_a_few_bytes_do_not_ask_for_gigabytes(tmp_path, shape):
    path = tmp_path / "r.npz"
    mdpsim.save(RECORDS["Counts"], path)
    with zipfile.ZipFile(path) as held:
        members = {name: held.read(name) for name in held.namelist()}
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<i8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (members | {"visits.npy": stream.getvalue() + b"\0" * 64}).items():
            file.writestr(name, data)
    with pytest.raises(ValueError, match="undamaged; got") as refused:
        mdpsim.load(path)
    assert str(path) in str(refused.value)


def test_compressed_arrays_are_refused(tmp_path):
    """A megabyte of zip can hold a gigabyte of zeros."""
    path = tmp_path / "r.npz"
    mdpsim.save(RECORDS["Counts"], path)
    with np.load(path) as held:
        np.savez_compressed(path, **held)
    with pytest.raises(ValueError, match="is compressed or encrypted"):
        mdpsim.load(path)


@pytest.mark.parametrize("path", [0, True, None, b"x"])
def test_file_descriptors_are_no_paths(path):
    with pytest.raises(ValueError, match="^load: path must be a path"):
        mdpsim.load(path)


def test_permissions_and_links_of_what_is_saved(tmp_path):
    victim, path = tmp_path / "victim.txt", tmp_path / "r.npz"
    victim.write_text("mine")
    path.symlink_to(victim)
    before = os.umask(0o027)
    try:
        mdpsim.save(RECORDS["Counts"], path)
    finally:
        os.umask(before)
    assert victim.read_text() == "mine"
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640


def test_paths_that_are_no_file(tmp_path):
    with pytest.raises(ValueError, match="path must be a file written by mdpsim.save; got No such file"):
        mdpsim.load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="path must be a file written by mdpsim.save; got Is a directory"):
        mdpsim.load(tmp_path)
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("empty.npz", "one.npy"):
        with pytest.raises(ValueError, match="the file must be one written by mdpsim.save"):
            mdpsim.load(tmp_path / name)
    with pytest.raises(ValueError, match="path must be a file that can be written; got .*No such file"):
        mdpsim.save(RECORDS["Counts"], tmp_path / "no" / "r.npz")
    with pytest.raises(ValueError, match="record must be one of Trajectories, Counts, Preferences; got MDP"):
        mdpsim.save(MDP, tmp_path / "r.npz")
