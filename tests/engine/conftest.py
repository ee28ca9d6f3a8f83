"""Every engine behind one harness; a test that takes `harness` runs on each."""

import asyncio
from collections.abc import Iterator

import fakeredis
import pytest
from redis.asyncio import Redis, RedisCluster

from partywall_service.engine import keys
from partywall_service.engine.connect import connect
from partywall_service.engine.memory import MemoryEngine
from partywall_service.engine.redis import RedisEngine
from tests.conftest import SOAK
from tests.engine.harness import Harness

ENGINES = ["memory", "valkey", *(["fakeredis", "cluster"] if SOAK else [])]
"""fakeredis is slower than a server; test_equal.py has it in short runs, too."""


@pytest.fixture(params=ENGINES)
def harness(request: pytest.FixtureRequest, key_prefix: str) -> Iterator[Harness]:
    with asyncio.Runner() as runner:
        if request.param == "memory":
            yield memory_harness(runner)
            return
        if request.param == "fakeredis":
            client: Redis | RedisCluster = runner.run(_fake())
        elif request.param == "valkey":
            client = connect(request.getfixturevalue("valkey_url"))
        else:
            client = connect(request.getfixturevalue("valkey_cluster").url)
        try:
            yield redis_harness(request.param, runner, client, key_prefix)
        finally:
            runner.run(_leave(client, key_prefix))


def memory_harness(runner: asyncio.Runner) -> Harness:
    engine = MemoryEngine()

    async def decide(checks, now):
        return [engine.decide_now(check, now / 1_000_000) for check in checks]

    async def snapshot(tenant, rates):
        rings = [engine._rings.get((tenant, "requests", rate.window)) for rate in rates]
        return [dict(ring.charged) if ring else {} for ring in rings]

    return Harness("memory", runner, decide, snapshot)


def redis_harness(
    name: str, runner: asyncio.Runner, client: Redis | RedisCluster, prefix: str
) -> Harness:
    engine = RedisEngine(client, prefix=prefix, deadline=30)

    async def decide(checks, now):
        return await engine.decide(checks, now=now)

    async def snapshot(tenant, rates):
        names = [keys.window(prefix, tenant, "requests", rate.window) for rate in rates]
        return [await client.hgetall(name) for name in names]

    return Harness(name, runner, decide, snapshot)


async def _fake() -> Redis:
    return fakeredis.FakeAsyncRedis()


async def _keys(client: Redis | RedisCluster, prefix: str) -> list[bytes]:
    return [key async for key in client.scan_iter(match=f"{prefix}:*", count=1000)]


async def _leave(client: Redis | RedisCluster, prefix: str) -> None:
    """Every key a test made ends by itself; then they are taken away at once."""
    made = await _keys(client, prefix)
    endless = [key for key in made if await client.ttl(key) < 0]
    for key in made:
        await client.delete(key)
    await client.aclose()
    assert not endless, f"keys without an end: {endless}"
