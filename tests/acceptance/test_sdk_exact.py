"""Exactness survives leasing: host apps in processes of their own, on one sidecar and on two.

Where no sidecar answers in time, these hosts admit nothing (`closed`): what they admit is what was
leased. A request counts in an interval only if it was surely decided in it (`Admitted`).

Clocks that step back cannot be had here: the store's clock is the machine's. The engines' tests
(`tests/engine`) and those in virtual time (`tests/unit/sdk/test_leasing.py`) step them.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import pytest

from tests.acceptance.asking import PATIENT, fresh_tenant
from tests.acceptance.conftest import HostsFactory
from tests.conftest import SidecarFactory
from tests.support.host import Admitted, Host, admitted_by, heaviest
from tests.support.relay import Fate, relay
from tests.support.traffic import Traffic

QUOTAS = """
default_tier = "free"
[tiers.free.limits]
fast = "50/second"
middle = "400/10 seconds"
slow = "100/minute"
both = ["12/second", "30/5 seconds"]
wide = "400/2 seconds"
few = "3/minute"
"""

WINDOWS = {
    "fast": [(50, 1)],
    "middle": [(400, 10)],
    "slow": [(100, 60)],
    "both": [(12, 1), (30, 5)],
    "wide": [(400, 2)],
    "few": [(3, 60)],
}

CLOSED: dict[str, Any] = {"on_outage": "closed", "deadline": 10.0}


def assert_never_over(hosts: Sequence[Host]) -> None:
    """No window of any tenant's any limit ever held more than its quota."""
    tenants = {tenant for host in hosts for tenant in host.admitted}
    for tenant in tenants:
        for limit, windows in WINDOWS.items():
            admitted = admitted_by(hosts, tenant, limit)
            assert not any(one.degraded for one in admitted)
            for quota, window in windows:
                assert heaviest(admitted, window) <= quota, (tenant, limit)


def asked_of_all(traffic: Traffic, hosts: Sequence[Host], hot: str, cold: Sequence[str]) -> None:
    """A hot tenant far over each limit, and cold ones now and then, at every host."""
    moods = random.Random(0)
    for host in hosts:
        traffic.add(host, hot, "fast", rate=40, together=4)
        traffic.add(host, hot, "middle", rate=25)
        traffic.add(host, hot, "slow", rate=10, costs=(1, 1, 2, 5))
        traffic.add(host, hot, "both", rate=10, together=2)
        traffic.add(host, lambda: moods.choice(cold), "few", rate=10)


async def crash_at_random(hosts: Sequence[Host], until: float) -> int:
    """Kills one after another and starts it again; how often."""
    moods = random.Random(1)
    times = 0
    while time.monotonic() < until:
        await asyncio.sleep(moods.uniform(0.2, 1.0))
        host = moods.choice(hosts)
        host.kill()
        await asyncio.to_thread(host.start)
        times += 1
    return times


@pytest.mark.parametrize("sidecars", [pytest.param(1, marks=pytest.mark.soak), 2])
async def test_no_window_holds_more_than_its_quota_while_hosts_crash(
    sidecar: SidecarFactory, hosts: HostsFactory, sidecars: int, soak: bool
) -> None:
    urls = [sidecar(quotas=QUOTAS, env=PATIENT).url for _ in range(sidecars)]
    four = hosts(*(urls * 4)[:4], **CLOSED)
    hot, cold = fresh_tenant(), [fresh_tenant() for _ in range(30)]
    async with Traffic() as traffic:
        asked_of_all(traffic, four, hot, cold)
        crashes = await crash_at_random(four, time.monotonic() + (180 if soak else 6))
    assert crashes > 0
    assert traffic.broken > 0
    assert_never_over(four)
    for limit, windows in WINDOWS.items():  # it was over every limit indeed
        if limit != "wide":
            tenant = cold[0] if limit == "few" else hot
            spent = sum(one.cost for one in admitted_by(four, tenant, limit))
            assert spent >= max(quota for quota, _ in windows) * 0.7, limit
    assert traffic.statuses.keys() <= {200, 429}


@pytest.mark.parametrize("sidecars", [pytest.param(1, marks=pytest.mark.soak), 2])
async def test_overload_is_admitted_to_90_percent_and_no_process_starves(
    sidecar: SidecarFactory, hosts: HostsFactory, sidecars: int, soak: bool
) -> None:
    """A half more than the quota arrives, spread over four processes, for ten windows; or four."""
    limit, quota, window = ("middle", 400, 10) if soak else ("wide", 400, 2)
    windows = 10 if soak else 4
    urls = [sidecar(quotas=QUOTAS, env=PATIENT).url for _ in range(sidecars)]
    four = hosts(*(urls * 4)[:4], **CLOSED)
    acme = fresh_tenant()
    async with Traffic() as traffic:
        for host in four:
            for _ in range(4):
                traffic.add(host, acme, limit, rate=1.6 * quota / window / 16)
        await asyncio.sleep(window / 4)
        began = time.monotonic()
        await asyncio.sleep(windows * window)
        ended = time.monotonic()
    assert_never_over(four)
    assert traffic.statuses.keys() == {200, 429}
    counted = [within(admitted_by([host], acme, limit), began, ended) for host in four]
    offered = [
        sum(begin <= one.came < begin + window for one in traffic.answered)
        for begin in (began + number * window for number in range(windows))
    ]
    # A machine that does not keep up offers less than the quota: then there is no more to admit.
    assert sum(counted) >= 0.9 * sum(min(quota, count) for count in offered)
    assert all(count >= sum(counted) / 4 / 2 for count in counted), counted


def within(admitted: Sequence[Admitted], began: float, ended: float) -> int:
    return sum(one.cost for one in admitted if began <= one.ran < ended)


async def test_late_lost_and_repeated_messages_take_no_tenant_over_its_quota(
    sidecar: SidecarFactory, hosts: HostsFactory, soak: bool
) -> None:
    """Between hosts and sidecars stands a network; answers may outlast any lease (0.5 s)."""
    one, other = (sidecar(quotas=QUOTAS, env=PATIENT) for _ in range(2))
    moods = random.Random(2)

    def fate() -> Fate:
        slow = moods.random() < 0.3
        return Fate(
            before=moods.choice((0.03, 0.1, 0.6)) if slow and moods.random() < 0.5 else 0.0,
            after=moods.choice((0.03, 0.1, 0.6)) if slow else 0.0,
            twice=moods.random() < 0.15,
            lost=moods.random() < 0.1,
        )

    hot, cold = fresh_tenant(), [fresh_tenant() for _ in range(30)]
    async with relay(one.url, fate) as near, relay(other.url, fate) as far:
        three = hosts(near, near, far, **CLOSED)
        async with Traffic() as traffic:
            asked_of_all(traffic, three, hot, cold)
            await asyncio.sleep(180 if soak else 7)
        # They give back what they have through the relay.
        await asyncio.gather(*(asyncio.to_thread(host.stop) for host in three))
    assert_never_over(three)
    for limit in ("fast", "middle", "slow", "both"):
        assert admitted_by(three, hot, limit), limit
    assert traffic.statuses.keys() <= {200, 429, 503}
