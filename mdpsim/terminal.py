"""What the command line writes: tables and messages, progress, errors as one line and an exit status."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mdpsim.claims.claim import CLAIM_ARM, Claim
from mdpsim.claims.run import Chunk, MeasureError, missing
from mdpsim.store import Store
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, SUPPORTED
from mdpsim.verify import Judged, JudgeError

COLOURS = {SUPPORTED: "green", REFUTED: "red", INCONCLUSIVE: "yellow"}


def messages() -> Console:
    """Stderr: progress and messages."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def console() -> Console:
    """Stdout; what is not a terminal has no width, and tables are not cut to one."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=10_000)


@contextmanager
def errors() -> Iterator[None]:
    """Turn errors into one line on stderr and the exit status of the contract."""

    def show(message: Any, *rest: Any, **more: Any) -> None:
        messages().print(Text.assemble(("note:", "yellow"), f" {message}"))  # Text: brackets in it are no markup

    with warnings.catch_warnings():
        warnings.showwarning = show
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        except (ValueError, MeasureError, JudgeError) as error:
            messages().print(Text(f"mdpsim: {error}", style="red"))
            raise typer.Exit(2) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            messages().print(Text(f"mdpsim: {error}", style="red"))
            raise typer.Exit(2) from None
        except sqlite3.Error as error:
            messages().print(Text(f"mdpsim: the store cannot be used: {error}; name another with --store", style="red"))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            messages().print("interrupted: everything finished is in the store; the same command goes on from here")
            raise typer.Exit(130) from None


def print_json(value: Any) -> None:
    """One JSON Line on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


@contextmanager
def compilation_line() -> Iterator[None]:
    """Say so, once, when kernels have to be compiled."""
    from mdpsim.kernels._jit import watch_compilation

    told = False

    def tell() -> None:
        nonlocal told
        if not told:
            told = True
            messages().print("compiling kernels (once)")

    with watch_compilation(tell):
        yield


@contextmanager
def progress_bar(claims: Sequence[Claim], preset: str, seed: int, store: Store) -> Iterator[Any]:
    """A progress bar on a terminal, a line every ten seconds elsewhere; both on stderr."""
    total = sum(len(chunk.trials) for chunk in missing(claims, preset, seed, store))
    if not total:
        yield None
        return
    where = messages()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=where, transient=True)
    task = bar.add_task("", total=total)
    done, last = 0, time.monotonic()

    def update(chunk: Chunk, seconds: float) -> None:
        nonlocal done, last
        done += len(chunk.trials)
        label = chunk.claim.id + ("" if chunk.arm == CLAIM_ARM else f" (twin {chunk.arm})")
        bar.update(task, advance=len(chunk.trials), description=label)
        if not where.is_terminal and time.monotonic() - last >= 10:
            last = time.monotonic()
            where.print(f"{done} of {total} trials, now {label}")

    with bar if where.is_terminal else nullcontext():
        yield update


def show_verdicts(judged: Sequence[Judged], as_json: bool) -> None:
    """The verdicts as JSON Lines or as a table."""
    if as_json:
        for one in judged:
            print_json(one.verdict.to_json())
    elif judged:
        print_table(judged)


def print_table(judged: Sequence[Judged]) -> None:
    """The verdicts as a table, with their notes below it."""
    from mdpsim.report import verdict_rows

    rows = verdict_rows(judged)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell), style=COLOURS.get(str(cell), "")) for cell in row.values()))
    console().print(table)
    for one in judged:
        notes = one.verdict.notes
        if one.verdict.n_trials == 0:  # what is missing says all: that no twin was measured either says nothing more
            notes = [note for note in notes if note.startswith("needs [")] or notes
        for note in notes:
            console().print(Text(f"{one.claim.id}: {note}"))


def flat(found: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """The rows of nested mappings, lists as text."""
    for name, value in found.items():
        if isinstance(value, dict):
            yield from flat(value)
        else:
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else value
