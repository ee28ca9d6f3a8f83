"""As much of HTTP/1.1 as tests need to send much of it, or to stand between two who speak it."""

import asyncio
from typing import NamedTuple, Self
from urllib.parse import urlsplit

BROKEN = (ConnectionError, asyncio.IncompleteReadError)
"""What reading or writing raises when the other side is gone."""


class Reply(NamedTuple):
    """An answer, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes


async def message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The next message: its head with the empty line, and its body, by its Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(_headers(head).get("content-length", 0))
    return head, await reader.readexactly(length)


def get(path: str, headers: dict[str, str]) -> bytes:
    """A GET, ready to send."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n{lines}\r\n".encode()


class Connection:
    """One connection to a server, made when it is needed, and made again after it broke."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._address = target.hostname, target.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def exchange(self, request: bytes) -> Reply:
        """Sends a request and reads the answer.

        Raises:
            ConnectionError, IncompleteReadError: the other side is gone.
        """
        head, body = await self.raw(request)
        return Reply(int(head[9:12]), _headers(head), body)

    async def raw(self, request: bytes) -> tuple[bytes, bytes]:
        """As `exchange`; the answer's head and body as they came."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(*self._address)
            reader, writer = self._streams
            writer.write(request)
            return await message(reader)
        except BaseException:
            self.close()  # an answer may still be on its way: it is not the next request's
            raise

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}
