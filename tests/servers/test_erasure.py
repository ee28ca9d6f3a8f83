"""Erasure where a store fails on the way, where others are late, on a cluster, and of much."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import redis.asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.directory import Directory
from partywall_service.engine.base import Check, StoreError
from partywall_service.engine.connect import connect, disconnect
from partywall_service.engine.redis import RedisEngine
from partywall_service.ledger import Ledger, LedgerUnavailable
from partywall_service.ledger import erasure as in_parts
from partywall_service.ledger.told import Rows
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Rate
from partywall_service.quotas.commits import GroupCommit
from partywall_service.quotas.model import Consume, Operation, Terms
from partywall_service.quotas.store import QuotaStore
from partywall_service.tenants.erasure import HEARD_WITHIN, Erasure
from partywall_service.tenants.export import Export
from partywall_service.tenants.redis_keys import TenantKeys
from partywall_service.usage import keys as usage_keys
from partywall_service.usage.source import Point
from partywall_service.usage.spans import minute_of
from partywall_service.usage.store import UsageStore
from partywall_workers.errors import QueueUnavailable
from tests.support.api import policy
from tests.support.cluster import ValkeyCluster
from tests.support.traces import keys_with, rows_with

TENANT = "t-acme-7f3a"
NEIGHBOUR = "t-acme-7f3a-2"
RATES = (Rate(10, 1), Rate(100, 60))


class Fragile:
    """Passes calls on, and fails the one that a test names.

    Args:
        real: whom to pass them to.
        errors: what is raised, by the method's name and how often it was called, from 1.
    """

    def __init__(self, real: object, errors: dict[tuple[str, int], Exception]) -> None:
        self._real = real
        self._errors = errors
        self._calls: dict[str, int] = {}

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **options: Any) -> Any:
            self._calls[name] = self._calls.get(name, 0) + 1
            if error := self._errors.get((name, self._calls[name])):
                raise error
            return await getattr(self._real, name)(*args, **options)

        return call


class NoJobs:
    """A queue without jobs."""

    async def count(self, _tenant: str) -> int:
        return 0

    async def erase(self, _tenant: str) -> None:
        """Nothing."""


class Site:
    """The stores of one installation, and what acts on them."""

    def __init__(
        self, engine: AsyncEngine, client: redis.asyncio.Redis, prefix: str, database_url: str
    ) -> None:
        self.ledger = Ledger(engine)
        self.keys = TenantKeys(client, prefix=prefix)
        self.limits = RedisEngine(client, prefix=prefix, deadline=5)
        self.quotas = GroupCommit(QuotaStore(engine))
        self.usage = UsageStore(engine)
        self.directory = Directory(self.ledger, PolicyHolder(policy()), size=10)
        self.client = client
        self.prefix = prefix
        self.database_url = database_url
        self.pauses: list[float] = []
        self.meanwhile: Callable[[], Awaitable[object]] = self.nothing

    async def nothing(self) -> None:
        """Nobody does anything meanwhile."""

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.meanwhile()

    def erasure(self, **errors: dict[tuple[str, int], Exception]) -> Erasure:
        """With stores that fail as they are told, by part."""
        return Erasure(
            Fragile(self.ledger, errors.get("ledger", {})),
            UsageStore.erase,
            Fragile(self.keys, errors.get("keys", {})),
            Fragile(NoJobs(), errors.get("jobs", {})),
            self.directory,
            pause=self._pause,
        )

    async def decide(self, tenant: str = TENANT) -> None:
        await self.limits.decide([Check(tenant, "requests", RATES)])

    async def consume(self, tenant: str = TENANT, *, key: str = "once") -> None:
        terms = {"users": Terms(5)}
        operation = Operation(tenant, Consume({"users": 1}), terms, key, b"", "test", key=key)
        await self.quotas.commit(operation)

    async def live(self, tenant: str = TENANT) -> None:
        await self.ledger.put_tenant(tenant, tier="pro", actor="test")
        await self.decide(tenant)
        await self.consume(tenant)

    async def traces(self) -> tuple[list[str], dict[str, list[str]]]:
        """Where the tenant is found, but not its neighbour, whose id begins with its own."""
        keys = await keys_with(self.client, TENANT, self.prefix)
        rows = {
            table: [line for line in lines if NEIGHBOUR not in line]
            for table, lines in (await rows_with(self.database_url, TENANT)).items()
        }
        return (
            [key for key in keys if NEIGHBOUR not in key and ":metered" not in key],
            {table: lines for table, lines in rows.items() if lines},
        )


@pytest.fixture
async def site(
    ledger_engine: AsyncEngine,
    redis_client: redis.asyncio.Redis,
    key_prefix: str,
    database_url: str,
) -> Site:
    """With a tenant that has lived, and a neighbour."""
    site = Site(ledger_engine, redis_client, key_prefix, database_url)
    await site.live()
    await site.live(NEIGHBOUR)
    return site


async def assert_gone(site: Site) -> None:
    keys, rows = await site.traces()
    assert keys == []
    assert list(rows) == ["audit"]
    (line,) = await site.ledger.list_audit(tenant=TENANT, limit=10)
    assert (line.actor, line.action, line.detail["tier"]) == ("ops", "tenant.erased", "pro")
    assert len(await site.ledger.list_audit(tenant=NEIGHBOUR, limit=10)) == 1
    assert await keys_with(site.client, NEIGHBOUR, site.prefix)


@pytest.mark.parametrize(
    ("part", "call", "error", "stays"),
    [
        ("jobs", ("count", 1), QueueUnavailable("away"), True),
        ("keys", ("erase", 1), StoreError("away"), True),
        ("ledger", ("erase_tenant", 1), LedgerUnavailable("away"), True),
        ("jobs", ("erase", 1), QueueUnavailable("away"), False),
        ("ledger", ("erase_rest", 1), LedgerUnavailable("away"), False),
        ("jobs", ("erase", 2), QueueUnavailable("away"), False),
        ("keys", ("erase", 2), StoreError("away"), False),
    ],
)
async def test_wherever_a_store_fails_a_repetition_does_the_rest(
    site: Site, part: str, call: tuple[str, int], error: Exception, stays: bool
) -> None:
    site.meanwhile = site.decide  # so there is something left to do, to the end
    with pytest.raises(type(error)):
        await site.erasure(**{part: {call: error}}).erase(TENANT, actor="ops")
    assert (await site.ledger.get_tenant(TENANT) is not None) == stays
    site.meanwhile = site.nothing
    await site.erasure().erase(TENANT, actor="ops")
    await assert_gone(site)
    assert not await site.erasure().erase(TENANT, actor="later")
    await assert_gone(site)


async def test_what_others_write_who_have_not_heard_is_removed_before_it_is_done(
    site: Site,
) -> None:
    async def late() -> None:
        await site.decide()
        await site.consume(key="late")
        await site.ledger.create_token(f"tenant:{TENANT}", "late", actor="late")

    site.meanwhile = late
    assert await site.erasure().erase(TENANT, actor="ops")
    assert site.pauses == [HEARD_WITHIN]
    await assert_gone(site)
    assert await site.ledger.list_tokens(limit=10) == []


async def test_who_is_registered_anew_meanwhile_is_left_alone(site: Site) -> None:
    async def anew() -> None:
        await site.ledger.put_tenant(TENANT, tier="free", actor="test")
        await site.consume(key="anew")
        await site.decide()

    site.meanwhile = anew
    await site.erasure().erase(TENANT, actor="ops")
    keys, rows = await site.traces()
    assert any(":window:" in key for key in keys)
    assert {"tenants", "quota_levels", "quota_ledger"} <= rows.keys()


async def test_nobody_waits_for_who_was_not_there(site: Site) -> None:
    assert not await site.erasure().erase("nobody", actor="ops")
    assert site.pauses == []
    assert await site.ledger.list_audit(tenant="nobody", limit=1) == []


async def test_two_at_once_leave_one_line(site: Site) -> None:
    await asyncio.gather(*(site.erasure().erase(TENANT, actor="ops") for _ in range(3)))
    await assert_gone(site)


async def test_of_who_was_served_by_the_default_tier_a_line_is_left_too(site: Site) -> None:
    await site.decide("walk-in")
    assert await site.erasure().erase("walk-in", actor="ops")
    assert await keys_with(site.client, "walk-in", site.prefix) == []
    (line,) = await site.ledger.list_audit(tenant="walk-in", limit=10)
    assert line.detail == {"tier": None, "erased": {"keys": 3}}  # two windows, and the counts


async def test_the_tombstone_says_when_and_not_who(site: Site) -> None:
    await site.erasure().erase(TENANT, actor="ops")
    stone = usage_keys.gone(site.prefix, TENANT)
    assert TENANT not in stone
    seconds, microseconds = await site.client.time()
    erased = int(await site.client.get(stone) or 0)
    assert 0 < seconds * 1_000_000 + microseconds - erased < 60_000_000
    assert 86_000 < await site.client.ttl(stone) <= 86_400


async def test_much_goes_in_parts(
    site: Site, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines and minutes beyond what one statement takes; the neighbour's stay."""
    monkeypatch.setattr(in_parts, "_IN_PARTS", in_parts.in_parts(at_once=40))
    points = [
        Point(tenant, minute_of(datetime.now(UTC)) - minute, "requests.2xx", 1)
        for tenant in (TENANT, NEIGHBOUR)
        for minute in range(0, 2880, 20)
    ]
    await site.usage.upsert(points)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        for tenant in (TENANT, NEIGHBOUR):
            await connection.execute(
                "INSERT INTO quota_ledger (tenant, at, resource, operation, delta, used, actor)"
                " SELECT %s, now(), 'users', 'consume', 0, 1, 'x' FROM generate_series(1, 99)",
                [tenant],
            )
    await site.erasure().erase(TENANT, actor="ops")
    await assert_gone(site)
    (line,) = await site.ledger.list_audit(tenant=TENANT, limit=10)
    assert (line.detail["erased"]["ledger"], line.detail["erased"]["usage"]) == (100, 144)
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        for table, count in (("quota_ledger", 100), ("usage_minutes", 144)):
            rows = await connection.execute(f"SELECT count(*) FROM {table}")
            assert await rows.fetchone() == (count,)


@pytest.fixture
async def on_cluster(
    valkey_cluster: ValkeyCluster, key_prefix: str
) -> AsyncIterator[tuple[TenantKeys, RedisEngine]]:
    client = connect(valkey_cluster.url)
    yield (
        TenantKeys(client, prefix=key_prefix),
        RedisEngine(client, prefix=key_prefix, deadline=5),
    )
    await disconnect(client)


async def test_on_a_cluster_each_tenants_keys_are_found_where_they_are(
    on_cluster: tuple[TenantKeys, RedisEngine], ledger_engine: AsyncEngine
) -> None:
    keys, limits = on_cluster
    tenants = [f"t{number}" for number in range(12)]
    await limits.decide([Check(tenant, "requests", RATES) for tenant in tenants])
    for tenant in tenants[:6]:
        told = [row async for rows in keys.told(tenant) for row in rows]
        assert sorted(row["window"] for row in told) == [1, 60]
        assert await keys.erase(tenant) == 3
        assert await keys.erase(tenant) == 0
    for tenant in tenants[6:]:
        export = Export(Rows(ledger_engine), keys, NoTold(), ())
        lines = b"".join([some async for some in export.lines(tenant)]).splitlines()
        assert len(lines) == 4  # begin, two windows, end


class NoTold:
    """A queue with nothing to tell."""

    async def told(self, _tenant: str) -> AsyncIterator[dict[str, Any]]:
        for row in ():
            yield row
