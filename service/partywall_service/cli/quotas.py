"""`partywall quotas`: what a tenant uses of its resources, and may."""

from datetime import UTC, datetime
from itertools import islice
from typing import Annotated

import typer

from partywall_service.cli import quotas_change, quotas_reconcile
from partywall_service.cli.options import (
    Format,
    FormatOption,
    JsonOption,
    NeededTierOption,
    ResourceOption,
    TenantArgument,
    UrlOption,
    example,
    sidecar,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Quotas: what a tenant uses of its resources, and may.",
    epilog=example(
        "partywall quotas show acme", "partywall quotas consume acme users=1 storage=1GiB"
    ),
)


@app.command(
    "show", epilog=example("partywall quotas show acme", "partywall quotas show acme --json")
)
def show(
    tenant: TenantArgument,
    exact: Annotated[
        bool, typer.Option("--exact", help="Bytes as whole numbers, refills as instants.")
    ] = False,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show a tenant's quotas: what is used, reserved and allowed, and when it refills."""
    from partywall_service.cli import output, quotas_text
    from partywall_service.cli.quotas_answers import TenantQuotas
    from partywall_service.cli.quotas_table import print_quotas

    with sidecar(url) as api:
        answer = api.get("tenants", tenant, "quotas")
        found = api.read_as(TenantQuotas, answer)
    if as_json or form is Format.json:
        output.print_json(answer)
        return
    console = output.stdout()
    console.print(output.printable(f"{tenant}, tier {found.tier}"), markup=False)
    if not found.quotas:
        output.note("no tier names a quota")
        return
    console.print()
    print_quotas(console, found.quotas, now=datetime.now(UTC), exact=exact)
    console.print(f"\n{quotas_text.LEGEND}", markup=False)


app.command(
    "consume",
    epilog=example(
        "partywall quotas consume acme users=1 storage=1GiB",
        "partywall quotas consume acme emails=20 --idempotency-key newsletter-4711",
    ),
)(quotas_change.consume)
app.command(
    "release", epilog=example("partywall quotas release acme users=1 --reason 'left the company'")
)(quotas_change.release)
app.command(
    "set",
    epilog=example(
        "partywall quotas set acme users=42 --reason counted",
        "partywall quotas set acme users=42 --if-version 17",
    ),
)(quotas_change.set_used)
app.command("reconcile", epilog=quotas_reconcile.EPILOG)(quotas_reconcile.reconcile)


@app.command("ledger", epilog=example("partywall quotas ledger acme --resource users --limit 20"))
def ledger(
    tenant: TenantArgument,
    resource: ResourceOption = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many.")] = 50,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """List the changes of what a tenant uses, newest first."""
    from partywall_service.cli import output

    filters = {} if resource is None else {"resource": resource}
    with sidecar(url) as api:
        found = api.list("entries", "tenants", tenant, "ledger", filters=filters, at_most=limit + 1)
        lines = list(islice(found, limit + 1))
    entries = lines[:limit]
    if as_json or form is Format.json:
        output.print_json({"entries": entries, "next_cursor": None})
    else:
        rows = [
            (
                output.instant(one.get("at")),
                one.get("resource"),
                one.get("operation"),
                one.get("actor"),
                one.get("reason"),
                _signed(one.get("delta")),
                _grouped(one.get("used")),
            )
            for one in entries
        ]
        columns = ("At (UTC)", "Resource", "Operation", "Actor", "Reason", "Delta", "Used")
        output.stdout().print(output.table(columns, rows, right=2))
    if len(lines) > limit:
        output.note(f"there are older ones; --limit shows more than {limit:,}")


@app.command("preview", epilog=example("partywall quotas preview acme --tier free"))
def preview(
    tenant: TenantArgument,
    tier: NeededTierOption,
    form: FormatOption = Format.table,
    as_json: JsonOption = False,
    url: UrlOption = None,
) -> None:
    """Show what a tenant would have too much of on another tier. Nothing is changed."""
    from partywall_service.cli import output, quotas_answers
    from partywall_service.cli.quotas_text import amount_text

    wants_json = as_json or form is Format.json
    with sidecar(url) as api:
        answer = api.get("tenants", tenant, "preview", query={"tier": tier})
        found = api.read_as(quotas_answers.Preview, answer)
        shows_table = found.over and not wants_json
        units = quotas_answers.read_quotas(api, tenant).units if shows_table else {}
    if wants_json:
        output.print_json(answer)
        return
    if not found.over:
        output.note(f"{tenant} fits tier {tier}: it would have too much of nothing")
        return
    rows = [
        (
            one.resource,
            *(
                amount_text(amount, units.get(one.resource, "count"))
                for amount in (one.used, one.limit, one.excess)
            ),
        )
        for one in found.over
    ]
    output.stdout().print(output.table(("Resource", "Used", "Limit", "Excess"), rows, right=3))
    output.note(
        f"from tier {found.tier} to {found.to}, {tenant} would keep what it has of these, "
        "and get no more"
    )


def _signed(value: object) -> str:
    return f"{value:+,}" if isinstance(value, int) else "-"


def _grouped(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "-"
