"""What enqueues for each worker, and how many of its jobs are unfinished.

Each of them keeps its unfinished jobs in a sorted set, so the harness asks all the same: ZCARD.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from arq.connections import RedisSettings, create_pool
from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

from benchmarks import setup
from partywall_workers.policy import JobPolicy
from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis

Enqueue = Callable[[str, str], Awaitable[object]]
"""Enqueues a tenant's job: `enqueue(tenant, function)`. Peers know no tenants."""

T = TypeVar("T")

TIMEOUT = 120.0
"""Seconds that anything here may take at most."""

LOOK = 0.005
"""Seconds from one look at what is unfinished to the next."""

TENANTS = tuple(f"tenant-{number}" for number in range(20))
NOISY, VICTIM = "noisy", "victim"

AT_ONCE = 50
"""Enqueues under way at the same time."""


@dataclass(frozen=True)
class Peer:
    """One worker and its settings.

    Attributes:
        name: how rows name it.
        client: opens what enqueues for it.
        unfinished: the sorted set of its unfinished jobs.
        worker: which of `job_workers.WORKERS`.
        options: that worker's, as `NAME=VALUE`.
    """

    name: str
    client: Callable[[str], "contextlib.AbstractAsyncContextManager[Enqueue]"]
    unfinished: str
    worker: str
    options: tuple[str, ...] = ()


@contextlib.asynccontextmanager
async def fair_client(url: str) -> AsyncIterator[Enqueue]:
    redis = FairRedis.from_url(url)
    # As where a sidecar runs: it has written everybody's policy.
    await FairQueue(redis).set_policies(
        {tenant: JobPolicy(tier="free") for tenant in (*TENANTS, NOISY, VICTIM)}
    )

    async def enqueue(tenant: str, function: str) -> object:
        return await redis.enqueue_job(function, _tenant=tenant)

    try:
        yield enqueue
    finally:
        await redis.aclose(close_connection_pool=True)


@contextlib.asynccontextmanager
async def arq_client(url: str) -> AsyncIterator[Enqueue]:
    redis = await create_pool(RedisSettings.from_dsn(url))

    async def enqueue(_tenant: str, function: str) -> object:
        return await redis.enqueue_job(function)

    try:
        yield enqueue
    finally:
        await redis.aclose(close_connection_pool=True)


@contextlib.asynccontextmanager
async def saq_client(url: str) -> AsyncIterator[Enqueue]:
    queue = RedisQueue.from_url(url)

    async def enqueue(_tenant: str, function: str) -> object:
        return await queue.enqueue(function)

    try:
        yield enqueue
    finally:
        await queue.disconnect()


UVLOOP = "loop=uvloop"

FAIR = Peer("FairWorker", fair_client, "pw:jobs", "fair")
ARQ = Peer("stock arq", arq_client, "arq:queue", "arq")
ARQ_QUICK = Peer("stock arq, poll_delay=0.01", arq_client, "arq:queue", "arq", ("poll_delay=0.01",))
SAQ = Peer("SAQ, concurrency=100", saq_client, "saq:default:incomplete", "saq")

# SAQ waits with one connection for each place, so it is quickest with few: 10 is its own default.
SAQ_BEST = replace(SAQ, name="SAQ at its best: 10, uvloop", options=("concurrency=10", UVLOOP))
FAIR_UVLOOP = replace(FAIR, name="FairWorker on uvloop", options=(UVLOOP,))


class Running:
    """A worker process that is about to take jobs.

    Attributes:
        ready_at: when it was, by this process's `time.perf_counter`.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.ready_at = 0.0

    async def hear(self, byte: bytes) -> float:
        """Waits for the worker's next byte, which must be this one; when it came."""
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            heard = await self._process.stdout.read(1)
        at = time.perf_counter()
        if heard != byte:
            raise RuntimeError(f"expected the worker to say {byte!r}; got {heard!r}")
        return at


@contextlib.asynccontextmanager
async def running(peer: Peer, url: str) -> AsyncIterator[Running]:
    """The peer's worker in a process of its own, alone on the measured core."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.job_workers", peer.worker, *peer.options),
        env={**os.environ, "BENCH_REDIS_URL": url},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        os.sched_setaffinity(process.pid, setup.MEASURED)
        worker = Running(process)
        worker.ready_at = await worker.hear(b"r")
        yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()  # not asked to end: nothing is measured any more
        await asyncio.wait_for(process.wait(), TIMEOUT)


async def fill(peer: Peer, url: str, jobs: Sequence[tuple[str, str]]) -> None:
    """Enqueues these (tenant, function) by the peer's own client, in order, a few at a time."""
    async with peer.client(url) as enqueue:
        for some in batched(jobs, AT_ONCE):
            await asyncio.gather(*(enqueue(tenant, function) for tenant, function in some))


async def until(redis: Redis, peer: Peer, unfinished: int) -> float:
    """Waits until no more jobs than this are unfinished; when that was."""
    async with asyncio.timeout(TIMEOUT):
        while await redis.zcard(peer.unfinished) > unfinished:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(LOOK)
    return time.perf_counter()


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in lists of at most this size."""
    return (items[start : start + size] for start in range(0, len(items), size))
