"""Engines for pools: the host's own, or made from its URL."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from partywall.errors import ConfigurationError
from partywall.pools.pool import Pool
from partywall.pools.rls import watch_transactions


class Engines:
    """Makes pools of one database.

    Args:
        database: its URL, or an engine.
        options: for `create_async_engine`; the sizes of pools are not among them.

    Raises:
        ConfigurationError: it is no PostgreSQL, or the options name a pool's size.
    """

    def __init__(self, database: str | URL | AsyncEngine, options: Mapping[str, Any]) -> None:
        taken = {"pool_size", "max_overflow", "poolclass", "pool", "isolation_level"} & set(options)
        if taken:
            raise ConfigurationError(
                f"engine_options may not have {', '.join(sorted(taken))}: pools have the sizes that"
                " TenantPools is given, and a tenant is set for a transaction"
            )
        self._options = dict(options)
        self._given = database if isinstance(database, AsyncEngine) else None
        self._url = _url(database.url if isinstance(database, AsyncEngine) else database)

    def shared(self, size: int) -> Pool:
        """The pool of everybody: of the engine that was given, or of a new one.

        Raises:
            ConfigurationError: the given engine's own pool has fewer connections.
        """
        if self._given is None:
            return self._made(size, self._options)
        own = self._given.pool
        # A pool_size of 0 is no limit.
        if isinstance(own, QueuePool) and 0 < own.size() < size:
            raise ConfigurationError(
                f"the engine must have a pool_size of at least TenantPools' size={size}, got"
                f" {own.size()}: who waits in its own pool does not wait for a fair turn"
            )
        watch_transactions(self._given)
        return Pool(self._given, size, owned=False)

    def dedicated(self, size: int, application_name: str) -> Pool:
        """One tenant's pool, whose connections bear its name also while nobody uses them."""
        arguments = dict(self._options.get("connect_args", {}))
        if self._url.get_driver_name() == "asyncpg":
            settings = arguments.get("server_settings", {})
            arguments["server_settings"] = {**settings, "application_name": application_name}
        else:
            arguments["application_name"] = application_name
        return self._made(size, {**self._options, "connect_args": arguments})

    def _made(self, size: int, options: Mapping[str, Any]) -> Pool:
        engine = create_async_engine(self._url, pool_size=size, max_overflow=0, **options)
        watch_transactions(engine)
        return Pool(engine, size)


def _url(database: str | URL) -> URL:
    try:
        url = make_url(database)
    except ArgumentError as exc:
        # Without the URL, which has a password.
        raise ConfigurationError("expected a database URL such as postgresql+psycopg://…") from exc
    if url.get_backend_name() != "postgresql":
        raise ConfigurationError(
            f"expected a PostgreSQL URL (postgresql+psycopg:// or postgresql+asyncpg://), got"
            f" {url.drivername}://"
        )
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
