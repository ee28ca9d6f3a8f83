"""How many keys a tenant may have: a number, what a function says, or its tier's quota."""

import inspect
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, Protocol

from partywall.cache.flights import Flights
from partywall.errors import ConfigurationError, SidecarUnavailable, UnknownResource
from partywall.recent import Recent

QUOTA_SECONDS = 1.0
"""How old an answer of the sidecar may be: a change is felt within a second (docs/contract.md)."""

REMEMBERED = 10_000
"""Tenants whose quota is remembered."""

Limit = int | Callable[[str], Awaitable[int | None] | int | None]
"""A number of keys, or a function of the tenant's id that gives it; None lifts the cap."""


class Quota(Protocol):
    """A tenant's quota of one resource."""

    @property
    def resource(self) -> str:
        """The resource's name."""

    @property
    def limit(self) -> int | None:
        """How much the tenant may have; None when that is unlimited."""


class QuotaClient(Protocol):
    """Who knows quotas: `partywall.Partywall`."""

    def quotas(self, tenant: str, /) -> Awaitable[Iterable[Quota]]:
        """Every quota of a tenant."""


class FixedLimit:
    """The same for every tenant.

    Raises:
        ConfigurationError: `limit` is no number of keys.
    """

    def __init__(self, limit: int) -> None:
        self._limit = _number(limit)

    async def __call__(self, _tenant: str) -> int | None:
        """How many keys the tenant may have."""
        return self._limit


class AskedLimit:
    """What a function says, asked at each call."""

    def __init__(self, function: Callable[[str], Awaitable[int | None] | int | None]) -> None:
        self._function = function

    async def __call__(self, tenant: str) -> int | None:
        """How many keys the tenant may have; None for any number.

        Raises:
            ConfigurationError: the function gave no number of keys.
        """
        answer = self._function(tenant)
        limit = await answer if inspect.isawaitable(answer) else answer
        return None if limit is None else _number(limit)


class _Known(NamedTuple):
    limit: int | None
    until: float


class QuotaLimit:
    """The tier's quota, as the sidecar says it; remembered for `QUOTA_SECONDS`.

    While no sidecar answers, what it said last goes on.

    Args:
        client: who knows quotas.
        resource: the quota's name.
        clock: seconds that only ever go up.
    """

    def __init__(
        self,
        client: QuotaClient,
        resource: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._resource = resource
        self._clock = clock
        self._known: Recent[str, _Known] = Recent(REMEMBERED)
        self._flights: Flights[str, int | None] = Flights()

    async def __call__(self, tenant: str) -> int | None:
        """How many keys the tenant may have; None for any number.

        Raises:
            UnknownResource: no tier names it.
            SidecarError: the sidecar did not say, and had not said before.
        """
        known = self._known.get(tenant)
        if known is not None and self._clock() < known.until:
            return known.limit
        return await self._flights.join(tenant, lambda: self._ask(tenant))

    async def _ask(self, tenant: str) -> int | None:
        try:
            quotas = await self._client.quotas(tenant)
        except SidecarUnavailable:
            known = self._known.get(tenant)
            if known is None:
                raise
            return self._learn(tenant, known.limit)
        for quota in quotas:
            if quota.resource == self._resource:
                return self._learn(tenant, quota.limit)
        raise UnknownResource(
            f"expected a quota of {self._resource!r} in some tier of quotas.toml; there is none"
        )

    def _learn(self, tenant: str, limit: int | None) -> int | None:
        self._known.put(tenant, _Known(limit, self._clock() + QUOTA_SECONDS))
        return limit


def _number(limit: object) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        raise ConfigurationError(f"expected a number of keys from 0 up, or None; got {limit!r}")
    return limit
