"""What the fake sidecar knows and decides; its clock goes only when a test says so."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec.structs import replace

from partywall._fake.book import Book, Terms
from partywall._fake.policy import Limit, Policy, Tier
from partywall._fake.queue import Queue
from partywall._fake.refused import Refused
from partywall._fake.windows import MICROSECONDS, Windows
from partywall.decision import Decision, Reason, Window
from partywall.protocol import LIMIT_PATTERN, MAX_AMOUNT, Ask, Permit, UsageReport
from partywall.records import Status, TenantRecord
from partywall.tenants import is_tenant_id

START = datetime(2030, 1, 1, tzinfo=UTC)
"""When every fake sidecar's time begins."""

PERMIT_SECONDS = 60.0
"""For how long granted units may be spent. They are what was needed at once, so nothing is held;
and a slow machine's late answer is not thrown away and charged again."""

NAME_PATTERN = f"^{LIMIT_PATTERN.pattern}$"
TENANT_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
HOSTNAME_PATTERN = rf"^{_LABEL}(\.{_LABEL})*$"
_PRINTABLE = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"


class CheckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `/v1/check` is asked."""

    tenant: Annotated[str, msgspec.Meta(pattern=TENANT_PATTERN)]
    limit: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)] = "requests"
    cost: Annotated[int, msgspec.Meta(ge=1, le=MAX_AMOUNT)] = 1
    dry_run: bool = False


class TenantPut(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `PUT /v1/tenants/{t}` takes; None keeps what is there."""

    tier: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=_PRINTABLE)] | None = (
        None
    )
    domains: (
        Annotated[
            list[Annotated[str, msgspec.Meta(max_length=253, pattern=HOSTNAME_PATTERN)]],
            msgspec.Meta(max_length=100),
        ]
        | None
    ) = None
    status: Status | None = None


class SeenCheck(NamedTuple):
    """A check that reached the fake sidecar; it equals a plain tuple of the same.

    Attributes:
        tenant: whose.
        limit: which limit.
        cost: what it cost.
        allowed: whether it was.
    """

    tenant: str
    limit: str
    cost: int
    allowed: bool


class _Verdict(NamedTuple):
    """What is said of one cost: `limit` is there, with rates, where something may be charged."""

    tier: Tier | None
    limit: Limit
    windows: tuple[Window, ...] = ()
    reason: Reason | None = None
    retry_after: float | None = 0.0

    @property
    def fits(self) -> bool:
        """Whether there is room; a limit that only observes lets it pass without."""
        return self.reason is None

    @property
    def allowed(self) -> bool:
        return self.fits or not self.limit.enforce


class Core:
    """Tenants, windows, quotas, jobs and the clock.

    Attributes:
        policy: whose tiers there are.
        tenants: those registered, by id.
        books: the quotas of each tenant that used any, by id.
        queues: the jobs of each tenant that was asked for any, by id.
        answers: what idempotency keys were answered, by method, path and key.
        checks: what was asked, oldest first.
        usage: what was reported of each tenant, by meter.
        now: in microseconds since the epoch.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.tenants: dict[str, TenantRecord] = {}
        self.books: dict[str, Book] = {}
        self.queues: dict[str, Queue] = {}
        self.answers: dict[tuple[str, str, str], Any] = {}
        self.checks: list[SeenCheck] = []
        self.usage: dict[str, Counter[str]] = {}
        self._reported: dict[str, int] = {}
        self.now = round(START.timestamp()) * MICROSECONDS
        self._windows = Windows()
        self._denied_until: dict[tuple[str, str], int] = {}

    def tier_of(self, tenant: str) -> Tier | None:
        """The tier that applies to a tenant; None to one that is unknown."""
        record = self.tenants.get(tenant)
        name = self.policy.default_tier if record is None else record.tier
        return None if name is None else self.policy.tiers[name]

    def book(self, tenant: str, tier: Tier) -> Book:
        """The quotas of a tenant as they are now, under a tier."""
        resources = self.policy.resources
        terms = {name: Terms(quota, resources[name]) for name, quota in tier.quotas.items()}
        now = datetime.fromtimestamp(self.now / MICROSECONDS, UTC)
        return self.books.setdefault(tenant, Book(tenant)).at(now, terms)

    def queue(self, tenant: str) -> Queue:
        """The jobs of a tenant as they are now."""
        return self.queues.setdefault(tenant, Queue(tenant)).at(self.to_the_millisecond())

    def runs_by(self, tenant: str) -> Tier | None:
        """The tier by which jobs of a tenant run; None where none may start."""
        record = self.tenants.get(tenant)
        held = record is not None and record.status != "active"
        return None if held else self.tier_of(tenant)

    def to_the_millisecond(self) -> datetime:
        """The time, as jobs have it."""
        return START + timedelta(milliseconds=self.now // 1000 - round(START.timestamp() * 1000))

    def deny(self, tenant: str, limit: str, seconds: float) -> None:
        """Denies whatever a tenant asks of a limit, for so long."""
        self._denied_until[tenant, limit] = self.now + round(seconds * MICROSECONDS)

    def check(self, request: CheckRequest) -> Decision:
        """Decides and charges one check."""
        tenant, limit, cost = request.tenant, request.limit, request.cost
        verdict = self._judge(tenant, limit, cost)
        if not request.dry_run:
            self.checks.append(SeenCheck(tenant, limit, cost, verdict.allowed))
        windows = verdict.windows
        if verdict.fits and windows:
            if request.dry_run:  # what would be, and nothing changed
                windows = tuple(
                    replace(one, remaining=one.remaining - cost, reset_after=float(one.window))
                    for one in windows
                )
            else:
                self._windows.charge(tenant, limit, verdict.limit.rates, cost, self.now)
                windows = self._windows.state(tenant, limit, verdict.limit.rates, self.now)
        return Decision(
            allowed=verdict.allowed,
            tenant=tenant,
            tier=verdict.tier.name if verdict.tier else None,
            limit=limit,
            cost=cost,
            reason=None if verdict.allowed else verdict.reason,
            remaining=min(
                (window.remaining for window in windows), default=None if verdict.allowed else 0
            ),
            retry_after=0.0 if verdict.allowed else verdict.retry_after,
            reset_after=max((window.reset_after for window in windows), default=0.0),
            windows=windows,
        )

    def lease(self, ask: Ask) -> Permit:
        """Grants what is needed at once, and nothing that could be held.

        Where all that wait together do not fit, the first alone is served: of what is left over in
        the asker's hands nothing would come back, and the windows would not be exact.
        """
        tenant, limit = ask.tenant, ask.limit
        verdict = self._judge(tenant, limit, ask.cost)
        units = ask.cost
        if verdict.fits and self._judge(tenant, limit, ask.need).fits:
            units = ask.need
        self.checks.append(SeenCheck(tenant, limit, units, verdict.allowed))
        tier = verdict.tier.name if verdict.tier else None
        if not verdict.allowed:
            upgrade = None
            if tier is not None and verdict.reason == "limit-exceeded":
                upgrade = self.policy.upgrade(tier, limit, ask.cost, verdict.windows)
            return Permit(
                False,
                tier,
                verdict.reason,
                retry_after=verdict.retry_after,
                upgrade=upgrade,
                windows=verdict.windows,
            )
        if not (verdict.fits and verdict.windows):
            return Permit(True, tier, windows=verdict.windows, would_deny=not verdict.fits)
        self._windows.charge(tenant, limit, verdict.limit.rates, units, self.now)
        windows = self._windows.state(tenant, limit, verdict.limit.rates, self.now)
        return Permit(True, tier, granted=units, seconds=PERMIT_SECONDS, windows=windows)

    def take(self, report: UsageReport) -> int:
        """Applies a report, unless it is one that was sent again; how many tenants are known."""
        known = [one for one in report.usage if self.tier_of(one.tenant) is not None]
        if report.sequence > self._reported.get(report.instance, 0):
            self._reported[report.instance] = report.sequence
            for one in known:
                self.usage.setdefault(one.tenant, Counter()).update(one.meters)
        return len(known)

    def put_tenant(self, tenant: str, put: TenantPut) -> tuple[TenantRecord, bool]:
        """Registers or changes a tenant; the record, and whether it is new.

        Raises:
            Refused: there is no such tier, or a domain is another tenant's.
        """
        if not is_tenant_id(tenant):
            raise Refused("invalid-request", f"expected a tenant's id; got {tenant!r}", "tenant")
        if put.tier not in self.policy.tiers:
            known = ", ".join(self.policy.tiers)
            raise Refused("invalid-request", f"expected one of {known}; got {put.tier!r}", "tier")
        before = self.tenants.get(tenant)
        now = datetime.fromtimestamp(self.now / MICROSECONDS, UTC)
        changed = before or TenantRecord(tenant, tenant, put.tier, "active", (), (), now, now)
        wanted: Mapping[str, object] = {
            "tier": put.tier,
            "features": self.policy.tiers[put.tier].features,
            "name": put.name,
            "status": put.status,
            "domains": None if put.domains is None else self._domains(tenant, put.domains),
        }
        changed = replace(changed, **{k: new for k, new in wanted.items() if new is not None})
        if before is not None and changed != before:
            changed = replace(changed, updated_at=now)
        self.tenants[tenant] = changed
        return changed, before is None

    def _domains(self, tenant: str, domains: list[str]) -> tuple[str, ...]:
        wanted = sorted({domain.lower() for domain in domains})
        for domain in wanted:
            for other in self.tenants.values():
                if other.id != tenant and domain in other.domains:
                    raise Refused("conflict", f"domain {domain!r} is another tenant's")
        return tuple(wanted)

    def _judge(self, tenant: str, limit: str, cost: int) -> _Verdict:
        record = self.tenants.get(tenant)
        tier = self.tier_of(tenant)
        if tier is None:
            return _Verdict(None, Limit(), (), "unknown-tenant", None)
        its = tier.limits.get(limit)
        if its is None:
            return _Verdict(tier, Limit(), (), "unknown-limit", None)
        if record is not None and record.status == "suspended":
            return _Verdict(tier, Limit(), (), "tenant-suspended", None)
        windows = self._windows.state(tenant, limit, its.rates, self.now)
        forced = (self._denied_until.get((tenant, limit), 0) - self.now) / MICROSECONDS
        if forced > 0:
            return _Verdict(tier, Limit(), _spent(windows, forced), "limit-exceeded", forced)
        wait = self._windows.wait(tenant, limit, its.rates, cost, self.now)
        if wait == 0.0:
            return _Verdict(tier, its, windows)
        return _Verdict(tier, its, windows, "limit-exceeded", wait)


def _spent(windows: tuple[Window, ...], seconds: float) -> tuple[Window, ...]:
    return tuple(
        replace(window, remaining=0, reset_after=max(window.reset_after, seconds))
        for window in windows
    )
