"""A tenant erased: from both Redis and from PostgreSQL, but for one audit line.

Sidecars and workers go on for a moment with a tenant that is gone: who changed it is heard of
within half a second. What they write meanwhile is removed in a second turn, before anybody is told
that it is done. So there is nothing to be remembered, by whom, whose id was to be forgotten.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from partywall_service.directory import Directory
from partywall_service.ledger.erasure import Further

HEARD_WITHIN = 1.0
"""Seconds after which every sidecar has heard of it, and answered what was under way. One that is
cut off from PostgreSQL hears later; what it counts then is dropped by the tombstone, or ends by
itself."""


class Keys(Protocol):
    """The keys of tenants in the Redis of limits; see `TenantKeys`."""

    async def erase(self, tenant: str) -> int:
        """Removes them; how many there were."""
        ...


class Queue(Protocol):
    """The jobs of tenants; see `TenantJobs`."""

    async def count(self, tenant: str) -> int:
        """How many there are, finished ones too."""
        ...

    async def erase(self, tenant: str) -> None:
        """Removes them."""
        ...


class Ledger(Protocol):
    """What PostgreSQL keeps; see `ledger.erasure`."""

    async def erase_tenant(
        self,
        tenant: str,
        *,
        actor: str,
        further: Further,
        elsewhere: Mapping[str, int],
    ) -> bool:
        """Removes everything but one line; whether there was anything."""
        ...

    async def erase_rest(self, tenant: str, *, further: Further) -> bool:
        """Removes what came later, unless the tenant is registered anew."""
        ...


class Erasure:
    """Erases tenants.

    Args:
        ledger: what PostgreSQL keeps.
        further: removes what PostgreSQL keeps of usage.
        keys: what the Redis of limits keeps.
        jobs: what the Redis of jobs keeps.
        directory: what this process remembers.
        pause: waits for so many seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        further: Further,
        keys: Keys,
        jobs: Queue,
        directory: Directory,
        *,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._ledger = ledger
        self._further = further
        self._keys = keys
        self._jobs = jobs
        self._directory = directory
        self._pause = pause

    async def erase(self, tenant: str, *, actor: str) -> bool:
        """Removes everything that is kept of a tenant, registered or not.

        Where it raises, it may be done in part; a repetition does the rest.

        Args:
            tenant: whose.
            actor: for the audit line.

        Returns:
            Whether there was anything.

        Raises:
            LedgerUnavailable, QueueUnavailable, StoreError: one of the three did not answer.
        """
        # Both Redis are asked before PostgreSQL is changed: while one is away the tenant stays
        # registered, for everyone to see that it is not erased.
        jobs = await self._jobs.count(tenant)
        keys = await self._keys.erase(tenant)
        there_was = await self._ledger.erase_tenant(
            tenant,
            actor=actor,
            further=self._further,
            elsewhere={"jobs": jobs, "keys": keys},
        )
        self._directory.forget(tenant)
        # Only now: a queue learns anew what applies to a tenant for as long as it is registered.
        await self._jobs.erase(tenant)
        if there_was:
            await self._pause(HEARD_WITHIN)
            if await self._ledger.erase_rest(tenant, further=self._further):
                await self._jobs.erase(tenant)
                await self._keys.erase(tenant)
        return there_was
