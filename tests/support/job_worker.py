"""A worker process whose jobs tell what becomes of them, and which can die at a chosen instant.

Everything is told to one list in Redis, so what different processes tell has one order. `Workers`
of job_workers.py starts such processes and reads the list.
"""

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from multiprocessing.connection import wait
from random import Random
from typing import Any, Literal

import redis
from arq.worker import Retry
from redis.asyncio import ConnectionPool

from partywall_workers import job, worker
from partywall_workers.policy import DEFAULT_LANE
from partywall_workers.redis import FairRedis
from partywall_workers.scripts import Claimed, Claims, Outcome, Scripts

Instant = Literal["claimed", "running", "ended", "told"]
"""Where a worker dies: after the claim and before the start of what it claimed; in a job; between a
job's end and its release; when the release is sent, before its answer is read."""

INSTANTS: tuple[Instant, ...] = ("claimed", "running", "ended", "told")

PLENTY = 1000
"""Tries that no job of a test uses up by its workers' deaths."""


@dataclass(frozen=True, slots=True)
class Life:
    """A worker process.

    Attributes:
        url: of the Redis.
        queue: its name there.
        name: no other process has it.
        log: the file its warnings go to.
        lease: as FairWorker has it, and so are those that follow.
        max_jobs: jobs at once.
        max_tries: of each job.
        drain: seconds that jobs have to end when it is told to stop.
        lanes: queues of tenants that it serves.
        longest_wait: seconds between looks at an empty queue.
        dies: the instant; None: it does not by itself.
        dies_after: how often it lives through that instant first.
    """

    url: str
    queue: str
    name: str
    log: str
    lease: float = 1.0
    max_jobs: int = 5
    max_tries: int = PLENTY
    drain: float = 10.0
    lanes: tuple[str, ...] = (DEFAULT_LANE,)
    longest_wait: float = worker.LONGEST_WAIT
    dies: Instant | None = None
    dies_after: int = 0


def events_key(queue: str) -> str:
    """The list to which everything is told."""
    return f"{queue}:test:events"


def gate_key(queue: str, gate: str) -> str:
    """The list from which a held job takes what lets it go on."""
    return f"{queue}:test:gate:{gate}"


def told(what: str, name: str, ref: str = "", fence: int = 0) -> str:
    """An event as the list has it."""
    return json.dumps([what, name, ref, fence])


class Here:
    """This process: what it tells, and when it dies."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.fences: dict[str, int] = {}
        self._redis = redis.Redis.from_url(life.url)
        self._lived_through: Counter[str] = Counter()

    def tell(self, what: str, *jobs: tuple[str, int]) -> None:
        """Tells at once: the caller must not go on, or die, before it is told."""
        name = self.life.name
        events = [told(what, name, *one) for one in jobs] or [told(what, name)]
        self._redis.rpush(events_key(self.life.queue), *events)

    def job(self, ctx: dict[str, Any]) -> tuple[str, int]:
        """The job that runs in `ctx`, and the number of its start."""
        ref = ctx["job_id"].removeprefix(f"{self.life.queue}:")
        return ref, self.fences[ref]

    def at(self, instant: Instant) -> None:
        """Dies, if this is the instant."""
        if self.life.dies != instant:
            return
        self._lived_through[instant] += 1
        if self._lived_through[instant] > self.life.dies_after:
            self.tell(f"dying {instant}")
            os.kill(os.getpid(), signal.SIGKILL)

    def block(self, gate: str) -> None:
        """Waits at a gate, and keeps the whole process from doing anything else."""
        while not self._redis.lpop(gate_key(self.life.queue, gate)):
            time.sleep(0.02)


_here: list[Here] = []
_releasing: ContextVar[bool] = ContextVar("releasing", default=False)


def here() -> Here:
    """This process."""
    return _here[0]


class WatchedScripts(Scripts):
    """Tells of every claim before the worker learns of it."""

    async def claim(
        self, slots: int, *, lease: int, keep: int, costs: bytes, lanes: Sequence[str]
    ) -> Claims:
        claims = await super().claim(slots, lease=lease, keep=keep, costs=costs, lanes=lanes)
        if claims.jobs:
            here().fences.update((one.ref, one.fence) for one in claims.jobs)
            here().tell("claim", *map(_numbered, claims.jobs))
            here().at("claimed")
        return claims

    async def release(self, outcomes: Iterable[Outcome]) -> list[bool]:
        outcomes = list(outcomes)
        if outcomes:
            here().at("ended")
            _releasing.set(True)
        try:
            return await super().release(outcomes)
        finally:
            _releasing.set(False)


class WatchedRedis(FairRedis):
    async def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        if _releasing.get():
            here().at("told")
        return await super().parse_response(connection, command_name, **options)


def _numbered(claimed: Claimed) -> tuple[str, int]:
    return claimed.ref, claimed.fence


async def work(ctx: dict[str, Any], seconds: float = 0.0) -> str:
    """Runs so long; its result says which start of it this was."""
    ref, fence = here().job(ctx)
    here().tell("run", (ref, fence))
    here().at("running")
    await asyncio.sleep(seconds)
    return f"{here().life.name}:{fence}"


async def held(ctx: dict[str, Any], gate: str = "") -> str:
    """Runs until something is at its gate: the one named, or else that of its worker."""
    ref, fence = here().job(ctx)
    here().tell("run", (ref, fence))
    life = here().life
    try:
        await ctx["redis"].blpop([gate_key(life.queue, gate or life.name)])
    except asyncio.CancelledError:
        here().tell("cancelled", (ref, fence))
        raise
    return f"{life.name}:{fence}"


async def blocking(ctx: dict[str, Any]) -> str:
    """As `held`, and blocks the event loop, so its worker renews no lease."""
    ref, fence = here().job(ctx)
    here().tell("run", (ref, fence))
    here().block(here().life.name)
    return f"{here().life.name}:{fence}"


async def deadly(ctx: dict[str, Any]) -> None:
    """Kills its worker."""
    here().tell("run", here().job(ctx))
    here().tell("dying running")
    os.kill(os.getpid(), signal.SIGKILL)


async def plain(_: dict[str, Any], number: int, seconds: float) -> int:
    """Runs without Redis."""
    await asyncio.sleep(seconds)
    return number


@job(backoff=0.01, max_backoff=0.05)
async def shaky(ctx: dict[str, Any], seed: int, seconds: float) -> int:
    """Fails, or asks for another try, in half of its tries."""
    await asyncio.sleep(seconds)
    match Random(f"{seed}:{ctx['job_try']}").randrange(4):
        case 0:
            raise ConnectionError("a failure of the job's own")
        case 1:
            raise Retry(defer=0.01)
    return seed


FUNCTIONS = (work, held, blocking, deadly, plain, shaky)


def live(life: Life) -> None:
    """Runs the worker in this process until it is told to stop."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(filename=life.log, level=logging.WARNING, force=True)
    _here.append(Here(life))
    # No other way to show that wake-ups alone are enough.
    worker.LONGEST_WAIT = life.longest_wait
    asyncio.set_event_loop(asyncio.new_event_loop())
    pool = WatchedRedis(ConnectionPool.from_url(life.url), default_queue_name=life.queue)
    pool.scripts = WatchedScripts(pool, life.queue)

    async def ready(_: dict[Any, Any]) -> None:
        while True:
            with suppress(redis.RedisError):  # what a hook of this kind raises ends the worker
                # So that the server knows the script when a worker dies in it.
                await pool.scripts.release([])
                return here().tell("ready")
            await asyncio.sleep(0.05)

    one = worker.FairWorker(
        FUNCTIONS,
        redis_pool=pool,
        queue_name=life.queue,
        lanes=life.lanes,
        lease=life.lease,
        max_jobs=life.max_jobs,
        max_tries=life.max_tries,
        job_completion_wait=life.drain,
        on_startup=ready,
    )
    one.on_stop = lambda _: here().tell("stopping")
    one.run()


def _end_with_parent() -> None:
    """No worker outlives the tests, however they end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(70)
