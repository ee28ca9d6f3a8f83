"""One tenant's exceptions to its tier. What has expired is gone, by PostgreSQL's clock."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import ScalarSelect, delete, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from partywall_service.ledger.base import Store
from partywall_service.ledger.changes import Change
from partywall_service.ledger.errors import TenantMissing
from partywall_service.ledger.records import OverrideKind, OverrideRecord, OverrideValue
from partywall_service.ledger.tables import overrides, tenants

UNEXPIRED = or_(overrides.c.expires_at.is_(None), overrides.c.expires_at > func.now())

# In the order of OverrideRecord's attributes.
_COLUMNS = (
    overrides.c.tenant,
    overrides.c.kind,
    overrides.c.name,
    overrides.c.value,
    overrides.c.expires_at,
    overrides.c.reason,
    overrides.c.author,
    overrides.c.created_at,
)


class Overrides(Store):
    """The statements on overrides."""

    async def put_override(
        self,
        tenant: str,
        kind: OverrideKind,
        name: str,
        value: OverrideValue,
        *,
        expires_at: datetime | None,
        reason: str,
        author: str,
    ) -> OverrideRecord:
        """Gives the tenant an exception, in place of one of the same kind and name.

        `author` is also whom the audit log names. `expires_at` must say its UTC offset. Every call
        is a decision of its own, recorded as such, with a `created_at` of its own.

        Raises:
            TenantMissing: the tenant is not registered.
            LedgerUnavailable: PostgreSQL cannot answer now.
            ValueError: the kind is none, the instant is naive, or some text cannot be stored.
        """
        if kind not in get_args(OverrideKind):
            raise ValueError(f"expected one of {get_args(OverrideKind)}, got {kind!r}")
        if expires_at is not None and expires_at.tzinfo is None:
            raise ValueError(f"expected an instant with its UTC offset, got {expires_at!r}")
        async with self._changing() as connection:
            # Held until the end, so the tenant cannot be deleted between this and the insert.
            registered = await connection.scalar(
                select(tenants.c.tenant)
                .where(tenants.c.tenant == tenant)
                .with_for_update(read=True, key_share=True)
            )
            if registered is None:
                raise TenantMissing(tenant)
            said = {
                "value": value,
                "expires_at": expires_at,
                "reason": reason,
                "author": author,
                "created_at": func.clock_timestamp(),
            }
            row = (
                await connection.execute(
                    upsert(overrides)
                    .values(tenant=tenant, kind=kind, name=name, **said)
                    .on_conflict_do_update(index_elements=overrides.primary_key, set_=said)
                    .returning(*_COLUMNS)
                )
            ).one()
            await self._record(
                connection,
                Change("tenant", tenant),
                actor=author,
                action="override.set",
                tenant=tenant,
                detail={
                    "kind": kind,
                    "name": name,
                    "value": value,
                    "expires_at": None if expires_at is None else expires_at.isoformat(),
                    "reason": reason,
                },
            )
            return OverrideRecord(*row)

    async def list_overrides(
        self,
        tenant: str,
        *,
        after: tuple[str, str] | None = None,
        limit: int,
        scope: str | None = None,
    ) -> list[OverrideRecord]:
        """The tenant's overrides that have not expired, by kind and name, at most `limit`.

        Args:
            tenant: whose; one that is not registered has none.
            after: the kind and name of the last one already seen.
            limit: how many at most.
            scope: a tenant id, to read as that tenant's own token may.
        """
        query = (
            select(*_COLUMNS)
            .where(overrides.c.tenant == tenant, UNEXPIRED)
            .order_by(overrides.c.kind, overrides.c.name)
            .limit(limit)
        )
        if after is not None:
            query = query.where(tuple_(overrides.c.kind, overrides.c.name) > after)
        async with self._reading(scope) as connection:
            return [OverrideRecord(*row) for row in await connection.execute(query)]

    async def delete_override(
        self, tenant: str, kind: OverrideKind, name: str, *, actor: str
    ) -> bool:
        """Ends an override; False, and nothing recorded, when there was none unexpired."""
        async with self._changing() as connection:
            ended = await connection.execute(
                delete(overrides).where(
                    overrides.c.tenant == tenant,
                    overrides.c.kind == kind,
                    overrides.c.name == name,
                    UNEXPIRED,
                )
            )
            if not ended.rowcount:
                return False
            await self._record(
                connection,
                Change("tenant", tenant),
                actor=actor,
                action="override.deleted",
                tenant=tenant,
                detail={"kind": kind, "name": name},
            )
            return True


def aggregated() -> ScalarSelect[Any]:
    """A tenant's unexpired overrides as one JSON column beside its row, for `from_json`."""
    fields = func.jsonb_build_array(*_COLUMNS[1:])
    return (
        select(func.jsonb_agg(fields, type_=overrides.c.value.type))
        .where(overrides.c.tenant == tenants.c.tenant, UNEXPIRED)
        .scalar_subquery()
    )


def from_json(tenant: str, rows: Sequence[Sequence[Any]] | None) -> tuple[OverrideRecord, ...]:
    """The records in a column of `aggregated`; PostgreSQL writes instants as RFC 3339."""
    return tuple(
        OverrideRecord(
            tenant,
            kind,
            name,
            value,
            None if expires_at is None else datetime.fromisoformat(expires_at),
            reason,
            author,
            datetime.fromisoformat(created_at),
        )
        for kind, name, value, expires_at, reason, author, created_at in rows or ()
    )
