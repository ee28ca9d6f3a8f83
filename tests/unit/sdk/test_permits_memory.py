"""What permits cost in memory, however many tenants come by."""

import asyncio
import tracemalloc
from collections.abc import Iterable

import pytest

from partywall import permits as module
from partywall.protocol import Permit
from tests.unit.sdk.asgi import (
    Sidecar,
    granted,
    refusing,
)
from tests.unit.sdk.held import AWAY, decided, make_hot, permits_of, virtually


class TestMemory:
    @virtually
    async def test_at_most_two_generations_are_remembered(self, monkeypatch):
        monkeypatch.setattr(module, "GENERATION_SIZE", 10)
        permits = permits_of(Sidecar())
        for tenant in self.visits():
            await permits.decide(tenant, "requests")
            assert len(permits) <= 20

    def visits(self) -> Iterable[str]:
        """New ones, and in between all of those seen not long ago, again and again."""
        for number in range(200):
            yield f"t{number}"
            for recent in range(max(0, number - 30), number):
                yield f"t{recent}"

    @virtually
    async def test_who_is_used_stays_and_who_is_idle_leaves(self):
        sidecar = Sidecar(lambda ask: Permit(True, "free", seconds=0.4))
        permits = permits_of(sidecar)
        await decided(permits, "acme", "idle")
        for _ in range(70):
            await asyncio.sleep(1)
            await permits.decide("acme", "requests")
        assert len(permits) == 1

    @virtually
    async def test_units_of_one_who_was_forgotten_go_back_all_the_same(self, monkeypatch):
        monkeypatch.setattr(module, "GENERATION_SIZE", 2)
        sidecar = Sidecar()
        permits = permits_of(sidecar)
        await make_hot(permits)
        await decided(permits, *(f"t{number}" for number in range(10)))
        assert permits.take("acme", "requests", 1) is None
        await asyncio.sleep(1)
        (back,) = [one for question in sidecar.seen for one in question.returns]
        assert back.tenant == "acme"

    @pytest.mark.parametrize(
        ("answer", "away"), [(granted, None), (refusing, None), (granted, AWAY)]
    )
    @virtually
    async def test_tenants_that_come_once_cost_no_lasting_memory(self, answer, away, monkeypatch):
        """Real sizes would take minutes here; what is kept hangs on the size alone."""
        monkeypatch.setattr(module, "GENERATION_SIZE", 500)
        sidecar = Sidecar(answer)
        sidecar.away = away
        permits = permits_of(sidecar)

        async def visit(numbers: range) -> int:
            for first in numbers[::100]:
                await decided(permits, *(f"t{one}" for one in range(first, first + 100)))
            sidecar.seen.clear()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            before = await visit(range(2_000))
            after = await visit(range(2_000, 12_000))
        finally:
            tracemalloc.stop()
        assert len(permits) <= 1000
        assert after < before + 500_000
