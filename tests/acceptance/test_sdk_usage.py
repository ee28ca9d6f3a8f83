"""What processes of host apps report to a real sidecar, against what their clients saw."""

import asyncio
import random
from collections import Counter

import httpx

from tests.acceptance.asking import fresh_tenant, put_tenant
from tests.acceptance.conftest import HostsFactory
from tests.support.host import Host
from tests.support.sidecar import Sidecar

REQUESTS = 600

AT_ONCE = 24


async def reported(admin: httpx.AsyncClient, tenant: str) -> dict[str, float]:
    """A tenant's usage, by meter. A minute that is over may be in Redis or PostgreSQL by now."""
    answer = await admin.get(
        f"/v1/tenants/{tenant}/usage", params={"step": "minute", "page_size": "1000"}
    )
    assert answer.status_code == 200, answer.text
    page = answer.json()
    assert page["next_cursor"] is None
    sums: Counter[str] = Counter()
    for point in page["points"]:
        sums[point["meter"]] += point["value"]
    return sums


async def test_three_processes_report_exactly_what_their_clients_saw(
    asked_sidecar: Sidecar, hosts: HostsFactory
) -> None:
    started = hosts(*[asked_sidecar.url] * 3, deadline=30.0)
    tenants = [fresh_tenant() for _ in range(6)]
    stranger = fresh_tenant()
    async with asked_sidecar.client() as admin:
        for tenant in tenants:
            await put_tenant(admin, tenant)
        await put_tenant(admin, tenants[0], tier="enterprise")
    seen: Counter[tuple[str, str, int]] = Counter()
    random_ = random.Random(6)
    left = [
        (
            random_.choice(started),
            random_.choice([*tenants, tenants[0], stranger]),
            random_.choice(["requests", "requests", "observed", "huge"]),
        )
        for _ in range(REQUESTS)
    ]

    async def ask(client: httpx.AsyncClient) -> None:
        while left:
            host, tenant, limit = left.pop()
            answer = await client.get(host.url, headers={"X-Tenant-ID": tenant, "X-Limit": limit})
            seen[tenant, limit, answer.status_code] += 1

    async with httpx.AsyncClient(verify=False, timeout=60) as client:
        await asyncio.gather(*(ask(client) for _ in range(AT_ONCE)))
    await asyncio.gather(*(asyncio.to_thread(Host.stop, one) for one in started))
    assert {status for _, _, status in seen} == {200, 403, 429}
    would_deny = 0.0
    for tenant in tenants:
        async with asked_sidecar.client() as admin:
            counted = await reported(admin, tenant)
        for limit in ("requests", "observed", "huge"):
            meter = f"limits.{limit}"
            spared = counted.pop(f"{meter}.would_deny", 0)
            would_deny += spared
            assert counted.pop(f"{meter}.admitted", 0) + spared == seen[tenant, limit, 200]
            assert counted.pop(f"{meter}.denied", 0) == seen[tenant, limit, 429]
            assert not (spared and limit != "observed")
        for status in (200, 429):
            times = sum(seen[tenant, limit, status] for limit in ("requests", "observed", "huge"))
            assert counted.pop(f"requests.{status // 100}xx", 0) == times
        assert counted.pop("requests.in_flight_seconds") > 0
        assert not counted  # nothing was degraded
    assert would_deny > 0
