"""arq's own handles of jobs, `arq.jobs.Job`, on fair queues."""

import asyncio
from datetime import timedelta

import pytest
from arq.jobs import Job, JobStatus, ResultNotFound
from arq.worker import JobExecutionFailed

from partywall_workers import GiveUp, RemoteFailure, job
from tests.servers.workers.working import Ctx, Held, Work

SOON = 0.01


async def add(ctx: Ctx, left: int, *, right: int) -> int:
    return left + right


@job(max_tries=1)
async def fail(ctx: Ctx, text: str) -> None:
    raise LookupError(text, 7)


async def test_a_handle_tells_of_a_job_from_queued_to_complete(work: Work) -> None:
    held = Held()
    handle = await work.enqueue("held", 1, _job_id="one")
    assert handle.job_id == f"{work.queue.name}:acme:one"
    assert await handle.status() == JobStatus.queued
    info = await handle.info()
    assert info is not None
    assert (info.function, list(info.args), info.kwargs) == ("held", [1], {})
    assert info.score is not None
    assert await handle.result_info() is None
    async with work.running(held.function()):
        await held.running()
        assert await handle.status() == JobStatus.in_progress
        assert (await handle.info()) is not None
        held.end()
        assert await handle.result(timeout=20, poll_delay=SOON) == "done"
    assert await handle.status() == JobStatus.complete
    told = await handle.result_info()
    assert told is not None
    assert (told.success, told.result, told.job_try, told.score) == (True, "done", 1, None)
    assert (told.queue_name, told.job_id) == (work.queue.name, handle.job_id)
    assert told.enqueue_time <= told.start_time <= told.finish_time


async def test_a_handle_made_anew_from_its_id_tells_the_same(work: Work) -> None:
    made = await work.enqueue(add, 1, right=2)
    await work.burst(add)
    again = work.redis.job_of("acme", made.job_id.rpartition(":")[2])
    by_hand = Job(
        made.job_id,
        work.redis,
        _queue_name=work.queue.name,
        _deserializer=work.redis.job_deserializer,
    )
    assert await again.result(timeout=1) == await by_hand.result(timeout=1) == 3


async def test_a_deferred_job_is_deferred_and_not_run(work: Work) -> None:
    handle = await work.enqueue(add, 1, right=2, _defer_by=timedelta(hours=1))
    assert await handle.status() == JobStatus.deferred
    assert await work.status(handle) == "deferred"
    assert await work.claim(10) == []


async def test_a_failed_job_raises_what_it_raised(work: Work) -> None:
    handle = await work.enqueue(fail, "no such thing")
    worker = await work.burst(fail)
    with pytest.raises(LookupError) as raised:
        await handle.result(timeout=1)
    assert raised.value.args == ("no such thing", 7)
    assert await handle.status() == JobStatus.complete
    told = await handle.result_info()
    assert told is not None
    assert not told.success
    assert worker.jobs_failed == 1


async def test_a_job_that_nobody_queued_is_not_found(work: Work) -> None:
    handle = work.redis.job_of("acme", "never")
    assert await handle.status() == JobStatus.not_found
    assert await handle.info() is None
    with pytest.raises(ResultNotFound):
        await handle.result(timeout=1)


async def test_a_result_that_takes_too_long_is_a_timeout(work: Work) -> None:
    handle = await work.enqueue(add, 1, right=2)
    with pytest.raises(TimeoutError):
        await handle.result(timeout=0.01, poll_delay=SOON)


async def test_aborting_a_running_job_ends_it_and_lets_it_clean_up(work: Work) -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def careful(ctx: Ctx) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.6)  # longer than from one look for aborts to the next
            cleaned.set()

    handle = await work.enqueue(careful)
    async with work.running(careful):
        await begun.wait()
        assert await handle.abort(timeout=20, poll_delay=SOON)
    assert cleaned.is_set()
    assert await work.status(handle) == "cancelled"
    with pytest.raises(asyncio.CancelledError):
        await handle.result(timeout=1)


@pytest.mark.parametrize("delay", [None, 3600])
async def test_aborting_a_job_that_waits_keeps_it_from_running(
    work: Work, delay: int | None
) -> None:
    held = Held()
    handle = await work.enqueue("held", _defer_by=delay)
    aborting = asyncio.create_task(handle.abort(timeout=20, poll_delay=SOON))
    while not await work.redis.zscore("arq:abort", handle.job_id):  # noqa: ASYNC110 - arq tells nothing
        await asyncio.sleep(SOON)
    await work.burst(held.function())
    assert await aborting
    assert not held.began
    assert await work.status(handle) == "cancelled"


async def test_aborting_a_finished_job_changes_nothing(work: Work) -> None:
    handle = await work.enqueue(add, 1, right=2)
    await work.burst(add)
    assert not await handle.abort(timeout=1)
    await work.burst(add)
    assert await work.redis.zscore("arq:abort", handle.job_id) is None
    assert await handle.result(timeout=1) == 3


async def test_an_unwanted_abort_of_nobodys_job_is_left_to_its_own_queue(work: Work) -> None:
    await work.redis.zadd("arq:abort", {f"other:{work.queue.name}:x": 1})
    await work.enqueue(add, 1, right=2)
    worker = await work.burst(add)
    assert worker.jobs_complete == 1
    assert await work.redis.zrem("arq:abort", f"other:{work.queue.name}:x") == 1


async def test_a_worker_that_heeds_no_aborts_lets_the_job_end(work: Work) -> None:
    held = Held()
    handle = await work.enqueue("held")
    async with work.running(held.function(), allow_abort_jobs=False):
        await held.running()
        with pytest.raises(TimeoutError):
            await handle.abort(timeout=0.5, poll_delay=SOON)
        held.end()
        assert await handle.result(timeout=20, poll_delay=SOON) == "done"


async def test_queued_jobs_and_all_results_are_told(work: Work) -> None:
    await work.enqueue(add, 1, right=2, _job_id="a")
    await work.enqueue(add, 3, right=4, _job_id="b", _defer_by=3600)
    queued = await work.redis.queued_jobs()
    assert {(one.job_id, tuple(one.args)) for one in queued} == {
        (f"{work.queue.name}:acme:a", (1,)),
        (f"{work.queue.name}:acme:b", (3,)),
    }
    async with work.running(add):
        await work.redis.job_of("acme", "a").result(timeout=20, poll_delay=SOON)
    results = await work.redis.all_job_results()
    assert [(one.job_id, one.result) for one in results] == [(f"{work.queue.name}:acme:a", 3)]


async def test_an_exception_of_an_unknown_class_is_told_by_its_text(work: Work) -> None:
    class Odd(Exception):
        pass

    class Picky(GiveUp):
        def __init__(self, *, code: int) -> None:
            super().__init__(f"code {code}")

    @job(max_tries=1)
    async def odd(ctx: Ctx) -> None:
        raise Odd("very", object)

    @job(max_tries=1)
    async def picky(ctx: Ctx) -> None:
        raise Picky(code=3)

    first, second = await work.enqueue(odd), await work.enqueue(picky)
    await work.burst(odd, picky)
    with pytest.raises(RemoteFailure, match=r"Odd: .*very"):
        await first.result(timeout=1)
    with pytest.raises(RemoteFailure, match="Picky: code 3"):
        await second.result(timeout=1)


async def test_jobs_of_one_id_do_not_meet(work: Work) -> None:
    handle = await work.enqueue(add, 1, right=2, _job_id="same")
    assert await work.redis.enqueue_job(add, 1, right=9, _job_id="same", _tenant="acme") is None
    other = await work.enqueue(add, 1, right=4, _job_id="same", _tenant="globex")
    await work.burst(add)
    assert [await one.result(timeout=1) for one in (handle, other)] == [3, 5]
    assert await work.redis.enqueue_job(add, 1, right=9, _job_id="same", _tenant="acme") is None


async def test_what_expired_before_it_began_is_never_run(work: Work) -> None:
    handle = await work.enqueue(add, 1, right=2, _expires=60)
    await work.burst(add, at=await work.now() + 61_000)
    with pytest.raises(JobExecutionFailed, match="job expired"):
        await handle.result(timeout=1)
    assert await work.status(handle) == "failed"
