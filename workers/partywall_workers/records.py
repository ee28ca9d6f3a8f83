"""What is told about jobs and queues."""

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal[
    "queued", "deferred", "running", "retrying", "succeeded", "failed", "dead", "cancelled"
]

FINISHED: frozenset[Status] = frozenset({"succeeded", "failed", "dead", "cancelled"})
"""Where a job stays, until it is forgotten or revived."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it stands. Instants are milliseconds since the epoch, by Redis's clock.

    Attributes:
        tenant: whose.
        job_id: its id among its tenant's.
        function: the name of what it calls.
        status: see `Status`. `failed` will not be retried; `dead` has no tries left, and is kept
            to be revived.
        priority: 0 to 9, 9 first.
        attempts: how often it was started.
        queued_at: when it was enqueued.
        run_at: before when it does not start.
        started_at: of its last try.
        finished_at: None until then.
        error: type and message of what it failed with last.
        traceback: of that error; for operators.
        result: what it returned, as JSON carries it.
    """

    tenant: str
    job_id: str
    function: str
    status: Status
    priority: int
    attempts: int
    queued_at: int
    run_at: int
    started_at: int | None = None
    finished_at: int | None = None
    error: str | None = None
    traceback: str | None = None
    result: Any = None

    @property
    def finished(self) -> bool:
        """Whether it will not run again by itself."""
        return self.status in FINISHED


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What came of an enqueue.

    Attributes:
        job: the job as it stands; the existing one where its id was taken.
        created: whether this call made it.
    """

    job: JobRecord
    created: bool


@dataclass(frozen=True, slots=True)
class Backlog:
    """A tenant's jobs, in numbers.

    Attributes:
        tenant: whose.
        tier: its tier; None where the sidecar has not said.
        lane: the queue its jobs wait in.
        weight: its share.
        queued: waiting, and due.
        deferred: waiting for an instant, retries too.
        running: with a live lease.
        dead: kept, to be revived.
        oldest_wait: seconds since the longest waiting of its due jobs became due.
        concurrency: its cap; None is unlimited.
        max_queued: its cap; None is unlimited.
        paused: by an operator.
        held: why none may start (`suspended`, `provisioning`, `unknown`); None: they may.
        claims: starts, since the queue was made; those after them likewise.
        retries: tries that were put off to another.
        died: jobs that ended in the dead letter set.
        expired: leases that ran out.
    """

    tenant: str
    tier: str | None
    lane: str
    weight: float
    queued: int
    deferred: int
    running: int
    dead: int
    oldest_wait: float
    concurrency: int | None
    max_queued: int | None
    paused: bool
    held: str | None
    claims: int
    retries: int
    died: int
    expired: int
