"""What a host app's own log lines say of the request that runs."""

import asyncio
import logging
from collections.abc import Iterator
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue

import pytest

from partywall.context import Tenant, in_tenant_context, running_as
from partywall.logs import TenantFilter
from tests.unit.sdk.asgi import Sidecar, answering, exchange, request, websocket_scope

MINE = logging.getLogger("tests.app.orders")


class Lines(logging.Handler):
    """Keeps (tenant, request id, message) of each record."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str | None, str | None, str]] = []
        self.addFilter(TenantFilter())

    def emit(self, record: logging.LogRecord) -> None:
        named = vars(record)
        self.told.append((named["tenant"], named["request_id"], record.getMessage()))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    level = MINE.level
    MINE.setLevel(logging.INFO)
    MINE.addHandler(handler)
    yield handler
    MINE.removeHandler(handler)
    MINE.setLevel(level)


async def test_lines_of_requests_side_by_side_each_name_their_own(lines: Lines) -> None:
    meet = asyncio.Barrier(2)

    async def handle(scope: object) -> str:
        await meet.wait()
        MINE.info("in a coroutine")
        await asyncio.to_thread(MINE.info, "in a thread")
        in_tenant_context(MINE.info)("in a thread of one's own")
        return "ok"

    app = Sidecar().governing(answering(handle))
    MINE.info("outside")
    await asyncio.gather(
        *(request(app, tenant=one, headers={"X-Request-ID": f"id-{one}"}) for one in ("a", "b"))
    )
    MINE.info("outside")
    said = ("in a coroutine", "in a thread", "in a thread of one's own")
    for tenant in ("a", "b"):
        its = [line for line in lines.told if line[0] == tenant]
        assert its == [(tenant, f"id-{tenant}", words) for words in said]
    assert lines.told[0] == lines.told[-1] == (None, None, "outside")


@pytest.mark.parametrize("value", ["", "two words", 'a"b', "it's", "x" * 129, "tést"])
async def test_an_id_that_could_confuse_whoever_reads_the_log_is_left_out(
    lines: Lines, value: str
) -> None:
    app = Sidecar().governing(answering(lambda _: MINE.info("said")))
    await request(app, headers={"X-Request-ID": value})
    await request(app)
    assert lines.told == [("acme", None, "said")] * 2


async def test_a_websocket_and_another_tenants_block_in_a_request_keep_its_id(lines: Lines) -> None:
    def handle(_: object) -> None:
        with running_as(Tenant("globex")):
            MINE.info("for another")
        MINE.info("said")

    app = Sidecar().governing(answering(handle))
    scope = websocket_scope()
    scope["headers"] = [*scope["headers"], (b"x-request-id", b"socket-1")]
    await exchange(app, scope)
    assert lines.told == [("globex", "socket-1", "for another"), ("acme", "socket-1", "said")]


def test_a_block_outside_requests_has_a_tenant_alone(lines: Lines) -> None:
    with running_as(Tenant("acme")):
        MINE.info("in a script")
    assert lines.told == [("acme", None, "in a script")]


def test_what_a_record_says_by_itself_stays() -> None:
    """As with a queue of logging's own, whose listener is in a thread where no request runs."""
    last = Lines()
    waiting: SimpleQueue[logging.LogRecord] = SimpleQueue()
    first = QueueHandler(waiting)
    first.addFilter(TenantFilter())
    listener = QueueListener(waiting, last)
    listener.start()
    with running_as(Tenant("acme")):
        first.handle(MINE.makeRecord("x", logging.INFO, "x", 1, "said", (), None))
    listener.stop()
    assert last.told == [("acme", None, "said")]
