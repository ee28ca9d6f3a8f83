"""Rates and sizes, as texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall_service.policy.amounts import MAX_WINDOW
from partywall_service.policy.loader import parse_amount, parse_rates
from partywall_service.policy.model import MAX_AMOUNT, Rate

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "month": 30 * 86_400}
BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
NO_RATES = (
    *("", " ", ";", "5/hour;", "5", "/hour", "5/hour 6/day", "-5/hour", "1e3/hour", "5.5/hour"),
    *("\N{ARABIC-INDIC DIGIT FIVE}/hour", "5/h", "unlimited;5/hour", "x" * 2000),
    *(None, 5, 5.0, True, False, -2, -1.0, {}, [5], [None]),
)
NO_AMOUNTS = (
    *("", "5", "GiB", "1 gib", "1 KB", "1 PB", "1  GiB", " 1 GiB", "1 GiB ", "1,5 GiB", "1. GiB"),
    *("0.1 KiB", "0.5 B", ".5 GiB", "-1 B", "1e3 B", "\N{ARABIC-INDIC DIGIT FIVE} B", "Unlimited"),
    *("x" * 2000, None, True, False, 1.0, -1.0, -2, MAX_AMOUNT + 1, -(1 << 20_000), [1], {}),
)


def _short_id(value: object) -> str:
    return "giant" if isinstance(value, int) and value.bit_length() > 64 else repr(value)[:20]


@st.composite
def written_rates(draw: st.DrawFn) -> tuple[list[str], dict[int, int]]:
    """Texts of rates, and the quota of each window, in seconds, that they must mean."""
    texts, meant = [], {}
    for _ in range(draw(st.integers(1, 6))):
        unit = draw(st.sampled_from(sorted(SECONDS)))
        count = draw(st.integers(1, 60 if unit != "month" else 12))
        window = count * SECONDS[unit]
        if window in meant:
            continue
        meant[window] = draw(st.integers(1, MAX_AMOUNT))
        every = unit if count == 1 and draw(st.booleans()) else f"{count} {unit}s"
        between = draw(st.sampled_from(["/", " / ", " per ", "  PER "]))
        texts.append(f"{meant[window]}{between}{every}")
    return texts, meant


@given(written=written_rates(), separator=st.sampled_from([";", ",", "|", " ; ", "; "]))
def test_rates_are_read_as_written_whatever_their_order(
    written: tuple[list[str], dict[int, int]], separator: str
) -> None:
    texts, meant = written
    expected = tuple(Rate(meant[window], window) for window in sorted(meant))
    assert parse_rates(texts) == expected
    assert parse_rates(texts[::-1]) == expected
    assert parse_rates(separator.join(texts)) == expected


@given(rates=st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 600)), min_size=2))
def test_two_rates_over_one_window_are_refused_whatever_the_unit(
    rates: list[tuple[int, int]],
) -> None:
    texts = [f"{quota} per {minutes} minutes" for quota, minutes in rates]
    again = f"1 per {rates[0][1] * 60} seconds"
    with pytest.raises(ValueError, match="expected each window once; got two rates over"):
        parse_rates([*texts, again])


@pytest.mark.parametrize("value", ["0/second", "0 per minute", "5/0 seconds", "5 PER 00 days"])
def test_zero_admits_nothing_and_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="expected a quota from 1"):
        parse_rates(value)
    with pytest.raises(ValueError, match="expected a quota from 1"):
        parse_rates(["7/hour", value])


@pytest.mark.parametrize("value", NO_RATES, ids=_short_id)
def test_what_is_no_rate_is_refused_with_what_is(value: object) -> None:
    with pytest.raises(ValueError, match=r'expected a rate such as "100/minute"') as caught:
        parse_rates(value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("piece", ["1/  a;", "1 per 2 a,", "1  per  2  a|", "1 per" + " " * 994])
def test_a_long_text_that_is_nearly_a_rate_is_refused_at_once(piece: str) -> None:
    """The library's pattern alone takes seconds for the last of these and for ever for the others.

    Fifty times that is beyond the suite's timeout.
    """
    for _ in range(50):
        with pytest.raises(ValueError, match="expected a rate"):
            parse_rates((piece * 200)[:999] + "!")


@pytest.mark.parametrize("value", ["unlimited", -1])
def test_unlimited_lifts_any_cap(value: object) -> None:
    assert parse_rates(value) == ()
    assert parse_amount(value) is None


def test_windows_reach_to_ten_years() -> None:
    assert parse_rates(f"1 per {MAX_WINDOW} seconds") == (Rate(1, MAX_WINDOW),)
    with pytest.raises(ValueError, match="10 years"):
        parse_rates(f"1 per {MAX_WINDOW + 1} seconds")


@given(count=st.integers(0, 10**15), unit=st.sampled_from(sorted(BYTES)), gap=st.booleans())
def test_a_size_is_its_number_of_bytes(count: int, unit: str, gap: bool) -> None:
    text = f"{count}{' ' if gap else ''}{unit}"
    if count * BYTES[unit] <= MAX_AMOUNT:
        assert parse_amount(text) == count * BYTES[unit]
    else:
        with pytest.raises(ValueError, match="expected a whole number"):
            parse_amount(text)


@given(amount=st.integers(0, MAX_AMOUNT))
def test_a_whole_number_is_itself(amount: int) -> None:
    assert parse_amount(amount) == amount
    if amount < 10**15:
        assert parse_amount(f"{amount} B") == amount


@pytest.mark.parametrize(
    ("text", "amount"), [("1.5 GiB", 3 * 2**29), ("0.5 KiB", 512), ("2.000 kB", 2000)]
)
def test_a_part_of_a_unit_is_exact(text: str, amount: int) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize("value", NO_AMOUNTS, ids=_short_id)
def test_what_is_no_amount_is_refused_with_what_is(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected (a whole|one of the units)") as error:
        parse_amount(value)
    assert len(str(error.value)) < 250
