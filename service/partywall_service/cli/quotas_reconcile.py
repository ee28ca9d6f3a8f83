"""`partywall quotas reconcile`: what was really counted, against what is recorded."""

from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from partywall_service.cli.errors import CliError, UsageError
from partywall_service.cli.options import TenantOrNoneArgument, UrlOption, example, sidecar

if TYPE_CHECKING:
    from partywall_service.cli.client import Sidecar
    from partywall_service.cli.quotas_items import Item

EPILOG = example(
    "partywall quotas reconcile acme users=42 storage=10GiB --dry-run",
    "partywall quotas reconcile acme users=42@17",
    "psql -c \"COPY (SELECT org AS tenant, 'users' AS resource, count(*) AS used FROM users GROUP "
    'BY org) TO STDOUT CSV HEADER" | partywall quotas reconcile --from -',
)

INTERRUPTED = 130
"""What shells end with after Ctrl-C."""


def reconcile(
    tenant: TenantOrNoneArgument = None,
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RESOURCE=AMOUNT",
            help="What was counted. With @ and a version, as users=42@17: the version that `quotas "
            "show --json` told before it was counted.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Counts of many tenants: CSV in UTF-8 with the columns tenant, resource, used "
            "and, if you like, version; - for stdin.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report; change nothing.")] = False,
    url: UrlOption = None,
) -> None:
    """Report how far levels have drifted from what was really counted, then repair them.

    What has changed since its version was read is told, not overwritten: count it again.
    """
    if file is not None:
        if tenant is not None:
            raise UsageError(f"expected --from or a tenant, got both: --from and {tenant!r}")
        _reconcile_file(file, url, dry_run)
        return
    if tenant is None or not items:
        raise UsageError("expected a tenant and RESOURCE=AMOUNT, or --from FILE")
    from partywall_service.cli.quotas_items import parse_items

    wanted = parse_items(items, least=0, versions=True)
    with sidecar(url) as api:
        _reconcile_one(api, tenant, wanted, dry_run)


def _reconcile_one(api: "Sidecar", tenant: str, items: "list[Item]", dry_run: bool) -> None:
    from partywall_service.cli import output
    from partywall_service.cli.quotas_answers import read_quotas
    from partywall_service.cli.quotas_drift import drifts, item_fault, repair

    quotas = read_quotas(api, tenant)
    if faults := [said for item in items if (said := item_fault(item, quotas))]:
        raise CliError("\n".join(faults))
    found = drifts(items, quotas)
    rows = [(one.resource, *one.texts) for one in found]
    columns = ("Resource", "Recorded", "Counted", "Drift")
    output.stdout().print(output.table(columns, rows, right=3))
    for one in found:
        said = one.fault
        if said is None and one.drift and not dry_run:
            said = repair(api, tenant, one)
            if said is None:
                output.note(f"{one.resource} of {tenant} is repaired")
        if said is not None:
            faults.append(said)
    if dry_run:
        output.note("nothing was changed: this was a dry run")
    elif not faults and not any(one.drift for one in found):
        output.note(f"nothing of {tenant} has drifted")
    if faults:
        raise CliError("\n".join(faults))


def _reconcile_file(file: str, url: str | None, dry_run: bool) -> None:
    from partywall_service.cli.quotas_file import read_counts
    from partywall_service.cli.quotas_many import Work

    with sidecar(url) as api:
        work = Work(api, dry_run=dry_run)
        try:
            counts = read_counts(file, work.refuse)
            for tenant, group in groupby(counts, key=lambda count: count.tenant):
                work.take(tenant, list(group))
        except CliError:
            typer.echo(work.so_far)
            raise
        except KeyboardInterrupt as exc:
            typer.echo(work.so_far)
            typer.echo("stopped; it may be run again", err=True)
            raise typer.Exit(INTERRUPTED) from exc
    typer.echo(work.so_far)
    if work.failed:
        raise typer.Exit(1)
