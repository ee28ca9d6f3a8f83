"""arq's own handles of a job agree with its record in each of its states."""

import asyncio

import pytest
from arq.jobs import Job, JobStatus, ResultNotFound

from partywall_workers.serial import dumps
from tests.engine.jobs.check import check, read
from tests.engine.jobs.driver import LEASE, Jobs, job_of

STATUS = {
    "queued": JobStatus.queued,
    "retrying": JobStatus.deferred,
    "deferred": JobStatus.deferred,
    "running": JobStatus.in_progress,
    "succeeded": JobStatus.complete,
    "failed": JobStatus.complete,
    "dead": JobStatus.complete,
    "cancelled": JobStatus.complete,
}
"""arq's word for each of ours; a retry waits for its time."""


def result(value: object, *, success: bool = True) -> bytes:
    """As a worker writes it."""
    return dumps(
        {"t": 1, "f": "work", "a": (1,), "k": {"x": 2}, "et": 0, "s": success, "r": value}
        | {"st": 1, "ft": 2, "q": "q", "id": "i"}
    )


async def bring(jobs: Jobs, status: str) -> Job:
    """A job of this status; arq's handle of it."""
    later = {"defer_by": 600} if status == "deferred" else {}
    await jobs.add("acme", "it", args=[1], kwargs={"x": 2}, **later)
    if status in ("queued", "deferred"):
        return job_of(jobs, "acme", "it")
    claimed = await jobs.claim()
    if status == "retrying":
        await jobs.end(claimed, "retry", delay=600_000, ran=True)
    elif status == "succeeded":
        await jobs.end(claimed, result=result([3]))
    elif status != "running":
        error = asyncio.CancelledError() if status == "cancelled" else ValueError("no")
        await jobs.end(claimed, status, result=result(error, success=False), error="ValueError: no")
    return job_of(jobs, "acme", "it")


@pytest.mark.parametrize("status", STATUS)
async def test_status_and_info_of_arq_agree_with_the_record(jobs: Jobs, status: str):
    handle = await bring(jobs, status)
    assert await jobs.status("acme", "it") == status
    assert await handle.status() == STATUS[status]
    info = await handle.info()
    assert info is not None
    assert (info.function, list(info.args), info.kwargs) == ("work", [1], {"x": 2})
    assert (info.score is None) == (STATUS[status] == JobStatus.complete)
    await check(jobs.queue, jobs.now)


async def test_the_handle_that_enqueue_job_gives_is_arqs(jobs: Jobs):
    handle = await jobs.redis.enqueue_job("work", 1, x=2, _tenant="acme", _job_id="it")
    assert handle is not None
    assert handle.job_id == f"{jobs.queue.name}:acme:it"
    assert await handle.status() == JobStatus.queued
    await jobs.end(await jobs.claim(), result=result("done"))
    assert await handle.result(timeout=5) == "done"


async def test_a_handle_raises_what_the_job_raised(jobs: Jobs):
    for status in ("failed", "dead"):
        handle = await bring(jobs, status)
        with pytest.raises(ValueError, match="no"):
            await handle.result(timeout=5)
        await jobs.clear()


async def test_a_job_cancelled_while_it_waits_is_cancelled_for_its_handle(jobs: Jobs):
    handle = await bring(jobs, "deferred")
    await jobs.queue.cancel("acme", "it")
    assert await handle.status() == JobStatus.complete
    with pytest.raises(asyncio.CancelledError):
        await handle.result(timeout=5)
    info = await handle.result_info()
    assert info is not None
    assert (info.success, info.function) == (False, "work")


async def test_whoever_waits_for_a_purged_job_is_told_that_it_is_gone(jobs: Jobs):
    handle = await bring(jobs, "queued")
    await jobs.queue.purge("acme")
    with pytest.raises(ResultNotFound):
        await handle.result(timeout=5)
    assert await jobs.status("acme", "it") == "cancelled"


@pytest.mark.parametrize("status", ["queued", "deferred", "retrying"])
async def test_abort_of_a_waiting_job_cancels_it(jobs: Jobs, status: str):
    """A worker looks at arq's flags, and cancels what it finds there."""
    handle = await bring(jobs, status)
    aborting = asyncio.create_task(handle.abort(timeout=20, poll_delay=0.01))
    await flagged(jobs)
    assert await jobs.queue.cancel_waiting("acme", "it") == "cancelled"
    assert await aborting
    assert await jobs.status("acme", "it") == "cancelled"
    state = await check(jobs.queue, jobs.now)
    assert not state.abort


async def test_abort_of_a_running_job_waits_for_its_worker(jobs: Jobs):
    await jobs.add("acme", "it")
    (claimed,) = await jobs.claim()
    handle = job_of(jobs, "acme", "it")
    aborting = asyncio.create_task(handle.abort(timeout=20, poll_delay=0.01))
    await flagged(jobs)
    assert await jobs.queue.cancel_waiting("acme", "it") == "asked"
    assert await jobs.scripts.renew(LEASE, [(claimed.ref, claimed.fence)]) == ["cancel"]
    cancelled = result(asyncio.CancelledError(), success=False)
    await jobs.end(claimed, "cancelled", result=cancelled)
    assert await aborting
    assert await jobs.status("acme", "it") == "cancelled"
    state = await check(jobs.queue, jobs.now)
    assert not state.abort


@pytest.mark.parametrize("status", ["succeeded", "cancelled"])
async def test_abort_of_a_finished_job_changes_nothing(jobs: Jobs, status: str):
    handle = await bring(jobs, status)
    assert await handle.abort(timeout=20) == (status == "cancelled")
    assert await jobs.queue.cancel_waiting("acme", "it") == "finished"
    assert await jobs.status("acme", "it") == status
    assert not (await read(jobs.queue)).abort


async def test_abort_of_an_unknown_job_poisons_nothing(jobs: Jobs):
    handle = job_of(jobs, "acme", "it")
    assert not await handle.abort(timeout=20)
    assert await jobs.queue.cancel_waiting("acme", "it") == "unknown"
    assert not (await read(jobs.queue)).abort
    await jobs.add("acme", "it")
    assert len(await jobs.claim()) == 1


async def flagged(jobs: Jobs) -> None:
    """When the handle has asked."""
    async with asyncio.timeout(20):
        while not (await read(jobs.queue)).abort:
            pass
