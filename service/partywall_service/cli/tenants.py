"""`partywall tenants`: who is registered, under which tier."""

import sys
from typing import Annotated, Any

import typer

from partywall_service.cli import tenants_export, tenants_import
from partywall_service.cli.errors import CliError, UsageError
from partywall_service.cli.options import (
    Format,
    FormatOption,
    Status,
    TenantArgument,
    TierOption,
    UrlOption,
    example,
    sidecar,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Tenants: register, change, read, import, export, erase.",
    epilog=example("partywall tenants set acme --tier pro", "partywall tenants list --tier free"),
)

_COLUMNS = ("tenant", "tier", "status", "name", "domains")


@app.command("list", epilog=example("partywall tenants list --tier free --format json"))
def list_tenants(
    tier: TierOption = None,
    status: Annotated[Status | None, typer.Option(help="Its status.")] = None,
    domain: Annotated[
        str | None, typer.Option(metavar="DOMAIN", help="One of its domains.")
    ] = None,
    form: FormatOption = Format.table,
    url: UrlOption = None,
) -> None:
    """List registered tenants, by id; each option narrows the list."""
    from partywall_service.cli import output

    wanted = {"tier": tier, "status": status.value if status else None, "domain": domain}
    filters = {name: value for name, value in wanted.items() if value is not None}
    with sidecar(url) as api:
        tenants = list(api.list("tenants", "tenants", filters=filters))
    if form is Format.json:
        output.print_json({"tenants": tenants, "next_cursor": None})
        return
    rows = [[tenant.get(column) for column in _COLUMNS] for tenant in tenants]
    output.stdout().print(output.table([name.capitalize() for name in _COLUMNS], rows))


@app.command("show", epilog=example("partywall tenants show acme"))
def show(tenant: TenantArgument, form: FormatOption = Format.table, url: UrlOption = None) -> None:
    """Show one tenant."""
    from partywall_service.cli import output

    with sidecar(url) as api:
        found = api.get("tenants", tenant)
    if form is Format.json:
        output.print_json(found)
        return
    shown = {**found}
    for moment in ("created_at", "updated_at"):
        shown[moment] = f"{output.instant(found.get(moment))} UTC"
    rows = [(name.replace("_", " "), value) for name, value in shown.items()]
    output.stdout().print(output.table(("", ""), rows), no_wrap=False)


@app.command(
    "set",
    epilog=example(
        "partywall tenants set acme --tier pro --name 'Acme Ltd' --domain acme.example",
        "partywall tenants set acme --status suspended",
    ),
)
def set_tenant(
    tenant: TenantArgument,
    tier: TierOption = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="Its name, for people.")] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN", help="Its domain; repeat it for several. Replaces them all."
        ),
    ] = None,
    no_domains: Annotated[
        bool, typer.Option("--no-domains", help="Take its domains away.")
    ] = False,
    status: Annotated[Status | None, typer.Option(help="Its status; a new one is active.")] = None,
    url: UrlOption = None,
) -> None:
    """Register a tenant (then --tier is needed), or change one; what is left out is kept."""
    if domain and no_domains:
        raise UsageError("expected --domain or --no-domains, got both")
    domains = [] if no_domains else domain or None
    wanted = {"name": name, "domains": domains, "status": status.value if status else None}
    changes: dict[str, Any] = {field: it for field, it in wanted.items() if it is not None}
    if tier is None and not changes:
        raise UsageError("expected something to set: --tier, --name, --domain or --status")
    with sidecar(url) as api:
        if tier is None:  # the API wants one with every change
            found = api.find_one("tenants", tenant)
            if found is None:
                raise CliError(f"tenant {tenant!r} is not registered: give --tier to register it")
            tier = api.text(found, "tier")
        now, is_new = api.put("tenants", tenant, body={"tier": tier, **changes})
    typer.echo(
        f"{tenant} is {'registered' if is_new else 'changed'}: tier {now.get('tier')}, "
        f"{now.get('status')}",
        err=True,
    )


app.command("import", epilog=tenants_import.EPILOG)(tenants_import.import_tenants)
app.command("export", epilog=tenants_export.EPILOG)(tenants_export.export_tenant)


@app.command("delete", epilog=example("partywall tenants delete acme --yes"))
def delete(
    tenant: TenantArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: UrlOption = None,
) -> None:
    """Erase everything that is kept about a tenant, but for one audit line.

    It takes a second. No error if there is none.
    """
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError("expected --yes, as there is no terminal to ask on")
        typer.confirm(f"Erase {tenant} and everything kept about it?", abort=True, err=True)
    with sidecar(url) as api:
        api.delete("tenants", tenant)
    typer.echo(f"{tenant} is gone", err=True)
