"""One app under each framework, with the middleware installed as users of that framework do it.

| path | answers |
| --- | --- |
| `/whose` | whose request it is, as JSON, in each place that code of a request runs in |
| `/sync` | the same from an ordinary function, which the framework runs in a thread |
| `/later` | `ok`, and afterwards a background task calls `NOTED.append` with the tenant's id |
| `/stream` | `onetwo`, in chunks |
| `/upgrade` | raises `LimitExceeded` |
| `/health` | exempt: `null` |
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
import litestar
import quart
from asgiref.sync import sync_to_async
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from litestar.background_tasks import BackgroundTask as LitestarTask
from litestar.middleware import DefineMiddleware
from litestar.response import Stream
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.routing import Mount, Route

from partywall import LimitExceeded, PartywallMiddleware, current_tenant
from partywall.decision import Decision
from partywall.responses import ASGIApp
from tests.support.django_host import django_app as django_site

Make = Callable[..., ASGIApp]
"""Makes an app; takes the middleware's arguments."""

NOTED: list[str] = []
"""By whom background tasks ran."""

EVENTS: list[str] = []
"""What the apps' own lifespans did."""


def here() -> str | None:
    tenant = current_tenant(None)
    return None if tenant is None else tenant.id


async def in_a_task() -> str | None:
    await asyncio.sleep(0)
    return here()


async def whose() -> list[str | None]:
    """The tenant in the handler, in tasks and in threads, and again after all of that."""
    seen = [here()]
    await asyncio.sleep(0)
    task = asyncio.create_task(in_a_task())
    seen.append(await asyncio.to_thread(here))
    seen.append(await task)
    seen.append(await anyio.to_thread.run_sync(here))
    seen.extend(await asyncio.gather(in_a_task(), in_a_task()))
    return [*seen, here()]


def note() -> None:
    NOTED.append(f"{here()}")


def over() -> LimitExceeded:
    return LimitExceeded(Decision(False, "acme", "free", "exports", 1, "limit-exceeded"), "pro")


async def chunks() -> AsyncIterator[str]:
    yield "one"
    await asyncio.sleep(0)
    yield "two"


@asynccontextmanager
async def events(_app: object) -> AsyncIterator[None]:
    EVENTS.append("startup")
    yield
    EVENTS.append("shutdown")


def starlette_app(**options: Any) -> ASGIApp:
    async def whose_is_it(_: Any) -> Any:
        return JSONResponse(await whose())

    def sync(_: Any) -> Any:
        return JSONResponse([here()])

    async def later(_: Any) -> Any:
        return PlainTextResponse("ok", background=BackgroundTask(note))

    async def stream(_: Any) -> Any:
        return StreamingResponse(chunks())

    async def upgrade(_: Any) -> Any:
        raise over()

    async def health(_: Any) -> Any:
        return JSONResponse(here())

    endpoints = [whose_is_it, sync, later, stream, upgrade, health]
    paths = ["/whose", "/sync", "/later", "/stream", "/upgrade", "/health"]
    return Starlette(
        routes=[Route(path, one) for path, one in zip(paths, endpoints, strict=True)],
        middleware=[Middleware(PartywallMiddleware, **options)],
        lifespan=events,
        # At the very outside, whatever is said of it: it takes nothing from Partywall.
        exception_handlers={Exception: lambda request, exc: PlainTextResponse("oh", 500)},
    )


def mounted_app(**options: Any) -> ASGIApp:
    """The middleware on a part of a Starlette app alone."""
    inner = starlette_app(**options)
    return Starlette(routes=[Mount("/api", inner)], lifespan=events)


def fastapi_app(**options: Any) -> ASGIApp:
    app = FastAPI(lifespan=events)
    app.add_middleware(PartywallMiddleware, **options)
    app.get("/whose")(whose)

    @app.get("/sync")
    def sync() -> list[str | None]:
        return [here()]

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> str:
        tasks.add_task(note)
        return "ok"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(chunks())

    @app.get("/upgrade")
    async def upgrade() -> None:
        raise over()

    @app.get("/health")
    async def health() -> str | None:
        return here()

    return app


def litestar_handlers() -> list[Any]:
    @litestar.get("/whose")
    async def whose_is_it() -> list[str | None]:
        return await whose()

    @litestar.get("/sync", sync_to_thread=True)
    def sync() -> list[str | None]:
        return [here()]

    @litestar.get("/later")
    async def later() -> litestar.Response[str]:
        return litestar.Response("ok", background=LitestarTask(note))

    @litestar.get("/stream")
    async def stream() -> Stream:
        return Stream(chunks())

    @litestar.get("/upgrade")
    async def upgrade() -> None:
        raise over()

    @litestar.get("/health")
    async def health() -> str | None:
        return here()

    return [whose_is_it, sync, later, stream, upgrade, health]


def litestar_app(**options: Any) -> ASGIApp:
    inner: Any = litestar.Litestar(litestar_handlers(), lifespan=[events])
    return PartywallMiddleware(inner, **options)


def litestar_middleware_app(**options: Any) -> ASGIApp:
    """In Litestar's own `middleware`, with a shared client."""
    define: Any = DefineMiddleware(PartywallMiddleware, **options)  # type: ignore[arg-type] # its own types of ASGI
    app: Any = litestar.Litestar(litestar_handlers(), lifespan=[events], middleware=[define])
    return app  # type: ignore[no-any-return] # its own types of ASGI


def quart_app(**options: Any) -> ASGIApp:
    app = quart.Quart(__name__)
    app.asgi_app = PartywallMiddleware(app.asgi_app, **options)  # type: ignore[assignment, arg-type, method-assign] # as its documentation says; its own types of ASGI

    @app.get("/whose")
    async def whose_is_it() -> Any:
        return quart.jsonify([*await whose(), await quart.utils.run_sync(here)()])

    @app.get("/sync")
    def sync() -> Any:
        return [here()]

    @app.get("/later")
    async def later() -> str:
        app.add_background_task(note)
        return "ok"

    @app.get("/stream")
    async def stream() -> Any:
        return chunks(), 200

    @app.get("/upgrade")
    async def upgrade() -> str:
        raise over()

    @app.get("/health")
    async def health() -> Any:
        return quart.jsonify(here())

    app.before_serving(lambda: EVENTS.append("startup"))
    app.after_serving(lambda: EVENTS.append("shutdown"))
    return app  # type: ignore[return-value] # its own types of ASGI


async def django_whose(_: HttpRequest) -> JsonResponse:
    return JsonResponse([*await whose(), await sync_to_async(here)()], safe=False)


def django_sync(_: HttpRequest) -> JsonResponse:
    return JsonResponse([here()], safe=False)


async def django_stream(_: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(chunks())


def django_upgrade(_: HttpRequest) -> JsonResponse:
    raise over()


def django_health(_: HttpRequest) -> JsonResponse:
    return JsonResponse(here(), safe=False)


urlpatterns = [
    path("whose", django_whose),
    path("sync", django_sync),
    path("stream", django_stream),
    path("upgrade", django_upgrade),
    path("health", django_health),
]


def django_app(**options: Any) -> ASGIApp:
    return PartywallMiddleware(django_site(__name__), **options)
