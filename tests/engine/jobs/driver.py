"""One queue of a test's own, driven by hand: no worker, and time goes when it is told to."""

import time
import uuid
from collections.abc import Iterable, Sequence

from arq.jobs import Job

from partywall_workers.policy import DEFAULT_LANE, JobPolicy
from partywall_workers.queue import FairQueue
from partywall_workers.records import JobRecord
from partywall_workers.redis import FairRedis
from partywall_workers.scripts import Claimed, Claims, Outcome

LEASE = 15_000
"""Milliseconds."""

KEEP = 36_000_000
"""Milliseconds that finished jobs are kept: longer than any test's clock moves."""

COSTS = b'{"cost2": 2, "cost3": 3, "cost7": 7, "half": 0.5}'
"""Of functions whose cost is not 1."""


class Jobs:
    """A queue, its scripts, and a clock that only moves when a test moves it.

    Args:
        redis: a client of the queue.
    """

    def __init__(self, redis: FairRedis) -> None:
        self.redis = redis
        self.queue = FairQueue(redis, keep=KEEP / 1000, timeout=60)
        self.scripts = redis.scripts
        self.scripts.now = time.time_ns() // 1_000_000

    @property
    def now(self) -> int:
        """Milliseconds since the epoch."""
        now = self.scripts.now
        assert now is not None
        return now

    def pass_time(self, milliseconds: int) -> None:
        """Moves the clock; back, where it is negative."""
        self.scripts.now = self.now + milliseconds

    async def policy(self, tenant: str, **of: object) -> None:
        """Writes a policy, its fields as JobPolicy's."""
        await self.queue.set_policy(tenant, JobPolicy(**of))

    async def add(
        self, tenant: str, job_id: str | None = None, function: str = "work", **more: object
    ) -> str:
        """Enqueues a job that is new; its id."""
        enqueued = await self.queue.enqueue(tenant, function, job_id=job_id, **more)
        assert enqueued.created
        return enqueued.job.job_id

    async def add_many(self, tenant: str, count: int, functions: Sequence[str] = ("work",)) -> None:
        """Enqueues so many jobs, of these functions in turn, in few calls."""
        new = [
            self.redis.new_job(
                tenant,
                functions[nth % len(functions)],
                (),
                {},
                job_id=None,
                priority=5,
                defer_by=None,
                defer_until=None,
                expires=None,
            )
            for nth in range(count)
        ]
        for start in range(0, count, 500):
            answers = await self.scripts.enqueue(new[start : start + 500])
            assert {answer.what for answer in answers} == {"created"}

    async def claims(
        self, slots: int = 100, *, lease: int = LEASE, lanes: Sequence[str] = (DEFAULT_LANE,)
    ) -> Claims:
        """What a worker with so many slots free is given."""
        return await self.scripts.claim(slots, lease=lease, keep=KEEP, costs=COSTS, lanes=lanes)

    async def claim(
        self, slots: int = 100, *, lease: int = LEASE, lanes: Sequence[str] = (DEFAULT_LANE,)
    ) -> list[Claimed]:
        """The jobs of that."""
        return (await self.claims(slots, lease=lease, lanes=lanes)).jobs

    async def end(
        self,
        claimed: Claimed | Iterable[Claimed],
        how: str = "succeeded",
        **of: object,
    ) -> list[bool]:
        """Says how tries ended: whether each was still ours to say."""
        ended = [claimed] if isinstance(claimed, Claimed) else list(claimed)
        of.setdefault("keep", KEEP)
        return await self.scripts.release([Outcome(one.ref, one.fence, how, **of) for one in ended])

    async def status(self, tenant: str, job_id: str) -> str:
        """The job's."""
        return (await self.get(tenant, job_id)).status

    async def get(self, tenant: str, job_id: str) -> JobRecord:
        """The job's record."""
        return await self.queue.get(tenant, job_id)

    async def keeper(self, *, lives: bool) -> None:
        """A sidecar writes policies, or the last one has gone (and ten seconds are over)."""
        key = self.redis.names.one("keeper")
        if lives:
            await self.redis.set(key, 1, px=10_000)
        else:
            await self.redis.delete(key)
            self.pass_time(10_000)

    async def clear(self) -> None:
        """Takes away every key of the queue."""
        name = self.queue.name
        for pattern in (f"{name}*", f"arq:*:{name}:*"):
            keys = await self.redis.keys(pattern)
            for start in range(0, len(keys), 10_000):
                await self.redis.unlink(*keys[start : start + 10_000])
        abort = await self.redis.zrange("arq:abort", 0, -1)
        ours = [member for member in abort if member.startswith(name.encode())]
        if ours:
            await self.redis.zrem("arq:abort", *ours)


def open_jobs(url: str) -> Jobs:
    """A new queue on a server."""
    return Jobs(FairRedis.from_url(url, queue_name=f"t{uuid.uuid4().hex[:16]}:jobs"))


def ids(claimed: Iterable[Claimed]) -> list[str]:
    """Of jobs, in order."""
    return [one.job_id for one in claimed]


def owners(claimed: Iterable[Claimed]) -> list[str]:
    """Tenants of jobs, in order."""
    return [one.tenant for one in claimed]


def job_of(jobs: Jobs, tenant: str, job_id: str) -> Job:
    """A handle of arq's, as anybody with a client and arq's id makes it."""
    redis = jobs.redis
    name = f"{redis.default_queue_name}:{tenant}:{job_id}"
    return Job(name, redis, redis.default_queue_name, redis.job_deserializer)
