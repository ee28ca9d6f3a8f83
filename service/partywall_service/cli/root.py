"""The root command: what every command hangs on.

Modules here import only what parsing and `--help` need; a command imports the rest when it runs.
"""

from importlib.metadata import version
from typing import Annotated

import typer

from partywall_service.cli import (
    config,
    db,
    demo,
    jobs,
    neighbors,
    overrides,
    quotas,
    report,
    serve,
    simulate,
    tenants,
    tokens,
    worker,
)
from partywall_service.cli.errors import Commands
from partywall_service.cli.options import example

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    # Typer's decorated tracebacks would show local variables, and tokens are among them.
    pretty_exceptions_enable=False,
    epilog=example(
        "partywall serve --config quotas.toml",
        "partywall simulate access.log --tier free",
        "partywall tenants set acme --tier pro",
    ),
)
app.add_typer(config.app, name="config")
app.add_typer(tenants.app, name="tenants")
app.add_typer(overrides.app, name="overrides")
app.add_typer(quotas.app, name="quotas")
app.add_typer(jobs.app, name="jobs")
app.add_typer(tokens.app, name="tokens")
app.add_typer(db.app, name="db")
app.command("serve", epilog=serve.EPILOG)(serve.serve)
app.command("worker", epilog=worker.EPILOG)(worker.worker)
app.command("demo", epilog=demo.EPILOG)(demo.demo)
app.command("report", epilog=report.EPILOG)(report.report)
app.command("neighbors", epilog=neighbors.EPILOG)(neighbors.neighbors)
app.command("simulate", epilog=simulate.EPILOG)(simulate.simulate)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"partywall {version('partywall')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Partywall keeps tenants from being heard through the wall: limits, quotas, fair queues."""
