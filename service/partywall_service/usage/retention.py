"""What of usage is kept no longer."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from partywall_service.usage.partitions import (
    USAGE_DAYS,
    USAGE_HOURS,
    USAGE_MINUTES,
    Partitioned,
    ended,
)
from partywall_service.usage.writing import LOCK_ALONE, MINUTES_FROM

_MOVE = text("""
    INSERT INTO usage_state AS old (name, value)
    SELECT :minutes_from, CAST(date_trunc('hour', least(:bound, min(start)), 'UTC') AS text)
    FROM usage_pending WHERE step = 'hour'
    ON CONFLICT (name) DO UPDATE SET value = CAST(
        greatest(CAST(old.value AS timestamptz), CAST(excluded.value AS timestamptz)) AS text
    )
    RETURNING CAST(value AS timestamptz), date_trunc('day', least(
        CAST(value AS timestamptz), (SELECT min(start) FROM usage_pending WHERE step = 'day')
    ), 'UTC')
""")
_FORGET_GONE = text("DELETE FROM usage_gone WHERE at < clock_timestamp() - interval '7 days'")


class Ended(NamedTuple):
    """A partition with nothing in it that is kept.

    Attributes:
        table: whose.
        name: the partition's.
    """

    table: Partitioned
    name: str


async def move_bounds(
    connection: AsyncConnection, minutes: datetime, hours: datetime, days: datetime
) -> list[Ended]:
    """Takes no minutes before a bound any more, in the caller's transaction.

    A sum stands only as long as all it was made of is kept, or none of it is taken any more. So
    minutes are kept until their hour is summed up, and hours as long as minutes of their day are
    taken.

    Args:
        connection: of the transaction.
        minutes: before which minutes need not be kept.
        hours: hours likewise.
        days: days likewise.

    Returns:
        What can be dropped once the transaction is committed.
    """
    await connection.execute(LOCK_ALONE)
    await connection.execute(_FORGET_GONE)
    asked = {"bound": minutes, "minutes_from": MINUTES_FROM}
    minutes, whole_days = (await connection.execute(_MOVE, asked)).one()
    hours = min(hours, whole_days)
    bounds: Sequence[tuple[Partitioned, datetime]] = (
        (USAGE_MINUTES, minutes),
        (USAGE_HOURS, hours),
        (USAGE_DAYS, min(days, hours)),
    )
    return [
        Ended(table, name)
        for table, bound in bounds
        for name in await ended(connection, table, bound)
    ]
