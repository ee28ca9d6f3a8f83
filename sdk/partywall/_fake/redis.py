"""What `ctx["redis"]` is to a job that the fake sidecar runs: it enqueues, and nothing else."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from partywall._fake.core import Core
from partywall._fake.functions import name_of
from partywall._fake.queue import NewJob
from partywall._fake.refused import Refused
from partywall.context import current_tenant
from partywall.errors import QueueFull, UnknownTenant
from partywall.jobs.arguments import new_job
from partywall.records import valid_tenant

QUEUE_NAME = "pw:jobs"
"""Of workers that are left as they come; the ids that they give their jobs begin with it."""

PRIORITY = 5
"""Of a job that does not say."""


class EnqueuedJob(NamedTuple):
    """In place of arq's handle.

    Attributes:
        job_id: the id that workers know it by.
    """

    job_id: str


class FakeRedis:
    """In place of the workers' client."""

    def __init__(self, core: Core, lock: threading.Lock) -> None:
        self._core = core
        self._lock = lock

    async def enqueue_job(
        self,
        function: str | Callable[..., Any],
        *args: object,
        _job_id: str | None = None,
        _defer_until: datetime | None = None,
        _defer_by: float | timedelta | None = None,
        _tenant: str | None = None,
        _priority: int = PRIORITY,
        **kwargs: object,
    ) -> EnqueuedJob | None:
        """Enqueues a job of the running job's tenant, or of another; None where its id is taken.

        Raises:
            QueueFull: as many of the tenant's jobs wait as its tier allows.
            UnknownTenant: nobody registered it.
            InvalidRequest: an argument can be none.
        """
        tenant = current_tenant().id if _tenant is None else _tenant
        valid_tenant(tenant, at="_")
        asked = new_job(
            function if isinstance(function, str) else name_of(function),
            args,
            kwargs,
            job_id=_job_id,
            priority=_priority,
            defer_by=_defer_by,
            defer_until=_defer_until,
        )
        with self._lock:
            tier = self._core.tier_of(tenant)
            if tier is None:
                raise UnknownTenant(f"tenant {tenant!r} is not registered")
            now = self._core.to_the_millisecond()
            new = NewJob(
                function=asked.function,
                args=asked.args,
                kwargs=asked.kwargs,
                job_id=asked.job_id,
                priority=_priority,
                run_at=asked.defer_until or now + timedelta(seconds=asked.defer_by or 0),
            )
            try:
                job, is_new = self._core.queue(tenant).enqueue(new, tier.max_queued)
            except Refused as refused:
                raise QueueFull(refused.detail) from refused
        return EnqueuedJob(f"{QUEUE_NAME}:{tenant}:{job.id}") if is_new else None
