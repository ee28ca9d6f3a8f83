"""arq's cron jobs, which are the tenant `_cron`'s."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from arq import cron
from arq.jobs import JobStatus
from redis.exceptions import ConnectionError as RedisGone

from partywall.context import current_tenant
from partywall_workers.errors import UnknownFunction
from partywall_workers.policy import SYSTEM_LANE, SYSTEM_POLICY, SYSTEM_TENANT
from partywall_workers.worker import FairWorker
from tests.servers.workers.working import Ctx, Held, Work

NEVER: dict[str, Any] = {"month": 1, "day": 1, "hour": 0, "minute": 0}


def at_startup(function: Any, **options: Any) -> Any:
    """Due at once, and then not before the New Year: two workers may see it at one instant."""
    made = cron(function, name="tidy", **(NEVER | options))
    made.next_run = datetime.now(UTC)
    return made


async def test_a_cron_job_runs_at_startup_as_the_cron_tenant(work: Work) -> None:
    seen: list[Ctx] = []

    async def tidy(ctx: Ctx) -> None:
        assert current_tenant().id == ctx["tenant"] == "_cron"
        seen.append(ctx)

    worker = await work.burst(cron_jobs=[cron(tidy, run_at_startup=True, **NEVER)])
    assert [ctx["job_try"] for ctx in seen] == [1]
    assert (worker.jobs_complete, worker.jobs_failed) == (1, 0)


async def test_a_cron_job_runs_at_its_time(work: Work) -> None:
    held = Held()
    held.end()
    async with work.running(cron_jobs=[cron(held.function(), second=set(range(60)))]):
        await held.running(2)
    # Their ids name the time; on a busy machine they may have been enqueued a little after it.
    first, second = (int(ctx["job_id"].rpartition(":")[2]) for ctx in held.began[:2])
    assert second - first == 1000
    assert first % 1000 == 123


async def test_two_workers_run_a_unique_cron_job_once(work: Work) -> None:
    held = Held()
    now = datetime.now(UTC)

    async def another(ctx: Ctx) -> None:
        pass

    def worker() -> FairWorker:
        made = cron(held.function(), name="tidy", **NEVER)
        made.next_run = now
        return work.worker(another, cron_jobs=[made], burst=False)

    workers = [worker(), worker()]
    running = [asyncio.create_task(one.async_run()) for one in workers]
    await held.running()
    held.end()
    handle = await work.enqueue(another)
    await handle.result(timeout=20, poll_delay=0.01)
    for one, task in zip(workers, running, strict=True):
        await one.close()
        await task
    assert len(held.began) == 1
    assert sum(one.jobs_complete for one in workers) == 2


async def test_a_cron_job_that_keeps_no_result_is_not_run_by_a_slower_worker(work: Work) -> None:
    ran: list[str] = []

    async def tidy(ctx: Ctx) -> str:
        ran.append(ctx["job_id"])
        return "kept by nobody"

    due = at_startup(tidy)
    first_run = due.next_run
    await work.burst(cron_jobs=[due])
    due.next_run = first_run  # as a worker sees it whose clock, or whose loop, is behind
    await work.burst(cron_jobs=[due])
    assert len(ran) == 1
    handle = work.redis.job_of("_cron", ran[0].partition("_cron:")[2])
    assert await handle.status() == JobStatus.not_found
    assert await handle.result_info() is None


async def test_a_cron_job_may_keep_its_result(work: Work) -> None:
    async def tidy(ctx: Ctx) -> str:
        return "kept"

    await work.burst(cron_jobs=[at_startup(tidy, keep_result=60, job_id="tidying")])
    assert await work.redis.job_of("_cron", "tidying").result(timeout=1) == "kept"


async def test_a_cron_job_that_fails_is_not_tried_again(work: Work) -> None:
    async def tidy(ctx: Ctx) -> None:
        raise OSError("disk full")

    worker = await work.burst(cron_jobs=[at_startup(tidy, job_id="tidying")])
    assert (worker.jobs_failed, worker.jobs_retried) == (1, 0)
    assert (await work.queue.get("_cron", "tidying")).error == "OSError: disk full"


async def test_no_cron_job_is_lost_while_redis_is_away(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    async def tidy(ctx: Ctx) -> None:
        ran.append(ctx["job_id"])

    due = at_startup(tidy)
    worker = work.worker(cron_jobs=[due])
    enqueue, failures = worker.pool.queue_job, 2

    async def flaky(job: Any) -> Any:
        nonlocal failures
        if failures:
            failures -= 1
            raise RedisGone("gone")
        return await enqueue(job)

    monkeypatch.setattr(worker.pool, "queue_job", flaky)
    await worker.async_run()
    await worker.close()
    assert len(ran) == 1


async def test_a_worker_of_cron_jobs_alone_makes_no_function_unknown(work: Work) -> None:
    async def tidy(ctx: Ctx) -> None:
        pass

    async def other(ctx: Ctx) -> str:
        return "done"

    await work.burst(cron_jobs=[at_startup(tidy)])
    assert await work.queue.functions() == frozenset()
    handle = await work.enqueue(other)
    await work.burst(other, cron_jobs=[at_startup(tidy)])
    assert await handle.result(timeout=1) == "done"
    assert await work.queue.functions() == {other.__qualname__}


async def test_a_function_of_the_system_lane_is_no_tenants_and_makes_none_unknown(
    work: Work,
) -> None:
    async def notify(ctx: Ctx) -> str:
        return "told"

    async def other(ctx: Ctx) -> str:
        return "done"

    await work.queue.set_policy(SYSTEM_TENANT, SYSTEM_POLICY)
    await work.burst(notify, lanes=(SYSTEM_LANE,))
    assert await work.queue.functions() == frozenset()
    waiting = await work.enqueue(other)  # of a worker that has yet to start
    await work.enqueue(notify, _job_id="lost")  # as any other name that nobody knows
    await work.burst(other)
    assert await waiting.result(timeout=1) == "done"
    assert (await work.queue.get("acme", "lost")).status == "dead"
    with pytest.raises(UnknownFunction):
        await work.enqueue(notify)
    handle = await work.enqueue(notify, _tenant=SYSTEM_TENANT)
    await work.burst(notify, lanes=(SYSTEM_LANE,))
    assert await handle.result(timeout=1) == "told"


async def test_a_cron_job_of_later_is_left_for_then(work: Work) -> None:
    async def tidy(ctx: Ctx) -> None:
        raise AssertionError("too early")

    made = cron(tidy, **NEVER)
    made.next_run = datetime.now(UTC) + timedelta(hours=1)
    worker = await work.burst(cron_jobs=[made])
    assert worker.jobs_complete == worker.jobs_failed == 0
