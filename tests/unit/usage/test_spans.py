"""A period parted among the tables of days, hours and minutes."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from partywall_service.usage.spans import (
    Step,
    first_step,
    floor,
    instant_of,
    minute_of,
    spans,
    without,
)

MINUTE = st.integers(0, 5 * 1440)


def minutes_of(ranges: list[tuple[int, int]]) -> list[int]:
    return [minute for start, end in ranges for minute in range(start, end)]


@given(
    MINUTE,
    MINUTE,
    st.sets(st.integers(0, 4)),
    st.sets(st.integers(0, 5 * 24 - 1), max_size=9),
    st.sets(MINUTE, max_size=9),
)
def test_each_minute_is_read_once_from_the_coarsest_table_that_has_all_of_its_step(
    start: int, end: int, days: set[int], hours: set[int], fresh: set[int]
) -> None:
    stale_days, stale_hours = {one * 1440 for one in days}, {one * 60 for one in hours}
    found = spans(start, end, stale_days=stale_days, stale_hours=stale_hours, fresh=fresh)
    of_days, of_hours, of_minutes = map(minutes_of, found)
    assert sorted(of_days + of_hours + of_minutes) == list(range(start, end))

    def whole(minute: int, step: int, stale: set[int]) -> bool:
        first = minute - minute % step
        changed = first in stale or any(first <= one < first + step for one in fresh)
        return start <= first and first + step <= end and not changed

    assert all(whole(one, 1440, stale_days) for one in of_days)
    assert not any(whole(one, 1440, stale_days) for one in (*of_hours, *of_minutes))
    assert all(whole(one, 60, stale_hours) for one in of_hours)
    assert not any(whole(one, 60, stale_hours) for one in of_minutes)


@given(st.lists(st.tuples(MINUTE, MINUTE), max_size=4), st.lists(st.tuples(MINUTE, MINUTE)))
def test_what_is_left_is_what_was_there_and_in_no_hole(
    some: list[tuple[int, int]], cut: list[tuple[int, int]]
) -> None:
    ranges, holes = _apart(some), _apart(cut)
    assert set(minutes_of(without(ranges, holes))) == set(minutes_of(ranges)) - set(
        minutes_of(holes)
    )


def test_steps_are_aligned_in_utc() -> None:
    moment = datetime(2026, 11, 21, 10, 30, 0, 1, UTC)
    assert instant_of(minute_of(moment)) == datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
    assert instant_of(floor(minute_of(moment), "hour")) == datetime(2026, 11, 21, 10, tzinfo=UTC)
    assert instant_of(floor(minute_of(moment), "day")) == datetime(2026, 11, 21, tzinfo=UTC)


def test_the_first_step_is_the_first_that_begins_then_or_later() -> None:
    cases: list[tuple[Step, datetime, tuple[int, int, int]]] = [
        ("minute", datetime(2026, 11, 21, 10, 30, tzinfo=UTC), (21, 10, 30)),
        ("minute", datetime(2026, 11, 21, 10, 30, 0, 1, UTC), (21, 10, 31)),
        ("hour", datetime(2026, 11, 21, 10, tzinfo=UTC), (21, 10, 0)),
        ("hour", datetime(2026, 11, 21, 10, 0, 1, tzinfo=UTC), (21, 11, 0)),
        ("day", datetime(2026, 11, 21, 0, 0, 1, tzinfo=UTC), (22, 0, 0)),
    ]
    for step, moment, first in cases:
        day, hour, minute = first
        expected = datetime(2026, 11, day, hour, minute, tzinfo=UTC)
        assert instant_of(first_step(moment, step)) == expected


def _apart(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ascending, and none overlaps another."""
    edges = sorted({edge for one in ranges for edge in one})
    return list(zip(edges[::2], edges[1::2], strict=False))
