"""The command line: ``mdpsim list | show | verify | judge | report | cite | info``.

Exit status: 0 all judged and none refuted; 1 something refuted; 2 bad usage (or a measure that failed); 3 with --strict
when something is inconclusive; 130 interrupted. With --json there are JSON Lines on stdout and nothing else; progress
and messages go to stderr.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from mdpsim.arrays import as_count, as_path, fail, unknown
from mdpsim.claims.claim import PRESETS, Claim
from mdpsim.claims.device import DEVICES, check_device, devices_of, on_device
from mdpsim.claims.run import MAX_SEED, TIMEOUT, MeasureError, missing, run_all
from mdpsim.registry import all_claims, get_claim, select
from mdpsim.store import DEFAULT_PATH, Store, is_full, trouble
from mdpsim.terminal import (
    compilation_line,
    console,
    errors,
    flat,
    messages,
    open_streams,
    print_json,
    progress_bar,
    show_rows,
    show_verdicts,
)
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED
from mdpsim.verify import Judged, JudgeError, estimate_costs, isolated, judge_all, judge_held
from mdpsim.versions import cores, lacking

app = typer.Typer(add_completion=False, no_args_is_help=False, rich_markup_mode=None, pretty_exceptions_enable=False)



def _expanded(path: Path) -> Path:
    """A path given as --store=~/x, which no shell expands."""
    try:
        return as_path("mdpsim", "path", path)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Targets = Annotated[list[str] | None, typer.Argument(metavar="[CLAIM|PAPER|FILE.py]...", help="Default: all claims.")]
One = Annotated[str, typer.Argument(metavar="CLAIM", help="The id of a claim.")]
StorePath = Annotated[Path, typer.Option("--store", callback=_expanded, help="The sqlite file that holds the records.")]
Json = Annotated[bool, typer.Option("--json", help="JSON Lines on stdout, one object a claim.")]
Seed = Annotated[int, typer.Option("--seed", help="K: trial i draws from the pair (K, i).")]
HeldPreset = Annotated[
    str | None, typer.Option("--preset", help="Default: the largest preset that the store holds in full.")
]
HeldDevice = Annotated[
    str | None, typer.Option("--device", help="cpu or cuda; default: that of which the store holds the larger preset.")
]


# --- what there is ---------------------------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def _main(context: typer.Context) -> None:
    """The laboratory where theorists of KL-regularised reinforcement learning check their theorems."""
    if context.invoked_subcommand is None:
        console().print(
            "[bold]mdpsim[/]: theorems of KL-regularised reinforcement learning as executable claims. Each has its bound,\n"
            "a statistical verdict with stated error rates, and twins: falsehoods the same test must reject.\n\n"
            "  mdpsim list                                  the claims that come built in\n"
            "  mdpsim verify korbak2022/elbo-identity       run one and judge it\n"
            "  mdpsim report                                a page with verdicts and figures\n\n"
            "mdpsim --help shows all commands."
        )


@app.command("list")
def list_(
    paper: Annotated[str | None, typer.Option("--paper", help="Only the claims of this paper.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only the claims with this tag.")] = None,
    costs: Annotated[bool, typer.Option("--costs", help="What the presets take, from what a store has measured.")] = False,
    store: StorePath = DEFAULT_PATH,
    as_json: Json = False,
) -> None:
    """The claims: their statements, origins, rules and sizes."""
    with errors():
        claims = all_claims(paper=paper, tag=tag)
        if costs:
            _list_costs(claims, store, as_json)
            return
        if as_json:
            for claim in claims:
                print_json(_describe(claim))
            return
        rows = []
        for claim in claims:
            trials = _sizes(claim).get("quick")
            absent = lacking(claim.needs)
            size = f"needs [{','.join(absent)}]" if absent else str(trials or "-")
            row = (claim.id, claim.origin, claim.rule.name, str(len(claim.twins)), size, claim.statement)
            rows.append([Text(cell) for cell in row])
        show_rows(("claim", "origin", "rule", "twins", "trials at quick", "statement"), rows)


def _list_costs(claims: Sequence[Claim], path: Path, as_json: bool) -> None:
    """Seconds of one core: measured, and estimated for each preset."""
    with Store(path, writable=False) as store:
        found = {claim.id: estimate_costs(claim, store) for claim in claims}
    if as_json:
        for name, cost in found.items():
            print_json({"claim": name, **cost._asdict()})
        return
    names = ("trials measured", "seconds", "ms a trial", *(f"{p} (s)" for p in PRESETS))
    rows = []
    for name, cost in found.items():
        each = f"{1e3 * cost.seconds / cost.trials:.3g}" if cost.trials else "-"
        wanted = (cost.estimates.get(p) for p in PRESETS)
        cells = (name, str(cost.trials), f"{cost.seconds:.1f}", each, *("-" if s is None else f"{s:.1f}" for s in wanted))
        rows.append([Text(cell) for cell in cells])
    show_rows(("claim", *names), rows, right=names)


def _one(target: str) -> Claim:
    """The claim of an id, or the only one of a file."""
    if not target.endswith(".py"):
        return get_claim(target)
    claims = select([target])
    if len(claims) > 1:
        fail("mdpsim", "CLAIM", "be a file with one claim, or an id", f"{len(claims)} claims in {target}")
    return claims[0]


def _sizes(claim: Claim) -> dict[str, int]:
    """preset -> number of trials, twins included."""
    return {p: sum(sum(points.values()) for points in claim.plan(p).values()) for p in PRESETS if p in claim.grid}


def _describe(claim: Claim) -> dict[str, Any]:
    return {
        "claim": claim.id, "rev": claim.rev, "origin": claim.origin, "statement": claim.statement,
        "cites": [str(c) for c in claim.cites], "rule": claim.rule.name, "trials": _sizes(claim),
        "twins": [{"name": t.name, "statement": t.statement, "distance": t.distance} for t in claim.twins],
        "needs": list(claim.needs), "lacking": list(lacking(claim.needs)), "tags": list(claim.tags),
    }


@app.command()
def show(claim: One, as_json: Json = False) -> None:
    """A claim's statement, what is measured, its twins and its citation."""
    with errors():
        found = _one(claim)
        if as_json:
            print_json(_describe(found))
            return
        measured = (found.measure.__doc__ or "").strip()
        lines = [
            f"{found.id} (rev {found.rev}, origin: {found.origin})", "", found.statement, "",
            f"cites     {'; '.join(str(c) for c in found.cites)}",
            f"rule      {found.rule}",
            *(f"within    {axis}: {', '.join(map(str, values))}" for axis, values in found.within.items()),
            f"trials    {', '.join(f'{p}: {n}' for p, n in _sizes(found).items())}",
            "", "measured  " + measured.replace("\n", "\n          ").replace("          \n", "\n"), "",
        ]
        for twin in found.twins:
            lines += [f"twin      {twin.name}: {twin.statement}", f"          distance: {twin.distance}"]
        lines += ["", f"verify    mdpsim verify {found.id}"]
        console().print(Text("\n".join(lines)))


# --- running and judging ---------------------------------------------------------------------------------------------


@app.command()
def verify(
    targets: Targets = None,
    preset: Annotated[str, typer.Option("--preset", help="smoke, quick, paper or full.")] = "quick",
    seed: Seed = 0,
    jobs: Annotated[int | None, typer.Option("--jobs", help="Worker processes; default: all cores.")] = None,
    budget: Annotated[float | None, typer.Option("--budget", help="Seconds after which nothing more is begun.")] = None,
    store: StorePath = DEFAULT_PATH,
    as_json: Json = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 when something is inconclusive.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda, for claims that depend on it.")] = "auto",
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds that a chunk of trials may take.")] = TIMEOUT,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Leave out trials that raise or give a NaN.")] = False,
) -> None:
    """Run what the store does not hold yet, and judge. A FILE.py that is named is Python code, and is run as such."""
    with errors():
        if preset not in PRESETS:
            unknown("verify", "--preset", preset, PRESETS)
        check_device("verify", "--device", device)
        with contextlib.redirect_stdout(sys.stderr):  # what a claims file prints is a message
            claims = [on_device(claim, device) for claim in select(targets or [])]
        n_jobs = cores() if jobs is None else jobs
        as_count("verify", "--seed", seed, low=0, high=MAX_SEED)
        failure: MeasureError | None = None
        failed: list[str] = []
        able = [c for c in claims if not lacking(c.needs)]
        with Store(store) as opened, contextlib.redirect_stdout(sys.stderr), compilation_line():
            with progress_bar(able, preset, seed, opened) as progress:
                options = {"preset": preset, "seed": seed, "store": opened}
                try:
                    left_out = run_all(
                        able, preset=preset, seed=seed, sink=opened, jobs=n_jobs, budget=budget, timeout=timeout,
                        keep_going=keep_going, progress=progress,
                    )
                    for line in left_out:
                        messages().print(Text(f"left out: {line}"))
                except MeasureError as error:
                    failure = error
                except (sqlite3.Error, OSError) as error:
                    if not is_full(error):
                        raise
                    failed.append(f"the store {store} cannot grow: {trouble(error)}")  # what is there is judged
            if budget is not None and (left := sum(len(c.trials) for c in missing(able, preset, seed, opened))):
                messages().print(f"budget of {budget:g} s spent, {left} trials left: the same command goes on from here")
            failed += [] if failure is None else [str(failure)]
            judged = judge_all([c for c in claims if not failure or c.id not in failure.claims], failed=failed, **options)
        _finish(judged, failed, as_json, strict)


@app.command()
def judge(
    targets: Targets = None,
    preset: HeldPreset = None,
    seed: Seed = 0,
    store: StorePath = DEFAULT_PATH,
    as_json: Json = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 when something is inconclusive.")] = False,
    device: HeldDevice = None,
) -> None:
    """Judge again what a store holds, running nothing."""
    with errors():
        _finish(*_judge_held(targets or [], preset, device, seed, store), as_json, strict)


def _check_held(preset: str | None, device: str | None, seed: int) -> None:
    """Guard what names records that a store may hold: they need no device here."""
    if preset is not None and preset not in PRESETS:
        unknown("judge", "--preset", preset, PRESETS)
    if device is not None:
        check_device("judge", "--device", device, DEVICES)
    as_count("judge", "--seed", seed, low=0, high=MAX_SEED)


def _judge_held(
    targets: Sequence[str], preset: str | None, device: str | None, seed: int, path: Path
) -> tuple[list[Judged], list[str]]:
    """Judge the claims a store has records of (or those named), each at its own largest complete preset, and who cannot be."""
    _check_held(preset, device, seed)
    failed: list[str] = []
    with Store(path, writable=False) as store:
        held = {claim for claim, k, _ in store.held() if k == seed}
        claims = [claim for claim in select(targets) if claim.id in held or targets]
        judged = isolated(
            claims, lambda claim: judge_held(claim, seed=seed, store=store, preset=preset, device=device), failed
        )
    if not judged and not failed:
        raise ValueError(f"judge: --store must hold records of a registered claim at seed {seed}; got none in {path}")
    return judged, failed


def _finish(judged: Sequence[Judged], failed: Sequence[str], as_json: bool, strict: bool) -> None:
    """Print the verdicts and exit with their status: 2 where a claim has none for an error in it."""
    show_verdicts(judged, as_json)
    if failed:
        raise JudgeError("\n".join(failed))
    statuses = [one.verdict.status for one in judged]
    raise typer.Exit(1 if REFUTED in statuses else 3 if strict and INCONCLUSIVE in statuses else 0)


# --- what to show and cite -------------------------------------------------------------------------------------------


@app.command()
def report(
    targets: Targets = None,
    out: Annotated[Path, typer.Option("--out", callback=_expanded, help="The directory to write.")] = Path("report"),
    preset: HeldPreset = None,
    seed: Seed = 0,
    store: StorePath = DEFAULT_PATH,
    as_json: Json = False,
    device: HeldDevice = None,
) -> None:
    """Write index.html, figures (PDF, PNG) and tables (CSV, LaTeX) of what a store holds."""
    with errors():
        from mdpsim.report import write_report
        from mdpsim.versions import versions

        judged, failed = _judge_held(targets or [], preset, device, seed, store)
        shown = {one.claim.id for one in judged}
        context = {
            "not_run": [c.id for c in select(targets or []) if lacking(c.needs) and c.id not in shown],
            "versions": versions(), "commit": versions().get("commit"), "store": str(store), "seed": seed,
            "device": ", ".join(sorted({name for one in judged for name in devices_of(one.claim)})),
            "preset": ", ".join(dict.fromkeys(one.verdict.preset for one in judged)),
        }
        page = write_report(judged, out, context=context)
        if as_json:
            print_json({"page": str(page), "claims": [one.claim.id for one in judged]})
        else:
            console().print(Text(f"wrote {page}"))
        if failed:
            raise JudgeError("\n".join(failed))


@app.command()
def cite(
    claim: One,
    preset: HeldPreset = None,
    seed: Seed = 0,
    store: StorePath = DEFAULT_PATH,
    as_json: Json = False,
    device: HeldDevice = None,
) -> None:
    """BibTeX of the paper and of mdpsim, and the sentence to quote with numbers and origin."""
    with errors():
        from mdpsim.report import citation
        from mdpsim.versions import bibtex

        _check_held(preset, device, seed)
        found = _one(claim)
        sentence = None
        if store.exists():
            with Store(store, writable=False) as opened:
                if any(c == found.id and k == seed for c, k, _ in opened.held()):
                    one = judge_held(found, seed=seed, store=opened, preset=preset, device=device)
                    sentence = citation(one.claim, one.verdict)
        entries = [paper.bibtex() for paper in found.cites] + [bibtex()]
        if as_json:
            print_json({"claim": found.id, "sentence": sentence, "bibtex": entries})
            return
        no_verdict = f"(no verdict in {store} at seed {seed} yet: run 'mdpsim verify {found.id}' for a sentence to quote)"
        console().print(Text("\n\n".join([sentence or no_verdict, *entries])))


@app.command()
def info(as_json: Json = False) -> None:
    """Versions, threads, BLAS, CPU, devices, commit."""
    with errors():
        from mdpsim.versions import information

        found = information()
        if as_json:
            print_json(found)
        else:
            console().print(Text("\n".join(f"{name:12} {value}" for name, value in flat(found))))


def main() -> None:
    """Entry point of the ``mdpsim`` command."""
    open_streams()
    app()


if __name__ == "__main__":
    main()
