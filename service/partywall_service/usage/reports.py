"""All tenants' usage in a period: what was admitted and denied, run and filled up.

Redis is read before PostgreSQL, as in `reading`.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from partywall_service.ledger.records import OverrideRecord, Status, TenantRecord
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Policy, Quota, Unit
from partywall_service.policy.resolve import resolve
from partywall_service.usage.levels import LevelHistory
from partywall_service.usage.meters import LIMIT_OUTCOMES
from partywall_service.usage.pace import days_until_full, level_at, lookback
from partywall_service.usage.source import Point, Source
from partywall_service.usage.spans import first_step, instant_of, minute_of, spans
from partywall_service.usage.totals import UsageTotals

_Known = Mapping[str, tuple[TenantRecord, tuple[OverrideRecord, ...]]]


_TENANT_DAYS = 30_000
_FEWEST = 10
"""So many are summed up by a statement: some tenths of a second."""


class LimitUse(NamedTuple):
    """Decisions of one limit; degraded ones are among the others, too."""

    limit: str
    admitted: int = 0
    denied: int = 0
    would_deny: int = 0
    degraded: int = 0


class QuotaUse(NamedTuple):
    """What was used of one resource.

    Attributes:
        resource: which.
        unit: what is counted.
        used: at the end of the period; None where nobody knows any more.
        limit: as it is now; None when unlimited.
        days_until_full: from the end of the period, as `pace.days_until_full`.
    """

    resource: str
    unit: Unit
    used: int | None
    limit: int | None
    days_until_full: float | None


@dataclass(frozen=True, slots=True)
class TenantReport:
    """One tenant in a period.

    Attributes:
        tenant: its id.
        name: None where nobody registered it.
        tier: its own, or the default tier.
        status: None where nobody registered it.
        totals: by meter, what is not 0; no levels.
        quotas: of every resource that some tier names.
    """

    tenant: str
    name: str | None
    tier: str | None
    status: Status | None
    totals: Mapping[str, int]
    quotas: Sequence[QuotaUse]

    @property
    def limits(self) -> list[LimitUse]:
        """Those that decided anything, by name."""
        found: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for meter, value in self.totals.items():
            if meter.startswith("limits."):
                limit, _, outcome = meter.removeprefix("limits.").rpartition(".")
                if outcome in LIMIT_OUTCOMES:
                    found[limit][outcome] = value
        return [LimitUse(limit, **found[limit]) for limit in sorted(found)]


class _Tenant(NamedTuple):
    """What is known of one.

    Attributes:
        record: None where nobody registered it.
        tier: what it is called, though the policy may not have it any more.
        quotas: what applies.
    """

    record: TenantRecord | None
    tier: str | None
    quotas: Mapping[str, Quota]


class Page(NamedTuple):
    """Some tenants by id, and after which one to go on; None when there are no more."""

    tenants: list[TenantReport]
    next_after: str | None


class Ledger(Protocol):
    """Who is registered."""

    async def load_many(self, tenants: Sequence[str]) -> _Known:
        """The registered ones of these, with their overrides."""
        ...


class QuotaState(Protocol):
    """A quota as it stands."""

    @property
    def resource(self) -> str:
        """Which."""
        ...

    @property
    def used(self) -> int:
        """Now, in this period."""
        ...


class Quotas(Protocol):
    """What many tenants use now (`QuotaOverview`)."""

    async def read(
        self, applies: Mapping[str, Mapping[str, Quota]]
    ) -> Mapping[str, Sequence[QuotaState]]:
        """The quotas of each, under what applies to it."""
        ...


def _now() -> datetime:
    return datetime.now(UTC)


class Reports:
    """Reports on all tenants.

    Args:
        totals: the statements.
        sources: where counts wait for the roll-up.
        levels: of quotas, as they were.
        quotas: as they are now.
        ledger: who is registered.
        policy: what tiers give.
        now: the wall clock: a period that reaches to it ends with the levels as they are.
    """

    def __init__(
        self,
        totals: UsageTotals,
        sources: Sequence[Source],
        levels: LevelHistory,
        quotas: Quotas,
        ledger: Ledger,
        policy: PolicyHolder,
        *,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._totals = totals
        self._sources = sources
        self._levels = levels
        self._quotas = quotas
        self._ledger = ledger
        self._policy = policy
        self._now = now

    async def pages(
        self,
        start: datetime,
        end: datetime,
        *,
        tier: str | None = None,
        after: str = "",
        size: int,
    ) -> AsyncGenerator[Page, None]:
        """Tenants by id: all that are registered, and who else was counted in the period.

        Args:
            start: aware; of minutes that begin then or later.
            end: aware; of minutes that begin before it.
            tier: only its tenants; those nobody registered have the default tier.
            after: the first is the one after this.
            size: how many to a page at most. Fewer do not mean that there are no more.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
            StoreError: Redis did not answer.
        """
        default = self._policy.current.default_tier
        unregistered = default is not None and tier in (None, default)
        # Of whom nobody registered, Redis alone may know: then all of it is looked through, once.
        held = await self._held(None) if unregistered else None
        place: str | None = after
        while place is not None:
            page = await self._page(start, end, tier, place, size, held)
            yield page
            place = page.next_after

    async def page(
        self,
        start: datetime,
        end: datetime,
        *,
        tier: str | None = None,
        after: str = "",
        size: int,
    ) -> Page:
        """One of `pages`, which says more."""
        async with aclosing(self.pages(start, end, tier=tier, after=after, size=size)) as pages:
            return await anext(pages)

    async def _page(
        self,
        start: datetime,
        end: datetime,
        tier: str | None,
        after: str,
        size: int,
        held: Sequence[Point] | None,
    ) -> Page:
        stale = await self._totals.stale()
        found = await self._totals.tenants(
            after, size + 1, tier=tier, registered=held is None, stale=stale
        )
        if held is not None:
            found = sorted({*found, *(one.tenant for one in held if one.tenant > after)})
        names = found[:size]
        policy = self._policy.current
        tenants = await self._tenants(names, tier, policy)
        counts = await self._counts(
            list(tenants), start, end, await self._held(names) if held is None else held
        )
        quotas = await self._used(tenants, start, end, policy)
        reports = [
            TenantReport(
                tenant,
                one.record.name if one.record else None,
                one.tier,
                one.record.status if one.record else None,
                counts[tenant],
                quotas[tenant],
            )
            for tenant, one in tenants.items()
            if one.record is not None or counts[tenant]
        ]
        return Page(reports, names[-1] if len(found) > size else None)

    async def _held(self, tenants: Sequence[str] | None) -> list[Point]:
        return [point for source in self._sources for point in await source.held(tenants)]

    async def _tenants(
        self, names: Sequence[str], tier: str | None, policy: Policy
    ) -> dict[str, _Tenant]:
        """What applies to each, those of other tiers left out."""
        now = self._now()
        default = policy.tiers.get(policy.default_tier or "")
        known = await self._ledger.load_many(names)
        found = {}
        for name in names:
            record, overrides = known.get(name, (None, ()))
            if record is not None and tier not in (None, record.tier):
                continue
            called = record.tier if record is not None else policy.default_tier
            applies = policy.tiers.get(called or "") or default
            quotas = {} if applies is None else resolve(applies, overrides, now).quotas
            found[name] = _Tenant(record, called, quotas)
        return found

    async def _counts(
        self, tenants: Sequence[str], start: datetime, end: datetime, held: Sequence[Point]
    ) -> dict[str, dict[str, int]]:
        """What is counted of each, by meter; what is 0 is left out."""
        first, last = minute_of(start), first_step(end, "minute")
        redis = {
            (point.tenant, point.minute, point.meter): point.value
            for point in held
            if first <= point.minute < last
        }
        # Asked for after Redis was read: what the roll-up has moved since is there, and told stale.
        stale = await self._totals.stale()
        fresh = {minute for _, minute, _ in redis}
        parts = spans(first, last, stale_days=stale.days, stale_hours=stale.hours, fresh=fresh)
        sums: dict[str, defaultdict[str, int]] = {name: defaultdict(int) for name in tenants}
        most = max(_FEWEST, _TENANT_DAYS * 1440 // max(last - first, 1))
        for place in range(0, len(tenants), most):
            some = tenants[place : place + most]
            for tenant, minute, meter, value in await self._totals.sums(some, parts, fresh):
                if minute is None or (tenant, minute, meter) not in redis:
                    sums[tenant][meter] += value
        for (tenant, _, meter), value in redis.items():
            if tenant in sums:
                sums[tenant][meter] += value
        return {
            tenant: {meter: value for meter, value in found.items() if value}
            for tenant, found in sums.items()
        }

    async def _used(
        self, tenants: Mapping[str, _Tenant], start: datetime, end: datetime, policy: Policy
    ) -> dict[str, list[QuotaUse]]:
        """How much of each resource was used at the end, and how long it lasts."""
        now = self._now()
        end = min(end, now)
        applies = {name: one.quotas for name, one in tenants.items()}
        resources = policy.resources
        durable = [name for name, one in resources.items() if one.durable]
        since = lookback(start, end)
        before = await self._levels.before(applies, durable, since)
        if end == now:
            live = await self._quotas.read(applies)
            used = {
                (tenant, one.resource): one.used for tenant, some in live.items() for one in some
            }
        else:
            ended = await self._levels.before(
                applies, durable, instant_of(first_step(end, "minute"))
            )
            used = {
                (tenant, name): level_at(ended.get((tenant, name)), quota, end)
                for tenant, quotas in applies.items()
                for name, quota in quotas.items()
                if resources[name].durable
            }

        def use(tenant: str, quota: Quota) -> QuotaUse:
            level = used.get((tenant, quota.resource))
            known = before.get((tenant, quota.resource))
            days = None
            if level is not None and resources[quota.resource].durable:
                days = days_until_full(quota, level, since, known, end)
            unit = resources[quota.resource].unit
            return QuotaUse(quota.resource, unit, level, quota.limit, days)

        return {
            tenant: [use(tenant, quota) for quota in quotas.values()]
            for tenant, quotas in applies.items()
        }
