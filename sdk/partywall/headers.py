"""The rate-limit headers of a lease's answers: one differs from the next in a few numbers only."""

from math import ceil

from partywall.decision import MOST, HeaderFamily, Window, named_windows, policies, tightest
from partywall.responses import RawHeader, RawHeaders


class HeaderTemplate:
    """`rate_limit_headers` of admitted checks as ASGI has them; what stays is written once.

    Units in hand and time that passes change all windows alike, so which of them has the least
    remaining stays, too.

    Args:
        limit: whose windows they are.
        windows: as the sidecar told them.
        family: which headers.

    Attributes:
        family: as given.
    """

    __slots__ = (
        "_after",
        "_before",
        "_policy",
        "_quota",
        "_remaining",
        "_reset",
        "_reset_after",
        "_seconds",
        "_text",
        "_windows",
        "family",
    )

    def __init__(self, limit: str, windows: tuple[Window, ...], family: HeaderFamily) -> None:
        self.family = family
        self._policy: RawHeader | None = None
        self._quota: RawHeader | None = None
        self._remaining, self._reset_after = 0, 0.0
        self._write_reset(0)
        if not windows or family == "none":
            return
        named = named_windows(limit, windows)
        least = tightest(named)
        self._remaining, self._reset_after = least.remaining, least.reset_after
        if family != "legacy":
            self._policy = (b"ratelimit-policy", policies(named).encode())
            self._before = f'"{limit}";r='.encode()
            # No limit's name has a `%` (`protocol.LIMIT_PATTERN`).
            self._text = ", ".join([f'"{name}";r=%d;t=%d' for name, _ in named]).encode()
            self._windows = [(one.remaining, one.reset_after) for _, one in named]
        if family != "ietf":
            self._quota = (b"x-ratelimit-limit", b"%d" % least.quota)

    def filled(self, units: int, passed: float) -> RawHeaders:
        """The headers of one answer.

        Args:
            units: still in hand, so that they remain beside what the windows say.
            passed: seconds since the windows were told.
        """
        reset = self._reset_after - passed
        seconds = ceil(reset) if reset > 0.0 else 0
        if seconds != self._seconds:
            self._write_reset(seconds)
        left = self._remaining + units
        remaining = b"%d" % left
        headers: RawHeaders = []
        if self._policy is not None:
            if len(self._windows) == 1 and left < MOST:
                state = self._before + remaining + self._after
            else:
                state = self._text % self._numbers(units, passed)
            headers = [self._policy, (b"ratelimit", state)]
        if self._quota is not None:
            headers += (self._quota, (b"x-ratelimit-remaining", remaining), self._reset)
        return headers

    def _write_reset(self, seconds: int) -> None:
        """Writes what stays for a second."""
        self._seconds = seconds
        self._after = b";t=%d" % seconds
        self._reset = (b"x-ratelimit-reset", b"%d" % seconds)

    def _numbers(self, units: int, passed: float) -> tuple[int, ...]:
        """What remains in each window, and in how many seconds it is free."""
        numbers: list[int] = []
        for remaining, reset_after in self._windows:
            left = remaining + units
            reset = reset_after - passed
            # Written out: the calls of `min` and `max` would be most of the time in here.
            numbers += (
                left if left < MOST else MOST,  # noqa: FURB136 - as said
                ceil(reset) if reset > 0.0 else 0,
            )
        return tuple(numbers)
