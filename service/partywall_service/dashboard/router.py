"""All pages, as one router."""

from fastapi import APIRouter, Request, Response

from partywall_service.api.problems import Problem
from partywall_service.dashboard import audit, changes, overview, policy, sign_in, tenant, tenants
from partywall_service.dashboard.access import HOME
from partywall_service.dashboard.pages import go
from partywall_service.dashboard.routing import PageRoute

_ANY = ["GET", "POST", "PUT", "PATCH", "DELETE"]

_rest = APIRouter(prefix=HOME, route_class=PageRoute)


@_rest.api_route("/{path:path}", methods=_ANY)
async def no_page(request: Request, path: str) -> Response:
    """Whatever else is asked for below the pages is none, and a page says so.

    Raises:
        Problem: `not-found`; but an address that only ends in a slash too many leads on.
    """
    if request.method == "GET" and request.url.path.endswith("/"):
        return go(f"{HOME}/{path}".rstrip("/"))
    raise Problem("not-found", "There is no such page.")


router = APIRouter(include_in_schema=False)
router.include_router(sign_in.public)
router.include_router(sign_in.private)
for _pages in (overview, tenants, tenant, changes, policy, audit):
    router.include_router(_pages.router)
router.include_router(_rest)
