"""The roll-up: closed points into PostgreSQL, beside a plain COPY of the same rows."""

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from statistics import median

from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks import setup
from benchmarks.report import Row
from partywall_service.ledger import create_ledger_engine
from partywall_service.usage import keys
from partywall_service.usage.limits_source import BATCH, LimitsSource
from partywall_service.usage.meters import IN_FLIGHT, limit_meter
from partywall_service.usage.rollup import Retention, RollUp
from partywall_service.usage.source import Point
from partywall_service.usage.spans import instant_of, minute_of
from partywall_service.usage.store import UsageStore

TENANTS = 10_000
METERS = (
    limit_meter("requests", "admitted"),
    limit_meter("requests", "denied"),
    "requests.2xx",
    "jobs.started",
    IN_FLIGHT,
)
ROUNDS = 5
WANTED = 50_000
PREFIX = "bench-rollup"

_PEER = """
    CREATE TABLE IF NOT EXISTS plain_minutes (LIKE usage_minutes INCLUDING ALL)
"""
_COPY = "COPY plain_minutes (tenant, meter, start, value) FROM STDIN"
_EMPTY = "TRUNCATE plain_minutes, usage_minutes, usage_hours, usage_days, usage_pending"

Way = Callable[[Sequence[Point]], Awaitable[None]]


async def run(stores: setup.Stores) -> list[Row]:
    """A minute of each in turn, so that a noisy moment of the machine hits all alike."""
    beside = os.sched_getaffinity(0)
    os.sched_setaffinity(0, setup.MEASURED)
    engine = create_ledger_engine(stores.database_url, statement_timeout=60)
    try:
        async with Redis.from_url(stores.redis_url) as client:
            return await _measured(engine, client)
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS plain_minutes"))
        await engine.dispose()
        os.sched_setaffinity(0, beside)


async def _measured(engine: AsyncEngine, client: Redis) -> list[Row]:
    store = UsageStore(engine)
    source = LimitsSource(client, PREFIX, 60.0)
    roll_up = RollUp(store, [source], Retention(7, 90, 800))
    async with engine.begin() as connection:
        await connection.execute(text(_PEER))
        await connection.execute(text(_EMPTY))

    async def copied(points: Sequence[Point]) -> None:
        for batch in _batches(points):
            await _copy(engine, batch)

    async def upserted(points: Sequence[Point]) -> None:
        for batch in _batches(points):
            await store.upsert(batch)

    async def rolled_up(points: Sequence[Point]) -> None:
        assert await roll_up.run() == len(points)

    ways: dict[str, Way] = {"copy": copied, "upsert": upserted, "again": upserted}
    rates: dict[str, list[float]] = {name: [] for name in (*ways, "roll-up")}
    minute = minute_of(datetime.now(UTC)) - 2 * ROUNDS - 10
    for number in range(ROUNDS):
        points = _points(minute + 2 * number)
        for name, way in ways.items():
            rates[name].append(await _rate(way, points))
        waiting = _points(minute + 2 * number + 1)
        await _count(client, waiting)
        rates["roll-up"].append(await _rate(rolled_up, waiting))
    middle = {name: median(values) for name, values in rates.items()}
    what = f"points/s into PostgreSQL, {TENANTS:,} tenants"
    beside = "COPY of the same rows, with the same key"
    return [
        _row(f"closed {what}", rates, "upsert", beside, ">= 0.25"),
        Row(
            f"closed {what}", middle["upsert"], WANTED, "as many", middle["upsert"] / WANTED, ">= 1"
        ),
        _row(f"closed {what}, that are there already", rates, "again", beside),
        _row(f"closed {what}, out of Valkey and removed there", rates, "roll-up", beside),
    ]


def _row(what: str, rates: dict[str, list[float]], ours: str, beside: str, wanted: str = "") -> Row:
    ratio = median(a / b for a, b in zip(rates[ours], rates["copy"], strict=True))
    return Row(what, median(rates[ours]), median(rates["copy"]), beside, ratio, wanted)


def _points(minute: int) -> list[Point]:
    return [
        Point(f"tenant-{number}", minute, meter, number * 1_000 + place)
        for number in range(TENANTS)
        for place, meter in enumerate(METERS)
    ]


def _batches(points: Sequence[Point]) -> list[Sequence[Point]]:
    return [points[first : first + BATCH] for first in range(0, len(points), BATCH)]


async def _rate(way: Way, points: Sequence[Point]) -> float:
    begun = time.perf_counter()
    await way(points)
    return len(points) / (time.perf_counter() - begun)


async def _copy(engine: AsyncEngine, points: Sequence[Point]) -> None:
    start = instant_of(points[0].minute).isoformat()
    lines = "".join([f"{one.tenant}\t{one.meter}\t{start}\t{one.value}\n" for one in points])
    async with engine.begin() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        async with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
            await copy.write(lines)


async def _count(client: Redis, points: Sequence[Point]) -> None:
    """As if decisions had counted these."""
    for batch in _batches(points):
        pipeline = client.pipeline(transaction=False)
        for one in batch:
            field = f"{one.minute}|{one.meter}"
            pipeline.hset(keys.usage(PREFIX, one.tenant), field, str(one.value))
            pipeline.sadd(keys.metered(PREFIX, keys.shard(one.tenant)), one.tenant)
        await pipeline.execute()
