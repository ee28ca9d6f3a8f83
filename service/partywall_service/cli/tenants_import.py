"""`partywall tenants import`: many tenants from a CSV file."""

from typing import TYPE_CHECKING, Annotated

import typer

from partywall_service.cli.errors import CliError
from partywall_service.cli.options import Status, UrlOption, example, sidecar

if TYPE_CHECKING:
    from partywall_service.cli.tenants_send import TenantsSent

EPILOG = example(
    "partywall tenants import tenants.csv --dry-run",
    "partywall tenants import tenants.csv --status provisioning",
    "psql -c 'COPY (SELECT id AS tenant, plan AS tier FROM customers) TO STDOUT CSV HEADER' "
    "| partywall tenants import -",
)

INTERRUPTED = 130
"""What shells end with after Ctrl-C."""


def import_tenants(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="CSV in UTF-8 with a header; - for stdin.", show_default=False
        ),
    ],
    status: Annotated[
        Status | None,
        typer.Option(help="Of new tenants for which the file names none; else active."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file; send none.")] = False,
    url: UrlOption = None,
) -> None:
    """Register or change the tenants of a CSV file; running it again is harmless.

    Columns, in any order: tenant, tier; and name, status, domains. An empty cell keeps what is.

    The file is checked whole before any is sent; what the sidecar refuses stops no other line.
    """
    from partywall_service.cli.tenants_file import read_rows

    rows = read_rows(file)
    if dry_run:
        typer.echo(f"{len(rows):,} tenant{'' if len(rows) == 1 else 's'}, no fault found")
        return

    from partywall_service.cli.tenants_send import TenantsSent

    with sidecar(url) as api:
        work = TenantsSent(api, rows, status.value if status else None)
        try:
            _run(work)
        except CliError as exc:
            raise type(exc)("\n".join((*_told(work), f"{exc}; {work.so_far}"))) from exc
        except KeyboardInterrupt as exc:
            typer.echo("\n".join((*_told(work), f"stopped; {work.so_far}")), err=True)
            raise typer.Exit(INTERRUPTED) from exc
    if refused := _told(work):
        raise CliError("\n".join(refused))


def _run(work: "TenantsSent") -> None:
    from partywall_service.cli import output

    with output.progress() as progress:
        task = progress.add_task("Importing", total=len(work.rows))
        work.run(lambda count: progress.advance(task, count))


def _told(work: "TenantsSent") -> list[str]:
    """Prints the counts; returns a sentence for each line that was refused."""
    from partywall_service.cli.output import printable

    failed = len(work.refused)
    typer.echo(
        f"created {work.created:,}, updated {work.updated:,}, unchanged {work.unchanged:,}, "
        f"failed {failed:,}"
    )
    return [
        f"line {row.line}: {row.tenant}: {printable(said)}" for row, said in sorted(work.refused)
    ]
