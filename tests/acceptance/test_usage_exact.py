"""The report against what clients saw: three host apps on two sidecars, one of which is killed.

Clients go on while it is away, and so does the counting: a process decides by itself then, and
reports it when its sidecar is back. The roll-up is killed as well, where it stands.
"""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import httpx
import pytest

from tests.acceptance.asking import PATIENT, fresh_tenant, put_tenant
from tests.acceptance.conftest import HostsFactory
from tests.conftest import SOAK, SidecarFactory
from tests.support.host import Host
from tests.support.sidecar import Sidecar

REQUESTS = 50_000 if SOAK else 1_500

AT_ONCE = 24

QUOTAS = """
[tiers.free.limits]
requests = "40/minute"
observed = { rate = "5/minute", enforce = false }
huge = "9007199254740991/minute"
free = "unlimited"
"""

Seen = Counter[tuple[str, str, int]]


class Crowd:
    """Clients of the host apps, who ask for one of some tenants and limits, and note the answer."""

    def __init__(self, started: Sequence[Host], tenants: Sequence[str]) -> None:
        self.seen: Seen = Counter()
        self._random = random.Random(6)
        self._hosts = started
        self._tenants = tenants

    async def ask(self, times: int, half: asyncio.Event | None = None) -> None:
        """So many requests; `half` is set once half of them were answered."""
        left = times

        async def one(client: httpx.AsyncClient) -> None:
            nonlocal left
            while left > 0:
                left -= 1
                tenant = self._random.choice([*self._tenants, self._tenants[0]])
                limit = self._random.choice(["requests", "observed", "huge", "free"])
                answer = await client.get(
                    self._random.choice(self._hosts).url,
                    headers={"X-Tenant-ID": tenant, "X-Limit": limit},
                )
                self.seen[tenant, limit, answer.status_code] += 1
                if half is not None and left < times // 2:
                    half.set()

        async with httpx.AsyncClient(verify=False, timeout=60) as client:
            await asyncio.gather(*(one(client) for _ in range(AT_ONCE)))


async def assert_reported(one: Sidecar, tenants: Sequence[str], seen: Seen) -> int:
    """The report says what clients saw; how many of it was decided without a sidecar."""
    assert {status for _, _, status in seen} == {200, 429}
    async with one.client() as client:
        answer = await client.get("/v1/reports/usage", params={"from": "2000-01-01T00:00:00Z"})
    report = {line["tenant"]: line for line in answer.json()["tenants"]}
    assert set(report) == set(tenants)
    degraded = 0
    for tenant in tenants:
        limits = {line["limit"]: line for line in report[tenant]["limits"]}
        for limit in ("requests", "observed", "huge", "free"):
            line = limits[limit]
            assert line["admitted"] + line["would_deny"] == seen[tenant, limit, 200], (limit, line)
            assert line["denied"] == seen[tenant, limit, 429], (limit, line)
        assert limits["observed"]["would_deny"] > 0
        degraded += report[tenant]["degraded"]
    return degraded


async def register(one: Sidecar) -> list[str]:
    tenants = [fresh_tenant() for _ in range(6)]
    async with one.client() as client:
        for tenant in tenants:
            await put_tenant(client, tenant, tier="free")
    return tenants


async def test_a_kill_of_a_sidecar_and_of_the_roll_up_loses_no_count(
    sidecar: SidecarFactory, hosts: HostsFactory, unused_tcp_port: int
) -> None:
    one = sidecar(quotas=QUOTAS, env={**PATIENT, "PARTYWALL_PORT": str(unused_tcp_port)})
    two = sidecar(quotas=QUOTAS, env=PATIENT)
    tenants = await register(one)
    started = hosts(one.url, two.url, one.url, deadline=1.0)
    crowd = Crowd(started, tenants)
    with roll_up(one) as worker:
        await crowd.ask(REQUESTS // 3)
        half = asyncio.Event()
        asking = asyncio.create_task(crowd.ask(REQUESTS // 3, half))
        await half.wait()
        one.kill()
        worker.kill()
        await asking
    await asyncio.to_thread(one.start)
    with roll_up(one):
        await crowd.ask(REQUESTS // 3)
        await asyncio.gather(*(asyncio.to_thread(Host.stop, host) for host in started))
    assert await assert_reported(two, tenants, crowd.seen) > 0


async def test_with_nothing_killed_all_is_decided_by_sidecars(
    sidecar: SidecarFactory, hosts: HostsFactory
) -> None:
    one, two = sidecar(quotas=QUOTAS, env=PATIENT), sidecar(quotas=QUOTAS, env=PATIENT)
    tenants = await register(one)
    started = hosts(one.url, two.url, one.url, deadline=30.0)
    crowd = Crowd(started, tenants)
    await crowd.ask(REQUESTS)
    await asyncio.gather(*(asyncio.to_thread(Host.stop, host) for host in started))
    assert await assert_reported(two, tenants, crowd.seen) == 0


class roll_up:  # noqa: N801 - it reads as what it does, in a `with`
    """A maintenance worker, until it is killed."""

    def __init__(self, one: Sidecar) -> None:
        command = [sys.executable, "-m", "partywall_service", "worker"]
        self._process = subprocess.Popen(
            command, env=one.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def kill(self) -> None:
        self._process.kill()

    def __enter__(self) -> "roll_up":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture
def unused_tcp_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
