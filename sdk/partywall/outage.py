"""What answers while no sidecar does: a local window, everybody, or nobody."""

import time
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from partywall.decision import Decision, Window

OnOutage = Literal["local", "open", "closed"]
"""`local`: a sliding window in this process, at its share of the quota; `open`: everything is
admitted; `closed`: nothing is."""


MOST_COUNTERS = 100_000
"""What an outage may cost in memory, whatever names clients make up: after so many counters all
begin anew."""


class LocalVerdict(NamedTuple):
    """What this process's own windows say; `retry_after` None when the cost never fits."""

    allowed: bool
    retry_after: float | None
    windows: tuple[Window, ...]


class LocalWindows:
    """Sliding windows in this process, at its share of each quota.

    An estimate (two weighted counters, of constant size), not a bound: the exact windows are in
    the store that is away.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._storage = MemoryStorage()
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)

    def decide(
        self,
        subject: Sequence[str],
        rates: Iterable[tuple[int, int]],
        cost: int,
        *,
        instances: int,
        charge: bool = True,
    ) -> LocalVerdict:
        """Decides by this process's share.

        Args:
            subject: whose windows they are: a tenant and a limit.
            rates: quota and seconds of each window.
            cost: of the check.
            instances: how many processes share each quota; each has at least 1 of it.
            charge: False only looks.
        """
        if len(self._storage.storage) >= MOST_COUNTERS:
            self._begin()
        shares = [
            (quota, RateLimitItemPerSecond(max(1, quota // instances), seconds))
            for quota, seconds in rates
        ]
        has_room = [self._limiter.test(item, *subject, cost=cost) for _, item in shares]
        allowed = all(has_room)
        if allowed and charge:
            for _, item in shares:
                self._limiter.hit(item, *subject, cost=cost)
        now = time.time()
        windows = []
        retry_after = 0.0
        for (quota, item), room in zip(shares, has_room, strict=True):
            resets, remaining = self._limiter.get_window_stats(item, *subject)
            reset_after = max(0.0, resets - now)
            windows.append(Window(quota, item.get_expiry(), remaining, reset_after))
            if not room:
                retry_after = max(retry_after, reset_after)
        never = any(cost > quota for quota, _ in shares)
        return LocalVerdict(allowed, None if never else retry_after, tuple(windows))


class Outage:
    """Decides without the sidecar, by `on_outage`.

    A tenant's rates are those it had when the sidecar last spoke of it. One that it never spoke of
    gets the most generous finite rates seen for the limit: a flood stays bounded, and no large
    customer is held to a small one's tier. With none seen nothing is known, and all is admitted.

    Attributes:
        on_outage: what answers.
        instances: processes that share the quotas, as the sidecar last said.
    """

    def __init__(self, on_outage: OnOutage) -> None:
        self.on_outage = on_outage
        self.instances = 1
        self._windows = LocalWindows()
        self._generous: dict[str, tuple[Window, ...]] = {}

    def learn(self, limit: str, windows: tuple[Window, ...]) -> None:
        """Notes the windows that some tenant's limit has."""
        known = self._generous.get(limit)
        if known is None or windows[-1].quota > known[-1].quota:
            self._generous[limit] = windows

    def decide(
        self,
        tenant: str,
        tier: str | None,
        limit: str,
        cost: int,
        windows: tuple[Window, ...] | None,
    ) -> Decision:
        """A degraded decision.

        Args:
            tenant: its id.
            tier: its tier, where known.
            limit: the limit.
            cost: of the check.
            windows: as last known for this tenant, empty when unlimited; None when not known.
        """
        if self.on_outage == "closed":
            return Decision(
                False, tenant, tier, limit, cost, "unavailable", True, 0, retry_after=None
            )
        rates = self._generous.get(limit, ()) if windows is None else windows
        if self.on_outage == "open" or not rates:
            return Decision(True, tenant, tier, limit, cost, degraded=True)
        verdict = self._windows.decide(
            (tenant, limit),
            [(window.quota, window.window) for window in rates],
            cost,
            instances=self.instances,
        )
        return Decision(
            allowed=verdict.allowed,
            tenant=tenant,
            tier=tier,
            limit=limit,
            cost=cost,
            reason=None if verdict.allowed else "limit-exceeded",
            degraded=True,
            remaining=min(window.remaining for window in verdict.windows),
            retry_after=verdict.retry_after,
            reset_after=max(window.reset_after for window in verdict.windows),
            windows=verdict.windows,
        )
