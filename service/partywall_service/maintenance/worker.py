"""The worker that runs the maintenance jobs, and nothing else."""

import logging
from typing import Any

from arq.cron import cron

from partywall_service.ledger.engine import create_ledger_engine
from partywall_service.maintenance.jobs import MARK, SWEEPER, expire_reservations, forget_answers
from partywall_service.maintenance.mark import Mark
from partywall_service.quotas.store import QuotaStore
from partywall_service.quotas.sweep import FORGET_EVERY, Sweeper
from partywall_workers.command import worker_of
from partywall_workers.policy import SYSTEM_LANE, SYSTEM_TENANT
from partywall_workers.settings import FairWorkerSettings
from partywall_workers.worker import FairWorker

TIMEOUT = 30
"""Seconds a job may take; each is some short statements."""

MOST_AT_ONCE = 4
"""Jobs at once: what one of them waits for, the next would only wait for, too."""


class MaintenanceSettings(FairWorkerSettings):
    """What it runs, and when."""

    queues = (SYSTEM_LANE,)
    cron_tenant = SYSTEM_TENANT
    cron_jobs = (
        cron(expire_reservations, name="expire_reservations", second=set(range(60))),
        cron(forget_answers, name="forget_answers", second=set(range(0, 60, FORGET_EVERY))),
    )
    job_timeout = TIMEOUT
    max_jobs = MOST_AT_ONCE


def maintenance_worker(database_url: str, **options: Any) -> FairWorker:  # noqa: ANN401 - its own
    """A worker that keeps one installation's database in order.

    Args:
        database_url: PostgreSQL, migrated.
        options: further arguments of `FairWorker`.

    Raises:
        CannotRun: an option cannot be.
    """
    # Each job says that it starts and ends, and there is one a second.
    logging.getLogger("arq.worker").setLevel(logging.WARNING)
    engine = create_ledger_engine(database_url)

    async def open_store(ctx: dict[str, Any]) -> None:
        ctx[SWEEPER] = Sweeper(QuotaStore(engine))
        ctx[MARK] = Mark(ctx["redis"], ctx["redis"].default_queue_name)

    async def close_store(_ctx: dict[str, Any]) -> None:
        await engine.dispose()

    return worker_of(MaintenanceSettings, on_startup=open_store, on_shutdown=close_store, **options)
