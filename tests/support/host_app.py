"""A host app for tests: Starlette behind PartywallMiddleware, under uvicorn, on a given socket.

Its handlers write when each admitted request ran to a file of their own: a line that was written
survives kill -9. Times are of the machine's monotonic clock, which all its processes share.
"""

import asyncio
import logging
import os
import selectors
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from partywall import PartywallMiddleware, current_tenant
from partywall.governed import SCOPE_KEY
from partywall.responses import Scope
from partywall.tenants import FromHeader, FromJWT


class Turns(selectors.DefaultSelector):
    """A selector that knows when its loop's last two turns began."""

    def __init__(self) -> None:
        super().__init__()
        self.before = self.this = time.monotonic()

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(timeout)
        self.before, self.this = self.this, time.monotonic()
        return ready


class Handlers:
    """What the app answers.

    Args:
        turns: of its event loop.
        admitted: the file that is told of each admitted request.
    """

    def __init__(self, turns: Turns, admitted: int) -> None:
        self._turns = turns
        self._admitted = admitted
        self._released = asyncio.Event()

    async def run(self, request: Request) -> Response:
        """Writes when it ran, and says what was decided."""
        decision = request.scope[SCOPE_KEY].answer.decision
        # It was decided in this turn of the loop or, by the sidecar's answer, in the one before.
        line = (
            f"{decision.tenant} {decision.limit} {decision.cost} {int(decision.degraded)} "
            f"{self._turns.before:.6f} {time.monotonic():.6f}\n"
        )
        os.write(self._admitted, line.encode())
        return JSONResponse({"tenant": decision.tenant, "degraded": decision.degraded})

    async def counts(self, request: Request) -> Response:
        """What this process has answered so far."""
        counts = request.scope[SCOPE_KEY].client.permits.counts
        return JSONResponse(counts._asdict())

    async def whose(self, request: Request) -> Response:
        """Whose request it is, asked again wherever code of a request may run."""
        seen = [current_tenant()]
        await asyncio.sleep(0)
        seen.append(await asyncio.to_thread(current_tenant))
        seen.append(await asyncio.create_task(self._later()))
        seen.append(await anyio.to_thread.run_sync(current_tenant))
        await asyncio.sleep(0.01)
        seen.append(current_tenant())
        tenant = seen[0]
        return JSONResponse(
            {"seen": [str(one) for one in seen], "tier": tenant.tier, "features": tenant.features}
        )

    async def nobody(self, request: Request) -> Response:
        """Whose request it is where none is governed."""
        return JSONResponse(current_tenant(default=None))

    async def stream(self, request: Request) -> Response:
        """A first part at once, the rest after `/release`."""
        self._released.clear()
        return StreamingResponse(self._parts())

    async def release(self, request: Request) -> Response:
        self._released.set()
        return Response()

    async def socket(self, websocket: WebSocket) -> None:
        """Says whose it is."""
        await websocket.accept()
        await websocket.send_text(str(current_tenant()))
        await websocket.close()

    async def _later(self) -> Any:
        await asyncio.sleep(0.005)
        return current_tenant()

    async def _parts(self) -> AsyncIterator[bytes]:
        yield b"first"
        await self._released.wait()
        yield str(current_tenant()).encode()


def create_app(handlers: Handlers, options: dict[str, Any]) -> Starlette:
    """The app behind the middleware.

    Args:
        handlers: what it answers.
        options: `jwt_key` and `algorithms` take the tenant from a token, in place of the header
            X-Tenant-ID; all others are the middleware's own. Sidecar and token are the
            environment's.
    """
    key = options.pop("jwt_key", None)
    algorithms = options.pop("algorithms", None)
    app = Starlette(
        routes=[
            Route("/", handlers.run),
            Route("/counts", handlers.counts),
            Route("/whose", handlers.whose),
            Route("/nobody", handlers.nobody),
            Route("/stream", handlers.stream),
            Route("/release", handlers.release),
            WebSocketRoute("/socket", handlers.socket),
        ]
    )
    app.add_middleware(
        PartywallMiddleware,
        tenant=FromJWT(key=key, algorithms=algorithms) if key else FromHeader("X-Tenant-ID"),
        limit=lambda scope: _header(scope, b"x-limit", "requests"),
        cost=lambda scope: int(_header(scope, b"x-cost", "1")),
        exempt=["/nobody", "/release"],
        **options,
    )
    return app


def _header(scope: Scope, name: bytes, default: str) -> str:
    return next((value.decode() for key, value in scope["headers"] if key == name), default)


def serve(listener: socket.socket, admitted: str, options: dict[str, Any]) -> None:
    """Serves on this socket until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    turns = Turns()
    file = os.open(admitted, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    app = create_app(Handlers(turns, file), options)
    # Idle connections are the client's to close, or a request may meet one that is being closed.
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=600)
    server = uvicorn.Server(config)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(turns)) as runner:
        runner.run(server.serve(sockets=[listener]))
