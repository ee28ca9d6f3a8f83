"""What Redis and its driver raise, as callers of a queue are told it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from partywall_workers.errors import QueueUnavailable


@asynccontextmanager
async def answering_within(seconds: float) -> AsyncIterator[None]:
    """The one place where it becomes `QueueUnavailable`.

    Args:
        seconds: for everything inside.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        raise QueueUnavailable(f"the queue's Redis did not answer within {seconds:g} s") from exc
    except (RedisError, OSError) as exc:
        raise QueueUnavailable(f"the queue's Redis failed: {exc}") from exc
