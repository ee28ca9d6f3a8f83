"""A tenant's policy, written while its jobs wait, and missing."""

import asyncio

from tests.engine.jobs.check import check
from tests.engine.jobs.driver import Jobs, ids, owners


async def test_without_a_keeper_jobs_run_by_the_defaults(jobs: Jobs):
    await jobs.add_many("acme", 30)
    assert len(await jobs.claim(20)) == 20
    await check(jobs.queue, jobs.now)


async def test_with_a_keeper_jobs_wait_for_a_policy(jobs: Jobs):
    assert await jobs.queue.wanted(timeout=0.01) == []
    await jobs.add("acme", "it")
    assert await jobs.claim() == []
    assert await jobs.queue.wanted(timeout=5) == ["acme"]
    await check(jobs.queue, jobs.now)
    await jobs.policy("acme", concurrency=1)
    assert ids(await jobs.claim()) == ["it"]
    assert await jobs.queue.wanted(timeout=0.01) == []


async def test_a_keeper_that_waits_is_woken_by_a_tenant_without_a_policy(jobs: Jobs):

    waiting = asyncio.create_task(jobs.queue.wanted(timeout=30))
    async with asyncio.timeout(20):
        while not await jobs.redis.exists(jobs.redis.names.one("keeper")):
            pass
    await jobs.add("acme", "it")
    assert await waiting == ["acme"]


async def test_when_the_last_keeper_is_gone_jobs_run_by_the_defaults(jobs: Jobs):
    """And a worker that waits for something to do is told when to look."""
    await jobs.keeper(lives=True)
    await jobs.add("acme", "it")
    await jobs.add("beta", "later", defer_by=60)
    claims = await jobs.claims()
    assert claims.jobs == []
    assert claims.pause is not None
    assert 0 < claims.pause <= 10.1
    await jobs.keeper(lives=False)
    jobs.pass_time(100)
    assert ids(await jobs.claim()) == ["it"]
    jobs.pass_time(60_000)
    assert "later" in ids(await jobs.claim())


async def test_a_keeper_that_lives_on_is_waited_for_on_and_on(jobs: Jobs):
    await jobs.keeper(lives=True)
    await jobs.add("acme", "it")
    for _ in range(5):
        claims = await jobs.claims()
        assert claims.jobs == []
        assert claims.pause is not None
        await jobs.keeper(lives=True)
        jobs.pass_time(round(claims.pause * 1000))
    await check(jobs.queue, jobs.now)
    await jobs.policy("acme")
    assert ids(await jobs.claim()) == ["it"]


async def test_a_keeper_that_comes_while_jobs_wait_is_waited_for(jobs: Jobs):
    await jobs.add_many("acme", 3)
    assert len(await jobs.claim(1)) == 1
    await jobs.keeper(lives=True)
    assert await jobs.claim() == []
    await jobs.policy("acme", concurrency=2)
    assert len(await jobs.claim()) == 1


async def test_a_suspended_tenants_jobs_wait(jobs: Jobs):
    await jobs.policy("acme", held="suspended")
    await jobs.add("acme", "it")
    assert await jobs.claim() == []
    assert (await jobs.queue.backlog("acme")).held == "suspended"
    await jobs.queue.resume("acme")
    assert await jobs.claim() == []
    await jobs.policy("acme")
    assert ids(await jobs.claim()) == ["it"]


async def test_a_cap_counts_from_when_it_is_written(jobs: Jobs):
    await jobs.policy("acme")
    await jobs.add_many("acme", 10)
    held = await jobs.claim(4)
    await jobs.policy("acme", concurrency=2)
    for _ in range(3):
        assert await jobs.claim() == []
        await jobs.end(held.pop())
    assert len(await jobs.claim()) == 1
    await jobs.policy("acme", concurrency=0)
    assert await jobs.claim() == []
    await jobs.policy("acme", concurrency=5)
    assert len(await jobs.claim()) == 3
    await check(jobs.queue, jobs.now)


async def test_a_job_carries_what_its_tenants_policy_says_of_it(jobs: Jobs):
    await jobs.policy("acme", tier="pro", features=("sso", "export"))
    await jobs.add("acme")
    (claimed,) = await jobs.claim()
    assert claimed.tier == "pro"
    assert claimed.features == b'["sso", "export"]'


async def test_policies_are_told_as_long_as_they_are_there(jobs: Jobs):
    for tenant in ("acme", "beta"):
        await jobs.policy(tenant)
    assert {tenant async for tenant in jobs.queue.policies()} == {"acme", "beta"}
    await jobs.redis.delete(jobs.redis.names.of("tenant", "beta"))  # as Redis does after a day
    assert {tenant async for tenant in jobs.queue.policies()} == {"acme"}
    await jobs.keeper(lives=True)
    await jobs.add("beta")
    assert await jobs.queue.wanted(timeout=5) == ["beta"]


async def test_a_dedicated_lane_keeps_others_out(jobs: Jobs):
    await jobs.policy("big", lane="dedicated")
    for tenant in ("big", "small"):
        await jobs.add_many(tenant, 3)
    assert set(owners(await jobs.claim())) == {"small"}
    assert set(owners(await jobs.claim(lanes=["dedicated"]))) == {"big"}
