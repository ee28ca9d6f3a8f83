"""Instants as people name them: dates, `7d`, `yesterday`. Days and months are UTC's. Pure."""

import re
from datetime import UTC, date, datetime, timedelta

_AGO = re.compile(r"(\d{1,6})([mhdw])", re.ASCII)
_UNITS = {
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}

EXPECTED = (
    "a date such as 2026-11-01, an instant such as 2026-11-01T12:00Z, 90m, 24h, 7d or 2w ago, "
    "or now, today, yesterday, month or last-month"
)


def read_instant(text: str, now: datetime) -> datetime:
    """The instant that a text names; a day, a week or a month stands for its beginning.

    Minutes and hours ago are told to the minute, days and weeks ago from midnight.

    Args:
        text: what somebody typed.
        now: aware.

    Raises:
        ValueError: it is none, with what was expected.
    """
    now = now.astimezone(UTC).replace(second=0, microsecond=0)
    today = now.replace(hour=0, minute=0)
    named = {
        "now": now,
        "today": today,
        "yesterday": today - timedelta(days=1),
        "month": today.replace(day=1),
        "last-month": (today.replace(day=1) - timedelta(days=1)).replace(day=1),
    }
    if text in named:
        return named[text]
    try:
        if ago := _AGO.fullmatch(text):
            amount, unit = int(ago[1]), ago[2]
            return (now if unit in "mh" else today) - amount * _UNITS[unit]
        if len(text) == len("2026-11-01"):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"expected {EXPECTED}; got {text!r}") from None
