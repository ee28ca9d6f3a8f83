"""The register of tenants: who they are, their tier, status and domains."""

from collections.abc import Collection, Sequence
from typing import Any, get_args

from sqlalchemy import Select, func, or_, select
from sqlalchemy.types import NullType

from partywall_service.ledger.base import Store
from partywall_service.ledger.errors import DomainsTaken, DomainTaken
from partywall_service.ledger.records import Status, TenantRecord
from partywall_service.ledger.registration import Registered, Registration, register
from partywall_service.ledger.tables import (
    tenant_domains,
    tenants,
)

DOMAINS = func.array(
    select(tenant_domains.c.domain)
    .where(tenant_domains.c.tenant == tenants.c.tenant)
    .order_by(tenant_domains.c.domain)
    .scalar_subquery(),
    type_=NullType(),  # the driver's list as it is: SQLAlchemy would copy it, element by element
).label("domains")

# In the order of TenantRecord's attributes.
TENANT_COLUMNS = (
    tenants.c.tenant,
    tenants.c.name,
    tenants.c.tier,
    tenants.c.status,
    DOMAINS,
    tenants.c.created_at,
    tenants.c.updated_at,
)


class Tenants(Store):
    """The statements on tenants."""

    async def put_tenant(
        self,
        tenant: str,
        *,
        tier: str,
        name: str | None = None,
        domains: Sequence[str] | None = None,
        status: Status | None = None,
        actor: str,
    ) -> tuple[TenantRecord, bool]:
        """Registers a tenant or changes it; None keeps what is there.

        A new tenant's name is its id, it has no domains and is active. Domains are kept in lower
        case, once each and in alphabetical order. A call that changes nothing leaves `updated_at`
        alone, writes no audit line and tells nobody.

        Returns:
            The record, and whether the tenant is new.

        Raises:
            DomainTaken: another tenant has one of the domains; nothing is changed.
            LedgerUnavailable: PostgreSQL cannot answer now. Two calls that exchange domains at
                the same moment may each wait for the other; PostgreSQL then ends one with this.
            ValueError: the status is none, or some text cannot be stored.
        """
        asked = Registration(tenant, tier, name, domains, status)
        try:
            async with self._changing() as connection:
                registered = await register(connection, [_checked(asked)], actor=actor)
                row = (await connection.execute(_one(tenant))).one()
        except DomainsTaken as exc:
            raise DomainTaken(*min(exc.holders.items())) from exc
        return tenant_record(row), tenant in registered.created

    async def put_tenants(
        self,
        registrations: Sequence[Registration],
        *,
        new_status: Status = "active",
        actor: str,
    ) -> Registered:
        """As `put_tenant` for many, in one transaction: all of them or none.

        Among them domains may go from one to another, in a ring, too.

        Args:
            registrations: no tenant and no domain more than once.
            new_status: what new tenants have for which none is named.
            actor: for the audit log.

        Raises:
            DomainsTaken: tenants that are not among them have some of the domains.
            LedgerUnavailable: as for `put_tenant`.
            ValueError: as for `put_tenant`; or a tenant or a domain is there twice.
        """
        asked = [_checked(one) for one in registrations]
        async with self._changing() as connection:
            return await register(connection, asked, actor=actor, new_status=new_status)

    async def get_tenant(self, tenant: str, *, scope: str | None = None) -> TenantRecord | None:
        """The tenant, or None; with a `scope`, as that tenant's own token may see it."""
        async with self._reading(scope) as connection:
            row = (await connection.execute(_one(tenant))).one_or_none()
        return None if row is None else tenant_record(row)

    async def list_tenants(
        self,
        *,
        tier: str | None = None,
        status: Status | None = None,
        domain: str | None = None,
        prefix: str | None = None,
        after: str | None = None,
        limit: int,
    ) -> list[TenantRecord]:
        """Tenants by id, from the one after `after`, at most `limit`; each filter narrows.

        A `prefix` begins the id or the name, in letters of either case.
        """
        query = select(*TENANT_COLUMNS).order_by(tenants.c.tenant).limit(limit)
        if tier is not None:
            query = query.where(tenants.c.tier == tier)
        if status is not None:
            query = query.where(tenants.c.status == status)
        if domain is not None:
            holder = select(tenant_domains.c.tenant).where(
                tenant_domains.c.domain == domain.lower()
            )
            query = query.where(tenants.c.tenant == holder.scalar_subquery())
        if prefix is not None:
            begins = prefix.lower()
            query = query.where(
                or_(
                    func.lower(tenants.c.tenant).startswith(begins, autoescape=True),
                    func.lower(tenants.c.name).startswith(begins, autoescape=True),
                )
            )
        if after is not None:
            query = query.where(tenants.c.tenant > after)
        async with self._reading() as connection:
            return [tenant_record(row) for row in await connection.execute(query)]

    async def missing_tiers(self, known: Collection[str]) -> dict[str, int]:
        """The tiers tenants have that `known` lacks, each with how many have it."""
        query = (
            select(tenants.c.tier, func.count().label("tenants"))
            .where(tenants.c.tier.not_in(known))
            .group_by(tenants.c.tier)
        )
        async with self._reading() as connection:
            return {row.tier: row.tenants for row in await connection.execute(query)}


def tenant_record(row: Sequence[Any]) -> TenantRecord:
    """The record of a row of `TENANT_COLUMNS`."""
    tenant, name, tier, status, domains, created_at, updated_at = row
    return TenantRecord(tenant, name, tier, status, tuple(domains), created_at, updated_at)


def _checked(asked: Registration) -> Registration:
    """A registration whose status can be."""
    if asked.status is not None and asked.status not in get_args(Status):
        raise ValueError(f"expected one of {get_args(Status)}, got {asked.status!r}")
    return asked


def _one(tenant: str) -> Select[Any]:
    return select(*TENANT_COLUMNS).where(tenants.c.tenant == tenant)
