"""Keeping what we run ours: leases, renewed long before they run out."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from redis.exceptions import RedisError

from partywall_workers.scripts import Claimed, Scripts

Reason = Literal["aborted", "lost", "stopping"]
"""Why a try is cancelled: somebody asked for it; it is not ours any more; the worker ends."""

RENEWALS = 3
"""In a lease."""

_PATIENCE = 6
"""Parts of a lease that one call may take, and ten times as many that pass before the next try."""

logger = logging.getLogger("partywall.worker")


@dataclass(slots=True)
class _Held:
    claimed: Claimed
    until: float
    cancel: Callable[[Reason], None]


class Leases:
    """The leases of one worker.

    Args:
        scripts: of the queue.
        seconds: that a lease lasts.
    """

    def __init__(self, scripts: Scripts, seconds: float) -> None:
        self._scripts = scripts
        self.seconds = seconds
        self._held: dict[int, _Held] = {}

    def hold(self, claimed: Claimed, asked_at: float, cancel: Callable[[Reason], None]) -> None:
        """Renews the lease of what was claimed until `let_go`.

        Args:
            claimed: the job.
            asked_at: when it was asked for, by `time.monotonic`: the lease began after that.
            cancel: what to call when the lease is lost, or somebody wants the job cancelled.
        """
        self._held[claimed.fence] = _Held(claimed, asked_at + self.seconds, cancel)

    def let_go(self, claimed: Claimed) -> None:
        """Ends that."""
        self._held.pop(claimed.fence, None)

    async def renew(self) -> None:
        """Renews them all, however often Redis must be asked; cancels what is lost meanwhile.

        Wanted several times in a lease.
        """
        failed = False
        while not await self._renewed(quiet=failed):
            failed = True
            await asyncio.sleep(self.seconds / (10 * _PATIENCE))

    async def _renewed(self, *, quiet: bool) -> bool:
        held = list(self._held.values())
        if not held:
            return True
        before = time.monotonic()
        try:
            async with asyncio.timeout(self.seconds / _PATIENCE):
                answers = await self._scripts.renew(
                    round(self.seconds * 1000),
                    [(one.claimed.ref, one.claimed.fence) for one in held],
                )
        except (RedisError, OSError, TimeoutError) as exc:
            if not quiet:
                logger.warning("%d leases are not renewed yet: %s", len(held), exc or "no answer")
            now = time.monotonic()
            for one in held:
                if one.until <= now:
                    one.cancel("lost")
            return False
        for one, answer in zip(held, answers, strict=True):
            if answer == "lost":
                # It may have ended while we asked.
                if one.claimed.fence in self._held:
                    one.cancel("lost")
                continue
            one.until = before + self.seconds
            if answer == "cancel":
                one.cancel("aborted")
        return True
