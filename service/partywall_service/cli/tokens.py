"""`partywall tokens`: who may call, and as what."""

from typing import Annotated

import typer

from partywall_service.cli.options import (
    Format,
    FormatOption,
    TokenArgument,
    UrlOption,
    example,
    sidecar,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Tokens: who may call, and as what.",
    epilog=example("partywall tokens create --scope host --name shop"),
)

_COLUMNS = ("id", "scope", "name")


@app.command("create", epilog=example("TOKEN=$(partywall tokens create --scope host --name shop)"))
def create(
    name: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="What the audit log calls its bearer.", show_default=False
        ),
    ],
    scope: Annotated[str, typer.Option(metavar="SCOPE", help="host, admin or tenant:ID.")] = "host",
    url: UrlOption = None,
) -> None:
    """Make a token. It is printed on stdout, this once; everything else goes to stderr."""
    with sidecar(url) as api:
        made = api.post("tokens", body={"scope": scope, "name": name})
        token = api.text(made, "token")
    typer.echo(
        f"Token {made.get('id')} ({made.get('scope')}, {made.get('name')}); it is not shown again:",
        err=True,
    )
    typer.echo(token)


@app.command("list", epilog=example("partywall tokens list --format json"))
def list_tokens(form: FormatOption = Format.table, url: UrlOption = None) -> None:
    """List tokens, without their secrets."""
    from partywall_service.cli import output

    with sidecar(url) as api:
        tokens = list(api.list("tokens", "tokens"))
    if form is Format.json:
        output.print_json({"tokens": tokens, "next_cursor": None})
        return
    rows = [
        [*(token.get(column) for column in _COLUMNS), output.instant(token.get("created_at"))]
        for token in tokens
    ]
    columns = [*(column.capitalize() for column in _COLUMNS), "Created (UTC)"]
    output.stdout().print(output.table(columns, rows))


@app.command("revoke", epilog=example("partywall tokens revoke 3f9a0c51d2e7"))
def revoke(token: TokenArgument, url: UrlOption = None) -> None:
    """Revoke a token; every sidecar refuses it within half a second."""
    with sidecar(url) as api:
        api.delete("tokens", token)
    typer.echo(f"Token {token} is revoked", err=True)
