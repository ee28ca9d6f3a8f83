"""`TenantCache` beside bare redis-py, on the same Valkey, with the same values and TTLs."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from itertools import count, islice
from statistics import median

from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks import setup
from benchmarks.report import Row
from partywall.cache import TenantCache
from partywall.cache.store import Policy

TASKS = 16
CALLS = 1_000
ROUNDS = 15
KEYS = 1_000
VALUE = b"x" * 200
TTL = 600
EVICTING = "set that evicts"

Call = Callable[[int], Awaitable[object]]


async def run(stores: setup.Stores) -> list[Row]:
    """Rounds of each in turn, so that a noisy moment of the machine hits all alike."""
    beside = os.sched_getaffinity(0)
    os.sched_setaffinity(0, setup.MEASURED)
    try:
        pool = BlockingConnectionPool.from_url(stores.redis_url, max_connections=TASKS)
        async with Redis(connection_pool=pool) as client:
            await client.flushall()
            rows = await _measured(client)
            await client.flushall()
        await pool.aclose()
    finally:
        os.sched_setaffinity(0, beside)
    return rows


async def _measured(client: Redis) -> list[Row]:
    calls: dict[str, Call] = {
        "bare set": lambda n: client.set(f"bare:{n % KEYS}", VALUE, ex=TTL),
        "bare get": lambda n: client.get(f"bare:{n % KEYS}"),
    }
    for policy in ("refuse", "evict"):
        calls |= _calls_of(client, policy)
    numbers = count()
    rates: dict[str, list[float]] = {what: [] for what in calls}
    for call in calls.values():
        await _rate(call, numbers)  # every key is there before anything is measured
    for _ in range(ROUNDS):
        for what, call in calls.items():
            rates[what].append(await _rate(call, numbers))
    rows = []
    for what in [what for what in calls if not what.startswith("bare")]:
        operation = what[:3]
        bare = rates[f"bare {operation}"]
        ratio = median(a / b for a, b in zip(rates[what], bare, strict=True))
        named = f"TenantCache {what}, calls/s, {TASKS} tasks"
        wanted = "" if what == EVICTING else ">= 0.60"  # deletes a key besides: only printed
        ours, theirs = median(rates[what]), median(bare)
        rows.append(Row(named, ours, theirs, f"redis-py {operation}", ratio, wanted))
    return rows


def _calls_of(client: Redis, policy: Policy) -> dict[str, Call]:
    cache = TenantCache(client, limit=KEYS, policy=policy, ttl=TTL)
    tenant = f"tenant-{policy}"
    calls: dict[str, Call] = {
        f"set, policy {policy}": lambda n: cache.set(f"k{n % KEYS}", VALUE, tenant=tenant),
        f"get, policy {policy}": lambda n: cache.get(f"k{n % KEYS}", tenant=tenant),
    }
    if policy == "evict":
        full = f"{tenant}-full"
        calls[EVICTING] = lambda n: cache.set(f"k{n}", VALUE, tenant=full)
    return calls


async def _rate(call: Call, numbers: "count[int]") -> float:
    """Calls a second: of `TASKS` tasks, each making its next call when the last is answered."""
    todo = islice(numbers, CALLS)

    async def work() -> None:
        for number in todo:
            await call(number)

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(TASKS)))
    return CALLS / (time.perf_counter() - begun)
