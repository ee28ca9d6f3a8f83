"""Removing all that a queue keeps of a tenant, in calls that are each short."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from arq.constants import in_progress_key_prefix, job_key_prefix, result_key_prefix

from partywall_workers.keys import ABORT
from partywall_workers.redis import FairRedis

REMEMBERED = 86_400_000
"""Milliseconds for which what is late for a tenant finds that it was erased."""

_CHUNK = 200
"""Jobs, or debts, in one call, which holds the server up for some 2 ms."""

_SCANNED = 2000
"""Keys looked at in one call."""

Answering = Callable[[], AbstractAsyncContextManager[None]]
"""What each call runs in, where Redis's failures are told."""


async def erase(redis: FairRedis, tenant: str, answering: Answering) -> None:
    """As `FairQueue.erase`."""
    scripts = redis.scripts
    erased, last = 1, None
    while erased:
        async with answering():
            erased, last = await scripts.erase(tenant, most=_CHUNK, stone=REMEMBERED, last=last)
    await _drop_owed(redis, tenant, answering)
    async with answering():
        await _forget_aborts(redis, tenant)
    # What no list has: answers, and jobs that ended by a clock that was wrong for a while.
    cursor, begun = 0, False
    while cursor or not begun:
        begun = True
        async with answering():
            cursor, answers, jobs = await _found(redis, tenant, cursor)
            if answers:
                await redis.unlink(*answers)
        for start in range(0, len(jobs), _CHUNK):
            some = jobs[start : start + _CHUNK]
            async with answering():
                await scripts.erase(tenant, most=_CHUNK, stone=REMEMBERED, last=last, jobs=some)


async def _drop_owed(redis: FairRedis, tenant: str, answering: Answering) -> None:
    commands: Any = redis  # redis-py's annotations are those of both its faces
    async with answering():
        left = await commands.llen(redis.names.one("owed"))
    while left > 0:
        async with answering():
            await redis.scripts.drop_owed(tenant, min(left, _CHUNK))
        left -= _CHUNK


async def _forget_aborts(redis: FairRedis, tenant: str) -> None:
    """Of jobs that were not there: anybody may flag what he likes."""
    commands: Any = redis
    ours = redis.names.arq_id(tenant, "").encode()
    flags = [flag for flag in await commands.zrange(ABORT, 0, -1) if flag.startswith(ours)]
    if flags:
        await commands.zrem(ABORT, *flags)


async def _found(redis: FairRedis, tenant: str, cursor: int) -> tuple[int, list[bytes], list[str]]:
    """A part of all keys: the next cursor, and of this tenant's answers to POSTs and jobs' ids."""
    commands: Any = redis
    names = redis.names
    of_jobs = tuple(
        start.encode()
        for start in (
            names.job(tenant, ""),
            *(
                prefix + names.arq_id(tenant, "")
                for prefix in (job_key_prefix, result_key_prefix, in_progress_key_prefix)
            ),
        )
    )
    answer = f"{names.of('answer', tenant)}:".encode()
    cursor, keys = await commands.scan(cursor, match=f"*:{tenant}:*", count=_SCANNED)
    jobs = {
        key.removeprefix(start).decode()
        for start in of_jobs
        for key in keys
        if key.startswith(start)
    }
    return cursor, [key for key in keys if key.startswith(answer)], sorted(jobs)
