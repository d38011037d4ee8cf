"""What went wrong when somebody tried: edits without a new revision, measures that end their process, damaged records."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import toy
from conftest import Finished
from mdpsim import Store, run
from mdpsim.claims.claim import CLAIM_ARM

Command = Callable[..., Finished]
TOY = (Path(__file__).parent / "toy.py").read_text()


def verify(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: worker processes must find everything by themselves."""
    return subprocess.run(
        [sys.executable, "-m", "mdpsim", "verify", *args], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


def test_an_edited_measure_without_a_new_revision_is_noted(mdpsim_command: Command, tmp_path: Path) -> None:
    for name, text in (("one", TOY), ("two", TOY.replace("rng.random", "0.9 * rng.random"))):
        (tmp_path / f"{name}.py").write_text(text)
    assert "another text" not in mdpsim_command("verify", "one.py", "--preset", "quick").stdout
    assert "another text" not in mdpsim_command("verify", "one.py", "--preset", "quick").stdout
    edited = mdpsim_command("verify", "two.py", "--preset", "quick")
    assert "records of another text of the measure are among these: raise rev" in edited.stdout


def test_a_file_cannot_take_a_registered_id(mdpsim_command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(TOY.replace("toy/coins", "tiapkin2023/bc-rate"))
    done = mdpsim_command("verify", "mine.py", "--preset", "quick")
    assert done.returncode == 2
    assert "differ from those of registered claims; got 'tiapkin2023/bc-rate'" in done.stderr


def test_a_file_that_exits_is_bad_usage(mdpsim_command: Command, tmp_path: Path) -> None:
    (tmp_path / "ex.py").write_text("import sys; sys.exit(0)\n")
    done = mdpsim_command("verify", "ex.py")
    assert (done.returncode, "SystemExit" in done.stderr) == (2, True)


def test_modules_beside_a_claims_file_are_found_and_prints_stay_off_stdout(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "beside_it.py").write_text("HALF = 0.5\n")
    text = TOY.replace("import time\n", "import time\nfrom beside_it import HALF\nprint('at import')\n")
    (folder / "file.py").write_text(text.replace("    time.sleep", "    print('in measure', HALF)\n    time.sleep"))
    done = verify(tmp_path, str(folder / "file.py"), "--preset", "quick", "--jobs", "2", "--json")
    assert json.loads(done.stdout)["status"] == "supported", done.stderr
    assert "at import" in done.stderr


def two_claims(tmp_path: Path, breaks: str) -> str:
    """A claims file with toy/coins as it is, and toy/bad, whose measure does something else first."""
    text = TOY + f'''
import multiprocessing, os
from dataclasses import replace


def bad_measure(point, keys):
    """Fails."""
    {breaks}
    return measure(point, keys)


bad = replace(coins, id="toy/bad", measure=bad_measure)
'''
    (tmp_path / "both.py").write_text(text)
    return "both.py"


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        ("raise ArithmeticError('no')", "ArithmeticError: no"),
        ("if multiprocessing.parent_process(): os._exit(3)", "its worker process died 3 times"),
        ("return None", "a measure must return columns"),
        ("return {'value': ['x'] * len(keys)}", "must hold real numbers"),
    ],
)
def test_a_claim_that_fails_does_not_deny_the_others_their_verdict(tmp_path: Path, breaks: str, message: str) -> None:
    done = verify(tmp_path, two_claims(tmp_path, breaks), "--preset", "quick", "--jobs", "2", "--json")
    assert done.returncode == 2
    assert [json.loads(line)["claim"] for line in done.stdout.splitlines()] == ["toy/coins"]
    assert message in done.stderr
    assert "toy/bad" in done.stderr
    assert "leaked" not in done.stderr


def test_what_cannot_be_sent_to_a_worker_is_named(tmp_path: Path) -> None:
    (tmp_path / "closure.py").write_text(TOY + "\ncoins = __import__('dataclasses').replace(coins, measure=lambda p, k: 0)\n")
    done = verify(tmp_path, "closure.py", "--preset", "quick", "--jobs", "2")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "toy/coins" in done.stderr


def test_reading_commands_move_nothing(mdpsim_command: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.tex").write_text("my paper" * 100)
    for command in (("cite", "tiapkin2023/bc-rate"), ("judge",), ("report",)):
        done = mdpsim_command(*command, "--store", "notes.tex")
        assert done.returncode == 2
    assert (tmp_path / "notes.tex").read_text() == "my paper" * 100
    assert [p.name for p in tmp_path.iterdir()] == ["notes.tex"]


def filled(path: Path) -> None:
    with Store(path) as store:
        run(toy.coins, preset="quick", store=store)


def test_a_broken_index_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    filled(path)
    with sqlite3.connect(path) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'by_series'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    data = bytearray(path.read_bytes())
    top = (root - 1) * size  # an interior index page (type 2) names its last child in bytes 8 to 12
    leaf = int.from_bytes(data[top + 8 : top + 12], "big") if data[top] == 2 else root
    cell = (leaf - 1) * size + int.from_bytes(data[(leaf - 1) * size + 8 : (leaf - 1) * size + 10], "big")
    data[cell + 8] ^= 0x04
    path.write_bytes(bytes(data))
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok", "the flip this test makes hit nothing"
    db.close()
    with Store(path) as store:  # what it hides is measured again, found to be there, and the index made again
        before = dict(store.rows())
        run(toy.coins, preset="quick", store=store)
        assert all(len(c["value"]) == 100 for c in store.records(toy.coins, "quick", 0).arms[CLAIM_ARM].values())
        assert dict(store.rows()) == before
        assert store._db.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"


def test_an_altered_digit_is_seen(mdpsim_command: Command, tmp_path: Path) -> None:
    filled(tmp_path / "s.db")
    with sqlite3.connect(tmp_path / "s.db") as db:
        db.execute("""UPDATE records SET "values" = replace("values", '"bound":0.55', '"bound":9.55') WHERE trial = 7""")
    db.close()
    (tmp_path / "toy.py").write_text(TOY)
    done = mdpsim_command("judge", "toy.py", "--store", "s.db")
    assert done.returncode == 0
    assert "inconclusive" in done.stdout
    assert "6 records are damaged and were left out; 'mdpsim verify' measures them again" in done.stdout


@pytest.mark.parametrize("seed", ["9223372036854775808", "-1", "x"])
def test_seeds_that_no_store_holds(mdpsim_command: Command, seed: str) -> None:
    assert mdpsim_command("verify", "korbak2022/elbo-identity", "--preset", "smoke", "--seed", seed).returncode == 2


def test_a_twin_grid_needs_the_claims_presets() -> None:
    twin = replace(toy.coins.twins[0], grid={"smoke": toy.GRID["smoke"]})
    with pytest.raises(ValueError, match="twin half: grid must have the presets smoke, quick; got"):
        replace(toy.coins, twins=(twin,))


@pytest.mark.parametrize("change", [{"id": 3}, {"statement": None}, {"cites": toy.TOY}, {"twins": toy.coins.twins[0]},
                                    {"draws": "family"}, {"seeds": 20}, {"grid": 3}])
def test_claims_of_wrong_types(change: dict) -> None:
    with pytest.raises(ValueError, match=r"^Claim.* must .*; got "):
        replace(toy.coins, **change)
