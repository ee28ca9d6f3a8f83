"""Everything that is kept about a tenant, as JSON lines."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from partywall_service.api.deps import AuthenticatedRoute, Host, PartsDep
from partywall_service.api.openapi import problems
from partywall_service.api.params import TenantPath
from partywall_service.api.tenants import unknown_tenant

router = APIRouter(prefix="/v1/tenants", tags=["tenants"], route_class=AuthenticatedRoute)

MEDIA_TYPE = "application/x-ndjson"

_EXAMPLE = (
    '{"kind":"begin","tenant":"acme","at":"2030-01-31T12:00:00Z"}\n'
    '{"kind":"tenant","tenant":"acme","name":"Acme Ltd","tier":"pro"}\n'
    '{"kind":"end","lines":2}\n'
)
_DONE = {
    "description": "One JSON object to a line: `begin` first, `end` last; else it was cut.",
    "content": {
        MEDIA_TYPE: {
            "schema": {
                "type": "string",
                "examples": [_EXAMPLE],
            }
        }
    },
}


@router.get(
    "/{tenant}/export",
    summary="Export a tenant",
    response_class=StreamingResponse,
    responses={200: _DONE, **problems("unknown-tenant")},
)
async def export_tenant(tenant: TenantPath, parts: PartsDep, _: Host) -> StreamingResponse:
    """All that PostgreSQL and Redis keep of it, but for the secrets of its tokens.

    Each line has a `kind`. What happens while it is read may be in it or not.
    """
    entry = (await parts.directory.find([tenant]))[tenant]
    if entry.standing is None:
        raise unknown_tenant(tenant)
    lines = parts.export.lines(tenant)
    first = await anext(lines)  # here, where a store that is away is still a 503
    return StreamingResponse(
        _all(first, lines),
        media_type=MEDIA_TYPE,
        headers={"Content-Disposition": f'attachment; filename="{tenant}.ndjson"'},
    )


async def _all(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(rest):  # also when the client goes away
        yield first
        async for lines in rest:
            yield lines
