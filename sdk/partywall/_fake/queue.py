"""The fake sidecar's jobs of one tenant: what waits, what runs, and what became of it."""

import secrets
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from partywall._fake.refused import Refused
from partywall.jobs.records import FINISHED, JobInfo, JobStatus

KEPT = timedelta(hours=24)
KEPT_DEAD = timedelta(days=14)
"""For how long finished jobs are kept, as a sidecar does that is left as it comes."""

WAITING: frozenset[JobStatus] = frozenset({"queued", "deferred", "retrying"})


class SeenJob(JobInfo, frozen=True, kw_only=True):
    """A job that the fake sidecar has: a `JobInfo`, and what it was enqueued with.

    Attributes:
        args: what it is called with, after `ctx`, as JSON carried it.
        kwargs: what it is called with by name.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job to enqueue."""

    function: str
    args: list[Any]
    kwargs: dict[str, Any]
    job_id: str | None
    priority: int
    run_at: datetime


class Queue:
    """One tenant's jobs, in the order in which they came. `at` gives every call its time.

    Attributes:
        paused: whether none may start.
        consumed: the jobs that have what their quotas say, by id.
        refusals: how often a job did not get it, by id.
    """

    def __init__(self, tenant: str) -> None:
        self.paused = False
        self.consumed: set[str] = set()
        self.refusals: Counter[str] = Counter()
        self._tenant = tenant
        self._jobs: dict[str, SeenJob] = {}
        self._cancels: dict[str, Callable[[], object]] = {}
        self._now = datetime.min.replace(tzinfo=UTC)

    def at(self, now: datetime) -> "Queue":
        """The queue as it is now: what was deferred is due, and what was kept long is forgotten."""
        self._now = now
        for job in list(self._jobs.values()):
            kept = KEPT_DEAD if job.status == "dead" else KEPT
            if job.finished_at is not None and job.finished_at + kept <= now:
                del self._jobs[job.id], self.refusals[job.id]
                self.consumed.discard(job.id)
            elif job.status == "deferred" and job.run_at <= now:
                self._put(job, status="queued")
        return self

    def jobs(self) -> list[SeenJob]:
        """All of them, oldest first."""
        return list(self._jobs.values())

    def get(self, job_id: str) -> SeenJob:
        """One of them.

        Raises:
            Refused: there is none.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise Refused("unknown-job", f"tenant {self._tenant!r} has no job {job_id!r}")
        return job

    def enqueue(self, new: NewJob, most: int | None) -> tuple[SeenJob, bool]:
        """A new job, and True; or the one that has its id.

        Raises:
            Refused: `most` of them wait already.
        """
        if new.job_id in self._jobs:
            return self._jobs[new.job_id], False
        self._room(most)
        run_at = max(new.run_at, self._now)
        job = SeenJob(
            id=new.job_id or secrets.token_hex(16),
            tenant=self._tenant,
            function=new.function,
            args=tuple(new.args),
            kwargs=new.kwargs,
            status="deferred" if run_at > self._now else "queued",
            priority=new.priority,
            attempts=0,
            queued_at=self._now,
            run_at=run_at,
            started_at=None,
            finished_at=None,
            error=None,
            result=None,
        )
        self._jobs[job.id] = job
        return job, True

    def cancel(self, job_id: str) -> SeenJob:
        """Ends a job; one that runs is told so.

        Raises:
            Refused: it has finished, or there is none.
        """
        job = self.get(job_id)
        if job.finished:
            raise Refused("conflict", f"job {job_id!r} is {job.status}: it cannot be cancelled")
        stop = self._cancels.pop(job_id, None)
        if stop is not None:
            stop()
        return self._cancelled(job)

    def retry(self, job_id: str, most: int | None) -> SeenJob:
        """Revives a dead job.

        Raises:
            Refused: it is not dead, there is none, or `most` of them wait already.
        """
        job = self.get(job_id)
        if job.status != "dead":
            raise Refused("conflict", f"job {job_id!r} is {job.status}: only a dead one is revived")
        self._room(most)
        del self.refusals[job_id]
        return self._put(
            job,
            status="queued",
            attempts=0,
            run_at=self._now,
            finished_at=None,
            error=None,
            traceback=None,
        )

    def purge(self) -> int:
        """Cancels all that wait; how many there were."""
        waiting = [job for job in self._jobs.values() if job.status in WAITING]
        for job in waiting:
            self._cancelled(job)
        return len(waiting)

    def due(self) -> SeenJob | None:
        """The job that is next to start."""
        due = [
            job for job in self._jobs.values() if job.status in WAITING and job.run_at <= self._now
        ]
        if self.paused or not due:
            return None
        return max(due, key=lambda job: job.priority)  # the first of those that are alike

    def start(self, job: SeenJob, cancel: Callable[[], object]) -> SeenJob:
        """Begins a try; `cancel` is called where it is to stop."""
        self._cancels[job.id] = cancel
        return self._put(job, status="running", attempts=job.attempts + 1, started_at=self._now)

    def end(self, job: SeenJob, **changes: Any) -> SeenJob:  # noqa: ANN401 - of a job's fields
        """Ends a try: what has become of it, unless it was cancelled meanwhile.

        Args:
            job: as it was started.
            changes: of its fields.
        """
        self._cancels.pop(job.id, None)
        job = self._jobs.get(job.id, job)
        if job.status != "running":
            return job
        if changes["status"] in FINISHED:
            changes["finished_at"] = self._now
        return self._put(job, **changes)

    def _cancelled(self, job: SeenJob) -> SeenJob:
        return self._put(job, status="cancelled", finished_at=self._now, error="cancelled")

    def _room(self, most: int | None) -> None:
        waiting = sum(job.status in WAITING for job in self._jobs.values())
        if most is not None and waiting >= most:
            raise Refused(
                "queue-full",
                f"tenant {self._tenant!r} has {waiting} jobs waiting, as many as it may have",
            )

    def _put(self, job: SeenJob, **changes: Any) -> SeenJob:  # noqa: ANN401 - of a job's fields
        changed: SeenJob = replace(job, **changes)
        self._jobs[job.id] = changed
        return changed
