"""Keeps each tenant's job policy where workers read it: in the queue's Redis.

Workers know neither the ledger nor quotas.toml. Every sidecar writes the policies of tenants that
the queue asks for, of those that changed, and of all when it may have missed a change. Several may
write the same: each hears every change and reads after it was told, so all end with the truth.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

import structlog

from partywall_service.directory import Directory, Entry
from partywall_service.jobs.policies import FIXED, UNKNOWN, job_policy
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.names import is_tenant_id
from partywall_workers.errors import QueueUnavailable
from partywall_workers.policy import JobPolicy

BATCH = 200
"""Policies written at once. What changes meanwhile waits no longer than for one batch."""

LONGEST_BREATH = 0.05
"""Seconds at most between two batches of everyone's: every sidecar writes them, maybe at once."""

LISTEN = 2.0
"""Seconds to wait for the queue to ask; it counts on a keeper for some seconds after."""

LOOK = 1.0
"""Seconds between two looks at which policies end: others note ends, too, and clocks are set."""

PUT_OFF = 0.5
"""Seconds before a tenant that PostgreSQL could not tell of is tried again."""

FIRST_RETRY = 0.1
LAST_RETRY = 2.0
"""Seconds before Redis is tried again, after the first failure and after many."""

log = structlog.get_logger()


class Queue(Protocol):
    """What the keeper needs of a `FairQueue`; every call may raise `QueueUnavailable`."""

    async def wanted(self, *, timeout: float) -> list[str]:  # noqa: ASYNC109 - the queue waits
        """Waits up to `timeout` seconds for tenants whose policy is missing."""
        ...

    def policies(self) -> AsyncIterator[str]:
        """All who have a policy."""
        ...

    async def set_policies(self, policies: Mapping[str, JobPolicy]) -> None:
        """Writes them."""
        ...


class Kept(Protocol):
    """What is there already; see `kept.KeptPolicies`."""

    async def known(self, tenants: Sequence[str]) -> Collection[str]:
        """Those who have a policy."""
        ...

    async def note(self, ends: Mapping[str, float | None]) -> None:
        """Notes when each policy ends."""
        ...

    async def ended(self, now: float) -> tuple[list[str], float | None]:
        """Those whose policy has ended, and the next end."""
        ...


class Keeper:
    """One sidecar's part in keeping the policies.

    Args:
        queue: where they are written.
        kept: what is there of them, and until when.
        directory: what applies to tenants.
        clock: seconds since the epoch, the directory's.
    """

    def __init__(
        self,
        queue: Queue,
        kept: Kept,
        directory: Directory,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._kept = kept
        self._directory = directory
        self._clock = clock
        self._due: dict[str, bool] = {}  # whether also where the queue does not know the tenant
        self._put_off: dict[str, None] = {}  # until they could be read
        self._retry_at = 0.0
        self._everyone = False
        self._rest: list[str] = []  # of everyone
        self._wake = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._next_end: float | None = None
        self._lost = False

    def changed(self, tenant: str) -> None:
        """A tenant changed: its policy is written anew if the queue has one of it."""
        self._due.setdefault(tenant, False)
        self._wake.set()

    def everyone(self) -> None:
        """Anything may have changed: every policy that the queue has is written anew."""
        self._everyone = True
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled, whatever Redis and PostgreSQL do."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._through_outages(self._listen))
            group.create_task(self._through_outages(self._write))

    async def _through_outages(self, turn: Callable[[], Awaitable[None]]) -> None:
        delay = FIRST_RETRY
        while True:
            try:
                await turn()
            except QueueUnavailable as exc:
                if not self._lost:
                    self._lost = True
                    log.warning("jobs.queue_lost", cause=str(exc))
                await asyncio.sleep(delay)
                delay = min(2 * delay, LAST_RETRY)
            else:
                delay = FIRST_RETRY

    async def _listen(self) -> None:
        wanted = await self._queue.wanted(timeout=LISTEN)
        if self._lost:
            self._lost = False
            log.info("jobs.queue_back")
            # It may be another server than before, and behind the one that was lost.
            self.everyone()
        fresh = [tenant for tenant in wanted if tenant not in self._put_off]
        if fresh:
            self._due.update(dict.fromkeys(fresh, True))
            self._wake.set()
            # The queue asks for whom it has not got, until it has.
            self._caught_up.clear()
            await self._caught_up.wait()
        elif wanted:
            await asyncio.sleep(PUT_OFF)

    async def _write(self) -> None:
        """One batch, of who changed before everyone else; or waits until there is one."""
        if self._due:
            await self._write_due()
            return
        self._caught_up.set()
        if self._everyone:
            self._everyone = False
            try:
                self._rest = [tenant async for tenant in self._queue.policies()]
            except QueueUnavailable:
                self._everyone = True
                raise
        elif self._rest:
            await self._write_rest()
        else:
            await self._idle()

    async def _write_due(self) -> None:
        batch = dict(islice(self._due.items(), BATCH))
        for tenant in batch:
            del self._due[tenant]  # who changes from now on is due anew
        try:
            known = await self._kept.known([one for one, always in batch.items() if not always])
            await self._put([one for one, always in batch.items() if always or one in known])
        except BaseException:
            for tenant, always in batch.items():
                self._due[tenant] = always or self._due.get(tenant, False)
            raise

    async def _write_rest(self) -> None:
        clock = asyncio.get_running_loop().time
        begin = clock()
        await self._put(self._rest[-BATCH:])
        del self._rest[-BATCH:]
        await asyncio.sleep(min(clock() - begin, LONGEST_BREATH))  # others want Redis, too

    async def _put(self, tenants: Sequence[str]) -> None:
        entries = await self._read(tenants)
        policies = {tenant: job_policy(entry.standing) for tenant, entry in entries.items()}
        ends = {
            tenant: entry.standing.valid_until if entry.standing else None
            for tenant, entry in entries.items()
        }
        for tenant in tenants:
            if tenant in FIXED:
                policies[tenant] = FIXED[tenant]
            elif not is_tenant_id(tenant):
                policies[tenant] = UNKNOWN
        if policies:
            await self._kept.note(ends)
            await self._queue.set_policies(policies)
        self._next_end = min(
            (end for end in (self._next_end, *ends.values()) if end is not None), default=None
        )

    async def _read(self, tenants: Sequence[str]) -> dict[str, Entry]:
        """Whom the directory knows; who must be asked for again is put off."""
        names = [tenant for tenant in tenants if tenant not in FIXED and is_tenant_id(tenant)]
        cause = "it did not answer"
        try:
            found = await self._directory.find(names)
        except LedgerUnavailable as exc:
            cause = str(exc)
            found = await self._read_each(names)
        # While PostgreSQL is away the directory gives what it knew, which goes for now.
        again = 0
        told = bool(self._put_off)
        for tenant in names:
            if tenant in found and self._directory.is_current(found[tenant]):
                self._put_off.pop(tenant, None)
            else:
                self._put_off[tenant] = None
                again += 1
        now = asyncio.get_running_loop().time()
        if again and self._retry_at <= now:
            self._retry_at = now + PUT_OFF
        if again and not told:
            log.warning("jobs.policies_put_off", tenants=again, cause=cause)
        return found

    async def _read_each(self, names: Sequence[str]) -> dict[str, Entry]:
        """Some may be known from before."""
        found: dict[str, Entry] = {}
        # All at once: they share a load, and right after one that failed none is tried.
        answers = await asyncio.gather(
            *(self._directory.find([tenant]) for tenant in names), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, dict):
                found |= answer
            elif not isinstance(answer, LedgerUnavailable):
                raise answer
        return found

    async def _idle(self) -> None:
        time_of_loop = asyncio.get_running_loop().time
        wait = LOOK
        if self._put_off:
            wait = min(wait, self._retry_at - time_of_loop())
        if self._next_end is not None:
            wait = min(wait, self._next_end - self._clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wait)):
                await self._wake.wait()
        self._wake.clear()
        ended, self._next_end = await self._kept.ended(self._clock())
        due = [tenant for tenant in ended if tenant not in self._put_off]
        if self._retry_at <= time_of_loop():
            due += self._put_off
        self._due.update(dict.fromkeys(due, True))
