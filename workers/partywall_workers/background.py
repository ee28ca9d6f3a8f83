"""What a worker does beside its jobs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.exceptions import RedisError

from partywall.errors import PartywallError
from partywall_workers.redis import FairRedis

logger = logging.getLogger("partywall.worker")


async def again_and_again(act: Callable[[], Awaitable[Any]], every: float) -> None:
    """Acts every so many seconds, until cancelled.

    A failure is said once, and the next time is another chance.
    """
    failing = False
    while True:
        await asyncio.sleep(every)
        try:
            await act()
            failing = False
        except Exception as exc:
            if not failing:
                known = isinstance(exc, RedisError | OSError | PartywallError)
                logger.warning("%s failed: %s", act.__name__, exc, exc_info=None if known else exc)
            failing = True


async def guarded(
    hook: Callable[..., Awaitable[Any]], ctx: Mapping[Any, Any], seconds: float | None
) -> None:
    """Calls a hook; what it raises, or takes longer than so many seconds, harms nobody."""
    try:
        async with asyncio.timeout(seconds):
            await hook(ctx)
    except BaseException as exc:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # not the hook's own doing
        logger.exception("a hook failed: %s", getattr(hook, "__qualname__", hook), exc_info=exc)


async def woken(
    redis: FairRedis, lanes: tuple[str, ...], seconds: float, stopped: asyncio.Event
) -> None:
    """Waits until there is work in one of the lanes, the time is over, or the worker is stopped."""
    commands: Any = redis  # redis-py's annotations are those of both its faces
    pop = commands.blpop([redis.names.of("wake", lane) for lane in lanes], seconds)
    taken = asyncio.ensure_future(pop)
    told = asyncio.ensure_future(stopped.wait())
    try:
        await asyncio.wait({taken, told}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
        if not taken.done():
            taken.cancel()
    if taken.done() and not taken.cancelled():
        taken.result()
