"""Minutes into PostgreSQL: absolute, so that whatever is repeated changes nothing."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import cast

import psycopg
import structlog
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncConnection

from partywall_service.ledger.engine import BoundedConnection
from partywall_service.usage.partitions import USAGE_MINUTES, ensure
from partywall_service.usage.source import Point
from partywall_service.usage.spans import instant_of, minute_of

# Whoever writes points shares this lock; an erasure, and whoever moves the bound before which
# minutes are kept no longer, has it alone: nothing under way then comes after them.
SHARE_LOCK = text("SELECT pg_advisory_xact_lock_shared(hashtextextended('partywall.usage', 0))")
LOCK_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended('partywall.usage', 0))")

MINUTES_FROM = "minutes_from"
"""Minutes before this are kept no longer, and taken no more: their hour's sum stands without
them."""

_BOUNDS = text("""
    SELECT (SELECT CAST(value AS timestamptz) FROM usage_state WHERE name = :minutes_from),
        ARRAY(SELECT digest FROM usage_gone ORDER BY digest),
        ARRAY(SELECT at FROM usage_gone ORDER BY digest)
""")
INCOMING = text("""
    CREATE TEMP TABLE IF NOT EXISTS usage_incoming (
        tenant text COLLATE "C", meter text COLLATE "C", start timestamptz, value bigint
    ) ON COMMIT DELETE ROWS
""")
_COPY = "COPY usage_incoming (tenant, meter, start, value) FROM STDIN"

# In the order of the key: pages are found once, and two at once lock in one order. A scan of Redis
# may tell of the same count twice.
_MERGE = text("""
    WITH changed AS (
        INSERT INTO usage_minutes AS old (tenant, meter, start, value)
        SELECT DISTINCT ON (tenant, meter, start) tenant, meter, start, value
        FROM usage_incoming ORDER BY tenant, meter, start
        ON CONFLICT (tenant, meter, start) DO UPDATE SET value = excluded.value
        WHERE old.value IS DISTINCT FROM excluded.value
        RETURNING start
    )
    INSERT INTO usage_pending AS old (step, start)
    SELECT DISTINCT step, date_trunc(step, start, 'UTC')
    FROM (SELECT DISTINCT start FROM changed) AS minutes, (VALUES ('day'), ('hour')) AS steps (step)
    ORDER BY 1, 2
    ON CONFLICT (step, start) DO UPDATE SET changes = old.changes + 1
""")

_ESCAPED = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})

log = structlog.get_logger()


def digest(tenant: str) -> bytes:
    """What is remembered of an erased tenant."""
    return sha256(tenant.encode()).digest()


async def write(connection: AsyncConnection, points: Sequence[Point]) -> None:
    """Writes points in the caller's transaction, and notes which hours and days that changes.

    Left out, and said so in the log, are minutes that are kept no longer and what was counted
    before its tenant was erased.
    """
    await connection.execute(SHARE_LOCK)
    kept = await _kept(connection, points)
    if not kept:
        return
    moments = {minute: instant_of(minute) for minute in {point.minute for point in kept}}
    await ensure(connection, USAGE_MINUTES, moments.values())
    await connection.execute(INCOMING)
    await _copy(connection, _lines(kept, moments))
    await merge(connection)


async def merge(connection: AsyncConnection) -> None:
    """Writes what stands in the temporary table `usage_incoming`; its partitions are there."""
    await connection.execute(_MERGE)


async def _kept(connection: AsyncConnection, points: Sequence[Point]) -> Sequence[Point]:
    bound, digests, instants = (
        await connection.execute(_BOUNDS, {"minutes_from": MINUTES_FROM})
    ).one()
    first = None if bound is None else minute_of(bound)
    if first is not None and any(point.minute < first for point in points):
        before = len(points)
        points = [point for point in points if point.minute >= first]
        log.warning("usage.too_old", points=before - len(points), kept_from=bound.isoformat())
    if digests:
        erased = dict(zip(digests, map(minute_of, instants), strict=True))
        ends = {tenant: erased.get(digest(tenant)) for tenant in {one.tenant for one in points}}
        before = len(points)
        points = [one for one in points if (end := ends[one.tenant]) is None or one.minute >= end]
        if before > len(points):
            log.info("usage.erased_meanwhile", points=before - len(points))
    return points


def _lines(points: Collection[Point], starts: Mapping[int, datetime]) -> bytes:
    """As COPY reads them; put together at once, which is ten times as quick as row by row."""
    instants = {minute: start.isoformat() for minute, start in starts.items()}
    names = {
        name: name.translate(_ESCAPED)
        for name in {one.tenant for one in points} | {one.meter for one in points}
    }
    return "".join(
        [f"{names[one[0]]}\t{names[one[2]]}\t{instants[one[1]]}\t{one[3]}\n" for one in points]
    ).encode()


async def _copy(connection: AsyncConnection, lines: bytes) -> None:
    pooled = await connection.get_raw_connection()
    driver = cast("BoundedConnection", pooled.driver_connection)
    try:
        async with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
            await copy.write(lines)
    except psycopg.Error as error:
        # As SQLAlchemy, which does not know COPY, would have raised it.
        raise exc.DBAPIError.instance(_COPY, None, error, psycopg.Error, True) from error
    except BaseException:
        # Nor this: cut off in the middle, the connection cannot even roll back.
        await connection.invalidate()
        raise
