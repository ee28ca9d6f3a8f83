"""Connections to PostgreSQL, none of which can be waited for without end."""

import re
from typing import Any

from psycopg import AsyncConnection, Error, OperationalError, ProgrammingError
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

CONNECT_TIMEOUT = 2
"""Seconds to wait for a connection (libpq knows whole seconds, and honours no fewer than 2)."""

STATEMENT_TIMEOUT = 5.0
"""Seconds after which PostgreSQL itself gives up on a statement of the sidecar's."""

POOL_SIZE = 5
POOL_OVERFLOW = 10
POOL_TIMEOUT = 3.0
"""Seconds a call waits for one of the pool's connections before the ledger is unavailable."""

_GRACE = 1.0
"""Seconds beyond a statement's own time before the server counts as gone."""

_CANCEL_TIMEOUT = 0.5
"""Seconds the server has to take a request to cancel."""

_SCHEME = re.compile(r"^postgres(ql)?(\+\w+)?://")


class BoundedConnection(AsyncConnection[Any]):
    """A connection on which every wait has an end.

    `statement_timeout` is kept by the server, so it is no help against a server that is frozen or
    behind a dead network; there the driver alone would wait for ever.
    """

    deadline = STATEMENT_TIMEOUT + _GRACE

    async def wait(
        self,
        gen: PQGen[RV],
        interval: float = 0.1,
        timeout: float | None = None,  # noqa: ASYNC109 - the driver's own signature
    ) -> RV:
        """As the driver's own, but over after `deadline` seconds if `timeout` names no other."""
        if timeout is not None:
            return await super().wait(gen, interval, timeout)
        try:
            return await super().wait(gen, interval, self.deadline)
        except OperationalError as error:
            if self.closed or self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            # An answer may still come, and the next statement would take it for its own.
            self.pgconn.finish()
            raise OperationalError(f"no answer within {self.deadline:g} s") from error

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - as above
        """As the driver's own, but a server that cannot even be asked to stop is left at once.

        The driver asks when a task is cancelled in the middle of a statement, and would keep the
        task for ten seconds if a frozen server answers nothing.
        """
        try:
            await super().cancel_safe(timeout=min(timeout, _CANCEL_TIMEOUT))
        except (Error, OSError):
            self.pgconn.finish()
            raise


def connection_parameters(
    database_url: str, *, application: str = "partywall", statement_timeout: float | None = None
) -> dict[str, Any]:
    """What psycopg's `connect` is given for a URL; whatever the URL itself says wins.

    libpq reads the URL, so every form it knows works: unix sockets, several hosts, TLS, services.

    Args:
        database_url: `postgresql://`, `postgres://` or `postgresql+psycopg://`.
        application: the name shown in `pg_stat_activity`.
        statement_timeout: seconds, kept by the server; None leaves the server's own.

    Raises:
        ValueError: it is no such URL.
    """
    try:
        given = conninfo_to_dict(_SCHEME.sub("postgresql://", database_url))
    except ProgrammingError:  # its text quotes the URL, and so perhaps a password
        raise ValueError(
            "expected a database URL such as postgresql://user:password@host:5432/database"
        ) from None
    settings = ["-c timezone=UTC"]
    if statement_timeout is not None:
        settings.append(f"-c statement_timeout={round(statement_timeout * 1000)}")
    return {
        "connect_timeout": CONNECT_TIMEOUT,
        "fallback_application_name": application,
        **given,
        # The server obeys the last of two, so the URL's own options come last.
        "options": " ".join([*settings, str(given.get("options") or "")]).strip(),
    }


def create_ledger_engine(
    database_url: str, *, statement_timeout: float = STATEMENT_TIMEOUT
) -> AsyncEngine:
    """A pool of connections; nothing is opened before the first call needs it.

    Args:
        database_url: as for `connection_parameters`.
        statement_timeout: seconds a statement may take.

    Raises:
        ValueError: the URL cannot be read.
    """
    parameters = connection_parameters(database_url, statement_timeout=statement_timeout)

    class Connection(BoundedConnection):
        deadline = statement_timeout + _GRACE

    async def connect() -> BoundedConnection:
        return await Connection.connect(**parameters)

    return create_async_engine(
        "postgresql+psycopg://",
        async_creator=connect,
        # The ledger's statements lock what they read before they change it, and after the wait
        # must see what the other transaction left; a server's stricter default would fail them.
        isolation_level="READ COMMITTED",
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=POOL_TIMEOUT,
        pool_pre_ping=True,  # a restarted PostgreSQL costs a reconnect, not a failed call
        hide_parameters=True,  # token digests and people's names have no place in a log
    )
