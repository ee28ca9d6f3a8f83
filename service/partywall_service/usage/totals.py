"""What many tenants came to in a period: one grouped statement over days, hours and minutes."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text

from partywall_service.ledger.base import Store
from partywall_service.usage.spans import Spans, instant_of, minute_of

_STALE = text("SELECT step, start FROM usage_pending")

_REGISTERED = text("""
    SELECT tenant FROM tenants
    WHERE tenant > :after AND (CAST(:tier AS text) IS NULL OR tier = :tier)
    ORDER BY tenant LIMIT :limit
""")


def _scan(table: str, since: str) -> str:
    """Finds the tenants of a table, each by one look-up, however much there is of it."""

    def following(after: str) -> str:
        return f"""
            SELECT tenant FROM {table} WHERE tenant > {after} AND tenant <= :upto{since}
            ORDER BY tenant LIMIT 1
        """  # noqa: S608 - our own names

    return f"""
    {table}_seen AS (
        ({following(":after")})
        UNION ALL
        SELECT ({following("seen.tenant")}) FROM {table}_seen AS seen WHERE tenant IS NOT NULL
    )"""  # noqa: S608 - our own names


def _unregistered(table: str) -> str:
    """Those that a scan found and nobody registered."""
    return f"""
    (SELECT tenant FROM {table}_seen AS seen
     WHERE tenant IS NOT NULL
         AND NOT EXISTS (SELECT FROM tenants WHERE tenants.tenant = seen.tenant)
     ORDER BY tenant LIMIT :limit)
    """  # noqa: S608 - our own names


def _part(table: str, name: str, besides: str) -> str:
    """The counters of a range of a table, whose bounds are parameters of that name."""
    return f"""
    SELECT tenant, CAST(NULL AS timestamptz) AS start, meter, value FROM {table}
    WHERE tenant = ANY(:tenants) AND start >= :{name}_from AND start < :{name}_to
        AND NOT starts_with(meter, 'quotas.'){besides}
    """  # noqa: S608 - our own names


_MINUTES = "usage_minutes"
_TABLES = ("usage_days", "usage_hours", _MINUTES)
_SCANS = (
    _scan("usage_days", ""),
    _scan("usage_hours", " AND start >= :hours_from"),
    _scan("usage_minutes", " AND start >= :minutes_from"),
)
_UNREGISTERED = text(f"""
    WITH RECURSIVE {",".join(_SCANS)}
    {" UNION ".join(map(_unregistered, _TABLES))}
""")

_LAST = "~"
"""Comes after every tenant's id."""

_BESIDES = " AND start <> ALL(:fresh)"
_FRESH = """
    SELECT tenant, start, meter, value FROM usage_minutes
    WHERE tenant = ANY(:tenants) AND start = ANY(:fresh) AND NOT starts_with(meter, 'quotas.')
"""


class Stale(NamedTuple):
    """Steps whose minutes changed since they were rolled up, by their first minutes."""

    days: frozenset[int]
    hours: frozenset[int]


class Total(NamedTuple):
    """What one meter of one tenant came to.

    Attributes:
        tenant: its id.
        minute: the one minute it is of; None for a sum over more.
        meter: as `meters` has it.
        value: a count, or microseconds.
    """

    tenant: str
    minute: int | None
    meter: str
    value: int


class UsageTotals(Store):
    """The statements of the report; levels are none of their business.

    Any method raises `LedgerUnavailable` when PostgreSQL cannot answer.
    """

    async def stale(self) -> Stale:
        """What the tables of hours and days do not have yet, or not all of it."""
        async with self._reading() as connection:
            rows = (await connection.execute(_STALE)).all()
        found: dict[str, set[int]] = {"day": set(), "hour": set()}
        for step, start in rows:
            found[step].add(minute_of(start))
        return Stale(frozenset(found["day"]), frozenset(found["hour"]))

    async def tenants(
        self, after: str, limit: int, *, tier: str | None, registered: bool, stale: Stale
    ) -> list[str]:
        """Tenants by id.

        Args:
            after: the first is the one after this.
            limit: how many at most.
            tier: of registered ones, only those of this tier.
            registered: leave out those that nobody registered; else whoever has usage is there.
            stale: what is not rolled up, as `stale` told.
        """
        asked: dict[str, Any] = {"after": after, "limit": limit}
        async with self._reading() as connection:
            found = list(await connection.scalars(_REGISTERED, {**asked, "tier": tier}))
            if not registered:
                asked["upto"] = found[-1] if len(found) == limit else _LAST
                asked["hours_from"] = _earliest(stale.days)
                asked["minutes_from"] = _earliest(stale.hours)
                others = await connection.scalars(_UNREGISTERED, asked)
                found = sorted({*found, *others})
        return found[:limit]

    async def sums(
        self, tenants: Collection[str], parts: Spans, fresh: Collection[int]
    ) -> list[Total]:
        """What their counters came to in a period.

        Args:
            tenants: whose.
            parts: the period, parted among the tables.
            fresh: minutes that come one by one, as Redis may have some of them, too.
        """
        asked: dict[str, Any] = {"tenants": list(tenants)}
        arms: list[str] = []
        for table, ranges in zip(_TABLES, parts, strict=True):
            besides = _BESIDES if fresh and table == _MINUTES else ""
            for start, end in ranges:
                name = f"part{len(arms)}"
                asked |= {f"{name}_from": instant_of(start), f"{name}_to": instant_of(end)}
                arms.append(_part(table, name, besides))
        if not arms:
            return []
        # An empty list would have PostgreSQL look through each partition of the minutes.
        if fresh:
            asked["fresh"] = [instant_of(minute) for minute in sorted(fresh)]
            arms.append(_FRESH)
        async with self._reading() as connection:
            rows = await connection.execute(_sums(" UNION ALL ".join(arms)), asked)
            return [
                Total(tenant, None if start is None else minute_of(start), meter, value)
                for tenant, start, meter, value in rows
            ]


def _sums(arms: str) -> TextClause:
    return text(f"""
        SELECT tenant, start, meter, CAST(sum(value) AS bigint) FROM ({arms}) AS parts
        GROUP BY tenant, start, meter
    """)  # noqa: S608 - our own names


def _earliest(minutes: Collection[int]) -> datetime:
    """The first instant that the finer table may have more of."""
    return instant_of(min(minutes)) if minutes else datetime.max.replace(tzinfo=UTC)
