"""FastAPI dependencies: a further limit for a route, and a feature that it needs.

    @app.post("/exports", dependencies=[Depends(limit("exports", cost=5))])

Both need PartywallMiddleware on the app (`app.add_middleware`), which found the tenant and answers
what they raise. Needs `pip install 'partywall[fastapi]'`.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from partywall.account import Answer
from partywall.decision import Decision
from partywall.errors import (
    ConfigurationError,
    Denied,
    FeatureMissing,
    LimitExceeded,
    SidecarUnavailable,
    TenantRefused,
)
from partywall.governed import SCOPE_KEY, Governed
from partywall.middleware import PartywallMiddleware
from partywall.rules import Routes, check_cost, check_limit

try:
    from fastapi import FastAPI, routing
    from fastapi.requests import HTTPConnection
except ModuleNotFoundError as exc:
    if exc.name is None or exc.name.partition(".")[0] not in ("fastapi", "starlette", "pydantic"):
        raise
    raise ImportError("partywall.fastapi needs FastAPI: pip install 'partywall[fastapi]'") from exc

__all__ = ["DENIALS", "document", "feature", "limit"]

_ABSENT: Final = object()


def limit(
    name: str,
    *,
    cost: int | Callable[[Any], int] = 1,  # a Request's or a WebSocket's, as the route has it
) -> Callable[[HTTPConnection], Awaitable[Decision]]:
    """A dependency that charges the tenant's limit, beside the middleware's own.

    It gives the route the decision, whose headers the response carries. A route that depends on the
    same object twice is charged once; each call of `limit()` makes another one. What was charged
    before a later denial stays charged.

    Where the middleware only observes (`enforce=False`) it charges, and denies nothing: the
    decision may then be a denial. A limit that no tier names lets everything pass and is logged.

    Args:
        name: a limit that some tier names.
        cost: a whole number from 1, or a callable of the `Request` or `WebSocket`.

    Raises:
        ConfigurationError: the name or the cost can be none. In a request: what the callable gave,
            or no PartywallMiddleware before this.
        LimitExceeded: in a request; answered with 429.
        TenantRefused: in a request; answered with 403.
        SidecarUnavailable: in a request, where nothing can decide and the limit, or the app, is
            `closed` then; answered with 503.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"expected a limit's name; got {name!r}")
    check_limit(name)
    check_cost(cost)
    return _Limit(name, cost)


def feature(name: str) -> Callable[[HTTPConnection], Awaitable[None]]:
    """A dependency that lets only tenants pass whose tier has a feature.

    In an outage a tenant keeps the features it had. Of one that this process has never seen nobody
    can say, and that is not its fault: 503, not 402.

    Where the middleware only observes (`enforce=False`) it lets everybody pass.

    Args:
        name: as in the `features` of quotas.toml.

    Raises:
        ConfigurationError: `name` is none. In a request: no PartywallMiddleware before this.
        FeatureMissing: in a request; answered with 402, and the next tier that has it.
        SidecarUnavailable: in a request of a tenant whose tier is not known; answered with 503.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"expected a feature's name; got {name!r}")
    return _Feature(name)


class _Limit:
    def __init__(self, name: str, cost: int | Callable[[Any], int]) -> None:
        self._name = name
        self._cost = cost

    async def __call__(self, connection: HTTPConnection) -> Decision:
        governed = _governed(connection)
        cost = self._cost
        if not isinstance(cost, int):
            cost = cost(connection)
            check_cost(cost, called=True)
        if governed is None:
            return Decision(True, "", None, self._name, cost)
        tenant = governed.answer.tenant.id
        permits = governed.client.permits
        answer = permits.take(tenant, self._name, cost)
        if answer is None:
            answer = await permits.ask(tenant, self._name, cost)
        governed.add(answer.decision)
        denial = _denial_of(answer)
        if denial is not None and not governed.enforce:
            answer.tally.spare()
            denial = None
        if denial is not None:
            governed.denial = denial
            raise denial
        return answer.decision


class _Feature:
    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self, connection: HTTPConnection) -> None:
        governed = _governed(connection)
        if governed is None or not governed.enforce:
            return
        tenant = governed.answer.tenant
        if self._name in tenant.features:
            return
        if tenant.tier is None:
            governed.denial = SidecarUnavailable(
                f"whether tenant {tenant.id!r} has {self._name!r} is not known"
            )
        else:
            upgrade = governed.client.permits.upgrade_for(tenant.tier, self._name)
            governed.denial = FeatureMissing(tenant.id, tenant.tier, self._name, upgrade)
        raise governed.denial


def _governed(connection: HTTPConnection) -> Governed | None:
    """What the middleware knows of the request; None where it let it pass without a tenant."""
    governed = connection.scope.get(SCOPE_KEY, _ABSENT)
    if governed is None or isinstance(governed, Governed):
        return governed
    raise ConfigurationError(
        f"no tenant is known at {connection.scope['path']}: add PartywallMiddleware to the app"
        " (app.add_middleware), and do not exempt this path from it"
    )


def _denial_of(answer: Answer) -> Denied | SidecarUnavailable | None:
    decision = answer.decision
    match decision.reason:
        case "limit-exceeded":
            return LimitExceeded(decision, answer.upgrade)
        case "tenant-suspended" | "unknown-tenant":
            return TenantRefused(decision.tenant, decision.reason)
        case "unavailable":
            return SidecarUnavailable(
                f"limit {decision.limit!r} of tenant {decision.tenant!r} cannot be decided now",
                decision.retry_after,
            )
    return None


def document(app: FastAPI) -> None:
    """Says in the app's OpenAPI document what Partywall may answer.

    `DENIALS` at every route that is not exempt, 402 only where a `feature` is needed. What a route
    says itself of such a status stays. It may be called before the routes are declared.
    """
    described = app.openapi

    def openapi() -> dict[str, Any]:
        schema = described()
        exempt = _exempt_paths(app)
        needing = _needing_features(app)
        for path, operations in schema.get("paths", {}).items():
            if exempt.of({"path": path}) is None:
                continue
            for method, operation in operations.items():
                if "responses" not in operation:
                    continue
                for status, response in DENIALS.items():
                    if status != 402 or (path, method.upper()) in needing:
                        operation["responses"].setdefault(str(status), deepcopy(response))
        return schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way to extend it


def _exempt_paths(app: FastAPI) -> Routes:
    """The paths that the app's middleware does not govern."""
    for middleware in app.user_middleware:
        kind: object = middleware.cls
        if kind is PartywallMiddleware:
            exempt: Any = middleware.kwargs.get("exempt", ())
            return Routes((), exempt, "requests", 1)
    return Routes((), (), "requests", 1)


def _needing_features(app: FastAPI) -> set[tuple[str, str]]:
    """Path and method of every operation that a `feature` stands before."""
    # FastAPI keeps included routers apart since it has this function; before, `routes` has all.
    each: Callable[[Any], Any] = getattr(routing, "iter_route_contexts", iter)
    return {
        (route.path_format, method)
        for route in each(app.routes)
        if any(isinstance(call, _Feature) for call in _calls(getattr(route, "dependant", None)))
        for method in route.methods or ()
    }


def _calls(dependant: Any) -> Iterator[object]:  # noqa: ANN401 - FastAPI's, which it does not export
    if dependant is not None:
        yield dependant.call
        for below in dependant.dependencies:
            yield from _calls(below)


def _response(
    description: str,
    further: Mapping[str, Mapping[str, object]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            **(further or {}),
        },
    }
    response: dict[str, Any] = {
        "description": description,
        "content": {"application/problem+json": {"schema": schema}},
    }
    if headers:
        response["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        }
    return response


_RETRY_AFTER = {"Retry-After": "Seconds to wait."}
_TIER = {"type": ["string", "null"]}
_UPGRADE = {"type": "string", "description": "The next tier with which it would have passed."}

DENIALS: dict[int | str, dict[str, Any]] = {
    400: _response("The request names no tenant."),
    402: _response(
        "The tenant's tier lacks a feature.",
        {"feature": {"type": "string"}, "tier": _TIER, "upgrade": _UPGRADE},
    ),
    403: _response("The tenant is unknown or suspended, or the request names two."),
    429: _response(
        "The tenant is over a limit.",
        {
            "violated-policies": {"type": "array", "items": {"type": "string"}},
            "tenant": {"type": "string"},
            "tier": _TIER,
            "upgrade": _UPGRADE,
        },
        {
            "RateLimit-Policy": "Quota and window of each limit.",
            "RateLimit": "What remains of each, and seconds until it is free again.",
            "X-RateLimit-Limit": "The quota of the window with the least remaining.",
            "X-RateLimit-Remaining": "What remains of it.",
            "X-RateLimit-Reset": "Seconds until it is free again.",
            **_RETRY_AFTER,
        },
    ),
    503: _response("Nothing can decide now.", headers=_RETRY_AFTER),
}
"""What Partywall answers in a route's place, as FastAPI's `responses=` takes it: for an app or a
router that is documented by hand, in place of `document`."""
