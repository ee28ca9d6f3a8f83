"""One tenant's quotas under its lock: the arithmetic of every operation. Pure.

Whoever holds the lock of a tenant loads its book, applies operations one after another and writes
what changed in one transaction. Nothing else changes a level.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from partywall.quotas.periods import period_end, period_start
from partywall_service.policy.model import MAX_AMOUNT
from partywall_service.quotas.model import (
    Changes,
    Consume,
    Crossing,
    Entry,
    Held,
    Level,
    Operation,
    Outcome,
    QuotaState,
    Release,
    Reservation,
    Reserve,
    Settle,
    SetUsed,
    Terms,
    refused,
)


class Book:
    """The levels and reservations of one tenant.

    Args:
        now: the time at which its operations happen: the store's, read under the lock.
        levels: by resource; one that is missing was never used.
        reservations: those that operations name, by id; what has expired by now is marked so, and
            given back with `expire`.

    Attributes:
        levels: as they stand.
        reservations: as they stand.
        changes: what has to be written.
    """

    def __init__(
        self,
        now: datetime,
        levels: Mapping[str, Level] | None = None,
        reservations: Mapping[str, Reservation] | None = None,
    ) -> None:
        self.now = now
        self.levels = dict(levels or {})
        self.reservations = dict(reservations or {})
        self.changes = Changes()

    def apply(self, operation: Operation) -> Outcome:
        """Does an operation, or says why not; then it has changed nothing.

        A period that has ended is refilled whatever comes of it.
        """
        match operation.what:
            case Consume(items):
                return self._consume(operation, items)
            case Release(items):
                return self._release(operation, items)
            case Reserve():
                return self._reserve(operation, operation.what)
            case Settle():
                return self._settle(operation, operation.what)
            case SetUsed():
                return self._set_used(operation, operation.what)

    def expire(self, reservation: str, items: Mapping[str, Held]) -> None:
        """Gives back what an expired reservation held."""
        for resource, held in items.items():
            self._unhold(resource, held)

    def state(self, resource: str, terms: Terms) -> QuotaState:
        """A quota as it stands now; of one whose period has ended, as it will be refilled."""
        level = self.levels.get(resource) or Level()
        start = period_start(terms.per, self.now) if terms.per else None
        if _has_ended(level, terms, start):
            refills = bool(level.used or level.reserved)
            level = Level(version=level.version + refills, per=terms.per, period_start=start)
        limit = terms.limit
        crossed = level.crossed if limit and level.used * 100 >= level.crossed * limit else 0
        return QuotaState(
            resource=resource,
            unit=terms.unit,
            limit=limit,
            used=level.used,
            reserved=level.reserved,
            remaining=None if limit is None else max(0, limit - level.used - level.reserved),
            period=terms.per,
            resets_at=_resets_at(level, terms),
            version=level.version,
            crossed=crossed or None,
            crossed_at=level.crossed_at if crossed else None,
        )

    def _consume(self, operation: Operation, items: Mapping[str, int]) -> Outcome:
        denied = self._without_room(operation, items)
        crossings: list[Crossing] = []
        if not denied:
            for resource, amount in items.items():
                crossings += self._use(operation, resource, amount, "consume")
        return self._answer(operation, items, denied, crossings)

    def _release(self, operation: Operation, items: Mapping[str, int]) -> Outcome:
        for resource, amount in items.items():
            level = self._current(operation, resource)
            if amount > level.used:
                return refused(
                    "conflict",
                    f"expected to release at most the {level.used} of {resource!r} in use;"
                    f" got {amount}",
                )
        crossings: list[Crossing] = []  # there are some where a limit was lowered meanwhile
        for resource, amount in items.items():
            crossings += self._use(operation, resource, -amount, "release")
        return self._answer(operation, items, crossings=crossings)

    def _reserve(self, operation: Operation, reserve: Reserve) -> Outcome:
        denied = self._without_room(operation, reserve.items)
        if denied:
            return self._answer(operation, reserve.items, denied)
        held = {}
        for resource, amount in reserve.items.items():
            level = self._current(operation, resource)
            level.reserved += amount
            self._touch(resource, level)
            held[resource] = Held(amount, level.refills)
        for resource, amount in operation.elsewhere.items():
            held[resource] = Held(amount, elsewhere=True)
        expires_at = self.now + timedelta(seconds=reserve.ttl)
        self.reservations[reserve.reservation] = Reservation(held, expires_at)
        self.changes.reservations.add(reserve.reservation)
        return self._answer(
            operation, reserve.items, reservation=reserve.reservation, expires_at=expires_at
        )

    def _settle(self, operation: Operation, settle: Settle) -> Outcome:
        reservation = self.reservations.get(settle.reservation)
        if reservation is None:
            return refused("unknown-reservation", f"there is no reservation {settle.reservation!r}")
        held = {resource: one.amount for resource, one in reservation.items.items()}
        mine = [name for name, one in reservation.items.items() if not one.elsewhere]
        taken = _taken(settle, held)
        for resource, amount in taken.items():
            if amount > held.get(resource, 0):
                return refused(
                    "invalid-request",
                    f"expected to commit at most the {held.get(resource, 0)} of {resource!r} that"
                    f" are reserved; got {amount}",
                )
        if reservation.status == settle.status and reservation.outcome is not None:
            if taken == reservation.taken:
                return reservation.outcome
            return refused("conflict", f"it was committed with other items: {reservation.taken}")
        if reservation.status == "expired" and settle.status == "cancelled":
            return self._settled(operation, settle, mine)
        if reservation.status != "held":
            return refused("conflict", f"the reservation is {reservation.status} already")
        crossings: list[Crossing] = []
        for resource, one in reservation.items.items():
            self._unhold(resource, one)
            amount = taken.get(resource, 0)
            if amount and not one.elsewhere:
                crossings += self._commit(operation, resource, amount, one)
        outcome = self._settled(operation, settle, mine, crossings)
        reservation.status = settle.status
        reservation.taken = taken
        reservation.outcome = outcome
        self.changes.reservations.add(settle.reservation)
        return outcome

    def _settled(
        self,
        operation: Operation,
        settle: Settle,
        resources: Iterable[str],
        crossings: Iterable[Crossing] = (),
    ) -> Outcome:
        return self._answer(
            operation,
            resources,
            crossings=crossings,
            reservation=settle.reservation,
            status=settle.status,
        )

    def _set_used(self, operation: Operation, what: SetUsed) -> Outcome:
        level = self._current(operation, what.resource)
        if what.used + level.reserved > MAX_AMOUNT:
            return refused(
                "invalid-request",
                f"expected at most {MAX_AMOUNT} with the {level.reserved} that are reserved",
            )
        if what.if_version is not None and what.if_version != level.version:
            return refused(
                "conflict",
                f"expected {what.resource!r} to be at version {what.if_version}; it has moved on to"
                f" {level.version}",
            )
        crossings = self._use(operation, what.resource, what.used - level.used, "set")
        return self._answer(operation, (what.resource,), crossings=crossings)

    def _without_room(self, operation: Operation, items: Mapping[str, int]) -> list[str]:
        """The resources that cannot take so much more."""
        denied = []
        for resource, amount in items.items():
            level = self._current(operation, resource)
            limit = _terms(operation, resource).limit
            # Unlimited ends where numbers do: JSON and Lua carry no larger ones exactly.
            if level.used + level.reserved + amount > (MAX_AMOUNT if limit is None else limit):
                denied.append(resource)
        return denied

    def _current(self, operation: Operation, resource: str) -> Level:
        """The level, refilled if its period has ended."""
        terms = _terms(operation, resource)
        level = self.levels.setdefault(resource, Level())
        start = period_start(terms.per, self.now) if terms.per else None
        if _has_ended(level, terms, start):
            if level.used:
                self.changes.entries.append(
                    Entry(resource, "refill", -level.used, 0, "partywall", reason="a new period")
                )
            if level.used or level.reserved:
                self._touch(resource, level)
            level.used = level.reserved = level.crossed = 0
            level.crossed_at = None
            level.period_start = start
            level.refills += 1
        level.per = terms.per  # where it is held from now on, what is there stays
        return level

    def _use(self, operation: Operation, resource: str, delta: int, name: str) -> list[Crossing]:
        """Changes a level and writes the line; the thresholds it crossed."""
        level = self._current(operation, resource)
        if delta == 0 and name == "set":
            return []
        level.used += delta
        self._touch(resource, level)
        self.changes.entries.append(_entry(operation, resource, name, delta, level.used))
        return self._cross(resource, level, _terms(operation, resource))

    def _commit(
        self, operation: Operation, resource: str, amount: int, held: Held
    ) -> list[Crossing]:
        level = self._current(operation, resource)
        if held.refill == level.refills:
            return self._use(operation, resource, amount, "commit")
        # It counted in the period in which it was reserved, and that one is over.
        late = _entry(operation, resource, "commit", 0, level.used, "reserved in an earlier period")
        self.changes.entries.append(late)
        return []

    def _unhold(self, resource: str, held: Held) -> None:
        level = self.levels.get(resource) or Level()
        if held.refill == level.refills and not held.elsewhere:
            level.reserved -= held.amount
            self._touch(resource, level)

    def _touch(self, resource: str, level: Level) -> None:
        level.version += 1
        self.changes.levels.add(resource)

    def _cross(self, resource: str, level: Level, terms: Terms) -> list[Crossing]:
        """Notes which thresholds the level is at; those it has risen to since it was last noted."""
        limit = terms.limit
        reached = [one for one in terms.thresholds if limit and level.used * 100 >= one * limit]
        told = [
            Crossing(resource, one, level.used, limit or 0)
            for one in reached
            if one > level.crossed
        ]
        level.crossed = max(reached, default=0)
        if told or not reached:
            level.crossed_at = self.now if told else None
        self.changes.crossings += told
        return told

    def _answer(
        self,
        operation: Operation,
        resources: Iterable[str],
        denied: Iterable[str] = (),
        crossings: Iterable[Crossing] = (),
        *,
        reservation: str | None = None,
        expires_at: datetime | None = None,
        status: str | None = None,
    ) -> Outcome:
        states = [self.state(resource, _terms(operation, resource)) for resource in resources]
        return Outcome(
            quotas=(*states, *operation.beside),
            denied=tuple(denied),
            reservation=reservation,
            expires_at=expires_at,
            status=status,  # type: ignore[arg-type] # SettledAs, as its callers pass it
            crossings=tuple(crossings),
            at=self.now,
        )


def _has_ended(level: Level, terms: Terms, start: datetime | None) -> bool:
    """Whether the level was counted in another period than the one that begins at `start`.

    A clock that was set back must not refill a second time.
    """
    if terms.per is None or start is None:
        return False
    if level.per != terms.per or level.period_start is None:
        return True
    return start > level.period_start


def _resets_at(level: Level, terms: Terms) -> datetime | None:
    if terms.per is None or level.period_start is None:
        return None
    return period_end(terms.per, level.period_start)


def _terms(operation: Operation, resource: str) -> Terms:
    """What applies; to what no tier names any more (a reservation may), nothing does."""
    return operation.terms.get(resource) or Terms(None)


def _taken(settle: Settle, held: Mapping[str, int]) -> dict[str, int]:
    if settle.status == "cancelled":
        return {}
    return dict(held if settle.items is None else settle.items)


def _entry(
    operation: Operation,
    resource: str,
    name: str,
    delta: int,
    used: int,
    reason: str | None = None,
) -> Entry:
    return Entry(
        resource,
        name,  # type: ignore[arg-type] # one of the literals, as its callers pass it
        delta,
        used,
        operation.actor,
        operation.key,
        operation.reason or reason,
    )
