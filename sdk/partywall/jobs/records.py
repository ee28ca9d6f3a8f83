"""What jobs answer, typed (docs/contract.md section 4, Jobs)."""

from datetime import datetime
from typing import Any, Literal

import msgspec

JobStatus = Literal[
    "queued", "deferred", "running", "retrying", "succeeded", "failed", "dead", "cancelled"
]

FINISHED: frozenset[JobStatus] = frozenset({"succeeded", "failed", "dead", "cancelled"})
"""Where a job stays, until it is forgotten or revived."""


class JobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it stands. Instants are in UTC, to the millisecond.

    Attributes:
        id: its id among its tenant's; `job_id` in the API.
        tenant: whose.
        function: the name of what it calls.
        status: `queued`, `deferred` or `retrying` while it waits, `running`, and then `succeeded`,
            `failed` (it will not be retried), `dead` (no tries left; it may be revived) or
            `cancelled`.
        priority: 0 to 9 among its tenant's, 9 first.
        attempts: how often it was started.
        queued_at: when it was enqueued.
        run_at: before when it does not start.
        started_at: when its last try began; None before.
        finished_at: None until then.
        error: type and message of what it failed with last.
        result: what it returned, as JSON carries it.
        traceback: of that error; None where there is none, and for a tenant's own token.
    """

    id: str = msgspec.field(name="job_id")
    tenant: str
    function: str
    status: JobStatus
    priority: int
    attempts: int
    queued_at: datetime
    run_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    result: Any
    traceback: str | None = None

    @property
    def finished(self) -> bool:
        """Whether it will not run again by itself."""
        return self.status in FINISHED


class JobPage(msgspec.Struct, frozen=True):
    """A page of a tenant's jobs, newest first."""

    jobs: list[JobInfo]
    next_cursor: str | None = None


class QueueState(msgspec.Struct, frozen=True):
    """A tenant's queue, after it was paused, resumed or purged.

    Attributes:
        tenant: whose.
        paused: whether its jobs are kept from starting.
        purged: how many waiting jobs this call cancelled.
    """

    tenant: str
    paused: bool
    purged: int
