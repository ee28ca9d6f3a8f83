"""Batches of what one script call can carry: on a cluster, one shard's keys."""

from typing import Generic

from redis.asyncio import Redis, RedisCluster

from partywall_service.engine.batching import Answer, Asked, Batcher, Decides
from partywall_service.engine.keys import shard


class ShardedBatcher(Generic[Asked, Answer]):
    """A batcher; on a cluster one for each shard, so that a lost node fails its own tenants only.

    Args:
        client: a server's, or a cluster's.
        engine: makes the calls.
    """

    def __init__(self, client: Redis | RedisCluster, engine: Decides[Asked, Answer]) -> None:
        self._engine = engine
        self._by_shard = isinstance(client, RedisCluster)
        self._batchers: dict[int, Batcher[Asked, Answer]] = {}

    async def decide(self, tenant: str, asked: list[Asked]) -> list[Answer]:
        """One answer for each question of one tenant, in order; all in one call.

        Raises:
            StoreError: the call that carried them failed.
        """
        number = shard(tenant) if self._by_shard else 0
        batcher = self._batchers.get(number)
        if batcher is None:
            batcher = self._batchers[number] = Batcher(self._engine)
        return await batcher.decide(asked)
