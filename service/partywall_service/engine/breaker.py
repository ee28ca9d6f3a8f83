"""A circuit breaker around the shared store: an outage must not become a latency outage."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from partywall_service.engine.base import Engine, Question, StoreError, Verdict

HEALTHY_INTERVAL = 1.0
OUTAGE_INTERVAL = 0.2
"""Seconds between beats, in health and in an outage: a store that is back is used within one."""

log = structlog.get_logger()


class CircuitBreaker:
    """Passes checks on while the store answers; fails them at once while it does not.

    One failed call opens it, because waiting for a second would make every request of an outage
    pay a deadline; a beat is then tried at once, so a mere hiccup closes it milliseconds later.

    Args:
        engine: what decides while the circuit is closed.
        beat: a write to the store that raises `StoreError` when it fails.
        on_change: called with True when the store is back, False when it is lost.
    """

    def __init__(
        self,
        engine: Engine,
        beat: Callable[[], Awaitable[None]],
        on_change: Callable[[bool], None] = lambda _closed: None,
    ) -> None:
        self._engine = engine
        self._beat = beat
        self._on_change = on_change
        self._closed = True
        self._opened = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether the store is taken to answer."""
        return self._closed

    async def decide(self, checks: Sequence[Question]) -> list[Verdict]:
        """Decides through the engine.

        Raises:
            StoreError: the store failed now, or has failed and is not back yet.
        """
        if not self._closed:
            raise StoreError("the shared store is not answering")
        try:
            return await self._engine.decide(checks)
        except StoreError as exc:
            self._open(exc)
            raise

    async def watch(self) -> None:
        """Beats until cancelled, closing and opening the circuit as the beats go."""
        while True:
            try:
                await self._beat()
            except StoreError as exc:
                self._open(exc)
                await asyncio.sleep(OUTAGE_INTERVAL)
                continue
            self._close()
            try:
                async with asyncio.timeout(HEALTHY_INTERVAL):
                    await self._opened.wait()
            except TimeoutError:
                continue

    def _open(self, cause: StoreError) -> None:
        if self._closed:
            self._closed = False
            self._opened.set()
            log.error("store.lost", cause=str(cause), limits="answered by on_outage")
            self._on_change(False)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._opened.clear()
            log.info("store.back", limits="exact again")
            self._on_change(True)
