"""create_api(): FastAPI with every endpoint that is not hot."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Lifespan

from partywall_service.api import (
    audit,
    errors,
    export,
    health,
    jobs,
    neighbours,
    openapi,
    overrides,
    quotas,
    tenants,
    tenants_import,
    tokens,
    usage,
)
from partywall_service.api.body_limit import BodyLimit
from partywall_service.api.raw import HotRoute
from partywall_service.api.request_ids import RequestIds

_DESCRIPTION = """\
Noisy-neighbour protection and quotas for multi-tenant SaaS.

Every error is `application/problem+json` (RFC 9457) with a stable `type`. Lists come in pages:
pass a page's `next_cursor` as `cursor` to get the next, until it is null.

Answers carry an `X-Request-ID`: the request's own, or a new one. Checks and changes of quotas that
succeed carry only the former.
"""


class Api(FastAPI):
    """FastAPI whose OpenAPI document also knows the hot endpoints, the tokens and the problems."""

    def __init__(self, hot_routes: Sequence[HotRoute], lifespan: Lifespan[Any] | None) -> None:
        super().__init__(
            title="Partywall",
            version=version("partywall"),
            description=_DESCRIPTION,
            openapi_tags=openapi.TAGS,
            lifespan=lifespan,
            redirect_slashes=False,  # a path is here, or it is a problem: never a redirect
            generate_unique_id_function=_operation_id,
        )
        self._hot_routes = tuple(hot_routes)

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            self.openapi_schema = openapi.complete(super().openapi(), self._hot_routes)
        return self.openapi_schema


def create_api(
    *,
    lifespan: Lifespan[Any] | None = None,
    hot_routes: Sequence[HotRoute] = (),
    log_all: bool = False,
) -> Api:
    """Every endpoint but the hot ones; it finds what it works with in `app.state.parts`.

    Args:
        lifespan: puts an object like `deps.Parts` there.
        hot_routes: further endpoints to describe, which something in front of it answers.
        log_all: whether requests that change nothing are logged, too.
    """
    api = Api(hot_routes, lifespan)
    errors.install(api)
    api.add_middleware(BodyLimit)
    api.add_middleware(errors.Guard)
    api.add_middleware(RequestIds, log_all=log_all)  # added last, so outermost
    for module in (
        *(tenants_import, tenants, export, overrides, quotas, jobs),
        *(usage, neighbours, tokens, audit, health),
    ):
        api.include_router(module.router)
    return api


def _operation_id(route: APIRoute) -> str:
    return route.name
