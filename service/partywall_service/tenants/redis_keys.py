"""All keys of one tenant in the Redis of limits: windows, leases, quotas, counts of usage.

Their names are not known beforehand, as those of limits that the policy once had, or of leases. So
they are looked for among all keys, some at a time: a second for each few million.
"""

from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis, RedisCluster

from partywall_service.engine.connect import answering_within
from partywall_service.engine.keys import of_tenant
from partywall_service.usage.scripts import BuryScript

LOOKED_AT = 2000
"""Keys that one call looks at: half a millisecond of the server's."""

DEADLINE = 2.0
"""Seconds for one call. Nobody's check waits for it, and a busy server must not look like none."""


class TenantKeys:
    """The keys of tenants in one Redis.

    Any method raises `StoreError` when Redis does not answer.

    Args:
        client: from `connect`, or any redis-py client.
        prefix: what every key of this installation starts with.
    """

    def __init__(self, client: Redis | RedisCluster, *, prefix: str = "pw") -> None:
        self._client = client
        self._prefix = prefix
        self._bury = BuryScript(prefix)

    async def erase(self, tenant: str) -> int:
        """Removes them, and leaves a tombstone for what is late, which does not tell whose it is.

        Returns:
            How many there were.
        """
        async with answering_within(DEADLINE):
            removed = int(await self._bury(self._client, tenant))
        async for names in self._found(tenant):
            async with answering_within(DEADLINE):
                removed += int(await self._client.unlink(*names))
        return removed

    async def _found(self, tenant: str) -> AsyncIterator[list[bytes]]:
        """The names of its keys, some at a time, perhaps one of them twice."""
        # Neither ids nor prefixes have characters that a pattern would take for others.
        pattern = f"{of_tenant(self._prefix, tenant)}:*"
        async for names in self._scan(pattern):
            if names:
                yield names

    async def _scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        if isinstance(self._client, RedisCluster):
            async with answering_within(DEADLINE):
                await self._client.initialize()
            # Every node: while a shard moves, two have a part of it.
            for node in self._client.get_primaries():
                cursor: Any = 0
                while cursor is not None:
                    async with answering_within(DEADLINE):
                        cursors, names = await self._client.scan(
                            cursor, match=pattern, count=LOOKED_AT, target_nodes=node
                        )
                    cursor = next(iter(cursors.values())) or None
                    yield names
            return
        cursor = 0
        while cursor is not None:
            async with answering_within(DEADLINE):
                cursor, names = await self._client.scan(cursor, match=pattern, count=LOOKED_AT)
            cursor = cursor or None
            yield names
