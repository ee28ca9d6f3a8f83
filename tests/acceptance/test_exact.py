"""Exactness in real time, through several sidecars on one store.

Times are this machine's wall clock, which is the store's. An admission was decided at some moment
between its sending and its answer, so it surely counts in an interval only if both lie inside it.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import NamedTuple

import httpx
import pytest

from tests.acceptance.asking import PATIENT, check, checks
from tests.conftest import SidecarFactory
from tests.support.cluster import ValkeyCluster
from tests.support.sidecar import Sidecar

QUOTAS = """
default_tier = "free"
[tiers.free.limits]
requests = "5/hour"
short = "20/second"
long = "40/2 seconds"
both = ["12/second", "18/2 seconds"]
"""

LIMITS = {"short": [(20, 1)], "long": [(40, 2)], "both": [(12, 1), (18, 2)]}
SUB_BUCKETS = 32
MARGIN = 1 / 25
"""How much of a window `retry_after` may say too much."""


class Admitted(NamedTuple):
    sent: float
    answered: float
    cost: int


@dataclass
class Run:
    """What was sent, and what came of it."""

    admitted: list[Admitted]
    answers: list[float]  # when
    began: float
    ended: float


@pytest.fixture
def two(sidecar: SidecarFactory) -> tuple[Sidecar, Sidecar]:
    return sidecar(quotas=QUOTAS, env=PATIENT), sidecar(quotas=QUOTAS, env=PATIENT)


async def test_two_hundred_at_once_against_five(two: tuple[Sidecar, Sidecar]) -> None:
    one, other = two
    async with one.client() as first, other.client() as second:
        decisions = await asyncio.gather(
            *(check(client, "acme") for client in (first, second) for _ in range(100))
        )
        assert not any(decision["degraded"] for decision in decisions)
        assert sum(decision["allowed"] for decision in decisions) == 5
        assert {it["reason"] for it in decisions if not it["allowed"]} == {"limit-exceeded"}

        lists = await asyncio.gather(
            *(checks(client, [{"tenant": "b"}] * 20) for client in (first, second) * 5)
        )
        assert sum(decision["allowed"] for answer in lists for decision in answer) == 5


async def test_no_window_ever_holds_more_than_its_quota(
    two: tuple[Sidecar, Sidecar], soak: bool
) -> None:
    await exact_on(two, seconds=120 if soak else 6, tenants=4 if soak else 1)


async def test_retry_after_is_enough_and_not_much_more(
    two: tuple[Sidecar, Sidecar], soak: bool
) -> None:
    await waits_suffice(two, tenants=10 if soak else 6, rounds=20 if soak else 2)


@pytest.mark.soak
async def test_on_a_cluster_too(sidecar: SidecarFactory, valkey_cluster: ValkeyCluster) -> None:
    env = {**PATIENT, "PARTYWALL_REDIS_URL": valkey_cluster.url}
    on_it = sidecar(quotas=QUOTAS, env=env), sidecar(quotas=QUOTAS, env=env)
    async with on_it[0].client() as first, on_it[1].client() as second:
        for n in range(20):
            asked = [check(client, f"c{n}") for client in (first, second) for _ in range(25)]
            assert sum(it["allowed"] for it in await asyncio.gather(*asked)) == 5
    await exact_on(on_it, seconds=60, tenants=4)
    await waits_suffice(on_it, tenants=10, rounds=5)


async def exact_on(on: Sequence[Sidecar], *, seconds: float, tenants: int) -> None:
    """Adversaries against each limit of some tenants, all at once."""
    async with on[0].client() as first, on[1].client() as second:
        both = (first, second)
        subjects = [(f"t{n}", limit) for n in range(tenants) for limit in LIMITS]
        for tenant, limit in subjects:  # known, so that the first arrivals are not all late
            await check(first, tenant, limit=limit, dry_run=True)
            await check(second, tenant, limit=limit, dry_run=True)
        mixed = await asyncio.gather(*(attack(both, *it, seconds, costs=True) for it in subjects))
        flood = await asyncio.gather(
            *(attack(both, f"{tenant}-flood", limit, seconds) for tenant, limit in subjects)
        )
    for (_, limit), run in zip(subjects * 2, [*mixed, *flood], strict=True):
        for quota, window in LIMITS[limit]:
            assert most_in_a_window(run.admitted, window) <= quota
    for (_, limit), run in zip(subjects, flood, strict=True):
        assert share_admitted(run, limit) >= 0.95, limit


async def attack(
    clients: Sequence[httpx.AsyncClient],
    tenant: str,
    limit: str,
    seconds: float,
    *,
    costs: bool = False,
) -> Run:
    """Check as an adversary would, through every sidecar at once.

    Without `costs` it never stops asking for one. With them it asks for several too, in bursts that
    begin a hair before or after the moment at which a window might have room again.
    """
    admitted: list[Admitted] = []
    answers: list[float] = []
    moods = random.Random(f"{tenant}/{limit}")
    began = time.time()
    ends = began + seconds

    async def ask(client: httpx.AsyncClient) -> None:
        while time.time() < ends:
            cost = moods.choice((1, 1, 1, 2, 5)) if costs else 1
            sent = time.time()
            decision = await check(client, tenant, limit=limit, cost=cost)
            answered = time.time()
            answers.append(answered)
            assert not decision["degraded"]
            if decision["allowed"]:
                admitted.append(Admitted(sent, answered, cost))
            elif costs and moods.random() < 0.9:
                wait = decision["retry_after"] * moods.choice((0.3, 0.9, 0.97, 1.0, 1.0))
                await asyncio.sleep(max(0.0, min(wait + moods.uniform(-0.02, 0.02), ends - sent)))

    await asyncio.gather(*(ask(client) for client in clients for _ in range(3)))
    return Run(admitted, answers, began, time.time())


def most_in_a_window(admitted: Sequence[Admitted], window: float) -> int:
    """The largest cost that was surely admitted in one interval of this length."""
    most = 0
    for start, _, _ in admitted:
        inside = (it for it in admitted if start <= it.sent and it.answered <= start + window)
        most = max(most, sum(it.cost for it in inside))
    return most


def share_admitted(run: Run, limit: str) -> float:
    """What was admitted, of what the tightest window's quota comes to.

    Time in which nobody was answered for a good part of a sub-bucket is no overload, and is left
    out: a busy machine is no fault of the windows.
    """
    least = min(window / SUB_BUCKETS for _, window in LIMITS[limit]) / 4
    idle = sum(gap for gap in _gaps(run) if gap > least)
    rate = min(quota / window for quota, window in LIMITS[limit])
    return sum(it.cost for it in run.admitted) / (rate * (run.ended - run.began - idle))


def _gaps(run: Run) -> Iterator[float]:
    moments = [run.began, *sorted(run.answers), run.ended]
    return (after - before for before, after in pairwise(moments))


async def waits_suffice(on: Sequence[Sidecar], *, tenants: int, rounds: int) -> None:
    async with on[0].client() as first, on[1].client() as second:
        await asyncio.gather(
            *(
                fill_and_wait((first, second), f"w{n}", limit, rounds)
                for n in range(tenants)
                for limit in LIMITS
            )
        )


async def fill_and_wait(
    clients: Sequence[httpx.AsyncClient], tenant: str, limit: str, rounds: int
) -> None:
    """Spend until denied, wait exactly as long as told, and be admitted."""
    moods = random.Random(f"{tenant}/{limit}")
    admitted: list[Admitted] = []
    least = min(quota for quota, _ in LIMITS[limit])
    for _ in range(rounds):
        for turn in count():
            # Ever more at a time, so that also a slow machine comes to a denial.
            cost = min(least, moods.choice((1, 2, 3)) * (1 + turn // 8))
            sent = time.time()
            decision = await check(moods.choice(clients), tenant, limit=limit, cost=cost)
            answered = time.time()
            if not decision["allowed"]:
                break
            admitted.append(Admitted(sent, answered, cost))
            await asyncio.sleep(moods.uniform(0, 0.05))
        told = decision["retry_after"]
        at_most = max(
            exact_wait(admitted, cost, quota, window, sent) + window * MARGIN
            for quota, window in LIMITS[limit]
        )
        assert 0 < told <= at_most
        await asyncio.sleep(max(0.0, answered + told - time.time()))
        sent = time.time()
        decision = await check(moods.choice(clients), tenant, limit=limit, cost=cost)
        assert decision["allowed"], f"{told:.3f} s were not enough for {cost} of {limit}"
        admitted.append(Admitted(sent, time.time(), cost))


def exact_wait(
    admitted: Sequence[Admitted], cost: int, quota: int, window: float, now: float
) -> float:
    """What an exact log would say at `now`, if each admission was made when it was answered."""
    held = [it for it in admitted if it.answered + window > now]
    excess = sum(it.cost for it in held) + cost - quota
    wait = 0.0
    for it in held:
        if excess <= 0:
            break
        excess -= it.cost
        wait = it.answered + window - now
    return wait
