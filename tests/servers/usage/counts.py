"""A source of counts that a test fills, and what PostgreSQL came to have of them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta

import psycopg

from partywall_service.usage.source import Point
from partywall_service.usage.spans import minute_of

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
ADMITTED, DENIED = "limits.requests.admitted", "limits.requests.denied"

Table = dict[tuple[str, str, datetime], int]
"""Values by tenant, meter and start."""


def point(moment: datetime, value: int, tenant: str = "acme", meter: str = ADMITTED) -> Point:
    return Point(tenant, minute_of(moment), meter, value)


def after(**times: float) -> datetime:
    """An instant so long after noon."""
    return NOON + timedelta(**times)


class Counts:
    """A source in memory, as Redis is: it gives what is there, and forgets what it is told to."""

    def __init__(self, points: Iterable[Point] = (), *, batch: int = 100) -> None:
        self.left = {one[:3]: one for one in points}
        self._batch = batch

    async def closed(self) -> AsyncIterator[list[Point]]:
        points = list(self.left.values())
        for first in range(0, len(points), self._batch):
            await asyncio.sleep(0)  # as a call of Redis lets others run
            yield points[first : first + self._batch]

    async def forget(self, points: Sequence[Point]) -> None:
        await asyncio.sleep(0)
        for one in points:
            if self.left.get(one[:3]) == one:
                del self.left[one[:3]]

    async def held(self, tenants: Sequence[str] | None = None) -> list[Point]:
        return [one for one in self.left.values() if tenants is None or one.tenant in tenants]


def rows(database_url: str, table: str) -> Table:
    """All of a table of usage."""
    with psycopg.connect(database_url) as connection:
        found = connection.execute(f"SELECT tenant, meter, start, value FROM {table}").fetchall()
    return {(tenant, meter, start.astimezone(UTC)): value for tenant, meter, start, value in found}


def pending(database_url: str) -> set[tuple[str, datetime]]:
    """The steps that wait to be summed up."""
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT step, start FROM usage_pending").fetchall()
    return {(step, start.astimezone(UTC)) for step, start in found}


def expected(points: Iterable[Point], seconds: int) -> Table:
    """What steps of so many seconds come to: sums, and of levels the last."""
    table: Table = {}
    for tenant, minute, meter, value in sorted(points):
        start = datetime.fromtimestamp(minute * 60 // seconds * seconds, UTC)
        key = tenant, meter, start
        table[key] = value if meter.startswith("quotas.") else table.get(key, 0) + value
    return table
