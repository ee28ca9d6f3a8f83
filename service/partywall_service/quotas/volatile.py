"""Resources that live in Redis alone: one script step an operation, all of its items or none.

Their arithmetic is that of `book.py`, in Lua. There is no ledger of them, and what they hold is as
lasting as the Redis they are in.
"""

import time
from collections.abc import Callable, Mapping

from redis.asyncio import Redis, RedisCluster

from partywall_service.quotas.model import Operation, Outcome, QuotaState, Terms
from partywall_service.quotas.script import Read, VolatileScript
from partywall_service.quotas.shards import ShardedBatcher


class VolatileQuotas:
    """Quotas in Redis; what callers ask at once shares a call.

    Args:
        client: from `connect`, or any redis-py client.
        prefix: what every key of this installation starts with.
        deadline: seconds until a call counts as failed.
        clock: seconds since the epoch. Only a guess at Redis's, which decides.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        *,
        prefix: str = "pw",
        deadline: float = 0.05,
        clock: Callable[[], float] = time.time,
    ) -> None:
        script = VolatileScript(client, prefix=prefix, deadline=deadline, clock=clock)
        self._batcher = ShardedBatcher[Operation | Read, Outcome](client, script)

    async def apply(self, operation: Operation) -> Outcome:
        """Does an operation on resources that live here.

        Raises:
            StoreError: Redis did not answer; under an idempotency key a repetition tells what was
                done, without one it may be done twice.
        """
        return (await self._batcher.decide(operation.tenant, [operation]))[0]

    async def read(self, tenant: str, terms: Mapping[str, Terms]) -> list[QuotaState]:
        """Their quotas, in the order of `terms`.

        Raises:
            StoreError: Redis did not answer.
        """
        return list((await self._batcher.decide(tenant, [Read(tenant, terms)]))[0].quotas)
