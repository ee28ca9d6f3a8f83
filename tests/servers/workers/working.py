"""Workers in a test's own process, on a queue of its own."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from arq.jobs import Job

from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis
from partywall_workers.scripts import Claimed
from partywall_workers.worker import FairWorker

Ctx = dict[Any, Any]
Function = Callable[..., Coroutine[Any, Any, Any]]

DAY = 86_400_000
"""Milliseconds."""


class Work:
    """One queue and its workers.

    Attributes:
        queue: the queue.
        redis: its client, which enqueues.
        url: its Redis.
    """

    def __init__(self, queue: FairQueue, url: str) -> None:
        self.queue = queue
        self.redis = queue.redis
        self.url = url

    async def enqueue(self, function: str | Function, *args: Any, **options: Any) -> Job:
        """Queues a job of acme's, unless told otherwise."""
        handle = await self.redis.enqueue_job(function, *args, **({"_tenant": "acme"} | options))
        assert handle is not None
        return handle

    def worker(self, *functions: Any, at: int | None = None, **options: Any) -> FairWorker:
        """A worker that has not run yet.

        Args:
            functions: its jobs.
            at: milliseconds since the epoch that it takes for now.
            options: of FairWorker.
        """
        pool = FairRedis.from_url(self.url, queue_name=self.queue.name)
        pool.scripts.now = at
        given: Ctx = {"redis_pool": pool, "burst": True, "handle_signals": False}
        return FairWorker(functions, **(given | options))

    async def burst(self, *functions: Any, **options: Any) -> FairWorker:
        """Runs until no job is left that this worker might run; as `worker`."""
        worker = self.worker(*functions, **options)
        try:
            await worker.async_run()
        finally:
            await worker.close()
        return worker

    @asynccontextmanager
    async def running(self, *functions: Any, **options: Any) -> AsyncIterator[FairWorker]:
        """A worker that runs until the block ends; then what runs may end; as `worker`."""
        worker = self.worker(*functions, **({"burst": False} | options))
        running = asyncio.create_task(worker.async_run())
        try:
            yield worker
        finally:
            worker.handle_sig(signal.SIGTERM)
            await running
            await worker.close()

    async def claim(self, slots: int = 1, *, lease: int = 60_000) -> list[Claimed]:
        """Claims jobs as a worker does that is then heard of no more."""
        claims = await self.redis.scripts.claim(
            slots, lease=lease, keep=DAY, costs=b"{}", lanes=["default"]
        )
        return claims.jobs

    async def seen(self, workers: int = 1) -> None:
        """Waits until so many workers have said that they live."""
        while await self.queue.workers() < workers:  # noqa: ASYNC110 - they say so in Redis alone
            await asyncio.sleep(0.01)

    async def status(self, handle: Job) -> str:
        """How the queue's record has a job."""
        named = self.redis.names.parts(handle.job_id)
        assert named is not None
        return (await self.queue.get(*named)).status

    async def now(self) -> int:
        """Milliseconds since the epoch, by Redis's clock."""
        seconds, microseconds = await self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000


class Held:
    """A job that runs until it is told to end.

    Attributes:
        began: how often it was started.
    """

    def __init__(self) -> None:
        self.began: list[Ctx] = []
        self._news = asyncio.Event()
        self._go = asyncio.Event()

    async def __call__(self, ctx: Ctx, *args: Any) -> str:
        self.began.append(ctx)
        self._news.set()
        await self._go.wait()
        return "done"

    async def running(self, count: int = 1) -> None:
        """Waits until so many have begun."""
        while len(self.began) < count:
            self._news.clear()
            await self._news.wait()

    def end(self) -> None:
        """Lets all of them end."""
        self._go.set()

    def function(self) -> Function:
        """It, as a coroutine function named `held`."""

        async def held(ctx: Ctx, *args: Any) -> str:
            return await self(ctx, *args)

        held.__qualname__ = "held"
        return held
