"""The report as it is printed: a table for people, CSV for spreadsheets, JSON for programs."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import typer

from partywall_service.cli import output
from partywall_service.cli.report_answers import Counts, Jobs, Quota, Tenant, Tier
from partywall_service.usage.csv_text import lines

Line = Tenant | Tier
Period = tuple[str, str]

TOP = 100
"""Lines that a table shows; the other formats have all."""

SOON_DAYS = 60
"""A quota that lasts longer is not worth a person's look."""

_QUOTA = ("used", "limit", "days_until_full")


def print_json(found: Sequence[Line], period: Period, *, key: str) -> None:
    """Prints all there is, in a list of that name."""
    since, until = period
    output.print_json(
        {"from": since, "to": until, key: msgspec.to_builtins(found), "next_cursor": None}
    )


def print_csv(found: Sequence[Line]) -> None:
    """Prints a line for each, in UTF-8, with a column for each limit and resource there is."""
    of_tiers = any(isinstance(one, Tier) for one in found)
    about = ("tier", "tenants") if of_tiers else ("tenant", "name", "tier", "status")
    counts = Counts.__struct_fields__
    classes = list(dict.fromkeys(name for one in found for name in one.requests))
    limits = sorted({limit.limit for one in found for limit in one.limits})
    resources = list(dict.fromkeys(quota.resource for one in found for quota in _quotas(one)))

    def row(one: Line) -> Iterator[Any]:
        yield from (getattr(one, name) for name in (*about, *counts, "limits_hit"))
        yield from (one.requests.get(name, 0) for name in classes)
        yield from msgspec.structs.astuple(one.jobs)
        of_limits = {limit.limit: limit for limit in one.limits}
        for limit in limits:
            yield from (getattr(of_limits.get(limit), name, 0) for name in counts)
        of_quotas = {quota.resource: quota for quota in _quotas(one)}
        for resource in resources:
            yield from (getattr(of_quotas.get(resource), name, None) for name in _QUOTA)

    header = [
        *(*about, *counts, "limits_hit"),
        *(f"requests.{name}" for name in classes),
        *(f"jobs.{name}" for name in Jobs.__struct_fields__),
        *(f"limits.{limit}.{name}" for limit in limits for name in counts),
        *(f"quotas.{resource}.{name}" for resource in resources for name in _QUOTA),
    ]
    text = lines([header, *(list(row(one)) for one in found)])
    # As lines of this machine, and in UTF-8 whatever its locale.
    typer.echo(text.replace("\r\n", "\n").encode(), nl=False)


def print_table(found: Sequence[Line], period: Period) -> None:
    """Prints a line for each, who was denied most first."""
    _print_summary(found, period)
    if not found:
        return
    shown = sorted(found, key=lambda one: (-one.denied, -one.admitted))[:TOP]
    rows = [
        [
            *_named(one),
            one.limits_hit,
            *([_fills(_quotas(one))] if isinstance(one, Tenant) else []),
            *(f"{number:,}" for number in (one.admitted, one.denied, one.would_deny)),
            f"{one.jobs.started:,}",
            _seconds(one.requests.get("in_flight_seconds", 0) + one.jobs.run_seconds),
        ]
        for one in shown
    ]
    tenants = isinstance(found[0], Tenant)
    names = (
        ("Tenant", "Tier", "Limits hit", "Full") if tenants else ("Tier", "Tenants", "Limits hit")
    )
    numbers = ("Admitted", "Denied", "Would deny", "Jobs", "Busy")
    output.print_wide(output.table((*names, *numbers), rows, right=len(numbers)))
    _tell_more(len(found))


def print_hits(found: Sequence[Line], period: Period) -> None:
    """Prints a line for each limit that denied anything, the largest share first."""
    _print_summary(found, period)
    hits = sorted(
        ((one, limit) for one in found for limit in one.limits if limit.denied),
        key=lambda pair: -pair[1].denied,
    )
    if not hits:
        return
    rows = [
        (
            *_named(one),
            limit.limit,
            f"{limit.admitted:,}",
            f"{limit.denied:,}",
            f"{limit.denied / (limit.admitted + limit.denied):.1%}",
        )
        for one, limit in hits[:TOP]
    ]
    names = ("Tenant", "Tier") if isinstance(found[0], Tenant) else ("Tier", "Tenants")
    columns = (*names, "Limit", "Admitted", "Denied", "of its own")
    output.print_wide(output.table(columns, rows, right=3))
    _tell_more(len(hits))


def _print_summary(found: Sequence[Line], period: Period) -> None:
    since, until = (output.instant(one)[:16] for one in period)
    admitted, denied = sum(one.admitted for one in found), sum(one.denied for one in found)
    tenants = sum(one.tenants if isinstance(one, Tier) else 1 for one in found)
    console = output.stdout()
    console.print(f"{since} to {until} UTC", markup=False)
    many = "1 tenant" if tenants == 1 else f"{tenants:,} tenants"
    console.print(f"{many}: {admitted:,} admitted, {denied:,} denied\n", markup=False)


def _tell_more(count: int) -> None:
    if count > TOP:
        output.note(f"and {count - TOP:,} more (--format csv or json shows all)")


def _named(one: Line) -> list[object]:
    return [one.tenant, one.tier] if isinstance(one, Tenant) else [one.tier, one.tenants]


def _quotas(one: Line) -> Sequence[Quota]:
    return one.quotas if isinstance(one, Tenant) else ()


def _fills(quotas: Sequence[Quota]) -> str | None:
    """What is full, or is so first."""
    lasting = [(one.days_until_full, one.resource) for one in quotas if one.limit]
    soon = [(days, name) for days, name in lasting if days is not None and days <= SOON_DAYS]
    if not soon:
        return None
    days, name = min(soon)
    if days == 0:
        return f"{name} now"
    return f"{name} in {days:.0f} d" if days >= 1 else f"{name} in {days * 24:.0f} h"


def _seconds(seconds: float) -> str:
    """A time as people read it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 6000 else f"{seconds / 3600:,.0f} h"
