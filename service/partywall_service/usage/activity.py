"""What every tenant did in a window, added up: from PostgreSQL, and from what is not there yet."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Select,
    Table,
    Text,
    and_,
    any_,
    bindparam,
    func,
    or_,
    select,
    text,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from partywall_service.ledger.base import Store, any_of
from partywall_service.ledger.tables import (
    tenants,
    usage_days,
    usage_hours,
    usage_minutes,
    usage_pending,
)
from partywall_service.usage.meters import IN_FLIGHT
from partywall_service.usage.source import Point
from partywall_service.usage.spans import (
    Range,
    Spans,
    floor,
    instant_of,
    minute_of,
    spans,
    without,
)
from partywall_service.usage.verdict import Pace

USUAL_HOURS = 24
"""Hours before the window, over which what is usual for a tenant is averaged."""

_DECIDED = ("admitted", "denied", "would_deny")
_METERS = {
    IN_FLIGHT: "in_flight",
    "requests.2xx": "answered",
    "requests.3xx": "answered",
    "requests.5xx": "answered",
    "requests.4xx": "refused",
    "jobs.started": "started",
    "jobs.run_seconds": "run",
    "jobs.wait_seconds": "wait",
}

# No plan that sorts three million rows on disk. Of a partition that grows, PostgreSQL believes that
# it has few until it has analysed it.
_BY_HASH = text(
    "SELECT set_config('work_mem', '64MB', true), set_config('enable_sort', 'off', true)"
)

_Points = Select[Any] | CompoundSelect[Any]


@dataclass(slots=True)
class Sums:
    """One tenant's meters, those of all limits together; times in microseconds.

    Attributes:
        requests: decisions of all limits.
        denied: those denied.
        degraded: those made without the shared store.
        shed: those that were surely both: of one limit in one minute, as many degraded ones as
            were neither admitted nor observed only.
        answered: requests answered by the app, but those of 4xx.
        refused: requests answered by 4xx, by the app or by its middleware for a limit.
        in_flight: time that requests took.
        started: jobs started.
        run: time that jobs ran.
        wait: time that jobs had waited.
    """

    requests: int = 0
    denied: int = 0
    degraded: int = 0
    shed: int = 0
    answered: int = 0
    refused: int = 0
    in_flight: int = 0
    started: int = 0
    run: int = 0
    wait: int = 0

    def add(self, meter: str, value: int) -> None:
        """Adds what one meter counted."""
        name = _METERS.get(meter)
        if name is not None:
            setattr(self, name, getattr(self, name) + value)
        elif meter.startswith("limits."):
            outcome = meter.rpartition(".")[2]
            self.requests += value * (outcome in _DECIDED)
            self.denied += value * (outcome == "denied")
            self.degraded += value * (outcome == "degraded")

    @property
    def pace(self) -> Pace:
        """How long things took. What a limit denied never reached the app, and took no time."""
        reached = self.answered + max(0, self.refused - self.denied)
        return Pace(reached, self.in_flight, self.started, self.wait)


class ActivityStore(Store):
    """The statements on what all tenants did."""

    async def sums(self, first: int, end: int, held: Iterable[Point]) -> dict[str, Sums]:
        """What each tenant did from minute `first` up to `end`.

        Args:
            first: minutes since the epoch, inclusive.
            end: exclusive.
            held: what Redis has, read before this is called. Where PostgreSQL has the same, it was
                moved meanwhile, and counts once.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
        """
        points = {
            (one.tenant, one.meter, one.minute): one.value
            for one in held
            if first <= one.minute < end
        }
        fresh = {minute for _, _, minute in points}
        async with self._adding_up() as connection:
            stale: dict[str, list[int]] = {"hour": [], "day": []}
            pending = select(usage_pending.c.step, usage_pending.c.start)
            for step, start in await connection.execute(pending):
                stale[step].append(minute_of(start))
            parts = spans(
                first, end, stale_days=stale["day"], stale_hours=stale["hour"], fresh=fresh
            )
            holes = [(minute, minute + 1) for minute in sorted(fresh)]  # those are read by rows
            settled = _union(parts._replace(minutes=without(parts.minutes, holes)))
            rows = await connection.execute(_pivoted(settled))
            found = {row[0]: _sums(row) for row in rows.all()}
            moved = await connection.execute(_rows(fresh))
            for tenant, meter, start, value in moved.all():
                points.setdefault((tenant, meter, minute_of(start)), value)
            shed = [name for name, one in found.items() if one.degraded and one.denied]
            if shed:
                rows = await connection.execute(_shed(settled), {"ids": shed})
                for tenant, number in rows.all():
                    found[tenant].shed = number
        # Of ten thousand tenants it takes long, and this thread has others to answer.
        await asyncio.to_thread(_add, found, points)
        return found

    async def usual(self, first: int) -> dict[str, Pace]:
        """How long what each tenant asked for took, in the day before the hour of minute `first`.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
        """
        end = floor(first, "hour")
        hours = _of(usage_hours, [(end - 60 * USUAL_HOURS, end)])
        async with self._adding_up() as connection:
            rows = await connection.execute(_pivoted(hours))
            return {row[0]: _sums(row).pace for row in rows.all()}

    async def tiers(self, ids: Collection[str]) -> dict[str, str]:
        """The tiers of those who are registered.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
        """
        query = select(tenants.c.tenant, tenants.c.tier).where(any_of(tenants.c.tenant))
        async with self._reading() as connection:
            rows = await connection.execute(query, {"ids": list(ids)})
            return {row.tenant: row.tier for row in rows}

    @asynccontextmanager
    async def _adding_up(self) -> AsyncIterator[AsyncConnection]:
        """For statements that read many rows; each sees what is there when it begins."""
        async with self._changing() as connection:
            await connection.execute(_BY_HASH)
            yield connection


def _add(found: dict[str, Sums], points: Mapping[tuple[str, str, int], int]) -> None:
    """Adds points, by tenant, meter and minute."""
    for (tenant, meter, _), value in points.items():
        found.setdefault(tenant, Sums()).add(meter, value)
    for tenant, number in _shed_of(points).items():
        found[tenant].shed += number


def _sums(row: Sequence[Any]) -> Sums:
    """Of a row of `_pivoted`."""
    _, requests, denied, degraded, *others = row
    return Sums(requests, denied, degraded, 0, *others)


def _union(parts: Spans) -> _Points:
    selects = [
        _of(table, ranges)
        for table, ranges in zip((usage_days, usage_hours, usage_minutes), parts, strict=True)
        if ranges
    ]
    if len(selects) > 1:
        return union_all(*selects)
    return selects[0] if selects else _of(usage_minutes, [(0, 0)])


def _of(table: Table, ranges: Sequence[Range]) -> Select[Any]:
    c = table.c
    among = [and_(c.start >= instant_of(start), c.start < instant_of(end)) for start, end in ranges]
    return select(c.tenant, c.meter, c.start, c.value).where(or_(*among))


def _rows(minutes: Collection[int]) -> Select[Any]:
    c = usage_minutes.c
    starts = [instant_of(minute) for minute in minutes]
    return select(c.tenant, c.meter, c.start, c.value).where(c.start.in_(starts))


def _pivoted(points: _Points) -> Select[Any]:
    """A row for each tenant: the columns of `Sums`, but what was shed."""
    given = points.subquery()
    by_meter = (
        select(given.c.tenant, given.c.meter, func.sum(given.c.value).label("value"))
        .group_by(given.c.tenant, given.c.meter)
        .subquery()
    )
    meter = by_meter.c.meter

    def total(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
        summed = func.sum(by_meter.c.value).filter(or_(*conditions))
        return func.coalesce(summed, 0).cast(BigInteger)

    def named(column: str) -> ColumnElement[int]:
        return total(meter.in_([name for name, one in _METERS.items() if one == column]))

    return select(
        by_meter.c.tenant,
        total(*(_is(meter, outcome) for outcome in _DECIDED)),
        total(_is(meter, "denied")),
        total(_is(meter, "degraded")),
        *map(named, ("answered", "refused", "in_flight", "started", "run", "wait")),
    ).group_by(by_meter.c.tenant)


def _shed(points: _Points) -> Select[Any]:
    """How many decisions of each tenant were surely both denied and degraded."""
    c = points.subquery().c

    def total(*outcomes: str) -> ColumnElement[int]:
        summed = func.sum(c.value).filter(or_(*(_is(c.meter, one) for one in outcomes)))
        return func.coalesce(summed, 0)

    both = total("degraded") - total("admitted", "would_deny")
    limit = func.regexp_replace(c.meter, r"\.[^.]*$", "")
    by_limit = (
        select(c.tenant, func.greatest(0, both).label("both"))
        .where(c.tenant == any_(bindparam("ids", type_=ARRAY(Text))), c.meter.like("limits.%"))
        .group_by(c.tenant, limit, c.start)
        .subquery()
    )
    summed = func.sum(by_limit.c.both).cast(BigInteger)
    return select(by_limit.c.tenant, summed).group_by(by_limit.c.tenant)


def _shed_of(points: Mapping[tuple[str, str, int], int]) -> Mapping[str, int]:
    """The same of points."""
    both: defaultdict[tuple[str, str, int], int] = defaultdict(int)
    for (tenant, meter, minute), value in points.items():
        limit, _, outcome = meter.rpartition(".")
        if meter.startswith("limits."):
            sign = {"degraded": 1, "denied": 0}.get(outcome, -1)
            both[tenant, limit, minute] += sign * value
    shed: defaultdict[str, int] = defaultdict(int)
    for (tenant, *_), number in both.items():
        shed[tenant] += max(0, number)
    return shed


def _is(meter: ColumnElement[str], outcome: str) -> ColumnElement[bool]:
    return meter.like(f"limits.%.{outcome.replace('_', '!_')}", escape="!")
