"""The app's lifespan under the middleware, and what becomes of unspent permits at its end."""

import asyncio
from typing import Any

import pytest

from partywall import Partywall, PartywallMiddleware, SidecarUnavailable
from partywall.responses import Message, Receive, Scope, Send
from partywall.tenants import FromHeader
from partywall.transport import substitute
from tests.unit.sdk.asgi import Sidecar, answering, lifespan, request


class App:
    """One with a lifespan; `end` is what it says last.

    Attributes:
        events: what came.
    """

    def __init__(self, end: str = "lifespan.shutdown.complete") -> None:
        self.events: list[str] = []
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await answering()(scope, receive, send)
            return
        for answer in ("lifespan.startup.complete", self._end):
            self.events.append((await receive())["type"])
            await send({"type": answer})


def governed(app: Any, **options: Any) -> PartywallMiddleware:
    """With a client of its own, as apps have it."""
    settings = {"tenant": FromHeader("X-Tenant-ID"), "sidecar": "http://x", "token": "t", **options}
    return PartywallMiddleware(app, **settings)


async def make_hot(app: PartywallMiddleware, sidecar: Sidecar) -> int:
    """Leases units ahead; how many are left unspent."""
    for _ in range(2):
        assert (await request(app)).status == 200
        await asyncio.sleep(0)
    return sidecar.asks[-1].ahead


@pytest.mark.parametrize("end", ["lifespan.shutdown.complete", "lifespan.shutdown.failed"])
async def test_it_passes_and_at_its_end_unspent_permits_go_back_before_the_server_knows(end):
    sidecar, inner = Sidecar(), App(end)
    app = governed(inner)
    with substitute(sidecar.transport):
        async with lifespan(app) as sent:
            assert sent == [{"type": "lifespan.startup.complete"}]
            unspent = await make_hot(app, sidecar)
            assert unspent > 0
            asked = len(sidecar.seen)
        assert inner.events == ["lifespan.startup", "lifespan.shutdown"]
        assert sent[1:] == [{"type": end}]
        assert [back.units for back in sidecar.seen[-1].returns] == [unspent]
        assert len(sidecar.seen) == asked + 1


async def test_a_sidecar_that_is_away_then_does_not_keep_the_app_from_ending():
    sidecar = Sidecar()
    app = governed(App())
    with substitute(sidecar.transport):
        async with lifespan(app) as sent:
            await make_hot(app, sidecar)
            sidecar.away = SidecarUnavailable("away")
        assert sent[-1] == {"type": "lifespan.shutdown.complete"}


async def test_a_fault_in_giving_back_is_shown_and_the_server_is_told_all_the_same():
    sidecar = Sidecar()
    app = governed(App())
    said: list[list[Message]] = []

    async def run() -> None:
        async with lifespan(app) as sent:
            said.append(sent)
            await make_hot(app, sidecar)
            sidecar.away = RuntimeError("a fault of our own")

    with substitute(sidecar.transport), pytest.raises(RuntimeError, match="of our own"):
        await run()
    assert said[0][-1] == {"type": "lifespan.shutdown.complete"}


async def test_a_client_that_was_given_stays_its_owners_to_close():
    sidecar = Sidecar()
    client = sidecar.client()
    app = sidecar.governing(App(), client=client)
    async with lifespan(app):
        unspent = await make_hot(app, sidecar)
    assert sidecar.seen[-1].returns == []
    await client.aclose()
    assert [back.units for back in sidecar.seen[-1].returns] == [unspent]


async def test_what_an_app_without_a_lifespan_raises_passes():
    error = ValueError("no lifespan here")

    async def without(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    with pytest.raises(ValueError, match="no lifespan") as caught:
        await governed(without)({"type": "lifespan"}, asyncio.Event().wait, asyncio.sleep)  # type: ignore[arg-type] # never called
    assert caught.value is error


async def test_one_client_serves_several_middlewares():
    sidecar = Sidecar()
    async with Partywall("http://x", "t", transport=sidecar.transport) as client:
        one, other = (sidecar.governing(answering(), client=client) for _ in range(2))
        await make_hot(one, sidecar)
        asked = len(sidecar.seen)
        assert (await request(other)).status == 200
        assert len(sidecar.seen) == asked
    assert sidecar.seen[-1].returns
