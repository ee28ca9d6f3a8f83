"""The sample host app: each request holds one of a few database connections for a moment.

Those connections are what its tenants share, as they share whatever a real app has few of.
"""

import asyncio

from partywall import PartywallMiddleware
from partywall.responses import Receive, Scope, Send
from partywall.tenants import FromHeader

CONNECTIONS = 5
QUERY_SECONDS = 0.02
"""So it answers 250 requests a second at most."""


class Shop:
    """The app without protection: first come, first served."""

    def __init__(self) -> None:
        self._connections = asyncio.Semaphore(CONNECTIONS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        async with self._connections:
            await asyncio.sleep(QUERY_SECONDS)
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"done\n"})


plain = Shop()


def protected() -> PartywallMiddleware:
    """The same app behind the middleware; the environment says where the sidecar is."""
    return PartywallMiddleware(Shop(), tenant=FromHeader("X-Tenant-ID"))
