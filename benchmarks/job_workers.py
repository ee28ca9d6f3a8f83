"""`python -m benchmarks.job_workers WORKER [OPTION=VALUE ...]`: one worker in its own process.

It tells the harness what its clock needs by a byte on stdout, which costs every peer the same: `r`
when it is about to take jobs, `s` when a `signal` job starts. A process imports its own peer alone.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, cast

import uvloop

Context = dict[Any, Any]

MAX_JOBS = 100
NAP = 0.005
"""Seconds that a `nap` job takes."""


async def noop(_ctx: Context) -> None:
    """Nothing: what is left is what the queue itself costs."""


async def nap(_ctx: Context) -> None:
    await asyncio.sleep(NAP)


async def signal(_ctx: Context) -> None:
    os.write(1, b"s")


async def ready(_ctx: Context) -> None:
    os.write(1, b"r")


FUNCTIONS = [noop, nap, signal]


def fair(url: str, _options: Mapping[str, str]) -> None:
    from partywall_workers.redis import FairRedis
    from partywall_workers.worker import FairWorker

    FairWorker(
        FUNCTIONS, redis_pool=FairRedis.from_url(url), on_startup=ready, max_jobs=MAX_JOBS
    ).run()


def arq(url: str, options: Mapping[str, str]) -> None:
    from arq.connections import RedisSettings
    from arq.worker import Worker

    Worker(
        cast("Any", FUNCTIONS),  # of its protocol in all but the name of `ctx`
        redis_settings=RedisSettings.from_dsn(url),
        on_startup=cast("Any", ready),
        max_jobs=MAX_JOBS,
        poll_delay=float(options.get("poll_delay", "0.5")),
    ).run()


def saq(url: str, options: Mapping[str, str]) -> None:
    from saq import Worker
    from saq.queue.redis import RedisQueue

    concurrency = int(options.get("concurrency", str(MAX_JOBS)))

    async def run() -> None:
        queue = RedisQueue.from_url(url)
        worker = Worker[Any](queue, FUNCTIONS, startup=ready, concurrency=concurrency)
        try:
            await worker.start()
        finally:
            await queue.disconnect()

    asyncio.get_event_loop().run_until_complete(run())


WORKERS: dict[str, Callable[[str, Mapping[str, str]], None]] = {
    "fair": fair,
    "arq": arq,
    "saq": saq,
}


def main() -> None:
    name, *given = sys.argv[1:]
    options = dict(option.split("=", 1) for option in given)
    logging.basicConfig(level=logging.WARNING)
    # Out of the box, all of them run on asyncio's own loop.
    make_loop = uvloop.new_event_loop if options.get("loop") == "uvloop" else asyncio.new_event_loop
    asyncio.set_event_loop(make_loop())
    WORKERS[name](os.environ["BENCH_REDIS_URL"], options)


if __name__ == "__main__":
    main()
