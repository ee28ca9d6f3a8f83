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

    __slots__ = ("_policy", "_quota", "_states", "_text", "_tightest", "family")

    def __init__(self, limit: str, windows: tuple[Window, ...], family: HeaderFamily) -> None:
        self.family = family
        self._policy: RawHeader | None = None
        self._quota: RawHeader | None = None
        if not windows or family == "none":
            return
        named = named_windows(limit, windows)
        if family != "legacy":
            self._policy = (b"ratelimit-policy", policies(named).encode())
            # No limit's name has a `%` (`protocol.LIMIT_PATTERN`).
            self._text = ", ".join([f'"{name}";r=%d;t=%d' for name, _ in named]).encode()
            self._states = [(one.remaining, one.reset_after) for _, one in named]
        if family != "ietf":
            self._tightest = tightest(named)
            self._quota = (b"x-ratelimit-limit", b"%d" % self._tightest.quota)

    def filled(self, units: int, passed: float) -> RawHeaders:
        """The headers of one answer.

        Args:
            units: still in hand, so that they remain beside what the windows say.
            passed: seconds since the windows were told.
        """
        headers: RawHeaders = []
        if self._policy is not None:
            numbers: list[int] = []
            for remaining, reset_after in self._states:
                left = remaining + units
                reset = reset_after - passed
                # Written out: `min` and `max` take longer than all else in here.
                numbers += (left if left < MOST else MOST, ceil(reset) if reset > 0.0 else 0)  # noqa: FURB136 - as said
            headers = [self._policy, (b"ratelimit", self._text % tuple(numbers))]
        if self._quota is not None:
            left = self._tightest.remaining + units
            reset = self._tightest.reset_after - passed
            headers += (
                self._quota,
                (b"x-ratelimit-remaining", b"%d" % left),
                (b"x-ratelimit-reset", b"%d" % (ceil(reset) if reset > 0.0 else 0)),
            )
        return headers
