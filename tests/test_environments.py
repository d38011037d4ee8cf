"""Surroundings that nobody plans: closed streams, few files, long paths, prompts, piped code, narrow terminals, full disks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.text import Text

import toy
from conftest import Finished
from mdpsim import Store, all_claims, get_claim, terminal, verify
from mdpsim.claims import workers
from mdpsim.rng import as_generator
from mdpsim.store import file as store_file
from mdpsim.verify import Judged, judge_all

TESTS = str(Path(__file__).parent)
TOY = f"{TESTS}/toy.py"
MDPSIM = (sys.executable, "-m", "mdpsim")
VERIFY = (*MDPSIM, "verify", TOY, "--preset", "smoke", "--jobs", "2", "--store")
SCRIPT = f"""
import sys
sys.path.insert(0, {TESTS!r})
import toy
from dataclasses import replace
from mdpsim import per_seed, verify

@per_seed
def measure(point, rng):
    return {{"value": rng.random(), "bound": 1.0, "half_bound": 0.1}}

def main():
    print(verify(CLAIM, preset="smoke", jobs=2).status)
"""
OWN, TOYS = SCRIPT.replace("CLAIM", "replace(toy.coins, measure=measure)"), SCRIPT.replace("CLAIM", "toy.coins")
Command = Callable[..., Finished]


def ran(*command: str, shell: str = "", **more) -> subprocess.CompletedProcess[str]:
    """Run a command, by a shell that first says ``shell`` where that is given."""
    if shell:
        command = ("sh", "-c", shell, "sh", *command)
    env = more.pop("env", os.environ) | {"PYTHONPATH": str(Path(TESTS).parent)}  # for scripts, whose own folder is elsewhere
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env, **more)


# --- the process ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    for command in ((*MDPSIM, "list"), (*VERIFY, str(tmp_path / "s.db"))):
        done = ran(*command, shell=f'exec "$@" {closed}')
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert sum(n for _, _, n in Store(tmp_path / "s.db", writable=False).held()) == 360


def test_too_few_open_files(tmp_path: Path) -> None:
    """One line, where the fork server would die with a traceback of its own; and one process needs none."""
    done = ran(*VERIFY, str(tmp_path / "s.db"), shell='ulimit -n 20; exec "$@"')
    assert done.returncode == 2
    assert re.fullmatch(r"mdpsim: run: the limit of open files \(ulimit -n\) must leave room for 24 .*jobs=1.*\n", done.stderr)


def test_the_files_that_a_pool_is_said_to_need_are_enough() -> None:
    code = (
        f"import os, resource, sys; sys.path.insert(0, {TESTS!r})\nimport toy; from mdpsim import verify\n"
        "n = len(os.listdir('/proc/self/fd')) - 1\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (n + {workers.FILES + 2 * workers.FILES_EACH},) * 2)\n"
        "print(verify(toy.coins, preset='smoke', jobs=2).status)"
    )
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts the open files in /proc")
    done = ran(sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == ("supported\n", "")


@pytest.mark.skipif(workers.METHOD != "forkserver", reason="no socket without a fork server")
def test_a_long_tmpdir_is_named(tmp_path: Path) -> None:
    if sys.version_info >= (3, 13):
        pytest.skip("newer Pythons may look for a shorter folder themselves")
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    done = ran(*VERIFY, str(tmp_path / "s.db"), env=os.environ | {"TMPDIR": str(folder)})
    assert done.returncode == 2
    assert done.stderr == (
        f"mdpsim: run: TMPDIR must name a folder with a shorter path, in which a socket can lie; got one of {len(str(folder))} "
        "letters\n"
    )


def test_numpy_that_raises_changes_no_verdict() -> None:
    for name in ("korbak2022/elbo-identity", "tiapkin2023/reduction", "balashankar2024/best-of-n-kl"):
        wanted = verify(name, preset="smoke")
        with np.errstate(all="raise"):
            found = verify(name, preset="smoke")
        assert (found.status, found.twin_status, found.estimate) == (wanted.status, wanted.twin_status, wanted.estimate)


def test_seed_sequences_are_seeds() -> None:
    """The stream is numpy's own of the same sequence, which stays what it was: the next call draws the same."""
    one, other = np.random.SeedSequence(7).spawn(2)
    for _ in range(2):
        np.testing.assert_array_equal(as_generator("f", one).random(5), np.random.default_rng(one).random(5))
    assert as_generator("f", other).random() != as_generator("f", one).random()
    with pytest.raises(ValueError, match="f: rng must be a numpy.random.Generator or an integer seed >= 0 or SeedSequence"):
        as_generator("f", 1.5)


# --- where a measure is written -------------------------------------------------------------------------------------------


def test_a_measure_of_a_prompt_and_workers() -> None:
    """Before any worker starts: what is wrong and the cure. The claims of files are run."""
    done = ran(sys.executable, "-", input=f"{OWN}\nmain()")
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ValueError: run: jobs must be 1 for a measure written in a notebook, at a prompt or in piped code")
    assert "load_claims('FILE.py')" in last
    assert "toy/coins, arm claim" in last
    done = ran(sys.executable, "-", input=f"{TOYS}\nmain()")
    assert (done.stdout, done.stderr) == ("supported\n", "")


@pytest.mark.parametrize("text", [OWN, TOYS], ids=["own", "toys"])
def test_a_script_with_and_without_its_guard(tmp_path: Path, text: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"{text}\nmain()\n")
    done = ran(sys.executable, str(script))
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.splitlines()[-1].startswith(
        "ValueError: run: jobs must be 1 in a script without 'if __name__ == \"__main__\":'"
    )
    script.write_text(f'{text}\nif __name__ == "__main__":\n    main()\n')
    done = ran(sys.executable, str(script))
    assert (done.stdout, done.stderr) == ("supported\n", "")


def test_a_measure_under_the_guard(tmp_path: Path) -> None:
    """Workers import the script without what stands under its guard: they say so, and live."""
    script = tmp_path / "script.py"
    text = OWN.replace("@per_seed", 'if __name__ == "__main__":\n  @per_seed').replace("def measure", "  def measure")
    script.write_text(text + '\nif __name__ == "__main__":\n    main()\n')
    done = ran(sys.executable, str(script))
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert "worker processes cannot import its measure" in done.stderr.splitlines()[-1]


# --- the terminal ---------------------------------------------------------------------------------------------------------


def at_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """A terminal of so many columns, which calls itself dumb."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 200])
def test_list_on_any_width(mdpsim_command: Command, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    at_width(monkeypatch, width)
    lines = mdpsim_command("list").stdout.splitlines()
    claims = all_claims()
    assert len(lines) < 25 * len(claims)
    for claim in claims:
        (line,) = [line for line in lines if claim.id in line.split()]  # whole, on one line
        assert line.startswith(claim.id)
    ids = {claim.id for claim in claims}
    assert all(len(line.rstrip()) <= width for line in lines if line.split()[0] not in ids)
    text = re.sub(r"\s", "", "".join(lines))
    for claim in claims:
        assert width > 100 or re.sub(r"\s", "", claim.statement) in text  # paragraphs hold it in one piece
    prose = [line for line in lines if line.startswith(" ") and len(line.split()) > 1]
    assert np.median([len(line.strip()) for line in prose]) > 20  # no column of a few letters


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160])
def test_verdicts_on_any_width(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int) -> None:
    at_width(monkeypatch, width)
    claim = replace(toy.coins, id="toy/a-claim-with-quite-a-long-name")
    with Store(":memory:") as store:
        (one,) = judge_all([claim], preset="quick", seed=0, store=store)
    verify_one = replace(verify(toy.coins, preset="smoke"), claim=claim.id)
    terminal.print_table([Judged(claim, one.records, verify_one)])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(claim.id) for line in lines)
    assert all(len(line.rstrip()) <= width for line in lines)
    words = " ".join(lines).split()
    for name in ("origin", "estimate", "bound", "slack", "twins", "verdict", "supported", "trials", "360", "seconds"):
        assert name in words


def test_colour_forced_without_a_terminal(monkeypatch: pytest.MonkeyPatch, mdpsim_command: Command) -> None:
    """As in CI: a line a claim."""
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "70"}.items():
        monkeypatch.setenv(name, value)
    assert len(mdpsim_command("list").stdout.splitlines()) == 1 + len(all_claims())


def test_brackets_are_no_markup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mdpsim_command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names, paths and labels with what rich takes for markup come out as they are."""
    done = mdpsim_command("judge", TOY, "--store", "x[/red].db")
    assert "x[/red].db" in done.stderr
    done = mdpsim_command("cite", "korbak2022/elbo-identity", "--store", "notes[bold]x.db")
    assert "notes[bold]x.db" in done.stdout
    monkeypatch.setattr(terminal.Console, "is_terminal", property(lambda self: True))
    with Store(tmp_path / "s.db") as store, terminal.progress_bar([toy.coins], "smoke", 0, store) as update:
        chunk = terminal.missing([toy.coins], "smoke", 0, store)[0]
        update(replace(chunk, arm="[/red]"), 0.1)
    assert "(twin [/red])" in capsys.readouterr().err
    terminal.show_rows(("a", "b"), [[Text("[/red]"), Text("[bold]x")]])
    assert "[/red]  [bold]x" in capsys.readouterr().out


# --- the store ------------------------------------------------------------------------------------------------------------


def test_a_full_disk_gives_what_verdicts_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mdpsim_command: Command
) -> None:
    """Nothing is lost; what is complete is judged; the message says that the same command goes on, and it does."""
    store = str(tmp_path / "s.db")
    options = ("--preset", "smoke", "--jobs", "1", "--store", store)
    assert mdpsim_command("verify", "korbak2022/elbo-identity", *options).returncode == 0
    connect = store_file._connect

    def bounded(*args, **more):
        db = connect(*args, **more)
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={pages + 8}")
        return db

    command = ("verify", "korbak2022/elbo-identity", TOY, *options)
    with monkeypatch.context() as full:
        full.setattr(store_file, "_connect", bounded)
        done = mdpsim_command(*command, "--json")
    assert done.returncode == 2
    verdicts = {one["claim"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert verdicts["korbak2022/elbo-identity"]["status"] == "supported"
    assert verdicts["toy/coins"]["status"] == "inconclusive"
    assert 0 < verdicts["toy/coins"]["n_trials"] < 360 or verdicts["toy/coins"]["notes"]
    assert f"the store {store} cannot grow: database or disk is full" in done.stderr
    assert "the same command goes on once there is room" in done.stderr
    done = mdpsim_command(*command, "--json")
    assert done.returncode == 0
    with Store(":memory:") as fresh:
        wanted = verify(toy.coins, preset="smoke", store=fresh)
    assert json.loads(done.stdout.splitlines()[-1])["estimate"] == wanted.estimate


def test_a_locked_store_is_called_locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mdpsim_command: Command) -> None:
    monkeypatch.setattr(store_file, "TIMEOUT", 0.1)
    store = str(tmp_path / "s.db")
    with Store(store) as first, store_file.transaction(first._db):
        done = mdpsim_command("verify", TOY, "--preset", "smoke", "--jobs", "1", "--store", store)
    assert done.returncode == 2
    assert "database is locked: another process has written for more than 0.1 s" in done.stderr
    assert "network" not in done.stderr


def test_the_text_of_a_measure_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was tokenised with every commit: half of its time."""
    from mdpsim.claims import claim as claims

    wanted = get_claim("korbak2022/elbo-identity").measure_text("claim")
    monkeypatch.setattr(claims.inspect, "getsource", lambda x: pytest.fail("read again"))
    assert get_claim("korbak2022/elbo-identity").measure_text("claim") == wanted
