"""Requests on the host app's hot way: HTTP/1.1 by one write and, mostly, one read.

A permits call over httpx's transport takes a third of a millisecond of the app's processor, which
is several of its own requests. This takes a tenth of that, and knows no more than it needs: one
path, POST, connections that are kept. Sources: RFC 9110, RFC 9112.
"""

import asyncio
import re
from collections.abc import Iterable
from typing import NamedTuple, cast

import httpx

from partywall import address
from partywall.answers import Reply

MOST_HEAD = 64 * 1024
"""Bytes of an answer before its body: more is not HTTP."""

_BEGINNING = b"HTTP/1."
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: .*)?")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;.*)?")
_NO_BODY = (204, 304)


class Wire:
    """Posts to one path of one sidecar, from one event loop.

    Args:
        place: the sidecar.
        path: what is posted to, with a leading slash.
        headers: of every request; its length is added.
    """

    def __init__(
        self, place: address.Address, path: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> None:
        self._place = place
        fields = [b"%s: %s" % field for field in headers]
        self._head = b"\r\n".join([b"POST %s HTTP/1.1" % path, *fields, b"Content-Length: "])
        self._certificates = address.certificates() if place.url.scheme == "https" else None
        self._idle: list[_Connection] = []
        self._closed = False

    async def post(self, content: bytes) -> Reply:
        """The answer to one request. The connection of one that is cancelled is given up.

        Raises:
            httpx.ConnectError: there is no connection; nothing was sent.
            httpx.RemoteProtocolError: it broke before the answer's end, or that is not HTTP.
        """
        connection = self._kept() or await self._connected()
        reusable = False
        try:
            reply, reusable = await connection.exchange(
                b"%s%d\r\n\r\n%s" % (self._head, len(content), content)
            )
        finally:
            if reusable and not self._closed:
                self._idle.append(connection)
            else:
                connection.abort()
        return reply

    async def aclose(self) -> None:
        """Closes its connections; one in use as soon as it is not."""
        self._closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # the loop lets go of them at the end of its turn

    def _kept(self) -> "_Connection | None":
        """The connection used last, for others may be about to be closed at the other end."""
        dropped = asyncio.get_running_loop().time() - address.KEEP_ALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.open and connection.used_at > dropped:
                return connection
            connection.abort()
        return None

    async def _connected(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            if self._place.socket is not None:
                _, connection = await loop.create_unix_connection(_Connection, self._place.socket)
            else:
                url = self._place.url
                _, connection = await loop.create_connection(
                    _Connection,
                    url.raw_host.decode("ascii"),
                    url.port or (80 if self._certificates is None else 443),
                    ssl=self._certificates,
                )
        except OSError as exc:
            raise httpx.ConnectError(str(exc) or type(exc).__name__) from exc
        return connection


class _Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next request.

    Attributes:
        open: whether the other end has not closed it.
        used_at: when it was last of use, by the loop's clock.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[Message] | None = None
        self._received = b""
        self.open = True
        self.used_at = 0.0

    async def exchange(self, request: bytes) -> "Message":
        """The answer, and whether the connection can carry another request."""
        answer: asyncio.Future[Message] = self._loop.create_future()
        self._answer = answer
        self._transport.write(request)
        return await answer

    def abort(self) -> None:
        """Ends it without a farewell."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The loop's word that it stands."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its shape

    def data_received(self, data: bytes) -> None:
        """More of the answer."""
        self._received = self._received + data if self._received else data
        self._read(ended=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end closed it, or this one."""
        self.open = False
        self._read(ended=True)
        answer = self._answer
        if answer is not None and not answer.done():
            said = "the other end closed it without an answer" if exc is None else str(exc)
            answer.set_exception(httpx.RemoteProtocolError(said or type(exc).__name__))

    def _read(self, *, ended: bool) -> None:
        answer = self._answer
        if answer is None or answer.done():
            # Nobody asked for this, so what comes next would be no answer to what is asked next.
            self.open = False
            return
        try:
            message = parse(self._received, ended=ended)
        except httpx.RemoteProtocolError as exc:
            answer.set_exception(exc)
            return
        if message is not None:
            self._received = b""
            self._answer = None
            self.used_at = self._loop.time()
            answer.set_result(message)


class Message(NamedTuple):
    """One answer read to its end.

    Attributes:
        reply: the answer.
        reusable: whether the connection may carry another request.
    """

    reply: Reply
    reusable: bool


def parse(data: bytes, *, ended: bool) -> Message | None:
    """The answer to a POST that `data` begins with; None while more of it must come.

    Args:
        data: what was received since the request.
        ended: whether nothing more will.

    Raises:
        httpx.RemoteProtocolError: it is no answer.
    """
    status, at = 100, 0
    while status < 200:  # before an answer others may come that say "wait"
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            _may_become_a_head(data[at:])
            return None
        minor, status, fields = _head(data[at:end])
        at = end + 4
    coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if status in _NO_BODY:
        body, end = b"", at
    elif coding is not None:
        if coding.lower() != b"chunked":
            raise _no_http(b"Transfer-Encoding: " + coding)
        chunks = _chunks(data, at)
        if chunks is None:
            return None
        body, end = chunks
    elif length is not None:
        if not _LENGTH.fullmatch(length):
            raise _no_http(b"Content-Length: " + length)
        end = at + int(length)
        if len(data) < end:
            return None
        body = data[at:end]
    elif ended:
        body, end = data[at:], len(data)
    else:
        return None
    closing = minor == b"0" or b"close" in fields.get(b"connection", b"").lower()
    return Message(
        Reply(status, httpx.Headers(list(fields.items())), body),
        reusable=not closing and not ended and end == len(data),
    )


def _may_become_a_head(head: bytes) -> None:
    if len(head) > MOST_HEAD or not head.startswith(_BEGINNING[: len(head)]):
        raise _no_http(head)


def _head(head: bytes) -> tuple[bytes, int, dict[bytes, bytes]]:
    """HTTP's minor version, the status, and the fields by their names in lower case."""
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise _no_http(first)
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.strip() != name:
            raise _no_http(line)
        name, value = name.lower(), value.strip()
        fields[name] = b"%s, %s" % (fields[name], value) if name in fields else value
    return status[1], int(status[2]), fields


def _chunks(data: bytes, at: int) -> tuple[bytes, int] | None:
    """A body that comes in chunks, and where it ends; None while more of it must come."""
    chunks = []
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = _CHUNK.fullmatch(data, at, end)
        if size is None:
            raise _no_http(data[at:end])
        at = end + 2
        following = at + int(size[1], 16)
        if following == at:
            break
        if len(data) < following + 2:
            return None
        if data[following : following + 2] != b"\r\n":
            raise _no_http(data[following:])
        chunks.append(data[at:following])
        at = following + 2
    # The line end before the last chunk's is the first of two where no trailers follow.
    end = data.find(b"\r\n\r\n", at - 2)
    return None if end < 0 else (b"".join(chunks), end + 4)


def _no_http(said: bytes) -> httpx.RemoteProtocolError:
    return httpx.RemoteProtocolError(f"expected an answer in HTTP/1.1; got {said[:80]!r}")
