"""Telling Redis how tries ended, many at a time."""

import asyncio
import logging
import time
from collections import deque
from contextvars import Context

from redis.exceptions import RedisError

from partywall_workers.scripts import Outcome, Scripts

_MOST = 500
"""Outcomes in one call."""

PATIENCE = 5.0
"""Seconds for one call. Said twice, an outcome is taken once: its fence tells."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0

logger = logging.getLogger("partywall.worker")

_Waiting = tuple[Outcome, float, "asyncio.Future[bool]"]


class Releases:
    """Outcomes that gather while a call is under way, and go with the next.

    Args:
        scripts: of the queue.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._waiting: deque[_Waiting] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def release(self, outcome: Outcome, *, until: float) -> bool:
        """Says how a try ended; tries again while Redis does not answer.

        Args:
            outcome: of the try.
            until: when to give up, by `time.monotonic`.

        Returns:
            Whether it was still ours to say. False also where Redis did not answer for so long
            that it is not any more.
        """
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((outcome, until, told))
        if self._sender is None:
            # It speaks for many jobs, and is no part of this one.
            self._sender = asyncio.get_running_loop().create_task(self._send(), context=Context())
        return await told

    async def _send(self) -> None:
        pause = _FIRST_PAUSE
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_MOST, len(self._waiting)))]
                if await self._told(batch):
                    pause = _FIRST_PAUSE
                else:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            self._sender = None

    async def _told(self, batch: list[_Waiting]) -> bool:
        """Tells of a batch; False: Redis did not answer, and those not given up wait again."""
        try:
            async with asyncio.timeout(PATIENCE):
                answers = await self._scripts.release([outcome for outcome, *_ in batch])
        except (RedisError, OSError) as exc:
            logger.warning("%d outcomes are not told yet: %s", len(batch), exc or "no answer")
            self._waiting.extendleft(reversed([one for one in batch if not _given_up(one)]))
            return False
        except Exception as exc:  # noqa: BLE001 - it is raised where the outcome was to be told
            if len(batch) > 1:  # one of them cannot be told: the others can
                for one in batch:
                    await self._told([one])
            elif not batch[0][2].done():
                batch[0][2].set_exception(exc)
            return True
        for (_, _, told), ours in zip(batch, answers, strict=True):
            if not told.done():
                told.set_result(ours)
        return True


def _given_up(one: _Waiting) -> bool:
    _, until, told = one
    if time.monotonic() < until:
        return False
    if not told.done():
        told.set_result(False)
    return True
