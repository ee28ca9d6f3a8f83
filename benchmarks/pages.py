"""The dashboard's pages over 10,000 tenants with 30 days of usage, beside single-row queries."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from statistics import median

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks import setup
from benchmarks.report import Row
from partywall_service.ledger import Ledger, create_ledger_engine
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.loader import load_policy
from partywall_service.usage import pulse
from partywall_service.usage.judging import Judge
from partywall_service.usage.neighbours import Neighbours, NeighbourStore
from partywall_service.usage.partitions import USAGE_DAYS, USAGE_HOURS, USAGE_MINUTES, ensure

TENANTS = 10_000
DAYS = 30
QUERIES = 20
ROUNDS = 60

_TENANTS = f"""
    INSERT INTO tenants (tenant, name, tier, status)
    SELECT 'page-' || n, 'Tenant ' || n, 'free', 'active' FROM generate_series(1, {TENANTS}) AS n
"""
_METERS = "unnest(ARRAY['limits.requests.admitted', 'limits.requests.denied', 'requests.2xx'])"
_FILL = """
    INSERT INTO usage_{table} (tenant, meter, start, value)
    SELECT 'page-' || n, meter, start, n % 97 + 1
    FROM generate_series(1, {tenants}) AS n, {meters} AS meter,
        generate_series(CAST(:first AS timestamptz), :last, interval '1 {step}') AS start
"""


async def run(stores: setup.Stores) -> list[Row]:
    """A page, then the queries, by turns; medians of each."""
    engine = create_ledger_engine(stores.database_url, statement_timeout=600)
    try:
        await _fill(engine)
        with setup.sidecar(stores) as url:
            await _judge(engine, stores)
            rows = await _measured(engine, url)
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("DELETE FROM tenants WHERE tenant LIKE 'page-%'"))
            for table in ("minutes", "hours", "days"):
                await connection.execute(text(f"TRUNCATE usage_{table}"))
        await engine.dispose()
    return rows


async def _fill(engine: AsyncEngine) -> None:
    """Days and hours of 30 days, and the minutes of the last hour.

    Of hours a tenant has one meter, to fill the tables in a minute: a page reads one tenant's.
    """
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    hour, day = now.replace(minute=0), now.replace(hour=0, minute=0)
    parts = (
        (USAGE_DAYS, "day", timedelta(days=1), day - timedelta(days=DAYS), day, _METERS),
        (
            *(USAGE_HOURS, "hour", timedelta(hours=1)),
            *(hour - timedelta(days=DAYS), hour, "unnest(ARRAY['limits.requests.admitted'])"),
        ),
        (
            *(USAGE_MINUTES, "minute", timedelta(minutes=1)),
            *(now - timedelta(hours=1), now, _METERS),
        ),
    )
    async with engine.begin() as connection:
        await connection.execute(text(_TENANTS))
    for table, step, length, first, last, meters in parts:
        name = table.name.removeprefix("usage_")
        statement = _FILL.format(table=name, step=step, tenants=TENANTS, meters=meters)
        async with engine.begin() as connection:
            moments = [first + n * length for n in range(int((last - first) / length) + 1)]
            await ensure(connection, table, moments)
            values = {"first": first, "last": last - length}
            await connection.execute(text(statement), values)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("ANALYZE"))


async def _judge(engine: AsyncEngine, stores: setup.Stores) -> None:
    """What the maintenance worker does every 15 seconds."""
    policy = PolicyHolder(load_policy(next(stores.directory.glob("quotas-*.toml"))))
    neighbours = Neighbours(NeighbourStore(engine), [], policy)
    await Judge(engine, neighbours).run()
    await pulse.PulseStore(engine).write(await pulse.count(neighbours))


async def _measured(engine: AsyncEngine, url: str) -> list[Row]:
    times: dict[str, list[float]] = {"overview": [], "tenant": [], "queries": []}
    ledger = Ledger(engine)
    async with httpx.AsyncClient(base_url=url, timeout=30, verify=False) as client:
        answer = await client.post("/dashboard/sign-in", data={"token": setup.TOKEN})
        assert answer.status_code == 303, answer.text

        async def page(path: str) -> None:
            answer = await client.get(path)
            assert answer.status_code == 200, answer.text

        async def queries(number: int) -> None:
            for one in range(QUERIES):
                tenant = f"page-{(number * QUERIES + one) % TENANTS + 1}"
                assert await ledger.get_tenant(tenant) is not None

        for number in range(ROUNDS):
            await _timed(times["overview"], lambda: page("/dashboard"))
            await _timed(times["queries"], lambda number=number: queries(number))
            path = f"/dashboard/tenants/page-{number * 7 % TENANTS + 1}"
            await _timed(times["tenant"], lambda path=path: page(path))
    middle = {name: 1000 * median(of) for name, of in times.items()}
    beside = f"{QUERIES} single-row queries, one after another"
    return [
        Row(
            f"dashboard: {name}, ms, {TENANTS:,} tenants, {DAYS} days",
            middle[name],
            middle["queries"],
            beside,
            middle[name] / middle["queries"],
            "<= 1.0",
        )
        for name in ("overview", "tenant")
    ]


async def _timed(times: list[float], act: Callable[[], Awaitable[None]]) -> None:
    begun = time.perf_counter()
    await act()
    times.append(time.perf_counter() - begun)
