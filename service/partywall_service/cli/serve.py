"""`partywall serve`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from partywall_service.cli.errors import CliError
from partywall_service.cli.imports import uncollected
from partywall_service.cli.options import example

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from partywall_service.settings import Settings

EPILOG = example(
    "partywall serve --config quotas.toml --port 8080 --workers 2", "partywall serve --with-worker"
)

_SECRET = frozenset({"admin_token", "redis_url", "database_url", "webhook_urls", "webhook_secret"})
"""Settings whose values hold passwords, and so are never printed."""

_WORDS = {
    "Value error, ": "",
    "Input should be a valid": "expected a valid",
    "Input should be": "expected a number",
    "String should have": "expected",
    "String should match pattern": "expected what matches",
}
"""Pydantic's words and ours."""


def serve(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The policy (PARTYWALL_CONFIG, or quotas.toml).",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="The address to listen on, or unix:/path/to/socket "
            "(PARTYWALL_HOST, or 127.0.0.1).",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="The port; 0 takes a free one (PARTYWALL_PORT, or 8080).",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes that answer, all at one address.")
    ] = 1,
    with_worker: Annotated[
        bool,
        typer.Option(
            "--with-worker",
            help="Run Partywall's own maintenance jobs, too, in a worker beside the sidecar.",
        ),
    ] = False,
) -> None:
    """Run the sidecar until Ctrl-C.

    A store without a URL (PARTYWALL_REDIS_URL, PARTYWALL_DATABASE_URL) is started here.

    Its data is kept in PARTYWALL_DATA_DIR. Flags win over the environment.
    """
    flags = {"config": config, "host": host, "port": port}
    settings = read_settings({name: value for name, value in flags.items() if value is not None})

    with uncollected():
        from partywall_service import server

    try:
        server.serve(settings, workers=workers, with_worker=with_worker)
    except server.ServeError as exc:
        raise CliError(str(exc)) from exc


def read_settings(flags: dict[str, Any]) -> "Settings":
    """The environment's settings under the command line's.

    Raises:
        CliError: one line for each that cannot be.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from partywall_service.settings import Settings

    try:
        return Settings(**flags)
    except ValidationError as exc:
        raise CliError("\n".join(map(_sentence, exc.errors()))) from exc
    except SettingsError as exc:
        raise CliError(str(exc)) from exc


def _sentence(fault: "ErrorDetails") -> str:
    name = str(fault["loc"][0])
    said = fault["msg"]
    for theirs, ours in _WORDS.items():
        said = said.replace(theirs, ours)
    got = "" if name in _SECRET else f", got {fault['input']!r}"
    return f"PARTYWALL_{name.upper()}: {said}{got}"
