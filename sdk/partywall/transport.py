"""HTTP to a sidecar: one deadline a call, retries where nothing can be done twice, and a breaker.

Permits, which a host app's requests wait for, go by a wire of their own. All else goes to httpx's
transport directly, not through its client, which would write a log line for each request.
"""

import asyncio
import functools
import importlib.metadata
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import httpx
import msgspec

from partywall import address
from partywall.answers import (
    AWAY,
    DRIVER_ERRORS,
    HOW_TO_AUTHENTICATE,
    NOTHING_SENT,
    Reply,
    error_of,
    is_problem,
    retry_after,
    translated,
    unexpected,
)
from partywall.breaker import Call, CircuitBreaker
from partywall.deadline import within
from partywall.errors import ConfigurationError, NotFound, PartywallError, SidecarUnavailable
from partywall.protocol import PermitsAnswer, PermitsRequest, UsageAnswer, UsageReport
from partywall.usage import SEND_SECONDS
from partywall.wire import Wire

ATTEMPTS = 4
"""Of one request, the first included."""

CONNECTIONS = 100
"""For all but permits."""

_PERMITS = "/v1/permits"
_USAGE = "/v1/usage"
_SUBSTITUTE_URL = "http://sidecar"

T = TypeVar("T")

_Headers = Sequence[tuple[bytes, bytes]]

_encoder = msgspec.json.Encoder()
_permits = msgspec.json.Decoder(PermitsAnswer)
_usage = msgspec.json.Decoder(UsageAnswer)
_substitute: httpx.AsyncBaseTransport | None = None


@contextmanager
def substitute(transport: httpx.AsyncBaseTransport) -> Iterator[None]:
    """While the block lasts, every client of this process talks to `transport`.

    Whatever sidecar it names, and without a token: for tests of host apps. Blocks may be nested.
    """
    global _substitute
    before, _substitute = _substitute, transport
    try:
        yield
    finally:
        _substitute = before


def substituted() -> httpx.AsyncBaseTransport | None:
    """What clients talk to instead of their sidecar; None where they talk to it."""
    return _substitute


class Backoff(NamedTuple):
    """When a request is tried again: after a random part of a time that doubles (full jitter).

    Attributes:
        first: the most before the second attempt, in seconds.
        longest: the most before any.
        uniform: as `random.uniform`.
        sleep: as `asyncio.sleep`.
    """

    first: float = 0.1
    longest: float = 1.0
    uniform: Callable[[float, float], float] = random.uniform
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def delay(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return self.uniform(0.0, min(self.longest, self.first * 2 ** (failures - 1)))


class Transport:
    """Requests of one event loop to one sidecar.

    Args:
        sidecar: its URL; left out, PARTYWALL_SIDECAR_URL or http://127.0.0.1:8080.
        token: what it is shown; left out, PARTYWALL_TOKEN.
        deadline: seconds that permits may take.
        timeout: seconds that any other request may take, with its retries.
        transport: what to send with, in place of connections of its own.
        clock: seconds that never go back, for the breaker.
        backoff: when to try again.

    Raises:
        ConfigurationError: the URL or the token is none, or there is no token.
    """

    def __init__(
        self,
        sidecar: str | None = None,
        token: str | None = None,
        *,
        deadline: float = 0.25,
        timeout: float = 10.0,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff = Backoff(),  # noqa: B008 - immutable
    ) -> None:
        self.deadline = positive("deadline", deadline)
        self.timeout = positive("timeout", timeout)
        if _substitute is not None:
            place, token = address.parse(_SUBSTITUTE_URL), token or "substituted"
        else:
            place = address.parse(
                sidecar or os.environ.get("PARTYWALL_SIDECAR_URL") or address.DEFAULT
            )
        self.sidecar = place.text
        """Where it is, for messages."""
        self._url = place.url
        permits_url = self._to(_PERMITS)
        self._asked_for_permits = f"POST {_PERMITS} at {place.text}"
        self._headers = [
            (b"Host", place.url.netloc),
            (b"Authorization", b"Bearer " + checked_token(_found(token)).encode()),
            (b"User-Agent", _user_agent()),
            (b"Content-Type", b"application/json"),
        ]
        self._breaker = CircuitBreaker(place.text, clock=clock)
        self._backoff = backoff
        given = _substitute or transport
        self._others = given or address.connect(place, CONNECTIONS)
        self._owned = _substitute is None
        self._wire = None if given else Wire(place, permits_url.raw_path, self._headers)
        self._post = (
            self._wire.post
            if self._wire is not None
            else functools.partial(self._exchange, "POST", permits_url)
        )

    async def permits(self, request: PermitsRequest) -> PermitsAnswer:
        """`POST /v1/permits`, under the deadline; fails at once while the sidecar is away.

        Tried again only where a connection broke without an answer, and then once: it may have been
        stale. A repetition can charge units that nobody will spend, so it may lower what is
        admitted, and never raise it.

        Raises:
            SidecarError: there is no answer to go by.
        """
        with self._breaker.enter() as call:
            try:
                async with within(self.deadline):
                    reply = await self._permits_reply(_encoder.encode(request))
            except TimeoutError as exc:
                raise _lost(call, _late(self._asked_for_permits, self.deadline)) from exc
            except DRIVER_ERRORS as exc:
                raise _lost(call, translated(exc, self._asked_for_permits)) from exc
            if reply.status in AWAY:
                call.failed(f"{self._asked_for_permits} was answered {reply.status}")
            else:
                call.succeeded()
        return _decoded(reply, _permits, self._asked_for_permits)

    async def usage(self, report: UsageReport) -> UsageAnswer:
        """`POST /v1/usage`, once: who reports sends it again, with the age that it has then.

        Nobody waits for it, so the breaker is not asked, and is told nothing.

        Raises:
            NotFound: the sidecar has no such path: it is of an earlier version.
            SidecarError: it was refused, or there is no answer to go by.
        """
        asked = f"POST {_USAGE} at {self.sidecar}"
        seconds = min(self.timeout, SEND_SECONDS)
        try:
            async with within(seconds):
                reply = await self._exchange("POST", self._to(_USAGE), _encoder.encode(report))
        except TimeoutError as exc:
            raise _late(asked, seconds) from exc
        except DRIVER_ERRORS as exc:
            raise translated(exc, asked) from exc
        if reply.status in (404, 405):
            raise NotFound(f"{asked} was answered {reply.status}")
        return _decoded(reply, _usage, asked)

    async def request(
        self,
        method: str,
        path: str,
        answer: msgspec.json.Decoder[T],
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        idempotent: bool,
        timeout: float | None = None,  # noqa: ASYNC109 - a shorter one of ours; held below
    ) -> T:
        """Any other request, its retries included under one timeout.

        Args:
            method: of HTTP.
            path: from `/v1` on, quoted.
            answer: reads the body of a success.
            query: parameters.
            body: what is sent as JSON, unless None.
            headers: further ones, in ASCII.
            idempotent: whether repeating it changes nothing; otherwise it is tried again only if
                nothing of it was sent.
            timeout: seconds, where it is not the transport's own.

        Raises:
            SidecarError: it was refused, or there is no answer to go by.
        """
        url = self._to(path, query)
        asked = f"{method} {path} at {self.sidecar}"
        content = b"" if body is None else _encoder.encode(body)
        further = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        seconds = min(timeout or self.timeout, self.timeout)
        with self._breaker.enter() as call:
            try:
                async with within(seconds):
                    until = asyncio.get_running_loop().time() + seconds
                    reply = await self._tried(method, url, content, further, idempotent, until)
            except TimeoutError as exc:
                # Says nothing about permits: PostgreSQL may be slow, of which they need nothing.
                raise _late(asked, seconds) from exc
            except DRIVER_ERRORS as exc:
                raise _lost(call, translated(exc, asked)) from exc
            if reply.status in AWAY and not is_problem(reply):
                call.failed(f"{asked} was answered {reply.status}")
            else:
                call.succeeded()
        return _decoded(reply, answer, asked)

    async def aclose(self) -> None:
        """Closes its connections."""
        if self._wire is not None:
            await self._wire.aclose()
        if self._owned:
            await self._others.aclose()

    def _to(self, path: str, query: Mapping[str, str] | None = None) -> httpx.URL:
        return httpx.URL(f"{self._url}".rstrip("/") + path, params=query)

    async def _permits_reply(self, content: bytes) -> Reply:
        try:
            return await self._post(content)
        except NOTHING_SENT:
            raise  # refused: it would be again
        except httpx.TransportError:
            return await self._post(content)

    async def _tried(
        self,
        method: str,
        url: httpx.URL,
        content: bytes,
        further: _Headers,
        idempotent: bool,
        until: float,
    ) -> Reply:
        """The answer, or the last failure when there is no more time or no more attempt."""
        for failures in range(1, ATTEMPTS):
            try:
                reply = await self._exchange(method, url, content, further)
            except DRIVER_ERRORS as exc:
                if not idempotent and not isinstance(exc, NOTHING_SENT):
                    raise
                pause = self._backoff.delay(failures)
                if not _fits(pause, until):
                    raise
            else:
                if reply.status not in AWAY or not idempotent:
                    return reply
                pause = self._backoff.delay(failures) + (retry_after(reply) or 0.0)
                if not _fits(pause, until):
                    return reply
            await self._backoff.sleep(pause)
        return await self._exchange(method, url, content, further)

    async def _exchange(
        self, method: str, url: httpx.URL, content: bytes, further: _Headers = ()
    ) -> Reply:
        headers = [*self._headers, *further]
        if content:
            headers.append((b"Content-Length", b"%d" % len(content)))
        request = httpx.Request(method, url, headers=headers, stream=httpx.ByteStream(content))
        response = await self._others.handle_async_request(request)
        try:
            # Raw: none was asked for in another encoding, and that costs less than httpx's reading.
            body = b"".join([chunk async for chunk in response.stream])  # type: ignore[union-attr] # an async transport's
        finally:
            await response.aclose()
        return Reply(response.status_code, response.headers, body)


def positive(name: str, value: float) -> float:
    """A number of seconds.

    Raises:
        ConfigurationError: it is none that can be waited.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise ConfigurationError(f"expected {name} in seconds, above 0; got {value!r}")
    return float(value)


def checked_token(token: str) -> str:
    """A token that can be sent.

    Raises:
        ConfigurationError: it cannot; the message does not repeat it.
    """
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"expected a token of printable ASCII characters without spaces; {HOW_TO_AUTHENTICATE}"
        )
    return token


def _found(token: str | None) -> str:
    text = token or os.environ.get("PARTYWALL_TOKEN")
    if not text:
        raise ConfigurationError(
            f"there is no token: pass token=, or set PARTYWALL_TOKEN; {HOW_TO_AUTHENTICATE}"
        )
    return text


@functools.cache
def _user_agent() -> bytes:
    return f"partywall/{importlib.metadata.version('partywall')}".encode()


def _decoded(reply: Reply, answer: msgspec.json.Decoder[T], asked: str) -> T:
    if not 200 <= reply.status < 300:
        raise error_of(reply, asked)
    try:
        return answer.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise unexpected(reply, asked) from exc


def _late(asked: str, within: float) -> SidecarUnavailable:
    return SidecarUnavailable(f"{asked}: no answer within {within:g} s")


def _lost(call: Call, error: PartywallError) -> PartywallError:
    call.failed(error)
    return error


def _fits(pause: float, until: float) -> bool:
    return asyncio.get_running_loop().time() + pause < until
