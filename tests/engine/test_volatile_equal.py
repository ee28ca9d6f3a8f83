"""Quotas in Redis alone answer as PostgreSQL's do, whatever is asked, whatever the clock says."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partywall_service.engine.connect import connect
from partywall_service.quotas.model import Consume, Release, Reserve, Settle, SetUsed, Terms
from tests.conftest import SOAK
from tests.engine.conftest import _fake, _leave
from tests.engine.quota_model import Pair, Script

START = int(datetime(2026, 1, 31, 23, 59, 58, tzinfo=UTC).timestamp()) * 1_000_000
"""Microseconds since the epoch, two seconds before a day and a month end."""

SECOND = 1_000_000
DAY = 86_400 * SECOND

RESOURCES = ["users", "storage", "e-mails"]
THRESHOLDS = (80, 95, 100)


@pytest.fixture(params=["fakeredis", "valkey", *(["cluster"] if SOAK else [])])
def script(request: pytest.FixtureRequest, key_prefix: str) -> Iterator[Script]:
    with asyncio.Runner() as runner:
        if request.param == "fakeredis":
            client = runner.run(_fake())
        elif request.param == "valkey":
            client = connect(request.getfixturevalue("valkey_url"))
        else:
            client = connect(request.getfixturevalue("valkey_cluster").url)
        try:
            yield Script(runner, client, key_prefix)
        finally:
            runner.run(_leave(client, key_prefix))


limits = st.sampled_from([10, 10, 10, None, None, 5, 0, 2**53 - 1])
terms = st.fixed_dictionaries(
    {
        name: st.builds(
            Terms,
            limit=limits,
            per=st.sampled_from([None, None, "day", "day", "week", "month"]),
            thresholds=st.just(THRESHOLDS),
        )
        for name in RESOURCES
    }
)
amounts = st.sampled_from([1, 1, 1, 1, 1, 2, 2, 4, 8, 2**53 - 1])
items = st.dictionaries(st.sampled_from(RESOURCES), amounts, min_size=1, max_size=2)
keys = st.sampled_from([None, None, None, "key", "another key"])
reservations = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, -1])  # of the latest; -1: of none
operations = st.tuples(
    st.one_of(
        st.tuples(st.just("consume"), items),
        st.tuples(st.just("release"), items),
        st.tuples(st.just("reserve"), items, st.sampled_from([1, 2, 60, 86_400])),
        st.tuples(st.just("reserve"), items, st.sampled_from([60, 86_400])),
        st.tuples(st.just("commit"), reservations, st.one_of(st.none(), st.just("some"), items)),
        st.tuples(st.just("cancel"), reservations, st.none()),
        st.tuples(st.just("commit"), reservations, st.none()),
        st.tuples(
            st.just("set"),
            st.sampled_from(RESOURCES),
            st.sampled_from([0, 0, 3, 8, 10, 12, 2**52]),
            st.sampled_from([None, None, 0, "now"]),
        ),
    ),
    keys,
    st.booleans(),
)
steps = st.one_of(
    st.sampled_from([0, 0, 0, 1, SECOND - 1, SECOND, 2 * SECOND, 60 * SECOND, 3600 * SECOND]),
    st.sampled_from([DAY - 1, DAY, 7 * DAY, 29 * DAY, 400 * DAY]),
    st.sampled_from([-1, -SECOND, -60 * SECOND, -DAY, -32 * DAY]),
)
batches = st.tuples(steps, st.lists(operations, min_size=1, max_size=4))


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
@given(
    first=terms,
    others=st.one_of(st.just([]), st.lists(terms, max_size=3)),
    batches=st.lists(batches, max_size=15),
)
def test_the_script_equals_the_arithmetic_of_postgresql(script: Script, first, others, batches):
    """Tiers change, clocks jump; crossings are told alike while the limits stay as they are."""
    pair = Pair(script, first)
    applying = [first, *others]
    used = Keys()
    now, number = START, 0
    for turn, (step, asked) in enumerate(batches):
        # What expires is given back when the clock shows it; set back, it stays given back.
        pair.compare_read(now, crossings=not others)
        now += step
        pair.terms = applying[turn % len(applying)]
        batch = []
        for one, key, repeats in asked:
            number += 1
            what = what_of(pair, one, number)
            batch.append(used.operation(pair, what, key, repeats=repeats))
        pair.compare(now, *batch, crossings=not others)
