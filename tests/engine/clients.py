"""Servers by name, for tests that run one body on each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import fakeredis
import pytest
from redis.asyncio import Redis, RedisCluster

from partywall_service.engine.connect import connect

SERVERS = ["fakeredis", "valkey"]


@asynccontextmanager
async def connected(
    name: str, request: pytest.FixtureRequest, prefix: str
) -> AsyncIterator[Redis | RedisCluster]:
    """A client of the server; afterwards every key under the prefix must have had an end."""
    made: Redis | RedisCluster
    if name == "fakeredis":
        made = fakeredis.FakeAsyncRedis()
    elif name == "valkey":
        made = connect(request.getfixturevalue("valkey_url"))
    else:
        made = connect(request.getfixturevalue("valkey_cluster").url)
    try:
        yield made
    finally:
        keys = [key async for key in made.scan_iter(match=f"{prefix}:*", count=1000)]
        endless = [key for key in keys if await made.ttl(key) == -1]
        for key in keys:
            await made.delete(key)
        await made.aclose()
    assert not endless, f"keys without an end: {endless}"
