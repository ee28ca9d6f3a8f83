"""Fair jobs beside stock arq and SAQ: throughput, latency when idle, a victim's wait, claims.

Every worker runs in a process of its own on the measured core. The harness and Valkey are beside
it, and look at all peers in the same way.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping
from statistics import median

from redis.asyncio import Redis

from benchmarks import job_claims, setup
from benchmarks.job_peers import (
    ARQ,
    ARQ_QUICK,
    FAIR,
    FAIR_UVLOOP,
    NOISY,
    SAQ,
    SAQ_BEST,
    TENANTS,
    VICTIM,
    Peer,
    fill,
    running,
    until,
)
from benchmarks.job_workers import MAX_JOBS
from benchmarks.report import Row

JOBS = 10_000
ROUNDS = 3
SINGLES = 50
"""Jobs sent to an idle worker."""

UNDER_WAY = 200
"""Jobs of the noisy tenant that are done when the victim's arrives."""

Figures = Mapping[Peer, list[float]]


async def run(stores: setup.Stores) -> list[Row]:
    """The four measurements, one after the other."""
    url = stores.redis_url
    async with Redis.from_url(url) as redis:
        return [
            *await _rates(redis, url),
            *await _idle(redis, url),
            *await _victims(redis, url),
            *await job_claims.rows(url),
        ]


async def _rates(redis: Redis, url: str) -> list[Row]:
    """Jobs a second, from when a worker may take the first until none is left.

    In turn, so that a noisy moment hits all alike.
    """
    peers = [FAIR, ARQ, ARQ_QUICK, SAQ, SAQ_BEST, FAIR_UVLOOP]
    jobs = [(TENANTS[number % len(TENANTS)], "noop") for number in range(JOBS)]
    rates: dict[Peer, list[float]] = {peer: [] for peer in peers}
    for _ in range(ROUNDS):
        for peer in peers:
            await redis.flushdb()
            await fill(peer, url, jobs)
            async with running(peer, url) as worker:
                rates[peer].append(JOBS / (await until(redis, peer, 0) - worker.ready_at))
    what = f"no-op jobs/s, one worker, max_jobs={MAX_JOBS}, {JOBS:,} queued"
    return [
        _row(what, rates, FAIR, ARQ, ">= 2.5"),
        _row(what, rates, FAIR, ARQ_QUICK),
        _row(what, rates, FAIR, SAQ, ">= 1"),
        _row(what, rates, FAIR, SAQ_BEST),
        _row(f"{what}, on uvloop", rates, FAIR_UVLOOP, SAQ_BEST),
    ]


async def _idle(redis: Redis, url: str) -> list[Row]:
    """Milliseconds from the call that enqueues until the job starts, one job at a time."""
    peers = [FAIR, ARQ, SAQ]
    await redis.flushdb()
    waits: dict[Peer, list[float]] = {peer: [] for peer in peers}
    async with contextlib.AsyncExitStack() as stack:
        workers = {
            peer: (
                await stack.enter_async_context(peer.client(url)),
                await stack.enter_async_context(running(peer, url)),
            )
            for peer in peers
        }
        for _ in range(SINGLES):
            for peer, (enqueue, worker) in workers.items():
                # At any moment of a polling worker's period alike.
                await asyncio.sleep(random.uniform(0, 0.5))
                start = time.perf_counter()
                await enqueue(TENANTS[0], "signal")
                waits[peer].append((await worker.hear(b"s") - start) * 1e3)
    what = "idle worker, median ms from enqueue to start"
    return [_row(what, waits, FAIR, ARQ, "<= 0.05"), _row(what, waits, FAIR, SAQ)]


async def _victims(redis: Redis, url: str) -> list[Row]:
    """Milliseconds until one job starts that was enqueued behind a noisy tenant's backlog."""
    peers = [FAIR, ARQ, SAQ]
    noise = [(NOISY, "nap")] * JOBS
    waits: dict[Peer, list[float]] = {peer: [] for peer in peers}
    for _ in range(ROUNDS):
        for peer in peers:
            await redis.flushdb()
            await fill(peer, url, noise)
            async with running(peer, url) as worker, peer.client(url) as enqueue:
                await until(redis, peer, JOBS - UNDER_WAY)
                start = time.perf_counter()
                await enqueue(VICTIM, "signal")
                waits[peer].append((await worker.hear(b"s") - start) * 1e3)
    what = f"victim's wait, ms, behind {JOBS:,} jobs of 5 ms, max_jobs={MAX_JOBS}"
    return [_row(what, waits, FAIR, peer) for peer in peers[1:]]


def _row(what: str, figures: Figures, ours: Peer, theirs: Peer, wanted: str = "") -> Row:
    a, b = figures[ours], figures[theirs]
    ratio = median(mine / peers for mine, peers in zip(a, b, strict=True))
    return Row(what, median(a), median(b), theirs.name, ratio, wanted)
