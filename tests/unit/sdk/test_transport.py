"""Requests to a sidecar: what is sent, what is tried again, what each failure becomes."""

import asyncio
import inspect
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest

from partywall.breaker import PROBE_SECONDS
from partywall.errors import (
    ConfigurationError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    PartywallError,
    SidecarError,
    SidecarUnavailable,
    Unauthenticated,
    UnexpectedAnswer,
    UnknownLimit,
    UnknownTenant,
)
from partywall.protocol import Ask, PermitsRequest
from partywall.transport import ATTEMPTS, Backoff, Transport, substitute, substituted

ASK = PermitsRequest("me", [Ask("acme", "requests")])
GRANTED = {"permits": [{"allowed": True, "granted": 1, "seconds": 0.5}]}
ANYTHING = msgspec.json.Decoder(Any)

Handler = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


class Script:
    """A transport that answers what it is told, in order; the last one for ever.

    Attributes:
        seen: the requests, as they came.
        pauses: how long the transport slept between attempts.
        now: what its breaker takes for the time.
    """

    def __init__(self, *steps: httpx.Response | Exception) -> None:
        self.steps = list(steps)
        self.seen: list[httpx.Request] = []
        self.pauses: list[float] = []
        self.now = 100.0

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return httpx.Response(step.status_code, headers=step.headers, content=step.content)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def transport(self, **options: Any) -> Transport:
        options.setdefault("transport", httpx.MockTransport(self.answer))
        return Transport(
            "http://there:1234",
            "a-token",
            clock=lambda: self.now,
            backoff=Backoff(uniform=lambda _, most: most, sleep=self.sleep),
            **options,
        )


def problem(status: int, slug: str, **members: Any) -> httpx.Response:
    document = {"type": f"urn:partywall:problem:{slug}", "title": "A title", "status": status}
    return httpx.Response(
        status,
        headers={"Content-Type": "application/problem+json", **members.pop("headers", {})},
        content=json.dumps({**document, "detail": "in detail", **members}),
    )


def ok(document: object) -> httpx.Response:
    return httpx.Response(200, json=document)


async def get(script: Script, **options: Any) -> Any:
    return await script.transport().request("GET", "/v1/x", ANYTHING, idempotent=True, **options)


async def post(script: Script, **options: Any) -> Any:
    return await script.transport().request(
        "POST", "/v1/x", ANYTHING, body=[1], idempotent=False, **options
    )


# What is sent


async def test_a_request_says_who_asks_and_with_what_token() -> None:
    script = Script(ok({}))
    await script.transport().request(
        "PUT", "/v1/tenants/a", ANYTHING, body={"tier": "pro"}, query={"a": "b c"}, idempotent=True
    )
    [request] = script.seen
    assert str(request.url) == "http://there:1234/v1/tenants/a?a=b+c"
    assert request.headers["Authorization"] == "Bearer a-token"
    assert request.headers["Host"] == "there:1234"
    assert request.headers["User-Agent"].startswith("partywall/")
    assert request.headers["Content-Length"] == str(len(request.content))
    assert json.loads(request.content) == {"tier": "pro"}


async def test_permits_are_asked_for_by_post_and_read() -> None:
    script = Script(ok(GRANTED))
    answer = await script.transport().permits(ASK)
    [request] = script.seen
    assert (request.method, request.url.path) == ("POST", "/v1/permits")
    assert json.loads(request.content)["asks"] == [{"tenant": "acme", "limit": "requests"}]
    assert answer.permits[0].granted == 1


async def test_a_path_before_v1_is_kept() -> None:
    script = Script(ok({}))
    transport = Transport(
        "http://there/partywall/", "t", transport=httpx.MockTransport(script.answer)
    )
    await transport.request("GET", "/v1/x", ANYTHING, idempotent=True)
    assert script.seen[0].url.path == "/partywall/v1/x"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"])
async def test_a_proxy_of_the_environment_is_shown_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    seen = asyncio.Event()

    async def proxy(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set()
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        transport = Transport(unused_url(), "t", backoff=Backoff(first=0.001))
        with pytest.raises(SidecarUnavailable):
            await transport.request("GET", "/v1/x", ANYTHING, idempotent=True)
        await transport.aclose()
    assert not seen.is_set()


async def test_no_redirect_is_followed() -> None:
    script = Script(httpx.Response(302, headers={"Location": "http://elsewhere/"}))
    with pytest.raises(UnexpectedAnswer, match="answered 302"):
        await get(script)
    assert len(script.seen) == 1


# URL and token


@pytest.mark.parametrize(
    "url",
    [
        *("", "there", "127.0.0.1:8080", "ftp://there", "http://", "http://:80", "http://a:99999"),
        *("http://a?x=1", "http://a#x", "http://a\n", "http://" + "a" * 64),
        *("unix://run/x.sock", "unix:x.sock", "unix:///", "unix:///run/"),
    ],
)
def test_what_is_no_url_is_refused_with_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", url or "-")
    for given in (url, None):
        with pytest.raises(ConfigurationError, match=r"expected .*such as http|expected an abs"):
            Transport(given, "t")


def test_a_url_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Transport("http://me:secret@there", "t")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://[::1]:8080", "https://a.example", "unix:///run/x.sock"])
async def test_these_are_urls(url: str) -> None:
    await Transport(url, "t").aclose()


def test_without_a_token_the_error_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARTYWALL_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match=r"PARTYWALL_TOKEN.*partywall tokens create"):
        Transport("http://there")


@pytest.mark.parametrize("token", ["a b", "a\nb", "schlüssel"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(ConfigurationError, match="expected a token") as raised:
        Transport("http://there", token)
    assert token not in str(raised.value)


async def test_url_and_token_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", "http://from-env:99")
    monkeypatch.setenv("PARTYWALL_TOKEN", "token-from-env")
    script = Script(ok({}))
    transport = Transport(transport=httpx.MockTransport(script.answer))
    await transport.request("GET", "/v1/x", ANYTHING, idempotent=True)
    assert script.seen[0].url.host == "from-env"
    assert script.seen[0].headers["Authorization"] == "Bearer token-from-env"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "1"])
def test_a_deadline_that_is_no_time_is_refused(seconds: Any) -> None:
    for name in ("deadline", "timeout"):
        with pytest.raises(ConfigurationError, match=f"expected {name} in seconds"):
            Transport("http://there", "t", **{name: seconds})


# What each failure becomes


def driver_errors() -> list[type[Exception]]:
    """Every exception that httpx has, by its public names."""
    public = [getattr(httpx, name) for name in httpx.__all__]
    return [it for it in public if inspect.isclass(it) and issubclass(it, Exception)]


def made(kind: type[Exception]) -> Exception:
    match kind:
        case httpx.HTTPStatusError:
            return kind("said", request=httpx.Request("GET", "http://x"), response=ok({}))
        case httpx.StreamConsumed | httpx.StreamClosed | httpx.ResponseNotRead:
            return kind()
        case httpx.RequestNotRead:
            return kind()
        case _:
            return kind("said")


@pytest.mark.parametrize("kind", driver_errors(), ids=lambda kind: kind.__name__)
async def test_every_error_of_the_driver_is_one_of_ours(kind: type[Exception]) -> None:
    for ask in (get, post):
        with pytest.raises(PartywallError) as raised:
            await ask(Script(made(kind)))
        assert isinstance(raised.value.__cause__, kind)
    with pytest.raises(PartywallError) as raised:
        await Script(made(kind)).transport().permits(ASK)
    assert isinstance(raised.value.__cause__, kind)


@pytest.mark.parametrize(
    ("kind", "ours"),
    [
        (httpx.ConnectError, SidecarUnavailable),
        (httpx.ConnectTimeout, SidecarUnavailable),
        (httpx.ReadTimeout, SidecarUnavailable),
        (httpx.PoolTimeout, SidecarUnavailable),
        (httpx.ReadError, SidecarUnavailable),
        (httpx.RemoteProtocolError, SidecarUnavailable),
        (httpx.DecodingError, UnexpectedAnswer),
        (httpx.TooManyRedirects, UnexpectedAnswer),
        (httpx.UnsupportedProtocol, ConfigurationError),
        (httpx.InvalidURL, ConfigurationError),
        (OSError, SidecarUnavailable),
    ],
)
async def test_what_an_error_of_the_driver_becomes(
    kind: type[Exception], ours: type[PartywallError]
) -> None:
    with pytest.raises(PartywallError) as raised:
        await get(Script(kind("said")))
    assert type(raised.value) is ours
    assert "said" in str(raised.value)


@pytest.mark.parametrize(
    ("status", "slug", "ours"),
    [
        (401, "unauthenticated", Unauthenticated),
        (403, "forbidden", Forbidden),
        (404, "unknown-tenant", UnknownTenant),
        (404, "unknown-limit", UnknownLimit),
        (404, "unknown-token", NotFound),
        (404, "not-found", NotFound),
        (405, "method-not-allowed", UnexpectedAnswer),
        (409, "conflict", Conflict),
        (400, "invalid-request", InvalidRequest),
        (413, "too-large", InvalidRequest),
        (422, "invalid-request", InvalidRequest),
        (500, "internal", SidecarError),
        (503, "unavailable", SidecarUnavailable),
        (418, "of-a-later-version", UnexpectedAnswer),
        (404, "of-a-later-version", NotFound),
    ],
)
async def test_what_a_problem_becomes(status: int, slug: str, ours: type[SidecarError]) -> None:
    for ask in (get, post):
        with pytest.raises(SidecarError) as raised:
            await ask(Script(problem(status, slug)))
        assert type(raised.value) is ours
        assert raised.value.__cause__ is None
        assert ours is UnexpectedAnswer or "in detail" in str(raised.value)


async def test_an_invalid_request_names_each_fault() -> None:
    faults = [{"field": "tier", "reason": "expected one"}, {"field": "name", "reason": "too long"}]
    with pytest.raises(InvalidRequest) as raised:
        await get(Script(problem(422, "invalid-request", errors=faults)))
    assert raised.value.errors == (("tier", "expected one"), ("name", "too long"))


async def test_a_refused_token_says_how_to_make_one() -> None:
    with pytest.raises(Unauthenticated, match="partywall tokens create"):
        await get(Script(problem(401, "unauthenticated")))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404, html="<h1>Not here</h1>"),
        httpx.Response(401, html="<h1>Log in</h1>"),
        httpx.Response(500, text="oops"),
        httpx.Response(404, json={"type": "about:blank", "detail": "somebody else's problem"}),
        httpx.Response(404, json=["not", "an", "object"]),
        httpx.Response(200, html="<h1>Welcome</h1>"),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(200, content=b""),
        httpx.Response(204),
    ],
)
async def test_what_is_not_partywalls_is_told_apart(answer: httpx.Response) -> None:
    with pytest.raises(UnexpectedAnswer, match=r"is the URL right\?"):
        await get(Script(answer))
    with pytest.raises(UnexpectedAnswer, match=r"is the URL right\?"):
        await Script(answer).transport().permits(ASK)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_gateway_that_finds_no_sidecar_says_that_it_is_away(status: int) -> None:
    with pytest.raises(SidecarUnavailable, match=f"{status}, and not by a sidecar"):
        await post(Script(httpx.Response(status, html="<h1>Bad gateway</h1>")))


# What is tried again


async def test_an_idempotent_request_is_tried_again_with_growing_pauses() -> None:
    script = Script(
        httpx.ReadError("broke"), problem(503, "unavailable"), httpx.ConnectError("no"), ok("it")
    )
    assert await get(script) == "it"
    assert script.pauses == [0.1, 0.2, 0.4]


async def test_it_is_given_up_after_so_many_attempts() -> None:
    script = Script(httpx.ReadError("broke"))
    with pytest.raises(SidecarUnavailable, match="broke"):
        await get(script)
    assert len(script.seen) == ATTEMPTS


@pytest.mark.parametrize(
    "failure", [httpx.ReadError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x")]
)
async def test_what_may_have_been_done_is_not_done_twice(failure: Exception) -> None:
    for steps in ([failure], [problem(503, "unavailable")]):
        script = Script(*steps)
        with pytest.raises(SidecarUnavailable):
            await post(script)
        assert len(script.seen) == 1


@pytest.mark.parametrize(
    "failure", [httpx.ConnectError("x"), httpx.ConnectTimeout("x"), httpx.PoolTimeout("x")]
)
async def test_what_was_not_sent_is_tried_again_whatever_it_is(failure: Exception) -> None:
    script = Script(failure, ok("it"))
    assert await post(script) == "it"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 429, 500])
async def test_an_answer_is_never_asked_for_again(status: int) -> None:
    script = Script(problem(status, "whatever"))
    with pytest.raises(SidecarError):
        await get(script)
    assert len(script.seen) == 1


async def test_retry_after_is_waited_for_where_there_is_the_time() -> None:
    script = Script(problem(503, "unavailable", headers={"Retry-After": "2"}), ok("it"))
    assert await get(script) == "it"
    assert script.pauses == [2.1]
    script = Script(problem(503, "unavailable", headers={"Retry-After": "2"}), ok("it"))
    with pytest.raises(SidecarUnavailable) as raised:
        await get(script, timeout=1)
    assert raised.value.retry_after == 2.0
    assert script.pauses == []


async def test_a_stale_connection_is_replaced_for_permits_once() -> None:
    script = Script(httpx.RemoteProtocolError("Server disconnected"), ok(GRANTED))
    assert (await script.transport().permits(ASK)).permits[0].granted == 1
    script = Script(httpx.RemoteProtocolError("Server disconnected"))
    with pytest.raises(SidecarUnavailable):
        await script.transport().permits(ASK)
    assert len(script.seen) == 2


async def test_permits_are_not_asked_for_again_where_nobody_is() -> None:
    script = Script(httpx.ConnectError("refused"))
    with pytest.raises(SidecarUnavailable):
        await script.transport().permits(ASK)
    assert len(script.seen) == 1


# Deadlines


async def never(_: httpx.Request) -> httpx.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def test_permits_that_are_late_are_given_up() -> None:
    transport = Transport("http://there", "t", deadline=0.01, transport=httpx.MockTransport(never))
    with pytest.raises(SidecarUnavailable, match=r"no answer within 0\.01 s"):
        await transport.permits(ASK)


async def test_a_request_and_its_retries_share_one_timeout() -> None:
    transport = Transport("http://there", "t", timeout=0.01, transport=httpx.MockTransport(never))
    with pytest.raises(SidecarUnavailable, match=r"no answer within 0\.01 s"):
        await transport.request("GET", "/v1/x", ANYTHING, idempotent=True)


async def test_a_pause_that_does_not_fit_is_not_begun() -> None:
    script = Script(httpx.ReadError("broke"))
    with pytest.raises(SidecarUnavailable, match="broke"):
        await get(script, timeout=0.09)
    assert (len(script.seen), script.pauses) == (1, [])


# The breaker


async def test_permits_fail_at_once_while_the_sidecar_is_away() -> None:
    script = Script(httpx.ConnectError("refused"), ok(GRANTED))
    transport = script.transport()
    for _ in range(5):
        with pytest.raises(SidecarUnavailable, match="refused"):
            await transport.permits(ASK)
    assert len(script.seen) == 1
    script.now += 2 * PROBE_SECONDS
    await transport.permits(ASK)
    await transport.permits(ASK)
    assert len(script.seen) == 3


async def test_late_permits_open_it_and_so_does_a_503() -> None:
    transport = Transport("http://there", "t", deadline=0.01, transport=httpx.MockTransport(never))
    with pytest.raises(SidecarUnavailable, match="no answer within"):
        await transport.permits(ASK)
    with pytest.raises(SidecarUnavailable, match="not tried again yet"):
        await transport.permits(ASK)
    transport = Script(problem(503, "unavailable")).transport()
    with pytest.raises(SidecarUnavailable, match="in detail"):
        await transport.permits(ASK)
    with pytest.raises(SidecarUnavailable, match="not tried again yet"):
        await transport.permits(ASK)


async def test_an_answer_that_is_an_error_does_not_open_it() -> None:
    script = Script(problem(401, "unauthenticated"))
    transport = script.transport()
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await transport.permits(ASK)
    assert len(script.seen) == 3


async def test_every_other_call_fails_at_once_too_and_may_probe() -> None:
    script = Script(httpx.ConnectError("refused"), ok({}))
    transport = script.transport()
    with pytest.raises(SidecarUnavailable):
        await transport.permits(ASK)
    with pytest.raises(SidecarUnavailable, match="not tried again yet"):
        await transport.request("GET", "/v1/x", ANYTHING, idempotent=True)
    script.now += 2 * PROBE_SECONDS
    await transport.request("GET", "/v1/x", ANYTHING, idempotent=True)
    script.steps = [ok(GRANTED)]
    await transport.permits(ASK)


async def test_a_database_that_is_away_or_slow_does_not_stop_permits() -> None:
    script = Script(problem(503, "unavailable"))
    transport = script.transport()
    with pytest.raises(SidecarUnavailable):
        await transport.request("GET", "/v1/x", ANYTHING, idempotent=False)
    script.steps = [ok(GRANTED)]
    await transport.permits(ASK)

    slow = True

    async def answer(request: httpx.Request) -> httpx.Response:
        return await never(request) if slow else ok(GRANTED)

    transport = Transport("http://there", "t", timeout=0.01, transport=httpx.MockTransport(answer))
    with pytest.raises(SidecarUnavailable, match="no answer within"):
        await transport.request("GET", "/v1/x", ANYTHING, idempotent=True)
    slow = False
    await transport.permits(ASK)


# On real sockets


def unused_url() -> str:
    with socket.socket() as once:
        once.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{once.getsockname()[1]}"


class OneEach(asyncio.Protocol):
    """Answers one request on each connection, and closes it when the next is there."""

    connections = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        OneEach.connections += 1
        self.transport = transport
        self.answered = False

    def data_received(self, data: bytes) -> None:
        if self.answered:
            self.transport.close()
        elif data.endswith((b"}", b"\r\n\r\n")):
            self.answered = True
            body = json.dumps(GRANTED).encode()
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )


async def test_a_connection_that_closes_under_a_request_gives_no_error() -> None:
    OneEach.connections = 0
    server = await asyncio.get_running_loop().create_server(OneEach, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        transport = Transport(f"http://127.0.0.1:{port}", "t", deadline=10)
        for _ in range(3):
            await transport.permits(ASK)
            await transport.request("GET", "/v1/x", ANYTHING, idempotent=True)
        await transport.aclose()
    assert OneEach.connections == 6


async def test_what_speaks_no_http_is_away() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"-ERR unknown command\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        transport = Transport(f"http://127.0.0.1:{port}", "t", backoff=Backoff(first=0.001))
        with pytest.raises(SidecarUnavailable):
            await transport.request("GET", "/v1/x", ANYTHING, idempotent=True)
        await transport.aclose()


# Substitution


async def test_a_substitute_takes_every_request_whatever_the_url_and_without_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PARTYWALL_TOKEN", raising=False)
    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", "no url at all")
    script, inner = Script(ok("fake")), Script(ok("inner"))
    fake, within = httpx.MockTransport(script.answer), httpx.MockTransport(inner.answer)
    with substitute(fake):
        for url in (None, "http://there/with/a/path", "unix:///run/x.sock"):
            await Transport(url).request("GET", "/v1/x", ANYTHING, idempotent=True)
        with substitute(within):
            assert substituted() is within
        assert substituted() is fake
    assert substituted() is None
    assert [request.url.path for request in script.seen] == ["/v1/x"] * 3
    with pytest.raises(ConfigurationError):
        Transport()
