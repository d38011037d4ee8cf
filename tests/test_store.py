"""The store: nothing finished is lost, nothing damaged is overwritten, every refusal says what to do."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import toy
from mdpsim import Store, run
from mdpsim.store import as_store, record_key

POINT = toy.GRID["quick"][0]
NASTY = {"value": np.array([np.inf, -0.0, 5e-324, 0.1 + 0.2, -1.7976931348623157e308]), "bound": np.arange(5.0)}


def test_values_come_back_bit_for_bit(tmp_path: Path) -> None:
    curve = np.array([[1.0, np.inf], [0.1, 0.2], [0.3, 1e-300]])
    with Store(tmp_path / "s.db") as store:
        store.add(toy.coins, "claim", POINT, 0, range(5), NASTY, 0.1)
        store.add(toy.coins, "claim", toy.GRID["quick"][1], 0, range(3), {"curve": curve}, 0.1)
    with Store(tmp_path / "s.db") as store:
        arms = store.records(toy.coins, "quick", 0).arms["claim"]
    for name, values in NASTY.items():
        assert arms[POINT][name].tobytes() == values.tobytes()
    assert arms[toy.GRID["quick"][1]]["curve"].tobytes() == curve.tobytes()


def test_inserted_once_and_counted_by_trial(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        assert list(store.missing(toy.coins, "claim", POINT, 0, 4)) == [0, 1, 2, 3]
        store.add(toy.coins, "claim", POINT, 0, [0, 2], {"value": np.array([1.0, 3.0])}, 0.1)
        store.add(toy.coins, "claim", POINT, 0, [2], {"value": np.array([3.0])}, 0.1)
        assert list(store.missing(toy.coins, "claim", POINT, 0, 4)) == [1, 3]
        assert list(store.missing(toy.coins, "claim", POINT, 1, 2)) == [0, 1]
        assert len(store.rows()) == 2
        # A hole (a killed run, a trial that raised) is one at every point: trials are paired by their place.
        other = toy.GRID["quick"][1]
        store.add(toy.coins, "claim", other, 0, [0, 1, 2, 3], {"value": np.array([5.0, 6.0, 7.0, 8.0])}, 0.1)
        held = store.records(toy.coins, "quick", 0).arms["claim"]
        assert [held[p]["value"].tolist() for p in (POINT, other)] == [[1.0, 3.0], [5.0, 7.0, 8.0]]
        store.add(toy.coins, "claim", POINT, 0, [1], {"value": np.array([2.0])}, 0.1)
        assert store.records(toy.coins, "quick", 0).arms["claim"][POINT]["value"].tolist() == [1.0, 2.0, 3.0]


def test_keys_are_of_claim_rev_arm_point_seed_and_trial() -> None:
    base = record_key(toy.coins, "claim", POINT, 0, 0)
    others = [
        record_key(replace(toy.coins, id="toy/other"), "claim", POINT, 0, 0), record_key(toy.coins, "half", POINT, 0, 0),
        record_key(replace(toy.coins, rev=2), "claim", POINT, 0, 0), record_key(toy.coins, "claim", POINT, 1, 0),
        record_key(toy.coins, "claim", toy.GRID["quick"][1], 0, 0), record_key(toy.coins, "claim", POINT, 0, 1),
    ]
    assert len({base, *others}) == 7
    assert record_key(replace(toy.coins, statement="other words"), "claim", POINT, 0, 0) == base


def test_other_revisions_stay_and_are_counted(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        run(toy.coins, preset="quick", store=store)
        newer = replace(toy.coins, rev=2)
        records = store.records(newer, "quick", 0)
        assert all(len(columns) == 0 for columns in records.arms["claim"].values())
        assert records.notes == ("600 records of other revisions of this claim are in the store and were ignored",)
        assert store.held() == [("toy/coins", 0, 600)]


def test_a_failed_write_leaves_nothing_and_the_store_usable(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        with pytest.raises(IndexError):
            store.add(toy.coins, "claim", POINT, 0, [0, 1], {"value": np.array([1.0])}, 0.1)
        assert store.rows() == []
        store.add(toy.coins, "claim", POINT, 0, [0], {"value": np.array([1.0])}, 0.1)
        assert len(store.rows()) == 1


def test_two_writers(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as one, Store(tmp_path / "s.db") as two:
        for i in range(10):
            for store in (one, two):
                store.add(toy.coins, "claim", POINT, 0, [i], {"value": np.array([float(i)])}, 0.1)
        assert len(one.rows()) == len(two.rows()) == 10


WRITER = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np, toy
from mdpsim import Store
with Store(sys.argv[1]) as store:
    for i in range(5):
        store.add(toy.coins, "claim", toy.GRID["quick"][0], 0, [i], {{"value": np.array([1.0])}}, 0.1)
    print(len(store.rows()))
"""


def test_processes_that_open_a_new_store_at_once(tmp_path: Path) -> None:
    code = WRITER.format(tests=str(Path(__file__).parent))
    start = [sys.executable, "-c", code, str(tmp_path / "s.db")]
    processes = [subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ended = [(*p.communicate(timeout=120), p.returncode) for p in processes]
    assert [(out.strip(), status) for out, _, status in ended] == [("5", 0)] * 4, ended


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE mine (x)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="^Store: path must be a store of mdpsim; got .*another program's database"):
        Store(path)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    Store(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ValueError, match=r"^Store: path must have schema <= 1 .*; got schema 99"):
        Store(path)


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="^Store: path must be a file; got the directory"):
        Store(tmp_path)
    with pytest.raises(ValueError, match="^Store: path must lie in a directory that can be made"):
        Store(tmp_path / "file" / "s.db")
    with pytest.raises(ValueError, match="^Store: path must be an existing store"):
        Store(tmp_path / "none.db", create=False)
    assert not (tmp_path / "none.db").exists()
    with pytest.raises(ValueError, match="^Store: synchronous must be"):
        Store(tmp_path / "s.db", synchronous="OFF")
    with pytest.raises(ValueError, match="^as_store: store must be"):
        as_store(3)  # type: ignore[arg-type]
    if Path("/proc/version").exists():  # not writable even for root
        with pytest.raises(ValueError, match="^Store: path must "):
            Store("/proc/mdpsim.db")
