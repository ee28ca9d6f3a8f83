"""What quotas answer, typed (docs/contract.md section 4)."""

from datetime import datetime
from typing import Literal

import msgspec

Unit = Literal["count", "bytes"]
Period = Literal["day", "week", "month"]
Settlement = Literal["committed", "cancelled"]


class Quota(msgspec.Struct, frozen=True):
    """One resource of one tenant, as it stands.

    Attributes:
        resource: which.
        unit: what is counted.
        limit: None when unlimited.
        used: consumed.
        reserved: held by reservations; it counts against the limit, too.
        remaining: what may still be taken, at least 0; None when unlimited.
        period: the calendar period (UTC) after which use refills; None for what is held.
        resets_at: when it next refills; None for what is held.
        version: counts the changes of `used` and `reserved`.
        crossed: the highest threshold that `used` is at, in percent; None below all.
        crossed_at: when it came there.
    """

    resource: str
    unit: Unit
    limit: int | None
    used: int
    reserved: int
    remaining: int | None
    period: Period | None
    resets_at: datetime | None
    version: int
    crossed: int | None = None
    crossed_at: datetime | None = None


class Crossing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tenant's use rose to a percent of its limit, or over it.

    Attributes:
        resource: which.
        percent: of the limit.
        used: the level then.
        limit: the limit then.
        tenant: whose.
    """

    resource: str
    percent: int
    used: int
    limit: int
    tenant: str = ""  # the answer says it once, for all of them


class QuotaOutcome(msgspec.Struct, frozen=True):
    """What came of consuming or releasing; truthy when allowed.

    Attributes:
        allowed: whether it was done; otherwise nothing was changed.
        tenant: whose.
        denied: the resources that had no room.
        quotas: those it named, as they stood after it.
        crossings: thresholds that it crossed.
    """

    allowed: bool
    tenant: str
    denied: tuple[str, ...] = ()
    quotas: tuple[Quota, ...] = ()
    crossings: tuple[Crossing, ...] = ()

    def __bool__(self) -> bool:
        return self.allowed

    def find(self, resource: str) -> Quota | None:
        """How a resource stood; None where it was not named."""
        return next((quota for quota in self.quotas if quota.resource == resource), None)


class Reserved(QuotaOutcome, frozen=True):
    """What came of reserving.

    Attributes:
        reservation: the id of what is held; None when denied.
        expires_at: when it ends by itself.
    """

    reservation: str | None = None
    expires_at: datetime | None = None


class Settled(msgspec.Struct, frozen=True):
    """How a reservation ended.

    Attributes:
        reservation: its id.
        status: committed or cancelled.
        quotas: those that it held, as they stood after it.
        crossings: thresholds that it crossed.
    """

    reservation: str
    status: Settlement
    quotas: tuple[Quota, ...] = ()
    crossings: tuple[Crossing, ...] = ()


class QuotaList(msgspec.Struct, frozen=True):
    """What `GET …/quotas` answers."""

    quotas: list[Quota]


class LedgerEntry(msgspec.Struct, frozen=True):
    """One change of a level; the deltas of a resource add up to its level.

    Attributes:
        at: when, by the sidecar's database.
        resource: whose level.
        operation: consume, release, commit, set, refill; a later sidecar may have others.
        delta: by how much.
        used: the level after it.
        actor: who asked for it.
        idempotency_key: the caller's, where one was sent.
        reason: why, where it was said.
    """

    at: datetime
    resource: str
    operation: str
    delta: int
    used: int
    actor: str
    idempotency_key: str | None
    reason: str | None


class LedgerPage(msgspec.Struct, frozen=True):
    """A page of a tenant's ledger, newest first."""

    entries: list[LedgerEntry]
    next_cursor: str | None = None


class Excess(msgspec.Struct, frozen=True):
    """A resource of which a tenant has more than a tier allows.

    Attributes:
        resource: which.
        used: what it has.
        limit: what the tier allows.
        excess: how much it is over.
    """

    resource: str
    used: int
    limit: int
    excess: int


class Preview(msgspec.Struct, frozen=True):
    """What another tier would mean for a tenant.

    Attributes:
        tenant: its id.
        from_tier: its tier.
        to_tier: the other one.
        over: what it has more of than that tier allows: it keeps it, and may take no more.
    """

    tenant: str
    from_tier: str = msgspec.field(name="from")
    to_tier: str = msgspec.field(name="to")
    over: tuple[Excess, ...]


class Drift(msgspec.Struct, frozen=True):
    """What counting a resource anew has shown.

    Attributes:
        resource: which.
        used: the level that was kept.
        counted: what there really is.
        drift: `counted - used`.
        repaired: whether the level is now what was counted.
        unsettled: at every attempt it was changed while it was counted, or some of it was reserved,
            so that nobody can say whether the count has that too. Nothing was changed.
    """

    resource: str
    used: int
    counted: int
    drift: int
    repaired: bool = False
    unsettled: bool = False
