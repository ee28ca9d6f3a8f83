"""The jobs that say who is noisy and who suffers, and send what is to be told."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.engine.base import StoreError
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.policy.errors import PolicyError
from partywall_service.settings import Settings
from partywall_service.usage.judging import Judge
from partywall_service.usage.neighbours import Neighbours
from partywall_service.usage.notices import NoticeStore
from partywall_service.usage.pulse import PulseStore, count
from partywall_service.usage.webhooks import NotDelivered, Webhooks, webhook_client
from partywall_workers import job
from partywall_workers.errors import QueueUnavailable
from partywall_workers.policy import SYSTEM_TENANT
from partywall_workers.redis import FairRedis

JUDGING = "judging"
"""Where the worker's context has it."""

SECONDS = frozenset({10, 25, 40, 55})
"""Of each minute, at which neighbours are judged; the roll-up has others."""

MAX_TRIES = 33
"""Of a notice: 5 s after the first, twice as long after each, an hour at most: for a day."""

FIRST_PAUSE, LONGEST_PAUSE = 5, 3600

LAST = 0
"""The priority of sending: receivers that hang must not keep reservations from going back."""

FORGET_EVERY = 3600.0
"""Seconds between two removals of old notices."""

log = structlog.get_logger()


class Judging:
    """What the two jobs work with.

    Args:
        judge: writes verdicts, and notices of what is new in them.
        beat: counts how much is decided, and writes it.
        notices: where notices are.
        webhooks: where they go; None: they are kept for whoever looks.
    """

    def __init__(
        self,
        judge: Judge,
        beat: Callable[[], Awaitable[None]],
        notices: NoticeStore,
        webhooks: Webhooks | None,
    ) -> None:
        self._judge = judge
        self._beat = beat
        self._notices = notices
        self._webhooks = webhooks
        self._failing = False
        self._forgotten = float("-inf")

    async def run(self, redis: FairRedis) -> None:
        """Judges, and queues a job for each notice that is to be sent.

        A notice is its job's id, so it has one job however often it is queued; and one that a crash
        kept from being queued is queued here the next time.
        """
        try:
            await self._judge.run()
            await self._beat()
            if self._webhooks is None:
                await self._notices.leave()
            else:
                for notice in await self._notices.due():
                    await redis.enqueue_job(
                        "deliver_notice",
                        notice,
                        _job_id=notice,
                        _tenant=SYSTEM_TENANT,
                        _priority=LAST,
                    )
            if time.monotonic() - self._forgotten >= FORGET_EVERY:
                await self._notices.forget()
                self._forgotten = time.monotonic()
        except (LedgerUnavailable, StoreError, QueueUnavailable, RedisError, PolicyError) as exc:
            if not self._failing:
                log.warning("neighbours.not_judged", cause=str(exc))
            self._failing = True
        else:
            self._failing = False

    async def deliver(self, notice: str, attempt: int) -> None:
        """Sends a notice.

        Raises:
            NotDelivered: some webhook did not take it.
            LedgerUnavailable: PostgreSQL did not answer.
        """
        if self._webhooks is None:
            raise NotDelivered("this worker has no PARTYWALL_WEBHOOK_URLS")
        await self._webhooks.deliver(notice, last=attempt >= MAX_TRIES)


async def judge_neighbours(ctx: dict[str, Any]) -> None:
    """Writes down who is noisy and who suffers, and what is new in it."""
    judging: Judging = ctx[JUDGING]
    await judging.run(ctx["redis"])


@job(max_tries=MAX_TRIES, backoff=FIRST_PAUSE, max_backoff=LONGEST_PAUSE)
async def deliver_notice(ctx: dict[str, Any], notice: str) -> None:
    """Sends a notice to the webhooks."""
    judging: Judging = ctx[JUDGING]
    await judging.deliver(notice, ctx["job_try"])


@asynccontextmanager
async def open_judging(
    engine: AsyncEngine, neighbours: Neighbours, settings: Settings
) -> AsyncIterator[Judging]:
    """What the jobs work with, until the block ends.

    Args:
        engine: PostgreSQL.
        neighbours: who judges.
        settings: where notices go.
    """
    notices = NoticeStore(engine)
    judge = Judge(engine, neighbours)
    pulses = PulseStore(engine)

    async def beat() -> None:
        await pulses.write(await count(neighbours))

    if not settings.webhook_urls or settings.webhook_secret is None:
        yield Judging(judge, beat, notices, None)
        return
    async with webhook_client() as http:
        webhooks = Webhooks(notices, settings.webhook_urls, settings.webhook_secret, http)
        yield Judging(judge, beat, notices, webhooks)
