"""`partywall report`: what tenants used in a period."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from partywall_service.cli.options import TierOption, UrlOption, example, sidecar
from partywall_service.cli.report_period import EXPECTED, read_instant

EPILOG = example(
    "partywall report --from 7d",
    "partywall report --from last-month --to month --by tenant --format csv > usage.csv",
    "partywall report --from 24h --limit-hits",
)


class Form(StrEnum):
    """How the report is printed."""

    table = "table"
    csv = "csv"
    json = "json"


class By(StrEnum):
    """What a line is of."""

    tenant = "tenant"
    tier = "tier"


def _written(instant: datetime) -> str:
    """As the sidecar writes it."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _read(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return _written(read_instant(text, datetime.now(UTC)))
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc


def report(
    since: Annotated[
        str,
        typer.Option("--from", metavar="WHEN", callback=_read, help=f"The beginning: {EXPECTED}."),
    ] = "30d",
    until: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="WHEN", callback=_read, help="The end, exclusive, told alike; now."
        ),
    ] = None,
    by: Annotated[By, typer.Option("--by", help="What a line is of.")] = By.tenant,
    tier: TierOption = None,
    limit_hits: Annotated[
        bool, typer.Option("--limit-hits", help="Only tenants that a limit denied something.")
    ] = False,
    form: Annotated[
        Form,
        typer.Option(
            "--format", help="A table for people, CSV for spreadsheets, JSON for programs."
        ),
    ] = Form.table,
    url: UrlOption = None,
) -> None:
    """Report what tenants used in a period: decisions, limits hit, jobs, and what is soon full.

    Days and months are UTC's, and stand for their beginning: --from yesterday --to today.
    """
    from partywall_service.cli import report_answers as answers
    from partywall_service.cli import report_output

    wanted = {"from": since, "to": until, "tier": tier}
    filters = {name: value for name, value in wanted.items() if value is not None}
    with sidecar(url) as api:
        found = api.list("tenants", "reports", "usage", filters=filters)
        tenants = [api.read_as(answers.Tenant, one) for one in found]
    if limit_hits:
        tenants = [one for one in tenants if one.limits_hit]
    period = (since, until or _written(datetime.now(UTC)))
    lines = tenants if by is By.tenant else answers.by_tier(tenants)
    if form is Form.json:
        report_output.print_json(lines, period, key=f"{by.value}s")
    elif form is Form.csv:
        report_output.print_csv(lines)
    elif limit_hits:
        report_output.print_hits(lines, period)
    else:
        report_output.print_table(lines, period)
