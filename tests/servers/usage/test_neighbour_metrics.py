"""What a scrape tells of the busiest tenants."""

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.embedded import PostgresServer
from partywall_service.ledger import create_ledger_engine
from partywall_service.ledger.migrations import upgrade
from partywall_service.ledger.tables import neighbours
from partywall_service.metrics import Metrics
from partywall_service.usage.neighbour_metrics import (
    DEADLINE,
    FRESH,
    MOST_NAMED,
    STALE,
    Busiest,
    BusiestStore,
    NeighbourMetrics,
)
from tests.support.virtual_time import run_virtually

FAMILIES = 7
"""That name tenants."""


async def write(engine: AsyncEngine, *rows: dict[str, Any], age: timedelta = timedelta(0)) -> None:
    """As the maintenance jobs do."""
    usual = {
        "computed_at": func.clock_timestamp() - age,
        "window_seconds": 3600,
        "tier": "free",
        "requests": 0,
        "denied": 0,
        "in_flight_us": 0,
        "job_run_us": 0,
        "share": 0.0,
        "fair_share": 0.0,
        "resource": "requests",
        "verdict": "normal",
    }
    async with engine.begin() as connection:
        for row in rows:
            await connection.execute(insert(neighbours).values({**usual, **row}))


async def told(engine: AsyncEngine) -> dict[str, float]:
    """Every sample of a scrape, by its name with its labels."""
    metrics = Metrics()
    metrics.sources.append(NeighbourMetrics(BusiestStore(engine)))
    lines = (await metrics.render()).decode().splitlines()
    ours = [line for line in lines if re.match("partywall_(tenant|neighbors)", line)]
    samples = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in ours}
    assert len(samples) == len(ours)  # none twice
    return samples


async def test_the_busiest_are_told_with_what_they_did(ledger_engine: AsyncEngine) -> None:
    noisy = {"requests": 900, "denied": 800, "share": 0.9, "fair_share": 0.25, "verdict": "noisy"}
    await write(
        ledger_engine,
        {"tenant": "loud", "in_flight_us": 2_500_000, "job_run_us": 1_000_000, **noisy},
        {"tenant": "quiet", "tier": "pro", "requests": 100, "share": 0.1, "verdict": "victim"},
        age=timedelta(seconds=30),
    )
    samples = await told(ledger_engine)
    loud = {name: value for name, value in samples.items() if 'tenant="loud"' in name}
    assert loud == {
        'partywall_tenant_requests{tenant="loud"}': 900,
        'partywall_tenant_denied{tenant="loud"}': 800,
        'partywall_tenant_in_flight_seconds{tenant="loud"}': 2.5,
        'partywall_tenant_job_run_seconds{tenant="loud"}': 1,
        'partywall_tenant_share{tenant="loud"}': 0.9,
        'partywall_tenant_fair_share{tenant="loud"}': 0.25,
        'partywall_tenant_verdict{tenant="loud",tier="free",verdict="noisy"}': 1,
    }
    assert samples['partywall_tenant_verdict{tenant="quiet",tier="pro",verdict="victim"}'] == 1
    counted = ("noisy", "normal", "victim")
    assert [samples[f'partywall_neighbors{{verdict="{one}"}}'] for one in counted] == [1, 0, 1]
    assert 30 <= samples["partywall_neighbors_age_seconds"] < 90


async def test_however_many_tenants_come_few_are_named(ledger_engine: AsyncEngine) -> None:
    sizes = []
    for hundred in range(10):
        some = range(100 * hundred, 100 * (hundred + 1))
        await write(ledger_engine, *({"tenant": f"t{n}", "share": n / 1000} for n in some))
        samples = await told(ledger_engine)
        sizes.append(len(samples))
    assert set(sizes) == {FAMILIES * MOST_NAMED + 3 + 1}
    shares = [name for name in samples if name.startswith("partywall_tenant_share")]
    assert set(shares) == {f'partywall_tenant_share{{tenant="t{n}"}}' for n in range(980, 1000)}
    assert samples['partywall_neighbors{verdict="normal"}'] == 1000


async def test_before_anybody_is_judged_nobody_is_told(ledger_engine: AsyncEngine) -> None:
    assert await told(ledger_engine) == {
        f'partywall_neighbors{{verdict="{one}"}}': 0 for one in ("noisy", "normal", "victim")
    }


async def test_what_is_long_ago_is_not_told_as_if_it_were_now(ledger_engine: AsyncEngine) -> None:
    await write(ledger_engine, {"tenant": "loud", "share": 1.0}, age=2 * STALE)
    assert set(await told(ledger_engine)) == {"partywall_neighbors_age_seconds"}


async def test_a_database_that_is_away_fails_no_scrape(own_postgres: PostgresServer) -> None:
    upgrade(own_postgres.url)
    engine = create_ledger_engine(own_postgres.url)
    await write(engine, {"tenant": "loud"})
    assert await told(engine)
    own_postgres.stop()
    assert await told(engine) == {}
    await engine.dispose()


class Store:
    """Answers, or hangs, as a test wants."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.reads = 0
        self._hangs = hangs

    async def busiest(self) -> Busiest:
        self.reads += 1
        if self._hangs:
            await asyncio.Event().wait()
        return Busiest((), {"noisy": 0, "normal": 0, "victim": 0}, None)


def test_a_database_that_hangs_holds_a_scrape_up_for_its_deadline_once() -> None:
    async def main() -> None:
        metrics = Metrics()
        metrics.sources += [
            NeighbourMetrics(Store(hangs=True)),
            NeighbourMetrics(Store(hangs=True)),
        ]
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert b"partywall_neighbors" not in await metrics.render()
        assert loop.time() - began == pytest.approx(DEADLINE)

    run_virtually(main())


async def test_a_reading_is_told_again_for_a_moment() -> None:
    now = 100.0
    store = Store()
    metrics = NeighbourMetrics(store, clock=lambda: now)
    first = await metrics.families()
    now += FRESH - 0.1
    assert await metrics.families() is first
    now += 0.1
    await asyncio.gather(*(metrics.families() for _ in range(5)))
    assert store.reads == 2
