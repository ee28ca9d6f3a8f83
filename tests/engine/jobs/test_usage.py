"""What is counted of tenants' jobs, and where it goes."""

import pytest

from partywall_workers.errors import QueueUnavailable
from partywall_workers.redis import FairRedis
from partywall_workers.usage import JobUsage
from tests.engine.jobs.check import check
from tests.engine.jobs.driver import LEASE, Jobs

MINUTE = 60_000
SECOND = 1_000_000
"""Microseconds."""


@pytest.fixture
async def usage(jobs: Jobs) -> JobUsage:
    one = JobUsage(jobs.redis)
    await one.keep(counting=True)
    jobs.pass_time(-(jobs.now % MINUTE))  # what follows is within a minute, unless it says so
    return one


async def held(usage: JobUsage, tenant: str = "acme") -> dict[str, int]:
    """Of all minutes."""
    sums: dict[str, int] = {}
    for point in await usage.held([tenant]):
        meter = point.meter.removeprefix("jobs.")
        sums[meter] = sums.get(meter, 0) + point.value
    return sums


async def test_every_start_its_wait_and_its_run_are_counted_as_they_happen(jobs, usage):
    for nth in range(3):
        await jobs.add("acme", f"j{nth}")
    jobs.pass_time(2000)
    first, second, third = await jobs.claim()
    assert await held(usage) == {"started": 3, "wait_seconds": 6 * SECOND}
    jobs.pass_time(500)
    await jobs.end(first)
    await jobs.end(second, "retry", delay=1000)
    await jobs.end(third, "dead")
    jobs.pass_time(3000)
    (again,) = await jobs.claim()
    jobs.pass_time(1)
    await jobs.end(again, "failed")
    assert await held(usage) == {
        "started": 4,
        "wait_seconds": 8 * SECOND,  # a retry's from its time on
        "run_seconds": 1_501_000,
        "succeeded": 1,
        "failed": 2,
    }
    await check(jobs.queue, jobs.now)


async def test_a_try_whose_worker_died_ran_as_long_as_its_lease_and_is_counted_once(jobs, usage):
    await jobs.add("acme", "it")
    (late,) = await jobs.claim()
    jobs.pass_time(10_000)
    await jobs.scripts.renew(LEASE, [(late.ref, late.fence)])
    jobs.pass_time(10 * MINUTE)  # nobody looked
    (again,) = await jobs.claim()
    assert await held(usage) == {"started": 2, "run_seconds": 25 * SECOND}
    assert await jobs.end(late) == [False]
    await jobs.end(again)
    assert await held(usage) == {"started": 2, "run_seconds": 25 * SECOND, "succeeded": 1}


@pytest.mark.parametrize("by_worker", [True, False])
async def test_a_job_cancelled_while_it_runs_has_run_and_neither_succeeded_nor_failed(
    jobs, usage, by_worker
):
    await jobs.add("acme", "it")
    (claimed,) = await jobs.claim()
    await jobs.queue.cancel("acme", "it", wait=0)
    jobs.pass_time(LEASE)
    if by_worker:
        await jobs.end(claimed, "cancelled")
    else:
        assert await jobs.claim() == []
    assert await held(usage) == {"started": 1, "run_seconds": LEASE * 1000}


async def test_a_job_cancelled_while_it_waits_counts_nothing(jobs, usage):
    await jobs.add("acme", "it")
    await jobs.queue.cancel("acme", "it")
    assert await usage.held() == []


@pytest.mark.parametrize("stop", ["paused", "held"])
async def test_a_wait_begins_anew_when_its_tenant_may_start_jobs_again(jobs, usage, stop):
    await jobs.policy("acme")
    await jobs.add("acme", "it")
    jobs.pass_time(1000)
    if stop == "paused":
        await jobs.queue.pause("acme")
        jobs.pass_time(30_000)
        await jobs.queue.resume("acme")
    else:
        await jobs.policy("acme", held="provisioning")
        jobs.pass_time(30_000)
        await jobs.policy("acme")
    jobs.pass_time(2000)
    await jobs.claim()
    assert await held(usage) == {"started": 1, "wait_seconds": 2 * SECOND}


async def test_jobs_that_are_no_customers_are_not_counted(jobs, usage):
    for tenant in ("_system", "_cron"):
        await jobs.add(tenant, "it")
    jobs.pass_time(1000)
    assert await jobs.end(await jobs.claim()) == [True, True]
    assert await usage.held() == []


async def test_nothing_is_counted_where_nobody_rolls_up(jobs, usage):
    await usage.keep(counting=False)
    await jobs.add("acme", "it")
    await jobs.end(await jobs.claim())
    assert await usage.held() == []


async def test_a_sidecar_that_keeps_policies_has_jobs_counted(jobs):
    await jobs.queue.wanted(timeout=0.01)
    await jobs.policy("acme")
    await jobs.add("acme", "it")
    await jobs.claim()
    assert await held(JobUsage(jobs.redis)) == {"started": 1}


async def closed(usage):
    return [point async for points in usage.closed() for point in points]


async def test_minutes_that_are_over_are_told_of_until_they_are_forgotten(jobs, usage):
    for nth in range(3):
        await jobs.add("acme", f"j{nth}")
        await jobs.add("beta", f"j{nth}")
    await jobs.claim(2)
    assert await closed(usage) == []
    jobs.pass_time(MINUTE)
    await jobs.claim(2)
    minute = jobs.now // MINUTE
    points = await closed(usage)
    assert sorted(points) == [(one, minute - 1, "jobs.started", 1) for one in ("acme", "beta")]
    assert sorted(await closed(usage)) == sorted(points)
    await usage.forget(points)
    await usage.forget(points)
    assert await closed(usage) == []
    assert {(one.tenant, one.minute) for one in await usage.held()} == {
        ("acme", minute),
        ("beta", minute),
    }
    jobs.pass_time(MINUTE)
    await usage.forget(await closed(usage))
    assert await usage.held() == []
    assert not (await check(jobs.queue, jobs.now)).one.get("metered")


async def test_a_clock_that_was_set_back_opens_no_minute_that_was_taken_away(jobs, usage):
    for nth in range(3):
        await jobs.add("acme", f"j{nth}")
    await jobs.claim(1)
    jobs.pass_time(MINUTE)
    (taken,) = await closed(usage)
    await usage.forget([taken])
    jobs.pass_time(-3 * MINUTE)
    (claimed,) = await jobs.claim(1)
    jobs.pass_time(-1000)  # no job runs for less than nothing
    await jobs.end(claimed)
    points = await usage.held()
    assert {(one.minute, one.meter) for one in points} == {
        (taken.minute + 1, "jobs.started"),
        (taken.minute + 1, "jobs.succeeded"),
    }
    assert await closed(usage) == []
    jobs.pass_time(5 * MINUTE)
    assert sorted(await closed(usage)) == sorted(points)


async def test_what_changed_since_it_was_told_of_is_not_forgotten(jobs, usage):
    for nth in range(2):
        await jobs.add("acme", f"j{nth}")
    await jobs.claim(1)
    jobs.pass_time(MINUTE)
    points = await closed(usage)
    jobs.pass_time(-1000)
    await jobs.claim(1)
    await usage.forget(points)
    jobs.pass_time(1000)
    assert [one.value for one in await closed(usage) if one.meter == "jobs.started"] == [2]


async def test_many_tenants_come_in_batches_each_whole(jobs, usage):
    tenants = {f"t{nth}" for nth in range(2000)}
    keys = jobs.redis.names
    async with jobs.redis.pipeline(transaction=False) as pipe:
        for tenant in tenants:
            for meter in ("started", "succeeded", "run_seconds", "wait_seconds"):
                pipe.hset(keys.of("usage", tenant), f"1|jobs.{meter}", 7)
            pipe.sadd(keys.one("metered"), tenant)
        await pipe.execute()
    batches = [{point.tenant for point in points} async for points in usage.closed()]
    assert len(batches) == 2
    assert set.union(*batches) == tenants
    assert not set.intersection(*batches)
    points = await closed(usage)
    await usage.forget(points)
    assert len(points) == 4 * len(tenants)
    assert await usage.held() == []


async def test_a_redis_that_is_away_says_so():
    away = JobUsage(FairRedis.from_url("redis://127.0.0.1:1"), timeout=1)
    for call in (away.held(), away.held(["acme"]), away.forget([("acme", 1, "jobs.started", 1)])):
        with pytest.raises(QueueUnavailable):
            await call
    with pytest.raises(QueueUnavailable):
        await closed(away)
