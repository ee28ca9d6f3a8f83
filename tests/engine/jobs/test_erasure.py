"""A tenant is erased: nothing of it is left, and nothing late brings it back."""

import asyncio
import json
import uuid
from contextlib import contextmanager

import pytest

from partywall_workers import erased
from partywall_workers.errors import TenantErased, UnknownJob
from partywall_workers.logs import Start, current_start
from partywall_workers.policy import JobPolicy
from partywall_workers.queue import FairQueue
from partywall_workers.usage import JobUsage
from tests.conftest import SOAK
from tests.engine.jobs.check import check, read
from tests.engine.jobs.driver import LEASE, Jobs, ids, job_of

UNKNOWN = JobPolicy(held="unknown")
"""What a keeper writes for a tenant that nobody serves."""

_EVERYTHING = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  local value = {}
  if kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1)
  elseif kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'string' then value = {redis.call('GET', key)} end
  for _, text in ipairs({key, unpack(value)}) do
    if string.find(text, ARGV[1], 1, true) then found[#found + 1] = key; break end
  end
end
return found
"""


@pytest.fixture
def tenant() -> str:
    return f"t-{uuid.uuid4().hex}"


async def traces(jobs: Jobs, tenant: str) -> list[bytes]:
    """Keys of the whole database that have its id in their name, or in anything that they hold."""
    return await jobs.redis.eval(_EVERYTHING, 0, tenant)


@contextmanager
def running(jobs: Jobs, tenant: str, fence: int):
    """As within that start of a job."""
    token = current_start.set(Start(jobs.queue.name, tenant, "it", fence))
    try:
        yield
    finally:
        current_start.reset(token)


async def fill(jobs: Jobs, tenant: str):
    """Gives it something of every kind; what runs."""
    redis, names = jobs.redis, jobs.redis.names
    await JobUsage(redis).keep(counting=True)
    await redis.zadd(names.one("ends"), {tenant: 1.0})
    await jobs.policy(tenant, tier="pro", rates=((100, 60),))
    for nth in range(7):
        await jobs.add(tenant, f"j{nth}", args=[tenant])
    jobs.pass_time(10)
    done, runs, flagged, dead, cancelled, retried, owing = await jobs.claim()
    result = b'{"r": "' + tenant.encode() + b'"}'
    await jobs.end(done, result=result)
    await jobs.end(dead, "dead", error=f"E: {tenant}", traceback="...", result=result)
    await jobs.end(cancelled, "cancelled")
    await jobs.end(retried, "retry", delay=1000, ran=True)
    debt = json.dumps({"tenant": tenant, "items": {"emails": 1}, "key": "k"})
    await jobs.end(owing, "failed", owed=debt)
    await jobs.queue.cancel(tenant, flagged.job_id, wait=0)
    await redis.zadd("arq:abort", {names.arq_id(tenant, "nothing"): 1})
    await jobs.add(tenant, "later", defer_by=60)
    await jobs.add(tenant, "a:b:c", priority=9)
    await redis.set(f"{names.of('answer', tenant)}:0f", result)
    await redis.set(names.job(tenant, "orphan"), "by a clock that was wrong")
    await jobs.queue.pause(tenant)
    return [runs, flagged]


async def test_nothing_is_left_of_a_tenant_and_all_of_others(jobs: Jobs, tenant: str):
    other = f"{tenant}-other"  # its id begins as that does
    await fill(jobs, other)
    await fill(jobs, tenant)
    await jobs.add(other, f"x:{tenant}:y")
    others = await traces(jobs, other)
    before = await read(jobs.queue)
    await jobs.queue.erase(tenant)
    assert sorted(await traces(jobs, other)) == sorted(others)
    state = await read(jobs.queue)
    assert state.jobs == {ref: job for ref, job in before.jobs.items() if ref[0] == other}
    assert set(state.of["gone"]) == {jobs.redis.names.gone(tenant)[-40:]}
    await jobs.queue.erase(other)
    assert await traces(jobs, tenant) == []
    assert not (await check(jobs.queue, jobs.now)).jobs


async def test_what_its_workers_say_afterwards_changes_nothing(jobs: Jobs, tenant: str):
    late = await fill(jobs, tenant)
    await jobs.queue.erase(tenant)
    leases = [(one.ref, one.fence) for one in late]
    assert await jobs.scripts.renew(LEASE, leases) == ["lost", "lost"]
    for how in ("succeeded", "dead", "retry", "cancelled"):
        assert await jobs.end(late, how, error="E", owed='{"tenant": "x"}') == [False, False]
    jobs.pass_time(LEASE)
    assert await jobs.claim() == []
    with pytest.raises(UnknownJob):
        await jobs.queue.cancel(tenant, late[0].job_id)
    with pytest.raises(UnknownJob):
        await jobs.queue.retry(tenant, "j3")
    assert await jobs.queue.purge(tenant) == 0
    assert not await jobs.queue.resume(tenant)
    await jobs.queue.backlog(tenant)
    assert await traces(jobs, tenant) == []
    await check(jobs.queue, jobs.now)


async def test_what_is_late_while_it_is_erased_changes_nothing_either(jobs: Jobs, tenant: str):
    """Between two calls of it, and after a sidecar that died in its middle."""
    late = await fill(jobs, tenant)
    erase = jobs.scripts.erase
    _, last = await erase(tenant, most=1, stone=60_000, last=None)
    assert await jobs.end(late[:1], "retry") == [False]
    await jobs.queue.cancel_waiting(tenant, "later")
    assert await jobs.scripts.revive(tenant, "j3") == ("unknown", 0)
    with pytest.raises(TenantErased):
        await jobs.queue.pause(tenant)
    jobs.pass_time(LEASE)
    assert await jobs.claim() == []
    assert not await jobs.redis.exists(jobs.redis.names.of("tenant", tenant))
    await jobs.queue.set_policy(tenant, UNKNOWN)
    await jobs.queue.purge(tenant)
    assert tenant not in (await read(jobs.queue)).one.get("wanted", ())
    await erase(tenant, most=2, stone=60_000, last=last)
    assert await jobs.end(late, "succeeded") == [False, False]
    await jobs.queue.erase(tenant)
    assert await traces(jobs, tenant) == []
    await check(jobs.queue, jobs.now)


async def test_a_new_life_that_begins_while_the_old_is_erased_keeps_its_jobs(jobs: Jobs, tenant):
    for nth in range(9):
        await jobs.add(tenant, f"old{nth}", defer_by=nth % 2)
    _, last = await jobs.scripts.erase(tenant, most=3, stone=60_000, last=None)
    await jobs.policy(tenant)
    left = 1
    while left:
        left, last = await jobs.scripts.erase(tenant, most=3, stone=60_000, last=last)
    await check(jobs.queue, jobs.now)
    await jobs.add(tenant, "new")
    again, _ = await jobs.scripts.erase(
        tenant, most=3, stone=60_000, last=last, jobs=["new", "old1"]
    )
    assert again == 1
    state = await check(jobs.queue, jobs.now)
    assert {job_id for _, job_id in state.jobs} == {"new"}
    assert ids(await jobs.claim()) == ["new"]


async def test_an_erased_tenant_takes_no_job_until_somebody_says_that_it_is_served(
    jobs: Jobs, tenant: str
):
    await jobs.policy(tenant)
    await jobs.queue.erase(tenant)
    with pytest.raises(TenantErased, match=tenant):
        await jobs.add(tenant)
    assert await traces(jobs, tenant) == []
    await jobs.queue.set_policy(tenant, UNKNOWN)
    with pytest.raises(TenantErased):
        await jobs.add(tenant)
    assert await traces(jobs, tenant) == []
    await jobs.policy(tenant)
    await jobs.add(tenant, "it")
    assert ids(await jobs.claim()) == ["it"]


async def test_a_sidecar_is_asked_and_the_enqueue_waits_for_what_it_says(jobs: Jobs, tenant: str):
    """As with a tenant that the default tier serves: it has no registration that would tell."""
    await jobs.policy(tenant)
    await jobs.queue.erase(tenant)
    await jobs.keeper(lives=True)
    adding = asyncio.create_task(jobs.add(tenant, "it"))
    assert await jobs.queue.wanted(timeout=20) == [tenant]
    await jobs.policy(tenant)
    assert await adding == "it"
    assert not (await check(jobs.queue, jobs.now)).one.get("wanted")


async def test_an_enqueue_that_no_sidecar_vouches_for_is_refused_and_leaves_nothing(
    jobs: Jobs, tenant: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(erased, "PATIENCE", 0.05)
    await jobs.policy(tenant)
    await jobs.queue.erase(tenant)
    await jobs.keeper(lives=True)
    with pytest.raises(TenantErased):
        await jobs.add(tenant)
    with pytest.raises(TenantErased):
        await jobs.queue.pause(tenant)
    assert await jobs.queue.wanted(timeout=20) == [tenant]
    await jobs.queue.set_policy(tenant, UNKNOWN)
    assert await traces(jobs, tenant) == []


async def test_jobs_that_a_tenant_had_before_queue_nothing_for_its_next_life(
    jobs: Jobs, tenant: str
):
    await jobs.policy(tenant)
    await jobs.add(tenant, "it")
    (before,) = await jobs.claim()
    await jobs.queue.erase(tenant)
    await jobs.policy(tenant)
    with running(jobs, tenant, before.fence), pytest.raises(TenantErased):
        await jobs.add(tenant, "late")
    with running(jobs, "beta", before.fence):
        await jobs.add(tenant, "it")
    (after,) = await jobs.claim()
    with running(jobs, tenant, after.fence):
        await jobs.add(tenant, "more")
    assert await jobs.end([before, after]) == [False, True]


async def test_it_does_not_matter_that_the_clock_is_set_back(jobs: Jobs, tenant: str):
    await jobs.policy(tenant)
    await jobs.add(tenant, "it")
    (before,) = await jobs.claim()
    await jobs.queue.erase(tenant)
    jobs.pass_time(-3_600_000)
    await jobs.policy(tenant)
    with running(jobs, tenant, before.fence), pytest.raises(TenantErased):
        await jobs.add(tenant)
    await jobs.add(tenant, "it")
    (after,) = await jobs.claim()
    with running(jobs, tenant, after.fence):
        await jobs.add(tenant)


async def test_a_policy_that_was_late_goes_with_the_word_that_nobody_serves_the_tenant(
    jobs: Jobs, tenant: str
):
    await jobs.policy(tenant)
    await jobs.queue.erase(tenant)
    await jobs.redis.zadd(jobs.redis.names.one("ends"), {tenant: 1.0})
    await jobs.policy(tenant, tier="pro")  # of a sidecar that has not heard yet
    await jobs.queue.set_policy(tenant, UNKNOWN)
    assert await traces(jobs, tenant) == []


async def test_a_policy_that_nobody_asked_for_does_not_bring_a_tenant_back(jobs: Jobs, tenant: str):
    """One of a sidecar that writes everyone's and had begun before; the default tier serves it."""
    await jobs.policy(tenant)
    await jobs.keeper(lives=True)
    await jobs.queue.erase(tenant)
    await jobs.redis.zadd(jobs.redis.names.one("ends"), {tenant: 1.0})
    await jobs.policy(tenant, tier="free")
    assert await traces(jobs, tenant) == []


async def test_whom_nobody_erased_is_held_as_before(jobs: Jobs):
    await jobs.queue.set_policy("acme", UNKNOWN)
    await jobs.add("acme")
    assert await jobs.claim() == []
    assert (await jobs.queue.backlog("acme")).held == "unknown"


async def test_a_great_many_jobs_go_in_calls_that_are_each_short(jobs: Jobs, tenant: str):
    """No call asks for more than some hundred of them; beta is served between."""
    count = 100_000 if SOAK else 3000
    await jobs.add_many(tenant, count)
    await jobs.claim(200)
    await jobs.add("beta", "it")
    calls: list[int] = []
    erase = jobs.scripts.erase

    async def counted(*args, **options):
        erased, last = await erase(*args, **options)
        calls.append(erased)
        return erased, last

    jobs.scripts.erase = counted
    await jobs.queue.erase(tenant)
    assert sum(calls) == count
    assert max(calls) <= 500
    assert await traces(jobs, tenant) == []
    assert ids(await jobs.claim()) == ["it"]


async def test_debts_of_others_stay_whatever_they_are(jobs: Jobs, tenant: str):
    names = jobs.redis.names
    ours = [json.dumps({"tenant": tenant, "key": nth}) for nth in range(700)]
    others = ["not json", "[]", '"text"', *(json.dumps({"tenant": "beta", "key": "k"}),) * 2]
    await jobs.redis.lpush(names.one("owed"), *ours[:300], *others, *ours[300:])
    await jobs.queue.erase(tenant)
    left = await jobs.redis.lrange(names.one("owed"), 0, -1)
    assert sorted(one.decode() for one in left) == sorted(others)


async def test_whoever_waits_for_an_erased_job_is_told_that_it_is_gone(jobs: Jobs, tenant: str):
    await jobs.add(tenant, "it")
    handle = job_of(jobs, tenant, "it")
    await jobs.queue.erase(tenant)
    assert await handle.status() == "not_found"


async def test_erasing_a_tenant_of_which_there_is_nothing_does_nothing_else(jobs: Jobs, tenant):
    await FairQueue(jobs.redis).erase(tenant)
    assert await traces(jobs, tenant) == []
    await check(jobs.queue, jobs.now)
