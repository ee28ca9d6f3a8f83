"""The judgement that is written down: a snapshot for the pages, and notices of what is new in it.

Any number may judge at once, anywhere: one of them writes, and each change is told once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from sqlalchemy import delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from partywall_service.ledger.base import Store
from partywall_service.ledger.tables import neighbours, usage_gone
from partywall_service.usage.neighbours import HOUR, Neighbours
from partywall_service.usage.notices import QUIET, Kind, Notice, write, written
from partywall_service.usage.verdict import Neighbour
from partywall_service.usage.writing import SHARE_LOCK, digest

MOST_WRITTEN = 1000
"""Tenants of the snapshot, those with the largest shares, beside all noisy ones and victims."""

CROSSED_WITHIN = timedelta(hours=1)
"""How old the crossing of a quota's threshold may be when it is told."""

_SLACK = timedelta(minutes=1)
"""How far the clocks of those who erase and of those who judge may be apart."""

_CROSSINGS = UUID("5e0c4b3e-8f0b-4c39-9d0c-0b1f6a6f3a0e")
"""The namespace of their notices' ids, so that each crossing has one."""

_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtextextended('partywall.neighbours', 0))")
_CROSSED = text("""
    SELECT tenant, resource, used, crossed, crossed_at FROM quota_levels AS level
    WHERE crossed > 0 AND crossed_at > :since AND NOT EXISTS (
        SELECT FROM notices
        WHERE notices.tenant = level.tenant AND at > level.crossed_at - CAST(:quiet AS interval)
            AND kind = 'quota.threshold' AND body->'data'->>'resource' = level.resource
            AND CAST(body->'data'->>'percent' AS int) >= level.crossed
    )
""")


class Seen(NamedTuple):
    """When a tenant was last judged noisy, and last a victim."""

    noisy_at: datetime | None = None
    victim_at: datetime | None = None


def transitions(
    judged: Sequence[Neighbour], before: Mapping[str, Seen], now: datetime
) -> tuple[list[Notice], dict[str, Seen]]:
    """What is new in a judgement. Pure.

    A tenant that becomes noisy, or a victim, is told of once; again only after it was not so for
    `QUIET`.

    Args:
        judged: everyone.
        before: of whom that is not long ago, when they were last seen so.
        now: when it was judged.

    Returns:
        Notices, and the `before` of the next judgement.
    """
    told = []
    seen = {}
    for one in judged:
        last = before.get(one.tenant, Seen())
        if one.verdict == "noisy":
            if _is_over(last.noisy_at, now):
                told.append(_notice("tenant.noisy", one, now))
            last = last._replace(noisy_at=now)
        elif one.verdict == "victim":
            if _is_over(last.victim_at, now):
                told.append(_notice("tenant.victim", one, now))
            last = last._replace(victim_at=now)
        if not (_is_over(last.noisy_at, now) and _is_over(last.victim_at, now)):
            seen[one.tenant] = last
    return told, seen


class Judge(Store):
    """Judges, and writes what came of it.

    Args:
        engine: where it is written.
        neighbours: who judges.
        clock: the wall clock.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        neighbours: Neighbours,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(engine)
        self._neighbours = neighbours
        self._clock = clock

    async def run(self) -> bool:
        """One judgement of the last hour; False when somebody else is writing one.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
            StoreError: Redis did not answer.
        """
        began = self._clock()
        judged = await self._neighbours.judge(HOUR)
        async with self._changing() as connection:
            if not await connection.scalar(_ALONE):
                return False
            await connection.execute(SHARE_LOCK)
            gone = await _erased_since(connection, began - _SLACK)
            if gone:
                judged = [one for one in judged if digest(one.tenant) not in gone]
            now = self._clock()
            told, seen = transitions(judged, await _before(connection), now)
            await connection.execute(delete(neighbours))
            rows = [
                _row(one, seen.get(one.tenant, Seen()), now)
                for place, one in enumerate(judged)
                if place < MOST_WRITTEN or one.verdict != "normal" or one.tenant in seen
            ]
            if rows:
                await connection.execute(insert(neighbours), rows)
            await write(connection, [*told, *await _crossings(connection, now)])
        return True


async def _before(connection: AsyncConnection) -> dict[str, Seen]:
    c = neighbours.c
    rows = await connection.execute(select(c.tenant, c.noisy_at, c.victim_at))
    return {tenant: Seen(*seen) for tenant, *seen in rows if any(seen)}


async def _erased_since(connection: AsyncConnection, moment: datetime) -> set[bytes]:
    """Digests of those whom this judgement may still know."""
    query = select(usage_gone.c.digest).where(usage_gone.c.at > moment)
    return set(await connection.scalars(query))


async def _crossings(connection: AsyncConnection, now: datetime) -> list[Notice]:
    """Thresholds of quotas crossed lately that nobody was told of.

    One that is crossed to and fro is told once in `QUIET`.
    """
    rows = await connection.execute(_CROSSED, {"since": now - CROSSED_WITHIN, "quiet": QUIET})
    return [
        Notice(
            "quota.threshold",
            now,
            row.tenant,
            {
                "resource": row.resource,
                "percent": row.crossed,
                "used": row.used,
                "crossed_at": written(row.crossed_at),
            },
            id=str(uuid5(_CROSSINGS, f"{row.tenant}|{row.resource}|{row.crossed_at.isoformat()}")),
        )
        for row in rows
    ]


def _is_over(last: datetime | None, now: datetime) -> bool:
    return last is None or now - last >= QUIET


def _notice(kind: Kind, one: Neighbour, now: datetime) -> Notice:
    data = {
        "tier": one.tier,
        "reason": one.reason,
        "resource": one.resource,
        "share": one.share,
        "fair_share": one.fair_share,
        "requests": one.requests,
        "denied": one.denied,
        "window_seconds": int(HOUR.total_seconds()),
    }
    return Notice(kind, now, one.tenant, data)


def _row(one: Neighbour, seen: Seen, now: datetime) -> dict[str, Any]:
    row = asdict(one) | seen._asdict()
    row |= {"computed_at": now, "window_seconds": int(HOUR.total_seconds())}
    return {name: value for name, value in row.items() if name in neighbours.c}
