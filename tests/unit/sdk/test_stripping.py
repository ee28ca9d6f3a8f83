"""`FromPath(strip=True)` under the routers that host apps use: their routes know of no tenants."""

from typing import Any

import httpx
import litestar
import pytest
import quart
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse
from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from partywall.tenants import FromPath, Scope
from tests.support.django_host import django_app as django_site


async def starlette_order(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(request.url_for("order", number=8)))


def starlette_app() -> Any:
    return Starlette(
        routes=[
            Route("/orders/{number}", starlette_order, name="order"),
            Mount("/deep", routes=[Route("/orders/{number}", starlette_order)]),
        ]
    )


def fastapi_app() -> Any:
    app = FastAPI()

    @app.get("/orders/{number}")
    def order(number: int, request: FastAPIRequest) -> str:
        return str(request.url_for("order", number=number + 1))

    return app


def litestar_app() -> Any:
    @litestar.get("/orders/{number:int}")
    async def order(request: litestar.Request[Any, Any, Any]) -> str:
        return f"order {request.path_params['number']}"

    return litestar.Litestar([order])


def quart_app() -> Any:
    app = quart.Quart(__name__)

    @app.get("/orders/<int:number>")
    async def order(number: int) -> str:
        return quart.url_for("order", number=number + 1)

    return app


def django_order(_request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(reverse("order", args=[number + 1]))


urlpatterns = [path("orders/<int:number>", django_order, name="order")]


def django_app() -> Any:
    return django_site(__name__)


@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize("make", [starlette_app, fastapi_app, litestar_app, quart_app, django_app])
async def test_routes_and_urls_lie_below_the_stripped_prefix(make: Any, root_path: str) -> None:
    way, inner = FromPath("/t/{tenant}", strip=True), make()

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        tenant = way(scope)
        await inner(scope if tenant is None else way.stripped(scope, tenant), receive, send)

    # This transport leaves root_path out of the path, as a server behind a proxy that cuts it off.
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/t/acme/orders/7")
        assert answer.status_code == 200
        if make is not litestar_app:
            assert answer.text.strip('"').endswith(f"{root_path}/t/acme/orders/8")
        assert (await client.get("/t/acme/elsewhere")).status_code == 404
        if make is starlette_app:
            assert (await client.get("/t/acme/deep/orders/7")).text.endswith("/t/acme/orders/8")
