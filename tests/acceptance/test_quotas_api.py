"""Quotas over REST, as docs/contract.md section 4 says, on two sidecars of one installation."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.acceptance.asking import fresh_tenant, new_token, put_tenant, until
from tests.support.api import fields_of, problem_of
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import Sidecar

POLICY = """
[tiers.free.quotas]
users = 5
projects = 3
storage = "1 GiB"
seats = 50
emails = { limit = 500, per = "month" }
cache_keys = 4

[tiers.pro]
extends = "free"
quotas = { users = 50, emails = { limit = 5000, per = "month" } }

[tiers.enterprise.quotas]
users = "unlimited"
domains = 7

[resources.cache_keys]
durable = false
thresholds = [50]
"""
RESOURCES = ["users", "projects", "storage", "seats", "emails", "cache_keys", "domains"]
KEY = "Idempotency-Key"


@pytest.fixture(scope="module")
def sidecars(test_run: TestRun) -> Iterator[tuple[Sidecar, Sidecar]]:
    """Two of one installation; each test brings tenants of its own."""
    with shared_sidecars(test_run, POLICY, count=2) as (one, other):
        yield one, other


@pytest.fixture
async def one(sidecars: tuple[Sidecar, Sidecar]) -> AsyncIterator[httpx.AsyncClient]:
    async with sidecars[0].client() as client:
        yield client


@pytest.fixture
async def other(sidecars: tuple[Sidecar, Sidecar]) -> AsyncIterator[httpx.AsyncClient]:
    async with sidecars[1].client() as client:
        yield client


@pytest.fixture
async def acme(one: httpx.AsyncClient) -> str:
    """A tenant of the tier free."""
    tenant = fresh_tenant()
    await put_tenant(one, tenant)
    return tenant


def path(tenant: str, rest: str) -> str:
    return f"/v1/tenants/{tenant}/{rest}"


async def post(
    client: httpx.AsyncClient, tenant: str, verb: str, body: Any = None, key: str | None = None
) -> httpx.Response:
    headers = {} if key is None else {KEY: key}
    return await client.post(path(tenant, f"quotas/{verb}"), json=body, headers=headers)


async def change(
    client: httpx.AsyncClient, tenant: str, verb: str, *, key: str | None = None, **items: int
) -> dict[str, Any]:
    """The answer to a change that is in order."""
    answer = await post(client, tenant, verb, {"items": items}, key)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def quotas(client: httpx.AsyncClient, tenant: str) -> dict[str, dict[str, Any]]:
    answer = await client.get(path(tenant, "quotas"))
    assert answer.status_code == 200, answer.text
    return {quota["resource"]: quota for quota in answer.json()["quotas"]}


async def used(client: httpx.AsyncClient, tenant: str, resource: str) -> tuple[int, int]:
    quota = (await quotas(client, tenant))[resource]
    return quota["used"], quota["reserved"]


async def ledger(
    client: httpx.AsyncClient, tenant: str, resource: str | None = None
) -> list[dict[str, Any]]:
    """All of it, newest first, in pages."""
    entries: list[dict[str, Any]] = []
    params: dict[str, str] = {"page_size": "200"} | ({"resource": resource} if resource else {})
    while True:
        answer = await client.get(path(tenant, "ledger"), params=params)
        assert answer.status_code == 200, answer.text
        entries += answer.json()["entries"]
        if answer.json()["next_cursor"] is None:
            return entries
        params["cursor"] = answer.json()["next_cursor"]


async def test_every_resource_of_any_tier_is_told(one: httpx.AsyncClient, acme: str) -> None:
    answer = (await one.get(path(acme, "quotas"))).json()
    assert list(answer) == ["tenant", "tier", "quotas"]
    assert (answer["tenant"], answer["tier"]) == (acme, "free")
    by_name = {quota["resource"]: quota for quota in answer["quotas"]}
    assert list(by_name) == RESOURCES
    assert by_name["users"] == {
        "resource": "users",
        "unit": "count",
        "limit": 5,
        "used": 0,
        "reserved": 0,
        "remaining": 5,
        "period": None,
        "resets_at": None,
        "version": 0,
        "crossed": None,
        "crossed_at": None,
    }
    assert (by_name["storage"]["unit"], by_name["storage"]["limit"]) == ("bytes", 2**30)
    assert (by_name["domains"]["limit"], by_name["domains"]["remaining"]) == (None, None)
    emails = by_name["emails"]
    now = datetime.now(UTC)
    resets = datetime.fromisoformat(emails["resets_at"])
    assert emails["resets_at"].endswith("-01T00:00:00Z")
    assert emails["period"] == "month"
    assert now < resets <= now + timedelta(days=31)


async def test_five_hundred_at_once_get_exactly_what_there_is(
    one: httpx.AsyncClient, other: httpx.AsyncClient, acme: str
) -> None:
    answers = await asyncio.gather(
        *(change((one, other)[turn % 2], acme, "consume", seats=1) for turn in range(500))
    )
    assert sum(answer["allowed"] for answer in answers) == 50
    assert all(answer["denied"] == ["seats"] for answer in answers if not answer["allowed"])
    assert await used(one, acme, "seats") == await used(other, acme, "seats") == (50, 0)
    lines = await ledger(other, acme, "seats")
    assert [(line["operation"], line["delta"], line["used"]) for line in lines] == [
        ("consume", 1, level) for level in range(50, 0, -1)
    ]
    crossed = [one["percent"] for answer in answers for one in answer["crossings"]]
    assert sorted(crossed) == [80, 95, 100]


async def test_consume_answers_with_the_touched_quotas(one: httpx.AsyncClient, acme: str) -> None:
    answer = await change(one, acme, "consume", storage=1048576, users=1)
    assert list(answer) == ["allowed", "tenant", "denied", "quotas", "crossings"]
    assert (answer["allowed"], answer["tenant"], answer["denied"]) == (True, acme, [])
    assert [(quota["resource"], quota["used"]) for quota in answer["quotas"]] == [
        ("storage", 1048576),
        ("users", 1),
    ]
    assert answer["crossings"] == []
    assert list((await quotas(one, acme))["users"]) == list(answer["quotas"][0])


async def test_several_resources_are_taken_all_or_none(one: httpx.AsyncClient, acme: str) -> None:
    before = await quotas(one, acme)
    answer = await change(one, acme, "consume", users=1, projects=4, storage=2**31)
    assert answer["allowed"] is False
    assert answer["denied"] == ["projects", "storage"]
    assert [quota["resource"] for quota in answer["quotas"]] == ["users", "projects", "storage"]
    assert await quotas(one, acme) == before
    assert await ledger(one, acme) == []


async def test_release_gives_back_but_not_below_zero(one: httpx.AsyncClient, acme: str) -> None:
    await change(one, acme, "consume", users=3, projects=1)
    answer = await change(one, acme, "release", users=2)
    assert (answer["allowed"], answer["quotas"][0]["used"]) == (True, 1)
    before = await quotas(one, acme)
    refused = await post(one, acme, "release", {"items": {"projects": 1, "users": 2}})
    problem_of(refused, 409, "conflict")
    assert await quotas(one, acme) == before


async def test_crossings_are_told_once_and_again_after_a_fall(
    one: httpx.AsyncClient, acme: str
) -> None:
    answer = await change(one, acme, "consume", users=4)
    assert answer["crossings"] == [{"resource": "users", "percent": 80, "used": 4, "limit": 5}]
    shown = (await quotas(one, acme))["users"]
    assert shown["crossed"] == 80
    assert shown["crossed_at"].endswith("Z")
    full = await change(one, acme, "consume", users=1)
    assert [crossing["percent"] for crossing in full["crossings"]] == [95, 100]
    await change(one, acme, "release", users=5)
    assert (await quotas(one, acme))["users"]["crossed"] is None
    again = await change(one, acme, "consume", users=4)
    assert [crossing["percent"] for crossing in again["crossings"]] == [80]
    lines = (await one.get("/v1/audit", params={"tenant": acme})).json()["entries"]
    crossed = [line["detail"] for line in lines if line["action"] == "quota.crossed"]
    assert [detail["percent"] for detail in crossed] == [80, 100, 95, 80]


async def test_a_reservation_is_committed_in_part(one: httpx.AsyncClient, acme: str) -> None:
    answer = await post(one, acme, "reserve", {"items": {"users": 3, "projects": 1}, "ttl": 600})
    held = answer.json()
    assert list(held) == [
        *("allowed", "tenant", "denied", "quotas", "crossings", "reservation", "expires_at")
    ]
    expires = datetime.fromisoformat(held["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=500) < expires < timedelta(seconds=601)
    assert held["expires_at"].endswith("Z")
    assert await used(one, acme, "users") == (0, 3)
    assert (await change(one, acme, "consume", users=3))["denied"] == ["users"]
    settle = f"reservations/{held['reservation']}"
    too_many = await post(one, acme, f"{settle}/commit", {"items": {"users": 4}})
    assert fields_of(too_many) == ["items"]
    unreserved = await post(one, acme, f"{settle}/commit", {"items": {"storage": 1}})
    assert fields_of(unreserved) == ["items"]
    body = {"items": {"users": 2}, "reason": "two came"}
    committed = await post(one, acme, f"{settle}/commit", body)
    assert list(committed.json()) == ["reservation", "status", "quotas", "crossings"]
    assert committed.json()["reservation"] == held["reservation"]
    assert committed.json()["status"] == "committed"
    assert await used(one, acme, "users") == (2, 0)
    assert await used(one, acme, "projects") == (0, 0)
    assert (await post(one, acme, f"{settle}/commit", body)).json() == committed.json()
    problem_of(await post(one, acme, f"{settle}/cancel"), 409, "conflict")
    (line,) = await ledger(one, acme)
    assert (line["operation"], line["delta"], line["reason"]) == ("commit", 2, "two came")


async def test_a_reservation_is_committed_whole_or_cancelled(
    one: httpx.AsyncClient, other: httpx.AsyncClient, acme: str
) -> None:
    kept = (await change(one, acme, "reserve", users=2))["reservation"]
    dropped = (await change(one, acme, "reserve", users=2))["reservation"]
    committed = await other.post(path(acme, f"quotas/reservations/{kept}/commit"))
    assert committed.json()["status"] == "committed"
    cancelled = await post(other, acme, f"reservations/{dropped}/cancel", {})
    assert cancelled.json()["status"] == "cancelled"
    again = await post(one, acme, f"reservations/{dropped}/cancel")
    assert again.json() == cancelled.json()
    problem_of(await post(one, acme, f"reservations/{dropped}/commit"), 409, "conflict")
    assert await used(one, acme, "users") == (2, 0)


async def test_no_room_is_no_reservation(one: httpx.AsyncClient, acme: str) -> None:
    answer = await change(one, acme, "reserve", users=6)
    assert list(answer) == ["allowed", "tenant", "denied", "quotas", "crossings"]
    assert (answer["allowed"], answer["denied"]) == (False, ["users"])
    assert await used(one, acme, "users") == (0, 0)


async def test_an_expired_reservation_is_given_back_by_itself(
    one: httpx.AsyncClient, acme: str
) -> None:
    held = (await post(one, acme, "reserve", {"items": {"users": 5}, "ttl": 1})).json()

    async def is_back() -> bool:
        return (await used(one, acme, "users")) == (0, 0)

    await until(is_back)
    settle = f"reservations/{held['reservation']}"
    problem_of(await post(one, acme, f"{settle}/commit"), 409, "conflict")
    assert (await post(one, acme, f"{settle}/cancel")).json()["status"] == "cancelled"
    assert (await change(one, acme, "consume", users=5))["allowed"]


async def test_unknown_things_are_problems(one: httpx.AsyncClient, acme: str) -> None:
    nobody = fresh_tenant()
    body = {"items": {"users": 1}}
    for verb in ("consume", "release", "reserve"):
        problem_of(await post(one, nobody, verb, body), 404, "unknown-tenant")
        answer = await post(one, acme, verb, {"items": {"users": 1, "cars": 1}})
        assert "cars" in problem_of(answer, 404, "unknown-resource")["detail"]
    for verb in ("commit", "cancel"):
        answer = await post(one, acme, f"reservations/{'0' * 25}/{verb}")
        problem_of(answer, 404, "unknown-reservation")
        answer = await post(one, nobody, f"reservations/{'0' * 25}/{verb}")
        problem_of(answer, 404, "unknown-tenant")
    for rest in ("quotas", "ledger", "preview?tier=pro"):
        problem_of(await one.get(path(nobody, rest)), 404, "unknown-tenant")
    problem_of(await one.get(path(acme, "ledger?resource=cars")), 404, "unknown-resource")
    put = await one.put(path(acme, "quotas/cars"), json={"used": 1})
    problem_of(put, 404, "unknown-resource")
    assert fields_of(await one.get(path(acme, "preview?tier=gold"))) == ["tier"]
    assert fields_of(await one.get(path(acme, "preview"))) == ["tier"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "items"),
        ({"items": {}}, "items"),
        ({"items": {f"r{one}": 1 for one in range(65)}}, "items"),
        ({"items": ["users"]}, "items"),
        ({"items": {"users": 0}}, "items.users"),
        ({"items": {"projects": 1, "users": -1}}, "items.users"),
        ({"items": {"users": 1.5}}, "items.users"),
        ({"items": {"users": 1.0}}, "items.users"),
        ({"items": {"users": "1"}}, "items.users"),
        ({"items": {"users": True}}, "items.users"),
        ({"items": {"users": None}}, "items.users"),
        ({"items": {"users": 2**53}}, "items.users"),
        ({"items": {"users": 10**40}}, "items.users"),
        ({"items": {"us ers": 1}}, "items.us ers"),
        ({"items": {"": 1}}, "items."),
        ({"items": {"users": 1}, "force": True}, "force"),
        ([], "body"),
        (None, "body"),
    ],
)
async def test_amounts_that_are_none_are_refused(
    one: httpx.AsyncClient, acme: str, body: Any, field: str
) -> None:
    for verb in ("consume", "release", "reserve"):
        assert fields_of(await post(one, acme, verb, body)) == [field]
    assert await ledger(one, acme) == []


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "a\x00b", "two\nlines", 7])
async def test_a_reason_is_one_line(one: httpx.AsyncClient, acme: str, reason: Any) -> None:
    body = {"items": {"users": 1}, "reason": reason}
    assert fields_of(await post(one, acme, "consume", body)) == ["reason"]
    put = await one.put(path(acme, "quotas/users"), json={"used": 1, "reason": reason})
    assert fields_of(put) == ["reason"]


@pytest.mark.parametrize("ttl", [0, -1, 86401, 1.5, "60", None])
async def test_a_ttl_is_a_day_at_most(one: httpx.AsyncClient, acme: str, ttl: Any) -> None:
    answer = await post(one, acme, "reserve", {"items": {"users": 1}, "ttl": ttl})
    assert fields_of(answer) == ["ttl"]


@pytest.mark.parametrize("tenant", [".acme", "a%20b", "x" * 129, "a%00", "%C3%A9"])
async def test_a_tenant_that_is_none(one: httpx.AsyncClient, tenant: str) -> None:
    assert fields_of(await post(one, tenant, "consume", {"items": {"users": 1}})) == ["tenant"]


async def test_a_body_is_no_longer_than_it_can_need(one: httpx.AsyncClient, acme: str) -> None:
    body = {"items": {"users": 1}, "reason": "x" * 70_000}
    problem_of(await post(one, acme, "consume", body), 413, "too-large")


@pytest.mark.parametrize("verb", ["consume", "release", "reserve", "reservations/d0/commit"])
async def test_a_change_is_a_post(one: httpx.AsyncClient, acme: str, verb: str) -> None:
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        answer = await one.request(method, path(acme, f"quotas/{verb}"))
        problem_of(answer, 405, "method-not-allowed")
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 20_000, b'{"items":' * 5000])
async def test_what_is_no_json_is_refused(
    one: httpx.AsyncClient, acme: str, content: bytes
) -> None:
    answer = await one.post(path(acme, "quotas/consume"), content=content)
    problem_of(answer, 422, "invalid-request")


async def test_the_first_answer_is_given_again(
    one: httpx.AsyncClient, other: httpx.AsyncClient, acme: str
) -> None:
    for verb, items in (
        ("consume", {"users": 2, "projects": 1}),
        ("release", {"users": 1}),
        ("reserve", {"users": 1}),
        ("consume", {"users": 9}),  # denied: that is an answer, too
    ):
        key = uuid.uuid4().hex
        first = await post(one, acme, verb, {"items": items}, key)
        assert first.status_code == 200
        before = await quotas(one, acme)
        swapped = {"items": dict(reversed(items.items()))}
        again = await post(other, acme, verb, swapped, key)
        assert (again.status_code, again.content) == (200, first.content)
        assert await quotas(other, acme) == before
        answer = await post(other, acme, verb, {"items": {"users": 3}}, key)
        problem_of(answer, 409, "conflict")
        assert await quotas(one, acme) == before


async def test_a_refusal_is_given_again(one: httpx.AsyncClient, acme: str) -> None:
    refused = await post(one, acme, "release", {"items": {"users": 1}}, "a-key")
    await change(one, acme, "consume", users=1)
    again = await post(one, acme, "release", {"items": {"users": 1}}, "a-key")
    assert problem_of(again, 409, "conflict") == problem_of(refused, 409, "conflict")


async def test_a_key_is_its_tenants_and_its_paths(one: httpx.AsyncClient, acme: str) -> None:
    beta = fresh_tenant()
    await put_tenant(one, beta)
    await change(one, acme, "consume", key="the-key", users=1)
    await change(one, beta, "consume", key="the-key", users=2)
    await change(one, acme, "release", key="the-key", users=1)
    held = (await change(one, acme, "reserve", key="the-key", users=3))["reservation"]
    settle = f"reservations/{held}/commit"
    first = await post(one, acme, settle, {"items": {"users": 2}}, "the-key")
    assert (await post(one, acme, settle, {"items": {"users": 2}}, "the-key")).content == (
        first.content
    )
    problem_of(await post(one, acme, settle, {"items": {"users": 1}}, "the-key"), 409, "conflict")
    level = {"used": 4, "reason": "counted"}
    for _ in range(2):
        put = await one.put(path(acme, "quotas/users"), json=level, headers={KEY: "the-key"})
        assert put.json()["used"] == 4
    put = await one.put(path(acme, "quotas/users"), json={"used": 5}, headers={KEY: "the-key"})
    problem_of(put, 409, "conflict")
    assert (await used(one, acme, "users"), await used(one, beta, "users")) == ((4, 0), (2, 0))
    assert {line["idempotency_key"] for line in await ledger(one, acme)} == {"the-key"}


async def test_one_key_at_once_consumes_once(
    one: httpx.AsyncClient, other: httpx.AsyncClient, acme: str
) -> None:
    answers = await asyncio.gather(
        *(
            post((one, other)[turn % 2], acme, "consume", {"items": {"users": 1}}, "same")
            for turn in range(40)
        )
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert await used(one, acme, "users") == (1, 0)
    assert len(await ledger(one, acme)) == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "é".encode(), "a\tb"])
async def test_a_key_that_is_none(one: httpx.AsyncClient, acme: str, key: str | bytes) -> None:
    for method, rest, body in (
        ("POST", "quotas/consume", {"items": {"users": 1}}),
        ("PUT", "quotas/users", {"used": 1}),
    ):
        answer = await one.request(method, path(acme, rest), json=body, headers={KEY: key})
        assert fields_of(answer) == [KEY]
    assert await used(one, acme, "users") == (0, 0)


async def test_setting_the_level_writes_the_drift(one: httpx.AsyncClient, acme: str) -> None:
    await change(one, acme, "consume", users=4)
    version = (await quotas(one, acme))["users"]["version"]
    put = await one.put(
        path(acme, "quotas/users"), json={"used": 7, "reason": "counted", "if_version": version}
    )
    assert put.status_code == 200
    assert put.json() == (await quotas(one, acme))["users"]
    assert (put.json()["used"], put.json()["remaining"]) == (7, 0)
    line, _ = await ledger(one, acme)
    assert line["at"].endswith("Z")
    del line["at"]
    assert line == {
        "resource": "users",
        "operation": "set",
        "delta": 3,
        "used": 7,
        "actor": "admin",
        "idempotency_key": None,
        "reason": "counted",
    }
    moved = await one.put(path(acme, "quotas/users"), json={"used": 1, "if_version": version})
    problem_of(moved, 409, "conflict")
    zero = await one.put(path(acme, "quotas/users"), json={"used": 0})
    assert zero.json()["used"] == 0
    lines = await ledger(one, acme, "users")
    assert sum(line["delta"] for line in lines) == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "used"),
        ({"used": -1}, "used"),
        ({"used": 1.0}, "used"),
        ({"used": "1"}, "used"),
        ({"used": 2**53}, "used"),
        ({"used": 1, "if_version": -1}, "if_version"),
        ({"used": 1, "limit": 5}, "limit"),
    ],
)
async def test_a_level_that_is_none_is_refused(
    one: httpx.AsyncClient, acme: str, body: Any, field: str
) -> None:
    assert fields_of(await one.put(path(acme, "quotas/users"), json=body)) == [field]


async def test_unlimited_is_counted_and_never_denied(one: httpx.AsyncClient) -> None:
    tenant = fresh_tenant()
    await put_tenant(one, tenant, tier="enterprise")
    answer = await change(one, tenant, "consume", users=10**12, projects=5)
    assert answer["allowed"]
    assert [quota["remaining"] for quota in answer["quotas"]] == [None, None]
    assert await used(one, tenant, "users") == (10**12, 0)
    beyond = await change(one, tenant, "consume", users=2**53 - 1)
    assert (beyond["allowed"], beyond["denied"]) == (False, ["users"])  # no number holds it


async def test_an_override_and_a_tier_apply_at_once(
    one: httpx.AsyncClient, other: httpx.AsyncClient, acme: str
) -> None:
    assert not (await change(one, acme, "consume", users=6))["allowed"]
    override = path(acme, "overrides/quotas/users")
    await one.put(override, json={"value": 6, "reason": "one more"})
    assert (await change(one, acme, "consume", users=6))["allowed"]
    await put_tenant(one, acme, tier="pro")
    assert (await quotas(one, acme))["users"]["limit"] == 6  # the override beats the tier
    await one.delete(override)
    assert (await change(one, acme, "consume", users=44))["allowed"]

    async def is_felt() -> bool:
        return (await quotas(other, acme))["users"]["limit"] == 50

    _, seconds = await until(is_felt)
    assert seconds < 5


async def test_a_downgrade_keeps_what_is_there_and_denies_more(
    one: httpx.AsyncClient, acme: str
) -> None:
    await put_tenant(one, acme, tier="pro")
    await change(one, acme, "consume", users=20, emails=600, projects=3)
    preview = (await one.get(path(acme, "preview?tier=free"))).json()
    assert preview == {
        "tenant": acme,
        "from": "pro",
        "to": "free",
        "over": [
            {"resource": "users", "used": 20, "limit": 5, "excess": 15},
            {"resource": "emails", "used": 600, "limit": 500, "excess": 100},
        ],
    }
    override = {"value": 30, "reason": "a promise"}
    await one.put(path(acme, "overrides/quotas/users"), json=override)
    preview = (await one.get(path(acme, "preview?tier=free"))).json()
    assert [over["resource"] for over in preview["over"]] == ["emails"]
    await one.delete(path(acme, "overrides/quotas/users"))
    await put_tenant(one, acme, tier="free")
    shown = (await quotas(one, acme))["users"]
    assert (shown["used"], shown["limit"], shown["remaining"]) == (20, 5, 0)
    assert not (await change(one, acme, "consume", users=1))["allowed"]
    assert (await change(one, acme, "release", users=16))["allowed"]
    assert (await change(one, acme, "consume", users=1))["allowed"]
    assert (await one.get(path(acme, "preview?tier=enterprise"))).json()["over"] == []


async def test_who_may_do_what(one: httpx.AsyncClient, acme: str) -> None:
    beta = fresh_tenant()
    await put_tenant(one, beta)
    await change(one, acme, "consume", users=1)
    own = await bearing(one, f"tenant:{acme}")
    host = await bearing(one, "host")
    reads = ["quotas", "ledger", "preview?tier=pro"]
    for rest in reads:
        expected = (await one.get(path(acme, rest))).content
        assert (await one.get(path(acme, rest), headers=own)).content == expected
        assert (await one.get(path(acme, rest), headers=host)).content == expected
        foreign = await one.get(path(beta, rest), headers=own)
        problem_of(foreign, 403, "forbidden")
        nobody = await one.get(path(acme, rest), headers={"Authorization": "Bearer nobody"})
        problem_of(nobody, 401, "unauthenticated")
    writes = [
        ("POST", "quotas/consume", {"items": {"users": 1}}),
        ("POST", "quotas/release", {"items": {"users": 1}}),
        ("POST", "quotas/reserve", {"items": {"users": 1}}),
        ("PUT", "quotas/users", {"used": 1}),
    ]
    for method, rest, body in writes:
        refused = await one.request(method, path(acme, rest), json=body, headers=own)
        problem_of(refused, 403, "forbidden")
        done = await one.request(method, path(acme, rest), json=body, headers=host)
        assert done.status_code == 200, done.text
    for verb in ("commit", "cancel"):
        rest = f"quotas/reservations/{'0' * 25}/{verb}"
        problem_of(await one.post(path(acme, rest), headers=own), 403, "forbidden")
    newest, *_ = await ledger(one, acme)
    assert newest["actor"].startswith("for a test (")


async def test_the_ledger_comes_in_pages(one: httpx.AsyncClient, acme: str) -> None:
    for _ in range(3):
        await change(one, acme, "consume", users=1, projects=1)
    page = (await one.get(path(acme, "ledger"), params={"page_size": 4})).json()
    assert list(page["entries"][0]) == [
        *("at", "resource", "operation", "delta", "used", "actor", "idempotency_key", "reason")
    ]
    params = {"page_size": 4, "cursor": page["next_cursor"]}
    rest = (await one.get(path(acme, "ledger"), params=params)).json()
    assert rest["next_cursor"] is None
    assert page["entries"] + rest["entries"] == await ledger(one, acme)
    assert [line["used"] for line in await ledger(one, acme, "users")] == [3, 2, 1]


async def test_what_is_not_durable_is_counted_beside_the_rest(
    one: httpx.AsyncClient, other: httpx.AsyncClient, acme: str
) -> None:
    answer = await change(one, acme, "consume", cache_keys=1, users=1)
    assert [quota["used"] for quota in answer["quotas"]] == [1, 1]
    denied = await change(other, acme, "consume", users=1, cache_keys=4)
    assert denied["denied"] == ["cache_keys"]
    assert (await change(other, acme, "consume", users=5, cache_keys=1))["denied"] == ["users"]
    held = (await change(one, acme, "reserve", users=2, cache_keys=3))["reservation"]
    assert await used(other, acme, "cache_keys") == (1, 3)
    await post(other, acme, f"reservations/{held}/commit")
    assert (await used(one, acme, "users"), await used(one, acme, "cache_keys")) == ((3, 0), (4, 0))
    assert (await quotas(one, acme))["cache_keys"]["crossed"] == 50
    assert [line["resource"] for line in await ledger(one, acme)] == ["users", "users"]
    assert (await one.put(path(acme, "quotas/cache_keys"), json={"used": 0})).json()["used"] == 0


async def test_a_deleted_tenant_starts_from_zero(one: httpx.AsyncClient, acme: str) -> None:
    await change(one, acme, "consume", users=3, cache_keys=1, key="the-key")
    await change(one, acme, "reserve", users=2, cache_keys=2)
    assert (await one.delete(f"/v1/tenants/{acme}")).status_code == 204
    await put_tenant(one, acme)
    assert await used(one, acme, "users") == (0, 0)
    assert await used(one, acme, "cache_keys") == (0, 0)
    assert await ledger(one, acme) == []
    assert (await change(one, acme, "consume", users=5, key="the-key"))["allowed"]


async def bearing(client: httpx.AsyncClient, scope: str) -> dict[str, str]:
    """The headers of a new token of that scope."""
    return {"Authorization": f"Bearer {(await new_token(client, scope))['token']}"}
