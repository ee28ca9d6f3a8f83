"""Runs the fake sidecar's jobs in a host app's own test, in their tenants' contexts."""

import asyncio
import copy
import inspect
import threading
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from partywall._fake.core import Core
from partywall._fake.queue import SeenJob
from partywall.context import Tenant, running_as
from partywall.errors import ConfigurationError, InvalidRequest
from partywall.jobs.arguments import plain

Functions = Mapping[str, Any] | Iterable[Any]
"""Coroutine functions, or what arq's `func()` makes of one; or a mapping of them by name."""

MAX_TRIES = 5
"""Of a job whose function does not say."""

QUEUE_NAME = "pw:jobs"
"""Of workers that are left as they come; the ids that they give their jobs begin with it."""

# By name, since the SDK imports neither: a job that raises one has.
_RETRY = "arq.worker.Retry"
_GIVE_UP = "partywall_workers.errors.GiveUp"


class Runner:
    """A worker of one slot.

    Args:
        core: whose jobs.
        lock: held for each look and change.
        functions: by the names that jobs have for them.
        tenant: whose jobs; None for everybody's.
        ctx: what `on_startup` would have put there.
        max_tries: of a job whose function does not say.
    """

    def __init__(
        self,
        core: Core,
        lock: threading.Lock,
        functions: Functions,
        *,
        tenant: str | None,
        ctx: Mapping[str, Any],
        max_tries: int,
    ) -> None:
        self._core = core
        self._lock = lock
        self._functions = _by_name(functions)
        self._tenant = tenant
        self._ctx = ctx
        self._max_tries = max_tries
        self._served: Counter[str] = Counter()

    async def run(self) -> list[SeenJob]:
        """Runs what is due, and what that enqueues; each try as it ended, in their order."""
        tries = []
        while (job := self._next()) is not None:
            tries.append(await self._try(job))
        return tries

    def _next(self) -> SeenJob | None:
        """A job of the tenant that was served least; of those that may run."""
        with self._lock:
            core = self._core
            tenants = core.queues if self._tenant is None else [self._tenant]
            due = [
                job
                for tenant in tenants
                if core.may_run(tenant) and (job := core.queue(tenant).due()) is not None
            ]
            return min(due, key=lambda job: self._served[job.tenant], default=None)

    async def _try(self, job: SeenJob) -> SeenJob:
        self._served[job.tenant] += 1
        loop = asyncio.get_running_loop()
        with self._lock:
            tier = self._core.tier_of(job.tenant)
        features = () if tier is None else tier.features
        with running_as(Tenant(job.tenant, None if tier is None else tier.name, features)):
            task = asyncio.ensure_future(self._call(job, job.attempts + 1))
        with self._lock:
            queue = self._core.queue(job.tenant)
            job = queue.start(job, lambda: loop.call_soon_threadsafe(task.cancel))
        try:
            ended = {"status": "succeeded", "result": await task, "error": None, "traceback": None}
        except Exception as exc:  # noqa: BLE001 - whatever the job raises: it is told in its error
            ended = self._failed(job, exc)
        except BaseException as exc:
            # Of the job itself, or of whoever waits for these runs: then nobody has run it.
            if isinstance(exc, asyncio.CancelledError) and not _is_cancelled():
                ended = self._failed(job, exc)
            else:
                self._end(job, {"status": "retrying"})
                raise
        return self._end(job, ended)

    async def _call(self, job: SeenJob, job_try: int) -> Any:  # noqa: ANN401 - any of JSON's
        function = self._functions.get(job.function)
        if function is None:
            expected = ", ".join(self._functions) or "none"
            raise UnknownFunction(f"expected one of {expected}; got {job.function!r}")
        ctx = {
            **self._ctx,
            "job_id": f"{QUEUE_NAME}:{job.tenant}:{job.id}",
            "job_try": job_try,
            "enqueue_time": job.queued_at,
            "score": round(job.run_at.timestamp() * 1000),
            "tenant": job.tenant,
        }
        args, kwargs = copy.deepcopy((job.args, job.kwargs))  # a job may change them
        result = await function.call(ctx, *args, **kwargs)
        try:
            return plain(result, "result")
        except InvalidRequest as exc:
            raise NotJson(str(exc)) from exc

    def _failed(self, job: SeenJob, exc: BaseException) -> dict[str, Any]:
        """What has become of a job whose try failed."""
        text = str(exc)
        told = {
            "error": f"{type(exc).__name__}: {text}" if text else type(exc).__name__,
            "traceback": "".join(traceback.format_exception(exc)),
        }
        function = self._functions.get(job.function)
        most = (function and function.max_tries) or self._max_tries
        if isinstance(exc, NotJson) or _is(exc, _GIVE_UP):
            return {"status": "failed", **told}
        if isinstance(exc, UnknownFunction) or job.attempts >= most:
            return {"status": "dead", **told}
        seconds = 2.0 ** (job.attempts - 1)
        if _is(exc, _RETRY):
            seconds = (getattr(exc, "defer_score", None) or 0) / 1000
        with self._lock:
            run_at = self._core.to_the_millisecond() + timedelta(seconds=seconds)
        return {"status": "retrying", "run_at": run_at, **told}

    def _end(self, job: SeenJob, ended: Mapping[str, Any]) -> SeenJob:
        with self._lock:
            return self._core.queue(job.tenant).end(job, **ended)


class UnknownFunction(Exception):
    """No function of this name was given."""


class NotJson(Exception):
    """A job returned what JSON cannot carry."""


class _Function(NamedTuple):
    call: Callable[..., Awaitable[Any]]
    max_tries: int | None


def _by_name(functions: Functions) -> dict[str, _Function]:
    """The functions by the names that a worker would give them.

    Raises:
        ConfigurationError: one of them is no coroutine function.
    """
    if isinstance(functions, Mapping):
        return {name: _function(one) for name, one in functions.items()}
    return {_name(one): _function(one) for one in functions}


def _function(given: Any) -> _Function:  # noqa: ANN401 - whatever the caller gave
    call = getattr(given, "coroutine", given)
    if not inspect.iscoroutinefunction(call):
        raise ConfigurationError(
            f"expected coroutine functions, or arq's func() of them; got {given!r}"
        )
    return _Function(call, getattr(given, "max_tries", None))


def _name(given: Any) -> str:  # noqa: ANN401 - whatever the caller gave
    declared = getattr(given, "__partywall_name__", None) or getattr(given, "name", None)
    # One that a test has made for itself goes by the name that it has there.
    return str(declared or getattr(given, "__qualname__", "").rpartition("<locals>.")[2])


def _is(exc: BaseException, name: str) -> bool:
    return any(f"{kind.__module__}.{kind.__qualname__}" == name for kind in type(exc).__mro__)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
