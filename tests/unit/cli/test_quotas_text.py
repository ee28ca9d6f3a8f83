"""Bars, amounts and refills, as people read them."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from partywall_service.cli import quotas_text as words
from partywall_service.cli.quotas_table import print_quotas
from partywall_service.policy.model import MAX_AMOUNT
from partywall_service.quotas.model import QuotaState

NOW = datetime(2026, 11, 21, 17, tzinfo=UTC)
amounts = st.integers(0, MAX_AMOUNT) | st.integers(0, 50)


def quota(
    used: int = 0,
    limit: int | None = 100,
    *,
    reserved: int = 0,
    resource: str = "users",
    is_size: bool = False,
    crossed: int | None = None,
    refills: bool = False,
) -> QuotaState:
    return QuotaState(
        resource=resource,
        unit="bytes" if is_size else "count",
        limit=limit,
        used=used,
        reserved=reserved,
        remaining=None if limit is None else max(0, limit - used - reserved),
        period="month" if refills else None,
        resets_at=NOW + timedelta(days=9, hours=7) if refills else None,
        version=1,
        crossed=crossed,
    )


@pytest.mark.parametrize(
    ("used", "reserved", "limit", "bar"),
    [
        (0, 0, 100, "[..........]"),
        (50, 20, 100, "[#####++...]"),
        (1, 0, 1000, "[#.........]"),
        (1, 1, 1000, "[#+........]"),
        (999, 0, 1000, "[#########.]"),
        (999, 1, 1000, "[#########+]"),
        (4, 1, 5, "[########++]"),
        (120, 30, 100, "[##########]"),
        (0, 0, 0, "[..........]"),
        (1, 0, 0, "[##########]"),
        (7, 1, None, "-"),
    ],
)
def test_a_bar_says_it_all_in_plain_characters(
    used: int, reserved: int, limit: int | None, bar: str
) -> None:
    assert words.bar(quota(used, limit, reserved=reserved), 12).plain == bar


@given(used=amounts, reserved=amounts, limit=amounts, width=st.integers(8, 40))
def test_a_bar_is_full_only_when_the_quota_is(
    used: int, reserved: int, limit: int, width: int
) -> None:
    bar = words.bar(quota(used, limit, reserved=reserved), width).plain
    assert len(bar) == width
    assert ("#" in bar) == (used > 0)
    assert (bar.count("#") == width - 2) == (used > 0 and used >= limit)
    if used < limit:
        assert ("+" in bar) == (reserved > 0)


@pytest.mark.parametrize(
    ("used", "limit", "percent"),
    [(0, 5, "0%"), (1, 1000, "<1%"), (999, 1000, "99%"), (5, 5, "100%"), (60, 5, "1,200%")],
)
def test_a_percent_is_rounded_down(used: int, limit: int, percent: str) -> None:
    assert words.percent_text(quota(used, limit)) == percent


@pytest.mark.parametrize("limit", [None, 0])
def test_nothing_is_a_percent_of_no_limit_or_of_zero(limit: int | None) -> None:
    assert words.percent_text(quota(7, limit)) == "-"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1 KiB"),
        (2**30 - 1, "1,023.9 MiB"),
        (2**30, "1 GiB"),
        (2**30 + 1, "1.0 GiB"),
        (3 * 2**29, "1.5 GiB"),
        (5 * 2**50, "5,120 TiB"),
    ],
)
def test_bytes_are_shown_as_sizes_and_in_full_if_asked(amount: int, text: str) -> None:
    assert words.amount_text(amount, "bytes") == text
    assert words.amount_text(amount, "bytes", exact=True) == f"{amount:,}"
    assert words.amount_text(amount, "count") == f"{amount:,}"


@given(amount=amounts)
def test_a_size_never_says_more_than_there_is_nor_a_tenth_less(amount: int) -> None:
    number, unit = words.amount_text(amount, "bytes").replace(",", "").split()
    size = 1024 ** ("B", "KiB", "MiB", "GiB", "TiB").index(unit)
    said = Fraction(number) * size
    assert said <= amount < said + Fraction(size, 10)


@pytest.mark.parametrize(
    ("wait", "text"),
    [
        (timedelta(days=9, hours=7), "in 9 days"),
        (timedelta(days=2), "in 2 days"),
        (timedelta(days=1, hours=23), "in 47 hours"),
        (timedelta(minutes=119), "in 119 minutes"),
        (timedelta(seconds=119), "in less than 2 minutes"),
        (timedelta(0), "now"),
        (timedelta(days=-1), "now"),
    ],
)
def test_a_wait_is_told_in_words(wait: timedelta, text: str) -> None:
    assert words.waiting_text(NOW + wait, NOW) == text


def printed(*quotas: QuotaState, width: int = 80, exact: bool = False) -> list[str]:
    console = Console(width=width, highlight=False, color_system=None)
    with console.capture() as caught:
        print_quotas(console, quotas, now=NOW, exact=exact)
    return [line.rstrip() for line in caught.get().splitlines()]


def test_the_table_leaves_out_what_no_quota_has() -> None:
    assert printed(quota(1, 5))[0].split() == ["Resource", "Use", "%", "Used", "Limit"]
    several = (quota(4, 5, reserved=1, crossed=80), quota(3, 500, resource="mails", refills=True))
    header, _, users, mails = printed(*several)
    assert header.split()[3:] == ["Used", "Reserved", "Limit", "Crossed", "Refills"]
    assert users.split()[2:] == ["80%", "4", "1", "5", "!", "80%", "-"]
    assert mails.split()[2:] == ["<1%", "3", "0", "500", "a", "month", "-", "in", "9", "days"]
    assert printed(*several, exact=True)[-1].endswith("2026-12-01 00:00:00")


@pytest.mark.parametrize("width", [20, 80, 200])
def test_a_number_is_never_cut_and_a_quota_is_one_line(width: int) -> None:
    long = quota(MAX_AMOUNT - 1, MAX_AMOUNT, resource="r" * 64, is_size=True)
    lines = printed(long, width=width, exact=True)
    assert len(lines) == 3
    assert "r" * 64 in lines[2]
    assert lines[2].split()[-2:] == [f"{MAX_AMOUNT - 1:,}", f"{MAX_AMOUNT:,}"]
