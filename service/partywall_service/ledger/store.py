"""The ledger: everything PostgreSQL keeps, behind one object.

Each subject has its own file (tenants, overrides, tokens, audit, erasure); here is what spans them.
"""

from collections.abc import Sequence
from typing import Any

from psycopg import Error
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.ledger.audit import Audit
from partywall_service.ledger.base import any_of
from partywall_service.ledger.erasure import Erasures
from partywall_service.ledger.lookups import Lookups
from partywall_service.ledger.overrides import Overrides, aggregated, from_json
from partywall_service.ledger.records import OverrideRecord, TenantRecord
from partywall_service.ledger.tables import tenants
from partywall_service.ledger.tenants import TENANT_COLUMNS, Tenants, tenant_record
from partywall_service.ledger.tokens import Tokens

_LOAD = select(*TENANT_COLUMNS, aggregated()).where(any_of(tenants.c.tenant))


class Ledger(Tenants, Overrides, Tokens, Audit, Erasures):
    """Tenants, overrides, tokens and the audit log.

    Every change, its audit line and the notice to other sidecars are one transaction. Any method
    raises `LedgerUnavailable` when PostgreSQL cannot answer, and `ValueError` for text that
    PostgreSQL cannot store.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self._lookups = Lookups(engine, _LOAD)

    async def load_many(
        self, tenants: Sequence[str]
    ) -> dict[str, tuple[TenantRecord, tuple[OverrideRecord, ...]]]:
        """Tenants with their unexpired overrides, in one query; ids nobody registered are absent.

        What the sidecar's cache reads through: a flood of tenants it has not seen comes here.
        """
        asked = {"ids": list(tenants)}
        rows: Sequence[Sequence[Any]]
        try:
            rows = await self._lookups.rows(asked)
        except Error:
            # PostgreSQL may have been restarted, which the pool finds out by itself.
            async with self._reading() as connection:
                rows = (await connection.execute(_LOAD, asked)).all()
        return {row[0]: (tenant_record(row[:-1]), from_json(row[0], row[-1])) for row in rows}

    async def ping(self) -> None:
        """Returns if PostgreSQL answers, and raises `LedgerUnavailable` if it does not."""
        async with self._reading() as connection:
            await connection.execute(select(1))
