"""One operation on resources of both stores: PostgreSQL's, and those that live in Redis alone.

What Redis holds is reserved there first, and settled as PostgreSQL decides; a crash between the two
lets that reservation expire. Names are made from the operation's own, so that a repetition meets
what the first try left.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from secrets import token_hex
from typing import Literal

from msgspec.structs import replace as changed

from partywall_service.quotas.model import (
    Consume,
    Operation,
    Outcome,
    QuotaState,
    Release,
    Reserve,
    Settle,
    SetUsed,
    What,
)

Place = Literal["d", "v", "b"]
DURABLE: Place = "d"
VOLATILE: Place = "v"
BOTH: Place = "b"

SETTLE_WITHIN = 30
"""Seconds for which Redis holds what PostgreSQL is about to decide on."""

Apply = Callable[[Operation], Awaitable[Outcome]]


def named(what: What) -> Mapping[str, int]:
    """The resources that an operation names, with their amounts."""
    match what:
        case SetUsed():
            return {what.resource: what.used}
        case Settle():
            return what.items or {}
        case _:
            return what.items


def place_of(reservation: str) -> Place:
    """Where a reservation is kept, by its id; an id that is none belongs to PostgreSQL."""
    match reservation[:1]:
        case "v":
            return VOLATILE
        case "b":
            return BOTH
        case _:
            return DURABLE


def placed(operation: Operation, place: Place) -> Operation:
    """The operation; a reservation gets its id, which says where it is kept."""
    what = operation.what
    if not isinstance(what, Reserve):
        return operation
    return replace(operation, what=replace(what, reservation=f"{place}{token_hex(12)}"))


async def change_both(
    operation: Operation, durable: Collection[str], in_ledger: Apply, in_redis: Apply
) -> Outcome:
    """Does an operation whose resources live in both stores: all of it or nothing.

    Args:
        operation: on resources of both.
        durable: the names of those that PostgreSQL keeps.
        in_ledger: does an operation on durable resources.
        in_redis: does an operation on the others.
    """
    match operation.what:
        case Consume(items) | Reserve(items):
            outcome = await _take(operation, items, durable, in_ledger, in_redis)
        case Release(items):
            outcome = await _release(operation, items, durable, in_ledger, in_redis)
        case Settle(_, _, items):
            outcome = await _settle(operation, operation.what, durable, in_ledger, in_redis)
        case SetUsed():
            raise TypeError("one resource lives in one store")
    places = {name: place for place, name in enumerate(items or ())}
    return changed(
        outcome, quotas=tuple(sorted(outcome.quotas, key=lambda one: places.get(one.resource, 0)))
    )


async def _take(
    operation: Operation,
    items: Mapping[str, int],
    durable: Collection[str],
    in_ledger: Apply,
    in_redis: Apply,
) -> Outcome:
    what = operation.what
    mine, others = _parted(items, durable)
    if isinstance(what, Reserve):
        hold = Reserve(others, what.reservation, what.ttl + SETTLE_WITHIN)
        mine_what: What = replace(what, items=mine)
    else:
        hold = Reserve(others, f"v{operation.id}", SETTLE_WITHIN)
        mine_what = Consume(mine)
    held = await in_redis(_part(operation, hold, "hold"))
    if not held.allowed:
        return held
    beside = held.quotas if isinstance(what, Reserve) else _consumed(held.quotas, others)
    outcome = await in_ledger(replace(operation, what=mine_what, beside=beside, elsewhere=others))
    if outcome.allowed and isinstance(what, Reserve):
        return outcome
    end = Settle(hold.reservation, "committed" if outcome.allowed else "cancelled")
    settled = await in_redis(_part(operation, end, "settle"))
    if outcome.allowed:
        if not settled.allowed:
            # A repetition came when the first hold had expired: what was admitted counts.
            await in_redis(_part(_without_limits(operation), Consume(others), "late"))
        return outcome
    kept = [one for one in outcome.quotas if one.resource in mine]
    return changed(outcome, quotas=(*kept, *settled.quotas))


async def _release(
    operation: Operation,
    items: Mapping[str, int],
    durable: Collection[str],
    in_ledger: Apply,
    in_redis: Apply,
) -> Outcome:
    mine, others = _parted(items, durable)
    released = await in_redis(_part(operation, Release(others), "release"))
    if not released.allowed:
        return released
    outcome = await in_ledger(replace(operation, what=Release(mine), beside=released.quotas))
    if not outcome.allowed:
        await in_redis(_part(_without_limits(operation), Consume(others), "back"))
    return outcome


async def _settle(
    operation: Operation,
    settle: Settle,
    durable: Collection[str],
    in_ledger: Apply,
    in_redis: Apply,
) -> Outcome:
    outcome = await in_ledger(operation)
    if not outcome.allowed:
        return outcome
    others = None if settle.items is None else _parted(settle.items, durable)[1]
    settled = await in_redis(_part(operation, replace(settle, items=others), "settle"))
    return changed(outcome, quotas=(*outcome.quotas, *settled.quotas))


def _parted(
    items: Mapping[str, int], durable: Collection[str]
) -> tuple[dict[str, int], dict[str, int]]:
    mine = {name: amount for name, amount in items.items() if name in durable}
    return mine, {name: amount for name, amount in items.items() if name not in durable}


def _part(operation: Operation, what: What, name: str) -> Operation:
    """A step of the operation: named after it, so that its repetition repeats the step."""
    return replace(operation, what=what, id=f"{operation.id}:{name}")


def _without_limits(operation: Operation) -> Operation:
    terms = {name: replace(terms, limit=None) for name, terms in operation.terms.items()}
    return replace(operation, terms=terms)


def _consumed(states: tuple[QuotaState, ...], amounts: Mapping[str, int]) -> tuple[QuotaState, ...]:
    """How what is held will stand when it is consumed."""
    return tuple(
        changed(
            one,
            used=one.used + amounts[one.resource],
            reserved=one.reserved - amounts[one.resource],
        )
        for one in states
    )
