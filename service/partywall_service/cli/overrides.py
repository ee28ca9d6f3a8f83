"""`partywall overrides`: one tenant's exceptions to its tier."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from partywall_service.cli.errors import UsageError
from partywall_service.cli.options import (
    Format,
    FormatOption,
    KindArgument,
    NameArgument,
    TenantArgument,
    UrlOption,
    example,
    sidecar,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Overrides: a tenant's exceptions to its tier, which may expire.",
    epilog=example(
        "partywall overrides set acme limits requests 500/minute --for 2h --reason launch"
    ),
)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@app.command("list", epilog=example("partywall overrides list acme"))
def list_overrides(
    tenant: TenantArgument, form: FormatOption = Format.table, url: UrlOption = None
) -> None:
    """List a tenant's overrides that are in force."""
    from partywall_service.cli import output

    with sidecar(url) as api:
        overrides = list(api.list("overrides", "tenants", tenant, "overrides"))
    if form is Format.json:
        output.print_json({"overrides": overrides, "next_cursor": None})
        return
    rows = [
        (
            f"{one.get('kind')}.{one.get('name')}",
            one.get("value"),
            output.instant(one["expires_at"]) if one.get("expires_at") else "never",
            one.get("reason"),
            one.get("author"),
        )
        for one in overrides
    ]
    columns = ("Override", "Value", "Expires (UTC)", "Reason", "Author")
    output.stdout().print(output.table(columns, rows))


@app.command(
    "set",
    epilog=example(
        "partywall overrides set acme limits requests 500/minute --for 2h --reason launch",
        "partywall overrides set acme quotas storage '5 GiB' --reason 'contract 4711'",
    ),
)
def set_override(
    tenant: TenantArgument,
    kind: KindArgument,
    name: NameArgument,
    value: Annotated[
        str,
        typer.Argument(
            metavar="VALUE",
            help="As quotas.toml says it: 500/minute, 50, '5 GiB' or unlimited.",
            show_default=False,
        ),
    ],
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, for whoever finds it.", show_default=False)
    ],
    expires_at: Annotated[
        str | None,
        typer.Option(metavar="INSTANT", help="When it ends, such as 2030-01-31T12:00:00Z."),
    ] = None,
    lasts: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="How long it lasts, such as 90m, 2h, 7d or 2w."),
    ] = None,
    url: UrlOption = None,
) -> None:
    """Set an override; it beats the tier, and replaces one of the same kind and name."""
    if lasts is not None:
        if expires_at is not None:
            raise UsageError("expected --expires-at or --for, got both")
        expires_at = _end_of(lasts)
    body = {
        "value": int(value) if re.fullmatch(r"-?[0-9]{1,18}", value) else value,
        "expires_at": expires_at,
        "reason": reason,
    }
    with sidecar(url) as api:
        now, _ = api.put("tenants", tenant, "overrides", kind.value, name, body=body)
    until = f"until {now['expires_at']}" if now.get("expires_at") else "until it is deleted"
    typer.echo(f"{tenant} has {kind.value}.{name} = {now.get('value')} {until}", err=True)


@app.command("delete", epilog=example("partywall overrides delete acme limits requests"))
def delete(
    tenant: TenantArgument, kind: KindArgument, name: NameArgument, url: UrlOption = None
) -> None:
    """End an override; the tier applies again."""
    with sidecar(url) as api:
        api.delete("tenants", tenant, "overrides", kind.value, name)
    typer.echo(f"{tenant} has its tier's {kind.value}.{name} again", err=True)


def _end_of(lasts: str) -> str:
    """`2h` from now as an RFC 3339 instant."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([smhdw])", lasts)
    if match is None:
        raise UsageError(f"expected --for with a time such as 90m, 2h, 7d or 2w, got {lasts!r}")
    try:
        end = datetime.now(UTC) + timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError as exc:
        raise UsageError(f"expected --for with a time that ends, got {lasts!r}") from exc
    return end.isoformat(timespec="seconds").replace("+00:00", "Z")
