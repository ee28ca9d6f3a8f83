"""Who holds a job: leases that run out, and words that come too late."""

import pytest

from partywall_workers.errors import JobConflict, UnknownJob
from tests.engine.jobs.check import check
from tests.engine.jobs.driver import KEEP, LEASE, Jobs, ids


async def test_a_job_whose_worker_died_runs_again_after_its_lease(jobs: Jobs):
    await jobs.policy("acme", concurrency=1)
    await jobs.add("acme", "it")
    (first,) = await jobs.claim()
    claims = await jobs.claims()
    assert claims.jobs == []
    assert claims.pause == LEASE / 1000
    jobs.pass_time(LEASE - 1)
    assert await jobs.claim() == []
    jobs.pass_time(1)
    (second,) = await jobs.claim()
    assert (second.job_id, second.attempts, second.ran) == ("it", 2, True)
    assert second.fence != first.fence
    assert (await jobs.queue.backlog("acme")).expired == 1
    await check(jobs.queue, jobs.now)


async def test_a_renewed_lease_does_not_run_out(jobs: Jobs):
    await jobs.add("acme", "it")
    (claimed,) = await jobs.claim()
    for _ in range(5):
        jobs.pass_time(LEASE - 1)
        assert await jobs.scripts.renew(LEASE, [(claimed.ref, claimed.fence)]) == ["renewed"]
        assert await jobs.claim() == []
    assert await jobs.end(claimed) == [True]


async def test_a_lost_lease_is_not_renewed(jobs: Jobs):
    await jobs.add("acme", "it")
    (first,) = await jobs.claim()
    jobs.pass_time(LEASE)
    (second,) = await jobs.claim()
    leases = [(first.ref, first.fence), (second.ref, second.fence)]
    assert await jobs.scripts.renew(LEASE, leases) == ["lost", "renewed"]
    await jobs.end(second)
    assert await jobs.scripts.renew(LEASE, leases) == ["lost", "lost"]
    await check(jobs.queue, jobs.now)


@pytest.mark.parametrize("how", ["succeeded", "failed", "dead", "cancelled", "retry"])
async def test_a_late_word_changes_nothing(jobs: Jobs, how: str):
    """Not after the job was taken back, started again, ended, nor after its id was used anew."""
    await jobs.add("acme", "it")
    (late,) = await jobs.claim()
    jobs.pass_time(LEASE)
    await jobs.claim(0)  # taken back
    assert await jobs.status("acme", "it") == "retrying"
    assert await jobs.end(late, how, result=b'{"r": "late"}') == [False]
    (second,) = await jobs.claim()
    assert await jobs.end(late, how) == [False]
    assert await jobs.status("acme", "it") == "running"
    assert await jobs.end(second, keep=0) == [True]
    assert await jobs.end(late, how) == [False]
    assert await jobs.end(second, how) == [False]
    await jobs.add("acme", "it")
    assert await jobs.end([late, second], how) == [False, False]
    (anew,) = await jobs.claim()
    assert await jobs.end([late, second], how) == [False, False]
    assert await jobs.end(anew, result=b'{"r": "anew"}') == [True]
    assert (await jobs.get("acme", "it")).result == "anew"
    await check(jobs.queue, jobs.now)


async def test_a_word_after_the_lease_counts_while_nobody_has_taken_the_job_back(jobs: Jobs):
    await jobs.add("acme", "it")
    (claimed,) = await jobs.claim()
    jobs.pass_time(LEASE + 1)
    assert await jobs.end(claimed) == [True]
    assert await jobs.claim() == []
    assert await jobs.status("acme", "it") == "succeeded"


async def test_many_lost_leases_are_all_taken_back(jobs: Jobs):
    await jobs.policy("acme", concurrency=250)
    await jobs.add_many("acme", 300)
    assert len(await jobs.claim(300)) == 250
    jobs.pass_time(LEASE)
    again: list[str] = []
    for _ in range(10):
        again += ids(await jobs.claim(300))
        await check(jobs.queue, jobs.now)
    assert len(again) == len(set(again)) == 250


async def test_retries_wait_as_told_and_keep_their_place(jobs: Jobs):
    for nth in range(3):
        await jobs.add("acme", f"j{nth}")
    first, second, third = await jobs.claim()
    await jobs.end(second, "retry", error="ValueError: no", traceback="where", ran=True)
    await jobs.end(first, "retry", delay=5000, refused=True, consumed=True, uncounted=True)
    await jobs.end(third)
    (again,) = await jobs.claim()
    assert (again.job_id, again.attempts, again.ran) == ("j1", 2, True)
    record = await jobs.get("acme", "j1")
    assert (record.error, record.traceback) == ("ValueError: no", "where")
    assert await jobs.status("acme", "j0") == "deferred"
    jobs.pass_time(5000)
    (later,) = await jobs.claim()
    assert (later.job_id, later.attempts) == ("j0", 1)
    assert (later.refusals, later.consumed, later.ran) == (1, True, False)


async def test_a_waiting_job_is_cancelled_at_once(jobs: Jobs):
    await jobs.add("acme", "queued")
    await jobs.add("acme", "deferred", defer_by=60)
    await jobs.add("acme", "retrying", priority=9)
    await jobs.end(await jobs.claim(1), "retry", delay=1000, ran=True)
    for job_id in ("queued", "deferred", "retrying"):
        assert await jobs.status("acme", job_id) == job_id
        record = await jobs.queue.cancel("acme", job_id)
        assert record.status == "cancelled"
        assert record.finished_at == jobs.now
    assert await jobs.claim() == []
    state = await check(jobs.queue, jobs.now)
    assert not state.unfinished()


async def test_a_running_job_is_cancelled_by_its_worker(jobs: Jobs):
    await jobs.add("acme", "it")
    (claimed,) = await jobs.claim()
    record = await jobs.queue.cancel("acme", "it", wait=0)
    assert record.status == "running"
    assert await jobs.scripts.renew(LEASE, [(claimed.ref, claimed.fence)]) == ["cancel"]
    await check(jobs.queue, jobs.now)
    assert await jobs.end(claimed, "cancelled") == [True]
    assert await jobs.status("acme", "it") == "cancelled"
    await check(jobs.queue, jobs.now)


@pytest.mark.parametrize("how", ["succeeded", "failed", "dead"])
async def test_a_job_that_ends_before_it_could_be_cancelled_has_ended_so(jobs: Jobs, how: str):
    await jobs.add("acme", "it")
    (claimed,) = await jobs.claim()
    await jobs.queue.cancel("acme", "it", wait=0)
    assert await jobs.end(claimed, how) == [True]
    assert await jobs.status("acme", "it") == how
    state = await check(jobs.queue, jobs.now)
    assert not state.abort
    with pytest.raises(JobConflict, match=how):
        await jobs.queue.cancel("acme", "it")


@pytest.mark.parametrize("uncounted", [False, True])
async def test_a_job_to_be_cancelled_is_not_tried_again(jobs: Jobs, uncounted: bool):
    await jobs.add("acme", "it")
    (claimed,) = await jobs.claim()
    await jobs.queue.cancel("acme", "it", wait=0)
    assert await jobs.end(claimed, "retry", uncounted=uncounted) == [True]
    assert await jobs.status("acme", "it") == "cancelled"
    await check(jobs.queue, jobs.now)


async def test_a_job_to_be_cancelled_whose_worker_died_is_cancelled(jobs: Jobs):
    await jobs.add("acme", "it")
    (claimed,) = await jobs.claim()
    await jobs.queue.cancel("acme", "it", wait=0)
    jobs.pass_time(LEASE)
    assert await jobs.claim() == []
    assert await jobs.status("acme", "it") == "cancelled"
    assert await jobs.end(claimed) == [False]
    await check(jobs.queue, jobs.now)


async def test_a_revived_job_that_was_once_to_be_cancelled_is_not_any_more(jobs: Jobs):
    await jobs.add("acme", "it")
    (claimed,) = await jobs.claim()
    await jobs.queue.cancel("acme", "it", wait=0)
    await jobs.end(claimed, "dead")
    await jobs.queue.retry("acme", "it")
    (again,) = await jobs.claim()
    assert await jobs.scripts.renew(LEASE, [(again.ref, again.fence)]) == ["renewed"]
    assert await jobs.end(again, "retry") == [True]
    assert await jobs.status("acme", "it") == "retrying"


async def test_cancelling_a_job_that_is_not_there_poisons_nothing(jobs: Jobs):
    await jobs.redis.zadd("arq:abort", {jobs.redis.names.arq_id("acme", "it"): jobs.now})
    with pytest.raises(UnknownJob):
        await jobs.queue.cancel("acme", "it")
    await jobs.add("acme", "it")
    state = await check(jobs.queue, jobs.now)
    assert not state.abort
    (claimed,) = await jobs.claim()
    assert await jobs.end(claimed) == [True]


async def test_quota_items_of_a_job_that_never_ran_are_owed_when_it_is_cancelled(jobs: Jobs):
    for nth, end in enumerate(("cancel", "purge")):
        await jobs.add("acme", end)
        (claimed,) = await jobs.claim()
        await jobs.end(claimed, "retry", consumed=True, owed=f"items{nth}", delay=1000)
    await jobs.queue.cancel("acme", "cancel")
    await jobs.queue.purge("acme")
    state = await check(jobs.queue, jobs.now)
    assert sorted(state.one["owed"]) == ["items0", "items1"]


async def test_results_and_records_end_when_their_time_is_over(jobs: Jobs):
    """Each by itself, also if nobody ever calls again."""
    for nth, keep in enumerate((KEEP, 2 * KEEP)):
        await jobs.add("acme", f"j{nth}")
        await jobs.end(await jobs.claim(), keep=keep, result=b'{"r": 1}')
    state = await check(jobs.queue, jobs.now)
    for kind in ("hash", "result"):
        for nth, keep in enumerate((KEEP, 2 * KEEP)):
            assert keep - 60_000 < state.ttl[kind, "acme", f"j{nth}"] <= keep
    assert state.ttl["all", "acme"] > 2 * KEEP - 60_000
