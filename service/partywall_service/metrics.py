"""Prometheus metrics.

Labels are tiers, limits and outcomes: cardinality stays bounded however many tenants come. Only the
busiest few tenants, and those with most jobs, are told by name.
"""

import asyncio
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

Outcome = Literal["admitted", "denied", "would_deny"]
QuotaOutcome = Literal["allowed", "denied", "refused"]
PermitOutcome = Literal["granted", "denied", "would_deny", "returned"]


class DecisionCounter:
    """Counts decisions and permits by tier, limit and outcome.

    A labelled child is kept once made: finding it anew costs more than the count.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decisions = Counter(
            "partywall_decisions_total",
            "Checks decided, dry runs left out.",
            ["tier", "limit", "outcome"],
            registry=registry,
        )
        self._degraded = Counter(
            "partywall_degraded_decisions_total",
            "Checks, and asks of SDK processes, decided without the shared store.",
            ["tier", "limit", "outcome"],
            registry=registry,
        )
        self._permits = Counter(
            "partywall_permits_total",
            "Units granted to SDK processes and returned by them; asks denied, or observed only.",
            ["tier", "limit", "outcome"],
            registry=registry,
        )
        self._children: dict[tuple[str, str, str], Counter] = {}

    def __call__(self, tier: str, limit: str, outcome: Outcome, *, degraded: bool = False) -> None:
        """Adds a decision."""
        labels = (tier, limit, outcome)
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._decisions.labels(*labels)
        child.inc()
        if degraded:
            self.add_degraded(tier, limit, outcome)

    def add_degraded(self, tier: str, limit: str, outcome: Outcome) -> None:
        """Adds a decision made without the shared store."""
        self._degraded.labels(tier, limit, outcome).inc()

    def add_permits(self, tally: Mapping[tuple[str, str, PermitOutcome], int]) -> None:
        """Adds what one request of an SDK process came to.

        Args:
            tally: units that were granted and returned, and asks that were denied or observed
                only, by tier, limit and outcome.
        """
        for labels, amount in tally.items():
            self._permits.labels(*labels).inc(amount)


class QuotaCounter:
    """Counts changes of quotas by tier, operation and outcome."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._operations = Counter(
            "partywall_quota_operations_total",
            "Changes of quotas asked for, repetitions included.",
            ["tier", "operation", "outcome"],
            registry=registry,
        )

    def __call__(self, tier: str, operation: str, outcome: QuotaOutcome) -> None:
        """Adds one that was answered."""
        self._operations.labels(tier, operation, outcome).inc()


class Source(Protocol):
    """What is read anew for a scrape, from where all processes find the same."""

    async def families(self) -> Sequence[Metric]:
        """As it stands; it never fails."""
        ...


class Reader(ABC):
    """A source that is read for a scrape, and told again for a moment.

    Args:
        fresh: seconds for which one reading is told again: several scrapers are no burden.
        clock: seconds, from any start.
    """

    def __init__(self, fresh: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fresh = fresh
        self._clock = clock
        self._read_at = float("-inf")
        self._families: Sequence[Metric] = ()
        self._reading = asyncio.Lock()

    async def families(self) -> Sequence[Metric]:
        """As read a moment ago at most."""
        async with self._reading:
            if self._clock() - self._read_at >= self._fresh:
                self._families = await self._read()
                self._read_at = self._clock()
        return self._families

    @abstractmethod
    async def _read(self) -> Sequence[Metric]:
        """As it stands; it never fails."""


class _Once(Collector):
    """Families that were read already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class Metrics:
    """This process's metrics, in a registry of their own.

    Attributes:
        decisions: counts decisions.
        quotas: counts changes of quotas.
        database_up: 1 while PostgreSQL answers.
        policy_loaded: epoch seconds of the last policy taken.
        policy_refused: policies refused since the start.
        sources: what is read besides at each scrape.
        usage_lost: counts that usage will lack.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sources: list[Source] = []
        self.decisions = DecisionCounter(self.registry)
        self.quotas = QuotaCounter(self.registry)
        self._store_up = Gauge(
            "partywall_store_up",
            "1 while the shared store answers.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self._store_up.set(1)
        self.database_up = Gauge(
            "partywall_database_up",
            "1 while PostgreSQL tells this sidecar of changes.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self.policy_loaded = Gauge(
            "partywall_policy_loaded_timestamp_seconds",
            "When the policy in force was taken.",
            registry=self.registry,
            multiprocess_mode="max",
        )
        self.policy_refused = Counter(
            "partywall_policy_refused_total",
            "Changes of quotas.toml refused.",
            registry=self.registry,
        )
        self._store_outages = Counter(
            "partywall_store_outages_total",
            "Times the shared store was lost: a call failed or came too late.",
            registry=self.registry,
        )
        self._store_seconds = Histogram(
            "partywall_store_call_seconds",
            "Time the shared store took to answer a call.",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
            registry=self.registry,
        )
        self.usage_lost = Counter(
            "partywall_usage_lost_total",
            "Counts of decisions made without the shared store that usage will lack: more than a "
            "sidecar keeps, or it ended before the store was back.",
            registry=self.registry,
        )
        self._batch_size = Histogram(
            "partywall_store_batch_size",
            "Checks to a call of the shared store.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def store_answered(self, checks: int, seconds: float) -> None:
        """Notes a call of the shared store: how many checks it carried, how long it took."""
        self._batch_size.observe(checks)
        self._store_seconds.observe(seconds)

    def store_changed(self, up: bool) -> None:
        """Notes that the shared store was lost, or is back."""
        self._store_up.set(up)
        if not up:
            self._store_outages.inc()

    async def render(self) -> bytes:
        """The text that Prometheus reads, of all worker processes when there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # prometheus-client
            return generate_latest(registry) + await self._render_sources()
        return generate_latest(self.registry) + await self._render_sources()

    async def _render_sources(self) -> bytes:
        registry = CollectorRegistry()
        # Together: a store that is away costs a scrape its deadline once.
        read = await asyncio.gather(*(source.families() for source in self.sources))
        for families in read:
            registry.register(_Once(families))
        return generate_latest(registry)
