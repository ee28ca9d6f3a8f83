"""HTTP load from one process: N connections, each sending its next request when answered."""

import asyncio
import itertools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit


@dataclass
class Load:
    """What came of a load.

    Attributes:
        answered: responses in the measured time.
        seconds: the measured time.
        statuses: responses by status.
        latencies: seconds of each response, where they were timed.
    """

    answered: int = 0
    seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Responses a second."""
        return self.answered / self.seconds


class _Connection(asyncio.Protocol):
    def __init__(
        self, requests: Iterator[bytes], load: Load, ended: "asyncio.Future[None]", timed: bool
    ) -> None:
        self._requests = requests
        self._timed = timed
        self._sent = 0.0
        self._load = load
        self._ended = ended
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its shape
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.find(b"content-length: ")
        length = int(self._buffer[at + 16 : self._buffer.find(b"\r", at)])
        if len(self._buffer) < head + 4 + length:
            return
        if self._timed:
            self._load.latencies.append(time.perf_counter() - self._sent)
        status = int(self._buffer[9:12])
        self._load.answered += 1
        self._load.statuses[status] = self._load.statuses.get(status, 0) + 1
        self._buffer = self._buffer[head + 4 + length :]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _send(self) -> None:
        assert self._transport is not None
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
        else:
            self._sent = time.perf_counter() if self._timed else 0.0
            self._transport.write(request)


def get(path: str, headers: Mapping[str, str]) -> bytes:
    """A GET, ready to send."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{lines}\r\n".encode()


def post(path: str, body: bytes, token: str) -> bytes:
    """A POST of JSON, ready to send."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def drive(
    url: str,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float | None = None,
    statuses: Collection[int] = (200,),
    timed: bool = False,
) -> Load:
    """Sends `requests` round and round for `seconds`, or once through when that is None.

    Raises:
        RuntimeError: a response had none of the `statuses`.
    """
    target = urlsplit(url)
    load = Load()
    begun = time.perf_counter()
    loop = asyncio.get_running_loop()

    def until() -> Iterator[bytes]:
        end = begun + (seconds or 0)
        source = itertools.cycle(requests) if seconds else iter(requests)
        for request in source:
            if seconds and time.perf_counter() >= end:
                return
            yield request

    source = until()
    ends: list[asyncio.Future[None]] = []
    for _ in range(connections):
        ended: asyncio.Future[None] = loop.create_future()
        ends.append(ended)
        await loop.create_connection(
            lambda ended=ended: _Connection(source, load, ended, timed),
            target.hostname,
            target.port,
        )
    await asyncio.gather(*ends)
    load.seconds = time.perf_counter() - begun
    if set(load.statuses) - set(statuses):
        raise RuntimeError(f"expected only {sorted(statuses)}: {load.statuses}")
    return load
