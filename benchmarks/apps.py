"""What the sidecar is measured beside, under the same server."""

import os

from fastapi import FastAPI
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

ANSWER = b'{"allowed":true}'


async def noop(scope: Scope, receive: Receive, send: Send) -> None:
    """A raw ASGI callable that reads its request and answers: the least a server can do."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


class Asked(BaseModel):
    tenant: str
    limit: str = "requests"
    cost: int = 1


def fastapi_with_limits() -> FastAPI:
    """The same check as most would write it: a route, a pydantic body, limits' moving window."""
    app = FastAPI()
    storage = RedisStorage(f"async+{os.environ['BENCH_REDIS_URL']}", implementation="redispy")
    limiter = MovingWindowRateLimiter(storage)
    item = RateLimitItemPerMinute(10_000_000)

    @app.post("/v1/check")
    async def check(asked: Asked) -> dict[str, bool]:
        return {"allowed": await limiter.hit(item, asked.tenant, asked.limit, cost=asked.cost)}

    return app
