"""What a tenant's jobs may take, as the sidecar writes it into the queue's Redis."""

from dataclasses import dataclass

from partywall_workers.errors import InvalidJob

DEFAULT_LANE = "default"
"""Where the jobs of tenants without a queue of their own are."""

SYSTEM_TENANT = "_system"
"""Whose the sidecar's own maintenance jobs are; no registered tenant's id begins with `_`."""

CRON_TENANT = "_cron"
"""Whose the cron jobs of host apps' workers are."""

SYSTEM_LANE = "_system"
"""Where maintenance jobs wait, for `partywall worker` without an argument."""


@dataclass(frozen=True, slots=True)
class JobPolicy:
    """What a tenant's jobs may take. The defaults lift every cap.

    Attributes:
        tier: its tier's name; what metrics count by.
        features: its tier's, for `current_tenant()` inside jobs.
        weight: its share of workers where they are contended, above 0.
        concurrency: jobs running at once; None is unlimited.
        max_queued: jobs waiting or deferred; None is unlimited.
        rates: job starts, each (quota, window in seconds).
        lane: the queue its jobs wait in, of those that workers serve.
        held: why no job of it may start (`suspended`, `provisioning`, `unknown`); None: they may.
    """

    tier: str | None = None
    features: tuple[str, ...] = ()
    weight: float = 1
    concurrency: int | None = None
    max_queued: int | None = None
    rates: tuple[tuple[int, int], ...] = ()
    lane: str = DEFAULT_LANE
    held: str | None = None

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise InvalidJob("weight", f"expected a number above 0; got {self.weight!r}")


SYSTEM_POLICY = JobPolicy(tier="_system", lane=SYSTEM_LANE)
"""What maintenance jobs run by."""
