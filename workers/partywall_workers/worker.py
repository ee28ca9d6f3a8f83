"""A worker of fair queues: arq's, with another way to claim, run and release jobs.

arq's own loop, and what goes around a job in `run_job`, are replaced: they take four round trips a
job, leave a killed worker's jobs for minutes, and end the worker with a hook's exception
(docs/design.md, Jobs). Its functions, cron jobs, hooks, `ctx`, handles and settings are arq's.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from signal import Signals
from typing import Any, NamedTuple, cast
from uuid import uuid4

from arq.connections import ArqRedis, RedisSettings, create_pool, log_redis_info
from arq.cron import CronJob
from arq.utils import to_seconds
from arq.worker import Worker
from redis.exceptions import RedisError

from partywall import Partywall
from partywall.context import Tenant, running_as
from partywall.errors import PartywallError
from partywall_workers.background import again_and_again, guarded, woken
from partywall_workers.checks import (
    checked_function,
    checked_lanes,
    checked_list,
    checked_settings,
)
from partywall_workers.debts import pay_back
from partywall_workers.environment import (
    default_keep,
    default_keep_dead,
    default_queue,
    default_redis_url,
)
from partywall_workers.errors import QueueUnavailable
from partywall_workers.job import options_of
from partywall_workers.keys import ABORT
from partywall_workers.leases import RENEWALS, Leases
from partywall_workers.policy import CRON_TENANT, DEFAULT_LANE, SYSTEM_LANE, JobPolicy
from partywall_workers.presence import Presence
from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis
from partywall_workers.releases import Releases
from partywall_workers.scripts import Claimed
from partywall_workers.serial import dumps, loads
from partywall_workers.strays import warn_of_strays
from partywall_workers.terms import costs_of, declared
from partywall_workers.tries import Try

LEASE = 15.0
"""Seconds after which the jobs of a killed worker run again."""

DRAIN = 10.0
"""Seconds that jobs have to end when the worker is told to stop."""

LONGEST_WAIT = 2.0
"""Seconds between looks at an empty queue, in case whoever was woken for it has died."""

SHORTEST_WAIT = 0.001

PATIENCE = 5.0
"""Seconds for a call to Redis, so that a worker can be stopped while that hangs."""

CLAIMS = 3
"""Calls in which a worker without work claims as many jobs as it may run."""

_ABORTS_EVERY = 0.25
_CRON_EVERY = 0.5
_SEEN_EVERY = 10.0
_OWED_EVERY = 5.0
_BURST_WAIT = 0.02
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
_MAIN_ENDS = 1.0

logger = logging.getLogger("partywall.worker")


class _Parts(NamedTuple):
    """What a worker works with while it runs."""

    queue: FairQueue
    leases: Leases
    releases: Releases
    presence: Presence


class FairWorker(Worker):
    """Runs jobs of the tenants of its lanes, each tenant in its turn.

    Args:
        functions: the jobs, as arq takes them; `@job` declares more.
        lanes: queues of tenants that it serves, the first first.
        lease: seconds after which the jobs of a killed worker run again.
        keep_dead: seconds that dead jobs are kept; left out, PARTYWALL_JOBS_KEEP_DEAD, or 14 days.
        cron_tenant: whose the cron jobs are.
        sidecar: where quotas of jobs are consumed; left out, PARTYWALL_SIDECAR_URL.
        queue_name: the queue's; left out, that of `redis_pool`, or of PARTYWALL_KEY_PREFIX.
        redis_url: its Redis; left out, PARTYWALL_REDIS_URL.
        job_completion_wait: seconds that jobs have to end when the worker is told to stop; then
            they are handed back, and that try of theirs does not count.
        keep_result: seconds that finished jobs are kept; left out, PARTYWALL_JOBS_KEEP, or a day.
        poll_delay: arq's; of no use here, where workers are woken.
        kwargs: whatever else `arq.Worker` takes.

    Attributes:
        owns_sidecar: whether `close` closes the sidecar's client as well.

    Raises:
        InvalidJob: a setting cannot be.
        RuntimeError: there is no function.
    """

    def __init__(
        self,
        functions: Sequence[Any] = (),
        *,
        lanes: Sequence[str] = (DEFAULT_LANE,),
        lease: float = LEASE,
        keep_dead: float | timedelta | None = None,
        cron_tenant: str = CRON_TENANT,
        sidecar: Partywall | None = None,
        queue_name: str | None = None,
        redis_url: str | None = None,
        redis_pool: ArqRedis | None = None,
        redis_settings: RedisSettings | None = None,
        job_completion_wait: float = DRAIN,
        keep_result: float | timedelta | None = None,
        poll_delay: float | timedelta = 0,
        allow_abort_jobs: bool = True,
        **kwargs: Any,  # noqa: ANN401 - arq's
    ) -> None:
        lanes = checked_lanes(lanes)
        checked_settings(
            kwargs
            | {
                "lease": lease,
                "keep_dead": keep_dead,
                "keep_result": keep_result,
                "job_completion_wait": job_completion_wait,
            }
        )
        functions = [declared(one) for one in checked_list("functions", functions)]
        for cron_job in kwargs.get("cron_jobs") or ():
            if isinstance(cron_job, CronJob):  # arq refuses what is none
                checked_function(cron_job)
        if isinstance(redis_pool, FairRedis):
            queue_name = queue_name or redis_pool.default_queue_name
        name = queue_name or default_queue()
        if redis_pool is None and redis_settings is None:
            redis_pool = FairRedis.from_url(redis_url or default_redis_url(), queue_name=name)
        endless = kwargs.get("job_timeout", LEASE) is None
        if endless:
            kwargs["job_timeout"] = 0  # None is arq's own word for it, and it compares two of them
        super().__init__(
            functions,
            queue_name=name,
            redis_pool=redis_pool,
            redis_settings=redis_settings,
            job_completion_wait=cast("int", job_completion_wait),
            keep_result=default_keep() if keep_result is None else keep_result,
            allow_abort_jobs=allow_abort_jobs,
            **kwargs,
        )
        if endless:
            self.job_timeout_s = None  # type: ignore[assignment] # it has none, as arq's `wait_for`
        pool = self._pool if isinstance(self._pool, FairRedis) else None
        self.job_serializer = self.job_serializer or (pool and pool.job_serializer) or dumps
        self.job_deserializer = self.job_deserializer or (pool and pool.job_deserializer) or loads
        self.lanes = lanes
        self.worker_id = uuid4().hex
        self.cron_tenant = cron_tenant
        kept = default_keep_dead() if keep_dead is None else to_seconds(keep_dead)
        self.keep_dead_ms = round(kept * 1000)
        self._lease = lease
        self._sidecar = sidecar
        self.owns_sidecar = sidecar is None
        self._costs = costs_of(self.functions)
        self._tries: dict[int, Try] = {}
        self._warned_of_token = False
        self._stopping = False
        self._stopped = asyncio.Event()
        self._slot_free = asyncio.Event()
        self._parts: _Parts | None = None

    @property
    def pool(self) -> FairRedis:
        """The queue's client; `ctx["redis"]`."""
        if not isinstance(self._pool, FairRedis):
            raise RuntimeError("the worker is not open: it has not run yet, or is closed")
        return self._pool

    @property
    def parts(self) -> "_Parts":
        """What it works with while it runs."""
        if self._parts is None:
            raise RuntimeError("the worker has not run yet")
        return self._parts

    @property
    def sidecar(self) -> Partywall:
        """Where quotas of jobs are consumed."""
        if self._sidecar is None:
            self._sidecar = Partywall()
        return self._sidecar

    def serialize(self, data: dict[str, Any]) -> bytes:
        """A result as it is kept."""
        return (self.job_serializer or dumps)(data)

    async def guarded(self, hook: Callable[..., Awaitable[Any]], ctx: Mapping[Any, Any]) -> None:
        """Calls a hook; what it raises is logged, and harms nobody."""
        await guarded(hook, ctx, self.job_timeout_s)

    def warn_of_token(self, error: Exception) -> None:
        """Says once why jobs with a quota wait: each of them meets the same."""
        if not self._warned_of_token:
            self._warned_of_token = True
            logger.warning(
                "jobs with a quota are put off until this worker has a token of scope host "
                "(the setting token, or PARTYWALL_TOKEN): %s",
                error,
            )

    async def main(self) -> None:
        """Runs until it is told to stop, or until there is no job left for a worker in a burst."""
        await self._open()
        background = [
            asyncio.create_task(again_and_again(act, every), name=f"worker {act.__name__}")
            for act, every in (
                (self._renew, self._lease / RENEWALS),
                (self._heed_aborts, _ABORTS_EVERY),
                (self.heart_beat, _CRON_EVERY),
                (self._show_itself, _SEEN_EVERY),
                (self._pay_back, _OWED_EVERY),
            )
        ]
        try:
            if self.on_startup:
                await self.on_startup(self.ctx)
            pause = _FIRST_PAUSE
            while not self._stopping:
                try:
                    if await self._poll_iteration():
                        break
                    pause = _FIRST_PAUSE
                except (RedisError, OSError) as exc:
                    logger.warning("the queue's Redis does not answer: %s", exc or "in time")
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
            await self._drain()
            await self._settle()
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)

    async def close(self) -> None:
        """Hands back what runs, says that the worker has gone, and closes its connections."""
        self._stopping = True
        self.allow_pick_jobs = False
        self._stopped.set()
        self._slot_free.set()
        if self._pool is None:
            return
        if not isinstance(self._pool, FairRedis):  # it never ran
            await self._pool.aclose(close_connection_pool=True)
            self._pool = None
            return
        self._stop_jobs()
        await self._end_main()
        await asyncio.gather(*list(self.tasks.values()), return_exceptions=True)
        with suppress(RedisError, OSError):  # it is seen no more in half a minute, anyhow
            async with asyncio.timeout(PATIENCE):
                await self._pool.delete(self.health_check_key)
                if self._parts is not None:
                    await self._parts.presence.leave()
        try:
            if self.on_shutdown:
                await self.on_shutdown(self.ctx)
        finally:
            if self.owns_sidecar and self._sidecar is not None:
                await self._sidecar.aclose()
                self._sidecar = None
            await self._pool.aclose(close_connection_pool=True)
            self._pool = None

    def handle_sig(self, signum: Signals) -> None:
        """Stops: at the first signal when jobs have ended, at the second at once."""
        sig = Signals(signum)
        logger.info(
            "shutdown on %s ◆ %d jobs complete ◆ %d failed ◆ %d retries ◆ %d to be completed",
            sig.name,
            self.jobs_complete,
            self.jobs_failed,
            self.jobs_retried,
            len(self.tasks),
        )
        if self._stopping:
            self._stop_jobs()
        self._stopping = True
        self.allow_pick_jobs = False
        self._stopped.set()
        self._slot_free.set()
        if self.on_stop:
            self.on_stop(sig)

    handle_sig_wait_for_completion = handle_sig

    async def run_cron(self, n: Any, delay: float, num_windows: int = 2) -> None:  # noqa: ANN401 - arq's
        """Enqueues cron jobs whose time comes, for the tenant that has them."""
        before = [(one, one.next_run) for one in self.cron_jobs]
        try:
            with running_as(Tenant(self.cron_tenant)):
                await super().run_cron(n, delay, num_windows)
        except (RedisError, OSError):
            # Whether they are queued is not known; once they are, their ids say so.
            for one, next_run in before:
                one.next_run = next_run
            raise

    async def _open(self) -> None:
        mine = self._pool
        if not isinstance(mine, FairRedis) or mine.default_queue_name != self.queue_name:
            pool = mine or await create_pool(self.redis_settings)
            self._pool = FairRedis(pool.connection_pool, default_queue_name=self.queue_name)
        pool = self.pool
        pool.job_serializer, pool.job_deserializer = self.job_serializer, self.job_deserializer
        parts = self._parts = _Parts(
            FairQueue(pool, keep=self.keep_result_s),
            Leases(pool.scripts, self._lease),
            Releases(pool.scripts),
            Presence(pool, self.worker_id, self.lanes, self._functions_for_tenants()),
        )
        self.ctx["redis"] = pool
        logger.info(
            "Starting worker for %d functions: %s", len(self.functions), ", ".join(self.functions)
        )
        pause = _FIRST_PAUSE
        while not self._stopping:
            try:
                await log_redis_info(pool, logger.info)
                if self.cron_jobs:
                    policy = JobPolicy(tier=self.cron_tenant, lane=self.lanes[0])
                    await parts.queue.set_policy(self.cron_tenant, policy)
                # Once before any job starts: the background comes to it later, a burst may not.
                await self._show_itself()
                await self._heed_aborts()
                await self.heart_beat()
                await warn_of_strays(pool)
            except (RedisError, OSError, QueueUnavailable) as exc:
                logger.warning("the queue's Redis does not answer yet: %s", exc)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return

    def _functions_for_tenants(self) -> list[str]:
        """What tenants may enqueue, once any worker has said so: other names are then unknown."""
        if set(self.lanes) <= {SYSTEM_LANE}:
            return []  # no tenant's job comes to it
        # Nor are cron jobs anybody's to enqueue.
        return [name for name, one in self.functions.items() if not isinstance(one, CronJob)]

    async def _poll_iteration(self) -> bool:  # type: ignore[override] # arq's says nothing
        """Claims what may run, starts it, or waits until something may; True: a burst is over."""
        slots = self.max_jobs - self.job_counter
        if self.burst and self.max_burst_jobs >= 0:
            left = self.max_burst_jobs - self._jobs_started()
            if left < 1:
                return True
            slots = min(slots, left)
        if slots < 1 or not self.allow_pick_jobs:
            self._slot_free.clear()
            if self.job_counter >= self.max_jobs or self.tasks:
                await self._slot_free.wait()
            else:
                await self._stopped.wait()
            return False
        # A third at a time, so that Redis claims and releases some while we run others.
        slots = min(slots, max(1, self.max_jobs // CLAIMS))
        asked_at = time.monotonic()
        async with asyncio.timeout(PATIENCE):  # what it may claim yet is run when its lease ends
            claims = await self.pool.scripts.claim(
                slots,
                lease=round(self._lease * 1000),
                keep=round(self.keep_result_s * 1000),
                costs=self._costs,
                lanes=self.lanes,
            )
        for claimed in claims.jobs:
            self._start(claimed, asked_at)
        if claims.jobs:
            await asyncio.sleep(0)
            return False
        if self.burst:
            if not self.tasks and claims.pause is None:
                return True
            await asyncio.sleep(_BURST_WAIT)
            return False
        pause = LONGEST_WAIT if claims.pause is None else claims.pause
        pause = max(SHORTEST_WAIT, min(pause, LONGEST_WAIT))
        await woken(self.pool, self.lanes, pause, self._stopped)
        return False

    def _start(self, claimed: Claimed, asked_at: float) -> None:
        self.job_counter += 1
        one = Try(self, claimed)
        task = self.loop.create_task(self._run(claimed, one, asked_at))
        self.tasks[one.arq_id] = task

    async def _run(self, claimed: Claimed, one: Try, asked_at: float) -> None:
        leases, releases = self.parts.leases, self.parts.releases
        leases.hold(claimed, asked_at, one.cancel)
        self._tries[claimed.fence] = one
        try:
            outcome = await one.run()
            if outcome is not None:
                until = time.monotonic() + 2 * self._lease
                if not await releases.release(outcome, until=until):
                    logger.warning("%s: its result came too late, and is refused", one.arq_id)
            else:
                logger.warning("%s: its lease was lost, and it is left to others", one.arq_id)
            if one.ctx and self.after_job_end:
                await self.guarded(self.after_job_end, one.ctx)
        except Exception:
            # Its lease runs out, and another try is made.
            logger.exception("%s: a fault of the worker's own", one.arq_id)
        finally:
            leases.let_go(claimed)
            self._tries.pop(claimed.fence, None)
            if self.tasks.get(one.arq_id) is asyncio.current_task():
                del self.tasks[one.arq_id]
            self.job_counter -= 1
            self._slot_free.set()

    async def _drain(self) -> None:
        """Waits for what runs, and hands back what runs too long."""
        if self.tasks and self._stopping:
            await asyncio.wait(list(self.tasks.values()), timeout=self._job_completion_wait)
            self._stop_jobs()
        while self.tasks:
            await asyncio.wait(list(self.tasks.values()))

    async def _end_main(self) -> None:
        """Waits for the loop of a worker that is closed while it runs."""
        main = self.main_task
        if main is not None and main is not asyncio.current_task():
            await asyncio.wait({main}, timeout=_MAIN_ENDS)
            if not main.done():  # it is within a hook of its start, or waits for what it runs
                main.cancel()
                await asyncio.wait({main})

    async def _settle(self) -> None:
        """Gives back what is owed by now; if it cannot be, other workers will."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._pay_back()
        except (RedisError, OSError, PartywallError) as exc:
            logger.warning("quota items are owed still: %s", exc)

    def _stop_jobs(self) -> None:
        for one in list(self._tries.values()):
            one.cancel("stopping")

    async def _renew(self) -> None:
        await self.parts.leases.renew()

    async def _heed_aborts(self) -> None:
        """Cancels what `arq.jobs.Job.abort`, or a sidecar, wants cancelled."""
        if not self.allow_abort_jobs:
            return
        running = {one.arq_id: one for one in self._tries.values()}
        aborts: Any = self.pool.zrange(ABORT, 0, -1)
        for raw in await aborts:
            arq_id = raw.decode()
            named = self.pool.names.parts(arq_id)
            if arq_id in running:
                running[arq_id].cancel("aborted")
            elif named is not None:
                await self.parts.queue.cancel_waiting(*named)

    async def _show_itself(self) -> None:
        await self.parts.presence.show()

    async def _pay_back(self) -> None:
        if any(options_of(one.coroutine).quota for one in self.functions.values()):
            await pay_back(self.pool, self.sidecar)
