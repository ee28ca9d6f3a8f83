"""`volatile.lua` as a function: from operations to outcomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_hex
from typing import Any

import msgspec
from redis.asyncio import Redis, RedisCluster

from partywall_service.engine.base import StoreError
from partywall_service.engine.connect import answering_within
from partywall_service.engine.scripts import Script
from partywall_service.policy.model import MAX_AMOUNT
from partywall_service.quotas import keys
from partywall_service.quotas.instants import MICROSECONDS, Calendar
from partywall_service.quotas.model import (
    Consume,
    Operation,
    Outcome,
    Release,
    Reserve,
    Settle,
    SetUsed,
    Terms,
)
from partywall_service.quotas.replies import Context, Reply, outcome_of, states_of
from partywall_service.quotas.transaction import KEPT_BY_KEY, KEPT_FOR_RETRIES

TRIES = 3
"""Calls until one finds the calendar that it was sent with: a clock turns a day once in a while."""

_PERIODS = {None: 0, "day": 1, "week": 2, "month": 3}
"""Kinds of periods, as the script's header numbers them."""

_KINDS = {Consume: "consume", Release: "release", Reserve: "reserve", SetUsed: "set"}
_SETTLED = {"committed": "commit", "cancelled": "cancel"}

_MILLISECOND = timedelta(milliseconds=1)

_encode = msgspec.json.Encoder().encode

_Words = tuple[Any, ...]
"""An operation as the script's header has it."""


@dataclass(frozen=True, slots=True)
class Read:
    """A question for the quotas of a tenant, as they stand.

    Attributes:
        tenant: whose.
        terms: what applies, by resource.
    """

    tenant: str
    terms: Mapping[str, Terms]


class VolatileScript:
    """`volatile.lua`: a batch of operations, done in order as one atomic step.

    Args:
        client: from `connect`, or any redis-py client.
        prefix: what every key of this installation starts with.
        deadline: seconds until a call counts as failed.
        clock: seconds since the epoch. Only a guess at Redis's, which decides.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        *,
        prefix: str,
        deadline: float,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._deadline = deadline
        self._calendar = Calendar(clock)
        self._script = Script("volatile", __package__)

    async def decide(
        self, asked: Sequence[Operation | Read], *, now: int | None = None
    ) -> list[Outcome]:
        """What came of each, in order.

        Args:
            asked: of one shard if the client is a cluster's.
            now: microseconds since the epoch in place of Redis's clock, for tests.

        Raises:
            StoreError: no answer within the deadline; what was asked was done or not.
        """
        batch = _Batch(self._prefix, asked)
        operations = _encode(batch.operations).decode()
        clock = "" if now is None else str(now)
        for _ in range(TRIES):
            names = [keys.call(self._prefix, asked[0].tenant, token_hex(8)), *batch.keys]
            async with answering_within(self._deadline):
                what, at, *replies = await self._script(
                    self._client, names, [clock, self._calendar.guess(), operations]
                )
            if what == b"run":
                return list(map(_outcome, asked, replies[::2], replies[1::2]))
            if what == b"again":
                raise StoreError("the connection to Redis broke after it had run the call")
            self._calendar.learn(at)
        raise StoreError(f"the clock of Redis named another day {TRIES} times")


class _Batch:
    """Operations as the script takes them.

    Attributes:
        keys: all but the first.
        operations: with the places of their keys.
    """

    def __init__(self, prefix: str, asked: Sequence[Operation | Read]) -> None:
        self._prefix = prefix
        self._places: dict[str, int] = {}  # of each tenant's levels; the holds are the next
        self.keys: list[str] = []
        self.operations = [
            self._read(one) if isinstance(one, Read) else self._change(one) for one in asked
        ]

    def _read(self, read: Read) -> _Words:
        levels = self._place_of(read.tenant)
        items = _items(dict.fromkeys(read.terms, 0), read.terms)
        return "look", levels, levels + 1, 0, 0, "", items, 0, "", "", 0, False

    def _change(self, operation: Operation) -> _Words:
        tenant, what, terms = operation.tenant, operation.what, operation.terms
        levels = self._place_of(tenant)
        kind = _SETTLED[what.status] if isinstance(what, Settle) else _KINDS[type(what)]
        record, name = 0, ""
        extra: Any = 0
        match what:
            case SetUsed(resource, used, if_version):
                amounts: Mapping[str, int] = {resource: used}
                extra = -1 if if_version is None else if_version
            case Settle(name, _, named):
                amounts = dict.fromkeys(terms, 0)
                extra = False if named is None else list(named.items())
            case Reserve(amounts, name, ttl):
                extra = ttl * MICROSECONDS
            case _:
                amounts = what.items
        if name:
            record = self._add(keys.reservation(self._prefix, tenant, name))
        answer, fingerprint, context, life = 0, "", "", 0
        if operation.key is not None:
            answer = self._add(keys.answer(self._prefix, tenant, operation.id))
            fingerprint = operation.fingerprint.hex()
            life = (KEPT_BY_KEY if operation.kept else KEPT_FOR_RETRIES) // _MILLISECOND
        if answer or isinstance(what, Settle):
            applied = {one: terms[one] for one in amounts}
            context = _encode(Context(applied, name)).decode()
        items = _items(amounts, terms)
        places = (levels, levels + 1, record, answer)
        kept = (fingerprint, context, life, operation.kept)
        return kind, *places, name, items, extra, *kept

    def _place_of(self, tenant: str) -> int:
        """Where the tenant's levels are among the keys; its holds follow."""
        place = self._places.get(tenant)
        if place is None:
            place = self._places[tenant] = self._add(keys.levels(self._prefix, tenant))
            self._add(keys.holds(self._prefix, tenant))
        return place

    def _add(self, key: str) -> int:
        self.keys.append(key)
        return len(self.keys) + 1  # the first is the call's


def _outcome(asked: Operation | Read, reply: Reply, context: bytes) -> Outcome:
    if isinstance(asked, Read):
        return Outcome(tuple(states_of(reply, asked.terms)))
    return outcome_of(asked, reply, context)


def _items(amounts: Mapping[str, int], terms: Mapping[str, Terms]) -> list[_Words]:
    items = []
    for resource, amount in amounts.items():
        applies = terms[resource]
        # Unlimited ends where numbers do: JSON and Lua carry no larger ones exactly.
        most = MAX_AMOUNT if applies.limit is None else applies.limit
        items.append((resource, _PERIODS[applies.per], most, amount))
    return items
