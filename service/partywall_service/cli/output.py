"""What commands print: tables for people, JSON for programs, notes on stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import typer
from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_WIDEST = 1000
"""Characters of a line, where nothing says how many there may be."""


def print_json(value: object) -> None:
    """Prints JSON in ASCII, so that it is right in any locale."""
    typer.echo(json.dumps(value, indent=2))


def note(text: str) -> None:
    """Says something beside the result: on stderr, so that stdout stays the result."""
    typer.echo(text, err=True)


def stdout() -> Console:
    """The terminal, or 80 columns of whatever stdout is."""
    return Console(highlight=False)


def print_wide(shown: RenderableType) -> None:
    """Prints what a terminal may cut to its width; anything else has room for all of it."""
    console = stdout()
    if not console.is_terminal:
        wide = console.options.update(width=_WIDEST)
        console.width = max(console.width, console.measure(shown, options=wide).maximum)
    console.print(shown)


def is_terminal() -> bool:
    """Whether a person can see what stderr says, as it says it."""
    return sys.stderr is not None and sys.stderr.isatty()


def progress() -> Progress:
    """A progress bar on stderr where somebody can see it; it leaves no trace."""
    return Progress(
        "{task.description}",
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not is_terminal(),
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: int = 0) -> Table:
    """A table of plain text: nothing in a cell is read as markup or as a terminal's command.

    Args:
        columns: the headings.
        rows: their cells; None is shown as a dash.
        right: how many of the last columns are numbers.
    """
    built = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, column in enumerate(columns):
        numbers = place >= len(columns) - right
        built.add_column(
            column,
            justify="right" if numbers else "left",
            overflow="fold",  # a cut id is no use to anyone
            no_wrap=numbers,
        )
    for row in rows:
        built.add_row(*map(cell, row))
    return built


def cell(value: object) -> Text:
    """A value as a cell."""
    if value is None:
        return Text("-")
    if isinstance(value, list | tuple):
        return Text(", ".join(map(printable, value)) or "-")
    return Text(printable(value))


def printable(value: object) -> str:
    """Text that shows what it is: control characters as escapes."""
    text = str(value)
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def instant(text: Any) -> str:  # noqa: ANN401 - a field of an answer
    """An RFC 3339 instant in UTC as people read it, to the second."""
    return str(text or "").replace("T", " ")[:19]
