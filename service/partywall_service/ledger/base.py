"""What every part of the ledger stands on: how it reads, and how a change becomes a record."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Column, ColumnElement, Text, any_, bindparam, func, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from partywall_service.ledger import tables
from partywall_service.ledger.changes import CHANNEL, Change
from partywall_service.ledger.errors import translated

TENANT_ROLE = "partywall_tenant"
"""The role that row-level security binds; the migrations make it and say what it may read."""

# Until the transaction ends: one tenant's rows, through a role that cannot see others. The schema
# is pinned first, because a search path of "$user" would follow the role.
_BECOME_TENANT = text(
    "SELECT set_config('app.tenant_id', :tenant, true),"
    " set_config('search_path', quote_ident(current_schema()), true),"
    f" set_config('role', '{TENANT_ROLE}', true)"
)

# The audit line and the notices in one round trip.
_RECORD = select(
    func.pg_notify(CHANNEL, func.unnest(bindparam("notices", type_=ARRAY(Text))))
).add_cte(
    insert(tables.audit)
    .values(
        actor=bindparam("actor"),
        action=bindparam("action"),
        tenant=bindparam("tenant"),
        detail=bindparam("detail"),
    )
    .cte("line")
)


def any_of(column: Column[str]) -> ColumnElement[bool]:
    """`column = ANY(:ids)`: the same statement, and so the same plan, for any number of ids."""
    return column == any_(bindparam("ids", type_=ARRAY(column.type)))


class Store:
    """Transactions on one engine; its subclasses hold the statements of one subject each."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # A single SELECT needs no BEGIN and no COMMIT: two round trips fewer.
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def _reading(self, scope: str | None = None) -> AsyncIterator[AsyncConnection]:
        """For one statement; with a `scope`, under row-level security as that tenant."""
        with translated():
            if scope is None:
                async with self._single.connect() as connection:
                    yield connection
            else:
                async with self._engine.begin() as connection:
                    await connection.execute(_BECOME_TENANT, {"tenant": scope})
                    yield connection

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: the change, its audit line and its notices, or none of them."""
        with translated():
            async with self._engine.begin() as connection:
                yield connection

    @staticmethod
    async def _record(
        connection: AsyncConnection,
        *changes: Change,
        actor: str,
        action: str,
        tenant: str | None,
        detail: Mapping[str, Any],
    ) -> None:
        """Writes the audit line of what this transaction changed, and tells every sidecar."""
        await connection.execute(
            _RECORD,
            {
                "actor": actor,
                "action": action,
                "tenant": tenant,
                "detail": dict(detail),
                "notices": [change.payload for change in changes],
            },
        )
