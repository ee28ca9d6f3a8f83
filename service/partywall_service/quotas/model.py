"""What a quota is asked, and what it answers.

Amounts are in units of the resource (bytes for sizes). An operation is one of the kinds below, of
one tenant. It is answered by an `Outcome`: a value also where it is denied or refused, because a
repeated idempotency key gives the first one again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec

from partywall_service.policy.model import Period, Unit

Refusal = Literal["conflict", "unknown-reservation", "invalid-request"]
"""The slug of the problem that an operation is answered with."""

SettledAs = Literal["committed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What applies to one resource of one tenant now.

    Attributes:
        limit: None when unlimited.
        per: the calendar period (UTC) after which use refills; None for a level that is held.
        unit: what is counted.
        thresholds: percents of the limit whose crossing is told, ascending.
    """

    limit: int | None
    per: Period | None = None
    unit: Unit = "count"
    thresholds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Consume:
    """Takes amounts of several resources: all or none."""

    items: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Release:
    """Gives amounts of several resources back: all or none."""

    items: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reserve:
    """Holds amounts of several resources, all or none, until committed, cancelled or expired.

    Attributes:
        items: what is held.
        reservation: its id.
        ttl: seconds until it expires by itself.
    """

    items: Mapping[str, int]
    reservation: str
    ttl: int


@dataclass(frozen=True, slots=True)
class Settle:
    """Ends a reservation.

    Attributes:
        reservation: its id.
        status: committed, which consumes; or cancelled, which gives everything back.
        items: what is consumed of what was reserved; None for all of it.
    """

    reservation: str
    status: SettledAs
    items: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class SetUsed:
    """Says what is really used; the drift goes into the ledger.

    Attributes:
        resource: of which.
        used: the real level.
        if_version: the version at which it was counted; refused when it has moved on.
    """

    resource: str
    used: int
    if_version: int | None = None


What = Consume | Release | Reserve | Settle | SetUsed


@dataclass(frozen=True, slots=True)
class Operation:
    """One tenant's change of its quotas.

    Attributes:
        tenant: whose.
        what: the change.
        terms: what applies to its resources; for a `Settle` to every resource there is.
        id: names it in the ledger for all time; a repeated one is answered as the first was.
        fingerprint: of what was asked; a repeated id with another one is a conflict.
        actor: who asked, for the ledger.
        key: the caller's idempotency key, for the ledger; None when it sent none.
        kept: whether whatever comes of it is kept, a denial too, for repetitions long after.
        reason: the caller's, for the ledger.
        beside: states of resources that are kept elsewhere, to be told in the answer.
        elsewhere: amounts of those, so that a reservation of both kinds knows all of its items.
    """

    tenant: str
    what: What
    terms: Mapping[str, Terms]
    id: str
    fingerprint: bytes
    actor: str
    key: str | None = None
    kept: bool = False
    reason: str | None = None
    beside: tuple["QuotaState", ...] = ()
    elsewhere: Mapping[str, int] = field(default_factory=dict)


class Crossing(msgspec.Struct, frozen=True):
    """A level rose to or over a percent of its limit.

    Attributes:
        resource: which.
        percent: of the limit.
        used: the level then.
        limit: the limit then.
    """

    resource: str
    percent: int
    used: int
    limit: int


class QuotaState(msgspec.Struct, frozen=True):
    """One quota as it stands (docs/contract.md, section 4).

    Attributes:
        resource: which.
        unit: what is counted.
        limit: None when unlimited.
        used: consumed.
        reserved: held by reservations.
        remaining: what may still be taken, at least 0; None when unlimited.
        period: after which use refills; None for a level that is held.
        resets_at: when it next refills.
        version: counts the changes of `used` and `reserved`.
        crossed: the highest threshold that `used` has crossed, in percent; None below all.
        crossed_at: when it did.
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


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of an operation; kept with it, so that a repetition gets the same.

    Attributes:
        quotas: those it touched, as they stood after it.
        denied: resources that had no room; then nothing was changed.
        reservation: the id of what is held or was settled.
        expires_at: when the reservation does.
        status: as what the reservation was settled.
        refusal: the problem, when it is one; then nothing was changed.
        detail: what the problem says.
        crossings: thresholds that this operation crossed.
        at: when it was done, by the clock of the store that did it.
    """

    quotas: tuple[QuotaState, ...] = ()
    denied: tuple[str, ...] = ()
    reservation: str | None = None
    expires_at: datetime | None = None
    status: SettledAs | None = None
    refusal: Refusal | None = None
    detail: str | None = None
    crossings: tuple[Crossing, ...] = ()
    at: datetime | None = None

    @property
    def allowed(self) -> bool:
        """Whether it was done."""
        return not self.denied and self.refusal is None


def refused(refusal: Refusal, detail: str) -> Outcome:
    """An operation that cannot be done, whatever room there is."""
    return Outcome(refusal=refusal, detail=detail)


@dataclass(slots=True)
class Level:
    """How much of one resource a tenant uses and has reserved.

    Attributes:
        used: consumed in this period.
        reserved: held in this period.
        version: counts changes.
        per: the kind of period that it was last counted by.
        period_start: when that period began; None for a level that is held.
        crossed: the highest threshold crossed, in percent; 0 below all.
        crossed_at: when it was.
        refills: how often it was; what is held belongs to one of them.
    """

    used: int = 0
    reserved: int = 0
    version: int = 0
    per: Period | None = None
    period_start: datetime | None = None
    crossed: int = 0
    crossed_at: datetime | None = None
    refills: int = 0


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """An amount that a reservation holds.

    Attributes:
        amount: how much.
        refill: of the level, since which it was reserved.
        elsewhere: whether another store holds it.
    """

    amount: int
    refill: int = 0
    elsewhere: bool = False


@dataclass(slots=True)
class Reservation:
    """Amounts held until settled.

    Attributes:
        items: by resource.
        expires_at: when it ends by itself.
        status: held, committed, cancelled or expired.
        taken: what was consumed of it when it was committed.
        outcome: what settling it was answered with.
    """

    items: Mapping[str, Held]
    expires_at: datetime
    status: Literal["held", "committed", "cancelled", "expired"] = "held"
    taken: Mapping[str, int] | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger: a change of a level.

    Attributes:
        resource: whose level.
        operation: what changed it.
        delta: by how much.
        used: the level after it.
        actor: who asked for it.
        key: the caller's idempotency key.
        reason: the caller's, or ours.
    """

    resource: str
    operation: Literal["consume", "release", "commit", "set", "refill"]
    delta: int
    used: int
    actor: str
    key: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class Changes:
    """What a tenant's operations changed, to be written together.

    Attributes:
        levels: resources whose level changed.
        reservations: ids of those made or settled.
        entries: new lines of the ledger, in order.
        crossings: thresholds crossed, in order.
    """

    levels: set[str] = field(default_factory=set)
    reservations: set[str] = field(default_factory=set)
    entries: list[Entry] = field(default_factory=list)
    crossings: list[Crossing] = field(default_factory=list)
