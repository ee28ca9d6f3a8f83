"""Whose a pooled connection is: each tenant sees its own rows, and nothing stays behind."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError, ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from partywall import ConfigurationError, NoTenant, Tenant, running_as
from partywall.pools import TenantPools, rls_statements
from tests.servers.pool_shop import Shop, opened_shop
from tests.support.run import TestRun

ALL = text("SELECT id FROM orders ORDER BY id")
WHO = text(
    "SELECT coalesce(current_setting('app.tenant_id', true), ''), current_user::text,"
    " current_setting('application_name'), pg_backend_pid()"
)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]


@pytest.fixture(scope="module")
def opened(test_run: TestRun) -> Iterator[Shop]:
    with opened_shop(test_run) as shop:
        yield shop


@pytest.fixture
def shop(opened: Shop) -> Shop:
    opened.refill()
    return opened


@pytest.fixture
async def engine(shop: Shop) -> AsyncIterator[AsyncEngine]:
    """One connection, so that the next user has the last one's."""
    url = shop.url.replace("postgresql:", "postgresql+psycopg:")
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    yield engine
    await engine.dispose()


@pytest.fixture
async def pools(engine: AsyncEngine, shop: Shop) -> AsyncIterator[TenantPools]:
    async with TenantPools(engine, size=1, per_tenant=1, role=shop.role, timeout=None) as pools:
        yield pools


async def ids(connection: AsyncConnection) -> list[int]:
    return list((await connection.scalars(ALL)).all())


async def test_without_a_where_a_tenant_sees_its_own_rows_only(pools: TenantPools) -> None:
    async with pools.connection("acme") as connection:
        assert await ids(connection) == [1, 2]
    async with pools.connection("umbrella") as connection:
        assert await ids(connection) == [3]
    async with pools.connection("nobody") as connection:
        assert await ids(connection) == []


async def test_without_a_tenant_the_role_sees_no_row(
    pools: TenantPools, engine: AsyncEngine, shop: Shop
) -> None:
    for _ in ("a new connection", "one that has been a tenant's"):
        async with engine.begin() as connection:
            await connection.execute(text(f"SET LOCAL ROLE {shop.role}"))
            assert await ids(connection) == []
        async with pools.connection("acme") as connection:
            await connection.execute(WHO)


async def test_without_a_where_a_tenant_changes_its_own_rows_only(
    pools: TenantPools, shop: Shop
) -> None:
    async with pools.connection("acme") as connection:
        await connection.execute(text("UPDATE orders SET id = id + 10"))
        await connection.execute(text("DELETE FROM orders WHERE id = 12"))
    assert shop.fetch("SELECT id FROM orders ORDER BY id") == [(3,), (11,)]
    async with pools.connection("acme") as connection:
        with pytest.raises(ProgrammingError, match="row-level security"):
            await connection.execute(text("INSERT INTO orders VALUES (9, 'umbrella')"))


async def test_it_is_the_running_requests_tenant_unless_one_is_named(pools: TenantPools) -> None:
    with running_as(Tenant("umbrella")):
        async with pools.connection() as connection:
            assert await ids(connection) == [3]
        async with pools.connection(Tenant("acme", "pro")) as connection:
            assert await ids(connection) == [1, 2]
        async with pools.session() as session:
            assert (await session.scalars(ALL)).all() == [3]
    with pytest.raises(NoTenant):
        async with pools.connection():
            pass


async def test_the_end_of_the_block_commits_and_an_exception_rolls_back(
    pools: TenantPools, shop: Shop
) -> None:
    async def insert(number: int, fault: Exception | None = None) -> None:
        async with pools.connection("acme") as connection:
            await connection.execute(text(f"INSERT INTO orders VALUES ({number}, 'acme')"))
            if fault is not None:
                raise fault

    async def add(number: int, fault: Exception | None = None) -> None:
        async with pools.session("acme") as session:
            session.add(Order(id=number, tenant_id="acme"))
            if fault is not None:
                await session.flush()
                raise fault

    await insert(4)
    with pytest.raises(KeyError):
        await insert(5, KeyError())
    await add(6)
    with pytest.raises(KeyError):
        await add(7, KeyError())
    assert shop.fetch("SELECT id FROM orders WHERE id > 3 ORDER BY id") == [(4,), (6,)]


async def test_a_commit_or_rollback_in_the_block_is_a_real_one_and_the_tenant_stays(
    pools: TenantPools, shop: Shop
) -> None:
    async with pools.connection("acme") as connection:
        await connection.execute(text("DELETE FROM orders WHERE id = 1"))
        await connection.commit()
        assert shop.fetch("SELECT id FROM orders ORDER BY id") == [(2,), (3,)]
        assert await ids(connection) == [2]
        await connection.rollback()
        async with connection.begin():
            assert await ids(connection) == [2]
    async with pools.session("umbrella") as session:
        session.add(Order(id=8, tenant_id="umbrella"))
        await session.commit()
        assert shop.fetch("SELECT id FROM orders ORDER BY id") == [(2,), (3,), (8,)]
        assert [one.id for one in await session.scalars(select(Order))] == [3, 8]
        await session.rollback()
        async with session.begin_nested():
            assert (await session.scalars(ALL)).all() == [3, 8]


async def come_to_an_end(how: str, pools: TenantPools) -> None:
    async with pools.connection("acme") as connection:
        await connection.execute(WHO)
        if how == "an exception":
            raise KeyError
        if how == "an error of SQL":
            await connection.execute(text("SELECT 1/0"))
        if how == "a cancelled query":
            asyncio.get_running_loop().call_soon(cancel, asyncio.current_task())
            await connection.execute(text("SELECT pg_sleep(60)"))
        if how == "a cancelled wait":
            asyncio.get_running_loop().call_soon(cancel, asyncio.current_task())
            await asyncio.Event().wait()


def cancel(task: "asyncio.Task[None] | None") -> None:
    assert task is not None
    task.cancel()


@pytest.mark.parametrize(
    "how",
    ["a commit", "an exception", "an error of SQL", "a cancelled query", "a cancelled wait"],
)
async def test_nothing_of_a_tenant_stays_on_the_connection(
    pools: TenantPools, engine: AsyncEngine, how: str
) -> None:
    async with engine.connect() as connection:
        before = (await connection.execute(WHO)).one()
    for _ in range(3):
        await asyncio.gather(
            asyncio.create_task(come_to_an_end(how, pools)), return_exceptions=True
        )
        assert pools.stats().tenants == {}
        async with engine.connect() as connection:
            after = (await connection.execute(WHO)).one()
        assert after[:3] == before[:3]
        # The driver may have to give up a connection whose query was cancelled.
        assert after[3] == before[3] or how == "a cancelled query"
        async with pools.connection("umbrella") as connection:
            assert await ids(connection) == [3]


async def test_a_connection_lost_in_the_block_is_an_error_and_the_next_is_the_tenants(
    pools: TenantPools, shop: Shop
) -> None:
    async def lose(connection: AsyncConnection) -> None:
        pid = (await connection.execute(WHO)).one()[3]
        shop.fetch("SELECT pg_terminate_backend(%s)", pid)
        await connection.execute(ALL)

    async def lost() -> None:
        async with pools.connection("acme") as connection:
            await lose(connection)

    async with pools.connection("acme") as connection:
        with pytest.raises(DBAPIError):
            await lose(connection)
        await connection.rollback()
        assert await ids(connection) == [1, 2]
    with pytest.raises(DBAPIError):
        await lost()
    async with pools.connection("acme") as connection:
        assert await ids(connection) == [1, 2]
    assert "acme" not in pools.stats().tenants


async def test_a_connection_that_could_not_become_the_tenants_runs_nothing(shop: Shop) -> None:
    async with (
        TenantPools(shop.url, role="no_such_role") as pools,
        pools.connection("acme") as connection,
    ):
        with pytest.raises(DBAPIError, match="no_such_role"):
            await connection.execute(ALL)
        with pytest.raises(ResourceClosedError):
            await connection.execute(ALL)


async def test_a_pooled_connection_that_died_unseen_runs_nothing_as_nobody(
    pools: TenantPools, shop: Shop
) -> None:
    async with pools.connection("acme") as connection:
        pid = (await connection.execute(WHO)).one()[3]
    shop.fetch("SELECT pg_terminate_backend(%s)", pid)
    async with pools.connection("acme") as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(ALL)
        with pytest.raises(ResourceClosedError):
            await connection.execute(ALL)
    async with pools.connection("acme") as connection:
        assert await ids(connection) == [1, 2]


async def test_autocommit_has_no_transaction_to_be_the_tenants_and_is_refused(
    pools: TenantPools,
) -> None:
    async with pools.connection("acme") as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            await connection.execute(ALL)


async def test_other_users_of_the_engine_are_nobodys(
    pools: TenantPools, engine: AsyncEngine
) -> None:
    async with pools.connection("acme") as connection:
        await connection.execute(WHO)
    with running_as(Tenant("acme")):
        async with engine.connect() as connection:
            assert await ids(connection) == [1, 2, 3]


@pytest.mark.parametrize(
    ("column_type", "mine", "other"),
    [("uuid", str(uuid.UUID(int=1)), str(uuid.UUID(int=2))), ("bigint", "1", "2")],
)
async def test_statements_fit_any_name_and_type_and_can_be_run_again(
    pools: TenantPools, shop: Shop, column_type: str, mine: str, other: str
) -> None:
    table = '"my ""schema"."Order; --"'
    shop.fetch('DROP SCHEMA IF EXISTS "my ""schema" CASCADE')
    shop.fetch('CREATE SCHEMA "my ""schema"')
    shop.fetch(f'CREATE TABLE {table} ("Whose?" {column_type})')
    shop.fetch(f"INSERT INTO {table} VALUES ('{mine}'), ('{other}')")
    shop.fetch(f'GRANT USAGE ON SCHEMA "my ""schema" TO {shop.role}')
    shop.fetch(f"GRANT SELECT ON {table} TO {shop.role}")
    for _ in range(2):
        for statement in rls_statements(
            "Order; --", "Whose?", schema='my "schema', column_type=column_type
        ):
            shop.fetch(statement)
    async with pools.connection(mine) as connection:
        rows = await connection.scalars(text(f'SELECT CAST("Whose?" AS text) FROM {table}'))
        assert rows.all() == [mine]


async def test_the_owner_is_bound_too(shop: Shop) -> None:
    query = "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = 'orders'"
    assert shop.fetch(query) == [(True, True)]
