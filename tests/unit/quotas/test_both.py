"""Operations on resources of both stores: each store is a book, and a crash is an exception."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from partywall_service.quotas.book import Book
from partywall_service.quotas.both import BOTH, SETTLE_WITHIN, change_both, placed
from partywall_service.quotas.model import (
    Consume,
    Operation,
    Outcome,
    Release,
    Reserve,
    Settle,
    Terms,
    What,
)

TERMS = {"users": Terms(10), "cache_keys": Terms(10)}
DURABLE = ("users",)


class Crash(Exception):
    """The sidecar died here."""


class Store:
    """Keeps levels, and answers by the ids of operations that have a key."""

    def __init__(self) -> None:
        self.book = Book(datetime(2026, 11, 21, tzinfo=UTC))
        self.answers: dict[str, Outcome] = {}
        self.crash_before: int | None = None
        self.calls = 0

    async def apply(self, operation: Operation) -> Outcome:
        self.calls += 1
        if self.calls == self.crash_before:
            raise Crash
        known = self.answers.get(operation.id)
        if known is not None:
            return known
        outcome = self.book.apply(operation)
        if operation.key is not None:
            self.answers[operation.id] = outcome
        return outcome

    def wait(self, seconds: float) -> None:
        self.book.now += timedelta(seconds=seconds)
        for name, one in self.book.reservations.items():
            if one.status == "held" and one.expires_at <= self.book.now:
                one.status = "expired"
                self.book.expire(name, one.items)

    def level(self, resource: str) -> tuple[int, int]:
        level = self.book.levels.get(resource)
        return (0, 0) if level is None else (level.used, level.reserved)


class Both:
    """PostgreSQL and Redis."""

    def __init__(self) -> None:
        self.ledger, self.redis = Store(), Store()
        self._number = 0

    async def change(self, what: What, *, key: str | None = None) -> Outcome:
        self._number += 1
        name = key or f"operation {self._number}"
        operation = placed(Operation("acme", what, TERMS, name, b"", "me", key), BOTH)
        return await change_both(operation, DURABLE, self.ledger.apply, self.redis.apply)

    @property
    def levels(self) -> Mapping[str, tuple[int, int]]:
        return {
            "users": self.ledger.level("users"),
            "cache_keys": self.redis.level("cache_keys"),
        }


@pytest.fixture
def both() -> Both:
    return Both()


async def test_a_consume_takes_of_both(both: Both) -> None:
    outcome = await both.change(Consume({"cache_keys": 2, "users": 3}))
    assert [(q.resource, q.used, q.reserved) for q in outcome.quotas] == [
        ("cache_keys", 2, 0),
        ("users", 3, 0),
    ]
    assert both.levels == {"users": (3, 0), "cache_keys": (2, 0)}


@pytest.mark.parametrize("items", [{"users": 11, "cache_keys": 1}, {"users": 1, "cache_keys": 11}])
@pytest.mark.parametrize("kind", ["consume", "reserve"])
async def test_without_room_in_one_nothing_is_taken_of_the_other(
    both: Both, items: dict[str, int], kind: str
) -> None:
    what = Consume(items) if kind == "consume" else Reserve(items, "", 60)
    outcome = await both.change(what)
    assert len(outcome.denied) == 1
    assert both.levels == {"users": (0, 0), "cache_keys": (0, 0)}


async def test_a_release_gives_back_of_both_or_of_none(both: Both) -> None:
    await both.change(Consume({"users": 3, "cache_keys": 3}))
    for items in ({"users": 4, "cache_keys": 1}, {"users": 1, "cache_keys": 4}):
        assert (await both.change(Release(items))).refusal == "conflict"
        assert both.levels == {"users": (3, 0), "cache_keys": (3, 0)}
    assert (await both.change(Release({"users": 1, "cache_keys": 2}))).allowed
    assert both.levels == {"users": (2, 0), "cache_keys": (1, 0)}


async def test_a_reservation_is_settled_in_both(both: Both) -> None:
    held = await both.change(Reserve({"users": 4, "cache_keys": 5}, "", 60))
    assert both.levels == {"users": (0, 4), "cache_keys": (0, 5)}
    too_much = Settle(held.reservation or "", "committed", {"cache_keys": 6})
    assert (await both.change(too_much)).refusal == "invalid-request"
    part = Settle(held.reservation or "", "committed", {"users": 1, "cache_keys": 2})
    assert (await both.change(part)).allowed
    assert both.levels == {"users": (1, 0), "cache_keys": (2, 0)}


async def test_a_reservation_that_is_cancelled_leaves_nothing(both: Both) -> None:
    held = await both.change(Reserve({"users": 4, "cache_keys": 5}, "", 60))
    await both.change(Settle(held.reservation or "", "cancelled"))
    assert both.levels == {"users": (0, 0), "cache_keys": (0, 0)}


@pytest.mark.parametrize("waited", [0, SETTLE_WITHIN + 1])
@pytest.mark.parametrize(("where", "call"), [("redis", 1), ("ledger", 1), ("redis", 2)])
async def test_what_a_crash_left_half_done_its_repetition_completes(
    both: Both, where: str, call: int, waited: float
) -> None:
    store: Store = getattr(both, where)
    store.crash_before = call
    what = Consume({"users": 3, "cache_keys": 2})
    with pytest.raises(Crash):
        await both.change(what, key="k")
    store.crash_before = None
    both.redis.wait(waited)
    for _ in range(2):
        assert (await both.change(what, key="k")).allowed
        assert both.levels == {"users": (3, 0), "cache_keys": (2, 0)}


async def test_what_a_crash_left_held_goes_back_by_itself(both: Both) -> None:
    both.ledger.crash_before = 1
    with pytest.raises(Crash):
        await both.change(Consume({"users": 3, "cache_keys": 2}))
    both.redis.wait(SETTLE_WITHIN)
    assert both.levels == {"users": (0, 0), "cache_keys": (0, 0)}
