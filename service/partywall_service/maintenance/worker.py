"""The worker that runs the maintenance jobs, and nothing else."""

from contextlib import AsyncExitStack
from typing import Any

from arq.cron import cron

from partywall_service.engine.connect import connect, disconnect
from partywall_service.ledger.engine import create_ledger_engine
from partywall_service.maintenance.jobs import MARK, SWEEPER, expire_reservations, forget_answers
from partywall_service.maintenance.judging import (
    JUDGING,
    deliver_notice,
    judge_neighbours,
    open_judging,
)
from partywall_service.maintenance.judging import SECONDS as JUDGE_SECONDS
from partywall_service.maintenance.mark import Mark
from partywall_service.maintenance.policy import FollowedPolicy
from partywall_service.maintenance.rolling import ROLLER, SECONDS, open_roller, roll_up_usage
from partywall_service.maintenance.rolling import TIMEOUT as ROLL_UP_TIMEOUT
from partywall_service.quotas.store import QuotaStore
from partywall_service.quotas.sweep import FORGET_EVERY, Sweeper
from partywall_service.settings import Settings
from partywall_service.usage.connect import usage_sources
from partywall_service.usage.neighbours import Neighbours, NeighbourStore
from partywall_workers.command import worker_of
from partywall_workers.policy import SYSTEM_LANE, SYSTEM_TENANT
from partywall_workers.settings import FairWorkerSettings
from partywall_workers.worker import FairWorker

TIMEOUT = 30
"""Seconds a job may take; each is some short statements, but for the roll-up."""

MOST_AT_ONCE = 8
"""Jobs at once: what one of them waits for, the next would only wait for, too; but for notices,
whose receivers may hang."""


class MaintenanceSettings(FairWorkerSettings):
    """What it runs, and when."""

    queues = (SYSTEM_LANE,)
    cron_tenant = SYSTEM_TENANT
    cron_jobs = (
        cron(expire_reservations, name="expire_reservations", second=set(range(60))),
        cron(forget_answers, name="forget_answers", second=set(range(0, 60, FORGET_EVERY))),
        cron(roll_up_usage, name="roll_up_usage", second=set(SECONDS), timeout=ROLL_UP_TIMEOUT),
        cron(judge_neighbours, name="judge_neighbours", second=set(JUDGE_SECONDS)),
    )
    functions = (deliver_notice,)
    job_timeout = TIMEOUT
    max_jobs = MOST_AT_ONCE


def maintenance_worker(
    settings: Settings,
    database_url: str,
    limits_url: str,
    **options: Any,  # noqa: ANN401 - FairWorker's own
) -> FairWorker:
    """A worker that keeps one installation's database in order.

    Args:
        settings: of the installation.
        database_url: PostgreSQL, migrated.
        limits_url: the Redis where decisions are counted.
        options: further arguments of `FairWorker`.

    Raises:
        CannotRun: an option cannot be.
    """
    engine = create_ledger_engine(database_url)
    stack = AsyncExitStack()
    stack.push_async_callback(engine.dispose)

    async def open_stores(ctx: dict[str, Any]) -> None:
        redis = ctx["redis"]
        ctx[SWEEPER] = Sweeper(QuotaStore(engine))
        ctx[MARK] = Mark(redis, redis.default_queue_name)
        ctx[ROLLER] = await stack.enter_async_context(
            open_roller(engine, settings, limits_url, redis)
        )
        limits = connect(limits_url)
        stack.push_async_callback(disconnect, limits)
        neighbours = Neighbours(
            NeighbourStore(engine),
            usage_sources(limits, settings.key_prefix, redis),
            FollowedPolicy(settings.config),
        )
        ctx[JUDGING] = await stack.enter_async_context(open_judging(engine, neighbours, settings))

    async def close_stores(_ctx: dict[str, Any]) -> None:
        await stack.aclose()

    return worker_of(
        MaintenanceSettings, on_startup=open_stores, on_shutdown=close_stores, **options
    )
