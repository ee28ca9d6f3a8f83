"""Decisions made while the shared store was away: counted here, and added when it is back."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, Protocol
from uuid import uuid4

import structlog

from partywall.protocol import MAX_ITEMS, TenantUsage, UsageReport
from partywall_service.engine.base import StoreError
from partywall_service.usage.meters import limit_meter

MOST = 100_000
"""Counts kept at most, a tenant's of one limit and outcome each: some ten megabytes."""

INTERVAL = 1.0
"""Seconds between attempts to add them."""

log = structlog.get_logger()


class Adds(Protocol):
    """What adds a report to the shared counts, once."""

    async def add(self, report: UsageReport) -> int:
        """How many of its tenants are counted."""
        ...


class Tells(Protocol):
    """A counter of Prometheus."""

    def inc(self, amount: float) -> None:
        """Raises it."""
        ...


class _Sent(NamedTuple):
    """A report that may have been added, or not: it is given again until that is known."""

    sequence: int
    usage: list[TenantUsage]
    since: float


class KeptCounts:
    """Counts in this process, which is a reporter like those with the SDK.

    Args:
        adder: adds reports to the shared counts.
        lost: told how many counts were given up.
        clock: seconds that only go forward.
    """

    def __init__(
        self, adder: Adds, lost: Tells, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._adder = adder
        self._lost = lost
        self._clock = clock
        self._instance = uuid4().hex
        self._counts: dict[str, dict[str, int]] = {}
        self._size = 0
        self._since = 0.0
        self._sequence = 0
        self._sent: _Sent | None = None
        self._some = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._full = False

    def count(self, tenant: str, limit: str, outcome: str) -> None:
        """Adds a decision; where there is no room for one more tenant or meter, it is given up."""
        meter = limit_meter(limit, outcome)
        meters = self._counts.get(tenant)
        if meters is not None and meter in meters:
            meters[meter] += 1
            return
        if self._size >= MOST:
            self._give_up()
            return
        if meters is None:
            meters = self._counts[tenant] = {}
        meters[meter] = 1
        self._size += 1
        if self._size == 1:
            self._since = self._clock()
            self._some.set()

    async def run(self) -> None:
        """Adds what there is each second, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(INTERVAL)
            with suppress(StoreError):  # they are kept, and whoever watches the store says so
                await self.flush()

    async def flush(self) -> None:
        """Adds all there is to the shared counts.

        Raises:
            StoreError: the store is away; what is not added yet is kept.
        """
        async with self._one_at_a_time:
            while (sent := self._sent or self._take()) is not None:
                self._sent = sent
                age = self._clock() - sent.since
                await self._adder.add(UsageReport(self._instance, sent.sequence, age, sent.usage))
                self._sent = None
            self._some.clear()
            self._full = False

    async def close(self) -> None:
        """Adds all there is, or says how much is given up: this process ends."""
        try:
            await self.flush()
        except StoreError as exc:
            counts = self._kept()
            self._lost.inc(counts)
            log.warning("usage.lost", counts=counts, cause=str(exc))

    def _take(self) -> _Sent | None:
        """The next report, of as many tenants as one may have."""
        tenants = list(islice(self._counts, MAX_ITEMS))
        if not tenants:
            return None
        usage = [TenantUsage(tenant, self._counts.pop(tenant)) for tenant in tenants]
        self._size -= sum(len(one.meters) for one in usage)
        self._sequence += 1
        return _Sent(self._sequence, usage, self._since)

    def _kept(self) -> int:
        """How many decisions are not known to be added."""
        sent = [one.meters for one in self._sent.usage] if self._sent else []
        return sum(sum(meters.values()) for meters in (*sent, *self._counts.values()))

    def _give_up(self) -> None:
        self._lost.inc(1)
        if not self._full:
            self._full = True
            log.error("usage.full", most=MOST, until="the shared store is back")
