"""Permits held in a process: what is answered from them, and what is asked for."""

import asyncio
from typing import Any

import pytest

from partywall.context import Tenant, current_tenant, running_as
from partywall.decision import Window
from partywall.permits import Permits
from partywall.protocol import MAX_AMOUNT, MAX_ITEMS, Ask, Permit, PermitsAnswer
from tests.unit.sdk.asgi import (
    FULL_MINUTE,
    MINUTE,
    Sidecar,
    denied,
    granted,
    refusing,
)
from tests.unit.sdk.held import decided, make_hot, permits_of, virtually


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
