"""Workers in a test's own process, on a queue of its own."""

import pytest

from partywall_workers.queue import FairQueue
from tests.servers.workers.working import Work


@pytest.fixture
def work(jobs_queue: FairQueue, valkey_url: str) -> Work:
    return Work(jobs_queue, valkey_url)
