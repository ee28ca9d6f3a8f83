"""One host app on a real sidecar: what its clients see, and what it leaves behind."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import http_sf
import httpx

from tests.acceptance.asking import PATIENT, fresh_tenant, put_tenant, until
from tests.acceptance.conftest import HostsFactory
from tests.conftest import SidecarFactory
from tests.support.host import Host
from tests.support.http1 import Connection, get
from tests.support.sidecar import Sidecar
from tests.support.traffic import Traffic

PATIENT_SECONDS = 30.0
"""A deadline that a busy machine does not miss."""


@asynccontextmanager
async def client_of(host: Host, tenant: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a host whose way to its sidecar is known: nothing of `tenant` is lost on it."""
    async with httpx.AsyncClient(
        verify=False, base_url=host.url, timeout=2 * PATIENT_SECONDS
    ) as client:
        await client.get("/", headers={"X-Tenant-ID": "a-stranger"})
        client.headers["X-Tenant-ID"] = tenant
        yield client


def fields(answer: httpx.Response, name: str) -> dict[str, dict[str, Any]]:
    """A header of the IETF's family, as RFC 9651 reads it."""
    parsed: Any = http_sf.parse(answer.headers[name].encode(), tltype="list")
    return {str(item): dict(parameters) for item, parameters in parsed}


async def test_it_is_denied_at_its_tiers_limit_with_the_right_headers(
    asked_sidecar: Sidecar, hosts: HostsFactory
) -> None:
    (host,) = hosts(asked_sidecar.url, deadline=PATIENT_SECONDS)
    acme = fresh_tenant()
    async with asked_sidecar.client() as admin, client_of(host, acme) as client:
        await put_tenant(admin, acme)
        for turn in range(5):
            answer = await client.get("/")
            assert answer.status_code == 200
            assert fields(answer, "RateLimit-Policy") == {"requests": {"q": 5, "w": 60}}
            said = fields(answer, "RateLimit")["requests"]
            assert said["r"] == 4 - turn  # down by one each, whatever is leased
            assert answer.headers["X-RateLimit-Limit"] == "5"
            assert answer.headers["X-RateLimit-Remaining"] == str(4 - turn)
            assert answer.headers["X-RateLimit-Reset"] == str(said["t"])
            assert 50 <= said["t"] <= 63
            assert "Retry-After" not in answer.headers
        for _ in range(20):
            answer = await client.get("/")
            assert answer.status_code == 429
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert 50 <= int(answer.headers["Retry-After"]) <= 63
            assert fields(answer, "RateLimit-Policy") == {"requests": {"q": 5, "w": 60}}
            assert fields(answer, "RateLimit")["requests"]["r"] == 0
            problem = answer.json()
            assert re.search(r"try again in \d+ s", problem.pop("detail"))
            assert problem == {
                "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "title": "Too many requests",
                "status": 429,
                "violated-policies": ["requests"],
                "tenant": acme,
                "tier": "free",
                "upgrade": "pro",
            }
    assert len(host.admitted[acme]) == 5


async def test_a_hot_tenants_remaining_goes_down_by_one_each(
    asked_sidecar: Sidecar, hosts: HostsFactory
) -> None:
    """Leased or not, what is in hand still remains: a client sees the whole limit."""
    (host,) = hosts(asked_sidecar.url, deadline=PATIENT_SECONDS)
    acme = fresh_tenant()
    async with asked_sidecar.client() as admin, client_of(host, acme) as client:
        await put_tenant(admin, acme, tier="pro")
        remaining = []
        for _ in range(60):
            answer = await client.get("/")
            remaining.append(fields(answer, "RateLimit")["requests"]["r"])
        assert remaining == [*range(49, -1, -1), *[0] * 10]
    assert len(host.admitted[acme]) == 50


async def test_several_windows_are_each_an_item(
    asked_sidecar: Sidecar, hosts: HostsFactory
) -> None:
    (host,) = hosts(asked_sidecar.url, deadline=PATIENT_SECONDS)
    acme = fresh_tenant()
    async with asked_sidecar.client() as admin, client_of(host, acme) as client:
        await put_tenant(admin, acme)
        answer = await client.get("/", headers={"X-Limit": "exports", "X-Cost": "2"})
        assert answer.status_code == 200
        assert fields(answer, "RateLimit-Policy") == {
            "exports": {"q": 100, "w": 3600},
            "exports-60s": {"q": 10, "w": 60},
            "exports-1s": {"q": 2, "w": 1},
        }
        left = {name: item["r"] for name, item in fields(answer, "RateLimit").items()}
        assert left == {"exports": 98, "exports-60s": 8, "exports-1s": 0}
        assert answer.headers["X-RateLimit-Limit"] == "2"
        # A cost that never fits: no moment to name.
        answer = await client.get("/", headers={"X-Limit": "exports", "X-Cost": "3"})
        assert answer.status_code == 429
        assert "Retry-After" not in answer.headers
        assert answer.json()["violated-policies"] == ["exports-1s"]


async def test_retry_after_is_enough(asked_sidecar: Sidecar, hosts: HostsFactory) -> None:
    (host,) = hosts(asked_sidecar.url, deadline=PATIENT_SECONDS)
    acme = fresh_tenant()
    async with asked_sidecar.client() as admin, client_of(host, acme) as client:
        await put_tenant(admin, acme)
        for _ in range(2):
            while (answer := await client.get("/", headers={"X-Limit": "exports"})).is_success:
                pass
            await asyncio.sleep(int(answer.headers["Retry-After"]))
            answer = await client.get("/", headers={"X-Limit": "exports"})
            assert answer.status_code == 200


async def test_who_is_refused_and_how(asked_sidecar: Sidecar, hosts: HostsFactory) -> None:
    (host,) = hosts(asked_sidecar.url, deadline=PATIENT_SECONDS)
    suspended = fresh_tenant()
    async with asked_sidecar.client() as admin:
        await put_tenant(admin, suspended, status="suspended")
    async with httpx.AsyncClient(verify=False, base_url=host.url, timeout=60) as client:
        for tenant, status, slug in (
            (None, 400, "no-tenant"),
            ("not an id", 400, "no-tenant"),
            (fresh_tenant(), 403, "unknown-tenant"),
            (suspended, 403, "tenant-suspended"),
        ):
            headers = {} if tenant is None else {"X-Tenant-ID": tenant}
            answer = await client.get("/", headers=headers)
            assert (answer.status_code, answer.json()["type"]) == (
                status,
                f"urn:partywall:problem:{slug}",
            )
        assert (await client.get("/nobody")).status_code == 200
    assert host.admitted == {}


async def test_a_websocket_is_governed_when_it_connects(
    asked_sidecar: Sidecar, hosts: HostsFactory
) -> None:
    (host,) = hosts(asked_sidecar.url, deadline=PATIENT_SECONDS)
    acme = fresh_tenant()
    async with asked_sidecar.client() as admin:
        await put_tenant(admin, acme)
    handshake = get(
        "/socket",
        {
            "X-Tenant-ID": acme,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        },
    )
    async with client_of(host, acme):
        pass
    answers = []
    for _ in range(6):
        async with Connection(host.url) as connection:
            answers.append(await connection.exchange(handshake))
    assert [answer.status for answer in answers] == [101] * 5 + [429]
    assert answers[0].headers["ratelimit"].startswith('"requests";r=4;t=')
    assert int(answers[5].headers["retry-after"]) > 0


async def test_a_streamed_response_is_passed_on_as_it_comes(
    asked_sidecar: Sidecar, hosts: HostsFactory
) -> None:
    (host,) = hosts(asked_sidecar.url, deadline=PATIENT_SECONDS)
    acme = fresh_tenant()
    async with asked_sidecar.client() as admin, client_of(host, acme) as client:
        await put_tenant(admin, acme)
        async with client.stream("GET", "/stream") as answer:
            parts = answer.aiter_raw()
            assert await anext(parts) == b"first"
            await client.get("/release")
            assert b"".join([part async for part in parts]) == acme.encode()


QUOTAS = """
default_tier = "free"
[tiers.free.limits]
requests = "2000/minute"
"""


async def test_what_a_host_did_not_spend_is_anothers_as_soon_as_it_has_stopped(
    sidecar: SidecarFactory, hosts: HostsFactory
) -> None:
    """SIGTERM in the midst of traffic: leases are in hand, and nobody waits for them to end."""
    one = sidecar(quotas=QUOTAS, env=PATIENT)
    first, second = hosts(one.url, one.url, on_outage="closed", deadline=PATIENT_SECONDS)
    acme = fresh_tenant()
    async with one.client() as admin, client_of(second, acme) as client:
        async with Traffic() as traffic:
            for _ in range(4):
                traffic.add(first, acme, rate=75)

            async def hot() -> bool:
                return len(traffic.answered) >= 300

            await until(hot, seconds=60)
            await asyncio.to_thread(first.close)
        rest = 2000 - len(first.admitted[acme])
        answer = await client.get("/", headers={"X-Cost": str(rest)})
        assert answer.status_code == 200
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        assert (await client.get("/")).status_code == 429
        metrics = (await admin.get("/metrics")).text
        returned = re.search(r'partywall_permits_total{.*outcome="returned".*} ([0-9.]+)', metrics)
        assert returned is not None
        assert float(returned[1]) > 0
