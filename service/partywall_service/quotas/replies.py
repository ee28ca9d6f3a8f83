"""From what `volatile.lua` replies to outcomes, worded as `book.py` words them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache

import msgspec

from partywall.quotas.periods import period_end
from partywall_service.policy.model import Period
from partywall_service.quotas.instants import instant
from partywall_service.quotas.model import (
    Crossing,
    Operation,
    Outcome,
    QuotaState,
    Release,
    Reserve,
    Settle,
    SetUsed,
    Terms,
    refused,
)

_HEAD = 4
"""Words before the states."""

_STATE = 6
"""Words of a state."""

Word = bytes | int
Reply = Sequence[Word] | bytes
"""As the script's header has it."""

_NOTHING = Terms(None)
"""What applies to a resource that no tier names any more."""


class Context(msgspec.Struct, frozen=True, array_like=True):
    """What an operation was asked with, kept beside its answer, so that a repetition is told that.

    Attributes:
        terms: what applied, by resource.
        reservation: the id that was to be made.
    """

    terms: Mapping[str, Terms]
    reservation: str | None


_contexts = msgspec.json.Decoder(Context)


def outcome_of(operation: Operation, reply: Reply, context: bytes) -> Outcome:
    """What came of an operation; a refusal where it could not be done.

    Args:
        operation: as it was asked.
        reply: of the script.
        context: of another try, where the reply is the one that was given then.
    """
    words = _words(reply)
    code = words[0]
    if code not in (b"done", b"denied"):
        return _refusal(operation, code, words[_HEAD:])
    what = operation.what
    terms, name = operation.terms, what.reservation if isinstance(what, Reserve) else None
    if context:
        first = _contexts.decode(context)
        terms, name = first.terms, first.reservation
    details = _HEAD + _STATE * int(words[3])
    states, crossings = _states(words[_HEAD:details], terms)
    quotas = (*states, *operation.beside)
    at = instant(int(words[1]))
    if code == b"denied":
        return Outcome(quotas, tuple(map(_text, words[details:])), at=at)
    if isinstance(what, Reserve):
        expires_at = instant(int(words[2]))
        return Outcome(quotas, reservation=name, expires_at=expires_at, at=at)
    if isinstance(what, Settle):
        return Outcome(
            quotas,
            reservation=what.reservation,
            status=what.status,
            crossings=tuple(crossings),
            at=at,
        )
    return Outcome(quotas, crossings=tuple(crossings), at=at)


def states_of(reply: Reply, terms: Mapping[str, Terms]) -> list[QuotaState]:
    """The quotas that were only looked at."""
    return _states(_words(reply)[_HEAD:], terms)[0]


def _words(reply: Reply) -> Sequence[Word]:
    return reply.split(b" ") if isinstance(reply, bytes) else reply


def _text(word: Word) -> str:
    return word.decode() if isinstance(word, bytes) else str(word)


def _states(
    words: Sequence[Word], terms: Mapping[str, Terms]
) -> tuple[list[QuotaState], list[Crossing]]:
    """Levels under the terms that apply, and the thresholds they have crossed just now."""
    states: list[QuotaState] = []
    crossings: list[Crossing] = []
    for place in range(0, len(words), _STATE):
        resource = _text(words[place])
        used, reserved, version, start, delta = map(int, words[place + 1 : place + _STATE])
        applies = terms.get(resource, _NOTHING)
        limit, per, crossed = applies.limit, applies.per, None
        for one in applies.thresholds:
            if not limit or used * 100 < one * limit:
                break
            crossed = one
            if (used - delta) * 100 < one * limit:
                crossings.append(Crossing(resource, one, used, limit))
        states.append(
            QuotaState(
                resource,
                applies.unit,
                limit,
                used,
                reserved,
                None if limit is None else max(0, limit - used - reserved),
                per,
                _resets_at(per, start) if per and start >= 0 else None,
                version,
                crossed,
            )
        )
    return states, crossings


@lru_cache(maxsize=64)
def _resets_at(per: Period, start: int) -> datetime:
    return period_end(per, instant(start))


def _refusal(operation: Operation, code: Word, details: Sequence[Word]) -> Outcome:
    what = operation.what
    if code == b"other":
        return refused("conflict", "the idempotency key was used for another request before")
    if isinstance(what, Release):
        resource, used = _text(details[0]), int(details[1])
        return refused(
            "conflict",
            f"expected to release at most the {used} of {resource!r} in use;"
            f" got {what.items[resource]}",
        )
    if isinstance(what, SetUsed):
        return refused(
            "conflict",
            f"expected {what.resource!r} to be at version {what.if_version}; it has moved on to"
            f" {int(details[0])}",
        )
    if isinstance(what, Settle):
        return _not_settled(what, code, details)
    raise ValueError(f"volatile.lua refused a {type(what).__name__} with {code!r}")


def _not_settled(settle: Settle, code: Word, details: Sequence[Word]) -> Outcome:
    if code == b"unknown":
        return refused("unknown-reservation", f"there is no reservation {settle.reservation!r}")
    if code == b"too_much":
        resource, held = _text(details[0]), int(details[1])
        return refused(
            "invalid-request",
            f"expected to commit at most the {held} of {resource!r} that are reserved;"
            f" got {(settle.items or {})[resource]}",
        )
    if code == b"otherwise":
        # One word of an array, several of a line.
        words = " ".join(map(_text, details)).split()
        taken = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        return refused("conflict", f"it was committed with other items: {taken}")
    return refused("conflict", f"the reservation is {_text(details[0])} already")
