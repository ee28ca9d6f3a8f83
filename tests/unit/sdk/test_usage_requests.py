"""What the middleware, clients and the fake sidecar count and report, as their users see it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
from fastapi import Depends, FastAPI

from partywall import FeatureMissing, Partywall, PartywallMiddleware, SyncPartywall, usage
from partywall import middleware as module
from partywall.errors import NotFound, SidecarUnavailable, Unauthenticated
from partywall.fastapi import limit
from partywall.protocol import Permit, TenantUsage, UsageReport
from partywall.responses import ASGIApp, Denial
from partywall.tenants import FromHeader
from partywall.testing import FakeSidecar
from partywall.transport import Transport, substitute, substituted
from tests.unit.sdk.asgi import (
    Sidecar,
    answering,
    denied,
    exchange,
    granted,
    http_scope,
    raising,
    refusing,
    request,
    websocket_scope,
)

ADMITTED = "limits.requests.admitted"
DENIED = "limits.requests.denied"
WOULD_DENY = "limits.requests.would_deny"
IN_FLIGHT = "requests.in_flight_seconds"


class LosingReports(httpx.AsyncBaseTransport):
    """Loses the answer to the first report."""

    def __init__(self, to: httpx.AsyncBaseTransport | None) -> None:
        assert to is not None
        self.to = to
        self.lost = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self.to.handle_async_request(request)
        if request.url.path == "/v1/usage" and not self.lost.is_set():
            self.lost.set()
            raise httpx.ReadError("lost")
        return answer


class Clock:
    """Nanoseconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 10**15

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "perf_counter_ns", clock)
    return clock


def status(code: int) -> ASGIApp:
    """An app that answers so."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": code, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app


async def reported(
    sidecar: Sidecar, act: Callable[[Partywall], Awaitable[object]]
) -> dict[str, dict[str, int]]:
    """What a client of the sidecar has reported when it is closed."""
    async with sidecar.client() as client:
        await act(client)
    return sidecar.usage


class TestMiddleware:
    @pytest.mark.parametrize("code", [200, 204, 302, 404, 429, 500, 503])
    async def test_requests_count_by_the_class_of_the_status_that_their_clients_see(self, code):
        sidecar = Sidecar()

        async def act(client: Partywall) -> None:
            app = sidecar.governing(status(code), client=client)
            for _ in range(3):
                assert (await request(app)).status == code

        meters = await reported(sidecar, act)
        assert meters == {"acme": {ADMITTED: 3, f"requests.{code // 100}xx": 3}}

    async def test_the_time_in_the_app_counts_until_it_returned(self, clock):
        sidecar = Sidecar()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            clock.advance(0.25)
            await answering()(scope, receive, send)
            clock.advance(1.5)  # in a background task, for example

        async def act(client: Partywall) -> None:
            governed = sidecar.governing(app, client=client)
            await asyncio.gather(*(request(governed) for _ in range(2)))
            await request(governed, tenant="beta")

        meters = await reported(sidecar, act)
        assert meters["beta"] == {ADMITTED: 1, "requests.2xx": 1, IN_FLIGHT: 1_750_000}
        assert meters["acme"]["requests.2xx"] == 2

    async def test_parts_of_microseconds_add_up(self, clock):
        sidecar = Sidecar()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            clock.now += 600
            await answering()(scope, receive, send)

        async def act(client: Partywall) -> None:
            governed = sidecar.governing(app, client=client)
            for _ in range(5):
                await request(governed)

        assert (await reported(sidecar, act))["acme"][IN_FLIGHT] == 3

    async def test_a_denial_counts_as_denied_and_4xx_and_takes_no_time(self):
        sidecar = Sidecar(refusing)

        async def act(client: Partywall) -> None:
            app = sidecar.governing(answering(), client=client)
            for _ in range(3):
                assert (await request(app)).status == 429

        assert await reported(sidecar, act) == {"acme": {DENIED: 3, "requests.4xx": 3}}

    async def test_a_denial_in_another_shape_counts_as_its_client_sees_it(self):
        sidecar = Sidecar(refusing)

        def shaped(scope: Any, denial: Denial) -> Denial | ASGIApp:
            return status(302) if scope["path"] == "/page" else Denial(503, {"status": 503})

        async def act(client: Partywall) -> None:
            app = sidecar.governing(answering(), client=client, on_denial=shaped)
            assert (await request(app, "/page")).status == 302
            assert (await request(app, "/")).status == 503

        assert await reported(sidecar, act) == {
            "acme": {DENIED: 2, "requests.3xx": 1, "requests.5xx": 1}
        }

    async def test_what_the_app_raises_counts_as_the_server_answers_it(self):
        sidecar = Sidecar()

        async def late(scope: Any, receive: Any, send: Any) -> None:
            await answering()(scope, receive, send)
            raise ValueError

        async def act(client: Partywall) -> None:
            broken = sidecar.governing(answering(lambda _: raising(ValueError())), client=client)
            with pytest.raises(ValueError):  # noqa: PT011 - the app's own
                await request(broken)
            with pytest.raises(ValueError):  # noqa: PT011 - the app's own
                await request(sidecar.governing(late, client=client))
            gone = sidecar.governing(
                answering(lambda _: raising(asyncio.CancelledError())), client=client
            )
            with pytest.raises(asyncio.CancelledError):
                await request(gone)

        assert await reported(sidecar, act) == {
            "acme": {ADMITTED: 3, "requests.5xx": 1, "requests.2xx": 1}
        }

    async def test_a_denial_that_the_app_raises_counts_as_it_is_answered(self, clock):
        sidecar = Sidecar()

        async def act(client: Partywall) -> None:
            def refuse(scope: Any) -> Any:
                clock.advance(0.5)
                return raising(FeatureMissing("acme", "free", "search", None))

            assert (
                await request(sidecar.governing(answering(refuse), client=client))
            ).status == 402

        assert await reported(sidecar, act) == {
            "acme": {ADMITTED: 1, "requests.4xx": 1, IN_FLIGHT: 500_000}
        }

    async def test_what_is_not_enforced_would_be_denied(self):
        sidecar = Sidecar(refusing)
        counts = []

        async def act(client: Partywall) -> None:
            app = sidecar.governing(answering(), client=client, enforce=False)
            for _ in range(3):
                assert (await request(app)).status == 200
            counts.append(client.permits.counts)

        assert await reported(sidecar, act) == {"acme": {WOULD_DENY: 3, "requests.2xx": 3}}
        assert counts == [(0, 3, 0)]

    @pytest.mark.parametrize("enforce", [True, False])
    async def test_a_further_limit_of_a_route_counts_for_itself(self, enforce):
        sidecar = Sidecar(lambda ask: denied() if ask.limit == "searches" else granted(ask))
        app = FastAPI()

        @app.get("/", dependencies=[Depends(limit("searches"))])
        async def search() -> str:
            return "ok"

        async def act(client: Partywall) -> None:
            governed = sidecar.governing(app, client=client, enforce=enforce)
            assert (await request(governed)).status == (429 if enforce else 200)

        assert await reported(sidecar, act) == {
            "acme": {
                ADMITTED: 1,
                f"limits.searches.{'denied' if enforce else 'would_deny'}": 1,
                f"requests.{'4xx' if enforce else '2xx'}": 1,
            }
        }

    async def test_a_websocket_has_a_decision_and_neither_status_nor_time(self, clock):
        sidecar = Sidecar(lambda ask: denied() if ask.tenant == "beta" else granted(ask))

        def passing(scope: Any) -> str:
            clock.advance(60)
            return "ok"

        async def act(client: Partywall) -> None:
            app = sidecar.governing(answering(passing), client=client)
            await exchange(app, websocket_scope())
            await exchange(app, websocket_scope(tenant="beta", can_respond=True))

        assert await reported(sidecar, act) == {"acme": {ADMITTED: 1}, "beta": {DENIED: 1}}

    async def test_what_is_exempt_or_names_no_tenant_is_nobodys(self):
        sidecar = Sidecar()

        async def act(client: Partywall) -> None:
            app = sidecar.governing(answering(), client=client, exempt=["/health"])
            assert (await request(app, "/health")).status == 200
            assert (await request(app, tenant=None)).status == 400

        assert await reported(sidecar, act) == {}

    async def test_a_request_of_an_unknown_limit_counts_without_it(self):
        sidecar = Sidecar(lambda ask: Permit(False, "free", "unknown-limit", retry_after=None))

        async def act(client: Partywall) -> None:
            assert (await request(sidecar.governing(answering(), client=client))).status == 200

        assert await reported(sidecar, act) == {"acme": {"requests.2xx": 1}}

    async def test_a_request_that_ends_after_its_account_was_forgotten_counts(self, clock):
        sidecar = Sidecar()
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def wait(scope: Any) -> str:
            inside.set()
            await go_on.wait()
            clock.advance(2)
            return "ok"

        async def act(client: Partywall) -> None:
            app = sidecar.governing(answering(wait), client=client)
            running = asyncio.ensure_future(exchange(app, http_scope()))
            await inside.wait()
            for _ in range(2):
                client.permits._turn(0)  # a minute later
            assert len(client.permits) == 0
            go_on.set()
            await running

        meters = await reported(sidecar, act)
        assert meters == {"acme": {ADMITTED: 1, "requests.2xx": 1, IN_FLIGHT: 2_000_000}}


class TestClients:
    async def test_an_answer_that_was_lost_on_the_way_does_not_count_twice(self, monkeypatch):
        monkeypatch.setattr(usage, "REPORT_SECONDS", 0.01)
        with FakeSidecar() as sidecar:
            line = LosingReports(substituted())
            with substitute(line):
                async with Partywall() as client:
                    await client.check("acme")
                    await line.lost.wait()
                    await client.check("acme")
            assert sidecar.usage("acme") == {ADMITTED: 2}

    def test_the_synchronous_client_reports_when_it_is_closed(self):
        with FakeSidecar({"free": {"limits": {"requests": "3/minute"}}}) as sidecar:
            with SyncPartywall() as client:
                seen = [bool(client.check("acme")) for _ in range(5)]
            assert seen == [True] * 3 + [False] * 2
            assert sidecar.usage("acme") == {ADMITTED: 3, DENIED: 2}


class TestFake:
    async def test_a_host_apps_test_sees_what_was_reported(self, clock):
        tiers = {
            "free": {
                "limits": {"requests": "2/minute", "seen": {"rate": "1/minute", "enforce": False}}
            }
        }
        with FakeSidecar(tiers) as sidecar:
            async with Partywall() as client:

                async def act(scope: Any) -> str:
                    clock.advance(0.125)
                    assert await client.check("acme", "seen")
                    return "ok"

                app = PartywallMiddleware(
                    answering(act), tenant=FromHeader("X-Tenant-ID"), client=client
                )
                codes = [(await request(app)).status for _ in range(5)]
                assert sidecar.usage("acme") == {}
            assert codes == [200, 200, 429, 429, 429]
            assert sidecar.usage("acme") == {
                ADMITTED: 2,
                DENIED: 3,
                "limits.seen.admitted": 1,
                "limits.seen.would_deny": 1,
                "requests.2xx": 2,
                "requests.4xx": 3,
                IN_FLIGHT: 0.25,
            }
            assert sidecar.usage("nobody") == {}

    async def test_decisions_of_an_outage_reach_it_afterwards(self):
        with FakeSidecar({"free": {"limits": {"requests": "unlimited"}}}) as sidecar:
            async with Partywall() as client:
                sidecar.fail()
                assert (await client.check("acme")).degraded
                sidecar.restore()
                assert not (await client.check("acme")).degraded
            assert sidecar.usage("acme") == {ADMITTED: 2, "limits.requests.degraded": 1}

    async def test_who_has_no_tier_is_not_counted(self):
        with FakeSidecar(default_tier=None) as sidecar:
            async with Partywall() as client:
                sidecar.fail()
                await client.check("ghost")
                sidecar.restore()
            assert sidecar.usage("ghost") == {}


REPORT = UsageReport("one", 1, 0.5, [TenantUsage("acme", {ADMITTED: 2})])


class TestTransport:
    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (httpx.Response(404), NotFound),
            (httpx.Response(405), NotFound),
            (httpx.Response(401, json={"type": "urn:partywall:problem:x"}), Unauthenticated),
            (httpx.Response(502), SidecarUnavailable),
        ],
    )
    async def test_each_refusal_has_its_error(self, answer, error):
        transport = Transport("http://x", "t", transport=httpx.MockTransport(lambda _: answer))
        with pytest.raises(error):
            await transport.usage(REPORT)

    async def test_a_report_is_sent_once_and_though_the_breaker_is_open(self):
        seen = []

        def answer(asked: httpx.Request) -> httpx.Response:
            seen.append(asked)
            raise httpx.ConnectError("nobody there")

        transport = Transport("http://x", "t", transport=httpx.MockTransport(answer))
        for number in range(20):
            with pytest.raises(SidecarUnavailable):
                await transport.usage(REPORT)
            assert len(seen) == number + 1
        assert seen[0].url.path == "/v1/usage"
        assert msgspec.json.decode(seen[0].content, type=UsageReport) == REPORT
