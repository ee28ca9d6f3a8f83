"""The audit log: every change an admin or a host app made. Append only, kept so by a trigger."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from partywall_service.ledger.base import Store
from partywall_service.ledger.records import AuditEntry
from partywall_service.ledger.tables import audit

# In the order of AuditEntry's attributes.
_COLUMNS = (
    audit.c.id,
    audit.c.at,
    audit.c.actor,
    audit.c.action,
    audit.c.tenant,
    audit.c.detail,
)


class Audit(Store):
    """The statements on audit lines; most are written where the changes are made."""

    async def note(
        self, *, actor: str, action: str, tenant: str, detail: Mapping[str, Any]
    ) -> None:
        """Writes a line of its own, of what was changed outside of PostgreSQL.

        Args:
            actor: who did it.
            action: what.
            tenant: whose it is.
            detail: as JSON carries it.
        """
        async with self._changing() as connection:
            await self._record(connection, actor=actor, action=action, tenant=tenant, detail=detail)

    async def list_audit(
        self, *, tenant: str | None = None, before: int | None = None, limit: int
    ) -> list[AuditEntry]:
        """Lines newest first, at most `limit`: one tenant's, or all; older than `before`.

        Args:
            tenant: whose lines; a deleted tenant's are still there.
            before: the id of the last line already seen.
            limit: how many at most.
        """
        query = select(*_COLUMNS).order_by(audit.c.id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(audit.c.tenant == tenant)
        if before is not None:
            query = query.where(audit.c.id < before)
        async with self._reading() as connection:
            return [AuditEntry(*row) for row in await connection.execute(query)]
