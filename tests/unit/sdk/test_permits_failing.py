"""Questions that fail, what is told of it, and limits that nobody knows."""

import asyncio
import logging
from typing import Any

from partywall import permits as module
from partywall.permits import Permits
from partywall.protocol import MAX_ITEMS, Ask, Permit, PermitsAnswer
from tests.unit.sdk.asgi import (
    Sidecar,
    answering,
    granted,
    request,
)
from tests.unit.sdk.held import AWAY, decided, permits_of, virtually


class TestFailing:
    @virtually
    async def test_a_wrong_number_of_permits_is_no_answer_to_anybody(self, caplog):
        async def lease(request: Any) -> PermitsAnswer:
            return PermitsAnswer([granted(request.asks[0])])

        permits = Permits(lease, clock=asyncio.get_running_loop().time)
        decisions = await decided(permits, "acme", "beta")
        assert [one.degraded for one in decisions] == [True, True]
        assert "expected 2 permits, got 1" in caplog.text

    @virtually
    async def test_one_line_tells_of_an_outage_and_one_of_its_end(self, caplog):
        caplog.set_level(logging.WARNING, "partywall")
        sidecar = Sidecar()
        sidecar.away = AWAY
        permits = permits_of(sidecar)
        for _ in range(3):
            for _ in range(200):
                assert (await permits.decide("acme", "requests")).degraded
            await asyncio.sleep(0.1)
        assert len(sidecar.seen) == 3
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "away" in caplog.text
        assert "on_outage='local'" in caplog.text
        sidecar.away = None
        for _ in range(3):
            assert not (await permits.decide("acme", "requests")).degraded
        assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
        assert permits.counts == (603, 0, 600)

    @virtually
    async def test_another_cause_is_told_too(self, caplog):
        sidecar = Sidecar()
        sidecar.away = AWAY
        permits = permits_of(sidecar)
        await permits.decide("acme", "requests")
        await asyncio.sleep(0.1)
        sidecar.away = module.UnexpectedAnswer("a proxy's page")
        await permits.decide("acme", "requests")
        assert len(caplog.records) == 2
        assert "a proxy's page" in caplog.text

    @virtually
    async def test_a_fault_of_our_own_leaves_nobody_waiting_and_is_not_hidden(self):
        shown: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: shown.append(context["exception"])
        )
        sidecar = Sidecar()
        sidecar.away = fault = RuntimeError("a bug")
        permits = permits_of(sidecar)
        assert [one.degraded for one in await decided(permits, "acme", "beta", "acme")] == [
            True
        ] * 3
        await asyncio.sleep(0.1)
        assert shown == [fault]
        sidecar.away = None
        assert not (await permits.decide("acme", "requests")).degraded

    @virtually
    async def test_a_question_that_is_cancelled_leaves_nobody_waiting(self):
        """As when an event loop is shut down."""
        sidecar = Sidecar()
        sidecar.latency = 10.0
        permits = permits_of(sidecar)
        checking = asyncio.ensure_future(permits.decide("acme", "requests"))
        await asyncio.sleep(0.01)
        for call in list(permits._calls):
            call.cancel()
        assert (await checking).degraded

    @virtually
    async def test_a_decision_without_the_shared_store_is_marked_and_counted(self):
        permits = permits_of(Sidecar(lambda ask: granted(ask, degraded=True, seconds=0.4)))
        assert (await permits.decide("acme", "requests")).degraded
        assert permits.counts == (1, 0, 1)

    @virtually
    async def test_a_unit_of_a_degraded_grant_is_degraded_whenever_it_is_spent(self):
        def ahead(ask: Ask) -> Permit:
            return granted(ask, degraded=True, granted=ask.need + 3)

        permits = permits_of(Sidecar(ahead))
        for _ in range(4):
            assert (await permits.decide("acme", "requests")).degraded

    @virtually
    async def test_a_tenant_that_the_sidecar_cannot_read_is_an_outage_of_its_own(self):
        """A limit that is closed then has a tier, and stays a denial."""
        sidecar = Sidecar(lambda ask: Permit(False, None, "unavailable", retry_after=1.0))
        permits = permits_of(sidecar, on_outage="open")
        (decision,) = await decided(permits, "acme")
        assert (decision.allowed, decision.degraded) == (True, True)
        sidecar.answer = lambda ask: Permit(False, "free", "unavailable", retry_after=1.0)
        (decision,) = await decided(permits, "acme")
        assert (decision.allowed, decision.reason) == (False, "unavailable")


class TestUnknownLimits:
    async def test_an_unknown_limit_passes_and_is_told_once(self, caplog):
        sidecar = Sidecar(lambda ask: Permit(False, "free", "unknown-limit", retry_after=None))
        app = sidecar.governing(answering(), limit="reqests")
        for tenant in ("acme", "beta", "acme"):
            answer = await request(app, tenant=tenant)
            assert answer.status == 200
            assert not any("ratelimit" in name for name in answer.names())
        (record,) = caplog.records
        assert (record.levelname, "'reqests'" in record.getMessage()) == ("ERROR", True)

    @virtually
    async def test_names_that_clients_make_up_do_not_fill_the_log(self, caplog):
        permits = permits_of(
            Sidecar(lambda ask: Permit(False, "free", "unknown-limit", retry_after=None))
        )
        for number in range(MAX_ITEMS + 10):
            await permits.decide("acme", f"made-up-{number}")
        assert len(caplog.records) == MAX_ITEMS
