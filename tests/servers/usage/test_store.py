"""Usage in PostgreSQL: minutes are absolute, hours and days follow them whatever comes late."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.ledger import LedgerUnavailable, create_ledger_engine
from partywall_service.usage import writing
from partywall_service.usage.meters import is_level, level_meter
from partywall_service.usage.store import UsageStore
from tests.servers.usage.counts import (
    ADMITTED,
    DENIED,
    NOON,
    after,
    expected,
    pending,
    point,
    rows,
)

MIDNIGHT = NOON.replace(hour=0)
TOMORROW = MIDNIGHT + timedelta(days=1)
LEVEL = level_meter("users")


@pytest.fixture
def store(ledger_engine: AsyncEngine) -> UsageStore:
    return UsageStore(ledger_engine)


async def test_a_minute_is_what_was_last_said_of_it(store: UsageStore, database_url: str) -> None:
    await store.upsert([point(NOON, 3), point(NOON, 1, meter=DENIED)])
    await store.upsert([point(NOON, 5), point(NOON, 1, meter=DENIED)])
    assert rows(database_url, "usage_minutes") == {
        ("acme", ADMITTED, NOON): 5,
        ("acme", DENIED, NOON): 1,
    }


async def test_the_same_count_may_come_twice_at_once(store: UsageStore, database_url: str) -> None:
    await store.upsert([point(NOON, 3), point(NOON, 3)])
    assert rows(database_url, "usage_minutes") == {("acme", ADMITTED, NOON): 3}


async def test_names_are_kept_to_the_letter(store: UsageStore, database_url: str) -> None:
    names = ["a\tb", "a\nb", r"a\b", "a\rb", "a\\nb", r"\N", "ä", ""]
    await store.upsert([point(NOON, 1, name) for name in names])
    assert {tenant for tenant, _, _ in rows(database_url, "usage_minutes")} == set(names)


async def test_all_points_are_written_or_none(store: UsageStore, database_url: str) -> None:
    with pytest.raises(ValueError, match="PostgreSQL can store"):
        await store.upsert([point(NOON, 1), point(NOON, 1, "nul\0")])
    assert rows(database_url, "usage_minutes") == {}
    assert pending(database_url) == set()
    await store.upsert([point(NOON, 1)])


async def test_hours_and_days_are_summed_up_when_they_are_over(
    store: UsageStore, database_url: str
) -> None:
    points = [
        *(point(after(minutes=n), n + 1, tenant) for n in (0, 59) for tenant in ("acme", "beta")),
        *(point(after(minutes=n), 10 - n, meter=LEVEL) for n in (1, 2, 70)),
        point(after(minutes=60), 7),
    ]
    await store.upsert(points)
    assert await store.aggregate(after(minutes=59, seconds=59)) == 0
    assert rows(database_url, "usage_hours") == {}
    assert await store.aggregate(after(hours=1)) == 3
    first = [one for one in points if one.minute < points[0].minute + 60]
    assert rows(database_url, "usage_hours") == expected(first, 3600)
    await store.aggregate(TOMORROW)
    assert rows(database_url, "usage_hours") == expected(points, 3600)
    assert rows(database_url, "usage_days") == expected(points, 86_400)
    assert rows(database_url, "usage_days")["acme", LEVEL, MIDNIGHT] == -60
    assert pending(database_url) == set()
    assert await store.aggregate(TOMORROW) == 0


async def test_minutes_that_come_late_are_in_every_sum(
    store: UsageStore, database_url: str
) -> None:
    await store.upsert([point(NOON, 3)])
    await store.aggregate(TOMORROW)
    late = [point(NOON, 3), point(after(minutes=5), 4), point(after(hours=-3), 5)]
    await store.upsert(late)
    assert pending(database_url) == {
        ("hour", NOON),
        ("hour", after(hours=-3)),
        ("day", MIDNIGHT),
    }
    await store.aggregate(TOMORROW)
    assert rows(database_url, "usage_hours") == expected(late, 3600)
    assert rows(database_url, "usage_days") == expected(late, 86_400)


async def test_what_changes_nothing_is_not_summed_up_again(
    store: UsageStore, database_url: str
) -> None:
    await store.upsert([point(NOON, 3), point(after(hours=2), 1)])
    await store.aggregate(TOMORROW)
    await store.upsert([point(NOON, 3), point(after(hours=2), 2)])
    assert pending(database_url) == {("hour", after(hours=2)), ("day", MIDNIGHT)}


async def test_many_tenants_are_summed_up_in_parts(
    store: UsageStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("partywall_service.usage.aggregate.MAX_ROWS", 7)
    points = [
        point(after(minutes=minute), minute + number, f"t{number}", meter)
        for number in range(9)
        for minute in range(4)
        for meter in (ADMITTED, LEVEL)
    ]
    await store.upsert(points)
    await store.aggregate(TOMORROW)
    assert rows(database_url, "usage_hours") == expected(points, 3600)
    assert rows(database_url, "usage_days") == expected(points, 86_400)


async def test_a_sum_made_while_its_minutes_change_is_made_again(
    store: UsageStore,
    ledger_engine: AsyncEngine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The change comes between two parts of the sum."""
    monkeypatch.setattr("partywall_service.usage.aggregate.MAX_ROWS", 1)
    await store.upsert([point(NOON, 3, tenant) for tenant in ("a", "b", "c")])
    changing = store._changing
    part = count()

    @asynccontextmanager
    async def interrupted():
        if next(part) == 1:
            await UsageStore(ledger_engine).upsert([point(NOON, 9, "a")])
        async with changing() as connection:
            yield connection

    monkeypatch.setattr(store, "_changing", interrupted)
    await store.aggregate(TOMORROW)
    await store.aggregate(TOMORROW)
    assert {key[0]: value for key, value in rows(database_url, "usage_days").items()} == {
        "a": 9,
        "b": 3,
        "c": 3,
    }


async def test_partitions_may_be_made_by_many_at_once(store: UsageStore, database_url: str) -> None:
    points = [point(after(hours=n), 1, f"t{n}") for n in range(0, 96, 12)]
    await asyncio.gather(*(store.upsert(points) for _ in range(6)))
    assert rows(database_url, "usage_minutes") == expected(points, 60)
    await asyncio.gather(*(store.aggregate(after(days=9)) for _ in range(4)))
    assert rows(database_url, "usage_days") == expected(points, 86_400)


async def test_a_partition_is_made_while_others_read(store: UsageStore, database_url: str) -> None:
    await store.upsert([point(NOON, 1)])
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT FROM usage_minutes")
        await store.upsert([point(after(hours=1), 1)])


async def test_what_is_kept_no_longer_goes_by_partitions(
    store: UsageStore, database_url: str
) -> None:
    points = [point(after(days=-800), 1), point(after(days=-40), 2), point(NOON, 3)]
    await store.upsert(points)
    await store.aggregate(TOMORROW)
    dropped = await store.drop_before(after(hours=-1), after(days=-20), after(days=-300))
    assert dropped == [
        "usage_minutes_2023123112",
        "usage_minutes_2026012912",
        "usage_hours_202312",
        "usage_hours_202601",
        "usage_days_2023",
    ]
    assert rows(database_url, "usage_minutes") == expected(points[2:], 60)
    assert rows(database_url, "usage_hours") == expected(points[2:], 3600)
    assert rows(database_url, "usage_days") == expected(points[1:], 86_400)


async def test_minutes_stay_until_their_hour_is_summed_up(
    store: UsageStore, database_url: str
) -> None:
    await store.upsert([point(NOON, 1), point(after(hours=5), 1)])
    bounds = (after(days=3), after(days=3), after(days=3))
    assert await store.drop_before(*bounds) == []
    await store.aggregate(after(days=3))
    assert len(await store.drop_before(*bounds)) == 2
    assert len(rows(database_url, "usage_days")) == 1


async def test_hours_stay_as_long_as_minutes_of_their_day_are_taken(
    store: UsageStore, database_url: str
) -> None:
    first = after(days=-9)  # the first of a month
    await store.upsert([point(first, 1)])
    await store.aggregate(after(days=40))
    assert await store.drop_before(first, after(days=40), after(days=4000)) == []
    late = point(first + timedelta(minutes=1), 2)
    await store.upsert([late])
    await store.aggregate(after(days=40))
    assert list(rows(database_url, "usage_days").values()) == [3]


async def test_minutes_kept_no_longer_are_taken_no_more(
    store: UsageStore, database_url: str
) -> None:
    """The sum of their hour stands, and could not be made again."""
    await store.upsert([point(NOON, 8)])
    await store.aggregate(TOMORROW)
    await store.drop_before(after(hours=1), MIDNIGHT, MIDNIGHT)
    await store.upsert([point(after(minutes=3), 1), point(after(hours=1), 2)])
    await store.aggregate(TOMORROW)
    assert rows(database_url, "usage_minutes") == {("acme", ADMITTED, after(hours=1)): 2}
    assert list(rows(database_url, "usage_days").values()) == [10]
    assert [
        one.value for one in await store.points("acme", MIDNIGHT, TOMORROW, "hour", [NOON])
    ] == [
        8,
        2,
    ]


async def test_the_bound_never_goes_back(store: UsageStore, database_url: str) -> None:
    await store.drop_before(NOON, NOON, NOON)
    await store.drop_before(MIDNIGHT, MIDNIGHT, MIDNIGHT)
    await store.upsert([point(after(minutes=-1), 1)])
    assert rows(database_url, "usage_minutes") == {}


async def test_a_partition_that_is_read_is_dropped_the_next_time(
    store: UsageStore, database_url: str
) -> None:
    await store.upsert([point(NOON, 1)])
    await store.aggregate(TOMORROW)
    bounds = (after(hours=2), MIDNIGHT, MIDNIGHT)
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT FROM usage_minutes")
        assert await store.drop_before(*bounds) == []
    assert await store.drop_before(*bounds) == ["usage_minutes_2026031012"]


async def test_points_of_a_step_come_from_the_finest_table_that_knows_more(
    store: UsageStore,
) -> None:
    done = [point(after(hours=-20), 1), point(after(hours=-2), 2), point(after(minutes=-90), 3)]
    await store.upsert(done)
    await store.aggregate(NOON)
    lately = [point(after(minutes=1), 4), point(after(minutes=1), 1, "beta"), point(NOON, 5)]
    await store.upsert(lately)

    async def asked(step, fresh=()):
        points = await store.points("acme", after(days=-2), after(days=2), step, fresh)
        return [(one.start, one.value) for one in points]

    opened = [(NOON, 5), (after(minutes=1), 4)]
    assert await asked("minute") == [
        (after(hours=-20), 1),
        (after(hours=-2), 2),
        (after(minutes=-90), 3),
        *opened,
    ]
    assert await asked("hour") == [(after(hours=-20), 1), (after(hours=-2), 5), *opened]
    assert await asked("day") == [(after(days=-1, hours=-12), 1), (after(hours=-2), 5), *opened]
    fresh = [after(minutes=-61)]
    minutes = [(after(hours=-2), 2), (after(minutes=-90), 3)]
    assert await asked("hour", fresh) == [(after(hours=-20), 1), *minutes, *opened]
    assert await asked("day", fresh) == [(after(days=-1, hours=-12), 1), *minutes, *opened]
    assert await asked("day", [after(hours=-20)]) == [
        (after(hours=-20), 1),
        (after(hours=-2), 5),
        *opened,
    ]


async def test_only_steps_that_begin_in_the_period_count(store: UsageStore) -> None:
    await store.upsert([point(after(minutes=n), 1) for n in (0, 59, 60, 119, 120)])
    for now in (NOON, TOMORROW):
        await store.aggregate(now)
        points = await store.points("acme", after(minutes=1), after(minutes=61), "hour", ())
        assert sum(one.value for one in points) == 2
        assert {one.start.replace(minute=0) for one in points} == {after(hours=1)}


@pytest.mark.parametrize("step", ["minute", "hour", "day"])
async def test_a_tenant_reads_its_own_points_only(store: UsageStore, step) -> None:
    await store.upsert([point(NOON, 1, "acme"), point(NOON, 2, "beta")])
    for now in (NOON, TOMORROW):
        await store.aggregate(now)
        period = (MIDNIGHT, TOMORROW, step, [NOON])
        own = await store.points("acme", *period, scope="acme")
        assert [one.value for one in own] == [1]
        assert await store.points("beta", *period, scope="acme") == []


async def test_a_partition_shows_a_tenant_nothing(store: UsageStore, database_url: str) -> None:
    await store.upsert([point(NOON, 1)])
    with psycopg.connect(database_url) as connection:
        connection.execute("SET LOCAL ROLE partywall_tenant")
        connection.execute("SELECT set_config('app.tenant_id', 'acme', true)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT FROM usage_minutes_2026031012")


async def test_partitions_belong_to_the_owner_of_the_tables_whoever_made_them(
    store: UsageStore, database_url: str
) -> None:
    member = f"member_{uuid4().hex}"
    owners = "SELECT relowner::regrole::text FROM pg_class WHERE relname LIKE 'usage_minutes%'"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "DO $$ BEGIN EXECUTE format('CREATE ROLE %I LOGIN IN ROLE %I',"
            f" '{member}', current_user); END $$"
        )
        engine = create_ledger_engine(psycopg.conninfo.make_conninfo(database_url, user=member))
        try:
            theirs = UsageStore(engine)
            await theirs.upsert([point(NOON, 1)])
            await store.upsert([point(NOON, 2), point(after(hours=1), 1)])
            await theirs.aggregate(TOMORROW)
            await theirs.drop_before(TOMORROW, TOMORROW, TOMORROW)
            await theirs.upsert([point(TOMORROW, 1)])
            assert len(set(connection.execute(owners).fetchall())) == 1
            assert list(rows(database_url, "usage_days").values()) == [3]
        finally:
            await engine.dispose()
            left = "SELECT FROM pg_stat_activity WHERE usename = %s"
            while True:
                if not connection.execute(left, [member]).rowcount:
                    break
                await asyncio.sleep(0.01)  # its temporary table goes with its session
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(member)))


async def test_an_erased_tenant_leaves_nothing_and_what_comes_late_is_dropped(
    store: UsageStore, ledger_engine: AsyncEngine, database_url: str
) -> None:
    now = datetime.now(UTC)
    ago = now - timedelta(hours=30)
    await store.upsert([point(ago, 1, tenant) for tenant in ("acme", "beta")])
    await store.aggregate(now + timedelta(days=1))
    async with ledger_engine.begin() as connection:
        assert await store.erase(connection, "acme") == 3
    tables = ("usage_minutes", "usage_hours", "usage_days")
    # The roll-up had these in hand.
    await store.upsert([point(ago, 1), point(now - timedelta(minutes=1), 1)])
    await store.aggregate(now + timedelta(days=1))
    assert {key[0] for table in tables for key in rows(database_url, table)} == {"beta"}
    # Who comes under the same id later is somebody else.
    await store.upsert([point(datetime.now(UTC), 7)])
    assert [
        value for key, value in rows(database_url, "usage_minutes").items() if key[0] == "acme"
    ] == [7]


async def test_an_erasure_waits_for_points_under_way(
    store: UsageStore, ledger_engine: AsyncEngine, database_url: str
) -> None:
    with psycopg.connect(database_url) as blocker:
        await store.upsert([point(NOON, 1)])
        blocker.execute("UPDATE usage_minutes SET value = 0")
        writing = asyncio.create_task(store.upsert([point(NOON, 2), point(NOON, 2, "beta")]))
        await lock_awaited(database_url, "transactionid")

        async def erase() -> None:
            async with ledger_engine.begin() as connection:
                await store.erase(connection, "acme")

        erasing = asyncio.create_task(erase())
        await lock_awaited(database_url, "advisory")
        blocker.rollback()
        await asyncio.gather(writing, erasing)
    assert {key[0] for key in rows(database_url, "usage_minutes")} == {"beta"}


async def lock_awaited(database_url: str, kind: str) -> None:
    """Return as soon as somebody waits for such a lock."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        async with asyncio.timeout(10):
            while True:
                answer = await connection.execute(
                    "SELECT FROM pg_locks WHERE NOT granted AND locktype = %s AND pid IN"
                    " (SELECT pid FROM pg_stat_activity WHERE datname = current_database())",
                    [kind],
                )
                if answer.rowcount:
                    return
                await asyncio.sleep(0.01)


async def test_a_connection_lost_while_it_copies_is_an_outage(
    store: UsageStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = writing._lines

    def lost(*given):
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        return lines(*given)

    with monkeypatch.context() as patched:
        patched.setattr(writing, "_lines", lost)
        with pytest.raises(LedgerUnavailable):
            await store.upsert([point(NOON, 1)])
    await store.upsert([point(NOON, 1)])
    assert len(rows(database_url, "usage_minutes")) == 1


def test_levels_are_told_in_sql_as_in_python() -> None:
    """`aggregate` says it by the prefix `quotas.`."""
    assert is_level("quotas.")
    assert not is_level("quota.x")
    assert LEVEL.startswith("quotas.")
