"""One statement that requests wait for, on a connection of its own."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from psycopg import AsyncConnection
from sqlalchemy import Select, event
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.ledger.errors import translated


class Lookups:
    """Asks one statement again and again, at a sixth of what it costs through the pool.

    The pool asks a connection whether it lives before each use, and SQLAlchemy's own work is
    several times the driver's. Here a connection is found dead by using it, and ends with the
    engine.

    Args:
        engine: connects, and says how the statement is written.
        statement: with parameters by name.
    """

    def __init__(self, engine: AsyncEngine, statement: Select[Any]) -> None:
        # A single SELECT needs no BEGIN and no COMMIT: two round trips fewer.
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._text = str(statement.compile(dialect=engine.dialect))
        self._connection: AsyncConnection[Any] | None = None
        self._connecting = asyncio.Lock()
        event.listen(engine.sync_engine, "engine_disposed", self._drop)

    async def rows(self, parameters: Mapping[str, object]) -> list[tuple[Any, ...]]:
        """The statement's rows. After any failure the next call has a connection of its own.

        Raises:
            LedgerUnavailable: there is no connection to be had.
            ValueError: PostgreSQL can store no such text.
            psycopg.Error: the connection broke, or the statement failed; asking once more by the
                pool's tells which.
        """
        try:
            with translated():
                connection = self._connection or await self._connected()
                cursor = await connection.cursor(binary=True).execute(self._text, parameters)
                return await cursor.fetchall()
        except BaseException:
            self._drop()
            raise

    async def _connected(self) -> AsyncConnection[Any]:
        async with self._connecting:
            if self._connection is None:
                pooled = await (await self._engine.connect()).get_raw_connection()
                self._connection = cast("AsyncConnection[Any]", pooled.driver_connection)
                pooled.detach()
            return self._connection

    def _drop(self, _: object = None) -> None:
        if self._connection is not None:
            self._connection.pgconn.finish()
            self._connection = None
