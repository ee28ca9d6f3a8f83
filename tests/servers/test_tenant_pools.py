"""Tenants' connections on a real PostgreSQL: caps, turns, dedicated pools, and giving up."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from partywall import ConfigurationError, Tenant
from partywall.pools import PoolsClosed, PoolTimeout, PoolUse, TenantPools, TenantUse
from tests.servers.pool_shop import Shop, become, opened_shop
from tests.support.run import TestRun

ONE = text("SELECT 1")


@pytest.fixture(scope="module")
def shop(test_run: TestRun) -> Iterator[Shop]:
    with opened_shop(test_run) as shop:
        yield shop


class Holder:
    """A checkout that stays until it is told to go."""

    def __init__(self, pools: TenantPools, tenant: str) -> None:
        self.pools = pools
        self.tenant = tenant
        self.in_turn = asyncio.Event()
        self.go = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self.pools.connection(self.tenant) as connection:
            await connection.execute(ONE)
            self.in_turn.set()
            await self.go.wait()

    async def leave(self) -> None:
        self.go.set()
        await self.task


class Street:
    """Checkouts of one test's pools, all of which have left at its end."""

    def __init__(self) -> None:
        self.holders: list[Holder] = []

    def come(self, pools: TenantPools, tenant: str, count: int = 1) -> list[Holder]:
        come = [Holder(pools, tenant) for _ in range(count)]
        self.holders += come
        return come

    async def hold(self, pools: TenantPools, tenant: str, count: int = 1) -> list[Holder]:
        come = self.come(pools, tenant, count)
        for holder in come:
            await holder.in_turn.wait()
        return come


@pytest.fixture
async def street() -> AsyncIterator[Street]:
    made = Street()
    yield made
    for holder in made.holders:
        holder.go.set()
    await asyncio.gather(*(one.task for one in made.holders), return_exceptions=True)


@pytest.fixture
async def close() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def opened(close: AsyncExitStack, street: Street, shop: Shop) -> "Opened":
    return Opened(close, shop)


class Opened:
    """Makes pools that are closed at the test's end, after the street is empty."""

    def __init__(self, stack: AsyncExitStack, shop: Shop) -> None:
        self.stack = stack
        self.shop = shop

    async def __call__(self, **options: object) -> TenantPools:
        return await self.stack.enter_async_context(
            TenantPools(self.shop.url, **{"timeout": None, **options})  # type: ignore[arg-type] - as each test has it
        )


@contextmanager
def impatient(pools: TenantPools, seconds: float) -> Iterator[None]:
    """For the checkouts that are to fail alone: opening a connection may take longer than that."""
    patient, pools._timeout = pools._timeout, seconds
    yield
    pools._timeout = patient


async def seen(turns: int = 5) -> None:
    """Lets tasks that are ready go as far as they can without the server."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_a_tenant_has_no_more_than_its_cap_and_its_neighbour_need_not_wait(
    opened: Opened, street: Street
) -> None:
    pools = await opened(size=3, per_tenant=2)
    await street.hold(pools, "hog", 2)
    street.come(pools, "hog", 1_000)
    await street.hold(pools, "small")
    stats = pools.stats()
    assert stats.shared == PoolUse(3, 3, 1_000)
    assert stats.tenants == {"hog": TenantUse(2, 1_000), "small": TenantUse(1, 0)}
    for holder in street.holders[3:]:
        holder.task.cancel()


async def test_a_tenant_that_hogs_every_connection_delays_another_by_one_of_its_queries(
    opened: Opened, street: Street
) -> None:
    pools = await opened(size=2, per_tenant=2)
    first, second = await street.hold(pools, "hog", 2)
    crowd = street.come(pools, "hog", 200)
    (small,) = street.come(pools, "small")
    await seen()
    assert not small.in_turn.is_set()
    await first.leave()
    await small.in_turn.wait()
    assert not any(one.in_turn.is_set() for one in crowd)
    await second.leave()
    await crowd[0].in_turn.wait()
    await small.leave()
    await crowd[1].in_turn.wait()
    for one in crowd[2:]:
        one.task.cancel()


async def test_the_cap_may_depend_on_the_tenants_tier(opened: Opened, street: Street) -> None:
    pools = await opened(size=5, per_tenant=lambda tenant: 3 if tenant.tier == "pro" else 1)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(pools.connection(Tenant("big", "pro")))
        await stack.enter_async_context(pools.connection(Tenant("tiny", "free")))
        for full in (Tenant("big", "pro"), Tenant("tiny", "free")):
            with impatient(pools, 0.02), pytest.raises(PoolTimeout):
                await stack.enter_async_context(pools.connection(full))
        assert pools.stats().shared == PoolUse(5, 4, 0)


@pytest.mark.parametrize("cap", [0, -1, 1.5, True, None, "3"])
async def test_a_callable_that_gives_no_cap_is_an_error_of_its_caller_alone(
    opened: Opened, cap: object
) -> None:
    pools = await opened(per_tenant=lambda tenant: cap if tenant.id == "odd" else 1)
    with pytest.raises(ConfigurationError, match="whole number from 1"):
        await pools.connection("odd").__aenter__()
    async with pools.connection("even") as connection:
        assert await connection.scalar(ONE) == 1
    assert pools.stats().tenants == {}


async def test_who_waits_too_long_is_told_why_and_leaves_nothing_behind(
    opened: Opened, street: Street
) -> None:
    pools = await opened(size=1, per_tenant=1)
    (holder,) = await street.hold(pools, "acme")
    with impatient(pools, 0.05), pytest.raises(PoolTimeout) as caught:
        await pools.connection("small").__aenter__()
    assert (caught.value.tenant, caught.value.seconds) == ("small", 0.05)
    assert str(caught.value) == (
        "tenant 'small' got no connection within 0.05 s: it has 0 and 0 more of its checkouts"
        " wait; 1 of its pool's 1 are in use"
    )
    assert pools.stats().tenants == {"acme": TenantUse(1, 0)}
    await holder.leave()
    await street.hold(pools, "small")


async def test_a_connection_that_cannot_be_opened_leaves_its_slot(opened: Opened) -> None:
    pools = TenantPools(
        opened.shop.url.replace("port=5432", "port=1"), size=1, per_tenant=1, timeout=5
    )
    for _ in range(3):
        with pytest.raises(Exception, match="connection"):
            await pools.connection("acme").__aenter__()
    assert pools.stats().shared == PoolUse(1, 0, 0)
    await pools.aclose()


async def test_cancelled_anywhere_no_slot_and_no_connection_is_lost(
    opened: Opened, street: Street, shop: Shop
) -> None:
    pools = await opened(size=2, per_tenant=2)
    cancelled: list[asyncio.Task[None]] = []

    async def work(tenant: str) -> None:
        async with pools.connection(tenant) as connection:
            await connection.execute(text("SELECT pg_sleep(0.001)"))

    for step in range(60):
        tasks = [asyncio.create_task(work(f"t{number % 3}")) for number in range(4)]
        # A turn of the loop more each time: waiting, connecting, beginning, working, committing.
        await seen(step)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        cancelled += tasks
    await street.hold(pools, "last", 2)
    assert pools.stats().tenants == {"last": TenantUse(2, 0)}
    # Not even what was just being opened, although the cancelled tasks are still here.
    await become(shop.all_names, ["partywall:last"] * 2)
    assert len(cancelled) == 240


async def test_cancelled_twice_while_giving_back_no_slot_is_lost(
    opened: Opened, street: Street
) -> None:
    pools = await opened(size=1, per_tenant=1)
    (holder,) = await street.hold(pools, "acme")
    holder.task.cancel()
    while pools.stats().tenants and not holder.task.done():
        await asyncio.sleep(0)
        holder.task.cancel()
    await street.hold(pools, "umbrella")


async def test_pg_stat_activity_names_the_tenant_of_each_connection_in_use(
    opened: Opened, street: Street, shop: Shop
) -> None:
    pools = await opened(size=3, dedicated={"umbrella": 2})
    acme, *_ = await street.hold(pools, "acme", 2)
    (holder,) = await street.hold(pools, "umbrella")
    await shop.names_become(["partywall:acme", "partywall:acme", "partywall:umbrella"])
    await acme.leave()
    await holder.leave()
    # Nobody's any more in the shared pool; in its own, the tenant's all the same.
    await shop.names_become(["partywall:acme", "partywall:umbrella"])


async def test_a_promoted_tenants_next_checkouts_and_waiters_go_to_its_own_pool(
    opened: Opened, street: Street
) -> None:
    pools = await opened(size=2, per_tenant=1)
    (running,) = await street.hold(pools, "acme")
    waiting = street.come(pools, "acme", 2)
    await seen()
    pools.promote("acme", 3)
    for holder in waiting:
        await holder.in_turn.wait()
    await street.hold(pools, "acme")
    stats = pools.stats()
    assert stats.shared == PoolUse(2, 1, 0)
    assert stats.dedicated == {"acme": PoolUse(3, 3, 0)}
    assert stats.tenants == {"acme": TenantUse(4, 0)}
    await running.leave()
    assert pools.stats().shared == PoolUse(2, 0, 0)


async def test_a_demoted_tenants_running_ones_finish_and_then_its_pool_is_closed(
    opened: Opened, street: Street, shop: Shop
) -> None:
    pools = await opened(size=2, per_tenant=2, dedicated={"acme": 1})
    (running,) = await street.hold(pools, "acme")
    (waiting,) = street.come(pools, "acme")
    await seen()
    assert pools.stats().dedicated == {"acme": PoolUse(1, 1, 1)}
    pools.demote("acme")
    await waiting.in_turn.wait()
    stats = pools.stats()
    assert (stats.shared, stats.dedicated) == (PoolUse(2, 1, 0), {})
    assert stats.tenants == {"acme": TenantUse(2, 0)}
    await waiting.leave()
    await shop.names_become(["partywall:acme"])
    await running.leave()
    await shop.names_become([])
    pools.demote("acme")
    pools.demote("nobody")


async def test_promoted_to_another_size_a_tenant_has_a_new_pool(
    opened: Opened, street: Street, shop: Shop
) -> None:
    pools = await opened(dedicated={"acme": 1})
    (running,) = await street.hold(pools, "acme")
    (waiting,) = street.come(pools, "acme")
    pools.promote("acme", 1)
    await seen()
    assert not waiting.in_turn.is_set()
    pools.promote("acme", 2)
    await waiting.in_turn.wait()
    await street.hold(pools, "acme")
    assert pools.stats().dedicated == {"acme": PoolUse(2, 2, 0)}
    await running.leave()
    await shop.names_become(["partywall:acme"] * 2)


async def test_of_too_many_dedicated_pools_the_least_recently_used_is_closed(
    opened: Opened, street: Street, shop: Shop
) -> None:
    pools = await opened(dedicated=dict.fromkeys("abc", 1), max_dedicated=2)
    for tenant in ("a", "b", "a", "c"):
        (holder,) = await street.hold(pools, tenant)
        await holder.leave()
    assert list(pools.stats().dedicated) == ["a", "c"]
    await shop.names_become(["partywall:a", "partywall:c"])
    await street.hold(pools, "b")
    assert list(pools.stats().dedicated) == ["c", "b"]


async def test_while_every_dedicated_pool_is_busy_another_tenant_shares(
    opened: Opened, street: Street
) -> None:
    pools = await opened(dedicated={"a": 1, "b": 1}, max_dedicated=1)
    (holder,) = await street.hold(pools, "a")
    await street.hold(pools, "b")
    assert pools.stats().shared.in_use == 1
    assert list(pools.stats().dedicated) == ["a"]
    await holder.leave()
    await street.hold(pools, "b")
    assert list(pools.stats().dedicated) == ["b"]


async def test_a_dedicated_pool_that_is_idle_is_closed_and_opened_when_needed(
    opened: Opened, street: Street, shop: Shop
) -> None:
    pools = await opened(dedicated={"a": 1, "b": 1}, idle_seconds=0.02)
    await street.hold(pools, "a")
    (holder,) = await street.hold(pools, "b")
    await holder.leave()
    await shop.names_become(["partywall:a"])
    assert list(pools.stats().dedicated) == ["a"]
    await street.hold(pools, "b")
    assert list(pools.stats().dedicated) == ["a", "b"]


async def test_closing_refuses_who_waits_and_who_comes_and_waits_for_who_runs(
    street: Street, shop: Shop
) -> None:
    pools = TenantPools(shop.url, size=1, per_tenant=1, dedicated={"umbrella": 1})
    (running,) = await street.hold(pools, "acme")
    (own,) = await street.hold(pools, "umbrella")
    waiting = [*street.come(pools, "acme"), *street.come(pools, "umbrella")]
    await seen()
    closing = asyncio.create_task(pools.aclose())
    for holder in waiting:
        with pytest.raises(PoolsClosed):
            await holder.task
    with pytest.raises(PoolsClosed):
        await pools.connection("small").__aenter__()
    assert shop.names() == ["partywall:acme", "partywall:umbrella"]
    assert not closing.done()
    await running.leave()
    await own.leave()
    await closing
    await pools.aclose()
    await become(shop.all_names, [])


async def test_an_engine_that_was_given_stays_its_owners(shop: Shop) -> None:
    url = shop.url.replace("postgresql:", "postgresql+psycopg:")
    engine = create_async_engine(url, pool_size=2)
    with pytest.raises(
        ConfigurationError, match="pool_size of at least TenantPools' size=3, got 2"
    ):
        TenantPools(engine, size=3)
    async with (
        TenantPools(engine, size=2, dedicated={"acme": 1}) as pools,
        pools.connection("umbrella") as shared,
        pools.connection("acme") as own,
    ):
        assert await shared.scalar(ONE) == await own.scalar(ONE) == 1
    async with engine.connect() as connection:
        assert await connection.scalar(ONE) == 1
    await engine.dispose()
