"""Tenants: searched, filtered, a page at a time."""

from typing import Annotated, get_args
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Query, Request, Response

from partywall_service.api.deps import Host, PartsDep
from partywall_service.api.paging import Cursor
from partywall_service.api.params import CursorQuery
from partywall_service.api.schemas import PRINTABLE
from partywall_service.dashboard.access import HOME
from partywall_service.dashboard.pages import page
from partywall_service.dashboard.routing import PageRoute
from partywall_service.ledger.records import Status
from partywall_service.names import TENANT_PATTERN

PAGE_SIZE = 50

router = APIRouter(prefix=HOME, route_class=PageRoute)

_cursor: Cursor[str] = Cursor("tenants", Annotated[str, msgspec.Meta(pattern=TENANT_PATTERN)])
_STATUSES = get_args(Status)

Text = Annotated[str, Query(max_length=200, pattern=PRINTABLE)]


@router.get("/tenants")
async def show_tenants(
    request: Request,
    parts: PartsDep,
    _: Host,
    search: Text = "",
    tier: Text = "",
    status: Text = "",
    cursor: CursorQuery = None,
) -> Response:
    """By id. What a form leaves empty does not narrow."""
    tiers = parts.policy.current.tiers
    after = _cursor.decode(cursor)
    asked = {"search": search.strip(), "tier": tier, "status": status}
    wanted = next((one for one in _STATUSES if one == status), None)
    found = await parts.ledger.list_tenants(
        tier=tier or None,
        status=wanted,
        prefix=asked["search"] or None,
        after=after,
        limit=PAGE_SIZE + 1,
    )
    rows, following = _cursor.page(found, PAGE_SIZE, lambda row: row.tenant)
    return page(
        request,
        "tenants",
        {
            "asked": asked,
            "tiers": list(tiers),
            "statuses": _STATUSES,
            "rows": rows,
            "following": following and _address(asked, following),
            "first": _address(asked, None) if after is not None else None,
        },
    )


def _address(asked: dict[str, str], cursor: str | None) -> str:
    given = {name: value for name, value in {**asked, "cursor": cursor}.items() if value}
    return f"{HOME}/tenants?{urlencode(given)}"
