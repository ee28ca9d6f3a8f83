"""`/v1/authz`: what a gateway asks, and what it passes on to its client."""

import asyncio

import httpx
import pytest

from tests.acceptance.asking import check, fresh_tenant, new_token, put_tenant
from tests.support.api import fields_of, problem_of
from tests.support.sidecar import Sidecar

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]


async def test_an_admitted_request_has_both_families_of_headers(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    answer = await asked.get("/v1/authz", headers={"X-Tenant-ID": acme})
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["ratelimit-policy"] == '"requests";q=5;w=60'
    assert answer.headers["ratelimit"] in {f'"requests";r=4;t={t}' for t in (60, 61, 62)}
    assert answer.headers["x-ratelimit-limit"] == "5"
    assert answer.headers["x-ratelimit-remaining"] == "4"
    assert answer.headers["x-ratelimit-reset"] in {"60", "61", "62"}
    assert "retry-after" not in answer.headers


async def test_several_windows_are_items_of_their_own(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    headers = {"X-Tenant-ID": acme, "X-Limit": "exports"}
    answer = await asked.get("/v1/authz", headers=headers)
    policy = '"exports";q=100;w=3600, "exports-60s";q=10;w=60, "exports-1s";q=2;w=1'
    assert answer.headers["ratelimit-policy"] == policy
    assert [item.split(";")[:2] for item in answer.headers["ratelimit"].split(", ")] == [
        ['"exports"', "r=99"],
        ['"exports-60s"', "r=9"],
        ['"exports-1s"', "r=1"],
    ]
    # The legacy family knows one: the window with the least remaining.
    assert answer.headers["x-ratelimit-limit"] == "2"
    assert answer.headers["x-ratelimit-remaining"] == "1"


async def test_a_denial_is_a_problem_with_headers(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    await check(asked, acme, cost=5)
    answer = await asked.get("/v1/authz", headers={"X-Tenant-ID": acme})
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document.pop("title")
    assert document.pop("detail")
    assert document == {
        "type": QUOTA_EXCEEDED,
        "status": 429,
        "violated-policies": ["requests"],
        "tenant": acme,
        "tier": "free",
        "upgrade": "pro",
    }
    assert 55 <= int(answer.headers["retry-after"]) <= 63
    assert answer.headers["ratelimit"].startswith('"requests";r=0;t=')
    assert answer.headers["x-ratelimit-remaining"] == "0"


async def test_only_windows_without_room_are_violated(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    headers = {"X-Tenant-ID": acme, "X-Limit": "exports", "X-Cost": "3"}
    answer = await asked.get("/v1/authz", headers=headers)
    assert answer.json()["violated-policies"] == ["exports-1s"]
    assert "retry-after" not in answer.headers  # three never fit in one second
    assert "upgrade" not in answer.json()  # nor in another tier


async def test_the_upgrade_is_the_first_that_would_have_admitted_it(
    asked: httpx.AsyncClient,
) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    for cost, tier in (("50", "pro"), ("51", "enterprise")):
        headers = {"X-Tenant-ID": acme, "X-Cost": cost}
        answer = await asked.get("/v1/authz", headers=headers)
        assert answer.json()["upgrade"] == tier


async def test_unlimited_has_no_headers(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme, tier="enterprise")
    answer = await asked.get("/v1/authz", headers={"X-Tenant-ID": acme})
    assert answer.status_code == 200
    assert not any("ratelimit" in name for name in answer.headers)


async def test_cost_and_limit_are_charged(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    headers = {"X-Tenant-ID": acme, "X-Cost": "3"}
    assert (await asked.get("/v1/authz", headers=headers)).status_code == 200
    assert (await asked.get("/v1/authz", headers=headers)).status_code == 429
    assert (await check(asked, acme))["remaining"] == 1


@pytest.mark.parametrize("status", ["403", "400", "499"])
async def test_a_gateway_may_name_the_status_of_denials(
    asked: httpx.AsyncClient, status: str
) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    url = f"/v1/authz?deny={status}"
    assert (await asked.get(url, headers={"X-Tenant-ID": acme})).status_code == 200
    await check(asked, acme, cost=4)
    answer = await asked.get(url, headers={"X-Tenant-ID": acme})
    assert answer.status_code == answer.json()["status"] == int(status)
    assert answer.json()["type"] == QUOTA_EXCEEDED
    assert "retry-after" in answer.headers
    assert "ratelimit" in answer.headers


NO_STATUS = [
    *("deny=", "deny=200", "deny=302", "deny=399", "deny=500", "deny=4", "deny=40399"),
    *("deny=nope", "deny=-403", "deny=+403", "deny=%20403", "deny=403&deny=429"),
    *("deny=%D9%A4%D9%A0%D9%A3", "deny=403.0", f"deny={'4' * 5000}"),
]


@pytest.mark.parametrize("query", NO_STATUS)
async def test_below_the_path_the_query_may_be_the_clients_own(
    asked: httpx.AsyncClient, query: str
) -> None:
    """As Envoy passes it on: an app with a parameter of that name must not break."""
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    answer = await asked.get(f"/v1/authz/orders?{query}", headers={"X-Tenant-ID": acme})
    assert answer.status_code == 200


@pytest.mark.parametrize("query", NO_STATUS)
async def test_other_statuses_are_refused(asked: httpx.AsyncClient, query: str) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    answer = await asked.get(f"/v1/authz?{query}", headers={"X-Tenant-ID": acme})
    assert fields_of(answer) == ["deny"]


async def test_no_tenant(asked: httpx.AsyncClient) -> None:
    headers: list[dict[str, str]] = [{}, {"X-Tenant-ID": ""}]
    for given in headers:
        problem_of(await asked.get("/v1/authz", headers=given), 400, "invalid-request")


async def test_unknown_and_suspended_tenants_are_forbidden(asked: httpx.AsyncClient) -> None:
    gone, nobody = fresh_tenant(), fresh_tenant()
    await put_tenant(asked, gone, status="suspended")
    for tenant in (gone, nobody):
        for url in ("/v1/authz", "/v1/authz?deny=429"):
            answer = await asked.get(url, headers={"X-Tenant-ID": tenant})
            assert tenant in problem_of(answer, 403, "forbidden")["detail"]


async def test_an_unknown_limit(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    answer = await asked.get("/v1/authz", headers={"X-Tenant-ID": acme, "X-Limit": "nope"})
    problem_of(answer, 404, "unknown-limit")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *(("X-Tenant-ID", value) for value in ("a b", "x" * 129, "a}:{b", "acm\xe9", "-a", "*")),
        *(("X-Limit", value) for value in ("a b", "x" * 65, "{s1}", "\xb2")),
        *(
            ("X-Cost", value)
            for value in ("0", "-1", "1.0", "1e3", "x", "\xb2", "9007199254740992")
        ),
        ("X-Cost", "1" + "0" * 5000),
        ("X-Cost", "0" * 5000 + "1"),
        ("X-Cost", "0" * 17 + "9" * 40),
    ],
    ids=lambda it: it[:24],
)
async def test_bad_headers(asked: httpx.AsyncClient, header: str, value: str) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    given = {"X-Tenant-ID": acme, header: value}
    encoded = {name: it.encode("latin-1") for name, it in given.items()}
    answer = await asked.get("/v1/authz", headers=encoded)
    fields = {"X-Tenant-ID": "tenant", "X-Limit": "limit", "X-Cost": "X-Cost"}
    assert fields_of(answer) == [fields[header]]
    assert (await check(asked, acme))["remaining"] == 4


async def test_a_header_given_twice_must_not_differ(asked: httpx.AsyncClient) -> None:
    """What the gateway set and what its client sent must not be taken for one another."""
    acme, other = fresh_tenant(), fresh_tenant()
    for tenant in (acme, other):
        await put_tenant(asked, tenant)
    for first, second in ((acme, other), (other, acme), (acme, "")):
        twice = [("X-Tenant-ID", first), ("X-Tenant-ID", second)]
        answer = await asked.get("/v1/authz", headers=twice)
        problem_of(answer, 422, "invalid-request")
    same = [("X-Tenant-ID", acme), ("x-tenant-id", acme)]
    assert (await asked.get("/v1/authz", headers=same)).headers["x-ratelimit-remaining"] == "4"


@pytest.mark.parametrize("method", METHODS)
async def test_any_method_and_any_path_below(asked: httpx.AsyncClient, method: str) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    headers = {"X-Tenant-ID": acme}
    paths = ["/v1/authz", "/v1/authz/", "/v1/authz/orders/7?deny=403&x=%zz", "/v1/authz//v1/tokens"]
    for path in paths:
        answer = await asked.request(method, path, headers=headers)
        assert (answer.status_code, answer.content) == (200, b"")
    await check(asked, acme)
    denied = await asked.request(method, "/v1/authz/orders", headers=headers)
    assert denied.status_code == 429
    assert int(denied.headers["content-length"]) > 0
    assert bool(denied.content) is (method != "HEAD")
    # The connection goes on: what a HEAD was not sent is not taken for the next answer.
    assert (await asked.get("/healthz")).text == "ok\n"


async def test_what_only_looks_like_it_is_not_it(asked: httpx.AsyncClient) -> None:
    for path in ("/v1/authzz", "/v1/authz-x", "/V1/authz", "/v1//authz"):
        problem_of(await asked.get(path, headers={"X-Tenant-ID": "a"}), 404, "not-found")


async def test_the_body_of_the_request_is_left_alone(asked: httpx.AsyncClient) -> None:
    """Envoy may pass one on, of any size and kind."""
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    headers = {"X-Tenant-ID": acme, "Content-Type": "text/plain"}
    for body in (b"x", b"x" * 3_000_000):
        answer = await asked.post("/v1/authz", content=body, headers=headers)
        assert answer.status_code == 200


async def test_tokens(asked: httpx.AsyncClient, asked_sidecar: Sidecar) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    host = (await new_token(asked, "host"))["token"]
    own = (await new_token(asked, f"tenant:{acme}"))["token"]
    async with httpx.AsyncClient(verify=False, base_url=asked_sidecar.url) as client:

        async def ask(**headers: str) -> httpx.Response:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.get("/v1/authz", headers={"X-Tenant-ID": acme, **given})

        # A gateway passes its client's Authorization on, and says who itself is beside it.
        for foreign in ("Bearer eyJhbGciOi.J9.x", "Basic dTpw", "Digest x", "nonsense"):
            answer = await ask(Authorization=foreign, X_Partywall_Token=host)
            assert answer.status_code == 200, foreign
        assert (await ask(Authorization=f"Bearer {host}")).status_code == 200
        problem_of(await ask(Authorization=f"Bearer {own}"), 403, "forbidden")
        problem_of(await ask(), 401, "unauthenticated")
        problem_of(await ask(Authorization="Basic dTpw"), 401, "unauthenticated")
        answer = await ask(Authorization=f"Bearer {host}", X_Partywall_Token="nope")
        problem_of(answer, 401, "unauthenticated")


async def test_a_flood_is_admitted_exactly(asked: httpx.AsyncClient) -> None:
    acme = fresh_tenant()
    await put_tenant(asked, acme)
    headers = {"X-Tenant-ID": acme}
    answers = await asyncio.gather(
        *(asked.get(f"/v1/authz/{n}", headers=headers) for n in range(60))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 55
