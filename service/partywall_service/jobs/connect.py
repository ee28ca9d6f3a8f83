"""The queue of jobs: on a Redis of its own connections, or nowhere, which says why."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from partywall_service.engine.connect import connect, disconnect
from partywall_workers.keys import queue_name
from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis

PING_DEADLINE = 0.5
"""Seconds the queue's Redis has to answer a readiness probe."""

NO_CLUSTER = (
    "jobs need a single Redis server, or Sentinel's, and there is only a cluster: "
    "PARTYWALL_JOBS_REDIS_URL must name one"
)


class NoServer(ConnectionPool):
    """Stands where no server can be: every command fails, and says why."""

    async def get_connection(self, *_: object, **__: object) -> NoReturn:
        """Fails."""
        raise RedisConnectionError(NO_CLUSTER)


def can_queue(url: str) -> bool:
    """Whether jobs can be queued there: their scripts reach keys that no cluster has together."""
    return not urlsplit(url).scheme.endswith("+cluster")


@asynccontextmanager
async def open_queue(
    url: str, *, prefix: str, keep: float, metering: bool = True
) -> AsyncIterator[FairQueue]:
    """The queue at `url`, with connections of its own; its calls fail where that is a cluster.

    Args:
        url: as `engine.connect.connect` takes it.
        prefix: what every Redis key of this installation starts with.
        keep: seconds that finished jobs are kept.
        metering: whether scripts count what tenants' jobs come to, once the keeper has asked.

    Raises:
        RedisUrlError: the URL cannot be read.
    """
    client = connect(url)
    try:
        pool = client.connection_pool if isinstance(client, Redis) else NoServer()
        redis = FairRedis(pool, default_queue_name=queue_name(prefix))
        yield FairQueue(redis, keep=keep, metering=metering)
    finally:
        await disconnect(client)


async def clear(queue: FairQueue, tenant: str) -> None:
    """Erases a tenant's jobs and what else the queue has of it, where there is one.

    While the directory still knows the tenant it can come back; so this is for when it does not,
    or to be done once more then.

    Raises:
        QueueUnavailable: Redis did not answer; it may have been done in part.
    """
    if not isinstance(queue.redis.connection_pool, NoServer):
        await queue.erase(tenant)


async def answers(queue: FairQueue) -> bool:
    """Whether the queue's Redis answers; where there is none, nothing is failing."""
    if isinstance(queue.redis.connection_pool, NoServer):
        return True
    try:
        async with asyncio.timeout(PING_DEADLINE):
            await queue.redis.ping()
    except (TimeoutError, RedisError, OSError):
        return False
    return True
