"""What `@job` declares, and what cannot be declared or enqueued."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from arq.worker import func
from hypothesis import given
from hypothesis import strategies as st

from partywall_workers import InvalidJob, JobOptions, NotJson, TooLarge, UnknownFunction, job
from partywall_workers.job import JITTER, options_of, refusal_pause
from partywall_workers.redis import MAX_PAYLOAD
from tests.servers.workers.working import Ctx, Held, Work


@job(name="mail.send", max_tries=7, timeout=timedelta(minutes=2), keep_result=5, cost=3)
async def send(ctx: Ctx, address: str) -> str:
    return f"sent to {address}"


async def test_a_declared_function_stays_what_it_is() -> None:
    assert await send({}, "x@example.org") == "sent to x@example.org"
    assert send.__name__ == "send"


async def test_a_bare_declaration_declares_the_defaults() -> None:
    @job
    async def bare(ctx: Ctx) -> None: ...

    assert options_of(bare) == JobOptions()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"quota": {"emails": 0}}, "quota.emails"),
        ({"quota": {"emails": True}}, "quota.emails"),
        ({"quota": {"emails": 1.5}}, "quota.emails"),
        ({"quota": {"": 1}}, "quota"),
        ({"quota": ["a"]}, "quota"),
        ({"quota": "emails"}, "quota"),
        ({"on_refusal": "shrug"}, "on_refusal"),
        ({"max_tries": 0}, "max_tries"),
        ({"max_tries": True}, "max_tries"),
        ({"max_tries": 1.5}, "max_tries"),
        ({"backoff": -1}, "backoff"),
        ({"backoff": float("nan")}, "backoff"),
        ({"backoff": "1"}, "backoff"),
        ({"max_backoff": float("inf")}, "max_backoff"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"keep_result": -1}, "keep_result"),
        ({"keep_result": timedelta(days=-1)}, "keep_result"),
        ({"cost": 0}, "cost"),
        ({"cost": float("inf")}, "cost"),
        ({"cost": float("nan")}, "cost"),
        ({"cost": "much"}, "cost"),
    ],
)
def test_an_option_that_cannot_be_is_refused_where_it_is_given(
    options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidJob) as refused:
        job(**options)
    assert refused.value.field == field
    assert "expected" in refused.value.reason


def test_only_a_coroutine_function_can_be_a_job() -> None:
    def plain(ctx: Ctx) -> None: ...

    with pytest.raises(InvalidJob, match="expected a coroutine function; got <function"):
        job(plain)


@given(
    attempts=st.integers(1, 10_000),
    backoff=st.floats(0, 1e6),
    longest=st.floats(0, 1e6),
)
def test_pauses_double_within_their_jitter_up_to_the_longest(
    attempts: int, backoff: float, longest: float
) -> None:
    pause = JobOptions(backoff=backoff, max_backoff=longest).pause(attempts)
    plain = min(backoff * 2.0 ** min(attempts - 1, 60), longest)
    assert plain * (1 - JITTER) <= pause <= plain * (1 + JITTER)


def test_what_failed_together_comes_back_apart() -> None:
    assert len({JobOptions().pause(3) for _ in range(20)}) > 10


def test_pauses_after_refusals_grow_to_ten_minutes() -> None:
    for refusals, plain in ((0, 5), (1, 10), (4, 80), (7, 600), (500, 600)):
        assert plain * (1 - JITTER) <= refusal_pause(refusals) <= plain * (1 + JITTER)


async def test_a_worker_runs_by_what_is_declared_and_what_arqs_func_says_wins(work: Work) -> None:
    wrapped = func(send, name="other", max_tries=2)
    worker = work.worker(send, wrapped, f"{__name__}.send")
    mail, other, by_path = (
        worker.functions[name] for name in ("mail.send", "other", f"{__name__}.send")
    )
    assert (mail.max_tries, mail.timeout_s, mail.keep_result_s) == (7, 120, 5)
    assert (other.max_tries, other.timeout_s, other.keep_result_s) == (2, 120, 5)
    assert (by_path.max_tries, by_path.timeout_s, by_path.keep_result_s) == (7, 120, 5)
    assert wrapped.timeout_s is None  # what is the caller's stays as it was
    await worker.close()


async def test_a_declared_job_is_enqueued_by_its_name_or_itself(work: Work) -> None:
    handles = [await work.enqueue(one, "x@example.org") for one in (send, "mail.send")]
    await work.burst(send)
    assert [await one.result(timeout=1) for one in handles] == ["sent to x@example.org"] * 2
    assert 4_000 < await work.redis.pttl(f"arq:result:{handles[0].job_id}") <= 5_000


async def test_a_job_that_costs_more_takes_more_of_its_tenants_turns(work: Work) -> None:
    order: list[str] = []

    @job(name="dear", cost=4)
    async def dear(ctx: Ctx) -> None:
        order.append(ctx["tenant"])

    @job(name="cheap")
    async def cheap(ctx: Ctx) -> None:
        order.append(ctx["tenant"])

    for _ in range(3):
        await work.enqueue(dear, _tenant="acme")
    for _ in range(12):
        await work.enqueue(cheap, _tenant="globex")
    await work.burst(dear, cheap, max_jobs=1)
    starts = [place for place, tenant in enumerate(order) if tenant == "acme"]
    assert len(starts) == 3
    assert all(4 <= later - earlier <= 6 for earlier, later in pairwise(starts))


@pytest.mark.parametrize(
    ("args", "kwargs", "where"),
    [
        ([object()], {}, "args[0]"),
        ([{"when": [datetime(2026, 1, 1, tzinfo=UTC)]}], {}, "args[0].when[0]"),
        ([{1: 2}], {}, "args[0]"),
        ([], {"data": b"bytes"}, "kwargs.data"),
        ([float("nan")], {}, "args[0]"),
        ([-float("inf")], {}, "args[0]"),
        (["\ud800"], {}, "args[0]"),
        ([{1, 2}], {}, "args[0]"),
    ],
)
async def test_arguments_that_json_cannot_carry_are_refused_by_their_place(
    work: Work, args: list[Any], kwargs: dict[str, Any], where: str
) -> None:
    with pytest.raises(NotJson) as refused:
        await work.enqueue("held", *args, **kwargs)
    assert refused.value.field == where
    assert await work.redis.zcard(work.queue.name) == 0


async def test_arguments_that_are_too_much_are_refused(work: Work) -> None:
    with pytest.raises(TooLarge, match=f"at most {MAX_PAYLOAD} bytes"):
        await work.enqueue("held", "x" * MAX_PAYLOAD)
    nested: list[Any] = []
    for _ in range(200):
        nested = [nested]
    with pytest.raises(NotJson, match="at most 100 deep"):
        await work.enqueue("held", nested)
    assert await work.redis.zcard(work.queue.name) == 0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"_job_id": ""}, "job_id"),
        ({"_job_id": "with space"}, "job_id"),
        ({"_job_id": "x" * 201}, "job_id"),
        ({"_tenant": "a:b"}, "tenant"),
        ({"_tenant": ""}, "tenant"),
        ({"_tenant": "_other"}, "tenant"),
        ({"_priority": 10}, "priority"),
        ({"_priority": True}, "priority"),
        ({"_defer_by": -1}, "defer_by"),
        ({"_defer_by": "soon"}, "defer_by"),
        ({"_defer_by": 1e300}, "defer_by"),
        ({"_defer_by": float("nan")}, "defer_by"),
        ({"_defer_until": datetime(2200, 1, 1, tzinfo=UTC)}, "defer_until"),
        ({"_defer_until": "2030-01-01"}, "defer_until"),
        ({"_defer_by": 1, "_defer_until": datetime(2026, 1, 1, tzinfo=UTC)}, "defer_by"),
        ({"_expires": -1}, "expires"),
        ({"_queue_name": "another"}, "_queue_name"),
    ],
)
async def test_what_cannot_be_queued_is_refused(
    work: Work, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidJob) as refused:
        await work.enqueue("held", **options)
    assert refused.value.field == field
    assert await work.redis.zcard(work.queue.name) == 0


@pytest.mark.parametrize("function", ["", "\ud800"])
async def test_a_function_without_a_name_is_refused(work: Work, function: str) -> None:
    with pytest.raises(InvalidJob, match="function: expected a name"):
        await work.enqueue(function)


async def test_a_job_of_nobodys_is_refused(work: Work) -> None:
    with pytest.raises(InvalidJob, match="expected whose job it is"):
        await work.redis.enqueue_job("held")


async def test_a_job_may_be_deferred_until_an_instant(work: Work) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    await work.enqueue("held", _job_id="it", _defer_until=until)
    record = await work.queue.get("acme", "it")
    assert record.run_at == until.timestamp() * 1000
    assert record.status == "deferred"


async def test_an_unknown_function_is_refused_once_workers_are_known(work: Work) -> None:
    await work.enqueue("anything")
    started = asyncio.Event()

    async def startup(ctx: Ctx) -> None:
        started.set()

    async with work.running(Held().function(), on_startup=startup):
        await started.wait()
        with pytest.raises(UnknownFunction, match="no worker has a function 'anything'"):
            await work.enqueue("anything")
        await work.enqueue("held", _defer_by=3600)
