"""Who rolls up: the job, and a sidecar where nobody else does; from the Redis that counted."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import redis.asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.ledger import LedgerUnavailable
from partywall_service.maintenance.rolling import (
    ROLLER,
    open_roller,
    roll_up_usage,
    roll_up_where_nobody_does,
)
from partywall_service.maintenance.worker import MaintenanceSettings
from partywall_service.settings import Settings
from partywall_service.usage import keys
from partywall_service.usage.metrics import RollUpMetrics
from partywall_service.usage.rollup import EVERY
from partywall_service.usage.spans import instant_of, minute_of
from partywall_service.usage.store import Rolled, UsageStore
from partywall_workers.queue import FairQueue
from tests.servers.usage.counts import ADMITTED, rows


@pytest.fixture
async def counted(redis_client: redis.asyncio.Redis, key_prefix: str) -> datetime:
    """The minute in which `acme` was admitted 7 times."""
    minute = minute_of(datetime.now(UTC)) - 2
    usage = keys.usage(key_prefix, "acme")
    await redis_client.hset(usage, f"{minute}|{ADMITTED}", 7)
    await redis_client.expire(usage, 60)
    metered = keys.metered(key_prefix, keys.shard("acme"))
    await redis_client.sadd(metered, "acme")
    await redis_client.expire(metered, 60)
    return instant_of(minute)


async def test_the_job_moves_what_redis_counted(
    ledger_engine: AsyncEngine,
    redis_client: redis.asyncio.Redis,
    valkey_url: str,
    key_prefix: str,
    database_url: str,
    jobs_queue: FairQueue,
    counted: datetime,
) -> None:
    settings = Settings(key_prefix=key_prefix)
    async with open_roller(ledger_engine, settings, valkey_url, jobs_queue.redis) as roller:
        await roll_up_usage({ROLLER: roller})
    assert rows(database_url, "usage_minutes") == {("acme", ADMITTED, counted): 7}
    assert not await redis_client.exists(keys.usage(key_prefix, "acme"))


async def test_a_sidecar_does_it_where_nobody_does(
    ledger_engine: AsyncEngine,
    valkey_url: str,
    key_prefix: str,
    database_url: str,
    counted: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("partywall_service.maintenance.rolling.EVERY", 0.01)
    store = UsageStore(ledger_engine)
    await store.note(0)
    settings = Settings(key_prefix=key_prefix)
    async with open_roller(ledger_engine, settings, valkey_url, None) as roller:
        task = asyncio.create_task(roll_up_where_nobody_does(roller))
        try:
            await asyncio.sleep(0.1)  # some turns, at which it was done lately
            assert rows(database_url, "usage_minutes") == {}
            lately = "partywall_service.maintenance.rolling.LATELY"
            monkeypatch.setattr(lately, timedelta(0))
            async with asyncio.timeout(10):
                while True:
                    if rows(database_url, "usage_minutes"):
                        break
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert rows(database_url, "usage_minutes") == {("acme", ADMITTED, counted): 7}


def test_the_worker_rolls_up_twice_a_minute() -> None:
    (one,) = [cron for cron in MaintenanceSettings.cron_jobs if cron.name == "roll_up_usage"]
    assert one.second == {5, 5 + EVERY}
    assert one.timeout_s == 300


class Notes:
    def __init__(self, *noted: Rolled | Exception) -> None:
        self._noted = list(noted)

    async def rolled(self) -> Rolled:
        one = self._noted.pop(0)
        if isinstance(one, Exception):
            raise one
        return one


async def told(metrics: RollUpMetrics) -> dict[str, float]:
    families = await metrics.families()
    return {one.name: one.value for family in families for one in family.samples}


async def test_prometheus_is_told_how_long_ago_it_was() -> None:
    now = datetime.now(UTC)
    clock = iter(range(0, 100, 10)).__next__
    metrics = RollUpMetrics(
        Notes(
            Rolled(None, 0, now),
            Rolled(now - timedelta(seconds=40), 7, now),
            LedgerUnavailable("away"),
        ),
        clock=clock,
    )
    assert await told(metrics) == {"partywall_usage_points_total": 0}
    assert await told(metrics) == {
        "partywall_usage_points_total": 7,
        "partywall_usage_roll_up_age_seconds": 40,
    }
    assert await told(metrics) == {}
