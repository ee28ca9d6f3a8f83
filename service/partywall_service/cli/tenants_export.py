"""`partywall tenants export`: everything that is kept about a tenant, as JSON lines."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from partywall_service.cli.errors import CliError
from partywall_service.cli.options import TenantArgument, UrlOption, example, sidecar

EPILOG = example(
    "partywall tenants export acme --output acme.ndjson",
    "partywall tenants export acme | jq 'select(.kind == \"ledger\")'",
)

_FRAMES = 2
"""Lines that every export has: its beginning and its end."""


def export_tenant(
    tenant: TenantArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to; else standard output.", dir_okay=False
        ),
    ] = None,
    url: UrlOption = None,
) -> None:
    """Print everything that is kept about a tenant, one JSON object to a line.

    A file is there once it is whole, for its owner to read.
    """
    if output is None:
        with sidecar(url) as api, api.lines("tenants", tenant, "export") as lines:
            _tell_nothing(tenant, _write(lines, sys.stdout.buffer))
        return
    # The file first: where it cannot be, nobody need be asked for what goes into it.
    with (
        _whole(output) as file,
        sidecar(url) as api,
        api.lines("tenants", tenant, "export") as lines,
    ):
        count = _write(lines, file)
    typer.echo(f"{count:,} lines about {tenant} are in {output}", err=True)
    _tell_nothing(tenant, count)


def _tell_nothing(tenant: str, count: int) -> None:
    """An id that was mistyped has an export, too: of its two frames alone."""
    if count <= _FRAMES:
        typer.echo(f"nothing is kept about {tenant}: is that its id?", err=True)


def _write(lines: Iterator[bytes], to: BinaryIO) -> int:
    """Writes them, and says how many.

    Raises:
        CliError: the last one does not say that it is.
    """
    count, last = 0, b"{}"
    for line in lines:
        to.write(line + b"\n")
        count, last = count + 1, line
    to.flush()
    with suppress(ValueError):
        if json.loads(last).get("kind") == "end":
            return count
    raise CliError(f"the sidecar ended the export after {count:,} lines, before its end; try again")


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """A file that has this name once the block has ended well.

    Raises:
        CliError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                yield file
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as exc:
        raise CliError(f"cannot write {path}: {exc.strerror or exc}") from exc
