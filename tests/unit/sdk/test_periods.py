"""Calendar periods."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall.quotas.periods import period_end, period_start

MOMENTS = st.integers(0, 2**53).map(lambda us: datetime.fromtimestamp(us / 10**6, UTC))
PERIODS = st.sampled_from(["day", "week", "month"])


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("per", "moment", "start", "end"),
    [
        ("day", "2026-11-21T12:30", "2026-11-21", "2026-11-22"),
        ("week", "2026-11-21T12:30", "2026-11-16", "2026-11-23"),  # a Saturday
        ("week", "2026-11-16T00:00", "2026-11-16", "2026-11-23"),
        ("week", "2027-01-01T00:00", "2026-12-28", "2027-01-04"),
        ("month", "2026-11-21T12:30", "2026-11-01", "2026-12-01"),
        ("month", "2026-12-31T23:59:59.999999", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T00:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_a_period_has_its_first_instant_and_ends_at_the_next_ones(per, moment, start, end):
    assert period_start(per, at(moment)) == at(start)
    assert period_end(per, at(start)) == at(end)


@given(PERIODS, MOMENTS)
def test_every_moment_is_in_its_period_and_the_next_one_begins_where_it_ends(per, moment):
    start = period_start(per, moment)
    end = period_end(per, start)
    assert start <= moment < end
    assert period_start(per, start) == start
    assert period_start(per, end) == end
    assert period_start(per, end - timedelta(microseconds=1)) == start


@given(PERIODS, MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_a_period_is_of_utc_whatever_zone_the_moment_is_told_in(per, moment, minutes):
    elsewhere = moment.astimezone(timezone(timedelta(minutes=minutes)))
    assert period_start(per, elsewhere) == period_start(per, moment)
