"""Who else is there: sidecars and SDK processes last seen alive, whose numbers set the shares."""

import time
from collections.abc import Callable
from itertools import islice

from redis.asyncio import Redis, RedisCluster

from partywall_service.engine import keys
from partywall_service.engine.connect import answering_within
from partywall_service.engine.scripts import Script

SILENCE = 5
"""Seconds after which a silent sidecar counts as gone: several missed beats, not one."""

SDK_SILENCE = 30
"""Seconds after which a silent SDK process does: one whose app has nothing to ask says nothing."""

MOST_TOLD = 1000
"""SDK processes that one beat tells of; the others wait for the next. The beat stays short."""

MOST_SEEN = MOST_TOLD * SDK_SILENCE
"""SDK processes that a sidecar remembers: all that it could tell of before they count as gone."""


class Presence:
    """This sidecar's heartbeat in Redis, and that of the SDK processes that ask it.

    Attributes:
        instances: sidecars alive at the last beat that reached Redis, this one included. It stays
            as it was through an outage: a share that moved would open its windows anew.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        instance: str,
        *,
        prefix: str,
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._instance = instance
        self._keys = [keys.instances(prefix, "sidecars"), keys.instances(prefix, "sdk")]
        self._deadline = deadline
        self._clock = clock
        self._script = Script("beat")
        self._seen: dict[str, float] = {}  # when last, the longest silent first
        self._untold: dict[str, None] = {}  # seen since Redis was told of them, as a set in order
        self._sdk_alive = 0
        self.instances = 1

    @property
    def sdk_instances(self) -> int:
        """SDK processes alive, at least 1: what Redis last counted, or more if more asked here."""
        return max(1, self._sdk_alive, len(self._seen))

    def saw(self, instance: str) -> None:
        """Notes that an SDK process lives."""
        if self._seen.pop(instance, None) is None and len(self._seen) >= MOST_SEEN:
            return
        self._seen[instance] = self._clock()
        self._untold[instance] = None

    async def beat(self) -> None:
        """Tells Redis that this sidecar lives, and whom it saw.

        Raises:
            StoreError: Redis did not take it within the deadline.
        """
        self._forget_silent()
        told = list(islice(self._untold, MOST_TOLD))
        async with answering_within(self._deadline):
            sidecars, sdk = await self._script(
                self._client, self._keys, [self._instance, SILENCE, SDK_SILENCE, *told]
            )
        for instance in told:
            self._untold.pop(instance, None)
        self.instances, self._sdk_alive = int(sidecars), int(sdk)

    def _forget_silent(self) -> None:
        before = self._clock() - SDK_SILENCE
        while self._seen:
            instance, last = next(iter(self._seen.items()))
            if last > before:
                return
            del self._seen[instance]
            self._untold.pop(instance, None)
