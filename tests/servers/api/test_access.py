"""Who may do what: tokens, scopes, and the audit log that remembers."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.api import Caller, api_with, fields_of, hand_made_parts, problem_of

TENANT = {"tier": "pro"}
OVERRIDE = {"value": "500/minute", "reason": "launch day"}
TOKEN = {"scope": "host", "name": "shop"}

OPERATIONS: Mapping[tuple[str, str], Any] = {
    ("PUT", "/v1/tenants/acme"): TENANT,
    ("GET", "/v1/tenants/acme"): None,
    ("GET", "/v1/tenants"): None,
    ("GET", "/v1/tenants/acme/overrides"): None,
    ("PUT", "/v1/tenants/acme/overrides/limits/requests"): OVERRIDE,
    ("DELETE", "/v1/tenants/acme/overrides/limits/requests"): None,
    ("POST", "/v1/tokens"): TOKEN,
    ("GET", "/v1/tokens"): None,
    ("DELETE", "/v1/tokens/000000000000"): None,
    ("GET", "/v1/audit"): None,
    ("DELETE", "/v1/tenants/acme"): None,
}
HOST_MAY = {
    ("PUT", "/v1/tenants/acme"),
    ("GET", "/v1/tenants/acme"),
    ("GET", "/v1/tenants"),
    ("GET", "/v1/tenants/acme/overrides"),
}
TENANT_MAY = {("GET", "/v1/tenants/acme"), ("GET", "/v1/tenants/acme/overrides")}


async def answers_to(caller: Caller) -> dict[tuple[str, str], int]:
    """The status of every operation."""
    return {
        (method, path): (await caller.http.request(method, path, json=body)).status_code
        for (method, path), body in OPERATIONS.items()
    }


async def test_without_a_token_nothing_is_said(admin: Caller) -> None:
    await admin.put("/v1/tenants/acme", TENANT)
    for wrong in (
        None,
        "",
        "wrong",
        "pw_000000000000_" + "x" * 43,
        await admin.token("host") + "x",
    ):
        for method, path in OPERATIONS:
            # The body is no JSON: it is not even looked at.
            answer = await admin.with_token(wrong).http.request(method, path, content=b"{")
            problem_of(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"] == "Bearer"


async def test_the_other_header_is_as_good(admin: Caller) -> None:
    nobody = admin.with_token(None)
    headers = {"X-Partywall-Token": await admin.token("host")}
    assert (await nobody.http.get("/v1/tenants", headers=headers)).status_code == 200


async def test_a_hosts_token_does_what_a_host_app_needs(admin: Caller) -> None:
    await admin.put("/v1/tenants/acme", TENANT)
    answers = await answers_to(await admin.caller("host"))
    assert {operation for operation, status in answers.items() if status == 200} == HOST_MAY
    assert {answers[operation] for operation in OPERATIONS.keys() - HOST_MAY} == {403}


async def test_a_tenants_token_reads_its_own(admin: Caller) -> None:
    await admin.put("/v1/tenants/acme", TENANT)
    await admin.put("/v1/tenants/acme/overrides/limits/requests", OVERRIDE)
    acme = await admin.caller("tenant:acme")
    answers = await answers_to(acme)
    assert {operation for operation, status in answers.items() if status == 200} == TENANT_MAY
    assert {answers[operation] for operation in OPERATIONS.keys() - TENANT_MAY} == {403}
    assert (await acme.get("/v1/tenants/acme")).json()["tier"] == "pro"
    assert len((await acme.get("/v1/tenants/acme/overrides")).json()["overrides"]) == 1


async def test_a_tenants_token_learns_nothing_of_others(admin: Caller) -> None:
    for tenant in ("acme", "other"):
        await admin.put(f"/v1/tenants/{tenant}", TENANT)
    acme = await admin.caller("tenant:acme")
    for path in ("/v1/tenants/{}", "/v1/tenants/{}/overrides"):
        answers = [await acme.get(path.format(who)) for who in ("other", "nobody", "%00", "ACME")]
        assert len({answer.content for answer in answers}) == 1  # whether or not there is one
        problem_of(answers[0], 403, "forbidden")


async def test_a_tenants_token_whose_tenant_is_not_registered(admin: Caller) -> None:
    body = {"scope": "tenant:ghost", "name": "ghost"}
    problem_of(await admin.post("/v1/tokens", body), 404, "unknown-tenant")


async def test_unless_the_default_tier_serves_it(database_url: str) -> None:
    async with hand_made_parts(database_url, default_tier="free") as parts:
        admin = Caller(api_with(parts), "the-admin-token")
        ghost = await admin.caller("tenant:ghost")
        problem_of(await ghost.get("/v1/tenants/ghost"), 404, "unknown-tenant")


async def test_a_token_is_shown_once_listed_and_revoked(admin: Caller) -> None:
    answer = await admin.post("/v1/tokens", TOKEN)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert set(made) == {"id", "token", "scope", "name", "created_at"}
    assert made["created_at"].endswith("Z")
    shop = admin.with_token(made.pop("token"))
    assert (await shop.get("/v1/tenants")).status_code == 200

    answer = await admin.get("/v1/tokens")
    assert answer.json() == {"tokens": [made], "next_cursor": None}

    assert (await admin.delete(f"/v1/tokens/{made['id']}")).status_code == 204
    problem_of(await shop.get("/v1/tenants"), 401, "unauthenticated")
    problem_of(await admin.delete(f"/v1/tokens/{made['id']}"), 404, "unknown-token")
    assert (await admin.get("/v1/tokens")).json()["tokens"] == []


async def test_tokens_come_in_pages(admin: Caller) -> None:
    made = {(await admin.post("/v1/tokens", TOKEN)).json()["id"] for _ in range(5)}
    seen: list[str] = []
    params: dict[str, Any] = {"page_size": 2}
    while True:
        page = (await admin.get("/v1/tokens", **params)).json()
        seen += [token["id"] for token in page["tokens"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == sorted(made)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["scope", "name"]),
        ({"scope": "root", "name": "x"}, ["scope"]),
        ({"scope": "tenant:", "name": "x"}, ["scope"]),
        ({"scope": "host", "name": ""}, ["name"]),
        ({"scope": "host", "name": "x" * 201}, ["name"]),
        ({"scope": "host", "name": "a\nb"}, ["name"]),
        ({"scope": "host", "name": "x", "token": "pw_mine"}, ["token"]),
    ],
)
async def test_a_token_that_makes_no_sense_is_not_made(
    admin: Caller, body: dict[str, Any], fields: list[str]
) -> None:
    assert fields_of(await admin.post("/v1/tokens", body)) == fields


async def test_the_audit_log_says_who_did_what(admin: Caller) -> None:
    await admin.put("/v1/tenants/acme", TENANT)
    await admin.put("/v1/tenants/acme", {"tier": "free"})
    host = await admin.post("/v1/tokens", TOKEN)
    await admin.with_token(host.json()["token"]).put("/v1/tenants/other", TENANT)
    await admin.put("/v1/tenants/acme/overrides/limits/requests", OVERRIDE)
    entries = (await admin.get("/v1/audit")).json()["entries"]
    shop = f"shop ({host.json()['id']})"
    assert [(entry["actor"], entry["action"], entry["tenant"]) for entry in entries] == [
        ("admin", "override.set", "acme"),
        (shop, "tenant.created", "other"),
        ("admin", "token.created", None),
        ("admin", "tenant.updated", "acme"),
        ("admin", "tenant.created", "acme"),
    ]
    assert all(set(entry) == {"at", "actor", "action", "tenant", "detail"} for entry in entries)
    assert all(entry["at"].endswith("Z") for entry in entries)
    assert entries[3]["detail"] == {"tier": {"from": "pro", "to": "free"}}
    assert host.json()["token"] not in (await admin.get("/v1/audit")).text

    await admin.delete("/v1/tenants/acme")
    entries = (await admin.get("/v1/audit")).json()["entries"]
    assert [(entry["actor"], entry["action"], entry["tenant"]) for entry in entries] == [
        ("admin", "tenant.erased", "acme"),
        (shop, "tenant.created", "other"),
        ("admin", "token.created", None),
    ]


async def test_the_audit_log_comes_in_pages_and_by_tenant(admin: Caller) -> None:
    for tenant in ("a", "b", "a.x"):
        await admin.put(f"/v1/tenants/{tenant}", TENANT)
        await admin.put(f"/v1/tenants/{tenant}", {"tier": "free"})
    everything = (await admin.get("/v1/audit")).json()["entries"]
    seen: list[Any] = []
    params: dict[str, Any] = {"page_size": 4}
    while True:
        page = (await admin.get("/v1/audit", **params)).json()
        seen += page["entries"]
        if page["next_cursor"] is None:
            break
        await admin.put(f"/v1/tenants/late{len(seen)}", TENANT)  # shifts no page
        params["cursor"] = page["next_cursor"]
    assert seen == everything
    ours = (await admin.get("/v1/audit", tenant="a")).json()["entries"]
    assert [(entry["action"], entry["tenant"]) for entry in ours] == [
        ("tenant.updated", "a"),
        ("tenant.created", "a"),
    ]
    assert fields_of(await admin.get("/v1/audit", tenant="a b")) == ["tenant"]
