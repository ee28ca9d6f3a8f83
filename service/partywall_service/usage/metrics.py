"""What Prometheus is told of the roll-up: as PostgreSQL has it, the same of any sidecar."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.metrics import Reader
from partywall_service.usage.store import Rolled

FRESH = 2.0
"""Seconds for which one reading is told again: several scrapers are no burden."""

DEADLINE = 1.0
"""Seconds PostgreSQL has to answer a scrape."""


class Notes(Protocol):
    """Who knows (`UsageStore`)."""

    async def rolled(self) -> Rolled:
        """What was noted of the roll-up."""
        ...


class RollUpMetrics(Reader):
    """Reads what was noted of the roll-up for a scrape.

    Args:
        notes: where from.
        clock: seconds, from any start.
    """

    def __init__(self, notes: Notes, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(FRESH, clock=clock)
        self._notes = notes

    async def _read(self) -> Sequence[Metric]:
        try:
            async with asyncio.timeout(DEADLINE):
                rolled = await self._notes.rolled()
        except (TimeoutError, LedgerUnavailable):
            return ()
        points = CounterMetricFamily(
            "partywall_usage_points", "Minutes of usage moved to PostgreSQL.", value=rolled.points
        )
        if rolled.at is None:
            return (points,)
        age = GaugeMetricFamily(
            "partywall_usage_roll_up_age_seconds",
            "Since the last roll-up that came to its end.",
            value=max(0.0, (rolled.now - rolled.at).total_seconds()),
        )
        return (points, age)
