"""Tells of a sidecar that has lost the shared store, and of its recovery."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.usage.notices import Notice, NoticeStore, written

LASTING = 10.0
"""Seconds that an outage must last to be told: most are a restart of Redis."""

LOOK = 1.0
"""Seconds between two looks."""

log = structlog.get_logger()


class OutageWatch:
    """Writes a notice when the store has been away for a while, and one when it is back.

    A sidecar is told of once in a quarter of an hour, however many processes it has, and its
    recovery only where its loss was. While PostgreSQL is away, too, what is to be told waits.

    Args:
        notices: where they are written.
        is_up: whether the store is taken to answer.
        name: the sidecar's.
        clock: seconds, from any start.
    """

    def __init__(
        self,
        notices: NoticeStore,
        is_up: Callable[[], bool],
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notices = notices
        self._is_up = is_up
        self._name = name
        self._clock = clock
        self._lost: tuple[float, datetime] | None = None
        self._judged = False  # whether this outage was told, or found to be told already
        self._told = False
        self._failing = False

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """Looks once, and writes what is to be told."""
        try:
            await self._look()
        except LedgerUnavailable as exc:
            if not self._failing:
                log.warning("notices.not_written", cause=str(exc))
            self._failing = True
        else:
            self._failing = False

    async def _look(self) -> None:
        if not self._is_up():
            if self._lost is None:
                self._lost = self._clock(), datetime.now(UTC)
            began, since = self._lost
            if not self._judged and self._clock() - began >= LASTING:
                data = {"sidecar": self._name, "part": "redis", "since": written(since)}
                self._told = await self._notices.write_unless_told(
                    Notice("sidecar.degraded", datetime.now(UTC), None, data), sidecar=self._name
                )
                self._judged = True
        elif self._lost is not None:
            began, since = self._lost
            if self._told:
                data = {"sidecar": self._name, "part": "redis", "since": written(since)}
                lasted = round(self._clock() - began, 1)
                await self._notices.write_unless_told(
                    Notice(
                        "sidecar.recovered",
                        datetime.now(UTC),
                        None,
                        data | {"lasted_seconds": lasted},
                    ),
                    sidecar=self._name,
                    since=written(since),
                )
            self._lost, self._judged, self._told = None, False, False
