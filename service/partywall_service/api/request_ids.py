"""Each request's id, and what the log says of requests.

The id is the client's own `X-Request-ID`, or a random one; the answer carries it, and so does every
line logged meanwhile, with method, path and tenant.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import uuid4

import structlog

from partywall_service.api.auth import Principal
from partywall_service.api.raw import Answer, ASGIApp, Message, Receive, Scope, Send
from partywall_service.logs import told_by
from partywall_service.names import is_tenant_id

HEADER = "X-Request-ID"

QUIET = 1.0
"""Seconds between two lines about answers of 503 that an outage gives by the thousand."""

_RAW = HEADER.lower().encode()
_ID, _TENANT = "partywall.request_id", "partywall.tenant"
"""Where the ASGI scope has what was found out once."""

_is_sane = re.compile(rb"[!#-&(-~]{1,128}").fullmatch
"""Visible ASCII without quotes: a client chose it, and no reader of logs may trip over it."""

_READING = frozenset({"GET", "HEAD", "OPTIONS"})

_LONGEST = 200
"""Characters of a path that are logged."""

log = structlog.get_logger()


def given_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The first `X-Request-ID` that can be one; None where nobody gave any."""
    for name, value in headers:
        if name == _RAW and _is_sane(value):
            return value.decode()
    return None


def request_id(scope: Scope) -> str:
    """The request's id, the same whenever it is asked for."""
    known: str | None = scope.get(_ID)
    if known is None:
        known = scope[_ID] = given_id(scope["headers"]) or uuid4().hex
    return known


def name_tenant(scope: Scope, tenants: Iterable[str]) -> None:
    """Notes whom a request's body is about, if it is one tenant."""
    different = set(tenants)
    if len(different) == 1:
        scope[_TENANT] = different.pop()


def identified(answer: Answer, scope: Scope) -> Answer:
    """The answer with the request's id."""
    return answer._replace(headers=(*answer.headers, (HEADER, request_id(scope))))


def fields_of(scope: Scope) -> dict[str, Any]:
    """What a line of the log says of the request during which it is written."""
    path: str = scope["path"]
    fields = {"request_id": request_id(scope), "method": scope["method"][:20]}
    fields["path"] = path if len(path) <= _LONGEST else f"{path[:_LONGEST]}..."
    caller = _caller(scope)
    for tenant in (
        scope.get("path_params", {}).get("tenant"),
        scope.get(_TENANT),
        caller and caller.tenant,
    ):
        if tenant and is_tenant_id(tenant):
            fields["tenant"] = tenant
            break
    return fields


def log_answer(scope: Scope, status: int | None, seconds: float) -> None:
    """Writes the line about a request that is answered.

    Args:
        scope: the request's.
        status: what it was answered with; None where the client went away before.
        seconds: how long that took.
    """
    caller = _caller(scope)
    told = fields_of(scope) | {"status": status, "milliseconds": round(seconds * 1000, 1)}
    if caller is not None:
        told["actor"] = caller.actor
    (log.warning if status is not None and status >= 500 else log.info)("api.request", **told)


def _caller(scope: Scope) -> Principal | None:
    """Who was found to be calling, once that is known."""
    principal = scope.get("state", {}).get("principal")
    return principal if isinstance(principal, Principal) else None


class RequestIds:
    """Gives requests their ids, and logs those that change something or fail.

    Args:
        app: answers them.
        log_all: whether all are logged.
    """

    def __init__(self, app: ASGIApp, *, log_all: bool = False) -> None:
        self.app = app
        self._log_all = log_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status: int | None = None
        under_way = True

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = (_RAW, request_id(scope).encode())
                message = {**message, "headers": [*message.get("headers", ()), own]}
            await send(message)

        def tell() -> Mapping[str, object]:
            # A task that outlives the request has its context; its lines are not about it.
            return fields_of(scope) if under_way else {}

        token = told_by.set(tell)
        began = time.perf_counter()
        try:
            await self.app(scope, receive, with_id)
        finally:
            failed = status is not None and status >= 500
            if self._log_all or failed or scope["method"] not in _READING:
                log_answer(scope, status, time.perf_counter() - began)
            under_way = False
            told_by.reset(token)


class Unavailable:
    """Tells of hot requests that were answered 503: at once, and then once a second.

    In an outage they come by the thousand, and say the same.

    Args:
        clock: seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until = float("-inf")
        self._answers = 0

    def tell(self, scope: Scope, cause: str) -> None:
        """Notes one answer; the line says how many there were since the one before."""
        self._answers += 1
        now = self._clock()
        if now >= self._quiet_until:
            told = fields_of(scope)
            log.warning("api.unavailable", **told, cause=cause, answers=self._answers)
            self._quiet_until = now + QUIET
            self._answers = 0
