"""What ``make test-portable`` sees and what it would miss: settings that are taken, verdicts that differ, tests left out."""

from __future__ import annotations

from pathlib import Path

import pytest

import portable
from conftest import SLOW
from portable import HOST, SETTINGS, SINGLE, Result, Setting

KNOWN = {s.name: s for s in (*SETTINGS, *SINGLE)}


def test_every_processor_named_is_among_the_settings() -> None:
    values = {(k, v) for s in SETTINGS for k, v in s.environ.items()}
    for name in ("generic", "x86-64-v2", "x86-64-v3"):
        assert ("NUMBA_CPU_NAME", name) in values
    assert {("ATEN_CPU_CAPABILITY", "default"), ("ATEN_CPU_CAPABILITY", "avx2")} <= values
    assert {("OPENBLAS_CORETYPE", "Haswell"), ("OPENBLAS_CORETYPE", "Zen")} <= values
    assert {s.numpy for s in SETTINGS} == {"all", "baseline", "v3"}
    assert len(KNOWN) == len(SETTINGS) + len(SINGLE)


@pytest.mark.parametrize("setting", KNOWN.values(), ids=lambda s: s.name)
def test_a_target_never_keeps_the_instructions_of_the_host(setting: Setting) -> None:
    """NUMBA_CPU_NAME=x86-64-v2 alone compiles for AVX-512 where the host has it."""
    environ = portable.environment(setting, 2)
    assert ("NUMBA_CPU_NAME" in setting.environ) == ("NUMBA_CPU_FEATURES" in setting.environ)
    assert not any(f.startswith("+") for f in setting.environ.get("NUMBA_CPU_FEATURES", "").split(","))
    assert {environ[name] for name in portable.THREADS} == {"2"}
    off = set(environ.get("NPY_DISABLE_CPU_FEATURES", "").split())
    assert off <= set(portable.levels()), "a name that numpy does not know stops it"
    assert setting.numpy != "baseline" or off == set(portable.levels())
    assert setting.numpy != "v3" or not {k for k in set(portable.levels()) - off if "512" in k or k == "X86_V4"}


def test_the_libraries_take_the_oldest_setting() -> None:
    found, wrong = portable.probe(portable.environment(KNOWN["generic"], 1))
    assert wrong == []
    assert (found["numba"], found["numpy"]) == ("generic", [])
    assert found.get("torch", "DEFAULT") == "DEFAULT"


def test_a_setting_that_a_library_does_not_take_is_seen() -> None:
    environ = {"NUMBA_CPU_NAME": "generic", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4", "ATEN_CPU_CAPABILITY": "avx2",
               "OMP_NUM_THREADS": "2"}
    right = {"numba": "generic", "numpy": [], "torch": "AVX2", "torch threads": 2, "blas threads": 2}
    assert portable.not_taken(environ, right) == []
    for change in ({"numba": "znver4"}, {"numpy": ["X86_V3"]}, {"torch": "AVX512"}, {"torch threads": 1}, {"blas threads": 1}):
        assert len(portable.not_taken(environ, right | change)) == 1


def test_verdicts_that_differ_are_named() -> None:
    here = {"a": ("supported", "t rejected"), "b": ("supported", "t rejected")}
    assert portable.compare(here, dict(here)) == ()
    flipped, survived = here | {"b": ("inconclusive", "t rejected")}, here | {"b": ("supported", "t not rejected")}
    for other in (flipped, survived, {"a": here["a"]}):
        (line,) = portable.compare(here, other)
        assert line.startswith("b: ")


def test_every_file_of_tests_is_run_or_said_to_be_of_the_house(root: Path) -> None:
    stems = {p.stem for p in (root / "tests").glob("test_*.py")}
    run = {Path(f).stem for part in portable.PARTS[1:] for f in portable.files(part, short=False)}
    assert run == stems - portable.HOUSE
    assert stems >= portable.HOUSE | SLOW, "and what make check leaves out is there as well"
    for part in ("kernels", "lm"):
        assert portable.files(part, short=True)
        for file, _, test in (f.partition("::") for f in portable.files(part, short=True)):
            assert f"def {test}" in (root / file).read_text()


REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="passes"/>
<testcase classname="tests.test_a" name="fails"><failure message="x">x</failure></testcase>
<testcase classname="tests.test_a" name="breaks"><error message="x">x</error></testcase>
<testcase classname="tests.test_a" name="left"><skipped message="{why}">why</skipped></testcase>
<testcase classname="" name="tests.test_b"><skipped message="collection skipped">needs [hf]</skipped></testcase>
</testsuite></testsuites>"""


def test_what_failed_and_what_was_left_out_is_read_from_pytests_report(tmp_path: Path) -> None:
    (tmp_path / "report.xml").write_text(REPORT.format(why="needs make"))
    passed, failed, skipped = portable.read_report(tmp_path / "report.xml")
    assert (passed, failed) == (1, ["tests/test_a::fails", "tests/test_a::breaks"])
    assert skipped == {"tests/test_a::left: needs make", "::tests.test_b: needs [hf]"}
    assert Result("x", 1, skipped=frozenset(skipped)).green, "what is not installed is shown, and no fault of the setting"
    assert not Result("x", 1, skipped=frozenset({"a::b: unsupported on this CPU"})).green
    for fault in ({"failed": ("a",)}, {"differ": ("a",)}, {"trouble": "a"}):
        assert not Result("x", 1, **fault).green


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, tuple[str, ...]]]:
    """Settings without their runs: what each judges is put in; the tests pass."""
    judged = {HOST: {"a": ("supported",)}}

    def verdicts(environ: dict[str, str], *_: object) -> tuple[dict[str, tuple[str, ...]], str]:
        return judged.get(environ.get("NUMBA_CPU_NAME", HOST), judged[HOST]), ""

    monkeypatch.setattr(portable, "probe", lambda environ: ({}, []))
    monkeypatch.setattr(portable, "verdicts", verdicts)
    monkeypatch.setattr(portable, "tests", lambda *_: (3, [], set(), ""))
    return judged


def test_one_verdict_that_differs_is_no_success(
    staged: dict[str, dict[str, tuple[str, ...]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert portable.main(["generic", "--threads", "1"]) == 0
    told = capsys.readouterr().out
    assert "host, 1 thread" in told
    assert told.rstrip().endswith("green")
    staged["generic"] = {"a": ("inconclusive",)}
    assert portable.main(["generic", "--threads", "1"]) == 1
    told = capsys.readouterr().out
    assert "NOT GREEN" in told
    assert "generic, 1 thread: a: ('supported',) here, ('inconclusive',) so" in told


def test_a_setting_that_cannot_run_here_is_no_success_where_it_is_asked_for(
    staged: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(portable, "SETTINGS", (Setting(HOST), Setting("future", {}, needs="avx2048")))
    assert portable.main(["future", "--threads", "1"]) == 1
    assert "needs a processor with avx2048" in capsys.readouterr().out
    assert portable.main(["--threads", "1"]) == 0
    assert "future: not run here: needs a processor with avx2048" in capsys.readouterr().out
    with pytest.raises(SystemExit) as error:
        portable.main(["no such"])
    assert error.value.code == 2
