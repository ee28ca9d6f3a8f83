"""A change of a tenant is felt by host apps, whichever sidecar was told of it."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
import pytest

from tests.acceptance.asking import PATIENT, fresh_tenant, put_tenant, until
from tests.acceptance.conftest import HostsFactory
from tests.conftest import SidecarFactory
from tests.support.host import Host
from tests.support.traffic import Traffic

QUOTAS = """
[tiers.free.limits]
requests = "5/minute"
[tiers.pro]
extends = "free"
limits = { requests = "100000/minute" }
"""

PROMISED = 1.0
"""Seconds until a change is felt by every SDK."""
GENEROUS = 10.0
"""What a busy machine may need; `make soak` holds the promise itself."""


class Street(NamedTuple):
    """The admin's client of one sidecar, and a host app on it or on another."""

    admin: httpx.AsyncClient
    host: Host
    client: httpx.AsyncClient


@pytest.fixture(params=["the same sidecar", "another sidecar"])
async def street(
    request: pytest.FixtureRequest, sidecar: SidecarFactory, hosts: HostsFactory
) -> AsyncIterator[Street]:
    one = sidecar(quotas=QUOTAS, env=PATIENT)
    there = one if request.param == "the same sidecar" else sidecar(quotas=QUOTAS, env=PATIENT)
    (host,) = hosts(there.url, on_outage="closed", deadline=30.0)
    async with (
        one.client() as admin,
        httpx.AsyncClient(verify=False, base_url=host.url, timeout=60) as client,
    ):
        yield Street(admin, host, client)


async def test_every_change_is_felt_under_load(street: Street, soak: bool) -> None:
    """The tenant never stops asking: what the host holds of it is never idle."""
    slowest = 0.0
    for _ in range(30 if soak else 2):
        acme = fresh_tenant()

        async def gives(status: int, acme: str = acme) -> float:
            async def felt() -> bool:
                answer = await street.client.get("/", headers={"X-Tenant-ID": acme})
                return answer.status_code == status

            return (await until(felt, seconds=GENEROUS))[1]

        await put_tenant(street.admin, acme)
        override = f"/v1/tenants/{acme}/overrides/limits/requests"
        async with Traffic() as traffic:
            for _ in range(2):
                traffic.add(street.host, acme, rate=20)
            await gives(429)
            body = {"value": "100000/minute", "reason": "x"}
            assert (await street.admin.put(override, json=body)).status_code == 200
            raised = await gives(200)
            await put_tenant(street.admin, acme, status="suspended")
            suspended = await gives(403)
            await put_tenant(street.admin, acme, status="active")
            resumed = await gives(200)
            assert (await street.admin.delete(override)).status_code == 204
            ended = await gives(429)
            await put_tenant(street.admin, acme, tier="pro")
            upgraded = await gives(200)
            body = {"value": "1/minute", "reason": "x"}
            assert (await street.admin.put(override, json=body)).status_code == 200
            lowered = await gives(429)
            assert (await street.admin.delete(f"/v1/tenants/{acme}")).status_code == 204
            deleted = await gives(403)
        slowest = max(slowest, raised, suspended, resumed, ended, upgraded, lowered, deleted)
        assert traffic.statuses.keys() == {200, 403, 429}
    assert slowest < (PROMISED if soak else GENEROUS)


async def test_a_suspended_tenant_stays_stopped(street: Street) -> None:
    acme, other = fresh_tenant(), fresh_tenant()
    await put_tenant(street.admin, acme, tier="pro")
    await put_tenant(street.admin, other, tier="pro")
    async with Traffic() as traffic, Traffic() as others:
        traffic.add(street.host, acme, rate=100)
        others.add(street.host, other, rate=20)

        async def says(status: int) -> bool:
            return traffic.answered[-1:] != [] and traffic.answered[-1].reply.status == status

        await until(lambda: says(200))
        await put_tenant(street.admin, acme, status="suspended")
        await until(lambda: says(403), seconds=GENEROUS)
        ran = len(street.host.admitted[acme])
        traffic.forget()

        async def still_asked() -> bool:
            return len(traffic.answered) >= 100

        await until(still_asked, seconds=60)
        assert traffic.statuses.keys() == {403}
        assert others.statuses.keys() == {200}
    assert len(street.host.admitted[acme]) == ran
