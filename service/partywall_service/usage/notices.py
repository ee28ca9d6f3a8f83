"""Notices of what an operator should know, written where they happen and sent from there.

They are an outbox: a notice is written in the transaction that finds its cause, so none is lost
and none is told of what did not happen. A job sends each to the webhooks (`webhooks`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args
from uuid import uuid4

from sqlalchemy import Select, case, delete, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from partywall_service.ledger.base import Store
from partywall_service.ledger.tables import notices

Kind = Literal[
    "tenant.noisy", "tenant.victim", "quota.threshold", "sidecar.degraded", "sidecar.recovered"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

Status = Literal["pending", "delivered", "failed", "unsent"]
STATUSES: tuple[Status, ...] = get_args(Status)

Outcome = Literal["delivered", "failed"]

TRIED_FOR = timedelta(hours=25)
"""How long a notice is tried to be delivered, or waits for somebody to deliver it."""

KEPT = timedelta(days=30)

MOST_DUE = 500
"""Notices that one look gives to the jobs, those first that were never tried."""

QUIET = timedelta(minutes=15)
"""How long a state must be over before it is told again when it comes back."""

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('partywall.notices', 0))")


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told.

    Attributes:
        kind: what happened.
        at: when it was found.
        tenant: to whom; None where it is nobody in particular.
        data: more of it.
        id: it stays the same however often it is sent.
    """

    kind: Kind
    at: datetime
    tenant: str | None
    data: Mapping[str, Any]
    id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def body(self) -> dict[str, Any]:
        """As webhooks get it."""
        return {
            "id": self.id,
            "type": self.kind,
            "at": written(self.at),
            "tenant": self.tenant,
            "data": dict(self.data),
        }


@dataclass(frozen=True, slots=True)
class Kept:
    """A notice, and what became of it.

    Attributes:
        id: the notice's.
        at: when it was written.
        kind: what happened.
        tenant: to whom.
        body: as webhooks get it.
        status: `pending` while it is tried; `delivered` to every webhook that is not gone;
            `failed`; `unsent` where there are no webhooks, or nobody tried for `TRIED_FOR`.
        attempts: tries so far.
        delivered_at: when the last webhook took it.
        error: what the last try came to, where it failed.
        settled: webhooks that are not asked again: digests of their URLs, each with why.
    """

    id: str
    at: datetime
    kind: str
    tenant: str | None
    body: Mapping[str, Any]
    status: Status
    attempts: int
    delivered_at: datetime | None
    error: str | None
    settled: Sequence[str]


_c = notices.c

_IS_OLD = _c.at < func.now() - TRIED_FOR
_STATUS = case(
    (_c.delivered_at.is_not(None), "delivered"),
    (_c.failed_at.is_not(None) | _IS_OLD, case((_c.attempts > 0, "failed"), else_="unsent")),
    else_="pending",
).label("status")

# In the order of Kept's attributes.
_SELECT: Select[Any] = select(
    _c.id,
    _c.at,
    _c.kind,
    _c.tenant,
    _c.body,
    _STATUS,
    _c.attempts,
    _c.delivered_at,
    _c.error,
    _c.settled,
)


async def write(connection: AsyncConnection, new: Sequence[Notice]) -> None:
    """Writes notices in the caller's transaction; one whose id is there already, not again."""
    if new:
        rows = [
            {"id": one.id, "at": one.at, "kind": one.kind, "tenant": one.tenant, "body": one.body}
            for one in new
        ]
        await connection.execute(upsert(notices).on_conflict_do_nothing(), rows)


class NoticeStore(Store):
    """The statements on notices. Any of them raises `LedgerUnavailable` without PostgreSQL."""

    async def write_unless_told(self, notice: Notice, **same: str) -> bool:
        """Writes a notice unless one of its kind with the same data was written lately.

        Args:
            notice: what to tell.
            same: entries of its data that must be the same; `QUIET` is lately.
        """
        told = select(_c.id).where(
            _c.kind == notice.kind,
            _c.at > notice.at - QUIET,
            *(_c.body["data"][name].astext == value for name, value in same.items()),
        )
        async with self._changing() as connection:
            await connection.execute(_LOCK)  # two sidecars may find the same at once
            if (await connection.execute(told.limit(1))).first() is not None:
                return False
            await write(connection, [notice])
            return True

    async def find(self, notice_id: str) -> Kept | None:
        """A notice; None when it is kept no more."""
        query = _SELECT.where(_c.id == notice_id)
        async with self._reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else Kept(*row)

    async def list(
        self, *, after: tuple[datetime, str] | None = None, limit: int
    ) -> Sequence[Kept]:
        """The newest first, at most `limit`.

        Args:
            after: instant and id of the last one already seen.
            limit: how many at most.
        """
        query = _SELECT.order_by(_c.at.desc(), _c.id.desc()).limit(limit)
        if after is not None:
            query = query.where(tuple_(_c.at, _c.id) < after)
        async with self._reading() as connection:
            return [Kept(*row) for row in await connection.execute(query)]

    async def due(self) -> Sequence[str]:
        """Ids of notices to be delivered, those first that were never tried."""
        query = (
            select(_c.id)
            .where(_c.delivered_at.is_(None), _c.failed_at.is_(None), ~_IS_OLD)
            .order_by(_c.attempts, _c.at)
            .limit(MOST_DUE)
        )
        async with self._reading() as connection:
            return list(await connection.scalars(query))

    async def tried(
        self,
        notice_id: str,
        *,
        settled: Collection[str],
        error: str | None,
        outcome: Outcome | None,
    ) -> None:
        """Notes what a try came to.

        Args:
            notice_id: whose.
            settled: all webhooks that are not asked again.
            error: why it was not delivered to some.
            outcome: None while it is to be tried again.
        """
        done = update(notices).where(_c.id == notice_id)
        done = done.values(
            attempts=_c.attempts + 1,
            settled=list(settled),
            error=error,
        )
        if outcome is not None:
            done = done.values({f"{outcome}_at": func.clock_timestamp()})
        async with self._changing() as connection:
            await connection.execute(done)

    async def leave(self) -> None:
        """Notes that those never tried are for whoever looks: there are no webhooks."""
        untried = (_c.delivered_at.is_(None), _c.failed_at.is_(None), _c.attempts == 0)
        left = update(notices).where(*untried).values(failed_at=func.clock_timestamp())
        async with self._changing() as connection:
            await connection.execute(left)

    async def counts(self) -> Mapping[tuple[str, str], int]:
        """How many there are of the last day, by kind and status."""
        query = (
            select(_c.kind, _STATUS, func.count())
            .where(_c.at > func.now() - timedelta(days=1))
            .group_by(_c.kind, _STATUS)
        )
        async with self._reading() as connection:
            rows = await connection.execute(query)
            return {(kind, status): number for kind, status, number in rows}

    async def forget(self) -> None:
        """Removes those that are kept no longer."""
        async with self._changing() as connection:
            await connection.execute(delete(notices).where(_c.at < func.now() - KEPT))


def written(instant: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
