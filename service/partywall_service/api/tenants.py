"""Tenants: registered, changed, read, listed, deleted."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Response

from partywall_service.api.deps import Admin, AuthenticatedRoute, Host, PartsDep, Reader
from partywall_service.api.openapi import problems
from partywall_service.api.paging import Cursor
from partywall_service.api.params import (
    DEFAULT_PAGE,
    CursorQuery,
    DomainFilter,
    PageSize,
    StatusFilter,
    TenantPath,
    TierFilter,
)
from partywall_service.api.problems import Problem, invalid
from partywall_service.api.schemas import Tenant, TenantChange, Tenants
from partywall_service.ledger import DomainTaken, TenantRecord
from partywall_service.names import TENANT_PATTERN
from partywall_service.policy.model import Policy

router = APIRouter(prefix="/v1/tenants", tags=["tenants"], route_class=AuthenticatedRoute)

_cursor: Cursor[str] = Cursor("tenants", Annotated[str, msgspec.Meta(pattern=TENANT_PATTERN)])


@router.put(
    "/{tenant}",
    summary="Register or change a tenant",
    response_description="It was there and is as asked now.",
    responses={
        201: {"model": Tenant, "description": "It is new."},
        **problems("conflict"),
    },
)
async def put_tenant(
    tenant: TenantPath, change: TenantChange, parts: PartsDep, caller: Host, response: Response
) -> Tenant:
    """Idempotent; what is left out is kept. Every sidecar knows of it within 0.5 s."""
    policy = parts.policy.current
    _check_tier(policy, change.tier)
    try:
        record, created = await parts.ledger.put_tenant(
            tenant,
            tier=change.tier,
            name=change.name,
            domains=change.domains,
            status=change.status,
            actor=caller.actor,
        )
    except DomainTaken as exc:
        raise Problem("conflict", str(exc)) from exc
    parts.directory.forget(tenant)
    if created:
        response.status_code = 201
    return Tenant.of(record, policy)


@router.get("", summary="List tenants", responses=problems())
async def list_tenants(
    parts: PartsDep,
    _: Host,
    tier: TierFilter = None,
    status: StatusFilter = None,
    domain: DomainFilter = None,
    cursor: CursorQuery = None,
    page_size: PageSize = DEFAULT_PAGE,
) -> Tenants:
    """By id; each filter narrows."""
    rows = await parts.ledger.list_tenants(
        tier=tier,
        status=status,
        domain=domain,
        after=_cursor.decode(cursor),
        limit=page_size + 1,
    )
    page, next_cursor = _cursor.page(rows, page_size, lambda row: row.tenant)
    policy = parts.policy.current
    return Tenants(tenants=[Tenant.of(row, policy) for row in page], next_cursor=next_cursor)


@router.get("/{tenant}", summary="Read a tenant", responses=problems("unknown-tenant"))
async def get_tenant(tenant: TenantPath, parts: PartsDep, reader: Reader) -> Tenant:
    """A registered one: a tenant that only `default_tier` serves has no record."""
    record = await parts.ledger.get_tenant(tenant, scope=reader.tenant)
    return Tenant.of(known(record, tenant), parts.policy.current)


@router.delete(
    "/{tenant}",
    status_code=204,
    response_class=Response,
    summary="Delete a tenant",
    response_description="Nothing is left of it, or there was nothing.",
    responses=problems(),
)
async def delete_tenant(tenant: TenantPath, parts: PartsDep, caller: Admin) -> None:
    """All that is kept of it is erased, registered or not; the audit log keeps one line.

    Its jobs are cancelled, also those that run. It takes a second, until every sidecar has heard
    of it; what comes late for the tenant is dropped. After a 503 some may be left: repeat it.
    """
    await parts.erasure.erase(tenant, actor=caller.actor)


def known(record: TenantRecord | None, tenant: str) -> TenantRecord:
    """The record.

    Raises:
        Problem: `unknown-tenant` when there is none.
    """
    if record is None:
        raise unknown_tenant(tenant)
    return record


def unknown_tenant(tenant: str) -> Problem:
    """The problem of an id nobody registered."""
    return Problem("unknown-tenant", f"tenant {tenant!r} is not registered")


def _check_tier(policy: Policy, tier: str) -> None:
    if tier not in policy.tiers:
        raise invalid("tier", f"expected one of {', '.join(policy.tiers)}; got {tier!r}")
