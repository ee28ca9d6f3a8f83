"""The API of jobs in-process, on a queue and a database of each test's own."""

from collections.abc import AsyncIterator

import pytest

from partywall_workers.queue import FairQueue
from tests.support.api import ADMIN, Caller, api_with, hand_made_parts


@pytest.fixture
async def admin(database_url: str, jobs_queue: FairQueue) -> AsyncIterator[Caller]:
    """The API as the admin sees it; acme is registered."""
    async with hand_made_parts(database_url, jobs=jobs_queue) as parts:
        caller = Caller(api_with(parts), ADMIN)
        await caller.put("/v1/tenants/acme", {"tier": "pro"})
        yield caller
