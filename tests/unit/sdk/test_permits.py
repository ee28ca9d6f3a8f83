"""Permits held in a process: what is answered from them, asked for, given back and forgotten."""

import asyncio
import functools
import logging
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from partywall import permits as module
from partywall.context import Tenant, current_tenant, running_as
from partywall.decision import Decision, Window
from partywall.errors import SidecarUnavailable
from partywall.permits import RETURN_SECONDS, Permits
from partywall.protocol import MAX_AMOUNT, MAX_ITEMS, Ask, GiveBack, Permit, PermitsAnswer
from tests.support.virtual_time import run_virtually
from tests.unit.sdk.asgi import FULL_MINUTE, MINUTE, Sidecar, answering, denied, granted, request


def virtually(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs a test in virtual time: sleeps are exact, and take none."""

    @functools.wraps(test)
    def run(*args: Any, **options: Any) -> None:
        async def main() -> None:
            await asyncio.sleep(100)  # clocks do not begin at zero
            await test(*args, **options)

        run_virtually(main())

    return run


def permits_of(sidecar: Sidecar, **options: Any) -> Permits:
    clock = asyncio.get_running_loop().time
    return Permits(sidecar.lease, **{"clock": clock, "instance": "one", **options})


async def decided(permits: Permits, *tenants: str, cost: int = 1) -> list[Decision]:
    """A check of each tenant, all at once."""
    return await asyncio.gather(*(permits.decide(name, "requests", cost) for name in tenants))


async def make_hot(permits: Permits, tenant: str = "acme") -> None:
    """Asks twice in short order, which leases units ahead."""
    await permits.decide(tenant, "requests")
    await asyncio.sleep(0.01)
    await permits.decide(tenant, "requests")


def refusing(ask: Ask) -> Permit:
    return denied()


AWAY = SidecarUnavailable("away")


class TestInHand:
    @virtually
    async def test_a_hot_tenant_spends_what_was_leased_ahead_without_asking(self):
        sidecar = Sidecar()
        permits = permits_of(sidecar)
        await make_hot(permits)
        ahead = sidecar.asks[-1].ahead
        assert ahead > 0
        for left in reversed(range(ahead)):
            answer = permits.take("acme", "requests", 1)
            assert answer is not None
            assert answer.decision.remaining == MINUTE.remaining + left
        assert permits.take("acme", "requests", 1) is None
        assert len(sidecar.seen) == 2

    @virtually
    async def test_a_lease_is_not_spent_after_its_end(self):
        permits = permits_of(Sidecar())
        await make_hot(permits)
        assert permits.take("acme", "requests", 1) is not None
        await asyncio.sleep(0.4)
        assert permits.take("acme", "requests", 1) is None

    @virtually
    async def test_a_tenants_limits_are_apart(self):
        sidecar = Sidecar(lambda ask: denied() if ask.limit == "exports" else granted(ask))
        permits = permits_of(sidecar)
        assert not await permits.decide("acme", "exports")
        assert await permits.decide("acme", "requests")
        assert await permits.decide("beta", "requests")

    @virtually
    async def test_a_held_denial_costs_no_call_until_it_ends(self):
        sidecar = Sidecar(refusing)
        permits = permits_of(sidecar)
        for _ in range(1000):
            (decision,) = await decided(permits, "acme")
            assert (decision.reason, decision.retry_after) == ("limit-exceeded", 30.2)
        assert len(sidecar.seen) == 1
        assert permits.counts == (0, 1000, 0)
        await asyncio.sleep(0.41)
        sidecar.answer = granted
        assert await permits.decide("acme", "requests")

    @virtually
    async def test_an_answer_is_held_from_before_it_was_asked_for(self):
        """A raised limit must be felt within a second, however long the answer took."""
        sidecar = Sidecar(refusing)
        sidecar.latency = 0.15
        permits = permits_of(sidecar)
        await permits.decide("acme", "requests")
        await asyncio.sleep(0.24)
        assert permits.take("acme", "requests", 1) is not None
        await asyncio.sleep(0.02)
        assert permits.take("acme", "requests", 1) is None

    @virtually
    async def test_a_denial_of_a_large_cost_denies_no_smaller_one(self):
        def by_cost(ask: Ask) -> Permit:
            return granted(ask) if ask.cost < 5 else denied(Window(100, 60, 4, 30.0))

        permits = permits_of(Sidecar(by_cost))
        assert not await permits.decide("acme", "requests", 5)
        assert await permits.decide("acme", "requests", 1)
        five, one = await asyncio.gather(
            permits.decide("beta", "requests", 5), permits.decide("beta", "requests", 1)
        )
        assert (five.allowed, one.allowed) == (False, True)

    @virtually
    async def test_a_held_denial_tells_a_larger_cost_a_wait_that_is_enough(self):
        permits = permits_of(Sidecar(lambda ask: denied(retry_after=0.5)))
        assert (await permits.decide("acme", "requests", 1)).retry_after == 0.5
        larger = await permits.decide("acme", "requests", 50)
        assert (larger.cost, larger.retry_after) == (50, FULL_MINUTE.reset_after)
        never = await permits.decide("acme", "requests", 101)
        assert (never.cost, never.retry_after) == (101, None)

    @pytest.mark.parametrize(
        "reason", ["tenant-suspended", "unknown-tenant", "unavailable", "unknown-limit"]
    )
    @virtually
    async def test_a_refusal_is_held_for_every_cost(self, reason):
        tier = None if reason == "unknown-tenant" else "free"
        sidecar = Sidecar(lambda ask: Permit(False, tier, reason, seconds=0.4, retry_after=None))
        permits = permits_of(sidecar)
        for cost in (5, 1, 9):
            decision = await permits.decide("acme", "requests", cost)
            assert (decision.reason, decision.windows, decision.remaining) == (reason, (), 0)
        assert len(sidecar.seen) == 1

    @virtually
    async def test_what_is_unlimited_is_held_for_every_cost(self):
        sidecar = Sidecar(lambda ask: Permit(True, "enterprise", seconds=0.4))
        permits = permits_of(sidecar)
        for cost in (5, 1, 10**9):
            decision = await permits.decide("acme", "requests", cost)
            assert (decision.allowed, decision.remaining, decision.cost) == (True, None, cost)
        assert len(sidecar.seen) == 1


class TestAsking:
    @virtually
    async def test_those_who_are_ready_together_share_a_question(self):
        sidecar = Sidecar()
        await decided(permits_of(sidecar), *(f"t{number}" for number in range(50)))
        assert [len(question.asks) for question in sidecar.seen] == [50]

    @virtually
    async def test_checks_of_one_tenant_are_one_ask(self):
        sidecar = Sidecar()
        await decided(permits_of(sidecar), *["acme"] * 50, cost=2)
        assert [(ask.cost, ask.need) for ask in sidecar.asks] == [(2, 100)]

    @virtually
    async def test_who_comes_while_questions_are_under_way_joins_the_next(self):
        sidecar = Sidecar()
        sidecar.latency = 0.01
        permits = permits_of(sidecar)

        async def later(number: int) -> None:
            await asyncio.sleep(number / 10_000)
            await permits.decide(f"t{number}", "requests")

        await asyncio.gather(*(later(number) for number in range(50)))
        assert [len(question.asks) for question in sidecar.seen] == [1, 1, 48]

    @virtually
    async def test_no_question_has_more_asks_than_the_sidecar_takes(self):
        sidecar = Sidecar()
        tenants = [f"t{number}" for number in range(2 * MAX_ITEMS + 1)]
        assert all(await decided(permits_of(sidecar), *tenants))
        assert [len(question.asks) for question in sidecar.seen] == [MAX_ITEMS, MAX_ITEMS, 1]

    @virtually
    async def test_no_ask_names_more_than_can_be_named(self):
        """Else the sidecar would refuse the question, and every other tenant's ask with it."""
        sidecar = Sidecar()
        permits = permits_of(sidecar)
        for _ in range(3):
            await decided(permits, *["acme"] * 3, cost=MAX_AMOUNT)
            await asyncio.sleep(0.001)
        assert {ask.need for ask in sidecar.asks} == {MAX_AMOUNT}
        assert all(ask.ahead <= MAX_AMOUNT for ask in sidecar.asks)

    @virtually
    async def test_a_grant_that_is_too_small_for_all_serves_the_oldest_first(self):
        def three(ask: Ask) -> Permit:
            return granted(ask, granted=min(3, ask.need))

        sidecar = Sidecar(three)
        order: list[int] = []
        permits = permits_of(sidecar)

        async def check(number: int) -> None:
            await permits.decide("acme", "requests")
            order.append(number)

        await asyncio.gather(*(check(number) for number in range(7)))
        assert order == list(range(7))
        assert [ask.need for ask in sidecar.asks] == [7, 4, 1]

    @virtually
    async def test_nothing_is_asked_in_the_name_of_the_tenant_who_began_it(self):
        seen: list[object] = []

        async def lease(request: Any) -> PermitsAnswer:
            seen.append(current_tenant(None))
            return PermitsAnswer([granted(ask) for ask in request.asks])

        permits = Permits(lease, clock=asyncio.get_running_loop().time)
        with running_as(Tenant("acme")):
            await make_hot(permits)
        await asyncio.sleep(1)  # what was not spent goes back
        assert seen == [None, None, None]


class TestCancelled:
    @virtually
    async def test_who_went_away_before_the_question_is_not_asked_for(self):
        sidecar = Sidecar()
        permits = permits_of(sidecar)
        gone = asyncio.ensure_future(permits.decide("acme", "requests"))
        stays = asyncio.ensure_future(permits.decide("beta", "requests"))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays
        assert [ask.tenant for ask in sidecar.asks] == ["beta"]
        assert await permits.decide("acme", "requests")

    @virtually
    async def test_units_of_one_who_went_away_meanwhile_serve_another(self):
        sidecar = Sidecar()
        sidecar.latency = 0.01
        permits = permits_of(sidecar)
        gone = asyncio.ensure_future(permits.decide("acme", "requests", 3))
        await asyncio.sleep(0.005)
        gone.cancel()
        await asyncio.sleep(0.01)
        answer = permits.take("acme", "requests", 3)
        assert answer is not None
        assert answer.decision.allowed
        assert permits.take("acme", "requests", 1) is None
        assert permits.counts == (1, 0, 0)

    @virtually
    async def test_one_who_goes_away_takes_nothing_from_those_who_wait_with_him(self):
        sidecar = Sidecar()
        sidecar.latency = 0.01
        permits = permits_of(sidecar)
        tasks = [asyncio.ensure_future(permits.decide("acme", "requests")) for _ in range(10)]
        await asyncio.sleep(0.005)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [bool(one) for one in results[1::2]] == [True] * 5
        assert all(isinstance(one, asyncio.CancelledError) for one in results[::2])


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
