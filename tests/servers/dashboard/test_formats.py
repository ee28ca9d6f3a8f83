"""How numbers are written for people, and how far back charts go."""

from datetime import UTC, datetime

import pytest

from partywall_service.dashboard import formats
from partywall_service.dashboard.usage import RANGES
from partywall_service.policy.model import Rate


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (formats.number(1234567), "1,234,567"),
        (formats.number(2.5), "2.5"),
        (formats.number(None), "unlimited"),
        (formats.amount(5, "bytes"), "5 B"),
        (formats.amount(1536 * 2**20, "bytes"), "1.5 GiB"),
        (formats.amount(2**53 - 1, "bytes"), "8 PiB"),
        (formats.amount(-(2**30), "bytes"), "-1 GiB"),
        (formats.amount(None), "unlimited"),
        (formats.rates(()), "unlimited"),
        (formats.rates((Rate(10, 1), Rate(5, 3600))), "10 a second, 5 an hour"),
        (formats.rates((Rate(9, 90), Rate(7, 30 * 86_400))), "9 in 1 min 30 s, 7 in 30 days"),
        (formats.duration(0), "0 s"),
        (formats.duration(0.253), "0.25 s"),
        (formats.duration(59.9), "60 s"),
        (formats.duration(3_725), "1 h 2 min"),
        (formats.duration(86_400), "1 d"),
        (formats.percent(0.0), "0%"),
        (formats.percent(0.0001), "under 0.1%"),
        (formats.percent(0.071), "7.1%"),
        (formats.percent(1.25), "125%"),
    ],
)
def test_numbers_are_written_for_people(written: str, said: str) -> None:
    assert written == said


def test_a_range_ends_with_the_step_that_runs() -> None:
    now = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)
    for name, first, last, count in (
        ("1h", (1, 11, 35), (1, 12, 34), 60),
        ("24h", (28, 13, 0), (1, 12, 0), 24),
        ("30d", (31, 0, 0), (1, 0, 0), 30),
    ):
        steps = RANGES[name].starts(now)
        assert len(steps) == count
        assert (steps[0].day, steps[0].hour, steps[0].minute) == first
        assert (steps[-1].day, steps[-1].hour, steps[-1].minute) == last
