"""One tenant's points: what Redis holds and PostgreSQL has, counted once; levels filled forward."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from partywall_service.policy.model import Period
from partywall_service.usage.levels import Change, Known
from partywall_service.usage.meters import level_meter
from partywall_service.usage.reading import UsagePoint, UsageReader
from partywall_service.usage.source import Point, Source
from partywall_service.usage.spans import Step, minute_of
from tests.support.usage import HeldPoints

USERS = level_meter("users")
ADMITTED = "limits.requests.admitted"


def at(hour: int, minute: int = 0, *, day: int = 21) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


@dataclass(frozen=True)
class Level:
    resource: str
    used: int
    version: int = 1
    period: Period | None = None


@dataclass
class Fakes:
    """What stands for PostgreSQL and for those who know the levels."""

    rows: list[UsagePoint] = field(default_factory=list)
    recent: list[Change] = field(default_factory=list)
    known: dict[tuple[str, str], Known] = field(default_factory=dict)
    quotas: list[Level] = field(default_factory=list)
    held: list[Point] = field(default_factory=list)
    asked_fresh: set[datetime] = field(default_factory=set)

    async def points(
        self,
        tenant: str,
        start: datetime,
        end: datetime,
        step: Step,
        fresh: Collection[datetime] = (),
        scope: str | None = None,
    ) -> Sequence[UsagePoint]:
        self.asked_fresh = set(fresh)
        return [one for one in self.rows if start <= one.start < end]

    async def lately(
        self, tenant: str, end: datetime, *, scope: str | None = None
    ) -> Sequence[Change]:
        return [one for one in self.recent if one.start < end]

    async def before(
        self,
        tenants: Collection[str],
        resources: Collection[str],
        moment: datetime,
        *,
        scope: str | None = None,
    ) -> Mapping[tuple[str, str], Known]:
        return self.known

    async def read(self, tenant: str, *, scope: str | None = None) -> "Fakes":
        return self

    def reader(self, now: datetime) -> UsageReader:
        source: Source = HeldPoints(self.held)
        return UsageReader(self, [source], self, self, now=lambda: now)

    async def levels(
        self, start: datetime, end: datetime, step: Step, *, now: datetime
    ) -> dict[datetime, int]:
        points = await self.reader(now).points("acme", start, end, step)
        return {one.start: one.value for one in points if one.meter == USERS}


def held(moment: datetime, value: int, meter: str = ADMITTED) -> Point:
    return Point("acme", minute_of(moment), meter, value)


async def test_a_minute_that_both_have_is_redis_s_and_counts_once() -> None:
    fakes = Fakes(
        rows=[UsagePoint(at(10, 1), ADMITTED, 5), UsagePoint(at(10, 2), ADMITTED, 3)],
        held=[held(at(10, 2), 7), held(at(10, 3), 1), held(at(9, 59), 100), held(at(11), 100)],
    )
    points = await fakes.reader(at(10, 3)).points("acme", at(10), at(11), "hour")
    assert points == [UsagePoint(at(10), ADMITTED, 13)]
    assert fakes.asked_fresh == {at(10)}  # so that it comes by the minute
    points = await fakes.reader(at(10, 3)).points("acme", at(10), at(11), "minute")
    assert [(one.start, one.value) for one in points] == [
        (at(10, 1), 5),
        (at(10, 2), 7),
        (at(10, 3), 1),
    ]


async def test_what_several_sources_hold_is_all_there_by_start_and_meter() -> None:
    fakes = Fakes()
    sources = [
        HeldPoints([held(at(10), 1, "limits.b.denied"), held(at(10), 0, "limits.c.denied")]),
        HeldPoints([held(at(10), 2, "jobs.started"), held(at(9), 3, "jobs.started")]),
    ]
    reader = UsageReader(fakes, sources, fakes, fakes, now=lambda: at(10))
    assert await reader.points("acme", at(0), at(11), "hour") == [
        UsagePoint(at(9), "jobs.started", 3),
        UsagePoint(at(10), "jobs.started", 2),
        UsagePoint(at(10), "limits.b.denied", 1),
    ]


async def test_a_period_has_the_steps_that_begin_in_it() -> None:
    fakes = Fakes(held=[held(at(hour), 1) for hour in range(8, 13)])
    reader = fakes.reader(at(12))
    points = await reader.points("acme", at(8, 1), at(11, 1), "hour")
    assert [one.start for one in points] == [at(9), at(10), at(11)]
    assert await reader.points("acme", at(9, 1), at(9, 59), "hour") == []


async def test_a_level_stands_until_the_next_and_now_is_as_it_is_now() -> None:
    fakes = Fakes(
        known={("acme", "users"): Known(at(1), 4, None)},
        rows=[UsagePoint(at(9), USERS, 6)],
        recent=[Change(at(11, 58), USERS, 9)],
        quotas=[Level("users", 10)],
    )
    levels = await fakes.levels(at(8), at(15), "hour", now=at(12, 30))
    assert levels == {at(8): 4, at(9): 6, at(10): 6, at(11): 9, at(12): 10}


async def test_of_several_changes_in_a_step_the_last_counts() -> None:
    fakes = Fakes(
        rows=[UsagePoint(at(9, minute), USERS, minute) for minute in (5, 59)],
        recent=[Change(at(9, 30), USERS, 30), Change(at(9, 59), USERS, 60)],
        quotas=[Level("users", 60)],
    )
    assert await fakes.levels(at(8), at(10), "hour", now=at(12)) == {at(9): 60}


async def test_a_level_does_not_reach_into_the_future() -> None:
    fakes = Fakes(known={("acme", "users"): Known(at(1), 4, None)}, quotas=[Level("users", 4)])
    assert await fakes.levels(at(13), at(15), "hour", now=at(12, 30)) == {}


async def test_what_is_not_durable_or_never_changed_is_known_now_alone() -> None:
    fakes = Fakes(quotas=[Level("users", 3), Level("unused", 0, version=0)])
    points = await fakes.reader(at(12, 30)).points("acme", at(10), at(13), "hour")
    assert points == [UsagePoint(at(12), USERS, 3)]


async def test_a_refill_that_no_change_has_noted_yet_empties_the_level() -> None:
    fakes = Fakes(
        known={("acme", "users"): Known(at(1, day=19), 4, None)},
        rows=[UsagePoint(at(20, day=20), USERS, 7)],
        quotas=[Level("users", 0, period="day")],
    )
    levels = await fakes.levels(at(12, day=20), at(3, day=21), "hour", now=at(2, 30))
    expected = {at(12, day=20) + timedelta(hours=one): 0 for one in range(15)}
    expected |= {at(hour, day=20): 7 for hour in range(20, 24)}
    assert levels == expected


async def test_a_resource_that_no_tier_names_any_more_keeps_its_last_level() -> None:
    fakes = Fakes(rows=[UsagePoint(at(9), USERS, 6)])
    levels = await fakes.levels(at(8), at(15), "hour", now=at(11, 30))
    assert levels == {at(9): 6, at(10): 6, at(11): 6}
