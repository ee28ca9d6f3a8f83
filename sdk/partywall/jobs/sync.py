"""The synchronous face of jobs: the same calls, made on the client's event loop."""

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from partywall.jobs.handle import Job
from partywall.jobs.methods import JobMethods, path_of
from partywall.jobs.records import JobInfo, JobPage, JobStatus, QueueState
from partywall.jobs.waiting import Wait, result_of

T = TypeVar("T")


class _Run(Protocol):
    """Makes a call on the client's event loop, and waits for it."""

    def __call__(self, call: Callable[[JobMethods], Awaitable[T]], /) -> T: ...


class SyncJob:
    """A `Job` without asyncio.

    Attributes:
        id: its id among its tenant's.
        tenant: whose.
    """

    def __init__(self, run: _Run, tenant: str, job_id: str) -> None:
        self.id = job_id
        self.tenant = tenant
        self._run = run

    def info(self) -> JobInfo:
        """`Job.info`."""
        return self._run(lambda client: self._on(client).info())

    def status(self) -> JobStatus:
        """`Job.status`."""
        return self._run(lambda client: self._on(client).status())

    def result(self, timeout: float | None = None) -> Any:  # noqa: ANN401 - any of JSON's
        """`Job.result`."""
        # Not one call on the loop: the client's end waits for those, and this may have none.
        wait = Wait(timeout)
        while (pause := wait.after(info := self._look(wait))) is not None:
            time.sleep(pause)
        return result_of(info)

    def cancel(self) -> JobInfo:
        """`Job.cancel`."""
        return self._run(lambda client: self._on(client).cancel())

    def retry(self) -> JobInfo:
        """`Job.retry`."""
        return self._run(lambda client: self._on(client).retry())

    def _look(self, wait: Wait) -> JobInfo:
        return self._run(lambda client: self._on(client).look(wait))

    def _on(self, client: JobMethods) -> Job:
        return client.job(self.tenant, self.id)

    def __repr__(self) -> str:
        return f"<SyncJob {self.id!r} of {self.tenant!r}>"


class SyncJobMethods(ABC):
    """A synchronous client's jobs: `JobMethods`, and nothing to await."""

    def enqueue(
        self,
        tenant: str,
        function: str,
        /,
        *args: object,
        _job_id: str | None = None,
        _priority: int | None = None,
        _defer_by: float | timedelta | None = None,
        _defer_until: datetime | None = None,
        _idempotency_key: str | None = None,
        **kwargs: object,
    ) -> SyncJob:
        """`Partywall.enqueue`."""
        job = self._run(
            lambda client: client.enqueue(
                tenant,
                function,
                *args,
                _job_id=_job_id,
                _priority=_priority,
                _defer_by=_defer_by,
                _defer_until=_defer_until,
                _idempotency_key=_idempotency_key,
                **kwargs,
            )
        )
        return SyncJob(self._run, job.tenant, job.id)

    def job(self, tenant: str, job_id: str) -> SyncJob:
        """`Partywall.job`."""
        path_of(tenant, job_id)
        return SyncJob(self._run, tenant, job_id)

    def get_job(self, tenant: str, job_id: str) -> JobInfo:
        """`Partywall.get_job`."""
        return self._run(lambda client: client.get_job(tenant, job_id))

    def list_jobs(self, tenant: str, status: JobStatus | None = None) -> Iterator[JobInfo]:
        """`Partywall.list_jobs`."""
        cursor: str | None = None
        while True:
            page = self._page(tenant, status, cursor)
            yield from page.jobs
            cursor = page.next_cursor
            if cursor is None:
                return

    def cancel_job(self, tenant: str, job_id: str) -> JobInfo:
        """`Partywall.cancel_job`."""
        return self._run(lambda client: client.cancel_job(tenant, job_id))

    def retry_job(self, tenant: str, job_id: str) -> JobInfo:
        """`Partywall.retry_job`."""
        return self._run(lambda client: client.retry_job(tenant, job_id))

    def pause_jobs(self, tenant: str) -> QueueState:
        """`Partywall.pause_jobs`."""
        return self._run(lambda client: client.pause_jobs(tenant))

    def resume_jobs(self, tenant: str) -> QueueState:
        """`Partywall.resume_jobs`."""
        return self._run(lambda client: client.resume_jobs(tenant))

    def purge_jobs(self, tenant: str) -> QueueState:
        """`Partywall.purge_jobs`."""
        return self._run(lambda client: client.purge_jobs(tenant))

    def _page(self, tenant: str, status: JobStatus | None, cursor: str | None) -> JobPage:
        return self._run(
            lambda client: client._job_page(tenant, status, cursor)  # noqa: SLF001 - its other face's
        )

    @abstractmethod
    def _run(self, call: Callable[[JobMethods], Awaitable[T]]) -> T:
        """Makes a call on the client's event loop, and waits for it."""
