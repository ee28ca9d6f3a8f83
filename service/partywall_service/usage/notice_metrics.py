"""What Prometheus is told of notices: as PostgreSQL has it, the same of any sidecar."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.metrics import Reader
from partywall_service.usage.notices import KINDS, STATUSES

FRESH = 5.0
"""Seconds for which one reading is told again: several scrapers are no burden."""

DEADLINE = 1.0
"""Seconds PostgreSQL has to answer a scrape."""


class Counts(Protocol):
    """Who knows (`NoticeStore`)."""

    async def counts(self) -> Mapping[tuple[str, str], int]:
        """Notices of the last day, by kind and status."""
        ...


class NoticeMetrics(Reader):
    """Reads how many notices there are for a scrape.

    Args:
        notices: where from.
        clock: seconds, from any start.
    """

    def __init__(self, notices: Counts, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(FRESH, clock=clock)
        self._notices = notices

    async def _read(self) -> Sequence[Metric]:
        try:
            async with asyncio.timeout(DEADLINE):
                counts = await self._notices.counts()
        except (TimeoutError, LedgerUnavailable):
            return ()
        family = GaugeMetricFamily(
            "partywall_notices",
            "Notices of the last 24 hours, by what became of them.",
            labels=["kind", "status"],
        )
        for kind in KINDS:
            for status in STATUSES:
                family.add_metric([kind, status], counts.get((kind, status), 0))
        return (family,)
