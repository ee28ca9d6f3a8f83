"""One tenant's page, and its usage."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from partywall_service.api.auth import Principal
from partywall_service.api.deps import Parts, PartsDep, Reader
from partywall_service.api.params import TenantPath
from partywall_service.api.problems import Problem
from partywall_service.dashboard.access import HOME
from partywall_service.dashboard.charts import draw
from partywall_service.dashboard.pages import page, picture
from partywall_service.dashboard.routing import PageRoute
from partywall_service.dashboard.tenant_view import view_of
from partywall_service.dashboard.usage import (
    RANGES,
    TITLES,
    Chart,
    Range,
    charts,
)

DEFAULT_RANGE = "24h"

router = APIRouter(prefix=HOME, route_class=PageRoute)


@router.get("/tenants/{tenant}")
async def show_tenant(
    request: Request, tenant: TenantPath, parts: PartsDep, reader: Reader
) -> Response:
    """All there is about it, but the charts, which load by themselves."""
    return await tenant_page(request, tenant, parts, reader)


async def tenant_page(
    request: Request,
    tenant: str,
    parts: Parts,
    viewer: Principal,
    *,
    typed: dict[str, str] | None = None,
    faults: dict[str, str] | None = None,
) -> Response:
    """The page; with `faults`, over a form as it was `typed`.

    Args:
        request: what it answers.
        tenant: whose page.
        parts: of the app.
        viewer: who looks.
        typed: what the form of an override says, by field.
        faults: what is wrong with it, by field; "" is the form as a whole.
    """
    over = _range(request)
    view = await view_of(parts, viewer, tenant)
    context: dict[str, Any] = {
        "view": view,
        "over": over,
        "ranges": RANGES.values(),
        "charts": TITLES,
        "typed": typed or {},
        "faults": faults or {},
    }
    return page(request, "tenant", context, status=422 if faults else 200)


@router.get("/tenants/{tenant}/usage")
async def show_usage(
    request: Request, tenant: TenantPath, parts: PartsDep, reader: Reader
) -> Response:
    """The charts with their numbers, for who reads better than sees."""
    over = _range(request)
    shown = {
        "tenant": tenant,
        "over": over,
        "ranges": RANGES.values(),
        "charts": await _charts(parts, reader, tenant, over),
    }
    return page(request, "usage", shown)


@router.get("/tenants/{tenant}/charts/{name}.svg")
async def show_chart(
    request: Request, tenant: TenantPath, name: str, parts: PartsDep, reader: Reader
) -> Response:
    """One picture."""
    if name not in TITLES:
        raise Problem("not-found", f"expected one of {', '.join(TITLES)}; got {name!r}")
    found = await _charts(parts, reader, tenant, _range(request))
    chart = next(one for one in found if one.name == name)
    return picture(await asyncio.to_thread(draw, chart))


async def _charts(parts: Parts, viewer: Principal, tenant: str, over: Range) -> Sequence[Chart]:
    steps = over.starts(datetime.now(UTC))
    points, entries = await asyncio.gather(
        parts.usage.reader.points(
            tenant, steps[0], steps[-1] + over.length, over.step, scope=viewer.tenant
        ),
        parts.directory.find([tenant]),
    )
    standing = entries[tenant].standing
    quotas = {} if standing is None else standing.quotas
    return charts(points, steps, over, quotas, parts.policy.current.resources)


def _range(request: Request) -> Range:
    return RANGES.get(request.query_params.get("range", ""), RANGES[DEFAULT_RANGE])
