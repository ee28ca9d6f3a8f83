"""What every engine answers: the sliding window's terms, without saying where it is kept.

The algorithm (docs/design.md, "The sliding window"): a window of length W is a ring of
sub-buckets of width W/SUB_BUCKETS. A cost is admitted when the sum over the SUB_BUCKETS sub-buckets
before the current one, the current one and the AHEAD after it, plus the cost, is at most the quota.
A check is charged to the current sub-bucket, a permit to the one in which its lease ends, at most
AHEAD later: a unit is never spent later than it is charged. Any interval of length W lies inside
the sub-buckets that the last admission in it summed, so no interval ever holds more than the quota.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from partywall.decision import Window
from partywall_service.policy.model import Rate

SUB_BUCKETS = 32
"""Sub-buckets to a window. `retry_after` overstates by at most 1/32 of the window and sustained
overload is admitted at 32/33 of the quota (promised: 1/25 and 0.95); and it divides a second into
whole microseconds, so sub-bucket edges are integers."""


AHEAD = 2
"""Sub-buckets after the current one that a lease may be charged to: a horizon of W/20 is 1.6 of
them."""

SLOTS = SUB_BUCKETS + 1 + AHEAD
"""Sub-buckets that count at once."""

LONGEST_HORIZON = 500_000
"""Microseconds: the longest a lease lasts, whatever the window."""

LEASE_KEPT = 15_000
"""Milliseconds for which a lease's units can still be given back; after that they stay spent."""

AHEAD_SHARE = 8
"""At most one in this many of the units that remain is leased ahead of need, so that one process
cannot take what others are about to ask for; near the limit that is none."""


def horizon(rates: Sequence[Rate]) -> int:
    """How long a lease of these windows lasts, in microseconds: a twentieth of the shortest.

    Of none at all it lasts no time.
    """
    if not rates:
        return 0
    return min(LONGEST_HORIZON, _shortest(rates) * 50_000)


def _shortest(rates: Sequence[Rate]) -> int:
    # Most limits have one window, and every ask comes here four times.
    return rates[0].window if len(rates) == 1 else min([rate.window for rate in rates])


class Check(NamedTuple):
    """One question: may `tenant` spend `cost` of `limit` now?

    `rates` is never empty (an unlimited limit needs no decision). `dry_run` answers what would be,
    charges nothing and is not counted. `enforce` only says as what a denial is counted.
    """

    tenant: str
    limit: str
    rates: tuple[Rate, ...]
    cost: int = 1
    dry_run: bool = False
    enforce: bool = True


class Count(NamedTuple):
    """No question: a decision that needed no windows, to be counted. It is always allowed.

    `rates` is empty.
    """

    tenant: str
    limit: str
    rates: tuple[Rate, ...]
    outcome: Literal["admitted", "denied"]


class Ask(NamedTuple):
    """A question for a lease: what do the waiting checks get, and what may be taken ahead?

    It is allowed when `cost` has room in every window. Then granted, and charged to the sub-bucket
    in which the lease ends, `horizon(rates)` from now: `need` or as much of it as has room (at
    least `cost`), and of what remains after that at most one in AHEAD_SHARE, at most `ahead`. Where
    anything is granted ahead, `lease` names all of it for `LEASE_KEPT`, so that it can be given
    back; "" where nothing is asked ahead. Where nothing is, the asker spends it `within` so many
    microseconds, and it is charged to the end of what it `lasts` then.
    """

    tenant: str
    limit: str
    rates: tuple[Rate, ...]
    cost: int
    need: int
    ahead: int = 0
    lease: str = ""
    within: int = LONGEST_HORIZON

    def lasts(self, granted: int) -> int:
        """How long granted units may be spent, in microseconds.

        What is needed at once gets a hundredth of the shortest window at least: it costs that share
        of throughput at most, and an answer that is late for once is still of use.
        """
        longest = horizon(self.rates)
        if granted > self.need:
            return longest
        return min(longest, max(self.within, _shortest(self.rates) * 10_000))


class Return(NamedTuple):
    """Unspent units of a lease: taken back out of the sub-bucket they were charged to.

    Once, however often it is sent; never more than was granted. Its verdict is allowed when the
    lease was still known, and `granted` is what was taken back.
    """

    tenant: str
    limit: str
    rates: tuple[Rate, ...]
    lease: str
    units: int


Question = Check | Ask | Return | Count


class Verdict(NamedTuple):
    """The answer: times in seconds, `retry_after` None when the cost never fits.

    `granted` is what an `Ask` was granted or a `Return` took back; 0 for a `Check`.
    """

    allowed: bool
    retry_after: float | None
    windows: tuple[Window, ...]
    granted: int = 0


class Engine(Protocol):
    """Decides in order, all windows of one limit charged together or not at all."""

    async def decide(self, checks: Sequence[Question]) -> list[Verdict]:
        """One verdict for each question, in order.

        Raises:
            StoreError: the shared store did not answer; nothing is known of the charge.
        """
        ...


class StoreError(Exception):
    """The shared store failed or answered too late. Never a denial."""
