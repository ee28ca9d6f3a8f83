"""What handlers ask FastAPI for: the parts they work with, and who is calling."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from partywall_service.api.auth import Authenticator, Principal, presented_token
from partywall_service.api.problems import Problem
from partywall_service.directory import Directory
from partywall_service.engine.breaker import CircuitBreaker
from partywall_service.ledger import Ledger
from partywall_service.metrics import Metrics
from partywall_service.policy.holder import PolicyHolder
from partywall_service.quotas.service import Quotas
from partywall_service.tenants.erasure import Erasure
from partywall_service.tenants.export import Export
from partywall_service.usage.connect import Usage
from partywall_workers.queue import FairQueue


@dataclass(frozen=True)
class Parts:
    """What the handlers work with; `app` puts it in `app.state.parts` while the app runs.

    Attributes:
        policy: the policy in force.
        ledger: what PostgreSQL keeps.
        authenticator: who a token belongs to.
        directory: what this process remembers of tenants.
        breaker: whether the shared store answers.
        metrics: what Prometheus is told.
        quotas: everybody's quotas.
        jobs: everybody's jobs.
        erasure: removes all that is kept of a tenant.
        export: tells all that is kept of a tenant.
        usage: what tenants did.
    """

    policy: PolicyHolder
    ledger: Ledger
    authenticator: Authenticator
    directory: Directory
    breaker: CircuitBreaker
    metrics: Metrics
    quotas: Quotas
    jobs: FairQueue
    erasure: Erasure
    export: Export
    usage: Usage


def parts_of(request: Request) -> Parts:
    """The parts of the app this request came to.

    Raises:
        Problem: `unavailable` before they are there, or once they are gone.
    """
    parts: Parts | None = getattr(request.app.state, "parts", None)
    if parts is None:
        raise Problem("unavailable", "the sidecar is starting or stopping")
    return parts


async def _parts(request: Request) -> Parts:
    return parts_of(request)  # async, because FastAPI would run a plain function in a thread


PartsDep = Annotated[Parts, Depends(_parts)]


class AuthenticatedRoute(APIRoute):
    """Knows who is calling before anything else of the request is read.

    A dependency would come too late: FastAPI parses the body before it solves any.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler behind the authentication."""
        handle = super().get_route_handler()

        async def authenticated(request: Request) -> Response:
            token = presented_token(request.headers.raw)
            authenticator = parts_of(request).authenticator
            request.state.principal = await authenticator.authenticate(token)
            return await handle(request)

        return authenticated


def require(*scopes: str) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency: the caller, if its token has one of `scopes`; else `forbidden`."""
    needed = " or ".join(scopes)

    async def allowed(request: Request) -> Principal:
        principal = _principal(request)
        if principal.scope not in scopes:
            raise Problem(
                "forbidden", f"a token of scope {needed} is needed; this one's is {principal.scope}"
            )
        return principal

    return allowed


async def require_own(request: Request) -> Principal:
    """A dependency: the caller, if it may read the tenant in the path.

    The answer for a foreign tenant does not depend on whether there is such a tenant.
    """
    principal = _principal(request)
    if principal.scope == "tenant" and principal.tenant != request.path_params["tenant"]:
        raise Problem("forbidden", "a tenant's token reads that tenant alone")
    return principal


def _principal(request: Request) -> Principal:
    principal: Principal = request.state.principal
    return principal


Admin = Annotated[Principal, Depends(require("admin"))]
Host = Annotated[Principal, Depends(require("admin", "host"))]
Reader = Annotated[Principal, Depends(require_own)]
"""Any token, but a tenant's own only for that tenant. Its reads pass `scope=reader.tenant`."""
