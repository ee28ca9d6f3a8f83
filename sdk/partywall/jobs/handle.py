"""A job as those see it who enqueued it, or know its id."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol

from partywall.jobs.records import JobInfo, JobStatus
from partywall.jobs.waiting import Wait, result_of


class _Client(Protocol):
    """What a job needs of the client that it came from."""

    async def get_job(self, tenant: str, job_id: str) -> JobInfo: ...

    async def cancel_job(self, tenant: str, job_id: str) -> JobInfo: ...

    async def retry_job(self, tenant: str, job_id: str) -> JobInfo: ...

    def _sleep(self, seconds: float) -> Awaitable[None]: ...


class Job:
    """A job of a tenant. Each method asks the sidecar anew.

    Attributes:
        id: its id among its tenant's.
        tenant: whose.
    """

    def __init__(self, client: _Client, tenant: str, job_id: str) -> None:
        self.id = job_id
        self.tenant = tenant
        self._client = client

    async def info(self) -> JobInfo:
        """All there is to know of it.

        Raises:
            UnknownJob: there is none, or it is not kept any more.
            SidecarError: there is no answer to go by.
        """
        return await self._client.get_job(self.tenant, self.id)

    async def status(self) -> JobStatus:
        """Where it stands. Errors as of `info`."""
        return (await self.info()).status

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ANN401, ASYNC109 - any of JSON's; as arq's, and held by the wait
        """What it returned, once it has: as JSON carries it.

        It is looked at after 50 ms, and then less and less often, down to once a second.

        Args:
            timeout: seconds to wait for it; 0 looks once; None waits for ever.

        Raises:
            JobFailed: it has failed, or is dead; the message is its error.
            JobCancelled: it was cancelled.
            TimeoutError: it has not finished in time; it runs on.
            UnknownJob: there is none, or it is not kept any more.
            SidecarError: there is no answer to go by: ask again.
            ConfigurationError: the timeout is none.
        """
        wait = Wait(timeout)
        while (pause := wait.after(info := await self.look(wait))) is not None:
            await self._client._sleep(pause)  # noqa: SLF001 - the client's own half of this
        return result_of(info)

    async def look(self, wait: Wait) -> JobInfo:
        """`info`, within what is left of a wait.

        Raises:
            TimeoutError: it is over.
        """
        left = wait.left()
        if left == 0.0:
            raise wait.late(self)
        try:
            async with asyncio.timeout(left):
                return await self.info()
        except TimeoutError as exc:
            raise wait.late(self) from exc

    async def cancel(self) -> JobInfo:
        """Ends it: one that waits does not start, one that runs is told to stop.

        Returns:
            The job as it then stands: `running` where its worker has not stopped it yet. One that
            was cancelled before is answered alike.

        Raises:
            Conflict: it has finished otherwise.
            UnknownJob, SidecarError: as of `info`.
        """
        return await self._client.cancel_job(self.tenant, self.id)

    async def retry(self) -> JobInfo:
        """Revives a dead one: it waits again, with all its tries.

        Raises:
            Conflict: it is not dead.
            QueueFull: as many wait as may.
            UnknownJob, SidecarError: as of `info`.
        """
        return await self._client.retry_job(self.tenant, self.id)

    def __repr__(self) -> str:
        return f"<Job {self.id!r} of {self.tenant!r}>"
