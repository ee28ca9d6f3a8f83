"""Reports of what a process counted, added to the counts that all share."""

import asyncio
from collections.abc import Callable

from redis.asyncio import Redis, RedisCluster

from partywall.protocol import TenantUsage, UsageReport
from partywall_service.engine.connect import answering_within
from partywall_service.usage import keys
from partywall_service.usage.scripts import AddScript

SHARDS_TO_A_CALL = 32
"""Where no cluster asks for one at a time. The largest report takes Redis some twenty milliseconds;
in eight calls it holds up the checks of others by three."""


class Adder:
    """Adds each report once, however often it is given, and by whichever sidecar.

    Where a part fails, the parts before it stay: the same report given again adds the rest.

    Args:
        client: from `connect`, or any redis-py client.
        prefix: what every key of this installation starts with.
        deadline: seconds until a call counts as failed.
        now: microseconds since the epoch in place of Redis's clock, for tests.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        *,
        prefix: str,
        deadline: float,
        now: Callable[[], int] | None = None,
    ) -> None:
        self._client = client
        self._deadline = deadline
        self._script = AddScript(prefix)
        self._side_by_side = isinstance(client, RedisCluster)
        self._span = 1 if self._side_by_side else SHARDS_TO_A_CALL
        self._now = now

    async def add(self, report: UsageReport) -> int:
        """How many of its tenants are counted, by this call or an earlier one; not the erased.

        Raises:
            StoreError: no answer within the deadline; all of it was added, or some, or nothing.
        """
        parts: dict[int, list[TenantUsage]] = {}
        for one in report.usage:
            first = keys.shard(one.tenant) // self._span * self._span
            parts.setdefault(first, []).append(one)
        if self._side_by_side:
            return sum(await asyncio.gather(*(self._add(report, *part) for part in parts.items())))
        return sum([await self._add(report, *part) for part in parts.items()])

    async def _add(self, report: UsageReport, first: int, usage: list[TenantUsage]) -> int:
        async with answering_within(self._deadline):
            return await self._script(
                self._client,
                usage,
                shard=first,
                instance=report.instance,
                sequence=report.sequence,
                age=report.age,
                now=None if self._now is None else self._now(),
            )
