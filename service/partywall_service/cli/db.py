"""`partywall db`: the database's shape."""

from typing import Annotated

import typer

from partywall_service.cli.errors import CliError, UsageError
from partywall_service.cli.options import example

app = typer.Typer(
    no_args_is_help=True,
    help="The database.",
    epilog=example("partywall db upgrade"),
)


@app.command(
    "upgrade",
    epilog=example("PARTYWALL_DATABASE_URL=postgresql://pw@db.example/pw partywall db upgrade"),
)
def upgrade(
    database_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="PARTYWALL_DATABASE_URL",
            help="The database, as postgresql://user@host/name. One with a password is better "
            "given in the environment, where other users cannot see it.",
        ),
    ] = None,
) -> None:
    """Bring the database to the shape this version needs; safe to repeat, and while sidecars run.

    The embedded database needs none of this: serve upgrades it by itself.
    """
    if not database_url:
        raise UsageError(
            "expected a database in PARTYWALL_DATABASE_URL or --database-url; the embedded one "
            "is upgraded by `partywall serve`"
        )

    from partywall_service.ledger.errors import LedgerUnavailable
    from partywall_service.ledger.migrations import upgrade as to_head

    try:
        to_head(database_url)
    except (LedgerUnavailable, ValueError) as exc:
        raise CliError(str(exc)) from exc
    typer.echo("The database has the shape this version needs.", err=True)
