"""A queue's jobs: enqueued, looked at, cancelled, paused, revived."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any, cast

from partywall_workers.answering import answering_within
from partywall_workers.cancelled import cancelled_result
from partywall_workers.environment import KEEP
from partywall_workers.erased import while_asked
from partywall_workers.erasing import erase
from partywall_workers.errors import InvalidJob, JobConflict, QueueFull, UnknownJob
from partywall_workers.exporting import export
from partywall_workers.policy import DEFAULT_LANE, SYSTEM_LANE, JobPolicy
from partywall_workers.reading import JobReader
from partywall_workers.records import Backlog, Enqueued, JobRecord, Status
from partywall_workers.redis import DEFAULT_PRIORITY, FairRedis
from partywall_workers.usage import JobUsage

KEEPER_LIVES = 10_000
"""Milliseconds for which a sidecar that asked for missing policies counts as alive."""

WORKER_LIVES = 30.0
"""Seconds since a worker was last seen for which it counts as alive."""

FUNCTION_LIVES = 3600.0
"""Seconds since a worker with a function was last seen for which the function is known."""

_CHUNK = 500
"""Jobs purged, or tenants looked at, in one call."""

_TENANTS = 50
"""Tenants told of, or written, in one call: it holds the server up for some 2 ms."""

_LONGEST_POLL = 0.25

# Where a class has a method `list`, `list[...]` in its annotations would mean that.
_Jobs = list[JobRecord]
_Backlogs = list[Backlog]
_Tenants = list[str]


class FairQueue:
    """The jobs of one queue, for who manages them; workers and apps need only a `FairRedis`.

    Args:
        redis: the queue's client, whose queue it is.
        keep: seconds that jobs are kept which are cancelled here.
        timeout: seconds for each call.
        metering: whether it is counted what tenants' jobs come to, where this one says `wanted`.
    """

    def __init__(
        self,
        redis: FairRedis,
        *,
        keep: float = KEEP,
        timeout: float = 5.0,
        metering: bool = True,
    ) -> None:
        self.redis = redis
        self.name = redis.default_queue_name
        self.keep = keep
        self._timeout = timeout
        self._metering = metering
        self._scripts = redis.scripts
        self._names = redis.names
        self._reader = JobReader(redis)
        self._usage = JobUsage(redis)
        self._commands: Any = redis  # redis-py's annotations are those of both its faces

    async def enqueue(
        self,
        tenant: str,
        function: str | Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        job_id: str | None = None,
        priority: int = DEFAULT_PRIORITY,
        defer_by: float | timedelta | None = None,
        defer_until: datetime | None = None,
        expires: float | timedelta | None = None,
    ) -> Enqueued:
        """Queues a job, or finds the one that has its id.

        Args:
            tenant: whose.
            function: its name, or the function.
            args: for it.
            kwargs: for it.
            job_id: its id among its tenant's, 1 to 200 of letters, digits, `.`, `_`, `-`, `:`;
                left out, one is made.
            priority: 0 to 9, 9 first, among its tenant's.
            defer_by: seconds until it may start.
            defer_until: when it may start.
            expires: seconds after its time within which it must start.

        Raises:
            QueueFull, UnknownFunction, TenantErased, InvalidJob: nothing was queued.
            QueueUnavailable: it was queued or not.
        """
        job = self.redis.new_job(
            tenant,
            function,
            args,
            kwargs or {},
            job_id=job_id,
            priority=priority,
            defer_by=defer_by,
            defer_until=defer_until,
            expires=expires,
        )
        async with self._answering():
            queued = await self.redis.queue_job(job)
        if queued.what == "exists":
            return Enqueued(await self.get(tenant, job.job_id), created=False)
        record = JobRecord(
            tenant=tenant,
            job_id=job.job_id,
            function=job.function,
            status="deferred" if queued.run_at > queued.queued_at else "queued",
            priority=priority,
            attempts=0,
            queued_at=queued.queued_at,
            run_at=queued.run_at,
        )
        return Enqueued(record, created=True)

    async def get(self, tenant: str, job_id: str) -> JobRecord:
        """A job as it stands.

        Raises:
            UnknownJob: there is none, or it is not kept any more.
            QueueUnavailable: Redis did not answer.
        """
        async with self._answering():
            (record,) = await self._reader.records(tenant, [job_id])
        if record is None:
            raise UnknownJob(tenant, job_id)
        return record

    async def list(
        self,
        tenant: str,
        *,
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[_Jobs, str | None]:
        """A tenant's jobs, the last queued first.

        A page may be short where few jobs have the status; it has a next one as long as there are
        jobs not looked at.

        Args:
            tenant: whose.
            status: only these.
            after: the page before's second value.
            limit: how many at most.

        Returns:
            The jobs, and where the next page begins, or None.

        Raises:
            InvalidJob: `after` is no such value.
            QueueUnavailable: Redis did not answer.
        """
        below = _sequence(after)
        async with self._answering():
            return await self._reader.page(tenant, status, below, limit)

    async def cancel(self, tenant: str, job_id: str, *, wait: float = 2.0) -> JobRecord:
        """Cancels a job that waits; asks the worker of one that runs, and waits for it.

        Args:
            tenant: whose.
            job_id: which.
            wait: seconds for a running one to end; then it is given back as it stands.

        Raises:
            UnknownJob: there is none.
            JobConflict: it is finished.
            QueueUnavailable: Redis did not answer.
        """
        what = await self.cancel_waiting(tenant, job_id)
        if what == "unknown":
            raise UnknownJob(tenant, job_id)
        record = await self.get(tenant, job_id)
        if what == "finished":
            raise JobConflict(
                f"job {job_id!r} is {record.status}: only unfinished ones are cancelled"
            )
        until = time.monotonic() + wait
        pause = 0.01
        while not record.finished and time.monotonic() < until:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL)
            record = await self.get(tenant, job_id)
        return record

    async def cancel_waiting(self, tenant: str, job_id: str) -> str:
        """Cancels a job that waits; marks one that runs, for its worker.

        Returns:
            `cancelled`, `asked`, `finished` or `unknown`.

        Raises:
            QueueUnavailable: Redis did not answer.
        """
        async with self._answering():
            payload = await self._commands.get(self._names.payload(tenant, job_id))
            return await self._scripts.cancel(
                tenant,
                job_id,
                keep=_ms(self.keep),
                result=cancelled_result(self.redis, tenant, job_id, payload) if payload else b"",
            )

    async def retry(self, tenant: str, job_id: str) -> JobRecord:
        """Queues a dead job anew, with all its tries.

        Raises:
            UnknownJob: there is none.
            JobConflict: it is not dead.
            QueueFull: its tenant has as many jobs waiting as it may; it stays dead.
            QueueUnavailable: Redis did not answer.
        """
        async with self._answering():
            what, cap = await self._scripts.revive(tenant, job_id)
        if what == "unknown":
            raise UnknownJob(tenant, job_id)
        if what == "full":
            raise QueueFull(tenant, cap)
        if what != "revived":
            raise JobConflict(f"job {job_id!r} is {what}: only dead ones are revived")
        return await self.get(tenant, job_id)

    async def pause(self, tenant: str) -> bool:
        """Keeps the tenant from starting jobs, and says True: it is paused now."""
        return await self._pause(tenant, paused=True)

    async def resume(self, tenant: str) -> bool:
        """Lets the tenant start jobs again, and says False: it is not paused now."""
        return await self._pause(tenant, paused=False)

    async def paused(self, tenant: str) -> bool:
        """Whether an operator has paused the tenant."""
        async with self._answering():
            return bool(await self._commands.hexists(self._names.of("tenant", tenant), "paused"))

    async def purge(self, tenant: str) -> int:
        """Cancels the tenant's jobs that wait, deferred ones too; says how many."""
        purged, last = 0, None
        while True:
            async with self._answering():
                some, last = await self._scripts.purge(
                    tenant, most=_CHUNK, keep=_ms(self.keep), last=last
                )
            if not some:
                return purged
            purged += some

    async def erase(self, tenant: str) -> None:
        """Removes all that the queue keeps of a tenant: jobs, results, policy, counts, debts.

        What runs of it is cancelled when its worker renews the lease, and can say nothing any more.
        For a day nothing late brings the tenant back: enqueues are refused with `TenantErased`
        until a sidecar knows that it is registered anew, or served by the default tier; those of
        jobs that it had before are refused even then. To be repeated after a failure.

        Raises:
            QueueUnavailable: Redis did not answer; it may have been done in part.
        """
        await erase(self.redis, tenant, self._answering)

    def export(self, tenant: str) -> AsyncIterator[dict[str, Any]]:
        """All that the queue keeps of a tenant, as JSON carries it; see `exporting`."""
        return export(self.redis, tenant, self._answering)

    async def backlog(self, tenant: str) -> Backlog:
        """The tenant's jobs in numbers."""
        async with self._answering():
            (backlog,) = await self._scripts.backlog([tenant])
        return backlog

    async def backlogs(self, *, limit: int = 20) -> _Backlogs:
        """Of those tenants that have most jobs unfinished, most first."""
        async with self._answering():
            busiest = await self._commands.zrevrange(self._names.one("busy"), 0, limit - 1)
            tenants = [tenant.decode() for tenant in busiest]
            found: _Backlogs = []
            for start in range(0, len(tenants), _TENANTS):
                found += await self._scripts.backlog(tenants[start : start + _TENANTS])
        return found

    async def busy(self) -> int:
        """How many tenants have jobs unfinished."""
        async with self._answering():
            return int(await self._commands.zcard(self._names.one("busy")))

    async def counts(self) -> dict[str, dict[str, int]]:
        """What was counted since the queue was made, by tier.

        It is `claims`, `retries`, `expired`, `succeeded`, `failed`, `dead` and `cancelled`.
        """
        async with self._answering():
            answer = await self._commands.hgetall(self._names.one("counts"))
        counts: dict[str, dict[str, int]] = {}
        for name, number in answer.items():
            tier, _, what = name.decode().partition(":")
            counts.setdefault(tier, {})[what] = int(number)
        return counts

    async def set_policy(self, tenant: str, policy: JobPolicy) -> None:
        """Writes what the tenant's jobs may take, and starts or stops what that changes."""
        await self.set_policies({tenant: policy})

    async def set_policies(self, policies: Mapping[str, JobPolicy]) -> None:
        """As `set_policy`, for many."""
        items = list(policies.items())
        for start in range(0, len(items), _TENANTS):
            async with self._answering():
                await self._scripts.policy(dict(items[start : start + _TENANTS]))

    async def policies(self) -> AsyncIterator[str]:
        """Tenants whose policy was written here, each at least once."""
        cursor = 0
        while True:
            async with self._answering():
                cursor, names = await self._reader.policies(cursor)
            for name in names:
                yield name
            if not cursor:
                return

    async def wanted(self, *, timeout: float) -> _Tenants:  # noqa: ASYNC109 - a wait of Redis's
        """Waits for tenants whose policy is missing; marks that somebody writes policies.

        Who writes them rolls up usage, too: from now on it is counted.

        Args:
            timeout: seconds to wait at most.

        Raises:
            QueueUnavailable: Redis did not answer.
        """
        async with self._answering(extra=timeout):
            await self._commands.set(self._names.one("keeper"), 1, px=KEEPER_LIVES)
            await self._usage.keep(counting=self._metering)
            key = self._names.one("wanted")
            wanted = await self._commands.srandmember(key, _CHUNK)
            if not wanted:
                await self._commands.blpop([self._names.one("keeper:wake")], timeout=timeout)
                wanted = await self._commands.srandmember(key, _CHUNK)
        return [tenant.decode() for tenant in cast("Sequence[bytes]", wanted)]

    async def functions(self) -> frozenset[str]:
        """Functions of workers seen in the last hour; empty when none is known."""
        oldest = (time.time() - FUNCTION_LIVES) * 1000
        async with self._answering():
            seen = await self._commands.hgetall(self._names.one("functions"))
        return frozenset(name.decode() for name, at in seen.items() if float(at) > oldest)

    async def workers(self, lane: str | None = None) -> int:
        """How many workers are alive, of a lane or of all that some policy names."""
        oldest = (time.time() - WORKER_LIVES) * 1000
        async with self._answering():
            if lane is None:
                named = await self._commands.smembers(self._names.one("lanes"))
                lanes = {DEFAULT_LANE, SYSTEM_LANE, *(name.decode() for name in named)}
            else:
                lanes = {lane}
            return await self._reader.workers(lanes, oldest)

    async def _pause(self, tenant: str, *, paused: bool) -> bool:
        async with self._answering():
            await while_asked(tenant, lambda: self._scripts.pause(tenant, paused=paused))
        return paused

    def _answering(self, *, extra: float = 0.0) -> AbstractAsyncContextManager[None]:
        return answering_within(self._timeout + extra)


def _sequence(after: str | None) -> int | None:
    if after is None:
        return None
    if not after.isascii() or not after.isdecimal():
        raise InvalidJob("cursor", f"expected one that a page gave; got {after!r}")
    return int(after)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
