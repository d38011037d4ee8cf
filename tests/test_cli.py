"""The command line: what it prints, where it prints it, and what it exits with."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mdpsim
from conftest import Finished
from mdpsim import Store, all_claims, get_claim

Command = Callable[..., Finished]
TOY = str(Path(__file__).parent / "toy.py")
KEYS = {
    "claim", "rev", "origin", "preset", "seed", "status", "estimate", "interval", "bound", "slack", "twin_status", "n_trials",
    "points", "seconds", "versions",
}
FALSE = """
import sys
sys.path.insert(0, {folder!r})
from dataclasses import replace
import toy
from mdpsim import Mean
claim = replace(toy.coins, id="toy/false", rule=Mean(bound="half_bound", margin=0.01), twins=({twin},))
"""


def false_claim(tmp_path: Path, twin: str) -> str:
    path = tmp_path / "false.py"
    path.write_text(FALSE.format(folder=str(Path(TOY).parent), twin=twin))
    return str(path)


def test_bare_command_says_what_this_is(mdpsim_command: Command) -> None:
    done = mdpsim_command()
    assert done.returncode == 0
    assert len(re.findall(r"^  mdpsim \w+", done.stdout, re.MULTILINE)) == 3
    assert mdpsim_command("--help").returncode == 0


def test_list_and_show(mdpsim_command: Command) -> None:
    text = mdpsim_command("list").stdout
    lines = [json.loads(line) for line in mdpsim_command("list", "--json").stdout.splitlines()]
    assert [one["claim"] for one in lines] == [c.id for c in all_claims()]
    for claim in all_claims():
        assert claim.id in text
        assert claim.origin in text
    only = mdpsim_command("list", "--paper", "korbak2022", "--json").stdout.splitlines()
    assert {json.loads(line)["claim"].split("/")[0] for line in only} == {"korbak2022"}
    assert mdpsim_command("list", "--tag", "rate").stdout.count("tiapkin2023/bc-rate") == 1
    shown = mdpsim_command("show", "tiapkin2023/bc-rate").stdout
    for word in ("Tiapkin", "measured", "twin", "noisy-demonstrations", "distance", "mdpsim verify tiapkin2023/bc-rate"):
        assert word in shown
    assert json.loads(mdpsim_command("show", "tiapkin2023/bc-rate", "--json").stdout)["rule"] == "rate"


def test_verify_json_is_json_lines_and_nothing_else(mdpsim_command: Command) -> None:
    done = mdpsim_command("verify", "korbak2022/elbo-identity", TOY, "--preset", "smoke", "--json")
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line, parse_constant=pytest.fail) for line in done.stdout.splitlines()]
    assert [v["claim"] for v in verdicts] == ["korbak2022/elbo-identity", "toy/coins"]
    for verdict in verdicts:
        assert set(verdict) >= KEYS
        assert (verdict["status"], verdict["twin_status"]) == ("supported", "rejected")
        assert verdict["versions"]["mdpsim"] == mdpsim.__version__
        assert verdict["seconds"] > 0


def test_verify_prints_a_table_and_keeps_the_store(mdpsim_command: Command, tmp_path: Path) -> None:
    done = mdpsim_command("verify", TOY, "--preset", "quick", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()[:2]
    for word in ("claim", "origin", "estimate", "bound", "slack", "twins", "verdict", "trials", "seconds"):
        assert word in header
    assert "toy/coins" in row
    assert "supported" in row
    assert (tmp_path / ".mdpsim" / "results.db").exists()
    again = mdpsim_command("judge", TOY)
    assert again.returncode == 0
    assert again.stdout.splitlines()[1] == row
    only = mdpsim_command("judge", TOY, "--json")
    assert json.loads(only.stdout)["preset"] == "quick"


def test_exit_1_where_refuted_and_3_where_inconclusive(mdpsim_command: Command, tmp_path: Path) -> None:
    refuted = mdpsim_command("verify", false_claim(tmp_path, "toy.coins.twins[0]"), "--preset", "quick", "--strict")
    assert refuted.returncode == 1, refuted.stdout
    assert "refuted" in refuted.stdout
    twin = 'replace(toy.coins.twins[0], rule=Mean(bound=2.0, margin=0.01))'
    (tmp_path / "open.py").write_text(
        Path(false_claim(tmp_path, twin)).read_text().replace("toy/false", "toy/open").replace('"half_bound"', '"bound"', 1)
    )
    for strict, status in (((), 0), (("--strict",), 3)):
        done = mdpsim_command("verify", str(tmp_path / "open.py"), "--preset", "quick", *strict)
        assert done.returncode == status, done.stdout
        assert "inconclusive" in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("verify", "korbak2022/elbo"), "nearest: korbak2022/elbo-identity"),
        (("verify", "--preset", "fast"), "preset must be one of the known names"),
        (("verify", TOY, "--jobs", "0"), "jobs must be an integer >= 1; got 0"),
        (("verify", TOY, "--seed", "-1"), "seed must be an integer >= 0 and <= 9223372036854775807; got -1"),
        (("verify", "none.py"), "path must be a Python file with claims; got 'none.py'"),
        (("judge",), "path must be an existing store"),
        (("report",), "path must be an existing store"),
        (("show", "tiapkin2023/bc"), "nearest: "),
        (("list", "--paper", "nobody"), "paper must be one of the known names"),
        (("verify", "--no-such-option"), "No such option"),
        (("no-such-command",), "No such command"),
    ],
)
def test_bad_usage_exits_2_and_says_why(mdpsim_command: Command, args: tuple[str, ...], message: str) -> None:
    done = mdpsim_command(*args)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_measure_that_fails_exits_2_and_keeps_what_is_done(mdpsim_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    breaks = '    if point["n"] == 400:\n        raise ArithmeticError("no")\n    time.sleep'
    path.write_text(Path(TOY).read_text().replace("    time.sleep", breaks))
    done = mdpsim_command("verify", str(path), "--preset", "quick", "--jobs", "1")
    assert done.returncode == 2
    assert "toy/coins, arm claim, at (family=a, n=400, pause=0), trial 0: ArithmeticError: no" in done.stderr
    with Store(tmp_path / ".mdpsim" / "results.db") as store:
        assert store.held() == [("toy/coins", 0, 300)]


def test_a_damaged_store_is_told_and_replaced(mdpsim_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "s [red]a[/] .db"  # no markup of the terminal's
    first = mdpsim_command("verify", TOY, "--preset", "quick", "--store", str(path), "--json")
    data = path.read_bytes()
    path.write_bytes(data[:4096] + bytes(len(data) - 4096))
    read = mdpsim_command("judge", TOY, "--store", str(path))
    assert (read.returncode, read.stdout) == (2, "")
    assert "'mdpsim verify' moves a damaged store aside" in read.stderr
    done = mdpsim_command("verify", TOY, "--preset", "quick", "--store", str(path), "--json")
    assert done.returncode == 0
    assert f"note: the store {path} is damaged" in done.stderr
    keys = ("status", "estimate", "interval")
    assert [json.loads(done.stdout)[k] for k in keys] == [json.loads(first.stdout)[k] for k in keys]
    assert len(list(tmp_path.rglob("*.corrupt-*"))) == 1


def test_a_file_that_is_no_store_is_left_alone(mdpsim_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "thesis.tex"
    path.write_text("no database" * 1000)
    for command in ("verify", "judge", "report", "cite"):
        done = mdpsim_command(command, "korbak2022/elbo-identity", "--store", str(path))
        assert done.returncode == 2
        assert "no sqlite database (it was left as it is)" in done.stderr
    assert path.read_text() == "no database" * 1000
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


BAD_CLAIMS = """
import sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
from mdpsim.claims.rules import Mean
import toy

def broken(point):
    return 1.0 / 0.0

good = replace(toy.coins, id="mine/good")
bound = replace(toy.coins, id="mine/bad-bound", rule=Mean(bound=broken))
column = replace(toy.coins, id="mine/bad-column", rule=Mean(of="nothing", bound=1.0))
"""


def test_one_bad_claim_costs_no_other_its_verdict(mdpsim_command: Command, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(BAD_CLAIMS.format(tests=str(Path(__file__).parent)))
    for command in (("verify", str(path), "--preset", "quick", "--jobs", "1"), ("judge", str(path))):
        done = mdpsim_command(*command, "--json")
        assert done.returncode == 2
        assert [json.loads(line)["claim"] for line in done.stdout.splitlines()] == ["mine/good"]
        assert "mine/bad-bound could not be judged: ZeroDivisionError" in done.stderr
        assert "bad.py, line 9" in done.stderr
        assert "mine/bad-column could not be judged" in done.stderr
    done = mdpsim_command("report", str(path), "--out", "page")
    assert done.returncode == 2
    assert "mine/good" in (tmp_path / "page" / "index.html").read_text()
    assert "could not be judged" in done.stderr


def test_report_and_cite(mdpsim_command: Command, tmp_path: Path) -> None:
    before = mdpsim_command("cite", "korbak2022/elbo-identity").stdout
    assert "no verdict" in before
    mdpsim_command("verify", "korbak2022/elbo-identity", "--preset", "smoke")
    done = mdpsim_command("report", "--out", "page")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page" / "index.html").read_text()
    assert "korbak2022/elbo-identity" in page
    assert len(list((tmp_path / "page" / "figures").glob("*.pdf"))) == 1
    cited = mdpsim_command("cite", "korbak2022/elbo-identity").stdout
    assert "supported" in cited
    assert "@inproceedings{korbak2022" in cited
    assert "@software{mdpsim" in cited
    as_json = json.loads(mdpsim_command("cite", "korbak2022/elbo-identity", "--json").stdout)
    assert as_json["sentence"] in cited
    assert json.loads(mdpsim_command("report", "--json").stdout)["claims"] == ["korbak2022/elbo-identity"]


def test_info(mdpsim_command: Command) -> None:
    text = mdpsim_command("info").stdout
    found = json.loads(mdpsim_command("info", "--json").stdout)
    for name in ("python", "mdpsim", "numpy", "numba", "cpu", "cores", "blas", "platform"):
        assert name in text
        assert found[name]


def test_progress_bar_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal there is a bar with the claim's name, on stderr, while stdout stays clean."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mdpsim", "verify", TOY, "--preset", "smoke", "--jobs", "1", "--json"], cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=follower, text=True, env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # Linux: the other side has closed
            break
        if not piece:
            break
        seen += piece
    out, _ = process.communicate(timeout=60)
    assert json.loads(out)["claim"] == "toy/coins"
    assert b"toy/coins" in seen
    assert re.search(rb"\d+/360", seen)



def test_list_costs(mdpsim_command: Command, tmp_path: Path) -> None:
    store = str(tmp_path / "s.db")
    missing = mdpsim_command("list", "--costs", "--store", store)
    assert missing.returncode == 2
    assert "path must be an existing store" in missing.stderr
    mdpsim_command("verify", "korbak2022/elbo-identity", "--preset", "smoke", "--jobs", "1", "--store", store)
    rows = [json.loads(line) for line in mdpsim_command("list", "--costs", "--store", store, "--json").stdout.splitlines()]
    cost = {row["claim"]: row for row in rows}
    plan = get_claim("korbak2022/elbo-identity").plan("smoke")
    assert cost["korbak2022/elbo-identity"]["trials"] == sum(sum(points.values()) for points in plan.values())
    assert cost["korbak2022/elbo-identity"]["estimates"]["paper"] > cost["korbak2022/elbo-identity"]["estimates"]["smoke"] > 0
    assert cost["tiapkin2023/bc-rate"]["estimates"]["quick"] is None
    assert "ms a trial" in mdpsim_command("list", "--costs", "--store", store).stdout
