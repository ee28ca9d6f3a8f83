"""Usage: one tenant's as points in time, and all tenants' for a period."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from partywall_service.api.deps import AuthenticatedRoute, Host, Parts, PartsDep, Reader
from partywall_service.api.openapi import problems
from partywall_service.api.paging import Cursor
from partywall_service.api.params import (
    DEFAULT_PAGE,
    CursorQuery,
    PageSize,
    TenantPath,
    TierFilter,
)
from partywall_service.api.problems import invalid
from partywall_service.api.tenants import unknown_tenant
from partywall_service.api.usage_csv import POINT_COLUMNS, point_row, report_columns, report_row
from partywall_service.api.usage_schemas import (
    METER_PATTERN,
    FormatQuery,
    FromQuery,
    MeterFilter,
    Point,
    Points,
    ReportFromQuery,
    StepQuery,
    TenantInPeriod,
    ToQuery,
    UsageByTenant,
)
from partywall_service.names import TENANT_PATTERN
from partywall_service.usage.csv_text import MEDIA_TYPE, instant, lines
from partywall_service.usage.reading import UsagePoint
from partywall_service.usage.spans import MINUTES, Step, first_step, floor, instant_of, minute_of

MAX_STEPS = 20_000
"""Between `from` and `to`: two weeks of minutes, two years of hours."""

STRETCH = 360
"""Steps read at once, so that whatever a period holds takes little memory."""

MOST_POINTS = 1000
"""Points to a page where nothing else is asked for: a chart's worth."""

CSV_TENANTS = 500
"""Tenants read at once."""

REPORT_PERIOD = timedelta(days=30)
"""Before the day of the end, where no beginning is asked for."""

_DEFAULT: dict[Step, timedelta] = {
    "minute": timedelta(hours=1),
    "hour": timedelta(days=1),
    "day": timedelta(days=30),
}
_AHEAD = timedelta(hours=1)
"""Where no end is asked for: Redis's clock, by which is counted, may be ahead of this one's."""

router = APIRouter(prefix="/v1", tags=["usage"], route_class=AuthenticatedRoute)

_point_cursor: Cursor[tuple[int, str]] = Cursor(
    "usage",
    tuple[
        Annotated[int, msgspec.Meta(ge=0, le=2**32)],
        Annotated[str, msgspec.Meta(pattern=METER_PATTERN)],
    ],
)
_tenant_cursor: Cursor[str] = Cursor(
    "usage-report", Annotated[str, msgspec.Meta(pattern=TENANT_PATTERN)]
)
_CSV: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}}
}


@router.get(
    "/tenants/{tenant}/usage",
    summary="Read a tenant's usage",
    response_model=Points,
    responses={**_CSV, **problems("unknown-tenant")},
)
async def get_usage(
    tenant: TenantPath,
    parts: PartsDep,
    reader: Reader,
    start: FromQuery = None,
    to: ToQuery = None,
    step: StepQuery = "hour",
    meter: MeterFilter = None,
    form: FormatQuery = "json",
    cursor: CursorQuery = None,
    page_size: PageSize = MOST_POINTS,
) -> Points | StreamingResponse:
    """Points where there is a value, by start and meter; the step that runs is included.

    Minutes are kept for some days, hours for some months, days for years; what is older has no
    points.
    """
    after = _point_cursor.decode(cursor)
    first, last = _steps(start, to, step)
    await _check_served(parts, tenant)
    if after is not None and form == "json":
        first = max(first, floor(after[0], step))
    found = _stretches(parts, tenant, (first, last), step, meter, reader.tenant)
    if form == "csv":
        rows = (list(map(point_row, some)) async for some in found)
        return await _streamed(POINT_COLUMNS, rows, f"usage-{tenant}-{step}s-{_dated(first, last)}")
    points: list[UsagePoint] = []
    async with aclosing(found):
        async for some in found:
            points += (one for one in some if after is None or _key(one) > after)
            if len(points) > page_size:
                break
    page, next_cursor = _point_cursor.page(points, page_size, _key)
    return Points(points=[Point.of(point) for point in page], next_cursor=next_cursor)


@router.get(
    "/reports/usage",
    summary="Read what all tenants used",
    response_model=UsageByTenant,
    responses={**_CSV, **problems()},
)
async def report_usage(
    parts: PartsDep,
    _: Host,
    start: ReportFromQuery = None,
    to: ToQuery = None,
    tier: TierFilter = None,
    form: FormatQuery = "json",
    cursor: CursorQuery = None,
    page_size: PageSize = DEFAULT_PAGE,
) -> UsageByTenant | StreamingResponse:
    """Who was admitted and denied how often, by tenant; what ran; what is used and soon full.

    There are all tenants that are registered, and those the default tier served in the period. A
    page may have fewer than `page_size` of them.
    """
    after = _tenant_cursor.decode(cursor) or ""
    since, until = _period(start, to)
    reports = parts.usage.reports
    if form == "csv":
        policy = parts.policy.current
        pages = reports.pages(since, until, tier=tier, size=CSV_TENANTS)
        rows = ([report_row(one, policy) for one in page.tenants] async for page in pages)
        name = f"usage-{_dated(minute_of(since), minute_of(to or _now()))}"
        return await _streamed(report_columns(policy), rows, name)
    page = await reports.page(since, until, tier=tier, after=after, size=page_size)
    return UsageByTenant(
        since=since,
        to=to or _now(),
        tenants=[TenantInPeriod.of(one) for one in page.tenants],
        next_cursor=None if page.next_after is None else _tenant_cursor.encode(page.next_after),
    )


def _steps(start: datetime | None, to: datetime | None, step: Step) -> tuple[int, int]:
    """The first minutes of the first step that is asked for, and of the one after the last.

    The step that `start` is in is the first: who notes the time, does something and asks for what
    was since, finds it.
    """
    since = start or (to or _now()) - _DEFAULT[step]
    until = _end(since, to)
    begin, last = first_step(since, step), first_step(until, step)
    first = begin if start is None else floor(minute_of(start), step)
    count = (last - begin) // MINUTES[step]
    if count > MAX_STEPS:
        raise invalid(
            "from",
            f"expected at most {MAX_STEPS:,} {step}s before `to`; got {count:,}: ask for a shorter "
            "period, or for longer steps",
        )
    return first, last


def _period(start: datetime | None, to: datetime | None) -> tuple[datetime, datetime]:
    day = (to or _now()).replace(hour=0, minute=0, second=0, microsecond=0)
    since = start or day - REPORT_PERIOD
    return since, _end(since, to)


def _end(since: datetime, to: datetime | None) -> datetime:
    """The end of a period.

    Raises:
        Problem: `invalid-request`, it is not after the beginning.
    """
    end = to or _now()
    if since >= end:
        raise invalid(
            "from", f"expected an instant before {instant(end)}, the end; got {instant(since)}"
        )
    return to or end + _AHEAD


async def _check_served(parts: Parts, tenant: str) -> None:
    entry = parts.directory.get(tenant) or (await parts.directory.find([tenant]))[tenant]
    if entry.standing is None:
        raise unknown_tenant(tenant)


async def _stretches(
    parts: Parts,
    tenant: str,
    span: tuple[int, int],
    step: Step,
    meter: str | None,
    scope: str | None,
) -> AsyncGenerator[list[UsagePoint], None]:
    """All points, some steps of them at a time."""
    length = STRETCH * MINUTES[step]
    for first in range(*span, length):
        start, end = instant_of(first), instant_of(min(first + length, span[1]))
        points = await parts.usage.reader.points(tenant, start, end, step, scope=scope)
        yield [
            one
            for one in points
            if meter is None or one.meter == meter or one.meter.startswith(f"{meter}.")
        ]


async def _streamed(
    header: Sequence[str], batches: AsyncIterator[Sequence[Sequence[object]]], name: str
) -> StreamingResponse:
    """The rows as a CSV file, sent as they are read."""
    first: Iterable[Sequence[object]] = await anext(
        batches, ()
    )  # here, because what fails now can still be told

    async def text() -> AsyncIterator[str]:
        yield lines([header, *first])
        async for rows in batches:
            if rows:
                yield lines(rows)

    disposition = f'attachment; filename="{name}.csv"'
    return StreamingResponse(
        text(), media_type=MEDIA_TYPE, headers={"Content-Disposition": disposition}
    )


def _key(point: UsagePoint) -> tuple[int, str]:
    return minute_of(point.start), point.meter


def _dated(first: int, last: int) -> str:
    return "-".join(f"{instant_of(minute):%Y%m%dT%H%MZ}" for minute in (first, last))


def _now() -> datetime:
    return datetime.now(UTC)
