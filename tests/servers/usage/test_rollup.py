"""The roll-up: repeated, interrupted or run twice at once it changes nothing."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from partywall_service.engine.base import StoreError
from partywall_service.ledger.engine import BoundedConnection
from partywall_service.usage.meters import level_meter
from partywall_service.usage.rollup import Retention, Roller, RollUp
from partywall_service.usage.source import Point
from partywall_service.usage.store import UsageStore
from tests.servers.usage.counts import (
    ADMITTED,
    DENIED,
    NOON,
    Counts,
    after,
    expected,
    pending,
    point,
    rows,
)

KEEP = Retention(minutes=7, hours=90, days=800)
TABLES = {"usage_minutes": 60, "usage_hours": 3600, "usage_days": 86_400}
LATER = after(days=2)


@pytest.fixture
def store(ledger_engine: AsyncEngine) -> UsageStore:
    return UsageStore(ledger_engine)


def rolling(store: UsageStore, *sources: Counts, keep: Retention = KEEP) -> RollUp:
    return RollUp(store, sources, keep, now=lambda: LATER)


def some_points(seed: int, *, minutes: int = 3) -> list[Point]:
    """Of two tenants, over an hour's edge, in an order of no meaning."""
    chance = random.Random(seed)
    points = [
        point(after(minutes=minute + 60 * chance.randrange(3)), chance.randrange(1, 9), who, meter)
        for who in ("acme", "beta")
        for minute in range(58, 58 + minutes)
        for meter in (ADMITTED, DENIED, level_meter("users"))
    ]
    points = list({one[:3]: one for one in points}.values())
    chance.shuffle(points)
    return points


def assert_rolled_up(database_url: str, points: Sequence[Point]) -> None:
    for table, seconds in TABLES.items():
        assert rows(database_url, table) == expected(points, seconds), table
    assert pending(database_url) == set()


async def test_everything_is_moved_and_summed_up(store: UsageStore, database_url: str) -> None:
    limits, jobs = some_points(1), [point(NOON, 5, meter="jobs.started")]
    sources = [Counts(limits, batch=4), Counts(jobs)]
    assert await rolling(store, *sources).run() == len(limits) + 1
    assert not any(source.left for source in sources)
    assert_rolled_up(database_url, [*limits, *jobs])
    rolled = await store.rolled()
    assert rolled.points == len(limits) + 1
    assert rolled.at is not None


async def test_what_changed_meanwhile_is_moved_the_next_time(
    store: UsageStore, database_url: str
) -> None:
    source = Counts([point(NOON, 5)])
    forget = source.forget

    async def changed_first(points: Sequence[Point]) -> None:
        one = point(NOON, 6)
        source.left[one[:3]] = one
        await forget(points)

    source.forget = changed_first  # type: ignore[method-assign] # as if Redis had counted between
    await rolling(store, source).run()
    source.forget = forget  # type: ignore[method-assign] # as it was
    await rolling(store, source).run()
    assert_rolled_up(database_url, [point(NOON, 6)])


async def test_a_second_one_returns_at_once(store: UsageStore, database_url: str) -> None:
    points = some_points(2)
    source, other = Counts(points), Counts(points)
    reached, go_on = asyncio.Event(), asyncio.Event()
    forget = source.forget

    async def held(some: Sequence[Point]) -> None:
        reached.set()
        await go_on.wait()
        await forget(some)

    source.forget = held  # type: ignore[method-assign] # so that it stays under way
    first = asyncio.create_task(rolling(store, source).run())
    await reached.wait()
    assert await rolling(store, other).run() is None
    assert len(other.left) == len(points)
    go_on.set()
    assert await first == len(points)
    assert_rolled_up(database_url, points)


async def test_two_at_once_without_the_lock_come_to_the_same(
    store: UsageStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks frees the lock while its holder goes on."""

    @asynccontextmanager
    async def alone() -> AsyncIterator[bool]:
        yield True

    monkeypatch.setattr(store, "alone", alone)
    monkeypatch.setattr("partywall_service.usage.aggregate.MAX_ROWS", 4)
    points: list[Point] = []
    source = Counts(batch=3)
    for seed in range(6):
        late = some_points(seed)
        points = list({one[:3]: one for one in (*points, *late)}.values())
        source.left = {one[:3]: one for one in late}
        # The same counts from two sides, as when both have read them and neither removed them.
        twin = Counts(late, batch=5)
        await asyncio.gather(*(rolling(store, one).run() for one in (source, twin, source)))
    await rolling(store).run()
    assert_rolled_up(database_url, points)


class Interruption:
    """Cancels the roll-up, or what it runs beside it, when `reach` is called for the nth time."""

    def __init__(self) -> None:
        self.left = 0
        self.cancelled: asyncio.Task[object] | None = None

    def reach(self) -> None:
        self.left -= 1
        if self.left == 0:
            task = self.cancelled or asyncio.current_task()
            assert task is not None
            task.cancel()


async def test_cancelled_at_any_await_it_changes_nothing(
    store: UsageStore,
    ledger_engine: AsyncEngine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    soak: bool,
) -> None:
    """In the middle of every statement and between any two."""
    monkeypatch.setattr("partywall_service.usage.aggregate.MAX_ROWS", 10)
    interruption = Interruption()
    wait = BoundedConnection.wait

    async def interrupted(self, *given, **named):
        interruption.reach()
        answer = await wait(self, *given, **named)
        interruption.reach()
        return answer

    monkeypatch.setattr(BoundedConnection, "wait", interrupted)
    source = Counts(batch=8)
    points: list[Point] = []
    turn, completed = 1, False
    while not completed:
        late = some_points(turn)
        points = list({one[:3]: one for one in (*points, *late)}.values())
        source.left |= {one[:3]: one for one in late}
        task = asyncio.create_task(rolling(store, source).run())
        interruption.left, interruption.cancelled = turn, task if turn % 2 else None
        with suppress(asyncio.CancelledError):
            await task
        completed = interruption.left > 0
        interruption.left = 0
        kept = rows(database_url, "usage_minutes") | expected(source.left.values(), 60)
        assert kept == expected(points, 60)
        turn += 1 if soak else 9
    await rolling(store, source).run()
    assert_rolled_up(database_url, points)
    assert ledger_engine.pool.checkedout() == 0  # type: ignore[attr-defined] # a QueuePool's


KILLED = """
import asyncio, sys
from partywall_service.ledger import create_ledger_engine
from partywall_service.usage.store import UsageStore
from tests.servers.usage.counts import Counts
from tests.servers.usage.test_rollup import rolling, some_points

class Stuck(Counts):
    async def forget(self, points):
        print("written", flush=True)
        await asyncio.sleep(60)

store = UsageStore(create_ledger_engine(sys.argv[1]))
asyncio.run(rolling(store, Stuck(some_points(7), batch=6)).run())
"""


async def test_killed_in_the_middle_the_next_one_does_the_rest(
    store: UsageStore, database_url: str
) -> None:
    source = Counts(some_points(7), batch=6)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, database_url),
        cwd=Path(__file__).parents[3],
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"written\n"
        assert await rolling(store, source).run() is None
    finally:
        process.kill()
        await process.wait()
    assert len(rows(database_url, "usage_minutes")) in (6, 12)  # the next batch may be written
    async with asyncio.timeout(10):
        while True:
            if await rolling(store, source).run() is not None:
                break
            await asyncio.sleep(0.01)  # until PostgreSQL has noticed
    assert_rolled_up(database_url, some_points(7))


class Away(Counts):
    """A Redis that does not answer."""

    async def closed(self) -> AsyncIterator[list[Point]]:
        raise StoreError("away")
        yield []


async def test_a_source_that_is_away_holds_up_no_other(
    store: UsageStore, database_url: str
) -> None:
    source = Counts(some_points(8))
    with pytest.raises(StoreError, match="away"):
        await rolling(store, Away(), source).run()
    assert_rolled_up(database_url, some_points(8))
    assert (await store.rolled()).at is None


async def test_an_outage_is_said_once(store: UsageStore) -> None:
    failing: list[Callable[[], Counts]] = [Away, Away, Counts, Away]
    with capture_logs() as logs:
        sources: list[Counts] = [Away()]
        roller = Roller(RollUp(store, sources, KEEP, now=lambda: LATER))
        answers = []
        for make in failing:
            sources[0] = make()
            answers.append(await roller.roll())
    assert answers == [False, False, True, False]
    assert [line["event"] for line in logs] == ["usage.not_rolled_up"] * 2


async def test_who_comes_shortly_after_leaves_it(store: UsageStore) -> None:
    source = Counts([point(NOON, 1)])
    assert await rolling(store, Counts()).run(unless_within=timedelta(hours=1)) == 0
    assert await rolling(store, source).run(unless_within=timedelta(hours=1)) is None
    assert await rolling(store, source).run(unless_within=timedelta(0)) == 1


async def test_what_is_kept_no_longer_is_dropped(store: UsageStore, database_url: str) -> None:
    old, new = [point(after(days=-1), 1)], [point(LATER - timedelta(hours=1), 1)]
    keep = Retention(minutes=1, hours=1, days=1)
    await rolling(store, Counts([*old, *new])).run()
    await rolling(store, keep=keep).run()
    assert rows(database_url, "usage_minutes") == expected(new, 60)
    assert len(rows(database_url, "usage_days")) == 1
    with capture_logs() as logs:
        await rolling(store, Counts([point(after(days=-1), 5)]), keep=keep).run()
    assert [(line["event"], line["points"]) for line in logs] == [("usage.too_old", 1)]
    assert len(rows(database_url, "usage_days")) == 1


def test_a_coarser_step_is_kept_at_least_as_long() -> None:
    minutes, hours, days = Retention(9, 3, 1).bounds(NOON)
    assert minutes == hours == days == after(days=-9)
