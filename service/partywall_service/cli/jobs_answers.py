"""What the sidecar answers about jobs and queues, as the commands need it."""

from datetime import datetime
from typing import Any

import msgspec


class Job(msgspec.Struct, frozen=True):
    """A job as it stands."""

    job_id: str
    tenant: str
    function: str
    status: str
    priority: int
    attempts: int
    queued_at: datetime
    run_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    result: Any = None
    traceback: str | None = None


class Switched(msgspec.Struct, frozen=True):
    """What came of pausing, resuming or purging."""

    paused: bool
    purged: int


class Queue(msgspec.Struct, frozen=True):
    """A tenant's jobs, in numbers; what each means is in docs/operating.md."""

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


class Queues(msgspec.Struct, frozen=True):
    """The queues of tenants that have jobs queued or running, the busiest first."""

    tenants: list[Queue]
