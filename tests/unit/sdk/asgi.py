"""Driving ASGI apps by hand, and a sidecar that answers what a test wants, in this process."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import msgspec

from partywall import Partywall, PartywallMiddleware, current_tenant
from partywall.decision import Window
from partywall.protocol import (
    Ask,
    Permit,
    PermitsAnswer,
    PermitsRequest,
    TierFacts,
    UsageAnswer,
    UsageReport,
)
from partywall.responses import ASGIApp, Message, Receive, Scope, Send
from partywall.tenants import FromHeader

MINUTE = Window(quota=100, window=60, remaining=99, reset_after=60.0)
FULL_MINUTE = Window(quota=100, window=60, remaining=0, reset_after=59.5)
SECOND = Window(quota=10, window=1, remaining=9, reset_after=0.25)

BOTH_FAMILIES = {
    "ratelimit-policy",
    "ratelimit",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
}

_reports = msgspec.json.Decoder(UsageReport)
_requests = msgspec.json.Decoder(PermitsRequest)
_encode = msgspec.json.encode


def granted(ask: Ask, *windows: Window, **more: Any) -> Permit:
    """All that was asked for, for 0.4 s."""
    fields: dict[str, Any] = {
        "tier": "free",
        "granted": ask.need + ask.ahead,
        "seconds": 0.4,
        "leased": ask.ahead > 0,
        "windows": windows or (MINUTE,),
    }
    return Permit(True, **(fields | more))


def denied(*windows: Window, **more: Any) -> Permit:
    """No room in the limit, for 30.2 s; held as long as can be."""
    fields: dict[str, Any] = {
        "tier": "free",
        "reason": "limit-exceeded",
        "seconds": 0.4,
        "retry_after": 30.2,
        "windows": windows or (FULL_MINUTE,),
    }
    return Permit(False, **(fields | more))


def refusing(ask: Ask) -> Permit:
    """`denied()`, whatever is asked."""
    return denied()


class Sidecar:
    """Answers `/v1/permits` by `answer`: a permit for each ask.

    Attributes:
        answer: may be replaced at any time.
        away: raised for every question while it is set.
        latency: seconds until it answers.
        tiers: what it says of tiers; `instances`: of processes.
        seen: every question that came.
        reports: every report of usage that came, also those that were lost.
        losing: raised for every report while it is set, after it came.
    """

    def __init__(self, answer: Callable[[Ask], Permit] = granted) -> None:
        self.answer = answer
        self.away: Exception | None = None
        self.latency = 0.0
        self.tiers: dict[str, TierFacts] = {}
        self.instances = 1
        self.seen: list[PermitsRequest] = []
        self.reports: list[UsageReport] = []
        self.losing: Exception | None = None

    @property
    def asks(self) -> list[Ask]:
        """Every ask that came."""
        return [ask for request in self.seen for ask in request.asks]

    async def lease(self, request: PermitsRequest) -> PermitsAnswer:
        """As `Transport.permits`."""
        self.seen.append(request)
        if self.latency:
            await asyncio.sleep(self.latency)
        if self.away is not None:
            raise self.away
        permits = [self.answer(ask) for ask in request.asks]
        return PermitsAnswer(permits, self.tiers, self.instances)

    async def report(self, report: UsageReport) -> UsageAnswer:
        """As `Transport.usage`."""
        self.reports.append(report)
        if self.losing is not None:
            raise self.losing
        if self.away is not None:
            raise self.away
        return UsageAnswer(len(report.usage))

    @property
    def usage(self) -> dict[str, dict[str, int]]:
        """What was reported of each tenant, as one who applies each report once knows it."""
        sums: dict[str, dict[str, int]] = {}
        for report in {(one.instance, one.sequence): one for one in self.reports}.values():
            for one in report.usage:
                meters = sums.setdefault(one.tenant, {})
                for meter, rise in one.meters.items():
                    meters[meter] = meters.get(meter, 0) + rise
        return sums

    @property
    def transport(self) -> httpx.AsyncBaseTransport:
        """The way to it; nothing in between but the encoding."""

        async def handle(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/v1/usage":
                done = await self.report(_reports.decode(request.content))
                return httpx.Response(200, content=_encode(done))
            answer = await self.lease(_requests.decode(request.content))
            return httpx.Response(200, content=_encode(answer))

        return httpx.MockTransport(handle)

    def client(self, **options: Any) -> Partywall:
        """A client of it."""
        # Long: a busy machine must not look like an outage.
        settings = {"deadline": 30.0, **options}
        return Partywall("http://sidecar", "t", transport=self.transport, **settings)

    def governing(self, app: ASGIApp, **options: Any) -> PartywallMiddleware:
        """The app behind a middleware whose tenants come from the header X-Tenant-ID."""
        settings = {"tenant": FromHeader("X-Tenant-ID"), "client": self.client(), **options}
        return PartywallMiddleware(app, **settings)


class Reply(NamedTuple):
    """A whole HTTP response.

    Attributes:
        status: of it.
        headers: each name in lower case, in order.
        body: of it.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:  # type: ignore[override] # by name, not by place
        """A header that was sent exactly once."""
        (value,) = [value for key, value in self.headers if key == name]
        return value

    def names(self) -> set[str]:
        """The names of all headers."""
        return {key for key, _ in self.headers}

    @property
    def problem(self) -> dict[str, Any]:
        """The body, which must be a problem document."""
        assert self["content-type"] == "application/problem+json"
        assert int(self["content-length"]) == len(self.body)
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return document


def http_scope(
    path: str = "/",
    tenant: str | None = "acme",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Scope:
    """A scope as servers make it; `tenant` in X-Tenant-ID."""
    named = {} if tenant is None else {"X-Tenant-ID": tenant}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": _raw({"Host": "example.com", **named, **(headers or {})}),
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
        **more,
    }


def websocket_scope(
    path: str = "/", tenant: str | None = "acme", *, can_respond: bool = False, **more: Any
) -> Scope:
    """A WebSocket's; `can_respond`: the server has the extension `websocket.http.response`."""
    scope = http_scope(path, tenant)
    del scope["method"]
    extensions = {"websocket.http.response": {}} if can_respond else {}
    return {**scope, "type": "websocket", "scheme": "ws", "extensions": extensions, **more}


async def exchange(app: ASGIApp, scope: Scope, *received: Message) -> list[Message]:
    """Runs the app with what it receives, and a disconnect when it has answered.

    Gives what it sent.
    """
    first: dict[str, Message] = {
        "http": {"type": "http.request", "body": b"", "more_body": False},
        "websocket": {"type": "websocket.connect"},
    }
    waiting = deque(received or (first[scope["type"]],))
    sent: list[Message] = []
    answered = asyncio.Event()

    async def receive() -> Message:
        if waiting:
            return waiting.popleft()
        await answered.wait()
        return {"type": f"{scope['type']}.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"].endswith(".body") and not message.get("more_body"):
            answered.set()

    await app(scope, receive, send)
    return sent


async def request(app: ASGIApp, path: str = "/", tenant: str | None = "acme", **more: Any) -> Reply:
    """One HTTP request and its whole response; more as of `http_scope`."""
    return reply(await exchange(app, http_scope(path, tenant, **more)))


def reply(sent: Sequence[Message], kind: str = "http.response") -> Reply:
    """The response that was sent, checked against the ASGI specification's order."""
    start, *bodies = sent
    assert start["type"] == f"{kind}.start"
    assert bodies
    assert all(message["type"] == f"{kind}.body" for message in bodies)
    assert [message.get("more_body", False) for message in bodies] == [True] * (len(bodies) - 1) + [
        False
    ]
    raw = list(start.get("headers", ()))
    return Reply(
        start["status"],
        [(name.decode().lower(), value.decode("latin-1")) for name, value in raw],
        b"".join(message.get("body", b"") for message in bodies),
    )


@asynccontextmanager
async def lifespan(app: ASGIApp) -> AsyncIterator[list[Message]]:
    """Starts the app up and shuts it down, as servers do; gives what it sent so far."""
    received: asyncio.Queue[Message] = asyncio.Queue()
    sent: list[Message] = []
    arrived = asyncio.Event()

    async def send(message: Message) -> None:
        sent.append(message)
        arrived.set()

    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    running = asyncio.ensure_future(app(scope, received.get, send))
    running.add_done_callback(lambda _: arrived.set())
    try:
        for last, message in [(False, "lifespan.startup"), (True, "lifespan.shutdown")]:
            arrived.clear()
            received.put_nowait({"type": message})
            await arrived.wait()
            if running.done():
                break
            if not last:
                yield sent
        await running
    finally:
        running.cancel()


def answering(
    act: Callable[[Scope], Awaitable[object] | object] = lambda scope: "ok",
) -> ASGIApp:
    """An app that answers 200 with `str()` of what `act` gives."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept", "headers": [(b"x-app", b"1")]})
            await send({"type": "websocket.send", "text": str(act(scope))})
            return
        said = act(scope)
        if asyncio.iscoroutine(said):
            said = await said
        body = str(said).encode()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/plain"), (b"x-app", b"1")],
            }
        )
        await send({"type": "http.response.body", "body": body})

    return app


def tenant_seen(scope: Scope) -> str:
    """The tenant that an app sees, for `answering`."""
    return f"{current_tenant(None)}"


async def raising(error: BaseException) -> None:
    """Raises it, for `answering`."""
    raise error


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
