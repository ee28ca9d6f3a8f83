"""Hours from minutes and days from hours, whole and absolute, each in steps of bounded time.

A row of `usage_pending` says that a step's minutes changed since it was summed up. Whoever sums up
holds that row's lock and gives up once it counts further changes, and whoever changes minutes
counts them there before it commits: so a sum that stands was made from all of them.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from partywall_service.usage.partitions import (
    USAGE_DAYS,
    USAGE_HOURS,
    USAGE_MINUTES,
    Partitioned,
    ensure,
)
from partywall_service.usage.writing import SHARE_LOCK

MAX_ROWS = 100_000
"""Rows summed up in one transaction: some tenths of a second."""


class Rolled(NamedTuple):
    """A step that is summed up from a finer one.

    Attributes:
        step: as `usage_pending` has it.
        length: of the step.
        source: where the finer points are.
        target: where the sums go.
    """

    step: str
    length: timedelta
    source: Partitioned
    target: Partitioned


HOUR = Rolled("hour", timedelta(hours=1), USAGE_MINUTES, USAGE_HOURS)
DAY = Rolled("day", timedelta(days=1), USAGE_HOURS, USAGE_DAYS)


class Due(NamedTuple):
    """A step to be summed up.

    Attributes:
        start: of the step.
        changes: how many changes of its minutes were counted when it was looked at.
    """

    start: datetime
    changes: int


_DUE = text("""
    SELECT start, changes FROM usage_pending
    WHERE step = :step AND start + CAST(:length AS interval) <= :now ORDER BY start
""")
_LOCK = text("""
    SELECT FROM usage_pending
    WHERE step = :step AND start = :start AND changes = :changes FOR UPDATE
""")
_HOURS_PENDING = text("""
    SELECT FROM usage_pending
    WHERE step = 'hour' AND start >= :start AND start < :end LIMIT 1
""")
_DONE = text("DELETE FROM usage_pending WHERE step = :step AND start = :start")


async def due(connection: AsyncConnection, rolled: Rolled, now: datetime) -> list[Due]:
    """The steps that are over and not summed up since they changed, oldest first."""
    asked = {"step": rolled.step, "length": rolled.length, "now": now}
    return [Due(*row) for row in await connection.execute(_DUE, asked)]


async def sum_up(
    connection: AsyncConnection, rolled: Rolled, one: Due, after: str
) -> tuple[int, str | None]:
    """Sums up some tenants' points of a step, in the caller's transaction.

    Args:
        connection: of the transaction.
        rolled: which kind of step.
        one: which.
        after: the tenant after whom to begin.

    Returns:
        How many sums were new or are others now, and after which tenant to go on; None when there
        is nothing more to do now.
    """
    span = {"start": one.start, "end": one.start + rolled.length}
    await connection.execute(SHARE_LOCK)
    locked = await connection.execute(_LOCK, {"step": rolled.step, **one._asdict()})
    if not locked.rowcount:
        return 0, None
    if rolled is DAY and (await connection.execute(_HOURS_PENDING, span)).rowcount:
        return 0, None
    tenants = text(
        f"""
        SELECT count(*), max(tenant) FROM (
            SELECT tenant FROM {rolled.source.name}
            WHERE start >= :start AND start < :end AND tenant > :after
            ORDER BY tenant LIMIT {MAX_ROWS}
        ) AS chunk
    """  # noqa: S608 - a table of ours
    )
    rows, last = (await connection.execute(tenants, {**span, "after": after})).one()
    written = 0
    if rows:
        await ensure(connection, rolled.target, [one.start])
        written = (
            await connection.execute(_sums(rolled), {**span, "after": after, "last": last})
        ).rowcount
    if rows == MAX_ROWS:
        return written, last
    await connection.execute(_DONE, {"step": rolled.step, "start": one.start})
    return written, None


def _sums(rolled: Rolled) -> TextClause:
    some = f"""
        FROM {rolled.source.name}
        WHERE start >= :start AND start < :end AND tenant > :after AND tenant <= :last
    """
    # A level is what it was at the end, and no sum (`meters.is_level`).
    return text(
        f"""
        INSERT INTO {rolled.target.name} AS old (tenant, meter, start, value)
        SELECT * FROM (
            SELECT tenant, meter, CAST(:start AS timestamptz), CAST(sum(value) AS bigint)
            {some} AND NOT starts_with(meter, 'quotas.') GROUP BY tenant, meter
            UNION ALL
            (SELECT DISTINCT ON (tenant, meter) tenant, meter, CAST(:start AS timestamptz), value
            {some} AND starts_with(meter, 'quotas.') ORDER BY tenant, meter, start DESC)
        ) AS sums
        ON CONFLICT (tenant, meter, start) DO UPDATE SET value = excluded.value
        WHERE old.value IS DISTINCT FROM excluded.value
    """  # noqa: S608 - a table of ours
    )
