"""Quotas in PostgreSQL, as the rest of the sidecar asks for them."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import select, text

from partywall_service.ledger.base import Store
from partywall_service.ledger.tables import quota_ledger
from partywall_service.quotas.book import Book
from partywall_service.quotas.model import Level, Operation
from partywall_service.quotas.transaction import Transaction

KEPT_SETTLED = timedelta(hours=48)
"""For how long a settled reservation answers a repetition."""

MAX_SWEPT = 10_000
"""Rows that one statement of the sweep reads or removes, so that it holds nobody up."""

_READ = text("""
    SELECT clock_timestamp(), EXISTS (
        SELECT FROM quota_reservations
        WHERE tenant = :tenant AND status = 'held' AND expires_at <= clock_timestamp()
    ), resource, used, reserved, version, per, period_start, crossed, crossed_at,
        refills
    FROM (SELECT) AS one LEFT JOIN quota_levels ON tenant = :tenant
""")
_DUE = text("""
    SELECT DISTINCT tenant FROM quota_reservations
    WHERE status = 'held' AND expires_at <= clock_timestamp() LIMIT :limit
""")
_FORGET_OPERATIONS = text("""
    DELETE FROM quota_operations WHERE (tenant, id) IN (
        SELECT tenant, id FROM quota_operations
        WHERE kept_until < clock_timestamp() LIMIT :limit
    )
""")
_FORGET_RESERVATIONS = text("""
    DELETE FROM quota_reservations WHERE (tenant, id) IN (
        SELECT tenant, id FROM quota_reservations
        WHERE settled_at < clock_timestamp() - CAST(:kept AS interval) LIMIT :limit
    )
""")


class LedgerEntry(msgspec.Struct, frozen=True):
    """One line of a tenant's ledger, as it is read.

    Attributes:
        id: rises with each line.
        at: when, by PostgreSQL's clock.
        resource: whose level.
        operation: what changed it.
        delta: by how much.
        used: the level after it.
        actor: who asked for it.
        idempotency_key: the caller's.
        reason: why.
    """

    id: int
    at: datetime
    resource: str
    operation: str
    delta: int
    used: int
    actor: str
    idempotency_key: str | None
    reason: str | None


# In the order of LedgerEntry's attributes.
_ENTRY_COLUMNS = (
    quota_ledger.c.id,
    quota_ledger.c.at,
    quota_ledger.c.resource,
    quota_ledger.c.operation,
    quota_ledger.c.delta,
    quota_ledger.c.used,
    quota_ledger.c.actor,
    quota_ledger.c.idempotency_key,
    quota_ledger.c.reason,
)


class QuotaStore(Store):
    """The statements on quotas.

    Any method raises `LedgerUnavailable` when PostgreSQL cannot answer.
    """

    @asynccontextmanager
    async def changing(
        self, tenants: Collection[str], operations: Sequence[Operation] = ()
    ) -> AsyncIterator[Transaction]:
        """A transaction under the locks of `tenants`; it writes and commits when the block ends."""
        async with self._changing() as connection:
            transaction = Transaction(connection)
            await transaction.load(tenants, operations)
            yield transaction
            await transaction.write()

    async def read(self, tenant: str, *, scope: str | None = None) -> Book:
        """A tenant's levels as of now, to look at; with a `scope`, as that tenant may see them."""
        async with self._reading(scope) as connection:
            rows = (await connection.execute(_READ, {"tenant": tenant})).all()
        now, is_due = rows[0][:2]
        if is_due:
            # What a reservation holds that has expired and was not swept yet goes back first.
            async with self.changing([tenant]) as transaction:
                return transaction.books[tenant]
        return Book(now, {row[2]: Level(*row[3:]) for row in rows if row[2] is not None})

    async def list_entries(
        self,
        tenant: str,
        *,
        resource: str | None = None,
        before: int | None = None,
        limit: int,
        scope: str | None = None,
    ) -> list[LedgerEntry]:
        """Lines of a tenant's ledger, newest first.

        Args:
            tenant: whose.
            resource: of one resource; None for all.
            before: the id of the last line already seen.
            limit: how many at most.
            scope: the tenant as whom to read, under row-level security.
        """
        query = select(*_ENTRY_COLUMNS).where(quota_ledger.c.tenant == tenant)
        if resource is not None:
            query = query.where(quota_ledger.c.resource == resource)
        if before is not None:
            query = query.where(quota_ledger.c.id < before)
        async with self._reading(scope) as connection:
            rows = await connection.execute(query.order_by(quota_ledger.c.id.desc()).limit(limit))
            return [LedgerEntry(*row) for row in rows]

    async def due(self) -> list[str]:
        """Tenants with reservations that have expired and are not given back yet."""
        async with self._reading() as connection:
            return list(await connection.scalars(_DUE, {"limit": MAX_SWEPT}))

    async def forget(self) -> int:
        """Removes some of the operations and reservations that no repetition asks for any more.

        Returns:
            How many; there may be more when it is not 0.
        """
        async with self._changing() as connection:
            limit = {"limit": MAX_SWEPT}
            operations = await connection.execute(_FORGET_OPERATIONS, limit)
            reservations = await connection.execute(
                _FORGET_RESERVATIONS, {**limit, "kept": KEPT_SETTLED}
            )
            return operations.rowcount + reservations.rowcount
