"""Which part of a period is read from which table: whole days first, then hours, then minutes.

Ranges are half open, in minutes since the epoch, ascending and apart. Pure.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

Step = Literal["minute", "hour", "day"]
Range = tuple[int, int]

MINUTES = {"minute": 1, "hour": 60, "day": 1440}
"""In a step."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)


class Spans(NamedTuple):
    """A period, parted among the tables; together they hold each of its minutes once."""

    days: list[Range]
    hours: list[Range]
    minutes: list[Range]


def spans(
    start: int,
    end: int,
    *,
    stale_days: Collection[int] = (),
    stale_hours: Collection[int] = (),
    fresh: Collection[int] = (),
) -> Spans:
    """Parts the minutes from `start` up to `end`.

    Args:
        start: the first minute.
        end: the minute after the last.
        stale_days: first minutes of days that were not rolled up since their minutes changed.
        stale_hours: of hours likewise.
        fresh: minutes of which counts still wait in Redis: their hours and days are not complete.
    """
    whole = [(start, end)]
    days = without(_whole(whole, 1440), _around(1440, stale_days, fresh))
    rest = without(whole, days)
    hours = without(_whole(rest, 60), _around(60, stale_hours, fresh))
    return Spans(days, hours, without(rest, hours))


def without(ranges: Sequence[Range], holes: Sequence[Range]) -> list[Range]:
    """What is left of `ranges` outside `holes`."""
    left = []
    for start, end in ranges:
        for hole_start, hole_end in holes:
            if start < hole_start < end:
                left.append((start, hole_start))
            if hole_start < end and start < hole_end:
                start = max(start, min(hole_end, end))
        if start < end:
            left.append((start, end))
    return left


def minute_of(moment: datetime) -> int:
    """The minute that an instant is in."""
    return (moment - EPOCH) // _MINUTE


def instant_of(minute: int) -> datetime:
    """When a minute begins."""
    return EPOCH + minute * _MINUTE


def floor(minute: int, step: Step) -> int:
    """The first minute of the step that this one is in."""
    return minute - minute % MINUTES[step]


def first_step(start: datetime, step: Step) -> int:
    """The first minute of the first step that begins at `start` or after it."""
    minute = -((EPOCH - start) // _MINUTE)  # rounded up
    return -(-minute // MINUTES[step]) * MINUTES[step]


def _whole(ranges: Iterable[Range], size: int) -> list[Range]:
    """What of each range is whole steps of so many minutes."""
    rounded = ((-(-start // size) * size, end // size * size) for start, end in ranges)
    return [(start, end) for start, end in rounded if start < end]


def _around(size: int, *minutes: Collection[int]) -> list[Range]:
    """The steps of so many minutes that these are in, as ranges."""
    starts = sorted({minute - minute % size for some in minutes for minute in some})
    return [(start, start + size) for start in starts]
