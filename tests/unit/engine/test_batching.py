"""What gathers while a call is in flight shares the next one, and nobody waits for ever."""

import asyncio
from collections.abc import Sequence

import pytest

from partywall_service.engine.base import Ask, Check, Question, Return, StoreError, Verdict
from partywall_service.engine.batching import MAX_BATCH, MAX_IN_FLIGHT, Batcher
from partywall_service.policy.model import Rate

RATES = (Rate(100, 60),)


class HeldEngine:
    """Answers when told to, each question by its own number."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], asyncio.Future[None]]] = []
        self.arrived = asyncio.Event()

    async def decide(self, checks: Sequence[Question]) -> list[Verdict]:
        release: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        numbers = [one.units if isinstance(one, Return) else one.cost for one in checks]
        self.calls.append((numbers, release))
        self.arrived.set()
        await release
        return [Verdict(allowed=True, retry_after=float(n), windows=()) for n in numbers]

    async def nth(self, number: int) -> tuple[list[int], asyncio.Future[None]]:
        while len(self.calls) < number:
            self.arrived.clear()
            await self.arrived.wait()
        return self.calls[number - 1]


def checks(*costs: int) -> list[Check]:
    return [Check("acme", "requests", RATES, cost) for cost in costs]


def ask(batcher: Batcher, *costs: int) -> "asyncio.Task[list[Verdict]]":
    return asyncio.create_task(batcher.decide(checks(*costs)))


async def test_callers_who_are_ready_together_share_one_call():
    engine = HeldEngine()
    batcher = Batcher(engine)
    answers = [ask(batcher, cost) for cost in (1, 2, 3)]
    costs, release = await engine.nth(1)
    assert costs == [1, 2, 3]
    release.set_result(None)
    assert [(await answer)[0].retry_after for answer in answers] == [1, 2, 3]


async def test_checks_gather_while_calls_are_in_flight_and_go_out_together():
    engine = HeldEngine()
    batcher = Batcher(engine)
    first = []
    for number in range(1, MAX_IN_FLIGHT + 1):
        first.append(ask(batcher, number))
        await engine.nth(number)
    gathered = [ask(batcher, 10), ask(batcher, 20, 21), ask(batcher, 30)]
    await asyncio.sleep(0)
    assert len(engine.calls) == MAX_IN_FLIGHT
    engine.calls[0][1].set_result(None)
    costs, release = await engine.nth(MAX_IN_FLIGHT + 1)
    assert costs == [10, 20, 21, 30]
    release.set_result(None)
    assert [[v.retry_after for v in await answer] for answer in gathered] == [[10], [20, 21], [30]]
    for _, release in engine.calls[1:MAX_IN_FLIGHT]:
        release.set_result(None)
    await asyncio.gather(*first)


async def test_a_batch_is_bounded_but_one_callers_checks_stay_together():
    engine = HeldEngine()
    batcher = Batcher(engine)
    answers = [
        ask(batcher, *([1] * (MAX_BATCH - 1))),
        ask(batcher, 2, 2),
        ask(batcher, *([3] * 1000)),
    ]
    await engine.nth(2)
    assert [len(costs) for costs, _ in engine.calls] == [MAX_BATCH - 1, 2]
    for number in (1, 2, 3):
        (await engine.nth(number))[1].set_result(None)
    assert [len(await answer) for answer in answers] == [MAX_BATCH - 1, 2, 1000]
    assert len(engine.calls[2][0]) == 1000


async def test_one_callers_returns_leases_and_checks_stay_in_order():
    engine = HeldEngine()
    batcher = Batcher(engine)
    before = ask(batcher, 1)
    mixed = [
        Return("acme", "requests", RATES, "one", 2),
        Ask("acme", "requests", RATES, 3, 30, 300, "two"),
        *checks(4),
    ]
    answer = asyncio.create_task(batcher.decide(mixed))
    numbers, release = await engine.nth(1)
    assert numbers == [1, 2, 3, 4]
    release.set_result(None)
    assert [verdict.retry_after for verdict in await answer] == [2, 3, 4]
    assert (await before)[0].retry_after == 1


@pytest.mark.parametrize("error", [StoreError("gone"), RuntimeError("a defect")])
async def test_a_failed_call_fails_each_of_its_callers_and_the_next_goes_on(error):
    engine = HeldEngine()
    batcher = Batcher(engine)
    answers = [ask(batcher, 1), ask(batcher, 2)]
    (await engine.nth(1))[1].set_exception(error)
    assert await asyncio.gather(*answers, return_exceptions=True) == [error, error]
    after = ask(batcher, 3)
    (await engine.nth(2))[1].set_result(None)
    assert (await after)[0].allowed


async def test_a_caller_that_goes_takes_nobody_with_it():
    engine = HeldEngine()
    batcher = Batcher(engine)
    leaver, stayer = ask(batcher, 1), ask(batcher, 2)
    _, release = await engine.nth(1)
    leaver.cancel()
    await asyncio.gather(leaver, return_exceptions=True)
    release.set_result(None)
    assert (await stayer)[0].retry_after == 2
