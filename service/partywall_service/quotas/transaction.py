"""One transaction of quotas: the locks, what they guard, and what came of it.

Every change of a tenant's quotas happens under one advisory lock of that tenant, taken in one
order, so that the levels, reservations and operations read after it are the last word: what is
written at the end of the transaction is arithmetic on them (`book.py`), by PostgreSQL's own clock.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from partywall_service.quotas.book import Book
from partywall_service.quotas.model import (
    Entry,
    Held,
    Level,
    Operation,
    Outcome,
    Reservation,
    Settle,
)

KEPT_BY_KEY = timedelta(hours=48)
"""For how long a repeated idempotency key gets the first answer; 24 hours are promised."""

KEPT_FOR_RETRIES = timedelta(minutes=10)
"""For how long an operation can be asked for whose answer was lost, where no key of the caller's
names it."""

# The count binds the clock to the moment after the last lock was taken.
_LOCK = text("""
    SELECT clock_timestamp(), locked.keys
    FROM (
        SELECT count(pg_advisory_xact_lock(key)) AS keys
        FROM (
            SELECT DISTINCT hashtextextended('partywall.quotas:' || tenant, 0) AS key
            FROM unnest(CAST(:tenants AS text[])) AS tenant
            ORDER BY key
        ) AS ordered
    ) AS locked
""")
_KNOWN = text("""
    SELECT tenant, id, fingerprint, answer FROM quota_operations
    WHERE (tenant, id) IN (SELECT * FROM unnest(CAST(:tenants AS text[]), CAST(:ids AS text[])))
""")
_LEVELS = text("""
    SELECT tenant, resource, used, reserved, version, per, period_start, crossed, crossed_at,
        refills
    FROM quota_levels WHERE tenant = ANY(CAST(:tenants AS text[]))
""")
_NAMED = text("""
    SELECT tenant, id, items, expires_at, status, taken, answer FROM quota_reservations
    WHERE (tenant, id) IN (SELECT * FROM unnest(CAST(:tenants AS text[]), CAST(:ids AS text[])))
""")
_EXPIRE = text("""
    UPDATE quota_reservations SET status = 'expired', settled_at = :now
    WHERE tenant = ANY(CAST(:tenants AS text[])) AND status = 'held' AND expires_at <= :now
    RETURNING tenant, id, items
""")
_WRITE_LEVELS = text("""
    INSERT INTO quota_levels AS old
        (tenant, resource, used, reserved, version, per, period_start, crossed, crossed_at,
        refills)
    SELECT * FROM unnest(
        CAST(:tenant AS text[]), CAST(:resource AS text[]), CAST(:used AS bigint[]),
        CAST(:reserved AS bigint[]), CAST(:version AS bigint[]), CAST(:per AS text[]),
        CAST(:period_start AS timestamptz[]), CAST(:crossed AS int[]),
        CAST(:crossed_at AS timestamptz[]), CAST(:refills AS bigint[])
    )
    ON CONFLICT (tenant, resource) DO UPDATE SET
        used = excluded.used, reserved = excluded.reserved, version = excluded.version,
        per = excluded.per, period_start = excluded.period_start, crossed = excluded.crossed,
        crossed_at = excluded.crossed_at, refills = excluded.refills
""")
_WRITE_ENTRIES = text("""
    INSERT INTO quota_ledger
        (tenant, at, resource, operation, delta, used, actor, idempotency_key, reason)
    SELECT tenant, :now, resource, operation, delta, used, actor, key, reason
    FROM unnest(
        CAST(:tenant AS text[]), CAST(:resource AS text[]), CAST(:operation AS text[]),
        CAST(:delta AS bigint[]), CAST(:used AS bigint[]), CAST(:actor AS text[]),
        CAST(:key AS text[]), CAST(:reason AS text[])
    ) WITH ORDINALITY
        AS entry (tenant, resource, operation, delta, used, actor, key, reason, place)
    ORDER BY place
""")
_WRITE_OPERATIONS = text("""
    INSERT INTO quota_operations (tenant, id, fingerprint, answer, kept_until)
    SELECT * FROM unnest(
        CAST(:tenant AS text[]), CAST(:id AS text[]), CAST(:fingerprint AS bytea[]),
        CAST(:answer AS text[]), CAST(:kept_until AS timestamptz[])
    )
""")
_WRITE_RESERVATIONS = text("""
    INSERT INTO quota_reservations AS old
        (tenant, id, items, expires_at, status, taken, answer, settled_at)
    SELECT tenant, id, CAST(items AS jsonb), expires_at, status, CAST(taken AS jsonb), answer,
        CASE WHEN status <> 'held' THEN CAST(:now AS timestamptz) END
    FROM unnest(
        CAST(:tenant AS text[]), CAST(:id AS text[]), CAST(:items AS text[]),
        CAST(:expires_at AS timestamptz[]), CAST(:status AS text[]), CAST(:taken AS text[]),
        CAST(:answer AS text[])
    ) AS new (tenant, id, items, expires_at, status, taken, answer)
    ON CONFLICT (tenant, id) DO UPDATE SET
        status = excluded.status, taken = excluded.taken, answer = excluded.answer,
        settled_at = excluded.settled_at
""")
_WRITE_CROSSINGS = text("""
    INSERT INTO audit (at, actor, action, tenant, detail)
    SELECT :now, 'partywall', 'quota.crossed', tenant, CAST(detail AS jsonb)
    FROM unnest(CAST(:tenant AS text[]), CAST(:detail AS text[])) WITH ORDINALITY
        AS crossing (tenant, detail, place)
    ORDER BY place
""")
_answers = msgspec.json.Decoder(Outcome)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Answered:
    """An operation that was answered before.

    Attributes:
        fingerprint: of what was asked.
        outcome: what it was answered.
    """

    fingerprint: bytes
    outcome: Outcome


class Transaction:
    """A transaction that holds the locks of some tenants.

    Attributes:
        now: PostgreSQL's clock, read when all locks were held.
        books: of each tenant, with what has expired given back.
        known: operations of the group that were answered before, by tenant and id.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._answered: list[tuple[Operation, Outcome]] = []
        self.now: datetime
        self.books: dict[str, Book] = {}
        self.known: dict[tuple[str, str], Answered] = {}

    async def load(self, tenants: Collection[str], operations: Sequence[Operation]) -> None:
        """Takes the locks and reads what the operations stand on."""
        ordered = sorted(tenants)
        self.now, _ = (await self._run(_LOCK, tenants=ordered)).one()
        if operations:
            ids = {"tenants": [one.tenant for one in operations], "ids": [o.id for o in operations]}
            for tenant, name, fingerprint, answer in await self._run(_KNOWN, **ids):
                self.known[tenant, name] = Answered(fingerprint, _answers.decode(answer))
        expired = await self._run(_EXPIRE, tenants=ordered, now=self.now)
        levels: dict[str, dict[str, Level]] = {tenant: {} for tenant in ordered}
        for tenant, resource, *level in await self._run(_LEVELS, tenants=ordered):
            levels[tenant][resource] = Level(*level)
        reservations = await self._reservations(operations)
        for tenant in ordered:
            self.books[tenant] = Book(self.now, levels[tenant], reservations.get(tenant))
        for tenant, name, items in expired:
            self.books[tenant].expire(name, _held(items))

    def answered(self, operation: Operation, outcome: Outcome) -> None:
        """The operation is to be kept with its answer, so that its repetition gets it."""
        self._answered.append((operation, outcome))
        self.known[operation.tenant, operation.id] = Answered(operation.fingerprint, outcome)

    async def write(self) -> None:
        """Writes what the books changed."""
        await self._write_levels()
        await self._write_reservations()
        await self._write_entries()
        await self._write_crossings()
        if self._answered:
            await self._run(
                _WRITE_OPERATIONS,
                tenant=[one.tenant for one, _ in self._answered],
                id=[one.id for one, _ in self._answered],
                fingerprint=[one.fingerprint for one, _ in self._answered],
                answer=[_encode(outcome).decode() for _, outcome in self._answered],
                kept_until=[
                    self.now + (KEPT_BY_KEY if one.kept else KEPT_FOR_RETRIES)
                    for one, _ in self._answered
                ],
            )

    async def _reservations(
        self, operations: Sequence[Operation]
    ) -> Mapping[str, dict[str, Reservation]]:
        named = [
            (one.tenant, one.what.reservation) for one in operations if isinstance(one.what, Settle)
        ]
        found: dict[str, dict[str, Reservation]] = {}
        if named:
            ids = {"tenants": [tenant for tenant, _ in named], "ids": [name for _, name in named]}
            for tenant, name, items, ends, status, taken, answer in await self._run(_NAMED, **ids):
                outcome = _answers.decode(answer) if answer else None
                reservation = Reservation(_held(items), ends, status, taken, outcome)
                found.setdefault(tenant, {})[name] = reservation
        return found

    async def _write_levels(self) -> None:
        rows = [
            (tenant, resource, book.levels[resource])
            for tenant, book in self.books.items()
            for resource in book.changes.levels
        ]
        if rows:
            levels = [level for _, _, level in rows]
            await self._run(
                _WRITE_LEVELS,
                tenant=[tenant for tenant, _, _ in rows],
                resource=[resource for _, resource, _ in rows],
                used=[level.used for level in levels],
                reserved=[level.reserved for level in levels],
                version=[level.version for level in levels],
                per=[level.per for level in levels],
                period_start=[level.period_start for level in levels],
                crossed=[level.crossed for level in levels],
                crossed_at=[level.crossed_at for level in levels],
                refills=[level.refills for level in levels],
            )

    async def _write_reservations(self) -> None:
        rows = [
            (tenant, name, book.reservations[name])
            for tenant, book in self.books.items()
            for name in book.changes.reservations
        ]
        if rows:
            those = [reservation for _, _, reservation in rows]
            await self._run(
                _WRITE_RESERVATIONS,
                now=self.now,
                tenant=[tenant for tenant, _, _ in rows],
                id=[name for _, name, _ in rows],
                items=[_encode(one.items).decode() for one in those],
                expires_at=[one.expires_at for one in those],
                status=[one.status for one in those],
                taken=[None if one.taken is None else _encode(one.taken).decode() for one in those],
                answer=[_encode(one.outcome).decode() if one.outcome else None for one in those],
            )

    async def _write_entries(self) -> None:
        rows: list[tuple[str, Entry]] = [
            (tenant, entry) for tenant, book in self.books.items() for entry in book.changes.entries
        ]
        if rows:
            entries = [entry for _, entry in rows]
            await self._run(
                _WRITE_ENTRIES,
                now=self.now,
                tenant=[tenant for tenant, _ in rows],
                resource=[entry.resource for entry in entries],
                operation=[entry.operation for entry in entries],
                delta=[entry.delta for entry in entries],
                used=[entry.used for entry in entries],
                actor=[entry.actor for entry in entries],
                key=[entry.key for entry in entries],
                reason=[entry.reason for entry in entries],
            )

    async def _write_crossings(self) -> None:
        rows = [
            (tenant, crossing)
            for tenant, book in self.books.items()
            for crossing in book.changes.crossings
        ]
        if rows:
            await self._run(
                _WRITE_CROSSINGS,
                now=self.now,
                tenant=[tenant for tenant, _ in rows],
                detail=[_encode(crossing).decode() for _, crossing in rows],
            )

    async def _run(self, statement: Any, **parameters: Any) -> Any:  # noqa: ANN401 - SQLAlchemy's
        return await self._connection.execute(statement, parameters)


def _held(items: Mapping[str, Any]) -> dict[str, Held]:
    return msgspec.convert(items, dict[str, Held])


def tenants_of(operations: Iterable[Operation]) -> set[str]:
    """Whose locks operations need."""
    return {operation.tenant for operation in operations}
