"""Workers that are killed, stopped and blocked, under jobs on a real Valkey.

A lease of one second makes a second of waiting of what a killed worker leaves; nothing here depends
on how long anything takes.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sized
from pathlib import Path

import pytest

from partywall_service.embedded import ValkeyServer
from partywall_workers.errors import QueueUnavailable
from partywall_workers.policy import JobPolicy
from partywall_workers.queue import FairQueue
from partywall_workers.records import Status
from partywall_workers.redis import FairRedis
from tests.acceptance.asking import until
from tests.conftest import SOAK
from tests.support.job_worker import INSTANTS
from tests.support.job_workers import (
    Worker,
    Workers,
    WorkersFactory,
    enqueue,
    enqueue_all,
    workers_in,
)

JOBS = 2000 if SOAK else 200
KILLS = JOBS // 20
OUTAGES = 20 if SOAK else 3
LEASE = 1.0
CLIENTS = 8
NEVER = 3600.0
"""Seconds that no test waits: what depends on this length of time does not happen."""


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[WorkersFactory]:
    with workers_in(tmp_path) as make:
        yield make


@pytest.fixture
def synced_valkey(server_dir: Path) -> Iterator[ValkeyServer]:
    """It answers when what it did is on disk.

    With `everysec` it answers before it has written, while a sync is under way.
    """
    server = ValkeyServer(server_dir / "valkey", options=("--appendfsync", "always"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def own_queue(synced_valkey: ValkeyServer) -> AsyncIterator[FairQueue]:
    async with FairRedis.from_url(synced_valkey.url) as client:
        yield FairQueue(client)


@pytest.fixture
def crew(workers: WorkersFactory, jobs_queue: FairQueue, valkey_url: str) -> Workers:
    """Workers on the run's Valkey."""
    return workers(jobs_queue, valkey_url)


async def test_a_job_runs_again_by_another_worker_wherever_in_it_its_worker_is_killed(
    crew: Workers,
) -> None:
    for instant in INSTANTS:
        await crew.queue.set_policy(instant, JobPolicy(lane=instant))
        await enqueue(crew.queue, f"{instant}:1", "work")
        crew.start(lease=LEASE, lanes=(instant,), dies=instant)
    for doomed in crew.all:
        assert await doomed.ended() == -signal.SIGKILL
    crew.start(lease=NEVER, lanes=INSTANTS)
    await crew.finished()

    ledger = await crew.ledger()
    starts = {ref: len(claims) for ref, claims in ledger.claims().items()}
    # The last release was sent: Redis had it, whether or not its worker lived to hear so.
    assert starts == {"claimed:1": 2, "running:1": 2, "ended:1": 2, "told:1": 1}
    runs = {ref: len(ledger.of("run", ref)) for ref in starts}
    assert runs == starts | {"claimed:1": 1}
    for instant in INSTANTS:
        record = await crew.queue.get(instant, "1")
        last = ledger.of("run", f"{instant}:1")[-1]
        assert (record.status, record.result) == ("succeeded", f"{last.worker}:{last.fence}")
        assert record.attempts == starts[f"{instant}:1"]
    assert await crew.left() == []
    await crew.stop()


@pytest.mark.timeout(900 if SOAK else 120)
async def test_all_jobs_finish_though_workers_are_killed_and_only_those_they_had_run_again(
    crew: Workers,
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown on failure
    chance = random.Random(seed)
    refs = [f"t{number % 20}:{number}" for number in range(JOBS)]
    jobs: dict[str, tuple[object, ...]] = {ref: (chance.uniform(0, 0.02),) for ref in refs}
    await enqueue_all(crew.queue, "work", jobs)

    # Each starts few enough before it dies that there are jobs for all of them to die at.
    fates = [*INSTANTS, None] * (KILLS // 5)
    while len(crew.undoomed) < 4:
        if len(crew.living) == 4:
            await asyncio.sleep(0.01)  # nothing else tells of a death
        elif not fates:
            crew.start(lease=NEVER)
        elif instant := fates.pop():
            crew.start(lease=2 * LEASE, dies=instant, dies_after=chance.randrange(3))
        else:
            one = crew.start(lease=2 * LEASE)
            await crew.ready(one)
            await asyncio.sleep(chance.uniform(0, 0.03))  # at no instant in particular
            await crew.kill(one)
    await crew.finished(seconds=300)

    ledger = await crew.ledger()
    assert ledger.deaths() == dict.fromkeys((*INSTANTS, "at any instant"), KILLS // 5)
    assert ledger.needless() == []
    claims = ledger.claims()
    for ref in refs:
        record = await crew.queue.get(*ref.split(":"))
        last = claims[ref][-1]
        assert (record.status, record.result) == ("succeeded", f"{last.worker}:{last.fence}")
        assert len(ledger.of("run", ref)) <= record.attempts
    starts, expired = 0, 0
    for number in range(20):
        backlog = await crew.queue.backlog(f"t{number}")
        assert (backlog.queued, backlog.deferred, backlog.running, backlog.dead) == (0, 0, 0, 0)
        starts, expired = starts + backlog.claims, expired + backlog.expired
    assert starts == JOBS + expired
    assert await crew.left() == []
    await crew.stop()
    print(f"{len(ledger.of('run'))} runs, {starts} starts, {expired} expired leases")  # noqa: T201


async def test_a_job_that_kills_its_worker_each_time_is_dead_after_its_tries(crew: Workers) -> None:
    await enqueue(crew.queue, "acme:poison", "deadly")
    for _ in range(2):
        assert await crew.start(lease=LEASE, max_tries=2).ended() == -signal.SIGKILL
    await enqueue(crew.queue, "acme:next", "work")
    last = crew.start(lease=NEVER, max_tries=2)
    await crew.finished()

    record = await crew.queue.get("acme", "poison")
    assert (record.status, record.attempts) == ("dead", 2)
    assert record.error == (
        "JobExecutionFailed: max 2 retries exceeded; the worker of its last one died, or lost its "
        "lease"
    )
    assert len((await crew.ledger()).of("run", "acme:poison")) == 2
    assert (await crew.queue.get("acme", "next")).status == "succeeded"
    assert last.alive
    assert await crew.left() == [f"arq:job:{crew.queue.name}:acme:poison"]  # to be revived with


async def test_a_worker_that_was_stopped_past_its_lease_cancels_its_own_try(crew: Workers) -> None:
    stopped = crew.start(lease=LEASE)
    await enqueue(crew.queue, "acme:1", "held")
    await crew.told("run")
    stopped.signal(signal.SIGSTOP)
    other = crew.start(lease=NEVER)
    second = await crew.told("run", by=other)
    await crew.open(other.name)
    await crew.finished()
    stopped.signal(signal.SIGCONT)

    cancelled = await crew.told("cancelled", by=stopped)
    record = await crew.queue.get("acme", "1")
    assert (record.status, record.attempts) == ("succeeded", 2)
    assert record.result == f"{other.name}:{second.fence}"
    assert cancelled.fence < second.fence
    await other_ends_and_it_goes_on(crew, other, stopped)
    assert "its lease was lost, and it is left to others" in stopped.log


async def test_a_late_result_of_a_stopped_worker_is_refused_while_another_runs_the_job(
    crew: Workers,
) -> None:
    stopped = crew.start(lease=LEASE)
    await enqueue(crew.queue, "acme:1", "blocking")
    await crew.told("run")
    stopped.signal(signal.SIGSTOP)
    other = crew.start(lease=NEVER)
    await enqueue(crew.queue, "acme:2", "held")
    second = await crew.told("run", by=other, ref="acme:1")
    # Its result is there at once: nothing tells the worker first that the job is not its own.
    await crew.open(stopped.name)
    stopped.signal(signal.SIGCONT)
    await until(_logged(stopped, "acme:1: its result came too late, and is refused"))
    assert (await crew.queue.get("acme", "1")).status == "running"
    await crew.open(other.name, times=2)
    await crew.finished()

    record = await crew.queue.get("acme", "1")
    assert (record.status, record.attempts) == ("succeeded", 2)
    assert record.result == f"{other.name}:{second.fence}"
    await other_ends_and_it_goes_on(crew, other, stopped)


async def test_a_worker_whose_loop_was_blocked_for_longer_than_a_lease_goes_on_and_loses_the_job(
    crew: Workers,
) -> None:
    blocked = crew.start(lease=LEASE)
    await enqueue(crew.queue, "acme:1", "blocking")
    await crew.told("run")
    other = crew.start(lease=NEVER)
    await crew.told("run", by=other)
    await crew.open(other.name)
    await crew.finished()
    await crew.open(blocked.name)
    await until(_logged(blocked, "acme:1: its result came too late, and is refused"))

    record = await crew.queue.get("acme", "1")
    assert (record.status, record.attempts) == ("succeeded", 2)
    assert record.result.startswith(f"{other.name}:")
    await other_ends_and_it_goes_on(crew, other, blocked)


async def test_on_sigterm_a_job_that_runs_on_is_handed_to_another_worker_uncounted(
    crew: Workers,
) -> None:
    first = crew.start(lease=NEVER, drain=0.2)
    await enqueue(crew.queue, "acme:long", "held")
    await crew.told("run")
    second = crew.start(lease=NEVER)
    await crew.ready(second)
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0

    await crew.told("run", by=second)  # long before the lease is over
    record = await crew.queue.get("acme", "long")
    assert (record.status, record.attempts) == ("running", 1)
    await crew.open(second.name)
    await crew.finished()
    assert (await crew.queue.get("acme", "long")).attempts == 1
    assert await crew.left() == []
    await crew.stop()


async def test_on_sigterm_jobs_may_end_and_none_starts_and_a_second_one_does_not_wait(
    crew: Workers,
) -> None:
    first = crew.start(lease=NEVER, drain=NEVER)
    await enqueue(crew.queue, "acme:short", "held", "short")
    await enqueue(crew.queue, "acme:long", "held")
    await crew.told("run", ref="acme:short")
    await crew.told("run", ref="acme:long")
    first.signal(signal.SIGTERM)
    await crew.told("stopping")
    await enqueue(crew.queue, "acme:late", "work")
    await crew.open("short")
    await until(_has(crew.queue, "short", "succeeded"))
    first.signal(signal.SIGTERM)
    assert await first.ended() == 0

    assert (await crew.queue.get("acme", "short")).attempts == 1
    for job_id in ("long", "late"):
        record = await crew.queue.get("acme", job_id)
        assert (record.status, record.attempts) == ("queued", 0)
    second = crew.start(lease=NEVER)
    await crew.open(second.name)
    await crew.finished()
    for job_id in ("long", "late"):
        record = await crew.queue.get("acme", job_id)
        assert (record.status, record.attempts) == ("succeeded", 1)
    assert await crew.left() == []
    await crew.stop()


@pytest.mark.timeout(900 if SOAK else 120)
async def test_no_acknowledged_job_is_lost_and_no_worker_ends_though_valkey_is_killed(
    workers: WorkersFactory, own_queue: FairQueue, synced_valkey: ValkeyServer
) -> None:
    crew = workers(own_queue, synced_valkey.url)
    crew.start(lease=LEASE)
    crew.start(lease=LEASE)
    await crew.ready(*crew.all)
    acknowledged: list[int] = []
    failures = 0
    over = asyncio.Event()

    async def client(first: int) -> None:
        nonlocal failures
        number = first
        while not over.is_set():
            try:
                await own_queue.enqueue(f"t{first}", "plain", (number, 0.02), job_id=f"{number}")
                acknowledged.append(number)
                number += CLIENTS
            except QueueUnavailable:
                failures += 1
                await asyncio.sleep(0.02)  # a server that starts tells nobody

    async def kill_again_and_again() -> None:
        for outage in range(1, OUTAGES + 1):
            await until(_longer(acknowledged, 100 * outage))
            assert synced_valkey.pid is not None
            os.kill(synced_valkey.pid, signal.SIGKILL)
            await asyncio.to_thread(synced_valkey.wait)
            crew.start(lease=LEASE)  # finds nobody yet
            await asyncio.to_thread(synced_valkey.start)
        over.set()

    await asyncio.gather(kill_again_and_again(), *map(client, range(CLIENTS)))
    await crew.finished(seconds=300)

    assert failures
    assert len(acknowledged) >= 100 * OUTAGES
    for number in acknowledged:
        record = await own_queue.get(f"t{number % CLIENTS}", f"{number}")
        assert (record.status, record.result) == ("succeeded", number)
    assert await crew.left() == []
    assert crew.living == crew.all
    await crew.ready(*crew.all)
    await crew.stop()


async def test_workers_go_on_when_valkey_was_frozen_for_longer_than_a_lease(
    workers: WorkersFactory, own_queue: FairQueue, synced_valkey: ValkeyServer
) -> None:
    numbers = range(60)
    # Some end before it is frozen, some while it is.
    seconds = [LEASE if number % 20 == 0 else 0.02 * (number % 20) for number in numbers]
    for number in numbers:
        await enqueue(own_queue, f"t{number % 5}:{number}", "plain", number, seconds[number])
    crew = workers(own_queue, synced_valkey.url)
    crew.start(lease=LEASE)
    crew.start(lease=LEASE)
    await until(_claimed(own_queue, 15))
    assert synced_valkey.pid is not None
    os.kill(synced_valkey.pid, signal.SIGSTOP)
    await asyncio.sleep(2 * LEASE)  # what is tried is this length of time
    os.kill(synced_valkey.pid, signal.SIGCONT)
    await crew.finished()

    for number in numbers:
        record = await own_queue.get(f"t{number % 5}", f"{number}")
        assert (record.status, record.result) == ("succeeded", number)
    assert await crew.left() == []
    assert crew.living == crew.all
    await crew.stop()


async def other_ends_and_it_goes_on(crew: Workers, other: Worker, one: Worker) -> None:
    """The worker has not suffered: it is the only one left, and runs another job."""
    other.signal(signal.SIGTERM)
    assert await other.ended() == 0
    assert crew.living == [one]
    await enqueue(crew.queue, "acme:last", "work")
    await crew.finished()
    assert (await crew.queue.get("acme", "last")).status == "succeeded"
    assert await crew.left() == []
    await crew.stop()


def _logged(worker: Worker, text: str) -> Callable[[], Awaitable[bool]]:
    async def logged() -> bool:
        return text in worker.log

    return logged


def _has(queue: FairQueue, job_id: str, status: Status) -> Callable[[], Awaitable[bool]]:
    async def has() -> bool:
        return (await queue.get("acme", job_id)).status == status

    return has


def _claimed(queue: FairQueue, number: int) -> Callable[[], Awaitable[bool]]:
    async def claimed() -> bool:
        return sum(one.claims for one in await queue.backlogs()) >= number

    return claimed


def _longer(some: Sized, length: int) -> Callable[[], Awaitable[bool]]:
    async def longer() -> bool:
        return len(some) >= length

    return longer
