"""What `PartywallMiddleware` answers in the app's place: RFC 9457 problems over raw ASGI.

Statuses are those of docs/contract.md, section 5. A WebSocket that is refused before it is accepted
gets the same response where the server can send one (the ASGI extension `websocket.http.response`),
and is closed (403 to its client) where it cannot.
"""

import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from partywall.decision import Decision, HeaderFamily, denial_problem, rate_limit_headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

RawHeader = tuple[bytes, bytes]
RawHeaders = list[RawHeader]

RETRY_OUTAGE_SECONDS = 1
"""What a client is told to wait while nothing can decide: an outage is tried anew that often."""

_encode = msgspec.json.Encoder().encode


class Denial(msgspec.Struct, frozen=True):
    """A response in the app's place; `on_denial` may return a changed one.

    Attributes:
        status: 400 no tenant, 401 credentials that are not valid, 402 a feature its tier lacks,
            403 a tenant that is unknown, suspended or contradictory, 429 no room, 503 an outage.
        problem: the body, as RFC 9457 problem details.
        headers: by name; `content-type` and `content-length` come by themselves.
        decision: what was decided, where a limit was asked.
    """

    status: int
    problem: dict[str, object]
    headers: dict[str, str] = {}
    decision: Decision | None = None


class Rendered:
    """A denial as bytes, to be sent often: a flood of denials is told apart by nothing."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, denial: Denial) -> None:
        self.status = denial.status
        self.body = _encode(denial.problem)
        self.headers: RawHeaders = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(self.body)),
            *raw(denial.headers),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or refuses a WebSocket."""
        kind = "http.response"
        if scope["type"] == "websocket":
            kind = "websocket.http.response"
            if kind not in (scope.get("extensions") or ()):
                await send({"type": "websocket.close", "code": 1008, "reason": ""})
                return
        await send({"type": f"{kind}.start", "status": self.status, "headers": list(self.headers)})
        body = b"" if scope.get("method") == "HEAD" else self.body
        await send({"type": f"{kind}.body", "body": body})


def raw(headers: dict[str, str]) -> RawHeaders:
    """Headers as ASGI has them."""
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
    ]


def over_limit(decision: Decision, upgrade: str | None, family: HeaderFamily) -> Denial:
    """429: the limit has no room."""
    return Denial(
        429,
        denial_problem(decision, upgrade=upgrade),
        rate_limit_headers(decision, family),
        decision,
    )


def full_queue(detail: str, retry_after: float | None) -> Denial:
    """429: as many jobs of the tenant wait as may."""
    headers = {} if retry_after is None else {"Retry-After": str(math.ceil(retry_after))}
    return _problem(429, "queue-full", "Queue full", detail, headers)


def no_tenant() -> Denial:
    """400: the request names no tenant."""
    return _problem(400, "no-tenant", "No tenant", "The request names no tenant.")


def refused_tenant(tenant: str, reason: str) -> Denial:
    """403: the tenant is unknown or suspended."""
    which = "suspended" if reason == "tenant-suspended" else "unknown"
    return _problem(403, reason, "Tenant refused", f"Tenant {tenant!r} is {which}.")


def conflicting_tenants(detail: str) -> Denial:
    """403: the request names two tenants."""
    return _problem(403, "tenant-conflict", "Tenants in conflict", detail)


def invalid_credentials(detail: str) -> Denial:
    """401: the credentials that would name the tenant are not valid (RFC 6750, section 3.1)."""
    return _problem(
        401,
        "invalid-credentials",
        "Credentials not valid",
        detail,
        {"WWW-Authenticate": 'Bearer error="invalid_token"'},
    )


def missing_feature(tier: str | None, feature: str, upgrade: str | None) -> Denial:
    """402: the tenant's tier lacks a feature."""
    denial = _problem(
        402, "feature-missing", "Feature missing", f"Tier {tier!r} has no feature {feature!r}."
    )
    denial.problem.update({"feature": feature, "tier": tier})
    if upgrade is not None:
        denial.problem["upgrade"] = upgrade
    return denial


def unavailable(detail: str, retry_after: float | None = None) -> Denial:
    """503: nothing can decide now."""
    seconds = math.ceil(retry_after) if retry_after else RETRY_OUTAGE_SECONDS
    return _problem(
        503, "unavailable", "Temporarily unavailable", detail, {"Retry-After": str(seconds)}
    )


def _problem(
    status: int, slug: str, title: str, detail: str, headers: dict[str, str] | None = None
) -> Denial:
    document: dict[str, object] = {
        "type": f"urn:partywall:problem:{slug}",
        "title": title,
        "status": status,
        "detail": detail,
    }
    return Denial(status, document, headers or {})
