"""The levels of quotas by the minute, from the ledger of their changes."""

from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from partywall_service.usage.levels import WATERMARK
from partywall_service.usage.partitions import USAGE_MINUTES, ensure
from partywall_service.usage.spans import instant_of, minute_of
from partywall_service.usage.writing import INCOMING, MINUTES_FROM, SHARE_LOCK, merge

OVERLAP = timedelta(minutes=2)
"""A line of the ledger is seen some time after the instant it bears. For so long it is looked for
again, and longer where a transaction that began before is seen to change quotas."""

OLDEST = timedelta(hours=1)
"""A transaction that runs longer is waited for no more."""

SLICE = timedelta(minutes=10)
"""Of the ledger, written at once where the roll-up is behind: some seconds, of a million lines."""

# Two at once would write older levels over newer ones. The row's lock is released, and the
# watermark moved, as the points are committed.
_BEGIN = text("""
    INSERT INTO usage_state AS old (name, value) VALUES (:watermark, '-infinity')
    ON CONFLICT (name) DO UPDATE SET value = old.value
""")
_NOW = text("SELECT clock_timestamp()")
# Whoever changes quotas holds an advisory lock, and its lines bear an instant after it began.
_BEGAN = text("""
    SELECT least(clock_timestamp(), (
        SELECT min(greatest(xact_start, clock_timestamp() - CAST(:oldest AS interval)))
        FROM pg_stat_activity
        WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND pid IN (
            SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database = (
                SELECT oid FROM pg_database WHERE datname = current_database()
            )
        )
    ))
""")
_NEXT = text("""
    SELECT date_trunc('minute', min(at), 'UTC') FROM quota_ledger
    WHERE at >= greatest(CAST(:since AS timestamptz), (
        SELECT max(CAST(value AS timestamptz)) FROM usage_state
        WHERE name IN (:watermark, :minutes_from)
    ))
""")
_READ = text("""
    INSERT INTO usage_incoming (tenant, meter, start, value)
    SELECT DISTINCT ON (tenant, resource, start) tenant, 'quotas.' || resource || '.used', start,
        used
    FROM (
        SELECT tenant, resource, date_trunc('minute', at, 'UTC') AS start, id, used
        FROM quota_ledger WHERE at >= :start AND at < :end
    ) AS lines
    ORDER BY tenant, resource, start, id DESC
""")
_STARTS = text("SELECT DISTINCT start FROM usage_incoming")
_MOVE = text("""
    UPDATE usage_state SET value = CAST(
        greatest(CAST(value AS timestamptz), CAST(:settled AS timestamptz)) AS text
    ) WHERE name = :watermark
""")


async def write_levels(
    connection: AsyncConnection, since: datetime | None
) -> tuple[int, datetime | None]:
    """Writes the last level of each closed minute in which it changed, in the caller's transaction.

    Args:
        connection: of the transaction.
        since: where the slice before this one ended; None begins at the watermark.

    Returns:
        How many levels there were, and from when to go on; None when nothing is left.
    """
    await connection.execute(SHARE_LOCK)
    await connection.execute(_BEGIN, {"watermark": WATERMARK})
    began = await changing_since(connection)
    closed = _minute((await connection.execute(_NOW)).scalar_one())
    asked = {"since": since, "watermark": WATERMARK, "minutes_from": MINUTES_FROM}
    start = await connection.scalar(_NEXT, asked)
    levels, end = 0, closed
    if start is not None and start < closed:
        end = min(start + SLICE, closed)
        await connection.execute(INCOMING)
        levels = (await connection.execute(_READ, {"start": start, "end": end})).rowcount
        await ensure(connection, USAGE_MINUTES, await connection.scalars(_STARTS))
        await merge(connection)
    moved = {"watermark": WATERMARK, "settled": min(end, _minute(began - OVERLAP))}
    await connection.execute(_MOVE, moved)
    return levels, end if end < closed else None


async def changing_since(connection: AsyncConnection) -> datetime:
    """Before when every line of the ledger is to be seen: when the oldest that may write began.

    As far as the connection's user may look: of other users' transactions it sees no beginning.
    """
    began: datetime = (await connection.execute(_BEGAN, {"oldest": OLDEST})).scalar_one()
    return began


def _minute(moment: datetime) -> datetime:
    return instant_of(minute_of(moment))
