"""How numbers, amounts and instants are written for people."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from partywall_service.policy.model import Rate, Unit

_WINDOWS: Mapping[int, str] = {
    1: "a second",
    60: "a minute",
    3600: "an hour",
    86_400: "a day",
    7 * 86_400: "a week",
    30 * 86_400: "in 30 days",
}
_PARTS = ((86_400, "d"), (3600, "h"), (60, "min"))
_MANY = "KMGTP"


def number(value: float | None) -> str:
    """`1,234,567`; of what is no whole number, up to two places."""
    if value is None:
        return "unlimited"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.2f}".rstrip("0").rstrip(".")


def size(value: int) -> str:
    """`1.5 GiB`."""
    if abs(value) < 1024:
        return f"{value:,} B"
    amount, place = float(value), -1
    while abs(amount) >= 1024 and place < len(_MANY) - 1:
        amount, place = amount / 1024, place + 1
    return f"{number(round(amount, 1))} {_MANY[place]}iB"


def amount(value: int | None, unit: Unit = "count") -> str:
    """Of a resource: a number or a size."""
    if value is None:
        return "unlimited"
    return size(value) if unit == "bytes" else number(value)


def window(seconds: int) -> str:
    """`a minute`, or `in 1 min 30 s`."""
    return _WINDOWS.get(seconds) or f"in {duration(seconds)}"


def rate(one: Rate) -> str:
    """`1,000 a minute`."""
    return f"{number(one.quota)} {window(one.window)}"


def rates(several: Sequence[Rate]) -> str:
    """Every window of a limit."""
    return ", ".join(rate(one) for one in several) if several else "unlimited"


def duration(seconds: float) -> str:
    """`2 d 3 h`, `1 min 5 s` or `0.25 s`: the two largest parts."""
    if seconds < 60:
        return f"{number(round(seconds, 2 if seconds < 10 else 0))} s"
    rest = round(seconds)
    said = []
    for length, name in _PARTS:
        if rest >= length:
            said.append(f"{rest // length} {name}")
            rest %= length
    if rest:
        said.append(f"{rest} s")
    return " ".join(said[:2])


def percent(share: float) -> str:
    """`12%`, or `0.4%` of what is little."""
    value = share * 100
    if 0 < value < 0.1:
        return "under 0.1%"
    return f"{value:.1f}%" if value < 10 and value != int(value) else f"{value:.0f}%"


def instant(at: datetime) -> str:
    """`2026-11-21 22:25:07`, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def machine(at: datetime) -> str:
    """RFC 3339, for `datetime` attributes."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def milliseconds(value: int) -> datetime:
    """The instant of milliseconds since the epoch."""
    return datetime.fromtimestamp(value / 1000, UTC)
