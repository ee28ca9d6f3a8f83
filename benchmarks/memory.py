"""What the windows take in Valkey, beside `limits`' moving window, which logs every admission."""

import time

from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis

from benchmarks import setup
from benchmarks.report import Row
from partywall_service.engine import keys
from partywall_service.engine.base import Check
from partywall_service.engine.redis import RedisEngine
from partywall_service.policy.model import Rate

TENANTS = 100_000
BATCH = 1000
MINUTE = 60_000_000


async def run(stores: setup.Stores) -> list[Row]:
    """Five admissions a tenant, and ten thousand of one, spread over a one-minute window."""
    async with Redis.from_url(stores.redis_url) as client:
        engine = RedisEngine(client, prefix="mem", deadline=30)
        await _empty(client)
        empty = await _used(client)
        start = time.time_ns() // 1000 - MINUTE
        rates = (Rate(100, 60),)
        for round_ in range(5):
            now = start + round_ * MINUTE // 5
            for first in range(0, TENANTS, BATCH):
                batch = [Check(f"tenant-{first + n}", "requests", rates) for n in range(BATCH)]
                await engine.decide(batch, now=now)
        ours = await _used(client) - empty

        await _empty(client)
        empty = await _used(client)
        limiter = MovingWindowRateLimiter(
            RedisStorage(stores.redis_url.replace("unix://", "redis+unix://"))
        )
        item = RateLimitItemPerMinute(100)
        for tenant in range(TENANTS):
            for _ in range(5):
                limiter.hit(item, f"tenant-{tenant}")
        theirs = await _used(client) - empty
        many = Row(
            f"bytes in Valkey, {TENANTS:,} tenants, 5 admitted each in a minute",
            ours,
            theirs,
            "limits moving window",
            ours / theirs,
        )

        await _empty(client)
        hot = (Rate(10_000, 60),)
        for moment in range(10_000):
            check = Check("hot", "requests", hot)
            await engine.decide([check], now=start + moment * MINUTE // 10_000)
        ours = await client.memory_usage(keys.window("mem", "hot", "requests", 60))
        item = RateLimitItemPerMinute(10_000)
        for _ in range(10_000):
            limiter.hit(item, "hot")
        [key] = [key async for key in client.scan_iter(match="LIMITS*hot*")]
        theirs = await client.memory_usage(key, samples=0)
        await _empty(client)
    one = Row(
        "bytes in Valkey, one tenant, 10,000 admitted in a minute",
        ours,
        theirs,
        "limits moving window",
        ours / theirs,
    )
    return [many, one]


async def _empty(client: "Redis[bytes]") -> None:
    """Empties it before it answers: memory freed in the background would count as ours."""
    await client.execute_command("FLUSHALL", "SYNC")


async def _used(client: "Redis[bytes]") -> int:
    used: int = (await client.info("memory"))["used_memory"]
    return used
