"""`partywall jobs top`: the queues as they are, again and again."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from partywall_service.cli import live
from partywall_service.cli.options import Format, FormatOption, UrlOption, example, sidecar

if TYPE_CHECKING:
    from rich.console import Group

    from partywall_service.cli.client import Sidecar
    from partywall_service.cli.jobs_table import Reading

EPILOG = example("partywall jobs top --interval 5", "partywall jobs top --once")

AROUND = 5
"""Lines of a screen that are not a tenant's."""


def top(
    interval: Annotated[
        float,
        typer.Option(metavar="SECONDS", callback=live.interval, help="Between two looks."),
    ] = 1,
    once: Annotated[
        bool, typer.Option("--once", help="Two looks and one table; so also without a terminal.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            metavar="N",
            help="How many tenants; as many as the screen has room for.",
            show_default=False,
        ),
    ] = None,
    form: FormatOption = Format.table,
    url: UrlOption = None,
) -> None:
    """Show the queues of the busiest tenants until Ctrl-C.

    JSON is the API's answer, once, and so without claims a second.
    """
    from partywall_service.cli import output

    with sidecar(url) as api:
        if form is Format.json:
            output.print_json(api.get("queues", query={"page_size": str(limit or 1000)}))
            return
        console = output.stdout()
        if once or not console.is_terminal:
            first = _read(api, limit or 1000)
            time.sleep(interval)
            output.print_wide(_shown(_read(api, limit or 1000), first))
            return
        rows = limit or max(console.height - AROUND, 1)
        live.watch(console, lambda: _read(api, rows), _shown, interval)


def _read(api: "Sidecar", size: int) -> "Reading":
    from partywall_service.cli.jobs_answers import Queues
    from partywall_service.cli.jobs_table import Reading

    answer = api.get("queues", query={"page_size": str(size)})
    return Reading(time.monotonic(), api.read_as(Queues, answer).tenants)


def _shown(now: "Reading", before: "Reading | None", trouble: str | None = None) -> "Group":
    from rich.console import Group
    from rich.text import Text

    from partywall_service.cli.jobs_table import queues_table, summary
    from partywall_service.cli.output import printable

    first = f"not answered now: {trouble}" if trouble else summary(now)
    return Group(Text(printable(first)), Text(), queues_table(now, before))
