"""Neighbours as PostgreSQL and what is not there yet tell of them."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.ledger import Ledger
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Policy, Tier
from partywall_service.usage.neighbours import HOUR, Neighbours, NeighbourStore
from partywall_service.usage.source import Point
from partywall_service.usage.store import UsageStore
from partywall_service.usage.verdict import Neighbour
from tests.servers.usage.counts import DENIED, NOON, Counts, after, point

TIERS = {"free": Tier("free"), "pro": Tier("pro", weight=4)}
POLICY = Policy(MappingProxyType(TIERS), "free", MappingProxyType({}), "")
SECOND = 1_000_000


class Street:
    """Neighbours at a moment that the test sets."""

    def __init__(self, engine: AsyncEngine, policy: Policy = POLICY) -> None:
        self.now = after(minutes=30)
        self.counts = Counts()
        self.usage = UsageStore(engine)
        self.seconds = 0.0
        self.neighbours = Neighbours(
            NeighbourStore(engine),
            [self.counts],
            PolicyHolder(policy),
            now=lambda: self.now,
            clock=lambda: self.seconds,
        )

    def hold(self, *points: Point) -> None:
        """Redis has these from now on."""
        self.counts.left |= {one[:3]: one for one in points}

    async def judged(self, window: timedelta = HOUR) -> dict[str, Neighbour]:
        return {one.tenant: one for one in await self.neighbours.judge(window)}


@pytest.fixture
def street(ledger_engine: AsyncEngine) -> Street:
    return Street(ledger_engine)


async def test_who_did_nothing_is_not_there(street: Street) -> None:
    assert await street.judged() == {}


async def test_the_minute_that_runs_counts_with_what_was_rolled_up(street: Street) -> None:
    await street.usage.upsert([point(NOON, 40), point(NOON, 60, "loud")])
    street.hold(point(street.now, 5), point(street.now, 15, "loud", DENIED))
    found = await street.judged()
    assert {name: (one.requests, one.denied) for name, one in found.items()} == {
        "acme": (45, 0),
        "loud": (75, 15),
    }
    assert found["loud"].share == 75 / 120


async def test_the_window_slides_by_whole_minutes(street: Street) -> None:
    for minutes, times in ((-31, 1000), (-30, 100), (-29, 10), (30, 1)):
        await street.usage.upsert([point(after(minutes=minutes), times)])
    assert (await street.judged())["acme"].requests == 11
    assert (await street.judged(timedelta(hours=2)))["acme"].requests == 1111
    assert (await street.judged(timedelta(minutes=1)))["acme"].requests == 1


@pytest.mark.parametrize("rolled", [False, True], ids=["not summed up", "summed up"])
async def test_a_day_is_read_from_hours_where_they_are_whole(street: Street, rolled: bool) -> None:
    starts = [after(minutes=7 * step) for step in range(-300, 5)]
    await street.usage.upsert([point(start, 1) for start in starts])
    if rolled:
        await street.usage.aggregate(street.now)
        late = after(hours=-3, minutes=1)
        await street.usage.upsert([point(late, 1)])  # its hour is to be summed up again
        starts.append(late)
    street.hold(point(after(hours=-2, minutes=2), 1))  # nor is this one whole yet
    for hours in (1, 2, 6, 24):
        begin = street.now + timedelta(minutes=1) - timedelta(hours=hours)
        held = after(hours=-2, minutes=2) >= begin
        found = await street.judged(timedelta(hours=hours))
        assert found["acme"].requests == sum(start >= begin for start in starts) + held


async def test_what_is_in_both_in_the_middle_of_a_roll_up_counts_once(street: Street) -> None:
    points = [point(NOON, 7), point(NOON, 3, meter=DENIED), point(after(minutes=1), 5)]
    street.hold(*points)
    await street.usage.upsert(points)
    assert (await street.judged())["acme"].requests == 15
    await street.counts.forget(points[:1])
    assert (await street.judged())["acme"].requests == 15


async def test_a_tier_weighs_and_who_has_none_is_left_out(
    ledger_engine: AsyncEngine, street: Street
) -> None:
    await Ledger(ledger_engine).put_tenant("big", tier="pro", actor="test")
    street.hold(*(point(street.now, 50, name) for name in ("big", "small", "_system")))
    found = await street.judged()
    assert {name: (one.tier, one.fair_share) for name, one in found.items()} == {
        "big": ("pro", 0.8),
        "small": ("free", 0.2),
    }
    strict = Street(ledger_engine, Policy(POLICY.tiers, None, POLICY.resources, ""))
    strict.hold(*street.counts.left.values())
    assert list(await strict.judged()) == ["big"]


def paced(tenant: str, moment: datetime, requests: int, seconds: float) -> list[Point]:
    """Requests that took so long all together."""
    return [
        point(moment, requests, tenant),
        point(moment, requests, tenant, "requests.2xx"),
        point(moment, int(seconds * SECOND), tenant, "requests.in_flight_seconds"),
    ]


async def test_a_victim_is_told_by_what_was_usual_for_it(street: Street) -> None:
    yesterday = after(hours=-20)
    await street.usage.upsert(paced("acme", yesterday, 1000, 80))
    await street.usage.aggregate(street.now)
    street.hold(*paced("acme", street.now, 100, 42), *paced("loud", street.now, 9000, 90))
    found = await street.judged()
    assert found["acme"].verdict == "victim"
    assert "took 420.0 ms each, more than twice the usual 80.0 ms" in found["acme"].reason
    assert found["loud"].verdict == "noisy"


async def test_denials_take_no_time_in_flight(street: Street) -> None:
    await street.usage.upsert(paced("acme", after(hours=-20), 1000, 80))
    await street.usage.aggregate(street.now)
    street.hold(
        *paced("acme", street.now, 100, 8),
        point(street.now, 100, meter=DENIED),
        point(street.now, 100, meter="requests.4xx"),
        point(street.now, 9000, "loud"),
    )
    found = await street.judged()
    assert found["acme"].verdict == "normal"  # 80 ms each, and not 40


@pytest.mark.parametrize("rolled", [False, True], ids=["in Redis", "in PostgreSQL"])
async def test_what_was_denied_without_the_store_was_refused_for_want_of_capacity(
    street: Street, rolled: bool
) -> None:
    degraded = "limits.requests.degraded"
    points = [
        point(NOON, 10),  # of a minute without the store: 60 denied, 10 admitted
        point(NOON, 60, meter=DENIED),
        point(NOON, 70, meter=degraded),
        point(after(minutes=1), 500),  # and of one with it
        point(after(minutes=1), 20, meter=DENIED),
        point(NOON, 5000, "loud"),
    ]
    if rolled:
        await street.usage.upsert(points)
    else:
        street.hold(*points)
    found = (await street.judged())["acme"]
    assert found.verdict == "victim"
    assert "60 of its requests were refused for want of capacity" in found.reason


class Counting:
    """Counts how often a source is asked, each time for so many seconds."""

    def __init__(self, street: Street, monkeypatch: pytest.MonkeyPatch, *, cost: float) -> None:
        self.asked = 0
        self._street = street
        self._cost = cost
        self._held = street.counts.held
        monkeypatch.setattr(street.counts, "held", self.held)

    async def held(self, tenants: Sequence[str] | None = None) -> list[Point]:
        self.asked += 1
        await asyncio.sleep(0)
        self._street.seconds += self._cost
        return await self._held(tenants)


async def test_all_who_ask_at_once_are_answered_together(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(street, monkeypatch, cost=0.01)
    street.hold(point(street.now, 1))
    answers = await asyncio.gather(*(street.neighbours.judge() for _ in range(50)))
    assert all(answer == answers[0] for answer in answers)
    assert counting.asked <= 2  # whoever came after the first began shares the next
    street.seconds += 0.01
    street.hold(point(street.now, 2))
    assert (await street.judged())["acme"].requests == 2


async def test_a_dear_answer_is_given_again_for_a_while(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(street, monkeypatch, cost=1)
    street.hold(point(street.now, 1))
    await street.judged()
    street.hold(point(street.now, 2))
    street.seconds += 3
    assert (await street.judged())["acme"].requests == 1
    street.seconds += 3
    assert (await street.judged())["acme"].requests == 2
    assert counting.asked == 2


@pytest.mark.parametrize("window", [timedelta(0), timedelta(seconds=90), timedelta(hours=25)])
async def test_a_window_is_whole_minutes_up_to_a_day(street: Street, window: timedelta) -> None:
    with pytest.raises(ValueError, match="expected whole minutes"):
        await street.judged(window)
