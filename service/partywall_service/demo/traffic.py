"""The tenants' traffic: requests and jobs at a fixed rate, whatever becomes of them.

Open loop: a request's time counts from when it was due, so that a slow answer does not hide the
wait of those behind it (coordinated omission).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx
from arq.connections import ArqRedis, RedisSettings, create_pool

from partywall import address
from partywall.wire import Wire
from partywall_service.demo.work import WAITS
from partywall_workers import FairQueue, FairRedis, QueueFull

MOST_AT_ONCE = 200
"""Requests a tenant has under way: its connections. What is due beyond them waits its turn."""


@dataclass
class Seen:
    """What became of one tenant's traffic in one scene; seconds.

    Attributes:
        answered: of each request that was admitted, from when it was due to its answer.
        denied: requests answered 429.
        started: of each job, from when it was asked for to its start.
        queued: when each job was asked for, in order; a tenant's start in this order.
        refused: jobs that found the queue full.
    """

    answered: list[float] = field(default_factory=list)
    denied: int = 0
    started: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    refused: int = 0

    @property
    def waiting(self) -> list[float]:
        """When those jobs were asked for that have not started."""
        return self.queued[len(self.started) :]


async def steadily(rate: float, seconds: float, act: Callable[[float], Awaitable[None]]) -> None:
    """Acts at a rate for so long, each act in a task of its own; then waits for those under way.

    Args:
        rate: acts a second.
        seconds: for how long.
        act: is told when it was due, by the event loop's clock.
    """
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(MOST_AT_ONCE)
    begun = loop.time()

    async def one(due: float) -> None:
        try:
            await act(due)
        finally:
            places.release()

    async with asyncio.TaskGroup() as tasks:
        for number in range(int(rate * seconds)):
            due = begun + number / rate
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if loop.time() > begun + seconds:
                return  # so far behind that the rest comes too late
            await places.acquire()
            tasks.create_task(one(due))


async def send_requests(url: str, tenant: str, rate: float, seconds: float, seen: Seen) -> None:
    """One tenant's requests to the host app."""
    loop = asyncio.get_running_loop()
    place = address.parse(url)
    host = place.url.netloc
    wire = Wire(place, b"/", [(b"Host", host), (b"X-Tenant-ID", tenant.encode())])

    async def ask(due: float) -> None:
        try:
            reply = await wire.post(b"")
        except (httpx.ConnectError, httpx.RemoteProtocolError):
            seen.denied += 1
            return
        if reply.status == 200:
            seen.answered.append(loop.time() - due)
        else:
            seen.denied += 1

    try:
        await steadily(rate, seconds, ask)
    finally:
        await wire.aclose()


class Jobs:
    """Both kinds of queues, on one Redis."""

    def __init__(self, fair: FairQueue, plain: ArqRedis) -> None:
        self._fair = fair
        self._plain = plain

    @classmethod
    async def connect(cls, redis_url: str) -> "Jobs":
        """Connects to the queues."""
        plain = await create_pool(RedisSettings.from_dsn(redis_url))
        return cls(FairQueue(FairRedis.from_url(redis_url)), plain)

    async def aclose(self) -> None:
        """Ends the connections."""
        await self._fair.redis.aclose()
        await self._plain.aclose()

    async def send(
        self, tenant: str, rate: float, seconds: float, seen: Seen, *, fairly: bool
    ) -> None:
        """One tenant's jobs."""

        async def enqueue(_due: float) -> None:
            asked_at = time.time()
            arguments = (tenant, asked_at)
            try:
                if fairly:
                    await self._fair.enqueue(tenant, "send_invoice", arguments)
                else:
                    await self._plain.enqueue_job("send_invoice", *arguments)
                seen.queued.append(asked_at)
            except QueueFull:
                seen.refused += 1

        await steadily(rate, seconds, enqueue)

    async def collect(self, tenants: dict[str, Seen]) -> None:
        """Takes in what the workers said of the jobs that have started."""
        pop = self._plain.execute_command("LPOP", WAITS, 10_000)  # type: ignore[no-untyped-call] # redis-py's
        lines = await pop
        for line in lines or ():
            tenant, waited = line.decode().split()
            seen = tenants.get(tenant)
            if seen is not None and seen.waiting:
                seen.started.append(float(waited))

    async def clear(self, *tenants: str) -> None:
        """Takes away what is still queued, so that the next scene begins with nothing."""
        for tenant in tenants:
            await self._fair.purge(tenant)
        queued = await self._plain.zrange("arq:queue", 0, -1)
        keys = [b"arq:job:" + job for job in queued]
        if keys:
            await self._plain.delete("arq:queue", *keys)
        await asyncio.sleep(0.5)  # what was running ends, and says so
        await self._plain.delete(WAITS)
