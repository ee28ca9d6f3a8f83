"""`/v1/checks`: a hundred checks a request, beside the libraries that talk to Redis themselves."""

import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable
from statistics import median

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from throttled.asyncio import RedisStore, Throttled, per_min

from benchmarks import setup
from benchmarks.load import drive, post
from benchmarks.report import Row

CHECKS = 100
CONNECTIONS = 16
TASKS = 64
TENANTS = 1000
ROUNDS = 3
SECONDS = 2.0

Hit = Callable[[str], Awaitable[object]]


async def run(stores: setup.Stores) -> list[Row]:
    """Each in turn: the peers in a process on the measured core, as the sidecar is."""
    rates: dict[str, list[float]] = {"ours": [], "limits": [], "throttled": []}
    with setup.sidecar(stores) as url:
        requests = batches([f"tenant-{number}" for number in range(TENANTS)])
        await drive(url, requests, connections=CONNECTIONS, seconds=1)
        for _ in range(ROUNDS):
            load = await drive(url, requests, connections=CONNECTIONS, seconds=SECONDS)
            rates["ours"].append(load.rate * CHECKS)
            rates["limits"].append(await _peer(_limits, stores.redis_url))
            rates["throttled"].append(await _peer(_throttled, stores.redis_url))
    rows = []
    for name, beside, wanted in (
        ("limits", f"limits async moving window, {TASKS} tasks", ">= 4"),
        ("throttled", f"throttled-py async sliding window, {TASKS} tasks", ""),
    ):
        ratio = median(a / b for a, b in zip(rates["ours"], rates[name], strict=True))
        what = f"/v1/checks, checks/s, {CHECKS} a request"
        rows.append(Row(what, median(rates["ours"]), median(rates[name]), beside, ratio, wanted))
    return rows


def batches(tenants: list[str]) -> list[bytes]:
    """Requests of `CHECKS` checks that go through all tenants in turn."""
    return [
        post(
            "/v1/checks",
            json.dumps(
                [{"tenant": tenants[(at + n) % len(tenants)]} for n in range(CHECKS)]
            ).encode(),
            setup.TOKEN,
        )
        for at in range(0, max(len(tenants), CHECKS), CHECKS)
    ]


async def _peer(make: Callable[[str], Hit], redis_url: str) -> float:
    """Hits a second of a peer in a process of its own."""
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe(duplex=False)
    process = context.Process(target=_run_peer, args=(make, redis_url, child))
    process.start()
    child.close()
    try:
        rate: float = await asyncio.to_thread(parent.recv)
    finally:
        process.join()
    return rate


def _run_peer(make: Callable[[str], Hit], redis_url: str, result: object) -> None:
    import uvloop

    os.sched_setaffinity(0, setup.MEASURED)
    result.send(uvloop.run(_hit_for(make, redis_url)))  # type: ignore[attr-defined] # a Connection


async def _hit_for(make: Callable[[str], Hit], redis_url: str) -> float:
    hit = make(redis_url)
    hits = 0
    end = 0.0

    async def task(number: int) -> None:
        nonlocal hits
        at = number * TENANTS // TASKS
        while time.perf_counter() < end:
            await hit(f"tenant-{at % TENANTS}")
            hits += 1
            at += 1

    for seconds in (0.5, SECONDS):  # the first warms up
        hits = 0
        begun = time.perf_counter()
        end = begun + seconds
        await asyncio.gather(*(task(number) for number in range(TASKS)))
    return hits / (time.perf_counter() - begun)


def _limits(redis_url: str) -> Hit:
    storage = RedisStorage(
        f"async+{redis_url.replace('unix://', 'redis+unix://')}", implementation="redispy"
    )
    limiter = MovingWindowRateLimiter(storage)
    item = RateLimitItemPerMinute(10_000_000)
    return lambda tenant: limiter.hit(item, tenant)


def _throttled(redis_url: str) -> Hit:
    store = RedisStore(server=redis_url)
    throttle = Throttled(using="sliding_window", quota=per_min(10_000_000), store=store)
    return throttle.limit
