"""No request makes the sidecar hold more than it should."""

import re

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from partywall_service.api.errors import response_of
from partywall_service.api.problems import Problem

MAX_BODY = 64 * 1024
"""Bytes: several times the largest body most of these endpoints understand."""

MAX_JOB = 1024 * 1024
"""Bytes of a job to enqueue: its arguments are the host app's own."""

MAX_IMPORT = 4 * 1024 * 1024
"""Bytes of an import of tenants: ten thousand lines of 400."""

_ENQUEUES = re.compile("/v1/tenants/[^/]*/jobs")
_IMPORTS = "/v1/tenants/import"


class BodyLimit:
    """Refuses bodies that are too large: at once when declared, else when they get there.

    Starlette has one like it since 1.0, which answers the declared ones in plain text.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = _most(scope["method"], scope["path"])
        detail = f"expected a body of at most {most} bytes"
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and _exceeds(declared, most):
            await response_of(Problem("too-large", detail))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                # The one exception FastAPI lets through while it reads a body.
                raise HTTPException(413, detail)
            return message

        await self.app(scope, counted, send)


def _most(method: str, path: str) -> int:
    if method != "POST":
        return MAX_BODY
    if path == _IMPORTS:
        return MAX_IMPORT
    return MAX_JOB if _ENQUEUES.fullmatch(path) else MAX_BODY


def _exceeds(declared: str, most: int) -> bool:
    # A client may write more digits than Python turns into a number.
    return len(declared.lstrip("0")) > len(str(most)) or int(declared) > most
