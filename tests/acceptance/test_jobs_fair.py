"""Fairness and caps with worker processes on a real Valkey.

Jobs are held open by gates, and workers do not look at a queue unless they are woken or a lease
ends: what is seen here is not the work of a poll.
"""

import asyncio
import random
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from partywall_service.embedded import ValkeyServer
from partywall_workers.errors import JobConflict
from partywall_workers.policy import JobPolicy
from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis
from tests.acceptance.asking import until
from tests.conftest import SOAK
from tests.support.job_workers import (
    Event,
    Workers,
    WorkersFactory,
    enqueue,
    enqueue_all,
    workers_in,
)

NOISY = 10_000 if SOAK else 1_000
CAPPED = 3_000 if SOAK else 240
NEVER = 3600.0
"""Seconds that no test waits: what depends on this length of time does not happen."""


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[WorkersFactory]:
    with workers_in(tmp_path) as make:
        yield make


@pytest.fixture
def crew(workers: WorkersFactory, jobs_queue: FairQueue, valkey_url: str) -> Workers:
    """Workers on the run's Valkey."""
    return workers(jobs_queue, valkey_url)


async def running(queue: FairQueue) -> Counter[str]:
    """How many jobs of each tenant run."""
    return Counter({one.tenant: one.running for one in await queue.backlogs(limit=100)})


async def settled(queue: FairQueue, wanted: dict[str, int]) -> None:
    """Waits until as many jobs of each tenant run as are wanted."""

    async def as_wanted() -> bool:
        return +(await running(queue)) == +Counter(wanted)

    await until(as_wanted)


async def starts(crew: Workers, number: int) -> list[Event]:
    """Waits until so many jobs were started, and gives them in the order of their starts."""

    async def ask() -> list[Event]:
        found = (await crew.ledger()).of("run")
        return found if len(found) >= number else []

    found, _ = await until(ask, seconds=60)
    return found


@pytest.mark.timeout(600 if SOAK else 120)
async def test_a_job_starts_after_at_most_one_more_of_each_active_tenant_whatever_their_backlogs(
    crew: Workers,
) -> None:
    others = ("noisy", "busy", "calm")
    jobs: dict[str, tuple[object, ...]] = {f"noisy:{one}": ("all",) for one in range(NOISY)}
    jobs |= {f"{tenant}:{one}": ("all",) for tenant in others[1:] for one in range(200)}
    await enqueue_all(crew.queue, "held", jobs)
    for _ in range(4):
        crew.start(lease=NEVER, max_jobs=25, longest_wait=NEVER)
    assert len(await starts(crew, 100)) == 100

    for victim in ("late", "later"):
        before = await starts(crew, 100)
        await enqueue(crew.queue, f"{victim}:1", "held", "all")
        now = before
        while now[-1].ref != f"{victim}:1":
            await crew.open("all")
            released = len(now)
            now = await starts(crew, released + 1)
            assert len(now) == released + 1  # one for one: no more slots than there are, no fewer
            assert (await running(crew.queue)).total() == 100
        ahead = Counter(tenant_of(one) for one in now[len(before) : -1])
        assert set(ahead) <= {*others, "late"}
        assert all(count <= 1 for count in ahead.values()), ahead


async def test_starts_are_in_proportion_to_weights_within_a_hundredth(crew: Workers) -> None:
    weights = {"one": 1, "two": 2, "five": 5}
    rounds = 1000 if SOAK else 150
    for tenant, weight in weights.items():
        await crew.queue.set_policy(tenant, JobPolicy(weight=weight))
        some = range((rounds + 10) * weight)
        jobs: dict[str, tuple[object, ...]] = {f"{tenant}:{one}": (one, 0) for one in some}
        await enqueue_all(crew.queue, "plain", jobs)
    crew.start()
    crew.start()
    await crew.finished()

    # The numbers of starts are drawn at each claim.
    order = sorted((await crew.ledger()).of("claim"), key=lambda one: one.fence)
    counted = Counter(tenant_of(one) for one in order[: 8 * rounds])
    for tenant, weight in weights.items():
        assert counted[tenant] == pytest.approx(weight * rounds, rel=0.01)


async def test_no_slot_is_free_while_any_tenant_may_run(crew: Workers) -> None:
    queue = crew.queue
    await queue.set_policy("capped", JobPolicy(concurrency=2))
    await queue.set_policy("stopped", JobPolicy(held="suspended"))
    for _ in range(4):
        crew.start(lease=NEVER, max_jobs=3, longest_wait=NEVER)
    await crew.ready(*crew.all)
    for tenant in ("capped", "stopped", "paused"):
        if tenant == "paused":
            await queue.pause(tenant)
        await enqueue_all(queue, "held", {f"{tenant}:{one}": (tenant,) for one in range(20)})
    await settled(queue, {"capped": 2})

    # Idle workers take what comes, from whom it comes, up to the last slot.
    await enqueue(queue, "free:0", "held", "free")
    await settled(queue, {"capped": 2, "free": 1})
    await enqueue_all(queue, "held", {f"free:{one}": ("free",) for one in range(1, 20)})
    await settled(queue, {"capped": 2, "free": 10})
    # A slot that becomes free goes to whoever may run.
    await crew.open("capped", times=2)
    await starts(crew, 14)
    await settled(queue, {"capped": 2, "free": 10})
    await crew.open("free", times=15)
    await starts(crew, 24)
    await settled(queue, {"capped": 2, "free": 5})
    # Who may run again does so at once.
    await queue.resume("paused")
    await settled(queue, {"capped": 2, "free": 5, "paused": 5})
    await crew.open("free", times=5)
    await settled(queue, {"capped": 2, "paused": 10})
    await queue.set_policy("capped", JobPolicy(concurrency=4))
    await crew.open("paused", times=20)
    await settled(queue, {"capped": 4})
    await queue.set_policy("stopped", JobPolicy())
    await settled(queue, {"capped": 4, "stopped": 8})
    await crew.open("stopped", times=20)
    await crew.open("capped", times=20)
    await crew.finished()
    await crew.stop()


def tenant_of(event: Event) -> str:
    return event.ref.partition(":")[0]


class Trace:
    """Every lease that the server made and ended, in its own order.

    MONITOR shows each command as it is carried out, those of scripts too, so between any two of
    them there is none that this has not seen.

    Attributes:
        live: jobs with a lease, by tenant.
        most: how many there were at once.
        made: leases made, by tenant.
    """

    def __init__(self, queue: str) -> None:
        self.live: defaultdict[str, set[str]] = defaultdict(set)
        self.most: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self._lines = re.compile(
            rf'"(ZADD|ZREM|DEL)" "{re.escape(queue)}:running:([^"]+)"(?: "\d+")? "([^"]+)"'
        )

    def see(self, line: str) -> None:
        found = self._lines.search(line)
        if found is None:
            return
        command, tenant, job_id = found.groups()
        assert command != "DEL"
        live = self.live[tenant]
        if command == "ZREM":
            live.discard(job_id)
        elif job_id not in live:
            live.add(job_id)
            self.made[tenant] += 1
            self.most[tenant] = max(self.most[tenant], len(live))


@asynccontextmanager
async def traced(server: ValkeyServer, queue: str) -> AsyncIterator[Trace]:
    """What the server does from here on, seen to the last command when the block ends."""
    trace = Trace(queue)
    reader, writer = await asyncio.open_unix_connection(str(server.socket), limit=1 << 24)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"

    async def read() -> None:
        while b'"ECHO" "over"' not in (line := await reader.readline()):
            trace.see(line.decode())

    reading = asyncio.create_task(read())
    try:
        yield trace
        async with FairRedis.from_url(server.url) as client:
            await client.echo("over")
        await reading
    finally:
        reading.cancel()
        writer.close()


@pytest.mark.timeout(900 if SOAK else 120)
async def test_caps_hold_at_every_instant_through_retries_crashes_and_cancellations(
    workers: WorkersFactory, own_valkey: ValkeyServer
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown on failure
    chance = random.Random(seed)
    caps: dict[str, int | None] = {"one": 1, "two": 2, "three": 3, "free": None}
    refs = [f"{list(caps)[number % 4]}:{number}" for number in range(CAPPED)]
    async with FairRedis.from_url(own_valkey.url) as client:
        queue = FairQueue(client)
        crew = workers(queue, own_valkey.url)
        async with traced(own_valkey, queue.name) as trace:
            for tenant, cap in caps.items():
                await queue.set_policy(tenant, JobPolicy(concurrency=cap))
            await enqueue_all(
                queue,
                "shaky",
                {ref: (seed + number, 0.005) for number, ref in enumerate(refs)},
            )
            while len(crew.living) < 4:
                crew.start(lease=1.0)
            cancelled = await cancel_and_kill(crew, trace, chance, refs)
            await crew.finished(seconds=300)

        for tenant, cap in caps.items():
            if cap is not None:
                assert trace.most[tenant] == cap
            assert trace.live[tenant] == set()
            # It has seen them all.
            assert trace.made[tenant] == (await queue.backlog(tenant)).claims
        assert cancelled
        ends = {ref: (await queue.get(*ref.split(":"))).status for ref in refs}
        assert set(ends.values()) == {"succeeded", "cancelled"}
        assert all(ends[ref] == "cancelled" for ref in cancelled)
        assert (await crew.ledger()).deaths().total() == CAPPED // 60
        assert await crew.left() == []
        await crew.stop()


async def cancel_and_kill(
    crew: Workers, trace: Trace, chance: random.Random, refs: list[str]
) -> set[str]:
    """Kills workers in the midst of the jobs; those that were cancelled for certain."""
    cancelled: set[str] = set()
    for number in range(1, CAPPED // 60 + 1):
        await until(_made(trace, 40 * number), seconds=60)
        await crew.kill(chance.choice(crew.living))
        crew.start(lease=1.0)
        for ref in chance.sample(refs, 8):
            tenant, _, job_id = ref.partition(":")
            with suppress(JobConflict):
                record = await crew.queue.cancel(tenant, job_id, wait=0)
                if record.status == "cancelled":
                    cancelled.add(ref)
    return cancelled


def _made(trace: Trace, number: int) -> Callable[[], Awaitable[bool]]:
    async def made() -> bool:
        return trace.made.total() >= number

    return made
