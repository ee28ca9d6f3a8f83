"""Whose turn it is: shares by weight and cost, and nobody behind another's backlog."""

from collections import Counter

import pytest

from tests.engine.jobs.check import check
from tests.engine.jobs.driver import Jobs, owners
from tests.engine.jobs.model import COST


async def turns(jobs: Jobs, starts: int, slots: int = 1) -> list[str]:
    """Whose jobs start, one after another, where each ends before the next `slots` start."""
    seen: list[str] = []
    while len(seen) < starts:
        claimed = await jobs.claim(min(slots, starts - len(seen)))
        assert claimed
        seen += owners(claimed)
        assert all(await jobs.end(claimed))
    return seen


async def test_starts_are_in_proportion_to_weights(jobs: Jobs, soak: bool):
    starts = 8000 if soak else 800
    weights = {"one": 1, "two": 2, "five": 5}
    for tenant, weight in weights.items():
        await jobs.policy(tenant, weight=weight)
        await jobs.add_many(tenant, starts)
    taken = Counter(await turns(jobs, starts, slots=20))
    for tenant, weight in weights.items():
        assert taken[tenant] == pytest.approx(starts * weight / 8, rel=0.01)


async def test_shares_are_of_cost_and_not_of_jobs(jobs: Jobs):
    await jobs.add_many("cheap", 300)
    await jobs.add_many("dear", 300, ["cost7"])
    taken = Counter(await turns(jobs, 240))
    assert taken["cheap"] == pytest.approx(7 * taken["dear"], abs=7)


async def test_jobs_of_many_names_get_no_more_than_jobs_of_one(jobs: Jobs):
    await jobs.add_many("one", 100)
    await jobs.add_many("many", 100, [f"work{nth}" for nth in range(50)])
    assert Counter(await turns(jobs, 100)) == {"one": 50, "many": 50}


async def test_who_was_idle_earns_no_credit_and_who_was_alone_no_debt(jobs: Jobs):
    await jobs.add_many("early", 300)
    await turns(jobs, 200, slots=50)
    await jobs.add_many("late", 100)
    seen = await turns(jobs, 100)
    assert all(
        abs(seen[:end].count("early") - seen[:end].count("late")) <= 2 for end in range(1, 101)
    )


async def test_letting_ones_queue_run_empty_earns_nothing(jobs: Jobs):
    """A tenant that enqueues its next job when the last has ended starts no more than its share."""
    await jobs.add_many("steady", 200)
    await jobs.add("coming")
    seen: list[str] = []
    for _ in range(100):
        seen += await turns(jobs, 1)
        if seen[-1] == "coming":
            await jobs.add("coming")
    assert seen.count("coming") == pytest.approx(50, abs=1)


async def test_a_tenant_at_its_cap_after_each_start_gets_its_share(jobs: Jobs):
    await jobs.policy("capped", concurrency=1)
    await jobs.add_many("capped", 200)
    await jobs.add_many("steady", 200)
    assert Counter(await turns(jobs, 100)) == {"capped": 50, "steady": 50}


async def test_a_changed_weight_counts_from_the_next_start(jobs: Jobs):
    for tenant in ("acme", "beta"):
        await jobs.policy(tenant)
        await jobs.add_many(tenant, 400)
    assert Counter(await turns(jobs, 100)) == {"acme": 50, "beta": 50}
    await jobs.policy("acme", weight=3)
    taken = Counter(await turns(jobs, 100))
    assert taken["acme"] == pytest.approx(75, abs=2)
    await jobs.policy("acme", weight=0.5)
    taken = Counter(await turns(jobs, 99))
    assert taken["acme"] == pytest.approx(33, abs=4)


async def test_a_victim_behind_ten_thousand_jobs_is_among_the_next_free_slots(jobs: Jobs):
    """With 100 slots taken: before it, at most one job of each active tenant starts."""
    await jobs.add_many("noisy", 10_000)
    for nth in range(4):
        await jobs.add_many(f"other{nth}", 50, list(COST))
    held = await jobs.claim(100)
    assert len(held) == 100
    await jobs.add("victim", "it")
    before: list[str] = []
    while not before or before[-1] != "victim":
        assert await jobs.end(held.pop()) == [True]
        (claimed,) = await jobs.claim(1)
        before.append(claimed.tenant)
        assert len(before) <= 6
    assert max(Counter(before).values()) == 1


async def test_a_thousand_tenants_with_one_job_each_all_start_before_anybodys_second(jobs: Jobs):
    await jobs.add_many("noisy", 1000)
    await turns(jobs, 10)
    for nth in range(1000):
        await jobs.add(f"small{nth}", "it")
    seen = await turns(jobs, 1002, slots=100)
    assert seen.count("noisy") <= 2


async def test_no_slot_is_free_while_a_tenant_may_start_one(jobs: Jobs):
    await jobs.policy("capped", concurrency=3)
    await jobs.policy("paused")
    await jobs.queue.pause("paused")
    for tenant in ("capped", "paused", "free"):
        await jobs.add_many(tenant, 20)
    assert Counter(owners(await jobs.claim(20))) == {"capped": 3, "free": 17}
    assert Counter(owners(await jobs.claim(20))) == {"free": 3}
    assert await jobs.claim(20) == []


async def test_lanes_are_served_in_the_order_a_worker_names_them(jobs: Jobs):
    await jobs.policy("acme", lane="fast")
    await jobs.policy("beta", lane="slow")
    for tenant in ("acme", "beta", "corp"):
        await jobs.add_many(tenant, 2)
    assert owners(await jobs.claim(3, lanes=["slow", "fast"])) == ["beta", "beta", "acme"]
    assert owners(await jobs.claim(9, lanes=["slow", "fast"])) == ["acme"]
    assert owners(await jobs.claim(9)) == ["corp", "corp"]


async def test_a_tenant_that_changes_its_lane_takes_its_jobs_along(jobs: Jobs):
    for tenant in ("acme", "beta"):
        await jobs.policy(tenant)
        await jobs.add_many(tenant, 60)
    await turns(jobs, 60)
    await jobs.policy("acme", lane="dedicated")
    await check(jobs.queue, jobs.now)
    assert owners(await jobs.claim(2)) == ["beta", "beta"]
    assert owners(await jobs.claim(3, lanes=["dedicated"])) == ["acme"] * 3
    await jobs.policy("acme")
    await check(jobs.queue, jobs.now)
    assert await jobs.claim(1, lanes=["dedicated"]) == []
    assert set(owners(await jobs.claim(4))) == {"acme", "beta"}


async def test_what_a_tenant_took_in_one_lane_is_no_debt_in_another(jobs: Jobs):
    await jobs.policy("acme", lane="dedicated")
    await jobs.add_many("acme", 300)
    await jobs.claim(200, lanes=["dedicated"])
    await jobs.policy("acme")
    await jobs.add_many("beta", 100)
    assert Counter(await turns(jobs, 100)) == {"acme": 50, "beta": 50}
