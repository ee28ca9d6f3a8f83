"""What several commands share: the sidecar they talk to, their arguments, their examples."""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from partywall_service.names import JOB_PATTERN, QUEUE_PATTERN, is_name, is_tenant_id

if TYPE_CHECKING:
    from partywall_service.cli.client import Sidecar


class Format(StrEnum):
    """How a command prints what it found."""

    table = "table"
    json = "json"


class Status(StrEnum):
    """A tenant's status."""

    provisioning = "provisioning"
    active = "active"
    suspended = "suspended"


class JobStatus(StrEnum):
    """A job's status."""

    queued = "queued"
    deferred = "deferred"
    running = "running"
    retrying = "retrying"
    succeeded = "succeeded"
    failed = "failed"
    dead = "dead"
    cancelled = "cancelled"


class Kind(StrEnum):
    """What an override is of."""

    limits = "limits"
    quotas = "quotas"
    jobs = "jobs"


def example(*commands: str) -> str:
    """The epilog of a command's help; each command stays on a line of its own."""
    return "\n\n".join(("Example:" if len(commands) == 1 else "Examples:", *commands))


def sidecar(url: str | None) -> "Sidecar":
    """The sidecar a command talks to."""
    # Here, because importing httpx takes longer than showing any help does.
    from partywall_service.cli.client import Sidecar

    return Sidecar.find(url)


def _checked(expected: str, is_right: Callable[[str], bool]) -> Callable[[str | None], str | None]:
    def check(value: str | None) -> str | None:
        if value is not None and not is_right(value):
            raise typer.BadParameter(f"expected {expected}, got {value!r}")
        return value

    return check


_tenant_id = _checked(
    "a tenant id (1 to 128 letters, digits, '.', '_' or '-', a letter or digit first)", is_tenant_id
)
_name = _checked(
    "a name (1 to 64 letters, digits, '.', '_' or '-', a letter or digit first)", is_name
)
_token_id = _checked(
    "a token's id (1 to 64 letters, digits, '_' or '-')",
    lambda text: re.fullmatch("[A-Za-z0-9_-]{1,64}", text) is not None,
)

_job_id = _checked(
    "a job's id (1 to 200 letters, digits, '.', '_', ':' or '-', a letter or digit first)",
    lambda text: re.fullmatch(JOB_PATTERN, text) is not None,
)
_queue = _checked(
    "a tenant id, or _system or _cron", lambda text: re.fullmatch(QUEUE_PATTERN, text) is not None
)

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="PARTYWALL_SIDECAR_URL",
        help="The sidecar; http://127.0.0.1:$PARTYWALL_PORT unless told otherwise.",
    ),
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="A table for people or JSON for programs.")
]
TenantArgument = Annotated[
    str,
    typer.Argument(
        metavar="TENANT", callback=_tenant_id, help="The tenant's id.", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
TierOption = Annotated[
    str | None, typer.Option("--tier", metavar="TIER", callback=_name, help="Its tier.")
]
NeededTierOption = Annotated[
    str,
    typer.Option(
        "--tier", metavar="TIER", callback=_name, help="The other tier.", show_default=False
    ),
]
ResourceOption = Annotated[
    str | None,
    typer.Option("--resource", metavar="RESOURCE", callback=_name, help="Of this one only."),
]
KindArgument = Annotated[Kind, typer.Argument(help="What the override is of.", show_default=False)]
TenantOrNoneArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="TENANT", callback=_tenant_id, help="The tenant's id.", show_default=False
    ),
]
NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        callback=_name,
        help="The limit or resource; for jobs concurrency, max_queued, rate or queue.",
        show_default=False,
    ),
]
QueueArgument = Annotated[
    str,
    typer.Argument(
        metavar="TENANT",
        callback=_queue,
        help="The tenant's id; also _system (maintenance) and _cron, for an admin.",
        show_default=False,
    ),
]
JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        callback=_job_id,
        help="The job's id, as `jobs list` shows it.",
        show_default=False,
    ),
]
TokenArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        callback=_token_id,
        help="The token's id, as `tokens list` shows it.",
        show_default=False,
    ),
]
