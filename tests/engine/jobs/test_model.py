"""Whatever happens to a queue: it is as a plain model says, whole, and fair."""

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.conftest import SOAK
from tests.engine.jobs.driver import Jobs, open_jobs
from tests.engine.jobs.world import TENANTS, World, busy_steps, generous, policies, steps

pytestmark = pytest.mark.timeout(1200 if SOAK else 120)
# Shrinking takes minutes; a failure tells its steps.
examples = settings(
    max_examples=1000 if SOAK else 30, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
all_tenants = len(TENANTS)


@examples
@given(policies=st.lists(policies, min_size=all_tenants, max_size=all_tenants), steps=steps)
async def test_a_queue_does_what_its_model_says_and_loses_nothing(jobs_url, policies, steps):
    jobs = open_jobs(jobs_url)
    try:
        world = World(jobs, policies)
        await world.run(steps)
        await world.drain()
    finally:
        await close(jobs)


@examples
@given(policies=st.lists(generous, min_size=all_tenants, max_size=all_tenants), steps=busy_steps)
async def test_backlogged_tenants_are_never_further_apart_than_their_dearest_jobs(
    jobs_url, policies, steps
):
    jobs = open_jobs(jobs_url)
    try:
        await World(jobs, policies).run_filled(steps)
    finally:
        await close(jobs)


async def close(jobs: Jobs) -> None:
    await jobs.clear()
    await jobs.redis.aclose()
