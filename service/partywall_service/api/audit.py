"""The audit log: who changed what."""

from typing import Annotated

import msgspec
from fastapi import APIRouter

from partywall_service.api.deps import Admin, AuthenticatedRoute, PartsDep
from partywall_service.api.openapi import problems
from partywall_service.api.paging import Cursor
from partywall_service.api.params import DEFAULT_PAGE, CursorQuery, PageSize, TenantFilter
from partywall_service.api.schemas import AuditLine, AuditLines

router = APIRouter(prefix="/v1/audit", tags=["audit"], route_class=AuthenticatedRoute)

_cursor: Cursor[int] = Cursor("audit", Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)])


@router.get("", summary="Read the audit log", responses=problems())
async def list_audit(
    parts: PartsDep,
    _: Admin,
    tenant: TenantFilter = None,
    cursor: CursorQuery = None,
    page_size: PageSize = DEFAULT_PAGE,
) -> AuditLines:
    """Newest first; a deleted tenant's lines are still there."""
    rows = await parts.ledger.list_audit(
        tenant=tenant, before=_cursor.decode(cursor), limit=page_size + 1
    )
    page, next_cursor = _cursor.page(rows, page_size, lambda row: row.id)
    return AuditLines(entries=[AuditLine.of(row) for row in page], next_cursor=next_cursor)
