"""One failed call opens the circuit, one beat that gets through closes it."""

import asyncio
from collections.abc import Sequence

import pytest

from partywall_service.engine import breaker as module
from partywall_service.engine.base import Check, StoreError, Verdict
from partywall_service.engine.breaker import CircuitBreaker


class Store:
    """A store that is up or down."""

    def __init__(self) -> None:
        self.up = True
        self.calls = 0
        self.beats = 0
        self.beaten = asyncio.Event()

    async def decide(self, checks: Sequence[Check]) -> list[Verdict]:
        self.calls += 1
        if not self.up:
            raise StoreError("down")
        return []

    async def beat(self) -> None:
        self.beats += 1
        self.beaten.set()
        if not self.up:
            raise StoreError("down")

    async def next_beat(self) -> None:
        self.beaten.clear()
        await self.beaten.wait()
        await asyncio.sleep(0)


@pytest.fixture
def quick(monkeypatch):
    """Beats follow one another without waiting."""
    monkeypatch.setattr(module, "HEALTHY_INTERVAL", 0.001)
    monkeypatch.setattr(module, "OUTAGE_INTERVAL", 0.001)


async def test_an_open_circuit_fails_at_once_without_asking_the_store():
    store = Store()
    breaker = CircuitBreaker(store, store.beat)
    store.up = False
    for _ in range(5):
        with pytest.raises(StoreError):
            await breaker.decide([])
    assert (store.calls, breaker.closed) == (1, False)


async def test_it_closes_by_itself_when_the_store_is_back(quick):
    store, changes = Store(), []
    breaker = CircuitBreaker(store, store.beat, changes.append)
    watch = asyncio.create_task(breaker.watch())
    store.up = False
    with pytest.raises(StoreError):
        await breaker.decide([])
    await store.next_beat()
    assert not breaker.closed
    store.up = True
    await store.next_beat()
    assert breaker.closed
    assert await breaker.decide([]) == []
    assert changes == [False, True]
    watch.cancel()


async def test_an_outage_without_traffic_is_noticed_by_the_beats(quick):
    store, changes = Store(), []
    breaker = CircuitBreaker(store, store.beat, changes.append)
    watch = asyncio.create_task(breaker.watch())
    await store.next_beat()
    store.up = False
    await store.next_beat()
    assert (breaker.closed, changes) == (False, [False])
    watch.cancel()


async def test_a_failure_is_probed_at_once_and_not_after_a_healthy_interval(monkeypatch):
    monkeypatch.setattr(module, "HEALTHY_INTERVAL", 3600)
    store = Store()
    breaker = CircuitBreaker(store, store.beat)
    watch = asyncio.create_task(breaker.watch())
    await store.next_beat()
    store.up = False
    with pytest.raises(StoreError):
        await breaker.decide([])
    store.up = True
    async with asyncio.timeout(5):
        await store.next_beat()
    assert breaker.closed
    watch.cancel()
