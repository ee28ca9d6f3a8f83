"""What DESIGN.md, section 6, has of arq's flaws: none of them is ours. Hooks: test_hooks."""

import json
import pickle

import pytest

from partywall_service.embedded import ValkeyServer
from partywall_workers import FairQueue, FairRedis, JobPolicy, job
from tests.servers.workers.working import DAY, Ctx, Held, Work


async def noop(ctx: Ctx) -> str:
    return "done"


async def test_jobs_that_run_long_keep_no_other_from_starting(work: Work) -> None:
    """They stay in arq's set of queued jobs, of which its workers read the first hundred."""
    held = Held()
    for number in range(120):
        await work.enqueue("held", _job_id=f"long-{number}")
    async with work.running(held.function(), max_jobs=120):
        await held.running(120)
        assert await work.redis.zcard(work.queue.name) == 120
        handle = await work.redis.enqueue_job("held", _tenant="globex")
        assert handle is not None
        other = Held()
        other.end()
        await work.burst(other.function(), max_jobs=1, max_burst_jobs=1)
        assert await handle.result(timeout=1) == "done"
        assert len(other.began) == 1
        held.end()


async def test_a_running_job_is_started_by_nobody_else(work: Work) -> None:
    held, other = Held(), Held()
    handle = await work.enqueue("held")
    async with work.running(held.function()):
        await held.running()
        await work.burst(other.function(), max_burst_jobs=0)
        assert await work.claim(100) == []
        held.end()
        assert await handle.result(timeout=20, poll_delay=0.01) == "done"
    assert (len(held.began), len(other.began)) == (1, 0)


async def test_a_lost_workers_job_runs_again_with_its_lease_not_after_its_timeout(
    work: Work,
) -> None:
    handle = await work.enqueue(noop)
    (claimed,) = await work.claim(lease=15_000)
    at = await work.now()
    work.redis.scripts.now = at + 14_000
    assert await work.claim() == []
    await work.burst(noop, at=at + 15_001, job_timeout=300)
    assert await handle.result(timeout=1) == "done"
    told = await handle.result_info()
    assert told is not None
    assert told.job_try == claimed.attempts + 1 == 2


async def test_a_plain_exception_is_tried_again_and_then_dead(work: Work) -> None:
    tries: list[int] = []

    @job(backoff=0)
    async def fail(ctx: Ctx) -> None:
        tries.append(ctx["job_try"])
        raise OSError("no route")

    await work.enqueue(fail, _job_id="it")
    await work.burst(fail)
    record = await work.queue.get("acme", "it")
    assert tries == [1, 2, 3, 4, 5]
    assert record.status == "dead"
    assert record.traceback is not None
    assert record.traceback.endswith("OSError: no route\n")


async def test_jobs_and_results_are_json_unless_told_otherwise(work: Work) -> None:
    handle = await work.enqueue(noop)
    payload = await work.redis.get(f"arq:job:{handle.job_id}")
    assert json.loads(payload)["f"] == noop.__qualname__
    await work.burst(noop)
    result = await work.redis.get(f"arq:result:{handle.job_id}")
    assert json.loads(result)["r"] == "done"


async def test_a_payload_that_is_a_pickle_runs_no_code(work: Work) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return ran.append, ("ran",)

    ran: list[str] = []
    await work.enqueue(noop, _job_id="it")
    evil = pickle.dumps({"t": 1, "f": "noop", "a": (), "k": {}, "et": 1, "x": Evil()})
    await work.redis.set(work.redis.names.payload("acme", "it"), evil)
    await work.burst(noop)
    assert ran == []
    assert (await work.queue.get("acme", "it")).status == "dead"


async def test_a_job_of_next_month_has_its_arguments_then(work: Work) -> None:
    """After a day arq forgets them, and the job is "expired"."""
    handle = await work.enqueue(noop, _defer_by=30 * DAY / 1000)
    at = await work.now()
    assert await work.redis.ttl(f"arq:job:{handle.job_id}") == -1
    await work.burst(noop, at=at + 30 * DAY + 1000)
    assert await handle.result(timeout=1) == "done"


async def test_a_paused_tenants_jobs_wait_however_long(work: Work) -> None:
    handle = await work.enqueue(noop, _expires=60)
    forever = await work.enqueue(noop)
    scripts = work.redis.scripts
    scripts.now = at = await work.now()
    await work.queue.pause("acme")
    assert await work.claim(10) == []
    scripts.now = at + 30 * DAY
    assert await work.claim(10) == []
    assert await work.redis.ttl(f"arq:job:{handle.job_id}") == -1
    await work.queue.resume("acme")
    await work.burst(noop, at=at + 30 * DAY + 30_000)
    assert await handle.result(timeout=1) == "done"
    assert await forever.result(timeout=1) == "done"


async def test_a_held_tenants_jobs_wait_however_long(work: Work) -> None:
    handle = await work.enqueue(noop, _expires=60)
    scripts = work.redis.scripts
    scripts.now = at = await work.now()
    await work.queue.set_policy("acme", JobPolicy(held="suspended"))
    scripts.now = at + 30 * DAY
    await work.queue.set_policy("acme", JobPolicy())
    await work.burst(noop, at=scripts.now + 30_000)
    assert await handle.result(timeout=1) == "done"


async def test_aborting_an_unknown_id_poisons_no_later_job_of_it(work: Work) -> None:
    early = work.redis.job_of("acme", "it")
    assert not await early.abort(timeout=1)
    await work.burst(noop)  # a worker that sees it, and drops it
    assert await work.redis.zscore("arq:abort", early.job_id) is None
    handle = await work.enqueue(noop, _job_id="it")
    await work.burst(noop)
    assert await handle.result(timeout=1) == "done"


async def test_an_abort_that_came_too_late_poisons_no_later_job_of_its_id(work: Work) -> None:
    handle = await work.enqueue(noop, _job_id="it")
    await work.burst(noop, keep_result=0)
    assert not await handle.abort(timeout=1)
    again = await work.enqueue(noop, _job_id="it")
    await work.redis.zrem("arq:abort", handle.job_id)  # what any worker does within a moment
    await work.burst(noop)
    assert await again.result(timeout=1) == "done"


async def test_an_abort_of_a_job_that_cannot_be_read_keeps_no_other_from_being_aborted(
    work: Work,
) -> None:
    held = Held()
    await work.enqueue("held", _job_id="a", _defer_by=3600)
    await work.redis.set(work.redis.names.payload("acme", "a"), b"no json")
    handle = await work.enqueue("held", _job_id="b")
    async with work.running(held.function()):
        await held.running()
        await work.redis.zadd("arq:abort", {work.redis.names.arq_id("acme", "a"): 0})
        assert await handle.abort(timeout=20, poll_delay=0.01)
    assert (await work.queue.get("acme", "a")).status == "cancelled"


async def test_a_hundred_claims_are_a_handful_of_calls(own_valkey: ValkeyServer) -> None:
    """With arq they are four hundred: it asks for each job by itself, and again at its end."""
    client = FairRedis.from_url(own_valkey.url, queue_name="calls:jobs")
    work, held = Work(FairQueue(client), own_valkey.url), Held()

    async def scripts() -> int:
        return int((await client.info("commandstats"))["cmdstat_evalsha"]["calls"])

    handles = [await work.enqueue("held") for _ in range(100)]
    before = await scripts()
    async with work.running(held.function(), max_jobs=100):
        await held.running(100)
        assert await scripts() - before <= 20
        held.end()
        for handle in handles:
            assert await handle.result(timeout=20, poll_delay=0.05) == "done"
        assert await scripts() - before <= 40
        stats = await client.info("commandstats")
        assert "cmdstat_watch" not in stats
        assert "cmdstat_psetex" not in stats or stats["cmdstat_psetex"]["calls"] == 1  # its health
    await client.aclose(close_connection_pool=True)


@pytest.mark.parametrize("slots", [1, 100])
async def test_one_call_claims_as_many_as_there_are_slots(work: Work, slots: int) -> None:
    for number in range(120):
        await work.enqueue(noop, number)
    assert len(await work.claim(slots)) == slots
