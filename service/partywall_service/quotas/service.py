"""Quotas of every tenant: who asks, what applies, which store answers.

Durable resources are PostgreSQL's, gated by Redis; those that quotas.toml calls `durable = false`
live in Redis alone. One operation may name both kinds: what Redis holds is reserved there first,
and settled as PostgreSQL decides; a crash between the two lets that reservation expire.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Protocol

from partywall_service.directory import Directory, Entry, Standing
from partywall_service.metrics import QuotaCounter, QuotaOutcome
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Quota, Tier
from partywall_service.policy.resolve import resolve
from partywall_service.quotas.both import (
    BOTH,
    DURABLE,
    VOLATILE,
    Place,
    change_both,
    named,
    place_of,
    placed,
)
from partywall_service.quotas.commits import GroupCommit
from partywall_service.quotas.errors import UnknownResource, UnknownTenant
from partywall_service.quotas.model import (
    Consume,
    Operation,
    Outcome,
    QuotaState,
    Release,
    Reserve,
    Settle,
    SettledAs,
    SetUsed,
    Terms,
    What,
)
from partywall_service.quotas.store import LedgerEntry, QuotaStore

RETRIED = "try:"
"""How a key begins that names one attempt, repeated only for want of an answer, as the SDK's own
do: its denials are not kept, so that they may be cheap, and its answers for minutes."""


class VolatileStore(Protocol):
    """Where resources live that are not durable."""

    async def apply(self, operation: Operation) -> Outcome:
        """Does an operation on such resources alone.

        Raises:
            StoreError: the store did not answer.
        """
        ...

    async def read(self, tenant: str, terms: Mapping[str, Terms]) -> list[QuotaState]:
        """Their quotas, in the order of `terms`.

        Raises:
            StoreError: the store did not answer.
        """
        ...


class Gate(Protocol):
    """Remembers, for a moment, what PostgreSQL denied: a noisy tenant's denials stay cheap."""

    async def denial(
        self, tenant: str, items: Mapping[str, int], terms: Mapping[str, Terms]
    ) -> Outcome | None:
        """The denial of what is known to have no room; None when PostgreSQL must be asked."""
        ...

    async def note(self, tenant: str, outcome: Outcome) -> None:
        """Tells every sidecar how the outcome left its quotas; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks, and how a repetition is known.

    Attributes:
        actor: for the ledger.
        fingerprint: of the path and the body.
        key: the caller's idempotency key, None when it sent none.
        path: what the key is scoped to, besides the tenant.
        reason: for the ledger.
    """

    actor: str
    fingerprint: bytes = b""
    key: str | None = None
    path: str = ""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Standings:
    """All of a tenant's quotas, as they are read.

    Attributes:
        tier: the tenant's.
        quotas: of every resource that some tier names, in the policy's order.
    """

    tier: str
    quotas: list[QuotaState]


@dataclass(frozen=True, slots=True)
class Excess:
    """A resource of which more is used than a tier would give.

    Attributes:
        resource: which.
        used: now, in the period that the tier would give it.
        limit: the tier's, or the tenant's override of it.
        excess: by how much it would be over.
    """

    resource: str
    used: int
    limit: int
    excess: int


@dataclass(frozen=True, slots=True)
class Preview:
    """What another tier would make of a tenant's quotas.

    Attributes:
        tier: the tenant's.
        to: the other one.
        over: what would be over its limit, in the policy's order.
    """

    tier: str
    to: str
    over: list[Excess]


class Quotas:
    """Answers for the quotas of every tenant.

    Args:
        directory: what applies to whom.
        policy: which resources there are.
        store: quotas in PostgreSQL.
        commits: changes of them.
        volatile: resources that are not durable.
        gate: remembers denials.
        count: told of every answer.
    """

    def __init__(
        self,
        directory: Directory,
        policy: PolicyHolder,
        store: QuotaStore,
        commits: GroupCommit,
        volatile: VolatileStore,
        gate: Gate,
        count: QuotaCounter,
    ) -> None:
        self._directory = directory
        self._policy = policy
        self._store = store
        self._commits = commits
        self._volatile = volatile
        self._gate = gate
        self._count = count

    async def consume(self, tenant: str, items: Mapping[str, int], request: Request) -> Outcome:
        """Takes amounts of several resources, all or none.

        Raises:
            UnknownTenant, UnknownResource: with the name.
            LedgerUnavailable: PostgreSQL did not answer; a repetition by key tells what was done.
            StoreError: Redis did not answer, and a resource lives there.
        """
        return await self._change(tenant, Consume(items), request)

    async def release(self, tenant: str, items: Mapping[str, int], request: Request) -> Outcome:
        """Gives amounts back, all or none; below zero it is refused. Raises as `consume`."""
        return await self._change(tenant, Release(items), request)

    async def reserve(
        self, tenant: str, items: Mapping[str, int], ttl: int, request: Request
    ) -> Outcome:
        """Holds amounts for `ttl` seconds, all or none. Raises as `consume`."""
        return await self._change(tenant, Reserve(items, "", ttl), request)

    async def settle(
        self,
        tenant: str,
        reservation: str,
        status: SettledAs,
        items: Mapping[str, int] | None,
        request: Request,
    ) -> Outcome:
        """Commits a reservation, all of it or `items`; or cancels it. Raises as `consume`."""
        return await self._change(tenant, Settle(reservation, status, items), request)

    async def set_used(
        self, tenant: str, resource: str, used: int, if_version: int | None, request: Request
    ) -> Outcome:
        """Says what is really used of a resource. Raises as `consume`."""
        return await self._change(tenant, SetUsed(resource, used, if_version), request)

    async def read(self, tenant: str, *, scope: str | None = None) -> Standings:
        """All quotas of a tenant; with a `scope`, as that tenant's own token may see them.

        Raises:
            UnknownTenant: with its id.
            LedgerUnavailable: PostgreSQL did not answer.
            StoreError: Redis did not answer, and a resource lives there.
        """
        tier, terms = await self._terms(tenant, ())
        return Standings(tier, await self._states(tenant, terms, scope))

    async def preview(self, tenant: str, tier: Tier, *, scope: str | None = None) -> Preview:
        """What would be over its limit if the tenant moved to `tier`. Raises as `read`."""
        entry, standing = await self._find(tenant)
        overrides = entry.known[1] if entry.known is not None else ()
        quotas = resolve(tier, overrides, datetime.now(UTC)).quotas
        states = await self._states(tenant, self._terms_of(quotas), scope)
        over = [
            Excess(one.resource, one.used, one.limit, one.used - one.limit)
            for one in states
            if one.limit is not None and one.used > one.limit
        ]
        return Preview(standing.tier.name, tier.name, over)

    async def list_entries(
        self,
        tenant: str,
        *,
        resource: str | None = None,
        before: int | None = None,
        limit: int,
        scope: str | None = None,
    ) -> list[LedgerEntry]:
        """Lines of a tenant's ledger, as `QuotaStore.list_entries`.

        What the policy has no more keeps its lines; they are unknown only where there are none.

        Raises:
            UnknownTenant, UnknownResource: with the name.
            LedgerUnavailable: PostgreSQL did not answer.
        """
        entries = await self._store.list_entries(
            tenant, resource=resource, before=before, limit=limit, scope=scope
        )
        if not entries:
            await self._terms(tenant, () if resource is None else (resource,))
        return entries

    async def _states(
        self, tenant: str, terms: Mapping[str, Terms], scope: str | None
    ) -> list[QuotaState]:
        """The tenant's quotas as they stand under `terms`, in their order."""
        book = await self._store.read(tenant, scope=scope)
        durable, volatile = self._parted(terms)
        states = {name: book.state(name, durable[name]) for name in durable}
        if volatile:
            states |= {one.resource: one for one in await self._volatile.read(tenant, volatile)}
        return [states[name] for name in terms]

    async def _change(self, tenant: str, what: What, request: Request) -> Outcome:
        names = named(what)
        # What a reservation holds, its id alone tells: any resource may be.
        tier, terms = await self._terms(tenant, names, only=not isinstance(what, Settle))
        operation = Operation(
            tenant=tenant,
            what=what,
            terms=terms,
            id=f"{request.path}:{request.key}" if request.key else token_hex(16),
            fingerprint=request.fingerprint,
            actor=request.actor,
            key=request.key,
            kept=request.key is not None and not request.key.startswith(RETRIED),
            reason=request.reason,
        )
        place = self._place(what)
        if place == DURABLE:
            outcome = await self._durably(placed(operation, DURABLE))
        elif place == VOLATILE:
            outcome = await self._volatile.apply(placed(operation, VOLATILE))
        else:
            durable, _ = self._parted(terms)
            outcome = await change_both(
                placed(operation, BOTH), durable, self._durably, self._volatile.apply
            )
        self._count(tier, _called(what), _said(outcome))
        return outcome

    async def _durably(self, operation: Operation) -> Outcome:
        what = operation.what
        if isinstance(what, Consume | Reserve) and not operation.kept:
            denial = await self._gate.denial(operation.tenant, what.items, operation.terms)
            if denial is not None:
                return denial
        outcome = await self._commits.commit(operation)
        if outcome.denied or not isinstance(what, Consume | Reserve):
            await self._gate.note(operation.tenant, outcome)
        return outcome

    def _place(self, what: What) -> Place:
        """Where the operation's resources live; a reservation's id says it."""
        if isinstance(what, Settle):
            return place_of(what.reservation)
        durable, volatile = self._parted(named(what))
        if durable and volatile:
            return BOTH
        return VOLATILE if volatile else DURABLE

    def _parted(self, names: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is durable, and what is not."""
        resources = self._policy.current.resources
        durable = {name: names[name] for name in names if resources[name].durable}
        return durable, {name: names[name] for name in names if name not in durable}

    async def _terms(
        self, tenant: str, names: Iterable[str], *, only: bool = False
    ) -> tuple[str, Mapping[str, Terms]]:
        """The tenant's tier, and what applies to each of its resources, or `only` to the named."""
        _, standing = await self._find(tenant)
        quotas, resources = standing.quotas, self._policy.current.resources
        for name in names:
            if name not in resources or name not in quotas:
                raise UnknownResource(name, resources)
        applies = {name: quotas[name] for name in names} if only else quotas
        return standing.tier.name, self._terms_of(applies)

    async def _find(self, tenant: str) -> tuple[Entry, Standing]:
        """What is remembered of the tenant, and what applies to it."""
        entry = self._directory.get(tenant) or (await self._directory.find([tenant]))[tenant]
        if entry.standing is None:
            raise UnknownTenant(tenant)
        return entry, entry.standing

    def _terms_of(self, quotas: Mapping[str, Quota]) -> Mapping[str, Terms]:
        resources = self._policy.current.resources
        return {
            name: Terms(quota.limit, quota.per, resources[name].unit, resources[name].thresholds)
            for name, quota in quotas.items()
            if name in resources
        }


def _called(what: What) -> str:
    """What the API calls it."""
    match what:
        case Settle():
            return "commit" if what.status == "committed" else "cancel"
        case SetUsed():
            return "set"
        case _:
            return type(what).__name__.lower()


def _said(outcome: Outcome) -> QuotaOutcome:
    if outcome.allowed:
        return "allowed"
    return "denied" if outcome.denied else "refused"
