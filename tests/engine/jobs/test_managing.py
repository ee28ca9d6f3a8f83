"""What an operator does with a tenant's jobs: revive, purge, pause, look."""

import pytest

from partywall_workers.errors import InvalidJob, JobConflict, QueueFull, UnknownJob
from tests.engine.jobs.check import check
from tests.engine.jobs.driver import KEEP, Jobs, ids, job_of


async def test_a_dead_job_is_revived_with_all_its_tries(jobs: Jobs):
    await jobs.policy("acme", max_queued=1)
    await jobs.add("acme", "it", args=["kept"], expires=10)
    for _ in range(2):
        await jobs.end(await jobs.claim(), "retry", error="ValueError: no", ran=True)
    (claimed,) = await jobs.claim()
    await jobs.end(claimed, "dead", error="ValueError: no", traceback="...", result=b"{}")
    dead = await jobs.get("acme", "it")
    assert (dead.status, dead.attempts, dead.error) == ("dead", 3, "ValueError: no")

    await jobs.add("acme", "filler")
    with pytest.raises(QueueFull):
        await jobs.queue.retry("acme", "it")
    assert await jobs.status("acme", "it") == "dead"
    await jobs.queue.purge("acme")
    jobs.pass_time(60_000)
    revived = await jobs.queue.retry("acme", "it")
    assert (revived.status, revived.attempts, revived.error) == ("queued", 0, None)
    assert revived.finished_at is None
    await check(jobs.queue, jobs.now)
    (again,) = await jobs.claim()
    assert (again.job_id, again.attempts, again.expired) == ("it", 1, False)
    assert again.payload == claimed.payload
    with pytest.raises(JobConflict, match="running"):
        await jobs.queue.retry("acme", "it")
    with pytest.raises(UnknownJob):
        await jobs.queue.retry("acme", "other")


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
async def test_only_dead_jobs_are_revived(jobs: Jobs, status: str):
    await jobs.add("acme", "it")
    await jobs.end(await jobs.claim(), status)
    with pytest.raises(JobConflict, match=status):
        await jobs.queue.retry("acme", "it")


async def test_purge_cancels_what_waits_and_leaves_what_runs(jobs: Jobs):
    await jobs.add("acme", "runs")
    (running,) = await jobs.claim()
    await jobs.add("acme", "waits")
    await jobs.add("acme", "later", defer_by=60)
    await jobs.add("beta", "others")
    assert await jobs.queue.purge("acme") == 2
    assert await jobs.queue.purge("acme") == 0
    assert await jobs.status("acme", "waits") == "cancelled"
    assert await jobs.status("acme", "later") == "cancelled"
    assert ids(await jobs.claim()) == ["others"]
    assert await jobs.end(running) == [True]
    await check(jobs.queue, jobs.now)


async def test_what_is_enqueued_during_a_purge_stays_and_all_before_it_goes(jobs: Jobs):
    """However much it is, and although it stands before what is purged."""
    for nth in range(30):
        await jobs.add("acme", f"old{nth}", priority=nth % 10, defer_by=nth % 3 * 60)
    purged, last = await jobs.scripts.purge("acme", most=10, keep=KEEP, last=None)
    assert purged == 10
    for nth in range(30):
        await jobs.add("acme", f"new{nth}", priority=9, defer_by=nth % 3 * 10)
    while True:
        some, last = await jobs.scripts.purge("acme", most=10, keep=KEEP, last=last)
        if not some:
            break
        purged += some
    assert purged == 30
    state = await check(jobs.queue, jobs.now)
    assert {job_id for _, job_id in state.unfinished()} == {f"new{nth}" for nth in range(30)}


async def test_a_paused_tenant_starts_nothing_and_goes_on_where_it_was(jobs: Jobs):
    for nth in range(4):
        await jobs.add("acme", f"j{nth}")
    (running,) = await jobs.claim(1)
    assert await jobs.queue.pause("acme")
    assert await jobs.queue.pause("acme")
    assert await jobs.queue.paused("acme")
    assert (await jobs.queue.backlog("acme")).paused
    assert await jobs.claim() == []
    assert await jobs.end(running, "retry") == [True]
    assert await jobs.claim() == []
    assert not await jobs.queue.resume("acme")
    assert not await jobs.queue.paused("acme")
    assert ids(await jobs.claim()) == ["j0", "j1", "j2", "j3"]


async def test_a_tenant_is_paused_before_it_has_a_job_or_a_policy(jobs: Jobs):
    await jobs.queue.pause("acme")
    await jobs.add("acme", "it")
    await jobs.policy("acme")
    assert await jobs.claim() == []
    await check(jobs.queue, jobs.now)
    await jobs.queue.resume("acme")
    assert ids(await jobs.claim()) == ["it"]


async def test_pages_tell_every_job_once_the_last_first(jobs: Jobs):
    for nth in range(7):
        await jobs.add("acme", f"j{nth}")
    await jobs.end((await jobs.claim(3))[0], "dead")
    pages, after = [], None
    while True:
        page, after = await jobs.queue.list("acme", after=after, limit=3)
        pages.append([job.job_id for job in page])
        if after is None:
            break
    assert pages == [["j6", "j5", "j4"], ["j3", "j2", "j1"], ["j0"]]
    for status, expected in {
        "running": ["j2", "j1"],
        "dead": ["j0"],
        "queued": ["j6", "j5", "j4", "j3"],
        "failed": [],
    }.items():
        page, after = await jobs.queue.list("acme", status=status)
        assert ([job.job_id for job in page], after) == (expected, None)
    assert await jobs.queue.list("beta") == ([], None)
    with pytest.raises(InvalidJob, match="cursor"):
        await jobs.queue.list("acme", after="-1")


async def test_numbers_of_a_tenant_are_those_of_its_jobs(jobs: Jobs):
    await jobs.policy("acme", tier="pro", weight=2, concurrency=3, max_queued=100)
    for nth in range(5):
        await jobs.add("acme", f"j{nth}")
        jobs.pass_time(1000)
    await jobs.add("acme", "later", defer_by=60)
    first, second, _ = await jobs.claim()
    await jobs.end(first, "retry", delay=5000)
    await jobs.end(second, "dead")
    backlog = await jobs.queue.backlog("acme")
    assert (backlog.queued, backlog.deferred, backlog.running, backlog.dead) == (2, 2, 1, 1)
    assert (backlog.claims, backlog.retries, backlog.died, backlog.expired) == (3, 1, 1, 0)
    assert backlog.oldest_wait == 2
    assert (backlog.tier, backlog.weight, backlog.concurrency) == ("pro", 2, 3)
    assert await jobs.queue.backlogs() == [backlog]
    assert await jobs.queue.busy() == 1
    assert (await jobs.queue.counts())["pro"] == {"claims": 3, "retries": 1, "dead": 1}


async def test_a_finished_job_that_is_not_to_be_kept_leaves_nothing(jobs: Jobs):
    await jobs.add("acme", "it")
    await jobs.end(await jobs.claim(), keep=0)
    with pytest.raises(UnknownJob):
        await jobs.get("acme", "it")
    assert await job_of(jobs, "acme", "it").status() == "not_found"
    state = await check(jobs.queue, jobs.now)
    assert not state.of["all"]
    assert not state.arq["job"]


@pytest.mark.parametrize("step", ["cancel", "purge"])
async def test_a_tenant_that_never_started_anything_leaves_no_key_for_ever(jobs: Jobs, step: str):
    await jobs.keeper(lives=True)
    await jobs.add("acme", "it", defer_by=60)
    await jobs.add("acme", "other")
    if step == "purge":
        await jobs.queue.purge("acme")
    else:
        await jobs.queue.cancel("acme", "it")
        await jobs.queue.cancel("acme", "other")
    state = await check(jobs.queue, jobs.now)
    assert {key for key, ttl in state.ttl.items() if ttl < 0} <= {
        ("clock",),
        ("counts",),
        ("wanted",),
        ("keeper:wake",),
        ("wake", "default"),  # a lane's, not the tenant's
    }
