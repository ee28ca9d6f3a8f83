"""Points and reports from a real PostgreSQL, in whatever state the roll-up is."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.directory import Directory
from partywall_service.ledger import Ledger
from partywall_service.ledger.tables import quota_ledger, quota_levels
from partywall_service.policy.holder import PolicyHolder
from partywall_service.usage.reports import QuotaUse, TenantReport
from partywall_service.usage.source import Point
from partywall_service.usage.spans import MINUTES, Step, first_step, floor, minute_of
from tests.support.api import durable_quotas, policy
from tests.support.usage import hand_made_usage

METERS = ("limits.requests.admitted", "limits.requests.denied", "jobs.run_seconds")
TENANTS = ("acme", "b.corp", "ghost", "umbrella")
NOW = datetime.now(UTC).replace(second=30, microsecond=0)
TODAY = NOW.replace(hour=0, minute=0, second=0)


@dataclass
class Installed:
    """What the sidecar wires."""

    engine: AsyncEngine
    default_tier: str | None = None

    def __post_init__(self) -> None:
        holder = PolicyHolder(policy(default_tier=self.default_tier))
        self.ledger = Ledger(self.engine)
        directory = Directory(self.ledger, holder, size=100)
        quotas = durable_quotas(self.engine, directory, holder)
        usage = hand_made_usage(self.engine, self.ledger, holder, quotas, now=NOW)
        self.store, self.source = usage.store, usage.source
        self.reader, self.reports = usage.reader, usage.reports

    async def report(
        self, start: datetime, end: datetime, *, size: int = 100, tier: str | None = None
    ) -> list[TenantReport]:
        pages = self.reports.pages(start, end, size=size, tier=tier)
        return [one async for page in pages for one in page.tenants]

    async def changes(self, tenant: str, resource: str, *levels: tuple[datetime, int]) -> None:
        """Writes a ledger of levels, and the last one as it stands."""
        used = 0
        async with self.engine.begin() as connection:
            for at, level in levels:
                line = {"delta": level - used, "used": level, "at": at, "operation": "set"}
                row = {"tenant": tenant, "resource": resource, "actor": "test", **line}
                await connection.execute(insert(quota_ledger).values(row))
                used = level
            now = {"reserved": 0, "version": len(levels), "crossed": 0, "refills": 0}
            row = {"tenant": tenant, "resource": resource, "used": used, **now}
            await connection.execute(insert(quota_levels).values(row))


def some_points(seed: int, first: int, last: int) -> list[Point]:
    """Points of a few minutes of each tenant, some at the edges of hours and days."""
    dice = random.Random(seed)
    edges = [first, last - 1, *(floor(dice.randrange(first, last), "day") for _ in range(3))]
    edges += [minute - 1 for minute in edges]
    minutes = [*(one for one in edges if first <= one < last), *dice.sample(range(first, last), 40)]
    return [
        Point(tenant, minute, meter, dice.randrange(1, 10**6))
        for tenant in TENANTS
        for minute in sorted(set(minutes))
        for meter in METERS
        if dice.random() < 0.7
    ]


def summed(points: Sequence[Point], start: datetime, end: datetime) -> dict[str, dict[str, int]]:
    sums: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for tenant, minute, meter, value in points:
        if minute_of(start) <= minute < first_step(end, "minute"):
            sums[tenant][meter] += value
    return {tenant: dict(found) for tenant, found in sums.items()}


async def test_points_and_reports_are_the_sums_of_minutes_whatever_is_rolled_up(
    ledger_engine: AsyncEngine, soak: bool
) -> None:
    one = Installed(ledger_engine, default_tier="free")
    for tenant in ("acme", "b.corp", "umbrella"):  # and not ghost
        await one.ledger.put_tenant(tenant, tier="free", actor="test")
    first, last = minute_of(TODAY - timedelta(days=2)), minute_of(NOW) + 1
    points = some_points(1, first, last)
    edges = [
        TODAY - timedelta(days=2),
        TODAY - timedelta(days=1, hours=5, minutes=7, seconds=3),
        TODAY - timedelta(days=1),
        TODAY - timedelta(hours=3),
        TODAY,
        NOW - timedelta(minutes=61),
        NOW + timedelta(minutes=1),
    ]
    dice = random.Random(2)
    by_minute = sorted(points, key=lambda point: point.minute)
    third = len(points) // 3

    async def check() -> None:
        for start in edges:
            for end in edges:
                expected = summed(points, start, end) if start < end else {}
                if start < end and (soak or dice.random() < 0.4):
                    found = await one.report(start, end, size=3)
                    assert {it.tenant: it.totals for it in found if it.totals} == expected
        steps: tuple[Step, ...] = ("minute", "hour", "day")
        for step in steps:
            sums: defaultdict[tuple[int, str], int] = defaultdict(int)
            for tenant, minute, meter, value in points:
                if tenant == "acme":
                    sums[minute - minute % MINUTES[step], meter] += value
            start, end = edges[0], edges[-1]
            found_points = await one.reader.points("acme", start, end, step)
            assert {(minute_of(it.start), it.meter): it.value for it in found_points} == sums

    one.source.points = list(points)
    await check()  # all of it in Redis
    await one.store.upsert(by_minute[:third])
    await check()  # some of it in both
    one.source.points = by_minute[third // 2 :]
    await one.store.aggregate(NOW - timedelta(days=1))
    await check()
    await one.store.upsert(by_minute[third : 2 * third])
    one.source.points = by_minute[2 * third :]
    await check()
    await one.store.aggregate(NOW)
    await check()
    one.source.points = [point for point in points if point.minute == last - 1]
    await one.store.upsert([point for point in points if point.minute < last - 1])
    await one.store.aggregate(NOW)
    await check()  # as it is most of the time


async def test_a_report_names_who_is_registered_and_who_was_counted(
    ledger_engine: AsyncEngine,
) -> None:
    one = Installed(ledger_engine, default_tier="free")
    await one.ledger.put_tenant("acme", tier="pro", name="=Acme", status="suspended", actor="test")
    await one.ledger.put_tenant("quiet", tier="free", actor="test")
    yesterday = minute_of(TODAY) - 60
    meter = METERS[0]
    await one.store.upsert([Point("long.ago", yesterday - 1440, meter, 1)])
    await one.store.upsert([Point("was.here", yesterday, meter, 2)])
    one.source.points = [Point("came.now", minute_of(NOW), meter, 3), Point("acme", 1, meter, 9)]
    await one.store.aggregate(NOW)
    found = await one.report(TODAY - timedelta(days=1), NOW + timedelta(minutes=1), size=1)
    assert [(it.tenant, it.name, it.tier, it.status, dict(it.totals)) for it in found] == [
        ("acme", "=Acme", "pro", "suspended", {}),
        ("came.now", None, "free", None, {meter: 3}),
        ("quiet", "quiet", "free", "active", {}),
        ("was.here", None, "free", None, {meter: 2}),
    ]
    free = await one.report(TODAY - timedelta(days=1), NOW + timedelta(minutes=1), tier="free")
    assert [it.tenant for it in free] == ["came.now", "quiet", "was.here"]
    pro = await one.report(TODAY - timedelta(days=1), NOW + timedelta(minutes=1), tier="pro")
    assert [it.tenant for it in pro] == ["acme"]


async def test_days_until_full_go_by_the_growth_of_the_last_days(
    ledger_engine: AsyncEngine,
) -> None:
    one = Installed(ledger_engine)
    for tenant in ("acme", "new", "shrinking", "full", "never"):
        await one.ledger.put_tenant(tenant, tier="pro", actor="test")
    day = timedelta(days=1)
    await one.changes("acme", "users", (NOW - 20 * day, 20), (NOW - 9 * day, 26), (NOW - day, 40))
    await one.changes("new", "users", (NOW - 2 * day, 1), (NOW - timedelta(minutes=1), 20))
    await one.changes("shrinking", "users", (NOW - 20 * day, 20), (NOW - day, 19))
    await one.changes("full", "users", (NOW - 20 * day, 50))
    await one.changes("acme", "storage", (NOW - day, 4711))
    for _ in range(2):  # before and after what changed is rolled up
        found = {it.tenant: it.quotas[0] for it in await one.report(NOW - 30 * day, NOW)}
        assert {name: (it.used, it.limit) for name, it in found.items()} == {
            "acme": (40, 50),
            "full": (50, 50),
            "never": (0, 50),
            "new": (20, 50),
            "shrinking": (19, 50),
        }
        assert found["acme"].days_until_full == pytest.approx(10 / (14 / 7), rel=0.01)
        assert found["new"].days_until_full == pytest.approx(30 / (20 / 2), rel=0.01)
        assert found["full"].days_until_full == 0
        assert found["shrinking"].days_until_full is None
        assert found["never"].days_until_full is None
        acme = await one.report(NOW - 30 * day, NOW)
        assert acme[0].quotas[1] == QuotaUse("storage", "bytes", 4711, None, None)
        await one.store.levels()
        await one.store.aggregate(NOW)


async def test_a_past_period_ends_with_the_level_of_then(ledger_engine: AsyncEngine) -> None:
    one = Installed(ledger_engine)
    await one.ledger.put_tenant("acme", tier="pro", actor="test")
    day = timedelta(days=1)
    await one.changes("acme", "users", (NOW - 6 * day, 10), (NOW - 3 * day, 24), (NOW - day, 40))
    await one.store.levels()
    await one.store.aggregate(NOW)
    (acme,) = await one.report(NOW - 6 * day, NOW - 2 * day)
    users = acme.quotas[0]
    assert (users.used, users.limit) == (24, 50)
    points = await one.reader.points("acme", TODAY - 4 * day, NOW, "day")
    assert [it.value for it in points if it.meter == "quotas.users.used"] == [10, 24, 24, 40, 40]


async def test_changes_are_told_before_they_are_rolled_up(ledger_engine: AsyncEngine) -> None:
    one = Installed(ledger_engine)
    await one.ledger.put_tenant("acme", tier="pro", actor="test")
    hour = timedelta(hours=1)
    await one.changes("acme", "users", (NOW - 3 * hour, 10), (NOW - hour, 24))

    async def levels(scope: str | None) -> list[int]:
        points = await one.reader.points("acme", NOW - 4 * hour, NOW, "hour", scope)
        return [it.value for it in points if it.meter == "quotas.users.used"]

    before = await levels(None)
    assert before == [10, 10, 24, 24]
    assert await levels("acme") == before
    await one.store.levels()
    assert await levels(None) == before
    assert await levels("acme") == before
    assert await levels("other") != before  # row-level security
