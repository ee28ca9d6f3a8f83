"""The levels of quotas by the minute: from the ledger, as it was at the end of each."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.quotas.commits import GroupCommit
from partywall_service.quotas.model import Consume, Operation, Terms
from partywall_service.quotas.store import QuotaStore
from partywall_service.usage.ledger_levels import changing_since
from partywall_service.usage.meters import level_meter
from partywall_service.usage.store import UsageStore
from tests.servers.usage.counts import Table, pending, rows

USERS = level_meter("users")


@pytest.fixture
def store(ledger_engine: AsyncEngine) -> UsageStore:
    return UsageStore(ledger_engine)


def ago(**times: float) -> datetime:
    """A whole minute so long ago."""
    return (datetime.now(UTC) - timedelta(**times)).replace(second=0, microsecond=0)


def change(database_url: str, *lines: tuple[str, datetime, str, int]) -> None:
    """Lines of the ledger: tenant, instant, resource and the level after it."""
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO quota_ledger (tenant, at, resource, operation, delta, used, actor)"
            " VALUES (%s, %s, %s, 'set', 0, %s, 'test')",
            lines,
        )


def levels(database_url: str) -> Table:
    return rows(database_url, "usage_minutes")


async def test_a_minutes_level_is_the_last_in_it(store: UsageStore, database_url: str) -> None:
    first, second = ago(minutes=20), ago(minutes=10)
    change(
        database_url,
        ("acme", first, "users", 1),
        ("acme", first + timedelta(seconds=59), "users", 3),
        ("acme", first + timedelta(seconds=59), "users", 2),
        ("acme", first, "storage", 9),
        ("beta", first, "users", 5),
        ("acme", second, "users", 7),
    )
    assert await store.levels() == 4
    assert levels(database_url) == {
        ("acme", USERS, first): 2,
        ("acme", level_meter("storage"), first): 9,
        ("beta", USERS, first): 5,
        ("acme", USERS, second): 7,
    }
    assert len(pending(database_url)) >= 2


async def test_what_is_seen_late_is_found_and_what_was_seen_changes_nothing(
    store: UsageStore, database_url: str
) -> None:
    before, late = ago(minutes=30), ago(seconds=80)
    change(database_url, ("acme", before, "users", 1), ("acme", late, "users", 2))
    await store.levels()
    await store.aggregate(datetime.now(UTC) + timedelta(days=2))
    assert pending(database_url) == set()
    await store.levels()
    assert pending(database_url) == set()
    change(database_url, ("acme", late, "users", 3))
    await store.levels()
    assert levels(database_url) == {("acme", USERS, before): 1, ("acme", USERS, late): 3}
    assert len(pending(database_url)) == 2


async def test_an_old_ledger_is_written_slice_by_slice(
    store: UsageStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("partywall_service.usage.ledger_levels.OLDEST", timedelta(0))
    lines = [("acme", ago(minutes=40 * n), "users", n) for n in range(12, 0, -1)]
    change(database_url, *lines)
    assert await store.levels() == 12
    assert levels(database_url) == {("acme", USERS, at): used for _, at, _, used in lines}
    assert await store.levels() == 0


async def test_levels_whose_minutes_are_kept_no_longer_are_left_out(
    store: UsageStore, database_url: str
) -> None:
    kept = ago(hours=1)
    change(database_url, ("acme", ago(days=2), "users", 1), ("acme", kept, "users", 2))
    await store.drop_before(*[ago(days=1)] * 3)
    await store.levels()
    assert levels(database_url) == {("acme", USERS, kept): 2}


async def test_the_minute_that_runs_waits(
    store: UsageStore, ledger_engine: AsyncEngine, database_url: str
) -> None:
    commits = GroupCommit(QuotaStore(ledger_engine))
    change(database_url, ("acme", datetime.now(UTC) + timedelta(minutes=1), "users", 4))
    operation = Operation("acme", Consume({"users": 1}), {"users": Terms(5)}, "one", b"", "test")
    await commits.commit(operation)
    assert await store.levels() <= 1  # where the minute ended between the two
    assert len(levels(database_url)) <= 1


async def test_a_change_under_way_is_waited_for(
    ledger_engine: AsyncEngine, database_url: str
) -> None:
    with psycopg.connect(database_url) as other:
        began = other.execute("SELECT now(), pg_advisory_xact_lock(1)").fetchone()
        assert began is not None
        async with ledger_engine.connect() as connection:
            assert await changing_since(connection) == began[0]
        other.commit()
        async with ledger_engine.connect() as connection:
            assert await changing_since(connection) > began[0]
