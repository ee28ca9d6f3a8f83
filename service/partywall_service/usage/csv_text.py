"""CSV that a spreadsheet opens as what it says (RFC 4180), and never runs.

A spreadsheet takes a cell for a formula that begins with one of a few characters, and tenants'
names are other people's text. Source: OWASP, CSV injection.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

MEDIA_TYPE = "text/csv; charset=utf-8; header=present"

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def lines(rows: Iterable[Sequence[object]]) -> str:
    """The rows as lines that end in CRLF.

    None is an empty cell, an instant is RFC 3339 in UTC, a list is its items with spaces between.
    Text that a spreadsheet would run gets an apostrophe before it; numbers are numbers.
    """
    text = io.StringIO()
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, list | tuple):
        value = " ".join(map(str, value))
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def instant(moment: datetime) -> str:
    """RFC 3339 in UTC, as answers have it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
