"""One try of one job, from its claim to what becomes of it."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from arq.cron import CronJob
from arq.jobs import SerializationError, deserialize_job_raw
from arq.utils import args_to_string, ms_to_datetime, timestamp_ms, truncate
from arq.worker import Function, JobExecutionFailed, Retry, RetryJob, logger

from partywall.context import Tenant, enter
from partywall_workers.charges import NO_TOKEN, Charge, PutOff
from partywall_workers.errors import GiveBack, GiveUp
from partywall_workers.failures import error_text, traceback_text
from partywall_workers.leases import Reason
from partywall_workers.logs import Start, current_start
from partywall_workers.scripts import Claimed, Ending, Outcome
from partywall_workers.terms import terms_of

if TYPE_CHECKING:
    from partywall_workers.worker import FairWorker


class Try:
    """One try of one job.

    Args:
        worker: whose functions, hooks and settings it has.
        claimed: the job.
    """

    __slots__ = (
        "_args",
        "_charge",
        "_claimed",
        "_enqueued_at",
        "_kwargs",
        "_name",
        "_ran",
        "_reason",
        "_started_at",
        "_task",
        "_terms",
        "_worker",
        "arq_id",
        "ctx",
    )

    def __init__(self, worker: "FairWorker", claimed: Claimed) -> None:
        self._worker = worker
        self._claimed = claimed
        self.arq_id = worker.pool.names.arq_id(claimed.tenant, claimed.job_id)
        self.ctx: dict[str, Any] = {}
        self._name = "<unknown>"
        self._args: tuple[Any, ...] = ()
        self._kwargs: dict[str, Any] = {}
        self._enqueued_at = 0
        self._terms = terms_of(worker, None)
        self._charge = Charge(self._terms.options, claimed, 0)
        self._ran = False
        self._reason: Reason | None = None
        self._started_at = 0
        self._task: asyncio.Task[Any] | None = None

    def cancel(self, reason: Reason) -> None:
        """Ends the job's own part of it, if that still runs. The first reason counts."""
        if self._reason == reason != "stopping":
            return  # said again while the job cleans up, which is not to be interrupted
        self._reason = self._reason or reason
        if self._task is not None:
            self._task.cancel()
            if sys.version_info < (3, 11, 3):
                # There `asyncio.timeout`, and so redis-py, works in no task that is being cancelled
                # (CPython gh-102780): not in the cleaning up of this one, either.
                self._task.uncancel()

    async def run(self) -> Outcome | None:
        """Runs it, and says what becomes of the job; None if that is not ours to say any more."""
        claimed = self._claimed
        features = tuple(json.loads(claimed.features)) if claimed.features != b"[]" else ()
        enter(Tenant(claimed.tenant, claimed.tier, features))
        queue = self._worker.pool.default_queue_name
        current_start.set(Start(queue, claimed.tenant, claimed.job_id, claimed.fence))
        self._started_at = timestamp_ms()
        found = self._found()
        outcome = found if isinstance(found, Outcome) else await self._tried(found)
        if self.ctx and self._worker.on_job_end:
            await self._worker.guarded(self._worker.on_job_end, self.ctx)
        return None if self._reason == "lost" else outcome

    def _found(self) -> Function | CronJob | Outcome:
        """What it calls, or what becomes of a job that cannot run at all."""
        claimed, worker = self._claimed, self._worker
        if not claimed.payload:
            return self._failed(
                JobExecutionFailed("its arguments are not in Redis any more"), "dead"
            )
        try:
            self._read()
        except SerializationError as exc:
            logger.exception("deserializing job %s failed", self.arq_id)
            return self._failed(exc, "dead")
        function = worker.functions.get(self._name)
        self._terms = terms_of(worker, function)
        self._charge = Charge(self._terms.options, claimed, self._enqueued_at)
        if claimed.expired:
            logger.warning("job %s expired", self.arq_id)
            return self._failed(JobExecutionFailed("job expired"), "failed")
        if function is None:
            logger.warning("job %s, function %r not found", self.arq_id, self._name)
            return self._failed(
                JobExecutionFailed(
                    f"function {self._name!r} not found: the worker that got the job does not list "
                    "it in its settings"
                ),
                "dead",
            )
        if claimed.attempts > self._terms.max_tries:
            logger.warning("job %s max retries %d exceeded", self.arq_id, self._terms.max_tries)
            why = "; the worker of its last one died, or lost its lease" if claimed.ran else ""
            return self._failed(self._exceeded(why), "dead", uncounted=True)
        return function

    def _read(self) -> None:
        """Takes function and arguments out of the payload, which anybody may have written.

        Raises:
            SerializationError: they are not in it.
        """
        name, args, kwargs, _, at = deserialize_job_raw(
            self._claimed.payload, deserializer=self._worker.job_deserializer
        )
        if not (
            isinstance(name, str)
            and isinstance(args, list | tuple)
            and isinstance(kwargs, dict)
            and isinstance(at, int)
        ):
            raise SerializationError(
                "expected a function's name, a list, an object and milliseconds; got "
                f"{type(name).__name__}, {type(args).__name__}, {type(kwargs).__name__} and "
                f"{type(at).__name__}"
            )
        self._name, self._args, self._kwargs, self._enqueued_at = name, tuple(args), kwargs, at

    async def _tried(self, function: Function | CronJob) -> Outcome:
        worker = self._worker
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a try runs in a task of its own")
        try:
            # Not to be interrupted: whether the items are consumed must be known.
            if self._charge.due:
                await self._charge.consume(worker.sidecar)
            self._task = worker.job_tasks[self.arq_id] = task
            return self._succeeded(await self._called(function.coroutine))
        except PutOff as exc:
            return self._not_begun(exc)
        except asyncio.CancelledError as exc:
            return self._cancelled(exc)
        except BaseException as exc:
            if asyncio.current_task(worker.loop) is not task:
                raise  # the event loop has gone, and this with it
            return self._raised(exc)  # whatever it is, it is the job's
        finally:
            self._task = None
            worker.job_tasks.pop(self.arq_id, None)
            while task.uncancel():
                pass  # what follows is ours

    async def _called(self, function: Callable[..., Awaitable[Any]]) -> object:
        worker, claimed = self._worker, self._claimed
        if self._reason is not None:
            raise asyncio.CancelledError
        self.ctx = {
            **worker.ctx,
            "job_id": self.arq_id,
            "job_try": claimed.attempts,
            "enqueue_time": ms_to_datetime(self._enqueued_at),
            "score": claimed.run_at,
            "tenant": claimed.tenant,
        }
        self._log_start()
        try:
            async with asyncio.timeout(self._terms.timeout) as limit:
                if worker.on_job_start:
                    await worker.on_job_start(self.ctx)
                self._ran = True
                return await function(self.ctx, *self._args, **self._kwargs)
        except TimeoutError as exc:
            if limit.expired():
                raise TimeoutError(f"it ran longer than {self._terms.timeout:g} s") from exc
            raise

    def _succeeded(self, result: object) -> Outcome:
        worker = self._worker
        try:
            data = self._result(result, success=True)
            text = "" if result is None or not worker.log_results else truncate(repr(result))
        except Exception as exc:  # noqa: BLE001 - a serializer is anybody's, and so is `__repr__`
            error = f"unable to serialize result: {exc}"
            logger.error("%s: %s", self._ref, error)
            worker.jobs_failed += 1
            return self._outcome("failed", result=self._result(error, success=False), error=error)
        worker.jobs_complete += 1
        logger.info("%6.2fs ← %s ● %s", self._seconds, self._ref, text)
        return self._outcome("succeeded", result=data)

    def _not_begun(self, put_off: PutOff) -> Outcome:
        if put_off.pause is None:
            return self._failed(put_off.error, "failed")
        if isinstance(put_off.error, NO_TOKEN):
            self._worker.warn_of_token(put_off.error)
        logger.info("%s is put off for %.1fs: %s", self._ref, put_off.pause, put_off)
        self._worker.jobs_retried += 1
        return self._retried(put_off.error, put_off.pause, uncounted=True, refused=put_off.refused)

    def _cancelled(self, exc: BaseException) -> Outcome:
        if self._reason == "stopping" and self._worker.retry_jobs:
            logger.info("%6.2fs ↻ %s cancelled, will be run again", self._seconds, self._ref)
            self._worker.jobs_retried += 1
            return self._retried(None, 0, uncounted=True)
        if self._reason is not None:
            logger.info("%6.2fs ⊘ %s aborted", self._seconds, self._ref)
            self._worker.jobs_failed += 1
            return self._outcome("cancelled", result=self._error_result(exc), error="cancelled")
        return self._raised(exc)  # the job's own doing

    def _raised(self, exc: BaseException) -> Outcome:
        known = isinstance(exc, Retry | RetryJob)
        if isinstance(exc, GiveUp) or not self._worker.retry_jobs:
            return self._failed(exc, "failed")
        if self._claimed.attempts >= self._terms.max_tries:
            return self._failed(self._exceeded(cause=exc) if known else exc, "dead")
        if known:
            pause = max(0, getattr(exc, "defer_score", None) or 0) / 1000
        else:
            pause = self._terms.options.pause(self._claimed.attempts)
        self._worker.jobs_retried += 1
        logger.info(
            "%6.2fs ↻ %s retrying job in %0.2fs",
            self._seconds,
            self._ref,
            pause,
            exc_info=None if known else exc,
        )
        return self._retried(exc, pause)

    def _exceeded(self, why: str = "", *, cause: BaseException | None = None) -> Exception:
        """What arq's callers expect of a job whose tries are used up."""
        error = JobExecutionFailed(f"max {self._terms.max_tries} retries exceeded{why}")
        error.__cause__ = cause
        return error.with_traceback(None if cause is None else cause.__traceback__)

    def _failed(self, exc: BaseException, how: Ending, *, uncounted: bool = False) -> Outcome:
        text = error_text(exc)
        logger.error(
            "%6.2fs ! %s failed, %s",
            self._seconds,
            self._ref,
            text,
            exc_info=exc if exc.__traceback__ else None,
        )
        self._worker.jobs_failed += 1
        return self._outcome(
            how,
            result=self._error_result(exc),
            error=text,
            traceback=traceback_text(exc),
            given_back=isinstance(exc, GiveBack),
            uncounted=uncounted,
        )

    def _retried(
        self,
        exc: BaseException | None,
        pause: float,
        *,
        uncounted: bool = False,
        refused: bool = False,
    ) -> Outcome:
        return Outcome(
            self._claimed.ref,
            self._claimed.fence,
            "retry",
            keep=self._terms.keep,
            delay=round(pause * 1000),
            error="" if exc is None else error_text(exc),
            traceback="" if exc is None else traceback_text(exc),
            owed=self._charge.owed(ran=self._ran, given_back=False),
            uncounted=uncounted,
            refused=refused,
            consumed=self._charge.consumed,
            ran=self._ran,
        )

    def _outcome(
        self,
        how: Ending,
        *,
        result: bytes = b"",
        error: str = "",
        traceback: str = "",
        given_back: bool = False,
        uncounted: bool = False,
    ) -> Outcome:
        return Outcome(
            self._claimed.ref,
            self._claimed.fence,
            how,
            keep=self._worker.keep_dead_ms if how == "dead" else self._terms.keep,
            result=result if self._terms.keeps_result or how == "dead" else b"",
            error=error,
            traceback=traceback,
            owed=self._charge.owed(ran=self._ran, given_back=given_back),
            uncounted=uncounted,
            consumed=self._charge.consumed,
            ran=self._ran,
        )

    def _error_result(self, exc: BaseException) -> bytes:
        try:
            return self._result(exc, success=False)
        except Exception:  # noqa: BLE001 - a serializer is anybody's
            return self._result(error_text(exc), success=False)

    def _result(self, result: object, *, success: bool) -> bytes:
        """What arq's handle reads."""
        if success and not self._terms.keeps_result:
            return b""
        try:
            return self._serialized(result, success=success)
        except Exception:
            if not self._claimed.payload:
                raise
            self._read()  # the job may have changed the arguments that it was given
            return self._serialized(result, success=success)

    def _serialized(self, result: object, *, success: bool) -> bytes:
        return self._worker.serialize(
            {
                "t": self._claimed.attempts,
                "f": self._name,
                "a": self._args,
                "k": self._kwargs,
                "et": self._enqueued_at,
                "s": success,
                "r": result,
                "st": self._started_at,
                "ft": timestamp_ms(),
                "q": self._worker.queue_name,
                "id": self.arq_id,
            }
        )

    @property
    def _ref(self) -> str:
        return f"{self.arq_id}:{self._name}"

    @property
    def _seconds(self) -> float:
        return time.time() - self._started_at / 1000

    def _log_start(self) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        late = self._started_at - self._claimed.run_at
        extra = f" try={self._claimed.attempts}" if self._claimed.attempts > 1 else ""
        if late > 1200:
            extra += f" delayed={late / 1000:0.2f}s"
        logger.info(
            "%6.2fs → %s(%s)%s",
            (self._started_at - self._enqueued_at) / 1000,
            self._ref,
            args_to_string(self._args, self._kwargs),
            extra,
        )
