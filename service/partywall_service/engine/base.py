"""What every engine answers: the sliding window's terms, without saying where it is kept.

The algorithm (docs/design.md, "The sliding window"): a window of length W is a ring of
`SUB_BUCKETS` sub-buckets of width W/SUB_BUCKETS. A cost is admitted when the sum over the current
sub-bucket and the SUB_BUCKETS before it, plus the cost, is at most the quota. Any interval of
length W lies inside the SUB_BUCKETS + 1 sub-buckets that its last admission summed, so no interval
ever holds more than the quota.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from partywall.decision import Window
from partywall_service.policy.model import Rate

SUB_BUCKETS = 32
"""Sub-buckets to a window. `retry_after` overstates by at most 1/32 of the window and sustained
overload is admitted at 32/33 of the quota (promised: 1/25 and 0.95); and it divides a second into
whole microseconds, so sub-bucket edges are integers."""


class Check(NamedTuple):
    """One question: may `tenant` spend `cost` of `limit` now?

    `rates` is never empty (an unlimited limit needs no engine). `dry_run` answers what would be,
    and charges nothing.
    """

    tenant: str
    limit: str
    rates: tuple[Rate, ...]
    cost: int = 1
    dry_run: bool = False


class Verdict(NamedTuple):
    """The answer: times in seconds, `retry_after` None when the cost never fits."""

    allowed: bool
    retry_after: float | None
    windows: tuple[Window, ...]


class Engine(Protocol):
    """Decides checks in order, all windows of one limit charged together or not at all."""

    async def decide(self, checks: Sequence[Check]) -> list[Verdict]:
        """One verdict for each check, in order.

        Raises:
            StoreError: the shared store did not answer; nothing is known of the charge.
        """
        ...


class StoreError(Exception):
    """The shared store failed or answered too late. Never a denial."""
