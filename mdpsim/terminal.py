"""What the command line writes: tables and messages, progress, errors as one line and an exit status."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mdpsim.claims.claim import CLAIM_ARM, Claim
from mdpsim.claims.run import Chunk, MeasureError, missing
from mdpsim.store import Store, trouble
from mdpsim.verdict.records import INCONCLUSIVE, REFUTED, SUPPORTED
from mdpsim.verify import Judged, JudgeError

UNLIMITED = 10_000  # columns of what is no terminal
GAP = 2  # columns between two cells
LAST = 40  # columns that the last cell of a row, which may be prose, needs at least beside the others
COLOURS = {SUPPORTED: "green", REFUTED: "red", INCONCLUSIVE: "yellow"}


def messages() -> Console:
    """Stderr: progress and messages."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def console() -> Console:
    """Stdout; what is not a terminal has no width, and tables are not cut to one."""
    # rich takes a width only with a height: without one every terminal that calls itself dumb has 80 columns.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
    return Console(highlight=False, width=width, height=25)


def open_streams() -> None:
    """Give what the caller closed (``>&-``) a place to write to: Python has None there, and a store could get its number."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open until the process ends


def show_rows(names: Sequence[str], rows: Sequence[Sequence[Text]], right: Sequence[str] = ()) -> None:
    """A table where the terminal is wide enough for it, else a paragraph a row; the first cell, an id, is never broken.

    Args:
        right: the names of the columns of numbers, which are set to the right.
    """
    where = console()
    lengths = [max(len(name), *(row[i].cell_len for row in rows)) if rows else len(name) for i, name in enumerate(names)]
    fixed = sum(lengths[:-1]) + GAP * (len(names) - 1)
    if where.width >= fixed + min(lengths[-1], LAST):
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
        for name in names:
            table.add_column(
                name, justify="right" if name in right else "left", no_wrap=name != names[-1], overflow="fold",
            )
        for row in rows:
            table.add_row(*row)
        where.print(table)
        return
    for row in rows:
        where.print(row[0], soft_wrap=True)  # a longer line is the terminal's to wrap: copied, it is whole
        line = Text()
        for name, cell in zip(names[1:], row[1:], strict=True):
            pair = Text.assemble((name, "bold"), " ", cell)
            if line and line.cell_len + GAP + pair.cell_len > where.width - GAP:
                where.print(Padding(line, (0, 0, 0, GAP)))
                line = Text()
            line = Text.assemble(line, " " * GAP, pair) if line else pair
        where.print(Padding(line, (0, 0, 0, GAP)))


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
            messages().print(Text(f"mdpsim: the store cannot be used: {trouble(error)}", style="red"))
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
    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
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
            where.print(Text(f"{done} of {total} trials, now {label}"))

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
    show_rows(list(rows[0]), [[Text(str(cell), style=COLOURS.get(str(cell), "")) for cell in row.values()] for row in rows])
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
