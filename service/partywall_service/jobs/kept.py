"""What the queue's Redis has of the policies: whose there are, and when they end.

A sidecar that wrote a policy may be gone when an override in it ends. So the instant is kept beside
the policies, where every other sidecar finds it.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.exceptions import RedisError

from partywall.deadline import within
from partywall_workers.errors import QueueUnavailable
from partywall_workers.redis import FairRedis

MOST_DUE = 500
"""Ends told of at once; the others are still there when these are dealt with."""


class KeptPolicies:
    """The policies of one queue; every call may raise `QueueUnavailable`.

    Args:
        redis: the queue's.
        deadline: seconds until a call counts as failed.
    """

    def __init__(self, redis: FairRedis, *, deadline: float = 5.0) -> None:
        self._redis: Any = redis  # redis-py's annotations are those of both its faces
        self._names = redis.names
        self._ends = redis.names.one("ends")  # a sorted set: tenant → seconds since the epoch
        self._deadline = deadline

    async def known(self, tenants: Sequence[str]) -> Collection[str]:
        """Those of `tenants` of whom there is a policy."""
        async with self._answering(), self._redis.pipeline(transaction=False) as pipe:
            for tenant in tenants:
                pipe.hexists(self._names.of("tenant", tenant), "policy")
            there = await pipe.execute() if tenants else []
        return {tenant for tenant, kept in zip(tenants, there, strict=True) if kept}

    async def note(self, ends: Mapping[str, float | None]) -> None:
        """Notes when each tenant's policy ends, in seconds since the epoch; None: by no instant."""
        ending = {tenant: end for tenant, end in ends.items() if end is not None}
        lasting = [tenant for tenant in ends if tenant not in ending]
        async with self._answering():
            if ending:
                await self._redis.zadd(self._ends, ending)
            if lasting:
                await self._redis.zrem(self._ends, *lasting)

    async def ended(self, now: float) -> tuple[list[str], float | None]:
        """Those whose policy has ended, earliest first; and the next end, if there is one."""
        async with self._answering():
            past = await self._redis.zrangebyscore(self._ends, "-inf", now, 0, MOST_DUE)
            coming = await self._redis.zrangebyscore(
                self._ends, f"({now!r}", "+inf", 0, 1, withscores=True
            )
        return [tenant.decode() for tenant in past], coming[0][1] if coming else None

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with within(self._deadline):
                yield
        except TimeoutError as exc:
            raise QueueUnavailable(
                f"the queue's Redis did not answer within {self._deadline:g} s"
            ) from exc
        except (RedisError, OSError) as exc:
            raise QueueUnavailable(f"the queue's Redis failed: {exc}") from exc
