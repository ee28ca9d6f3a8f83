"""A queue of each test's own on the run's Valkey, in a database where no other keys are.

So a look at all of its keys costs little.
"""

from collections.abc import AsyncIterator

import pytest

from tests.engine.jobs.driver import Jobs, open_jobs

_DATABASE = 9


@pytest.fixture
def jobs_url(valkey_url: str) -> str:
    return f"{valkey_url}?db={_DATABASE}"


@pytest.fixture
async def jobs(jobs_url: str) -> AsyncIterator[Jobs]:
    one = open_jobs(jobs_url)
    yield one
    await one.clear()
    await one.redis.aclose()
