"""What answers while the shared store cannot, for limits with `on_outage = "local"`."""

import time
from collections.abc import Callable

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from partywall.decision import Window
from partywall_service.engine.base import Ask, Check, Return, Verdict


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

    def decide(self, question: Check | Ask | Return) -> Verdict:
        """Decides by this process's share: the quota by the instances, at least 1.

        A lease gets what it needs or, where that has no room, its cost; nothing is granted ahead,
        so there is nothing to give back.
        """
        if isinstance(question, Return):
            return Verdict(allowed=False, retry_after=0.0, windows=())
        if isinstance(question, Check):
            return self._decide(question, question.cost, charge=not question.dry_run)
        for cost in (question.need, question.cost):
            verdict = self._decide(question, cost, charge=True)
            if verdict.allowed:
                return verdict._replace(granted=cost)
        return verdict

    def _decide(self, question: Check | Ask, cost: int, *, charge: bool) -> Verdict:
        items = [
            RateLimitItemPerSecond(max(1, rate.quota // self._instances()), rate.window)
            for rate in question.rates
        ]
        subject = (question.tenant, question.limit)
        has_room = [self._limiter.test(item, *subject, cost=cost) for item in items]
        allowed = all(has_room)
        if allowed and charge:
            for item in items:
                self._limiter.hit(item, *subject, cost=cost)
        now = time.time()
        windows = []
        retry_after = 0.0
        for rate, item, room in zip(question.rates, items, has_room, strict=True):
            resets, remaining = self._limiter.get_window_stats(item, *subject)
            reset_after = max(0.0, resets - now)
            windows.append(Window(rate.quota, rate.window, remaining, reset_after))
            if not room:
                retry_after = max(retry_after, reset_after)
        never = any(cost > rate.quota for rate in question.rates)
        return Verdict(allowed, None if never else retry_after, tuple(windows))
