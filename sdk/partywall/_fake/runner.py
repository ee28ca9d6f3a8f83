"""Runs the fake sidecar's jobs in a host app's own test, in their tenants' contexts."""

import asyncio
import copy
import threading
import traceback
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from partywall._fake.book import Asker
from partywall._fake.core import Core
from partywall._fake.functions import Function, Functions, by_name, is_a
from partywall._fake.policy import Tier
from partywall._fake.queue import SeenJob
from partywall._fake.redis import QUEUE_NAME, FakeRedis
from partywall._fake.refused import Refused
from partywall.context import Tenant, running_as
from partywall.errors import InvalidRequest, UnknownResource
from partywall.jobs.arguments import plain

MAX_TRIES = 5
"""Of a job whose function does not say."""

FIRST_REFUSAL, LONGEST_REFUSAL = 5.0, 600.0
"""Seconds before a job is tried again whose quota was refused."""

LONGEST_ERROR = 1000
"""Characters of a job's error."""

_Ended = Mapping[str, Any]
"""The fields of a job that a try has changed."""


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
        self._functions = by_name(functions)
        self._tenant = tenant
        self._ctx = {"redis": FakeRedis(core, lock), **ctx}
        self._max_tries = max_tries
        self._served: Counter[str] = Counter()

    async def run(self) -> list[SeenJob]:
        """Runs what is due, and what that enqueues; each try as it ended, in their order."""
        tries = []
        while (due := self._next()) is not None:
            tries.append(await self._try(*due))
        return tries

    def _next(self) -> tuple[SeenJob, Tier] | None:
        """A job of the tenant that was served least, of those that may run."""
        with self._lock:
            core = self._core
            due = [
                (job, tier)
                for tenant in (core.queues if self._tenant is None else [self._tenant])
                if (tier := core.runs_by(tenant)) is not None
                and (job := core.queue(tenant).due()) is not None
            ]
            return min(due, key=lambda one: self._served[one[0].tenant], default=None)

    async def _try(self, job: SeenJob, tier: Tier) -> SeenJob:
        self._served[job.tenant] += 1
        loop = asyncio.get_running_loop()
        with running_as(Tenant(job.tenant, tier.name, tier.features)):
            task = asyncio.ensure_future(self._call(job, job.attempts + 1, tier))
        with self._lock:
            job = self._core.queue(job.tenant).start(
                job, lambda: loop.call_soon_threadsafe(task.cancel)
            )
        try:
            ended: _Ended = await task
        except Exception as exc:  # noqa: BLE001 - whatever the job raises: its error tells it
            ended = self._raised(job, exc, tier)
        except BaseException as exc:
            # Of the job itself, or of whoever waits for these runs: then nobody has run it.
            if not isinstance(exc, asyncio.CancelledError) or _is_cancelled():
                before = job.attempts - 1
                self._end(job, {"status": "retrying" if before else "queued", "attempts": before})
                raise
            ended = self._raised(job, exc, tier)
        return self._end(job, ended)

    async def _call(self, job: SeenJob, job_try: int, tier: Tier) -> _Ended:
        function = self._functions.get(job.function)
        if function is None:
            given = ", ".join(self._functions) or "none"
            said = f"function {job.function!r} not found: run_jobs was given {given}"
            return {"status": "dead", "error": f"JobExecutionFailed: {said}"}
        refused = self._refused(job, job_try, function, tier)
        if refused is not None:
            return refused
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
            carried = plain(result, "result")
        except InvalidRequest as exc:
            return {"status": "failed", "error": f"unable to serialize result: {exc}"}
        return {"status": "succeeded", "result": carried, "error": None, "traceback": None}

    def _refused(self, job: SeenJob, job_try: int, function: Function, tier: Tier) -> _Ended | None:
        """Takes what the function says of quotas, once a job; what becomes of one refused."""
        with self._lock:
            queue = self._core.queue(job.tenant)
            if not function.quota or job.id in queue.consumed:
                return None
            for resource in function.quota:
                if resource not in tier.quotas:
                    raise UnknownResource(f"no tier has a quota of {resource!r}")
            asker = Asker(key=f"job:{job.id}")
            outcome = self._core.book(job.tenant, tier).consume(function.quota, asker)
            if outcome:
                queue.consumed.add(job.id)
                return None
            refusals = queue.refusals[job.id]
            queue.refusals[job.id] += 1
        error = f"PartywallError: quota refused: no room for {', '.join(outcome.denied)}"
        if function.on_refusal == "fail":
            return {"status": "failed", "error": error}
        seconds = min(FIRST_REFUSAL * 2.0 ** min(refusals, 60), LONGEST_REFUSAL)
        return {
            "status": "retrying" if job_try > 1 else "deferred",
            "attempts": job_try - 1,
            "run_at": self._after(seconds),
            "error": error,
        }

    def _raised(self, job: SeenJob, exc: BaseException, tier: Tier) -> _Ended:
        """What becomes of a job whose try has raised."""
        text = str(exc)
        kind = type(exc).__name__
        told = {
            "error": (f"{kind}: {text}" if text else kind)[:LONGEST_ERROR],
            "traceback": "".join(traceback.format_exception(exc)),
        }
        function = self._functions[job.function]
        if is_a(exc, "partywall_workers.errors.GiveBack"):
            self._give_back(job, function, tier)
        if is_a(exc, "partywall_workers.errors.GiveUp"):
            return {"status": "failed", **told}
        tries = function.max_tries or self._max_tries
        asked_again = is_a(exc, "arq.worker.Retry", "arq.worker.RetryJob")
        if job.attempts >= tries:
            if asked_again:
                told["error"] = f"JobExecutionFailed: max {tries} retries exceeded"
            return {"status": "dead", **told}
        seconds = function.pause(job.attempts)
        if asked_again:
            seconds = (getattr(exc, "defer_score", None) or 0) / 1000
        return {"status": "retrying", "run_at": self._after(seconds), **told}

    def _give_back(self, job: SeenJob, function: Function, tier: Tier) -> None:
        with self._lock:
            consumed = self._core.queue(job.tenant).consumed
            if job.id in consumed:
                consumed.remove(job.id)
                book = self._core.book(job.tenant, tier)
                with suppress(Refused):  # the app itself has given it back before
                    book.release(function.quota, Asker(key=f"job:{job.id}"))

    def _end(self, job: SeenJob, ended: _Ended) -> SeenJob:
        with self._lock:
            return self._core.queue(job.tenant).end(job, **ended)

    def _after(self, seconds: float) -> datetime:
        with self._lock:
            return self._core.to_the_millisecond() + timedelta(seconds=seconds)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
