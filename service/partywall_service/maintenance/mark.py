"""The mark that maintenance jobs leave in the queue's Redis, so that sidecars need not do them."""

from redis.asyncio import Redis
from redis.exceptions import RedisError

from partywall.deadline import within

LASTS = 5
"""Seconds without a sweep by the jobs after which sidecars sweep for themselves. The jobs run every
second."""

DEADLINE = 1.0
"""Seconds that Redis has to tell."""


class Mark:
    """Whether the maintenance jobs ran lately.

    Args:
        redis: the queue's.
        queue: its name; the key is `<queue>:maintained`.
    """

    def __init__(self, redis: Redis, queue: str) -> None:
        self._redis = redis
        self._key = f"{queue}:maintained"

    async def leave(self) -> None:
        """Says that they ran now.

        Raises:
            redis.RedisError: Redis did not answer.
        """
        await self._redis.set(self._key, b"1", ex=LASTS)

    async def is_there(self) -> bool:
        """Whether they ran lately; no, when Redis does not tell."""
        try:
            async with within(DEADLINE):
                return bool(await self._redis.exists(self._key))
        except (TimeoutError, RedisError, OSError):
            return False
