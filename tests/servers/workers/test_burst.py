"""Workers that end when nothing is left, and what arq tells of workers."""

import asyncio

import pytest
from arq.connections import RedisSettings
from arq.jobs import Job
from arq.worker import FailedJobs, Retry, async_check_health, func

from partywall_workers import JobPolicy, job
from tests.servers.workers.working import Ctx, Held, Work


async def noop(ctx: Ctx, *args: object) -> str:
    return "done"


@job(max_tries=1)
async def fail(ctx: Ctx) -> None:
    raise OSError("no route")


async def test_a_burst_runs_all_jobs_of_all_tenants_and_ends(work: Work) -> None:
    handles = [await work.enqueue(noop, _tenant=f"t{number % 7}") for number in range(50)]
    worker = await work.burst(noop, max_jobs=3)
    assert [await one.result(timeout=1) for one in handles] == ["done"] * 50
    assert (worker.jobs_complete, worker.job_counter, worker.tasks) == (50, 0, {})
    assert await work.redis.zcard(work.queue.name) == 0


async def test_a_burst_waits_for_what_is_deferred_a_little(work: Work) -> None:
    handle = await work.enqueue(noop, _defer_by=0.2)
    await work.burst(noop)
    assert await handle.result(timeout=1) == "done"


async def test_a_burst_runs_what_its_jobs_enqueue(work: Work) -> None:
    async def again(ctx: Ctx, left: int) -> None:
        if left:
            await ctx["redis"].enqueue_job(again, left - 1)

    await work.enqueue(again, 4)
    assert (await work.burst(again, max_jobs=1)).jobs_complete == 5


async def test_a_burst_leaves_a_paused_tenants_jobs_and_other_lanes(work: Work) -> None:
    paused = await work.enqueue(noop, _tenant="globex")
    await work.queue.pause("globex")
    await work.queue.set_policy("initech", JobPolicy(lane="dedicated"))
    elsewhere = await work.enqueue(noop, _tenant="initech")
    await work.enqueue(noop)
    assert (await work.burst(noop)).jobs_complete == 1
    assert [await work.status(one) for one in (paused, elsewhere)] == ["queued", "queued"]
    assert (await work.burst(noop, lanes=("dedicated",))).jobs_complete == 1


@pytest.mark.parametrize(("most", "left"), [(0, 5), (1, 4), (3, 2), (9, 0)])
async def test_a_burst_runs_no_more_jobs_than_it_may(work: Work, most: int, left: int) -> None:
    for _ in range(5):
        await work.enqueue(noop)
    await work.burst(noop, max_burst_jobs=most)
    assert await work.redis.zcard(work.queue.name) == left


async def test_no_more_jobs_run_at_once_than_a_worker_may_run(work: Work) -> None:
    running, most = 0, 0

    async def count(ctx: Ctx) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    for _ in range(30):
        await work.enqueue(count)
    assert (await work.burst(count, max_jobs=4)).jobs_complete == 30
    assert 1 <= most <= 4


async def test_run_check_tells_how_many_jobs_succeeded(work: Work) -> None:
    for _ in range(3):
        await work.enqueue(noop)
    worker = work.worker(noop)
    assert await worker.run_check(max_burst_jobs=2) == 2
    await worker.close()


async def test_run_check_raises_for_jobs_that_failed(work: Work) -> None:
    await work.enqueue(noop)
    await work.enqueue(fail)
    worker = work.worker(noop, fail)
    with pytest.raises(FailedJobs) as failed:
        await worker.run_check()
    await worker.close()
    assert failed.value.count == 1
    assert [repr(one.result) for one in failed.value.job_results] == ["OSError('no route')"]


async def test_run_check_may_retry_nothing(work: Work) -> None:
    async def again(ctx: Ctx) -> None:
        raise Retry

    await work.enqueue(again)
    worker = work.worker(again)
    with pytest.raises(FailedJobs):
        await worker.run_check(retry_jobs=False)
    await worker.close()


@pytest.mark.filterwarnings("ignore:Call to deprecated close")  # arq's own
async def test_a_worker_tells_of_its_health_as_arqs_does(work: Work) -> None:
    held = Held()
    await work.enqueue("held")
    await work.enqueue("held", _defer_by=3600)
    async with work.running(held.function(), health_check_interval=20) as worker:
        await held.running()
        key = f"{work.queue.name}:health-check"
        assert worker.health_check_key == key
        told = await work.redis.get(key)
        assert told is not None
        assert b"j_complete=0 j_failed=0 j_retried=0 j_ongoing=0 queued=2" in told
        assert 20_000 < await work.redis.pttl(key) <= 21_000
        settings = RedisSettings.from_dsn(work.url)
        assert await async_check_health(settings, queue_name=work.queue.name) == 0
        held.end()
    assert await work.redis.get(key) is None


async def test_a_worker_says_what_it_did_as_arqs_does(work: Work) -> None:
    await work.enqueue(noop)
    await work.enqueue(fail)
    worker = await work.burst(noop, fail)
    assert repr(worker) == "<Worker j_complete=1 j_failed=1 j_retried=0 j_ongoing=0>"


@pytest.mark.parametrize("how", ["worker", "func", "job"])
async def test_results_are_kept_as_long_as_is_said(work: Work, how: str) -> None:
    async def keeps(ctx: Ctx) -> str:
        return "kept"

    function = {
        "worker": keeps,
        "func": func(keeps, keep_result=60),
        "job": job(keep_result=60)(keeps),
    }[how]
    handle = await work.enqueue(keeps)
    await work.burst(function, keep_result=60 if how == "worker" else 999)
    for key in (f"arq:result:{handle.job_id}", record_key(work, handle)):
        assert 50_000 < await work.redis.pttl(key) <= 60_000


def record_key(work: Work, handle: Job) -> str:
    return work.redis.names.job("acme", handle.job_id.rpartition(":")[2])


async def test_results_may_be_kept_for_ever_or_not_at_all(work: Work) -> None:
    async def keeps(ctx: Ctx) -> str:
        return "kept"

    for_ever = func(keeps, name="for_ever", keep_result_forever=True)
    nothing = func(keeps, name="nothing", keep_result=0)
    kept, gone = await work.enqueue("for_ever"), await work.enqueue("nothing")
    await work.burst(for_ever, nothing)
    year = 365 * 86_400_000
    assert await work.redis.pttl(f"arq:result:{kept.job_id}") > 50 * year
    assert await kept.result(timeout=1) == "kept"
    assert await gone.result_info() is None
    assert not await work.redis.exists(record_key(work, gone), f"arq:job:{gone.job_id}")
    assert await work.enqueue("nothing", _job_id=gone.job_id.rpartition(":")[2])
