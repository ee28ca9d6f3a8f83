"""arq's client, whose jobs are queued by tenant."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Self
from uuid import uuid4

from arq.connections import ArqRedis
from arq.constants import result_key_prefix
from arq.jobs import Job, JobResult
from arq.utils import timestamp_ms, to_ms, to_unix_ms
from redis.asyncio import ConnectionPool

from partywall.context import current_tenant
from partywall_workers.environment import default_queue
from partywall_workers.erased import while_asked
from partywall_workers.errors import InvalidJob, QueueFull, TooLarge, UnknownFunction
from partywall_workers.job import name_of
from partywall_workers.keys import DEFAULT_QUEUE, Keys
from partywall_workers.logs import current_start
from partywall_workers.policy import CRON_TENANT, SYSTEM_TENANT
from partywall_workers.scripts import NewJob, Queued, Scripts
from partywall_workers.serial import dumps, loads, sendable

MAX_PAYLOAD = 1 << 20
"""Bytes of function and arguments; what is larger belongs into a store, and its key here."""

MAX_DELAY = 3_155_760_000
"""Seconds until a job may start, or must have: a hundred years."""

DEFAULT_PRIORITY = 5

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")
_OURS = frozenset({SYSTEM_TENANT, CRON_TENANT})

_Delay = None | int | float | timedelta


class FairRedis(ArqRedis):
    """A client of Redis that queues jobs by tenant; what `ctx["redis"]` is.

    Args:
        pool_or_conn: connections to one server, no cluster.
        default_queue_name: the queue's name; see `keys`.
        kwargs: as ArqRedis takes them. Serializers are JSON's unless others are given.
    """

    def __init__(
        self,
        pool_or_conn: ConnectionPool | None = None,
        *,
        default_queue_name: str = DEFAULT_QUEUE,
        **kwargs: Any,  # noqa: ANN401 - redis-py's
    ) -> None:
        kwargs.setdefault("job_serializer", dumps)
        kwargs.setdefault("job_deserializer", loads)
        super().__init__(pool_or_conn, default_queue_name=default_queue_name, **kwargs)
        self.scripts = Scripts(self, default_queue_name)
        self.names = Keys(default_queue_name)

    @classmethod
    def from_url(  # type: ignore[override] # the queue's name is asked for
        cls,
        url: str,
        *,
        queue_name: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - redis-py's
    ) -> Self:
        """A client for a URL; it connects at its first command, and `aclose` ends it.

        Args:
            url: `redis://`, `rediss://` or `unix://`. For Sentinel give the class a pool.
            queue_name: the queue's name; left out, that of PARTYWALL_KEY_PREFIX.
            kwargs: as for the class.

        Raises:
            ValueError: the URL is none of these.
        """
        client = cls(
            ConnectionPool.from_url(url), default_queue_name=queue_name or default_queue(), **kwargs
        )
        client.auto_close_connection_pool = True
        return client

    async def enqueue_job(
        self,
        function: str | Callable[..., Any],
        *args: Any,  # noqa: ANN401 - the function's
        _job_id: str | None = None,
        _queue_name: str | None = None,
        _defer_until: datetime | None = None,
        _defer_by: _Delay = None,
        _expires: _Delay = None,
        _job_try: int | None = None,
        _tenant: str | None = None,
        _priority: int = DEFAULT_PRIORITY,
        **kwargs: Any,  # noqa: ANN401 - the function's
    ) -> Job | None:
        """Queues a job, as arq's does, for a tenant.

        Args:
            function: its name, or the function.
            args: for it.
            _job_id: its id among its tenant's; left out, one is made.
            _queue_name: this client's queue, if given.
            _defer_until: when it may start.
            _defer_by: seconds until it may start.
            _expires: seconds after its time within which it must start; left out, it waits as long
                as it takes. Time in which its tenant is paused does not count.
            _job_try: the number of its first try.
            _tenant: whose; left out, the current tenant's.
            _priority: 0 to 9, 9 first.
            kwargs: for the function.

        Returns:
            arq's handle, or None if there is a job of this id already.

        Raises:
            QueueFull, UnknownFunction, TenantErased, InvalidJob: nothing was queued.
            redis.RedisError: Redis did not answer.
        """
        if _queue_name not in (None, self.default_queue_name):
            raise InvalidJob(
                "_queue_name",
                f"expected {self.default_queue_name!r}, this client's; got {_queue_name!r} (which "
                "workers serve a tenant is its policy's)",
            )
        job = self.new_job(
            _current() if _tenant is None else _tenant,
            function,
            args,
            kwargs,
            job_id=_job_id,
            priority=_priority,
            defer_by=_defer_by,
            defer_until=_defer_until,
            expires=_expires,
            job_try=_job_try,
        )
        if (await self.queue_job(job)).what == "exists":
            return None
        return self.job_of(job.tenant, job.job_id)

    def new_job(
        self,
        tenant: str,
        function: str | Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        job_id: str | None,
        priority: int,
        defer_by: _Delay,
        defer_until: datetime | None,
        expires: _Delay,
        job_try: int | None = None,
    ) -> NewJob:
        """A job as it is queued.

        Raises:
            InvalidJob: one of the arguments cannot be.
        """
        name = function if isinstance(function, str) else name_of(function)
        if not name or sendable(name) != name:
            raise InvalidJob("function", f"expected a name that UTF-8 carries; got {name!r}")
        if tenant not in _OURS and not _TENANT.fullmatch(tenant):
            raise InvalidJob("tenant", f"expected a tenant's id; got {tenant!r}")
        # arq makes a cron job's id of its function's name, or of another that may be any text.
        if job_id is not None and tenant not in _OURS and not _JOB_ID.fullmatch(job_id):
            raise InvalidJob(
                "job_id",
                "expected 1 to 200 of letters, digits, `.`, `_`, `-`, `:`, starting with a letter "
                f"or digit; got {job_id!r}",
            )
        if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 9:
            raise InvalidJob("priority", f"expected a whole number from 0 to 9; got {priority!r}")
        if defer_by is not None and defer_until is not None:
            raise InvalidJob("defer_by", "expected this or defer_until, not both")
        delay = _milliseconds("defer_by", defer_by)
        return NewJob(
            tenant=tenant,
            job_id=job_id or uuid4().hex,
            function=name,
            payload=self._payload(name, args, kwargs, job_try),
            priority=priority,
            delay=delay,
            run_at=None if defer_until is None else _run_at(defer_until),
            expires=_milliseconds("expires", expires),
            attempts=max(0, (job_try or 1) - 1),
            start=self._start_of(tenant),
        )

    async def queue_job(self, job: NewJob) -> Queued:
        """Queues it.

        Raises:
            QueueFull, UnknownFunction, TenantErased: nothing was queued.
        """

        async def act() -> Queued:
            (queued,) = await self.scripts.enqueue([job])
            return queued

        queued = await while_asked(job.tenant, act)
        if queued.what == "full":
            raise QueueFull(job.tenant, queued.cap)
        if queued.what == "unknown":
            raise UnknownFunction(job.function)
        return queued

    async def all_job_results(self) -> list[JobResult]:
        """The results of this queue's jobs, the first enqueued first; arq's finds every queue's.

        It looks through every key of the server: for tests.
        """
        prefix = f"{result_key_prefix}{self.default_queue_name}:"
        found = []
        async for key in self.scan_iter(match=f"{prefix}*", count=10_000):
            job = Job(
                key.decode().removeprefix(result_key_prefix),
                self,
                _queue_name=self.default_queue_name,
                _deserializer=self.job_deserializer,
            )
            result = await job.result_info()
            if result is not None:  # it has not expired since
                found.append(result)
        return sorted(found, key=attrgetter("enqueue_time"))

    def job_of(self, tenant: str, job_id: str) -> Job:
        """Arq's handle of a job."""
        return Job(
            self.names.arq_id(tenant, job_id),
            self,
            _queue_name=self.default_queue_name,
            _deserializer=self.job_deserializer,
        )

    def _start_of(self, tenant: str) -> int | None:
        """The number of the start of this tenant's job that runs here, if one does."""
        start = current_start.get(None)
        if start is None or (start.queue, start.tenant) != (self.default_queue_name, tenant):
            return None
        return start.fence

    def _payload(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], job_try: int | None
    ) -> bytes:
        data = {"t": job_try, "f": name, "a": tuple(args), "k": dict(kwargs), "et": timestamp_ms()}
        try:
            payload = (self.job_serializer or dumps)(data)
        except InvalidJob:
            raise
        except Exception as exc:
            raise InvalidJob("args", f"the serializer cannot carry them: {exc}") from exc
        if len(payload) > MAX_PAYLOAD:
            raise TooLarge(
                "args", f"expected at most {MAX_PAYLOAD} bytes as JSON; got {len(payload)}"
            )
        return payload


def _current() -> str:
    tenant = current_tenant(default=None)
    if tenant is None:
        raise InvalidJob(
            "_tenant", "expected whose job it is: no tenant's request or job is running here"
        )
    return tenant.id


def _run_at(defer_until: datetime) -> int:
    if not isinstance(defer_until, datetime):
        raise InvalidJob("defer_until", f"expected a datetime; got {defer_until!r}")
    run_at = to_unix_ms(defer_until)
    if run_at > timestamp_ms() + MAX_DELAY * 1000:
        raise InvalidJob(
            "defer_until", f"expected an instant within a hundred years; got {defer_until}"
        )
    return run_at


def _milliseconds(field: str, delay: _Delay) -> int | None:
    if delay is None:
        return None
    try:
        milliseconds = to_ms(delay)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidJob(field, f"expected seconds; got {delay!r}") from exc
    if not 0 <= milliseconds <= MAX_DELAY * 1000:
        raise InvalidJob(field, f"expected seconds from 0 to {MAX_DELAY}; got {delay!r}")
    return milliseconds
