"""A deleted tenant's quotas go with it, in one transaction and under their own lock."""

import asyncio

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.ledger import Ledger
from partywall_service.quotas.commits import GroupCommit
from partywall_service.quotas.model import Consume, Operation, Reserve, Terms, What
from partywall_service.quotas.store import QuotaStore

TABLES = ("quota_levels", "quota_reservations", "quota_operations", "quota_ledger")
TERMS = {"users": Terms(5)}


def asked(tenant: str, what: What, name: str) -> Operation:
    return Operation(tenant, what, TERMS, name, b"", "test", key=name)


@pytest.fixture
async def store(ledger_engine: AsyncEngine) -> QuotaStore:
    """With one consumed and two reserved of `acme` and of `beta`."""
    store = QuotaStore(ledger_engine)
    commits = GroupCommit(store)
    for tenant in ("acme", "beta"):
        await commits.commit(asked(tenant, Consume({"users": 1}), "first"))
        await commits.commit(asked(tenant, Reserve({"users": 2}, f"d-{tenant}", 60), "second"))
    return store


async def owners(database_url: str) -> list[list[str]]:
    """Whose rows there are, table by table."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        found = []
        for table in TABLES:
            answer = await connection.execute(
                f"SELECT DISTINCT tenant FROM {table} ORDER BY tenant"
            )
            found.append([row[0] for row in await answer.fetchall()])
        return found


@pytest.mark.usefixtures("store")
async def test_every_row_goes_and_no_neighbours(ledger: Ledger, database_url: str) -> None:
    await ledger.put_tenant("acme", tier="free", actor="test")
    assert await owners(database_url) == [["acme", "beta"]] * 4
    assert await ledger.erase_tenant("acme", actor="ops")
    assert await owners(database_url) == [["beta"]] * 4


@pytest.mark.usefixtures("store")
async def test_a_tenant_that_only_the_default_tier_served_is_erased_as_well(
    ledger: Ledger, database_url: str
) -> None:
    assert await ledger.erase_tenant("acme", actor="ops")
    assert await owners(database_url) == [["beta"]] * 4
    (line,) = await ledger.list_audit(limit=10)
    assert (line.actor, line.action, line.tenant) == ("ops", "tenant.erased", "acme")
    assert not await ledger.erase_tenant("acme", actor="ops")


async def test_it_waits_for_a_change_under_way(
    ledger: Ledger, store: QuotaStore, database_url: str
) -> None:
    async with store.changing(["acme"]) as transaction:
        deleting = asyncio.create_task(ledger.erase_tenant("acme", actor="ops"))
        await waiting_for_a_lock(database_url)
        transaction.books["acme"].apply(asked("acme", Consume({"users": 1}), "late"))
    assert await deleting
    assert await owners(database_url) == [["beta"]] * 4


async def waiting_for_a_lock(database_url: str) -> None:
    """Return as soon as somebody waits for an advisory lock."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        async with asyncio.timeout(10):
            while True:
                answer = await connection.execute(
                    "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database"
                    " = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
                if answer.rowcount:
                    return
                await asyncio.sleep(0.01)
