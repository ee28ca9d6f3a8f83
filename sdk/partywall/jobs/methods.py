"""What a client can do with jobs."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from urllib.parse import quote

import msgspec

from partywall.calls import Calls, key_of
from partywall.errors import Conflict
from partywall.jobs.arguments import new_job, valid_job_id, valid_status
from partywall.jobs.handle import Job
from partywall.jobs.records import JobInfo, JobPage, JobStatus, QueueState
from partywall.records import valid_tenant

PAGE_SIZE = 200
"""Jobs that are asked for at once."""

_infos = msgspec.json.Decoder(JobInfo)
_pages = msgspec.json.Decoder(JobPage)
_states = msgspec.json.Decoder(QueueState)


class JobMethods(Calls):
    """A client's jobs. Each change is tried again for want of an answer, and done once."""

    async def enqueue(
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
    ) -> Job:
        """Has a worker call `function(ctx, *args, **kwargs)` for a tenant, in its turn.

        Arguments are what JSON carries: None, bools, finite numbers, text, lists (a tuple becomes
        one), mappings by text. Names with a leading `_` are options, as in arq.

        Args:
            tenant: the tenant's id.
            function: its name, as the workers' settings list it.
            args: what it is called with, after `ctx`.
            _job_id: an id of your own, unique among the tenant's jobs: while a job of this id is
                kept, that is the answer, and nothing is enqueued. Left out, a random one.
            _priority: 0 to 9 among the tenant's own jobs, 9 first; left out, 5.
            _defer_by: seconds, or a timedelta, before which it does not start.
            _defer_until: an instant, with a time zone, before which it does not start.
            _idempotency_key: of this one call: a repetition within 24 hours gives the same job,
                and enqueues nothing. Left out, a random one.
            kwargs: what it is called with by name.

        Raises:
            QueueFull: as many of the tenant's jobs wait as its tier allows.
            UnknownTenant: nobody registered it.
            Conflict: the key was used for another job.
            InvalidRequest: JSON cannot carry an argument (the message says which), an option can
                be none, or no worker has the function. Nothing was enqueued.
            SidecarUnavailable: whether it was enqueued, its repetition by key tells.
            SidecarError: it was refused, or there is no answer to go by.
        """
        path = path_of(tenant)
        body = new_job(
            function,
            args,
            kwargs,
            job_id=_job_id,
            priority=_priority,
            defer_by=_defer_by,
            defer_until=_defer_until,
        )
        key = key_of(_idempotency_key, at="_idempotency_key")
        info = await self._ask("POST", path, _infos, body=body, key=key)
        return Job(self, info.tenant, info.id)

    def job(self, tenant: str, job_id: str) -> Job:
        """A handle on a job whose id is known; nothing is asked yet.

        Raises:
            InvalidRequest: an argument can be none.
        """
        path_of(tenant, job_id)
        return Job(self, tenant, job_id)

    async def get_job(self, tenant: str, job_id: str) -> JobInfo:
        """`Job.info`."""
        return await self._ask("GET", path_of(tenant, job_id), _infos)

    async def list_jobs(
        self, tenant: str, status: JobStatus | None = None
    ) -> AsyncIterator[JobInfo]:
        """A tenant's jobs, newest first, and the finished ones that are kept; page by page.

        Args:
            tenant: the tenant's id.
            status: of this status alone.

        Raises:
            UnknownTenant: nobody registered it.
            InvalidRequest: an argument can be none.
            SidecarError: there is no answer to go by.
        """
        cursor: str | None = None
        while True:
            page = await self._job_page(tenant, status, cursor)
            for info in page.jobs:
                yield info
            cursor = page.next_cursor
            if cursor is None:
                return

    async def cancel_job(self, tenant: str, job_id: str) -> JobInfo:
        """`Job.cancel`."""
        path = path_of(tenant, job_id)
        try:
            return await self._ask("DELETE", path, _infos)
        except Conflict:
            # Of a repetition, where the first answer was lost: then it is as it was to be.
            info = await self._ask("GET", path, _infos)
            if info.status != "cancelled":
                raise
            return info

    async def retry_job(self, tenant: str, job_id: str) -> JobInfo:
        """`Job.retry`."""
        path = f"{path_of(tenant, job_id)}/retry"
        return await self._ask("POST", path, _infos, body={}, key=key_of(None))

    async def pause_jobs(self, tenant: str) -> QueueState:
        """Keeps a tenant's jobs from starting; those that run go on, and none expires by it.

        Raises:
            UnknownTenant: nobody registered it.
            SidecarError: there is no answer to go by.
        """
        return await self._queue(tenant, "pause")

    async def resume_jobs(self, tenant: str) -> QueueState:
        """Lets a tenant's jobs start again. Errors as of `pause_jobs`."""
        return await self._queue(tenant, "resume")

    async def purge_jobs(self, tenant: str) -> QueueState:
        """Cancels all of a tenant's jobs that wait; those that run go on.

        Errors as of `pause_jobs`.
        """
        return await self._queue(tenant, "purge")

    async def _queue(self, tenant: str, verb: str) -> QueueState:
        path = f"{path_of(tenant)}/{verb}"
        return await self._ask("POST", path, _states, body={}, key=key_of(None))

    async def _job_page(self, tenant: str, status: JobStatus | None, cursor: str | None) -> JobPage:
        query = {"page_size": str(PAGE_SIZE)}
        if status is not None:
            valid_status(status)
            query["status"] = status
        if cursor is not None:
            query["cursor"] = cursor
        return await self._ask("GET", path_of(tenant), _pages, query=query)


def path_of(tenant: str, job_id: str | None = None) -> str:
    """Where a tenant's jobs are, or one of them.

    Raises:
        InvalidRequest: an id is none.
    """
    valid_tenant(tenant)
    path = f"/v1/tenants/{quote(tenant, safe='')}/jobs"
    if job_id is None:
        return path
    valid_job_id(job_id)
    return f"{path}/{quote(job_id, safe=':')}"
