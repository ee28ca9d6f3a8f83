"""Jobs that wait: their order, their time, their ids, their number."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from partywall_workers.errors import QueueFull, UnknownFunction, UnknownJob
from partywall_workers.redis import FairRedis
from tests.engine.jobs.check import check
from tests.engine.jobs.driver import KEEP, Jobs, ids


async def test_higher_priorities_start_first_and_equal_ones_in_order(jobs: Jobs):
    for nth, priority in enumerate([5, 0, 9, 5, 9, 0, 5]):
        await jobs.add("acme", f"{priority}-{nth}", priority=priority)
    assert ids(await jobs.claim()) == ["9-2", "9-4", "5-0", "5-3", "5-6", "0-1", "0-5"]


async def test_priorities_count_among_ones_own_jobs_only(jobs: Jobs):
    for nth in range(3):
        await jobs.add("acme", f"a{nth}", priority=9)
        await jobs.add("beta", f"b{nth}", priority=0)
    assert ids(await jobs.claim()) == ["a0", "b0", "a1", "b1", "a2", "b2"]


async def test_a_deferred_job_starts_at_its_time_and_not_before(jobs: Jobs):
    await jobs.add("acme", "by", defer_by=10)
    until = datetime.fromtimestamp((jobs.now + 20_000) / 1000, UTC)
    await jobs.add("acme", "until", defer_until=until)
    await jobs.add("acme", "past", defer_until=until - timedelta(hours=1))
    assert await jobs.status("acme", "by") == "deferred"
    claims = await jobs.claims()
    assert ids(claims.jobs) == ["past"]
    assert claims.pause == 10
    jobs.pass_time(9999)
    assert await jobs.claim() == []
    jobs.pass_time(1)
    assert ids(await jobs.claim()) == ["by"]
    jobs.pass_time(10_000)
    assert "until" in ids(await jobs.claim())


async def test_who_waits_is_woken_for_a_time_earlier_than_it_knows_of(jobs: Jobs):
    wake = jobs.redis.names.of("wake", "default")

    async def woken() -> bool:
        return bool(await jobs.redis.exists(wake))

    await jobs.add("acme", "first", defer_by=10)
    assert await woken()
    assert (await jobs.claims()).pause == 10
    await jobs.add("beta", "later", defer_by=20)
    assert not await woken()  # whoever waits looks in 10 s, anyhow
    await jobs.add("beta", "sooner", defer_by=1)
    assert await woken()
    assert (await jobs.claims()).pause == 1


async def test_jobs_whose_time_has_come_take_their_place_by_priority(jobs: Jobs):
    await jobs.add("acme", "urgent", priority=9, defer_by=10)
    await jobs.add("acme", "old", priority=5)
    await jobs.add("acme", "sooner", priority=5, defer_by=5)
    await jobs.add("acme", "new", priority=5)
    jobs.pass_time(10_000)
    assert ids(await jobs.claim()) == ["urgent", "old", "sooner", "new"]


async def test_of_many_that_come_due_at_once_the_first_start_first(jobs: Jobs):
    for nth in range(60, 0, -1):  # their ids would have them the other way round
        await jobs.add("acme", f"{nth:02}", defer_by=10)
    await jobs.add("acme", "99", defer_by=10, priority=9)
    jobs.pass_time(10_000)
    (first,) = await jobs.claim(1)
    assert first.job_id == "99"
    assert ids(await jobs.claim(3)) == ["60", "59", "58"]


async def test_more_deferred_jobs_than_are_looked_at_at_once_all_start(jobs: Jobs):
    for nth in range(700):
        await jobs.add("acme", f"j{nth}", defer_by=nth / 1000)
    jobs.pass_time(1000)
    started: list[str] = []
    while claimed := await jobs.claim(70):
        started += ids(claimed)
        await jobs.end(claimed)
    assert sorted(started) == sorted(f"j{nth}" for nth in range(700))
    await check(jobs.queue, jobs.now)


async def test_a_job_that_did_not_start_in_time_is_told_as_expired(jobs: Jobs):
    await jobs.add("acme", "in-time", expires=10)
    await jobs.add("acme", "late", expires=9)
    jobs.pass_time(10_000)
    assert {one.job_id: one.expired for one in await jobs.claim()} == {
        "in-time": False,
        "late": True,
    }


async def test_a_deferred_job_expires_after_its_own_time(jobs: Jobs):
    await jobs.add("acme", "it", defer_by=60, expires=10)
    jobs.pass_time(70_000)
    assert [one.expired for one in await jobs.claim()] == [False]


async def test_jobs_of_a_paused_tenant_do_not_expire(jobs: Jobs):
    await jobs.policy("acme")
    await jobs.add("acme", "before", expires=10)
    await jobs.queue.pause("acme")
    jobs.pass_time(3_600_000)
    await jobs.add("acme", "meanwhile", expires=10)
    jobs.pass_time(3_600_000)
    await jobs.queue.resume("acme")
    jobs.pass_time(9000)
    await jobs.add("acme", "after", expires=0.5)
    jobs.pass_time(1000)
    assert {one.job_id: one.expired for one in await jobs.claim()} == {
        "before": False,
        "meanwhile": False,
        "after": True,
    }


async def test_neither_do_those_of_a_suspended_one_also_if_paused_as_well(jobs: Jobs):
    await jobs.policy("acme")
    await jobs.add("acme", "it", expires=10)
    await jobs.policy("acme", held="suspended")
    jobs.pass_time(60_000)
    await jobs.queue.pause("acme")
    jobs.pass_time(60_000)
    await jobs.policy("acme")
    jobs.pass_time(60_000)
    await jobs.queue.resume("acme")
    jobs.pass_time(10_000)
    assert [one.expired for one in await jobs.claim()] == [False]


async def test_a_job_that_has_started_in_time_does_not_expire_between_its_tries(jobs: Jobs):
    await jobs.add("acme", "it", expires=10)
    await jobs.add("acme", "handed-back", expires=10)
    first, other = await jobs.claim()
    await jobs.end(first, "retry", delay=60_000, ran=True)
    await jobs.end(other, "retry", delay=60_000, uncounted=True)
    jobs.pass_time(60_000)
    assert {one.job_id: one.expired for one in await jobs.claim()} == {
        "it": False,
        "handed-back": True,
    }


async def test_two_tenants_may_have_jobs_of_one_id(jobs: Jobs):
    for tenant in ("acme", "beta"):
        await jobs.add(tenant, "same", args=[tenant])
    mine, other = await jobs.claim()
    await jobs.end(mine, result=b'{"r": 1}')
    assert await jobs.status(mine.tenant, "same") == "succeeded"
    assert await jobs.status(other.tenant, "same") == "running"
    with pytest.raises(UnknownJob):
        await jobs.get("corp", "same")
    with pytest.raises(UnknownJob):
        await jobs.queue.cancel("corp", "same")
    await check(jobs.queue, jobs.now)


@pytest.mark.parametrize("job_id", ["a:b", "x", "a:b:c", "9.-_"])
async def test_an_id_with_a_colon_is_no_others(jobs: Jobs, job_id: str):
    await jobs.add("acme", job_id)
    await jobs.add("acme", f"{job_id}:x")
    await check(jobs.queue, jobs.now)
    assert ids(await jobs.claim()) == [job_id, f"{job_id}:x"]


async def test_an_id_is_taken_as_long_as_its_job_is_kept(jobs: Jobs):
    await jobs.add("acme", "once", args=[1])
    for _ in range(2):
        again = await jobs.queue.enqueue("acme", "work", [2], job_id="once")
        assert not again.created
        assert again.job.job_id == "once"
        await jobs.end(await jobs.claim())
    assert again.job.status == "succeeded"
    assert await jobs.redis.enqueue_job("work", _tenant="acme", _job_id="once") is None


async def test_an_id_is_free_again_when_its_job_is_forgotten(jobs: Jobs):
    """And what was noted of the old job does not touch the new one."""
    await jobs.add("acme", "daily")
    await jobs.end(await jobs.claim(), "dead")
    await jobs.redis.delete(  # as Redis does, by its own clock
        jobs.redis.names.job("acme", "daily"), jobs.redis.names.payload("acme", "daily")
    )
    jobs.pass_time(KEEP + 1)
    await jobs.add("acme", "daily")
    await jobs.add("acme", "other")
    await check(jobs.queue, jobs.now)
    first = (await jobs.claim(2))[1]
    assert first.job_id == "other"
    await jobs.end(first)
    await check(jobs.queue, jobs.now)
    page, _ = await jobs.queue.list("acme")
    assert {job.job_id for job in page} == {"daily", "other"}
    assert (await jobs.queue.backlog("acme")).dead == 0


async def test_of_one_id_enqueued_at_once_by_many_one_is_made(jobs: Jobs):
    async def enqueue(nth: int) -> bool:
        return (await jobs.queue.enqueue("acme", "work", [nth], job_id="one")).created

    assert sum(await asyncio.gather(*map(enqueue, range(100)))) == 1
    await check(jobs.queue, jobs.now)


async def test_a_queue_takes_exactly_as_many_jobs_as_it_may(jobs: Jobs, jobs_url: str):
    """From many tasks and several clients, with another tenant's jobs between."""
    await jobs.policy("acme", max_queued=50)
    clients = [FairRedis.from_url(jobs_url, queue_name=jobs.queue.name) for _ in range(3)]

    async def enqueue(nth: int) -> bool:
        client = clients[nth % len(clients)]
        await client.enqueue_job("work", _tenant="beta")
        try:
            return await client.enqueue_job("work", _tenant="acme", _defer_by=nth % 2) is not None
        except QueueFull:
            return False

    jobs.scripts.now = None  # the clients' clock is Redis's, too
    made = await asyncio.gather(*map(enqueue, range(200)))
    for client in clients:
        await client.aclose()
    assert sum(made) == 50
    backlog = await jobs.queue.backlog("acme")
    assert backlog.queued + backlog.deferred == 50
    assert (await jobs.queue.backlog("beta")).queued == 200


async def test_a_start_makes_room_in_a_full_queue(jobs: Jobs):
    await jobs.policy("acme", max_queued=2)
    for _ in range(2):
        await jobs.add("acme")
    with pytest.raises(QueueFull) as full:
        await jobs.add("acme")
    assert (full.value.tenant, full.value.max_queued) == ("acme", 2)
    (claimed,) = await jobs.claim(1)
    await jobs.add("acme")
    await jobs.end(claimed, "retry", delay=1000)
    with pytest.raises(QueueFull):
        await jobs.add("acme")
    assert await jobs.queue.purge("acme") == 3
    await jobs.add("acme")


async def test_a_function_no_worker_has_is_refused_once_some_worker_is_known(jobs: Jobs):
    await jobs.add("acme", function="anything")
    key = jobs.redis.names.one("functions")
    await jobs.redis.hset(key, mapping={"known": jobs.now, "gone": jobs.now - 3_600_001})
    await jobs.add("acme", function="known")
    for name in ("anything", "gone"):
        with pytest.raises(UnknownFunction, match=name):
            await jobs.add("acme", function=name)
    await check(jobs.queue, jobs.now)
