"""Who else is deciding: the sidecars last seen alive, whose number sets the local share."""

from redis.asyncio import Redis, RedisCluster

from partywall_service.engine import keys
from partywall_service.engine.connect import answering_within
from partywall_service.engine.scripts import Script

SILENCE = 5
"""Seconds after which a silent sidecar counts as gone: several missed beats, not one."""


class Presence:
    """This sidecar's heartbeat in Redis.

    Attributes:
        instances: sidecars alive at the last beat that reached Redis, this one included. It stays
            as it was through an outage: a share that moved would open its windows anew.
    """

    def __init__(
        self, client: Redis | RedisCluster, instance: str, *, prefix: str, deadline: float
    ) -> None:
        self._client = client
        self._instance = instance
        self._key = keys.instances(prefix)
        self._deadline = deadline
        self._script = Script("beat")
        self.instances = 1

    async def beat(self) -> None:
        """Tells Redis that this sidecar lives.

        Raises:
            StoreError: Redis did not take it within the deadline.
        """
        async with answering_within(self._deadline):
            alive = await self._script(self._client, [self._key], [self._instance, SILENCE])
        self.instances = int(alive)
