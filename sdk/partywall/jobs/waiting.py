"""How often a job is looked at whose result is waited for, and for how long."""

import time

from partywall.errors import JobCancelled, JobFailed
from partywall.jobs.records import JobInfo
from partywall.transport import positive

FIRST_PAUSE = 0.05
"""Seconds between the first look and the second; the shortest there is."""

LONGEST_PAUSE = 1.0
"""Seconds between two looks, in the end."""

GROWTH = 1.5
"""From pause to pause."""


class Wait:
    """One wait for a result.

    Args:
        timeout: seconds; 0 looks once; None waits for ever.

    Raises:
        ConfigurationError: the timeout is none.
    """

    def __init__(self, timeout: float | None) -> None:
        # False is no number of seconds, though it equals one.
        once = timeout == 0 and timeout is not False
        self._seconds = timeout if timeout is None or once else positive("timeout", timeout)
        self._looked = False
        self._begin = time.monotonic()
        self._pause = FIRST_PAUSE
        self._last = "no answer yet"

    def left(self) -> float | None:
        """Seconds that are left of it, at least 0; None where it has no end.

        The one look of a wait of 0 s takes as long as the client lets a call take.
        """
        if self._seconds is None or (self._seconds == 0 and not self._looked):
            return None
        return max(0.0, self._begin + self._seconds - time.monotonic())

    def after(self, info: JobInfo) -> float | None:
        """Seconds until the next look, after one at an unfinished job; None: it has finished."""
        self._looked = True
        if info.finished:
            return None
        self._last = info.status
        pause, self._pause = self._pause, min(LONGEST_PAUSE, self._pause * GROWTH)
        left = self.left()
        if left is None:
            return pause
        if self._seconds == 0:
            return 0.0  # and then it is late
        # The last look is before the end, and not a pause before it.
        return max(FIRST_PAUSE, min(pause, left - FIRST_PAUSE))

    def late(self, job: object) -> TimeoutError:
        """The error of a job that has not finished in time."""
        return TimeoutError(f"{job!r} has not finished within {self._seconds:g} s: {self._last}")


def result_of(info: JobInfo) -> object:
    """What a finished job returned.

    Raises:
        JobFailed, JobCancelled: it has ended otherwise.
    """
    if info.status == "cancelled":
        raise JobCancelled(info)
    if info.status != "succeeded":
        raise JobFailed(info)
    return info.result
