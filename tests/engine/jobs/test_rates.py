"""How many jobs may start in a window."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SOAK
from tests.engine.jobs.check import check
from tests.engine.jobs.driver import Jobs, open_jobs

pytestmark = pytest.mark.timeout(600 if SOAK else 120)
examples = settings(max_examples=300 if SOAK else 12)
# So long that the server, by its own clock, does not forget starts while a test runs.
windows = st.sampled_from([60, 100, 600])


def most_in(window: int, starts: list[int]) -> int:
    """The most starts in any closed interval of so many seconds."""
    return max(
        (sum(end - window * 1000 <= at <= end for at in starts) for end in starts), default=0
    )


@examples
@given(
    window=windows,
    quotas=st.tuples(st.integers(1, 8), st.integers(1, 20)),
    arrivals=st.lists(
        st.tuples(st.floats(0, 1.2), st.sampled_from([-1, 0, 1]), st.integers(0, 12)),
        min_size=10,
        max_size=40,
    ),
)
async def test_no_interval_of_a_window_holds_more_starts_than_its_quota(
    jobs_url, window, quotas, arrivals
):
    jobs = open_jobs(jobs_url)
    try:
        rates = ((quotas[0], window), (quotas[1], 3 * window))
        await jobs.policy("acme", rates=rates)
        await jobs.add_many("acme", 500)
        starts: list[int] = []
        for gap, nudge, slots in arrivals:
            jobs.pass_time(max(0, round(gap * window * 1000) + nudge))
            claimed = await jobs.claim(slots)
            starts += [jobs.now] * len(claimed)
            await jobs.end(claimed)
        for quota, seconds in rates:
            assert most_in(seconds, starts) <= quota
        await check(jobs.queue, jobs.now)
    finally:
        await jobs.clear()
        await jobs.redis.aclose()


async def test_under_a_lasting_backlog_nearly_all_of_the_quota_is_used(jobs: Jobs):
    """Whoever looks when a claim says it is worth it starts at least 95 % of what is allowed."""
    quota, window, windows = 40, 60, 30
    await jobs.policy("acme", rates=((quota, window),))
    await jobs.add_many("acme", quota * windows)
    begin, starts = jobs.now, 0
    while jobs.now < begin + windows * window * 1000:
        claims = await jobs.claims(7)
        starts += len(claims.jobs)
        await jobs.end(claims.jobs)
        if len(claims.jobs) < 7:
            assert claims.pause is not None
            jobs.pass_time(max(1, round(claims.pause * 1000)))
    assert starts >= 0.95 * quota * windows


async def test_a_claim_says_when_a_tenant_that_waits_for_its_rate_may_start(jobs: Jobs):
    await jobs.policy("acme", rates=((2, 60),))
    await jobs.add_many("acme", 5)
    first = await jobs.claims()
    assert len(first.jobs) == 2
    await jobs.end(first.jobs)
    claims = await jobs.claims()
    assert claims.jobs == []
    assert claims.pause is not None
    assert 60 <= claims.pause <= 60 * 33 / 32
    jobs.pass_time(round(claims.pause * 1000) - 1)
    assert await jobs.claim() == []
    jobs.pass_time(1)
    assert len(await jobs.claim()) == 2


async def test_a_clock_that_steps_back_does_not_reopen_the_past(jobs: Jobs):
    await jobs.policy("acme", rates=((3, 60),))
    await jobs.add_many("acme", 20)
    await jobs.end(await jobs.claim())
    jobs.pass_time(-600_000)
    assert await jobs.claim() == []
    jobs.pass_time(600_000 + 59_000)
    assert await jobs.claim() == []


async def test_a_clock_that_goes_to_and_fro_forgets_no_start(jobs: Jobs):
    await jobs.policy("acme", rates=((10, 60),))
    await jobs.add_many("acme", 50)
    started = 0
    for step, slots in ((0, 4), (-120_000, 3), (120_000, 1), (0, 100), (-1, 100), (1, 100)):
        jobs.pass_time(step)
        claimed = await jobs.claim(slots)
        started += len(claimed)
        await jobs.end(claimed)
    assert started == 10


async def test_a_clock_that_steps_back_after_the_quota_is_free_again_closes_it(jobs: Jobs):
    """What a tenant might have started at a later instant, it may not at an earlier one."""
    await jobs.policy("acme", rates=((3, 60),))
    await jobs.add_many("acme", 3)
    await jobs.end(await jobs.claim())
    jobs.pass_time(62_000)
    await jobs.add_many("acme", 3)
    jobs.pass_time(-60_000)
    assert await jobs.claim() == []
    jobs.pass_time(60_000)
    assert len(await jobs.claim()) == 3


async def test_a_raised_rate_counts_at_once(jobs: Jobs):
    await jobs.policy("acme", rates=((1, 60),))
    await jobs.add_many("acme", 5)
    assert len(await jobs.claim()) == 1
    await jobs.policy("acme", rates=((3, 60),))
    assert len(await jobs.claim()) == 2
    await jobs.policy("acme", rates=((2, 60),))
    assert await jobs.claim() == []
    await jobs.policy("acme")
    assert len(await jobs.claim()) == 2


async def test_a_rate_of_nothing_starts_nothing(jobs: Jobs):
    await jobs.policy("acme", rates=((0, 60),))
    await jobs.add("acme", "it")
    for _ in range(3):
        assert await jobs.claim() == []
        jobs.pass_time(60_000)
    await check(jobs.queue, jobs.now)
