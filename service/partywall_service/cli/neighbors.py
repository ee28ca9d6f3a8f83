"""`partywall neighbors`: who is noisy and who suffers, once or live."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from partywall_service.cli import live
from partywall_service.cli.options import Format, FormatOption, UrlOption, example, sidecar
from partywall_service.names import WINDOW_PATTERN

if TYPE_CHECKING:
    from rich.console import Group

    from partywall_service.cli.client import Sidecar
    from partywall_service.cli.neighbors_table import Neighbor

EPILOG = example(
    "partywall neighbors",
    "partywall neighbors --window 15m --top 50",
    "partywall neighbors --watch",
)


def _window(text: str) -> str:
    if not re.fullmatch(WINDOW_PATTERN, text):
        raise typer.BadParameter(
            f"expected minutes or hours up to a day, such as 15m or 1h, got {text!r}"
        )
    return text


def neighbors(
    window: Annotated[
        str, typer.Option(metavar="TIME", callback=_window, help="How far back: 1m to 24h.")
    ] = "1h",
    top: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="How many tenants, at most.")
    ] = 20,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", callback=live.interval, help="Between two looks, with --watch."
        ),
    ] = 2,
    form: FormatOption = Format.table,
    url: UrlOption = None,
) -> None:
    """Show who took how much of what all share, and who suffers from it.

    JSON is the API's answer, once.
    """
    from partywall_service.cli import output

    query = {"window": window, "top": str(top)}
    with sidecar(url) as api:
        if form is Format.json:
            output.print_json(api.get("reports", "neighbors", query=query))
            return
        console = output.stdout()
        if watch and console.is_terminal:
            live.watch(console, lambda: _read(api, query), _shown, interval)
            return
        output.print_wide(_shown(_read(api, query)))


def _read(api: "Sidecar", query: dict[str, str]) -> "list[Neighbor]":
    from partywall_service.cli.neighbors_table import Neighbors

    return api.read_as(Neighbors, api.get("reports", "neighbors", query=query)).tenants


def _shown(now: "list[Neighbor]", _before: object = None, trouble: str | None = None) -> "Group":
    from rich.console import Group
    from rich.text import Text

    from partywall_service.cli.neighbors_table import neighbors_table, summary
    from partywall_service.cli.output import printable

    first = f"not answered now: {trouble}" if trouble else summary(now)
    return Group(Text(printable(first)), Text(), neighbors_table(now))
