"""Overrides: one tenant's exceptions to its tier."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Response

from partywall_service.api.deps import Admin, AuthenticatedRoute, PartsDep, Reader
from partywall_service.api.openapi import problems
from partywall_service.api.paging import Cursor
from partywall_service.api.params import (
    DEFAULT_PAGE,
    CursorQuery,
    KindPath,
    NamePath,
    PageSize,
    TenantPath,
)
from partywall_service.api.problems import Problem, invalid
from partywall_service.api.schemas import Override, OverrideChange, Overrides
from partywall_service.api.tenants import known, unknown_tenant
from partywall_service.ledger import TenantMissing
from partywall_service.ledger.records import OverrideKind, OverrideValue
from partywall_service.names import NAME_PATTERN
from partywall_service.policy.model import Policy
from partywall_service.policy.resolve import JOB_SETTINGS, UnknownName, check_override

router = APIRouter(
    prefix="/v1/tenants/{tenant}/overrides", tags=["overrides"], route_class=AuthenticatedRoute
)

_cursor: Cursor[tuple[OverrideKind, str]] = Cursor(
    "overrides", tuple[OverrideKind, Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]]
)


@router.put(
    "/{kind}/{name}",
    summary="Set an override",
    responses=problems("unknown-tenant", "unknown-limit", "unknown-resource"),
)
async def put_override(
    tenant: TenantPath,
    kind: KindPath,
    name: NamePath,
    change: OverrideChange,
    parts: PartsDep,
    caller: Admin,
) -> Override:
    """Beats the tier, and ends by itself. It replaces the one of the same kind and name."""
    check(parts.policy.current, kind, name, change.value)
    try:
        record = await parts.ledger.put_override(
            tenant,
            kind,
            name,
            change.value,
            expires_at=change.expires_at,
            reason=change.reason,
            author=caller.actor,
        )
    except TenantMissing as exc:
        raise unknown_tenant(tenant) from exc
    parts.directory.forget(tenant)
    return Override.of(record)


@router.get("", summary="List a tenant's overrides", responses=problems("unknown-tenant"))
async def list_overrides(
    tenant: TenantPath,
    parts: PartsDep,
    reader: Reader,
    cursor: CursorQuery = None,
    page_size: PageSize = DEFAULT_PAGE,
) -> Overrides:
    """Those in force, by kind and name."""
    after = _cursor.decode(cursor)
    rows = await parts.ledger.list_overrides(
        tenant, after=after, limit=page_size + 1, scope=reader.tenant
    )
    if not rows:
        known(await parts.ledger.get_tenant(tenant, scope=reader.tenant), tenant)
    page, next_cursor = _cursor.page(rows, page_size, lambda row: (row.kind, row.name))
    return Overrides(overrides=[Override.of(row) for row in page], next_cursor=next_cursor)


@router.delete(
    "/{kind}/{name}",
    status_code=204,
    response_class=Response,
    summary="End an override",
    responses=problems("unknown-override"),
)
async def delete_override(
    tenant: TenantPath, kind: KindPath, name: NamePath, parts: PartsDep, caller: Admin
) -> None:
    """The tier applies again."""
    if not await parts.ledger.delete_override(tenant, kind, name, actor=caller.actor):
        raise Problem("unknown-override", f"tenant {tenant!r} has no override of {kind} {name!r}")
    parts.directory.forget(tenant)


def check(policy: Policy, kind: OverrideKind, name: str, value: OverrideValue) -> None:
    """Refuses what could not apply.

    Raises:
        Problem: with the field, and what was expected.
    """
    if kind == "jobs" and name not in JOB_SETTINGS:
        raise invalid("name", f"expected one of {', '.join(JOB_SETTINGS)}; got {name!r}")
    try:
        check_override(policy, kind, name, value)
    except UnknownName as exc:
        slug = "unknown-limit" if kind == "limits" else "unknown-resource"
        raise Problem(slug, str(exc)) from exc
    except ValueError as exc:
        raise invalid("value", str(exc)) from exc
