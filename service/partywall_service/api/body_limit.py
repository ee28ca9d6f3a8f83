"""No request makes the sidecar hold more than it should."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from partywall_service.api.errors import response_of
from partywall_service.api.problems import Problem

MAX_BODY = 64 * 1024
"""Bytes: several times the largest body any of these endpoints understands."""


class BodyLimit:
    """Refuses bodies over `most` bytes: at once when declared, else when they get there.

    Starlette has one like it since 1.0, which answers the declared ones in plain text.
    """

    def __init__(self, app: ASGIApp, most: int = MAX_BODY) -> None:
        self.app = app
        self.most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        detail = f"expected a body of at most {self.most} bytes"
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and _exceeds(declared, self.most):
            await response_of(Problem("too-large", detail))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.most:
                # The one exception FastAPI lets through while it reads a body.
                raise HTTPException(413, detail)
            return message

        await self.app(scope, counted, send)


def _exceeds(declared: str, most: int) -> bool:
    # A client may write more digits than Python turns into a number.
    return len(declared.lstrip("0")) > len(str(most)) or int(declared) > most
