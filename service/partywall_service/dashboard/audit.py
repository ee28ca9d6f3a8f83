"""The audit log, a page at a time."""

from typing import Annotated
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Request, Response

from partywall_service.api.deps import Admin, PartsDep
from partywall_service.api.paging import Cursor
from partywall_service.api.params import CursorQuery
from partywall_service.dashboard.access import HOME
from partywall_service.dashboard.pages import page
from partywall_service.dashboard.routing import PageRoute
from partywall_service.names import EXPECTED_TENANT, is_tenant_id

PAGE_SIZE = 50

router = APIRouter(prefix=HOME, route_class=PageRoute)

_cursor: Cursor[int] = Cursor("audit", Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)])


@router.get("/audit")
async def show_audit(
    request: Request, parts: PartsDep, _: Admin, tenant: str = "", cursor: CursorQuery = None
) -> Response:
    """Newest first; of all tenants, or of one, which may be deleted by now."""
    asked = tenant.strip()
    if asked and not is_tenant_id(asked):
        shown = {"tenant": tenant, "fault": EXPECTED_TENANT, "rows": ()}
        return page(request, "audit", {**shown, "following": None, "first": None}, status=422)
    before = _cursor.decode(cursor)
    found = await parts.ledger.list_audit(tenant=asked or None, before=before, limit=PAGE_SIZE + 1)
    rows, following = _cursor.page(found, PAGE_SIZE, lambda row: row.id)
    return page(
        request,
        "audit",
        {
            "tenant": asked,
            "fault": None,
            "rows": rows,
            "following": following and _address(asked, following),
            "first": _address(asked, None) if before is not None else None,
        },
    )


def _address(tenant: str, cursor: str | None) -> str:
    asked = {name: value for name, value in (("tenant", tenant), ("cursor", cursor)) if value}
    return f"{HOME}/audit?{urlencode(asked)}"
