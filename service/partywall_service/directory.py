"""What this sidecar knows of tenants: a bounded cache of the ledger, told of every change.

A cached tenant costs a dictionary look-up. Misses are loaded in batches, one query for all that
gathered meanwhile, so a flood of cold tenants is a few queries. While PostgreSQL is away, what is
known goes on being used, however old.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import structlog

from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.ledger.records import OverrideRecord, Status, TenantRecord
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Jobs, Limit, Policy, Quota, Tier
from partywall_service.policy.resolve import resolve

MAX_LOAD = 500
"""Tenants to a query."""

LOAD_DEADLINE = 1.0
"""Seconds a load may take before it counts as failed."""

COOL_DOWN = 0.5
"""Seconds after a failed load in which no other is tried: an outage of PostgreSQL must not make
every check of a cold tenant wait for its deadline."""

log = structlog.get_logger()

_Known = tuple[TenantRecord, tuple[OverrideRecord, ...]] | None


class Source(Protocol):
    """What the directory reads through: the ledger."""

    async def load_many(
        self, tenants: Sequence[str]
    ) -> Mapping[str, tuple[TenantRecord, tuple[OverrideRecord, ...]]]:
        """The registered ones among `tenants`, with their unexpired overrides."""
        ...


class Standing:
    """What applies to one tenant now: its tier with its overrides.

    Attributes:
        tier: what it pays for.
        status: `active` for a tenant that nobody registered.
        limits: every limit some tier names, as it applies to this tenant.
        quotas: every resource some tier names, as it applies to this tenant.
        jobs: what its background jobs may take.
        valid_until: epoch seconds of the first override's end, or None.
    """

    __slots__ = ("jobs", "limits", "quotas", "status", "tier", "valid_until")

    def __init__(
        self,
        tier: Tier,
        status: Status,
        limits: Mapping[str, Limit],
        quotas: Mapping[str, Quota],
        jobs: Jobs,
        valid_until: float | None,
    ) -> None:
        self.tier = tier
        self.status = status
        self.limits = limits
        self.quotas = quotas
        self.jobs = jobs
        self.valid_until = valid_until


class Entry:
    """A tenant as last read; `standing` None means that it is refused as unknown."""

    __slots__ = ("fresh", "generation", "known", "policy", "standing")

    def __init__(self, known: _Known, generation: int) -> None:
        self.known = known
        self.generation = generation
        self.fresh = True
        self.policy: Policy | None = None
        self.standing: Standing | None = None


class _Load:
    """One query: whom it reads, and what came of it.

    Attributes:
        tenants: whom it reads.
        done: resolved when there is an answer to each of them.
        entries: who was read, or is known from before.
        failure: why the others have no entry.
    """

    __slots__ = ("done", "entries", "failure", "tenants")

    def __init__(self) -> None:
        self.tenants: list[str] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.entries: dict[str, Entry] = {}
        self.failure: Exception = LedgerUnavailable("not read yet")

    def entry(self, tenant: str) -> Entry:
        """What was read of one of them.

        Raises:
            LedgerUnavailable: or whatever else kept it from being read.
        """
        entry = self.entries.get(tenant)
        if entry is None:
            raise self.failure
        return entry


class Directory:
    """The tenants this process remembers.

    Args:
        source: where misses are read.
        policy: what tiers and overrides are resolved against.
        size: tenants remembered at most; the longest remembered leave first.
        clock: seconds since the epoch, for overrides that end.
    """

    def __init__(
        self,
        source: Source,
        policy: PolicyHolder,
        *,
        size: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._policy = policy
        self._size = size
        self._clock = clock
        # Ordered, because finding a plain dictionary's oldest again and again walks over the holes.
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._loading: dict[str, _Load] = {}
        self._waiting: deque[_Load] = deque()
        self._reader: asyncio.Task[None] | None = None
        self._generation = 0
        self._not_before = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, tenant: str) -> Entry | None:
        """The tenant as remembered; None when it must be loaded first."""
        entry = self._entries.get(tenant)
        if entry is None or not self.is_current(entry):
            return None
        return self._resolved(entry)

    async def find(self, tenants: Iterable[str]) -> dict[str, Entry]:
        """Every one of `tenants`, loaded where it is not remembered.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer, and one of them was never known.
        """
        found: dict[str, Entry] = {}
        pending: dict[str, _Load] = {}
        for tenant in tenants:
            entry = self.get(tenant)
            if entry is not None:
                found[tenant] = entry
            elif tenant not in pending:
                pending[tenant] = self._want(tenant)
        if pending:
            # `wait` leaves a load alone that other callers share when one of them is cancelled.
            await asyncio.wait({load.done for load in pending.values()})
            for tenant, load in pending.items():
                found[tenant] = self._resolved(load.entry(tenant))
        return found

    def is_current(self, entry: Entry) -> bool:
        """Whether nothing is known to have changed since the entry was read."""
        return entry.fresh and entry.generation == self._generation

    def forget(self, tenant: str) -> None:
        """The tenant changed: its next use reads it anew, and no load under way may say other."""
        entry = self._entries.get(tenant)
        if entry is not None:
            entry.fresh = False
        self._loading.pop(tenant, None)

    def forget_all(self) -> None:
        """Notices may have been missed: every next use reads anew."""
        self._generation += 1
        self._loading.clear()

    def _want(self, tenant: str) -> _Load:
        load = self._loading.get(tenant)
        if load is None:
            if not self._waiting or len(self._waiting[-1].tenants) >= MAX_LOAD:
                self._waiting.append(_Load())
            load = self._loading[tenant] = self._waiting[-1]
            load.tenants.append(tenant)
            if self._reader is None:
                self._reader = asyncio.get_running_loop().create_task(self._read_waiting())
        return load

    async def _read_waiting(self) -> None:
        await asyncio.sleep(0)  # let all who are ready share the first query
        try:
            while self._waiting:
                await self._perform(self._waiting.popleft())
        finally:
            self._reader = None

    async def _perform(self, load: _Load) -> None:
        generation = self._generation
        try:
            records = await self._read(load.tenants)
        except LedgerUnavailable as exc:
            load.failure = exc
            for tenant in load.tenants:
                known = self._entries.get(tenant)
                if known is not None:
                    load.entries[tenant] = known
        except BaseException as exc:
            # Whatever it was, nobody may wait for ever: each who asked raises it.
            load.failure = exc if isinstance(exc, Exception) else LedgerUnavailable("shutting down")
            if not isinstance(exc, Exception):
                raise
        else:
            for tenant in load.tenants:
                entry = load.entries[tenant] = Entry(records.get(tenant), generation)
                if self._loading.get(tenant) is load:  # else it changed while it was read
                    self._remember(tenant, entry)
        finally:
            for tenant in load.tenants:
                if self._loading.get(tenant) is load:
                    del self._loading[tenant]
            load.done.set_result(None)

    async def _read(
        self, tenants: list[str]
    ) -> Mapping[str, tuple[TenantRecord, tuple[OverrideRecord, ...]]]:
        if time.monotonic() < self._not_before:
            raise LedgerUnavailable("PostgreSQL did not answer a moment ago")
        try:
            async with asyncio.timeout(LOAD_DEADLINE):
                return await self._source.load_many(tenants)
        except TimeoutError as exc:
            self._not_before = time.monotonic() + COOL_DOWN
            raise LedgerUnavailable(f"PostgreSQL took over {LOAD_DEADLINE:g} s") from exc
        except LedgerUnavailable:
            self._not_before = time.monotonic() + COOL_DOWN
            raise

    def _remember(self, tenant: str, entry: Entry) -> None:
        self._entries[tenant] = entry
        self._entries.move_to_end(tenant)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def _resolved(self, entry: Entry) -> Entry:
        policy = self._policy.current
        standing = entry.standing
        if entry.policy is policy and (
            standing is None or standing.valid_until is None or self._clock() < standing.valid_until
        ):
            return entry
        entry.policy = policy
        entry.standing = self._stand(entry.known, policy)
        return entry

    def _stand(self, known: _Known, policy: Policy) -> Standing | None:
        default = policy.tiers.get(policy.default_tier) if policy.default_tier else None
        if known is None:
            return (
                Standing(default, "active", default.limits, default.quotas, default.jobs, None)
                if default
                else None
            )
        record, overrides = known
        tier = policy.tiers.get(record.tier)
        if tier is None:
            log.error(
                "policy.tier_missing",
                tenant=record.tenant,
                tier=record.tier,
                instead=default.name if default else "refused as unknown",
            )
            tier = default
            if tier is None:
                return None
        now = datetime.fromtimestamp(self._clock(), UTC)
        effective = resolve(tier, overrides, now)
        return Standing(
            tier,
            record.status,
            effective.limits,
            effective.quotas,
            effective.jobs,
            effective.valid_until,
        )
