"""What one tenant's page shows, read side by side."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from partywall_service.api.auth import Principal
from partywall_service.api.deps import Parts
from partywall_service.api.tenants import unknown_tenant
from partywall_service.dashboard.reading import Away, or_away
from partywall_service.directory import Standing
from partywall_service.engine.base import Check, StoreError
from partywall_service.ledger.records import AuditEntry, OverrideRecord, Status, TenantRecord
from partywall_service.policy.model import Limit, Unit
from partywall_service.policy.resolve import JOB_SETTINGS
from partywall_service.quotas.service import Standings
from partywall_service.quotas.store import LedgerEntry
from partywall_workers.records import Backlog, JobRecord

RECENT = 10
"""Lines of each list; the last of what may be many."""

MOST_OVERRIDES = 200


@dataclass(frozen=True, slots=True)
class WindowLevel:
    """How full one window of a limit is.

    Attributes:
        limit: whose.
        quota: of the window.
        window: its length in seconds.
        used: of the quota, as it counts now.
    """

    limit: Limit
    quota: int
    window: int
    used: int


@dataclass(frozen=True, slots=True)
class TenantView:
    """One tenant.

    Attributes:
        tenant: its id.
        record: None where nobody registered it, and the default tier serves it.
        standing: what applies to it; None where the policy has nothing for it.
        overrides: in force.
        limits: each window of each limit that is not unlimited.
        unlimited: limits without any window.
        quotas: as they stand.
        backlog: its jobs in numbers.
        jobs: the last queued.
        ledger: the last changes of its quotas.
        audit: the last changes by people; None where the viewer may not see them.
        choices: what an override can be of, by kind.
        units: of resources.
    """

    tenant: str
    record: TenantRecord | None
    standing: Standing | None
    overrides: Sequence[OverrideRecord]
    limits: Sequence[WindowLevel] | Away
    unlimited: Sequence[Limit]
    quotas: Standings | Away
    backlog: Backlog | Away
    jobs: Sequence[JobRecord] | Away
    ledger: Sequence[LedgerEntry] | Away
    audit: Sequence[AuditEntry] | Away | None
    choices: Mapping[str, Sequence[str]]
    units: Mapping[str, Unit]

    @property
    def status(self) -> Status:
        """A tenant that nobody registered is active."""
        return "active" if self.record is None else self.record.status

    @property
    def overridden(self) -> frozenset[tuple[str, str]]:
        """Kind and name of what is overridden."""
        return frozenset((one.kind, one.name) for one in self.overrides)


async def view_of(parts: Parts, viewer: Principal, tenant: str) -> TenantView:
    """The tenant as the viewer may see it.

    With a tenant's own token all is read under row-level security.

    Raises:
        Problem: `unknown-tenant`.
        LedgerUnavailable: PostgreSQL does not answer.
    """
    scope = viewer.tenant
    # Side by side; in two parts, because that is as far as the types of `gather` go.
    who, what = await asyncio.gather(
        asyncio.gather(parts.directory.find([tenant]), _record(parts, tenant, scope)),
        asyncio.gather(
            or_away(parts.quotas.read(tenant, scope=scope)),
            or_away(parts.jobs.backlog(tenant)),
            or_away(parts.jobs.list(tenant, limit=RECENT)),
            or_away(parts.quotas.list_entries(tenant, limit=RECENT, scope=scope)),
            _audit(parts, viewer, tenant),
        ),
    )
    entries, (record, overrides) = who
    quotas, backlog, jobs, ledger, audit = what
    standing = entries[tenant].standing
    if record is None and standing is None:
        raise unknown_tenant(tenant)
    limits = list(standing.limits.values()) if standing is not None else []
    policy = parts.policy.current
    return TenantView(
        tenant=tenant,
        record=record,
        standing=standing,
        overrides=overrides,
        limits=await or_away(_levels(parts, tenant, [one for one in limits if one.rates])),
        unlimited=[one for one in limits if not one.rates],
        quotas=quotas,
        backlog=backlog,
        jobs=jobs if isinstance(jobs, Away) else jobs[0],
        ledger=ledger,
        audit=audit,
        choices={
            "limits": sorted(policy.limit_names),
            "quotas": list(policy.resources),
            "jobs": JOB_SETTINGS,
        },
        units={name: one.unit for name, one in policy.resources.items()},
    )


async def _record(
    parts: Parts, tenant: str, scope: str | None
) -> tuple[TenantRecord | None, Sequence[OverrideRecord]]:
    """As PostgreSQL has it: another sidecar may have changed it just now, for this very viewer."""
    if scope is None:
        found = (await parts.ledger.load_many([tenant])).get(tenant)
        if found is None:
            return None, ()
        return found[0], sorted(found[1], key=lambda one: (one.kind, one.name))
    return await asyncio.gather(
        parts.ledger.get_tenant(tenant, scope=scope),
        parts.ledger.list_overrides(tenant, limit=MOST_OVERRIDES, scope=scope),
    )


async def _audit(
    parts: Parts, viewer: Principal, tenant: str
) -> Sequence[AuditEntry] | Away | None:
    if viewer.scope != "admin":
        return None
    return await or_away(parts.ledger.list_audit(tenant=tenant, limit=RECENT))


async def _levels(parts: Parts, tenant: str, limits: Sequence[Limit]) -> list[WindowLevel]:
    """How full each window is, by checks that change nothing."""
    if not limits:
        return []
    if not parts.breaker.closed:
        raise StoreError("the shared store is not answering")
    checks = [Check(tenant, one.name, one.rates, dry_run=True) for one in limits]
    verdicts = await parts.breaker.decide(checks)
    # Where the check was allowed, its windows are as if its cost of 1 had been spent.
    return [
        WindowLevel(
            limit,
            window.quota,
            window.window,
            window.quota - window.remaining - int(verdict.allowed),
        )
        for limit, verdict in zip(limits, verdicts, strict=True)
        for window in verdict.windows
    ]
