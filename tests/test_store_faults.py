"""What can happen to a store's file: damage, deletion, strangers. Nothing is lost without a word, nothing foreign touched."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import toy
from mdpsim import Store, run
from mdpsim.claims.records import RecordConflictError
from mdpsim.store import StoreLostError, StoreWarning
from mdpsim.store.schema import APPLICATION_ID, checksum
from mdpsim.store.store import keys, record_key

POINT, OTHER = toy.GRID["quick"][:2]


def fill(path: Path, n: int = 100) -> None:
    with Store(path) as store:
        for point in toy.GRID["quick"]:
            store.add(toy.coins, "claim", point, 0, range(n), {"value": np.arange(float(n))}, 0.1)


def held(store: Store, point=POINT) -> list[float]:
    return store.records(toy.coins, "quick", 0).arms["claim"][point].get("value", np.zeros(0)).tolist()


def test_keys_hashed_once_are_the_same_keys() -> None:
    key_of = keys(toy.coins, "claim", POINT, 7)
    assert [key_of(i) for i in (0, 9, 10, 2**40)] == [record_key(toy.coins, "claim", POINT, 7, i) for i in (0, 9, 10, 2**40)]


# --- somebody else's file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"\\documentclass{article}\n" * 9, b"x", b"SQLite format 2\0" * 10, b"\0" * 5000])
def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thesis.tex"
    path.write_bytes(content)
    for writable in (True, False):
        with pytest.raises(ValueError, match=r"^Store: path must be a store of mdpsim; got .*no sqlite database"):
            Store(path, writable=writable)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_damaged_database_without_our_mark_is_not_moved(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE mine (x)")
    db.executemany("INSERT INTO mine VALUES (?)", [("x" * 500,)] * 100)
    db.commit()
    db.close()
    data = bytearray(path.read_bytes())
    data[100:4096] = os.urandom(3996)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"^Store: path must"):
        Store(path)
    assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["other.db"]


@pytest.mark.parametrize("statement", [
    "CREATE VIEW v AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
    "CREATE TRIGGER t AFTER INSERT ON records BEGIN UPDATE records SET trial = trial + 1000000 WHERE key = NEW.key; END",
    "CREATE TABLE more (x)",
    "ALTER TABLE series ADD COLUMN note TEXT",
])
def test_a_store_with_more_in_it_is_refused(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "s.db"
    fill(path)
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()
    for writable in (True, False):
        with pytest.raises(ValueError, match=r"^Store: path must hold the tables of a store"):
            Store(path, writable=writable)


def test_a_view_in_the_place_of_a_table_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    fill(path)
    db = sqlite3.connect(path)
    db.execute("ALTER TABLE series RENAME TO gone")
    db.execute("CREATE VIEW series AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id FROM n")
    db.commit()
    db.close()
    with pytest.raises(ValueError, match="must hold the tables of a store"):
        Store(path, writable=False)


@pytest.mark.parametrize("version", [-1, 2])
def test_schemas_of_no_mdpsim(tmp_path: Path, version: int) -> None:
    path = tmp_path / "s.db"
    fill(path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={version}")
    db.close()
    with pytest.raises(ValueError, match=f"schema {version}"):
        Store(path)


# --- damage --------------------------------------------------------------------------------------------------------------


def test_one_bad_page_costs_what_it_hit(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    fill(path, 1500)
    whole = dict(Store(path).rows())
    data = bytearray(path.read_bytes())
    pages = len(data) // 4096
    hit = next(i for i in range(pages // 2, pages) if data[4096 * i] == 10 and b'"value"' in data[4096 * i : 4096 * (i + 1)])
    data[4096 * hit : 4096 * hit + 200] = os.urandom(200)
    path.write_bytes(data)
    with pytest.warns(StoreWarning, match=r"moved aside to .* \d+ of its records could be read"):
        store = Store(path)
    with store:
        kept = dict(store.rows())
        assert kept.items() <= whole.items()
        assert len(whole) - 100 < len(kept) < len(whole)  # a page of 4096 bytes holds a few dozen
        left = sum(len(list(store.missing(toy.coins, "claim", p, 0, 1500))) for p in toy.GRID["quick"])
        assert left == len(whole) - len(kept)
    (aside,) = (p for p in tmp_path.glob("s.db.corrupt-*") if not p.name.endswith(("-wal", "-shm")))
    assert aside.read_bytes() == bytes(data), "the damaged file must be kept as it was"
    with Store(path) as store:  # and now it is whole: nothing is said
        assert dict(store.rows()) == kept


@pytest.mark.parametrize("damage", ["everything but the first page", "cut short"])
def test_a_ruined_store_is_moved_aside(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s.db"
    fill(path)
    data = path.read_bytes()
    data = data[:4096] + os.urandom(len(data) - 4096) if damage[0] == "e" else data[: 4096 * 3 + 100]
    path.write_bytes(data)
    with pytest.warns(StoreWarning, match="is damaged"):
        store = Store(path)
    with store:
        assert len(store.rows()) < 600
    (aside,) = (p for p in tmp_path.glob("s.db.corrupt-*") if not p.name.endswith(("-wal", "-shm")))
    assert aside.read_bytes() == data


BAD_ROWS = {
    "checksum": "UPDATE records SET checksum = checksum + 1 WHERE trial = 3",
    "digit": """UPDATE records SET "values" = replace("values", '0.', '1.') WHERE trial = 3""",
    "trial": "UPDATE records SET trial = 777 WHERE trial = 3",
    "blob": """UPDATE records SET "values" = x'ff00fe' WHERE trial = 3""",
    "text key": "UPDATE records SET key = 'key' WHERE trial = 3 AND series = 1",
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_damaged_row_is_left_out_said_and_measured_again(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.db"
    run(toy.coins, preset="quick", store=(store := Store(path)))
    before = {p: held(store, p) for p in toy.GRID["quick"]}
    store.close()
    db = sqlite3.connect(path)
    db.execute(BAD_ROWS[kind])
    db.commit()
    db.close()
    with Store(path, writable=False) as store:
        records = store.records(toy.coins, "quick", 0)
        assert len(records.arms["claim"][POINT]["value"]) == 99
        if kind != "trial":
            assert any("damaged and were left out; 'mdpsim verify' measures them again" in note for note in records.notes)
    with Store(path) as store:
        assert 3 in store.missing(toy.coins, "claim", POINT, 0, 100)
        run(toy.coins, preset="quick", store=store)
        assert {p: held(store, p) for p in toy.GRID["quick"]} == before


@pytest.mark.parametrize("values", [
    "[" * 100_000, '{"value": {"a": 1}}', '{"value": NaN}', '{"value": null}', '{"value": true}', '{"value": "0.1"}', "[]",
    "{}", "3", '{"value": ' + "9" * 400 + "}", '{"value": [[1.0]]}',
])
def test_hostile_values_with_a_fitting_checksum_are_damage(tmp_path: Path, values: str) -> None:
    path = tmp_path / "s.db"
    fill(path)
    key = record_key(toy.coins, "claim", POINT, 0, 3)
    db = sqlite3.connect(path)
    db.execute('UPDATE records SET "values" = ?, checksum = ? WHERE key = ?', (values, checksum(key, values.encode()), key))
    db.commit()
    db.close()
    with Store(path) as store:
        assert held(store) == [float(i) for i in range(100) if i != 3]
        assert list(store.missing(toy.coins, "claim", POINT, 0, 5)) == [3]


def test_versions_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    fill(path)
    db = sqlite3.connect(path)
    db.execute("UPDATE runs SET versions = '[1, 2]'")
    db.commit()
    db.close()
    with Store(path) as store:
        assert store.records(toy.coins, "quick", 0).versions == {}


def test_a_second_different_value_is_an_error_that_shows_both(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        store.add(toy.coins, "claim", POINT, 0, [0, 1], {"value": np.array([1.0, 2.0])}, 0.1)
        with pytest.raises(RecordConflictError, match=r'trial 1: measured {"value":9.0}, but the store holds {"value":2.0}'):
            store.add(toy.coins, "claim", POINT, 0, [1, 2], {"value": np.array([9.0, 3.0])}, 0.1)
        assert held(store) == [1.0, 2.0]


# --- a file that goes ----------------------------------------------------------------------------------------------------


def rescued(folder: Path) -> list[Path]:
    return sorted(folder.glob("s.db.rescued-*"))


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_store_that_goes_is_noticed_and_its_records_saved(tmp_path: Path, how: str) -> None:
    path = tmp_path / "s.db"
    store = Store(path)
    store.add(toy.coins, "claim", POINT, 0, [0], {"value": np.array([1.0])}, 0.1)
    if how == "deleted":
        path.unlink()
    else:
        path.rename(tmp_path / "elsewhere.db")
    if how == "replaced":
        for suffix in ("-wal", "-shm"):  # or the new file's connection would take them for its own
            Path(f"{path}{suffix}").rename(tmp_path / f"elsewhere.db{suffix}")
        fill(path)
    what = "replaced by another file" if how == "replaced" else "deleted or moved away"
    with pytest.raises(StoreLostError, match=f"{what}.*2 records that could be saved are in .*rescued-"):
        store.add(toy.coins, "claim", POINT, 0, [1], {"value": np.array([2.0])}, 0.1)
    store.close()
    with Store(rescued(tmp_path)[0], writable=False) as found:
        assert held(found) == [1.0, 2.0]
    if how != "deleted":
        with Store(tmp_path / "elsewhere.db") as found:
            assert held(found) == [1.0, 2.0]


def test_a_store_that_goes_after_the_last_commit_is_noticed_by_the_judge(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "s.db"
    with Store(path) as store:
        run(toy.coins, preset="quick", store=store)
        shutil.rmtree(path.parent)
        with pytest.raises(StoreLostError, match="deleted or moved away"):
            store.records(toy.coins, "quick", 0)


def test_a_log_that_goes(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = Store(path)
    for i in range(3):
        store.add(toy.coins, "claim", POINT, 0, [i], {"value": np.array([float(i)])}, 0.1)
    Path(f"{path}-wal").unlink()
    with pytest.raises(StoreLostError, match="write-ahead log .* run the same command again"):
        store.add(toy.coins, "claim", POINT, 0, [3], {"value": np.array([3.0])}, 0.1)
    store.close()
    with Store(path) as found:
        assert held(found) == [0.0, 1.0, 2.0, 3.0]


# --- readers -------------------------------------------------------------------------------------------------------------


def as_somebody(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run Python as a user who owns nothing here (this test as root), with no bytecode and no home."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv: permissions do not stop root, and nobody else can become another user")
    command = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


READ = """
import sys, sqlite3, os
try:
    open(sys.argv[1], "ab").close()
    raise SystemExit("writable")
except PermissionError:
    pass
sys.path[:0] = sys.argv[2:]
from mdpsim.store.file import open_readable
db, copy = open_readable(sys.argv[1])
print(db.execute("SELECT count(*) FROM records").fetchone()[0], copy is not None)
"""


@pytest.mark.parametrize("with_log", [False, True])
def test_readers_need_no_permission_to_write(tmp_path: Path, with_log: bool, root: Path) -> None:
    folder = Path("/tmp") / f"mdpsim-readers-{os.getpid()}-{with_log}"
    folder.mkdir()
    try:
        path = folder / "s.db"
        store = Store(path)
        store.add(toy.coins, "claim", POINT, 0, range(50), {"value": np.arange(50.0)}, 0.1)
        if with_log:  # a writer that was killed: its log is left, its shared memory gone
            shutil.copyfile(path, folder / "killed.db")
            shutil.copyfile(f"{path}-wal", folder / "killed.db-wal")
            path = folder / "killed.db"
        store.close()
        path.chmod(0o444)
        folder.chmod(0o555)
        before = sorted(os.listdir(folder))
        done = as_somebody(READ, path, *[p for p in sys.path if p], root)
        assert done.stdout.split() == ["50", str(with_log)], done.stderr
        assert sorted(os.listdir(folder)) == before
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_readers_do_not_wait_for_a_writer_and_write_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    fill(path)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with Store(path, writable=False) as store:
        assert len(held(store)) == 100
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            store._db.execute("DELETE FROM records")
    writer.execute("ROLLBACK")
    writer.close()


def test_readers_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^Store: path must be an existing store"):
        Store(tmp_path / "none.db", writable=False)
    with pytest.raises(ValueError, match="^Store: path must be a file; got the directory"):
        Store(tmp_path, writable=False)
    path = tmp_path / "s.db"
    fill(path, 400)
    data = path.read_bytes()
    path.write_bytes(data[:8192] + os.urandom(len(data) - 8192))
    with pytest.raises(ValueError, match="'mdpsim verify' moves a damaged store aside"):
        Store(path, writable=False)
    assert path.read_bytes()[:8192] == data[:8192]
    assert not list(tmp_path.glob("*.corrupt-*"))


# --- other hands -----------------------------------------------------------------------------------------------------------


def test_the_mark_is_in_the_file_from_the_beginning(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db"):
        assert (tmp_path / "s.db").read_bytes()[68:72] == APPLICATION_ID.to_bytes(4, "big")


def test_names_that_uris_know_and_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a?b#c%d.db", "s p.db", "~/in-home.db"):
        path = name if name.startswith("~") else tmp_path / name
        fill(path)  # type: ignore[arg-type]
        with Store(path, writable=False) as store:
            assert len(held(store)) == 100
    assert (tmp_path / "in-home.db").exists()


def test_a_store_of_another_thread(tmp_path: Path) -> None:
    """Made here, written by four threads and read here."""
    with Store(tmp_path / "s.db") as store:
        failed: list[BaseException] = []

        def work(first: int) -> None:
            try:
                for i in range(first, 100, 4):
                    store.add(toy.coins, "claim", POINT, 0, [i], {"value": np.array([float(i)])}, 0.1)
                    store.missing(toy.coins, "claim", POINT, 0, 100)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert held(store) == [float(i) for i in range(100)]


def test_seeds_up_to_the_largest(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        for seed in (2**62 + 1, 2**63 - 1):
            store.add(toy.coins, "claim", POINT, seed, [0], {"value": np.array([1.0])}, 0.1)
            assert store.records(toy.coins, "quick", seed).arms["claim"][POINT]["value"].tolist() == [1.0]
        with pytest.raises(ValueError, match="^records: seed must be"):
            store.records(toy.coins, "quick", 2**63)
