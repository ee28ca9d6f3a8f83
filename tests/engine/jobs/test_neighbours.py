"""A tenant that may not start anything costs those beside it nothing, whatever it has queued."""

from collections.abc import Iterator

import pytest

from partywall_service.embedded import ValkeyServer
from tests.engine.jobs.driver import Jobs, open_jobs, owners

_STATES = {
    "capped": {"concurrency": 2},
    "paused": {},
    "limited": {"rates": ((2, 3600),)},
    "suspended": {"held": "suspended"},
}


@pytest.fixture
async def alone(own_valkey: ValkeyServer) -> Iterator[Jobs]:
    """A queue on a server whose statistics are nobody else's."""
    jobs = open_jobs(own_valkey.url)
    yield jobs
    await jobs.redis.aclose()


async def commands_of_a_round(jobs: Jobs) -> dict[str, int]:
    """Commands that one claim of ten and their releases run inside Redis."""
    await jobs.redis.config_resetstat()
    claimed = await jobs.claim(10)
    assert sorted(set(owners(claimed))) == ["one", "two"]
    assert len(claimed) == 10
    assert all(await jobs.end(claimed))
    stats = await jobs.redis.info("commandstats")
    return {name: one["calls"] for name, one in stats.items()}


@pytest.mark.parametrize("state", _STATES)
async def test_a_stopped_tenant_with_a_backlog_costs_its_neighbours_nothing(
    alone: Jobs, state: str, soak: bool
):
    jobs = alone
    for tenant in ("one", "two"):
        await jobs.policy(tenant)
        await jobs.add_many(tenant, 30)
    await jobs.claim(2)
    await commands_of_a_round(jobs)
    without = await commands_of_a_round(jobs)

    await jobs.policy("stopped", **_STATES[state])
    if state == "paused":
        await jobs.queue.pause("stopped")
    await jobs.add_many("stopped", 100_000 if soak else 5000)
    starts = [one for one in await jobs.claim(4) if one.tenant == "stopped"]
    assert len(starts) == (2 if state in ("capped", "limited") else 0)
    assert await commands_of_a_round(jobs) == without
