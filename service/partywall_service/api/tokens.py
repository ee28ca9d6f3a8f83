"""Tokens: who may call, and as what."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Response

from partywall_service.api.deps import Admin, AuthenticatedRoute, Parts, PartsDep
from partywall_service.api.openapi import problems
from partywall_service.api.paging import Cursor
from partywall_service.api.params import (
    DEFAULT_PAGE,
    ID_PATTERN,
    CursorQuery,
    PageSize,
    TokenPath,
)
from partywall_service.api.problems import Problem
from partywall_service.api.schemas import NewToken, Token, TokenRequest, Tokens
from partywall_service.api.tenants import unknown_tenant

router = APIRouter(prefix="/v1/tokens", tags=["tokens"], route_class=AuthenticatedRoute)

_cursor: Cursor[str] = Cursor("tokens", Annotated[str, msgspec.Meta(pattern=ID_PATTERN)])


@router.post(
    "",
    status_code=201,
    summary="Make a token",
    response_description="The token, shown this once.",
    responses=problems("unknown-tenant"),
)
async def create_token(
    request: TokenRequest, parts: PartsDep, caller: Admin, response: Response
) -> NewToken:
    """For an admin, a host app, or one tenant.

    The tenant must be registered, unless the policy's `default_tier` serves those that are not:
    a token for nobody is a typing error.
    """
    kind, _, tenant = request.scope.partition(":")
    if kind == "tenant":
        await _check_served(parts, tenant)
    record, text = await parts.ledger.create_token(request.scope, request.name, actor=caller.actor)
    response.headers["Cache-Control"] = "no-store"
    return NewToken(**Token.of(record).model_dump(), token=text)


@router.get("", summary="List tokens", responses=problems())
async def list_tokens(
    parts: PartsDep,
    _: Admin,
    cursor: CursorQuery = None,
    page_size: PageSize = DEFAULT_PAGE,
) -> Tokens:
    """By id, without their secrets. The configured admin token is not among them."""
    rows = await parts.ledger.list_tokens(after=_cursor.decode(cursor), limit=page_size + 1)
    page, next_cursor = _cursor.page(rows, page_size, lambda row: row.id)
    return Tokens(tokens=[Token.of(row) for row in page], next_cursor=next_cursor)


@router.delete(
    "/{token}",
    status_code=204,
    response_class=Response,
    summary="Revoke a token",
    responses=problems("unknown-token"),
)
async def revoke_token(token: TokenPath, parts: PartsDep, caller: Admin) -> None:
    """It is refused from now on: here at once, by every other sidecar within 0.5 s."""
    if not await parts.ledger.revoke_token(token, actor=caller.actor):
        raise Problem("unknown-token", f"there is no token of id {token!r}")
    parts.authenticator.forget(token)


async def _check_served(parts: Parts, tenant: str) -> None:
    if parts.policy.current.default_tier is not None:
        return
    if await parts.ledger.get_tenant(tenant) is None:
        raise unknown_tenant(tenant)
