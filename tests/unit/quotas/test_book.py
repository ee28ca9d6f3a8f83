"""The arithmetic of quotas: single cases first, then any sequence against a simple model."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from partywall_service.policy.model import MAX_AMOUNT
from partywall_service.quotas.book import Book
from partywall_service.quotas.model import (
    Consume,
    Level,
    Operation,
    Outcome,
    Release,
    Reserve,
    Settle,
    SetUsed,
    Terms,
    What,
)
from tests.conftest import SOAK

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TERMS = {
    "users": Terms(10, thresholds=(80, 100)),
    "emails": Terms(100, "month"),
    "storage": Terms(None, unit="bytes"),
}


def asking(what: What, terms: Mapping[str, Terms] = TERMS, **more: Any) -> Operation:
    return Operation("acme", what, terms, "an-id", b"", "somebody", **more)


def book(now: datetime = NOW, **used: int) -> Book:
    made = Book(now)
    for resource, amount in used.items():
        made.apply(asking(SetUsed(resource, amount)))
    return Book(now, made.levels, made.reservations)


def used(one: Book) -> dict[str, tuple[int, int]]:
    return {name: (level.used, level.reserved) for name, level in one.levels.items()}


def test_a_consume_takes_all_of_its_items():
    one = book()
    outcome = one.apply(asking(Consume({"users": 3, "storage": 5})))
    assert outcome.allowed
    assert [(q.resource, q.used, q.remaining) for q in outcome.quotas] == [
        ("users", 3, 7),
        ("storage", 5, None),
    ]
    assert [(e.resource, e.operation, e.delta, e.used) for e in one.changes.entries] == [
        ("users", "consume", 3, 3),
        ("storage", "consume", 5, 5),
    ]


def test_a_consume_without_room_for_one_item_takes_none():
    one = book(users=8, storage=5)
    outcome = one.apply(asking(Consume({"storage": 1, "users": 3})))
    assert not outcome.allowed
    assert outcome.denied == ("users",)
    assert used(one) == {"users": (8, 0), "storage": (5, 0)}
    assert one.changes.entries == []
    assert [q.remaining for q in outcome.quotas] == [None, 2]


def test_all_the_room_there_is_can_be_taken_and_no_more():
    one = book(users=7)
    assert one.apply(asking(Consume({"users": 3}))).allowed
    assert one.apply(asking(Consume({"users": 1}))).denied == ("users",)


def test_what_is_reserved_counts_against_the_limit():
    one = book(users=5)
    assert one.apply(asking(Reserve({"users": 4}, "r", 60))).allowed
    assert one.apply(asking(Consume({"users": 2}))).denied == ("users",)
    assert one.apply(asking(Consume({"users": 1}))).allowed


def test_a_release_below_zero_changes_nothing():
    one = book(users=2, storage=9)
    outcome = one.apply(asking(Release({"storage": 1, "users": 3})))
    assert outcome.refusal == "conflict"
    assert "at most the 2 of 'users'" in (outcome.detail or "")
    assert used(one) == {"users": (2, 0), "storage": (9, 0)}


def test_a_lowered_limit_keeps_what_is_used_and_denies_more():
    one = book(users=8)
    fewer = {"users": Terms(5)}
    outcome = one.apply(asking(Consume({"users": 1}), fewer))
    assert outcome.denied == ("users",)
    (state,) = outcome.quotas
    assert (state.used, state.limit, state.remaining) == (8, 5, 0)
    assert one.apply(asking(Release({"users": 4}), fewer)).allowed
    assert one.apply(asking(Consume({"users": 1}), fewer)).allowed


def test_unlimited_ends_where_whole_numbers_of_json_do():
    one = book(storage=MAX_AMOUNT - 1)
    assert one.apply(asking(Consume({"storage": 2}))).denied == ("storage",)
    assert one.apply(asking(Consume({"storage": 1}))).allowed


@pytest.mark.parametrize("status", ["committed", "cancelled"])
def test_settling_again_is_answered_as_the_first_time(status):
    one = book()
    one.apply(asking(Reserve({"users": 4}, "r", 60)))
    first = one.apply(asking(Settle("r", status)))
    assert used(one)["users"] == ((4, 0) if status == "committed" else (0, 0))
    one.apply(asking(Consume({"users": 1})))
    assert one.apply(asking(Settle("r", status))) == first
    other = "cancelled" if status == "committed" else "committed"
    assert one.apply(asking(Settle("r", other))).refusal == "conflict"


def test_a_part_of_a_reservation_can_be_committed_and_the_rest_goes_back():
    one = book()
    one.apply(asking(Reserve({"users": 4, "storage": 10}, "r", 60)))
    assert one.apply(asking(Settle("r", "committed", {"users": 1}))).allowed
    assert used(one) == {"users": (1, 0), "storage": (0, 0)}
    assert one.apply(asking(Settle("r", "committed", {"users": 2}))).refusal == "conflict"
    assert one.apply(asking(Settle("r", "committed", {"users": 1}))).allowed


def test_more_than_was_reserved_cannot_be_committed():
    one = book()
    one.apply(asking(Reserve({"users": 4}, "r", 60)))
    for items in ({"users": 5}, {"storage": 1}):
        assert one.apply(asking(Settle("r", "committed", items))).refusal == "invalid-request"
    assert used(one)["users"] == (0, 4)


def test_an_unknown_reservation_is_told():
    assert book().apply(asking(Settle("none", "committed"))).refusal == "unknown-reservation"


def test_a_period_refills_at_its_first_instant():
    last = datetime(2026, 11, 30, 23, 59, 59, 999999, UTC)
    full = book(last, emails=100)
    assert full.apply(asking(Consume({"emails": 1}))).denied == ("emails",)
    (state,) = full.apply(asking(Consume({"emails": 1}))).quotas
    assert state.resets_at == datetime(2026, 12, 1, tzinfo=UTC)
    fresh = Book(last + timedelta(microseconds=1), full.levels)
    looked = fresh.state("emails", TERMS["emails"])
    outcome = fresh.apply(asking(Consume({"emails": 100})))
    assert outcome.allowed
    assert [(e.operation, e.delta, e.used) for e in fresh.changes.entries] == [
        ("refill", -100, 0),
        ("consume", 100, 100),
    ]
    assert looked.used == 0
    assert outcome.quotas[0].version == looked.version + 1


def test_a_clock_that_was_set_back_does_not_refill_twice():
    december = Book(datetime(2026, 12, 1, tzinfo=UTC), book(emails=100).levels)
    december.apply(asking(Consume({"emails": 60})))
    november = Book(datetime(2026, 11, 30, tzinfo=UTC), december.levels)
    assert november.apply(asking(Consume({"emails": 60}))).denied == ("emails",)
    assert november.state("emails", TERMS["emails"]).resets_at == datetime(2027, 1, 1, tzinfo=UTC)


def test_what_was_reserved_in_a_period_that_is_over_does_not_count_in_the_next():
    before = book()
    before.apply(asking(Reserve({"emails": 90}, "r", 86400 * 30)))
    after = Book(datetime(2026, 12, 2, tzinfo=UTC), before.levels, before.reservations)
    assert after.apply(asking(Consume({"emails": 50}))).allowed
    assert after.apply(asking(Settle("r", "committed"))).allowed
    assert used(after)["emails"] == (50, 0)
    assert sum(entry.delta for entry in after.changes.entries) == 50
    assert after.changes.entries[-1].reason == "reserved in an earlier period"


def test_a_count_that_was_made_at_an_older_version_is_refused():
    one = book(users=3)
    version = one.state("users", TERMS["users"]).version
    one.apply(asking(Consume({"users": 1})))
    assert one.apply(asking(SetUsed("users", 9, version))).refusal == "conflict"
    assert one.apply(asking(SetUsed("users", 9, version + 1))).quotas[0].used == 9
    assert (one.changes.entries[-1].operation, one.changes.entries[-1].delta) == ("set", 5)


def test_a_count_that_finds_no_drift_writes_nothing():
    one = book(users=3)
    assert one.apply(asking(SetUsed("users", 3))).allowed
    assert one.changes.entries == []


def crossed(outcome: Outcome) -> list[int]:
    return [crossing.percent for crossing in outcome.crossings]


def test_a_threshold_is_told_once_and_again_after_a_fall():
    one = book()
    assert crossed(one.apply(asking(Consume({"users": 7})))) == []
    assert crossed(one.apply(asking(Consume({"users": 1})))) == [80]
    assert crossed(one.apply(asking(Consume({"users": 1})))) == []
    state = one.state("users", TERMS["users"])
    assert (state.crossed, state.crossed_at) == (80, NOW)
    assert crossed(one.apply(asking(Release({"users": 2})))) == []
    assert one.state("users", TERMS["users"]).crossed is None
    assert crossed(one.apply(asking(Consume({"users": 3})))) == [80, 100]


def test_a_raised_limit_rearms_and_a_lowered_one_is_told_at_the_next_change():
    one = book(users=8)
    more = {"users": replace(TERMS["users"], limit=20)}
    assert one.state("users", more["users"]).crossed is None
    assert crossed(one.apply(asking(Consume({"users": 1}), more))) == []
    assert crossed(one.apply(asking(Release({"users": 1})))) == [80]


def test_a_level_that_is_held_from_now_on_keeps_what_is_there():
    one = book()
    one.apply(asking(Consume({"emails": 30})))
    one.apply(asking(Reserve({"emails": 5}, "r", 60)))
    held = {"emails": Terms(100)}
    assert one.apply(asking(Consume({"emails": 1}), held)).quotas[0].used == 31
    assert one.apply(asking(Settle("r", "cancelled"), held)).quotas[0].reserved == 0


RESOURCES = ("users", "emails", "storage")
AMOUNTS = st.integers(1, 60)
ITEMS = st.dictionaries(st.sampled_from(RESOURCES), AMOUNTS, min_size=1)


class Sequences(RuleBasedStateMachine):
    """Any sequence of operations: a store would load, apply, write and load again."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.levels: dict[str, Level] = {}
        self.reservations: dict[str, Any] = {}
        self.ledger = dict.fromkeys(RESOURCES, 0)
        self.terms = dict(TERMS)
        self.free = dict.fromkeys(RESOURCES, 0)
        self.made = 0

    def apply(self, what: What) -> Outcome:
        before = {name: (level.used, level.reserved) for name, level in self.levels.items()}
        one = Book(self.now, self.levels, self.reservations)
        for name, reservation in self.reservations.items():
            if reservation.status == "held" and reservation.expires_at <= self.now:
                reservation.status = "expired"
                one.expire(name, reservation.items)
        settled = used(one)
        outcome = one.apply(asking(what, self.terms))
        self.levels, self.reservations = one.levels, one.reservations
        for entry in one.changes.entries:
            self.ledger[entry.resource] += entry.delta
        refilled = {e.resource for e in one.changes.entries if e.operation == "refill"}
        if not outcome.allowed:
            after = used(one)
            for name in settled.keys() - refilled:
                if self.levels[name].period_start is None:
                    assert after[name] == settled[name]
        assert before.keys() <= self.levels.keys()
        return outcome

    @rule(items=ITEMS)
    def consume(self, items: dict[str, int]) -> None:
        outcome = self.apply(Consume(items))
        for name in items:
            self.within(name, outcome)

    @rule(items=ITEMS)
    def release(self, items: dict[str, int]) -> None:
        self.apply(Release(items))

    @rule(items=ITEMS, ttl=st.integers(1, 86400))
    def reserve(self, items: dict[str, int], ttl: int) -> None:
        self.made += 1
        outcome = self.apply(Reserve(items, f"r{self.made}", ttl))
        assert (f"r{self.made}" in self.reservations) == outcome.allowed
        for name in items:
            self.within(name, outcome)

    @precondition(lambda self: self.reservations)
    @rule(data=st.data(), status=st.sampled_from(["committed", "cancelled"]))
    def settle(self, data: st.DataObject, status: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.reservations)))
        was = self.reservations[name].status
        expired = was == "held" and self.reservations[name].expires_at <= self.now
        outcome = self.apply(Settle(name, status))
        can = was == status or (was == "held" and not expired)
        can = can or (status == "cancelled" and (was == "expired" or expired))
        assert outcome.allowed == can

    @rule(name=st.sampled_from(RESOURCES), amount=st.integers(0, 100))
    def set_used(self, name: str, amount: int) -> None:
        self.apply(SetUsed(name, amount))
        assert self.levels[name].used == amount

    @rule(seconds=st.integers(1, 40 * 86400))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(name=st.sampled_from(RESOURCES), per=st.sampled_from([None, "day", "week", "month"]))
    def change_period(self, name: str, per: Any) -> None:
        self.terms[name] = replace(self.terms[name], per=per)

    @rule(name=st.sampled_from(RESOURCES), limit=st.none() | st.integers(0, 120))
    def change_limit(self, name: str, limit: int | None) -> None:
        self.terms[name] = replace(self.terms[name], limit=limit)

    def within(self, name: str, outcome: Outcome) -> None:
        """What was admitted left used and reserved within the limit."""
        limit = self.terms[name].limit
        if outcome.allowed and limit is not None:
            assert self.levels[name].used + self.levels[name].reserved <= limit

    @invariant()
    def a_level_is_the_sum_of_its_ledger(self) -> None:
        for name, level in self.levels.items():
            assert level.used == self.ledger[name] >= 0

    @invariant()
    def what_is_reserved_is_the_sum_of_what_is_held_in_this_period(self) -> None:
        for name, level in self.levels.items():
            held = sum(
                one.items[name].amount
                for one in self.reservations.values()
                if one.status == "held"
                and name in one.items
                and one.items[name].refill == level.refills
            )
            assert level.reserved == held


TestSequences = Sequences.TestCase
TestSequences.settings = settings(
    max_examples=2000 if SOAK else 60, stateful_step_count=40, deadline=None
)
