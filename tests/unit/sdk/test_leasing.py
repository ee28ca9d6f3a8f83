"""What leasing promises, over whole streets of processes in virtual time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywall.permits import Permits
from partywall_service.policy.model import Rate
from tests.conftest import SOAK
from tests.support.virtual_time import run_virtually
from tests.unit.sdk.street import Street


async def arrivals(
    street: Street, permits: Permits, number: int, tenant: str, rate: float, seconds: float
) -> None:
    """Requests at random moments, `rate` a second, each on its own."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with asyncio.TaskGroup() as tasks:
        while True:
            await asyncio.sleep(street.random.expovariate(rate))
            if loop.time() >= end:
                return
            tasks.create_task(_one(street, permits, number, tenant))


async def _one(street: Street, permits: Permits, number: int, tenant: str) -> None:
    await street.check(permits, number, tenant)


async def gather(*running: Coroutine[Any, Any, object]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for one in running:
            tasks.create_task(one)


@pytest.mark.parametrize(
    ("quota", "window"),
    [
        (20, 1),
        (400, 1),
        (400, 10),
        (100, 60),
        pytest.param(1000, 60, marks=pytest.mark.soak),
        pytest.param(5000, 60, marks=pytest.mark.soak),
    ],
)
@pytest.mark.parametrize("processes", [1, 4])
def test_overload_is_admitted_at_90_percent_never_over_and_nobody_starves(quota, window, processes):
    """Twice the quota arrives, spread over the processes, for twelve windows."""

    async def main() -> None:
        street = Street((Rate(quota, window),), seed=quota)
        permits = [street.process() for _ in range(processes)]
        rate = 2 * quota / window / processes
        await gather(
            *(
                arrivals(street, one, number, "acme", rate, 12 * window)
                for number, one in enumerate(permits)
            )
        )
        assert street.heaviest("acme", window) <= quota
        used = street.used["acme"]
        sustained = [moment for moment in used if 2 * window <= moment < 12 * window]
        assert len(sustained) >= 0.9 * quota * 10
        if quota >= 400:
            share = len(used) / processes
            for number in range(processes):
                assert street.by_process["acme", number] >= share / 2

    run_virtually(main())


@pytest.mark.parametrize("rate", [0.5, 5, 50, 500])
def test_a_tenant_within_its_limit_is_never_denied(rate):
    """Leases must not take from one process what another needs, while half is free."""

    async def main() -> None:
        street = Street((Rate(round(rate * 60 * 2) + 10, 60),))
        permits = [street.process() for _ in range(4)]
        await gather(
            *(
                arrivals(street, one, number, "acme", rate / 4, 300 / max(1, rate / 5))
                for number, one in enumerate(permits)
            )
        )
        assert all(one.counts.denied == 0 for one in permits)

    run_virtually(main())


def test_a_hot_tenant_asks_for_a_small_part_of_its_checks():
    async def main() -> None:
        street = Street((Rate(1_000_000, 60),))
        one = street.process()
        await arrivals(street, one, 0, "acme", 1000, 20)
        checks = len(street.used["acme"])
        assert checks > 15_000
        assert street.questions < checks / 100

    run_virtually(main())


def test_a_flood_over_the_limit_asks_a_few_times_a_second():
    async def main() -> None:
        street = Street((Rate(100, 60),))
        one = street.process()
        await arrivals(street, one, 0, "acme", 1000, 30)
        assert one.counts.denied > 25_000
        assert street.questions < 150 + 30 * 5

    run_virtually(main())


def test_what_a_tenant_did_not_spend_is_free_for_others_within_a_second():
    async def main() -> None:
        street = Street((Rate(1000, 60),))
        hot, other = street.process(), street.process()
        await arrivals(street, hot, 0, "acme", 100, 4)
        used = len(street.used["acme"])
        await asyncio.sleep(1.0)
        for _ in range(1000 - used):
            assert await street.check(other, 1, "acme")
        assert not await street.check(other, 1, "acme")

    run_virtually(main())


def test_closing_gives_back_what_was_not_spent_at_once():
    async def main() -> None:
        street = Street((Rate(1000, 60),))
        hot, other = street.process(), street.process()
        await arrivals(street, hot, 0, "acme", 100, 4)
        used = len(street.used["acme"])
        await hot.aclose()
        for _ in range(1000 - used):
            assert await street.check(other, 1, "acme")
        assert not await street.check(other, 1, "acme")

    run_virtually(main())


@given(seed=st.integers(0, 2**32), quota=st.integers(1, 60), slow=st.sampled_from([0.001, 0.02]))
def test_one_process_gets_its_whole_quota_however_it_leases(seed, quota, slow):
    """Units on their way back must not be missing when the next check asks."""

    async def main() -> None:
        street = Street((Rate(quota, 60),), seed)
        street.latency = lambda: street.random.uniform(0, slow)
        one = street.process()
        for _ in range(quota):
            await asyncio.sleep(street.random.choice([0, 0.001, 0.1, 0.3, 0.5]) * 30 / quota)
            assert await street.check(one, 0, "acme")
        assert not await street.check(one, 0, "acme")

    run_virtually(main())


@settings(max_examples=2000 if SOAK else 20)
@given(
    seed=st.integers(0, 2**32),
    quota=st.integers(1, 300),
    window=st.sampled_from([1, 2, 10, 60]),
    slow=st.sampled_from([0.001, 0.02, 0.12, 0.4]),
    lost=st.sampled_from([0.0, 0.1, 0.4]),
    repeated=st.sampled_from([0.0, 0.1, 0.5]),
    costs=st.sampled_from([[1], [1, 1, 1, 5], [3, 40]]),
    step_back=st.sampled_from([0.0, 0.05, 1.0, 30.0]),
)
def test_nothing_that_happens_takes_a_tenant_over_its_quota(
    seed, quota, window, slow, lost, repeated, costs, step_back
):
    """Slow, lost and repeated messages, processes that die, bursts, a clock that steps back."""

    async def main() -> None:
        street = Street((Rate(quota, window), Rate(quota * 20, window * 40)), seed)
        street.latency = lambda: street.random.expovariate(1 / slow)
        street.lost, street.repeated = lost, repeated
        loop = asyncio.get_running_loop()
        permits = [street.process() for _ in range(3)]
        pace = window / quota / 2
        async with asyncio.TaskGroup() as tasks:
            while loop.time() < 4 * window and len(street.used["acme"]) < 500:
                await asyncio.sleep(street.random.expovariate(1 / pace))
                number = street.random.randrange(3)
                for _ in range(street.random.choice([1, 1, 1, 20])):
                    cost = street.random.choice(costs)
                    tasks.create_task(_spend(street, permits[number], number, cost))
                if street.random.random() < 0.02:
                    permits[number] = street.process()  # it died, with all it had leased
                if street.random.random() < 0.01:
                    street.skew -= step_back
        assert street.heaviest("acme", window) <= quota
        assert street.heaviest("acme", window * 40) <= quota * 20
        for one in street.processes:
            await one.aclose()  # those that died, too: no question may outlive the loop

    run_virtually(main())


async def _spend(street: Street, permits: Permits, number: int, cost: int) -> None:
    await street.check(permits, number, "acme", cost)
