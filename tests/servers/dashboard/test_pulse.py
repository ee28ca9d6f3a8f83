"""The pulse: how much is decided, counted at one place and read at others."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.maintenance.judging import open_judging
from partywall_service.policy.holder import PolicyHolder
from partywall_service.settings import Settings
from partywall_service.usage.neighbours import Neighbours, NeighbourStore
from partywall_service.usage.pulse import WINDOW, Pulse, PulseStore, count
from partywall_workers.queue import FairQueue
from tests.support.api import policy


async def test_the_last_pulse_is_kept(ledger_engine: AsyncEngine) -> None:
    store = PulseStore(ledger_engine)
    assert await store.read() is None
    for number in (1, 2):
        pulse = Pulse(datetime(2026, 11, 21, 12, number, tzinfo=UTC), 250.5, number, 0, 1)
        await store.write(pulse)
        assert await store.read() == pulse


async def test_it_is_what_all_tenants_asked_lately() -> None:
    class Judge:
        async def judge(self, window: timedelta) -> list[SimpleNamespace]:
            assert window == WINDOW
            return [
                SimpleNamespace(requests=900, denied=300),
                SimpleNamespace(requests=100, denied=0),
                SimpleNamespace(requests=0, denied=0),  # it only has jobs
            ]

    pulse = await count(Judge())  # type: ignore[arg-type] # verdicts with what is counted of them
    assert (pulse.requests, pulse.denied, pulse.tenants) == (1000, 300, 2)
    assert pulse.denied_share == 0.3
    assert WINDOW.total_seconds() - 60 <= pulse.seconds <= WINDOW.total_seconds()
    assert pulse.rate == 1000 / pulse.seconds


async def test_maintenance_counts_it_beside_the_judgement(
    ledger_engine: AsyncEngine, jobs_queue: FairQueue
) -> None:
    store = PulseStore(ledger_engine)
    before = datetime.now(UTC)
    neighbours = Neighbours(NeighbourStore(ledger_engine), (), PolicyHolder(policy()))
    async with open_judging(ledger_engine, neighbours, Settings()) as judging:
        await judging.run(jobs_queue.redis)
    pulse = await store.read()
    assert pulse is not None
    assert pulse.at > before
