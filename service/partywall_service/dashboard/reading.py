"""Reads of which a page can do without any one."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from partywall_service.engine.base import StoreError
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.quotas.errors import QuotaError
from partywall_workers.errors import QueueUnavailable

PATIENCE = 1.5
"""Seconds for which a page waits for a part of it."""

log = structlog.get_logger()

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Away:
    """What stands where nothing could be read.

    Attributes:
        what: the part that failed: `database`, `redis` or `jobs`.
        why: one sentence.
    """

    what: str
    why: str


async def or_away(reading: Awaitable[Read]) -> Read | Away:
    """What is read, or why it cannot be read now; the page then shows the rest."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await reading
    except LedgerUnavailable as exc:
        return _away("database", "The database does not answer now.", exc)
    except StoreError as exc:
        return _away("redis", "Redis does not answer now.", exc)
    except QueueUnavailable as exc:
        return _away("jobs", "The jobs' Redis does not answer now.", exc)
    except TimeoutError as exc:
        return _away("late", "This took too long to read.", exc)
    except QuotaError as exc:
        return _away("policy", "The policy in force has no tier for this tenant.", exc)


def _away(what: str, why: str, cause: Exception) -> Away:
    log.warning("dashboard.part_missing", part=what, cause=str(cause))
    return Away(what, why)
