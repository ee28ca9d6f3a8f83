"""Workers that are told to stop, or closed, while jobs run."""

import asyncio
import signal

import pytest

from tests.servers.workers.working import Ctx, Held, Work


async def test_a_worker_told_to_stop_lets_its_jobs_end_and_claims_no_others(work: Work) -> None:
    held = Held()
    first, second = await work.enqueue("held"), await work.enqueue("held")
    worker = work.worker(held.function(), burst=False, max_jobs=1)
    running = asyncio.create_task(worker.async_run())
    await held.running()
    worker.handle_sig(signal.SIGTERM)
    held.end()
    await running
    await worker.close()
    assert sorted([await work.status(first), await work.status(second)]) == ["queued", "succeeded"]
    assert len(held.began) == 1


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_job_that_runs_too_long_is_handed_back_and_that_try_does_not_count(
    work: Work, signals: int
) -> None:
    held = Held()
    handle = await work.enqueue("held")
    for _ in range(3):
        worker = work.worker(
            held.function(), burst=False, job_completion_wait=0 if signals == 1 else 600
        )
        running = asyncio.create_task(worker.async_run())
        await held.running(len(held.began) + 1)
        for _ in range(signals):
            worker.handle_sig(signal.SIGTERM)
        await running
        await worker.close()
        assert await work.status(handle) == "queued"
    held.end()
    await work.burst(held.function())
    assert await handle.result(timeout=1) == "done"
    assert [ctx["job_try"] for ctx in held.began] == [1] * 4


async def test_a_job_that_is_handed_back_may_clean_up(work: Work) -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    async def careful(ctx: Ctx) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await ctx["redis"].ping()
            cleaned.set()

    handle = await work.enqueue(careful)
    worker = work.worker(careful, burst=False, job_completion_wait=0)
    running = asyncio.create_task(worker.async_run())
    await begun.wait()
    worker.handle_sig(signal.SIGTERM)
    await running
    await worker.close()
    assert cleaned.is_set()
    assert await work.status(handle) == "queued"


async def test_a_worker_that_retries_nothing_cancels_what_it_cannot_end(work: Work) -> None:
    held = Held()
    handle = await work.enqueue("held")
    worker = work.worker(held.function(), burst=False, job_completion_wait=0, retry_jobs=False)
    running = asyncio.create_task(worker.async_run())
    await held.running()
    worker.handle_sig(signal.SIGTERM)
    await running
    await worker.close()
    assert await work.status(handle) == "cancelled"


@pytest.mark.parametrize("busy", [True, False])
async def test_closing_a_worker_while_it_runs_ends_it(work: Work, busy: bool) -> None:
    held = Held()
    async with asyncio.timeout(20):
        worker = work.worker(held.function(), burst=False)
        running = asyncio.create_task(worker.async_run())
        if busy:
            handle = await work.enqueue("held")
            await held.running()
        else:
            await work.seen()
        await worker.close()
        await running
    if busy:
        assert await work.status(handle) == "queued"
    assert await work.queue.workers() == 0


async def test_closing_a_worker_that_still_starts_ends_it(work: Work) -> None:
    starting = asyncio.Event()

    async def endless(ctx: Ctx) -> None:
        starting.set()
        await asyncio.Event().wait()

    worker = work.worker(Held().function(), burst=False, on_startup=endless)
    running = asyncio.create_task(worker.async_run())
    await starting.wait()
    await worker.close()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_worker_may_be_closed_before_it_ran_and_twice(work: Work) -> None:
    worker = work.worker(Held().function())
    await worker.close()
    await worker.close()


async def test_a_worker_that_stops_wakes_another_for_what_it_leaves(work: Work) -> None:
    held = Held()
    held.end()
    async with work.running(held.function()) as staying:
        leaving = work.worker(held.function(), burst=False)
        running = asyncio.create_task(leaving.async_run())
        await work.seen(2)
        leaving.handle_sig(signal.SIGTERM)
        handle = await work.enqueue("held")
        await running
        await leaving.close()
        assert await handle.result(timeout=20, poll_delay=0.01) == "done"
        assert staying.jobs_complete == 1


async def test_on_stop_is_told_the_signal(work: Work) -> None:
    told: list[int] = []
    worker = work.worker(Held().function(), burst=False)
    worker.on_stop = told.append
    running = asyncio.create_task(worker.async_run())
    await work.seen()
    worker.handle_sig(signal.SIGINT)
    await running
    await worker.close()
    assert told == [signal.SIGINT]
