"""`volatile.lua` beside the arithmetic of PostgreSQL's quotas: one tenant's operations on both."""

import asyncio
from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import count
from types import SimpleNamespace

import msgspec
from redis.asyncio import Redis, RedisCluster

from partywall_service.quotas.book import Book
from partywall_service.quotas.commits import _done
from partywall_service.quotas.instants import instant
from partywall_service.quotas.model import (
    Level,
    Operation,
    Outcome,
    QuotaState,
    Reservation,
    Terms,
    What,
)
from partywall_service.quotas.script import Read, VolatileScript
from partywall_service.quotas.transaction import Answered

_tenants = count()


class Model:
    """What PostgreSQL keeps of one tenant, and what its transactions do with it."""

    def __init__(self) -> None:
        self.levels: dict[str, Level] = {}
        self.reservations: dict[str, Reservation] = {}
        self._known: dict[tuple[str, str], Answered] = {}

    def apply(self, operations: Sequence[Operation], now: int) -> list[Outcome]:
        """What one transaction does, as commits.py has it."""
        book = self._book(now)
        transaction = SimpleNamespace(
            books=dict.fromkeys((one.tenant for one in operations), book),
            known=self._known,
            answered=lambda one, outcome: self._known.update(
                {(one.tenant, one.id): Answered(one.fingerprint, outcome)}
            ),
        )
        outcomes = [_done(transaction, operation) for operation in operations]
        self._keep(book)
        return outcomes

    def read(self, terms: Mapping[str, Terms], now: int) -> list[QuotaState]:
        book = self._book(now)
        self._keep(book)
        return [book.state(resource, one) for resource, one in terms.items()]

    def _book(self, now: int) -> Book:
        """What is read under the lock, with what has expired given back."""
        book = Book(instant(now), deepcopy(self.levels), deepcopy(self.reservations))
        for name, one in book.reservations.items():
            if one.status == "held" and one.expires_at <= book.now:
                one.status = "expired"
                book.changes.reservations.add(name)
                book.expire(name, one.items)
        return book

    def _keep(self, book: Book) -> None:
        self.levels |= {name: book.levels[name] for name in book.changes.levels}
        self.reservations |= {name: book.reservations[name] for name in book.changes.reservations}


class Script:
    """The script on a server, asked from a test that is not asynchronous."""

    def __init__(self, runner: asyncio.Runner, client: Redis | RedisCluster, prefix: str) -> None:
        self._runner = runner
        self._script = VolatileScript(client, prefix=prefix, deadline=30, clock=lambda: 0.0)

    def apply(self, operations: Sequence[Operation], now: int) -> list[Outcome]:
        return self._runner.run(self._script.decide(operations, now=now))

    def read(self, tenant: str, terms: Mapping[str, Terms], now: int) -> list[QuotaState]:
        (outcome,) = self._runner.run(self._script.decide([Read(tenant, terms)], now=now))
        return list(outcome.quotas)


class Pair:
    """One new tenant on both; every answer of the one must be the other's."""

    def __init__(self, script: Script, terms: Mapping[str, Terms]) -> None:
        self._script = script
        self._names = count()
        self.model = Model()
        self.tenant = f"t{next(_tenants)}"
        self.terms = terms

    def operation(self, what: What, key: str | None = None, fingerprint: bytes = b"") -> Operation:
        name = key or f"operation {next(self._names)}"
        kept = key is not None and not key.startswith("try:")
        return Operation(self.tenant, what, self.terms, name, fingerprint, "tester", key, kept)

    def compare(self, now: int, *operations: Operation, crossings: bool = True) -> list[Outcome]:
        """Does the operations in one call, and answers what both said."""
        expected = self.model.apply(operations, now)
        got = self._script.apply(operations, now)
        assert [_plain(one, crossings) for one in got] == [
            _plain(one, crossings) for one in expected
        ]
        self.compare_read(now, crossings=crossings)
        return got

    def compare_read(self, now: int, *, crossings: bool = True) -> list[QuotaState]:
        got = self._script.read(self.tenant, self.terms, now)
        expected = self.model.read(self.terms, now)
        assert [_state(one, crossings) for one in got] == [
            _state(one, crossings) for one in expected
        ]
        return got


def _plain(outcome: Outcome, crossings: bool) -> Outcome:
    states = tuple(_state(one, crossings) for one in outcome.quotas)
    told = outcome.crossings if crossings else ()
    return msgspec.structs.replace(outcome, quotas=states, crossings=told)


def _state(state: QuotaState, crossings: bool) -> QuotaState:
    """Redis keeps no record of when a threshold was crossed, nor under which limit."""
    crossed = state.crossed if crossings else None
    return msgspec.structs.replace(state, crossed=crossed, crossed_at=None)
