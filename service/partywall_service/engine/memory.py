"""The sliding window in readable Python: the reference that every other engine must equal.

It is the oracle of the property tests and what `partywall simulate` decides with. Time is whole
microseconds since the epoch, as in the Lua script, so the two agree to the last digit.
"""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from partywall.decision import Window
from partywall_service.engine.base import (
    AHEAD_SHARE,
    LEASE_KEPT,
    SUB_BUCKETS,
    Ask,
    Check,
    Count,
    Question,
    Return,
    Verdict,
)
from partywall_service.policy.model import Rate

MICROSECONDS = 1_000_000


@dataclass(slots=True)
class Ring:
    """One window of one tenant's limit: the cost charged to each live sub-bucket.

    Attributes:
        width: of a sub-bucket, in microseconds.
        newest: the newest sub-bucket in whose time something was charged, as an index since the
            epoch. A lease is charged to a later one and does not move it there: time goes on from
            here when the clock is set back, and must not run ahead of it.
        charged: cost by sub-bucket index, above 0; only those from `newest` - SUB_BUCKETS to
            `newest` + AHEAD are kept.
    """

    width: int
    newest: int = 0
    charged: dict[int, int] = field(default_factory=dict)

    def time(self, now: int) -> int:
        """`now`, never before the newest sub-bucket: a clock set back reopens no past."""
        return max(now, self.newest * self.width)

    def current(self, now: int) -> int:
        """The sub-bucket of `now`, for a check."""
        return self.time(now) // self.width

    def ending(self, now: int, horizon: int) -> int:
        """The sub-bucket in which a lease of this length ends."""
        return (self.time(now) + horizon) // self.width

    def live(self, now: int) -> list[tuple[int, int]]:
        """The sub-buckets that count at `now`, oldest first, with their costs.

        Nothing is dropped here: a look or a denial must leave the ring as it found it, or a clock
        set back afterwards would find less charged than there was.
        """
        oldest = self.current(now) - SUB_BUCKETS
        return sorted((index, cost) for index, cost in self.charged.items() if index >= oldest)

    def total(self, now: int) -> int:
        """The cost that counts at `now`."""
        return sum(cost for _, cost in self.live(now))

    def leaves_at(self, index: int) -> int:
        """When the sub-bucket stops counting, in microseconds."""
        return (index + SUB_BUCKETS + 1) * self.width

    def wait_for(self, cost: int, quota: int, now: int) -> int | None:
        """Microseconds until `cost` has room, absent other traffic; None when it never has."""
        if cost > quota:
            return None
        total = self.total(now)
        wait = 0
        for index, charged in self.live(now):
            if total + cost <= quota:
                break
            total -= charged
            wait = self.leaves_at(index) - now
        return wait

    def charge(self, cost: int, index: int, now: int) -> None:
        """Adds an admitted cost to the sub-bucket and drops what no longer counts."""
        self.newest = self.current(now)
        self.charged = dict(self.live(now))
        self.charged[index] = self.charged.get(index, 0) + cost

    def take_back(self, cost: int, index: int, now: int) -> None:
        """Takes a cost out of the sub-bucket it was charged to, unless that has left."""
        charged = self.charged.get(index, 0)
        if index < self.current(now) - SUB_BUCKETS or charged == 0:
            return
        self.charged[index] = max(0, charged - cost)
        if self.charged[index] == 0:
            del self.charged[index]

    def state(self, rate: Rate, now: int) -> Window:
        """How the window stands, for the answer."""
        live = self.live(now)
        return Window(
            quota=rate.quota,
            window=rate.window,
            remaining=max(0, rate.quota - self.total(now)),
            reset_after=(self.leaves_at(live[-1][0]) - now) / MICROSECONDS if live else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """What was granted ahead, so that it can be given back.

    Attributes:
        units: all that was granted with it, what was needed at once as well.
        until: the last microsecond at which they can be given back.
        charged: the sub-bucket in each window, by the window's length.
    """

    units: int
    until: int
    charged: dict[int, int]


class MemoryEngine:
    """Sliding windows in this process's memory.

    Args:
        clock: seconds since the epoch; what `decide` and a `decide_now` without `now` go by.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._rings: dict[tuple[str, str, int], Ring] = {}
        self._leases: dict[tuple[str, str, str], Lease] = {}

    def decide_now(self, question: Question, now: float | None = None) -> Verdict:
        """Answers one question at `now`, in seconds since the epoch."""
        if isinstance(question, Count):
            return Verdict(allowed=True, retry_after=0.0, windows=())
        moment = round((self._clock() if now is None else now) * MICROSECONDS)
        rings = [self._ring(question, rate) for rate in question.rates]
        if isinstance(question, Check):
            return self._check(question, rings, moment)
        if isinstance(question, Ask):
            return self._ask(question, rings, moment)
        return self._return(question, rings, moment)

    async def decide(self, checks: Sequence[Question]) -> list[Verdict]:
        """Decides in order at one moment, as one call of the Redis script does."""
        now = self._clock()
        return [self.decide_now(check, now) for check in checks]

    def _check(self, check: Check, rings: list[Ring], now: int) -> Verdict:
        if check.cost > _room(check, rings, now):
            return _denial(check, check.cost, rings, now)
        if check.dry_run:  # what would be, and nothing changed
            rings = deepcopy(rings)
        for ring in rings:
            ring.charge(check.cost, ring.current(now), now)
        return Verdict(True, 0.0, _windows(check, rings, now))

    def _ask(self, ask: Ask, rings: list[Ring], now: int) -> Verdict:
        room = _room(ask, rings, now)
        if ask.cost > room:
            return _denial(ask, ask.cost, rings, now)
        granted = max(ask.cost, min(ask.need, room))
        ahead = min(ask.ahead, (room - granted) // AHEAD_SHARE) if ask.lease else 0
        ends = [ring.ending(now, ask.lasts(granted + ahead)) for ring in rings]
        name = (ask.tenant, ask.limit, ask.lease)
        # An id that is known already is a question that was sent twice. What it needs is charged
        # once more, for either answer may be the one that is used; nothing is granted ahead, and
        # the record stays as it is, so never more is taken back than was charged.
        if ahead > 0 and name not in self._leases:
            granted += ahead
            lengths = (rate.window for rate in ask.rates)
            charged = dict(zip(lengths, ends, strict=True))
            self._leases[name] = Lease(granted, now + LEASE_KEPT * 1000, charged)
        for ring, end in zip(rings, ends, strict=True):
            ring.charge(granted, end, now)
        return Verdict(True, 0.0, _windows(ask, rings, now), granted)

    def _return(self, back: Return, rings: list[Ring], now: int) -> Verdict:
        name = (back.tenant, back.limit, back.lease)
        lease = self._leases.get(name)
        if lease is None or now > lease.until:
            return Verdict(False, 0.0, _windows(back, rings, now))
        del self._leases[name]
        units = min(back.units, lease.units)
        for ring, rate in zip(rings, back.rates, strict=True):
            if rate.window in lease.charged:
                ring.take_back(units, lease.charged[rate.window], now)
        return Verdict(True, 0.0, _windows(back, rings, now), units)

    def _ring(self, question: Question, rate: Rate) -> Ring:
        key = (question.tenant, question.limit, rate.window)
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = Ring(width=rate.window * MICROSECONDS // SUB_BUCKETS)
        return ring


def _room(question: Question, rings: list[Ring], now: int) -> int:
    """What every window has room for."""
    return min(
        rate.quota - ring.total(now) for ring, rate in zip(rings, question.rates, strict=True)
    )


def _denial(question: Question, cost: int, rings: list[Ring], now: int) -> Verdict:
    waits = [
        ring.wait_for(cost, rate.quota, now)
        for ring, rate in zip(rings, question.rates, strict=True)
    ]
    longest = None if None in waits else max(wait for wait in waits if wait is not None)
    retry_after = None if longest is None else longest / MICROSECONDS
    return Verdict(False, retry_after, _windows(question, rings, now))


def _windows(question: Question, rings: list[Ring], now: int) -> tuple[Window, ...]:
    return tuple(ring.state(rate, now) for ring, rate in zip(rings, question.rates, strict=True))
