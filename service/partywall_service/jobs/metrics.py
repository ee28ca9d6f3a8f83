"""What Prometheus is told of jobs: read from the queue, so any sidecar's answer is everybody's."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from partywall_service.metrics import Reader
from partywall_workers.errors import QueueUnavailable
from partywall_workers.records import Backlog

FRESH = 2.0
"""Seconds for which one reading is told again: several scrapers are no burden."""

DEADLINE = 1.0
"""Seconds the queue's Redis has to answer a scrape."""

MOST_NAMED = 20
"""Tenants told by name."""

MOST_READ = 1000
"""Tenants whose jobs are added up by tier, those with most first."""

NO_TIER = "_unknown"
"""The tier of tenants that have none, or of which the sidecar has not said it; no tier's name."""

_COUNTERS = {
    "claims": ("partywall_jobs_claims", "Jobs started, every try."),
    "retries": ("partywall_jobs_retries", "Tries that were put off to another."),
    "dead": ("partywall_jobs_dead", "Jobs that ended in the dead letter set."),
    "expired": ("partywall_jobs_lease_expiries", "Leases that ran out: a worker died or hung."),
}
_FINISHED = ("succeeded", "failed", "dead", "cancelled")


class Queue(Protocol):
    """What is read of a `FairQueue`; every call may raise `QueueUnavailable`."""

    async def backlogs(self, *, limit: int = 20) -> list[Backlog]:
        """Of tenants with jobs, most first."""
        ...

    async def busy(self) -> int:
        """How many tenants have jobs."""
        ...

    async def counts(self) -> dict[str, dict[str, int]]:
        """What happened, by tier."""
        ...

    async def workers(self) -> int:
        """How many live."""
        ...


class JobMetrics(Reader):
    """Reads the queue for a scrape; `partywall_jobs_up` 0 alone while Redis does not answer.

    Args:
        queue: what is read.
        clock: seconds, from any start.
    """

    def __init__(self, queue: Queue, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(FRESH, clock=clock)
        self._queue = queue

    async def _read(self) -> Sequence[Metric]:
        try:
            async with asyncio.timeout(DEADLINE):
                backlogs = await self._queue.backlogs(limit=MOST_READ)
                busy = await self._queue.busy()
                counts = await self._queue.counts()
                workers = await self._queue.workers()
        except (TimeoutError, QueueUnavailable):
            return [_up(0)]
        return [
            _up(1),
            GaugeMetricFamily("partywall_jobs_workers", "Workers alive.", value=workers),
            GaugeMetricFamily(
                "partywall_jobs_tenants", "Tenants with jobs unfinished.", value=busy
            ),
            *_gauges("partywall_jobs", "tier", "Of each tier: ", _by_tier(backlogs, counts)),
            *_gauges(
                "partywall_jobs_tenant", "tenant", "Of the busiest tenants: ", _named(backlogs)
            ),
            *_counters(counts),
            *_named_counters(backlogs),
        ]


_Numbers = tuple[int, int, float]
"""Jobs queued and running, and seconds of the longest wait."""


def _by_tier(
    backlogs: Iterable[Backlog], counts: Mapping[str, Mapping[str, int]]
) -> Mapping[str, _Numbers]:
    # A tier whose jobs are all done says 0: a series that ended would keep its last value.
    tiers: dict[str, _Numbers] = dict.fromkeys((tier or NO_TIER for tier in counts), (0, 0, 0.0))
    for one in backlogs:
        tier = one.tier or NO_TIER
        queued, running, wait = tiers.get(tier, (0, 0, 0.0))
        tiers[tier] = (
            queued + one.queued + one.deferred,
            running + one.running,
            max(wait, one.oldest_wait),
        )
    return tiers


def _named(backlogs: Sequence[Backlog]) -> Mapping[str, _Numbers]:
    return {
        one.tenant: (one.queued + one.deferred, one.running, one.oldest_wait)
        for one in backlogs[:MOST_NAMED]
    }


def _gauges(
    prefix: str, label: str, whose: str, numbers: Mapping[str, _Numbers]
) -> Iterable[Metric]:
    for place, (name, text) in enumerate(
        (
            ("queued", "jobs waiting or deferred."),
            ("running", "jobs running."),
            ("oldest_wait_seconds", "how long its longest waiting job has been due."),
        )
    ):
        family = GaugeMetricFamily(f"{prefix}_{name}", whose + text, labels=[label])
        for who, values in numbers.items():
            family.add_metric([who], values[place])
        yield family


def _counters(counts: Mapping[str, Mapping[str, int]]) -> Iterable[Metric]:
    for what, (name, text) in _COUNTERS.items():
        family = CounterMetricFamily(name, text, labels=["tier"])
        for tier, counted in counts.items():
            family.add_metric([tier or NO_TIER], counted.get(what, 0))
        yield family
    finished = CounterMetricFamily(
        "partywall_jobs_finished", "Jobs that ended, by how.", labels=["tier", "status"]
    )
    for tier, counted in counts.items():
        for status in _FINISHED:
            finished.add_metric([tier or NO_TIER, status], counted.get(status, 0))
    yield finished


def _named_counters(backlogs: Sequence[Backlog]) -> Iterable[Metric]:
    numbers = {"claims": "claims", "retries": "retries", "dead": "died", "expired": "expired"}
    for what, (name, text) in _COUNTERS.items():
        family = CounterMetricFamily(
            name.replace("_jobs_", "_jobs_tenant_"),
            f"Of the busiest tenants: {text}",
            labels=["tenant"],
        )
        for one in backlogs[:MOST_NAMED]:
            family.add_metric([one.tenant], getattr(one, numbers[what]))
        yield family


def _up(value: int) -> Metric:
    return GaugeMetricFamily("partywall_jobs_up", "1 while the queue's Redis answers.", value=value)
