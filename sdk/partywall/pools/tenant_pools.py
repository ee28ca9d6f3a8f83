"""Connections of tenants: one shared pool in which they take turns, and pools of single tenants."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from partywall.context import Tenant, current_tenant
from partywall.errors import ConfigurationError
from partywall.pools.background import Background
from partywall.pools.dedicated import DedicatedPools
from partywall.pools.engines import Engines
from partywall.pools.errors import PoolsClosed, PoolTimeout
from partywall.pools.pool import Pool
from partywall.pools.rls import Identities, application_name
from partywall.pools.stats import PoolStats, TenantUse
from partywall.tenants import is_tenant_id

Cap = int | Callable[[Tenant], int]
"""Connections a tenant may have at once in the shared pool, from 1."""


class TenantPools:
    """A host's connections to its PostgreSQL, given out tenant by tenant.

    In the shared pool no tenant has more than `per_tenant` connections at once, and those who wait
    take turns: a tenant with a thousand checkouts waiting delays another's next by at most one of
    its own. Tenants may have a dedicated pool of their own instead. Every transaction begins with
    `SET LOCAL app.tenant_id` in effect, for row-level security (`rls_statements`).

    For one event loop; all methods are called within it.

    Args:
        database: a URL (psycopg or asyncpg), or an engine, which stays the caller's to dispose of.
        size: connections of the shared pool.
        per_tenant: connections a tenant may have of them at once, or a callable of the tenant.
        dedicated: tenants with a pool of their own, and its size. It is opened when it is used.
        max_dedicated: dedicated pools that may be open at once. For one more the least recently
            used idle one is closed; if none is idle, the checkout goes to the shared pool.
        idle_seconds: a dedicated pool unused for so long is closed, within twice that time.
        timeout: seconds a checkout may take, or None for no limit.
        role: a database role that each transaction takes on (`SET LOCAL ROLE`), or None.
        name: `application_name` is `name:tenant`, 63 bytes at most.
        engine_options: for `create_async_engine`, for the engines made here.
        sessions: makes the sessions; by default with `expire_on_commit=False`, as asyncio needs it.

    Raises:
        ConfigurationError: for what cannot be.
    """

    def __init__(
        self,
        database: str | URL | AsyncEngine,
        *,
        size: int = 10,
        per_tenant: Cap = 3,
        dedicated: Mapping[str, int] | None = None,
        max_dedicated: int = 20,
        idle_seconds: float = 300.0,
        timeout: float | None = 5.0,
        role: str | None = None,
        name: str = "partywall",
        engine_options: Mapping[str, Any] | None = None,
        sessions: async_sessionmaker[AsyncSession] | None = None,
    ) -> None:
        _check_count("size", size)
        if not callable(per_tenant):
            _check_count("per_tenant", per_tenant)
        _check_count("max_dedicated", max_dedicated, least=0)
        _check_seconds("idle_seconds", idle_seconds)
        if timeout is not None:
            _check_seconds("timeout", timeout)
        if role == "":
            raise ConfigurationError("role must be a database role's name or None, got ''")
        self._per_tenant = per_tenant
        self._timeout = timeout
        self._name = name
        self._identities = Identities(role)
        self._sessions = sessions or async_sessionmaker(expire_on_commit=False)
        self._background = Background()
        self._closed = False
        engines = Engines(database, engine_options or {})
        self._shared = engines.shared(size)

        def open_pool(tenant: str, size: int) -> Pool:
            return engines.dedicated(size, application_name(name, tenant))

        self._dedicated = DedicatedPools(open_pool, max_dedicated, idle_seconds, self._background)
        for tenant, connections in (dedicated or {}).items():
            self.promote(tenant, connections)

    @asynccontextmanager
    async def connection(
        self, tenant: str | Tenant | None = None
    ) -> AsyncIterator[AsyncConnection]:
        """A connection whose transactions are the tenant's.

        The first statement begins one. The end of the block commits it, an exception rolls it back.
        `await connection.commit()` within the block is a commit; the next statement begins another
        transaction, the same tenant's.

        Args:
            tenant: whose; None for `current_tenant()`.

        Raises:
            NoTenant: `tenant` is None and nobody's request or job is running here.
            PoolTimeout: no connection in time.
            PoolsClosed: after `aclose()`.
            ConfigurationError: `tenant` can be no tenant's id, or `per_tenant` gave no number.
        """
        who = _tenant(tenant)
        pool, connection = await self._checkout(who)
        try:
            await self._identities.give(connection, who.id, application_name(self._name, who.id))
            yield connection
            await connection.commit()
        finally:
            # A task of its own: whoever cancels this one must not leave a slot behind.
            await asyncio.shield(self._background.start(pool.give_back(connection, who.id)))

    @asynccontextmanager
    async def session(self, tenant: str | Tenant | None = None) -> AsyncIterator[AsyncSession]:
        """An ORM session on such a connection, which it keeps to its end; the same rules hold.

        The end of the block flushes and commits. `commit()` and `rollback()` within it are real
        ones, and what comes after them is the same tenant's.
        """
        async with (
            self.connection(tenant) as connection,
            self._sessions(bind=connection) as session,
        ):
            yield session
            await session.commit()

    def promote(self, tenant: str, size: int) -> None:
        """Gives a tenant a pool of its own: its next checkouts go there, and those that wait, too.

        What runs finishes where it is. A tenant that has a pool of another size gets a new one.

        Args:
            tenant: its id.
            size: connections of the pool.

        Raises:
            ConfigurationError: `tenant` can be no id, or `size` no number of connections.
        """
        _check_count(f"the size of the dedicated pool of {tenant!r}", size)
        if self._dedicated.set(_tenant(tenant).id, size):
            self._shared.slots.send_away(tenant)

    def demote(self, tenant: str) -> None:
        """Takes a tenant's pool away: its next checkouts share, and those that wait, too.

        What runs finishes where it is; then the pool is closed. A tenant without one stays so.
        """
        self._dedicated.set(tenant, None)

    def stats(self) -> PoolStats:
        """How full the pools are now; an own pool that is being closed counts for its tenant."""
        pools = [self._shared, *self._dedicated.all()]
        tenants = {tenant for pool in pools for tenant in pool.slots.tenants()}
        return PoolStats(
            self._shared.use,
            {tenant: pool.use for tenant, pool in self._dedicated.open.items()},
            {tenant: _use(tenant, pools) for tenant in sorted(tenants)},
        )

    async def aclose(self) -> None:
        """Refuses who waits and who comes, waits for connections in use, and closes all.

        Not within a block of `connection()` or `session()`, for which it would wait.
        """
        if not self._closed:
            self._closed = True
            self._dedicated.close_all()
            self._background.start(self._shared.close())
        await self._background.finished()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _checkout(self, tenant: Tenant) -> tuple[Pool, AsyncConnection]:
        cap = self._cap(tenant)
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                while True:
                    if self._closed:
                        raise PoolsClosed("these TenantPools are closed")
                    pool = self._dedicated.of(tenant.id) or self._shared
                    connection = await pool.connect(
                        tenant.id, cap if pool is self._shared else pool.size
                    )
                    if connection is not None:
                        return pool, connection
        except TimeoutError as exc:
            if not deadline.expired() or self._timeout is None:
                raise
            raise self._late(tenant.id, self._timeout) from exc

    def _late(self, tenant: str, seconds: float) -> PoolTimeout:
        pools = [self._shared, *self._dedicated.all()]
        mine, pool = _use(tenant, pools), (self._dedicated.open.get(tenant) or self._shared).use
        return PoolTimeout(
            f"tenant {tenant!r} got no connection within {seconds:g} s: it has {mine.in_use} and"
            f" {mine.waiting} more of its checkouts wait; {pool.in_use} of its pool's {pool.size}"
            " are in use",
            tenant,
            seconds,
        )

    def _cap(self, tenant: Tenant) -> int:
        if not callable(self._per_tenant):
            return self._per_tenant
        cap = self._per_tenant(tenant)
        _check_count(f"what per_tenant gives for {tenant.id!r}", cap)
        return cap


def _use(tenant: str, pools: list[Pool]) -> TenantUse:
    uses = [pool.slots.use_of(tenant) for pool in pools]
    return TenantUse(sum(in_use for in_use, _ in uses), sum(waiting for _, waiting in uses))


def _tenant(tenant: str | Tenant | None) -> Tenant:
    who = current_tenant() if tenant is None else tenant
    who = Tenant(who) if isinstance(who, str) else who
    if not isinstance(who, Tenant) or not is_tenant_id(who.id):
        raise ConfigurationError(
            "expected a tenant's id (1 to 128 letters, digits, '.', '_' or '-', a letter or digit"
            f" first) or a Tenant with one, got {who!r}"
        )
    return who


def _check_count(what: str, count: object, least: int = 1) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < least:
        raise ConfigurationError(f"{what} must be a whole number from {least}, got {count!r}")


def _check_seconds(what: str, seconds: object) -> None:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds > 0:
        raise ConfigurationError(f"{what} must be a number of seconds above 0, got {seconds!r}")
