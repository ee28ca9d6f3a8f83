"""What was leased and not spent goes back, and what came too late."""

import asyncio
from typing import Any

import pytest

from partywall.errors import SidecarUnavailable
from partywall.permits import RETURN_SECONDS
from partywall.protocol import GiveBack, PermitsAnswer
from tests.unit.sdk.asgi import (
    Sidecar,
    granted,
)
from tests.unit.sdk.held import AWAY, make_hot, permits_of, virtually


class TestGivingBack:
    @virtually
    async def test_what_was_not_spent_goes_back_when_its_lease_ends_without_traffic(self):
        sidecar = Sidecar()
        permits = permits_of(sidecar)
        await make_hot(permits)
        ask = sidecar.asks[-1]
        permits.take("acme", "requests", 1)
        await asyncio.sleep(1)
        (back,) = sidecar.seen[-1].returns
        assert back == GiveBack("acme", "requests", ask.lease or "", ask.ahead - 1)
        assert sidecar.seen[-1].asks == []
        await asyncio.sleep(60)
        assert len(sidecar.seen) == 3

    @virtually
    async def test_it_is_tried_until_it_is_acknowledged_always_by_its_lease(self):
        sidecar = Sidecar()
        permits = permits_of(sidecar)
        await make_hot(permits)
        sent: list[Any] = []
        failures = 3

        async def lease(request: Any) -> PermitsAnswer:
            sent.append(request.returns)
            if len(sent) <= failures:
                raise SidecarUnavailable("away")
            return PermitsAnswer([granted(ask) for ask in request.asks])

        permits._lease = lease
        for _ in range(failures + 2):
            await asyncio.sleep(0.5)
            await permits.decide("beta", "requests")
        back = [one for returns in sent for one in returns if one.tenant == "acme"]
        assert len(back) == failures + 1
        assert {one.lease for one in back} == {sidecar.asks[-1].lease}

    @virtually
    async def test_it_is_dropped_after_its_time(self):
        sidecar = Sidecar()
        permits = permits_of(sidecar)
        await make_hot(permits)
        sidecar.away = AWAY
        await asyncio.sleep(1)
        assert sidecar.seen[-1].returns
        sidecar.away = None
        await asyncio.sleep(RETURN_SECONDS)
        await permits.decide("gamma", "requests")
        await permits.aclose()
        assert sidecar.seen[-1].returns == []

    @virtually
    async def test_an_answer_that_comes_too_late_is_not_used_and_given_back(self):
        sidecar = Sidecar()
        permits = permits_of(sidecar, deadline=0.25)
        await make_hot(permits)
        permits.take("acme", "requests", sidecar.asks[-1].ahead)  # all that is in hand
        sidecar.answer = lambda ask: granted(ask, seconds=0.1)
        sidecar.latency = 0.2
        checking = asyncio.ensure_future(permits.decide("acme", "requests"))
        await asyncio.sleep(0.19)
        late = sidecar.asks[-1]
        sidecar.latency = 0.01
        decision = await checking
        assert (decision.allowed, decision.degraded) == (True, False)
        (back,) = sidecar.seen[-1].returns
        assert back == GiveBack("acme", "requests", late.lease or "", late.need + late.ahead)
        assert sidecar.asks[-1].need == 1

    @virtually
    async def test_a_sidecar_that_is_always_too_late_is_not_waited_for_longer_than_the_deadline(
        self,
    ):
        sidecar = Sidecar(lambda ask: granted(ask, seconds=0.1))
        sidecar.latency = 0.2
        permits = permits_of(sidecar, deadline=0.25)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        decision = await permits.decide("acme", "requests")
        assert decision.degraded
        assert loop.time() - begun == pytest.approx(0.4)

    @virtually
    async def test_closing_gives_back_all_that_is_in_hand_and_what_is_still_on_its_way(self):
        sidecar = Sidecar()
        permits = permits_of(sidecar)
        for tenant in ("acme", "beta"):
            await make_hot(permits, tenant)
        permits.take("beta", "requests", sidecar.asks[-1].ahead)  # all that is in hand
        sidecar.latency = 0.01
        waiting = [
            asyncio.ensure_future(permits.decide(name, "requests")) for name in ("beta", "x")
        ]
        await asyncio.sleep(0)
        await permits.aclose()
        assert all([await one for one in waiting])
        leases = {ask.lease: ask.ahead for ask in sidecar.asks if ask.ahead and ask.tenant != "x"}
        back = {one.lease: one.units for request in sidecar.seen for one in request.returns}
        acme, _, last = leases
        assert back == {acme: leases[acme], last: leases[last]}

    @virtually
    async def test_closing_waits_for_checks_that_wait_for_a_place(self):
        sidecar = Sidecar()
        sidecar.latency = 0.01
        permits = permits_of(sidecar)
        waiting = []
        for number in range(5):
            waiting.append(asyncio.ensure_future(permits.decide(f"t{number}", "requests")))
            await asyncio.sleep(0.001)
        await permits.aclose()
        assert [one.done() and not one.result().degraded for one in waiting] == [True] * 5

    @virtually
    async def test_closing_does_not_wait_for_a_sidecar_that_is_away(self):
        sidecar = Sidecar()
        permits = permits_of(sidecar)
        await make_hot(permits)
        sidecar.away = AWAY
        await permits.aclose()
        assert len(sidecar.seen) == 3

    @virtually
    async def test_after_closing_checks_are_decided_without_asking(self):
        sidecar = Sidecar()
        permits = permits_of(sidecar)
        await permits.aclose()
        assert (await permits.decide("acme", "requests")).degraded
        assert sidecar.seen == []
