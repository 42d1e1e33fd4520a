"""What the commands share: progress bars, JSON, errors as sentences, exit codes."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from napari_medseg._types import InputError, MedsegError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_medseg._types import Job
    from napari_medseg._types import Progress as Report

T = TypeVar("T")

FAILED = 1
"""Exit code when something that was listed failed."""

BAD_ARGUMENTS = 2
"""Exit code when an argument or what it points to cannot be used."""


_WIDEST = 10_000
"""Columns of letters that a table in a file may take."""


def follow(job: Job[T], *, quiet: bool) -> T:
    """Run a job under a progress bar, drawn on standard error.

    Parameters
    ----------
    job : generator
        The job.
    quiet : bool
        Draw nothing.

    Returns
    -------
    object
        What the job returns.
    """
    if quiet:
        return _drain(job, lambda _: None)
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(report: Report) -> None:
            bar.update(
                task,
                completed=report.step,
                total=report.total,
                description=describe(report),
            )

        return _drain(job, show)


def describe(report: Report) -> str:
    """Return a line on a report: what is done, and its figures."""
    shown = ("loss", "held_out_dice")
    figures = [
        f"{name.replace('_', ' ')} {report.metrics[name]:.3f}"
        for name in shown
        if name in report.metrics
    ]
    return ", ".join([report.message, *figures])


def _drain(job: Job[T], show: Any) -> T:
    """Run a job to its end; an interruption closes it in an orderly way."""
    try:
        while True:
            show(next(job))
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        job.close()


@contextmanager
def sentences(*, as_json: bool) -> Iterator[None]:
    """Turn this package's errors into a sentence and an exit code.

    Parameters
    ----------
    as_json : bool
        Whether standard output must be JSON.
    """
    try:
        yield
    except MedsegError as error:
        code = BAD_ARGUMENTS if isinstance(error, InputError) else FAILED
        raise _refused(str(error), code, as_json=as_json) from error
    except OSError as error:
        # the disk is full, or a folder may not be written to
        reason = f"{error.filename}: {error.strerror}" if error.filename else error
        raise _refused(f"{reason}.", FAILED, as_json=as_json) from error
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        raise typer.Exit(130) from None


def _refused(sentence: str, code: int, *, as_json: bool) -> typer.Exit:
    """Say what went wrong; return what ends the program."""
    if as_json:
        print_json({"error": sentence})
    typer.echo(f"Error: {sentence}", err=True)
    return typer.Exit(code)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(_printable(json.dumps(value, indent=2, ensure_ascii=False)))


def print_table(
    headings: list[str], rows: list[list[str]], *, figures: bool = True
) -> None:
    """Print a table on standard output; figures behind the name go to the right.

    Names are broken where a terminal is narrow, figures are not; in a file nothing is.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for place, heading in enumerate(headings):
        figure = figures and place > 0
        table.add_column(
            heading,
            justify="right" if figure else "left",
            no_wrap=figure,
            overflow="fold",
        )
    for row in rows:
        # as text: rich takes what is in brackets for a colour
        table.add_row(*(Text(_printable(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        wide = console.options.update(max_width=_WIDEST)
        console.width = max(80, console.measure(table, options=wide).maximum)
    console.print(table)


def _printable(text: str) -> str:
    """Return text whose parts that are none, of names of files, are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
