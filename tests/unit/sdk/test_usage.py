"""What a process reports of its own decisions: each once, and nothing lost on the way."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from partywall import permits as permits_module
from partywall import usage as module
from partywall.decision import Window
from partywall.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    SidecarUnavailable,
    Unauthenticated,
    UnexpectedAnswer,
)
from partywall.permits import Permits
from partywall.protocol import MAX_ITEMS, Ask, Permit, UsageReport
from tests.unit.sdk.asgi import Sidecar, denied, granted, refusing
from tests.unit.sdk.held import AWAY, decided, make_hot, permits_of, virtually

ADMITTED = "limits.requests.admitted"
DENIED = "limits.requests.denied"
DEGRADED = "limits.requests.degraded"


def reporting(sidecar: Sidecar, **options: Any) -> Permits:
    return permits_of(sidecar, report=sidecar.report, **options)


def meters(report: UsageReport) -> dict[str, Mapping[str, int]]:
    """What a report says, by tenant."""
    assert len({one.tenant for one in report.usage}) == len(report.usage)
    return {one.tenant: one.meters for one in report.usage}


class TestReports:
    @virtually
    async def test_what_was_decided_is_reported_a_second_after_the_first_of_it(self):
        sidecar = Sidecar(lambda ask: denied() if ask.tenant == "beta" else granted(ask))
        permits = reporting(sidecar)
        await make_hot(permits)
        assert permits.take("acme", "requests", 1) is not None
        await decided(permits, "acme", "beta", "beta", "beta")
        await permits.decide("acme", "exports", 7)
        await asyncio.sleep(0.98)
        assert sidecar.reports == []
        await asyncio.sleep(0.02)
        (report,) = sidecar.reports
        assert (report.instance, report.sequence) == ("one", 1)
        assert report.age == pytest.approx(1.0)
        assert meters(report) == {
            "acme": {ADMITTED: 4, "limits.exports.admitted": 1},
            "beta": {DENIED: 3},
        }

    @virtually
    async def test_a_later_report_has_what_came_since_and_none_is_sent_of_nothing(self):
        sidecar = Sidecar()
        permits = reporting(sidecar)
        await decided(permits, "acme", "beta")
        await asyncio.sleep(100)
        assert len(sidecar.reports) == 1
        await decided(permits, "acme", "acme")
        await asyncio.sleep(100)
        _, report = sidecar.reports
        assert (report.sequence, meters(report)) == (2, {"acme": {ADMITTED: 2}})
        assert permits.counts == (4, 0, 0)

    def test_an_idle_process_has_no_timer(self):
        """So that this loop says that nothing else will come."""

        @virtually
        async def idle() -> None:
            permits = reporting(Sidecar())
            await permits.decide("acme", "requests")
            await asyncio.get_running_loop().create_future()

        with pytest.raises(RuntimeError, match="nothing will ever happen"):
            idle()

    @virtually
    async def test_many_tenants_are_reported_in_several_at_once(self):
        sidecar = Sidecar()
        permits = reporting(sidecar)
        tenants = [f"t{number}" for number in range(2 * MAX_ITEMS + 1)]
        await decided(permits, *tenants, *tenants)
        await asyncio.sleep(1)
        assert [len(report.usage) for report in sidecar.reports] == [MAX_ITEMS, MAX_ITEMS, 1]
        assert [report.sequence for report in sidecar.reports] == [1, 2, 3]
        assert sidecar.usage == {tenant: {ADMITTED: 2} for tenant in tenants}

    @virtually
    async def test_no_report_has_more_meters_than_a_request_can_carry(self, monkeypatch):
        monkeypatch.setattr(module, "MAX_METERS", 10)
        sidecar = Sidecar()
        permits = reporting(sidecar)
        for tenant in ("acme", "beta", "gamma"):
            for limit in range(7):
                await permits.decide(tenant, f"limit-{limit}")
        await permits.aclose()
        assert [len(report.usage) for report in sidecar.reports] == [2, 1]
        assert sum(sum(of.values()) for of in sidecar.usage.values()) == 21

    @virtually
    async def test_who_went_away_before_his_answer_is_not_counted(self):
        sidecar = Sidecar()
        sidecar.latency = 0.01
        permits = reporting(sidecar)
        gone = asyncio.ensure_future(permits.decide("acme", "requests"))
        stays = asyncio.ensure_future(permits.decide("acme", "requests"))
        await asyncio.sleep(0.005)
        gone.cancel()
        assert await stays
        await permits.aclose()
        assert sidecar.usage == {"acme": {ADMITTED: 1}}


class TestOutcomes:
    @pytest.mark.parametrize("reason", ["unknown-tenant", "unknown-limit"])
    @virtually
    async def test_who_is_unknown_or_asks_an_unknown_limit_is_not_reported(self, reason):
        tier = None if reason == "unknown-tenant" else "free"
        sidecar = Sidecar(lambda ask: Permit(False, tier, reason, seconds=0.4, retry_after=None))
        permits = reporting(sidecar)
        await decided(permits, "acme", "acme")
        await permits.aclose()
        assert sidecar.reports == []
        assert permits.counts == (0, 2, 0)

    @virtually
    async def test_what_was_counted_before_a_tenant_became_unknown_is_reported(self):
        sidecar = Sidecar()
        permits = reporting(sidecar)
        await decided(permits, "acme", "acme")
        sidecar.answer = lambda ask: Permit(False, None, "unknown-tenant", retry_after=None)
        await permits.decide("acme", "requests", 50)
        sidecar.answer = granted
        await asyncio.sleep(0.5)
        await permits.decide("acme", "requests")
        await permits.aclose()
        assert sidecar.usage == {"acme": {ADMITTED: 3}}

    @virtually
    async def test_an_observed_limit_would_deny_and_is_not_admitted_besides(self):
        full = Window(100, 60, 0, 30.0)

        def observed(ask: Ask) -> Permit:
            return Permit(True, "free", seconds=0.4, windows=(full,), would_deny=True)

        sidecar = Sidecar(observed)
        permits = reporting(sidecar)
        for cost in (1, 1, 5):
            assert await permits.decide("acme", "requests", cost)
        await permits.aclose()
        assert len(sidecar.seen) == 1
        assert sidecar.usage == {"acme": {"limits.requests.would_deny": 3}}
        assert permits.counts == (3, 0, 0)

    @virtually
    async def test_what_the_sidecar_decides_without_its_store_is_degraded_besides(self):
        def by_itself(ask: Ask) -> Permit:
            return granted(ask, degraded=True) if ask.tenant == "acme" else denied(degraded=True)

        sidecar = Sidecar(by_itself)
        permits = reporting(sidecar)
        await make_hot(permits)
        assert permits.take("acme", "requests", 1) is not None
        await decided(permits, "beta", "beta")
        await permits.aclose()
        assert sidecar.usage == {
            "acme": {ADMITTED: 3, DEGRADED: 3},
            "beta": {DENIED: 2, DEGRADED: 2},
        }

    @virtually
    async def test_decisions_of_an_outage_are_reported_when_the_sidecar_is_back(self):
        sidecar = Sidecar()
        permits = reporting(sidecar)
        await permits.decide("acme", "requests")
        await asyncio.sleep(0.5)
        sidecar.away = AWAY
        seen = [await permits.decide(f"{name}", "requests") for name in ("acme", "new") * 70]
        await asyncio.sleep(30)
        sidecar.away = None
        await asyncio.sleep(1)
        assert all(one.degraded for one in seen)
        admitted = sum(one.allowed for one in seen if one.tenant == "acme")
        assert admitted > 0
        assert sidecar.usage["acme"] == {
            ADMITTED: 1 + admitted,
            **({DENIED: 70 - admitted} if admitted < 70 else {}),
            DEGRADED: 70,
        }
        assert sidecar.usage["new"][DEGRADED] == 70
        assert permits.counts.degraded == 140


class TestLost:
    @virtually
    async def test_a_report_without_an_answer_is_sent_again_unchanged_but_for_its_age(self):
        sidecar = Sidecar()
        sidecar.losing = SidecarUnavailable("the answer was lost")
        permits = reporting(sidecar)
        await decided(permits, "acme", "acme")
        await asyncio.sleep(1.5)
        await permits.decide("acme", "requests")
        await permits.decide("beta", "requests")
        await asyncio.sleep(2)
        sidecar.losing = None
        await asyncio.sleep(10)
        *lost, last, following = sidecar.reports
        assert len(lost) == 3
        assert [report.usage for report in lost] == [last.usage] * 3
        assert [report.sequence for report in sidecar.reports] == [1, 1, 1, 1, 2]
        assert [report.age for report in [*lost, last]] == pytest.approx([1, 2, 3, 4])
        assert following.age == pytest.approx(2.5)
        assert sidecar.usage == {"acme": {ADMITTED: 3}, "beta": {ADMITTED: 1}}

    @pytest.mark.parametrize("error", [InvalidRequest, Unauthenticated, Forbidden])
    @virtually
    async def test_a_report_that_is_refused_is_dropped_and_told_of_once(self, error, caplog):
        sidecar = Sidecar()
        sidecar.losing = error("not so")
        permits = reporting(sidecar)
        for _ in range(3):
            await permits.decide("acme", "requests")
            await asyncio.sleep(2)
        assert [report.sequence for report in sidecar.reports] == [1, 2, 3]
        assert [record.message for record in caplog.records] == [
            "the sidecar refuses usage, which is lost: not so"
        ]
        sidecar.losing = None
        await permits.decide("acme", "requests")
        await asyncio.sleep(2)
        assert meters(sidecar.reports[-1]) == {"acme": {ADMITTED: 1}}
        assert caplog.records[-1].message == "usage is reported again"

    @virtually
    async def test_a_fault_of_the_sidecars_own_drops_nothing(self):
        sidecar = Sidecar()
        sidecar.losing = UnexpectedAnswer("500")
        permits = reporting(sidecar)
        await permits.decide("acme", "requests")
        await asyncio.sleep(2.5)
        sidecar.losing = None
        await asyncio.sleep(1)
        assert [report.sequence for report in sidecar.reports] == [1, 1, 1]

    @virtually
    async def test_a_sidecar_that_knows_no_reports_is_asked_again_a_minute_later(self, caplog):
        sidecar = Sidecar()
        sidecar.losing = NotFound("no such path")
        permits = reporting(sidecar)
        for _ in range(100):
            await permits.decide("acme", "requests")
            await asyncio.sleep(1)
        assert len(sidecar.reports) == 2
        assert len(caplog.records) == 1
        sidecar.losing = None
        await asyncio.sleep(60)
        assert sidecar.usage == {"acme": {ADMITTED: 100}}

    @virtually
    async def test_of_more_tenants_than_are_kept_the_log_tells_how_much_is_missing(
        self, monkeypatch, caplog
    ):
        monkeypatch.setattr(module, "MAX_PENDING", 10)
        monkeypatch.setattr(module, "MAX_NOTED", 5)
        sidecar = Sidecar()
        sidecar.losing = AWAY
        permits = reporting(sidecar)
        tenants = [f"t{number}" for number in range(15)]
        await decided(permits, *tenants)
        await decided(permits, *tenants)
        await asyncio.sleep(5)
        sidecar.losing = None
        await asyncio.sleep(2)
        assert sidecar.usage == {tenant: {ADMITTED: 2} for tenant in tenants[:10]}
        assert [record.message for record in caplog.records] == [
            "usage of 10 tenants waits to be reported; that of others is given up",
            "usage cannot be reported now, and is kept: away",
            "usage is reported again",
            "usage of 10 decisions was given up meanwhile",
        ]


class TestEvicted:
    @virtually
    async def test_what_forgotten_accounts_had_counted_is_reported_all_the_same(self, monkeypatch):
        monkeypatch.setattr(permits_module, "GENERATION_SIZE", 5)
        sidecar = Sidecar()
        permits = reporting(sidecar)
        tenants = [f"t{number}" for number in range(100)]
        for _ in range(3):
            for tenant in tenants:
                await permits.decide(tenant, "requests")
                await asyncio.sleep(0.003)
        assert len(permits) <= 10
        await permits.aclose()
        assert sidecar.usage == {tenant: {ADMITTED: 3} for tenant in tenants}
        assert permits.counts == (300, 0, 0)


class TestClosing:
    @virtually
    async def test_closing_reports_what_is_left_at_once(self):
        sidecar = Sidecar()
        permits = reporting(sidecar)
        await decided(permits, "acme", "beta")
        began = asyncio.get_running_loop().time()
        await permits.aclose()
        assert asyncio.get_running_loop().time() == began
        assert sidecar.usage == {"acme": {ADMITTED: 1}, "beta": {ADMITTED: 1}}

    @virtually
    async def test_closing_waits_for_the_report_under_way_and_sends_the_rest_after_it(self):
        sidecar = Sidecar()
        answered = asyncio.Event()

        async def slowly(report: UsageReport) -> Any:
            answer = await sidecar.report(report)
            await answered.wait()
            return answer

        permits = permits_of(sidecar, report=slowly)
        await permits.decide("acme", "requests")
        await asyncio.sleep(1)
        await permits.decide("acme", "requests")
        asyncio.get_running_loop().call_later(0.5, answered.set)
        await permits.aclose()
        assert [report.sequence for report in sidecar.reports] == [1, 2]
        assert sidecar.usage == {"acme": {ADMITTED: 2}}

    @pytest.mark.parametrize("under_way", [False, True])
    @virtually
    async def test_a_sidecar_that_hangs_keeps_nobody_and_the_log_tells_what_is_lost(
        self, under_way, caplog
    ):
        async def hang(report: UsageReport) -> Any:
            await asyncio.get_running_loop().create_future()

        permits = permits_of(Sidecar(refusing), report=hang)
        await decided(permits, "acme", "acme", "beta")
        if under_way:
            await asyncio.sleep(1)
            await permits.decide("acme", "requests")
        began = asyncio.get_running_loop().time()
        await permits.aclose()
        assert asyncio.get_running_loop().time() - began <= module.SEND_SECONDS
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        decisions = 4 if under_way else 3
        assert f"usage of 2 tenants could not be reported: {decisions}" in record.message

    @virtually
    async def test_what_is_counted_after_the_end_the_log_tells_of_once(self, caplog):
        sidecar = Sidecar()
        permits = reporting(sidecar)
        await permits.aclose()
        await decided(permits, "acme", "beta")
        await asyncio.sleep(5)
        assert sidecar.reports == []
        assert [record.message for record in caplog.records] == [
            "usage counted after its client was closed is not reported"
        ]
        assert permits.counts == (2, 0, 2)
