"""That a worker lives, and which functions it has, for who enqueues and who watches."""

from collections.abc import Collection, Sequence
from typing import Any

from partywall_workers.queue import FUNCTION_LIVES, WORKER_LIVES
from partywall_workers.redis import FairRedis


class Presence:
    """The signs of life of one worker.

    Args:
        redis: the queue's client.
        worker_id: as no other worker has it.
        lanes: that it serves.
        functions: that may be enqueued for it.
    """

    def __init__(
        self,
        redis: FairRedis,
        worker_id: str,
        lanes: Sequence[str],
        functions: Collection[str],
    ) -> None:
        self._redis: Any = redis  # redis-py's annotations are those of both its faces
        self._names = redis.names
        self._worker_id = worker_id
        self._lanes = lanes
        self._functions = functions

    async def show(self) -> None:
        """Shows it, for `WORKER_LIVES` and `FUNCTION_LIVES` seconds; forgets who has long gone."""
        seconds, _ = await self._redis.time()
        now = seconds * 1000
        functions = self._names.one("functions")
        async with self._redis.pipeline(transaction=False) as pipe:
            for lane in self._lanes:
                key = self._names.of("workers", lane)
                pipe.zadd(key, {self._worker_id: now})
                pipe.zremrangebyscore(key, "-inf", now - 2 * WORKER_LIVES * 1000)
                pipe.expire(key, int(2 * WORKER_LIVES))
            for name in self._functions:
                pipe.hset(functions, name, now)
            pipe.expire(functions, int(FUNCTION_LIVES))
            pipe.hgetall(functions)
            *_, seen = await pipe.execute()
        oldest = now - FUNCTION_LIVES * 1000
        gone = [name for name, at in seen.items() if float(at) < oldest]
        if gone:
            await self._redis.hdel(functions, *gone)

    async def leave(self) -> None:
        """Says that it has gone."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for lane in self._lanes:
                pipe.zrem(self._names.of("workers", lane), self._worker_id)
                # It may have been woken for something that it leaves undone.
                pipe.lpush(self._names.of("wake", lane), 1)
                pipe.ltrim(self._names.of("wake", lane), 0, 0)
            await pipe.execute()
