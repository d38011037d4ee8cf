"""The command line: ``mdpsim list | show | verify | judge | report | cite | info``.

Exit status: 0 all judged and none refuted; 1 something refuted; 2 bad usage (or a measure that failed); 3 with --strict
when something is inconclusive; 130 interrupted. With --json there are JSON Lines on stdout and nothing else; progress
and messages go to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mdpsim.arrays import as_count, fail, unknown
from mdpsim.claims.claim import CLAIM_ARM, PRESETS, Claim
from mdpsim.claims.run import MAX_SEED, Chunk, MeasureError, missing, run_all
from mdpsim.registry import all_claims, get_claim, select
from mdpsim.store import DEFAULT_PATH, Store, StoreWarning
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, SUPPORTED
from mdpsim.verify import Judged, held_preset, judge_all
from mdpsim.versions import cores

app = typer.Typer(add_completion=False, no_args_is_help=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_COLOURS = {SUPPORTED: "green", REFUTED: "red", INCONCLUSIVE: "yellow"}

Targets = Annotated[list[str] | None, typer.Argument(metavar="[CLAIM|PAPER|FILE.py]...", help="Default: all claims.")]
One = Annotated[str, typer.Argument(metavar="CLAIM", help="The id of a claim.")]
StorePath = Annotated[Path, typer.Option("--store", help="The sqlite file that holds the records.")]
Json = Annotated[bool, typer.Option("--json", help="JSON Lines on stdout, one object a claim.")]
Seed = Annotated[int, typer.Option("--seed", help="K: trial i draws from the pair (K, i).")]
HeldPreset = Annotated[
    str | None, typer.Option("--preset", help="Default: the largest preset that the store holds in full.")
]


def _err() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _out() -> Console:
    """Stdout; what is not a terminal has no width, and tables are not cut to one."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=10_000)


@contextmanager
def _errors() -> Iterator[None]:
    """Turn errors into one line on stderr and the exit status of the contract."""

    def show(message: Any, *rest: Any, **more: Any) -> None:
        _err().print(f"[yellow]note:[/] {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.simplefilter("always", StoreWarning)
        try:
            yield
        except (ValueError, MeasureError) as error:
            _err().print(Text(f"mdpsim: {error}", style="red"))
            raise typer.Exit(2) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            _err().print(Text(f"mdpsim: {error}", style="red"))
            raise typer.Exit(2) from None
        except sqlite3.Error as error:
            _err().print(Text(f"mdpsim: the store cannot be used: {error}; name another with --store", style="red"))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _err().print("interrupted: everything finished is in the store; the same command goes on from here")
            raise typer.Exit(130) from None


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


# --- what there is ---------------------------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def _main(context: typer.Context) -> None:
    """The laboratory where theorists of KL-regularised reinforcement learning check their theorems."""
    if context.invoked_subcommand is None:
        _out().print(
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
    as_json: Json = False,
) -> None:
    """The claims: their statements, origins, rules and sizes."""
    with _errors():
        claims = all_claims(paper=paper, tag=tag)
        if as_json:
            for claim in claims:
                _print_json(_describe(claim))
            return
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for name in ("claim", "origin", "rule", "twins", "trials at quick", "statement"):
            table.add_column(name, overflow="fold", no_wrap=name in ("claim", "origin"))
        for claim in claims:
            trials = _sizes(claim).get("quick")
            row = (claim.id, claim.origin, claim.rule.name, str(len(claim.twins)), str(trials or "-"), claim.statement)
            table.add_row(*(Text(cell) for cell in row))
        _out().print(table)


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
        "needs": list(claim.needs), "tags": list(claim.tags),
    }


@app.command()
def show(claim: One, as_json: Json = False) -> None:
    """A claim's statement, what is measured, its twins and its citation."""
    with _errors():
        found = _one(claim)
        if as_json:
            _print_json(_describe(found))
            return
        measured = (found.measure.__doc__ or "").strip()
        lines = [
            f"{found.id} (rev {found.rev}, origin: {found.origin})", "", found.statement, "",
            f"cites     {'; '.join(str(c) for c in found.cites)}",
            f"rule      {found.rule}",
            f"trials    {', '.join(f'{p}: {n}' for p, n in _sizes(found).items())}",
            "", "measured  " + measured.replace("\n", "\n          ").replace("          \n", "\n"), "",
        ]
        for twin in found.twins:
            lines += [f"twin      {twin.name}: {twin.statement}", f"          distance: {twin.distance}"]
        lines += ["", f"verify    mdpsim verify {found.id}"]
        _out().print(Text("\n".join(lines)))


# --- running and judging ---------------------------------------------------------------------------------------------


@app.command()
def verify(
    targets: Targets = None,
    preset: Annotated[str, typer.Option("--preset", help="smoke, quick, paper or full.")] = "quick",
    seed: Seed = 0,
    jobs: Annotated[int | None, typer.Option("--jobs", help="Worker processes; default: all cores.")] = None,
    store: StorePath = DEFAULT_PATH,
    as_json: Json = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 when something is inconclusive.")] = False,
) -> None:
    """Run what the store does not hold yet, and judge."""
    with _errors():
        if preset not in PRESETS:
            unknown("verify", "--preset", preset, PRESETS)
        with contextlib.redirect_stdout(sys.stderr):  # what a claims file prints is a message
            claims = select(targets or [])
        n_jobs = cores() if jobs is None else jobs
        as_count("verify", "--seed", seed, low=0, high=MAX_SEED)
        failure: MeasureError | None = None
        with Store(store) as opened, contextlib.redirect_stdout(sys.stderr), _compilation_line():
            with _progress(claims, preset, seed, opened) as progress:
                options = {"preset": preset, "seed": seed, "store": opened}
                try:
                    run_all(claims, preset=preset, seed=seed, sink=opened, jobs=n_jobs, progress=progress)
                except MeasureError as error:
                    failure = error
            judged = judge_all([c for c in claims if not failure or c.id not in failure.claims], **options)
        if failure is not None:
            _show(judged, as_json)
            raise failure
        _finish(judged, as_json, strict)


@app.command()
def judge(
    targets: Targets = None,
    preset: HeldPreset = None,
    seed: Seed = 0,
    store: StorePath = DEFAULT_PATH,
    as_json: Json = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 when something is inconclusive.")] = False,
) -> None:
    """Judge again what a store holds, running nothing."""
    with _errors():
        _finish(_judge_held(targets or [], preset, seed, store), as_json, strict)


def _judge_held(targets: Sequence[str], preset: str | None, seed: int, path: Path) -> list[Judged]:
    """Judge the claims a store has records of (or those named), each at its own largest complete preset."""
    if preset is not None and preset not in PRESETS:
        unknown("judge", "--preset", preset, PRESETS)
    as_count("judge", "--seed", seed, low=0, high=MAX_SEED)
    claims = select(targets)
    judged: list[Judged] = []
    with Store(path, create=False) as store:
        held = {claim for claim, k, _ in store.held() if k == seed}
        for claim in claims:
            if claim.id in held or targets:
                judged += judge_all([claim], preset=preset or held_preset(claim, seed, store), seed=seed, store=store)
    if not judged:
        raise ValueError(f"judge: --store must hold records of a registered claim at seed {seed}; got none in {path}")
    return judged


@contextmanager
def _compilation_line() -> Iterator[None]:
    """Say so, once, when kernels have to be compiled."""
    from mdpsim.kernels._jit import watch_compilation

    told = False

    def tell() -> None:
        nonlocal told
        if not told:
            told = True
            _err().print("compiling kernels (once)")

    with watch_compilation(tell):
        yield


@contextmanager
def _progress(claims: Sequence[Claim], preset: str, seed: int, store: Store) -> Iterator[Any]:
    """A progress bar on a terminal, a line every ten seconds elsewhere; both on stderr."""
    total = sum(len(chunk.trials) for chunk in missing(claims, preset, seed, store))
    if not total:
        yield None
        return
    console = _err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=total)
    done, last = 0, time.monotonic()

    def update(chunk: Chunk, seconds: float) -> None:
        nonlocal done, last
        done += len(chunk.trials)
        label = chunk.claim.id + ("" if chunk.arm == CLAIM_ARM else f" (twin {chunk.arm})")
        bar.update(task, advance=len(chunk.trials), description=label)
        if not console.is_terminal and time.monotonic() - last >= 10:
            last = time.monotonic()
            console.print(f"{done} of {total} trials, now {label}")

    with bar if console.is_terminal else nullcontext():
        yield update


def _show(judged: Sequence[Judged], as_json: bool) -> None:
    if as_json:
        for one in judged:
            _print_json(one.verdict.to_json())
    elif judged:
        _print_table(judged)


def _finish(judged: Sequence[Judged], as_json: bool, strict: bool) -> None:
    """Print the verdicts and exit with their status."""
    _show(judged, as_json)
    statuses = [one.verdict.status for one in judged]
    raise typer.Exit(1 if REFUTED in statuses else 3 if strict and INCONCLUSIVE in statuses else 0)


def _print_table(judged: Sequence[Judged]) -> None:
    from mdpsim.report import verdict_rows

    rows = verdict_rows(judged)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell), style=_COLOURS.get(str(cell), "")) for cell in row.values()))
    _out().print(table)
    for one in judged:
        for note in one.verdict.notes:
            _out().print(Text(f"{one.claim.id}: {note}"))


# --- what to show and cite -------------------------------------------------------------------------------------------


@app.command()
def report(
    targets: Targets = None,
    out: Annotated[Path, typer.Option("--out", help="The directory to write.")] = Path("report"),
    preset: HeldPreset = None,
    seed: Seed = 0,
    store: StorePath = DEFAULT_PATH,
    as_json: Json = False,
) -> None:
    """Write index.html, figures (PDF, PNG) and tables (CSV, LaTeX) of what a store holds."""
    with _errors():
        from mdpsim.report import write_report
        from mdpsim.versions import versions

        judged = _judge_held(targets or [], preset, seed, store)
        context = {
            "versions": versions(), "commit": versions().get("commit"), "store": str(store), "seed": seed, "device": "cpu",
            "preset": ", ".join(dict.fromkeys(one.verdict.preset for one in judged)),
        }
        page = write_report(judged, out, context=context)
        if as_json:
            _print_json({"page": str(page), "claims": [one.claim.id for one in judged]})
        else:
            _out().print(Text(f"wrote {page}"))


@app.command()
def cite(
    claim: One, preset: HeldPreset = None, seed: Seed = 0, store: StorePath = DEFAULT_PATH, as_json: Json = False
) -> None:
    """BibTeX of the paper and of mdpsim, and the sentence to quote with numbers and origin."""
    with _errors():
        from mdpsim.report import citation
        from mdpsim.versions import bibtex

        found = _one(claim)
        sentence = None
        if store.exists():
            with Store(store, create=False) as opened:
                if any(c == found.id and k == seed for c, k, _ in opened.held()):
                    name = preset or held_preset(found, seed, opened)
                    sentence = citation(found, judge_all([found], preset=name, seed=seed, store=opened)[0].verdict)
        entries = [paper.bibtex() for paper in found.cites] + [bibtex()]
        if as_json:
            _print_json({"claim": found.id, "sentence": sentence, "bibtex": entries})
            return
        no_verdict = f"(no verdict in {store} at seed {seed} yet: run 'mdpsim verify {found.id}' for a sentence to quote)"
        _out().print(Text("\n\n".join([sentence or no_verdict, *entries])))


@app.command()
def info(as_json: Json = False) -> None:
    """Versions, threads, BLAS, CPU, commit."""
    with _errors():
        from mdpsim.versions import information

        found = information()
        if as_json:
            _print_json(found)
        else:
            _out().print(Text("\n".join(f"{name:12} {value}" for name, value in _flat(found))))


def _flat(found: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else value


def main() -> None:
    """Entry point of the ``mdpsim`` command."""
    app()


if __name__ == "__main__":
    main()
