"""What quotas need done in the background: expired reservations, answers nobody asks for again.

The maintenance jobs do it (`maintenance.jobs`); where they do not run, or not lately, each sidecar
does it for itself.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.quotas.store import QuotaStore

EVERY = 1.0
"""Seconds between two sweeps of reservations."""

FORGET_EVERY = 10
"""Sweeps between two removals of old answers."""

MAX_TENANTS = 100
"""Tenants whose locks a sweep holds at once."""

log = structlog.get_logger()


class Sweeper:
    """Gives expired reservations back and forgets old answers, through outages of PostgreSQL.

    Any number may do so at once: each reservation goes back once.
    """

    def __init__(self, store: QuotaStore) -> None:
        self._store = store
        self._failing = False

    async def expire(self) -> bool:
        """Gives back what expired reservations held; False when PostgreSQL did not answer."""
        return await self._through(sweep_once(self._store))

    async def forget(self) -> bool:
        """Removes some of the answers that are kept no longer; False as above."""
        return await self._through(self._store.forget())

    async def _through(self, work: Awaitable[int]) -> bool:
        try:
            await work
        except LedgerUnavailable as exc:
            if not self._failing:
                log.warning("quotas.not_swept", cause=str(exc))
            self._failing = True
            return False
        self._failing = False
        return True


async def sweep(store: QuotaStore, maintained: Callable[[], Awaitable[bool]]) -> None:
    """Sweeps whenever nobody else did lately, until cancelled.

    Args:
        store: what to sweep.
        maintained: whether the maintenance jobs ran within the last seconds.
    """
    sweeper = Sweeper(store)
    turn = 0
    while True:
        if not await maintained():
            await sweeper.expire()
            if turn % FORGET_EVERY == 0:
                await sweeper.forget()
            turn += 1
        await asyncio.sleep(EVERY)


async def sweep_once(store: QuotaStore) -> int:
    """Gives back what expired reservations held.

    Returns:
        Of how many tenants.

    Raises:
        LedgerUnavailable: PostgreSQL did not answer.
    """
    due = await store.due()
    for start in range(0, len(due), MAX_TENANTS):
        async with store.changing(due[start : start + MAX_TENANTS]):
            pass  # what has expired goes back as soon as the locks are held
    return len(due)
