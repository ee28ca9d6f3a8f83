"""One request under way behind the middleware, as its responses and `partywall.fastapi` need it."""

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from partywall.account import Answer
from partywall.client import Partywall
from partywall.decision import Decision, HeaderFamily, rate_limit_headers
from partywall.responses import Denial, Message, RawHeaders, Send, raw

SCOPE_KEY = "partywall"
"""Where the scope holds the request's `Governed`; None there: it passes without a tenant, because
nothing is enforced. Nothing there: it is exempt."""

_Function = TypeVar("_Function", bound=Callable[..., Any])

_ANSWERS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


def _coroutine_function(function: _Function) -> _Function:
    """Says of a function that returns a coroutine that it does, to callers who ask beforehand.

    asgiref's `async_to_sync`, through which Channels sends, warns of others.
    """
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    mark = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined] # noqa: SLF001 - no public way
    function._is_coroutine = mark  # type: ignore[attr-defined] # noqa: SLF001 - as above
    return function


class Governed(msgspec.Struct, eq=False):
    """One request under way: its client, its decisions, and the app's responses with the headers.

    Attributes:
        client: what the middleware asks.
        answer: to the middleware's own limit.
        enforce: whether the middleware denies anything.
        denial: what a dependency is about to raise. An app inside that answers every exception with
            a 500 and raises it again (Starlette's outermost layer, in an app that is mounted or
            wrapped from outside) must not have the last word: its response is held back until it
            returns, which a handler of its own for the denial does.
        started: whether the app has answered: its response, or the WebSocket's, has begun.
        status: of the response that the client of an HTTP request sees; 0 while there is none.
    """

    client: Partywall
    answer: Answer
    _family: HeaderFamily
    enforce: bool
    _send: Send
    denial: Exception | None = None
    started: bool = False
    status: int = 0
    _held: tuple[Message, ...] = ()
    _further: tuple[Decision, ...] = ()

    def add(self, decision: Decision) -> None:
        """Notes that the request was charged to a further limit: its headers say so."""
        self._further = (*self._further, decision)

    @_coroutine_function
    def send(self, message: Message) -> Awaitable[None]:
        """Passes the app's messages on; the first gets the headers.

        The server's own coroutine comes back: one more in between would cost every message.
        """
        if self.started:
            return self._send(message)
        kind = message["type"]
        if self.denial is not None and kind.startswith("http.response."):
            return self._hold(message)
        if kind in _ANSWERS:
            self.started = True
            if kind == "http.response.start":
                self.status = message["status"]
            own = self.answer.headers(self._family) if not self._further else self._all_headers()
            message = {**message, "headers": [*message.get("headers", ()), *own]}
        elif kind == "websocket.close":
            self.started = True
        return self._send(message)

    @_coroutine_function
    def pass_on(self, message: Message) -> Awaitable[None]:
        """Passes on the messages of an answer that needs no headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        return self._send(message)

    async def _hold(self, message: Message) -> None:
        self._held = (*self._held, message)

    def _all_headers(self) -> RawHeaders:
        """Those of a request that was charged to further limits."""
        headers = rate_limit_headers(self.answer.decision, self._family, *self._further)
        # Of a denial that is only observed: this response tells nobody to wait.
        headers.pop("Retry-After", None)
        return raw(headers)

    async def release(self) -> None:
        """Sends what was held back: the app answered a dependency's denial in its own way."""
        self.denial = None
        held, self._held = self._held, ()
        for message in held:
            await self.send(message)

    def completed(self, denial: Denial) -> Denial:
        """A denial that the app raised, with the headers of all that the request was charged."""
        charged = [self.answer.decision, *self._further]
        if denial.decision is not None:
            charged = [denial.decision, *(one for one in charged if one is not denial.decision)]
        headers = rate_limit_headers(charged[0], self._family, *charged[1:])
        if denial.decision is None:
            headers.pop("Retry-After", None)
        return replace(denial, headers={**denial.headers, **headers})
