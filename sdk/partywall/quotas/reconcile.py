"""Counting a resource anew, without losing what happens meanwhile.

A level is read with its version, then the app counts, then the level is set if the version is still
the same. A reservation under way is in nobody's version: its row may be there already while its
commit is still to come, so that setting the level now would have it twice.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from partywall.errors import Conflict
from partywall.quotas.items import valid_level
from partywall.quotas.records import Drift, Quota
from partywall.transport import Backoff

Count = Callable[[], int | Awaitable[int]]
"""Counts what there really is of a resource."""

ATTEMPTS = 5
"""To find a resource still."""

PAUSES = Backoff(first=0.05, longest=0.5)
"""Between them."""

log = logging.getLogger("partywall")


class _Levels(Protocol):
    """What a recount needs of a client."""

    async def quota(self, tenant: str, resource: str) -> Quota: ...

    async def set_quota(
        self,
        tenant: str,
        resource: str,
        used: int,
        *,
        reason: str | None = None,
        if_version: int | None = None,
    ) -> Quota: ...


async def recount(
    levels: _Levels,
    finish: Callable[[Awaitable[int]], Awaitable[int]],
    sleep: Callable[[float], Awaitable[None]],
    tenant: str,
    resource: str,
    count: Count,
    dry_run: bool,
) -> Drift:
    """Counts one resource, reports the drift, and then repairs it.

    Args:
        levels: the client.
        finish: gives the result of what `count` returned, where that is an awaitable.
        sleep: lets time pass between attempts.
        tenant: whose.
        resource: which.
        count: counts what there is.
        dry_run: only report.
    """
    drift = Drift(resource, 0, 0, 0)
    for attempt in range(ATTEMPTS):
        if attempt:
            await sleep(PAUSES.delay(attempt))
        before = await levels.quota(tenant, resource)
        counted = await _counted(count, resource, finish)
        drift = Drift(resource, before.used, counted, counted - before.used)
        if before.reserved:
            continue
        if (dry_run or not drift.drift) and await _moved(levels, tenant, before):
            continue
        if not drift.drift:
            return drift
        log.warning(
            "%r of tenant %r: %d in use, and %d counted", resource, tenant, before.used, counted
        )
        if dry_run:
            return drift
        try:
            await levels.set_quota(
                tenant, resource, counted, reason="reconcile", if_version=before.version
            )
        except Conflict:
            continue
        return Drift(resource, before.used, counted, drift.drift, repaired=True)
    log.warning("%r of tenant %r changes too often to be counted", resource, tenant)
    return Drift(resource, drift.used, drift.counted, drift.drift, unsettled=True)


async def _counted(
    count: Count, resource: str, finish: Callable[[Awaitable[int]], Awaitable[int]]
) -> int:
    said: Any = count()
    counted: int = await finish(said) if inspect.isawaitable(said) else said
    valid_level(counted, at=f"counts.{resource}")
    return counted


async def _moved(levels: _Levels, tenant: str, before: Quota) -> bool:
    """Whether it has changed since; setting a level tells that by itself."""
    return (await levels.quota(tenant, before.resource)).version != before.version
