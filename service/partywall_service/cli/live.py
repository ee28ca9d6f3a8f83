"""Something as it is, again and again, on a screen of its own until Ctrl-C."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import typer

from partywall_service.cli.errors import CliError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Reading = TypeVar("Reading")


def interval(seconds: float) -> float:
    """A callback of options: seconds between two looks.

    Raises:
        typer.BadParameter: there can be no such time.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise typer.BadParameter(f"expected seconds above 0, got {seconds:g}")
    return seconds


def watch(
    console: "Console",
    read: Callable[[], Reading],
    shown: Callable[[Reading, Reading | None, str | None], "RenderableType"],
    seconds: float,
) -> None:
    """Shows what is read, until Ctrl-C.

    Args:
        console: the terminal.
        read: looks once; where it cannot, what was known last stays in sight.
        shown: draws what was read, with what was read before it, and with what the trouble is.
        seconds: between two looks.

    Raises:
        CliError: the first look failed.
    """
    from rich.live import Live

    try:
        # Before the screen is taken: who has no sidecar, or no right to ask, is told on the spot.
        now, before, trouble = read(), None, None
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(shown(now, before, trouble), refresh=True)
                time.sleep(seconds)
                try:
                    now, before, trouble = read(), now, None
                except CliError as exc:
                    trouble = str(exc)
    except KeyboardInterrupt:
        pass  # the one way to end it
