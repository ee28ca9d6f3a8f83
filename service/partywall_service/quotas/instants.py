"""Instants as scripts count them: whole microseconds since the epoch, and the calendar by them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from partywall.quotas.periods import period_end, period_start

MICROSECONDS = 1_000_000
"""In a second."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def instant(microseconds: int) -> datetime:
    """The instant that is so many microseconds after the epoch."""
    return _EPOCH + timedelta(microseconds=microseconds)


class Calendar:
    """The periods that it is, by a guess at another's clock.

    Args:
        clock: seconds since the epoch, by this process.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ahead = 0  # the other clock's, in microseconds
        self._today = range(0)
        self._text = ""

    def guess(self) -> str:
        """The starts of this day, of the next, of this week and of this month, spaces between."""
        now = self._here() + self._ahead
        if now not in self._today:
            moment = instant(now)
            day, week, month = (period_start(per, moment) for per in ("day", "week", "month"))
            edges = [
                (one - _EPOCH) // _MICROSECOND for one in (day, period_end("day", day), week, month)
            ]
            self._today = range(edges[0], edges[1])
            self._text = " ".join(map(str, edges))
        return self._text

    def learn(self, now: int) -> None:
        """Notes what the other clock says now, in microseconds since the epoch."""
        self._ahead = now - self._here()

    def _here(self) -> int:
        return int(self._clock() * MICROSECONDS)
