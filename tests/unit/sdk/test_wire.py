"""The wire that permits go by: HTTP/1.1, whatever a sidecar or a gateway before it makes of it."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from partywall import address
from partywall.wire import MOST_HEAD, Wire, parse

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
INTERIM = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 \r\na: b\r\n\r\n"]
CHUNKED = OK + b"Transfer-Encoding: Chunked\r\n\r\n2;a=b\r\nhe\r\n03 \r\nllo\r\n0\r\n"


# What is an answer


@given(
    body=st.binary(max_size=40),
    sizes=st.lists(st.integers(1, 9), max_size=9),
    framing=st.sampled_from(["length", "chunks", "trailers"]),
    first=st.sampled_from([b"", *INTERIM]),
)
def test_an_answer_is_there_with_its_last_byte_and_not_before(
    body: bytes, sizes: list[int], framing: str, first: bytes
) -> None:
    if framing == "length":
        sent = OK + b"content-length:%d\r\n\r\n%s" % (len(body), body)
    else:
        pieces, rest = [], body
        for size in sizes:
            pieces.append(rest[:size])
            rest = rest[size:]
        chunks = [b"%X\r\n%s\r\n" % (len(it), it) for it in [*pieces, rest] if it]
        end = b"0\r\nTrailer: x\r\n\r\n" if framing == "trailers" else b"0\r\n\r\n"
        sent = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + end
    sent = first + sent
    for length in range(len(sent)):
        assert parse(sent[:length], ended=False) is None
    message = parse(sent, ended=False)
    assert message is not None
    assert (message.reply.status, message.reply.body) == (200, body)
    assert message.reusable


def test_without_a_length_the_body_ends_with_the_connection() -> None:
    sent = OK + b"\r\nhello"
    assert parse(sent, ended=False) is None
    message = parse(sent, ended=True)
    assert message is not None
    assert (message.reply.body, message.reusable) == (b"hello", False)


@pytest.mark.parametrize("status", [204, 304])
def test_some_answers_have_no_body(status: int) -> None:
    message = parse(b"HTTP/1.1 %d No Content\r\n\r\n" % status, ended=False)
    assert message is not None
    assert (message.reply.status, message.reply.body) == (status, b"")


def test_fields_are_read_whatever_their_case_and_joined_where_there_are_several() -> None:
    sent = OK + b"RETRY-AFTER:\t7 \r\nVia: a\r\nVIA: b\r\nContent-Length: 0\r\n\r\n"
    message = parse(sent, ended=False)
    assert message is not None
    assert message.reply.headers["Retry-After"] == "7"
    assert message.reply.headers["Via"] == "a, b"


@pytest.mark.parametrize(
    "sent",
    [
        HELLO.replace(b"HTTP/1.1", b"HTTP/1.0"),
        HELLO.replace(b"Content", b"Connection: keep-alive, Close\r\nContent"),
        HELLO + b"!",
    ],
)
def test_a_connection_is_not_used_again_where_the_answer_says_so(sent: bytes) -> None:
    message = parse(sent, ended=False)
    assert message is not None
    assert (message.reply.body, message.reusable) == (b"hello", False)


BAD_HEADS = [b"-ERR unknown command\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/2 200\r\n\r\n"]
BAD_HEADS += [b"HTTP/1.1 %s\r\n\r\n" % status for status in (b"20 OK", b"2000 OK", b"099 No", b"")]
BAD_FIELDS = [b"no field", b" a: b", b"a : b", b":b"]
BAD_FIELDS += [b"Content-Length: " + length for length in (b"-1", b"x", b"1, 2", b"9" * 30)]
BAD_FIELDS += [b"Transfer-Encoding: gzip, chunked"]
BAD_CHUNKS = [b"x\r\n", b"-1\r\n", b"\r\n", b"1\r\nabc"]


@pytest.mark.parametrize(
    "sent",
    [
        *BAD_HEADS,
        *(OK + field + b"\r\n\r\n" for field in BAD_FIELDS),
        *(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunk for chunk in BAD_CHUNKS),
    ],
    ids=range(len(BAD_HEADS + BAD_FIELDS + BAD_CHUNKS)),
)
def test_what_is_no_answer_is_refused_at_once(sent: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match=r"expected an answer in HTTP/1\.1"):
        parse(sent, ended=False)


def test_a_head_without_an_end_is_refused_when_it_is_long() -> None:
    assert parse((OK + b"a: " + b"b" * MOST_HEAD)[:MOST_HEAD], ended=False) is None
    with pytest.raises(httpx.RemoteProtocolError):
        parse(OK + b"a: " + b"b" * MOST_HEAD, ended=False)


# On sockets


class Peer:
    """A server that gives its answers in order, the last one for ever; `|` parts one's pieces.

    Attributes:
        requests: as they came.
        connections: how many there were.
    """

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.asked = asyncio.Event()

    def connection(self) -> asyncio.Protocol:
        self.connections += 1
        return _OfPeer(self)

    def answer(self) -> list[bytes]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.asked.set()
        return answer.split(b"|")


class _OfPeer(asyncio.Protocol):
    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, _, body = self.received.partition(b"\r\n\r\n")
        if len(body) == int(re.findall(rb"Content-Length: (\d+)", head)[0]):
            self.peer.requests.append(self.received)
            self.received = b""
            self.say(self.peer.answer())

    def say(self, pieces: list[bytes]) -> None:
        if not pieces[0]:
            self.transport.close()
            return
        self.transport.write(pieces[0])
        if pieces[1:]:
            asyncio.get_running_loop().call_soon(self.say, pieces[1:])


@asynccontextmanager
async def wire_to(peer: Peer) -> AsyncIterator[Wire]:
    server = await asyncio.get_running_loop().create_server(peer.connection, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        wire = Wire(address.parse(f"http://127.0.0.1:{port}"), b"/v1/x?y", [(b"Host", b"there")])
        yield wire
        await wire.aclose()


async def test_a_request_is_one_post_with_its_length() -> None:
    peer = Peer(HELLO)
    async with wire_to(peer) as wire:
        assert (await wire.post(b'{"a": 1}')).body == b"hello"
    assert peer.requests == [
        b'POST /v1/x?y HTTP/1.1\r\nHost: there\r\nContent-Length: 8\r\n\r\n{"a": 1}'
    ]


async def test_a_connection_carries_one_request_after_another_and_two_at_once_have_two() -> None:
    peer = Peer(HELLO)
    async with wire_to(peer) as wire:
        for _ in range(3):
            await wire.post(b"{}")
        assert peer.connections == 1
        await asyncio.gather(wire.post(b"{}"), wire.post(b"{}"))
        await asyncio.gather(wire.post(b"{}"), wire.post(b"{}"))
    assert peer.connections == 2


async def test_an_answer_may_come_in_pieces_and_be_large() -> None:
    large = OK + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    peer = Peer(CHUNKED.replace(b"ll", b"l|l") + b"|\r\n", large)
    async with wire_to(peer) as wire:
        assert (await wire.post(b"{}")).body == b"hello"
        assert (await wire.post(b"y" * 1_000_000)).body == b"x" * 1_000_000
    assert peer.connections == 1


async def test_a_connection_that_the_other_end_closes_after_the_answer_is_replaced() -> None:
    peer = Peer(OK + b"Connection: close\r\nContent-Length: 1\r\n\r\n1", HELLO)
    async with wire_to(peer) as wire:
        assert (await wire.post(b"{}")).body == b"1"
        assert (await wire.post(b"{}")).body == b"hello"
    assert peer.connections == 2


async def test_a_connection_that_rested_too_long_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(address, "KEEP_ALIVE_SECONDS", 0.0)
    peer = Peer(HELLO)
    async with wire_to(peer) as wire:
        await wire.post(b"{}")
        await wire.post(b"{}")
    assert peer.connections == 2


async def test_a_connection_that_breaks_before_the_answers_end_is_an_error() -> None:
    peer = Peer(b"", HELLO)
    async with wire_to(peer) as wire:
        with pytest.raises(httpx.RemoteProtocolError, match="closed it without an answer"):
            await wire.post(b"{}")
        assert (await wire.post(b"{}")).body == b"hello"


async def test_nobody_reads_the_answer_to_a_request_that_was_given_up() -> None:
    peer = Peer(b"HTTP/1.1 200 OK\r\n", HELLO)
    async with wire_to(peer) as wire:
        given_up = asyncio.create_task(wire.post(b"{}"))
        await peer.asked.wait()
        given_up.cancel()
        await asyncio.wait([given_up])
        assert (await wire.post(b"{}")).body == b"hello"
    assert peer.connections == 2


async def test_what_nobody_asked_for_is_no_answer_to_the_next_request() -> None:
    peer = Peer(HELLO + b"|" + HELLO.replace(b"hello", b"HELLO"), HELLO)
    async with wire_to(peer) as wire:
        assert (await wire.post(b"{}")).body == b"hello"
        await asyncio.sleep(0.01)  # whenever it comes: the test holds either way
        assert (await wire.post(b"{}")).body == b"hello"


async def test_a_wire_runs_over_a_unix_socket(tmp_path: Path) -> None:
    peer = Peer(HELLO)
    path = str(tmp_path / "x.sock")
    async with await asyncio.get_running_loop().create_unix_server(peer.connection, path):
        wire = Wire(address.parse(f"unix://{path}"), b"/", [])
        assert (await wire.post(b"{}")).body == b"hello"
        await wire.aclose()


async def test_https_is_spoken_to_whom_the_environment_trusts_and_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, other = trustme.CA(), trustme.CA()
    trusted.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    address.certificates.cache_clear()
    peer = Peer(HELLO)
    for authority in (trusted, other):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        server = await asyncio.get_running_loop().create_server(
            peer.connection, "127.0.0.1", 0, ssl=context
        )
        async with server:
            port = server.sockets[0].getsockname()[1]
            wire = Wire(address.parse(f"https://localhost:{port}"), b"/", [])
            if authority is trusted:
                assert (await wire.post(b"{}")).body == b"hello"
            else:
                with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                    await wire.post(b"{}")
            await wire.aclose()
    address.certificates.cache_clear()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid", "unix:///no/x"])
async def test_where_nobody_listens_nothing_was_sent(url: str) -> None:
    with pytest.raises(httpx.ConnectError, match=r".+"):
        await Wire(address.parse(url), b"/", []).post(b"{}")
