"""`partywall demo`."""

from typing import Annotated

import typer

from partywall_service.cli.errors import CliError
from partywall_service.cli.options import Format, FormatOption, example

EPILOG = example("partywall demo", "partywall demo --seconds 5 --format json")


def demo(
    seconds: Annotated[
        float, typer.Option(min=1, max=20, metavar="SECONDS", help="How long each of four scenes.")
    ] = 15,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="The sidecar's port; 0 takes a free one."
        ),
    ] = 0,
    form: FormatOption = Format.table,
) -> None:
    """Show a quiet tenant beside one a hundred times as noisy, with Partywall and without.

    Starts a sidecar, workers and a sample host app on servers of its own, and stops them again.
    """
    import asyncio

    from rich.live import Live

    from partywall_service.cli import output
    from partywall_service.demo import show
    from partywall_service.demo.scenes import play, scenes
    from partywall_service.demo.street import DemoError, open_street

    played = scenes()
    output.note("starting a sidecar, a host app with and without it, and their workers …")
    try:
        with open_street(port) as street:
            output.note(f"the dashboard: {street.sidecar}/dashboard, with the token {street.token}")
            console = output.stdout()
            shows = form is Format.table and console.is_terminal
            with Live(console=console, auto_refresh=False, transient=True) as live:

                def look() -> None:
                    if shows:
                        live.update(show.table(played), refresh=True)

                asyncio.run(play(street, played, seconds, look))
    except DemoError as exc:
        raise CliError(str(exc)) from exc
    if form is Format.json:
        output.print_json(show.document(played))
        return
    output.print_wide(show.table(played))
    typer.echo(show.sentence(played))
