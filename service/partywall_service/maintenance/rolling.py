"""Who rolls usage up: a maintenance job, and sidecars where it does not run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.engine.connect import connect, disconnect
from partywall_service.settings import Settings
from partywall_service.usage.connect import usage_sources
from partywall_service.usage.rollup import EVERY, LATELY, Retention, Roller, RollUp
from partywall_service.usage.store import UsageStore
from partywall_workers.redis import FairRedis

ROLLER = "roller"
"""Where the worker's context has it."""

SECONDS = frozenset(range(5, 60, EVERY))
"""Of each minute, at which the job runs: what minutes came to is known soon after they are over."""

TIMEOUT = 300
"""Seconds that one may take where much has gathered; the next goes on where it ended."""


async def roll_up_usage(ctx: dict[str, Any]) -> None:
    """Moves usage from Redis to PostgreSQL and sums it up."""
    roller: Roller = ctx[ROLLER]
    await roller.roll()


async def roll_up_where_nobody_does(roller: Roller) -> None:
    """Rolls up whenever nobody else did lately, until cancelled."""
    while True:
        await asyncio.sleep(EVERY)
        await roller.roll(unless_within=LATELY)


@asynccontextmanager
async def open_roller(
    engine: AsyncEngine, settings: Settings, redis_url: str, jobs: FairRedis | None
) -> AsyncIterator[Roller]:
    """What rolls up, until the block ends.

    Args:
        engine: PostgreSQL.
        settings: what keys begin with, and how long usage is kept.
        redis_url: where decisions are counted.
        jobs: where jobs are; None where there can be none.

    Raises:
        RedisUrlError: the URL cannot be read.
    """
    keep = Retention(
        settings.usage_keep_minutes, settings.usage_keep_hours, settings.usage_keep_days
    )
    client = connect(redis_url)
    try:
        sources = usage_sources(client, settings.key_prefix, jobs)
        yield Roller(RollUp(UsageStore(engine), sources, keep))
    finally:
        await disconnect(client)
