"""`POST /v1/permits`: what an SDK process leases, returns and is denied, item by item."""

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import redis

from partywall.protocol import LONGEST_HOLD, PermitsAnswer
from partywall_service.embedded import PostgresServer, ValkeyServer
from partywall_service.ledger.migrations import upgrade
from tests.acceptance.asking import check, fresh_tenant, new_token, put_tenant, until
from tests.acceptance.test_outage import freeze, kill
from tests.conftest import SidecarFactory
from tests.support.api import fields_of, problem_of
from tests.support.sidecar import Sidecar

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


async def permits(
    client: httpx.AsyncClient,
    *asks: dict[str, Any],
    returns: list[dict[str, Any]] | None = None,
    instance: str = "one",
) -> list[dict[str, Any]]:
    """The permits for asks of `requests`, unless they say otherwise; each is what the type says."""
    answer = await client.post(
        "/v1/permits",
        json={
            "instance": instance,
            "asks": [{"limit": "requests", **ask} for ask in asks],
            "returns": returns or [],
            "within": 0.5,
        },
    )
    assert answer.status_code == 200, answer.text
    read = msgspec.json.decode(answer.content, type=PermitsAnswer)
    assert len(read.permits) == len(asks)
    return [msgspec.structs.asdict(permit) for permit in read.permits]


def give_back(tenant: str, lease: str, units: int) -> dict[str, Any]:
    return {"tenant": tenant, "limit": "requests", "lease": lease, "units": units}


@pytest.fixture
async def pro(asked: httpx.AsyncClient) -> str:
    """A tenant with 50 requests a minute."""
    tenant = fresh_tenant()
    await put_tenant(asked, tenant, tier="pro")
    return tenant


async def test_what_is_granted_is_charged_for_everyone(asked: httpx.AsyncClient, pro: str) -> None:
    (permit,) = await permits(asked, {"tenant": pro, "need": 10})
    assert (permit["allowed"], permit["tier"], permit["granted"]) == (True, "pro", 10)
    assert permit["seconds"] == 0.5
    assert permit["windows"][0].remaining == 40
    assert (await check(asked, pro))["remaining"] == 39


async def test_a_returned_unit_is_free_at_once_and_only_once(
    asked: httpx.AsyncClient, pro: str
) -> None:
    (lease,) = await permits(asked, {"tenant": pro, "need": 2, "ahead": 40, "lease": "a"})
    assert (lease["granted"], lease["leased"]) == (8, True)
    await check(asked, pro, cost=42)
    (denied,) = await permits(asked, {"tenant": pro})
    assert not denied["allowed"]
    back = give_back(pro, "a", 5)
    (permit,) = await permits(asked, {"tenant": pro, "cost": 5, "need": 5}, returns=[back])
    assert permit["granted"] == 5
    (denied,) = await permits(asked, {"tenant": pro}, returns=[back, back])
    assert not denied["allowed"]


async def test_a_denial_says_until_when_and_what_to_upgrade_to(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    await check(asked, acme, cost=5)
    (denied,) = await permits(asked, {"tenant": acme, "cost": 3, "need": 3})
    assert (denied["allowed"], denied["reason"], denied["granted"]) == (False, "limit-exceeded", 0)
    assert 0 < denied["retry_after"] <= 62
    assert 0 < denied["seconds"] <= LONGEST_HOLD
    assert denied["upgrade"] == "pro"
    assert denied["windows"][0].remaining == 0
    (never,) = await permits(asked, {"tenant": acme, "cost": 60, "need": 60})
    assert (never["retry_after"], never["upgrade"]) == (None, "enterprise")
    assert (await check(asked, acme, dry_run=True))["remaining"] == 0  # a denial charges nothing


async def test_each_item_has_its_own_answer(asked: httpx.AsyncClient, pro: str) -> None:
    suspended, rich = fresh_tenant(), fresh_tenant()
    await put_tenant(asked, suspended, status="suspended")
    await put_tenant(asked, rich, tier="enterprise")
    answers = await permits(
        asked,
        {"tenant": fresh_tenant()},
        {"tenant": pro, "limit": "no-such"},
        {"tenant": suspended},
        {"tenant": rich},
        {"tenant": pro, "limit": "observed", "cost": 3, "need": 3},
        {"tenant": pro},
    )
    unknown, no_limit, stopped, unlimited, observed, fine = answers
    for refused, reason in (
        (unknown, "unknown-tenant"),
        (no_limit, "unknown-limit"),
        (stopped, "tenant-suspended"),
    ):
        assert (refused["allowed"], refused["reason"], refused["retry_after"]) == (
            False,
            reason,
            None,
        )
        assert refused["seconds"] == LONGEST_HOLD
    assert (unlimited["allowed"], unlimited["granted"], unlimited["windows"]) == (True, 0, ())
    assert (observed["allowed"], observed["reason"], observed["granted"]) == (True, None, 0)
    assert (fine["allowed"], fine["granted"]) == (True, 1)


async def test_it_tells_what_the_tiers_have_and_lack(asked: httpx.AsyncClient, pro: str) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    asks = [{"tenant": tenant, "limit": "requests"} for tenant in (acme, pro)]
    answer = (await asked.post("/v1/permits", json={"instance": "one", "asks": asks})).json()
    assert answer["tiers"] == {
        "free": {"upgrades": {"advanced-analytics": "pro"}},
        "pro": {"features": ["advanced-analytics"]},
    }


# What cannot be asked.


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "instance"),
        ({"instance": "a b"}, "instance"),
        ({"instance": "one\n"}, "instance"),
        ({"instance": "one", "asks": [{"tenant": "acme"}]}, "asks[0].limit"),
        ({"instance": "one", "asks": [{"tenant": "", "limit": "a"}]}, "asks[0].tenant"),
        ({"instance": "one", "asks": [{"tenant": "-a", "limit": "a"}]}, "asks[0].tenant"),
        ({"instance": "one", "asks": [{"tenant": "a", "limit": "a b"}]}, "asks[0].limit"),
        ({"instance": "one", "asks": [{"tenant": "a", "limit": "a", "cost": 0}]}, "asks[0].cost"),
        ({"instance": "one", "asks": [{"tenant": "a", "limit": "a", "cost": 2}]}, "asks[0].need"),
        ({"instance": "one", "asks": [{"tenant": "a", "limit": "a", "ahead": 1}]}, "asks[0].lease"),
        ({"instance": "one", "returns": [give_back("a", "no good", 1)]}, "returns[0].lease"),
        ({"instance": "one", "returns": [give_back("a b", "a", 1)]}, "returns[0].tenant"),
        ({"instance": "one", "returns": [give_back("a", "a", 0)]}, "returns[0].units"),
    ],
)
async def test_what_cannot_be_is_named(
    asked: httpx.AsyncClient, body: dict[str, Any], field: str
) -> None:
    assert fields_of(await asked.post("/v1/permits", json=body)) == [field]


async def test_a_malformed_item_charges_nothing_of_its_request(
    asked: httpx.AsyncClient, pro: str
) -> None:
    asks = [{"tenant": pro, "limit": "requests"}, {"tenant": "-", "limit": "requests"}]
    answer = await asked.post("/v1/permits", json={"instance": "one", "asks": asks})
    assert fields_of(answer) == ["asks[1].tenant"]
    assert (await check(asked, pro))["remaining"] == 49


async def test_fields_of_another_version_are_passed_over(
    asked: httpx.AsyncClient, pro: str
) -> None:
    body = {
        "instance": "one",
        "asks": [{"tenant": pro, "limit": "requests", "colour": "red"}],
        "mood": "good",
    }
    answer = await asked.post("/v1/permits", json=body)
    assert answer.json()["permits"][0]["granted"] == 1


@pytest.mark.parametrize("items", ["asks", "returns"])
async def test_a_thousand_are_answered_and_one_more_is_too_many(
    asked: httpx.AsyncClient, items: str
) -> None:
    one: dict[str, Any] = {"tenant": "nobody-at-all", "limit": "requests"}
    if items == "returns":
        one |= {"lease": "a", "units": 1}
    for many, status in ((1000, 200), (1001, 413)):
        answer = await asked.post("/v1/permits", json={"instance": "one", items: [one] * many})
        assert answer.status_code == status
    problem_of(answer, 413, "too-large")


async def test_who_may_ask(asked: httpx.AsyncClient, pro: str) -> None:
    body = {"instance": "one", "asks": [{"tenant": pro, "limit": "requests"}]}

    async def ask(token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return await asked.post("/v1/permits", json=body, headers=headers)

    host = await new_token(asked, "host")
    assert (await ask(host["token"])).status_code == 200
    own = await new_token(asked, f"tenant:{pro}")
    problem_of(await ask(own["token"]), 403, "forbidden")
    problem_of(await ask("pw_invented"), 401, "unauthenticated")
    assert (await asked.delete(f"/v1/tokens/{host['id']}")).status_code == 204

    async def refused() -> bool:
        return (await ask(host["token"])).status_code == 401

    await until(refused)
    answer = await asked.get("/v1/permits")
    assert answer.headers["allow"] == "POST"
    problem_of(answer, 405, "method-not-allowed")


async def test_a_host_may_look_up_whose_a_domain_is(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme, domains=[f"app.{acme}.example"])
    token = (await new_token(asked, "host"))["token"]
    answer = await asked.get(
        "/v1/tenants",
        params={"domain": f"APP.{acme}.example", "page_size": 1},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert [tenant["tenant"] for tenant in answer.json()["tenants"]] == [acme]


# Changes are felt.


async def test_a_raised_limit_and_a_suspension_are_felt_by_the_next_ask(
    asked: httpx.AsyncClient, pro: str
) -> None:
    await check(asked, pro, cost=50)
    (denied,) = await permits(asked, {"tenant": pro})
    assert not denied["allowed"]
    override = {"value": "60/minute", "reason": "a test"}
    path = f"/v1/tenants/{pro}/overrides/limits/requests"
    assert (await asked.put(path, json=override)).status_code == 200

    async def allowed() -> bool:
        (permit,) = await permits(asked, {"tenant": pro})
        return bool(permit["allowed"])

    await until(allowed)
    await put_tenant(asked, pro, tier="pro", status="suspended")

    async def stopped() -> bool:
        (permit,) = await permits(asked, {"tenant": pro})
        return bool(permit["reason"] == "tenant-suspended")

    await until(stopped)


# Exactness and the shape of the whole.


async def test_together_they_never_pass_the_quota(asked: httpx.AsyncClient, pro: str) -> None:
    ask = {"tenant": pro, "cost": 1, "need": 3}
    answers = await asyncio.gather(*(permits(asked, ask, instance=f"p{n}") for n in range(40)))
    assert sum(permit["granted"] for (permit,) in answers) == 50


async def test_processes_that_ask_are_counted_by_every_sidecar(sidecar: SidecarFactory) -> None:
    one, two = sidecar(), sidecar()

    async def instances(client: httpx.AsyncClient, instance: str) -> int:
        answer = await client.post("/v1/permits", json={"instance": instance})
        return int(answer.json().get("instances", 1))

    async with one.client() as first, two.client() as second:
        assert await instances(first, "a") >= 1
        assert await instances(first, "b") >= 2

        async def all_three() -> bool:
            counts = {await instances(first, "a"), await instances(second, "c")}
            return counts == {3}

        await until(all_three)


async def test_metrics_say_what_was_leased(asked: httpx.AsyncClient) -> None:
    tenant = fresh_tenant()
    await put_tenant(asked, tenant, tier="pro")

    async def counted(outcome: str) -> float:
        text = (await asked.get("/metrics")).text
        labels = f'limit="uploads",outcome="{outcome}",tier="pro"'
        found = re.search(rf"partywall_permits_total\{{{labels}\}} (\S+)", text)
        return float(found[1]) if found else 0.0

    granted, denied = await counted("granted"), await counted("denied")
    await permits(asked, {"tenant": tenant, "limit": "uploads", "need": 9})
    await permits(asked, {"tenant": tenant, "limit": "uploads"})
    assert await counted("granted") == granted + 7
    assert await counted("denied") == denied + 1


# Outages.

OUTAGE = """
default_tier = "free"
[tiers.free.limits]
requests = "5/hour"
open = { rate = "1/hour", on_outage = "open" }
closed = { rate = "1000000/minute", on_outage = "closed" }
observed = { rate = "1/hour", enforce = false }
unlimited = "unlimited"
"""


@pytest.mark.parametrize("take_away", [freeze, kill])
async def test_without_valkey_each_limit_answers_as_it_says(
    sidecar: SidecarFactory, own_valkey: ValkeyServer, take_away: Any
) -> None:
    env = {"PARTYWALL_REDIS_URL": own_valkey.url, "PARTYWALL_REDIS_TIMEOUT_MS": "1000"}
    one = sidecar(quotas=OUTAGE, env=env)
    acme = fresh_tenant()
    async with one.client() as client:
        await permits(client, {"tenant": acme})
        give_it_back = take_away(own_valkey)
        limits = ["requests", "open", "closed", "observed", "unlimited"]
        asks = [{"tenant": acme, "limit": limit, "need": 1} for limit in limits]

        async def away() -> bool:
            answers = await permits(client, *asks)
            return bool(answers[1]["degraded"])

        await until(away)
        local, opened, closed, observed, unlimited = await permits(
            client, *asks, returns=[give_back(acme, "a", 1)]
        )
        assert (local["degraded"], local["leased"]) == (True, False)
        assert (opened["allowed"], opened["degraded"], opened["granted"]) == (True, True, 0)
        assert (closed["allowed"], closed["reason"]) == (False, "unavailable")
        assert closed["seconds"] == LONGEST_HOLD
        assert (observed["allowed"], observed["degraded"]) == (True, True)
        assert (unlimited["allowed"], unlimited["degraded"]) == (True, False)
        (over,) = await permits(client, {"tenant": acme, "cost": 6, "need": 6})
        assert (over["allowed"], over["reason"]) == (False, "limit-exceeded")
        text = (await client.get("/metrics")).text
        assert 'partywall_degraded_decisions_total{limit="open",outcome="admitted"' in text

        await asyncio.to_thread(give_it_back)

        async def exact() -> bool:
            answers = await permits(client, *asks)
            return not any(permit["degraded"] for permit in answers)

        await until(exact)
    assert "Traceback" not in one.log


async def test_without_postgres_only_the_unknown_go_without(
    sidecar: SidecarFactory, own_postgres: PostgresServer
) -> None:
    await asyncio.to_thread(upgrade, own_postgres.url)
    one = sidecar(quotas=OUTAGE, env={"PARTYWALL_DATABASE_URL": own_postgres.url})
    known = fresh_tenant()
    async with one.client() as client:
        await permits(client, {"tenant": known})
        await asyncio.to_thread(own_postgres.stop)
        strangers = [{"tenant": fresh_tenant()} for _ in range(3)]
        *away, fine = await permits(client, *strangers, {"tenant": known})
        assert fine["granted"] == 1
        for permit in away:
            assert (permit["allowed"], permit["reason"]) == (False, "unavailable")
        await asyncio.to_thread(own_postgres.start)

        async def back() -> bool:
            return all(permit["allowed"] for permit in await permits(client, *strangers))

        await until(back)
    assert "Traceback" not in one.log


async def test_the_least_privileges_that_are_documented_are_enough(
    sidecar: SidecarFactory, own_valkey: ValkeyServer
) -> None:
    (line,) = re.findall(r"^ACL SETUSER .*$", OPERATING.read_text(), re.MULTILINE)
    words = line.replace(">SECRET", ">secret").split()
    with redis.Redis.from_url(own_valkey.url) as admin:
        admin.execute_command(*words)
    path = own_valkey.url.removeprefix("unix://")
    env = {
        "PARTYWALL_REDIS_URL": f"unix://partywall:secret@{path}",
        "PARTYWALL_KEY_PREFIX": "pw",
    }
    one: Sidecar = sidecar(env=env)
    acme = fresh_tenant()
    async with one.client() as client:
        ask = {"tenant": acme, "need": 2, "ahead": 4, "lease": "a"}
        (lease,) = await permits(client, ask)
        assert (lease["degraded"], lease["leased"]) == (False, True)
        (permit,) = await permits(client, {"tenant": acme}, returns=[give_back(acme, "a", 4)])
        assert (permit["degraded"], permit["windows"][0].remaining) == (False, 97)
        assert (await check(client, acme, cost=98))["allowed"] is False
    assert "store.lost" not in one.log
