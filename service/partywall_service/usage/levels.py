"""How much of each durable resource was used, and when: rolled up, and from the ledger since.

Only changes are written down: a level stands until the next.
"""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text

from partywall_service.ledger.base import Store
from partywall_service.usage.meters import level_meter
from partywall_service.usage.spans import floor, instant_of, minute_of

WATERMARK = "levels"
"""The row of `usage_state` that says up to when changes were rolled up."""

# The lines of a tenant rise in id as in time, so those since an instant are the last ones.
_LATELY = text("""
    SELECT DISTINCT ON (resource, minute) resource, minute, used
    FROM (
        SELECT resource, date_trunc('minute', at, 'UTC') AS minute, used, id
        FROM quota_ledger
        WHERE tenant = :tenant AND at < :end AND id > coalesce((
            SELECT id FROM quota_ledger
            WHERE tenant = :tenant AND at < (
                SELECT CAST(value AS timestamptz) FROM usage_state WHERE name = :watermark
            )
            ORDER BY id DESC LIMIT 1
        ), 0)
    ) AS lines
    ORDER BY resource, minute, id DESC
""")

# A finer table is asked only about what the coarser one may lack: steps that were not rolled up.
# The ledger is asked where there is nothing: what was never used since usage is rolled up has its
# last line before.
_BEFORE = text("""
    SELECT tenant, resource, coalesce(last.at, line.at), coalesce(last.value, line.used), first.at
    FROM unnest(CAST(:tenants AS text[])) AS t(tenant)
    CROSS JOIN (
        SELECT resource, 'quotas.' || resource || '.used' AS meter
        FROM unnest(CAST(:resources AS text[])) AS r(resource)
    ) AS m
    CROSS JOIN (
        SELECT
            least(:day, min(start) FILTER (WHERE step = 'day')) AS hours,
            least(:hour, min(start) FILTER (WHERE step = 'hour')) AS minutes
        FROM usage_pending
    ) AS since
    LEFT JOIN LATERAL (
        SELECT at, value FROM (
            (SELECT start AS at, value, 1 AS fineness FROM usage_days AS u
             WHERE u.tenant = t.tenant AND u.meter = m.meter AND start < :day
             ORDER BY start DESC LIMIT 1)
            UNION ALL
            (SELECT start, value, 2 FROM usage_hours AS u
             WHERE u.tenant = t.tenant AND u.meter = m.meter
                 AND start >= since.hours AND start < :hour
             ORDER BY start DESC LIMIT 1)
            UNION ALL
            (SELECT start, value, 3 FROM usage_minutes AS u
             WHERE u.tenant = t.tenant AND u.meter = m.meter
                 AND start >= since.minutes AND start < :minute
             ORDER BY start DESC LIMIT 1)
        ) AS found ORDER BY at DESC, fineness DESC LIMIT 1
    ) AS last ON true
    LEFT JOIN LATERAL (
        SELECT at FROM quota_ledger AS q
        WHERE q.tenant = t.tenant AND q.resource = m.resource ORDER BY id LIMIT 1
    ) AS first ON last.at IS NULL
    LEFT JOIN LATERAL (
        SELECT at, used FROM quota_ledger AS q
        WHERE q.tenant = t.tenant AND q.resource = m.resource AND at < :minute
        ORDER BY id DESC LIMIT 1
    ) AS line ON first.at < :minute
    WHERE last.at IS NOT NULL OR first.at IS NOT NULL
""")


class Change(NamedTuple):
    """A level as it was after a change.

    Attributes:
        start: of the minute of the change, or of the hour or day that it was in.
        meter: of the resource.
        value: the level.
    """

    start: datetime
    meter: str
    value: int


class Known(NamedTuple):
    """What is known of a level as it was at some instant.

    Attributes:
        at: when it came to that, as `Change.start` or exactly; None when it was never used before.
        value: the level.
        first: when it was first used, where that was later.
    """

    at: datetime | None
    value: int
    first: datetime | None


class LevelHistory(Store):
    """The statements on levels as they were.

    Any method raises `LedgerUnavailable` when PostgreSQL cannot answer.
    """

    async def lately(self, tenant: str, end: datetime, *, scope: str | None = None) -> list[Change]:
        """The last change in each minute before `end`, of what is not rolled up yet.

        Args:
            tenant: whose.
            end: aware.
            scope: the tenant as whom to read, under row-level security.
        """
        asked = {"tenant": tenant, "end": end, "watermark": WATERMARK}
        async with self._reading(scope) as connection:
            rows = await connection.execute(_LATELY, asked)
            return [Change(minute, level_meter(resource), used) for resource, minute, used in rows]

    async def before(
        self,
        tenants: Collection[str],
        resources: Collection[str],
        moment: datetime,
        *,
        scope: str | None = None,
    ) -> dict[tuple[str, str], Known]:
        """The levels as they stood at `moment`, by tenant and resource, as far as rolled up.

        Args:
            tenants: whose.
            resources: of which.
            moment: aware, a whole minute.
            scope: the tenant as whom to read, under row-level security.

        Returns:
            Those that were ever used.
        """
        minute = minute_of(moment)
        asked = {
            "tenants": list(tenants),
            "resources": list(resources),
            "minute": moment,
            "hour": instant_of(floor(minute, "hour")),
            "day": instant_of(floor(minute, "day")),
        }
        async with self._reading(scope) as connection:
            rows = await connection.execute(_BEFORE, asked)
            return {
                (tenant, resource): Known(at, value or 0, first)
                for tenant, resource, at, value, first in rows
            }
