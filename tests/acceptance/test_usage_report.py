"""`POST /v1/usage`: what SDK processes report counts once; so do decisions of an outage."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import psycopg
import pytest
import redis.asyncio

from partywall_service.embedded import ValkeyServer
from partywall_service.usage.limits_source import LimitsSource
from tests.acceptance.asking import check, fresh_tenant, new_token, put_tenant, until
from tests.acceptance.test_outage import freeze
from tests.conftest import SidecarFactory
from tests.support.api import fields_of, problem_of
from tests.support.sidecar import Sidecar

ADMITTED = "limits.requests.admitted"
DEGRADED = "limits.requests.degraded"


def body(*tenants: str, sequence: int = 1, instance: str = "", **more: Any) -> dict[str, Any]:
    """A report; unless it is told, of a process that this tenant alone has."""
    usage = [{"tenant": tenant, "meters": {ADMITTED: 2, "requests.2xx": 1}} for tenant in tenants]
    instance = instance or f"sdk-{tenants[0]}"
    return {"instance": instance, "sequence": sequence, "age": 0.25, "usage": usage} | more


async def counted_by(one: Sidecar, *tenants: str) -> Mapping[tuple[str, str], int]:
    """What was counted, by tenant and meter: in Redis, or in PostgreSQL once a minute is over."""
    prefix = one.env["PARTYWALL_KEY_PREFIX"]
    async with redis.asyncio.Redis.from_url(one.env["PARTYWALL_REDIS_URL"]) as client:
        points = {
            (tenant, minute, meter): value
            for tenant, minute, meter, value in await LimitsSource(client, prefix, 30).held(tenants)
        }
    query = (
        "SELECT tenant, extract(epoch FROM start)::bigint / 60, meter, value"
        " FROM usage_minutes WHERE tenant = ANY(%s)"
    )
    url = one.env["PARTYWALL_DATABASE_URL"]
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for *point, value in await (await connection.execute(query, [list(tenants)])).fetchall():
            points.setdefault(tuple(point), value)
    sums: dict[tuple[str, str], int] = {}
    for (tenant, _, meter), value in points.items():
        sums[tenant, meter] = sums.get((tenant, meter), 0) + value
    return sums


@pytest.fixture
async def acme(asked: httpx.AsyncClient) -> str:
    tenant = fresh_tenant()
    await put_tenant(asked, tenant)
    return tenant


async def test_a_report_counts_once_beside_what_the_sidecar_decides(
    asked: httpx.AsyncClient, asked_sidecar: Sidecar, acme: str
) -> None:
    for sequence in (1, 1, 2, 1):
        answer = await asked.post("/v1/usage", json=body(acme, sequence=sequence))
        assert (answer.status_code, answer.json()) == (200, {"applied": 1})
    await check(asked, acme)
    assert await counted_by(asked_sidecar, acme) == {
        (acme, ADMITTED): 2 * 2 + 1,
        (acme, "requests.2xx"): 2,
    }


async def test_who_is_unknown_is_dropped(
    asked: httpx.AsyncClient, asked_sidecar: Sidecar, acme: str
) -> None:
    ghost = fresh_tenant()
    answer = await asked.post("/v1/usage", json=body(acme, ghost))
    assert answer.json() == {"applied": 1}
    assert (acme, ADMITTED) in await counted_by(asked_sidecar, acme, ghost)
    assert await counted_by(asked_sidecar, ghost) == {}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"instance": "a b"}, "instance"),
        ({"instance": "one\n"}, "instance"),
        ({"sequence": 0}, "sequence"),
        ({"age": -1}, "age"),
        ({"age": "now"}, "age"),
        ({"usage": {}}, "usage"),
        ({"usage": [{"tenant": "a"}]}, "usage[0].meters"),
        ({"usage": [{"tenant": "-", "meters": {}}]}, "usage[0].tenant"),
        ({"usage": [{"tenant": "a", "meters": {"mood": 1}}]}, "usage[0].meters"),
        ({"usage": [{"tenant": "a", "meters": {ADMITTED: 0}}]}, "usage[0].meters[...]"),
        ({"usage": [{"tenant": "a", "meters": {}}] * 1001}, "usage"),
    ],
)
async def test_what_cannot_be_is_named(
    asked: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    assert fields_of(await asked.post("/v1/usage", json=body("acme", **change))) == [field]


async def test_fields_of_another_version_are_passed_over(
    asked: httpx.AsyncClient, acme: str
) -> None:
    answer = await asked.post("/v1/usage", json=body(acme, mood="good"))
    assert answer.json() == {"applied": 1}


async def test_who_may_report(asked: httpx.AsyncClient, acme: str) -> None:
    async def send(token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return await asked.post("/v1/usage", json=body(acme), headers=headers)

    assert (await send((await new_token(asked, "host"))["token"])).status_code == 200
    own = await new_token(asked, f"tenant:{acme}")
    problem_of(await send(own["token"]), 403, "forbidden")
    problem_of(await send("pw_invented"), 401, "unauthenticated")
    problem_of(await asked.get("/v1/usage"), 405, "method-not-allowed")


async def test_a_body_that_is_too_large_is_refused(asked: httpx.AsyncClient, acme: str) -> None:
    answer = await asked.post("/v1/usage", json=body(acme, mood="x" * 5_000_000))
    problem_of(answer, 413, "too-large")


async def test_two_sidecars_count_a_report_once(sidecar: SidecarFactory) -> None:
    one, two = sidecar(), sidecar()
    tenants = [fresh_tenant() for _ in range(50)]
    async with one.client() as first, two.client() as second:
        for sequence in (1, 2):
            sent = body(*tenants, sequence=sequence)
            answers = await asyncio.gather(
                *(client.post("/v1/usage", json=sent) for client in (first, second) * 5)
            )
            assert {answer.text for answer in answers} == {'{"applied":50}'}
    sums = await counted_by(one, *tenants)
    assert sums == {(t, m): 2 * n for t in tenants for m, n in ((ADMITTED, 2), ("requests.2xx", 1))}


async def test_an_outage_of_valkey_loses_no_count(
    sidecar: SidecarFactory, own_valkey: ValkeyServer
) -> None:
    env = {"PARTYWALL_REDIS_URL": own_valkey.url, "PARTYWALL_REDIS_TIMEOUT_MS": "1000"}
    one = sidecar(env=env)
    acme = fresh_tenant()
    async with one.client() as client:
        await check(client, acme)
        give_it_back = freeze(own_valkey)

        async def away() -> bool:
            return bool((await check(client, fresh_tenant()))["degraded"])

        await until(away)
        degraded = [await check(client, acme) for _ in range(20)]
        assert all(decision["degraded"] for decision in degraded)
        sent = body(acme)
        problem_of(await client.post("/v1/usage", json=sent), 503, "unavailable")
        await asyncio.to_thread(give_it_back)

        async def taken() -> bool:
            return (await client.post("/v1/usage", json=sent)).status_code == 200

        await until(taken)
        expected = {
            (acme, ADMITTED): 1 + 20 + 2,
            (acme, DEGRADED): 20,
            (acme, "requests.2xx"): 1,
        }

        async def added() -> bool:
            return await counted_by(one, acme) == expected

        await until(added)
    assert "Traceback" not in one.log


async def test_what_was_decided_without_valkey_is_counted_before_the_sidecar_ends(
    sidecar: SidecarFactory, own_valkey: ValkeyServer
) -> None:
    one = sidecar(env={"PARTYWALL_REDIS_URL": own_valkey.url})
    acme = fresh_tenant()
    async with one.client() as client:
        await check(client, acme)
        await asyncio.to_thread(own_valkey.stop)
        for _ in range(5):
            assert (await check(client, acme))["degraded"] is True
        await asyncio.to_thread(own_valkey.start)
    await asyncio.to_thread(one.stop)
    assert (await counted_by(one, acme))[acme, DEGRADED] == 5


async def test_without_metering_a_report_is_taken_and_counts_nothing(
    sidecar: SidecarFactory,
) -> None:
    one = sidecar(env={"PARTYWALL_METERING": "false"})
    acme = fresh_tenant()
    async with one.client() as client:
        assert (await client.post("/v1/usage", json=body(acme))).json() == {"applied": 0}
        await check(client, acme)
    assert await counted_by(one, acme) == {}
