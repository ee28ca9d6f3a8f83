"""Exact sliding windows: a log of every admitted cost, which a test can afford."""

from collections import deque
from collections.abc import Sequence

from partywall._fake.policy import Rate
from partywall.decision import Window

MICROSECONDS = 1_000_000
"""Time is whole microseconds: a test that waits for `retry_after` waits for exactly enough."""


class Windows:
    """What each tenant's limits were charged. A cost charged at t counts until t + window."""

    def __init__(self) -> None:
        self._logs: dict[tuple[str, str, int], deque[tuple[int, int]]] = {}

    def state(self, tenant: str, limit: str, rates: Sequence[Rate], now: int) -> tuple[Window, ...]:
        """How the windows stand."""
        return tuple(self._state(self._log(tenant, limit, rate, now), rate, now) for rate in rates)

    def wait(
        self, tenant: str, limit: str, rates: Sequence[Rate], cost: int, now: int
    ) -> float | None:
        """Seconds until every window has room for `cost`, 0.0 when all have; None for never."""
        if any(cost > rate.quota for rate in rates):
            return None
        longest = max(
            (_wait(self._log(tenant, limit, rate, now), rate, cost, now) for rate in rates),
            default=0,
        )
        return longest / MICROSECONDS

    def charge(self, tenant: str, limit: str, rates: Sequence[Rate], cost: int, now: int) -> None:
        """Adds a cost to every window."""
        for rate in rates:
            self._log(tenant, limit, rate, now).append((now, cost))

    def _log(self, tenant: str, limit: str, rate: Rate, now: int) -> deque[tuple[int, int]]:
        log = self._logs.setdefault((tenant, limit, rate.window), deque())
        while log and log[0][0] + rate.window * MICROSECONDS <= now:
            log.popleft()
        return log

    @staticmethod
    def _state(log: deque[tuple[int, int]], rate: Rate, now: int) -> Window:
        spent = sum(cost for _, cost in log)
        resets = log[-1][0] + rate.window * MICROSECONDS - now if log else 0
        return Window(rate.quota, rate.window, max(0, rate.quota - spent), resets / MICROSECONDS)


def _wait(log: deque[tuple[int, int]], rate: Rate, cost: int, now: int) -> int:
    excess = sum(charged for _, charged in log) + cost - rate.quota
    wait = 0
    for at, charged in log:
        if excess <= 0:
            break
        excess -= charged
        wait = at + rate.window * MICROSECONDS - now
    return wait
