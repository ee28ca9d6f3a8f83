"""The fake sidecar's quotas of one tenant: levels, reservations, the ledger."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from partywall._fake.amounts import Allowance, Resource
from partywall._fake.refused import Refused
from partywall.protocol import MAX_AMOUNT
from partywall.quotas.periods import period_end, period_start
from partywall.quotas.records import (
    Crossing,
    LedgerEntry,
    Period,
    Quota,
    QuotaOutcome,
    Reserved,
    Settled,
    Settlement,
)


class Terms(NamedTuple):
    """What applies to one resource of the tenant."""

    allowance: Allowance
    resource: Resource


class Asker(NamedTuple):
    """What the ledger says of who asked."""

    key: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class _Level:
    used: int = 0
    reserved: int = 0
    version: int = 0
    per: Period | None = None
    start: datetime | None = None
    crossed: int = 0
    crossed_at: datetime | None = None
    refills: int = 0


class _Held(NamedTuple):
    amount: int
    refill: int


@dataclass(slots=True)
class _Hold:
    items: dict[str, _Held]
    expires_at: datetime
    status: Literal["held", "committed", "cancelled", "expired"] = "held"
    taken: dict[str, int] = field(default_factory=dict)
    answer: Settled | None = None


class Book:
    """One tenant's quotas. Every method is given the time and what applies then.

    Attributes:
        entries: the ledger, oldest first.
    """

    def __init__(self, tenant: str) -> None:
        self.entries: list[LedgerEntry] = []
        self._tenant = tenant
        self._levels: dict[str, _Level] = {}
        self._holds: dict[str, _Hold] = {}
        self._now = datetime.min.replace(tzinfo=UTC)
        self._terms: Mapping[str, Terms] = {}

    def at(self, now: datetime, terms: Mapping[str, Terms]) -> "Book":
        """The book as it is now: what has expired was given back."""
        self._now, self._terms = now, terms
        for hold in self._holds.values():
            if hold.status == "held" and hold.expires_at <= now:
                hold.status = "expired"
                self._unhold(hold)
        return self

    def quota(self, resource: str) -> Quota:
        """One quota as it stands; where a period has ended, as it will be refilled."""
        allowance, behaviour = self._of(resource)
        level = self._levels.get(resource) or _Level()
        start = period_start(allowance.per, self._now) if allowance.per else None
        if _has_ended(level, allowance, start):
            refills = bool(level.used or level.reserved)
            level = _Level(version=level.version + refills, start=start)
        limit = allowance.limit
        crossed = level.crossed if limit and level.used * 100 >= level.crossed * limit else 0
        return Quota(
            resource=resource,
            unit=behaviour.unit,
            limit=limit,
            used=level.used,
            reserved=level.reserved,
            remaining=None if limit is None else max(0, limit - level.used - level.reserved),
            period=allowance.per,
            resets_at=period_end(allowance.per, level.start)
            if allowance.per and level.start
            else None,
            version=level.version,
            crossed=crossed or None,
            crossed_at=level.crossed_at if crossed else None,
        )

    def consume(self, items: Mapping[str, int], asker: Asker) -> QuotaOutcome:
        """Takes amounts, all or none."""
        denied = self._without_room(items)
        crossings: list[Crossing] = []
        if not denied:
            for resource, amount in items.items():
                crossings += self._use(resource, amount, "consume", asker)
        return QuotaOutcome(not denied, self._tenant, denied, self._quotas(items), tuple(crossings))

    def release(self, items: Mapping[str, int], asker: Asker) -> QuotaOutcome:
        """Gives amounts back, all or none.

        Raises:
            Refused: it would go below zero.
        """
        for resource, amount in items.items():
            used = self._current(resource).used
            if amount > used:
                raise Refused(
                    "conflict",
                    f"expected to release at most the {used} of {resource!r} in use; got {amount}",
                )
        for resource, amount in items.items():
            self._use(resource, -amount, "release", asker)
        return QuotaOutcome(True, self._tenant, (), self._quotas(items))

    def reserve(self, items: Mapping[str, int], ttl: int) -> Reserved:
        """Holds amounts, all or none."""
        denied = self._without_room(items)
        if denied:
            return Reserved(False, self._tenant, denied, self._quotas(items))
        held = {}
        for resource, amount in items.items():
            level = self._current(resource)
            level.reserved += amount
            level.version += 1
            held[resource] = _Held(amount, level.refills)
        name = f"fake-{len(self._holds) + 1}"
        expires_at = self._now + timedelta(seconds=ttl)
        self._holds[name] = _Hold(held, expires_at)
        return Reserved(
            True,
            self._tenant,
            quotas=self._quotas(items),
            reservation=name,
            expires_at=expires_at,
        )

    def settle(
        self, name: str, status: Settlement, items: Mapping[str, int] | None, asker: Asker
    ) -> Settled:
        """Ends a reservation.

        Raises:
            Refused: there is none, it ended otherwise, or more is wanted than it holds.
        """
        hold = self._holds.get(name)
        if hold is None:
            raise Refused("unknown-reservation", f"there is no reservation {name!r}")
        taken: dict[str, int] = {}
        if status == "committed":
            all_of_it = {resource: held.amount for resource, held in hold.items.items()}
            taken = dict(all_of_it if items is None else items)
            for resource, amount in taken.items():
                most = all_of_it.get(resource, 0)
                if amount > most:
                    raise Refused(
                        "invalid-request",
                        f"expected to commit at most the {most} of {resource!r} that are reserved; "
                        f"got {amount}",
                        "items",
                    )
        if hold.answer is not None and hold.status == status:
            if taken == hold.taken:
                return hold.answer
            raise Refused("conflict", f"it was committed with other items: {hold.taken}")
        if hold.status == "expired" and status == "cancelled":
            return Settled(name, status, self._quotas(hold.items))
        if hold.status != "held":
            raise Refused("conflict", f"the reservation is {hold.status} already")
        crossings = self._end(hold, taken, asker)
        hold.status, hold.taken = status, taken
        hold.answer = Settled(name, status, self._quotas(hold.items), tuple(crossings))
        return hold.answer

    def set_used(self, resource: str, used: int, if_version: int | None, asker: Asker) -> Quota:
        """Says what is really used.

        Raises:
            Refused: the version has moved on.
        """
        level = self._current(resource)
        if if_version is not None and if_version != level.version:
            raise Refused(
                "conflict",
                f"expected {resource!r} to be at version {if_version}; it has moved on to "
                f"{level.version}",
            )
        if used != level.used:
            self._use(resource, used - level.used, "set", asker)
        return self.quota(resource)

    def _end(self, hold: _Hold, taken: Mapping[str, int], asker: Asker) -> list[Crossing]:
        """Gives back what is held, and consumes what is taken."""
        crossings: list[Crossing] = []
        self._unhold(hold)
        for resource, held in hold.items.items():
            if resource not in taken:
                continue
            level = self._current(resource)
            if held.refill == level.refills:
                crossings += self._use(resource, taken[resource], "commit", asker)
            else:  # it counted in the period in which it was reserved, and that one is over
                late = asker._replace(reason=asker.reason or "reserved in an earlier period")
                self._note(resource, "commit", 0, level.used, late)
        return crossings

    def _unhold(self, hold: _Hold) -> None:
        for resource, held in hold.items.items():
            level = self._levels[resource]
            if held.refill == level.refills:
                level.reserved -= held.amount
                level.version += 1

    def _without_room(self, items: Mapping[str, int]) -> tuple[str, ...]:
        denied = []
        for resource, amount in items.items():
            level = self._current(resource)
            limit = self._of(resource).allowance.limit
            most = MAX_AMOUNT if limit is None else limit
            if level.used + level.reserved + amount > most:
                denied.append(resource)
        return tuple(denied)

    def _current(self, resource: str) -> _Level:
        """The level, refilled if its period has ended."""
        allowance = self._of(resource).allowance
        level = self._levels.setdefault(resource, _Level())
        start = period_start(allowance.per, self._now) if allowance.per else None
        if _has_ended(level, allowance, start):
            if level.used:
                refill = Asker(reason="a new period")
                self._note(resource, "refill", -level.used, 0, refill, actor="partywall")
            level.version += bool(level.used or level.reserved)
            level.used = level.reserved = level.crossed = 0
            level.crossed_at = None
            level.start = start
            level.refills += 1
        level.per = allowance.per
        return level

    def _use(self, resource: str, delta: int, operation: str, asker: Asker) -> list[Crossing]:
        """Changes a level; the thresholds that it rose to."""
        level = self._current(resource)
        level.used += delta
        level.version += 1
        self._note(resource, operation, delta, level.used, asker)
        allowance, behaviour = self._of(resource)
        limit = allowance.limit
        reached = [one for one in behaviour.thresholds if limit and level.used * 100 >= one * limit]
        told = [
            Crossing(resource, one, level.used, limit or 0)
            for one in reached
            if one > level.crossed
        ]
        level.crossed = max(reached, default=0)
        if told or not reached:
            level.crossed_at = self._now if told else None
        return told

    def _note(
        self,
        resource: str,
        operation: str,
        delta: int,
        used: int,
        asker: Asker,
        actor: str = "host",
    ) -> None:
        if self._of(resource).resource.durable:
            self.entries.append(
                LedgerEntry(self._now, resource, operation, delta, used, actor, *asker)
            )

    def _quotas(self, resources: Iterable[str]) -> tuple[Quota, ...]:
        return tuple(self.quota(resource) for resource in resources)

    def _of(self, resource: str) -> Terms:
        return self._terms[resource]


def _has_ended(level: _Level, allowance: Allowance, start: datetime | None) -> bool:
    """Whether the level was counted in an earlier period, or by another kind of period."""
    if start is None:
        return False
    return level.per != allowance.per or level.start is None or start > level.start
