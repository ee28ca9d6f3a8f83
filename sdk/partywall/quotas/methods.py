"""What a client can do with quotas, in terms of four things that each of its faces has of its own.

Whoever waits by blocking (`SyncPartywall`) gives these methods primitives that end before they
return, so that the same coroutines serve it, too.
"""

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import TypeVar, overload
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from partywall.calls import Calls, key_of
from partywall.errors import QuotaExceeded, UnknownResource
from partywall.quotas.hooks import CrossingHook, Hooks
from partywall.quotas.items import (
    amounts_of,
    merged,
    valid_level,
    valid_resource,
    valid_ttl,
)
from partywall.quotas.reconcile import Count, recount
from partywall.quotas.records import (
    Drift,
    LedgerEntry,
    LedgerPage,
    Preview,
    Quota,
    QuotaList,
    QuotaOutcome,
    Reserved,
    Settled,
)
from partywall.quotas.reservation import Reservation, Reserving
from partywall.records import invalid, valid_tenant

PAGE_SIZE = 200
"""Entries of the ledger that are asked for at once."""

T = TypeVar("T")

_quota = msgspec.json.Decoder(Quota)
_quotas = msgspec.json.Decoder(QuotaList)
_outcomes = msgspec.json.Decoder(QuotaOutcome)
_reserved = msgspec.json.Decoder(Reserved)
_settled = msgspec.json.Decoder(Settled)
_ledgers = msgspec.json.Decoder(LedgerPage)
_previews = msgspec.json.Decoder(Preview)


class QuotaMethods(Calls):
    """A client's quotas.

    Resources are named by keyword (`users=1`); where a name is no identifier, or is that of an
    option, in a mapping (`{"api-keys": 1}`). Each change carries an idempotency key, of the
    caller's or a random one, so it is tried again without being done twice.
    """

    def __init__(self, on_crossing: CrossingHook | None) -> None:
        self._hooks = Hooks()
        if on_crossing is not None:
            self._hooks.add(on_crossing)

    async def consume(
        self,
        tenant: str,
        items: Mapping[str, int] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        **amounts: int,
    ) -> QuotaOutcome:
        """Takes amounts of resources, all or none.

        Args:
            tenant: the tenant's id.
            items: whole numbers from 1, by resource; bytes where it is a size.
            idempotency_key: of this one change: a repetition within 24 hours is answered as the
                first was, and changes nothing. Left out, a random one.
            amounts: more of `items`, by keyword.

        Raises:
            QuotaExceeded: something has no room; nothing was taken.
            UnknownTenant, UnknownResource: nobody registered it; no tier names it.
            Conflict: the key was used for another change.
            InvalidRequest: an argument can be none; nothing was sent.
            SidecarUnavailable: whether it was done, its repetition by key tells.
            SidecarError: it was refused, or there is no answer to go by.
        """
        asked = amounts_of(items, amounts)
        outcome = await self._change(tenant, "consume", asked, idempotency_key)
        if not outcome:
            raise QuotaExceeded(outcome, asked)
        return outcome

    async def try_consume(
        self,
        tenant: str,
        items: Mapping[str, int] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        **amounts: int,
    ) -> QuotaOutcome:
        """`consume`, where a denial is a value: an outcome that is falsy."""
        asked = amounts_of(items, amounts)
        return await self._change(tenant, "consume", asked, idempotency_key)

    async def release(
        self,
        tenant: str,
        items: Mapping[str, int] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        **amounts: int,
    ) -> QuotaOutcome:
        """Gives amounts back, all or none. Arguments and errors as of `consume`.

        Raises:
            Conflict: it would go below zero; nothing was changed.
        """
        return await self._change(tenant, "release", amounts_of(items, amounts), idempotency_key)

    def reserve(
        self,
        tenant: str,
        items: Mapping[str, int] | None = None,
        /,
        *,
        ttl: int = 60,
        idempotency_key: str | None = None,
        **amounts: int,
    ) -> Reserving:
        """Holds amounts, all or none, until they are committed, cancelled, or `ttl` is over.

        In an `async with` it commits when the block ends, and cancels when the block raises or is
        cancelled. Awaited, it gives a `Reservation` to commit or cancel. Errors as of `consume`.

        Args:
            tenant: as for `consume`.
            items: see there.
            ttl: seconds, 1 to 86400, after which it is given back by itself.
            idempotency_key: see there.
            amounts: see there.
        """
        asked = amounts_of(items, amounts)
        valid_ttl(ttl)
        key = key_of(idempotency_key)
        path = f"{_path_of(tenant)}/reserve"

        async def begin() -> Reservation:
            body = {"items": asked, "ttl": ttl}
            answer = await self._ask("POST", path, _reserved, body=body, key=key)
            if answer.reservation is None or answer.expires_at is None:
                raise QuotaExceeded(answer, asked)
            return Reservation(self._settle, answer, asked)

        return Reserving(begin)

    async def quotas(self, tenant: str) -> list[Quota]:
        """All quotas of a tenant, of every resource that some tier names.

        Raises:
            UnknownTenant: nobody registered it, and the policy has no default tier.
            SidecarError: there is no answer to go by.
        """
        return (await self._ask("GET", _path_of(tenant), _quotas)).quotas

    async def quota(self, tenant: str, resource: str) -> Quota:
        """One quota of a tenant. Errors as of `quotas`.

        Raises:
            UnknownResource: no tier names it.
        """
        valid_resource(resource)
        for quota in await self.quotas(tenant):
            if quota.resource == resource:
                return quota
        raise UnknownResource(f"no tier has a quota of {resource!r}")

    async def set_quota(
        self,
        tenant: str,
        resource: str,
        used: int,
        *,
        reason: str | None = None,
        if_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Quota:
        """Says what is really used, as a job that counts does; the drift goes into the ledger.

        Args:
            tenant: the tenant's id.
            resource: which.
            used: the real level, a whole number from 0.
            reason: for the ledger.
            if_version: the quota's version when it was counted.
            idempotency_key: as for `consume`.

        Raises:
            Conflict: the version has moved on, or the key was used for another change; nothing was
                changed.
            UnknownTenant, UnknownResource: nobody registered it; no tier names it.
            InvalidRequest: an argument can be none.
            SidecarError: there is no answer to go by.
        """
        valid_resource(resource)
        valid_level(used)
        body: dict[str, object] = {"used": used}
        if reason is not None:
            body["reason"] = reason
        if if_version is not None:
            body["if_version"] = if_version
        path = f"{_path_of(tenant)}/{quote(resource, safe='')}"
        return await self._ask("PUT", path, _quota, body=body, key=key_of(idempotency_key))

    async def ledger(self, tenant: str, resource: str | None = None) -> AsyncIterator[LedgerEntry]:
        """Every change of a tenant's levels, newest first; fetched page by page.

        Args:
            tenant: the tenant's id.
            resource: of one resource alone.

        Raises:
            UnknownTenant, UnknownResource: nobody registered it; no tier names it.
            SidecarError: there is no answer to go by.
        """
        cursor: str | None = None
        while True:
            page = await self._ledger_page(tenant, resource, cursor)
            for entry in page.entries:
                yield entry
            cursor = page.next_cursor
            if cursor is None:
                return

    async def preview(self, tenant: str, tier: str) -> Preview:
        """What another tier would mean: of what the tenant has more than it allows.

        Raises:
            UnknownTenant: nobody registered it.
            InvalidRequest: there is no such tier.
            SidecarError: there is no answer to go by.
        """
        valid_tenant(tenant)
        path = f"/v1/tenants/{quote(tenant, safe='')}/preview"
        return await self._ask("GET", path, _previews, query={"tier": tier})

    async def reconcile(
        self,
        tenant: str,
        counts: Mapping[str, Count] | None = None,
        /,
        *,
        dry_run: bool = False,
        **count: Count,
    ) -> list[Drift]:
        """Counts resources anew, reports the drift, and repairs it.

        A level is set only if it has not moved since before it was counted, and while nothing of it
        is reserved; otherwise it is counted again, five times at most. So what changes meanwhile is
        never lost, nor had twice. Each drift is logged before it is repaired.

        Args:
            tenant: the tenant's id.
            counts: by resource, what counts it: a callable that returns a whole number from 0, or
                an awaitable of one.
            dry_run: only report.
            count: more of `counts`, by keyword.

        Returns:
            A `Drift` for each resource, in order; `unsettled` where it was never still.

        Raises:
            UnknownTenant, UnknownResource: nobody registered it; no tier names it.
            InvalidRequest: an argument, or what a callable counted, can be none.
            SidecarError: there is no answer to go by. What was repaired before stays repaired.
        """
        counters = merged(counts, count, at="counts")
        for resource, counter in counters.items():
            if not callable(counter):
                raise invalid(f"counts.{resource}", "expected a callable", counter)
        return [
            await recount(self, self._finish, self._sleep, tenant, resource, counter, dry_run)
            for resource, counter in counters.items()
        ]

    def on_crossing(self, hook: CrossingHook) -> CrossingHook:
        """Has `hook` called with a `Crossing` whenever an answer to this client says one.

        Usable as a decorator. Hooks run in order, before the call returns; what they raise is
        logged. An answer that was got again by its idempotency key says its crossings again.

        Raises:
            ConfigurationError: it cannot be called.
        """
        self._hooks.add(hook)
        return hook

    @abstractmethod
    async def _finish(self, awaitable: Awaitable[T]) -> T:
        """The result of something that the host app gave us."""

    async def _ledger_page(
        self, tenant: str, resource: str | None, cursor: str | None
    ) -> LedgerPage:
        valid_tenant(tenant)
        query = {"page_size": str(PAGE_SIZE)}
        if resource is not None:
            valid_resource(resource)
            query["resource"] = resource
        if cursor is not None:
            query["cursor"] = cursor
        path = f"/v1/tenants/{quote(tenant, safe='')}/ledger"
        return await self._ask("GET", path, _ledgers, query=query)

    async def _change(
        self, tenant: str, verb: str, items: Mapping[str, int], idempotency_key: str | None
    ) -> QuotaOutcome:
        key = key_of(idempotency_key)
        path = f"{_path_of(tenant)}/{verb}"
        outcome = await self._ask("POST", path, _outcomes, body={"items": items}, key=key)
        return await self._told(outcome, tenant)

    async def _settle(
        self, tenant: str, reservation: str, verb: str, items: Mapping[str, int] | None
    ) -> Settled:
        """Ends a reservation; its id is key enough, since a repetition is answered alike."""
        path = f"{_path_of(tenant)}/reservations/{quote(reservation, safe='')}/{verb}"
        body = {} if items is None else {"items": items}
        return await self._told(await self._ask("POST", path, _settled, body=body), tenant)

    @overload
    async def _told(self, answer: QuotaOutcome, tenant: str) -> QuotaOutcome: ...

    @overload
    async def _told(self, answer: Settled, tenant: str) -> Settled: ...

    async def _told(self, answer: QuotaOutcome | Settled, tenant: str) -> QuotaOutcome | Settled:
        """The answer, after the hooks were told of its crossings."""
        if not answer.crossings:
            return answer
        crossings = tuple(replace(one, tenant=tenant) for one in answer.crossings)
        await self._hooks.tell(crossings, self._finish)
        return replace(answer, crossings=crossings)


def _path_of(tenant: str) -> str:
    valid_tenant(tenant)
    return f"/v1/tenants/{quote(tenant, safe='')}/quotas"
