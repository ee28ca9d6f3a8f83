"""Group commit of quotas on a real PostgreSQL: exact under races, boundaries and broken commits."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from secrets import token_hex
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.ledger import LedgerUnavailable, create_ledger_engine
from partywall_service.quotas.commits import GroupCommit
from partywall_service.quotas.model import (
    Consume,
    Operation,
    Outcome,
    Release,
    Reserve,
    Settle,
    SetUsed,
    Terms,
    What,
)
from partywall_service.quotas.store import QuotaStore
from partywall_service.quotas.sweep import sweep_once

TERMS = {"users": Terms(50, thresholds=(80, 100)), "emails": Terms(100, "day")}


@pytest.fixture
async def engines(database_url: str) -> AsyncIterator[list[AsyncEngine]]:
    """Two, as two sidecars have."""
    made = [create_ledger_engine(database_url) for _ in range(2)]
    yield made
    for one in made:
        await one.dispose()


@pytest.fixture
def stores(engines: list[AsyncEngine]) -> list[QuotaStore]:
    return [QuotaStore(engine) for engine in engines]


@pytest.fixture
def commits(stores: list[QuotaStore]) -> list[GroupCommit]:
    return [GroupCommit(store) for store in stores]


def asking(
    what: What,
    tenant: str = "acme",
    *,
    name: str | None = None,
    fingerprint: bytes = b"",
    terms: Mapping[str, Terms] = TERMS,
) -> Operation:
    key = None if name is None else f"key of {name}"
    return Operation(
        tenant,
        what,
        terms,
        name or token_hex(8),
        fingerprint,
        "somebody",
        key,
        kept=key is not None,
    )


def rows(database_url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(query).fetchall()


async def test_five_hundred_at_once_over_two_sidecars_take_what_there_is(
    commits: list[GroupCommit], database_url: str
) -> None:
    outcomes = await asyncio.gather(
        *(commits[n % 2].commit(asking(Consume({"users": 1}))) for n in range(500))
    )
    assert sum(outcome.allowed for outcome in outcomes) == 50
    assert rows(database_url, "SELECT used FROM quota_levels") == [(50,)]
    ledger = rows(database_url, "SELECT delta, used FROM quota_ledger ORDER BY id")
    assert ledger == [(1, used) for used in range(1, 51)]


async def test_one_key_at_once_on_two_sidecars_consumes_once(
    commits: list[GroupCommit], stores: list[QuotaStore]
) -> None:
    outcomes = await asyncio.gather(
        *(commits[n % 2].commit(asking(Consume({"users": 5}), name="k")) for n in range(20))
    )
    assert set(outcomes) == {outcomes[0]}
    assert (await stores[0].read("acme")).levels["users"].used == 5


async def test_a_key_is_kept_with_its_answer_a_denial_too(commits: list[GroupCommit]) -> None:
    too_much = asking(Consume({"users": 51}), name="k")
    first = await commits[0].commit(too_much)
    assert first.denied == ("users",)
    roomier = asking(Consume({"users": 51}), name="k", terms={"users": Terms(1000)})
    assert await commits[1].commit(roomier) == first
    other = asking(Consume({"users": 1}), name="k", fingerprint=b"another body")
    assert (await commits[1].commit(other)).refusal == "conflict"
    elsewhere = asking(Consume({"users": 1}), "umbrella", name="k", fingerprint=b"another body")
    assert (await commits[1].commit(elsewhere)).allowed


async def test_any_mix_over_two_sidecars_never_passes_the_limit(
    commits: list[GroupCommit], stores: list[QuotaStore]
) -> None:
    async def client(number: int) -> list[Outcome]:
        commit = commits[number % 2].commit
        outcomes = [await commit(asking(Consume({"users": 3})))]
        held = await commit(asking(Reserve({"users": 2}, f"r{number}", 60)))
        if held.allowed:
            end = "committed" if number % 3 else "cancelled"
            outcomes.append(await commit(asking(Settle(f"r{number}", end))))
        outcomes.append(await commit(asking(Release({"users": 1}))))
        return outcomes

    done = await asyncio.gather(*(client(number) for number in range(60)))
    states = [quota for outcomes in done for one in outcomes for quota in one.quotas]
    assert max(quota.used + quota.reserved for quota in states) <= 50
    level = (await stores[0].read("acme")).levels["users"]
    entries = await stores[0].list_entries("acme", limit=1000)
    assert level.used == sum(entry.delta for entry in entries) <= 50
    assert level.reserved == 0


async def test_a_boundary_under_load_refills_once(
    commits: list[GroupCommit], database_url: str
) -> None:
    """The day before is made by hand: PostgreSQL's own clock says which day it is."""
    first = await asyncio.gather(
        *(commits[n % 2].commit(asking(Consume({"emails": 1}))) for n in range(150))
    )
    assert sum(outcome.allowed for outcome in first) == 100
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE quota_levels SET period_start = period_start - interval '1 day'")
    second = await asyncio.gather(
        *(commits[n % 2].commit(asking(Consume({"emails": 1}))) for n in range(150))
    )
    assert sum(outcome.allowed for outcome in second) == 100
    refills = rows(database_url, "SELECT delta FROM quota_ledger WHERE operation = 'refill'")
    assert refills == [(-100,)]
    assert rows(database_url, "SELECT sum(delta)::int FROM quota_ledger") == [(100,)]


async def test_reservations_that_expire_go_back_by_themselves(
    commits: list[GroupCommit], stores: list[QuotaStore], database_url: str
) -> None:
    for tenant in ("acme", "umbrella"):
        assert (await commits[0].commit(asking(Reserve({"users": 50}, "r", 3600), tenant))).allowed
    assert (await commits[1].commit(asking(Consume({"users": 1})))).denied == ("users",)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE quota_reservations SET expires_at = now() - interval '1 second'")
    assert (await commits[1].commit(asking(Consume({"users": 50})))).allowed
    assert (await commits[1].commit(asking(Settle("r", "committed")))).refusal == "conflict"
    assert (await stores[0].read("umbrella")).levels["users"].reserved == 0
    assert await sweep_once(stores[1]) == 0


async def test_the_sweep_gives_back_what_nobody_asks_for(
    commits: list[GroupCommit], stores: list[QuotaStore], database_url: str
) -> None:
    await commits[0].commit(asking(Reserve({"users": 7}, "r", 3600)))
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE quota_reservations SET expires_at = now() - interval '1 second'")
    assert await sweep_once(stores[0]) == 1
    assert rows(database_url, "SELECT used, reserved FROM quota_levels") == [(0, 0)]
    assert rows(database_url, "SELECT status FROM quota_reservations") == [("expired",)]


async def test_what_no_repetition_asks_for_any_more_is_forgotten(
    commits: list[GroupCommit], stores: list[QuotaStore], database_url: str
) -> None:
    await commits[0].commit(asking(Reserve({"users": 7}, "r", 60), name="k"))
    await commits[0].commit(asking(Settle("r", "committed")))
    assert await stores[0].forget() == 0
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE quota_operations SET kept_until = now()")
        connection.execute("UPDATE quota_reservations SET settled_at = now() - interval '3 days'")
    assert await stores[0].forget() == 3
    assert rows(database_url, "SELECT used FROM quota_levels") == [(7,)]


async def test_a_commit_whose_answer_was_lost_is_not_done_twice(
    stores: list[QuotaStore], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after PostgreSQL committed, before anybody was told."""
    lost = 0

    class Losing(QuotaStore):
        def changing(self, tenants: Any, operations: Any = ()) -> Any:
            return losing(super().changing(tenants, operations))

    @asynccontextmanager
    async def losing(inner: Any) -> AsyncIterator[Any]:
        nonlocal lost
        async with inner as transaction:
            yield transaction
        lost += 1
        if lost == 1:
            raise LedgerUnavailable("the connection broke")

    commit = GroupCommit(Losing(stores[0]._engine)).commit
    outcomes = await asyncio.gather(*(commit(asking(Consume({"users": 1}))) for _ in range(10)))
    assert lost == 2
    assert sorted(one.quotas[0].used for one in outcomes) == list(range(1, 11))
    assert rows(database_url, "SELECT used FROM quota_levels") == [(10,)]


async def test_what_cannot_have_been_committed_is_not_tried_again(
    commits: list[GroupCommit], engines: list[AsyncEngine], database_url: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE quota_levels RENAME TO gone")
    with pytest.raises(LedgerUnavailable, match="partywall db upgrade"):
        await commits[0].commit(asking(Consume({"users": 1})))


async def test_a_crossing_is_in_the_audit_log_once(
    commits: list[GroupCommit], database_url: str
) -> None:
    await asyncio.gather(*(commits[n % 2].commit(asking(Consume({"users": 1}))) for n in range(60)))
    lines = rows(
        database_url,
        "SELECT tenant, detail FROM audit WHERE action = 'quota.crossed' ORDER BY id",
    )
    assert lines == [
        ("acme", {"resource": "users", "percent": 80, "used": 40, "limit": 50}),
        ("acme", {"resource": "users", "percent": 100, "used": 50, "limit": 50}),
    ]


async def test_a_count_names_the_version_at_which_it_was_made(commits: list[GroupCommit]) -> None:
    (before,) = (await commits[0].commit(asking(Consume({"users": 3})))).quotas
    await commits[1].commit(asking(Consume({"users": 1})))
    late = await commits[0].commit(asking(SetUsed("users", 9, before.version)))
    assert late.refusal == "conflict"


@pytest.mark.parametrize(
    "statement", ["UPDATE quota_ledger SET delta = 0", "TRUNCATE quota_ledger"]
)
async def test_the_ledger_is_append_only(
    commits: list[GroupCommit], database_url: str, statement: str
) -> None:
    await commits[0].commit(asking(Consume({"users": 3})))
    for forbidden in (statement, "DELETE FROM quota_ledger"):
        with (
            psycopg.connect(database_url) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(forbidden)


@pytest.mark.parametrize("table", ["quota_levels", "quota_reservations", "quota_ledger"])
async def test_without_a_where_a_tenant_sees_its_own_rows_only(
    commits: list[GroupCommit], database_url: str, table: str
) -> None:
    for tenant in ("acme", "umbrella"):
        await commits[0].commit(asking(Reserve({"users": 1}, "r", 60), tenant))
        await commits[0].commit(asking(Settle("r", "committed"), tenant))
    seen = {}
    for tenant in ("acme", "nobody", None):
        with psycopg.connect(database_url) as connection:
            connection.execute("SET LOCAL ROLE partywall_tenant")
            if tenant is not None:
                connection.execute("SELECT set_config('app.tenant_id', %s, true)", [tenant])
            seen[tenant] = connection.execute(f"SELECT tenant FROM {table}").fetchall()
    assert seen == {"acme": [("acme",)], "nobody": [], None: []}


async def test_reading_is_under_row_level_security(
    commits: list[GroupCommit], stores: list[QuotaStore]
) -> None:
    await commits[0].commit(asking(Consume({"users": 3})))
    assert (await stores[0].read("acme", scope="acme")).levels["users"].used == 3
    assert (await stores[0].read("acme", scope="umbrella")).levels == {}
    assert await stores[0].list_entries("acme", limit=9, scope="umbrella") == []


async def test_a_key_of_one_attempt_keeps_what_was_done_and_no_denial(
    commits: list[GroupCommit], database_url: str
) -> None:
    async def tried(amount: int, name: str) -> Outcome:
        operation = asking(Consume({"users": amount}), name=name)
        return await commits[0].commit(replace(operation, kept=False))

    assert (await tried(51, "denied")).denied == ("users",)
    first = await tried(1, "done")
    assert await tried(1, "done") == first
    kept = "SELECT id, kept_until - now() < interval '11 minutes' FROM quota_operations"
    assert rows(database_url, kept) == [("done", True)]
