"""Natural batching: while a call is in flight, new checks gather for the next one.

No timer and no added wait: an idle engine sends a check at once, a busy one sends what has
gathered since. The busier it is, the larger the batches and the cheaper each check.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from partywall_service.engine.base import StoreError

MAX_BATCH = 512
"""Checks to a call, unless one caller brings more: keeps a script call to a few milliseconds, so
that no other client of the same server waits longer."""

MAX_IN_FLIGHT = 2
"""Calls at once: one being decided while the next is encoded."""

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
_Asked = TypeVar("_Asked", contravariant=True)

_Waiting = tuple[Sequence[Asked], asyncio.Future[list[Answer]]]


class Decides(Protocol[_Asked, Answer]):
    """What answers a batch: an engine of checks, or of whatever else one call can carry many of."""

    async def decide(self, checks: Sequence[_Asked]) -> list[Answer]:
        """One answer for each, in order."""
        ...


class Batcher(Generic[Asked, Answer]):
    """Decides through `engine`, several callers' checks to a call."""

    def __init__(self, engine: Decides[Asked, Answer]) -> None:
        self._engine = engine
        self._waiting: deque[_Waiting[Asked, Answer]] = deque()
        self._calls: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def decide(self, checks: Sequence[Asked]) -> list[Answer]:
        """One answer for each check, in order; all of one caller's in one call.

        Raises:
            StoreError: the call that carried them failed.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Answer]] = loop.create_future()
        self._waiting.append((checks, answer))
        if not self._scheduled and len(self._calls) < MAX_IN_FLIGHT:
            # Sent at the end of this turn of the loop, so that all who are ready share the call.
            self._scheduled = True
            loop.call_soon(self._send)
        return await answer

    def _send(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._calls) < MAX_IN_FLIGHT:
            call = asyncio.get_running_loop().create_task(self._call(self._gather()))
            self._calls.add(call)
            call.add_done_callback(self._landed)

    def _gather(self) -> list[_Waiting[Asked, Answer]]:
        batch = [self._waiting.popleft()]
        size = len(batch[0][0])
        while self._waiting and size + len(self._waiting[0][0]) <= MAX_BATCH:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0])
        return batch

    def _landed(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._send()

    async def _call(self, batch: list[_Waiting[Asked, Answer]]) -> None:
        try:
            answers = await self._engine.decide([check for checks, _ in batch for check in checks])
        except BaseException as exc:
            # Whatever it was, nobody may wait for ever: each who asked raises it.
            error = exc if isinstance(exc, Exception) else StoreError("shutting down")
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            if not isinstance(exc, Exception):
                raise
            return
        start = 0
        for checks, answer in batch:
            end = start + len(checks)
            if not answer.done():  # its caller may have gone
                answer.set_result(answers[start:end])
            start = end
