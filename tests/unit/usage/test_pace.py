"""How long a quota lasts at the pace of late."""

from datetime import UTC, datetime, timedelta

import pytest

from partywall_service.policy.model import Quota
from partywall_service.usage.levels import Known
from partywall_service.usage.pace import days_until_full, level_at, lookback

END = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)
WEEK_AGO = END - 7 * DAY
USERS = Quota("users", 100)


def known(value: int, *, days_ago: float = 8) -> Known:
    return Known(END - days_ago * DAY, value, None)


def test_growth_is_measured_over_a_week_or_a_shorter_period() -> None:
    assert lookback(END - 30 * DAY, END) == WEEK_AGO
    assert lookback(END - 2 * DAY, END) == END - 2 * DAY


def test_it_goes_on_growing_as_it_did() -> None:
    assert days_until_full(USERS, 44, WEEK_AGO, known(30), END) == pytest.approx(28)
    assert days_until_full(USERS, 99, END - 2 * DAY, known(95), END) == pytest.approx(0.5)


def test_what_was_first_used_later_has_grown_since_then() -> None:
    first = Known(None, 0, END - 2 * DAY)
    assert days_until_full(USERS, 20, WEEK_AGO, first, END) == pytest.approx(8)


def test_a_pace_is_told_from_a_day_at_least() -> None:
    for first in (END - timedelta(minutes=1), END):
        assert days_until_full(USERS, 20, WEEK_AGO, Known(None, 0, first), END) == pytest.approx(4)
    just_now = END - timedelta(hours=1)
    assert days_until_full(USERS, 20, just_now, known(10), END) == pytest.approx(8)


def test_what_is_full_has_no_days() -> None:
    for used in (100, 101):
        assert days_until_full(USERS, used, WEEK_AGO, known(100), END) == 0


def test_what_is_unlimited_or_does_not_grow_is_never_full() -> None:
    assert days_until_full(Quota("users", None), 44, WEEK_AGO, known(30), END) is None
    for before in (known(44), known(45)):
        assert days_until_full(USERS, 44, WEEK_AGO, before, END) is None
    assert days_until_full(USERS, 0, WEEK_AGO, None, END) is None


def test_what_refills_before_it_is_full_is_never_full() -> None:
    monthly = Quota("emails", 100, "month")  # refills in 9.5 days
    assert days_until_full(monthly, 44, WEEK_AGO, known(30), END) is None
    assert days_until_full(monthly, 88, WEEK_AGO, known(32), END) == pytest.approx(1.5)


def test_what_refills_has_grown_since_its_last_refill() -> None:
    weekly = Quota("emails", 100, "week")  # since Monday, 5.5 days ago; refills in 1.5 days
    assert days_until_full(weekly, 88, WEEK_AGO, known(99), END) == pytest.approx(0.75)
    assert days_until_full(weekly, 55, WEEK_AGO, known(0), END) is None


def test_a_refill_since_the_last_change_emptied_a_level() -> None:
    daily = Quota("emails", 100, "day")
    assert level_at(known(7, days_ago=0.25), daily, END) == 7
    assert level_at(known(7, days_ago=1), daily, END) == 0
    assert level_at(known(7, days_ago=300), USERS, END) == 7
    assert level_at(None, USERS, END) == 0
