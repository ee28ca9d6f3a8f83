"""A tenant's jobs, where there is a queue."""

from collections.abc import AsyncIterator
from typing import Any

from partywall_service.jobs.connect import NoServer, clear
from partywall_workers.answering import answering_within
from partywall_workers.queue import FairQueue

DEADLINE = 5.0
"""Seconds for one call."""


class TenantJobs:
    """The jobs of tenants in one queue; any method raises `QueueUnavailable`.

    Args:
        queue: the installation's.
    """

    def __init__(self, queue: FairQueue) -> None:
        self._queue = queue
        self._commands: Any = queue.redis  # redis-py's annotations are those of both its faces

    async def count(self, tenant: str) -> int:
        """How many there are, finished ones too."""
        if isinstance(self._queue.redis.connection_pool, NoServer):
            return 0
        async with answering_within(DEADLINE):
            return int(await self._commands.zcard(self._queue.redis.names.of("all", tenant)))

    async def told(self, tenant: str) -> AsyncIterator[dict[str, Any]]:
        """All that the queue keeps of the tenant, but for counts of usage."""
        if not isinstance(self._queue.redis.connection_pool, NoServer):
            async for row in self._queue.export(tenant):
                yield row

    async def erase(self, tenant: str) -> None:
        """Removes them, and all else that the queue knows of the tenant."""
        await clear(self._queue, tenant)
