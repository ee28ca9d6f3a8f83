"""Rates, sizes and counts, as quotas.toml and overrides write them."""

import re
from collections.abc import Mapping

from limits import parse_many

from partywall_service.policy.model import MAX_AMOUNT, Rate
from partywall_service.policy.values import shown

UNLIMITED = "unlimited"

_UNITS: Mapping[str, int] = {
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
}
_SIZE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)")

_SEPARATOR = re.compile(r"[,;|]")
_ZERO_WINDOW = re.compile(r"(?:/|per)\s*0+(?![0-9])", re.IGNORECASE)
_LONGEST_TEXT = 1000

MAX_WINDOW = 10 * 360 * 24 * 3600
"""Seconds: ten of `limits`' years. Longer ones would leave the microseconds Lua counts exactly."""

_EXPECTED_RATE = 'expected a rate such as "100/minute", a list of rates, or "unlimited"'
_EXPECTED_AMOUNT = (
    'expected a whole number from 0 to 2^53-1, a size of whole bytes such as "10 GiB", '
    'or "unlimited"'
)


def is_unlimited(value: object) -> bool:
    """Whether `value` lifts a cap: "unlimited" or -1."""
    return value == UNLIMITED or (type(value) is int and value == -1)


def is_size(value: object) -> bool:
    """Whether `value` is written as a size, with a unit of bytes."""
    return isinstance(value, str) and value != UNLIMITED


def parse_rates(value: object) -> tuple[Rate, ...]:
    """The windows of a limit, shortest first; none when it is unlimited.

    Args:
        value: what `limits.parse_many` reads (a month there is 30 days), a list of such strings,
            "unlimited" or -1.

    Raises:
        ValueError: with what was expected.
    """
    if is_unlimited(value):
        return ()
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise ValueError(f"{_EXPECTED_RATE}; got an empty list")
    rates: dict[int, Rate] = {}
    for text in texts:
        for rate in _parse_text(text):
            if rate.window in rates:
                raise ValueError(
                    f"expected each window once; got two rates over {rate.window} seconds"
                )
            rates[rate.window] = rate
    return tuple(rates[window] for window in sorted(rates))


def _parse_text(text: object) -> list[Rate]:
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        raise ValueError(f"{_EXPECTED_RATE}; got {shown(text)}")
    try:
        # One piece at a time, without runs of spaces: `parse_many`'s pattern for a whole list
        # takes for ever to refuse a long one that is nearly right.
        items = [
            item for piece in _SEPARATOR.split(text) for item in parse_many(" ".join(piece.split()))
        ]
    except ValueError as exc:
        raise ValueError(f"{_EXPECTED_RATE}; got {shown(text)}") from exc
    rates = [Rate(item.amount, item.get_expiry()) for item in items]
    within = all(1 <= quota <= MAX_AMOUNT and window <= MAX_WINDOW for quota, window in rates)
    # `limits` reads "10/0 minutes" as 10 a minute.
    if not within or _ZERO_WINDOW.search(text):
        raise ValueError(
            "expected a quota from 1 to 2^53-1 over a window of 1 second to 10 years; "
            f"got {shown(text)}"
        )
    return rates


def parse_amount(value: object) -> int | None:
    """How much of a resource, in its own units; None when unlimited.

    Args:
        value: a whole number, a size (B, kB to TB by 1000, KiB to TiB by 1024), "unlimited", -1.

    Raises:
        ValueError: with what was expected.
    """
    if is_unlimited(value):
        return None
    amount = value if type(value) is int else _parse_size(value)
    if amount is None or not 0 <= amount <= MAX_AMOUNT:
        raise ValueError(f"{_EXPECTED_AMOUNT}; got {shown(value)}")
    return amount


def parse_count(value: object) -> int | None:
    """A number of things; None when unlimited.

    Raises:
        ValueError: with what was expected.
    """
    if is_unlimited(value):
        return None
    if type(value) is not int or not 0 <= value <= MAX_AMOUNT:
        raise ValueError(f'expected a whole number from 0, or "unlimited"; got {shown(value)}')
    return value


def _parse_size(value: object) -> int | None:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    if match[2] not in _UNITS:
        raise ValueError(f"expected one of the units {', '.join(_UNITS)}; got {shown(value)}")
    whole, _, fraction = match[1].partition(".")
    size, rest = divmod(int(whole + fraction) * _UNITS[match[2]], 10 ** len(fraction))
    return None if rest else size  # a part of a byte is a mistake
