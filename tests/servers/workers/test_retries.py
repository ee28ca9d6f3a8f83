"""Tries, pauses between them, and where jobs end that fail."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from arq.jobs import SerializationError
from arq.worker import JobExecutionFailed, Retry, RetryJob, func

from partywall_workers import GiveUp, job
from partywall_workers.job import JITTER
from partywall_workers.records import JobRecord
from tests.servers.workers.working import DAY, Ctx, Held, Work


async def record(work: Work, job_id: str = "it") -> JobRecord:
    return await work.queue.get("acme", job_id)


async def test_a_plain_exception_is_tried_again_after_a_pause_that_grows(work: Work) -> None:
    """One try is all it has with arq itself."""

    @job(backoff=10, max_tries=4)
    async def fail(ctx: Ctx) -> None:
        raise OSError("no route")

    await work.enqueue(fail, _job_id="it")
    at = await work.now()
    for tries in range(1, 4):
        worker = work.worker(fail, at=at, max_burst_jobs=1)
        await worker.async_run()
        await worker.close()
        told = await record(work)
        assert (told.status, told.attempts, told.error) == ("retrying", tries, "OSError: no route")
        pause = (told.run_at - at) / 1000
        expected = 10 * 2 ** (tries - 1)
        assert expected * (1 - JITTER) <= pause <= expected * (1 + JITTER)
        at = told.run_at
    await work.burst(fail, at=at)
    told = await record(work)
    assert (told.status, told.attempts, told.error) == ("dead", 4, "OSError: no route")
    assert told.traceback is not None
    assert "in fail" in told.traceback
    with pytest.raises(OSError, match="no route"):
        await work.redis.job_of("acme", "it").result(timeout=1)
    ttl = await work.redis.pttl(work.redis.names.job("acme", "it"))
    assert 13 * DAY < ttl <= 14 * DAY


async def test_retry_says_itself_when_it_is_tried_again(work: Work) -> None:
    tries: list[int] = []

    async def again(ctx: Ctx) -> str:
        tries.append(ctx["job_try"])
        if len(tries) == 1:
            raise Retry(defer=timedelta(hours=2))
        if len(tries) == 2:
            raise Retry
        if len(tries) == 3:
            raise RetryJob
        return "done"

    handle = await work.enqueue(again, _job_id="it")
    at = await work.now()
    worker = work.worker(again, at=at, max_burst_jobs=1)
    await worker.async_run()
    await worker.close()
    told = await record(work)
    assert (told.status, told.run_at, told.started_at) == ("retrying", at + 7_200_000, at)
    await work.burst(again, at=told.run_at)
    assert tries == [1, 2, 3, 4]
    assert await handle.result(timeout=1) == "done"


async def test_retry_in_the_last_try_is_dead_as_arqs_callers_expect(work: Work) -> None:
    async def again(ctx: Ctx) -> None:
        raise Retry from ValueError("because")

    handle = await work.enqueue(func(again, name="again", max_tries=2).name, _job_id="it")
    worker = await work.burst(func(again, name="again", max_tries=2))
    assert (worker.jobs_retried, worker.jobs_failed) == (1, 1)
    told = await record(work)
    assert (told.status, told.attempts) == ("dead", 2)
    assert told.traceback is not None
    assert "because" in told.traceback
    with pytest.raises(JobExecutionFailed, match="max 2 retries exceeded"):
        await handle.result(timeout=1)


async def test_a_job_may_be_enqueued_at_a_later_try(work: Work) -> None:
    tries: list[int] = []

    async def again(ctx: Ctx) -> None:
        tries.append(ctx["job_try"])
        raise Retry

    await work.enqueue(again, _job_try=4, _job_id="it")
    await work.enqueue(again, _job_try=6, _job_id="late")
    await work.burst(again)
    assert tries == [4, 5]
    assert (await record(work)).status == "dead"
    late = await record(work, "late")
    assert late.error == "JobExecutionFailed: max 5 retries exceeded"
    assert (late.attempts, late.started_at) == (5, None)


async def test_a_worker_that_retries_nothing_fails_jobs_at_once(work: Work) -> None:
    async def again(ctx: Ctx) -> None:
        raise Retry

    await work.enqueue(again, _job_id="it")
    await work.burst(again, retry_jobs=False)
    assert (await record(work)).status == "failed"


async def test_a_job_that_gives_up_fails_whatever_tries_are_left(work: Work) -> None:
    async def refuse(ctx: Ctx) -> None:
        raise GiveUp("no such address")

    handle = await work.enqueue(refuse, _job_id="it")
    await work.burst(refuse)
    told = await record(work)
    assert (told.status, told.attempts, told.error) == ("failed", 1, "GiveUp: no such address")
    with pytest.raises(GiveUp, match="no such address"):
        await handle.result(timeout=1)


async def test_a_job_that_runs_too_long_says_so(work: Work) -> None:
    ended: list[str] = []

    @job(timeout=0.05, max_tries=1)
    async def slow(ctx: Ctx) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(ctx["job_id"])

    @job(max_tries=1)
    async def inner(ctx: Ctx) -> None:
        raise TimeoutError("of its own")

    handle = await work.enqueue(slow, _job_id="it")
    await work.enqueue(inner, _job_id="inner")
    await work.burst(slow, inner)
    assert len(ended) == 1
    assert (await record(work)).error == "TimeoutError: it ran longer than 0.05 s"
    assert (await record(work, "inner")).error == "TimeoutError: of its own"
    with pytest.raises(TimeoutError):
        await handle.result(timeout=1)


async def test_a_worker_has_a_timeout_and_tries_for_functions_that_declare_none(work: Work) -> None:
    async def slow(ctx: Ctx) -> None:
        await asyncio.Event().wait()

    await work.enqueue(slow, _job_id="it")
    await work.burst(slow, job_timeout=0.05, max_tries=1)
    assert (await record(work)).status == "dead"


async def test_a_dead_job_is_revived_with_all_its_tries(work: Work) -> None:
    fails = True

    @job(max_tries=2, backoff=0)
    async def flaky(ctx: Ctx, value: str) -> str:
        if fails:
            raise OSError("no route")
        return f"{value} at try {ctx['job_try']}"

    handle = await work.enqueue(flaky, "done", _job_id="it")
    await work.burst(flaky)
    assert await work.status(handle) == "dead"
    fails = False
    await work.queue.retry("acme", "it")
    assert await work.status(handle) == "queued"
    await work.burst(flaky)
    assert await handle.result(timeout=1) == "done at try 1"
    assert (await record(work)).error is None


async def test_a_job_whose_worker_was_lost_tells_so_when_its_tries_are_used_up(work: Work) -> None:
    held = Held()
    await work.enqueue("held", _job_id="it")
    for _ in range(2):
        assert len(await work.claim(lease=0)) == 1
    last = (await record(work)).started_at
    assert last is not None
    await work.burst(held.function(), max_tries=2, at=last + 5)
    assert not held.began
    told = await record(work)
    # The start that found this out was no try.
    assert (told.status, told.attempts, told.started_at) == ("dead", 2, last)
    assert told.error == (
        "JobExecutionFailed: max 2 retries exceeded; the worker of its last one died, or lost its "
        "lease"
    )


async def test_a_result_that_json_cannot_carry_fails_the_job_and_is_told(work: Work) -> None:
    ran: list[str] = []

    async def odd(ctx: Ctx) -> Any:
        ran.append(ctx["job_id"])
        return {"when": [object]}

    async def returns_an_error(ctx: Ctx) -> Any:
        return ValueError("returned, not raised")

    first, second = await work.enqueue(odd, _job_id="it"), await work.enqueue(returns_an_error)
    worker = await work.burst(odd, returns_an_error)
    assert len(ran) == 1
    assert worker.jobs_failed == 2
    told = await record(work)
    assert told.status == "failed"
    assert told.error is not None
    assert told.error.startswith("unable to serialize result: result.when[0]: expected what JSON")
    for handle in (first, second):
        with pytest.raises(SerializationError, match="unable to serialize result"):
            await handle.result(timeout=1)


async def test_a_job_may_do_as_it_likes_with_its_arguments(work: Work) -> None:
    ran: list[str] = []

    async def changes(ctx: Ctx, given: dict[str, Any]) -> str:
        ran.append(ctx["job_id"])
        given["connection"] = object()
        return "done"

    @job(max_tries=1)
    async def changes_and_fails(ctx: Ctx, given: dict[str, Any]) -> None:
        given["connection"] = object()
        raise OSError("no route")

    handle = await work.enqueue(changes, {"a": 1})
    other = await work.enqueue(changes_and_fails, {"a": 1}, _job_id="it")
    await work.burst(changes, changes_and_fails)
    assert len(ran) == 1
    told = await handle.result_info()
    assert told is not None
    assert (told.result, list(told.args)) == ("done", [{"a": 1}])
    assert (await record(work)).error == "OSError: no route"
    with pytest.raises(OSError, match="no route"):
        await other.result(timeout=1)


async def test_a_function_that_no_worker_has_is_dead_with_the_reason(work: Work) -> None:
    handle = await work.enqueue("gone", _job_id="it")
    await work.burst(Held().function())
    told = await record(work)
    assert told.status == "dead"
    assert told.error is not None
    assert "function 'gone' not found" in told.error
    with pytest.raises(JobExecutionFailed, match="not found"):
        await handle.result(timeout=1)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80\x04no json",
        b"[]",
        b"{}",
        json.dumps({"t": None, "f": ["held"], "a": [], "k": {}, "et": 1}).encode(),
        json.dumps({"t": None, "f": "held", "a": 5, "k": {}, "et": 1}).encode(),
        json.dumps({"t": None, "f": "held", "a": [], "k": [], "et": 1}).encode(),
        json.dumps({"t": None, "f": "held", "a": [], "k": {}, "et": "today"}).encode(),
    ],
)
async def test_a_payload_that_cannot_be_read_is_dead_and_troubles_nobody(
    work: Work, payload: bytes
) -> None:
    held = Held()
    held.end()
    await work.enqueue("held", _job_id="it")
    await work.redis.set(work.redis.names.payload("acme", "it"), payload)
    other = await work.enqueue("held")
    worker = await work.burst(held.function(), max_jobs=1)
    told = await record(work)
    assert told.status == "dead"
    assert told.error is not None
    assert "erializ" in told.error or "expected" in told.error
    assert await other.result(timeout=1) == "done"
    assert (worker.jobs_failed, worker.jobs_complete) == (1, 1)


async def test_a_job_whose_payload_is_gone_is_dead_and_troubles_nobody(work: Work) -> None:
    await work.enqueue("held", _job_id="it")
    await work.redis.delete(work.redis.names.payload("acme", "it"))
    await work.burst(Held().function())
    told = await record(work)
    assert told.status == "dead"
    assert told.error == "JobExecutionFailed: its arguments are not in Redis any more"
