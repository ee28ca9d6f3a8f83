"""Quotas in Redis alone answer as PostgreSQL's do, whatever is asked, whatever the clock says."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from tests.conftest import SOAK
from tests.engine.clients import SERVERS, connected
from tests.engine.quota_model import Pair, Script

pytestmark = pytest.mark.timeout(1200 if SOAK else 120)

START = int(datetime(2026, 1, 31, 23, 59, 58, tzinfo=UTC).timestamp()) * 1_000_000
"""Microseconds since the epoch, two seconds before a day and a month end."""

SECOND = 1_000_000
DAY = 86_400 * SECOND

RESOURCES = ["users", "storage", "e-mails"]


@pytest.fixture(params=[*SERVERS, *(["cluster"] if SOAK else [])])
def script(request: pytest.FixtureRequest, key_prefix: str) -> Iterator[Script]:
    with asyncio.Runner() as runner:
        server = connected(request.param, request, key_prefix)
        client = runner.run(server.__aenter__())
        try:
            yield Script(runner, client, key_prefix)
        finally:
            runner.run(server.__aexit__(None, None, None))


limits = st.sampled_from([10, 10, 10, None, None, 5, 0, 2**53 - 1])
periods = st.sampled_from([None, None, "day", "day", "week", "month"])


def tiers(kinds: st.SearchStrategy[dict[str, str | None]]) -> st.SearchStrategy[list]:
    """What applies by turns: one tier, or several whose limits differ."""
    return kinds.flatmap(
        lambda per: st.lists(
            st.fixed_dictionaries(
                {
                    name: st.builds(Terms, limits, st.just(per[name]), thresholds=st.just((80, 95)))
                    for name in RESOURCES
                }
            ),
            min_size=1,
            max_size=3,
        )
    )


each = st.fixed_dictionaries(dict.fromkeys(RESOURCES, periods))
amounts = st.sampled_from([1, 1, 1, 1, 1, 2, 2, 4, 8, 2**53 - 1])
items = st.dictionaries(st.sampled_from(RESOURCES), amounts, min_size=1, max_size=2)
keys = st.sampled_from([None, None, None, "key", "another key", "try:one"])
# A reservation that ends after the use was set may take it over what JSON and Lua carry exactly.
small = st.dictionaries(
    st.sampled_from(RESOURCES), st.sampled_from([1, 1, 2, 4]), min_size=1, max_size=2
)
reservations = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, -1])  # of the latest; -1: of none
changes = [
    st.tuples(st.just("consume"), items),
    st.tuples(st.just("release"), items),
    st.tuples(
        st.just("set"),
        st.sampled_from(RESOURCES),
        st.sampled_from([0, 0, 3, 8, 10, 12, 2**52]),
        st.sampled_from([None, None, 0, "now"]),
    ),
]
holds = [
    st.tuples(st.just("reserve"), small, st.sampled_from([1, 2, 60, 86_400])),
    st.tuples(st.just("reserve"), small, st.sampled_from([60, 86_400])),
    st.tuples(st.just("commit"), reservations, st.one_of(st.none(), st.just("some"), items)),
    st.tuples(st.just("commit"), reservations, st.none()),
    st.tuples(st.just("cancel"), reservations, st.none()),
]
steps = st.one_of(
    st.sampled_from([0, 0, 0, 1, SECOND - 1, SECOND, 2 * SECOND, 60 * SECOND, 3600 * SECOND]),
    st.sampled_from([DAY - 1, DAY, 7 * DAY, 29 * DAY, 400 * DAY]),
    st.sampled_from([-1, -SECOND, -60 * SECOND, -DAY, -32 * DAY]),
)


def batches(*kinds: st.SearchStrategy) -> st.SearchStrategy[list]:
    """Calls of several operations, each perhaps under a key, and perhaps a repetition."""
    operation = st.tuples(st.one_of(*kinds), keys, st.booleans())
    return st.lists(st.tuples(steps, st.lists(operation, min_size=1, max_size=4)), max_size=10)


class Keys:
    """What was asked first under each idempotency key."""

    def __init__(self) -> None:
        self._first = {}

    def operation(self, pair: Pair, what, key: str | None, *, repeats: bool):
        """Where the key was used before, the same again, or another under it."""
        if key is not None:
            first = self._first.setdefault(key, what)
            if repeats:
                is_reserve = isinstance(first, Reserve) and isinstance(what, Reserve)
                what = replace(first, reservation=what.reservation) if is_reserve else first
        body = what.items if isinstance(what, Reserve) else what
        return pair.operation(what, key, repr((type(what), body)).encode())


def what_of(pair: Pair, asked, number: int):
    kind, *details = asked
    match kind:
        case "consume":
            return Consume(*details)
        case "release":
            return Release(*details)
        case "reserve":
            return Reserve(details[0], f"v {number}", details[1])
        case "set":
            resource, used, version = details
            if version == "now":
                level = pair.model.levels.get(resource)
                version = level.version if level else 0
            return SetUsed(resource, used, version)
    back, taken = details
    made = [name for name in pair.model.reservations if name.startswith("v")]
    name = made[-1 - back % len(made)] if made and back >= 0 else "v unknown"
    if taken == "some":
        held = pair.model.reservations.get(name)
        taken = dict.fromkeys(list(held.items)[:1], 1) if held else {}
    return Settle(name, "committed" if kind == "commit" else "cancelled", taken)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(applying=tiers(each), batches=batches(*changes, *holds))
def test_the_script_equals_the_arithmetic_of_postgresql(script: Script, applying, batches):
    """Limits change, clocks jump; crossings are told alike while the limits stay as they are."""
    compare_all(script, applying, batches)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(applying=st.lists(each, min_size=2, max_size=4), batches=batches(*changes))
def test_it_does_so_where_a_tier_counts_by_other_periods(script: Script, applying, batches):
    terms = [{name: Terms(10, per) for name, per in tier.items()} for tier in applying]
    compare_all(script, terms, batches)


def compare_all(script: Script, applying, batches) -> None:
    pair = Pair(script, applying[0])
    crossings = len(applying) == 1
    used = Keys()
    now, number = START, 0
    for turn, (step, asked) in enumerate(batches):
        # What expires is given back when the clock shows it; set back, it stays given back.
        pair.compare_read(now, crossings=crossings)
        now += step
        pair.terms = applying[turn % len(applying)]
        batch = []
        for one, key, repeats in asked:
            number += 1
            what = what_of(pair, one, number)
            batch.append(used.operation(pair, what, key, repeats=repeats))
        pair.compare(now, *batch, crossings=crossings)


def test_a_hold_from_before_a_refill_is_given_back_to_nothing(script: Script):
    """A tier that counts by days, one that holds, the first again: all within a day."""
    days, held = {"users": Terms(10, "day")}, {"users": Terms(10)}
    tenant = "flips"

    def do(what, terms) -> Outcome:
        return script.apply([Operation(tenant, what, terms, "", b"", "tester")], START)[0]

    assert do(Reserve({"users": 6}, "v before", 60), days).allowed
    assert do(Consume({"users": 1}), held).allowed
    assert do(Reserve({"users": 7}, "v after", 60), days).quotas[0].reserved == 7
    assert do(Settle("v before", "cancelled"), days).quotas[0].reserved == 7
    assert do(Consume({"users": 4}), days).denied


def test_what_has_expired_goes_back_once_whoever_asks_for_it(script: Script):
    pair = Pair(script, {"users": Terms(10), "storage": Terms(None, "day")})
    pair.compare(START, pair.operation(Reserve({"users": 4, "storage": 5}, "v", 1)))
    pair.compare(START, pair.operation(Reserve({"users": 3}, "v other", 60)))
    for status in ("committed", "cancelled", "committed"):
        outcome = pair.compare(START + SECOND, pair.operation(Settle("v", status)))[0]
        assert outcome.allowed == (status == "cancelled")
    assert [one.reserved for one in pair.compare_read(START + SECOND)] == [3, 0]
    assert pair.compare(START, pair.operation(Settle("v", "committed")))[0].refusal == "conflict"
