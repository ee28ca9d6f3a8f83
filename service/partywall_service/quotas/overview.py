"""What many tenants use of their quotas, read together."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Protocol

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import Text

from partywall_service.ledger.base import Store
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Quota
from partywall_service.quotas.book import Book
from partywall_service.quotas.model import Level, QuotaState, Terms

_READ = text("""
    SELECT clock_timestamp(), tenant, resource, used, reserved, version, per, period_start,
        crossed, crossed_at, refills
    FROM (SELECT) AS one LEFT JOIN quota_levels ON tenant = ANY(:tenants)
""").bindparams(bindparam("tenants", type_=ARRAY(Text)))


class VolatileStore(Protocol):
    """Where resources live that are not durable (`VolatileQuotas`)."""

    async def read(self, tenant: str, terms: Mapping[str, Terms]) -> list[QuotaState]:
        """Their quotas, in the order of `terms`."""
        ...


class QuotaOverview(Store):
    """Reads the quotas of many tenants: one statement, however many they are.

    Unlike a tenant's own page it does not first give back what expired reservations held, so
    `reserved` may be more than it is.

    Args:
        engine: of PostgreSQL.
        policy: which resources there are.
        volatile: those that are not durable.
    """

    def __init__(self, engine: AsyncEngine, policy: PolicyHolder, volatile: VolatileStore) -> None:
        super().__init__(engine)
        self._policy = policy
        self._volatile = volatile

    async def read(self, applies: Mapping[str, Mapping[str, Quota]]) -> dict[str, list[QuotaState]]:
        """The quotas of each tenant, as they stand.

        Args:
            applies: by tenant, what it may have of each resource.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
            StoreError: Redis did not answer, and a resource lives there.
        """
        books = await self._books(applies)
        resources = self._policy.current.resources
        terms = {
            tenant: {
                name: Terms(quota.limit, quota.per, resources[name].unit)
                for name, quota in quotas.items()
                if name in resources
            }
            for tenant, quotas in applies.items()
        }
        states = {
            tenant: [
                books[tenant].state(name, one)
                for name, one in of_tenant.items()
                if resources[name].durable
            ]
            for tenant, of_tenant in terms.items()
        }
        if any(not one.durable for one in resources.values()):
            volatile = {
                tenant: {
                    name: one for name, one in of_tenant.items() if not resources[name].durable
                }
                for tenant, of_tenant in terms.items()
            }
            # Together, because those of one shard then share a call.
            found = await asyncio.gather(
                *(self._volatile.read(tenant, asked) for tenant, asked in volatile.items())
            )
            for tenant, several in zip(volatile, found, strict=True):
                states[tenant] += several
        return states

    async def _books(self, tenants: Collection[str]) -> dict[str, Book]:
        async with self._reading() as connection:
            rows = (await connection.execute(_READ, {"tenants": list(tenants)})).all()
        levels: dict[str, dict[str, Level]] = {tenant: {} for tenant in tenants}
        for row in rows:
            if row[1] is not None:
                levels[row[1]][row[2]] = Level(*row[3:])
        return {tenant: Book(rows[0][0], found) for tenant, found in levels.items()}
