"""The middleware under each host framework, installed as its users do it."""

import asyncio
import json
from typing import Any

import httpx
import pytest
import quart

from partywall import PartywallMiddleware, Rule
from partywall.tenants import FromHeader
from partywall.transport import substitute
from tests.frameworks import apps
from tests.unit.sdk.asgi import (
    BOTH_FAMILIES,
    Sidecar,
    lifespan,
    refusing,
    request,
)

BY_PATH = [
    apps.starlette_app,
    apps.fastapi_app,
    apps.litestar_app,
    apps.litestar_middleware_app,
    apps.quart_app,
    apps.django_app,
]
PROPAGATING = [apps.starlette_app, apps.fastapi_app]
LIVING = [make for make in BY_PATH if make is not apps.django_app]


@pytest.fixture(params=BY_PATH, ids=lambda make: make.__name__)
def make(request: Any) -> apps.Make:
    return request.param  # type: ignore[no-any-return] # pytest's


@pytest.fixture(autouse=True)
def fresh_notes() -> None:
    apps.NOTED.clear()
    apps.EVENTS.clear()


def hosted(make: apps.Make, sidecar: Sidecar, **options: Any) -> Any:
    settings = {
        "tenant": FromHeader("X-Tenant-ID"),
        "client": sidecar.client(),
        "exempt": ["/health"],
        **options,
    }
    return make(**settings)


@pytest.mark.parametrize("path", ["/whose", "/sync"])
async def test_an_admitted_request_has_the_headers_and_knows_its_tenant_everywhere(make, path):
    answer = await request(hosted(make, Sidecar()), path)
    assert answer.status == 200
    assert answer.names() >= BOTH_FAMILIES
    assert answer["ratelimit"] == '"requests";r=99;t=60'
    assert set(json.loads(answer.body)) == {"acme"}


async def test_a_denied_request_is_429_and_never_reaches_the_app(make):
    answer = await request(hosted(make, Sidecar(refusing)), "/later")
    assert answer.status == 429
    assert answer.problem["violated-policies"] == ["requests"]
    assert answer["retry-after"] == "31"
    assert apps.NOTED == []


async def test_an_exempt_path_is_not_governed(make):
    sidecar = Sidecar(refusing)
    answer = await request(hosted(make, sidecar), "/health", None)
    assert (answer.status, json.loads(answer.body)) == (200, None)
    assert sidecar.seen == []


async def test_a_rule_is_of_the_path_as_the_framework_routes_it(make):
    sidecar = Sidecar()
    app = hosted(make, sidecar, rules=[Rule("/sync", methods=["GET"], limit="exports", cost=5)])
    assert (await request(app, "/sync")).status == 200
    assert [(ask.limit, ask.cost) for ask in sidecar.asks] == [("exports", 5)]


async def test_a_stream_arrives_whole_with_headers(make):
    answer = await request(hosted(make, Sidecar()), "/stream")
    assert (answer.status, answer.body) == (200, b"onetwo")
    assert answer.names() >= BOTH_FAMILIES


@pytest.mark.parametrize("make", LIVING, ids=lambda make: make.__name__)
async def test_background_tasks_run_as_the_tenant(make):
    app = hosted(make, Sidecar())
    async with lifespan(app):  # at whose end Quart waits for them
        answer = await request(app, "/later")
        assert answer.status == 200
    assert apps.NOTED == ["acme"]


@pytest.mark.parametrize("make", PROPAGATING, ids=lambda make: make.__name__)
async def test_what_the_app_raises_of_partywalls_is_answered(make):
    answer = await request(hosted(make, Sidecar()), "/upgrade")
    assert answer.status == 429
    assert answer.problem["upgrade"] == "pro"


@pytest.mark.parametrize(
    "make", [make for make in BY_PATH if make not in PROPAGATING], ids=lambda make: make.__name__
)
async def test_a_framework_that_answers_every_exception_answers_partywalls_too(make):
    """As docs/frameworks says of each of them."""
    answer = await request(hosted(make, Sidecar()), "/upgrade")
    assert answer.status == 500
    assert answer.names() >= BOTH_FAMILIES


@pytest.mark.parametrize("make", LIVING, ids=lambda make: make.__name__)
async def test_the_apps_lifespan_runs(make):
    async with lifespan(hosted(make, Sidecar())) as sent:
        assert apps.EVENTS == ["startup"]
    assert apps.EVENTS == ["startup", "shutdown"]
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


@pytest.mark.parametrize(
    "make",
    [make for make in LIVING if make is not apps.litestar_middleware_app],
    ids=lambda make: make.__name__,
)
async def test_a_client_of_the_middlewares_own_gives_back_its_permits_at_the_end(make):
    sidecar = Sidecar()
    app = make(tenant=FromHeader("X-Tenant-ID"), sidecar="http://x", token="t")
    with substitute(sidecar.transport):
        async with lifespan(app):
            for _ in range(2):
                assert (await request(app, "/sync")).status == 200
            assert sidecar.asks[-1].ahead > 0
        (back,) = sidecar.seen[-1].returns
    assert back.units == sidecar.asks[-1].ahead


async def test_django_says_that_it_knows_no_lifespan_and_the_server_goes_on():
    with pytest.raises(ValueError, match="lifespan"):
        async with lifespan(hosted(apps.django_app, Sidecar())):
            raise AssertionError("it started up")


async def test_two_hundred_requests_at_once_each_know_their_own_tenant(make):
    app = hosted(make, Sidecar())

    async def visit(number: int) -> None:
        tenant = f"tenant-{number % 50}"
        answer = await request(app, "/sync" if number % 4 == 0 else "/whose", tenant)
        assert set(json.loads(answer.body)) == {tenant}
        assert json.loads((await request(app, "/health", tenant)).body) is None

    await asyncio.gather(*(visit(number) for number in range(200)))


async def test_below_a_mount_paths_are_those_below_it():
    sidecar = Sidecar()
    app = hosted(apps.mounted_app, sidecar, rules=[Rule("/sync", limit="exports")])
    assert (await request(app, "/api/sync")).body == b'["acme"]'
    assert [ask.limit for ask in sidecar.asks] == ["exports"]
    assert (await request(app, "/api/health", None)).status == 200


async def test_litestar_makes_its_middlewares_anew_for_each_handler(monkeypatch):
    """Why docs/frameworks/litestar.md says to wrap the app, or to share a client."""
    made = []
    monkeypatch.setattr(
        PartywallMiddleware, "_closing", lambda self, send: pytest.fail("it got the lifespan")
    )
    before = PartywallMiddleware.__init__

    def count(self, *args: Any, **options: Any) -> None:
        made.append(self)
        before(self, *args, **options)

    monkeypatch.setattr(PartywallMiddleware, "__init__", count)
    app = apps.litestar_middleware_app(
        tenant=FromHeader("X-Tenant-ID"), sidecar="http://x", token="t"
    )
    async with lifespan(app):
        assert len(made) > 1


async def test_quart_s_own_test_client_is_governed():
    app: quart.Quart = hosted(apps.quart_app, Sidecar(refusing))
    answer = await app.test_client().get("/whose", headers={"X-Tenant-ID": "acme"})
    assert answer.status_code == 429


async def test_a_preflight_passes_and_a_denial_can_be_read_where_cors_is_outside():
    from starlette.middleware.cors import CORSMiddleware

    inner: Any = hosted(apps.fastapi_app, Sidecar(refusing))
    inner.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(inner), base_url="http://x") as web:
        origin = {"Origin": "https://shop.example"}
        ask = {**origin, "Access-Control-Request-Method": "GET"}
        assert (await web.options("/whose", headers=ask)).status_code == 200
        denied = await web.get("/whose", headers={**origin, "X-Tenant-ID": "acme"})
        assert denied.status_code == 429
        assert denied.headers["Access-Control-Allow-Origin"] == "https://shop.example"
