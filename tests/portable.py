"""The suite as other processors would run it: ``make test-portable``, or ``python tests/portable.py [SETTING ...]``.

A processor decides which instructions numba, numpy, BLAS and torch compute with, and so the last bits of what they return. Each
library can be told to compute as on an older one. A setting tells all of them, in fresh processes, and then

1. judges every claim at the preset smoke: status and twins must be those of this machine as it is;
2. runs the tests of numbers, of language models and of notebooks: none may fail; what is left out is named, and may only be so
   because something is not installed here.

What the libraries answer is looked at first: a setting that one of them did not take (NUMBA_CPU_NAME alone leaves the host's
instructions on) fails, as does one that is asked for by name and cannot run here. Exit status: 0 all green, 1 not, 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
HOST = "host"
THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Tests of text, files, pages and the command line, whose numbers no processor decides; a new file of tests is run.
HOUSE = {
    "test_add_a_paper", "test_cache", "test_cli", "test_device_shown", "test_files", "test_guards", "test_hostile",
    "test_layers", "test_memory", "test_package", "test_plot_laws", "test_plot_tradeoff", "test_plot_training", "test_plots",
    "test_portable", "test_report", "test_rules_shown", "test_run", "test_signatures", "test_store", "test_store_faults",
    "test_engine_faults", "test_environments", "test_interrupt", "test_home", "test_same_bits_from_cache",
}
LM = ("test_lm_", "test_small_lm")
# The short form: exact sums, stopping times and training; kernels' arithmetic, solvers, one of the language models.
SHORT_CLAIMS = ("tiapkin2023/reduction", "tiapkin2023/ucbvi-eps-rate", "korbak2022/small-lm-collapse")
SHORT_TESTS = {
    "test_kernels_math": ("",), "test_exact": ("",), "test_checks": ("",),
    "test_lm_explore": (
        "::test_the_loss_of_counts_is_the_loss_of_the_pairs", "::test_a_member_computes_what_it_does_in_every_ensemble",
        "::test_the_loss_has_leading_axes_and_skips_what_the_reference_never_gives",
    ),
}
ABSENT = ("needs ", "no CUDA device", "there is a CUDA device")  # why a test may be left out; it is shown all the same
PARTS = ("claims", "kernels", "lm", "notebooks")


class Setting(NamedTuple):
    """A processor to compute as. numpy: the widest of its levels that stays on, "all" for what is here."""

    name: str
    environ: Mapping[str, str] = MappingProxyType({})
    numpy: str = "all"
    needs: str = ""  # an instruction set that this machine must have, as /proc/cpuinfo spells it


def _numba(name: str, features: str = "") -> dict[str, str]:
    """Compile for this target and nothing that only the host has."""
    return {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}


AMD = "-sse4a,-clzero,-mwaitx,-wbnoinvd,-rdpru"  # what an Intel processor would stop at
OLD = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
ZEN = {"OPENBLAS_CORETYPE": "Zen", "MKL_CBWR": "COMPATIBLE"}  # on AMD MKL takes a path of its own: the nearest to it
SETTINGS = (
    Setting(HOST),
    Setting("generic", {**_numba("generic"), **OLD}, "baseline"),
    Setting("x86-64-v2", {**_numba("x86-64-v2"), **OLD, "OPENBLAS_CORETYPE": "Nehalem"}, "baseline", "sse4_2"),
    Setting("x86-64-v3", {**_numba("x86-64-v3"), **AVX2, "OPENBLAS_CORETYPE": "Haswell"}, "v3", "avx2"),
    Setting("zen", {**_numba("znver3", AMD), "ATEN_CPU_CAPABILITY": "avx2", **ZEN}, "v3", "avx2"),
    Setting("zen4", {**_numba("znver4", AMD), **ZEN, "OPENBLAS_CORETYPE": "SkylakeX"}, needs="avx512_bf16"),
)
# One library at a time: to see which one it is.
SINGLE = (
    Setting("numba-generic", _numba("generic")), Setting("numba-x86-64-v2", _numba("x86-64-v2"), needs="sse4_2"),
    Setting("numba-x86-64-v3", _numba("x86-64-v3"), needs="avx2"), Setting("numpy-baseline", numpy="baseline"),
    Setting("numpy-v3", numpy="v3", needs="avx2"), Setting("torch-default", {"ATEN_CPU_CAPABILITY": "default"}),
    Setting("torch-avx2", {"ATEN_CPU_CAPABILITY": "avx2"}, needs="avx2"),
    Setting("blas-haswell", {"OPENBLAS_CORETYPE": "Haswell"}, needs="avx2"),
    Setting("blas-zen", {"OPENBLAS_CORETYPE": "Zen"}, needs="avx2"),
)

PROBE = """
import json, numpy, scipy.linalg
from numpy._core._multiarray_umath import __cpu_features__ as on
from threadpoolctl import threadpool_info
from mdpsim.kernels import _jit
found = {"numba": _jit.target(), "numpy": sorted(k for k in LEVELS if on[k])}
try:
    import torch
    found["torch"] = torch.backends.cpu.get_cpu_capability()
    found["torch threads"] = torch.get_num_threads()
except ImportError:
    pass
found["blas"] = sorted({p["architecture"] for p in threadpool_info() if p["internal_api"] == "openblas"})
found["blas threads"] = max((p["num_threads"] for p in threadpool_info() if p["internal_api"] == "openblas"), default=0)
print(json.dumps(found))
"""


class Result(NamedTuple):
    """A row of the table."""

    name: str
    passed: int = 0
    failed: tuple[str, ...] = ()
    skipped: frozenset[str] = frozenset()
    differ: tuple[str, ...] = ()
    trouble: str = ""  # why it could not run, or what stopped it
    seconds: float = 0.0

    @property
    def green(self) -> bool:
        """Nothing failed or differs, and nothing was left out but for what is not installed or not plugged in here."""
        return not (self.failed or self.differ or self.trouble or [s for s in self.skipped if not any(w in s for w in ABSENT)])


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def levels() -> list[str]:
    """The instruction sets beyond its baseline that numpy found here, by its own names."""
    import numpy as np

    return list(np.show_config(mode="dicts")["SIMD Extensions"]["found"])


def environment(setting: Setting, threads: int) -> dict[str, str]:
    """This process's, with what the setting says."""
    off = [k for k in levels() if setting.numpy == "baseline" or (setting.numpy == "v3" and ("512" in k or k == "X86_V4"))]
    told = {**setting.environ, **dict.fromkeys((*THREADS, "MDPSIM_TEST_THREADS"), str(threads))}
    return {**os.environ, **told, **({"NPY_DISABLE_CPU_FEATURES": " ".join(off)} if off else {})}


def unable(setting: Setting) -> str:
    """Why this machine cannot compute so; empty where it can."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    if not x86 and setting.name not in (HOST, "generic", "numba-generic", "torch-default", "numpy-baseline"):
        return f"needs an x86-64 processor; this is {platform.machine()}"
    info = Path("/proc/cpuinfo")
    if setting.needs and info.exists() and setting.needs not in info.read_text().split():
        return f"needs a processor with {setting.needs}"
    return ""


def not_taken(environ: dict[str, str], found: dict[str, Any]) -> list[str]:
    """What the libraries did not take of what they were told."""
    wrong = []
    if (name := environ.get("NUMBA_CPU_NAME")) and found["numba"] != name:
        wrong.append(f"numba compiles for {found['numba']}, not {name}")
    off = set(environ.get("NPY_DISABLE_CPU_FEATURES", "").split())
    if off & set(found["numpy"]):
        wrong.append(f"numpy still uses {sorted(off & set(found['numpy']))}")
    if (name := environ.get("ATEN_CPU_CAPABILITY")) and found.get("torch", name.upper()) != name.upper():
        wrong.append(f"torch computes with {found['torch']}, not {name}")
    threads = int(environ["OMP_NUM_THREADS"])
    wrong += [f"{n}: {found[n]}, not {threads}" for n in ("torch threads", "blas threads") if found.get(n, threads) != threads]
    return wrong


def probe(environ: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """What the libraries compute with in a process of this environment, and what of it is not as they were told."""
    command = [sys.executable, "-c", PROBE.replace("LEVELS", repr(levels()))]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return {}, [f"the libraries do not start: {done.stderr.strip()[-500:]}"]
    found = json.loads(done.stdout)
    return found, not_taken(environ, found)


def able(claims: Iterable[str]) -> list[str]:
    """Those whose measures find what they import."""
    from mdpsim import get_claim
    from mdpsim.versions import lacking

    return [claim for claim in claims if not lacking(get_claim(claim).needs)]


def verdicts(environ: dict[str, str], claims: Sequence[str], jobs: int, folder: Path) -> tuple[dict[str, tuple[str, ...]], str]:
    """claim -> its status and those of its twins, at smoke, in a store of its own; and what went wrong, if anything."""
    command = [sys.executable, "-m", "mdpsim", "verify", *claims, "--preset", "smoke", "--json", "--jobs", str(jobs),
               "--store", str(folder / "results.db")]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True)
    found = {}
    for line in done.stdout.splitlines():
        row = json.loads(line)
        found[row["claim"]] = (row["status"], *(f"{twin['name']} {twin['status']}" for twin in row["twins"]))
    return found, "" if done.returncode in (0, 1) and found else f"verify ended with {done.returncode}: {done.stderr[-2000:]}"


def compare(here: dict[str, tuple[str, ...]], there: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Claims whose verdict or twins are others than on this machine as it is, with both."""
    return tuple(f"{claim}: {here.get(claim)} here, {there.get(claim)} so"
                 for claim in sorted(here.keys() | there.keys()) if here.get(claim) != there.get(claim))


def files(part: str, short: bool) -> list[str]:
    """What pytest is asked to run of a part: files, or tests of them."""
    stems = sorted(p.stem for p in (ROOT / "tests").glob("test_*.py"))
    if short:
        stems = [s for s in stems if s in SHORT_TESTS]
    chosen = {
        "lm": [s for s in stems if s.startswith(LM)], "notebooks": [s for s in stems if s == "test_notebooks"],
        "kernels": [s for s in stems if s not in HOUSE and s != "test_notebooks" and not s.startswith(LM)],
    }
    return [f"tests/{s}.py{test}" for s in chosen[part] for test in (SHORT_TESTS[s] if short else ("",))]


def read_report(path: Path) -> tuple[int, list[str], set[str]]:
    """(number that passed, what failed, what was skipped and why) of pytest's report."""
    passed, failed, skipped = 0, [], set()
    for case in ET.parse(path).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif (skip := case.find("skipped")) is not None:
            why = skip.get("message") if skip.get("message") != "collection skipped" else skip.text
            skipped.add(f"{name}: {why}")
        else:
            passed += 1
    return passed, failed, skipped


def tests(environ: dict[str, str], chosen: Sequence[str], jobs: int, folder: Path) -> tuple[int, list[str], set[str], str]:
    """pytest over files; its output is shown as it comes. The verdicts of the claims' conformance are judged beside."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *chosen,
               "--deselect", "tests/test_papers.py::test_smoke_verdict",
               "--deselect", "tests/test_papers.py::test_a_claim_made_false_is_not_supported"]
    command += ["--numprocesses", str(jobs), "--dist", "worksteal"] if jobs > 1 else []
    done = subprocess.run(command, env=environ, cwd=ROOT)
    if not report.exists():
        return 0, [], set(), f"pytest ended with {done.returncode} and wrote no report"
    passed, failed, skipped = read_report(report)
    trouble = "" if done.returncode in (0, 5) or failed else f"pytest ended with {done.returncode}"
    return passed, failed, skipped, trouble


def run(
    setting: Setting, threads: int, here: dict[str, tuple[str, ...]], parts: Iterable[str], jobs: int, short: bool
) -> Result:
    """One row: claims, then tests. ``here`` are the verdicts of this machine as it is, filled by its own run."""
    name, start = f"{setting.name}, {threads} thread{'s' * (threads > 1)}", time.monotonic()
    if why := unable(setting):
        return Result(name, trouble=why)
    environ = environment(setting, threads)
    found, wrong = probe(environ)
    say(f"== {name}: " + ", ".join(f"{k} {v}" for k, v in found.items()))
    if wrong:
        return Result(name, trouble="; ".join(wrong))
    passed, failed, skipped, differ, trouble = 0, [], set(), (), []
    with tempfile.TemporaryDirectory() as folder:
        if "claims" in parts:
            there, wrong_there = verdicts(environ, able(SHORT_CLAIMS) if short else (), jobs, Path(folder))
            if not here:
                here.update(there)
            differ = compare(here, there)
            trouble += [wrong_there] if wrong_there else []
            say(f"   {len(there)} verdicts, {len(differ)} differ ({time.monotonic() - start:.0f} s)")
        chosen = [f for part in PARTS[1:] if part in parts for f in files(part, short)]
        if chosen:
            passed, failed, skipped, wrong_tests = tests(environ, chosen, jobs, Path(folder))
            trouble += [wrong_tests] if wrong_tests else []
    return Result(name, passed, tuple(failed), frozenset(skipped), differ, "; ".join(trouble), time.monotonic() - start)


def table(results: Sequence[Result]) -> str:
    """What came of it, a row a setting, and below it what is not green."""
    head = ("setting", "passed", "failed", "left out", "verdicts that differ", "seconds", "")
    rows = [(r.name, str(r.passed), str(len(r.failed)), str(len(r.skipped)), str(len(r.differ)), f"{r.seconds:.0f}",
             "green" if r.green else "NOT GREEN") for r in results]
    width = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip() for row in (head, *rows)]
    for r in results:
        left_out = (f"left out: {s}" for s in sorted(r.skipped))
        told = [*([r.trouble] if r.trouble else []), *r.failed, *r.differ, *left_out]
        lines += [f"{r.name}: {line}" for line in told]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    known = {s.name: s for s in (*SETTINGS, *SINGLE)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="SETTING", help=f"{', '.join(known)}; none: all that are processors")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--jobs", type=int, default=1, help="processes of tests and of trials")
    parser.add_argument("--short", action="store_true", help="three claims and a few files of tests: what CI runs")
    said = parser.parse_args(arguments)
    if unknown := [n for n in said.settings if n not in known]:
        parser.error(f"unknown setting {unknown[0]}; known: {', '.join(known)}")
    wanted = [known[n] for n in said.settings] or [s for s in SETTINGS if not unable(s)]
    here: dict[str, tuple[str, ...]] = {}
    results = []
    if "claims" in said.parts and HOST not in [s.name for s in wanted]:  # what the others are compared with
        first = run(known[HOST], 1, here, ["claims"], said.jobs, said.short)
        results.append(first)
    for threads in said.threads:
        for setting in wanted:
            result = run(setting, threads, here, said.parts, said.jobs, said.short)
            results.append(result)
            say(table([result]))
    say("\n" + table(results))
    for setting in SETTINGS:
        if not said.settings and (why := unable(setting)):
            say(f"{setting.name}: not run here: {why}")
    return 0 if all(r.green for r in results) else 1


if __name__ == "__main__":
    sys.exit(main())
