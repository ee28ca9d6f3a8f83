"""What quotas need done in the background: expired reservations, answers nobody asks for again."""

import asyncio

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


async def sweep(store: QuotaStore) -> None:
    """Gives expired reservations back and forgets old answers, until cancelled.

    Any number of sidecars may do so at once: each reservation goes back once.
    """
    turn = 0
    failing = False
    while True:
        try:
            await sweep_once(store)
            if turn % FORGET_EVERY == 0:
                await store.forget()
        except LedgerUnavailable as exc:
            if not failing:
                log.warning("quotas.not_swept", cause=str(exc))
            failing = True
        else:
            failing = False
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
