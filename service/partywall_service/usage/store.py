"""Usage in PostgreSQL, as the rest of the sidecar asks for it."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple

import structlog
from psycopg.errors import LockNotAvailable
from sqlalchemy import delete, exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from partywall_service.ledger.base import Store
from partywall_service.ledger.tables import (
    neighbours,
    notices,
    usage_days,
    usage_hours,
    usage_minutes,
)
from partywall_service.usage import aggregate, ledger_levels, partitions, retention, writing
from partywall_service.usage.point_rows import POINTS
from partywall_service.usage.reading import UsagePoint
from partywall_service.usage.source import Point
from partywall_service.usage.spans import Step, first_step, floor, instant_of, minute_of

_GONE = text("""
    INSERT INTO usage_gone AS old (digest, at) VALUES (:digest, clock_timestamp())
    ON CONFLICT (digest) DO UPDATE SET at = excluded.at
""")

_NOTE = text("""
    INSERT INTO usage_state AS old (name, value)
    VALUES (:rolled_at, CAST(clock_timestamp() AS text)), (:points, CAST(:written AS text))
    ON CONFLICT (name) DO UPDATE SET value = CASE
        WHEN old.name = :rolled_at THEN excluded.value
        ELSE CAST(CAST(old.value AS bigint) + CAST(excluded.value AS bigint) AS text)
    END
""")
_NOTED = text("""
    SELECT (SELECT CAST(value AS timestamptz) FROM usage_state WHERE name = :rolled_at),
        (SELECT CAST(value AS bigint) FROM usage_state WHERE name = :points), clock_timestamp()
""")
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('partywall.usage.roll_up', 0))")
_NAMES = {"rolled_at": "rolled_at", "points": "rolled_points"}

log = structlog.get_logger()


class Rolled(NamedTuple):
    """What is noted of the roll-up.

    Attributes:
        at: when it last came to its end, by PostgreSQL's clock; None when it never did.
        points: minutes it has written since the installation began.
        now: PostgreSQL's clock.
    """

    at: datetime | None
    points: int
    now: datetime


class UsageStore(Store):
    """The statements on usage.

    Any method raises `LedgerUnavailable` when PostgreSQL cannot answer. Whatever is interrupted,
    repeated or done twice at once leaves what doing it once would have left.
    """

    async def upsert(self, points: Sequence[Point]) -> None:
        """Writes minutes as they are: all of these points, or none.

        Minutes that are kept no longer, and what was counted before its tenant was erased, are
        left out.

        Args:
            points: of minutes that are over, each with all that was counted in it.
        """
        if points:
            async with self._changing() as connection:
                await writing.write(connection, points)

    async def aggregate(self, now: datetime) -> int:
        """Sums up hours and then days that are over and changed since they were summed up.

        Args:
            now: aware; what ends after it is not over.

        Returns:
            How many sums were new, or are others now.
        """
        written = 0
        for rolled in (aggregate.HOUR, aggregate.DAY):
            async with self._reading() as connection:
                due = await aggregate.due(connection, rolled, now)
            for one in due:
                after: str | None = ""
                while after is not None:
                    async with self._changing() as connection:
                        some, after = await aggregate.sum_up(connection, rolled, one, after)
                    written += some
        return written

    async def levels(self) -> int:
        """Writes how much of each durable resource was used at the end of each minute that is over.

        Only of minutes in which it changed.

        Returns:
            How many levels were read, those of the last minutes again each time.
        """
        written, since = 0, None
        while True:
            async with self._changing() as connection:
                some, since = await ledger_levels.write_levels(connection, since)
            written += some
            if since is None:
                return written

    async def drop_before(self, minutes: datetime, hours: datetime, days: datetime) -> list[str]:
        """Drops partitions that hold nothing at or after these instants.

        What was not summed up yet stays, and what somebody is reading until the next time.

        Args:
            minutes: before which minutes need not be kept.
            hours: hours likewise.
            days: days likewise.

        Returns:
            The names of the partitions.
        """
        async with self._changing() as connection:
            ended = await retention.move_bounds(connection, minutes, hours, days)
        dropped = []
        for table, name in ended:
            async with self._changing() as connection:
                try:
                    await partitions.drop(connection, table, name)
                except exc.OperationalError as error:
                    if not isinstance(error.orig, LockNotAvailable):
                        raise
                    log.info("usage.partition_read", partition=name)
                    await connection.rollback()
                else:
                    dropped.append(name)
        return dropped

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Whether the block is the only one of its kind now, on any machine.

        It saves work and is no promise: a connection may break and let another one begin.
        """
        async with self._changing() as connection:
            yield bool(await connection.scalar(_TRY_LOCK))

    async def note(self, points: int) -> None:
        """Notes that the roll-up came to its end, having written so many points."""
        async with self._changing() as connection:
            await connection.execute(_NOTE, {**_NAMES, "written": points})

    async def rolled(self) -> Rolled:
        """What was noted of the roll-up."""
        async with self._reading() as connection:
            at, points, now = (await connection.execute(_NOTED, _NAMES)).one()
            return Rolled(at, points or 0, now)

    @staticmethod
    async def erase(connection: AsyncConnection, tenant: str) -> int:
        """Removes a tenant's usage, its verdict and its notices, in the caller's transaction.

        What the roll-up read before from Redis and writes after is left out: the digest of the
        tenant stays for some days with the instant.

        Args:
            connection: of the transaction; the tenant's lines in the ledger of quotas must go in
                the same one.
            tenant: whose.

        Returns:
            How many rows there were.
        """
        await connection.execute(writing.LOCK_ALONE)
        await connection.execute(_GONE, {"digest": writing.digest(tenant)})
        rows = 0
        for table in (usage_minutes, usage_hours, usage_days, neighbours, notices):
            gone = await connection.execute(delete(table).where(table.c.tenant == tenant))
            rows += gone.rowcount
        return rows

    async def points(
        self,
        tenant: str,
        start: datetime,
        end: datetime,
        step: Step,
        fresh: Collection[datetime] = (),
        scope: str | None = None,
    ) -> list[UsagePoint]:
        """Points of steps that begin from `start` on and before `end`, by start and meter.

        An hour that is not summed up since its minutes changed comes as its minutes, and a day
        likewise as its hours: what lies in one step is to be added up, and of levels the last
        counts.

        Args:
            tenant: whose.
            start: aware, inclusive.
            end: aware, exclusive.
            step: of which steps, aligned in UTC.
            fresh: instants in hours that are to come as their minutes as well, because Redis has
                some of them.
            scope: the tenant as whom to read, under row-level security.
        """
        asked = {
            "tenant": tenant,
            "start": instant_of(first_step(start, step)),
            "end": instant_of(first_step(end, step)),
        }
        if step != "minute":
            hours = {instant_of(floor(minute_of(moment), "hour")) for moment in fresh}
            asked |= {"fresh": sorted(hours), "minutes_from": writing.MINUTES_FROM}
        async with self._reading(scope) as connection:
            return [UsagePoint(*row) for row in await connection.execute(POINTS[step], asked)]
