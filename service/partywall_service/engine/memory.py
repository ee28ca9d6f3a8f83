"""The sliding window in readable Python: the reference that every other engine must equal.

It is the oracle of the property tests and what `partywall simulate` decides with. Time is whole
microseconds since the epoch, as in the Lua script, so the two agree to the last digit.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from partywall.decision import Window
from partywall_service.engine.base import SUB_BUCKETS, Check, Verdict
from partywall_service.policy.model import Rate

MICROSECONDS = 1_000_000


@dataclass(slots=True)
class Ring:
    """One window of one tenant's limit: the cost charged to each live sub-bucket.

    Attributes:
        width: of a sub-bucket, in microseconds.
        newest: the newest sub-bucket ever charged, as an index since the epoch.
        charged: cost by sub-bucket index; only the SUB_BUCKETS + 1 up to `newest` are kept.
    """

    width: int
    newest: int = 0
    charged: dict[int, int] = field(default_factory=dict)

    def current(self, now: int) -> int:
        """The sub-bucket of `now`, never before the newest: a clock set back reopens no past."""
        return max(now // self.width, self.newest)

    def live(self, now: int) -> list[tuple[int, int]]:
        """The sub-buckets that still count at `now`, oldest first, with their costs.

        Nothing is dropped here: a look or a denial must leave the ring as it found it, or a clock
        set back afterwards would find less charged than there was.
        """
        oldest = self.current(now) - SUB_BUCKETS
        return sorted((index, cost) for index, cost in self.charged.items() if index >= oldest)

    def leaves_at(self, index: int) -> int:
        """When the sub-bucket stops counting, in microseconds."""
        return (index + SUB_BUCKETS + 1) * self.width

    def wait_for(self, cost: int, quota: int, now: int) -> int | None:
        """Microseconds until `cost` has room, absent other traffic; None when it never has."""
        if cost > quota:
            return None
        live = self.live(now)
        total = sum(charged for _, charged in live)
        wait = 0
        for index, charged in live:
            if total + cost <= quota:
                break
            total -= charged
            wait = self.leaves_at(index) - now
        return wait

    def charge(self, cost: int, now: int) -> None:
        """Adds an admitted cost to the current sub-bucket and drops what no longer counts."""
        self.newest = self.current(now)
        self.charged = dict(self.live(now))
        self.charged[self.newest] = self.charged.get(self.newest, 0) + cost

    def state(self, rate: Rate, now: int) -> Window:
        """How the window stands, for the answer."""
        live = self.live(now)
        total = sum(charged for _, charged in live)
        return Window(
            quota=rate.quota,
            window=rate.window,
            remaining=max(0, rate.quota - total),
            reset_after=(self.leaves_at(live[-1][0]) - now) / MICROSECONDS if live else 0.0,
        )


class MemoryEngine:
    """Sliding windows in this process's memory.

    Args:
        clock: seconds since the epoch; what `decide` and a `decide_now` without `now` go by.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._rings: dict[tuple[str, str, int], Ring] = {}

    def decide_now(self, check: Check, now: float | None = None) -> Verdict:
        """Decides one check at `now`, in seconds since the epoch."""
        moment = round((self._clock() if now is None else now) * MICROSECONDS)
        rings = [self._ring(check, rate) for rate in check.rates]
        waits = [
            ring.wait_for(check.cost, rate.quota, moment)
            for ring, rate in zip(rings, check.rates, strict=True)
        ]
        allowed = all(wait == 0 for wait in waits)
        if allowed:
            if check.dry_run:  # what would be, and nothing changed
                rings = [replace(ring) for ring in rings]
            for ring in rings:
                ring.charge(check.cost, moment)
        longest = None if None in waits else max(wait for wait in waits if wait is not None)
        return Verdict(
            allowed=allowed,
            retry_after=None if longest is None else longest / MICROSECONDS,
            windows=tuple(
                ring.state(rate, moment) for ring, rate in zip(rings, check.rates, strict=True)
            ),
        )

    async def decide(self, checks: Sequence[Check]) -> list[Verdict]:
        """Decides in order at one moment, as one call of the Redis script does."""
        now = self._clock()
        return [self.decide_now(check, now) for check in checks]

    def _ring(self, check: Check, rate: Rate) -> Ring:
        key = (check.tenant, check.limit, rate.window)
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = Ring(width=rate.window * MICROSECONDS // SUB_BUCKETS)
        return ring
