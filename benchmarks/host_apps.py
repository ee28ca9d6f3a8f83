"""One small Starlette app, bare and behind each of the middlewares that are compared."""

import os
from collections.abc import Awaitable, Callable

from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from slowapi import Limiter
from slowapi.middleware import SlowAPIASGIMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from throttled.asyncio import RedisStore, Throttled, rate_limiter

from partywall import PartywallMiddleware
from partywall.tenants import FromHeader

ORDERS = [{"order": number, "state": "shipped"} for number in range(3)]
RATE = os.environ.get("BENCH_RATE", "10000000/minute")
REDIS_URL = os.environ.get("BENCH_REDIS_URL", "")

Admitted = Callable[[str], Awaitable[bool]]


async def orders(request: Request) -> Response:
    return JSONResponse(ORDERS)


def bare() -> Starlette:
    """The app alone."""
    return Starlette(routes=[Route("/orders", orders)])


def partywall() -> ASGIApp:
    """Behind Partywall; sidecar and token come from the environment."""
    return PartywallMiddleware(bare(), tenant=FromHeader("X-Tenant-ID"), limit="requests")


class Gate:
    """The least middleware that asks a library: 429 or the app."""

    def __init__(self, app: ASGIApp, admitted: Admitted) -> None:
        self.app = app
        self.admitted = admitted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        tenant = dict(scope["headers"]).get(b"x-tenant-id", b"nobody")
        if await self.admitted(tenant.decode()):
            await self.app(scope, receive, send)
        else:
            await Response(status_code=429)(scope, receive, send)


def limits() -> ASGIApp:
    """Behind `limits`' exact moving window on Redis, its asyncio side."""
    storage = RedisStorage(f"async+{REDIS_URL}", implementation="redispy")
    limiter, item = MovingWindowRateLimiter(storage), parse(RATE)
    return Gate(bare(), lambda tenant: limiter.hit(item, tenant))


def throttled() -> ASGIApp:
    """Behind throttled-py's sliding window on Redis, its asyncio side."""
    store = RedisStore(server=REDIS_URL.replace("redis+unix://", "unix://"))
    count, _, unit = RATE.partition("/")
    per = getattr(rate_limiter, f"per_{unit[:3]}")
    throttle = Throttled(using="sliding_window", quota=per(int(count)), store=store)

    async def admitted(tenant: str) -> bool:
        return not (await throttle.limit(tenant)).limited

    return Gate(bare(), admitted)


def slowapi() -> ASGIApp:
    """Behind slowapi with `limits`' moving window on Redis."""
    limiter = Limiter(
        key_func=lambda request: request.headers.get("x-tenant-id", "nobody"),
        default_limits=[RATE],
        storage_uri=REDIS_URL,
        strategy="moving-window",
    )
    app = bare()
    app.state.limiter = limiter
    app.add_middleware(SlowAPIASGIMiddleware)
    return app
