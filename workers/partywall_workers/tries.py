"""One try of one job, from its claim to what becomes of it."""

import asyncio
import json
import time
import traceback
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from arq.cron import CronJob
from arq.jobs import SerializationError, deserialize_job_raw
from arq.utils import args_to_string, ms_to_datetime, timestamp_ms, truncate
from arq.worker import Function, JobExecutionFailed, Retry, RetryJob, logger

from partywall.context import Tenant, enter
from partywall.errors import PartywallError, SidecarUnavailable
from partywall_workers.errors import GiveBack, GiveUp
from partywall_workers.job import JobOptions, jittered, options_of, refusal_pause
from partywall_workers.leases import Reason
from partywall_workers.logs import current_job
from partywall_workers.scripts import Claimed, Outcome
from partywall_workers.serial import sendable

if TYPE_CHECKING:
    from partywall_workers.worker import FairWorker

CRON_KEPT = 60_000
"""Milliseconds that a cron job is kept at least, so that no slower worker enqueues it again."""

FOR_EVER = 100 * 365 * 86_400_000
"""Milliseconds, for `keep_result_forever`."""

SIDECAR_PAUSE = 5.0
"""Seconds before a job is tried again whose quota no sidecar could decide."""

_LONGEST_ERROR = 1000
_LONGEST_TRACEBACK = 8000


class Ended(Exception):
    """The try could not begin; nothing of the job's own has run.

    Attributes:
        error: why.
        refused: for want of quota.
        pause: seconds until it is worth another try; None: it is not.
    """

    def __init__(self, error: Exception, *, refused: bool = False, pause: float | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.refused = refused
        self.pause = pause


class Try:
    """One try of one job.

    Args:
        worker: whose functions, hooks and settings it has.
        claimed: the job.
    """

    __slots__ = (
        "_args",
        "_claimed",
        "_consumed",
        "_enqueued_at",
        "_function",
        "_kwargs",
        "_name",
        "_options",
        "_ran",
        "_reason",
        "_started_at",
        "_task",
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
        self._function: Function | CronJob | None = None
        self._options = JobOptions()
        self._consumed = claimed.consumed
        self._ran = False
        self._reason: Reason | None = None
        self._started_at = 0
        self._task: asyncio.Task[Any] | None = None

    def cancel(self, reason: Reason) -> None:
        """Ends the job's own part of it, if that still runs. The first reason counts."""
        if self._reason is None:
            self._reason = reason
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> Outcome | None:
        """Runs it, and says what becomes of the job; None if that is not ours to say any more."""
        claimed = self._claimed
        features = tuple(json.loads(claimed.features)) if claimed.features != b"[]" else ()
        enter(Tenant(claimed.tenant, claimed.tier, features))
        current_job.set(claimed.job_id)
        self._started_at = timestamp_ms()
        outcome = self._unrunnable() or await self._tried()
        if self.ctx and self._worker.on_job_end:
            await self._worker.guarded(self._worker.on_job_end, self.ctx)
        return None if self._reason == "lost" else outcome

    def _unrunnable(self) -> Outcome | None:
        """What becomes of a job that cannot run at all."""
        claimed, worker = self._claimed, self._worker
        if not claimed.payload:
            return self._failed(
                JobExecutionFailed("its arguments are not in Redis any more"), "dead"
            )
        try:
            self._name, args, kwargs, _, self._enqueued_at = deserialize_job_raw(
                claimed.payload, deserializer=worker.job_deserializer
            )
        except SerializationError as exc:
            logger.exception("deserializing job %s failed", self.arq_id)
            return self._failed(exc, "dead")
        self._args, self._kwargs = tuple(args), kwargs
        self._function = worker.functions.get(self._name)
        if claimed.expired:
            logger.warning("job %s expired", self.arq_id)
            return self._failed(JobExecutionFailed("job expired"), "failed")
        if self._function is None:
            logger.warning("job %s, function %r not found", self.arq_id, self._name)
            return self._failed(
                JobExecutionFailed(
                    f"function {self._name!r} not found: the worker that got the job does not list "
                    "it in its settings"
                ),
                "dead",
            )
        self._options = options_of(self._function.coroutine)
        if claimed.attempts > self._max_tries:
            logger.warning("job %s max retries %d exceeded", self.arq_id, self._max_tries)
            return self._failed(
                JobExecutionFailed(
                    f"max {self._max_tries} retries exceeded; the worker of its last one died, or "
                    "lost its lease"
                ),
                "dead",
            )
        return None

    async def _tried(self) -> Outcome:
        worker, claimed, function = self._worker, self._claimed, self._function
        if function is None:
            raise RuntimeError("only a job whose function is known is tried")
        self.ctx = {
            **worker.ctx,
            "job_id": self.arq_id,
            "job_try": claimed.attempts,
            "enqueue_time": ms_to_datetime(self._enqueued_at),
            "score": claimed.run_at,
            "tenant": claimed.tenant,
        }
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a try runs in a task of its own")
        try:
            # Not to be interrupted: whether the items are consumed must be known.
            if self._options.quota and not self._consumed:
                await self._consume()
            self._task = worker.job_tasks[self.arq_id] = task
            if self._reason is not None:
                task.cancel()
            return self._succeeded(await self._called(function.coroutine))
        except Ended as exc:
            return self._not_begun(exc)
        except asyncio.CancelledError as exc:
            while task.uncancel():
                pass  # what follows is ours
            return self._cancelled(exc)
        except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as exc:  # noqa: BLE001
            # Whatever it is, it is the job's, and ends the job.
            return self._raised(exc)
        finally:
            self._task = None
            worker.job_tasks.pop(self.arq_id, None)

    async def _called(self, function: Callable[..., Awaitable[Any]]) -> object:
        self._log_start()
        async with asyncio.timeout(self._timeout):
            if self._worker.on_job_start:
                await self._worker.on_job_start(self.ctx)
            self._ran = True
            return await function(self.ctx, *self._args, **self._kwargs)

    async def _consume(self) -> None:
        """Takes the quota items of this job, once, however often this is called.

        Raises:
            Ended: they were refused, or no sidecar could say.
            PartywallError: they can never be taken.
        """
        # Another key after each refusal, because a refusal is kept with its key as well.
        key = self._key(f"{self._claimed.refusals}")
        try:
            outcome = await self._worker.sidecar.try_consume(
                self._claimed.tenant, self._options.quota, idempotency_key=key
            )
        except SidecarUnavailable as exc:
            raise Ended(exc, pause=jittered(SIDECAR_PAUSE)) from exc
        if not outcome:
            refused = PartywallError(f"quota refused: no room for {', '.join(outcome.denied)}")
            later = self._options.on_refusal == "retry"
            pause = refusal_pause(self._claimed.refusals) if later else None
            raise Ended(refused, refused=True, pause=pause)
        self._consumed = True

    def _succeeded(self, result: object) -> Outcome:
        worker = self._worker
        try:
            data = self._result(result, success=True)
        except Exception as exc:  # noqa: BLE001 - a serializer is anybody's
            logger.error("%s: its result cannot be kept: %s", self._ref, exc)
            worker.jobs_failed += 1
            return self._outcome(
                "failed",
                result=self._result(f"unable to serialize result: {exc}", success=False),
                error=f"unable to serialize result: {exc}",
            )
        worker.jobs_complete += 1
        if logger.isEnabledFor(20):
            text = "" if result is None or not worker.log_results else truncate(repr(result))
            logger.info("%6.2fs ← %s ● %s", self._seconds, self._ref, text)
        return self._outcome("succeeded", result=data)

    def _not_begun(self, ended: Ended) -> Outcome:
        if ended.pause is None:
            return self._failed(ended.error, "failed")
        logger.info("%s is put off for %.1fs: %s", self._ref, ended.pause, ended)
        self._worker.jobs_retried += 1
        return self._retried(ended.error, ended.pause, uncounted=True, refused=ended.refused)

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
        if isinstance(exc, GiveUp):
            return self._failed(exc, "failed")
        if not self._worker.retry_jobs:
            return self._failed(exc, "failed")
        if self._claimed.attempts >= self._max_tries:
            return self._failed(exc, "dead")
        if isinstance(exc, Retry):
            pause, known = (exc.defer_score or 0) / 1000, True
        elif isinstance(exc, RetryJob):
            pause, known = 0.0, True
        else:
            pause, known = self._options.pause(self._claimed.attempts), False
        self._worker.jobs_retried += 1
        logger.info(
            "%6.2fs ↻ %s retrying job in %0.2fs",
            self._seconds,
            self._ref,
            pause,
            exc_info=None if known else exc,
        )
        return self._retried(exc, pause)

    def _failed(self, exc: BaseException, status: str) -> Outcome:
        logger.error(
            "%6.2fs ! %s failed, %s: %s",
            self._seconds,
            self._ref,
            type(exc).__name__,
            exc,
            exc_info=exc if exc.__traceback__ else None,
        )
        self._worker.jobs_failed += 1
        return self._outcome(
            "dead" if status == "dead" else "failed",
            result=self._error_result(exc),
            error=_error(exc),
            traceback=_traceback(exc),
            given_back=isinstance(exc, GiveBack),
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
            keep=self._keep,
            delay=round(pause * 1000),
            error="" if exc is None else _error(exc),
            traceback="" if exc is None else _traceback(exc),
            owed=self._owed(),
            uncounted=uncounted,
            refused=refused,
            consumed=self._consumed,
            ran=self._ran,
        )

    def _outcome(
        self,
        how: Any,  # noqa: ANN401 - one of Outcome's
        *,
        result: bytes = b"",
        error: str = "",
        traceback: str = "",
        given_back: bool = False,
    ) -> Outcome:
        return Outcome(
            self._claimed.ref,
            self._claimed.fence,
            how,
            keep=self._worker.keep_dead_ms if how == "dead" else self._keep,
            result=result if self._keep_result or how == "dead" else b"",
            error=error,
            traceback=traceback,
            owed=self._owed(given_back=given_back),
        )

    def _owed(self, *, given_back: bool = False) -> str:
        """What is to be given back to the tenant if nothing runs any more."""
        if not self._consumed or not (given_back or not (self._ran or self._claimed.ran)):
            return ""
        return json.dumps(
            {
                "tenant": self._claimed.tenant,
                "items": self._options.quota,
                "key": self._key("back"),
            }
        )

    def _key(self, which: str) -> str:
        """An idempotency key of this job, and of no other that has its id after it."""
        text = f"{self.arq_id}:{self._enqueued_at}:{which}"
        return f"job:{sha256(text.encode()).hexdigest()}"

    def _error_result(self, exc: BaseException) -> bytes:
        try:
            return self._result(exc, success=False)
        except Exception:  # noqa: BLE001 - a serializer is anybody's
            return self._result(_error(exc), success=False)

    def _result(self, result: object, *, success: bool) -> bytes:
        if not self._keep_result and success:
            return b""
        data = {
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
        return self._worker.serialize(data)

    @property
    def _keep_result(self) -> bool:
        """Whether its result is kept."""
        function, worker = self._function, self._worker
        seconds = None if function is None else function.keep_result_s
        return (worker.keep_result_s if seconds is None else seconds) > 0 or self._for_ever

    @property
    def _for_ever(self) -> bool:
        function, worker = self._function, self._worker
        said = None if function is None else function.keep_result_forever
        return worker.keep_result_forever if said is None else said

    @property
    def _keep(self) -> int:
        """Milliseconds that the finished job is kept."""
        function, worker = self._function, self._worker
        if self._for_ever:
            return FOR_EVER
        seconds = None if function is None else function.keep_result_s
        kept = round((worker.keep_result_s if seconds is None else seconds) * 1000)
        return max(kept, CRON_KEPT) if isinstance(function, CronJob) else kept

    @property
    def _max_tries(self) -> int:
        tries = None if self._function is None else self._function.max_tries
        return self._worker.max_tries if tries is None else tries

    @property
    def _timeout(self) -> float | None:
        seconds = None if self._function is None else self._function.timeout_s
        return self._worker.job_timeout_s if seconds is None else seconds

    @property
    def _ref(self) -> str:
        return f"{self.arq_id}:{self._name}"

    @property
    def _seconds(self) -> float:
        return time.time() - self._started_at / 1000

    def _log_start(self) -> None:
        if not logger.isEnabledFor(20):
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


def _error(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception:  # noqa: BLE001 - its class is the job's
        text = "(what it says cannot be said)"
    name = type(exc).__name__
    return sendable((f"{name}: {text}" if text else name)[:_LONGEST_ERROR])


def _traceback(exc: BaseException) -> str:
    if exc.__traceback__ is None:
        return ""
    return sendable("".join(traceback.format_exception(exc))[-_LONGEST_TRACEBACK:])
