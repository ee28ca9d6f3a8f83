"""Quotas: read and set, their ledger, and what another tier would make of them.

What consumes, releases and reserves is in `hot_quotas.py`.
"""

from typing import Annotated

import msgspec
from fastapi import APIRouter

from partywall_service.api.deps import AuthenticatedRoute, Host, PartsDep, Reader
from partywall_service.api.hot_quotas import refusal_of, request_of
from partywall_service.api.openapi import problems
from partywall_service.api.paging import Cursor
from partywall_service.api.params import (
    DEFAULT_PAGE,
    CursorQuery,
    PageSize,
    ResourceFilter,
    ResourcePath,
    TenantPath,
    TierQuery,
)
from partywall_service.api.problems import invalid
from partywall_service.api.quota_schemas import (
    Key,
    LedgerLine,
    LedgerLines,
    Quota,
    QuotaLevel,
    TenantQuotas,
    TierPreview,
)

router = APIRouter(prefix="/v1/tenants/{tenant}", tags=["quotas"], route_class=AuthenticatedRoute)

_cursor: Cursor[int] = Cursor("ledger", Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)])


@router.get("/quotas", summary="Read a tenant's quotas", responses=problems("unknown-tenant"))
async def get_quotas(tenant: TenantPath, parts: PartsDep, reader: Reader) -> TenantQuotas:
    """Every resource of any tier; one that the tenant's own does not name is unlimited."""
    return TenantQuotas.of(tenant, await parts.quotas.read(tenant, scope=reader.tenant))


@router.put(
    "/quotas/{resource}",
    summary="Set what is used",
    responses=problems("unknown-tenant", "unknown-resource", "conflict"),
)
async def put_quota(
    tenant: TenantPath,
    resource: ResourcePath,
    level: QuotaLevel,
    parts: PartsDep,
    caller: Host,
    key: Key = None,
) -> Quota:
    """The real count; the drift goes into the ledger. It may be over the limit."""
    request = request_of(
        f"PUT quotas/{resource}",
        level.model_dump(),
        actor=caller.actor,
        key=key,
        reason=level.reason,
    )
    outcome = await parts.quotas.set_used(tenant, resource, level.used, level.if_version, request)
    refusal = refusal_of(outcome)
    if refusal is not None:
        raise refusal
    return Quota.model_validate(outcome.quotas[0])


@router.get(
    "/ledger",
    summary="Read a tenant's ledger",
    responses=problems("unknown-tenant", "unknown-resource"),
)
async def list_ledger(
    tenant: TenantPath,
    parts: PartsDep,
    reader: Reader,
    resource: ResourceFilter = None,
    cursor: CursorQuery = None,
    page_size: PageSize = DEFAULT_PAGE,
) -> LedgerLines:
    """Every change of durable levels, newest first."""
    rows = await parts.quotas.list_entries(
        tenant,
        resource=resource,
        before=_cursor.decode(cursor),
        limit=page_size + 1,
        scope=reader.tenant,
    )
    page, next_cursor = _cursor.page(rows, page_size, lambda row: row.id)
    return LedgerLines(entries=[LedgerLine.of(row) for row in page], next_cursor=next_cursor)


@router.get("/preview", summary="Preview a change of tier", responses=problems("unknown-tenant"))
async def preview_tier(
    tenant: TenantPath, tier: TierQuery, parts: PartsDep, reader: Reader
) -> TierPreview:
    """What would be over its limit. It would be kept, and more of it denied."""
    tiers = parts.policy.current.tiers
    if tier not in tiers:
        raise invalid("tier", f"expected one of {', '.join(tiers)}; got {tier!r}")
    preview = await parts.quotas.preview(tenant, tiers[tier], scope=reader.tenant)
    return TierPreview.of(tenant, preview)
