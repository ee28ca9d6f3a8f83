"""Admission: who asks, what applies to it, what the engine says; and what answers in an outage."""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Protocol

import msgspec

from partywall.decision import Decision, Reason
from partywall_service.directory import Directory, Standing
from partywall_service.engine.base import Check, Count, Engine, StoreError, Verdict
from partywall_service.engine.local import LocalLimiter
from partywall_service.metrics import DecisionCounter, Outcome
from partywall_service.names import (
    EXPECTED_NAME,
    EXPECTED_TENANT,
    NAME_PATTERN,
    TENANT_PATTERN,
    is_name,
    is_tenant_id,
)
from partywall_service.policy.model import MAX_AMOUNT, Limit

TenantId = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=128,
        extra_json_schema={"pattern": TENANT_PATTERN},
        description="The tenant's id.",
        examples=["acme"],
    ),
]
LimitName = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=64,
        extra_json_schema={"pattern": NAME_PATTERN},
        description="A limit that some tier names.",
        examples=["requests"],
    ),
]
Cost = Annotated[
    int, msgspec.Meta(ge=1, le=MAX_AMOUNT, description="What it costs, in the limit's own units.")
]


class CheckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `/v1/check` is asked. Patterns are checked where a name is looked up and not found."""

    tenant: TenantId
    limit: LimitName = "requests"
    cost: Cost = 1
    dry_run: bool = False


class AdmissionError(Exception):
    """A check that cannot be answered.

    AdmissionError
    ├── MalformedName    a tenant id or a limit's name that can be none
    ├── InvalidItem      an ask for permits, or a return of some, that cannot be (permits.py)
    ├── UnknownTenant    nobody registered it, and the policy has no default tier
    ├── UnknownLimit     no tier names it
    └── LimitClosed      the store is away, and the limit says `on_outage = "closed"`
    """


class MalformedName(AdmissionError):
    """A tenant id or a limit's name that can be none."""

    def __init__(self, field: str, place: int) -> None:
        super().__init__(EXPECTED_TENANT if field == "tenant" else EXPECTED_NAME)
        self.field = field
        self.place = place


class UnknownTenant(AdmissionError):
    """Nobody registered it, and the policy has no default tier."""


class UnknownLimit(AdmissionError):
    """No tier names it."""


class LimitClosed(AdmissionError):
    """The store is away, and the limit says `on_outage = "closed"`."""


class Kept(Protocol):
    """Counts decisions that the shared store could not, until it can."""

    def count(self, tenant: str, limit: str, outcome: str) -> None:
        """Adds one."""
        ...


class _Asked(NamedTuple):
    """A check that the engine must decide."""

    request: CheckRequest
    standing: Standing
    limit: Limit


class _Settled(NamedTuple):
    """A check that is decided already, and only counted by the engine."""

    decision: Decision
    counted: Count


class Admission:
    """Decides checks.

    Args:
        directory: what is known of tenants.
        engine: the shared windows.
        local: what stands in for limits with `on_outage = "local"`.
        count: told of every decision but dry runs.
        kept: told of those that the engine could not count; None where usage is not metered.
    """

    def __init__(
        self,
        directory: Directory,
        engine: Engine,
        local: LocalLimiter,
        count: DecisionCounter,
        kept: Kept | None,
    ) -> None:
        self._directory = directory
        self._engine = engine
        self._local = local
        self._count = count
        self._kept = kept

    async def check(self, request: CheckRequest) -> Decision:
        """Decides one check.

        Raises:
            MalformedName: of the tenant or the limit.
            UnknownTenant: nobody registered it, and there is no default tier.
            UnknownLimit: no tier names it.
            LimitClosed: the store is away and the limit does not decide without it.
            LedgerUnavailable: the tenant is not known here and cannot be read.
        """
        entry = self._directory.get(request.tenant)
        if entry is None:
            if not is_tenant_id(request.tenant):
                raise MalformedName("tenant", 0)
            entry = (await self._directory.find([request.tenant]))[request.tenant]
        settled = self._settle(0, request, entry.standing)
        if isinstance(settled, _Asked | _Settled):
            return (await self._decide([settled]))[0]
        if settled.reason == "unknown-tenant":
            raise UnknownTenant(f"no tenant {request.tenant!r} is registered")
        if settled.reason == "unknown-limit":
            raise UnknownLimit(f"no tier names a limit {request.limit!r}")
        return settled

    async def check_many(self, requests: Sequence[CheckRequest]) -> list[Decision]:
        """Decides checks in order; an unknown tenant or limit is its own decision's reason.

        Raises:
            MalformedName: of a tenant or a limit; then nothing was decided or charged.
            LimitClosed: the store is away and a limit does not decide without it.
            LedgerUnavailable: a tenant is not known here and cannot be read.
        """
        standings = await self._standings(requests)
        settled = [
            self._settle(place, request, standings[request.tenant])
            for place, request in enumerate(requests)
        ]
        asked = [one for one in settled if not isinstance(one, Decision)]
        decided = iter(await self._decide(asked) if asked else ())
        return [one if isinstance(one, Decision) else next(decided) for one in settled]

    def _settle(
        self, place: int, request: CheckRequest, standing: Standing | None
    ) -> "Decision | _Settled | _Asked":
        """What can be said without the engine, or what must be asked or told of it."""
        limit = standing.limits.get(request.limit) if standing else None
        if standing is None or limit is None:
            if not is_name(request.limit):
                raise MalformedName("limit", place)
            reason: Reason = "unknown-limit" if standing else "unknown-tenant"
            return _refusal(request, standing, reason)
        if standing.status == "suspended":
            return self._settled(_refusal(request, standing, "tenant-suspended"), request)
        if not limit.rates:
            return self._settled(_unlimited(request, standing), request)
        return _Asked(request, standing, limit)

    def _settled(self, decision: Decision, request: CheckRequest) -> "Decision | _Settled":
        if request.dry_run:
            return decision
        outcome: Literal["admitted", "denied"] = "admitted" if decision.allowed else "denied"
        self._count(decision.tier or "", decision.limit, outcome)
        if self._kept is None:
            return decision
        return _Settled(decision, Count(decision.tenant, decision.limit, (), outcome))

    async def _standings(self, requests: Sequence[CheckRequest]) -> dict[str, Standing | None]:
        standings: dict[str, Standing | None] = {}
        missing: list[str] = []
        for place, request in enumerate(requests):
            tenant = request.tenant
            if tenant in standings:
                continue
            entry = self._directory.get(tenant)
            if entry is not None:
                standings[tenant] = entry.standing
            elif is_tenant_id(tenant):
                missing.append(tenant)
            else:
                raise MalformedName("tenant", place)
        if missing:
            for tenant, entry in (await self._directory.find(missing)).items():
                standings[tenant] = entry.standing
        return standings

    async def _decide(self, asked: Sequence[_Asked | _Settled]) -> list[Decision]:
        questions = [one.counted if isinstance(one, _Settled) else _check(one) for one in asked]
        try:
            verdicts = await self._engine.decide(questions)
        except StoreError as exc:
            return self._decide_without_store(asked, exc)
        return [
            one.decision if isinstance(one, _Settled) else self._decision(one, verdict)
            for one, verdict in zip(asked, verdicts, strict=True)
        ]

    def _decide_without_store(
        self, asked: Sequence[_Asked | _Settled], cause: StoreError
    ) -> list[Decision]:
        for one in asked:
            if isinstance(one, _Asked) and one.limit.on_outage == "closed":
                raise LimitClosed(
                    f"limit {one.limit.name!r} is closed while the shared store is away"
                ) from cause
        return [self._without_store(one) for one in asked]

    def _without_store(self, one: _Asked | _Settled) -> Decision:
        if isinstance(one, _Settled):
            if self._kept is not None:
                tenant, limit, _, outcome = one.counted
                self._kept.count(tenant, limit, outcome)
            return one.decision
        if one.limit.on_outage == "local":
            return self._decision(one, self._local.decide(_check(one)), degraded=True)
        return self._open(one)

    def _open(self, one: _Asked) -> Decision:
        request, standing = one.request, one.standing
        if not request.dry_run:
            self._count_decision(standing, one.limit, request.tenant, "admitted", degraded=True)
        return _unlimited(request, standing, degraded=True)

    def _decision(self, one: _Asked, verdict: Verdict, *, degraded: bool = False) -> Decision:
        request, standing, limit = one
        allowed, retry_after, windows, _ = verdict
        outcome: Outcome = "admitted" if allowed else "denied" if limit.enforce else "would_deny"
        if not request.dry_run:
            self._count_decision(standing, limit, request.tenant, outcome, degraded=degraded)
        if outcome == "would_deny":
            allowed, retry_after = True, 0.0
        return Decision(
            allowed=allowed,
            tenant=request.tenant,
            tier=standing.tier.name,
            limit=limit.name,
            cost=request.cost,
            reason=None if allowed else "limit-exceeded",
            degraded=degraded,
            remaining=min([window.remaining for window in windows]),
            retry_after=retry_after,
            reset_after=max([window.reset_after for window in windows]),
            windows=windows,
        )

    def _count_decision(
        self, standing: Standing, limit: Limit, tenant: str, outcome: Outcome, *, degraded: bool
    ) -> None:
        self._count(standing.tier.name, limit.name, outcome, degraded=degraded)
        if degraded and self._kept is not None:
            self._kept.count(tenant, limit.name, outcome)
            self._kept.count(tenant, limit.name, "degraded")


def _check(one: _Asked) -> Check:
    request, _, limit = one
    return Check(
        request.tenant, limit.name, limit.rates, request.cost, request.dry_run, limit.enforce
    )


def _refusal(request: CheckRequest, standing: Standing | None, reason: Reason) -> Decision:
    return Decision(
        allowed=False,
        tenant=request.tenant,
        tier=standing.tier.name if standing else None,
        limit=request.limit,
        cost=request.cost,
        reason=reason,
        remaining=0,
        retry_after=None,  # waiting does not help
    )


def _unlimited(request: CheckRequest, standing: Standing, *, degraded: bool = False) -> Decision:
    return Decision(
        allowed=True,
        tenant=request.tenant,
        tier=standing.tier.name,
        limit=request.limit,
        cost=request.cost,
        degraded=degraded,
    )
