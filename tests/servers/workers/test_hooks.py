"""arq's hooks, and what jobs and hooks get as their `ctx`."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from arq.worker import Retry

from partywall.context import current_tenant
from partywall_workers import GiveUp, JobPolicy, job
from tests.servers.workers.working import Ctx, Held, Work


async def noop(ctx: Ctx) -> str:
    return "done"


async def test_hooks_are_called_in_arqs_order_with_arqs_ctx(work: Work) -> None:
    told: list[tuple[str, Any, Any]] = []

    def hook(name: str) -> Any:
        async def called(ctx: Ctx) -> None:
            told.append((name, ctx.get("job_id"), ctx.get("mine")))

        return called

    async def startup(ctx: Ctx) -> None:
        ctx["mine"] = "from startup"
        await hook("startup")(ctx)

    async def started(ctx: Ctx) -> None:
        await hook("job_start")(ctx)
        ctx["mine"] = "from job_start"

    async def mine(ctx: Ctx) -> None:
        await hook("job")(ctx)
        ctx["mine"] = "from job"

    handle = await work.enqueue(mine)
    worker = await work.burst(
        mine,
        ctx={"given": 1},
        on_startup=startup,
        on_job_start=started,
        on_job_end=hook("job_end"),
        after_job_end=hook("after_job_end"),
        on_shutdown=hook("shutdown"),
    )
    assert told == [
        ("startup", None, "from startup"),
        ("job_start", handle.job_id, "from startup"),
        ("job", handle.job_id, "from job_start"),
        ("job_end", handle.job_id, "from job"),
        ("after_job_end", handle.job_id, "from job"),
        ("shutdown", None, "from startup"),
    ]
    assert worker.ctx["given"] == 1


async def test_a_jobs_ctx_says_which_try_of_which_job_it_is(work: Work) -> None:
    seen: list[Ctx] = []

    async def look(ctx: Ctx) -> None:
        seen.append(ctx)
        if len(seen) < 2:
            raise Retry

    before = datetime.now(UTC).timestamp() - 1
    handle = await work.enqueue(look, _job_id="it")
    worker = work.worker(look, ctx={"given": 1})
    try:
        await worker.async_run()
        first, second = seen
        assert first["redis"] is worker.pool
    finally:
        await worker.close()
    assert (first["job_try"], second["job_try"]) == (1, 2)
    assert first["job_id"] == second["job_id"] == handle.job_id
    assert (first["tenant"], first["given"]) == ("acme", 1)
    assert first["enqueue_time"].timestamp() >= before
    assert isinstance(first["score"], int)
    assert first["score"] <= second["score"]


async def test_the_result_is_told_after_job_end_and_not_before(work: Work) -> None:
    statuses: list[str] = []

    async def look(ctx: Ctx) -> None:
        record = await work.queue.get("acme", "it")
        statuses.append(record.status)

    await work.enqueue(noop, _job_id="it")
    await work.burst(noop, on_job_start=look, on_job_end=look, after_job_end=look)
    assert statuses == ["running", "running", "succeeded"]


async def test_a_job_enqueues_for_its_own_tenant(work: Work) -> None:
    ran: list[tuple[str, str | None, tuple[str, ...]]] = []

    async def second(ctx: Ctx) -> None:
        tenant = current_tenant()
        ran.append((tenant.id, tenant.tier, tenant.features))

    async def first(ctx: Ctx) -> None:
        await ctx["redis"].enqueue_job(second)
        await ctx["redis"].enqueue_job(second, _tenant="globex")

    await work.queue.set_policy("acme", JobPolicy(tier="pro", features=("sso", "audit")))
    await work.enqueue(first)
    await work.burst(first, second)
    assert sorted(ran) == [("acme", "pro", ("sso", "audit")), ("globex", None, ())]
    assert current_tenant(default=None) is None


async def test_jobs_side_by_side_each_have_their_own_tenant(work: Work) -> None:
    meet = asyncio.Barrier(3)

    async def look(ctx: Ctx) -> list[str]:
        await meet.wait()
        inner = await asyncio.create_task(in_a_task())
        await meet.wait()
        return [str(current_tenant()), inner, ctx["tenant"]]

    async def in_a_task() -> str:
        await asyncio.sleep(0)
        return str(current_tenant())

    tenants = ("acme", "globex", "initech")
    handles = [await work.enqueue(look, _tenant=tenant) for tenant in tenants]
    await work.burst(look)
    assert [await one.result(timeout=1) for one in handles] == [[name] * 3 for name in tenants]


HOOKS = ("on_job_start", "on_job_end", "after_job_end")


class Wild(BaseException):
    pass


@pytest.mark.parametrize(
    "raised", [RuntimeError("x"), SystemExit(3), Wild(), asyncio.CancelledError()]
)
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hooks_exception_stops_no_worker(
    work: Work, hook: str, raised: BaseException
) -> None:
    calls = 0

    async def fails_once(ctx: Ctx) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise raised

    work_done = job(backoff=0)(noop_of())
    handles = [await work.enqueue(work_done), await work.enqueue(work_done)]
    worker = await work.burst(work_done, max_jobs=1, **{hook: fails_once})
    assert [await one.result(timeout=1) for one in handles] == ["done", "done"]
    assert worker.jobs_complete == 2
    # The start of a job that could not begin is a try of it, as one that fails is.
    assert calls == (3 if hook == "on_job_start" else 2)


def noop_of() -> Any:
    async def again(ctx: Ctx) -> str:
        return "done"

    return again


async def test_a_job_whose_start_hook_always_fails_is_dead_by_that(work: Work) -> None:
    async def refuse(ctx: Ctx) -> None:
        raise ConnectionError("no database")

    ended: list[str] = []

    async def end(ctx: Ctx) -> None:
        ended.append(ctx["job_id"])

    function = job(max_tries=2, backoff=0)(noop_of())
    handle = await work.enqueue(function)
    await work.burst(function, on_job_start=refuse, on_job_end=end)
    record = await work.queue.get("acme", handle.job_id.rpartition(":")[2])
    assert (record.status, record.error) == ("dead", "ConnectionError: no database")
    assert record.traceback is not None
    assert "in refuse" in record.traceback
    assert len(ended) == 2


async def test_a_worker_whose_startup_fails_does_not_start(work: Work) -> None:
    async def refuse(ctx: Ctx) -> None:
        raise ConnectionError("no database")

    handle = await work.enqueue(noop)
    with pytest.raises(ConnectionError, match="no database"):
        await work.burst(noop, on_startup=refuse)
    assert await work.status(handle) == "queued"


async def test_a_worker_whose_shutdown_fails_says_so_and_is_closed_all_the_same(work: Work) -> None:
    async def refuse(ctx: Ctx) -> None:
        raise ConnectionError("no database")

    handle = await work.enqueue(noop)
    worker = work.worker(noop, on_shutdown=refuse)
    await worker.async_run()
    pool = worker.pool.connection_pool
    with pytest.raises(ConnectionError, match="no database"):
        await worker.close()
    assert not any(one.is_connected for one in pool._available_connections)
    assert await handle.result(timeout=1) == "done"


async def test_a_job_that_cannot_begin_is_no_business_of_hooks(work: Work) -> None:
    called: list[str] = []

    async def hook(ctx: Ctx) -> None:
        called.append(ctx["job_id"])

    await work.enqueue("nowhere")
    await work.enqueue(noop, _expires=1)
    worker = await work.burst(
        noop,
        at=await work.now() + 5_000,
        on_job_start=hook,
        on_job_end=hook,
        after_job_end=hook,
    )
    assert worker.jobs_failed == 2
    assert called == []


@pytest.mark.parametrize(
    "raised", [SystemExit(3), KeyboardInterrupt(), Wild("odd"), GeneratorExit()]
)
async def test_whatever_a_job_raises_is_the_jobs_alone(work: Work, raised: BaseException) -> None:
    async def wild(ctx: Ctx) -> None:
        raise raised

    held = Held()
    held.end()
    function = job(max_tries=1)(wild)
    first, second = await work.enqueue(function), await work.enqueue("held")
    await work.burst(function, held.function())
    record = await work.queue.get("acme", first.job_id.rpartition(":")[2])
    assert record.status == "dead"
    assert record.error is not None
    assert record.error.startswith(type(raised).__name__)
    assert await second.result(timeout=1) == "done"


async def test_an_exception_that_cannot_say_what_it_is_is_told_by_its_class(work: Work) -> None:
    class Mute(GiveUp):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    async def mute(ctx: Ctx) -> None:
        raise Mute

    handle = await work.enqueue(mute)
    await work.burst(mute)
    record = await work.queue.get("acme", handle.job_id.rpartition(":")[2])
    assert (record.status, record.error) == ("failed", "Mute: (its text cannot be made)")
