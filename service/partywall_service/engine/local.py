"""What answers while the shared store cannot, for limits with `on_outage = "local"`."""

import time
from collections.abc import Callable

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from partywall.decision import Window
from partywall_service.engine.base import Check, Verdict


class LocalLimiter:
    """A sliding window in this process, at its share of the quota.

    An estimate (two weighted counters, of constant size), not a bound: the exact windows are in
    the store that is away.

    Args:
        instances: how many sidecars share each quota.
    """

    def __init__(self, instances: Callable[[], int]) -> None:
        self._instances = instances
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def decide(self, check: Check) -> Verdict:
        """Decides by this process's share: the quota by the instances, at least 1."""
        items = [
            RateLimitItemPerSecond(max(1, rate.quota // self._instances()), rate.window)
            for rate in check.rates
        ]
        subject = (check.tenant, check.limit)
        has_room = [self._limiter.test(item, *subject, cost=check.cost) for item in items]
        allowed = all(has_room)
        if allowed and not check.dry_run:
            for item in items:
                self._limiter.hit(item, *subject, cost=check.cost)
        now = time.time()
        windows = []
        retry_after = 0.0
        for rate, item, room in zip(check.rates, items, has_room, strict=True):
            resets, remaining = self._limiter.get_window_stats(item, *subject)
            reset_after = max(0.0, resets - now)
            windows.append(Window(rate.quota, rate.window, remaining, reset_after))
            if not room:
                retry_after = max(retry_after, reset_after)
        never = any(check.cost > rate.quota for rate in check.rates)
        return Verdict(allowed, None if never else retry_after, tuple(windows))
